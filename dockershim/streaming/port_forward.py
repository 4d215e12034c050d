"""Port-forward: pairs of SPDY streams joined to connections inside a pod's network namespace.

Owns the connections. No program of the host is needed: a thread enters the namespace to connect, and the socket stays
there. Upstream counterpart: containerd's sandbox_portforward_linux.go. Deliberate difference to cri-dockerd: no socat,
no nsenter, IPv6 too.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import Awaitable, Callable

import structlog

from cri_proto.wire import portforward as wire
from dockershim.namespaces import in_network_namespace
from dockershim.streaming.spdy import SpdyConnection, SpdyStream
from dockershim.streaming.wires import CHUNK_BYTES, Gone, Wire

_log = structlog.get_logger()
CONNECT_SECONDS = 5.0
_LOOPBACKS = ((socket.AF_INET, "127.0.0.1"), (socket.AF_INET6, "::1"))

Connect = Callable[[int], Awaitable[socket.socket]]


async def connect_in_namespace(netns_path: str, port: int) -> socket.socket:
    """A connection to a port of the namespace's loopback, IPv4 first. OSError when nobody listens."""

    def connect() -> socket.socket:
        trouble: OSError | None = None
        for family, address in _LOOPBACKS:
            try:
                client = socket.socket(family, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
            except OSError as error:  # a kernel without IPv6
                trouble = trouble or error
                continue
            try:
                client.settimeout(CONNECT_SECONDS)
                client.connect((address, port))
                client.setblocking(False)
                return client
            except OSError as error:
                client.close()
                trouble = trouble or error
        raise trouble or OSError("no address to connect to")

    return await asyncio.to_thread(in_network_namespace, netns_path, connect)


async def serve_port_forward(raw: Wire, connect: Connect) -> None:
    """Forward for one client until it goes; its connections end with it."""
    async with asyncio.TaskGroup() as group:
        forwarder = _Forwarder(raw, connect, group)
        try:
            await forwarder.connection.run()
        finally:
            forwarder.stop()


class _Forwarder:
    def __init__(self, raw: Wire, connect: Connect, group: asyncio.TaskGroup) -> None:
        self.connection = SpdyConnection(raw, self._opened)
        self._connect = connect
        self._group = group
        self._pairs = wire.PairBook()
        self._streams: dict[int, SpdyStream] = {}
        self._tasks: set[asyncio.Task[None]] = set()

    def stop(self) -> None:
        for task in self._tasks:
            task.cancel()

    def _opened(self, stream: SpdyStream) -> bool:
        try:
            pair = self._pairs.add(stream.id, stream.headers)
        except wire.PortForwardError as error:
            _log.warning("port_forward_stream_refused", error=str(error))
            return False
        self._streams[stream.id] = stream
        if pair is not None:
            error_stream, data_stream = self._streams.pop(pair.error_stream), self._streams.pop(pair.data_stream)
            task = self._group.create_task(
                self._forward(pair.port, error_stream, data_stream), name=f"forward to port {pair.port}"
            )
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)
        return True

    async def _forward(self, port: int, errors: SpdyStream, data: SpdyStream) -> None:
        try:
            await _connect_and_copy(self._connect, port, data)
        except OSError as error:
            _log.debug("port_forward_failed", port=port, error=str(error))
            text = f"cannot forward to port {port} of the pod: {error.strerror or error}"
            with contextlib.suppress(Gone):
                await errors.write(text.encode())
        except Gone:
            pass  # the client has dropped this connection
        finally:
            await data.inbox.discard()
            await errors.end()
            await data.reset()


async def _connect_and_copy(connect: Connect, port: int, data: SpdyStream) -> None:
    reader, writer = await asyncio.open_connection(sock=await connect(port))
    try:
        async with asyncio.TaskGroup() as group:
            group.create_task(_upload(data, writer), name="forward upload")
            group.create_task(_download(reader, data), name="forward download")
    except BaseExceptionGroup as trouble:
        raise trouble.exceptions[0] from trouble
    finally:
        writer.close()
        with contextlib.suppress(OSError):
            await writer.wait_closed()


async def _upload(data: SpdyStream, writer: asyncio.StreamWriter) -> None:
    while piece := await data.inbox.get():
        writer.write(piece)
        await writer.drain()
    writer.write_eof()


async def _download(reader: asyncio.StreamReader, data: SpdyStream) -> None:
    while piece := await reader.read(CHUNK_BYTES):
        await data.write(piece)
    await data.end()
