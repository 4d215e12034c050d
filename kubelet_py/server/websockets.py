"""Clients that speak WebSocket, the API server first of all: what they say is put into SPDY for the runtime.

Owns the translation of an exec or attach (v5, in which the end of stdin can be told) and the tunnel of a port-forward,
which is SPDY inside messages. Clients of older versions are the runtime's own business (`tunnel`).

Upstream counterpart: streamtranslator.go and streamtunnel.go of k8s.io/apiserver's util/proxy, as pkg/kubelet/server
has them. Deliberate difference: a runtime that ends the connection without a word is an error, and no success.
"""

import asyncio
import contextlib
from collections.abc import Coroutine
from typing import Any, Final

import structlog
from aiohttp import WSMessage, WSMsgType, web

from cri_proto.wire import portforward, remotecommand, spdy_frames, spdy_session, websocket
from kubelet_py.errors import RuntimeCallError
from kubelet_py.server.runtime_connection import Connection, dial_spdy

_CHUNK_BYTES: Final = 64 * 1024
_CLOSE_SECONDS: Final = 2.0
_TUNNEL_PREFIX: Final = "SPDY/3.1+"
_log = structlog.get_logger()


def wants_translation(request: web.Request) -> bool:
    """An exec or attach of the version that runtimes need not know."""
    return remotecommand.V5 in _protocols(request)


def wants_tunnel(request: web.Request) -> bool:
    """A port-forward inside messages."""
    return any(name.startswith(_TUNNEL_PREFIX) for name in _protocols(request))


def is_websocket(request: web.Request) -> bool:
    """The client asks for messages of whatever protocol."""
    return request.headers.get("Upgrade", "").lower() == "websocket"


def _protocols(request: web.Request) -> list[str]:
    if not is_websocket(request):
        return []
    offered = ",".join(request.headers.getall("Sec-WebSocket-Protocol", []))
    return [name.strip() for name in offered.split(",")]


async def tunnel_messages(request: web.Request, url: str) -> web.StreamResponse:
    """A port-forward. RuntimeCallError when the runtime does not agree; the client has had no answer then."""
    async with dial_spdy(url, (portforward.PROTOCOL,)) as runtime:
        socket = await _accept(request, portforward.TUNNEL_PROTOCOL)
        try:
            await _until_one_ends(_tunnel_up(socket, runtime), _tunnel_down(socket, runtime))
        except OSError as error:
            _log.debug("stream_cut", path=request.path, error=str(error))
    await socket.close()
    return socket


async def translate(request: web.Request, url: str, streams: remotecommand.StreamSet) -> web.StreamResponse:
    """An exec or attach. Whatever goes wrong is told to the client on its error channel."""
    socket = await _accept(request, remotecommand.V5)
    outputs = (remotecommand.STDOUT, remotecommand.STDERR)
    first = next((name for name in outputs if name in streams.names(remotecommand.V4)), remotecommand.ERROR)
    status = b""
    try:
        await _send(socket, first, b"")  # an empty message tells the client that we are there
        async with dial_spdy(url, (remotecommand.V4,)) as runtime:
            translation = _Translation(socket, runtime, streams)
            await _until_one_ends(translation.up(), translation.down())
            status = translation.status()
    except (RuntimeCallError, remotecommand.RemoteCommandError, spdy_frames.SpdyError) as error:
        _log.warning("stream_failed", path=request.path, error=str(error))
        status = remotecommand.format_status(remotecommand.Outcome(error=str(error)), remotecommand.V5)
    except OSError as error:
        _log.debug("stream_cut", path=request.path, error=str(error))
    if status and not socket.closed:
        with contextlib.suppress(OSError):
            await _send(socket, remotecommand.ERROR, status)
    await socket.close()
    return socket


class _Translation:
    """One call: the client's channels and the runtime's streams of the same names."""

    def __init__(self, socket: web.WebSocketResponse, runtime: Connection, streams: remotecommand.StreamSet) -> None:
        self._socket = socket
        self._reader, self._writer = runtime
        self._session = spdy_session.SpdySession(client=True)
        wanted = streams.names(remotecommand.V4)
        # the error stream first, as clients do; the rest in the order of the channels
        ordered = sorted(remotecommand.CHANNELS, key=lambda name: name != remotecommand.ERROR)
        self._ids = {name: self._session.open({remotecommand.STREAM_TYPE: name}) for name in ordered if name in wanted}
        self._names = {stream_id: name for name, stream_id in self._ids.items()}
        self._open = wanted & {remotecommand.ERROR, remotecommand.STDOUT, remotecommand.STDERR}
        self._status = bytearray()
        self._client_left = False

    def status(self) -> bytes:
        """What to tell the client at the end: the runtime's own words. Nothing when the client has left."""
        if self._client_left:
            return b""
        if self._status:
            return bytes(self._status)
        if remotecommand.ERROR in self._open:
            raise RuntimeCallError("streaming", "UNAVAILABLE", "the runtime ended the connection in the middle")
        return remotecommand.format_status(remotecommand.Outcome(), remotecommand.V5)

    async def up(self) -> None:
        """What the client sends, until it leaves."""
        await self._flush()
        async for message in self._socket:
            part = remotecommand.decode_channel(_bytes_of(message), remotecommand.V5)
            if part is not None:
                self._take(part)
                await self._flush()
        self._client_left = True

    def _take(self, part: remotecommand.ChannelData | remotecommand.ChannelClosed) -> None:
        stream_id = self._ids.get(part.name)
        if stream_id is None or part.name in (remotecommand.ERROR, remotecommand.STDOUT, remotecommand.STDERR):
            return
        if isinstance(part, remotecommand.ChannelClosed):
            self._session.end(stream_id)
        elif self._session.can_send(stream_id):  # else the process reads no more
            self._session.send(stream_id, part.data)

    async def down(self) -> None:
        """What the runtime sends, until it has said everything or is gone."""
        while self._open and (data := await self._reader.read(_CHUNK_BYTES)):
            for event in self._session.receive(data):
                match event:
                    case spdy_session.DataReceived():
                        await self._pass(self._names[event.stream_id], event.data)
                    case spdy_session.StreamEnded() | spdy_session.StreamReset():
                        self._open -= {self._names[event.stream_id]}
            # Answers to pings. Not to wait for room: a runtime that waits for us to read would not make any.
            self._writer.write(self._session.take_output())

    async def _pass(self, name: str, data: bytes) -> None:
        if name == remotecommand.ERROR:
            self._status += data
        elif name in (remotecommand.STDOUT, remotecommand.STDERR):
            await _send(self._socket, name, data)

    async def _flush(self) -> None:
        # no await between taking and writing: the order of bytes is that of the session
        if output := self._session.take_output():
            self._writer.write(output)
            with contextlib.suppress(OSError):  # a runtime that reads no more may still have words for us
                await self._writer.drain()


async def _accept(request: web.Request, protocol: str) -> web.WebSocketResponse:
    socket = web.WebSocketResponse(
        protocols=(protocol,), max_msg_size=websocket.MAX_MESSAGE_BYTES, compress=False, timeout=_CLOSE_SECONDS
    )
    await socket.prepare(request)
    return socket


async def _until_one_ends(up: Coroutine[Any, Any, None], down: Coroutine[Any, Any, None]) -> None:
    """Runs both directions until one is through. An error of either comes out as it is."""
    try:
        async with asyncio.TaskGroup() as group:
            tasks = {
                group.create_task(up, name="messages to the runtime"),
                group.create_task(down, name="messages to the client"),
            }
            await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            for task in tasks:
                task.cancel()
    except BaseExceptionGroup as group_error:
        # one cause is enough for the caller: the other is its echo
        raise group_error.exceptions[0] from group_error


async def _tunnel_up(socket: web.WebSocketResponse, runtime: Connection) -> None:
    _, writer = runtime
    async for message in socket:
        writer.write(_bytes_of(message))
        await writer.drain()


async def _tunnel_down(socket: web.WebSocketResponse, runtime: Connection) -> None:
    reader, _ = runtime
    while data := await reader.read(_CHUNK_BYTES):
        await socket.send_bytes(data)


async def _send(socket: web.WebSocketResponse, name: str, data: bytes) -> None:
    await socket.send_bytes(remotecommand.encode_channel(name, data, remotecommand.V5))


def _bytes_of(message: WSMessage) -> bytes:
    return message.data.encode() if message.type is WSMsgType.TEXT else bytes(message.data)
