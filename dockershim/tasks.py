"""Who owns the tasks of dockershim, and how a mutation ends when its caller has gone.

Owns the one task group for work that outlives an RPC, and `Mutation`: steps that are not torn apart by a cancelled
call, with undos in reverse order under their own deadline. Must not know what the steps do. Upstream counterpart:
containerd's DeferContext. Deliberate difference: the undo first waits for the step that was under way, since undoing
what has not happened yet undoes nothing.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine
from types import TracebackType
from typing import Any, Self, TypeVar

import structlog

T = TypeVar("T")
_log = structlog.get_logger()
UNDO_SECONDS = 60.0


class Tasks:
    """A task group whose members fail alone: an error is logged, and told to whoever waits."""

    def __init__(self) -> None:
        self._group = asyncio.TaskGroup()
        self._running: set[asyncio.Task[None]] = set()

    async def __aenter__(self) -> Self:
        await self._group.__aenter__()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._group.__aexit__(kind, error, trace)

    def spawn(self, work: Coroutine[Any, Any, T], name: str) -> asyncio.Future[T]:
        """Begin work that nobody cancels but the end of the program. The future may be left alone."""
        outcome: asyncio.Future[T] = asyncio.get_running_loop().create_future()
        outcome.add_done_callback(_retrieve)

        async def body() -> None:
            try:
                result = await work
            except asyncio.CancelledError:
                outcome.cancel()
                raise
            except Exception as error:
                if not outcome.done():
                    outcome.set_exception(error)
            else:
                if not outcome.done():
                    outcome.set_result(result)

        self._begin(body(), name, work)
        return outcome

    async def complete(self, work: Coroutine[Any, Any, T], name: str) -> T:
        """Work that goes to its end also when the one who waits for it is cancelled."""
        return await asyncio.shield(self.spawn(work, name))

    def shut_down(self) -> None:
        """Cancel everything that still runs: the program ends."""
        for task in list(self._running):
            task.cancel()

    def _begin(self, body: Coroutine[Any, Any, None], name: str, work: Coroutine[Any, Any, Any]) -> None:
        task = self._group.create_task(body, name=name)
        self._running.add(task)

        def ended(ended_task: asyncio.Task[None]) -> None:
            self._running.discard(ended_task)
            work.close()  # work that was cancelled before its first step has never been awaited

        task.add_done_callback(ended)

    def spawn_logged(self, work: Coroutine[Any, Any, Any], name: str) -> None:
        """Begin work whose failure only the log will hear of."""

        async def body() -> None:
            try:
                await work
            except Exception:
                _log.exception("background_work_failed", work=name)

        self._begin(body(), name, work)


def _retrieve(outcome: asyncio.Future[Any]) -> None:
    if not outcome.cancelled():
        outcome.exception()


class Mutation:
    """Steps that belong together. Leaving with an error undoes what was done, also when the caller is gone."""

    def __init__(self, tasks: Tasks, name: str, undo_seconds: float = UNDO_SECONDS) -> None:
        self._tasks = tasks
        self._name = name
        self._undo_seconds = undo_seconds
        self._undos: list[tuple[str, Callable[[], Awaitable[Any]]]] = []
        self._pending: set[asyncio.Future[Any]] = set()

    def on_failure(self, what: str, undo: Callable[[], Awaitable[Any]]) -> None:
        """Push an undo. Do it before the step, so that a step that failed half-way is undone too."""
        self._undos.append((what, undo))

    async def step(self, work: Coroutine[Any, Any, T]) -> T:
        """A step that runs to its end even when the caller is cancelled meanwhile."""
        outcome = self._tasks.spawn(work, self._name)
        self._pending.add(outcome)
        result = await asyncio.shield(outcome)
        self._pending.discard(outcome)
        return result

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is not None and self._undos:
            await asyncio.shield(self._tasks.spawn(self._undo(), f"{self._name} undo"))

    async def _undo(self) -> None:
        try:
            async with asyncio.timeout(self._undo_seconds):
                if self._pending:
                    await asyncio.wait(self._pending)
                for what, undo in reversed(self._undos):
                    try:
                        await undo()
                    except Exception as failure:
                        _log.warning("undo_failed", work=self._name, step=what, error=str(failure))
        except TimeoutError:
            _log.error("undo_timed_out", work=self._name, after_seconds=self._undo_seconds)
