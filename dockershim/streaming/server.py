"""The loopback HTTP server behind the URLs that Exec, Attach and PortForward return.

Owns listening (with TLS where it is given a certificate), tokens and the upgrade to SPDY or WebSocket. Must not know
what runs behind a URL. It begins to listen with the first URL. Upstream counterpart: cri-streaming's server.go.
Deliberate differences: loopback only, and tokens of 256 bits.
"""

from __future__ import annotations

import asyncio
import secrets
import ssl
from collections.abc import Callable
from dataclasses import dataclass

import structlog

from cri_proto.wire import http_upgrade, portforward, remotecommand, websocket
from dockershim.errors import Unavailable
from dockershim.streaming.certificate import Certificate
from dockershim.streaming.channels import SpdyChannels, WebSocketChannels
from dockershim.streaming.port_forward import Connect, PortChannels, serve_port_forward, serve_ports
from dockershim.streaming.remote_command import Work, serve_channels
from dockershim.streaming.tokens import TokenBook
from dockershim.streaming.wires import Gone, RawWire, TunnelWire, WebSocket, Wire
from dockershim.tasks import Tasks

_log = structlog.get_logger()
HOST = "127.0.0.1"
HEAD_SECONDS = 30.0
SPDY = "spdy/3.1"
EXEC, ATTACH, PORT_FORWARD = "exec", "attach", "portforward"


@dataclass(frozen=True, slots=True)
class CommandTicket:
    """An exec or attach that waits for its client."""

    kind: str
    streams: remotecommand.StreamSet
    work: Work


@dataclass(frozen=True, slots=True)
class PortForwardTicket:
    """A port-forward that waits for its client. `ports`: one connection to each, for clients that name none."""

    connect: Connect
    ports: tuple[int, ...] = ()
    kind: str = PORT_FORWARD


Ticket = CommandTicket | PortForwardTicket


class _Refused(Exception):
    def __init__(self, status: int, text: str, headers: tuple[tuple[str, str], ...] = ()) -> None:
        super().__init__(text)
        self.status = status
        self.text = text
        self.headers = headers


@dataclass(frozen=True, slots=True)
class _Agreement:
    """The upgrade that both sides want."""

    headers: tuple[tuple[str, str], ...]
    protocol: str
    is_websocket: bool


class StreamingServer:
    """The server. Its connections are tasks of `tasks`."""

    def __init__(
        self, tasks: Tasks, clock_seconds: Callable[[], float], certificate: Certificate | None = None
    ) -> None:
        self._tasks = tasks
        self._clock_seconds = clock_seconds
        self._certificate = certificate
        self._tokens: TokenBook[Ticket] = TokenBook()
        self._server: asyncio.Server | None = None
        self._starting = asyncio.Lock()

    async def url(self, ticket: Ticket) -> str:
        """A URL that one client may use once within a minute. ResourceExhausted when too many wait."""
        context = await self._certificate.renewed() if self._certificate else None
        server = await self._listen(context)
        token = secrets.token_urlsafe(32)
        self._tokens.add(token, ticket, self._clock_seconds())
        return f"{'https' if context else 'http'}://{HOST}:{server.sockets[0].getsockname()[1]}/{ticket.kind}/{token}"

    async def _listen(self, context: ssl.SSLContext | None) -> asyncio.Server:
        async with self._starting:
            if self._server is None:
                limit = http_upgrade.MAX_HEAD_BYTES
                try:
                    self._server = await asyncio.start_server(self._accept, HOST, 0, limit=limit, ssl=context)
                except OSError as error:
                    raise Unavailable(f"cannot listen on {HOST} for streaming: {error}") from error
                self._tasks.spawn_logged(self._server.serve_forever(), "streaming server")  # it ends with the tasks
            return self._server

    def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._tasks.spawn_logged(self._serve(reader, writer), "streaming connection")

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        wire = RawWire(reader, writer)
        try:
            try:
                head = await _read_head(reader)
                ticket = self._take(head)
                agreement = _agree(head, ticket)
            except _Refused as refusal:
                _log.info("streaming_refused", status=refusal.status, reason=refusal.text)
                await wire.write(http_upgrade.format_response(refusal.status, refusal.headers, refusal.text))
                return
            await wire.write(http_upgrade.format_response(101, agreement.headers))
            await _run(wire, ticket, agreement)
        except Gone:
            return
        finally:
            await wire.close()

    def _take(self, head: http_upgrade.RequestHead) -> Ticket:
        kind, _, token = head.target.partition("?")[0].removeprefix("/").partition("/")
        if head.method not in ("GET", "POST"):
            raise _Refused(405, "want GET or POST")
        ticket = self._tokens.take(token, self._clock_seconds())
        if ticket is None or ticket.kind != kind:
            raise _Refused(404, "no such stream: a URL is good for one minute and one connection")
        return ticket


async def _read_head(reader: asyncio.StreamReader) -> http_upgrade.RequestHead:
    try:
        async with asyncio.timeout(HEAD_SECONDS):
            return http_upgrade.parse_request_head(await reader.readuntil(b"\r\n\r\n"))
    except http_upgrade.BadRequest as error:
        raise _Refused(400, str(error)) from None
    except asyncio.LimitOverrunError:
        raise _Refused(400, "the head of the request is too long") from None
    except (TimeoutError, asyncio.IncompleteReadError, OSError) as error:
        raise Gone("no request came") from error


def _agree(head: http_upgrade.RequestHead, ticket: Ticket) -> _Agreement:
    forwarding = isinstance(ticket, PortForwardTicket)
    supported: tuple[str, ...]
    if head.upgrade == SPDY:
        supported = (portforward.PROTOCOL,) if forwarding else remotecommand.SPDY_PROTOCOLS
        offered = head.listed(remotecommand.VERSION_HEADER.lower()) or [supported[-1]]  # the oldest clients name none
        chosen = remotecommand.negotiate(offered, supported)
        if chosen is None:
            accepted = tuple((remotecommand.ACCEPTED_VERSIONS_HEADER, name) for name in supported)
            raise _Refused(403, f"none of the protocols {offered} is known; known: {', '.join(supported)}", accepted)
        version = (remotecommand.VERSION_HEADER, chosen)
        return _Agreement((("Connection", "Upgrade"), ("Upgrade", "SPDY/3.1"), version), chosen, False)
    if head.upgrade == "websocket":
        supported = portforward.WEBSOCKET_PROTOCOLS if forwarding else remotecommand.WEBSOCKET_PROTOCOLS
        offered = head.listed("sec-websocket-protocol")
        chosen = remotecommand.negotiate(offered, supported)
        if not offered:
            chosen = portforward.CHANNEL_PROTOCOL if forwarding else remotecommand.V1
        key = head.header("sec-websocket-key")
        if chosen is None or not key:
            raise _Refused(400, f"want a Sec-WebSocket-Key and one of the sub-protocols {', '.join(supported)}")
        if isinstance(ticket, PortForwardTicket) and chosen != portforward.TUNNEL_PROTOCOL:
            _check_ports(ticket.ports, chosen)
        headers: tuple[tuple[str, str], ...] = (
            ("Connection", "Upgrade"),
            ("Upgrade", "websocket"),
            ("Sec-WebSocket-Accept", websocket.accept_key(key)),
        )
        if offered:  # a client that named none would take an answer with one for an error
            headers += (("Sec-WebSocket-Protocol", chosen),)
        return _Agreement(headers, chosen, True)
    raise _Refused(400, "want an upgrade to SPDY/3.1 or websocket")


def _check_ports(ports: tuple[int, ...], protocol: str) -> None:
    if not 0 < len(ports) <= portforward.MAX_CHANNEL_PORTS:
        limit = portforward.MAX_CHANNEL_PORTS
        raise _Refused(400, f"{protocol} is for a port-forward that was asked for with its ports, 1 to {limit}")


async def _run(wire: Wire, ticket: Ticket, agreement: _Agreement) -> None:
    if isinstance(ticket, PortForwardTicket):
        if not agreement.is_websocket:
            await serve_port_forward(wire, ticket.connect)
        elif agreement.protocol == portforward.TUNNEL_PROTOCOL:
            await serve_port_forward(TunnelWire(WebSocket(wire)), ticket.connect)
        else:
            is_text = agreement.protocol == portforward.TEXT_CHANNEL_PROTOCOL
            await serve_ports(PortChannels(WebSocket(wire), ticket.ports, is_text), ticket.connect)
    elif agreement.is_websocket:
        await serve_channels(WebSocketChannels(wire, ticket.streams, agreement.protocol), ticket.work)
    else:
        await serve_channels(SpdyChannels(wire, ticket.streams, agreement.protocol), ticket.work)
