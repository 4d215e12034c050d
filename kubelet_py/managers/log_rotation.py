"""Keeps the logs of running containers short: what grows beyond the limit is moved aside, compressed, and removed.

A log that somebody removed, or that an end of this agent left moved aside, is begun anew: else the container would go
on writing into a file that nobody sees or measures.

Owns the loop and the files; which of them go is `core.log_rotation`. At each look the sizes are read from the
directory of all logs, in a thread; the runtime is asked only about a log that is too long or gone. A runtime that is
away ends the look in silence: RuntimeHealth has told of it.

Upstream counterpart: pkg/kubelet/logs/container_log_manager.go. Differences: upstream asks the runtime for the status
of every container at each look; a file that cannot be compressed (a full disk) does not keep the log from being
rotated, nor the oldest from being removed; a directory that cannot be read keeps no other log from being looked at.
"""

import asyncio
import contextlib
import gzip
import os
import shutil
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, Protocol

import structlog

from cri_proto import runtime_v1 as cri
from kubelet_py.api.pod import CONTAINER_NAME_LABEL
from kubelet_py.core.labels import RESTART_COUNT_ANNOTATION, pod_uid_of_log_directory
from kubelet_py.core.log_rotation import (
    COMPRESSED_SUFFIX,
    PARTIAL_SUFFIX,
    is_log_name,
    lost_log,
    plan_rotation,
    restart_count_of,
    rotated_name,
)
from kubelet_py.errors import RuntimeCallError, RuntimeNotFound, RuntimeUnavailable

_COPY_BYTES: Final = 256 * 1024
_log = structlog.get_logger()


class LogRuntime(Protocol):
    """The part of the CRI client that is needed."""

    async def list_containers(self, pod_uid: str | None = None) -> list[cri.Container]:
        """Those of one pod."""

    async def container_status(self, container_id: str) -> cri.ContainerStatus:
        """For the path of its log."""

    async def reopen_container_log(self, container_id: str) -> None:
        """The runtime goes on in a new file."""


@dataclass(frozen=True, slots=True)
class RotationSettings:
    """containerLogMaxSize (below zero: never), -MaxFiles, -MaxWorkers and containerLogMonitorInterval."""

    pod_logs_root: Path
    max_size_bytes: int
    max_files: int = 5
    workers: int = 1
    interval_seconds: float = 10.0


@dataclass(slots=True)
class _Look:
    """The logs that are too long, those that were there or must have been and are not, and what could not be read."""

    long: list[Path] = field(default_factory=list)
    lost: list[Path] = field(default_factory=list)
    unread: dict[Path, OSError] = field(default_factory=dict)


class LogRotator:
    """`run` it, or `rotate_long_logs` once."""

    def __init__(self, runtime: LogRuntime, settings: RotationSettings, clock: Callable[[], float] = time.time) -> None:
        self._runtime = runtime
        self._settings = settings
        self._clock = clock
        self._troubles: dict[Path, str] = {}
        self._newest: dict[Path, int] = {}
        """The run of the newest log that was seen in each container's directory."""
        self._unwritten: set[Path] = set()
        """Logs that are gone and that nobody writes: files that were rotated from them stay."""

    async def run(self) -> None:
        """Endless."""
        while self._settings.max_size_bytes >= 0:
            await asyncio.sleep(self._settings.interval_seconds)
            await self.rotate_long_logs()

    async def rotate_long_logs(self) -> None:
        """One look. A log that cannot be rotated now is tried again at the next, and its trouble is told once."""
        seen = await asyncio.to_thread(self._look)
        for path in self._troubles.keys() - {*seen.long, *seen.lost, *seen.unread}:
            del self._troubles[path]
        for path, error in seen.unread.items():
            self._tell(path, "container_logs_not_looked_at", str(error))
        places = asyncio.Semaphore(self._settings.workers)

        async def put_right(path: Path, work: Callable[[Path], Awaitable[None]]) -> None:
            async with places:
                await self._try_or_tell(path, work)

        async with asyncio.TaskGroup() as tasks:
            for path in seen.long:
                tasks.create_task(put_right(path, self._rotate), name=f"rotate-{path}")
            for path in seen.lost:
                tasks.create_task(put_right(path, self._begin_anew), name=f"reopen-{path}")

    async def _try_or_tell(self, path: Path, work: Callable[[Path], Awaitable[None]]) -> None:
        try:
            await work(path)
        except (RuntimeUnavailable, RuntimeNotFound) as error:
            _log.debug("container_log_rotation_waits", path=str(path), error=str(error))
        except (RuntimeCallError, OSError) as error:
            self._tell(path, "container_log_not_rotated", str(error))

    def _tell(self, path: Path, event: str, error: str) -> None:
        if self._troubles.get(path) != error:
            self._troubles[path] = error
            _log.warning(event, path=str(path), error=error, retry_seconds=self._settings.interval_seconds)

    async def _rotate(self, path: Path) -> None:
        container_id = await self._writer_of(path)
        if container_id is None:
            return
        failure = await asyncio.to_thread(self._make_room, path)
        if failure is not None:
            self._tell(path, "rotated_log_not_compressed", str(failure))
        aside = path.with_name(rotated_name(path.name, self._clock()))
        await asyncio.to_thread(os.rename, path, aside)
        try:
            await self._runtime.reopen_container_log(container_id)
        except BaseException:
            # The runtime still writes into the file that was moved: it gets its name back.
            if not path.exists():
                os.rename(aside, path)
            raise
        _log.info("container_log_rotated", path=str(path), container_id=container_id)

    async def _begin_anew(self, path: Path) -> None:
        container_id = await self._writer_of(path)
        if container_id is None:
            self._unwritten.add(path)
            return
        await self._runtime.reopen_container_log(container_id)
        _log.warning("container_log_was_gone", path=str(path), container_id=container_id, effect="begun anew")

    async def _writer_of(self, path: Path) -> str | None:
        """The running container that writes the log, None when there is none any more."""
        pod_uid, container_name = pod_uid_of_log_directory(path.parent.parent.name), path.parent.name
        count = str(restart_count_of(path.name))
        for container in await self._runtime.list_containers(pod_uid):
            is_it = (
                container.state == cri.CONTAINER_RUNNING
                and container.labels.get(CONTAINER_NAME_LABEL) == container_name
                and container.annotations.get(RESTART_COUNT_ANNOTATION, count) == count
            )
            if is_it:
                with contextlib.suppress(RuntimeNotFound):
                    status = await self._runtime.container_status(container.id)
                    if Path(status.log_path) == path:
                        return container.id
        return None

    # Blocking, run in threads

    def _look(self) -> _Look:
        seen = _Look()
        newest: dict[Path, int] = {}
        for pod in self._directories_in(self._settings.pod_logs_root, seen):
            for container in self._directories_in(pod, seen):
                try:
                    names = self._names_in(container, seen.long)
                except FileNotFoundError:
                    continue
                except OSError as error:
                    seen.unread[container] = error
                    continue
                name, newest[container] = lost_log(names, self._newest.get(container, -1))
                if name is not None:
                    seen.lost.append(container / name)
        # What cannot be read now is as it was seen last.
        unread = {
            container: count
            for container, count in self._newest.items()
            if not seen.unread.keys().isdisjoint((container, *container.parents))
        }
        self._newest = newest | unread
        self._unwritten.intersection_update(seen.lost)
        seen.lost = [path for path in seen.lost if path not in self._unwritten]
        return seen

    @staticmethod
    def _directories_in(path: Path, seen: _Look) -> list[Path]:
        try:
            with os.scandir(path) as entries:
                return [path / entry.name for entry in entries if entry.is_dir(follow_symlinks=False)]
        except FileNotFoundError:
            return []
        except OSError as error:
            seen.unread[path] = error
            return []

    def _names_in(self, container: Path, long: list[Path]) -> list[str]:
        names = []
        with os.scandir(container) as files:
            for file in files:
                names.append(file.name)
                if is_log_name(file.name) and _size_bytes(file) >= self._settings.max_size_bytes:
                    long.append(container / file.name)
        return names

    def _make_room(self, path: Path) -> OSError | None:
        """Removes and compresses what was rotated before; gives why something could not be compressed."""
        failure = None
        plan = plan_rotation(path.name, os.listdir(path.parent), self._settings.max_files)
        for name in plan.removed:
            path.with_name(name).unlink(missing_ok=True)
        for name in plan.compressed:
            try:
                _compress(path.with_name(name))
            except OSError as error:
                failure = error
        return failure


def _size_bytes(entry: "os.DirEntry[str]") -> int:
    try:
        return entry.stat(follow_symlinks=False).st_size if entry.is_file(follow_symlinks=False) else 0
    except FileNotFoundError:
        return 0


def _compress(path: Path) -> None:
    """The compressed file has its name only when it is whole; then the plain one goes."""
    whole = path.with_name(path.name + COMPRESSED_SUFFIX)
    partial = whole.with_name(whole.name + PARTIAL_SUFFIX)
    try:
        with path.open("rb") as plain, partial.open("wb") as raw, gzip.GzipFile("", "wb", fileobj=raw) as packed:
            os.fchmod(raw.fileno(), os.fstat(plain.fileno()).st_mode & 0o777)
            shutil.copyfileobj(plain, packed, _COPY_BYTES)
        partial.rename(whole)
    except OSError:
        partial.unlink(missing_ok=True)
        raise
    path.unlink()
