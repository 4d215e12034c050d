"""Connections that Docker hands over: after the answer's headers the socket carries the process's streams.

Owns the upgrade request of exec and attach, and requests whose answer takes as long as it takes. The docker SDK reads
answers to an upgrade through a buffered file and then drops down to the socket, which can lose the first bytes; so this
part of the port speaks to the socket itself, in the loop and without a thread. Upstream counterpart: the hijacked
connections of moby's client.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Mapping

from dockershim.engine import Json
from dockershim.engine import errors as engine_errors
from dockershim.engine.stdcopy import STDOUT, SYSTEM_ERROR, StdcopyDecoder
from dockershim.errors import EngineFailed, Unavailable

CHUNK_BYTES = 64 * 1024
CONNECT_SECONDS = 10.0


async def request(
    socket_path: str, path: str, headers: Mapping[str, str], payload: bytes = b""
) -> tuple[int, dict[str, str], asyncio.StreamReader, asyncio.StreamWriter]:
    """POST to a path over a connection of its own: status, headers, and a reader at the first byte of the body."""
    lines = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
    head = f"POST {path} HTTP/1.1\r\nHost: docker\r\n{lines}Content-Length: {len(payload)}\r\n\r\n"
    try:
        async with asyncio.timeout(CONNECT_SECONDS):
            reader, writer = await asyncio.open_unix_connection(socket_path, limit=CHUNK_BYTES)
    except (OSError, TimeoutError) as error:
        raise Unavailable(f"Docker does not answer on {socket_path}: {error}") from error
    try:
        writer.write(head.encode() + payload)
        await writer.drain()
        status, answered = await _read_head(reader)
    except (OSError, asyncio.IncompleteReadError) as error:
        writer.close()
        raise Unavailable(f"Docker hung up during {path}") from error
    except BaseException:
        writer.close()
        raise
    return status, answered, reader, writer


async def hijack(
    socket_path: str, path: str, body: Json | None, reference: str
) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    """POST a body to a path that upgrades; the reader is at the first byte of the streams."""
    payload = b"" if body is None else json.dumps(body).encode()  # what attach gets as a body is stdin already
    upgrade = {"Content-Type": "application/json", "Connection": "Upgrade", "Upgrade": "tcp"}
    status, headers, reader, writer = await request(socket_path, path, upgrade, payload)
    if status in (101, 200):
        return reader, writer
    try:
        raise engine_errors.from_response(status, await read_message(reader, headers), reference)
    except (OSError, asyncio.IncompleteReadError) as error:
        raise Unavailable(f"Docker hung up during {path}") from error
    finally:
        writer.close()


async def _read_head(reader: asyncio.StreamReader) -> tuple[int, dict[str, str]]:
    block = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
    words = block[0].split(" ", 2)
    if len(words) < 2 or not words[1].isdigit():
        raise EngineFailed(f"Docker's answer is no HTTP: {block[0][:80]!r}")
    pairs = (line.partition(":") for line in block[1:] if line)
    return int(words[1]), {name.strip().lower(): value.strip() for name, _, value in pairs}


async def read_body(reader: asyncio.StreamReader, headers: Mapping[str, str]) -> AsyncIterator[bytes]:
    """The body of an answer, piece by piece as it arrives."""
    if headers.get("transfer-encoding", "") != "chunked":
        yield await reader.readexactly(int(headers.get("content-length", "0")))
        return
    while size := int((await _read_line(reader)).partition(b";")[0], 16):
        yield await reader.readexactly(size)
        await _read_line(reader)
    await _read_line(reader)


async def _read_line(reader: asyncio.StreamReader) -> bytes:
    return await reader.readuntil(b"\r\n")


async def read_message(reader: asyncio.StreamReader, headers: Mapping[str, str]) -> str:
    """What Docker says in the body of an error."""
    data = b"".join([piece async for piece in read_body(reader, headers)])
    try:
        return str(json.loads(data)["message"])
    except (ValueError, KeyError, TypeError):
        return data.decode(errors="replace")


class HijackedStream:
    """The streams of a process. With a tty all output is stdout and raw; else it comes in frames."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, *, tty: bool) -> None:
        self._reader = reader
        self._writer = writer
        self._tty = tty

    async def __aiter__(self) -> AsyncIterator[tuple[int, bytes]]:
        decoder = StdcopyDecoder()
        while data := await self._reader.read(CHUNK_BYTES):
            if self._tty:
                yield STDOUT, data
                continue
            for stream, piece in decoder.feed(data):
                if stream == SYSTEM_ERROR:
                    raise EngineFailed(f"Docker broke off the stream: {piece.decode(errors='replace')}")
                yield stream, piece

    async def write(self, data: bytes) -> None:
        """See ProcessStream."""
        self._writer.write(data)
        await self._writer.drain()

    async def write_eof(self) -> None:
        """See ProcessStream."""
        if self._writer.can_write_eof() and not self._writer.is_closing():
            self._writer.write_eof()

    async def close(self) -> None:
        """Let go of the connection; the process goes on."""
        self._writer.close()
        with contextlib.suppress(OSError):
            await self._writer.wait_closed()
