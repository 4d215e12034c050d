"""Waits for what a cluster brings about, by looking again, under a deadline.

The tests stand outside of the cluster and its API server is the only thing to ask, so they poll: quickly at first.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")

FIRST_PAUSE_SECONDS = 0.05
LONGEST_PAUSE_SECONDS = 0.3


def holds(look: Callable[[], T], *, within_seconds: float) -> T:
    """What `look` gives once it finds what it looks for; its last complaint when it never stops."""
    deadline = time.monotonic() + within_seconds
    pause_seconds = FIRST_PAUSE_SECONDS
    while True:
        try:
            return look()
        except (AssertionError, LookupError, OSError):  # not there yet; OSError: the API server is away
            if time.monotonic() > deadline:
                raise
        time.sleep(pause_seconds)
        pause_seconds = min(pause_seconds * 1.5, LONGEST_PAUSE_SECONDS)


def eventually(what: str, look: Callable[[], T], *, within_seconds: float) -> T:
    """What `look` gives once it is true."""

    def found() -> T:
        value = look()
        assert value, f"{what} did not come about within {within_seconds} s"
        return value

    return holds(found, within_seconds=within_seconds)
