"""Checkpoints on disk: the directory in which they are put together, the archives, and what is taken out of them.

Owns `<root>/dumps`, which holds CRIU's images while a checkpoint is made or restored and is emptied at the start, and
the reading and writing of archives. An archive appears under its name when it is whole. Must not know Docker or the
store. Upstream counterpart: containerd's container_checkpoint_linux.go.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import shutil
import stat
import tarfile
import tempfile
import threading
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from dockershim import layer_archive
from dockershim.errors import ConfigError, EngineFailed, InvalidArgument, ResourceExhausted, is_full_disk
from dockershim.translate.checkpoint_archive import IMAGES, ROOTFS_DIFF, Unreadable
from dockershim.translate.proc_files import parse_cgroup_paths

T = TypeVar("T")
_LARGEST_TEXT_BYTES = 16 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class ContainerArchive:
    """What was taken out of an archive: small files by name, CRIU's images, the writable layer where there is one."""

    texts: Mapping[str, bytes]
    images: Path
    layer: Path | None


class CheckpointFiles:
    """The directory for dumps."""

    def __init__(self, root: Path, proc: Path = Path("/proc")) -> None:
        self._directory = root / "dumps"
        self._proc = proc

    def prepare(self) -> None:
        """Make the directory, and empty it of what a crash left; ConfigError when that cannot be."""
        try:
            shutil.rmtree(self._directory, ignore_errors=True)
            self._directory.mkdir(parents=True, exist_ok=True, mode=0o700)
        except OSError as error:
            raise ConfigError(f"--root-directory: cannot make {self._directory}: {error.strerror}") from error

    @asynccontextmanager
    async def dump_directory(self) -> AsyncIterator[Path]:
        """A directory of its own for one checkpoint; it goes with what is in it."""
        path = Path(await asyncio.to_thread(tempfile.mkdtemp, dir=self._directory))
        try:
            yield path
        finally:
            # seen to its end also when the caller is gone: these are the memories of processes
            await asyncio.shield(asyncio.to_thread(shutil.rmtree, path, ignore_errors=True))

    async def oci_configuration(self, pid: int, container_id: str) -> dict[str, Any]:
        """The OCI configuration of a running container, by its first process."""
        return await asyncio.to_thread(_read_oci_configuration, self._proc, pid, container_id)

    async def cgroup_of(self, pid: int) -> str:
        """The path of a process in cgroup v2."""
        try:
            lines = await asyncio.to_thread((self._proc / str(pid) / "cgroup").read_text)
        except OSError as error:
            raise EngineFailed(f"cannot read the cgroup of process {pid}: {error.strerror}") from error
        return parse_cgroup_paths(lines).get("", "")

    async def change_image(self, image: Path, change: Callable[[bytes], bytes], field: str) -> None:
        """Write one of CRIU's images anew."""
        await asyncio.to_thread(_naming, field, image, lambda: image.write_bytes(change(image.read_bytes())))

    async def write_container(
        self, location: str, field: str, texts: Mapping[str, bytes], images: Path, upper_directory: str
    ) -> None:
        """Write an archive. `upper_directory` is that of the writable layer, empty where Docker does not say."""
        given_up = threading.Event()
        try:
            await asyncio.to_thread(_write_container, location, field, texts, images, upper_directory, given_up)
        finally:
            given_up.set()  # a thread goes on when its caller is cancelled; nothing may appear then

    async def read_container(self, archive: Path, field: str, directory: Path) -> ContainerArchive:
        """Take an archive apart into a directory."""
        return await asyncio.to_thread(_naming, field, archive, lambda: _read_container(archive, directory))

    async def read_texts(self, directory: str, names: tuple[str, ...], field: str) -> list[bytes]:
        """Small files of a pod's checkpoint."""
        path = Path(directory)
        return [await asyncio.to_thread(_naming, field, path / name, (path / name).read_bytes) for name in names]

    async def write_texts(self, directory: Path, texts: Mapping[str, bytes], field: str) -> None:
        """Write small files."""

        def write() -> None:
            for name, content in texts.items():
                (directory / name).write_bytes(content)

        await asyncio.to_thread(_naming, field, directory, write)

    async def apply_layer(self, layer: Path, upper_directory: str, field: str) -> None:
        """Put a writable layer into that of a container which does not run."""

        def apply() -> None:
            with layer.open("rb") as file:
                layer_archive.apply_layer(file, upper_directory)

        await asyncio.to_thread(_naming, field, layer, apply)


@asynccontextmanager
async def new_directory(path: str, field: str) -> AsyncIterator[Path]:
    """A directory that is made, or was empty; it is as it was before when the work in it fails."""
    made = await asyncio.to_thread(_naming, field, Path(path), lambda: _make_directory(path, field))
    try:
        yield Path(path)
    except BaseException:
        await asyncio.shield(asyncio.to_thread(_empty, path, made))
        raise


@asynccontextmanager
async def placed(images: Path, place: Path, field: str) -> AsyncIterator[None]:
    """CRIU's images where Docker looks for them, for as long as it needs them."""
    await asyncio.to_thread(_naming, field, place, lambda: shutil.copytree(images, place))
    try:
        yield
    finally:
        await asyncio.shield(asyncio.to_thread(shutil.rmtree, place, ignore_errors=True))


def _make_directory(path: str, field: str) -> bool:
    if not os.path.isabs(path) or ".." in path.split("/"):
        raise InvalidArgument(field, f"{path!r}: want an absolute path without '..'")
    try:
        os.mkdir(path, 0o700)
    except FileExistsError:
        if os.listdir(path):
            raise InvalidArgument(field, f"{path} is not empty: want a new or an empty directory") from None
        return False
    return True


def _empty(path: str, itself: bool) -> None:
    for entry in list(os.scandir(path)):
        with contextlib.suppress(OSError):
            os.unlink(entry.path)
    if itself:
        with contextlib.suppress(OSError):
            os.rmdir(path)


def _read_oci_configuration(proc: Path, pid: int, container_id: str) -> dict[str, Any]:
    """It is in the container's bundle, which is where its shim works, whoever runs containerd, and wherever."""
    try:
        status = (proc / str(pid) / "stat").read_text()
        parent = int(status.rpartition(")")[2].split()[1])
        bundle = os.readlink(proc / str(parent) / "cwd")
        if os.path.basename(bundle) != container_id:
            raise EngineFailed(f"the parent of container {container_id} works in {bundle}, which is no bundle of it")
        body = json.loads(Path(bundle, "config.json").read_bytes())
    except (OSError, ValueError, IndexError) as error:
        raise EngineFailed(f"cannot read the OCI configuration of container {container_id}: {error}") from error
    return dict(body)


def _write_container(
    location: str,
    field: str,
    texts: Mapping[str, bytes],
    images: Path,
    upper_directory: str,
    given_up: threading.Event,
) -> None:
    _naming(field, Path(location), lambda: check_location(location, field))
    with tempfile.TemporaryFile(dir=images.parent) as layer:

        def write() -> None:
            entries = layer_archive.write_layer(upper_directory, layer) if upper_directory else 0
            with (
                _appearing(location, given_up) as partial,
                tarfile.open(partial, "w", format=tarfile.PAX_FORMAT) as tar,
            ):
                for name, content in texts.items():
                    with tempfile.SpooledTemporaryFile(len(content) + 1) as text:
                        text.write(content)
                        text.seek(0)
                        tar.addfile(_file(name, len(content)), text)
                tar.add(images, IMAGES)
                if entries:
                    size = layer.tell()
                    layer.seek(0)
                    tar.addfile(_file(ROOTFS_DIFF, size), layer)

        _naming(field, Path(location), write)


def check_location(location: str, field: str) -> None:
    """Where an archive can be written; InvalidArgument where not."""
    if not os.path.isabs(location) or ".." in location.split("/"):
        raise InvalidArgument(field, f"{location!r}: want an absolute path of a file, without '..'")
    if not os.path.isdir(os.path.dirname(location)):
        raise InvalidArgument(field, f"{os.path.dirname(location)} is no directory")
    if os.path.lexists(location) and not stat.S_ISREG(os.lstat(location).st_mode):
        raise InvalidArgument(field, f"{location} exists and is no file")


@contextlib.contextmanager
def _appearing(location: str, given_up: threading.Event) -> Iterator[str]:
    """A file beside the location, which takes its place when it is whole and somebody still waits for it."""
    descriptor, partial = tempfile.mkstemp(
        prefix=f".{os.path.basename(location)[:100]}.", dir=os.path.dirname(location)
    )
    os.close(descriptor)
    try:
        yield partial
        if not given_up.is_set():
            os.replace(partial, location)
    finally:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(partial)


def _file(name: str, size: int) -> tarfile.TarInfo:
    entry = tarfile.TarInfo(name)
    entry.size, entry.mode = size, 0o600
    return entry


def _read_container(archive: Path, directory: Path) -> ContainerArchive:
    """Names are looked at and never used as paths: the archive may come from anywhere."""
    texts: dict[str, bytes] = {}
    images, layer = directory / IMAGES, None
    images.mkdir(mode=0o700)
    with tarfile.open(archive, "r:*") as tar:
        for entry in tar:
            content = tar.extractfile(entry) if entry.isreg() else None
            if content is None:
                continue
            above, _, name = entry.name.removeprefix("./").rpartition("/")
            if above == IMAGES and name not in ("", ".", ".."):
                with (images / name).open("wb") as file:
                    shutil.copyfileobj(content, file)
            elif not above and name == ROOTFS_DIFF:
                layer = directory / ROOTFS_DIFF
                with layer.open("wb") as file:
                    shutil.copyfileobj(content, file)
            elif not above and entry.size <= _LARGEST_TEXT_BYTES:
                texts[name] = content.read()
    if not any(images.iterdir()):
        raise Unreadable(f"has no images of CRIU in {IMAGES}/")
    return ContainerArchive(texts, images, layer)


def _naming(field: str, path: Path, work: Callable[[], T]) -> T:
    """The same work; what goes wrong is said with the field and the path."""
    try:
        return work()
    except Unreadable as error:
        raise InvalidArgument(field, f"{path}: {error}") from error
    except tarfile.TarError as error:
        raise InvalidArgument(field, f"{path} is no tar archive: {error}") from error
    except OSError as error:
        if is_full_disk(error):
            raise ResourceExhausted(f"{field}: {path}: {error.strerror}") from error
        raise InvalidArgument(field, f"{path}: {error.strerror or error}") from error
    except ValueError as error:  # a NUL in a path
        raise InvalidArgument(field, f"{str(path)!r}: {error}") from error
