"""Waiting for changes in directories: the kernel's inotify on the event loop.

Owns the system calls and the format of the events. Must not know what the files are for. Not watchfiles: that one
starts a thread for each watch and hides whether a writer has closed the file.
"""

import asyncio
import ctypes
import os
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

MODIFY: Final = 0x2
ATTRIB: Final = 0x4
CLOSE_WRITE: Final = 0x8
MOVED_FROM: Final = 0x40
MOVED_TO: Final = 0x80
CREATE: Final = 0x100
DELETE: Final = 0x200
DELETE_SELF: Final = 0x400
MOVE_SELF: Final = 0x800
QUEUE_OVERFLOW: Final = 0x4000
IGNORED: Final = 0x8000

_HEADER = struct.Struct("iIII")
_READ_BYTES: Final = 1 << 16


@dataclass(frozen=True, slots=True)
class Change:
    """What happened to a name in the directory; no name when it is the directory itself."""

    mask: int
    name: str

    @property
    def watch_lost(self) -> bool:
        """The directory went away, or events were lost: look at everything, watch anew."""
        return bool(self.mask & (DELETE_SELF | MOVE_SELF | IGNORED | QUEUE_OVERFLOW))


class DirectoryWatch:
    """Changes in one directory. Use as a context manager; raises OSError when the directory cannot be watched."""

    def __init__(self, directory: Path, mask: int) -> None:
        self._directory = directory
        self._mask = mask
        self._fd = -1
        self._readable = asyncio.Event()

    def __enter__(self) -> "DirectoryWatch":
        libc = ctypes.CDLL(None, use_errno=True)
        self._fd = libc.inotify_init1(os.O_NONBLOCK | os.O_CLOEXEC)
        if self._fd < 0:
            raise _error("no inotify instance (see the sysctl fs.inotify.max_user_instances)")
        if libc.inotify_add_watch(self._fd, os.fsencode(self._directory), ctypes.c_uint32(self._mask)) < 0:
            error = _error(f"cannot watch {self._directory} (see the sysctl fs.inotify.max_user_watches)")
            self._close()
            raise error
        asyncio.get_running_loop().add_reader(self._fd, self._readable.set)
        return self

    def __exit__(self, *_: object) -> None:
        asyncio.get_running_loop().remove_reader(self._fd)
        self._close()

    async def changes(self) -> list[Change]:
        """Waits until something happened, and tells all that did."""
        while True:
            await self._readable.wait()
            self._readable.clear()
            if found := list(self._read()):
                return found

    def _read(self) -> Iterator[Change]:
        try:
            data = os.read(self._fd, _READ_BYTES)
        except BlockingIOError:
            return
        if len(data) > _READ_BYTES // 2:
            self._readable.set()  # there may be more
        offset = 0
        while offset < len(data):
            _, mask, _, length = _HEADER.unpack_from(data, offset)
            offset += _HEADER.size
            yield Change(mask, os.fsdecode(data[offset : offset + length].rstrip(b"\0")))
            offset += length

    def _close(self) -> None:
        os.close(self._fd)
        self._fd = -1


def _error(what: str) -> OSError:
    number = ctypes.get_errno()
    return OSError(number, f"{what}: {os.strerror(number)}")
