"""Whom probes and hooks ask: ports, requests, redirects, health messages."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kubelet_py.api import codec, core_v1
from kubelet_py.core import probe_target
from kubelet_py.core.probe_target import HttpTarget

CONTAINER = core_v1.Container(name="main", ports=[core_v1.ContainerPort(containerPort=8080, name="web")])


def target(host: str = "", **fields: object) -> HttpTarget:
    """The target of an httpGet action."""
    action = codec.from_builtins(core_v1.HTTPGetAction, {"port": "web", **({"host": host} if host else {}), **fields})
    return probe_target.http_target(action, CONTAINER, "10.0.0.7", probe_target.PROBE_USER_AGENT)


@pytest.mark.parametrize(("port", "number"), [(80, 80), ("web", 8080), ("443", 443)])
def test_a_port_is_a_number_or_a_name(port: int | str, number: int) -> None:
    """A string of digits is a number, too."""
    assert probe_target.resolve_port(port, CONTAINER) == number


@pytest.mark.parametrize("port", [0, 65536, "admin", "", None])
def test_a_port_that_is_none_is_refused(port: int | str | None) -> None:
    """With its name or number in the message."""
    with pytest.raises(ValueError, match="port"):
        probe_target.resolve_port(port, CONTAINER)


def test_a_request_without_wishes() -> None:
    """The pod's address, the usual headers."""
    found = target()
    assert found.url == "http://10.0.0.7:8080/"
    assert found.request == (
        b"GET / HTTP/1.1\r\nHost: 10.0.0.7:8080\r\nUser-Agent: kube-probe/1.37\r\nAccept: */*\r\n"
        b"Connection: close\r\n\r\n"
    )


def test_headers_of_the_action_win() -> None:
    """Host, User-Agent and Accept are replaced, an empty User-Agent is left out, Connection stays ours."""
    given_headers = [
        {"name": "host", "value": "shop.example"},
        {"name": "User-Agent", "value": ""},
        {"name": "Accept", "value": "text/plain"},
        {"name": "X-One", "value": "a\r\nInjected: b"},
        {"name": "Connection", "value": "keep-alive"},
    ]
    found = target(host="192.0.2.9", scheme="HTTPS", path="health?full=1#top", httpHeaders=given_headers)
    assert found.url == "https://192.0.2.9:8080/health?full=1"
    assert found.headers.split("\r\n") == [
        "Host: shop.example",
        "Accept: text/plain",
        "X-One: a Injected: b",
        "Connection: close",
    ]


def test_http2_has_the_host_as_authority_and_nothing_of_the_connection() -> None:
    """Names are in lower case, what belongs to HTTP/1.1's connection is left out."""
    given = [{"name": "Host", "value": "shop.example"}, {"name": "X-One", "value": "a"}, {"name": "TE", "value": "x"}]
    found = target(scheme="HTTPS", path="/a?b", httpHeaders=given)
    assert found.http2_headers == [
        (b":method", b"GET"),
        (b":scheme", b"https"),
        (b":authority", b"shop.example"),
        (b":path", b"/a?b"),
        (b"user-agent", b"kube-probe/1.37"),
        (b"accept", b"*/*"),
        (b"x-one", b"a"),
    ]


def test_an_ipv6_address_is_bracketed() -> None:
    """In the URL and in the Host header."""
    found = probe_target.http_target(core_v1.HTTPGetAction(port=80), CONTAINER, "fd00::7", "x")
    assert found.url == "http://[fd00::7]:80/"
    assert "Host: [fd00::7]:80" in found.headers


def test_without_any_address_there_is_nobody_to_ask() -> None:
    """A pod without an IP yet."""
    with pytest.raises(ValueError, match="no IP address"):
        probe_target.http_target(core_v1.HTTPGetAction(port=80), CONTAINER, "", "x")


@given(st.text())
def test_a_path_never_breaks_the_request_line(path: str) -> None:
    """Absolute, printable ASCII, no blanks."""
    found = probe_target.request_path(path.encode("utf-8", "replace").decode())
    assert found.startswith("/")
    assert all(0x20 < ord(character) < 0x7F for character in found)


def test_redirects_stay_on_their_host() -> None:
    """Relative and absolute ones are followed, also to TLS; one to another host or scheme is not."""
    origin = target(path="/a/b", httpHeaders=[{"name": "X-One", "value": "1"}])
    following = probe_target.redirect_target(origin, "c?x=1")
    assert following is not None
    assert following.url == "http://10.0.0.7:8080/a/c?x=1"
    assert following.headers.startswith("Host: 10.0.0.7:8080\r\n")
    assert "X-One: 1" in following.headers
    secure = probe_target.redirect_target(origin, "https://10.0.0.7")
    assert secure is not None
    assert secure.url == "https://10.0.0.7:443/"
    plain = probe_target.redirect_target(origin, "http://10.0.0.7/z")
    assert plain is not None
    assert plain.port == 80
    assert probe_target.redirect_target(origin, "http://elsewhere.example/") is None
    assert probe_target.redirect_target(origin, "ftp://10.0.0.7/") is None


def test_a_relative_redirect_keeps_the_name_that_the_server_was_given() -> None:
    origin = target(path="/health", httpHeaders=[{"name": "Host", "value": "app.example"}])
    slash = probe_target.redirect_target(origin, "/health/")
    assert slash is not None
    assert slash.headers.startswith("Host: app.example\r\n")
    absolute = probe_target.redirect_target(origin, "http://10.0.0.7:8080/health/")
    assert absolute is not None
    assert absolute.headers.startswith("Host: 10.0.0.7:8080\r\n")


def test_health_messages() -> None:
    """As protobuf encodes them."""
    assert probe_target.health_request("") == b""
    assert probe_target.health_request("db") == b"\x0a\x02db"
    assert probe_target.health_request("x" * 300) == b"\x0a\xac\x02" + b"x" * 300
    assert probe_target.health_status(b"") == "UNKNOWN"
    assert probe_target.health_status(b"\x08\x01") == "SERVING"
    assert probe_target.health_status(b"\x08\x02") == "NOT_SERVING"
    assert probe_target.health_status(b"\x08\x09") == "9"
