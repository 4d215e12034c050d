"""A container's own bytes as lines of a CRI log, and the way back: how many of the bytes a line stands for.

Pure. What a line is does not depend on how the bytes are cut into pieces, so a log that was left in the middle can be
compared with its source, whatever times its lines have. Upstream counterpart: containerd's cri/io logger: a line longer
than 16 KiB comes in parts, `\\r\\n` ends a line as `\\n` does, bytes that are no UTF-8 stay as they are.
"""

from __future__ import annotations

import datetime

from cri_proto.wire.log_line import LogLine, format_line

PART_BYTES = 16384
_EPOCH = datetime.datetime(1970, 1, 1)  # formatted without a zone


def timestamp(time_ns: int) -> bytes:
    """RFC 3339 with nanoseconds, UTC."""
    seconds, nanoseconds = divmod(time_ns, 1_000_000_000)
    moment = _EPOCH + datetime.timedelta(seconds=seconds)
    return f"{moment.isoformat()}.{nanoseconds:09d}Z".encode()


def translate(data: bytes, stream: bytes, stamp: bytes, *, at_end: bool) -> tuple[bytes, int]:
    """Lines of the log, and how many bytes of `data` are in them; the rest waits for the end of its line.

    `at_end`: nothing follows `data`, so an unfinished line is written as it is.
    """
    end = data.rfind(b"\n") + 1
    lines = data[: end - 1].split(b"\n") if end else []
    if b"\r" not in data and max(map(len, lines), default=0) <= PART_BYTES:
        prefix = b"%b %b F " % (stamp, stream)
        written = [prefix, (b"\n" + prefix).join(lines), b"\n"] if lines else []
    else:
        written = [_line(line.removesuffix(b"\r"), stream, stamp) for line in lines]
    rest = data[end:]
    while len(rest) > PART_BYTES + rest.endswith(b"\r"):  # which may turn out to be the line's end
        written.append(format_line(stamp, stream, True, rest[:PART_BYTES]))
        rest = rest[PART_BYTES:]
    if at_end and rest:
        written.append(format_line(stamp, stream, True, rest))
        rest = b""
    return b"".join(written), len(data) - len(rest)


def _line(text: bytes, stream: bytes, stamp: bytes) -> bytes:
    parts = []
    while len(text) > PART_BYTES:
        parts.append(format_line(stamp, stream, True, text[:PART_BYTES]))
        text = text[PART_BYTES:]
    parts.append(format_line(stamp, stream, False, text))
    return b"".join(parts)


def source_bytes(line: LogLine, source: bytes) -> int:
    """How many bytes at the start of `source` this line stands for; 0 when it does not come from there.

    `source` has at least two bytes more than the line, unless it ends before.
    """
    if not source.startswith(line.text):
        return 0
    if line.partial:
        return len(line.text)
    end = source[len(line.text) : len(line.text) + 2]
    if end[:1] == b"\n":
        return len(line.text) + 1
    return len(line.text) + 2 if end == b"\r\n" else 0
