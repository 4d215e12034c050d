"""Calls that must not be left half-way, whoever cancels the pass that makes them."""

import asyncio
from collections.abc import Coroutine
from typing import Any, TypeVar

T = TypeVar("T")


async def unbroken(work: Coroutine[Any, Any, T]) -> T:
    """Sees a call through that makes or unmakes something, even when the pass is cancelled meanwhile.

    A sandbox whose creation was abandoned half-way would turn up later with nobody to expect it. The task is owned
    here: this function does not return before it has ended.
    """
    task = asyncio.get_running_loop().create_task(work)
    interruption: asyncio.CancelledError | None = None
    while not task.done():
        try:
            await asyncio.wait((task,))
        except asyncio.CancelledError as error:
            interruption = error
    if interruption is not None:
        if not task.cancelled():
            task.exception()  # the next observation says what became of it
        raise interruption
    return task.result()
