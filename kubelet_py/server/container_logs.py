"""A container's log as a stream of bytes, followed when asked.

Owns the waiting: file work happens in threads and only while there is something to read; an idle follower costs one
inotify listener. The stream of a followed log ends when the container has ended and the file is drained.

Upstream counterpart: the follow half of k8s.io/cri-client/pkg/logs.
"""

import asyncio
import contextlib
from collections.abc import AsyncGenerator, Awaitable, Callable
from pathlib import Path
from typing import Final

from kubelet_py.core.log_query import LogQuery
from kubelet_py.host.shared_inotify import SharedInotify
from kubelet_py.server.log_files import LogReader

CHECK_INTERVAL_SECONDS: Final = 1.0


async def open_log(path: Path, query: LogQuery) -> LogReader:
    """A reader at the right place; OSError when the file cannot be read."""
    return await asyncio.to_thread(LogReader, path, query)


async def stream_log(
    reader: LogReader, query: LogQuery, inotify: SharedInotify, is_running: Callable[[], Awaitable[bool]]
) -> AsyncGenerator[bytes, None]:
    """The log, piece by piece; the caller closes the reader."""
    with contextlib.ExitStack() as stack:
        changed = asyncio.Event()
        if query.follow:
            # Without a watch (the kernel's limit is reached) the look once a second remains.
            with contextlib.suppress(OSError):
                changed = stack.enter_context(inotify.watch(reader.path.parent))
        ended = False
        clock = asyncio.get_running_loop().time
        next_check = clock() + CHECK_INTERVAL_SECONDS
        while True:
            changed.clear()
            batch: bytes = await asyncio.to_thread(reader.read_batch)
            if batch:
                yield batch
            if reader.done:
                return
            rotated: bool = await asyncio.to_thread(reader.reopen_if_rotated)
            if batch or rotated:
                continue
            if ended:
                return
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout_at(next_check):
                    await changed.wait()
            if clock() >= next_check:
                # One more read follows an end: what was written before it must be shown.
                ended = not await is_running()
                next_check = clock() + CHECK_INTERVAL_SECONDS
