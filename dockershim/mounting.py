"""Mounts of the host's: bind mounts of single files, read-only overlays, and paths that stay beneath a mount.

Owns the system calls for them, which Python has not. Must not know images or pods. dockershim must live in the mount
namespace of dockerd, else Docker sees the empty directory below. Upstream counterpart: containerd's mount package.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import os
import struct
from collections.abc import Sequence
from pathlib import Path

_MS_RDONLY = 0x1
_MS_BIND = 0x1000
_MNT_DETACH = 0x2
_LONGEST_OPTIONS = os.sysconf("SC_PAGESIZE") - 1
_SYS_OPENAT2 = 437  # on every architecture
_OPEN_HOW = struct.Struct("QQQ")
_RESOLVE_NO_MAGICLINKS = 0x02
_RESOLVE_IN_ROOT = 0x10

_libc = ctypes.CDLL(None, use_errno=True)


def _fail(path: str | os.PathLike[str]) -> OSError:
    number = ctypes.get_errno()
    return OSError(number, os.strerror(number), os.fspath(path))


def _mount(source: str, target: Path, kind: str, flags: int, options: str) -> None:
    arguments = (source.encode(), os.fsencode(target), kind.encode(), ctypes.c_ulong(flags), options.encode())
    if _libc.mount(*arguments):
        raise _fail(target)


def is_mount_point(path: Path) -> bool:
    """Whether something with a device of its own is mounted on a file or directory."""
    try:
        return path.lstat().st_dev != path.parent.stat().st_dev
    except FileNotFoundError:
        return False


def bind_file(source: str, target: Path) -> None:
    """Show a file (or a namespace of a process) at a path, which is made. Done before: nothing happens."""
    if is_mount_point(target):
        return
    target.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    os.close(os.open(target, os.O_RDONLY | os.O_CREAT | os.O_CLOEXEC, 0o400))
    _mount(source, target, "none", _MS_BIND, "")


def mount_layers(layers: Sequence[str], target: Path, empty: Path) -> None:
    """Directories, the topmost first, as one read-only tree at a directory. `empty` is an empty directory.

    By name where that fits into the one page that the kernel takes: then mountinfo shows the layers, to people and to
    dockershim-oci. Else by descriptors, which fit always. The empty directory is there since an overlay without a
    writable layer wants two.
    """
    names = [*layers, str(empty)]
    with contextlib.ExitStack() as opened:
        lower = []
        for layer in names:  # in both cases, so that the error for one that is not there has its name
            descriptor = os.open(layer, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
            opened.callback(os.close, descriptor)
            lower.append(f"/proc/self/fd/{descriptor}")
        options = f"lowerdir={':'.join(names)}"
        if len(options) >= _LONGEST_OPTIONS or any(character in name for name in names for character in ":,\\"):
            options = f"lowerdir={':'.join(lower)}"
        _mount("overlay", target, "overlay", _MS_RDONLY, options)


def unmount(path: Path) -> None:
    """Take away what is mounted there, now or as soon as nobody uses it. Nothing mounted, or nothing there: fine."""
    while is_mount_point(path):
        if _libc.umount2(os.fsencode(path), _MNT_DETACH):
            raise _fail(path)


def remove_mount_point(path: Path) -> None:
    """Unmount, and remove the file or the empty directory below."""
    unmount(path)
    with contextlib.suppress(FileNotFoundError):
        try:
            path.unlink()
        except IsADirectoryError:
            path.rmdir()


def resolve_beneath(root: Path, relative: str) -> str:
    """The real path of something in a tree, where `/` and every link in it are taken as inside of that tree."""
    directory = os.open(root, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        how = _OPEN_HOW.pack(os.O_PATH | os.O_CLOEXEC, 0, _RESOLVE_IN_ROOT | _RESOLVE_NO_MAGICLINKS)
        found = _libc.syscall(_SYS_OPENAT2, directory, os.fsencode(relative), how, _OPEN_HOW.size)
        if found < 0:
            raise _fail(relative)
        try:
            real = os.readlink(f"/proc/self/fd/{found}")
        finally:
            os.close(found)
        if not Path(real).is_relative_to(os.readlink(f"/proc/self/fd/{directory}")):
            raise OSError(errno.EXDEV, "leads out of its tree", relative)
        return real
    finally:
        os.close(directory)
