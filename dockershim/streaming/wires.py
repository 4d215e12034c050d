"""What carries bytes between a client and us: a plain connection, or the messages of a WebSocket.

Owns reading, writing and back-pressure. Must not know what the bytes mean.
"""

from __future__ import annotations

import asyncio
import contextlib
from typing import Protocol

from cri_proto.wire import websocket

CHUNK_BYTES = 64 * 1024
CLOSE_SECONDS = 2.0


class Gone(Exception):
    """The peer of a connection or stream has left."""


class Wire(Protocol):
    """A connection."""

    async def read(self) -> bytes:
        """Some bytes; none when the peer has ended or is gone."""
        ...

    async def write(self, data: bytes) -> None:
        """Queue bytes at once and wait until there is room for more. Gone when the peer is."""
        ...


class RawWire:
    """A connection as it is."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer

    async def read(self) -> bytes:
        """See Wire."""
        try:
            return await self._reader.read(CHUNK_BYTES)
        except OSError:
            return b""

    async def write(self, data: bytes) -> None:
        """See Wire."""
        try:
            self._writer.write(data)
            await self._writer.drain()
        except OSError as error:
            raise Gone(str(error)) from error

    async def close(self) -> None:
        """End it. What the peer sent and nobody read is read first: else the kernel takes our last words back."""
        try:
            with contextlib.suppress(OSError, TimeoutError):
                if self._writer.can_write_eof():
                    self._writer.write_eof()
                async with asyncio.timeout(CLOSE_SECONDS):
                    while await self.read():
                        pass
        finally:
            self._writer.close()
        with contextlib.suppress(OSError):
            await self._writer.wait_closed()


class WebSocket:
    """A WebSocket of a server: whole messages; pings are answered."""

    def __init__(self, wire: Wire) -> None:
        self._wire = wire
        self._decoder = websocket.WebSocketDecoder(masked=True)
        self._messages: list[websocket.Message] = []
        self._closed = False

    async def receive(self) -> bytes | None:
        """The next message, of text or bytes alike; None when the client has closed or is gone.

        Empty ones, which some clients send to keep the connection alive, are passed over.
        """
        while True:
            while self._messages:
                message = self._messages.pop(0)
                if message.data and message.opcode in (websocket.TEXT, websocket.BINARY):
                    return message.data
                if message.opcode == websocket.PING:
                    await self._send(websocket.PONG, message.data)
                if message.opcode == websocket.CLOSE:
                    await self.close()
                    return None
            data = await self._wire.read()
            if not data:
                return None
            try:
                self._messages += self._decoder.feed(data)
            except websocket.WebSocketError as error:
                await self.close(error.close_code, str(error))
                return None

    async def send(self, data: bytes, *, text: bool = False) -> None:
        """One message, of bytes or of text."""
        if self._closed:
            raise Gone("the WebSocket is closed")
        await self._send(websocket.TEXT if text else websocket.BINARY, data)

    async def close(self, code: int = websocket.CLOSE_NORMAL, reason: str = "") -> None:
        """Say that it ends. Again is fine."""
        if not self._closed:
            self._closed = True
            with contextlib.suppress(Gone):
                await self._send(websocket.CLOSE, websocket.close_payload(code, reason))

    async def _send(self, opcode: int, data: bytes) -> None:
        await self._wire.write(websocket.encode_frame(opcode, data))


class TunnelWire:
    """A stream of bytes inside the messages of a WebSocket."""

    def __init__(self, socket: WebSocket) -> None:
        self._socket = socket

    async def read(self) -> bytes:
        """See Wire."""
        return await self._socket.receive() or b""

    async def write(self, data: bytes) -> None:
        """See Wire."""
        await self._socket.send(data)
