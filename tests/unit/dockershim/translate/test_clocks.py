"""Docker's times on the monotonic clock."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from dockershim.translate.clocks import monotonic_time

moments = st.integers(0, 2**62)


@given(moments, moments, moments)
def test_what_was_told_is_as_old_as_it_says_and_never_of_the_future(told: int, wall: int, monotonic: int) -> None:
    """Where it says so all the same, the clock was set back: it happened now."""
    happened = monotonic_time(told, wall_now_ns=wall, monotonic_now_ns=monotonic)
    assert happened <= monotonic
    assert monotonic - happened == (wall - told if told <= wall else 0)
