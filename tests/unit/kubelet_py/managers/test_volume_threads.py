"""Calls that nobody waits for any more."""

import asyncio
import threading

import pytest

from kubelet_py.managers.volumes.threads import UnboundedThreads
from tests.fakes.waiting import eventually


async def test_a_call_that_was_given_up_is_done_when_it_ends() -> None:
    may_end = threading.Event()
    work = UnboundedThreads().submit(may_end.wait)
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0):
            await asyncio.wrap_future(work)
    assert not work.done()
    may_end.set()
    assert await asyncio.to_thread(work.result) is True


async def test_an_error_of_the_call_is_the_waiters() -> None:
    with pytest.raises(ZeroDivisionError):
        await asyncio.wrap_future(UnboundedThreads().submit(divmod, 1, 0))


def test_a_process_can_end_while_a_call_hangs() -> None:
    may_end = threading.Event()
    named: list[threading.Thread] = []

    def hang() -> None:
        named.append(threading.current_thread())
        may_end.wait()

    work = UnboundedThreads().submit(hang)
    may_end.set()
    work.result()
    assert named[0].daemon


async def test_a_thread_that_is_free_takes_the_next_call() -> None:
    threads, may_end = UnboundedThreads(), threading.Event()
    hanging = threads.submit(may_end.wait)
    seen: set[int] = set()

    def took_one_of_before() -> bool:
        used: int = threads.submit(threading.get_ident).result()
        known = used in seen
        seen.add(used)
        return known

    await eventually(took_one_of_before)
    assert not hanging.done()
    may_end.set()
    assert await asyncio.to_thread(hanging.result) is True


async def test_a_thread_that_nobody_needs_ends() -> None:
    threads = UnboundedThreads(idle_seconds=0)
    used: threading.Thread = await asyncio.wrap_future(threads.submit(threading.current_thread))
    await asyncio.to_thread(used.join, 10)
    assert not used.is_alive()
    assert await asyncio.wrap_future(threads.submit(divmod, 7, 2)) == (3, 1)
