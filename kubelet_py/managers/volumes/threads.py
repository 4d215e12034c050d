"""Threads for operations on files: as many as there are operations at a time.

A call to a file system that is gone (a dead NFS server's) may never return, and nothing can end its thread. In a pool
of so many it would keep a place for ever, and a few pods of such a volume would stop the volumes of all; nor could the
agent end while the pool waits for it. What does return leaves its thread to the next for a while: to start one takes
the caller's time, most of it on a busy machine.

Upstream counterpart: a goroutine per operation (pkg/util/goroutinemap).
"""

import queue
import threading
from collections import deque
from collections.abc import Callable
from concurrent.futures import Executor, Future
from typing import Any, Final

IDLE_SECONDS: Final = 5.0


class UnboundedThreads(Executor):
    """How many operations there are at a time is the caller's business."""

    def __init__(self, idle_seconds: float = IDLE_SECONDS) -> None:
        self._idle_seconds = idle_seconds
        self._idle: deque[_Thread] = deque()

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> "Future[Any]":
        """It runs at once. Whoever waits may give up; the future is done when the call has ended, and not before."""
        work: Future[Any] = Future()
        work.set_running_or_notify_cancel()

        def run() -> None:
            try:
                work.set_result(fn(*args, **kwargs))
            except BaseException as error:
                work.set_exception(error)

        try:
            thread = self._idle.pop()
        except IndexError:
            thread = _Thread(self._idle, self._idle_seconds)
            threading.Thread(target=thread.live, name="file-operations", daemon=True).start()
        thread.calls.put(run)
        return work


class _Thread:
    """One of them. It is among the idle while it waits; whoever takes it from there gives it a call."""

    def __init__(self, idle: "deque[_Thread]", idle_seconds: float) -> None:
        self.calls: queue.SimpleQueue[Callable[[], None]] = queue.SimpleQueue()
        self._idle = idle
        self._idle_seconds = idle_seconds

    def live(self) -> None:
        while (call := self._next()) is not None:
            call()
            del call  # and what it holds
            self._idle.append(self)

    def _next(self) -> Callable[[], None] | None:
        try:
            return self.calls.get(timeout=self._idle_seconds)
        except queue.Empty:
            pass
        try:
            self._idle.remove(self)
        except ValueError:  # somebody was faster: a call is coming
            return self.calls.get()
        return None
