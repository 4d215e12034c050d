"""The source of pods on disk: a manifest directory or file, looked at when it changes and each fileCheckFrequency.

A missing path is an empty set. Each problem is logged once, and again when it changes or is gone. A file that becomes
unusable keeps its pod for one check interval, so that an editor's half-written file or a short slip restarts nothing.
A file that is removed and made again is another pod's, however quickly, and whatever it holds.

Upstream counterpart: pkg/kubelet/config/file.go, file_linux.go. Differences: two files with one pod name are a problem
that is named, and the pod that runs stays (upstream: the file that is read last wins); an editor that moves the old
file away and writes a new one with the same content restarts nothing.
"""

import asyncio
import time
from collections.abc import Awaitable, Callable, Set
from dataclasses import replace
from pathlib import Path
from typing import Final

import structlog

from kubelet_py.api.pod import SOURCE_FILE, PodUid, uid_of
from kubelet_py.core.source_merge import PodSet, SourceProblem
from kubelet_py.host import inotify
from kubelet_py.host.inotify import DirectoryWatch
from kubelet_py.sync.sources.manifest_directory import DirectoryLook, ManifestDirectory

Emit = Callable[[PodSet], Awaitable[None]]

# The file has its content: look at once.
_COMPLETE: Final = inotify.CLOSE_WRITE | inotify.MOVED_TO
# A name is gone, often the first half of a save: editors move the old file away and then write a new one.
_GONE: Final = inotify.MOVED_FROM | inotify.DELETE
_WATCHED: Final = (
    _COMPLETE | _GONE | inotify.CREATE | inotify.MODIFY | inotify.ATTRIB | inotify.DELETE_SELF | inotify.MOVE_SELF
)
_SETTLE_SECONDS: Final = 0.1
_MAX_SETTLE_SECONDS: Final = 1.0
_RETRY_SECONDS: Final = 1.0

_log = structlog.get_logger()


class FileSource:
    """Watches one path and gives the full set of its pods whenever it changes."""

    def __init__(self, path: str, node_name: str, check_seconds: float, emit: Emit) -> None:
        self._path = Path(path)
        self._directory = ManifestDirectory(self._path, node_name, check_seconds)
        self._check_seconds = check_seconds
        self._emit = emit
        self._last: PodSet | None = None
        self._told: dict[str, str] = {}
        self._warned: set[SourceProblem] = set()
        self._look_again = False
        self._watch_problem = ""

    async def run(self) -> None:
        """Never ends."""
        while True:
            try:
                await self._watch()
            except OSError as error:
                self._watch_problem = f"cannot be watched, looked at each {self._check_seconds:g}s: {error}"
                await self.look()
                await asyncio.sleep(self._check_seconds)

    async def look(self, replaced: Set[PodUid] = frozenset()) -> None:
        """Looks once and gives the set if it is another one than before; first one without those that were replaced."""
        found = await asyncio.to_thread(self._directory.look, time.time())
        self._look_again = bool(found.problems or found.path_problem or found.unsettled)
        if found.path_problem:
            self._tell({str(self._path): found.path_problem})
            return  # what runs goes on: the path may come back, and then says what shall run
        self._report(found)
        new = PodSet(SOURCE_FILE, found.pods, found.problems)
        if any(uid_of(pod) in replaced for pod in new.pods):
            self._last = replace(new, pods=tuple(pod for pod in new.pods if uid_of(pod) not in replaced))
            await self._emit(self._last)
        if self._last is None or new != self._last:
            self._last = new
            await self._emit(new)

    async def _watch(self) -> None:
        # A single file is watched through its directory: editors put a new file in its place.
        directory = self._path if await asyncio.to_thread(self._path.is_dir) else self._path.parent
        if not await asyncio.to_thread(directory.is_dir):
            await self.look()
            await asyncio.sleep(_RETRY_SECONDS)
            return
        with DirectoryWatch(directory, _WATCHED) as watch:
            self._watch_problem = ""
            await self.look()
            while True:
                changes = await self._next_changes(watch)
                if any(change.watch_lost for change in changes):
                    return
                if await asyncio.to_thread(self._path.is_dir) != (directory == self._path):
                    return
                if directory != self._path and changes and not any(c.name == self._path.name for c in changes):
                    continue  # a neighbour of the single file
                replaced = self._directory.pods_of(_replaced(changes))
                for change in changes:
                    self._directory.forget(change.name)
                await self.look(replaced)

    async def _next_changes(self, watch: DirectoryWatch) -> list[inotify.Change]:
        """What happened, once the files that it happened to seem complete; nothing when it is time for a look."""
        pause = min(self._check_seconds, _RETRY_SECONDS) if self._look_again else self._check_seconds
        changes: list[inotify.Change] = []
        try:
            async with asyncio.timeout(pause):
                changes = await watch.changes()
            async with asyncio.timeout(_MAX_SETTLE_SECONDS):
                while not _is_complete(changes):
                    async with asyncio.timeout(_SETTLE_SECONDS):
                        changes += await watch.changes()
        except TimeoutError:
            pass
        return changes

    def _report(self, found: DirectoryLook) -> None:
        self._tell({problem.location: problem.message for problem in found.problems})
        for warning in set(found.warnings) - self._warned:
            _log.warning("manifest_warning", file=warning.location, warning=warning.message)
        self._warned = set(found.warnings)

    def _tell(self, problems: dict[str, str]) -> None:
        if self._watch_problem:
            problems = {str(self._path): self._watch_problem, **problems}
        for location, message in problems.items():
            if self._told.get(location) != message:
                _log.error("manifest_unusable", file=location, problem=message)
        for location in self._told.keys() - problems.keys():
            _log.info("manifest_problem_gone", file=location)
        self._told = problems


def _is_complete(changes: list[inotify.Change]) -> bool:
    masks = [change.mask for change in changes]
    return any(mask & _COMPLETE for mask in masks) and not any(mask & _GONE for mask in masks)


def _replaced(changes: list[inotify.Change]) -> set[str]:
    """The names that were removed, or moved away and back. An editor moves the old file away and writes a new one."""
    moved_away: set[str] = set()
    replaced: set[str] = set()
    for change in changes:
        if change.mask & inotify.DELETE or (change.mask & inotify.MOVED_TO and change.name in moved_away):
            replaced.add(change.name)
        elif change.mask & inotify.MOVED_FROM:
            moved_away.add(change.name)
    return replaced
