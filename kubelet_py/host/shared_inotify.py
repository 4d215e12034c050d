"""Being told when something in a directory changes, for many watchers over one descriptor.

Owns one inotify descriptor for the whole process (the kernel allows 128 of them per user by default), made when it is
first needed. Many may watch the same directory. Needs a running event loop; knows nothing of what is in the files.

Upstream counterpart: fsnotify as used by the log follower.
"""

import asyncio
import contextlib
import ctypes
import os
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Final

IN_MODIFY: Final = 0x002
IN_CLOSE_WRITE: Final = 0x008
IN_MOVED_FROM: Final = 0x040
IN_MOVED_TO: Final = 0x080
IN_CREATE: Final = 0x100
IN_DELETE: Final = 0x200
IN_Q_OVERFLOW: Final = 0x4000
IN_IGNORED: Final = 0x8000
IN_ONLYDIR: Final = 0x01000000

_CHANGES: Final = IN_MODIFY | IN_CLOSE_WRITE | IN_MOVED_FROM | IN_MOVED_TO | IN_CREATE | IN_DELETE | IN_ONLYDIR
_HEADER: Final = struct.Struct("iIII")


class SharedInotify:
    """Directory watches that set asyncio events."""

    def __init__(self) -> None:
        self._descriptor: int | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._listeners: dict[int, set[asyncio.Event]] = {}

    @contextlib.contextmanager
    def watch(self, directory: Path) -> Iterator[asyncio.Event]:
        """An event that is set at every change of a file in the directory; who waits for it clears it.

        OSError when the kernel has no watch left or the directory does not exist.
        """
        descriptor = self._opened()
        watch = _libc().inotify_add_watch(descriptor, os.fsencode(directory), _CHANGES)
        if watch < 0:
            number = ctypes.get_errno()
            raise OSError(number, os.strerror(number), str(directory))
        changed = asyncio.Event()
        self._listeners.setdefault(watch, set()).add(changed)
        try:
            yield changed
        finally:
            others = self._listeners.get(watch)
            if others is not None:
                others.discard(changed)
                if not others:
                    del self._listeners[watch]
                    _libc().inotify_rm_watch(descriptor, watch)

    def close(self) -> None:
        """Let go of the descriptor."""
        if self._descriptor is not None:
            if self._loop is not None and not self._loop.is_closed():
                self._loop.remove_reader(self._descriptor)
            os.close(self._descriptor)
            self._descriptor = None
            self._listeners.clear()

    def _opened(self) -> int:
        if self._descriptor is None:
            descriptor = _libc().inotify_init1(os.O_NONBLOCK | os.O_CLOEXEC)
            if descriptor < 0:
                number = ctypes.get_errno()
                raise OSError(number, f"inotify_init1: {os.strerror(number)}")
            self._loop = asyncio.get_running_loop()
            self._loop.add_reader(descriptor, self._read)
            self._descriptor = descriptor
        return self._descriptor

    def _read(self) -> None:
        if self._descriptor is None:
            return
        try:
            data = os.read(self._descriptor, 65536)
        except BlockingIOError:
            return
        offset, seen = 0, set()
        while offset + _HEADER.size <= len(data):
            watch, mask, _, name_length = _HEADER.unpack_from(data, offset)
            offset += _HEADER.size + name_length
            seen.add(watch)
            if mask & IN_Q_OVERFLOW:
                seen.update(self._listeners)
        for watch in seen:
            for changed in self._listeners.get(watch, ()):
                changed.set()


def _libc() -> ctypes.CDLL:
    return ctypes.CDLL(None, use_errno=True)
