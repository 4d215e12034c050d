"""What each kind of probe makes of real servers on the loopback, and of the runtime."""

import asyncio
import socket
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any

import grpc
import grpc.aio
import pytest
from blockbuster import blockbuster_ctx
from h2.config import H2Configuration
from h2.connection import H2Connection
from h2.events import RequestReceived

from cri_proto import runtime_v1 as cri
from kubelet_py.api import codec, core_v1
from kubelet_py.core.observed import ProbeResult
from kubelet_py.core.probe_target import MAX_OUTPUT_BYTES
from kubelet_py.errors import RuntimeCallError, RuntimeTimeout
from kubelet_py.managers.prober import NetworkProbes, ProbeAnswer, ProbeError, ProbeTarget
from tests.fakes.runtime import FakeRuntimeClient
from tests.lab.pki import Authority

SUCCESS, FAILURE = ProbeResult.SUCCESS, ProbeResult.FAILURE
NO_FAMILY = 44
"""Of addresses; the kernel knows none of that number."""
OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"

Handler = Callable[[bytes], bytes]


@pytest.fixture(autouse=True)
def _unblocked() -> Iterator[None]:
    with blockbuster_ctx("kubelet_py"):
        yield


class Server:
    """Answers each request with what `answer` says; then it hangs up, unless it is told to stay."""

    def __init__(self, answer: bytes | Handler, stays: bool = False) -> None:
        self.answer = answer if callable(answer) else lambda _: answer
        self.stays = stays
        self.requests: list[bytes] = []

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            request = await reader.readuntil(b"\r\n\r\n")
            self.requests.append(request)
            writer.write(self.answer(request))
            await writer.drain()
            if self.stays:
                await reader.read()
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            writer.close()


@asynccontextmanager
async def serving(server: Server, tls: ssl.SSLContext | None = None) -> AsyncIterator[int]:
    listener = await asyncio.start_server(server.serve, "127.0.0.1", 0, ssl=tls)
    async with listener:
        yield listener.sockets[0].getsockname()[1]


def free_port() -> int:
    """A port that nobody listens at."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        return int(taken.getsockname()[1])


async def ask(probe: dict[str, Any], client: FakeRuntimeClient | None = None, **fields: Any) -> ProbeAnswer:
    container = codec.from_builtins(core_v1.Container, {"name": "main", **fields.pop("container", {})})
    spec = codec.from_builtins(core_v1.Probe, probe)
    timeout_seconds = fields.pop("timeout_seconds", 30)
    pod_ip = fields.pop("pod_ip", "127.0.0.1")
    target = ProbeTarget(container, fields.pop("container_id", "c1"), spec, pod_ip, timeout_seconds)
    return await NetworkProbes(client or FakeRuntimeClient()).ask(target)


async def get(answer: bytes | Handler, **fields: Any) -> ProbeAnswer:
    async with serving(Server(answer, fields.pop("stays", False))) as port:
        return await ask({"httpGet": {"port": port, "path": "/healthz"}}, **fields)


@pytest.mark.parametrize(
    "answer",
    [
        OK,
        b"HTTP/1.0 200 OK\r\n\r\nok",
        b"HTTP/1.1 200 OK\n\nok",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n",
        b"HTTP/1.1 204 No Content\r\n\r\n",
        b"HTTP/1.1 100 Continue\r\n\r\n" + OK,
        b"HTTP/1.1 399 Whatever\r\nContent-Length: 0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 1000000\r\n\r\n" + b"x" * 20_000,
    ],
)
async def test_http_answers_from_200_to_399_are_a_success(answer: bytes) -> None:
    """However the server writes its answer."""
    found = await get(answer)
    assert found.result is SUCCESS
    assert len(found.output) <= MAX_OUTPUT_BYTES + 100


async def test_a_server_that_keeps_the_connection_does_not_hold_the_probe() -> None:
    """The length says where the answer ends."""
    assert (await get(OK, stays=True)).output == "ok"
    chunked = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n"
    assert (await get(chunked, stays=True)).result is SUCCESS
    assert (await get(b"HTTP/1.1 304 Not Modified\r\n\r\n", stays=True)).result is SUCCESS


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (b"HTTP/1.1 400 Bad\r\nContent-Length: 0\r\n\r\n", "HTTP probe failed with statuscode: 400"),
        (b"HTTP/1.1 503 No\r\n\r\n", "HTTP probe failed with statuscode: 503"),
        (b"", ": EOF"),
        (b"SSH-2.0-OpenSSH\r\n\r\n", "malformed HTTP response 'SSH-2.0-OpenSSH'"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nok", "unexpected EOF"),
        (b"HTTP/1.1 200 OK\r\nX: " + b"x" * 70_000, "longer than"),
    ],
)
async def test_other_answers_are_a_failure(answer: bytes, words: str) -> None:
    """And the text says why."""
    found = await get(answer)
    assert found.result is FAILURE
    assert words in found.output


async def test_nobody_there_and_nobody_answering() -> None:
    """A closed port and a silent server fail, within the timeout."""
    port = free_port()
    refused = await ask({"httpGet": {"port": port}})
    assert refused == ProbeAnswer(
        FAILURE, f'Get "http://127.0.0.1:{port}/": dial tcp 127.0.0.1:{port}: connect: connection refused'
    )
    silent = await get(b"", stays=True, timeout_seconds=1)
    assert silent.result is FAILURE
    assert "context deadline exceeded" in silent.output
    unknown = await ask({"httpGet": {"port": port, "host": "no-such-host.invalid"}})
    assert unknown.result is FAILURE
    named = await ask({"httpGet": {"port": port, "host": "localhost"}})
    assert "connection refused" in named.output


def redirect(location: str, status: int = 302) -> bytes:
    return f"HTTP/1.1 {status} Found\r\nLocation: {location}\r\nContent-Length: 4\r\n\r\nbody".encode()


async def test_redirects_within_the_host_are_followed() -> None:
    """Up to ten times; one to another host is a success with a warning."""
    found = await get(lambda request: OK if b"/next" in request else redirect("/next"))
    assert found == ProbeAnswer(SUCCESS, "ok")
    away = await get(redirect("http://192.0.2.1/"))
    assert away == ProbeAnswer(SUCCESS, "Probe terminated redirects, Response body: body", is_warning=True)
    endless = await get(lambda _: redirect("/again"))
    assert endless.result is FAILURE
    assert "stopped after 10 redirects" in endless.output
    broken = await get(redirect("http://[::1"))
    assert "is no URL" in broken.output


async def test_https_takes_any_certificate(tmp_path: Path) -> None:
    """And says what is wrong when the other side speaks no TLS."""
    credentials = Authority(tmp_path, "ca").issue("server", "server", server_names=["elsewhere.example"])
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(credentials.certificate, credentials.key)
    async with serving(Server(OK), context) as port:
        found = await ask({"httpGet": {"port": port, "scheme": "HTTPS"}})
    assert found == ProbeAnswer(SUCCESS, "ok")
    listener = await asyncio.start_server(_speak_http, "127.0.0.1", 0)
    async with listener:
        plain = await ask({"httpGet": {"port": listener.sockets[0].getsockname()[1], "scheme": "HTTPS"}})
    assert plain.result is FAILURE
    assert "server gave HTTP response to HTTPS client" in plain.output


async def test_https_speaks_http2_with_servers_that_want_it(tmp_path: Path) -> None:
    """And with those that speak nothing else."""
    credentials = Authority(tmp_path, "ca").issue("server", "server", server_names=["elsewhere.example"])
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(credentials.certificate, credentials.key)
    context.set_alpn_protocols(["h2"])
    for status, expected in (
        ("200", ProbeAnswer(SUCCESS, "as asked: /healthz")),
        ("503", ProbeAnswer(FAILURE, "HTTP probe failed with statuscode: 503")),
    ):
        listener = await asyncio.start_server(partial(_speak_http2, status), "127.0.0.1", 0, ssl=context)
        async with listener:
            port = listener.sockets[0].getsockname()[1]
            assert await ask({"httpGet": {"port": port, "scheme": "HTTPS", "path": "/healthz"}}) == expected
    listener = await asyncio.start_server(partial(_speak_http2, ""), "127.0.0.1", 0, ssl=context)
    async with listener:
        closed = await ask({"httpGet": {"port": listener.sockets[0].getsockname()[1], "scheme": "HTTPS"}})
    assert closed.result is FAILURE
    assert closed.output.endswith(": unexpected EOF")


async def _speak_http2(status: str, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """A server that hangs up without a word where it has no status."""
    connection = H2Connection(H2Configuration(client_side=False))
    connection.initiate_connection()
    path = ""
    while not path:
        for event in connection.receive_data(await reader.read(1000)):
            if isinstance(event, RequestReceived):
                path = dict(event.headers)[b":path"].decode()
    if status:
        connection.send_headers(1, [(":status", status)])
        connection.send_data(1, f"as asked: {path}".encode(), end_stream=True)
    writer.write(connection.data_to_send())
    await writer.drain()
    writer.close()


async def _speak_http(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    await reader.read(10)
    writer.write(b"HTTP/1.1 400 Bad Request\r\n\r\n")
    writer.close()


async def test_tcp_asks_whether_somebody_listens() -> None:
    """By number or by the name of a port."""
    async with serving(Server(OK)) as port:
        container = {"ports": [{"name": "web", "containerPort": port}]}
        assert await ask({"tcpSocket": {"port": "web"}}, container=container) == ProbeAnswer(SUCCESS)
    closed = free_port()
    found = await ask({"tcpSocket": {"port": closed}})
    assert found == ProbeAnswer(FAILURE, f"dial tcp 127.0.0.1:{closed}: connect: connection refused")


async def test_a_name_is_asked_at_each_of_its_addresses(monkeypatch: pytest.MonkeyPatch) -> None:
    """`localhost` is ::1 first on many machines, and many servers listen on 127.0.0.1 alone; some have no IPv6."""
    families: list[tuple[int, str]] = [(socket.AF_INET6, "::1"), (socket.AF_INET, "127.0.0.1")]

    async def addresses(*_: object, **__: object) -> list[Any]:
        return [(family, 0, 0, "", (host, 0)) for family, host in families]

    monkeypatch.setattr(asyncio.get_running_loop(), "getaddrinfo", addresses)
    async with serving(Server(OK)) as port:
        for kind in ("tcpSocket", "httpGet"):
            assert (await ask({kind: {"host": "localhost", "port": port}})).result is SUCCESS
    found = await ask({"tcpSocket": {"host": "localhost", "port": free_port()}})
    assert found.result is FAILURE
    assert found.output.endswith("connect: connection refused")
    families[0] = (NO_FAMILY, "::1")
    async with serving(Server(OK)) as port:
        assert (await ask({"tcpSocket": {"host": "localhost", "port": port}})).result is SUCCESS
    del families[1]
    assert (await ask({"tcpSocket": {"host": "localhost", "port": 1}})).result is FAILURE


async def test_tcp_gives_up_after_the_timeout() -> None:
    """A listener whose queue is full answers nobody."""
    with socket.socket() as full, socket.socket() as first, socket.socket() as second:
        full.bind(("127.0.0.1", 0))
        full.listen(0)
        for each in (first, second):
            each.setblocking(False)
            each.connect_ex(full.getsockname())
        found = await ask({"tcpSocket": {"port": full.getsockname()[1]}}, timeout_seconds=1)
    assert found.result is FAILURE
    assert found.output.endswith("i/o timeout")


@asynccontextmanager
async def health_server(answer: Callable[[bytes, Any], Awaitable[bytes]] | None) -> AsyncIterator[int]:
    server = grpc.aio.server()
    if answer is not None:
        handler = grpc.unary_unary_rpc_method_handler(answer)
        server.add_generic_rpc_handlers(
            (grpc.method_handlers_generic_handler("grpc.health.v1.Health", {"Check": handler}),)
        )
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    yield port
    await server.stop(None)


async def test_grpc_asks_the_health_service() -> None:
    """SERVING is a success; every other answer has its words."""
    seen: list[tuple[bytes, str]] = []

    async def answer(request: bytes, context: Any) -> bytes:
        agent = dict(context.invocation_metadata())["user-agent"]
        seen.append((request, agent))
        if request.endswith(b"slow"):
            await asyncio.sleep(3)
        if request.endswith(b"none"):
            await context.abort(grpc.StatusCode.NOT_FOUND, "unknown service")
        return b"\x08\x02" if request.endswith(b"ill") else b"\x08\x01"

    async with health_server(answer) as port:
        assert await ask({"grpc": {"port": port, "service": "db"}}) == ProbeAnswer(SUCCESS, "service healthy")
        assert seen[0][0] == b"\x0a\x02db"
        assert seen[0][1].startswith("kube-probe/1.37")
        ill = await ask({"grpc": {"port": port, "service": "ill"}})
        assert ill == ProbeAnswer(FAILURE, 'service unhealthy (responded with "NOT_SERVING")')
        slow = await ask({"grpc": {"port": port, "service": "slow"}}, timeout_seconds=1)
        assert slow == ProbeAnswer(FAILURE, "timeout: health rpc did not complete within 1s")
        none = await ask({"grpc": {"port": port, "service": "none"}})
        assert none.output == "error: health rpc probe failed: rpc error: code = NOT_FOUND desc = unknown service"
    refused = await ask({"grpc": {"port": port}})
    assert refused.result is FAILURE
    assert "failed to connect service" in refused.output


async def test_grpc_without_a_health_service_says_so() -> None:
    """Another service listens there."""
    async with health_server(None) as port:
        found = await ask({"grpc": {"port": port}})
    assert found.result is FAILURE
    assert "does not implement the grpc health protocol" in found.output


class Runtime(FakeRuntimeClient):
    """A fake whose exec does what the test says."""

    def __init__(self, outcome: Any) -> None:
        super().__init__()
        self.outcome = outcome
        self.commands: list[list[str]] = []

    async def exec_sync(self, container_id: str, command: list[str], timeout_seconds: int) -> Any:
        self.commands.append(command)
        if isinstance(self.outcome, Exception):
            raise self.outcome
        return self.outcome


@pytest.mark.parametrize("probe", [{}, {"httpGet": {"port": "nowhere"}}, {"tcpSocket": {"port": 0}}])
async def test_a_probe_that_cannot_be_asked_is_an_error(probe: dict[str, Any]) -> None:
    """Neither success nor failure."""
    with pytest.raises(ProbeError):
        await ask(probe)


async def test_without_an_address_nobody_is_asked() -> None:
    """The pod has no IP yet."""
    with pytest.raises(ProbeError, match="no IP address"):
        await ask({"grpc": {"port": 1}}, pod_ip="")


async def test_exec_goes_through_the_runtime() -> None:
    """The exit code decides, both outputs are told, references to plain variables are expanded."""

    container = {"env": [{"name": "WORD", "value": "hello"}]}
    probe = {"exec": {"command": ["echo", "$(WORD)"]}}
    well = Runtime(cri.ExecSyncResponse(stdout=b"out", stderr=b"err"))
    assert await ask(probe, well, container=container) == ProbeAnswer(SUCCESS, "outerr")
    assert well.commands == [["echo", "hello"]]
    ill = Runtime(cri.ExecSyncResponse(stdout=b"x" * 20_000, exit_code=3))
    assert await ask(probe, ill) == ProbeAnswer(FAILURE, "x" * MAX_OUTPUT_BYTES)
    with pytest.raises(ProbeError, match="no such container"):
        await ask(probe, Runtime(RuntimeCallError("ExecSync", "NOT_FOUND", "no such container")))


async def test_exec_that_outlives_its_timeout_is_a_failure() -> None:
    """With the command in its words."""

    sleeper = Runtime(RuntimeTimeout("ExecSync", "", ""))
    found = await ask({"exec": {"command": ["sleep", "9"]}}, sleeper, timeout_seconds=1)
    assert found == ProbeAnswer(FAILURE, 'command timed out: "sleep 9" timed out after 1s')
