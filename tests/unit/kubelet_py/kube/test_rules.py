"""Back-off, rate limit and strategic patches: the pure parts."""

from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from kubelet_py.kube.backoff import Backoff
from kubelet_py.kube.rate_limit import TokenBucket
from kubelet_py.kube.strategic_patch import strategic_patch
from tests.fakes.strategic_merge import apply_strategic


def test_pauses_double_up_to_the_cap_and_start_again() -> None:
    backoff = Backoff(0.8, 30.0, random=lambda: 0.0)
    assert [backoff.next_seconds(now) for now in range(7)] == [0.8, 1.6, 3.2, 6.4, 12.8, 25.6, 30.0]
    backoff.reset()
    assert backoff.next_seconds(8) == 0.8
    assert backoff.next_seconds(9) == 1.6
    assert backoff.next_seconds(200) == 0.8


@given(st.floats(0, 1), st.integers(1, 30))
def test_a_pause_stays_between_its_base_and_the_cap(fraction: float, tries: int) -> None:
    backoff = Backoff(0.8, 30.0, random=lambda: fraction)
    pauses = [backoff.next_seconds(0.0) for _ in range(tries)]
    assert all(0.8 <= pause <= 30.0 for pause in pauses)


def test_a_burst_passes_and_the_rest_waits_in_order() -> None:
    bucket = TokenBucket(10, 2)
    assert [round(bucket.reserve(0.0), 3) for _ in range(4)] == [0, 0, 0.1, 0.2]
    assert bucket.reserve(10.0) == 0


def test_a_rate_of_zero_limits_nothing() -> None:
    bucket = TokenBucket(0, 1)
    assert [bucket.reserve(0.0) for _ in range(100)] == [0.0] * 100


@given(st.lists(st.floats(0, 100), max_size=60).map(sorted), st.integers(1, 50), st.integers(1, 20))
def test_no_window_gets_more_than_burst_and_rate_allow(times: list[float], qps: int, burst: int) -> None:
    bucket = TokenBucket(qps, burst)
    starts = [now + bucket.reserve(now) for now in times]
    for first, begin in enumerate(starts):
        for last in range(first, len(starts)):
            assert last - first + 1 <= burst + qps * (starts[last] - begin) + 1 + 1e-6


def members(key: str, names: list[str]) -> st.SearchStrategy[list[dict[str, str]]]:
    value = st.fixed_dictionaries({key: st.sampled_from(names)}, optional={"status": st.text(max_size=2)})
    return st.lists(value, unique_by=lambda each: each[key], max_size=3)


STATUSES = st.fixed_dictionaries(
    {},
    optional={
        "phase": st.sampled_from(["Pending", "Running"]),
        "conditions": members("type", ["Ready", "Initialized", "Other"]),
        "podIPs": members("ip", ["10.0.0.1", "fd00::1"]),
        "containerStatuses": members("name", ["a", "b"]),
        "capacity": st.dictionaries(st.sampled_from(["cpu", "memory"]), st.text(max_size=2)),
    },
)


def by_type(status: dict[str, Any]) -> dict[str, Any]:
    """Merged lists have no order of their own; an empty one and none at all are the same."""
    ordered = dict(status)
    if "conditions" in ordered:
        ordered["conditions"] = sorted(ordered["conditions"], key=lambda each: str(each["type"]))
    return {name: value for name, value in ordered.items() if value not in ([], {})}


@given(STATUSES, STATUSES)
def test_the_patch_brings_any_status_to_any_other(old: dict[str, Any], new: dict[str, Any]) -> None:
    assert by_type(apply_strategic(old, strategic_patch(old, new))) == by_type(new)


@given(STATUSES)
def test_nothing_to_change_is_an_empty_patch(status: dict[str, Any]) -> None:
    assert strategic_patch(status, status) == {}
