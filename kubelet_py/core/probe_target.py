"""Whom a probe or a hook asks, and how the answer reads: ports, URLs, headers, redirects, gRPC health messages.

Must not know sockets. Upstream counterparts: pkg/probe/http/request.go, pkg/probe/http/http.go (redirects),
pkg/probe/util.go (ports), grpc.health.v1.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from urllib.parse import urljoin, urlsplit

from kubelet_py.api import core_v1
from kubelet_py.core.pod_resources import AnyContainer

KUBE_VERSION = "1.37"
PROBE_USER_AGENT = f"kube-probe/{KUBE_VERSION}"
HOOK_USER_AGENT = f"kube-lifecycle/{KUBE_VERSION}"
MAX_REDIRECTS = 10
MAX_OUTPUT_BYTES = 10 * 1024

_SERVING_STATUS = {0: "UNKNOWN", 1: "SERVING", 2: "NOT_SERVING", 3: "SERVICE_UNKNOWN"}
_OF_HTTP1 = frozenset(
    {"host", "connection", "keep-alive", "proxy-connection", "transfer-encoding", "upgrade", "te", "http2-settings"}
)
_PRINTABLE_ASCII = range(0x21, 0x7F)


@dataclass(frozen=True, slots=True)
class HttpTarget:
    """One GET. `headers` is the finished head of the request below its first line, without the empty line."""

    scheme: str
    host: str
    port: int
    path: str
    headers: str

    @property
    def url(self) -> str:
        """As messages name it."""
        return f"{self.scheme}://{join_host_port(self.host, self.port)}{self.path}"

    @property
    def request(self) -> bytes:
        """What goes over the wire."""
        return f"GET {self.path} HTTP/1.1\r\n{self.headers}\r\n\r\n".encode("utf-8", "surrogateescape")

    @property
    def http2_headers(self) -> list[tuple[bytes, bytes]]:
        """The same request in HTTP/2: names in lower case, the host as authority, nothing about the connection."""
        lines = [line.partition(":") for line in self.headers.split("\r\n")]
        named = [(name.lower(), value.strip()) for name, _, value in lines]
        authority = next(value for name, value in named if name == "host")
        pseudo = [(":method", "GET"), (":scheme", self.scheme), (":authority", authority), (":path", self.path)]
        fields = pseudo + [(name, value) for name, value in named if name not in _OF_HTTP1]
        return [(name.encode(), value.encode("utf-8", "surrogateescape")) for name, value in fields]


def resolve_port(port: int | str | None, container: AnyContainer) -> int:
    """A number, or the container's port of that name; ValueError when it is neither."""
    number = port
    if isinstance(port, str):
        named = next((p.containerPort for p in container.ports or () if p.name == port), None)
        if named is None and not port.isdecimal():
            raise ValueError(f"couldn't find port: {port!r} in container {container.name!r}")
        number = named if named is not None else int(port)
    if not isinstance(number, int) or not 0 < number < 65536:
        raise ValueError(f"invalid port number: {port}")
    return number


def join_host_port(host: str, port: int) -> str:
    """`host:port`, brackets around an IPv6 address."""
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def http_target(
    action: core_v1.HTTPGetAction, container: AnyContainer, pod_ip: str, user_agent: str, scheme: str | None = None
) -> HttpTarget:
    """The request that the action describes; ValueError when there is nobody to send it to."""
    host = action.host or pod_ip
    if not host:
        raise ValueError("the pod has no IP address yet, and the action names no host")
    port = resolve_port(action.port, container)
    scheme = (scheme or action.scheme or "HTTP").lower()
    path = request_path(action.path or "/")
    given = [(h.name, h.value or "") for h in action.httpHeaders or ()]
    return HttpTarget(scheme, host, port, path, _head(host, port, given, user_agent))


def request_path(path: str) -> str:
    """Absolute, without fragment, and with everything quoted that does not belong into a request line."""
    path = path.partition("#")[0]
    path = path if path.startswith("/") else f"/{path}"
    return "".join(chr(byte) if byte in _PRINTABLE_ASCII and byte != 0x22 else f"%{byte:02X}" for byte in path.encode())


def _head(host: str, port: int, given: Iterable[tuple[str, str]], user_agent: str) -> str:
    """Given headers win over ours; an empty User-Agent or Accept means to send none."""
    clean = [(name, " ".join(value.splitlines()).strip()) for name, value in given]
    lowered = {name.lower(): value for name, value in clean}
    lines = [f"Host: {lowered.get('host') or join_host_port(host, port)}"]
    if "user-agent" not in lowered:
        lines.append(f"User-Agent: {user_agent}")
    if "accept" not in lowered:
        lines.append("Accept: */*")
    for name, value in clean:
        if name.lower() not in ("host", "connection") and (value or name.lower() not in ("user-agent", "accept")):
            lines.append(f"{name}: {value}")
    lines.append("Connection: close")
    return "\r\n".join(lines)


def redirect_target(target: HttpTarget, location: str) -> HttpTarget | None:
    """Where a redirect leads, None when that is another host, which nobody asked to probe."""
    parts = urlsplit(urljoin(target.url, location))
    if parts.scheme not in ("http", "https") or (parts.hostname or "") != target.host.lower():
        return None
    port = parts.port or (443 if parts.scheme == "https" else 80)
    path = request_path(f"{parts.path or '/'}{'?' + parts.query if parts.query else ''}")
    head = target.headers
    if urlsplit(location).netloc:  # else it is the same server, under the name that it was given
        lines = [line for line in head.split("\r\n") if not line.lower().startswith("host:")]
        head = "\r\n".join([f"Host: {join_host_port(target.host, port)}", *lines])
    return HttpTarget(parts.scheme, target.host, port, path, head)


def health_request(service: str) -> bytes:
    """grpc.health.v1.HealthCheckRequest; the name of a service is far shorter than 16 KiB."""
    name = service.encode()
    if not name:
        return b""
    size = bytes([len(name)]) if len(name) < 128 else bytes([len(name) & 0x7F | 0x80, len(name) >> 7])
    return b"\x0a" + size + name


def health_status(response: bytes) -> str:
    """The serving status in a grpc.health.v1.HealthCheckResponse."""
    value = response[1] if len(response) >= 2 and response[0] == 0x08 else 0
    return _SERVING_STATUS.get(value, str(value))
