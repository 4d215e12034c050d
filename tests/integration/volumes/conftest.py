"""A mount namespace for each test, so that nothing it mounts is seen outside or survives it."""

import asyncio
import ctypes
import errno
import os
import time
from collections.abc import Coroutine, Iterator
from pathlib import Path
from typing import Any

import pytest

CLONE_NEWNS = 0x00020000
MS_REC_PRIVATE = 16384 | (1 << 18)


def _checked(result: int, what: str) -> None:
    if result != 0:
        number = ctypes.get_errno()
        raise OSError(number, f"{what}: {os.strerror(number)}")


def run(main: Coroutine[Any, Any, None]) -> None:
    """asyncio.run on a loop that the event loop policy, which pytest-asyncio watches, never hears of."""
    loop = asyncio.new_event_loop()
    try:
        loop.run_until_complete(main)
        loop.run_until_complete(loop.shutdown_default_executor())
    finally:
        loop.close()


@pytest.fixture
def private_mounts() -> Iterator[None]:
    """The main thread moves to a namespace of its own and back.

    Threads started meanwhile belong to it and must have ended when the test does (asyncio.run and a closed manager
    see to that): the kernel refuses the way back otherwise, and the test fails.
    """
    if os.geteuid() != 0:
        pytest.skip("mounting needs root")
    libc = ctypes.CDLL(None, use_errno=True)
    with open("/proc/thread-self/ns/mnt", "rb") as home:
        _checked(libc.unshare(CLONE_NEWNS), "unshare")
        _checked(libc.mount(b"none", b"/", None, ctypes.c_ulong(MS_REC_PRIVATE), None), "make private")
        yield
        deadline = time.monotonic() + 5
        while libc.setns(home.fileno(), CLONE_NEWNS) != 0:
            # A thread that was joined in Python may take a moment more to leave the kernel.
            number = ctypes.get_errno()
            if number != errno.EINVAL or time.monotonic() > deadline:
                raise OSError(number, "cannot leave the test's mount namespace: does a thread of the test still run?")
            os.sched_yield()


@pytest.fixture
def root(private_mounts: None, tmp_path: Path) -> Path:
    """A root directory for an agent."""
    return tmp_path / "kubelet"
