"""A connection to the runtime's streaming server, upgraded to SPDY.

Owns dialling and the runtime's answer; what goes over the connection is the caller's.
"""

import asyncio
import contextlib
import ssl
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from typing import Final
from urllib.parse import SplitResult, urlsplit

from cri_proto.wire import http_upgrade, remotecommand
from kubelet_py.errors import RuntimeCallError

CONNECT_SECONDS: Final = 10.0
ANSWER_SECONDS: Final = 30.0
_REFUSAL_SECONDS: Final = 1.0
_MAX_REFUSAL_BYTES: Final = 4096
_LIMIT_BYTES: Final = 64 * 1024

Connection = tuple[asyncio.StreamReader, asyncio.StreamWriter]


class _Reader(asyncio.StreamReader):
    """A connection that breaks ends like any other: what came before is still read.

    A runtime whose process is through does not read what a client still sends, and the kernel then breaks the
    connection instead of ending it.
    """

    def set_exception(self, exc: Exception) -> None:
        self.feed_eof()


@asynccontextmanager
async def dial(target: SplitResult) -> AsyncIterator[Connection]:
    """A connection to a streaming URL's host. RuntimeCallError when nobody answers there."""
    try:
        async with asyncio.timeout(CONNECT_SECONDS):
            encrypted = target.scheme == "https"
            port = target.port or (443 if encrypted else 80)
            # a runtime's certificate is one that this host trusts, as the Go kubelet wants it
            context = await asyncio.to_thread(ssl.create_default_context) if encrypted else None
            reader, writer = await _open(target.hostname or "", port, context)
    except (OSError, TimeoutError) as error:
        raise RuntimeCallError("streaming", "UNAVAILABLE", f"{target.netloc} does not answer: {error}") from error
    try:
        yield reader, writer
    finally:
        writer.close()
        with contextlib.suppress(OSError):
            await writer.wait_closed()


@asynccontextmanager
async def dial_spdy(url: str, protocols: Iterable[str]) -> AsyncIterator[Connection]:
    """The same, when the runtime has agreed to one of these protocols over SPDY. RuntimeCallError when it has not."""
    target = urlsplit(url)
    async with dial(target) as (reader, writer):
        try:
            writer.write(_spdy_request(target, protocols))
            await writer.drain()
            async with asyncio.timeout(ANSWER_SECONDS):
                status = http_upgrade.parse_response_status(await reader.readuntil(b"\r\n\r\n"))
                refusal = "" if status == http_upgrade.SWITCHING else await _text(reader)
        except (OSError, TimeoutError, EOFError, asyncio.LimitOverrunError, http_upgrade.BadResponse) as error:
            raise RuntimeCallError("streaming", "UNAVAILABLE", f"{target.netloc} broke off: {error}") from error
        if status != http_upgrade.SWITCHING:
            raise RuntimeCallError("streaming", "UNKNOWN", f"{target.netloc} answered {status}: {refusal}")
        yield reader, writer


async def _open(host: str, port: int, context: ssl.SSLContext | None) -> Connection:
    loop = asyncio.get_running_loop()
    reader = _Reader(limit=_LIMIT_BYTES, loop=loop)
    protocol = asyncio.StreamReaderProtocol(reader, loop=loop)
    transport, _ = await loop.create_connection(lambda: protocol, host, port, ssl=context)
    return reader, asyncio.StreamWriter(transport, protocol, reader, loop)


def path_of(target: SplitResult) -> str:
    """What stands behind the host, as a request line has it."""
    return target.path + (f"?{target.query}" if target.query else "")


def _spdy_request(target: SplitResult, protocols: Iterable[str]) -> bytes:
    lines = [
        f"POST {path_of(target)} HTTP/1.1",
        f"Host: {target.netloc}",
        "Connection: Upgrade",
        "Upgrade: SPDY/3.1",
        "Content-Length: 0",
        *(f"{remotecommand.VERSION_HEADER}: {protocol}" for protocol in protocols),
    ]
    return "\r\n".join(lines).encode() + b"\r\n\r\n"


async def _text(reader: asyncio.StreamReader) -> str:
    """What the runtime says of its refusal, as far as it comes within a moment."""
    try:
        async with asyncio.timeout(_REFUSAL_SECONDS):
            return (await reader.read(_MAX_REFUSAL_BYTES)).decode(errors="replace").strip()
    except TimeoutError:
        return ""
