"""Removes images that nobody uses: after too long a time, and while their file system is too full.

Owns the loop, each five minutes, and the history of images since the agent started. What may go is
`core.image_gc_rules`. One image that cannot be removed stops nothing; what fails is tried again at the next pass.

Upstream counterpart: pkg/kubelet/images/image_gc_manager.go and StartGarbageCollection in pkg/kubelet/kubelet.go.
Differences: which images containers have mounted as volumes is asked only when images are to be removed; the looks at
the images and the collections are one loop.
"""

import asyncio
import os
import time
from collections.abc import Callable, Iterable, Sequence
from datetime import UTC, datetime
from typing import Final, Protocol

import structlog

from cri_proto import runtime_v1 as cri
from kubelet_py.core import image_gc_rules as rules
from kubelet_py.core.image_gc_rules import Disk, ImageGcPolicy, ImageHistory, ImageKey, SeenImage
from kubelet_py.errors import KubeletError, RuntimeCallError, RuntimeNotFound
from kubelet_py.managers.images.records import PullRecords

INTERVAL_SECONDS: Final = 300.0
_log = structlog.get_logger()


class ImageGcRuntime(Protocol):
    """The part of the CRI client that is needed."""

    async def list_images(self) -> list[cri.Image]:
        """All of them."""

    async def list_containers(self) -> list[cri.Container]:
        """All of them, also dead ones: they may be looked into."""

    async def container_status(self, container_id: str) -> cri.ContainerStatus:
        """For the images among its mounts."""

    async def image_fs_info(self) -> cri.ImageFsInfoResponse:
        """Where images lie."""

    async def remove_image(self, image: cri.ImageSpec) -> None:
        """Again is fine."""


class ImageGcError(KubeletError):
    """A pass did not reach what it wanted; the message is for the node's event."""


NodeEvent = Callable[[str, str], None]
"""A warning about the node: reason, message."""


class ImageGc:
    """Collects images; `run` it, or `collect` once."""

    def __init__(
        self,
        runtime: ImageGcRuntime,
        policy: ImageGcPolicy,
        events: NodeEvent,
        records: PullRecords | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._runtime = runtime
        self._policy = policy
        self._events = events
        self._records = records
        self._clock = clock
        self._began_seconds = clock()
        self._histories: dict[ImageKey, ImageHistory] = {}

    async def run(self) -> None:
        """Endless. The first failure in a row is only logged: the runtime may still be counting its disk."""
        failed = False
        while not self._policy.is_off:
            try:
                await self.collect()
                failed = False
            except KubeletError as error:
                _log.warning("image_gc_failed", error=str(error), in_a_row=failed)
                if failed:
                    self._events("ImageGCFailed", str(error))
                failed = True
            await asyncio.sleep(INTERVAL_SECONDS)
        await asyncio.Event().wait()

    async def collect(self) -> None:
        """One pass. Raises RuntimeCallError when the runtime cannot say what is there, ImageGcError for the rest."""
        began_at, now = datetime.now(UTC), self._clock()
        await self._look(now)
        old = [h for h in self._removable(now) if rules.is_too_old(h, self._policy, self._began_seconds, now)]
        removed, problems = await self._remove(old)
        disk = await self._read_disk()
        wanted_bytes, freed_bytes = rules.bytes_to_free(disk, self._policy), 0
        if wanted_bytes > 0:
            _log.info("image_disk_full", usage_percent=disk.usage_percent, capacity_bytes=disk.capacity_bytes)
            chosen = [h for h in self._removable(now) if rules.may_go_for_space(h, self._policy, now)]
            for_space, more = await self._remove(chosen, wanted_bytes)
            removed, problems, freed_bytes = [*removed, *for_space], [*problems, *more], _size_of(for_space)
        if removed:
            _log.info("image_gc", images=[_name_of(history) for history in removed], freed_bytes=_size_of(removed))
        if self._records is not None:
            await self._records.prune({key.id for key in self._histories}, began_at)
        if problems:
            raise ImageGcError(f"images that should go cannot be removed: {'; '.join(problems)}")
        if freed_bytes < wanted_bytes:
            message = rules.describe_shortage(disk, freed_bytes)
            self._events("FreeDiskSpaceFailed", message)
            raise ImageGcError(message)

    def _removable(self, now: float) -> tuple[ImageHistory, ...]:
        return rules.removable_images(self._histories, now)

    async def _look(self, now: float) -> None:
        images, containers = await asyncio.gather(self._runtime.list_images(), self._runtime.list_containers())
        self._histories = rules.update_histories(self._histories, map(_seen, images), _images_of(containers), now)

    async def _remove(
        self, chosen: Sequence[ImageHistory], wanted_bytes: int | None = None
    ) -> tuple[list[ImageHistory], list[str]]:
        """Removes these in turn, until enough is free; gives those that went, and what went wrong."""
        removed: list[ImageHistory] = []
        problems: list[str] = []
        mounted = await self._mounted_images() if chosen else set()
        for history in chosen:
            if wanted_bytes is not None and _size_of(removed) >= wanted_bytes:
                break
            key = history.image.key
            if mounted & {key.id, *history.image.names}:
                continue
            try:
                await self._runtime.remove_image(cri.ImageSpec(image=key.id, runtime_handler=key.handler))
            except RuntimeCallError as error:
                problems.append(f"{_name_of(history)}: {error.detail or error}")
                continue
            removed.append(history)
            del self._histories[key]
        return removed, problems

    async def _mounted_images(self) -> set[str]:
        """What containers have mounted as volumes, by whatever name."""
        found: set[str] = set()
        for container in await self._runtime.list_containers():
            try:
                status = await self._runtime.container_status(container.id)
            except RuntimeNotFound:
                continue
            found.update(mount.image.image for mount in status.mounts if mount.HasField("image"))
        return found

    async def _read_disk(self) -> Disk:
        info = await self._runtime.image_fs_info()
        places = [usage.fs_id.mountpoint for usage in info.image_filesystems]
        if not places:
            raise ImageGcError("the runtime names no file system for its images")
        try:
            seen = await asyncio.to_thread(os.statvfs, places[0])
        except OSError as error:
            raise ImageGcError(f"the file system of the images at {places[0]} cannot be looked at: {error}") from error
        disk = Disk(seen.f_blocks * seen.f_frsize, seen.f_bavail * seen.f_frsize)
        if not disk.capacity_bytes:
            message = "invalid capacity 0 on image filesystem"
            self._events("InvalidDiskCapacity", message)
            raise ImageGcError(message)
        return disk


def _seen(image: cri.Image) -> SeenImage:
    key = ImageKey(image.id, image.spec.runtime_handler)
    return SeenImage(key, (*image.repo_tags, *image.repo_digests), image.size, image.pinned)


def _images_of(containers: Iterable[cri.Container]) -> set[str]:
    return {name for c in containers for name in (c.image_id, c.image_ref, c.image.image) if name}


def _size_of(histories: Iterable[ImageHistory]) -> int:
    return sum(history.image.size_bytes for history in histories)


def _name_of(history: ImageHistory) -> str:
    return next(iter(history.image.names), history.image.key.id)
