"""The generations of one log file of Docker's: the current one and those it was rotated into, read in order.

Owns which file comes after which, by inode, so that a rename under the reader changes nothing. Must not know what the
lines mean. dockerd rotates `X` into `X.1`, `X.1` into `X.2` and so on, and has finished with a file before the next one
exists; a file that is held open here can be read to its end even when dockerd has removed it. With `max-file=1` old
engines truncate the current file in place. Limit: compressed generations (`X.1.gz`) are not read.
"""

from __future__ import annotations

import os
from collections import deque
from dataclasses import dataclass

from dockershim.logs import position
from dockershim.logs.position import SourceMark

_PENDING_LIMIT = 16
_SCANS = 20


@dataclass(slots=True)
class Generation:
    """One open file and how far it has been read; `offset` is always the start of a line."""

    descriptor: int
    device: int
    inode: int
    offset: int = 0

    @property
    def key(self) -> tuple[int, int]:
        """What tells files apart while they are open."""
        return (self.device, self.inode)

    def size_bytes(self) -> int:
        """How long it is now."""
        return os.fstat(self.descriptor).st_size


class Generations:
    """Open generations, the one being read first. `gap` is set when some may have gone unread."""

    def __init__(self, path: str) -> None:
        self._path = path
        self._open: deque[Generation] = deque()
        self.gap = False

    @property
    def current(self) -> Generation | None:
        """The one to read now."""
        return self._open[0] if self._open else None

    @property
    def is_last(self) -> bool:
        """No newer one is known."""
        return len(self._open) <= 1

    def seek(self, mark: SourceMark) -> None:
        """Begin at a mark; at the oldest file there is when the marked one is gone."""
        self.scan()
        if not mark.inode:
            return
        marked = next((each for each in self._open if position.is_at(mark, each.descriptor)), None)
        if marked is None:
            self.gap = bool(self._open)
            return
        while self._open[0] is not marked:
            self.advance()
        marked.offset = mark.offset

    def scan(self) -> None:
        """Open what is newer than what is known."""
        for _ in range(_SCANS):
            if self._try_scan():
                return

    def _try_scan(self) -> bool:
        """False when a rotation came between, and the order that was seen may be wrong."""
        found: list[tuple[str, tuple[int, int]]] = []
        index = 0
        while True:
            path = f"{self._path}.{index}" if index else self._path
            try:
                status = os.stat(path)
            except (FileNotFoundError, NotADirectoryError):
                if index:
                    break
            else:
                found.append((path, (status.st_dev, status.st_ino)))
            index += 1
        found.reverse()
        last = self._open[-1].key if self._open else None
        keys = [key for _, key in found]
        if len(set(keys)) != len(keys):
            return False
        if last is not None:
            if last in keys:
                found = found[keys.index(last) + 1 :]
            elif found:
                self.gap = True
        opened: list[Generation] = []
        for path, key in found[: max(0, _PENDING_LIMIT - len(self._open))]:
            try:
                descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
            except FileNotFoundError:
                break
            status = os.fstat(descriptor)
            if (status.st_dev, status.st_ino) != key:
                os.close(descriptor)
                break
            opened.append(Generation(descriptor, *key))
        self._open.extend(opened)  # in order, and without a hole, whatever came between
        return len(opened) == len(found) or len(self._open) >= _PENDING_LIMIT

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
