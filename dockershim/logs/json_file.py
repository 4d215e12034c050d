"""`ContainerLogs` on Docker's json-file driver and on the spool: the event loop's side of the log thread.

Owns the thread (one, for all containers) and when it is woken: at an inotify event, at a request, when something is
due. While lines keep coming, the thread takes a turn every few milliseconds rather than one per line. Must not touch
files itself.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Collection
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TypeVar

import structlog

from dockershim.errors import FailedPrecondition, NotRunning
from dockershim.logs import LogSource
from dockershim.logs.position import PositionStore
from dockershim.logs.pump import LogPump
from dockershim.logs.spool import SpoolDirectories
from dockershim.logs.spooler import SpoolerKeeper

FINISH_SECONDS = 10.0
CLOSE_SECONDS = 5.0
PACE_SECONDS = 0.01

T = TypeVar("T")
logger = structlog.get_logger()


class NotFollowed(NotRunning):
    """The container's log is not being written: it was never started, or it has ended."""


class JsonFileLogs:
    """Follows the logs of all containers; positions are kept below `state_directory`.

    With `spools_new`, new containers spool their output below `spool_directory`; those that do so already are followed
    without it too.
    """

    def __init__(self, state_directory: Path, spool_directory: Path | None = None, *, spools_new: bool = False) -> None:
        spools = SpoolDirectories(spool_directory) if spool_directory else None
        self._pump = LogPump(PositionStore(state_directory), spools=spools)
        self._keeper = SpoolerKeeper(spool_directory) if spool_directory else None
        self._spools_new = spools_new
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="container-logs")
        self._wake = asyncio.Event()
        self._spools_needed = asyncio.Event()
        if spools_new:
            self._spools_needed.set()

    @property
    def spool_directory(self) -> str:
        """See ContainerLogs."""
        is_usable = self._spools_new and self._keeper is not None and self._keeper.is_there
        return str(self._keeper.directory) if is_usable and self._keeper is not None else ""

    def follow(self, source: LogSource) -> None:
        """See ContainerLogs."""
        if source.spool_directory:
            self._spools_needed.set()
        self._pump.request(source)
        self._wake.set()

    async def finish(self, container_id: str) -> None:
        """See ContainerLogs. A log too long for the deadline is written to its end in the background."""
        try:
            async with asyncio.timeout(FINISH_SECONDS):
                while True:
                    again_seconds = await self._in_thread(lambda: self._pump.drain(container_id))
                    if again_seconds is None:
                        break
                    await asyncio.sleep(again_seconds)
        except TimeoutError:
            logger.warning("container_log_not_finished", container_id=container_id, after_seconds=FINISH_SECONDS)
        self._wake.set()

    async def reopen(self, container_id: str) -> None:
        """See ContainerLogs. Raises NotFollowed, or FailedPrecondition when the new file cannot be made."""
        try:
            followed = await self._in_thread(lambda: self._pump.reopen(container_id))
        except OSError as error:
            raise FailedPrecondition(f"the log of container {container_id} cannot be reopened: {error}") from error
        if not followed:
            raise NotFollowed(f"the log of container {container_id} is not being written")

    async def remove(self, container_id: str) -> None:
        """See ContainerLogs."""
        await self._in_thread(lambda: self._pump.remove(container_id))

    async def retain(self, container_ids: Collection[str]) -> None:
        """Forget all containers but these: at the start, for what was removed while nobody looked."""
        await self._in_thread(lambda: self._pump.retain(container_ids))

    async def run(self) -> None:
        """See ContainerLogs."""
        async with asyncio.TaskGroup() as group:
            if self._keeper is not None:
                group.create_task(self._keep_spooler(self._keeper), name="log spooler")
            group.create_task(self._pump_loop(), name="log pump")

    async def _keep_spooler(self, keeper: SpoolerKeeper) -> None:
        await self._spools_needed.wait()
        await keeper.run()

    async def _pump_loop(self) -> None:
        loop = asyncio.get_running_loop()
        descriptor = self._pump.descriptor

        def wake() -> None:
            loop.remove_reader(descriptor)  # once is enough until the thread has read
            self._wake.set()

        try:
            while True:
                self._wake.clear()
                due_seconds = await self._in_thread(self._pump.turn)
                earliest = loop.time() + (0.0 if due_seconds == 0.0 else PACE_SECONDS)
                loop.add_reader(descriptor, wake)
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(due_seconds):
                        await self._wake.wait()
                await asyncio.sleep(earliest - loop.time())
        finally:
            loop.remove_reader(descriptor)
            with contextlib.suppress(TimeoutError):  # a disk that hangs must not hold up the end
                async with asyncio.timeout(CLOSE_SECONDS):
                    await self._in_thread(self._pump.close)
            self._thread.shutdown(wait=False)

    def _in_thread(self, action: Callable[[], T]) -> asyncio.Future[T]:
        return asyncio.get_running_loop().run_in_executor(self._thread, action)
