"""The HTTP API over real sockets and real TLS."""

import asyncio
import json
import os
import resource
import ssl
from dataclasses import replace
from pathlib import Path

import aiohttp
import pytest

from cri_proto import runtime_v1 as cri
from kubelet_py.api import authentication_v1
from kubelet_py.errors import ConfigError
from kubelet_py.server import container_logs
from kubelet_py.server.listener import KubeletServer
from kubelet_py.server.settings import AuthSettings, ServerConfig, TlsSettings
from tests.integration.server.conftest import Authority, Judge, Node, container_status, free_port

OPEN = AuthSettings(anonymous=True, token_webhook=False, authorize_by_webhook=False)


def config_for(tmp_path: Path, auth: AuthSettings = OPEN, *, tls: TlsSettings | None = None) -> ServerConfig:
    return ServerConfig(
        node_name="node-1",
        addresses=("127.0.0.1",),
        bind_address="127.0.0.1",
        port=free_port(),
        healthz_port=0,
        auth=auth,
        tls=tls or TlsSettings(cert_dir=tmp_path / "pki"),
    )


def client_context(identity: tuple[str, str] | None = None, ca_file: str | Path | None = None) -> ssl.SSLContext:
    context = ssl.create_default_context(cafile=ca_file)
    if ca_file is None:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    if identity is not None:
        context.load_cert_chain(*identity)
    return context


async def get(
    config: ServerConfig, path: str, identity: tuple[str, str] | None = None, token: str = "", method: str = "GET"
) -> tuple[int, str]:
    """One request on a connection of its own."""
    headers = {"Authorization": f"Bearer {token}"} if token else {}
    connector = aiohttp.TCPConnector(ssl=client_context(identity), force_close=True)
    async with (
        aiohttp.ClientSession(connector=connector) as session,
        session.request(method, f"https://127.0.0.1:{config.port}{path}", headers=headers) as response,
    ):
        return response.status, await response.text()


async def curl(*arguments: str) -> tuple[int, str]:
    process = await asyncio.create_subprocess_exec("curl", "-sS", *arguments, stdout=asyncio.subprocess.PIPE)
    output, _ = await process.communicate()
    return process.returncode or 0, output.decode()


async def test_nobody_is_let_in_without_credentials(tmp_path: Path, node: Node, judge: Judge) -> None:
    config = config_for(tmp_path, AuthSettings())
    async with KubeletServer(config, node, judge.reviews):
        for path in ("/pods", "/healthz", "/metrics", "/nothing", "/exec/a/b/c", "/containerLogs/a/b/c"):
            assert await get(config, path) == (401, "Unauthorized")
        assert await get(config, "/pods", token="wrong") == (401, "Unauthorized")
    assert judge.asked == []


async def test_a_client_certificate_names_the_user_and_the_api_server_decides(
    tmp_path: Path, node: Node, judge: Judge, authority: Authority
) -> None:
    config = config_for(tmp_path, AuthSettings(client_ca_file=str(authority.ca_file)))
    identity = authority.issue("admin", "alice", ["ops", "dev"])
    judge.allowed = {("alice", "get", "pods"), ("alice", "get", "metrics"), ("alice", "get", "proxy")}
    node.add("web", container_status({"running": {}}))
    async with KubeletServer(config, node, judge.reviews):
        status, body = await get(config, "/pods", identity)
        assert status == 200
        assert [item["metadata"]["name"] for item in json.loads(body)["items"]] == ["web"]
        assert await get(config, "/healthz", identity) == (200, "ok")
        assert judge.asked == [("alice", "get", "pods"), ("alice", "get", "healthz"), ("alice", "get", "proxy")]
        await get(config, "/pods", identity)
        assert len(judge.asked) == 3, "decisions are cached"
        assert (await get(config, "/metrics", identity))[0] == 200
        assert judge.asked[-1] == ("alice", "get", "metrics")
        denied = await get(config, "/exec/shop/web/main", identity, method="POST")
        assert denied == (
            403,
            "Forbidden (user=alice, verb=create, resource=nodes, subresource(s)=[proxy])\n",
        )
        bob = authority.issue("bob", "bob")
        text = "Forbidden (user=bob, verb=get, resource=nodes, subresource(s)=[configz proxy])\n"
        assert await get(config, "/configz", bob) == (403, text)
        judge.away = True
        carol = authority.issue("carol", "carol")
        status, body = await get(config, "/stats/summary", carol)
        assert (status, body) == (
            500,
            "Authorization error (user=carol, verb=get, resource=nodes, subresource=stats)",
        )


async def test_a_path_written_otherwise_is_never_judged_as_another_route(
    tmp_path: Path, node: Node, judge: Judge, authority: Authority
) -> None:
    config = config_for(tmp_path, AuthSettings(client_ca_file=str(authority.ca_file)))
    identity = authority.issue("scraper", "scraper")
    judge.allowed = {("scraper", "get", "metrics"), ("scraper", "get", "healthz")}
    async with KubeletServer(config, node, judge.reviews):
        for path in ("/metrics%2f..%2fpods", "/metrics/..%2fcontainerLogs/a/b/c", "/healthz/../pods", "//pods"):
            code, body = await curl(
                "-k", "--path-as-is", "-w", "\n%{http_code}", "--cert", identity[0], "--key", identity[1],
                f"https://127.0.0.1:{config.port}{path}",
            )  # fmt: skip
            assert code == 0
            assert body.splitlines()[-1] in ("403", "404"), (path, body)


async def test_a_token_is_reviewed_once_and_its_groups_count(tmp_path: Path, node: Node, judge: Judge) -> None:
    config = config_for(tmp_path, AuthSettings(anonymous=True))
    judge.tokens["good"] = authentication_v1.UserInfo(username="sa", groups=["system:serviceaccounts"])
    judge.allowed = {("sa", "get", "proxy")}
    async with KubeletServer(config, node, judge.reviews):
        for _ in range(3):
            status, _ = await get(config, "/configz", token="good")
            assert status == 200
        assert judge.tokens_asked == 1
        assert await get(config, "/configz", token="bad") == (401, "Unauthorized")
        text = "Forbidden (user=system:anonymous, verb=get, resource=nodes, subresource(s)=[configz proxy])\n"
        assert await get(config, "/configz") == (403, text)
        judge.away = True
        assert await get(config, "/configz", token="new") == (401, "Unauthorized")
        assert (await get(config, "/configz", token="good"))[0] == 200, "cached decisions outlive the API server"


async def test_the_client_ca_is_read_again_when_it_changes(
    tmp_path: Path, node: Node, judge: Judge, authority: Authority, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("kubelet_py.server.tls._CHECK_INTERVAL_SECONDS", 0.0)
    config = config_for(tmp_path, AuthSettings(client_ca_file=str(authority.ca_file)))
    judge.allowed = {("alice", "get", "pods")}
    other = Authority(tmp_path / "other", "other-ca")
    before, after = authority.issue("alice", "alice"), other.issue("alice", "alice")
    async with KubeletServer(config, node, judge.reviews):
        assert (await get(config, "/pods", before))[0] == 200
        with pytest.raises(aiohttp.ClientError):
            await get(config, "/pods", after)
        authority.ca_file.write_text("half a cert")
        assert (await get(config, "/pods", before))[0] == 200, "a file that cannot be used changes nothing"
        os.replace(other.ca_file, authority.ca_file)
        assert (await get(config, "/pods", after))[0] == 200
        with pytest.raises(aiohttp.ClientError):
            await get(config, "/pods", before)


async def test_a_serving_certificate_is_read_again_when_it_changes(
    tmp_path: Path, node: Node, authority: Authority, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("kubelet_py.server.tls._CHECK_INTERVAL_SECONDS", 0.0)
    cert_file, key_file = authority.issue("serving", "node-1", server=True)
    config = config_for(tmp_path, tls=TlsSettings(cert_file, key_file))

    async def peer() -> object:
        context = client_context(ca_file=authority.ca_file)
        _, writer = await asyncio.open_connection("127.0.0.1", config.port, ssl=context, server_hostname="localhost")
        certificate = writer.get_extra_info("peercert")
        writer.close()
        await writer.wait_closed()
        return certificate["serialNumber"]

    async with KubeletServer(config, node):
        first = await peer()
        assert await peer() == first
        authority.issue("serving", "node-1", server=True)
        assert await peer() != first


async def test_a_self_signed_certificate_is_made_once(tmp_path: Path, node: Node) -> None:
    config = config_for(tmp_path)
    async with KubeletServer(config, node):
        code, body = await curl(
            "--cacert", str(tmp_path / "pki" / "kubelet.crt"), f"https://127.0.0.1:{config.port}/healthz"
        )
        assert (code, body) == (0, "ok")
    made = (tmp_path / "pki" / "kubelet.crt").read_bytes()
    assert (tmp_path / "pki" / "kubelet.key").stat().st_mode & 0o777 == 0o600
    async with KubeletServer(config, node):
        assert (tmp_path / "pki" / "kubelet.crt").read_bytes() == made
    (tmp_path / "pki" / "kubelet.crt").write_text("garbage")
    async with KubeletServer(config, node):
        assert (await get(config, "/healthz"))[0] == 200


async def test_what_is_in_the_way_is_named_in_one_line_and_nothing_stays_open(tmp_path: Path, node: Node) -> None:
    config = config_for(tmp_path)
    async with KubeletServer(config, node):
        with pytest.raises(
            ConfigError, match=f"port: cannot listen on 127.0.0.1:{config.port}: Address already in use"
        ):
            await KubeletServer(config, node).start()
        second = replace(config, port=free_port(), healthz_port=config.port)
        with pytest.raises(ConfigError, match="healthzPort: cannot listen"):
            await KubeletServer(second, node).start()
        async with KubeletServer(replace(second, healthz_port=0), node):
            pass
    bad = replace(config, tls=TlsSettings("/nonexistent.crt", "/nonexistent.key"))
    with pytest.raises(ConfigError, match=r"cannot read /nonexistent\.crt: No such file"):
        await KubeletServer(bad, node).start()
    with pytest.raises(ConfigError, match="tlsPrivateKeyFile is not: give both"):
        await KubeletServer(replace(config, tls=TlsSettings("/a.crt", "")), node).start()
    ca = replace(config, auth=replace(OPEN, client_ca_file="/nonexistent-ca.crt"))
    with pytest.raises(ConfigError, match=r"cannot read /nonexistent-ca\.crt"):
        await KubeletServer(ca, node).start()
    with pytest.raises(ConfigError, match="need an API server"):
        KubeletServer(replace(config, auth=AuthSettings()), node)


async def test_health_is_told_in_plain_text_on_a_port_of_its_own(tmp_path: Path, node: Node) -> None:
    config = replace(config_for(tmp_path), healthz_port=free_port(), read_only_port=free_port())
    async with KubeletServer(config, node):
        base = f"http://127.0.0.1:{config.healthz_port}"
        assert await curl(f"{base}/healthz") == (0, "ok")
        assert await curl(f"{base}/healthz/ping") == (0, "ok")
        assert "200 OK" in (await curl("-I", f"{base}/healthz"))[1], "load balancers ask with HEAD"
        assert (await curl(f"{base}/pods"))[1].startswith("404")
        node.problems["pleg"] = "nothing listed for 3 minutes"
        assert await curl(f"{base}/healthz?verbose") == (0, "[+]ping ok\nhealthz check passed\n"), "whatever else is"
        assert (await curl(f"{base}/healthz/pleg"))[1].startswith("404")
        read_only = f"http://127.0.0.1:{config.read_only_port}"
        _, body = await curl("-w", "%{http_code}", f"{read_only}/healthz")
        assert body == (
            "[+]ping ok\n[+]log ok\n[+]syncloop ok\n[-]pleg failed: nothing listed for 3 minutes\n"
            "healthz check failed\n500"
        )
        assert '"PodList"' in (await curl(f"{read_only}/pods"))[1]
        logs = await curl("-w", "%{http_code}", f"{read_only}/containerLogs/shop/web/main")
        assert logs == (0, "Debug endpoints are disabled.405")


async def test_who_need_not_say_who_he_is_sees_pods_and_numbers_and_touches_nothing(tmp_path: Path, node: Node) -> None:
    """The read-only port: no configuration, and no container whose memory could be written to the disk."""
    config = replace(config_for(tmp_path), read_only_port=free_port())
    async with KubeletServer(config, node):
        read_only = f"http://127.0.0.1:{config.read_only_port}"

        async def code(path: str, *arguments: str) -> str:
            return (await curl(*arguments, "-o", "/dev/null", "-w", "%{http_code}", f"{read_only}{path}"))[1]

        assert [await code(path) for path in ("/pods", "/metrics", "/healthz")] == ["200"] * 3
        assert await code("/configz") == "404"
        assert await code("/checkpoint/shop/web/main", "-X", "POST") == "404"
        for path in ("/exec/shop/web/main", "/run/shop/web/main", "/attach/shop/web/main", "/portForward/shop/web"):
            assert await code(path, "-X", "POST") == "405"


async def test_a_command_of_hundreds_of_kilobytes_is_taken(tmp_path: Path, node: Node) -> None:
    """kubectl exec puts it into the address."""
    config = config_for(tmp_path)
    async with KubeletServer(config, node):
        status, body = await get(config, f"/exec/shop/nope/main?command={'x' * 300_000}")
        assert (status, body) == (404, "pod nope_shop does not exist")


async def test_what_is_not_served_yet_says_so(tmp_path: Path, node: Node) -> None:
    config = config_for(tmp_path)
    async with KubeletServer(config, node):
        for path in ("/debug/pprof", "/stats/summary", "/metrics/cadvisor"):
            assert await get(config, path) == (501, f"{path} is not served by this version of kubelet-py\n")
        assert (await get(config, "/nothing"))[0] == 404
        status, body = await get(config, "/configz")
        assert (status, json.loads(body)["kubeletconfig"]["port"]) == (200, 10250)


def line(text: str, tag: str = "F") -> bytes:
    return f"2026-03-01T10:00:00.5Z stdout {tag} {text}\n".encode()


async def test_logs_are_shown_as_asked_and_what_is_wrong_is_named(tmp_path: Path, node: Node) -> None:
    config = config_for(tmp_path)
    log = tmp_path / "0.log"
    log.write_bytes(line("one") + line("two") + line("three"))
    previous = tmp_path / "prev" / "0.log"
    previous.parent.mkdir()
    previous.write_bytes(line("before the crash"))
    node.logs = {"docker://now": log, "docker://before": previous, "docker://lost": tmp_path / "lost.log"}
    ended = {"terminated": {"exitCode": 1, "containerID": "docker://before"}}
    node.add("web", container_status({"running": {}}, ended, "docker://now"))
    node.add("pulling", container_status({"waiting": {"reason": "ImagePullBackOff"}}))
    node.add("creating", container_status({"waiting": {"reason": "ContainerCreating"}}))
    node.add("lost", container_status({"running": {}}, container_id="docker://lost"))
    node.add("unknown", container_status({"running": {}}, container_id="docker://nobody"))
    async with KubeletServer(config, node):

        async def logs(pod: str, query: str = "", container: str = "main") -> tuple[int, str]:
            return await get(config, f"/containerLogs/shop/{pod}/{container}{query}")

        assert await logs("web") == (200, "one\ntwo\nthree\n")
        assert await logs("web", "?tailLines=1") == (200, "three\n")
        assert await logs("web", "?tail=2") == (200, "two\nthree\n")
        assert await logs("web", "?limitBytes=5&follow=false") == (200, "one\nt")
        assert await logs("web", "?previous=true") == (200, "before the crash\n")
        assert await logs("web", "?tailLines=1&timestamps") == (200, "2026-03-01T10:00:00.500000000Z three\n")
        assert (await logs("web", "?tailLines=x"))[0] == 400
        assert (await logs("web", "?tailLines=-1"))[0] == 422
        assert (await logs("web", "?sinceTime=2026-01-01T00:00:00Z&sinceSeconds=5"))[0] == 422
        assert await logs("nope") == (404, 'pod "nope" does not exist')
        assert await logs("web", container="x") == (404, 'container "x" not found in pod "web"')
        waiting = 'container "main" in pod "{}" is waiting to start: {}'
        assert await logs("pulling") == (400, waiting.format("pulling", "trying and failing to pull image"))
        assert await logs("creating") == (400, waiting.format("creating", "ContainerCreating"))
        text = 'previous terminated container "main" in pod "lost" not found'
        assert await logs("lost", "?previous=true") == (400, text)
        status, body = await logs("lost")
        assert status == 400
        assert "No such file" in body
        assert await logs("unknown") == (400, "unable to retrieve container logs for docker://nobody")


async def test_a_followed_log_shows_each_line_at_once_and_ends_with_the_container(
    tmp_path: Path, node: Node, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(container_logs, "CHECK_INTERVAL_SECONDS", 5.0)  # not by looking now and then
    config = config_for(tmp_path)
    log = tmp_path / "0.log"
    log.write_bytes(line("first"))
    node.logs["docker://now"] = log
    node.running = {"docker://now"}
    node.add("web", container_status({"running": {}}, container_id="docker://now"))
    url = f"https://127.0.0.1:{config.port}/containerLogs/shop/web/main?follow=true"
    clock = asyncio.get_running_loop().time
    async with (
        KubeletServer(config, node),
        aiohttp.ClientSession(connector=aiohttp.TCPConnector(ssl=client_context())) as session,
        session.get(url) as response,
    ):
        assert await response.content.readline() == b"first\n"
        with log.open("ab") as file:
            file.write(line("second"))
        before = clock()
        assert await response.content.readline() == b"second\n"
        assert clock() - before < 4
        log.rename(log.with_name("0.log.20260301-100000"))
        log.write_bytes(line("after rotation"))
        assert await response.content.readline() == b"after rotation\n"
        with log.open("ab") as file:
            file.write(line("last words"))
        node.running.clear()
        assert await response.content.read() == b"last words\n"


async def test_a_client_that_goes_away_leaves_nothing_open(tmp_path: Path, node: Node) -> None:
    config = config_for(tmp_path)
    log = tmp_path / "0.log"
    log.write_bytes(line("first"))
    node.logs["docker://now"] = log
    node.running = {"docker://now"}
    node.add("web", container_status({"running": {}}, container_id="docker://now"))

    def open_logs() -> int:
        links = [f"/proc/self/fd/{name}" for name in os.listdir("/proc/self/fd")]
        return sum(os.path.exists(link) and os.readlink(link) == str(log) for link in links)

    async with KubeletServer(config, node):
        url = f"https://127.0.0.1:{config.port}/containerLogs/shop/web/main?follow=true"
        clients = [
            await asyncio.create_subprocess_exec("curl", "-skN", url, stdout=asyncio.subprocess.PIPE) for _ in range(5)
        ]
        for client in clients:
            assert client.stdout is not None
            assert await client.stdout.readline() == b"first\n"
        assert open_logs() == 5
        for client in clients:
            client.kill()
            await client.communicate()
        async with asyncio.timeout(10):
            while open_logs():  # noqa: ASYNC110 # the kernel's view has no event to wait for
                await asyncio.sleep(0)


async def test_followers_do_not_hold_up_the_end_of_the_agent(tmp_path: Path, node: Node) -> None:
    config = config_for(tmp_path)
    log = tmp_path / "0.log"
    log.write_bytes(line("first"))
    node.logs["docker://now"] = log
    node.running = {"docker://now"}
    node.add("web", container_status({"running": {}}, container_id="docker://now"))
    server = KubeletServer(config, node)
    await server.start()
    url = f"https://127.0.0.1:{config.port}/containerLogs/shop/web/main?follow=true"
    client = await asyncio.create_subprocess_exec("curl", "-skN", url, stdout=asyncio.subprocess.PIPE)
    assert client.stdout is not None
    assert await client.stdout.readline() == b"first\n"
    async with asyncio.timeout(5):
        await server.stop()
        await client.communicate()
    async with KubeletServer(config, node):
        assert (await get(config, "/healthz"))[0] == 200


async def test_a_large_log_is_streamed_without_being_held(tmp_path: Path, node: Node) -> None:
    config = config_for(tmp_path)
    log = tmp_path / "0.log"
    block = line("x" * 1000) * 1000
    with log.open("wb") as file:
        for _ in range(100):
            file.write(block)
    node.logs["docker://now"] = log
    node.add("web", container_status({"running": {}}, container_id="docker://now"))
    async with KubeletServer(config, node):
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        url = f"https://127.0.0.1:{config.port}/containerLogs/shop/web/main"
        code, size = await curl("-k", "-o", os.devnull, "-w", "%{size_download}", url)
        assert (code, int(size)) == (0, 100 * 1000 * 1001)
        assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 30 * 1024


async def test_streams_say_what_is_wrong_with_the_request(tmp_path: Path, node: Node) -> None:
    """Exec, attach and port-forward: an unknown pod, container or stream, no upgrade, and a runtime that is away."""
    node.add("web", container_status({"running": {}}, None, "docker://1"))
    node.add("new", container_status({"waiting": {"reason": "ContainerCreating"}}))
    node.add("away", container_status({"running": {}}, None, "docker://1"))
    upgrade = {"Connection": "Upgrade", "Upgrade": "SPDY/3.1"}
    config = config_for(tmp_path)
    async with KubeletServer(config, node):

        async def post(path: str, headers: dict[str, str] = upgrade) -> tuple[int, str]:
            arguments = [part for name, value in headers.items() for part in ("-H", f"{name}: {value}")]
            url = f"https://127.0.0.1:{config.port}{path}"
            _, output = await curl("-k", "-X", "POST", "-w", "\n%{http_code}", *arguments, url)
            body, _, code = output.rpartition("\n")
            return int(code), body

        assert (await post("/exec/shop/none/main?command=ls&output=1"))[0] == 404
        assert (await post("/exec/shop/web/none?command=ls&output=1"))[0] == 404
        assert (await post("/exec/shop/web/wrong-uid/main?command=ls&output=1"))[0] == 404
        assert await post("/exec/shop/new/main?command=ls&output=1") == (
            500,
            'container not found ("main"): it does not run',
        )
        assert (await post("/attach/shop/away/main?output=1"))[0] == 500
        assert (await post("/exec/shop/web/main?output=1")) == (
            400,
            "you must specify at least one command to execute",
        )
        assert (await post("/exec/shop/web/main?command=ls"))[0] == 400
        assert (await post("/exec/shop/web/main?command=ls&output=1", {}))[0] == 400
        assert (await post("/portForward/shop/web"))[0] == 500
        for path in ("/exec/shop/web/main?command=ls&output=1", "/attach/shop/web/main?output=1"):
            code, body = await post(path)
            assert (code, "does not answer" in body) == (500, True), body


async def test_whether_an_attach_has_a_terminal_is_the_containers_to_say(tmp_path: Path, node: Node) -> None:
    """It was settled when the container was made. For an exec the client says it; a terminal has one output."""
    node.add("terminal", container_status({"running": {}}, None, "docker://1"), tty=True)
    node.add("plain", container_status({"running": {}}, None, "docker://2"))
    config = config_for(tmp_path)
    async with KubeletServer(config, node):
        upgrade = ("-H", "Connection: Upgrade", "-H", "Upgrade: SPDY/3.1")
        for path in (
            "attach/shop/terminal/main?input=1&output=1&error=1",
            "attach/shop/plain/main?output=1&error=1&tty=1",
            "exec/shop/terminal/main?command=ls&output=1&error=1",
            "exec/shop/plain/main?command=sh&input=1&output=1&error=1&tty=1",
        ):
            await curl("-k", "-X", "POST", *upgrade, f"https://127.0.0.1:{config.port}/{path}")
    assert node.streams == [
        cri.AttachRequest(container_id="1", stdin=True, stdout=True, tty=True),
        cri.AttachRequest(container_id="2", stdout=True, stderr=True),
        cri.ExecRequest(container_id="1", cmd=["ls"], stdout=True, stderr=True),
        cri.ExecRequest(container_id="2", cmd=["sh"], stdin=True, stdout=True, tty=True),
    ]


async def test_a_command_is_run_without_streams(tmp_path: Path, node: Node) -> None:
    """Both outputs one after the other; a command that fails and a runtime that is away are errors with their words."""
    node.add("web", container_status({"running": {}}, None, "docker://1"))
    config = config_for(tmp_path)
    async with KubeletServer(config, node):

        async def run(path: str) -> tuple[int, str]:
            return await get(config, f"/run/shop/{path}", method="POST")

        assert await run("web/main?cmd=ls%20-l%20/") == (200, "out\nerr\n")
        assert await run("web/web/main?cmd=id") == (200, "out\nerr\n")
        assert node.commands == [("1", ["ls", "-l", "/"]), ("1", ["id"])]
        assert await run("web/main?cmd=false") == (500, "command 'false' exited with 3: bad\n")
        assert await run("web/main?cmd=away") == (500, "ExecSync: nobody answers (UNAVAILABLE)")
        assert (await run("none/main?cmd=ls"))[0] == 404
        assert (await run("web/wrong-uid/main?cmd=ls"))[0] == 404
        assert (await get(config, "/run/shop/web/main?cmd=ls"))[0] == 405


async def test_a_checkpoint_tells_where_it_is(tmp_path: Path, node: Node) -> None:
    node.add("web", container_status({"running": {}}, None, "docker://1"))
    node.add("new", container_status({"waiting": {"reason": "ContainerCreating"}}))
    config = config_for(tmp_path)
    async with KubeletServer(config, node):

        async def checkpoint(path: str) -> tuple[int, str]:
            return await get(config, f"/checkpoint/shop/{path}", method="POST")

        assert await checkpoint("web/main") == (200, '{"items":["/checkpoints/shop/web-main-1-0.tar"]}')
        answer = '{"items":["/checkpoints/shop/web-main-1-7.tar"]}'
        assert await checkpoint("web/main?timeout=5&timeout=7") == (200, answer)
        assert (await checkpoint("none/main"))[0] == 404
        assert (await checkpoint("web/none"))[0] == 404
        code, text = await checkpoint("web/main?timeout=soon")
        assert (code, text.startswith("cannot parse value of timeout parameter")) == (404, True)
        failed = "checkpointing of shop/web/main failed (CheckpointContainer: no CRIU here (UNIMPLEMENTED))"
        assert await checkpoint("web/main?timeout=99") == (500, failed)
        assert (await checkpoint("new/main"))[0] == 500
    off = replace(config_for(tmp_path), checkpoints=False)
    async with KubeletServer(off, node):
        assert (await get(off, "/checkpoint/shop/web/main", method="POST"))[0] == 404
