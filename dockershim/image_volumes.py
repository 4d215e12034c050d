"""Trees of images on the host, for engines that cannot mount an image by themselves (before Docker 28).

Owns `<root>/image-volumes`: one read-only overlay of an image's own layers for all containers that use it, made when
the first is created and taken away with the last. Nothing is written down: which images are in use is what the
containers' labels say, so a crash at any moment leaves at most a mount, which the next comparison with Docker takes
away. Upstream counterpart: containerd's image mounts, one for each sandbox.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections import Counter
from collections.abc import AsyncIterator, Callable, Collection
from contextlib import asynccontextmanager
from pathlib import Path

import structlog

from dockershim import mounting
from dockershim.engine import DockerEngine
from dockershim.errors import EngineFailed, FailedPrecondition, NotFound
from dockershim.translate.image_volumes import FAILED, ImageVolume, layer_directories, no_such_path

_log = structlog.get_logger()
_EMPTY = "empty"  # the bottom layer of every overlay


class ImageVolumes:
    """The mounts. `in_use` tells the ids of the images that containers have mounted."""

    def __init__(self, root: Path, engine: DockerEngine, in_use: Callable[[], Collection[str]]) -> None:
        self._directory = root / "image-volumes"
        self._engine = engine
        self._in_use = in_use
        self._being_created: Counter[str] = Counter()
        self._lock = asyncio.Lock()

    def uses(self, image_id: str) -> bool:
        """Whether a container has this image mounted, or is about to."""
        return self._being_created[image_id] > 0 or image_id in self._in_use()

    @asynccontextmanager
    async def sources(self, volumes: Collection[ImageVolume]) -> AsyncIterator[dict[ImageVolume, str]]:
        """The host paths of volumes, which are there at least until the caller has made its container."""
        for volume in volumes:
            self._being_created[volume.image_id] += 1
        try:
            yield {volume: await self._source(volume) for volume in volumes}
        finally:
            for volume in volumes:
                self._being_created[volume.image_id] -= 1
            await self.collect({volume.image_id for volume in volumes})

    async def check_seen(self, container_id: str, volume: ImageVolume, source: str) -> None:
        """Docker must see what is mounted, else the container would get an empty directory in silence."""
        entry = await asyncio.to_thread(_some_entry, source)
        if not entry:
            return
        try:
            await self._engine.stat_path(container_id, f"{volume.container_path.rstrip('/')}/{entry}")
        except NotFound:
            problem = "Docker does not see what dockershim mounts: both must run in one mount namespace, the host's"
            raise FailedPrecondition(f"{FAILED}: {problem}") from None

    async def ensure(self, volumes: Collection[ImageVolume]) -> None:
        """Mount again what a container was made with: the machine may have been restarted since."""
        for volume in volumes:
            await self._source(volume)

    async def _source(self, volume: ImageVolume) -> str:
        target = self._path(volume.image_id)
        async with self._lock:
            if not await asyncio.to_thread(mounting.is_mount_point, target):
                layers = layer_directories(await self._engine.inspect_image(volume.image_id))
                await asyncio.to_thread(self._mount, layers, target)
        return await asyncio.to_thread(_resolve, target, volume)

    def _mount(self, layers: tuple[str, ...], target: Path) -> None:
        empty = self._directory / _EMPTY
        try:
            for directory in (empty, target):
                directory.mkdir(mode=0o755, parents=True, exist_ok=True)
            mounting.mount_layers(layers, target, empty)
        except OSError as error:
            raise EngineFailed(f"{FAILED}: cannot mount image at {target}: {error}") from error

    def _path(self, image_id: str) -> Path:
        return self._directory / image_id.removeprefix("sha256:")

    async def collect(self, candidates: Collection[str] | None = None) -> None:
        """Take away the mounts of images (of these or of all) that no container uses."""
        async with self._lock:
            unused = await asyncio.to_thread(self._mounted) if candidates is None else set(candidates)
            for image_id in unused:
                if self.uses(image_id):
                    continue
                try:
                    await asyncio.to_thread(mounting.remove_mount_point, self._path(image_id))
                except OSError as error:
                    _log.warning("image_volume_stays", image=image_id, error=str(error))
        self._being_created += Counter()  # drops what counts zero

    def _mounted(self) -> set[str]:
        try:
            return {f"sha256:{path.name}" for path in self._directory.iterdir() if path.name != _EMPTY}
        except FileNotFoundError:
            return set()


def _some_entry(source: str) -> str:
    """The name of something in a directory; nothing where there is nothing, or for a file."""
    with contextlib.suppress(NotADirectoryError), os.scandir(source) as entries:
        return next((entry.name for entry in entries), "")
    return ""


def _resolve(root: Path, volume: ImageVolume) -> str:
    if not volume.sub_path:
        return str(root)
    try:
        return mounting.resolve_beneath(root, volume.sub_path)
    except (FileNotFoundError, NotADirectoryError):
        raise no_such_path(volume) from None
    except OSError as error:
        problem = f"{FAILED}: {volume.sub_path!r} in image {volume.image}: {error.strerror}"
        raise FailedPrecondition(problem) from error
