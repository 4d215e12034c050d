"""A WebSocket client over a socket that is connected already, one message after the other."""

from __future__ import annotations

import base64
import os
import socket
from collections.abc import Iterator
from typing import Self

from cri_proto.wire import websocket

TIMEOUT_SECONDS = 60.0


class WebSocketClient:
    """The client; leaving its block closes it in good order."""

    def __init__(self, connection: socket.socket, path: str, protocol: str) -> None:
        """Upgrades the connection; fails with the server's answer when it refuses."""
        self._connection = connection
        self._connection.settimeout(TIMEOUT_SECONDS)
        self._decoder = websocket.WebSocketDecoder(masked=False)
        key = base64.b64encode(os.urandom(16)).decode()
        lines = [
            f"GET {path} HTTP/1.1",
            "Host: node",
            "Connection: Upgrade",
            "Upgrade: websocket",
            "Sec-WebSocket-Version: 13",
            f"Sec-WebSocket-Key: {key}",
            f"Sec-WebSocket-Protocol: {protocol}",
        ]
        self._connection.sendall("\r\n".join(lines).encode() + b"\r\n\r\n")
        head = b""
        while b"\r\n\r\n" not in head:
            more = self._connection.recv(4096)
            assert more, head
            head += more
        head, _, self._early = head.partition(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 101 "), (head, self._early)
        assert websocket.accept_key(key).encode() in head
        assert protocol.encode() in head

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._send(websocket.CLOSE, websocket.close_payload())
        self._connection.close()

    def abandon(self) -> None:
        """Ends the connection without a word."""
        self._connection.close()

    def send(self, data: bytes, *, is_text: bool = False) -> None:
        """One message, of bytes or of text."""
        self._send(websocket.TEXT if is_text else websocket.BINARY, data)

    def messages(self) -> Iterator[bytes]:
        """What the server sends, until it closes."""
        data, self._early = self._early, b""
        while True:
            for message in self._decoder.feed(data):
                if message.opcode == websocket.CLOSE:
                    return
                yield message.data
            data = self._connection.recv(65536)
            assert data, "the server ended the connection without closing"

    def _send(self, opcode: int, data: bytes) -> None:
        self._connection.sendall(websocket.encode_frame(opcode, data, os.urandom(4)))
