"""A thread for each operation on files.

A call to a file system that is gone (a dead NFS server's) may never return, and nothing can end its thread. In a pool
it would keep a place for ever, and a few pods of such a volume would stop the volumes of all; nor could the agent end
while the pool waits for it.

Upstream counterpart: a goroutine per operation (pkg/util/goroutinemap).
"""

import threading
from collections.abc import Callable
from concurrent.futures import Executor, Future
from typing import Any


class ThreadPerCall(Executor):
    """How many there are at a time is the caller's business."""

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> "Future[Any]":
        """It runs at once. Whoever waits may give up; the future is done when the call has ended, and not before."""
        work: Future[Any] = Future()
        work.set_running_or_notify_cancel()

        def run() -> None:
            try:
                work.set_result(fn(*args, **kwargs))
            except BaseException as error:
                work.set_exception(error)

        threading.Thread(target=run, name=getattr(fn, "__name__", "call"), daemon=True).start()
        return work
