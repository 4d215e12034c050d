"""The CRI log file of a container: made, found again where somebody moved it, and held open by whoever writes it.

Must not know what is written into it. Upstream counterpart: containerd's internal/cri/io.
"""

from __future__ import annotations

import contextlib
import os
import stat

FILE_MODE = 0o640
DIRECTORY_MODE = 0o755
_APPEND = os.O_RDWR | os.O_APPEND | os.O_CLOEXEC | os.O_NOFOLLOW


def create(path: str) -> int:
    """The file at its path, made where there is none. OSError when that cannot be."""
    if os.path.islink(path):
        os.unlink(path)  # as cri-dockerd leaves it: a link to Docker's own file, which is not ours to write
    try:
        descriptor = os.open(path, _APPEND | os.O_CREAT, FILE_MODE)
    except FileNotFoundError:
        os.makedirs(os.path.dirname(path), mode=DIRECTORY_MODE, exist_ok=True)
        descriptor = os.open(path, _APPEND | os.O_CREAT, FILE_MODE)
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise OSError(f"{path} is not a regular file: it cannot take the container's log")
    return descriptor


def find(path: str, device: int, inode: int) -> int | None:
    """One particular file, opened, at its path or where somebody moved it in the same directory."""
    candidates = [path]
    with contextlib.suppress(OSError), os.scandir(os.path.dirname(path)) as entries:
        candidates += [entry.path for entry in entries if entry.inode() == inode]
    for candidate in candidates:
        try:
            descriptor = os.open(candidate, _APPEND)
        except OSError:
            continue
        status = os.fstat(descriptor)
        if (status.st_dev, status.st_ino) == (device, inode):
            return descriptor
        os.close(descriptor)
    return None


class OutputFile:
    """The open file of a container's log. OSError where the disk refuses."""

    def __init__(self, path: str) -> None:
        self.path = path
        self.descriptor = -1
        self.unsaved_bytes = 0
        """So much was written since somebody recorded the place."""

    @property
    def is_open(self) -> bool:
        """Whether there is one."""
        return self.descriptor >= 0

    @property
    def is_unsaved(self) -> bool:
        """Something was written since the last record."""
        return self.unsaved_bytes > 0

    @property
    def size_bytes(self) -> int:
        """How much it holds."""
        return os.fstat(self.descriptor).st_size

    @property
    def identity(self) -> tuple[int, int]:
        """Device and inode, by which it is found again."""
        status = os.fstat(self.descriptor)
        return status.st_dev, status.st_ino

    def create(self) -> None:
        """Open it at its path, made where there is none."""
        self._take(create(self.path))

    def find(self, device: int, inode: int) -> bool:
        """Open one particular file; False where it is not any more."""
        found = find(self.path, device, inode)
        if found is not None:
            self._take(found)
        return found is not None

    def reopen(self) -> bool:
        """Go on in a new file at the path; False when ours is still there."""
        fresh = create(self.path)
        if self.is_open and os.path.sameopenfile(fresh, self.descriptor):
            os.close(fresh)
            return False
        self._take(fresh)
        return True

    def _take(self, descriptor: int) -> None:
        if self.is_open:
            os.close(self.descriptor)
        self.descriptor = descriptor

    def close(self) -> None:
        """Give it back."""
        if self.is_open:
            os.close(self.descriptor)
            self.descriptor = -1
