"""Mounting, unmounting, and what is mounted where.

Owns the calls mount(2) and umount2(2), made through ctypes: a fork of mount(8) costs some milliseconds per volume and
the agent mounts one or two for each pod. Knows nothing of pods.

Upstream counterpart: k8s.io/mount-utils. Differences: no mount(8) (file systems that need a mount helper are not
served here); whether a path is a mount point is asked of the kernel by mount id and not looked up in the whole table.
"""

import ctypes
import errno
import os
import re
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Final

MS_RDONLY: Final = 1
MS_NOSUID: Final = 2
MS_NODEV: Final = 4
MS_NOEXEC: Final = 8
MS_REMOUNT: Final = 32
MS_BIND: Final = 4096
MS_REC: Final = 16384
MS_PRIVATE: Final = 1 << 18
MS_SLAVE: Final = 1 << 19
MS_SHARED: Final = 1 << 20
UMOUNT_NOFOLLOW: Final = 8

MOUNTINFO: Final = Path("/proc/self/mountinfo")
_OCTAL_ESCAPE = re.compile(r"\\([0-7]{3})")


@dataclass(frozen=True, slots=True)
class MountEntry:
    """One line of mountinfo."""

    mount_id: int
    parent_id: int
    device: str
    root: str
    mount_point: str
    options: str
    optional_fields: tuple[str, ...]
    file_system: str
    source: str
    super_options: str

    @property
    def is_shared(self) -> bool:
        """Mounts made beneath it are seen by its peers."""
        return any(field.startswith("shared:") for field in self.optional_fields)


def parse_mountinfo(text: str) -> list[MountEntry]:
    """The entries of a mountinfo text; lines of another shape are left out."""
    entries = []
    for line in text.splitlines():
        mine, separator, file_system = line.partition(" - ")
        fields, tail = mine.split(" "), file_system.split(" ")
        if not separator or len(fields) < 6 or len(tail) < 2:
            continue
        entries.append(
            MountEntry(
                mount_id=int(fields[0]),
                parent_id=int(fields[1]),
                device=fields[2],
                root=_unescaped(fields[3]),
                mount_point=_unescaped(fields[4]),
                options=fields[5],
                optional_fields=tuple(field for field in fields[6:] if field),
                file_system=tail[0],
                source=_unescaped(tail[1]),
                super_options=tail[2] if len(tail) > 2 else "",
            )
        )
    return entries


def list_mounts() -> list[MountEntry]:
    """All mounts of this process's mount namespace, in the kernel's order."""
    return parse_mountinfo(MOUNTINFO.read_text(encoding="utf-8", errors="surrogateescape"))


def list_mounts_beneath(directory: Path) -> list[str]:
    """The mount points at or beneath a directory, in the order in which they can be unmounted (newest first)."""
    top = os.path.realpath(directory)
    written = _escaped(top)
    text = MOUNTINFO.read_text(encoding="utf-8", errors="surrogateescape")
    # A node of many pods has thousands of mounts: only lines that can be meant are taken apart.
    candidates = "\n".join(line for line in text.splitlines() if written in line)
    entries = parse_mountinfo(candidates)
    inside = [e.mount_point for e in entries if e.mount_point == top or e.mount_point.startswith(top + "/")]
    inside.reverse()
    return inside


def mount_id_of(descriptor: int) -> int:
    """The id of the mount that an open file lies on."""
    with open(f"/proc/self/fdinfo/{descriptor}", "rb") as info:
        for line in info:
            if line.startswith(b"mnt_id:"):
                return int(line[7:])
    raise OSError(errno.ENODATA, "the kernel shows no mnt_id in fdinfo")


def is_mount_point(path: Path) -> bool:
    """Something is mounted exactly there; bind mounts of one file or of the same file system count. Absent is False."""
    try:
        mine = os.open(path, os.O_PATH | os.O_NOFOLLOW)
    except FileNotFoundError:
        return False
    try:
        parent = os.open(path.parent, os.O_PATH)
        try:
            return mount_id_of(mine) != mount_id_of(parent)
        finally:
            os.close(parent)
    finally:
        os.close(mine)


def mount_tmpfs(target: Path, size_bytes: int | None = None) -> bool:
    """A tmpfs on an existing directory. Returns whether the kernel promises to keep it out of swap."""
    options = "" if size_bytes is None else f"size={size_bytes}"
    try:
        _mount("tmpfs", target, "tmpfs", 0, f"{options},noswap" if options else "noswap")
    except OSError as error:
        if error.errno != errno.EINVAL:  # kernels before 6.4 do not know the option
            raise
    else:
        return True
    _mount("tmpfs", target, "tmpfs", 0, options)
    return False


def mount_huge_pages(target: Path, page_bytes: int) -> None:
    """A hugetlbfs with pages of that size on an existing directory."""
    _mount("nodev", target, "hugetlbfs", 0, f"pagesize={page_bytes}")


def bind_mount(source: str | Path, target: Path, *, read_only: bool = False) -> None:
    """What is at source also appears at target, an existing file or directory."""
    _mount(os.fspath(source), target, "", MS_BIND, "")
    if read_only:
        _mount("", target, "", MS_BIND | MS_REMOUNT | MS_RDONLY, "")


def unmount(target: Path) -> bool:
    """Unmount what is on top at target. False when nothing was mounted there."""
    if _libc().umount2(os.fsencode(target), UMOUNT_NOFOLLOW) == 0:
        return True
    number = ctypes.get_errno()
    if number in (errno.EINVAL, errno.ENOENT):
        return False
    raise OSError(number, f"cannot unmount: {os.strerror(number)}", os.fspath(target))


def ensure_shared(directory: Path) -> bool:
    """Mounts that appear beneath the directory reach containers that asked for them.

    Where the directory is not on a shared mount it is bound onto itself first. Returns whether anything was changed.
    """
    top = os.path.realpath(directory)
    holding = [e for e in list_mounts() if _holds(e.mount_point, top)]
    # The longest mount point holds the directory; of two mounts on one point the later one is on top.
    best = max(enumerate(holding), key=lambda pair: (len(pair[1].mount_point), pair[0]))[1] if holding else None
    if best is not None and best.is_shared:
        return False
    if best is None or best.mount_point != top:
        bind_mount(top, Path(top))
    _mount("", Path(top), "", MS_SHARED | MS_REC, "")
    return True


def _holds(mount_point: str, path: str) -> bool:
    return mount_point == "/" or path == mount_point or path.startswith(mount_point + "/")


def _mount(source: str, target: Path, file_system: str, flags: int, data: str) -> None:
    result = _libc().mount(
        os.fsencode(source), os.fsencode(target), file_system.encode(), ctypes.c_ulong(flags), data.encode()
    )
    if result != 0:
        number = ctypes.get_errno()
        what = file_system or f"{source} by bind"
        raise OSError(number, f"cannot mount {what}: {os.strerror(number)}", os.fspath(target))


@lru_cache(maxsize=1)
def _libc() -> ctypes.CDLL:
    libc = ctypes.CDLL(None, use_errno=True)
    libc.mount.argtypes = (ctypes.c_char_p, ctypes.c_char_p, ctypes.c_char_p, ctypes.c_ulong, ctypes.c_char_p)
    libc.umount2.argtypes = (ctypes.c_char_p, ctypes.c_int)
    return libc


def _escaped(path: str) -> str:
    """As mountinfo writes it."""
    return "".join(f"\\{ord(c):03o}" if c in " \t\n\\" else c for c in path)


def _unescaped(field: str) -> str:
    if "\\" not in field:
        return field
    # Bytes above 127 come raw, so only the four escaped ASCII characters are ever written this way.
    return _OCTAL_ESCAPE.sub(lambda match: chr(int(match[1], 8)), field)
