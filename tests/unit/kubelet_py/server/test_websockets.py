"""WebSocket clients of a runtime that speaks SPDY only: every byte, the halves, the end, and what goes wrong."""

import asyncio
import contextlib
import json
import os
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import pytest
from aiohttp import ClientSession, ClientWebSocketResponse, WSMsgType, WSServerHandshakeError, web
from aiohttp.test_utils import TestServer

from cri_proto.wire import http_upgrade, portforward, remotecommand
from cri_proto.wire.spdy_frames import FrameEncoder, Ping
from cri_proto.wire.spdy_session import DataReceived, SpdySession, StreamEnded, StreamOpened, StreamReset
from kubelet_py.errors import RuntimeCallError
from kubelet_py.server import websockets

EVERYTHING = remotecommand.StreamSet(stdin=True, stdout=True, stderr=True, tty=False)
NOTHING = remotecommand.StreamSet(stdin=False, stdout=False, stderr=False, tty=False)
TERMINAL = remotecommand.StreamSet(stdin=True, stdout=True, stderr=False, tty=True)
AGREED = http_upgrade.format_response(101, (("Connection", "Upgrade"), ("Upgrade", "SPDY/3.1")))
SUCCESS = {"metadata": {}, "status": "Success"}


@dataclass
class Runtime:
    """A streaming server. `work` is what runs once the client has opened its streams."""

    work: "Callable[[Runtime], Awaitable[None]]"
    wanted: remotecommand.StreamSet = EVERYTHING
    answer: bytes = AGREED
    head: http_upgrade.RequestHead | None = None
    ids: dict[str, int] = field(default_factory=dict)
    received: dict[str, bytes] = field(default_factory=dict)
    ended: set[str] = field(default_factory=set)
    is_gone: asyncio.Event = field(default_factory=asyncio.Event)
    is_through: asyncio.Event = field(default_factory=asyncio.Event)
    changed: asyncio.Condition = field(default_factory=asyncio.Condition)
    reads: asyncio.Event = field(default_factory=asyncio.Event)
    session: SpdySession = field(default_factory=lambda: SpdySession(client=False))

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.writer = writer
        self.reads.set()
        try:
            self.head = http_upgrade.parse_request_head(await reader.readuntil(b"\r\n\r\n"))
            writer.write(self.answer)
            if self.answer == AGREED:
                async with asyncio.TaskGroup() as group:
                    worker = group.create_task(self._work())
                    await self._read(reader)
                    self.is_gone.set()
                    worker.cancel()
        finally:
            writer.close()
            with contextlib.suppress(OSError):
                await writer.wait_closed()
            self.is_through.set()

    async def _work(self) -> None:
        await self.until(lambda: self.ids.keys() >= self.wanted.names(remotecommand.V4))
        await self.work(self)

    async def _read(self, reader: asyncio.StreamReader) -> None:
        while data := await self._some(reader):
            for event in self.session.receive(data):
                match event:
                    case StreamOpened(stream_id, headers):
                        self.ids[headers["streamtype"]] = stream_id
                        self.session.accept(stream_id)
                    case DataReceived(stream_id, more):
                        name = self.name_of(stream_id)
                        self.received[name] = self.received.get(name, b"") + more
                    case StreamEnded(stream_id) | StreamReset(stream_id, _):
                        self.ended.add(self.name_of(stream_id))
            self.flush()
            async with self.changed:
                self.changed.notify_all()
            await self.reads.wait()

    @staticmethod
    async def _some(reader: asyncio.StreamReader) -> bytes:
        try:
            return await reader.read(65536)
        except OSError:
            return b""

    def name_of(self, stream_id: int) -> str:
        return next(name for name, known in self.ids.items() if known == stream_id)

    async def until(self, condition: Callable[[], bool]) -> None:
        async with self.changed:
            await self.changed.wait_for(condition)

    def say(self, name: str, data: bytes) -> None:
        self.session.send(self.ids[name], data)
        self.flush()

    def finish(self, outcome: remotecommand.Outcome) -> None:
        for name in ("stdout", "stderr"):
            if name in self.ids:
                self.session.end(self.ids[name])
        self.session.send(self.ids["error"], remotecommand.format_status(outcome, remotecommand.V4))
        self.session.end(self.ids["error"])
        self.flush()
        self.reads.set()

    def flush(self) -> None:
        self.writer.write(self.session.take_output())


@asynccontextmanager
async def client_of(
    runtime: Runtime, streams: remotecommand.StreamSet | None = None, protocol: str = remotecommand.V5
) -> AsyncIterator[ClientWebSocketResponse]:
    """A client of a node in front of this runtime; without `streams` it forwards ports."""
    listener = await asyncio.start_server(runtime.serve, "127.0.0.1", 0)
    url = f"http://127.0.0.1:{listener.sockets[0].getsockname()[1]}/exec/token?a=b"
    runtime.wanted = streams or runtime.wanted

    async def handle(request: web.Request) -> web.StreamResponse:
        assert websockets.wants_translation(request) is (streams is not None)
        assert websockets.wants_tunnel(request) is (streams is None)
        try:
            if streams is not None:
                return await websockets.translate(request, url, streams)
            return await websockets.tunnel_messages(request, url)
        except RuntimeCallError as error:
            return web.Response(status=500, text=str(error))

    app = web.Application()
    app.router.add_get("/", handle)
    async with asyncio.timeout(20), listener:
        async with (
            TestServer(app) as server,
            ClientSession() as session,
            session.ws_connect(server.make_url("/"), protocols=(protocol,), max_msg_size=0) as socket,
        ):
            assert socket.protocol == protocol
            try:
                yield socket
            finally:
                runtime.reads.set()
        await runtime.is_through.wait()


async def heard(socket: ClientWebSocketResponse) -> dict[str, bytes]:
    """Everything until the other side closes, by channel."""
    channels: dict[str, bytearray] = {}
    async for message in socket:
        assert message.type is WSMsgType.BINARY
        part = remotecommand.decode_channel(message.data, remotecommand.V5)
        assert isinstance(part, remotecommand.ChannelData)
        channels.setdefault(part.name, bytearray()).extend(part.data)
    assert socket.close_code == 1000
    return {name: bytes(data) for name, data in channels.items()}


def status_of(channels: dict[str, bytes]) -> dict[str, object]:
    found: dict[str, object] = json.loads(channels["error"])
    return found


async def test_stdin_its_end_and_all_output_pass() -> None:
    """Megabytes in and out again, on both outputs; the exit code is the runtime's own word.

    An empty message and one for no channel are no part of it.
    """
    data = os.urandom(3_000_000)

    async def work(runtime: Runtime) -> None:
        await runtime.until(lambda: "stdin" in runtime.ended)
        runtime.say("stdout", runtime.received["stdin"])
        runtime.say("stderr", runtime.received["stdin"][:1000])
        runtime.finish(remotecommand.Outcome(exit_code=7))

    runtime = Runtime(work)
    async with client_of(runtime, EVERYTHING) as socket:
        await socket.send_bytes(b"")
        await socket.send_bytes(b"\x09what")
        for start in range(0, len(data), 32_768):
            await socket.send_bytes(b"\0" + data[start : start + 32_768])
        await socket.send_bytes(remotecommand.encode_channel_close("stdin"))
        channels = await heard(socket)
    assert runtime.received["stdin"] == data
    assert channels["stdout"] == data
    assert channels["stderr"] == data[:1000]
    assert remotecommand.parse_status(channels["error"]) == remotecommand.Outcome(exit_code=7)
    assert runtime.head is not None
    assert (runtime.head.method, runtime.head.target, runtime.head.upgrade) == ("POST", "/exec/token?a=b", "spdy/3.1")
    assert runtime.head.listed("x-stream-protocol-version") == ["v4.channel.k8s.io"]


async def test_a_terminal_has_sizes_and_one_output() -> None:
    size = remotecommand.format_size(remotecommand.TerminalSize(80, 24))

    async def work(runtime: Runtime) -> None:
        await runtime.until(lambda: runtime.received.get("resize") == size and b"q" in runtime.received["stdin"])
        runtime.finish(remotecommand.Outcome())

    runtime = Runtime(work)
    async with client_of(runtime, TERMINAL) as socket:
        await socket.send_bytes(b"\4" + size)
        await socket.send_bytes(b"\0q")
        assert status_of(await heard(socket)) == SUCCESS
    assert runtime.ids.keys() == {"error", "stdin", "stdout", "resize"}


async def test_a_client_hears_at_once_that_it_is_connected() -> None:
    async def work(runtime: Runtime) -> None:
        await runtime.is_gone.wait()

    async with client_of(Runtime(work), EVERYTHING) as socket:
        assert await socket.receive_bytes() == b"\1"


async def test_a_client_that_goes_leaves_no_connection() -> None:
    async def work(runtime: Runtime) -> None:
        await runtime.is_gone.wait()

    runtime = Runtime(work)
    async with client_of(runtime, EVERYTHING) as socket:
        await runtime.until(lambda: len(runtime.ids) == 4)
        await socket.close()
        await runtime.is_gone.wait()


async def test_a_process_that_reads_no_more_is_still_heard() -> None:
    """The runtime ends as containerd does: streams are reset, the connection is closed, stdin still comes."""

    async def work(runtime: Runtime) -> None:
        await runtime.until(lambda: "stdin" in runtime.received)
        runtime.say("stdout", b"enough")
        runtime.session.send(runtime.ids["error"], json.dumps(SUCCESS).encode())
        for stream_id in runtime.ids.values():
            runtime.session.reset(stream_id)
        runtime.flush()
        runtime.writer.close()

    async with client_of(Runtime(work), EVERYTHING) as socket, asyncio.TaskGroup() as group:
        flooding = group.create_task(_flood(socket, lambda: b"\0" + bytes(32_768)))
        channels = await heard(socket)
        flooding.cancel()
    assert channels["stdout"] == b"enough"
    assert status_of(channels) == SUCCESS


async def test_output_passes_while_nobody_reads_stdin(monkeypatch: pytest.MonkeyPatch) -> None:
    """Not even pings, which are to be answered on the connection that is full, hold it up."""
    monkeypatch.setattr(websockets, "_CLOSE_SECONDS", 30.0)  # megabytes are still on their way
    piece, pieces = bytes(65_536), 300

    async def work(runtime: Runtime) -> None:
        await runtime.until(lambda: "stdin" in runtime.received)
        runtime.reads.clear()
        for _ in range(pieces):
            runtime.writer.write(FrameEncoder().encode(Ping(2)))
            runtime.say("stdout", piece)
            await runtime.writer.drain()
        runtime.finish(remotecommand.Outcome())

    async with client_of(Runtime(work), EVERYTHING) as socket, asyncio.TaskGroup() as group:
        flooding = group.create_task(_flood(socket, lambda: b"\0" + piece))
        channels = await heard(socket)
        flooding.cancel()
    assert len(channels["stdout"]) == pieces * len(piece)
    assert status_of(channels) == SUCCESS


async def _flood(socket: ClientWebSocketResponse, make: Callable[[], bytes]) -> None:
    with contextlib.suppress(ConnectionError):
        while True:
            await socket.send_bytes(make())


async def test_an_error_stream_that_ends_without_a_word_is_a_success() -> None:
    async def work(runtime: Runtime) -> None:
        for name in ("stdout", "stderr", "error"):
            runtime.session.end(runtime.ids[name])
        runtime.flush()

    async with client_of(Runtime(work), EVERYTHING) as socket:
        assert status_of(await heard(socket)) == SUCCESS


async def test_a_runtime_that_dies_is_no_success() -> None:
    async def work(runtime: Runtime) -> None:
        runtime.writer.close()

    async with client_of(Runtime(work), EVERYTHING) as socket:
        status = status_of(await heard(socket))
    assert (status["status"], status["code"]) == ("Failure", 500)
    assert "the runtime ended the connection in the middle" in str(status["message"])


async def no_work(runtime: Runtime) -> None:
    """A runtime that is asked for nothing."""


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (http_upgrade.format_response(404, (), "no such token"), "answered 404: no such token"),
        (b"SSH-2.0-OpenSSH\r\n\r\n", "no HTTP/1.1 answer"),
        (b"HTTP/1.1 101 Swi", "broke off"),
    ],
)
async def test_a_refusal_is_told(answer: bytes, words: str) -> None:
    """On the error channel; a port-forward has none, and gets the answer of a server that failed."""
    async with client_of(Runtime(no_work, answer=answer), EVERYTHING) as socket:
        status = status_of(await heard(socket))
    assert status["reason"] == "InternalError"
    assert words in str(status["message"])
    with pytest.raises(WSServerHandshakeError) as refusal:
        async with client_of(Runtime(no_work, answer=answer), None, portforward.TUNNEL_PROTOCOL):
            raise AssertionError("the upgrade was not refused")
    assert refusal.value.status == 500


async def test_a_client_that_breaks_the_protocol_is_told() -> None:
    async def work(runtime: Runtime) -> None:
        await runtime.is_gone.wait()

    async with client_of(Runtime(work), EVERYTHING) as socket:
        await socket.send_bytes(b"\xff\x09")
        assert "no channel to close" in str(status_of(await heard(socket))["message"])


async def test_a_tunnel_carries_spdy_as_it_is() -> None:
    """Both halves of a forwarded connection, and the end of the runtime's side."""

    async def work(runtime: Runtime) -> None:
        await runtime.until(lambda: runtime.received.get("data") == b"ping")
        runtime.say("data", b"pong")
        runtime.writer.close()

    runtime = Runtime(work, wanted=NOTHING)
    client = SpdySession(client=True)
    async with client_of(runtime, None, portforward.TUNNEL_PROTOCOL) as socket:
        client.open({"streamtype": "error", "port": "80", "requestid": "0"})
        data_id = client.open({"streamtype": "data", "port": "80", "requestid": "0"})
        client.send(data_id, b"ping")
        await socket.send_bytes(client.take_output())
        events = []
        async for message in socket:
            events += client.receive(message.data)
        assert socket.close_code == 1000
    assert DataReceived(data_id, b"pong") in events
    assert runtime.head is not None
    assert runtime.head.listed("x-stream-protocol-version") == ["portforward.k8s.io"]


async def test_a_tunnel_that_breaks_is_an_end_and_no_fault_of_ours(caplog: pytest.LogCaptureFixture) -> None:
    async def work(runtime: Runtime) -> None:
        await runtime.until(lambda: "data" in runtime.received)
        runtime.writer.transport.abort()

    runtime = Runtime(work, wanted=NOTHING)
    client = SpdySession(client=True)
    client.open({"streamtype": "error", "port": "80", "requestid": "0"})
    data_id = client.open({"streamtype": "data", "port": "80", "requestid": "0"})

    def more() -> bytes:
        client.send(data_id, bytes(32_768))
        return client.take_output()

    async with client_of(runtime, None, portforward.TUNNEL_PROTOCOL) as socket, asyncio.TaskGroup() as group:
        flooding = group.create_task(_flood(socket, more))
        async for _ in socket:
            pass
        flooding.cancel()
    assert [record for record in caplog.records if record.levelname == "ERROR"] == []


async def test_a_client_that_leaves_its_tunnel_leaves_no_connection() -> None:
    async def work(runtime: Runtime) -> None:
        await runtime.is_gone.wait()

    runtime = Runtime(work)
    async with client_of(runtime, None, portforward.TUNNEL_PROTOCOL) as socket:
        await socket.close()
        await runtime.is_gone.wait()
