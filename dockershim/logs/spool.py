"""One container's log out of the spool: reads the segments where it left off and writes the CRI file.

Owns the place in each stream and in the output, the removal of what is no longer needed, and the start after a crash:
the lines after the last record are compared with the source, so that the places agree with what the file holds. Must
not know who fills the segments (`dockershim.oci.spooler`) or who wakes it. Everything here blocks on the disk: it runs
in the log thread. Upstream counterpart: containerd's cri/io, which reads the container's pipe itself and loses what it
has in memory when it dies. Difference to `follower`: what is translated is removed, so an output that somebody deletes
is not made again.
"""

from __future__ import annotations

import array
import contextlib
import fcntl
import os
import termios
from pathlib import Path

import structlog

from cri_proto.wire.log_line import LogLineError, parse_line
from dockershim import inotify
from dockershim.logs import LogSource, spool_text
from dockershim.logs.output import OutputFile
from dockershim.logs.position import PositionStore, SpoolPosition
from dockershim.oci import spool

SLICE_BYTES = 1 << 16
SAVE_EVERY_BYTES = 4 << 20
_COMPARED_BYTES = 1 << 18

logger = structlog.get_logger()


class SpoolReader:
    """One stream: the bytes from `offset` on, which is counted from the stream's beginning."""

    def __init__(self, directory: str, stream: str) -> None:
        self._directory = directory
        self.stream = stream
        self.offset = 0
        self._segment = -1
        self._number = -1

    def seek(self, offset: int) -> bool:
        """Go to a place; False where it is gone and the oldest there is was taken instead."""
        self.offset = offset
        numbers = self._numbers()
        if not numbers or numbers[0] * spool.SEGMENT_BYTES <= offset:
            return True
        self.offset = numbers[0] * spool.SEGMENT_BYTES
        return False

    def _numbers(self) -> list[int]:
        try:
            return spool.segment_numbers(self._directory, self.stream)
        except FileNotFoundError:
            return []

    def read(self, size_bytes: int) -> bytes:
        """So much, or all there is. Does not move."""
        data = b""
        while len(data) < size_bytes:
            number, at = divmod(self.offset + len(data), spool.SEGMENT_BYTES)
            if not self._open(number):
                break
            piece = os.pread(self._segment, size_bytes - len(data), at)
            if not piece:
                break
            data += piece
        return data

    def _open(self, number: int) -> bool:
        if number == self._number:
            return True
        try:
            descriptor = os.open(spool.segment(self._directory, self.stream, number), os.O_RDONLY | os.O_CLOEXEC)
        except FileNotFoundError:
            return False
        self.close()
        self._segment, self._number = descriptor, number
        return True

    def time_ns(self) -> int:
        """When the last byte came into the segment that was read last."""
        return os.fstat(self._segment).st_mtime_ns

    def has_ended(self, *, is_dead: bool) -> bool:
        """Nothing comes any more. Of a container that is dead: what its FIFO had is in the segments."""
        path = spool.fifo(self._directory, self.stream)
        if not is_dead:
            return not os.path.exists(path)
        try:
            descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        except FileNotFoundError:
            return True
        try:
            waiting = array.array("i", [0])
            fcntl.ioctl(descriptor, termios.FIONREAD, waiting)
            return waiting[0] == 0
        finally:
            os.close(descriptor)

    def remove_before(self, offset: int) -> None:
        """What lies before a place is not needed any more. The segment with the place stays: it shows how far it is."""
        for number in self._numbers():
            if (number + 1) * spool.SEGMENT_BYTES > offset:
                break
            with contextlib.suppress(FileNotFoundError):
                os.unlink(spool.segment(self._directory, self.stream, number))

    def close(self) -> None:
        """Give the segment back."""
        if self._segment >= 0:
            os.close(self._segment)
        self._segment, self._number = -1, -1


class SpoolFollower:
    """As `Follower`: create, `open`, then `step` until it says that there is no more."""

    events = inotify.MODIFY | inotify.ATTRIBUTES | inotify.CREATE | inotify.DELETE

    def __init__(self, source: LogSource, store: PositionStore, slice_bytes: int = SLICE_BYTES) -> None:
        self.source = source
        self.directory = f"{source.spool_directory}/{source.container_id}"
        self.ending = False
        """The container is dead."""
        self._store = store
        self._slice_bytes = slice_bytes
        self._readers = [SpoolReader(self.directory, stream) for stream in spool.STREAMS]
        self.output = OutputFile(source.cri_log_path)
        self._output_bytes = 0
        self._log = logger.bind(container_id=source.container_id, path=source.cri_log_path)

    # the start

    def open(self) -> None:
        """Find the place in all files and record it. May be called again after it failed."""
        self.close()
        position = self._store.load_spool(self.source.container_id)
        if position is None or not self.output.find(position.output_device, position.output_inode):
            self.output.create()
            # without a record there was none before: the first is made here, before the first line
            self._seek(position.offsets if position else (0, 0))
            self._output_bytes = self.output.size_bytes
        else:
            self._seek(position.offsets)
            self._output_bytes = position.output_bytes
            self._catch_up()
            if os.path.lexists(self.source.cri_log_path):  # killed in the middle of a reopen: the next file is there
                self.reopen()
        self.save()

    def _seek(self, offsets: tuple[int, ...]) -> None:
        for reader, offset in zip(self._readers, offsets, strict=True):
            if not reader.seek(offset):
                self._log.warning("container_log_gap", stream=reader.stream, directory=self.directory)

    def _catch_up(self) -> None:
        """Bring the places to the end of the output, comparing its lines; a line that was torn off is taken away."""
        size_bytes = self.output.size_bytes
        self._output_bytes = min(self._output_bytes, size_bytes)  # the machine lost power
        by_stream = {reader.stream.encode(): reader for reader in self._readers}
        while self._output_bytes < size_bytes:
            data = os.pread(self.output.descriptor, _COMPARED_BYTES, self._output_bytes)
            *lines, _ = data.split(b"\n")
            if not lines:
                break
            for raw in lines:
                count = 0
                with contextlib.suppress(LogLineError, KeyError):
                    line = parse_line(raw)
                    reader = by_stream[line.stream]
                    count = spool_text.source_bytes(line, reader.read(len(line.text) + 2))
                    reader.offset += count
                if not count:
                    self._log.warning(
                        "container_log_diverged", hint="somebody else wrote to the file; lines may be there twice"
                    )
                    self._output_bytes = size_bytes
                    return
                self._output_bytes += len(raw) + 1
        os.ftruncate(self.output.descriptor, self._output_bytes)

    # the work

    def step(self) -> bool:
        """Translate one slice of each stream. True: there may be more at once. OSError: the disk; try again later."""
        return sum(self._advance(reader) for reader in self._readers) > 0  # each has its turn

    def _advance(self, reader: SpoolReader) -> bool:
        at_end = reader.has_ended(is_dead=self.ending)  # asked first: what came before is in the segments then
        data = reader.read(self._slice_bytes)
        if not data:
            return False
        at_end = at_end and len(data) < self._slice_bytes
        stamp = spool_text.timestamp(reader.time_ns())
        written, count = spool_text.translate(data, reader.stream.encode(), stamp, at_end=at_end)
        if not count:
            return False
        self._write(written)
        reader.offset += count
        self._output_bytes += len(written)
        self.output.unsaved_bytes += len(written)
        if self.output.unsaved_bytes >= SAVE_EVERY_BYTES:
            self.save()
        return True

    def _write(self, data: bytes) -> None:
        rest = memoryview(data)
        try:
            while rest:
                rest = rest[os.write(self.output.descriptor, rest) :]
        except OSError:
            self._catch_up()
            raise

    @property
    def is_finished(self) -> bool:
        """All is written and nothing comes any more."""
        return all(reader.has_ended(is_dead=self.ending) and not reader.read(1) for reader in self._readers)

    # events

    def rescan(self) -> None:
        """Segments are found by their numbers."""

    def reopen(self) -> None:
        """Go on in a new file at the path; nothing happens when ours is still there."""
        if self.output.reopen():
            self._output_bytes = self.output.size_bytes
            self.save()  # before the first write, so that a file that is not recorded is known to be empty

    def save(self, *, ended: bool = False) -> None:
        """Record the places, then remove what lies before them."""
        if not self.output.is_open:
            return
        offsets = tuple(reader.offset for reader in self._readers)
        position = SpoolPosition(*self.output.identity, self._output_bytes, offsets, ended=ended)
        self._store.save(self.source.container_id, position)
        self.output.unsaved_bytes = 0
        for reader in self._readers:
            reader.remove_before(reader.offset)

    def close(self) -> None:
        """Give the files back; what is not recorded is found again."""
        self.output.close()
        for reader in self._readers:
            reader.close()


class SpoolDirectories:
    """The directories of containers below the spool's."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory

    def remove(self, container_id: str) -> None:
        """A container that is gone, with all that nobody has read."""
        directory = self._directory / container_id
        with contextlib.suppress(FileNotFoundError):
            for entry in list(directory.iterdir()):
                entry.unlink(missing_ok=True)
            directory.rmdir()

    def retain(self, container_ids: set[str]) -> None:
        """Remove those of all containers but these."""
        with contextlib.suppress(FileNotFoundError):
            for entry in list(self._directory.iterdir()):
                if entry.name not in container_ids and entry.is_dir():
                    self.remove(entry.name)
