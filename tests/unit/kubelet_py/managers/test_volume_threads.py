"""Calls that nobody waits for any more."""

import asyncio
import threading

import pytest

from kubelet_py.managers.volumes.threads import ThreadPerCall


async def test_a_call_that_was_given_up_is_done_when_it_ends() -> None:
    may_end = threading.Event()
    work = ThreadPerCall().submit(may_end.wait)
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0):
            await asyncio.wrap_future(work)
    assert not work.done()
    may_end.set()
    assert await asyncio.to_thread(work.result) is True


async def test_an_error_of_the_call_is_the_waiters() -> None:
    with pytest.raises(ZeroDivisionError):
        await asyncio.wrap_future(ThreadPerCall().submit(divmod, 1, 0))


def test_a_process_can_end_while_a_call_hangs() -> None:
    may_end = threading.Event()
    named: list[threading.Thread] = []

    def hang() -> None:
        named.append(threading.current_thread())
        may_end.wait()

    work = ThreadPerCall().submit(hang)
    may_end.set()
    work.result()
    assert named[0].daemon
