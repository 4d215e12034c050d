"""What becomes of the files of a log that has grown too long."""

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kubelet_py.core.log_rotation import is_log_name, lost_log, plan_rotation, restart_count_of, rotated_name

DAY = "0.log.20260101-00000"


def test_a_rotated_log_is_named_after_the_time_in_utc() -> None:
    assert rotated_name("3.log", 1767225600) == "3.log.20260101-000000"
    assert rotated_name("3.log", 1767225601.9) == "3.log.20260101-000001"


def test_only_the_file_that_a_run_writes_is_a_log() -> None:
    assert [name for name in ("0.log", "12.log", "0.log.gz", f"{DAY}1", "x.log", "0.log.tmp") if is_log_name(name)] == [
        "0.log",
        "12.log",
    ]
    assert restart_count_of("12.log") == 12


def test_the_oldest_go_and_the_others_are_compressed() -> None:
    """Of five files one is the log and one what it becomes now: three of the older ones stay."""
    names = ["0.log", *(f"{DAY}{number}.gz" for number in range(3)), f"{DAY}3", f"{DAY}4"]
    plan = plan_rotation("0.log", names, 5)
    assert plan.removed == (f"{DAY}0.gz", f"{DAY}1.gz")
    assert plan.compressed == (f"{DAY}3", f"{DAY}4")


def test_with_two_files_nothing_older_stays() -> None:
    plan = plan_rotation("0.log", ["0.log", f"{DAY}1"], 2)
    assert (plan.removed, plan.compressed) == ((f"{DAY}1",), ())


def test_what_a_crash_left_goes() -> None:
    """A half compressed file, and a plain one whose compressed one is whole."""
    names = ["0.log", f"{DAY}1", f"{DAY}1.gz", f"{DAY}2", f"{DAY}2.gz.tmp", f"{DAY}3.tmp"]
    plan = plan_rotation("0.log", names, 9)
    assert set(plan.removed) == {f"{DAY}1", f"{DAY}2.gz.tmp", f"{DAY}3.tmp"}
    assert plan.compressed == (f"{DAY}2",)


def test_other_files_are_not_touched() -> None:
    """Those of other runs, and whatever else somebody put there."""
    names = ["0.log", "1.log", "10.log.20260101-000000", "1.log.20260101-000000", "0.log.txt", "0.log.bak.tmp", "core"]
    plan = plan_rotation("0.log", names, 2)
    assert (plan.removed, plan.compressed) == ((), ())


@given(
    st.sets(st.tuples(st.integers(0, 9), st.sampled_from(["", ".gz", ".tmp", ".gz.tmp"]))),
    st.integers(2, 6),
)
def test_after_a_plan_no_more_is_there_than_may_be(found: set[tuple[int, str]], max_files: int) -> None:
    """And what stays is the newest, each once, compressed or about to be."""
    names = {f"{DAY}{number}{suffix}" for number, suffix in found}
    plan = plan_rotation("0.log", ["0.log", *names], max_files)
    left = sorted(names - set(plan.removed))
    assert len(left) <= max_files - 2
    assert all(name.endswith(".gz") or name in plan.compressed for name in left)
    whole = sorted({number for number, suffix in found if suffix in ("", ".gz")})
    assert [int(name.removesuffix(".gz")[-1]) for name in left] == whole[len(whole) - len(left) :]
    assert len(left) == min(max_files - 2, len(whole))
    assert not set(plan.removed) & set(plan.compressed)
    assert all(earlier <= later for earlier, later in itertools.pairwise(plan.compressed))


@pytest.mark.parametrize(
    ("names", "known_run", "expected"),
    [
        ([], -1, (None, -1)),
        (["other.txt", "x.log"], -1, (None, -1)),
        (["0.log"], -1, (None, 0)),
        (["0.log", "1.log", "0.log.20260101-000000.gz"], 0, (None, 1)),
        (["0.log"], 1, ("1.log", 1)),
        ([], 3, ("3.log", 3)),
        (["9.log", "10.log.20260101-000000"], -1, ("10.log", 10)),
    ],
)
def test_the_log_of_the_newest_run_is_missed(
    names: list[str], known_run: int, expected: tuple[str | None, int]
) -> None:
    assert lost_log(names, known_run) == expected
