"""A Kubernetes API server in memory, over real HTTP: objects, versions, selectors, watches, patches, preconditions.

Knows no schema, admission, or authorization. Faults are methods: `stop` and `start` (same port), `fail_next`,
`forget_history` (410 for old watches), `end_watches`. `requests` tells what was asked. The suite in
tests/contract/api_server holds it to what kube-apiserver does.
"""

import asyncio
import json
import socket
import uuid
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any, NamedTuple, Self

from aiohttp import web

from tests.fakes.strategic_merge import apply_merge, apply_strategic

Json = dict[str, Any]

_GRACEFUL = {"pods"}
_WITH_STATUS = {"pods", "nodes"}
_KINDS = {
    "pods": "Pod",
    "nodes": "Node",
    "events": "Event",
    "configmaps": "ConfigMap",
    "secrets": "Secret",
    "services": "Service",
    "serviceaccounts": "ServiceAccount",
    "leases": "Lease",
    "namespaces": "Namespace",
}


class Target(NamedTuple):
    """What a path names."""

    prefix: str
    plural: str
    namespace: str = ""
    name: str = ""
    subresource: str = ""


class Refusal(Exception):
    """Becomes a Status answer."""

    def __init__(self, code: int, reason: str, message: str) -> None:
        super().__init__(message)
        self.code = code
        self.reason = reason


class Request(NamedTuple):
    """One request that arrived."""

    method: str
    path: str
    query: dict[str, str]
    body: Any
    headers: dict[str, str]


@dataclass(eq=False)
class _Watch:
    target: Target
    matches: Callable[[Json], bool]
    queue: "asyncio.Queue[Json | None]" = field(default_factory=asyncio.Queue)


class FakeApiServer:
    """Start with `async with FakeApiServer.running() as server`."""

    def __init__(self) -> None:
        self.requests: list[Request] = []
        self.objects: dict[tuple[str, str, str], Json] = {}
        self._version = 100
        self._history: list[tuple[int, str, Json, str]] = []
        self._oldest = 0
        self._watches: set[_Watch] = set()
        self._failures: list[tuple[int, str, dict[str, str]]] = []
        self._runner: web.AppRunner | None = None
        # Bound for as long as this lives, so that nobody gets the port while the server is away; it listens to nothing.
        self._reserved = socket.socket()
        self._reserved.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        self._reserved.bind(("127.0.0.1", 0))
        self._port: int = self._reserved.getsockname()[1]
        self.delay_seconds = 0.0
        self.most_in_flight = 0
        """So many requests were delayed at once."""
        self._in_flight = 0

    @classmethod
    @asynccontextmanager
    async def running(cls) -> AsyncIterator[Self]:
        """A server on a port of its own."""
        server = cls()
        await server.start()
        try:
            yield server
        finally:
            await server.stop()
            server._reserved.close()

    @property
    def url(self) -> str:
        """Where it listens."""
        return f"http://127.0.0.1:{self._port}"

    async def start(self) -> None:
        """Listen, on the same port as before."""
        application = web.Application()
        application.router.add_route("*", "/{path:.*}", self._handle)
        self._runner = web.AppRunner(application, shutdown_timeout=0.1)
        await self._runner.setup()
        await web.TCPSite(self._runner, "127.0.0.1", self._port, reuse_port=True).start()

    async def stop(self) -> None:
        """Vanish; the objects stay."""
        self.end_watches()
        if self._runner is not None:
            await self._runner.cleanup()
            self._runner = None

    def fail_next(self, code: int, *, count: int = 1, retry_after: str = "", reason: str = "InternalError") -> None:
        """Refuse the next requests."""
        headers = {"Retry-After": retry_after} if retry_after else {}
        self._failures += [(code, reason, headers)] * count

    def forget_history(self) -> None:
        """Old versions can no longer be watched from."""
        self._history.clear()
        self._oldest = self._version

    def end_watches(self) -> None:
        """End every stream as a time-out does."""
        for watch in self._watches:
            watch.queue.put_nowait(None)

    def bookmark(self) -> None:
        """Tell every watch the current version."""
        for watch in self._watches:
            marker = {"kind": _KINDS[watch.target.plural], "metadata": {"resourceVersion": str(self._version)}}
            if watch.target.plural == "pods":
                marker |= {"spec": {"containers": None}, "status": {}}  # as the real server has it
            watch.queue.put_nowait({"type": "BOOKMARK", "object": marker})

    def put(self, plural: str, body: Json, *, prefix: str = "/api/v1") -> Json:
        """Store an object as some other client would."""
        metadata = body.setdefault("metadata", {})
        namespace = metadata.get("namespace", "")
        key = (f"{prefix}/{plural}", namespace, metadata["name"])
        kind = "MODIFIED" if key in self.objects else "ADDED"
        metadata.setdefault("uid", str(uuid.uuid4()))
        return self._store(key, body, kind)

    def remove(self, plural: str, name: str, namespace: str = "", *, prefix: str = "/api/v1") -> None:
        """Delete an object as some other client would."""
        self._delete_now((f"{prefix}/{plural}", namespace, name))

    def find(self, plural: str, name: str, namespace: str = "", *, prefix: str = "/api/v1") -> Json | None:
        """An object as it is now."""
        return self.objects.get((f"{prefix}/{plural}", namespace, name))

    def asked(self, method: str, plural: str) -> list[Request]:
        """The requests of one method for one kind of object."""
        return [r for r in self.requests if r.method == method and f"/{plural}" in r.path and "watch" not in r.query]

    async def _handle(self, request: web.Request) -> web.StreamResponse:
        text = await request.text()
        body = json.loads(text) if text else None
        query = dict(request.query)
        self.requests.append(Request(request.method, request.path, query, body, dict(request.headers)))
        if self.delay_seconds:
            self._in_flight += 1
            self.most_in_flight = max(self.most_in_flight, self._in_flight)
            await asyncio.sleep(self.delay_seconds)
            self._in_flight -= 1
        try:
            if self._failures:
                code, reason, headers = self._failures.pop(0)
                return _status(code, reason, "made to fail", headers)
            target = _parse(request.path)
            if request.method == "GET" and query.get("watch") == "true":
                return await self._watch(request, target, query)
            answer = self._answer(request.method, target, query, body, request.content_type)
            return web.json_response(answer, status=201 if request.method == "POST" else 200)
        except Refusal as refusal:
            return _status(refusal.code, refusal.reason, str(refusal))

    def _answer(self, method: str, target: Target, query: dict[str, str], body: Any, media_type: str) -> Json:
        if method == "GET":
            return self._get(target) if target.name else self._list(target, query)
        if method == "POST":
            return self._post_subresource(target, body) if target.subresource else self._create(target, body)
        if method == "PUT":
            return self._update(target, body)
        if method == "PATCH":
            return self._patch(target, body, media_type)
        return self._delete(target, body or {})

    def _existing(self, target: Target) -> Json:
        found = self.objects.get(_key(target))
        if found is None:
            raise Refusal(404, "NotFound", f'{target.plural} "{target.name}" not found')
        return found

    def _get(self, target: Target) -> Json:
        return self._existing(target)

    def _list(self, target: Target, query: dict[str, str]) -> Json:
        matches = _selector(query)
        found = [o for o in self._in_scope(target) if matches(o)]
        metadata = {"resourceVersion": str(self._version)}
        start, limit = int(query.get("continue", "0")), int(query.get("limit", "0"))
        if limit and start + limit < len(found):
            metadata["continue"] = str(start + limit)
        items = found[start : start + limit] if limit else found
        return {"kind": f"{_KINDS.get(target.plural)}List", "apiVersion": "v1", "metadata": metadata, "items": items}

    def _in_scope(self, target: Target) -> list[Json]:
        path = f"{target.prefix}/{target.plural}"
        scoped = [(k, o) for k, o in self.objects.items() if k[0] == path and target.namespace in ("", k[1])]
        return [o for _, o in sorted(scoped, key=lambda pair: pair[0])]

    def _create(self, target: Target, body: Json) -> Json:
        metadata = body.setdefault("metadata", {})
        if not metadata.get("name") and metadata.get("generateName"):
            metadata["name"] = metadata["generateName"] + uuid.uuid4().hex[:5]
        if target.namespace:
            metadata["namespace"] = target.namespace
        key = (f"{target.prefix}/{target.plural}", target.namespace, metadata["name"])
        if key in self.objects:
            raise Refusal(409, "AlreadyExists", f'{target.plural} "{metadata["name"]}" already exists')
        if metadata.get("resourceVersion"):
            raise Refusal(500, "InternalError", "resourceVersion should not be set on objects to be created")
        metadata["uid"] = str(uuid.uuid4())
        metadata["creationTimestamp"] = _time(datetime.now(UTC))
        if target.plural == "pods":
            body["status"] = {"phase": "Pending", "qosClass": "BestEffort"}
        return self._store(key, body, "ADDED")

    def _post_subresource(self, target: Target, body: Json) -> Json:
        if target.subresource == "token":
            known = body.get("metadata", {}).get("uid")
            if known and known != self._existing(target)["metadata"]["uid"]:
                raise _conflict(target, "the UID in the token request is not that of the service account")
            expires = datetime.now(UTC) + timedelta(seconds=body["spec"].get("expirationSeconds", 3600))
            return body | {"status": {"token": f"token-of-{target.name}", "expirationTimestamp": _time(expires)}}
        raise Refusal(404, "NotFound", f"no subresource {target.subresource}")

    def _update(self, target: Target, body: Json) -> Json:
        current = self._existing(target)
        wanted = body.get("metadata", {}).get("resourceVersion")
        if wanted and wanted != current["metadata"]["resourceVersion"]:
            raise _conflict(
                target, "the object has been modified; please apply your changes to the latest version and try again"
            )
        return self._store(_key(target), _kept(target, current, body), "MODIFIED")

    def _patch(self, target: Target, body: Json, media_type: str) -> Json:
        current = self._existing(target)
        uid = body.get("metadata", {}).get("uid")
        if uid and uid != current["metadata"]["uid"]:
            raise Refusal(422, "Invalid", f'metadata.uid: Invalid value: "{uid}": field is immutable')
        apply = apply_strategic if "strategic" in media_type else apply_merge
        changed = _kept(target, current, apply(current, body))
        if changed == current:
            return current
        return self._store(_key(target), changed, "MODIFIED")

    def _delete(self, target: Target, options: Json) -> Json:
        current = self._existing(target)
        uid = (options.get("preconditions") or {}).get("uid")
        if uid and uid != current["metadata"]["uid"]:
            raise _conflict(
                target,
                f"Precondition failed: UID in precondition: {uid}, UID in object meta: {current['metadata']['uid']}",
            )
        assigned = bool(current.get("spec", {}).get("nodeName"))
        grace = options.get("gracePeriodSeconds", current.get("spec", {}).get("terminationGracePeriodSeconds", 30))
        if target.plural in _GRACEFUL and assigned and grace > 0:
            metadata = current["metadata"] | {
                "deletionTimestamp": _time(datetime.now(UTC) + timedelta(seconds=grace)),
                "deletionGracePeriodSeconds": grace,
            }
            return self._store(_key(target), current | {"metadata": metadata}, "MODIFIED")
        return self._delete_now(_key(target))

    def _delete_now(self, key: tuple[str, str, str]) -> Json:
        gone = self.objects.pop(key)
        self._version += 1
        last = gone | {"metadata": gone["metadata"] | {"resourceVersion": str(self._version)}}
        self._publish(key, "DELETED", last)
        return gone

    def _store(self, key: tuple[str, str, str], body: Json, kind: str) -> Json:
        self._version += 1
        stored: Json = json.loads(json.dumps(body))
        stored["metadata"]["resourceVersion"] = str(self._version)
        self.objects[key] = stored
        self._publish(key, kind, stored)
        return stored

    def _publish(self, key: tuple[str, str, str], kind: str, body: Json) -> None:
        self._history.append((self._version, kind, body, key[0]))
        for watch in self._watches:
            path = f"{watch.target.prefix}/{watch.target.plural}"
            in_scope = path == key[0] and watch.target.namespace in ("", key[1])
            if in_scope and watch.matches(body):
                watch.queue.put_nowait({"type": kind, "object": body})

    async def _watch(self, request: web.Request, target: Target, query: dict[str, str]) -> web.StreamResponse:
        since, matches = int(query.get("resourceVersion") or 0), _selector(query)
        response = web.StreamResponse(headers={"Content-Type": "application/json"})
        await response.prepare(request)
        watch = _Watch(target, matches)
        if since < self._oldest:
            status = _failure(410, "Expired", f"too old resource version: {since} ({self._oldest})")
            await response.write(_line({"type": "ERROR", "object": status}))
            return response
        path = f"{target.prefix}/{target.plural}"
        for version, kind, body, where in self._history:
            in_scope = where == path and target.namespace in ("", body["metadata"].get("namespace", ""))
            if version > since and in_scope and matches(body):
                watch.queue.put_nowait({"type": kind, "object": body})
        self._watches.add(watch)
        try:
            async with asyncio.timeout(float(query.get("timeoutSeconds", "3600"))):
                while (event := await watch.queue.get()) is not None:
                    await response.write(_line(event))
        except TimeoutError:
            pass
        except ConnectionResetError:
            return response
        finally:
            self._watches.discard(watch)
        return response


def _parse(path: str) -> Target:
    parts = path.strip("/").split("/")
    size = 2 if parts[0] == "api" else 3
    prefix, rest = "/" + "/".join(parts[:size]), parts[size:]
    namespace = ""
    if len(rest) > 2 and rest[0] == "namespaces":
        namespace, rest = rest[1], rest[2:]
    if not rest or parts[0] not in ("api", "apis"):
        raise Refusal(404, "NotFound", "the server could not find the requested resource")
    return Target(prefix, rest[0], namespace, *rest[1:3])


def _key(target: Target) -> tuple[str, str, str]:
    return f"{target.prefix}/{target.plural}", target.namespace, target.name


def _kept(target: Target, current: Json, changed: Json) -> Json:
    """The status subresource changes nothing but the status, and a node's annotations; the object all else."""
    fixed = {name: current["metadata"][name] for name in ("name", "namespace", "uid") if name in current["metadata"]}
    if target.subresource == "status":
        kept = current | {"status": changed.get("status", {})}
        if target.plural == "nodes":
            annotations = changed.get("metadata", {}).get("annotations", {})
            kept["metadata"] = current["metadata"] | {"annotations": annotations}
        return kept
    result = changed | {"metadata": changed.get("metadata", {}) | fixed}
    if target.plural in _WITH_STATUS:
        result.pop("status", None)
        if "status" in current:
            result["status"] = current["status"]
    return result


def _selector(query: dict[str, str]) -> Callable[[Json], bool]:
    terms = [term for term in query.get("fieldSelector", "").split(",") if term]

    def matches(body: Json) -> bool:
        for term in terms:
            path, _, wanted = term.replace("==", "=").replace("!=", "!", 1).partition("!" if "!=" in term else "=")
            value: Any = body
            for part in path.split("."):
                value = value.get(part, "") if isinstance(value, dict) else ""
            if (value != wanted) != ("!=" in term):
                return False
        return True

    return matches


def _conflict(target: Target, why: str) -> Refusal:
    return Refusal(409, "Conflict", f'Operation cannot be fulfilled on {target.plural} "{target.name}": {why}')


def _failure(code: int, reason: str, message: str) -> Json:
    return {
        "kind": "Status",
        "apiVersion": "v1",
        "status": "Failure",
        "reason": reason,
        "message": message,
        "code": code,
    }


def _status(code: int, reason: str, message: str, headers: dict[str, str] | None = None) -> web.Response:
    return web.json_response(_failure(code, reason, message), status=code, headers=headers)


def _line(event: Json) -> bytes:
    return json.dumps(event).encode() + b"\n"


def _time(moment: datetime) -> str:
    return moment.strftime("%Y-%m-%dT%H:%M:%SZ")
