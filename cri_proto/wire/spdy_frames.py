"""SPDY/3.1 frames: bytes to frames and back, with the compressed header blocks.

Owns the layout of frames and the two compression contexts of a connection. Must not know what streams mean (see
`spdy_session`) or where bytes come from. Upstream counterpart: spdystream's spdy package. Deliberate differences: data
frames are handed on piece by piece, so that a frame of any length costs no memory; what a header block may inflate to
is limited from the start.

Header blocks share one compression context, so each of them is inflated, also that of a stream nobody wants; when one
cannot be inflated the connection is over.
"""

from __future__ import annotations

import struct
import zlib
from dataclasses import dataclass

from cri_proto.wire.spdy_dictionary import HEADER_DICTIONARY

VERSION = 3
HEADER_BYTES = 8
MAX_CONTROL_BYTES = 64 * 1024
MAX_HEADER_BLOCK_BYTES = 64 * 1024
MAX_HEADERS = 256
MAX_DATA_BYTES = 0xFFFFFF
FLAG_FIN = 0x01
FLAG_UNIDIRECTIONAL = 0x02

SYN_STREAM, SYN_REPLY, RST_STREAM, SETTINGS, PING, GOAWAY, HEADERS, WINDOW_UPDATE = 1, 2, 3, 4, 6, 7, 8, 9
RST_PROTOCOL_ERROR, RST_INVALID_STREAM, RST_REFUSED_STREAM, RST_CANCEL, RST_STREAM_IN_USE = 1, 2, 3, 5, 8
GOAWAY_OK, GOAWAY_PROTOCOL_ERROR = 0, 1

_CONTROL_HEADER = struct.Struct(">HHI")
_DATA_HEADER = struct.Struct(">II")
_WORD = struct.Struct(">I")
_TWO_WORDS = struct.Struct(">II")
_STREAM_MASK = 0x7FFFFFFF


class SpdyError(ValueError):
    """The peer broke the protocol: the connection cannot go on."""


@dataclass(frozen=True, slots=True)
class SynStream:
    """A stream begins."""

    stream_id: int
    headers: dict[str, str]
    fin: bool = False
    unidirectional: bool = False


@dataclass(frozen=True, slots=True)
class SynReply:
    """A stream is accepted."""

    stream_id: int
    headers: dict[str, str]
    fin: bool = False


@dataclass(frozen=True, slots=True)
class RstStream:
    """A stream is broken off."""

    stream_id: int
    status: int


@dataclass(frozen=True, slots=True)
class Headers:
    """More headers of a stream."""

    stream_id: int
    headers: dict[str, str]
    fin: bool = False


@dataclass(frozen=True, slots=True)
class Ping:
    """To be sent back as it is."""

    ping_id: int


@dataclass(frozen=True, slots=True)
class GoAway:
    """No new streams any more."""

    last_stream_id: int
    status: int


@dataclass(frozen=True, slots=True)
class WindowUpdate:
    """The peer has read; the Go peers never say so."""

    stream_id: int
    delta: int


@dataclass(frozen=True, slots=True)
class Settings:
    """What the peer would like; nothing here depends on it."""


@dataclass(frozen=True, slots=True)
class Data:
    """Bytes of a stream: a frame, or a piece of one. Only the last piece carries `fin`."""

    stream_id: int
    data: bytes
    fin: bool = False


Frame = SynStream | SynReply | RstStream | Headers | Ping | GoAway | WindowUpdate | Settings | Data


class FrameEncoder:
    """Frames to bytes. Header blocks must be sent in the order in which they were encoded."""

    def __init__(self) -> None:
        self._deflater = zlib.compressobj(zdict=HEADER_DICTIONARY)

    def encode(self, frame: Frame) -> bytes:
        """The bytes of one frame."""
        match frame:
            case Data():
                if len(frame.data) > MAX_DATA_BYTES:
                    raise ValueError(f"{len(frame.data)} bytes do not fit into one frame of {MAX_DATA_BYTES}")
                return _DATA_HEADER.pack(frame.stream_id, frame.fin << 24 | len(frame.data)) + frame.data
            case SynStream():
                flags = frame.fin * FLAG_FIN | frame.unidirectional * FLAG_UNIDIRECTIONAL
                body = _TWO_WORDS.pack(frame.stream_id, 0) + b"\0\0" + self._block(frame.headers)
                return _control(SYN_STREAM, flags, body)
            case SynReply():
                return _control(SYN_REPLY, int(frame.fin), _WORD.pack(frame.stream_id) + self._block(frame.headers))
            case Headers():
                return _control(HEADERS, int(frame.fin), _WORD.pack(frame.stream_id) + self._block(frame.headers))
            case RstStream():
                return _control(RST_STREAM, 0, _TWO_WORDS.pack(frame.stream_id, frame.status))
            case Ping():
                return _control(PING, 0, _WORD.pack(frame.ping_id))
            case GoAway():
                return _control(GOAWAY, 0, _TWO_WORDS.pack(frame.last_stream_id, frame.status))
            case WindowUpdate():
                return _control(WINDOW_UPDATE, 0, _TWO_WORDS.pack(frame.stream_id, frame.delta))
            case Settings():
                return _control(SETTINGS, 0, _WORD.pack(0))

    def _block(self, headers: dict[str, str]) -> bytes:
        parts = [_WORD.pack(len(headers))]
        for name, value in headers.items():
            for text in (name.lower(), value):
                encoded = text.encode()
                parts += (_WORD.pack(len(encoded)), encoded)
        return self._deflater.compress(b"".join(parts)) + self._deflater.flush(zlib.Z_SYNC_FLUSH)


def _control(kind: int, flags: int, body: bytes) -> bytes:
    return _CONTROL_HEADER.pack(0x8000 | VERSION, kind, flags << 24 | len(body)) + body


class FrameDecoder:
    """Bytes to frames, however the bytes are cut. After a SpdyError it must not be used again."""

    def __init__(self) -> None:
        self._inflater = zlib.decompressobj(zdict=HEADER_DICTIONARY)
        self._buffer = bytearray()
        self._data_stream = 0
        self._data_left = 0
        self._data_fin = False

    def feed(self, data: bytes) -> list[Frame]:
        """The frames that these bytes complete, and the pieces of data frames in them."""
        self._buffer += data
        frames: list[Frame] = []
        position = 0
        while True:
            if self._data_left:
                piece = bytes(self._buffer[position : position + self._data_left])
                if not piece:
                    break
                position += len(piece)
                self._data_left -= len(piece)
                frames.append(Data(self._data_stream, piece, self._data_fin and not self._data_left))
                continue
            if len(self._buffer) - position < HEADER_BYTES:
                break
            first, second = _DATA_HEADER.unpack_from(self._buffer, position)
            flags, length = second >> 24, second & 0xFFFFFF
            if not first >> 31:
                position += HEADER_BYTES
                self._data_stream, self._data_left, self._data_fin = first, length, bool(flags & FLAG_FIN)
                if not length:
                    frames.append(Data(first, b"", self._data_fin))
                continue
            if length > MAX_CONTROL_BYTES:
                raise SpdyError(f"a control frame of {length} bytes: more than {MAX_CONTROL_BYTES}")
            if len(self._buffer) - position < HEADER_BYTES + length:
                break
            body = bytes(self._buffer[position + HEADER_BYTES : position + HEADER_BYTES + length])
            position += HEADER_BYTES + length
            frame = self._control(first >> 16 & 0x7FFF, first & 0xFFFF, flags, body)
            if frame is not None:
                frames.append(frame)
        del self._buffer[:position]
        return frames

    def _control(self, version: int, kind: int, flags: int, body: bytes) -> Frame | None:
        if version != VERSION:
            raise SpdyError(f"SPDY version {version}: want {VERSION}")
        fin = bool(flags & FLAG_FIN)
        if kind == SYN_STREAM:
            stream_id, _ = _two_words(kind, body, at_least=10)
            return SynStream(stream_id, self._headers(body[10:]), fin, bool(flags & FLAG_UNIDIRECTIONAL))
        if kind == SYN_REPLY:
            return SynReply(_word(kind, body), self._headers(body[4:]), fin)
        if kind == HEADERS:
            return Headers(_word(kind, body), self._headers(body[4:]), fin)
        if kind == RST_STREAM:
            return RstStream(*_two_words(kind, body))
        if kind == GOAWAY:
            return GoAway(*_two_words(kind, body))
        if kind == WINDOW_UPDATE:
            return WindowUpdate(*_two_words(kind, body))
        if kind == PING:
            return Ping(_WORD.unpack_from(_long_enough(kind, body, 4))[0])
        return Settings() if kind == SETTINGS else None  # kinds that nobody knows are left out, as the text says

    def _headers(self, block: bytes) -> dict[str, str]:
        try:
            text = self._inflater.decompress(block, MAX_HEADER_BLOCK_BYTES + 1)
        except zlib.error as error:
            raise SpdyError(f"a header block cannot be inflated: {error}") from error
        if len(text) > MAX_HEADER_BLOCK_BYTES or self._inflater.unconsumed_tail:
            raise SpdyError(f"a header block inflates to more than {MAX_HEADER_BLOCK_BYTES} bytes")
        try:
            return _parse_headers(text)
        except struct.error as error:
            raise SpdyError("a header block ends in the middle of a header") from error
        except UnicodeDecodeError as error:
            raise SpdyError("a header is no UTF-8") from error


def _parse_headers(text: bytes) -> dict[str, str]:
    count = _WORD.unpack_from(text)[0]
    if count > MAX_HEADERS:
        raise SpdyError(f"{count} headers: more than {MAX_HEADERS}")
    position = _WORD.size
    words: list[str] = []
    for _ in range(2 * count):
        length = _WORD.unpack_from(text, position)[0]
        position += _WORD.size
        if position + length > len(text):
            raise SpdyError("a header block ends in the middle of a header")
        words.append(text[position : position + length].decode())
        position += length
    if position != len(text):
        raise SpdyError("bytes after the last header")
    headers = {name.lower(): value for name, value in zip(words[::2], words[1::2], strict=True)}
    if len(headers) != count:
        raise SpdyError("a header is there twice")
    return headers


def _long_enough(kind: int, body: bytes, length: int) -> bytes:
    if len(body) < length:
        raise SpdyError(f"a control frame of kind {kind} with only {len(body)} bytes")
    return body


def _word(kind: int, body: bytes) -> int:
    return int(_WORD.unpack_from(_long_enough(kind, body, 4))[0]) & _STREAM_MASK


def _two_words(kind: int, body: bytes, at_least: int = 8) -> tuple[int, int]:
    first, second = _TWO_WORDS.unpack_from(_long_enough(kind, body, at_least))
    return first & _STREAM_MASK, second
