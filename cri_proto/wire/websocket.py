"""WebSocket frames (RFC 6455): bytes to messages and back.

Owns framing, masking and the handshake's key. Sans-IO, for both sides. Must not know what messages mean. No extensions:
nobody here offers compression. Upstream counterpart: gorilla/websocket.
"""

from __future__ import annotations

import base64
import hashlib
import struct
from dataclasses import dataclass

TEXT, BINARY, CLOSE, PING, PONG = 1, 2, 8, 9, 10
CLOSE_NORMAL, CLOSE_PROTOCOL_ERROR, CLOSE_TOO_BIG = 1000, 1002, 1009
MAX_MESSAGE_BYTES = 16 * 1024 * 1024 + 64 * 1024  # a tunnel may carry the longest SPDY frame in one message
_CONTINUATION = 0
_MAX_CONTROL_BYTES = 125
_ACCEPT_SUFFIX = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"


class WebSocketError(ValueError):
    """The peer broke the protocol; `close_code` is what to tell it."""

    def __init__(self, message: str, close_code: int = CLOSE_PROTOCOL_ERROR) -> None:
        super().__init__(message)
        self.close_code = close_code


@dataclass(frozen=True, slots=True)
class Message:
    """A whole message, or a control frame: `opcode` tells which."""

    opcode: int
    data: bytes


def accept_key(key: str) -> str:
    """The Sec-WebSocket-Accept for a Sec-WebSocket-Key."""
    digest = hashlib.sha1(key.encode("latin-1", "replace") + _ACCEPT_SUFFIX, usedforsecurity=False).digest()
    return base64.b64encode(digest).decode()


def close_payload(code: int = CLOSE_NORMAL, reason: str = "") -> bytes:
    """The content of a close frame."""
    return struct.pack(">H", code) + reason.encode()[: _MAX_CONTROL_BYTES - 2]


def encode_frame(opcode: int, data: bytes, mask: bytes = b"") -> bytes:
    """One whole message. A client gives four random bytes as the mask; a server none."""
    flag = 0x80 if mask else 0
    if len(data) <= _MAX_CONTROL_BYTES:
        head = bytes((0x80 | opcode, flag | len(data)))
    elif len(data) < 1 << 16:
        head = struct.pack(">BBH", 0x80 | opcode, flag | 126, len(data))
    else:
        head = struct.pack(">BBQ", 0x80 | opcode, flag | 127, len(data))
    return head + mask + (apply_mask(data, mask) if mask else data)


def apply_mask(data: bytes, mask: bytes) -> bytes:
    """Mask or unmask: whole numbers do it a hundred times faster than a loop over bytes."""
    length = len(data)
    pattern = (mask * (length // 4 + 1))[:length]
    return (int.from_bytes(data) ^ int.from_bytes(pattern)).to_bytes(length)


class WebSocketDecoder:
    """Takes bytes as they come, gives whole messages and control frames. Not to be used after a WebSocketError."""

    def __init__(self, *, masked: bool, max_message_bytes: int = MAX_MESSAGE_BYTES) -> None:
        self._masked = masked
        self._limit = max_message_bytes
        self._buffer = bytearray()
        self._opcode = _CONTINUATION
        self._parts: list[bytes] = []
        self._parts_bytes = 0

    def feed(self, data: bytes) -> list[Message]:
        """The messages that these bytes complete."""
        self._buffer += data
        found: list[Message] = []
        position = 0
        while frame := self._frame(position):
            position, final, opcode, payload = frame
            if opcode >= CLOSE:
                found.append(Message(opcode, payload))
            elif message := self._continue(final, opcode, payload):
                found.append(message)
        del self._buffer[:position]
        return found

    def _frame(self, start: int) -> tuple[int, bool, int, bytes] | None:
        """Position after the frame, whether it is the last of its message, opcode and payload."""
        available = len(self._buffer) - start
        if available < 2:
            return None
        first, second = self._buffer[start], self._buffer[start + 1]
        opcode, length = first & 0x0F, second & 0x7F
        self._check(first, second, opcode, length)
        head = 2
        if length >= 126:
            size = 2 if length == 126 else 8
            if available < head + size:
                return None
            length = int.from_bytes(self._buffer[start + head : start + head + size])
            head += size
        if length + self._parts_bytes > self._limit:
            raise WebSocketError(f"a message of more than {self._limit} bytes", CLOSE_TOO_BIG)
        mask_at = start + head
        head += 4 if self._masked else 0
        if available < head + length:
            return None
        payload = bytes(self._buffer[start + head : start + head + length])
        if self._masked:
            payload = apply_mask(payload, bytes(self._buffer[mask_at : mask_at + 4]))
        return start + head + length, bool(first & 0x80), opcode, payload

    def _check(self, first: int, second: int, opcode: int, length: int) -> None:
        if first & 0x70:
            raise WebSocketError("reserved bits are set, and no extension was agreed on")
        if opcode not in (_CONTINUATION, TEXT, BINARY, CLOSE, PING, PONG):
            raise WebSocketError(f"no such opcode: {opcode}")
        if opcode >= CLOSE and (length > _MAX_CONTROL_BYTES or not first & 0x80):
            raise WebSocketError("a control frame that is too long or cut in pieces")
        if bool(second & 0x80) != self._masked:
            raise WebSocketError("the mask is missing" if self._masked else "a mask where none may be")

    def _continue(self, final: bool, opcode: int, payload: bytes) -> Message | None:
        if (opcode == _CONTINUATION) != (self._opcode != _CONTINUATION):
            raise WebSocketError("a message begins inside another one, or goes on without having begun")
        if opcode != _CONTINUATION:
            self._opcode = opcode
        self._parts.append(payload)
        self._parts_bytes += len(payload)
        if not final:
            return None
        message = Message(self._opcode, b"".join(self._parts))
        self._opcode, self._parts_bytes = _CONTINUATION, 0
        self._parts.clear()
        return message
