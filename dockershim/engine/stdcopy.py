"""Docker's stream framing: stdout and stderr in one connection, 8 bytes of header before each piece.

Header: stream number (0 stdin, 1 stdout, 2 stderr, 3 an error of the engine), three zero bytes, big-endian length.
Pure: bytes in, pieces out. Upstream counterpart: moby's pkg/stdcopy. Deliberate difference: pieces are handed on as
they arrive, also when a frame is split, so a frame of any length costs no memory.
"""

from __future__ import annotations

import struct

STDIN, STDOUT, STDERR, SYSTEM_ERROR = 0, 1, 2, 3
HEADER = struct.Struct(">BxxxL")


class BrokenFraming(ValueError):
    """The bytes are no frames: the stream is raw (a tty) or cut in the wrong place."""


class StdcopyDecoder:
    """Takes bytes as they come, gives pairs of stream number and bytes."""

    __slots__ = ("_header", "_remaining", "_stream")

    def __init__(self) -> None:
        self._header = bytearray()
        self._stream = STDOUT
        self._remaining = 0

    def feed(self, data: bytes) -> list[tuple[int, bytes]]:
        """The pieces that these bytes complete or continue."""
        pieces: list[tuple[int, bytes]] = []
        position = 0
        while position < len(data):
            if self._remaining == 0:
                take = HEADER.size - len(self._header)
                self._header += data[position : position + take]
                position += take
                if len(self._header) < HEADER.size:
                    break
                self._stream, self._remaining = HEADER.unpack(self._header)
                if self._stream > SYSTEM_ERROR or self._header[1:4] != b"\0\0\0":
                    raise BrokenFraming(f"no frame header: {bytes(self._header)!r}")
                self._header.clear()
                continue
            piece = data[position : position + self._remaining]
            self._remaining -= len(piece)
            position += len(piece)
            pieces.append((self._stream, piece))
        return pieces

    @property
    def at_boundary(self) -> bool:
        """Whether the stream may end here without a frame being cut."""
        return self._remaining == 0 and not self._header


def encode_frame(stream: int, data: bytes) -> bytes:
    """One frame, as the engine writes it."""
    return HEADER.pack(stream, len(data)) + data
