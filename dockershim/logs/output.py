"""The CRI log file of a container: made, and found again where somebody moved it.

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
