"""The source of pods behind a URL, which may fail."""

import itertools
from collections.abc import AsyncIterator

import aiohttp
import pytest
from aiohttp import web
from structlog.testing import capture_logs

from kubelet_py.sync.sources import url as url_module
from kubelet_py.sync.sources.url import UrlSource
from tests.unit.kubelet_py.sync.source_sets import Sets, manifest_text, running


class ConfigServer:
    """A web server that answers as told."""

    def __init__(self) -> None:
        self.body: bytes = b""
        self.status = 200
        self.headers: list[str] = []
        self.requests = 0
        self.url = ""
        self.asked: list[tuple[str, str]] = []
        self.authorizations: list[str] = []
        self.redirects: dict[str, str] = {}

    async def handle(self, request: web.BaseRequest) -> web.Response:
        """Everything, also what a proxy is asked for."""
        self.requests += 1
        self.headers = request.headers.getall("X-Token", [])
        url = str(request.url)
        self.asked.append((url, request.headers.get("Proxy-Authorization", "")))
        self.authorizations.append(request.headers.get("Authorization", ""))
        if url in self.redirects:
            return web.Response(status=302, headers={"Location": self.redirects[url]})
        return web.Response(status=self.status, body=self.body)


@pytest.fixture
async def server() -> AsyncIterator[ConfigServer]:
    """On a port of its own."""
    config = ConfigServer()
    runner = web.ServerRunner(web.Server(config.handle))
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    config.url = f"http://127.0.0.1:{runner.addresses[0][1]}/pods"
    yield config
    await runner.cleanup()


class TestUrlSource:
    """A real web server on the loopback."""

    async def test_pods_from_a_url(self, server: ConfigServer) -> None:
        """Headers are sent; an unchanged answer gives no new set; a list gives all its pods."""
        sets = Sets()
        source = UrlSource(server.url, {"X-Token": ["a", "b"]}, "n1", 20, sets)
        server.body = (manifest_text("web") + "extra: 1\n").encode()
        with capture_logs() as logs:
            async with aiohttp.ClientSession() as session:
                await source.fetch(session)
                await source.fetch(session)
                assert await sets.names() == ["web-n1"]
                assert sets.queue.empty()
                server.body = b'{"apiVersion": "v1", "kind": "PodList", "items": []}'
                await source.fetch(session)
        found = await sets.next()
        assert (found.source, found.pods) == ("http", ())
        assert server.headers == ["a", "b"]
        assert [entry["event"] for entry in logs] == ["manifest_warning"]

    async def test_a_fault_of_ours_is_a_failure_as_any(
        self, server: ConfigServer, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def broken(*_: object) -> None:
            raise TypeError("nobody thought of it")

        monkeypatch.setattr(url_module, "static_pods_of", broken)
        server.body = manifest_text().encode()
        source = UrlSource(server.url, {}, "n1", 20, Sets())
        with capture_logs() as logs:
            async with aiohttp.ClientSession() as session:
                await source.fetch(session)
        assert [entry["problem"] for entry in logs] == ["fault of the agent: TypeError: nobody thought of it"]

    async def test_failures_are_loud_three_times(self, server: ConfigServer) -> None:
        """Then quiet, then their end is told."""
        sets = Sets()
        source = UrlSource(server.url, {}, "n1", 20, sets)
        server.status = 503
        with capture_logs() as logs:
            async with aiohttp.ClientSession() as session:
                for _ in range(6):
                    await source.fetch(session)
                server.status, server.body = 200, manifest_text().encode()
                await source.fetch(session)
        assert [(entry["event"], entry["log_level"]) for entry in logs] == [
            *([("manifest_url_failed", "warning")] * 4),
            *([("manifest_url_failed", "debug")] * 2),
            ("manifest_url_recovered", "info"),
        ]
        assert logs[0]["problem"] == "the server answered 503 Service Unavailable"
        assert "further failures" in logs[3]["note"]
        assert await sets.names() == ["web-n1"]

    async def test_an_empty_answer_is_an_empty_set(self, server: ConfigServer) -> None:
        """And a failure."""
        sets = Sets()
        with capture_logs() as logs:
            async with aiohttp.ClientSession() as session:
                await UrlSource(server.url, {}, "n1", 20, sets).fetch(session)
        assert (await sets.next()).pods == ()
        assert "the answer is empty" in logs[0]["problem"]

    async def test_bad_answers_change_nothing(self, server: ConfigServer, monkeypatch: pytest.MonkeyPatch) -> None:
        """No manifest, too much, nobody there, too late."""
        sets = Sets()
        source = UrlSource(server.url, {}, "n1", 20, sets)
        with capture_logs() as logs:
            async with aiohttp.ClientSession() as session:
                server.body = b"kind: ["
                await source.fetch(session)
                monkeypatch.setattr(url_module, "MAX_MANIFEST_BYTES", 10)
                server.body = b"x" * 11
                await source.fetch(session)
                await UrlSource("http://127.0.0.1:1/", {}, "n1", 20, sets).fetch(session)
            async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=1e-6)) as session:
                await UrlSource(server.url, {}, "n1", 20, sets).fetch(session)
        assert sets.queue.empty()
        problems = [entry["problem"] for entry in logs]
        assert problems[0].startswith("line 2: no YAML")
        assert problems[1] == "the answer is larger than 10 bytes"
        assert problems[2].startswith("ClientConnectorError")
        assert problems[3] == "no complete answer within 10s"

    async def test_the_environments_proxy_is_asked(self, server: ConfigServer) -> None:
        """With the password in its URL; the one for HTTPS is another one, and NO_PROXY exempts."""
        sets = Sets()
        server.body = manifest_text().encode()
        http_proxy = server.url.replace("http://", "http://me:secret@").removesuffix("/pods")
        environment = {"HTTP_PROXY": http_proxy, "https_proxy": "http://127.0.0.1:1", "NO_PROXY": "near.invalid"}

        async def problem(url: str) -> str:
            with capture_logs() as logs:
                async with aiohttp.ClientSession() as session:
                    await UrlSource(url, {}, "n1", 20, sets, environment).fetch(session)
            return "".join(str(entry["problem"]) for entry in logs)

        assert await problem("http://far.invalid/pods") == ""
        assert await sets.names() == ["web-n1"]
        assert server.asked == [("http://far.invalid/pods", "Basic bWU6c2VjcmV0")]
        assert (await problem("https://far.invalid/pods")).startswith(
            "ClientProxyConnectionError: Cannot connect to host"
        )
        assert (await problem("http://near.invalid/pods")).startswith("ClientConnectorDNSError")
        server.status = 407
        assert await problem("http://far.invalid/pods") == "the server answered 407 Proxy Authentication Required"
        environment["https_proxy"] = http_proxy
        assert await problem("https://far.invalid/pods") == "the proxy answered 407 Proxy Authentication Required"
        environment["https_proxy"] = "socks5://me:secret@proxy"
        assert await problem("https://far.invalid/pods") == (
            "HTTPS_PROXY in the environment: a proxy of the kind socks5 is not supported; "
            "right would be http://HOST:PORT or https://HOST:PORT"
        )
        assert sets.queue.empty()

    async def test_a_redirect_may_lead_past_the_proxy(self, server: ConfigServer) -> None:
        """What proves who asks goes to no other host; other headers do."""
        sets = Sets()
        server.body = manifest_text().encode()
        server.redirects = {"http://far.invalid/pods": server.url}
        headers = {"X-Token": ["a"], "Authorization": ["Bearer x"]}
        environment = {"http_proxy": server.url.removesuffix("/pods")}
        async with aiohttp.ClientSession() as session:
            await UrlSource("http://far.invalid/pods", headers, "n1", 20, sets, environment).fetch(session)
        assert await sets.names() == ["web-n1"]
        assert [url for url, _ in server.asked] == ["http://far.invalid/pods", server.url]
        assert server.authorizations == ["Bearer x", ""]
        assert server.headers == ["a"]

    async def test_redirects_are_followed_nine_times(self, server: ConfigServer) -> None:
        """As Go's client does; a name below the first one is trusted like it."""
        sets = Sets()
        server.body = manifest_text().encode()
        environment = {"http_proxy": server.url.removesuffix("/pods")}
        places = ["http://far.invalid/", *(f"http://a{number}.far.invalid/" for number in range(9))]
        server.redirects = dict(itertools.pairwise(places))
        source = UrlSource(places[0], {"Authorization": ["Bearer x"]}, "n1", 20, sets, environment)
        async with aiohttp.ClientSession() as session:
            await source.fetch(session)
            assert await sets.names() == ["web-n1"]
            assert server.authorizations == ["Bearer x"] * 10
            server.redirects[places[-1]] = "http://b.far.invalid/"
            with capture_logs() as logs:
                await source.fetch(session)
        assert [entry["problem"] for entry in logs] == ["more than 9 redirects"]

    async def test_it_goes_on(self, server: ConfigServer) -> None:
        """Each interval anew."""
        sets = Sets()
        server.body = manifest_text("a").encode()
        async with running(UrlSource(server.url, {}, "n1", 0.01, sets).run):
            assert await sets.names() == ["a-n1"]
            server.body = manifest_text("b").encode()
            assert await sets.names() == ["b-n1"]
