"""How much disk directories of layers use: counted by walking, in one thread of low priority, a little at a time.

Owns the counts and when a directory is walked again. The layers of images do not change and are walked once, or,
where they may still be coming, seldomer each time. The writable layer of a container is walked again when somebody
asks and the last count is old. Nothing is walked when nobody asks. Must not know Docker or CRI. Upstream counterpart:
containerd's snapshots syncer, which walks every active snapshot each ten seconds; cri-dockerd lets Docker walk.
Deliberate difference: the thread rests longer than it works.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import stat
import threading
import time
from collections.abc import Callable, Collection, Generator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import structlog

_log = structlog.get_logger()
REFRESH_SECONDS = 30.0
IDLE_SHARE = 9.0
"""How long the thread rests after a walk, in units of the walk's own time."""
LONGEST_REST_SECONDS = 30.0
"""Others wait behind one huge layer no longer than that."""
BLOCK_BYTES = 512
FIRST_LOOK_ENTRIES = 256
"""A layer of no more entries is counted on the spot when it is asked for the first time."""
DEEPEST = 200
"""Directories below that are counted themselves, their content is not: each level holds a descriptor."""
_NICE = 19
_OPEN_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


@dataclass(frozen=True, slots=True)
class DiskUse:
    """What a directory tree uses, each inode once, and when that was counted."""

    used_bytes: int
    inodes: int
    counted_at_ns: int


class LayerUsage:
    """The counts by directory. `run` is its loop; the other methods may be called from any thread."""

    def __init__(self, clock_ns: Callable[[], int], refresh_seconds: float = REFRESH_SECONDS) -> None:
        self._clock_ns = clock_ns
        self._refresh_ns = int(refresh_seconds * 10**9)
        self._counts: dict[str, DiskUse] = {}
        self._first_counted_ns: dict[str, int] = {}
        self._wanted: dict[str, None] = {}
        self._guard = threading.Lock()
        self._all_frozen: DiskUse | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._wake = asyncio.Event()

    def writable(self, directory: str, changed_until_ns: int = 0) -> DiskUse | None:
        """The last count of a layer that is written to; asks for a new one when it is old.

        `changed_until_ns` is when its writer ended, 0 while it runs: a later count stays good for ever.
        """
        count = self._counts.get(directory)
        if count is None:
            count = self._first_look(directory)
        now = self._clock_ns()
        if count is None or (
            now - count.counted_at_ns > self._refresh_ns
            and (not changed_until_ns or count.counted_at_ns < changed_until_ns)
        ):
            self._ask((directory,))
        return count

    def frozen(self, directories: Collection[str], *, settled: bool) -> DiskUse | None:
        """The sum over layers that do not change. While some are still to be counted it is the last complete one.

        Those that are not settled may be halfway through a pull: each is counted again as long after its last count as
        that was after its first.
        """
        missing = [directory for directory in directories if directory not in self._counts]
        now = self._clock_ns()
        self._ask(missing if settled else [directory for directory in directories if self._is_due(directory, now)])
        if directories and not missing:
            counts = [self._counts[directory] for directory in set(directories)]
            self._all_frozen = DiskUse(
                sum(count.used_bytes for count in counts), sum(count.inodes for count in counts), self._clock_ns()
            )
        return self._all_frozen

    def retain(self, directories: Collection[str]) -> None:
        """Forget all others."""
        kept = set(directories)
        with self._guard:
            self._counts = {path: count for path, count in self._counts.items() if path in kept}
            self._first_counted_ns = {path: at for path, at in self._first_counted_ns.items() if path in kept}

    def _is_due(self, directory: str, now_ns: int) -> bool:
        count = self._counts.get(directory)
        if count is None:
            return True
        watched_ns = count.counted_at_ns - self._first_counted_ns.get(directory, count.counted_at_ns)
        return now_ns - count.counted_at_ns > max(self._refresh_ns, watched_ns)

    def _first_look(self, directory: str) -> DiskUse | None:
        count = count_tree(directory, self._clock_ns(), FIRST_LOOK_ENTRIES)
        if count is not None:
            with self._guard:
                self._keep(directory, count)
        return count

    def _keep(self, directory: str, count: DiskUse) -> None:
        self._counts[directory] = count
        self._first_counted_ns.setdefault(directory, count.counted_at_ns)

    def _ask(self, directories: Collection[str]) -> None:
        with self._guard:
            self._wanted.update(dict.fromkeys(directories))
        if directories and self._loop is not None:
            with contextlib.suppress(RuntimeError):  # the loop has ended, and so has the process soon
                self._loop.call_soon_threadsafe(self._wake.set)

    async def run(self) -> None:
        """Walk what is wanted, for ever."""
        self._loop = asyncio.get_running_loop()
        thread = ThreadPoolExecutor(1, thread_name_prefix="layer-walk", initializer=_lower_priority)
        try:
            while True:
                self._wake.clear()
                while (directory := self._next()) is not None:
                    await self._walk(thread, directory)
                await self._wake.wait()
        finally:
            thread.shutdown(wait=False, cancel_futures=True)  # a long walk must not hold up the end

    async def _walk(self, thread: ThreadPoolExecutor, directory: str) -> None:
        begun = time.monotonic()
        loop = asyncio.get_running_loop()
        count = await loop.run_in_executor(thread, count_tree, directory, self._clock_ns())
        spent = time.monotonic() - begun
        with self._guard:
            if count is not None:
                self._keep(directory, count)
            self._wanted.pop(directory, None)  # not before: who asks meanwhile gets this count
        if spent > 1.0:
            _log.info("layer_counted", directory=directory, seconds=round(spent, 1))
        await asyncio.sleep(min(spent * IDLE_SHARE, LONGEST_REST_SECONDS))

    def _next(self) -> str | None:
        with self._guard:
            return next(iter(self._wanted), None)


def count_tree(directory: str, now_ns: int, most_entries: int | None = None) -> DiskUse | None:
    """Count a tree without leaving its file system; None when it is not there, or larger than wanted.

    What vanishes meanwhile is not counted: its writer is at work.
    """
    try:
        descriptor = os.open(directory, _OPEN_DIRECTORY)
    except OSError:
        return None
    top = os.fstat(descriptor)
    used, inodes, linked = top.st_blocks * BLOCK_BYTES, 1, set()
    with contextlib.closing(_entries(descriptor, top.st_dev)) as entries:
        for found in entries:
            if found.st_nlink > 1 and not stat.S_ISDIR(found.st_mode):
                if found.st_ino in linked:
                    continue
                linked.add(found.st_ino)
            used += found.st_blocks * BLOCK_BYTES
            inodes += 1
            if most_entries is not None and inodes > most_entries:
                return None
    return DiskUse(used, inodes, now_ns)


def _entries(top: int, device: int) -> Generator[os.stat_result, None, None]:
    """Everything below an open directory, which is closed at the end.

    No path is ever resolved: a container may put a symbolic link in a directory's place at any moment.
    """
    levels: list[tuple[int, list[str]]] = []
    opened: int | None = top
    try:
        while opened is not None or levels:
            if opened is not None:
                levels.append((opened, below := []))
                with contextlib.suppress(OSError), os.scandir(opened) as entries:
                    for entry in entries:
                        with contextlib.suppress(OSError):
                            found = entry.stat(follow_symlinks=False)
                            if found.st_dev == device:
                                if stat.S_ISDIR(found.st_mode):
                                    below.append(entry.name)
                                yield found
            descriptor, below = levels[-1]
            opened = None
            if not below or len(levels) > DEEPEST:
                os.close(levels.pop()[0])
            else:
                with contextlib.suppress(OSError):
                    opened = os.open(below.pop(), _OPEN_DIRECTORY, dir_fd=descriptor)
    finally:
        for descriptor, _ in levels:
            os.close(descriptor)


def _lower_priority() -> None:
    with contextlib.suppress(OSError):
        os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), _NICE)
