"""How far the log of a container has been translated, kept so that a restart goes on at the very byte.

Owns the shape of the record and its file. An anchor says: "when the output had this many bytes, the source had been
translated up to here". Because the translation is a pure function, an anchor need not be recent: what the output holds
beyond it is made again from the source and left out. Two are kept, the latest one and the start of the output file, for
an output that lost its end with the machine's power, or all of itself to somebody's hand.
"""

from __future__ import annotations

import contextlib
import os
import zlib
from collections.abc import Iterable
from pathlib import Path

import msgspec

HEAD_BYTES = 512


class SourceMark(msgspec.Struct, frozen=True):
    """A place in one generation of Docker's file. The head tells a file from a later one with the same inode number."""

    device: int = 0
    inode: int = 0
    offset: int = 0
    head_bytes: int = 0
    head_crc: int = 0


BEGINNING = SourceMark()


class Anchor(msgspec.Struct, frozen=True):
    """The output had `output_bytes` when the source was translated up to `source`."""

    source: SourceMark
    output_bytes: int


class Position(msgspec.Struct, frozen=True):
    """All that a restart needs to know about one container's log."""

    output_device: int
    output_inode: int
    latest: Anchor
    start: Anchor
    ended: bool = False


class SpoolPosition(msgspec.Struct, frozen=True):
    """The same for a log that comes out of the spool: the output had so many bytes when the streams (stdout, stderr)
    had been translated up to these places."""

    output_device: int
    output_inode: int
    output_bytes: int
    offsets: tuple[int, ...]
    ended: bool = False


def is_at(mark: SourceMark, descriptor: int) -> bool:
    """Whether this open file is the one that was marked, and reaches as far."""
    status = os.fstat(descriptor)
    return (
        (status.st_dev, status.st_ino) == (mark.device, mark.inode)
        and status.st_size >= mark.offset
        and zlib.crc32(os.pread(descriptor, mark.head_bytes, 0)) == mark.head_crc
    )


def mark(descriptor: int, offset: int) -> SourceMark:
    """The mark of a place in an open file."""
    status = os.fstat(descriptor)
    head = os.pread(descriptor, min(offset, HEAD_BYTES), 0)
    return SourceMark(status.st_dev, status.st_ino, offset, len(head), zlib.crc32(head))


class PositionStore:
    """One small file per container in a directory of ours, replaced as a whole."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._encode = msgspec.json.Encoder().encode
        self._decode = msgspec.json.Decoder(Position).decode
        self._decode_spool = msgspec.json.Decoder(SpoolPosition).decode

    def load(self, container_id: str) -> Position | None:
        """The record, or None where there is none that can be read (the follower then looks for its place itself)."""
        try:
            return self._decode((self._directory / container_id).read_bytes())
        except (OSError, msgspec.MsgspecError):
            return None

    def load_spool(self, container_id: str) -> SpoolPosition | None:
        """The record of a log that comes out of the spool, or None."""
        try:
            return self._decode_spool((self._directory / container_id).read_bytes())
        except (OSError, msgspec.MsgspecError):
            return None

    def save(self, container_id: str, position: Position | SpoolPosition) -> None:
        """Replace the record. No fsync: it is for our own death; after a power cut the anchors allow for less."""
        temporary = self._directory / f".{container_id}"
        try:
            descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
        except FileNotFoundError:
            self._directory.mkdir(mode=0o700, parents=True, exist_ok=True)
            descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
        try:
            os.write(descriptor, self._encode(position))
        finally:
            os.close(descriptor)
        os.rename(temporary, self._directory / container_id)

    def remove(self, container_id: str) -> None:
        """Forget a container."""
        with contextlib.suppress(FileNotFoundError):
            os.unlink(self._directory / container_id)

    def retain(self, container_ids: Iterable[str]) -> None:
        """Forget all containers but these."""
        keep = set(container_ids)
        with contextlib.suppress(FileNotFoundError):
            for name in os.listdir(self._directory):
                if name not in keep:
                    self.remove(name)
