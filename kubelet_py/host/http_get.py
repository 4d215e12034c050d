"""One GET over a fresh connection, for probes and hooks.

Owns connecting and reading; must not know probes. No deadline of its own: the caller has one. Written for hundreds of
requests a second: a plain request costs a socket and a few reads, no connection pool, no parser objects. With TLS a
server may choose HTTP/2; DISABLE_HTTP2 in the environment offers it to nobody.

Upstream counterpart: pkg/probe/http/http.go and pkg/probe/tcp/tcp.go. Deliberate difference: no SO_LINGER, because
closing such a socket blocks the thread, and here that is the event loop.
"""

import asyncio
import errno
import os
import re
import socket
import ssl
import sys
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from functools import cache
from importlib import import_module

from kubelet_py.core.probe_target import (
    MAX_OUTPUT_BYTES,
    MAX_REDIRECTS,
    HttpTarget,
    join_host_port,
    redirect_target,
)

MAX_HEAD_BYTES = 64 * 1024
_READ_BYTES = 16 * 1024
_HEAD_END = re.compile(rb"\r?\n\r?\n")
_STATUS_LINE = re.compile(rb"HTTP/\d(?:\.\d)? (\d{3})")
_NO_BODY = (204, 304)
_HTTP1, _HTTP2 = "http/1.1", "h2"
_HTTP2_MODULE = "kubelet_py.host.http2_get"
_NOT_TLS = frozenset({"WRONG_VERSION_NUMBER", "PACKET_LENGTH_TOO_LONG", "RECORD_LAYER_FAILURE", "HTTP_REQUEST"})


class HttpError(Exception):
    """The request came to nothing; the text says why."""


class HttpNotTls(HttpError):
    """The other side speaks plain HTTP where TLS was expected."""


@dataclass(frozen=True, slots=True)
class HttpAnswer:
    """Status, where it redirects to ("" for nowhere), and the beginning of the body."""

    status: int
    location: str
    body: bytes


async def get(target: HttpTarget) -> HttpAnswer:
    """The answer after redirects within the same host; one to another host is given as it is. Raises HttpError."""
    for _ in range(MAX_REDIRECTS):
        answer = await _get_once(target)
        if answer.status not in (301, 302, 303, 307, 308) or not answer.location:
            return answer
        try:
            following = redirect_target(target, answer.location)
        except ValueError as error:
            raise HttpError(f"the redirect to {answer.location!r} is no URL: {error}") from error
        if following is None:
            return answer
        target = following
    raise HttpError(f"stopped after {MAX_REDIRECTS} redirects")


async def connect(host: str, port: int) -> socket.socket:
    """A connected socket that does not block; HttpError says why there is none."""
    loop = asyncio.get_running_loop()
    where = join_host_port(host, port)
    try:
        addresses = await _resolve(loop, host, port)
    except socket.gaierror as error:
        raise HttpError(f"dial tcp: lookup {host}: {error.strerror}") from error
    first: OSError | None = None
    for family, address in addresses:  # a name may have one of each family, and a server on only one of them
        try:
            return await _connect_to(loop, family, address)
        except OSError as error:
            first = first or error
    reason = describe_os_error(first) if first is not None else "no address"
    raise HttpError(f"dial tcp {where}: connect: {reason}") from first


async def _connect_to(loop: asyncio.AbstractEventLoop, family: int, address: tuple[str, int]) -> socket.socket:
    connection = socket.socket(family, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
    try:
        await _finish_connecting(loop, connection, address)
    except BaseException:
        connection.close()
        raise
    return connection


async def _finish_connecting(
    loop: asyncio.AbstractEventLoop, connection: socket.socket, address: tuple[str, int]
) -> None:
    """On the same machine the handshake is over when connect returns, although it says EINPROGRESS.

    To see that at once saves a turn of the loop, a good part of what a probe costs.
    """
    code = connection.connect_ex(address)
    if code not in (0, errno.EINPROGRESS):
        raise OSError(code, os.strerror(code))
    try:
        connection.getpeername()
    except OSError:
        try:
            await loop.sock_connect(connection, address)
        except OSError as error:
            if error.errno != errno.EISCONN:  # which says that it has come about meanwhile
                raise


def describe_os_error(error: OSError) -> str:
    """The system's own words, without those that Python puts before them."""
    code = error.errno
    return os.strerror(code).lower() if code is not None and code in errno.errorcode else str(error)


async def _resolve(loop: asyncio.AbstractEventLoop, host: str, port: int) -> list[tuple[int, tuple[str, int]]]:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        socket.inet_pton(family, host)
    except OSError:
        found = await loop.getaddrinfo(host, port, type=socket.SOCK_STREAM)
        return [(each[0], (str(each[4][0]), port)) for each in found]
    return [(family, (host, port))]


async def _get_once(target: HttpTarget) -> HttpAnswer:
    if target.scheme == "https":
        return await _get_tls(target)
    loop = asyncio.get_running_loop()
    connection = await connect(target.host, target.port)
    try:
        await loop.sock_sendall(connection, target.request)
        return await _read_answer(lambda: loop.sock_recv(connection, _READ_BYTES))
    except OSError as error:
        raise HttpError(f"read tcp {join_host_port(target.host, target.port)}: {describe_os_error(error)}") from error
    finally:
        connection.close()


async def _get_tls(target: HttpTarget) -> HttpAnswer:
    connection = await connect(target.host, target.port)
    try:
        reader, writer = await asyncio.open_connection(
            sock=connection, ssl=_unverified_context(), server_hostname=target.host
        )
    except ssl.SSLError as error:
        if error.reason in _NOT_TLS:
            raise HttpNotTls("http: server gave HTTP response to HTTPS client") from error
        raise HttpError(f"tls: {error.reason or error}") from error
    except OSError as error:
        raise HttpError(f"tls: {describe_os_error(error)}") from error
    except BaseException:
        connection.close()
        raise
    try:
        if writer.get_extra_info("ssl_object").selected_alpn_protocol() == _HTTP2:
            return await _exchange_http2(target, reader, writer)
        writer.write(target.request)
        return await _read_answer(lambda: reader.read(_READ_BYTES))
    except (ssl.SSLError, OSError) as error:
        raise HttpError(f"tls: {error}") from error
    finally:
        writer.transport.abort()


@cache
def _unverified_context() -> ssl.SSLContext:
    """Any certificate will do: a probe asks whether the container answers, not who it is."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    context.set_ciphers("DEFAULT:@SECLEVEL=0")
    context.set_alpn_protocols([_HTTP1] if os.environ.get("DISABLE_HTTP2") else [_HTTP2, _HTTP1])
    return context


async def _exchange_http2(target: HttpTarget, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> HttpAnswer:
    if _HTTP2_MODULE not in sys.modules:
        await asyncio.to_thread(import_module, _HTTP2_MODULE)  # tens of milliseconds, and few agents need it
    from kubelet_py.host import http2_get

    try:
        get = http2_get.Http2Get(target.http2_headers, MAX_OUTPUT_BYTES)
        await http2_get.exchange(get, writer.write, lambda: reader.read(_READ_BYTES))
    except http2_get.Http2Error as error:
        raise HttpError(str(error)) from error
    location = get.headers.get(b"location", b"").decode("utf-8", "replace")
    return HttpAnswer(get.status, location, bytes(get.body[:MAX_OUTPUT_BYTES]))


async def _read_answer(receive: Callable[[], Awaitable[bytes]]) -> HttpAnswer:
    data = bytearray()
    while True:
        end = _HEAD_END.search(data)
        if end is None:
            await _more(data, receive, "EOF")
            if len(data) > MAX_HEAD_BYTES:
                raise HttpError(f"the head of the answer is longer than {MAX_HEAD_BYTES} bytes")
            continue
        first, headers = _parse_head(bytes(data[: end.start()]))
        del data[: end.end()]
        if first >= 200:
            break
    await _read_body(first, headers, data, receive)
    return HttpAnswer(first, headers.get(b"location", b"").decode("utf-8", "replace"), bytes(data[:MAX_OUTPUT_BYTES]))


async def _more(data: bytearray, receive: Callable[[], Awaitable[bytes]], at_end: str) -> None:
    chunk = await receive()
    if not chunk:
        raise HttpError(at_end)
    data += chunk


def _parse_head(head: bytes) -> tuple[int, dict[bytes, bytes]]:
    lines = head.split(b"\n")
    first = _STATUS_LINE.match(lines[0])
    if first is None:
        raise HttpError(f"malformed HTTP response {lines[0][:80].decode('utf-8', 'replace').strip()!r}")
    fields = (line.partition(b":") for line in lines[1:])
    return int(first[1]), {name.strip().lower(): value.strip() for name, _, value in fields}


async def _read_body(
    status: int, headers: dict[bytes, bytes], data: bytearray, receive: Callable[[], Awaitable[bytes]]
) -> None:
    """Reads until the body is there or long enough: who hangs up early makes servers log errors."""
    if status in _NO_BODY:
        return
    is_chunked = headers.get(b"transfer-encoding", b"").lower() == b"chunked"
    length = headers.get(b"content-length", b"")
    wanted = min(int(length), MAX_OUTPUT_BYTES) if length.isdigit() and not is_chunked else None
    while len(data) < (MAX_OUTPUT_BYTES if wanted is None else wanted):
        if is_chunked and data.endswith(b"0\r\n\r\n"):
            return
        chunk = await receive()
        if not chunk and (wanted is not None or is_chunked):
            raise HttpError("unexpected EOF")
        if not chunk:
            return
        data += chunk
