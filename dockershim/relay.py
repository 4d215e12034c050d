"""Connections from a socket that systemd listens on, carried to the gRPC server's own socket.

grpc cannot take over a listening socket in Python. With socket activation systemd keeps listening while dockershim is
replaced, so callers wait instead of failing; the price is one copy of the bytes. Must not know what the bytes mean.
Upstream counterpart: cri-dockerd serves the passed descriptor itself.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket

from dockershim.tasks import Tasks

CHUNK_BYTES = 256 * 1024


class Relay:
    """Accepts on one socket and dials another."""

    def __init__(self, listener: socket.socket, target: str, tasks: Tasks) -> None:
        self._listener = listener
        self._target = target
        self._tasks = tasks

    async def run(self) -> None:
        """Accept for ever."""
        loop = asyncio.get_running_loop()
        while True:
            connection, _ = await loop.sock_accept(self._listener)
            self._tasks.spawn_logged(self._carry(connection), "relay")

    async def _carry(self, connection: socket.socket) -> None:
        near_reader, near_writer = await asyncio.open_unix_connection(sock=connection, limit=CHUNK_BYTES)
        try:
            far_reader, far_writer = await asyncio.open_unix_connection(self._target, limit=CHUNK_BYTES)
        except OSError:
            near_writer.close()
            return
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(_copy(near_reader, far_writer), name="relay to server")
                group.create_task(_copy(far_reader, near_writer), name="relay to client")
        finally:
            near_writer.close()
            far_writer.close()


async def _copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with contextlib.suppress(OSError):
        while data := await reader.read(CHUNK_BYTES):
            writer.write(data)
            await writer.drain()
    with contextlib.suppress(OSError):
        if writer.can_write_eof():
            writer.write_eof()
