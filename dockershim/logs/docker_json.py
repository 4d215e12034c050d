"""Docker's json-file entries as lines of a CRI log: a pure function of the bytes, the same however they are cut.

Owns the translation, and what to make of a line that a killed dockerd left half written. Must not know files or clocks:
that the same source gives the same output, byte for byte, is what the follower builds its restarts on. Upstream
counterpart: containerd's cri/io logger for the output (a line's end without newline is `P`, and `\\r\\n` ends a line as
`\\n` does), moby's jsonlog for the input. Docker has replaced bytes that are not UTF-8 before we see them.
"""

from __future__ import annotations

import re

import msgspec

from cri_proto.wire.log_line import STDERR, format_line

MAX_LINE_BYTES = 1 << 20
"""Longer than any entry: Docker cuts at 16 KiB, which escapes to 96 KiB at most, and labels add little."""

_ENTRY_START = b'{"log":"'  # inside a JSON string the quotes would be escaped, so this is the start of an entry
_STRING = re.compile(rb'(?:[^"\\]|\\["\\/bfnrt]|\\u[0-9a-fA-F]{4})*')


class Entry(msgspec.Struct, gc=False):
    """One line of Docker's file. `attrs` are not part of a CRI log."""

    log: str = ""
    stream: str = "stdout"
    time: str = ""


_decode_lines = msgspec.json.Decoder(Entry).decode_lines
_decode_string = msgspec.json.Decoder(str).decode


def translate(chunk: bytes) -> bytes:
    """CRI lines of a chunk of whole lines: the fast way for what a healthy dockerd writes, else line by line."""
    try:
        entries = _decode_lines(chunk)
        text = "".join(
            [
                f"{e.time} {e.stream} F {e.log}" if e.log[-1:] == "\n" else f"{e.time} {e.stream} P {e.log}\n"
                for e in entries
            ]
        )
        if len(entries) == chunk.count(b"\n") == text.count("\n") and "\r\n" not in text:
            return text.encode()
    except (msgspec.MsgspecError, UnicodeError):
        pass
    return b"".join([translate_line(line) for line in chunk.split(b"\n")])


def translate_line(line: bytes) -> bytes:
    """CRI lines of one line of Docker's (without its newline); nothing for a line that holds no entry."""
    return b"".join([_render(entry) for entry in _entries(line)])


def _render(entry: Entry) -> bytes:
    text = entry.log.encode()
    *full, rest = text.split(b"\n")  # one newline, at the end, in all that dockerd writes
    lines = [format_line(entry.time, entry.stream, False, piece.removesuffix(b"\r")) for piece in full]
    if rest or not full:
        lines.append(format_line(entry.time, entry.stream, True, rest))
    return b"".join(lines)


def _entries(line: bytes) -> list[Entry]:
    try:
        entries = _decode_lines(line)
        for entry in entries:
            entry.log.encode()
        return entries
    except (msgspec.MsgspecError, UnicodeError):
        pass
    # dockerd was killed while it wrote, and the next one appended to the torn line
    start = line.rfind(_ENTRY_START)
    if start <= 0:
        return []
    following = _entries(line[start:])
    if not following:
        return []
    torn = _torn_entry(line[:start], following[0])
    return [torn, *following] if torn else following


def _torn_entry(torn: bytes, following: Entry) -> Entry | None:
    """What is left of an entry whose end was never written; the one after it lends its time, and at need its stream."""
    start = torn.rfind(_ENTRY_START)
    found = _STRING.match(torn, start + len(_ENTRY_START)) if start >= 0 else None
    if found is None:
        return None
    try:
        text = _decode_string(b'"%b"' % found.group().decode(errors="ignore").encode())
        text.encode()
    except (msgspec.MsgspecError, UnicodeError):
        return None
    if not text:
        return None
    is_stderr = b'"stream":"%b"' % STDERR in torn[found.end() :]
    stream = "stderr" if is_stderr else following.stream
    return Entry(text if text.endswith("\n") else text + "\n", stream, following.time)
