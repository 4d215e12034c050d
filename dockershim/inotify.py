"""The kernel's inotify, one file descriptor for any number of watches.

Owns the system calls and the format of the events. Must not know who watches what. Not watchfiles: that one watches
whole trees from threads of its own, and hides the events we decide on (a file made again, a queue that ran over).
"""

from __future__ import annotations

import ctypes
import os
import struct
from dataclasses import dataclass

MODIFY = 0x2
ATTRIBUTES = 0x4
CLOSE_WRITE = 0x8
MOVED_FROM = 0x40
MOVED_TO = 0x80
CREATE = 0x100
DELETE = 0x200
DELETE_SELF = 0x400
MOVE_SELF = 0x800
QUEUE_OVERFLOW = 0x4000
IGNORED = 0x8000
ONLY_DIRECTORY = 0x1000000

_HEADER = struct.Struct("iIII")
_READ_BYTES = 1 << 16

_libc = ctypes.CDLL(None, use_errno=True)


@dataclass(frozen=True, slots=True)
class Event:
    """What happened below one watch; `watch` is -1 for a queue overflow, after which everything may have happened."""

    watch: int
    mask: int
    name: str


class Inotify:
    """Watches; `fd` is readable when something happened. It never blocks."""

    def __init__(self) -> None:
        self.fd: int = _libc.inotify_init1(os.O_NONBLOCK | os.O_CLOEXEC)
        if self.fd < 0:
            raise _error("inotify_init1 (see the sysctl fs.inotify.max_user_instances)")

    def add(self, path: str | os.PathLike[str], mask: int) -> int:
        """Watch a path; the same file gives the same number again."""
        watch: int = _libc.inotify_add_watch(self.fd, os.fsencode(path), ctypes.c_uint32(mask))
        if watch < 0:
            raise _error(f"watching {os.fspath(path)} (see the sysctl fs.inotify.max_user_watches)")
        return watch

    def remove(self, watch: int) -> None:
        """Stop watching; a watch that is gone already is no error."""
        _libc.inotify_rm_watch(self.fd, watch)

    def read(self) -> list[Event]:
        """What has happened since the last call."""
        events: list[Event] = []
        while self.fd >= 0:
            try:
                data = os.read(self.fd, _READ_BYTES)
            except BlockingIOError:
                break
            offset = 0
            while offset < len(data):
                watch, mask, _, length = _HEADER.unpack_from(data, offset)
                offset += _HEADER.size
                name = os.fsdecode(data[offset : offset + length].rstrip(b"\0")) if length else ""
                offset += length
                events.append(Event(watch, mask, name))
            if len(data) < _READ_BYTES // 2:
                break
        return events

    def close(self) -> None:
        """Give the descriptor back; all watches end."""
        if self.fd >= 0:
            os.close(self.fd)
            self.fd = -1


def _error(what: str) -> OSError:
    number = ctypes.get_errno()
    return OSError(number, f"{os.strerror(number)}: {what}")
