"""One way to tell a person what takes long: lines on stderr, with the time since the work began."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager


def say(message: str) -> None:
    """Print one line of progress."""
    print(f"lab: {message}", file=sys.stderr, flush=True)


@contextmanager
def step(message: str, *, quiet_below_seconds: float = 0.0) -> Iterator[None]:
    """Print a line when the work begins and one with its duration when it ends; errors say so too."""
    started = time.monotonic()
    if quiet_below_seconds <= 0:
        say(f"{message} ...")
    try:
        yield
    except BaseException:
        say(f"{message}: FAILED after {time.monotonic() - started:.1f} s")
        raise
    took = time.monotonic() - started
    if took >= quiet_below_seconds:
        say(f"{message}: done in {took:.1f} s")
