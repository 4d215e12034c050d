"""A part of a volume, bound where the runtime can be pointed at it.

A container may write symbolic links into its volume; a path handed to the runtime by name could then lead anywhere on
the node. So the path is resolved here, checked to lie inside the volume, opened one part at a time without following
links, and the open file is what gets bound.

Owns this and the creation of missing directories. Blocking.

Upstream counterpart: pkg/volume/util/subpath/subpath_linux.go.
"""

import os
import stat
from pathlib import Path

from kubelet_py.core.volume_payload import PayloadError
from kubelet_py.host.mounts import bind_mount, is_mount_point, unmount

_OPEN_PATH = os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC


def bind_subpath(volume: Path, sub_path: str, target: Path) -> None:
    """Bind `volume/sub_path` at target, made when missing; a bind of the same file that is there already is kept."""
    descriptor = open_inside(volume, sub_path)
    try:
        source = os.fstat(descriptor)
        if is_mount_point(target):
            bound = target.lstat()
            if (bound.st_dev, bound.st_ino) == (source.st_dev, source.st_ino):
                return
            unmount(target)
        _make_target(target, is_directory=stat.S_ISDIR(source.st_mode))
        bind_mount(f"/proc/self/fd/{descriptor}", target)
    finally:
        os.close(descriptor)


def open_inside(volume: Path, sub_path: str) -> int:
    """An O_PATH descriptor of a path inside the volume; missing directories are made with the volume's own mode.

    PayloadError when the path, after its links, is not inside.
    """
    top = os.path.realpath(volume)
    wanted = os.path.join(top, sub_path)
    # Links are followed as far as the path exists; the rest is made.
    resolved = os.path.realpath(wanted)
    if resolved != top and not resolved.startswith(top.rstrip("/") + "/"):
        raise PayloadError(f"subPath {sub_path!r} is not inside the volume: a symbolic link leads to {resolved}")
    mode = stat.S_IMODE(os.stat(top).st_mode)
    descriptor = os.open(top, _OPEN_PATH)
    try:
        parts = [part for part in os.path.relpath(resolved, top).split("/") if part != "."]
        for part in parts:
            deeper = _open_or_make(descriptor, part, mode, sub_path)
            os.close(descriptor)
            descriptor = deeper
            if stat.S_ISLNK(os.fstat(descriptor).st_mode):
                raise PayloadError(f"subPath {sub_path!r}: {part!r} became a symbolic link while it was opened")
    except BaseException:
        os.close(descriptor)
        raise
    return descriptor


def _open_or_make(parent: int, name: str, mode: int, sub_path: str) -> int:
    try:
        return os.open(name, _OPEN_PATH, dir_fd=parent)
    except FileNotFoundError:
        pass
    except NotADirectoryError as error:
        raise PayloadError(f"subPath {sub_path!r} goes through a file, not a directory, before {name!r}") from error
    try:
        os.mkdir(name, mode & 0o777, dir_fd=parent)
    except FileExistsError:
        return os.open(name, _OPEN_PATH, dir_fd=parent)
    made = os.open(name, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=parent)
    try:
        # The mode is set again because of the umask; a set-group-id bit was inherited and is kept.
        os.fchmod(made, mode | (os.fstat(made).st_mode & stat.S_ISGID))
    finally:
        os.close(made)
    return os.open(name, _OPEN_PATH, dir_fd=parent)


def _make_target(target: Path, *, is_directory: bool) -> None:
    target.parent.mkdir(mode=0o750, parents=True, exist_ok=True)
    if is_directory:
        if target.exists() and not target.is_dir():
            target.unlink()
        target.mkdir(mode=0o750, exist_ok=True)
        return
    if target.is_dir():
        target.rmdir()
    os.close(os.open(target, os.O_WRONLY | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o640))
