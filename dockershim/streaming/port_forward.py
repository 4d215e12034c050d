"""Port-forward: pairs of SPDY streams, or of channels, joined to connections inside a pod's network namespace.

Owns the connections. No program of the host is needed: a thread enters the namespace to make a socket, which stays
there. Upstream counterpart: containerd's sandbox_portforward_linux.go. Deliberate difference to cri-dockerd: no socat,
no nsenter, IPv6 too.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import os
import socket
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from typing import Protocol

import structlog

from cri_proto.wire import channel_messages
from cri_proto.wire import portforward as wire
from dockershim.namespaces import in_network_namespace
from dockershim.streaming.inbox import Inbox
from dockershim.streaming.spdy import SpdyConnection, SpdyStream
from dockershim.streaming.wires import CHUNK_BYTES, Gone, WebSocket, Wire

_log = structlog.get_logger()
CONNECT_SECONDS = 5.0
LAST_WORDS_SECONDS = 1.0
"""How long a client may still send after the pod's server has ended its side."""
_LOOPBACKS = ((socket.AF_INET, "127.0.0.1"), (socket.AF_INET6, "::1"))

Connect = Callable[[int], Awaitable[socket.socket]]


async def connect_in_namespace(netns_path: str, port: int) -> socket.socket:
    """A connection to a port of the namespace's loopback, IPv4 first. OSError when nobody listens."""
    trouble: OSError | None = None
    for family, address in _LOOPBACKS:
        try:
            return await _connect_to(netns_path, family, address, port)
        except OSError as error:  # no such listener, or a kernel without IPv6
            trouble = trouble or error
    raise trouble or OSError("no address to connect to")


async def _connect_to(netns_path: str, family: socket.AddressFamily, address: str, port: int) -> socket.socket:
    def make() -> socket.socket:
        return socket.socket(family, socket.SOCK_STREAM | socket.SOCK_CLOEXEC | socket.SOCK_NONBLOCK)

    # A socket stays in the namespace it was made in. Only that is for a thread: a server that accepts nothing would
    # keep the thread from everybody else's work for as long as we are willing to wait.
    client = await asyncio.to_thread(in_network_namespace, netns_path, make)
    try:
        async with asyncio.timeout(CONNECT_SECONDS):
            await asyncio.get_running_loop().sock_connect(client, (address, port))
    except TimeoutError as error:
        client.close()
        raise TimeoutError(errno.ETIMEDOUT, os.strerror(errno.ETIMEDOUT)) from error
    except BaseException:
        client.close()
        raise
    return client


async def serve_port_forward(raw: Wire, connect: Connect) -> None:
    """Forward for one client until it goes; its connections end with it."""
    async with asyncio.TaskGroup() as group:
        forwarder = _Forwarder(raw, connect, group)
        try:
            await forwarder.connection.run()
        finally:
            forwarder.stop()


class PortChannels:
    """The channels of a client that speaks no SPDY: one connection to each of the ports it has named."""

    def __init__(self, socket: WebSocket, ports: Sequence[int], is_text: bool) -> None:
        self._socket = socket
        self._is_text = is_text
        self.ports = [_ChannelPair(self, port, *wire.channels_of(index)) for index, port in enumerate(ports)]
        self._inboxes = {pair.data_number: pair.inbox for pair in self.ports}

    async def begin(self) -> None:
        """Says which channels belong to which port."""
        for pair in self.ports:
            await self.send(pair.data_number, wire.first_words(pair.port))
            await self.send(pair.error_number, wire.first_words(pair.port))

    async def run(self) -> None:
        """Reads what the client sends, until it is gone."""
        try:
            while (message := await self._socket.receive()) is not None:
                number, data = channel_messages.decode(message, text=self._is_text)
                if number in self._inboxes:  # what the others say has nobody to go to
                    await self._inboxes[number].put(data)
        except channel_messages.ChannelMessageError as error:
            _log.warning("streaming_client_broke_protocol", error=str(error))
            await self._socket.close(1002, str(error))
        except Gone:
            pass
        finally:
            for inbox in self._inboxes.values():
                await inbox.break_off()

    async def send(self, number: int, data: bytes) -> None:
        """One message. Gone when the client is."""
        await self._socket.send(channel_messages.encode(number, data, text=self._is_text), text=self._is_text)

    async def close(self) -> None:
        """Says that it ends."""
        await self._socket.close()


@dataclass(slots=True)
class _ChannelPair:
    """One port's channels: its data, both ways, and its error."""

    channels: PortChannels
    port: int
    data_number: int
    error_number: int
    inbox: Inbox = field(default_factory=Inbox)

    async def write(self, data: bytes) -> None:
        await self.channels.send(self.data_number, data)

    async def end(self) -> None:
        """No message says so: with the pod's side this connection has ended."""
        await self.inbox.end()


async def serve_ports(channels: PortChannels, connect: Connect) -> None:
    """Forward for one client until its connections have ended, or it goes."""
    async with asyncio.TaskGroup() as group:
        reading = group.create_task(channels.run(), name="port-forward client")
        with contextlib.suppress(Gone):
            await channels.begin()
            async with asyncio.TaskGroup() as forwards:
                for pair in channels.ports:
                    forwards.create_task(_forward_channel(pair, connect), name=f"forward to port {pair.port}")
        await channels.close()
        reading.cancel()


async def _forward_channel(pair: _ChannelPair, connect: Connect) -> None:
    try:
        await _connect_and_copy(connect, pair.port, pair)
    except OSError as error:
        with contextlib.suppress(Gone):
            await pair.channels.send(pair.error_number, _describe(pair.port, error))
    except Gone:
        pass  # the client has left
    finally:
        await pair.inbox.discard()


def _describe(port: int, error: OSError) -> bytes:
    _log.debug("port_forward_failed", port=port, error=str(error))
    return f"cannot forward to port {port} of the pod: {error.strerror or error}".encode()


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
            with contextlib.suppress(Gone):
                await errors.write(_describe(port, error))
        except Gone:
            pass  # the client has dropped this connection
        finally:
            await data.inbox.discard()
            await errors.end()
            await data.reset()


class _Data(Protocol):
    """What one connection carries."""

    @property
    def inbox(self) -> Inbox:
        """What the client sends."""
        ...

    async def write(self, data: bytes) -> None:
        """What the pod sends. Gone when the client is."""
        ...

    async def end(self) -> None:
        """The pod sends nothing more."""
        ...


async def _connect_and_copy(connect: Connect, port: int, data: _Data) -> None:
    reader, writer = await asyncio.open_connection(sock=await connect(port))
    writer.transport.set_write_buffer_limits(high=0)  # what has been drained is with the kernel
    try:
        async with asyncio.TaskGroup() as group:
            upload = group.create_task(_upload(data, writer), name="forward upload")
            await _download(reader, data)
            # A client of the older kind hears nothing of that end: it closes its side when ours tells of no error.
            await asyncio.wait({upload}, timeout=LAST_WORDS_SECONDS)
            if not upload.done():
                upload.cancel()
                writer.transport.abort()  # what the pod does not take now would hold up the close
    except BaseException as trouble:
        writer.transport.abort()  # as would what a client that is gone had sent
        if isinstance(trouble, BaseExceptionGroup):
            raise trouble.exceptions[0] from trouble
        raise
    finally:
        writer.close()
        with contextlib.suppress(OSError):
            await writer.wait_closed()


async def _upload(data: _Data, writer: asyncio.StreamWriter) -> None:
    with contextlib.suppress(OSError):  # the pod's side has gone: the download tells whether that is an error
        while piece := await data.inbox.get():
            writer.write(piece)
            await writer.drain()
        writer.write_eof()


async def _download(reader: asyncio.StreamReader, data: _Data) -> None:
    while piece := await reader.read(CHUNK_BYTES):
        await data.write(piece)
    await data.end()
