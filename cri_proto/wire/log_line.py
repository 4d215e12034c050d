"""The lines of a CRI log file: `<time> <stdout|stderr> <tags> <text>`, one entry a line, read and written here.

Owns the format, both ways. Must not know files, clocks or who asks. Upstream counterpart: the log part of the CRI API's
documentation and cri-client's log parser. The time is carried as it is spelled (RFC 3339 with nanoseconds): who wants
an instant of it parses it, and a line that is passed on keeps every digit.
"""

from __future__ import annotations

import json
from dataclasses import dataclass

STDOUT = b"stdout"
STDERR = b"stderr"
PARTIAL = b"P"
FULL = b"F"
TAG_DELIMITER = b":"


class LogLineError(ValueError):
    """Not a line of a CRI log; the text says what is wrong with it."""


@dataclass(frozen=True, slots=True)
class LogLine:
    """One entry. `partial`: the next entry of the same stream continues it. `text` has no newline at its end."""

    timestamp: bytes
    stream: bytes
    partial: bool
    text: bytes


def format_line(timestamp: bytes | str, stream: bytes | str, partial: bool, text: bytes) -> bytes:
    """The line of one entry, newline included. The text must not hold one: it would begin another entry."""
    if b"\n" in text:
        raise LogLineError("the text of one entry holds a newline: make it two entries")
    time_bytes = timestamp.encode() if isinstance(timestamp, str) else timestamp
    stream_bytes = stream.encode() if isinstance(stream, str) else stream
    return b"%b %b %b %b\n" % (time_bytes, stream_bytes, PARTIAL if partial else FULL, text)


def parse_line(line: bytes) -> LogLine:
    """The entry of one line, with or without its newline. Tags after the first are left aside, as the format allows."""
    timestamp, space, rest = line.removesuffix(b"\n").partition(b" ")
    if not space or not timestamp:
        raise LogLineError("no time at the start of the line")
    stream, space, rest = rest.partition(b" ")
    if stream not in (STDOUT, STDERR):
        raise LogLineError(f"the stream is {stream[:20]!r}: it must be stdout or stderr")
    tags, space, text = rest.partition(b" ")
    if not space:
        raise LogLineError("no space after the tags")
    tag = tags.partition(TAG_DELIMITER)[0]
    if tag not in (PARTIAL, FULL):
        raise LogLineError(f"the first tag is {tag[:20]!r}: it must be P (partial) or F (full)")
    return LogLine(timestamp, stream, tag == PARTIAL, text)


def parse_either(line: bytes) -> LogLine:
    """The entry of a line in this format or of Docker's json-file log, which older nodes have under the same names."""
    if not line.startswith(b"{"):
        return parse_line(line)
    try:
        entry = json.loads(line)
        text = entry["log"].encode()
        return LogLine(entry["time"].encode(), entry["stream"].encode(), not text.endswith(b"\n"), text.rstrip(b"\n"))
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise LogLineError("neither an entry of a CRI log nor of a json-file log") from error
