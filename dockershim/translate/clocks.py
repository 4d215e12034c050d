"""Docker's times on the clock that orders what dockershim saw. Pure. Upstream counterpart: none.

Docker tells in wall time when something happened, and that clock can be set. What is newer is decided by the monotonic
clock, which only goes on.
"""

from __future__ import annotations


def monotonic_time(told_ns: int, *, wall_now_ns: int, monotonic_now_ns: int) -> int:
    """When something happened that Docker tells of now.

    What is of the future happened now: the clock was set back since, and it is better looked at once too often.
    """
    return monotonic_now_ns - max(0, wall_now_ns - told_ns)
