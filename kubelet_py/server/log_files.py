"""A container's log on disk, read in pieces: `<n>.log`, and before it what was rotated away, `.gz` too.

Owns finding the files and the place to begin, parsing, filtering and formatting. Blocking: `container_logs` calls it in
threads. Memory is bounded by the batch size, whatever the size of the log.

Upstream counterparts: k8s.io/cri-client/pkg/logs, pkg/util/tail. Differences: rotated files are shown as well, so that
`kubectl logs` does not lose what a person wrote a minute ago; a "line" of tailLines is a line of the container's, which
may be several entries of the file; a log that is still written is read up to the size it had at the start when it is
not followed.
"""

import gzip
import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Final, cast

from cri_proto.wire.log_line import LogLineError, parse_either
from kubelet_py.core.log_query import LogQuery, rfc3339_ns, with_nine_digits

BLOCK_BYTES: Final = 64 * 1024
BATCH_BYTES: Final = 256 * 1024
# Runtimes cut entries at 16 KiB; what is far longer is no log entry, and must not fill the memory.
MAX_ENTRY_BYTES: Final = 1024 * 1024
_ROTATED_SUFFIX: Final = re.compile(r"\.\d{8}-\d{6}(\.gz)?")


def list_log_files(path: Path) -> list[Path]:
    """The rotated files, oldest first, then the one that is written."""
    rotated: dict[str, Path] = {}
    try:
        entries = sorted(entry.name for entry in os.scandir(path.parent))
    except FileNotFoundError:
        entries = []
    for name in entries:
        if name.startswith(path.name) and _ROTATED_SUFFIX.fullmatch(name[len(path.name) :]):
            # While a file is being compressed both exist; the plain one sorts first and is kept.
            rotated.setdefault(name.removesuffix(".gz"), path.with_name(name))
    return [*rotated.values(), path]


@dataclass(slots=True)
class _Begin:
    """Where reading begins: the files, an offset in the first when it is plain, full lines to skip when it is not."""

    files: list[Path]
    offset: int = 0
    skip_lines: int = 0


class LogReader:
    """Reads one container's log from a place on, batch by batch."""

    def __init__(self, path: Path, query: LogQuery) -> None:
        """Opens the newest file; OSError when there is none or it may not be read."""
        self.path = path
        self.done = False
        self._query = query
        self._remaining_bytes = query.limit_bytes
        self._carry = b""
        self._at_line_start = True
        self._current: IO[bytes] = path.open("rb", buffering=0)
        self._input: IO[bytes] = self._current
        try:
            self._end_bytes: int | None = None if query.follow else os.fstat(self._current.fileno()).st_size
            begin = self._find_begin()
            self._older = begin.files[:-1]
            self._skip_lines = begin.skip_lines
            self._next_input()
            if begin.offset:
                self._input.seek(begin.offset)
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """Let go of the files."""
        self._current.close()
        self._input.close()

    def read_batch(self) -> bytes:
        """The next piece of output; empty when there is no more for now, for ever when `done`."""
        output: list[bytes] = []
        size = 0
        while size < BATCH_BYTES and not self.done:
            block = self._read_block()
            if not block:
                if self._input is not self._current:
                    self._flush_carry(output)
                    self._next_input()
                    continue
                if not self._query.follow:
                    self._flush_carry(output)
                    self.done = True
                break
            lines = (self._carry + block).split(b"\n")
            self._carry = lines.pop()
            if len(self._carry) > MAX_ENTRY_BYTES:
                self._carry = b""
            before = len(output)
            self._format_all(lines, output)
            size += sum(map(len, output[before:]))
        return b"".join(output)

    def reopen_if_rotated(self) -> bool:
        """At the end of the file: go on in the one that took its name, if any. True when there is more to read."""
        mine = os.fstat(self._current.fileno())
        try:
            named = self.path.stat()
        except FileNotFoundError:
            return False
        if os.path.samestat(named, mine):
            if mine.st_size < self._current.tell():  # emptied in place
                self._current.seek(0)
                self._carry = b""
                return True
            return False
        if self._current.tell() < mine.st_size:
            return True  # written between the last read and the rotation: read this first
        new = self.path.open("rb", buffering=0)
        self._current.close()
        self._current = self._input = new
        self._carry = b""
        return True

    def _read_block(self) -> bytes:
        if self._input is not self._current or self._end_bytes is None:
            return self._input.read(BLOCK_BYTES)
        left = self._end_bytes - self._current.tell()
        return self._current.read(min(BLOCK_BYTES, left)) if left > 0 else b""

    def _next_input(self) -> None:
        """The oldest file not yet read; one that vanished meanwhile is passed over."""
        if self._input is not self._current:
            self._input.close()
        while self._older:
            path = self._older.pop(0)
            try:
                self._input = _open(path)
                return
            except FileNotFoundError:
                continue
        self._input = self._current

    def _flush_carry(self, output: list[bytes]) -> None:
        line, self._carry = self._carry, b""
        if line:
            self._format(line, output)

    def _format_all(self, lines: list[bytes], output: list[bytes]) -> None:
        for line in lines:
            if self.done:
                return
            self._format(line, output)

    def _format(self, raw: bytes, output: list[bytes]) -> None:
        query = self._query
        try:
            entry = parse_either(raw)
            moment_ns = rfc3339_ns(entry.timestamp) if query.since_ns is not None else 0
        except ValueError:  # LogLineError is one
            return
        if self._skip_lines:  # the tail is of the whole log, whatever of it is recent enough
            self._skip_lines -= not entry.partial
            return
        if query.since_ns is not None and moment_ns < query.since_ns:
            return
        if query.stream is not None and entry.stream != query.stream:
            return
        text = entry.text if entry.partial else entry.text + b"\n"
        if query.timestamps and self._at_line_start:
            text = with_nine_digits(entry.timestamp) + b" " + text
        self._at_line_start = not entry.partial
        if self._remaining_bytes is not None:
            text = text[: self._remaining_bytes]
            self._remaining_bytes -= len(text)
            self.done = self._remaining_bytes == 0
        output.append(text)

    def _find_begin(self) -> _Begin:
        # The newest file by its descriptor: a rotation since it was opened has given it another name.
        newest = self._current.fileno()
        files = [path for path in list_log_files(self.path)[:-1] if not _is_file(path, newest)]
        files.append(Path(f"/proc/self/fd/{newest}"))
        query = self._query
        if query.since_ns is not None:
            files = [path for path in files[:-1] if _changed_since(path, query.since_ns)] + files[-1:]
        if query.tail_lines is None:
            return _Begin(files)
        if query.tail_lines == 0:
            return _Begin(files[-1:], os.fstat(self._current.fileno()).st_size)
        missing = query.tail_lines
        for index in range(len(files) - 1, -1, -1):
            try:
                if files[index].suffix == ".gz":
                    count = _count_lines(files[index])
                    if count >= missing:
                        return _Begin(files[index:], skip_lines=count - missing)
                    missing -= count
                else:
                    offset, count = find_tail(files[index], missing)
                    if offset is not None:
                        return _Begin(files[index:], offset)
                    missing -= count
            except FileNotFoundError:
                continue
        return _Begin(files)


def _is_file(path: Path, descriptor: int) -> bool:
    try:
        return os.path.samestat(path.stat(), os.fstat(descriptor))
    except FileNotFoundError:
        return False


def find_tail(path: Path, lines: int, block_bytes: int = BLOCK_BYTES) -> tuple[int | None, int]:
    """The offset at which the last so many lines begin, read from the end; None and their number when it has fewer."""
    with path.open("rb", buffering=0) as file:
        position = file.seek(0, os.SEEK_END)
        carry = b""
        count = 0
        is_last = True
        while position > 0:
            size = min(block_bytes, position)
            position -= size
            file.seek(position)
            block = file.read(size) + carry
            pieces = block.split(b"\n")
            end = position + len(block)
            # The first piece may begin in the block before this one.
            first = 1 if position > 0 else 0
            for piece in reversed(pieces[first:]):
                start = end - len(piece)
                if piece and (is_last or not _is_partial(piece)):
                    # The end of a line of the container's; the lines counted so far all come after it.
                    if count == lines:
                        return end + 1, count
                    count += 1
                if piece:
                    is_last = False
                end = start - 1
            carry = pieces[0] if first else b""
            if len(carry) > MAX_ENTRY_BYTES:
                carry = b""
        return (0, count) if count == lines else (None, count)


def _is_partial(line: bytes) -> bool:
    try:
        return parse_either(line).partial
    except LogLineError:
        return True  # it will not be shown, so it is no line


def _count_lines(path: Path) -> int:
    count = 0
    with gzip.open(path, "rb") as file:
        for line in file:
            count += not _is_partial(line.rstrip(b"\n"))
    return count


def _open(path: Path) -> IO[bytes]:
    if path.suffix == ".gz":
        return cast(IO[bytes], gzip.open(path, "rb"))
    return path.open("rb", buffering=0)


def _changed_since(path: Path, since_ns: int) -> bool:
    try:
        return path.stat().st_mtime_ns >= since_ns
    except FileNotFoundError:
        return False
