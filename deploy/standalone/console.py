"""What `make up` and `make down` say while they work."""

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager


class StandaloneError(Exception):
    """A step could not be done; the message says which, why, and what would help."""


@contextmanager
def step(text: str) -> Iterator[None]:
    """Say what is being done, then how long it took."""
    sys.stdout.write(f"  {text} ... ")
    sys.stdout.flush()
    started = time.monotonic()
    try:
        yield
    except BaseException:
        sys.stdout.write("failed\n")
        sys.stdout.flush()  # before what standard error says about it
        raise
    sys.stdout.write(f"done ({time.monotonic() - started:.1f} s)\n")
    sys.stdout.flush()


def say(text: str = "") -> None:
    """One line for the person."""
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()


def wait_until(what: str, happens: Callable[[], bool], *, timeout_seconds: float, hint: str = "") -> None:
    """Look until it happens; StandaloneError after the time is over, with a hint where to look."""
    deadline = time.monotonic() + timeout_seconds
    while not happens():
        if time.monotonic() > deadline:
            raise StandaloneError(f"{what} did not happen within {timeout_seconds:.0f} s{f'; {hint}' if hint else ''}")
        time.sleep(0.1)
