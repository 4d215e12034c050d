"""Which HTTP proxy stands before a server: HTTP_PROXY, HTTPS_PROXY and NO_PROXY, read as Go programs read them.

Pure: the environment is an argument. A proxy may carry a password, so no message repeats one.

Upstream counterpart: golang.org/x/net/http/httpproxy. Deliberate differences: a proxy that cannot be used is refused
instead of passed over, and SOCKS proxies are among those.
"""

import ipaddress
import re
from collections.abc import Iterator, Mapping
from typing import Final, NamedTuple
from urllib.parse import urlsplit

from kubelet_py.errors import ConfigError

_DEFAULT_PORTS: Final = {"http": "80", "https": "443"}
_CIDR: Final = re.compile(r"[^/]+/\d+")
_WITH_PORT: Final = re.compile(r"(?:\[([^\]]*)\]|([^:\[\]]*)):([^:]*)")

_Ip = ipaddress.IPv4Address | ipaddress.IPv6Address


class _Target(NamedTuple):
    """The server that is asked for. `ip` when its host is one."""

    host: str
    port: str
    ip: _Ip | None


def proxy_from_environment(server: str, environment: Mapping[str, str]) -> str | None:
    """The proxy for a server's URL, None for none; raises ConfigError when it is no HTTP proxy.

    Names in lower case win over those in upper case. This machine is never asked for through a proxy.
    """
    parts = urlsplit(server)
    name = f"{parts.scheme}_proxy"
    proxy = _first(environment, name)
    host = parts.hostname or ""
    target = _Target(host, str(parts.port or _DEFAULT_PORTS.get(parts.scheme, "")), _parse_ip(host))
    if not proxy or _is_local(target) or _is_exempt(target, _first(environment, "no_proxy")):
        return None
    if "://" not in proxy:
        proxy = f"http://{proxy}"
    if problem := proxy_problem(proxy):
        raise ConfigError(f"{name.upper()} in the environment: {problem}")
    return proxy


def proxy_problem(proxy: str) -> str | None:
    """What is wrong with a proxy's URL; None for one that can be used."""
    try:
        parts = urlsplit(proxy)
        usable = bool(parts.hostname) and parts.port != 0
    except ValueError:
        return "not the address of a proxy; right would be http://HOST:PORT"
    if parts.scheme not in _DEFAULT_PORTS:
        kind = f"a proxy of the kind {parts.scheme}" if parts.scheme else "a proxy without its kind"
        return f"{kind} is not supported; right would be http://HOST:PORT or https://HOST:PORT"
    return None if usable else "not the address of a proxy; right would be http://HOST:PORT"


def _first(environment: Mapping[str, str], name: str) -> str:
    return environment.get(name) or environment.get(name.upper()) or ""


def _is_local(target: _Target) -> bool:
    return target.host == "localhost" or (target.ip is not None and target.ip.is_loopback)


def _is_exempt(target: _Target, no_proxy: str) -> bool:
    """Whether one of the entries means the server: *, an IP, a CIDR, a name with what is below it; some with a port."""
    return any(entry == "*" or _means(entry, target) for entry in _entries(no_proxy))


def _entries(no_proxy: str) -> Iterator[str]:
    for entry in no_proxy.split(","):
        if stripped := entry.strip().lower():
            yield stripped


def _means(entry: str, target: _Target) -> bool:
    if _CIDR.fullmatch(entry):
        try:
            return target.ip is not None and target.ip in ipaddress.ip_network(entry, strict=False)
        except ValueError:
            return False
    host, port = _split(entry)
    if port not in ("", target.port):
        return False
    if (ip := _parse_ip(host)) is not None or target.ip is not None:
        return ip == target.ip
    below = host[1:] if host.startswith("*.") else host
    if below.startswith("."):
        return target.host.endswith(below)
    return bool(below) and f".{target.host}".endswith(f".{below}")


def _split(entry: str) -> tuple[str, str]:
    match = _WITH_PORT.fullmatch(entry)
    if match is None:
        return entry, ""
    return match[1] or match[2] or "", match[3]


def _parse_ip(text: str) -> _Ip | None:
    """The address; one of IPv4 inside IPv6 is the IPv4 one."""
    try:
        ip = ipaddress.ip_address(text)
    except ValueError:
        return None
    return (ip.ipv4_mapped or ip) if isinstance(ip, ipaddress.IPv6Address) else ip
