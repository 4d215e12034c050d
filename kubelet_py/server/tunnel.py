"""Exec, attach and port-forward: the client's connection joined to the runtime's streaming URL, byte for byte.

Owns taking the connection over from the HTTP server and carrying bytes; what they mean is between the client and the
runtime. Upstream counterpart: the proxying half of pkg/kubelet/server/server.go (UpgradeAwareHandler).
"""

import asyncio
import contextlib
from typing import Final
from urllib.parse import urlsplit

import structlog
from aiohttp import web
from aiohttp.abc import AbstractStreamWriter

from kubelet_py.server.runtime_connection import dial, path_of

_CHUNK_BYTES: Final = 64 * 1024
# The runtime gets the client's head as it is, without what was meant for us.
_KEPT_BACK: Final = (b"host", b"authorization", b"cookie", b"x-forwarded-for", b"x-forwarded-host", b"x-forwarded-uri")
_log = structlog.get_logger()


class _TakenOver(web.StreamResponse):
    """An answer that the HTTP server need not send: the connection was somebody else's meanwhile, and has ended."""

    async def prepare(self, request: web.BaseRequest) -> AbstractStreamWriter | None:
        return None

    async def write_eof(self, data: bytes | bytearray | memoryview = b"") -> None:
        return


async def tunnel(request: web.Request, url: str) -> web.StreamResponse:
    """Carry bytes between the client and the URL until either ends. RuntimeCallError when nobody answers there."""
    target = urlsplit(url)
    async with dial(target) as (runtime_reader, runtime_writer):
        try:
            runtime_writer.write(_head(request, path_of(target), target.netloc))
            await runtime_writer.drain()
            await _take_over(request, runtime_reader, runtime_writer)
        except OSError as error:
            _log.debug("stream_cut", path=request.path, error=str(error))
    return _TakenOver()


def _head(request: web.Request, path: str, host: str) -> bytes:
    lines = [f"{request.method} {path} HTTP/1.1".encode(), b"Host: " + host.encode()]
    lines += (name + b": " + value for name, value in request.raw_headers if name.lower() not in _KEPT_BACK)
    return b"\r\n".join(lines) + b"\r\n\r\n"


class _ClientProtocol(asyncio.StreamReaderProtocol):
    """Reads for us; the HTTP server still hears when the connection ends, and lets go of it then."""

    def __init__(self, reader: asyncio.StreamReader, http: asyncio.BaseProtocol) -> None:
        super().__init__(reader)
        self._http = http

    def connection_lost(self, exc: Exception | None) -> None:
        super().connection_lost(exc)
        self._http.connection_lost(exc)


async def _take_over(
    request: web.Request, runtime_reader: asyncio.StreamReader, runtime_writer: asyncio.StreamWriter
) -> None:
    transport = request.transport
    if transport is None:
        return
    loop = asyncio.get_running_loop()
    reader = asyncio.StreamReader(limit=_CHUNK_BYTES, loop=loop)
    protocol = _ClientProtocol(reader, transport.get_protocol())
    transport.set_protocol(protocol)
    protocol.connection_made(transport)
    writer = asyncio.StreamWriter(transport, protocol, reader, loop)
    try:
        async with asyncio.TaskGroup() as group:
            up = group.create_task(_carry(reader, runtime_writer), name="stream to the runtime")
            down = group.create_task(_carry(runtime_reader, writer), name="stream to the client")
            # When either side has ended nothing that the other says can matter: upgraded connections have no halves.
            await asyncio.wait({up, down}, return_when=asyncio.FIRST_COMPLETED)
            if up.done() and not down.done():
                runtime_writer.close()
            up.cancel()
            down.cancel()
    finally:
        writer.close()  # what is buffered is still sent


async def _carry(source: asyncio.StreamReader, target: asyncio.StreamWriter) -> None:
    with contextlib.suppress(OSError):
        while data := await source.read(_CHUNK_BYTES):
            target.write(data)
            await target.drain()
