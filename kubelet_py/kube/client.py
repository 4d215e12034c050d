"""The API client: typed verbs over one aiohttp session, with a rate limit, deadlines and our own errors.

One client per purpose (main, events, heartbeat): each has its own limit, deadline and connections, so that a burst of
events never delays a lease. All of one agent share a `Connection`.

Must not know: what the objects mean. Upstream counterpart: client-go rest.Client. Differences: HTTP/1.1 and JSON
instead of HTTP/2 and protobuf (docs/adr/0001); a dead peer is found by TCP keep-alive instead of HTTP/2 pings.
"""

import asyncio
import socket
from collections.abc import AsyncIterator, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass
from enum import StrEnum
from types import TracebackType
from typing import Any, Final, Generic, NamedTuple, Self, TypeVar

import aiohttp
import msgspec

from kubelet_py.api import codec, meta_v1
from kubelet_py.errors import (
    ApiAlreadyExists,
    ApiConflict,
    ApiError,
    ApiForbidden,
    ApiGone,
    ApiNotFound,
    ApiUnavailable,
)
from kubelet_py.kube.connection import Connection
from kubelet_py.kube.rate_limit import TokenBucket
from kubelet_py.kube.resources import Resource
from kubelet_py.kube.tls_buffers import shrink_tls_buffers

T = TypeVar("T")
A = TypeVar("A")

DEFAULT_TIMEOUT_SECONDS: Final = 30.0
WATCH_CONNECT_SECONDS: Final = 15.0
LONGEST_RETRY_AFTER_SECONDS: Final = 10.0
MAX_TRIES: Final = 4
KEEP_IDLE_SECONDS: Final = 30.0
CLOSING_SECONDS: Final = 0.05
LARGEST_EVENT_BYTES: Final = 32 << 20


class PatchKind(StrEnum):
    """How the server reads a patch; the values are the media types."""

    STRATEGIC = "application/strategic-merge-patch+json"
    MERGE = "application/merge-patch+json"
    JSON = "application/json-patch+json"


class EventKind(StrEnum):
    """What a watch event says."""

    ADDED = "ADDED"
    MODIFIED = "MODIFIED"
    DELETED = "DELETED"
    BOOKMARK = "BOOKMARK"


class WatchEvent(NamedTuple, Generic[T]):
    """One event of a watch; a bookmark's object has nothing but its resource version."""

    kind: EventKind
    object: T


class ObjectList(msgspec.Struct, Generic[T]):
    """A list of objects, whatever they are."""

    metadata: meta_v1.ListMeta
    items: list[T] | None = None


@dataclass(frozen=True, slots=True)
class ClientSettings:
    """What differs between the clients of one agent."""

    user_agent: str
    qps: float = 50.0
    burst: int = 100
    timeout_seconds: float = DEFAULT_TIMEOUT_SECONDS
    max_parallel: int = 16
    """Each request in flight is a connection, each connection costs memory; the rate limit is what slows."""


@dataclass(frozen=True, slots=True)
class Query:
    """What a list or a watch asks for."""

    namespace: str = ""
    field_selector: str = ""
    label_selector: str = ""

    def parameters(self) -> dict[str, str]:
        """As query parameters."""
        parameters = {}
        if self.field_selector:
            parameters["fieldSelector"] = self.field_selector
        if self.label_selector:
            parameters["labelSelector"] = self.label_selector
        return parameters


EVERYTHING: Final = Query()


class _Call(NamedTuple):
    method: str
    path: str
    parameters: Mapping[str, str] = {}
    body: bytes | None = None
    media_type: str = "application/json"


class _RawEvent(msgspec.Struct):
    type: str
    object: msgspec.Raw


class _Bookmark(msgspec.Struct):
    metadata: meta_v1.ObjectMeta


class ApiClient:
    """Use as an async context manager, or `close` it."""

    def __init__(self, connection: Connection, settings: ClientSettings) -> None:
        self._connection = connection
        self._settings = settings
        self._bucket = TokenBucket(settings.qps, settings.burst)
        self._parallel = asyncio.Semaphore(settings.max_parallel)
        self._session: aiohttp.ClientSession | None = None

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def close(self) -> None:
        """Close every connection; the next call opens new ones."""
        session, self._session = self._session, None
        if session is not None:
            await session.close()
            await asyncio.sleep(CLOSING_SECONDS)  # transports close in later turns of the loop, TLS ones in several

    @property
    def reachable(self) -> bool:
        """The server answered the last time somebody asked."""
        return self._connection.health.reachable

    async def rest(self, seconds: float) -> None:
        """Wait before the next try: so long, or until the server answers somebody again if it is away."""
        if self.reachable:
            await asyncio.sleep(seconds)
            return
        try:
            async with asyncio.timeout(seconds):
                await self._connection.health.back.wait()
        except TimeoutError:
            pass

    async def get(self, resource: Resource[T], name: str, namespace: str = "", *, cached: bool = False) -> T:
        """One object; `cached` allows an answer from the server's watch cache."""
        parameters = {"resourceVersion": "0"} if cached else {}
        return await self._ask(_Call("GET", resource.path(namespace, name), parameters), resource.kind)

    async def list(
        self,
        resource: Resource[T],
        query: Query = EVERYTHING,
        *,
        resource_version: str | None = None,
        limit: int = 0,
        continue_token: str = "",
    ) -> ObjectList[T]:
        """The objects that match; `resource_version="0"` allows any version that the server has at hand."""
        parameters = query.parameters()
        if continue_token:
            parameters["continue"] = continue_token
        elif resource_version is not None:
            parameters["resourceVersion"] = resource_version
        if limit:
            parameters["limit"] = str(limit)
        return await self._ask(_Call("GET", resource.path(query.namespace), parameters), ObjectList[resource.kind])  # type: ignore[name-defined] # a type made at run time

    async def create(self, resource: Resource[T], body: T, namespace: str = "") -> T:
        """Create an object."""
        return await self._ask(_Call("POST", resource.path(namespace), body=codec.encode(body)), resource.kind)

    async def update(
        self, resource: Resource[T], name: str, body: T, namespace: str = "", *, subresource: str = ""
    ) -> T:
        """Replace an object; its resourceVersion must be the current one."""
        call = _Call("PUT", resource.path(namespace, name, subresource), body=codec.encode(body))
        return await self._ask(call, resource.kind)

    async def patch(
        self,
        resource: Resource[T],
        name: str,
        body: Any,
        namespace: str = "",
        *,
        kind: PatchKind = PatchKind.STRATEGIC,
        subresource: str = "",
    ) -> T:
        """Change parts of an object; `body` is dicts and lists."""
        path = resource.path(namespace, name, subresource)
        return await self._ask(_Call("PATCH", path, body=codec.encode(body), media_type=kind.value), resource.kind)

    async def delete(
        self,
        resource: Resource[Any],
        name: str,
        namespace: str = "",
        *,
        grace_period_seconds: int | None = None,
        uid: str | None = None,
    ) -> None:
        """Delete an object, if given only when it (still) has this UID; ApiNotFound when it is gone already."""
        options = meta_v1.DeleteOptions(
            gracePeriodSeconds=grace_period_seconds, preconditions=meta_v1.Preconditions(uid=uid) if uid else None
        )
        await self._exchange(_Call("DELETE", resource.path(namespace, name), body=codec.encode(options)))

    async def create_subresource(
        self, resource: Resource[Any], name: str, subresource: str, body: A, namespace: str = ""
    ) -> A:
        """POST to a subresource that answers with what it was given (token, eviction, binding)."""
        call = _Call("POST", resource.path(namespace, name, subresource), body=codec.encode(body))
        return await self._ask(call, type(body))

    async def get_raw(self, path: str) -> bytes:
        """The bytes of any path, such as /readyz or /version."""
        return await self._exchange(_Call("GET", path))

    def watch(
        self,
        resource: Resource[T],
        query: Query = EVERYTHING,
        *,
        resource_version: str,
        timeout_seconds: float,
        bookmarks: bool = True,
    ) -> "AbstractAsyncContextManager[AsyncIterator[WatchEvent[T]]]":
        """Events after `resource_version` until the server closes the stream, within `timeout_seconds`."""
        parameters = query.parameters() | {
            "watch": "true",
            "resourceVersion": resource_version,
            "timeoutSeconds": str(max(1, int(timeout_seconds))),
            "allowWatchBookmarks": "true" if bookmarks else "false",
        }
        return self._watch(resource, _Call("GET", resource.path(query.namespace), parameters), timeout_seconds)

    @asynccontextmanager
    async def _watch(
        self, resource: Resource[T], call: _Call, timeout_seconds: float
    ) -> AsyncIterator[AsyncIterator[WatchEvent[T]]]:
        await self._wait_for_token()
        # The server ends the stream in time; a little later we do, should it have vanished.
        timeout = aiohttp.ClientTimeout(total=timeout_seconds + 30, sock_connect=WATCH_CONNECT_SECONDS)
        response = await self._send(call, timeout)
        try:
            if response.status != 200:
                raise _error_of(response, await _body_of(response))
            events = _events_of(resource.kind, response)
            try:
                yield events
            finally:
                await events.aclose()
        finally:
            response.close()

    async def _ask(self, call: _Call, answer: type[A]) -> A:
        data = await self._exchange(call)
        try:
            return codec.decode(answer, data)
        except codec.InvalidObject as error:
            raise ApiError(0, "InvalidAnswer", f"{call.method} {call.path}: answer cannot be read: {error}") from error

    async def _exchange(self, call: _Call) -> bytes:
        """Send, again where the server asks for it, and give the body of a good answer."""
        for attempt in range(1, MAX_TRIES + 1):
            await self._wait_for_token()
            try:
                return await self._exchange_once(call)
            except ApiUnavailable as error:
                pause = error.retry_after_seconds
                if pause is None or pause > LONGEST_RETRY_AFTER_SECONDS or attempt == MAX_TRIES:
                    raise
                await asyncio.sleep(pause)
        raise AssertionError("unreachable: the last try raises")

    async def _exchange_once(self, call: _Call) -> bytes:
        async with self._parallel:
            response = await self._send(call, aiohttp.ClientTimeout(total=self._settings.timeout_seconds))
            try:
                body = await _body_of(response)
            finally:
                response.release()
        if response.status >= 400:
            raise _error_of(response, body)
        return body

    async def _send(self, call: _Call, timeout: aiohttp.ClientTimeout) -> aiohttp.ClientResponse:
        headers = {"Accept": "application/json"}
        if call.body is not None:
            headers["Content-Type"] = call.media_type
        connection = self._connection
        if authorization := connection.authorization:
            headers["Authorization"] = authorization
        try:
            response = await self._open().request(
                call.method,
                connection.server + call.path,
                params=call.parameters,
                data=call.body,
                headers=headers,
                ssl=connection.tls,
                server_hostname=connection.tls_server_name,
                proxy=connection.proxy_url,
                timeout=timeout,
                allow_redirects=False,
            )
        except (aiohttp.ClientError, OSError, TimeoutError) as error:
            message = f"{call.method} {call.path}: {_describe(error)}"
            connection.health.failed(message)
            raise ApiUnavailable(0, "Unreachable", message) from error
        connection.health.answered()
        return response

    def _open(self) -> aiohttp.ClientSession:
        if self._session is None:
            shrink_tls_buffers()
            self._session = aiohttp.ClientSession(
                connector=aiohttp.TCPConnector(
                    limit=0, keepalive_timeout=KEEP_IDLE_SECONDS, socket_factory=_open_socket
                ),
                cookie_jar=aiohttp.DummyCookieJar(),
                headers={"User-Agent": self._settings.user_agent},
            )
        return self._session

    async def _wait_for_token(self) -> None:
        pause = self._bucket.reserve(asyncio.get_running_loop().time())
        if pause > 0:
            await asyncio.sleep(pause)


async def _body_of(response: aiohttp.ClientResponse) -> bytes:
    try:
        return await response.read()
    except (aiohttp.ClientError, OSError, TimeoutError) as error:
        message = f"{response.method} {response.url.path}: answer broke off: {_describe(error)}"
        raise ApiUnavailable(0, "Unreachable", message) from error


async def _events_of(kind: type[T], response: aiohttp.ClientResponse) -> Any:
    """Decode the stream: one JSON object a line, in chunks that end anywhere."""
    pending = bytearray()
    try:
        async for chunk in response.content.iter_any():
            start = len(pending)
            pending += chunk
            if (end := pending.rfind(b"\n", start)) < 0:
                if len(pending) > LARGEST_EVENT_BYTES:
                    raise ApiError(
                        0, "InvalidAnswer", f"{response.url.path}: a watch event of over {len(pending)} bytes"
                    )
                continue
            lines = bytes(pending[:end])
            del pending[: end + 1]
            for line in lines.split(b"\n"):
                if line:
                    yield _event_of(kind, line)
    except (aiohttp.ClientError, OSError, TimeoutError) as error:
        raise ApiUnavailable(0, "Unreachable", f"watch {response.url.path} broke off: {_describe(error)}") from error


def _event_of(kind: type[T], line: bytes) -> WatchEvent[T]:
    try:
        raw = codec.decode(_RawEvent, line)
        if raw.type == "ERROR":
            status = codec.decode(meta_v1.Status, bytes(raw.object))
            raise _error_for(status.code or 0, status, None)
        if raw.type == EventKind.BOOKMARK:
            # Of a bookmark only the version counts; the rest is an empty object with nulls where lists must be.
            bookmark: Any = codec.decode(_Bookmark, bytes(raw.object))
            return WatchEvent(EventKind.BOOKMARK, bookmark)
        return WatchEvent(EventKind(raw.type), codec.decode(kind, bytes(raw.object)))
    except ValueError as error:
        raise ApiError(0, "InvalidAnswer", f"watch event cannot be read: {error}") from error


def _error_of(response: aiohttp.ClientResponse, body: bytes) -> ApiError:
    try:
        status = codec.decode(meta_v1.Status, body)
    except codec.InvalidObject:  # a proxy or an early failure answers in text
        status = meta_v1.Status(message=body[:300].decode(errors="replace").strip() or response.reason)
    if not status.message:
        status.message = f"{response.method} {response.url.path}: {response.reason}"
    return _error_for(response.status, status, response.headers.get("Retry-After"))


def _error_for(code: int, status: meta_v1.Status, retry_after: str | None) -> ApiError:
    reason, message = status.reason or "", status.message or ""
    causes = (status.details.causes if status.details is not None else None) or []
    if any(cause.reason == "ResourceVersionTooLarge" for cause in causes):
        return ApiGone(code, reason, message)  # the server was set back: our version lies in its future
    if code == 429 or code >= 500:
        seconds = float(retry_after) if retry_after and retry_after.isdigit() else None
        if seconds is None and status.details is not None and status.details.retryAfterSeconds:
            seconds = float(status.details.retryAfterSeconds)
        return ApiUnavailable(code, reason, message, seconds)
    if code == 409:
        return (ApiAlreadyExists if reason == "AlreadyExists" else ApiConflict)(code, reason, message)
    by_code: dict[int, type[ApiError]] = {401: ApiForbidden, 403: ApiForbidden, 404: ApiNotFound, 410: ApiGone}
    return by_code.get(code, ApiError)(code, reason, message)


def _describe(error: BaseException) -> str:
    return str(error) or type(error).__name__


def _open_socket(address: Any) -> socket.socket:
    """A socket that notices within about 45 s that its peer is gone, as HTTP/2 pings do upstream."""
    family, kind, protocol, _, _ = address
    opened = socket.socket(family=family, type=kind, proto=protocol)
    opened.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for option, value in (("TCP_KEEPIDLE", 30), ("TCP_KEEPINTVL", 5), ("TCP_KEEPCNT", 3), ("TCP_USER_TIMEOUT", 45_000)):
        opened.setsockopt(socket.IPPROTO_TCP, getattr(socket, option), value)
    return opened
