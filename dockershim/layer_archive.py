"""The writable layer of a container as a layer of an OCI image, and back.

Owns the walk over an overlay's upper directory and the writing into one. Neither follows a link or leaves the directory
by any name, whatever the container does to it meanwhile or the archive says. Blocking. Must not know Docker or CRI.
Upstream counterpart: containerd's pkg/archive. Deliberate differences: what vanishes during the walk is left out, a
file that shrinks is filled up with zeros, and extended attributes stay behind.
"""

from __future__ import annotations

import contextlib
import os
import stat
import tarfile
from collections.abc import Iterator
from typing import IO

from dockershim.translate.checkpoint_archive import OPAQUE, WHITEOUT, Unreadable

_OPAQUE_ATTRIBUTE = "trusted.overlay.opaque"
_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_FILE = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
_NEW_FILE = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
_NODES = {tarfile.FIFOTYPE: stat.S_IFIFO, tarfile.CHRTYPE: stat.S_IFCHR, tarfile.BLKTYPE: stat.S_IFBLK}
_CHUNK_BYTES = 1024 * 1024


def write_layer(upper_directory: str, target: IO[bytes]) -> int:
    """Write the tar archive; how many entries it has."""
    with (
        tarfile.open(fileobj=target, mode="w", format=tarfile.PAX_FORMAT) as archive,
        _opened(os.open(upper_directory, _DIRECTORY)) as descriptor,
    ):
        return _LayerWriter(archive).add_children(descriptor, "")


class _LayerWriter:
    def __init__(self, archive: tarfile.TarFile) -> None:
        self._archive = archive
        self._seen: dict[tuple[int, int], str] = {}

    def add_children(self, directory: int, prefix: str) -> int:
        added = 0
        for name in sorted(os.listdir(directory)):
            with contextlib.suppress(FileNotFoundError, NotADirectoryError):
                added += self._add(directory, name, prefix)
        return added

    def _add(self, directory: int, name: str, prefix: str) -> int:
        status = os.stat(name, dir_fd=directory, follow_symlinks=False)
        if stat.S_ISSOCK(status.st_mode):
            return 0  # belongs to its process
        if stat.S_ISCHR(status.st_mode) and status.st_rdev == 0:
            self._archive.addfile(_entry(f"{prefix}{WHITEOUT}{name}"))
            return 1
        entry = _entry(f"{prefix}{name}", status)
        if stat.S_ISDIR(status.st_mode):
            return self._add_directory(directory, name, entry)
        if stat.S_ISREG(status.st_mode):
            first = self._seen.setdefault((status.st_dev, status.st_ino), entry.name)
            if first != entry.name:
                entry.type, entry.linkname = tarfile.LNKTYPE, first
            else:
                return self._add_file(directory, name, entry)
        elif stat.S_ISLNK(status.st_mode):
            entry.type, entry.linkname = tarfile.SYMTYPE, os.readlink(name, dir_fd=directory)
        elif stat.S_ISFIFO(status.st_mode):
            entry.type = tarfile.FIFOTYPE
        else:
            entry.type = tarfile.CHRTYPE if stat.S_ISCHR(status.st_mode) else tarfile.BLKTYPE
            entry.devmajor, entry.devminor = os.major(status.st_rdev), os.minor(status.st_rdev)
        self._archive.addfile(entry)
        return 1

    def _add_directory(self, directory: int, name: str, entry: tarfile.TarInfo) -> int:
        with _opened(os.open(name, _DIRECTORY, dir_fd=directory)) as inner:
            entry.type = tarfile.DIRTYPE
            self._archive.addfile(entry)
            if _is_opaque(inner):
                self._archive.addfile(_entry(f"{entry.name}/{OPAQUE}"))
            return 1 + self.add_children(inner, f"{entry.name}/")

    def _add_file(self, directory: int, name: str, entry: tarfile.TarInfo) -> int:
        with open(os.open(name, _FILE, dir_fd=directory), "rb") as file:
            entry.size = os.fstat(file.fileno()).st_size
            self._archive.addfile(entry, _Filled(file))
        return 1


class _Filled:
    """A file that never ends before its time: who writes it may cut it short while it is read."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file

    def read(self, size: int = 0, /) -> bytes:
        return self._file.read(size).ljust(size, b"\0")


def _entry(path: str, status: os.stat_result | None = None) -> tarfile.TarInfo:
    entry = tarfile.TarInfo(path)
    if status is not None:
        entry.mode, entry.mtime = stat.S_IMODE(status.st_mode), int(status.st_mtime)
        entry.uid, entry.gid = status.st_uid, status.st_gid
    return entry


def _is_opaque(descriptor: int) -> bool:
    try:
        return os.getxattr(descriptor, _OPAQUE_ATTRIBUTE) == b"y"
    except OSError:
        return False


@contextlib.contextmanager
def _opened(descriptor: int) -> Iterator[int]:
    try:
        yield descriptor
    finally:
        os.close(descriptor)


# Back into an upper directory


def apply_layer(source: IO[bytes], upper_directory: str) -> None:
    """Put the entries of a layer into an upper directory that nothing has mounted; Unreadable names a bad entry."""
    try:
        with (
            tarfile.open(fileobj=source, mode="r:*") as archive,
            _opened(os.open(upper_directory, _DIRECTORY)) as root,
        ):
            directories = [entry for entry in archive if _apply(archive, entry, root)]
            for entry in directories:  # what was put into them has changed their times
                *above, name = _parts(entry.name)
                with _named(entry), _opened(_descend(root, above)) as directory:
                    _set_time(entry, directory, name)
    except tarfile.TarError as error:
        raise Unreadable(f"the writable layer: {error}") from error


def _parts(path: str) -> list[str]:
    return [part for part in path.split("/") if part not in ("", ".")]


def _apply(archive: tarfile.TarFile, entry: tarfile.TarInfo, root: int) -> bool:
    """Whether it is a directory below the root."""
    parts = _parts(entry.name)
    if not parts:
        return False
    *above, name = parts
    with _named(entry), _opened(_descend(root, above)) as directory:
        if name == OPAQUE:
            os.setxattr(directory, _OPAQUE_ATTRIBUTE, b"y")
        elif name.startswith(WHITEOUT):
            gone = name.removeprefix(WHITEOUT)
            _remove(directory, gone)
            os.mknod(gone, stat.S_IFCHR, 0, dir_fd=directory)
        else:
            _make(archive, entry, root, directory, name)
    return entry.isdir()


@contextlib.contextmanager
def _named(entry: tarfile.TarInfo) -> Iterator[None]:
    """What the kernel refuses, with the entry that it is about."""
    try:
        yield
    except OSError as error:
        raise Unreadable(f"the writable layer: {entry.name}: {error.strerror}") from error


def _set_time(entry: tarfile.TarInfo, directory: int, name: str) -> None:
    os.utime(name, (entry.mtime, entry.mtime), dir_fd=directory, follow_symlinks=False)


def _descend(root: int, parts: list[str]) -> int:
    """A directory below the root, made where it is missing; the caller closes it."""
    if ".." in parts:
        raise Unreadable(f"the writable layer: {'/'.join(parts)} leaves it")
    current = os.dup(root)
    for part in parts:
        with _opened(current):
            with contextlib.suppress(FileExistsError):
                os.mkdir(part, 0o755, dir_fd=current)
            current = os.open(part, _DIRECTORY, dir_fd=current)
    return current


def _make(archive: tarfile.TarFile, entry: tarfile.TarInfo, root: int, directory: int, name: str) -> None:
    if name == "..":
        raise Unreadable(f"the writable layer: {entry.name} leaves it")
    if entry.isdir():
        with contextlib.suppress(FileExistsError):
            os.mkdir(name, dir_fd=directory)
        with _opened(os.open(name, _DIRECTORY, dir_fd=directory)) as made:
            os.fchown(made, entry.uid, entry.gid)
            os.fchmod(made, entry.mode)
        return
    _remove(directory, name)
    if entry.islnk():
        *above, first = _parts(entry.linkname) or [""]
        with _opened(_descend(root, above)) as place:
            os.link(first, name, src_dir_fd=place, dst_dir_fd=directory, follow_symlinks=False)
        return
    if entry.isreg():
        _make_file(archive, entry, directory, name)
    elif entry.issym():
        os.symlink(entry.linkname, name, dir_fd=directory)
        os.chown(name, entry.uid, entry.gid, dir_fd=directory, follow_symlinks=False)
    else:
        if entry.type not in _NODES:
            raise Unreadable(f"the writable layer: {entry.name} is of type {entry.type!r}")
        device = 0 if entry.isfifo() else os.makedev(entry.devmajor, entry.devminor)
        os.mknod(name, _NODES[entry.type] | entry.mode, device, dir_fd=directory)
        os.chown(name, entry.uid, entry.gid, dir_fd=directory, follow_symlinks=False)
    _set_time(entry, directory, name)


def _make_file(archive: tarfile.TarFile, entry: tarfile.TarInfo, directory: int, name: str) -> None:
    content = archive.extractfile(entry)
    with open(os.open(name, _NEW_FILE, 0o600, dir_fd=directory), "wb") as file:
        while content is not None and (chunk := content.read(_CHUNK_BYTES)):
            file.write(chunk)
        file.flush()
        os.fchown(file.fileno(), entry.uid, entry.gid)
        os.fchmod(file.fileno(), entry.mode)


def _remove(directory: int, name: str) -> None:
    """What is there under this name. A directory must be empty: Docker makes such places for its mounts, no more."""
    try:
        os.unlink(name, dir_fd=directory)
    except FileNotFoundError:
        return
    except (IsADirectoryError, PermissionError):
        os.rmdir(name, dir_fd=directory)
