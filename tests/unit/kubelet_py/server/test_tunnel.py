"""Streams of a runtime that serves them over TLS."""

import asyncio
import ssl
from pathlib import Path

import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer

from kubelet_py.errors import RuntimeCallError
from kubelet_py.server.tunnel import tunnel
from tests.lab.pki import Authority

HEAD = b"GET / HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: SPDY/3.1\r\n\r\n"
ANSWER = b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: SPDY/3.1\r\n\r\n"


async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """A runtime: everything comes back after the upgrade."""
    await reader.readuntil(b"\r\n\r\n")
    writer.write(ANSWER)
    while data := await reader.read(1024):
        writer.write(data)
    writer.close()


@pytest.mark.parametrize("trusted", [True, False])
async def test_the_hosts_authorities_decide(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, trusted: bool) -> None:
    """A certificate that they vouch for is served through the tunnel, another one is an error of the runtime."""
    ours, other = (Authority(tmp_path / name, name) for name in ("ours", "other"))
    monkeypatch.setenv("SSL_CERT_FILE", str((ours if trusted else other).credentials.certificate))
    issued = ours.issue("runtime", "runtime", server_names=["127.0.0.1"])
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(issued.certificate, issued.key)
    runtime = await asyncio.start_server(echo, "127.0.0.1", 0, ssl=context)
    url = f"https://127.0.0.1:{runtime.sockets[0].getsockname()[1]}/exec/token"

    async def handle(request: web.Request) -> web.StreamResponse:
        try:
            return await tunnel(request, url)
        except RuntimeCallError as error:
            return web.Response(status=500, text=str(error))

    app = web.Application()
    app.router.add_get("/", handle)
    async with runtime, TestServer(app) as server:
        reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
        writer.write(HEAD)
        if trusted:
            assert await reader.readuntil(b"\r\n\r\n") == ANSWER
            writer.write(b"there and back")
            assert await reader.readexactly(14) == b"there and back"
        else:
            assert (await reader.readline()).startswith(b"HTTP/1.1 500")
            assert b"certificate verify failed" in await reader.readuntil(b"failed")
        writer.close()
        await writer.wait_closed()
