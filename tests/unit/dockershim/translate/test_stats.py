"""Rates, and what is left unset."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from dockershim.translate.stats import SHORTEST_WINDOW_NS, CpuSample, next_sample

SECOND = 10**9


def test_a_rate_needs_two_samples() -> None:
    """Half a processor for two seconds."""
    first = next_sample(None, 5 * SECOND, 100)
    assert first.rate_nano_cores is None
    second = next_sample(first, 7 * SECOND, 100 + SECOND)
    assert second.rate_nano_cores == SECOND // 2


def test_two_callers_do_not_spoil_each_others_rate() -> None:
    """A second look in the same moment shows the rate of the first and keeps its beginning."""
    before = CpuSample(10 * SECOND, 1000, 42)
    assert next_sample(before, 10 * SECOND + SHORTEST_WINDOW_NS - 1, 5000) == before


def test_time_that_went_back_begins_anew() -> None:
    """Another cgroup, or another clock: never a negative rate."""
    before = CpuSample(10 * SECOND, 1000, 42)
    assert next_sample(before, 20 * SECOND, 999) == CpuSample(20 * SECOND, 999)
    assert next_sample(before, 9 * SECOND, 2000) == CpuSample(9 * SECOND, 2000)


@given(st.lists(st.tuples(st.integers(0, 10**11), st.integers(0, 10**12)), max_size=20))
def test_rates_are_never_negative_nor_faster_than_what_was_used(samples: list[tuple[int, int]]) -> None:
    """Whatever order the readings come in."""
    kept: CpuSample | None = None
    for at_ns, usage_ns in samples:
        kept = next_sample(kept, at_ns, usage_ns)
        assert kept.rate_nano_cores is None or 0 <= kept.rate_nano_cores <= max(usage for _, usage in samples)
