"""The generations of one log file of Docker's: the current one and those it was rotated into, read in order.

Owns which file comes after which, by inode, so that a rename under the reader changes nothing. Must not know what the
lines mean. dockerd rotates `X` into `X.1`, `X.1` into `X.2` and so on, and has finished with a file before the next one
exists; a file that is held open here can be read to its end even when dockerd has removed it. With `max-file=1` old
engines truncate the current file in place. Limit: compressed generations (`X.1.gz`) are not read.
"""

from __future__ import annotations

import os
import time
from collections import deque
from dataclasses import dataclass

from dockershim.logs import position
from dockershim.logs.position import SourceMark

FileKey = tuple[int, int]
"""Device and inode: what tells files apart as long as one of them is open."""
_PENDING_LIMIT = 16
_SCANS = 20
_BETWEEN_SCANS_SECONDS = 0.001


@dataclass(slots=True)
class Generation:
    """One open file and how far it has been read; `offset` is always the start of a line."""

    descriptor: int
    key: FileKey
    offset: int = 0

    def size_bytes(self) -> int:
        """How long it is now."""
        return os.fstat(self.descriptor).st_size


class Generations:
    """Open generations, the one being read first. `gap` is set when some may have gone unread."""

    def __init__(self, path: str) -> None:
        self._path = path
        self._open: deque[Generation] = deque()
        self._has_more = False
        self.gap = False

    @property
    def current(self) -> Generation | None:
        """The one to read now."""
        return self._open[0] if self._open else None

    def is_last(self) -> bool:
        """No newer one is known."""
        if len(self._open) <= 1 and self._has_more:
            self.scan()
        return len(self._open) <= 1

    def seek(self, mark: SourceMark) -> None:
        """Begin at a mark; at the oldest file there is when the marked one is gone."""
        marked = (mark.device, mark.inode)
        self.scan(marked)
        generation = self.current
        if generation is None or not mark.inode:
            return
        if position.is_at(mark, generation.descriptor):
            generation.offset = mark.offset
            return
        self.gap = True
        if generation.key == marked:  # another file by now: there may be older ones
            self.close()
            self.scan()

    def scan(self, first: FileKey | None = None) -> None:
        """Open what is newer than what is known; where nothing is, from `first` on or from the oldest."""
        for attempt in range(_SCANS):
            if attempt:
                time.sleep(_BETWEEN_SCANS_SECONDS)
            if self._try_scan(first, is_last_try=attempt == _SCANS - 1):
                return

    def _try_scan(self, first: FileKey | None, *, is_last_try: bool) -> bool:
        """False when a rotation came between, and the order that was seen may be wrong."""
        found, has_hole = self._look()
        keys = [key for _, key in found]
        last = self._open[-1] if self._open else None
        if len(set(keys)) != len(keys) or (has_hole and not is_last_try):
            return False
        if last is not None and last.key in keys:
            found = found[keys.index(last.key) + 1 :]
        elif last is not None:
            if os.fstat(last.descriptor).st_nlink and not is_last_try:
                return False
            self.gap = bool(found)
        elif first in keys:
            found = found[keys.index(first) :]
        room = max(0, _PENDING_LIMIT - len(self._open))
        self._has_more = len(found) > room
        for path, key in found[:room]:
            try:
                descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
            except FileNotFoundError:
                return False
            if _key(os.fstat(descriptor)) != key:
                os.close(descriptor)
                return False
            self._open.append(Generation(descriptor, key))  # in order and without a hole, whatever comes between
        return True

    def _look(self) -> tuple[list[tuple[str, FileKey]], bool]:
        """The files there are, the oldest first, and whether there was a hole in their numbers.

        dockerd renames from the oldest to the newest, which leaves one hole that wanders down; looking upwards meets
        each file at least once.
        """
        found: list[tuple[str, FileKey]] = []
        index = missing = holes = 0
        while missing < 2:
            path = f"{self._path}.{index}" if index else self._path
            try:
                found.append((path, _key(os.stat(path))))
                holes += missing
                missing = 0
            except (FileNotFoundError, NotADirectoryError):
                missing += 1
            index += 1
        found.reverse()
        return found, holes > 0

    def advance(self) -> None:
        """The current one is read to its end and a newer one exists: go on there."""
        os.close(self._open.popleft().descriptor)

    def mark(self, offset: int | None = None) -> SourceMark:
        """Where reading stands, or another place in the current file."""
        if not self._open:
            return position.BEGINNING
        return position.mark(self._open[0].descriptor, self._open[0].offset if offset is None else offset)

    def close(self) -> None:
        """Close all."""
        while self._open:
            os.close(self._open.popleft().descriptor)


def _key(status: os.stat_result) -> FileKey:
    return (status.st_dev, status.st_ino)
