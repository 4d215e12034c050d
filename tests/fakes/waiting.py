"""Waits for what other tasks bring about, by looking at it after each turn of the loop."""

import asyncio
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from typing import Any


async def eventually(condition: Callable[[], Any], what: str = "", *, seconds: float = 30.0) -> None:
    """Return as soon as the condition holds; fail when it does not within real seconds."""
    try:
        async with asyncio.timeout(seconds):
            while not condition():  # noqa: ASYNC110 # any condition, not only events of our own
                await asyncio.sleep(0.002)
    except TimeoutError:
        raise AssertionError(f"did not come about within {seconds} s: {what or condition}") from None


@asynccontextmanager
async def background(*coroutines: Coroutine[Any, Any, Any]) -> AsyncIterator[None]:
    """Run these while the block runs; an error of theirs fails the test."""
    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(each) for each in coroutines]
        yield
        for task in tasks:
            task.cancel()
