"""Back-off as client-go's, as values."""

from hypothesis import given
from hypothesis import strategies as st

from kubelet_py.api import core_v1
from kubelet_py.core.backoff import (
    CRASH_BACKOFF,
    IMAGE_BACKOFF,
    BackoffEntry,
    BackoffPolicy,
    crash_backoff_key,
    crash_policy,
    is_backing_off,
    next_entry,
    remaining_seconds,
    without_expired,
)


def test_nothing_waits_without_an_entry() -> None:
    """The first failure is tried again at once."""
    assert remaining_seconds(None, 100.0) == 0
    assert not is_backing_off(None, 100.0, since_seconds=99.0)


def test_delays_double_up_to_the_ceiling() -> None:
    """10 s, 20 s, 40 s, 80 s, 160 s, then 300 s for good."""
    entry = None
    delays = []
    for step in range(8):
        entry = next_entry(entry, CRASH_BACKOFF, step * 300.0, since_seconds=step * 300.0)
        delays.append(entry.delay_seconds)
    assert delays == [10, 20, 40, 80, 160, 300, 300, 300]


def test_the_wait_of_a_crash_counts_from_the_end_of_the_run() -> None:
    """Set at 100 and crashed at 130: the 10 s end at 140."""
    entry = BackoffEntry(10.0, 100.0)
    assert remaining_seconds(entry, 131.0, since_seconds=130.0) == 9.0
    assert not is_backing_off(entry, 140.0, since_seconds=130.0)


def test_the_wait_of_a_pull_counts_from_the_failure() -> None:
    """Without another moment, the entry's own counts."""
    entry = BackoffEntry(10.0, 100.0)
    assert remaining_seconds(entry, 104.0) == 6.0
    assert is_backing_off(entry, 109.5)
    assert not is_backing_off(entry, 110.0)


def test_ten_good_minutes_are_forgiven() -> None:
    """A crash more than 600 s after the last restart starts afresh; exactly 600 s do not suffice."""
    entry = BackoffEntry(300.0, 100.0)
    assert is_backing_off(entry, 701.0, since_seconds=700.0)
    assert not is_backing_off(entry, 702.0, since_seconds=701.0)
    assert next_entry(entry, CRASH_BACKOFF, 702.0, since_seconds=701.0).delay_seconds == 10.0
    assert next_entry(entry, CRASH_BACKOFF, 702.0, since_seconds=700.0).delay_seconds == 300.0
    assert next_entry(entry, IMAGE_BACKOFF, 701.0).delay_seconds == 10.0
    assert remaining_seconds(entry, 701.0) == 0


def test_an_entry_carries_its_cause() -> None:
    """The message of ImagePullBackOff names the failure behind it."""
    assert next_entry(None, IMAGE_BACKOFF, 1.0, cause="no such image") == BackoffEntry(10.0, 1.0, "no such image")


def test_an_entry_is_forgotten_when_its_policy_says() -> None:
    entry = next_entry(None, BackoffPolicy(reset_after_seconds=5.0), 100.0)
    assert not entry.is_expired(105.0)
    assert entry.is_expired(105.5)


def test_a_node_may_lower_the_ceiling() -> None:
    """The first delay never lies above it, and good behaviour is forgiven after the same ten minutes."""
    assert crash_policy(None) is CRASH_BACKOFF
    assert crash_policy(4.0) == BackoffPolicy(4.0, 4.0, 600.0)
    assert crash_policy(60.0) == BackoffPolicy(10.0, 60.0, 600.0)
    assert crash_policy(None, is_reduced=True) == BackoffPolicy(1.0, 60.0, 600.0)
    assert crash_policy(300.0, is_reduced=True) == BackoffPolicy(1.0, 300.0, 600.0)


def test_old_entries_are_forgotten() -> None:
    """Only what can still matter is kept."""
    entries = {"old": BackoffEntry(10.0, 0.0), "new": BackoffEntry(10.0, 500.0)}
    assert without_expired(entries, 601.0) == {"new": entries["new"]}


def test_entries_are_forgotten_by_a_clock_that_nobody_sets() -> None:
    """By the wall clock, which was set back, this one is of the time to come."""
    entry = next_entry(None, CRASH_BACKOFF, 9000.0, since_seconds=9000.0, made_at_seconds=50.0)
    assert without_expired({"app": entry}, 650.0) == {"app": entry}
    assert without_expired({"app": entry}, 650.5) == {}


def test_another_image_or_other_resources_begin_afresh() -> None:
    """The key tells them apart, and the same container is the same."""
    plain = core_v1.Container(name="app", image="a:1")
    limited = core_v1.Container(name="app", image="a:1", resources=core_v1.ResourceRequirements(limits={"cpu": "1"}))
    bigger = core_v1.Container(name="app", image="a:1", resources=core_v1.ResourceRequirements(limits={"cpu": "2"}))
    newer = core_v1.Container(name="app", image="a:2")
    unnamed = core_v1.Container(name="app")
    assert crash_backoff_key(plain) == crash_backoff_key(core_v1.Container(name="app", image="a:1"))
    assert len({crash_backoff_key(c) for c in (plain, limited, bigger, newer, unnamed)}) == 5


@given(
    gaps=st.lists(st.integers(0, 2000), max_size=20),
    initial_seconds=st.integers(1, 20),
    ceiling_seconds=st.integers(20, 400),
)
def test_a_delay_stays_between_the_first_and_the_ceiling(
    gaps: list[int], initial_seconds: int, ceiling_seconds: int
) -> None:
    """Whatever the history, no wait is longer than the ceiling, and it ends when it should."""
    policy = BackoffPolicy(initial_seconds, ceiling_seconds)
    now_seconds, entry = 0.0, None
    for gap in gaps:
        now_seconds += gap
        entry = next_entry(entry, policy, now_seconds, since_seconds=now_seconds)
        assert initial_seconds <= entry.delay_seconds <= ceiling_seconds
        assert not is_backing_off(entry, now_seconds + entry.delay_seconds, since_seconds=now_seconds)
