"""One container's log: reads Docker's file where it left off and brings the CRI file up to it.

Owns the two open files, the place in each, and the start after a crash: which output file was ours, how much of the
translation it holds already. Must not know who wakes it. Everything here blocks on the disk: it runs in the log thread.
Upstream counterpart: containerd's cri/io; the difference is that a write here can be made again, so nothing is lost or
doubled when this process dies between any two instructions.
"""

from __future__ import annotations

import os

import structlog

from dockershim import inotify
from dockershim.logs import LogSource, docker_json
from dockershim.logs.generations import Generations
from dockershim.logs.output import OutputFile
from dockershim.logs.position import BEGINNING, Anchor, Position, PositionStore

SLICE_BYTES = 1 << 16
SAVE_EVERY_BYTES = 4 << 20

logger = structlog.get_logger()


class Follower:
    """Create, `open`, then `step` until it says that there is no more; again when the source has changed."""

    events = inotify.MODIFY | inotify.CREATE | inotify.MOVED_TO
    is_finished = True
    """At the end of the file no more comes: dockerd has written it before it tells of the container's end."""

    def __init__(self, source: LogSource, store: PositionStore, slice_bytes: int = SLICE_BYTES) -> None:
        self.source = source
        self.directory = os.path.dirname(source.docker_log_path)
        self.ending = False
        self._store = store
        self._generations = Generations(source.docker_log_path)
        self.output = OutputFile(source.cri_log_path)
        self._start = Anchor(BEGINNING, 0)
        self._skip_bytes = 0  # so many bytes of the translation from here on are in the output already
        self._verify_at = -1  # where in the output they are, as long as that is worth a look
        self._slice_bytes = slice_bytes
        self._read_bytes = slice_bytes
        self.has_ended = False
        """An earlier process had written this log to its end."""
        self._oversized_from = -1  # the start of a line that is too long to be an entry
        self._log = logger.bind(container_id=source.container_id, path=source.cri_log_path)

    # the start

    def open(self) -> None:
        """Find the place in both files and record it. May be called again after it failed."""
        self.close()
        position = self._store.load(self.source.container_id)
        self.has_ended = position is not None and position.ended
        if position is None:
            self._open_without_position()
        else:
            self._open_at(position)
        if self._generations.gap:
            self._warn_gap()
        self.save()

    def _open_at(self, position: Position) -> None:
        if not self.output.find(position.output_device, position.output_inode):
            # removed while nobody looked: what it held is still in the source
            self.output.create()
            self._generations.seek(position.start.source)
            self._start = self._here()
            return
        size_bytes = self.output.size_bytes
        anchor = position.latest if size_bytes >= position.latest.output_bytes else position.start
        self._generations.seek(anchor.source)
        self._start = position.start
        self._skip_bytes = max(0, size_bytes - anchor.output_bytes)
        self._verify_at = anchor.output_bytes
        if os.path.lexists(self.source.cri_log_path):
            # killed in the middle of a reopen: ours was moved away, and the file after it is there
            self._take_new_output()

    def _take_new_output(self) -> bool:
        """Go on in a new file at the path; False when ours is still there."""
        self._cut_torn_line()
        if not self.output.reopen():
            return False
        self._verify_at = -1
        self._start = self._here()
        return True

    def _cut_torn_line(self) -> None:
        """What a kill or a full disk left of a line: it is made again, and whole, in the next file."""
        size_bytes = self.output.size_bytes
        looked_at = min(self._skip_bytes, size_bytes, docker_json.MAX_LINE_BYTES)
        tail = os.pread(self.output.descriptor, looked_at, size_bytes - looked_at)
        torn = len(tail) - tail.rfind(b"\n") - 1
        if torn:
            os.ftruncate(self.output.descriptor, size_bytes - torn)
            self._skip_bytes -= torn

    def _open_without_position(self) -> None:
        self.output.create()
        self._generations.seek(BEGINNING)
        self._start = self._here()
        if self._start.output_bytes:
            self._resume_after_last_line(self._start.output_bytes)

    def _resume_after_last_line(self, size_bytes: int) -> None:
        """The record is lost but the output is not: go on after the source line that its last line came from."""
        tail = os.pread(
            self.output.descriptor, docker_json.MAX_LINE_BYTES, max(0, size_bytes - docker_json.MAX_LINE_BYTES)
        )
        end = tail.rfind(b"\n") + 1
        line = tail[tail.rfind(b"\n", 0, end - 1) + 1 : end]
        if not line:
            # not one whole line: what is there was torn off the very first
            self._skip_bytes, self._verify_at = size_bytes, 0
            self._start = self._here()
            return
        while (chunk := self._next_chunk()) is not None:
            if not chunk and not self._at_end_of_generation():
                break
            translation = docker_json.translate(chunk)
            found = translation.find(line)
            if found >= 0 and (found == 0 or translation[found - 1] == 0x0A):
                self._skip_bytes = found + len(line) + len(tail) - end
                self._start = self._here()
                return
            self._consume(len(chunk))
        self._generations.close()
        self._generations = Generations(self.source.docker_log_path)
        self._generations.seek(BEGINNING)

    # the work

    def step(self) -> bool:
        """Translate one slice. True: there may be more at once. A disk that is full raises OSError; try again later."""
        chunk = self._next_chunk()
        if chunk is None:
            return False
        if not chunk:
            return self._at_end_of_generation()
        self._write(docker_json.translate(chunk))
        self._consume(len(chunk))
        if self.output.unsaved_bytes >= SAVE_EVERY_BYTES:
            self.save()
        return True

    def _next_chunk(self) -> bytes | None:
        """The next whole lines; nothing at the end; None where there is no file yet."""
        generation = self._generations.current
        if generation is None:
            return None
        while True:
            data = os.pread(generation.descriptor, self._read_bytes, generation.offset)
            end = data.rfind(b"\n") + 1
            if self._oversized_from >= 0 and data:
                end = data.find(b"\n") + 1
                generation.offset += end or len(data)
                if end:
                    self._oversized_from = -1
            elif end or len(data) < self._read_bytes:
                return data[:end] if end < len(data) else data
            elif self._read_bytes < docker_json.MAX_LINE_BYTES:
                self._read_bytes *= 2
            else:
                self._log.warning("container_log_line_too_long", limit_bytes=docker_json.MAX_LINE_BYTES)
                self._oversized_from = generation.offset

    def _consume(self, size_bytes: int) -> None:
        generation = self._generations.current
        assert generation is not None
        generation.offset += size_bytes
        self._read_bytes = self._slice_bytes

    def _at_end_of_generation(self) -> bool:
        """Nothing left to read here: go on in the next file, or from the start where this one was truncated."""
        generation = self._generations.current
        assert generation is not None
        if generation.size_bytes() < generation.offset:
            generation.offset, self._oversized_from = 0, -1
            return True
        if self._generations.is_last():
            return False
        self._generations.advance()
        self._oversized_from = -1
        return True

    def _write(self, data: bytes) -> None:
        skipped = min(self._skip_bytes, len(data))
        if skipped and not self._is_in_output(data[:skipped]):
            self._log.warning(
                "container_log_diverged", hint="somebody else wrote to the file; lines may be there twice"
            )
            self._skip_bytes = skipped = 0
        rest = memoryview(data)[skipped:]
        while rest:
            try:
                written = os.write(self.output.descriptor, rest)
            except OSError:
                self._skip_bytes, self._verify_at = len(data) - len(rest), -1  # the next try makes the same bytes
                raise
            rest = rest[written:]
            self.output.unsaved_bytes += written
        self._skip_bytes = max(0, self._skip_bytes - skipped)

    def _is_in_output(self, data: bytes) -> bool:
        if self._verify_at < 0:
            return True
        same = os.pread(self.output.descriptor, len(data), self._verify_at) == data
        self._verify_at += len(data)
        return same

    # events

    def rescan(self) -> None:
        """Docker may have made a new file."""
        self._generations.scan()
        if self._generations.gap:
            self._warn_gap()

    def reopen(self) -> None:
        """Go on in a new file at the path; nothing happens when ours is still there."""
        if self._take_new_output():
            self.save()  # before the first write, so that a file that is not recorded is known to be empty

    def save(self, *, ended: bool = False) -> None:
        """Record the place."""
        if self.output.is_open:
            position = Position(*self.output.identity, self._here(), self._start, ended=ended)
            self._store.save(self.source.container_id, position)
            self.output.unsaved_bytes = 0

    def _here(self) -> Anchor:
        """Both places as they belong together. With bytes to skip, the output is ahead of the source by these."""
        mark = self._generations.mark(self._oversized_from if self._oversized_from >= 0 else None)
        return Anchor(mark, self.output.size_bytes - self._skip_bytes)

    def close(self) -> None:
        """Give the files back; what is not recorded is found again."""
        self.output.close()
        self._skip_bytes, self._verify_at, self._oversized_from = 0, -1, -1
        self._generations.close()
        self._generations = Generations(self.source.docker_log_path)

    def _warn_gap(self) -> None:
        self._generations.gap = False
        self._log.warning(
            "container_log_gap",
            docker_log_path=self.source.docker_log_path,
            hint="Docker rotated its file away before it was read: raise max-size or max-file of its json-file driver",
        )
