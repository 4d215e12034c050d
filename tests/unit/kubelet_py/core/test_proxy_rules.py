"""The environment's proxies are those that Go programs would take."""

import pytest

from kubelet_py.core.proxy_rules import proxy_from_environment, proxy_problem
from kubelet_py.errors import ConfigError

PROXY = "http://proxy.example:3128"
SERVER = "https://api.cluster.example:6443"


def proxy_of(server: str, no_proxy: str = "", **environment: str) -> str | None:
    return proxy_from_environment(server, environment or {"HTTPS_PROXY": PROXY, "NO_PROXY": no_proxy})


def test_the_servers_kind_says_which_variable_counts() -> None:
    both = {"HTTPS_PROXY": "http://s:1", "HTTP_PROXY": "http://p:2"}
    assert proxy_of(SERVER, **both) == "http://s:1"
    assert proxy_of("http://api.cluster.example", **both) == "http://p:2"
    assert proxy_of(SERVER, HTTP_PROXY="http://p:2") is None
    assert proxy_from_environment(SERVER, {}) is None


def test_lower_case_wins_and_empty_is_unset() -> None:
    assert proxy_of(SERVER, https_proxy="http://a:1", HTTPS_PROXY="http://b:2") == "http://a:1"
    assert proxy_of(SERVER, https_proxy="", HTTPS_PROXY="http://b:2") == "http://b:2"
    both = {"HTTPS_PROXY": PROXY, "no_proxy": "cluster.example", "NO_PROXY": "x"}
    assert proxy_from_environment(SERVER, both) is None


def test_a_proxy_without_its_kind_is_an_http_one() -> None:
    assert proxy_of(SERVER, HTTPS_PROXY="proxy.example:3128") == PROXY


@pytest.mark.parametrize("server", ["https://localhost:6443", "https://127.3.2.1", "https://[::1]:6443"])
def test_this_machine_is_reached_without_a_proxy(server: str) -> None:
    assert proxy_of(server) is None


@pytest.mark.parametrize(
    ("server", "no_proxy"),
    [
        (SERVER, "*"),
        (SERVER, "other,*"),
        (SERVER, "cluster.example"),
        (SERVER, " Example , other"),
        (SERVER, ".example"),
        (SERVER, "*.cluster.example"),
        (SERVER, "api.cluster.example"),
        (SERVER, "api.cluster.example:6443"),
        (SERVER, ".cluster.example:6443"),
        ("https://api.cluster.example", "api.cluster.example:443"),
        ("http://10.1.2.3", "10.1.2.3:80"),
        ("https://10.1.2.3:6443", "10.1.2.3"),
        ("https://10.1.2.3:6443", "10.1.2.3:6443"),
        ("https://10.1.2.3:6443", "10.9.9.9/8"),
        ("https://[fd00::1]:6443", "fd00::1"),
        ("https://[fd00::1]:6443", "[fd00::1]:6443"),
        ("https://[fd00::1]:6443", "fd00::/16"),
        ("https://[::ffff:10.1.2.3]:6443", "10.0.0.0/8"),
    ],
)
def test_servers_that_need_no_proxy(server: str, no_proxy: str) -> None:
    assert proxy_from_environment(server, {"HTTP_PROXY": PROXY, "HTTPS_PROXY": PROXY, "NO_PROXY": no_proxy}) is None


@pytest.mark.parametrize(
    ("server", "no_proxy"),
    [
        (SERVER, ""),
        (SERVER, ","),
        (SERVER, ":6443"),
        (SERVER, "api"),
        (SERVER, "ample"),
        (SERVER, "*example"),
        (SERVER, ".api.cluster.example"),
        (SERVER, "*.api.cluster.example"),
        (SERVER, "api.cluster.example:443"),
        (SERVER, "10.0.0.0/8"),
        (SERVER, "10.1.2.3"),
        ("https://10.1.2.3:6443", "10.1.2.4"),
        ("https://10.1.2.3:6443", "10.1.2.3:443"),
        ("https://10.1.2.3:6443", "10.2.0.0/16"),
        ("https://10.1.2.3:6443", "fd00::/16"),
        ("https://10.1.2.3:6443", "10.1.2.3/99"),
        ("https://10.1.2.3:6443", "3"),
        ("https://[fd00::1]:6443", "[fd00::1]"),
    ],
)
def test_servers_that_need_one(server: str, no_proxy: str) -> None:
    assert proxy_of(server, no_proxy) == PROXY


@pytest.mark.parametrize(
    ("proxy", "problem"),
    [
        ("http://proxy:3128", None),
        ("https://user:secret@proxy", None),
        ("socks5://u:secret@proxy:1080", "a proxy of the kind socks5 is not supported"),
        ("proxy:3128", "a proxy of the kind proxy is not supported"),
        ("//proxy", "a proxy without its kind is not supported"),
        ("http://", "not the address of a proxy"),
        ("http://proxy:secret", "not the address of a proxy"),
        ("http://proxy:0", "not the address of a proxy"),
    ],
)
def test_proxies_that_can_be_used(proxy: str, problem: str | None) -> None:
    found = proxy_problem(proxy)
    assert (found or "").startswith(problem or "")
    assert (found is None) == (problem is None)
    assert "secret" not in (found or "")


def test_a_proxy_that_cannot_be_used_is_named_where_it_would_be_used() -> None:
    with pytest.raises(ConfigError, match="HTTPS_PROXY in the environment: a proxy of the kind socks5"):
        proxy_of(SERVER, https_proxy="socks5://proxy:1080")
    assert proxy_of(SERVER, HTTPS_PROXY="socks5://proxy:1080", NO_PROXY="*") is None
