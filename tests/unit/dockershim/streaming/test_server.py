"""The streaming server with a client of our own codecs: tokens, upgrades, half-close, ends, a client that goes."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator, Iterator
from urllib.parse import urlsplit

import pytest

from cri_proto.wire import channel_messages, portforward, remotecommand, spdy_session, websocket
from dockershim.streaming import port_forward
from dockershim.streaming.channels import Channels
from dockershim.streaming.inbox import LIMIT_BYTES
from dockershim.streaming.server import EXEC, CommandTicket, PortForwardTicket, StreamingServer, Ticket
from dockershim.streaming.wires import Gone
from dockershim.tasks import Tasks

BOTH = remotecommand.StreamSet(stdin=True, stdout=True, stderr=False, tty=False)
MASK = b"\1\2\3\4"


async def echo(channels: Channels) -> remotecommand.Outcome:
    """All of stdin back; the code is 7."""
    while data := await channels.stdin.get():
        await channels.write(remotecommand.STDOUT, data)
    return remotecommand.Outcome(7)


async def hello(channels: Channels) -> remotecommand.Outcome:
    """A word; the code is 7."""
    await channels.write(remotecommand.STDOUT, b"hello")
    return remotecommand.Outcome(7)


class Stage:
    """The server and what its work saw."""

    def __init__(self, tasks: Tasks) -> None:
        self.now_seconds = 0.0
        self.server = StreamingServer(tasks, lambda: self.now_seconds)
        self.cut = asyncio.Event()
        self.writers: list[asyncio.StreamWriter] = []

    async def close(self) -> None:
        """Hang up everywhere."""
        for writer in self.writers:
            writer.close()
            with contextlib.suppress(OSError):
                await writer.wait_closed()

    async def until_cut(self, channels: Channels) -> remotecommand.Outcome:
        """Reads until the client goes."""
        try:
            while await channels.stdin.get():
                pass
            await asyncio.Event().wait()
        except (asyncio.CancelledError, Gone):
            self.cut.set()
            raise
        return remotecommand.Outcome()

    async def dial(
        self, ticket: Ticket, *lines: str, path: str = ""
    ) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        """A client that has sent its head."""
        target = urlsplit(await self.server.url(ticket))
        return await self.dial_path(target.port or 0, path or target.path, *lines)

    async def dial_path(self, port: int, path: str, *lines: str) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        """The same, anywhere."""
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        self.writers.append(writer)
        writer.write("\r\n".join([f"POST {path} HTTP/1.1", "Host: a", *lines, "", ""]).encode())
        return reader, writer


@pytest.fixture
async def stage() -> AsyncIterator[Stage]:
    async with Tasks() as tasks:
        started = Stage(tasks)
        yield started
        await started.close()
        tasks.shut_down()


SPDY = ("Connection: Upgrade", "Upgrade: SPDY/3.1", "X-Stream-Protocol-Version: v4.channel.k8s.io")
WEBSOCKET = (
    *("Connection: Upgrade", "Upgrade: websocket", "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ=="),
    "Sec-WebSocket-Protocol: v5.channel.k8s.io, v4.channel.k8s.io",
)


async def status_of(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> int:
    """The status of the answer; the client hangs up."""
    head = await reader.readuntil(b"\r\n\r\n")
    writer.close()
    return int(head.split(b" ")[1])


async def test_a_url_is_good_once_and_for_a_minute(stage: Stage) -> None:
    """A used, an old, a foreign and a misplaced token find nothing."""
    ticket = CommandTicket(EXEC, BOTH, echo)
    target = urlsplit(await stage.server.url(ticket))
    port = target.port or 0
    assert target.hostname == "127.0.0.1"
    assert len(target.path.rpartition("/")[2]) >= 43
    assert await status_of(*await stage.dial_path(port, target.path)) == 400
    assert await status_of(*await stage.dial_path(port, target.path, *SPDY)) == 404
    old = urlsplit(await stage.server.url(ticket)).path
    stage.now_seconds += 60
    assert await status_of(*await stage.dial_path(port, old, *SPDY)) == 404
    fresh = urlsplit(await stage.server.url(ticket)).path
    assert await status_of(*await stage.dial_path(port, fresh.replace("exec", "attach"), *SPDY)) == 404
    assert await status_of(*await stage.dial_path(port, "/exec/guess", *SPDY)) == 404


async def test_unknown_protocols_are_refused(stage: Stage) -> None:
    """403 over SPDY, 400 over WebSocket and for nonsense."""
    ticket = CommandTicket(EXEC, BOTH, echo)
    unknown = ("Connection: Upgrade", "Upgrade: SPDY/3.1", "X-Stream-Protocol-Version: v9")
    assert await status_of(*await stage.dial(ticket, *unknown)) == 403
    unheard_of = "Sec-WebSocket-Protocol: v9"
    assert await status_of(*await stage.dial(ticket, *WEBSOCKET[:3], unheard_of)) == 400
    assert await status_of(*await stage.dial(ticket, "no header")) == 400


async def test_exec_over_spdy(stage: Stage) -> None:
    """Streams, half-close, and the status at the end."""
    reader, writer = await stage.dial(CommandTicket(EXEC, BOTH, echo), *SPDY)
    await reader.readuntil(b"\r\n\r\n")
    client = spdy_session.SpdySession(client=True)
    streams = {client.open({"streamType": name}): name for name in ("error", "stdin", "stdout")}
    numbers = {name: number for number, name in streams.items()}
    client.send(numbers["stdin"], b"x" * 100_000)
    client.end(numbers["stdin"])
    writer.write(client.take_output())
    received = dict.fromkeys(streams.values(), b"")
    ended: set[str] = set()
    async with asyncio.timeout(30):
        while not {"error", "stdout"} <= ended:
            for event in client.receive(await reader.read(65536)):
                if isinstance(event, spdy_session.DataReceived):
                    received[streams[event.stream_id]] += event.data
                elif isinstance(event, spdy_session.StreamEnded):
                    ended.add(streams[event.stream_id])
    assert received["stdout"] == b"x" * 100_000
    assert remotecommand.parse_status(received["error"]) == remotecommand.Outcome(7)
    writer.close()


async def test_exec_over_websocket_v5(stage: Stage) -> None:
    """Channels, the close signal of stdin, the status, and a WebSocket that is closed in order."""
    reader, writer = await stage.dial(CommandTicket(EXEC, BOTH, echo), *WEBSOCKET)
    assert b"v5.channel.k8s.io" in await reader.readuntil(b"\r\n\r\n")
    for message in (
        remotecommand.encode_channel("stdin", b"hello", remotecommand.V5),
        remotecommand.encode_channel_close("stdin"),
    ):
        writer.write(websocket.encode_frame(websocket.BINARY, message, MASK))
    decoder = websocket.WebSocketDecoder(masked=False)
    messages: list[websocket.Message] = []
    async with asyncio.timeout(30):
        while not messages or messages[-1].opcode != websocket.CLOSE:
            messages += decoder.feed(await reader.read(65536))
    channels = [message.data for message in messages[:-1]]
    assert channels[:2] == [b"\x01", b"\x01hello"]
    assert remotecommand.parse_status(channels[2][1:]) == remotecommand.Outcome(7)
    writer.close()


async def test_what_nobody_listens_to_ends_no_exec(stage: Stage) -> None:
    """Empty messages, unknown channels, and more stdin than fits anywhere where none was asked for."""
    told = asyncio.Event()

    async def until_told(channels: Channels) -> remotecommand.Outcome:
        await told.wait()
        return remotecommand.Outcome(7)

    streams = remotecommand.StreamSet(stdin=False, stdout=True, stderr=False, tty=False)
    reader, writer = await stage.dial(CommandTicket(EXEC, streams, until_told), *WEBSOCKET)
    await reader.readuntil(b"\r\n\r\n")
    typed = remotecommand.encode_channel("stdin", b"x" * (LIMIT_BYTES // 2), remotecommand.V5)
    for message in (b"", b"\x09x", typed, typed, typed):
        writer.write(websocket.encode_frame(websocket.BINARY, message, MASK))
    writer.write(websocket.encode_frame(websocket.PING, b"there?", MASK))
    decoder = websocket.WebSocketDecoder(masked=False)
    messages: list[websocket.Message] = []
    async with asyncio.timeout(30):
        while not messages or messages[-1].opcode != websocket.CLOSE:
            messages += decoder.feed(await reader.read(65536))
            if messages[-1].opcode == websocket.PONG:
                told.set()
    assert [message.data for message in messages[:2]] == [b"\x01", b"there?"]
    assert remotecommand.parse_status(messages[2].data[1:]) == remotecommand.Outcome(7)
    writer.close()


@pytest.mark.parametrize(
    ("protocol", "expected"),
    [
        ("channel.k8s.io", [b"\x01", b"\x01hello", b"\x03command terminated with non-zero exit code: exit status 7"]),
        ("", [b"\x01", b"\x01hello", b"\x03command terminated with non-zero exit code: exit status 7"]),
        ("base64.channel.k8s.io", [b"1", b"1aGVsbG8="]),
    ],
)
async def test_exec_as_the_oldest_websocket_clients_speak(stage: Stage, protocol: str, expected: list[bytes]) -> None:
    """v1, named or not, in bytes or in text: output, and at the end a sentence where the exit code is not 0."""
    named = (f"Sec-WebSocket-Protocol: {protocol}",) if protocol else ()
    reader, writer = await stage.dial(CommandTicket(EXEC, BOTH, hello), *WEBSOCKET[:3], *named)
    assert (b"Sec-WebSocket-Protocol" in await reader.readuntil(b"\r\n\r\n")) == bool(protocol)
    decoder = websocket.WebSocketDecoder(masked=False)
    messages: list[websocket.Message] = []
    async with asyncio.timeout(30):
        while not messages or messages[-1].opcode != websocket.CLOSE:
            messages += decoder.feed(await reader.read(65536))
    assert [message.data for message in messages[: len(expected)]] == expected
    assert messages[0].opcode == (websocket.TEXT if protocol.startswith("base64") else websocket.BINARY)
    writer.close()


class PodEnd:
    """The pod's side of forwarded connections: it answers each piece in capitals and hangs up after a dot."""

    def __init__(self) -> None:
        self.ends: list[socket.socket] = []
        self._connections = asyncio.Condition()

    def close(self) -> None:
        """Hangs up everywhere."""
        for end in self.ends:
            end.close()

    async def connect(self, port: int) -> socket.socket:
        """Port 9 has no listener."""
        if port == 9:
            raise ConnectionRefusedError(111, "Connection refused")
        async with self._connections:
            ours, theirs = socket.socketpair()  # not before: who is cancelled while it waits here would leave them
            for end in (ours, theirs):
                end.setblocking(False)
            self.ends.append(theirs)
            self._connections.notify_all()
        return ours

    async def connected(self, count: int) -> None:
        """Until so many connections were made."""
        async with self._connections:
            await self._connections.wait_for(lambda: len(self.ends) >= count)

    async def answer(self, index: int) -> bytes:
        """Takes one piece and sends it back."""
        loop, end = asyncio.get_running_loop(), self.ends[index]
        data = await loop.sock_recv(end, 100)
        await loop.sock_sendall(end, data.upper())
        if data.endswith(b"."):
            end.close()
        return data


@pytest.fixture
def pod_end() -> Iterator[PodEnd]:
    made = PodEnd()
    yield made
    made.close()


async def channel_pieces(reader: asyncio.StreamReader, is_text: bool, count: int) -> list[tuple[int, bytes]]:
    """So many messages of the server; the end counts as one of channel -1."""
    decoder = websocket.WebSocketDecoder(masked=False)
    pieces: list[tuple[int, bytes]] = []
    async with asyncio.timeout(30):
        while len(pieces) < count:
            for message in decoder.feed(await reader.readexactly(1)):
                is_end = message.opcode == websocket.CLOSE
                pieces.append((-1, message.data) if is_end else channel_messages.decode(message.data, text=is_text))
    return pieces


@pytest.mark.parametrize("protocol", ["v4.channel.k8s.io", "v4.base64.channel.k8s.io", ""])
async def test_port_forward_over_channels(stage: Stage, pod_end: PodEnd, protocol: str) -> None:
    """Two ports, of which one has no listener: both say their number, and the second says what is wrong."""
    is_text = protocol == portforward.TEXT_CHANNEL_PROTOCOL
    named = (f"Sec-WebSocket-Protocol: {protocol}",) if protocol else ()
    reader, writer = await stage.dial(PortForwardTicket(pod_end.connect, (8080, 9)), *WEBSOCKET[:3], *named)
    assert b"101 " in await reader.readuntil(b"\r\n\r\n")
    pieces = await channel_pieces(reader, is_text, 5)
    assert pieces[:4] == [(0, b"\x90\x1f"), (1, b"\x90\x1f"), (2, b"\x09\x00"), (3, b"\x09\x00")]
    assert pieces[4] == (3, b"cannot forward to port 9 of the pod: Connection refused")
    for word in (b"hello", b"bye."):
        message = channel_messages.encode(0, word, text=is_text)
        writer.write(websocket.encode_frame(websocket.TEXT if is_text else websocket.BINARY, message, MASK))
        assert await pod_end.answer(0) == word
        assert await channel_pieces(reader, is_text, 1) == [(0, word.upper())]
    assert [number for number, _ in await channel_pieces(reader, is_text, 1)] == [-1], "the pod has hung up"


async def test_a_client_of_channels_that_goes_or_talks_to_nobody(stage: Stage, pod_end: PodEnd) -> None:
    """The pod's connections end with it; what is sent to an error channel, or to none, has nobody to go to."""
    ticket = PortForwardTicket(pod_end.connect, (8080,))
    protocol = f"Sec-WebSocket-Protocol: {portforward.CHANNEL_PROTOCOL}"
    reader, writer = await stage.dial(ticket, *WEBSOCKET[:3], protocol)
    await reader.readuntil(b"\r\n\r\n")
    await channel_pieces(reader, False, 2)
    writer.close()
    async with asyncio.timeout(30):
        assert await asyncio.get_running_loop().sock_recv(pod_end.ends[0], 1) == b""
    reader, writer = await stage.dial(ticket, *WEBSOCKET[:3], protocol)
    await reader.readuntil(b"\r\n\r\n")
    for message in (b"", b"\x01nobody", b"\x09nobody", b"\x00hello"):
        writer.write(websocket.encode_frame(websocket.BINARY, message, MASK))
    assert await pod_end.answer(1) == b"hello"
    *_, piece = await channel_pieces(reader, False, 3)
    assert piece == (0, b"HELLO")


async def test_a_client_of_channels_whose_text_is_none(stage: Stage, pod_end: PodEnd) -> None:
    """It is told so, and that was it."""
    protocol = f"Sec-WebSocket-Protocol: {portforward.TEXT_CHANNEL_PROTOCOL}"
    reader, writer = await stage.dial(PortForwardTicket(pod_end.connect, (8080,)), *WEBSOCKET[:3], protocol)
    await reader.readuntil(b"\r\n\r\n")
    writer.write(websocket.encode_frame(websocket.TEXT, b"0*", MASK))
    *_, (end, why) = await channel_pieces(reader, True, 3)
    assert (end, why[2:11]) == (-1, b"no base64")


class SpdyForward:
    """A client of the older kind, with one connection to a port."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer
        self._session = spdy_session.SpdySession(client=True)
        headers = {portforward.PORT: "8080", portforward.REQUEST_ID: "0"}
        self.errors = self._session.open({**headers, portforward.STREAM_TYPE: portforward.ERROR})
        self._session.end(self.errors)
        self.data = self._session.open({**headers, portforward.STREAM_TYPE: portforward.DATA})
        self._flush()

    def _flush(self) -> None:
        self._writer.write(self._session.take_output())

    def send(self, data: bytes) -> None:
        """To the pod; nothing is the end."""
        if data:
            self._session.send(self.data, data)
        else:
            self._session.end(self.data)
        self._flush()

    async def hear(self, stream_id: int) -> bytes:
        """All that comes on a stream until it ends."""
        heard = b""
        async with asyncio.timeout(30):
            while data := await self._reader.read(65536):
                for event in self._session.receive(data):
                    match event:
                        case spdy_session.DataReceived(number, piece) if number == stream_id:
                            heard += piece
                        case spdy_session.StreamEnded(number) if number == stream_id:
                            return heard
        raise AssertionError(f"stream {stream_id} has no end")


@pytest.fixture
async def forward(stage: Stage, pod_end: PodEnd) -> SpdyForward:
    head = (*SPDY[:2], f"X-Stream-Protocol-Version: {portforward.PROTOCOL}")
    reader, writer = await stage.dial(PortForwardTicket(pod_end.connect), *head)
    await reader.readuntil(b"\r\n\r\n")
    return SpdyForward(reader, writer)


async def test_a_connection_that_the_pod_has_ended_ends_for_a_client_that_waits_for_it(
    forward: SpdyForward, pod_end: PodEnd, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It sends no end of its own before ours: the error stream ends without a word."""
    monkeypatch.setattr(port_forward, "LAST_WORDS_SECONDS", 0.0)
    forward.send(b"bye.")
    await pod_end.connected(1)
    await pod_end.answer(0)
    assert await forward.hear(forward.errors) == b""


async def test_a_connection_ends_also_when_the_pod_takes_nothing_more(
    forward: SpdyForward, pod_end: PodEnd, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What the client has sent in vain holds nothing up."""
    monkeypatch.setattr(port_forward, "LAST_WORDS_SECONDS", 0.0)
    forward.send(b"x" * 1_000_000)
    await pod_end.connected(1)
    pod_end.ends[0].shutdown(socket.SHUT_WR)
    assert await forward.hear(forward.errors) == b""


async def test_each_side_may_still_send_when_the_other_has_ended(
    forward: SpdyForward, pod_end: PodEnd, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The client for a while after the pod's end."""
    monkeypatch.setattr(port_forward, "LAST_WORDS_SECONDS", 30.0)
    loop = asyncio.get_running_loop()
    await pod_end.connected(1)
    pod_end.ends[0].shutdown(socket.SHUT_WR)
    assert await forward.hear(forward.data) == b""
    forward.send(b"last words")
    assert await loop.sock_recv(pod_end.ends[0], 100) == b"last words"
    forward.send(b"")
    assert await loop.sock_recv(pod_end.ends[0], 100) == b""
    assert await forward.hear(forward.errors) == b""


async def test_a_client_that_has_ended_waits_for_the_pods_answer(forward: SpdyForward, pod_end: PodEnd) -> None:
    """As long as it takes."""
    forward.send(b"question.")
    forward.send(b"")
    await pod_end.connected(1)
    assert await pod_end.answer(0) == b"question."
    assert await forward.hear(forward.data) == b"QUESTION."


@pytest.mark.parametrize("count", [0, 101])
async def test_channels_need_ports(stage: Stage, pod_end: PodEnd, count: int) -> None:
    """Whoever asked for the URL named none, and a client could not say which either; or more than can be told apart."""
    protocol = f"Sec-WebSocket-Protocol: {portforward.CHANNEL_PROTOCOL}"
    ticket = PortForwardTicket(pod_end.connect, (80,) * count)
    assert await status_of(*await stage.dial(ticket, *WEBSOCKET[:3], protocol)) == 400


@pytest.mark.parametrize("head", [SPDY, WEBSOCKET], ids=["spdy", "websocket"])
async def test_the_work_ends_when_the_client_goes(stage: Stage, head: tuple[str, ...]) -> None:
    """It is cancelled, so that it can kill what it started."""
    reader, writer = await stage.dial(CommandTicket(EXEC, BOTH, stage.until_cut), *head)
    await reader.readuntil(b"\r\n\r\n")
    if head is SPDY:
        client = spdy_session.SpdySession(client=True)
        for name in ("error", "stdin", "stdout"):
            client.open({"streamType": name})
        writer.write(client.take_output())
    await reader.read(1)
    writer.close()
    async with asyncio.timeout(30):
        await stage.cut.wait()


async def test_broken_spdy_ends_the_connection(stage: Stage) -> None:
    """With a GOAWAY, and the server goes on."""
    reader, writer = await stage.dial(CommandTicket(EXEC, BOTH, echo), *SPDY)
    await reader.readuntil(b"\r\n\r\n")
    writer.write(b"\x80\x02\x00\x01\x00\x00\x00\x00")
    async with asyncio.timeout(30):
        assert (await reader.read()).startswith(b"\x80\x03\x00\x07")
    writer.close()
