"""The routes of the node's HTTP API and what they answer.

Owns paths, status codes and bodies. Who may ask was decided before (`guard`).

Upstream counterpart: pkg/kubelet/server/server.go. What this agent does not serve yet answers 501 and says so.
"""

import asyncio
import time
from collections.abc import Awaitable, Callable, Iterable, Mapping
from contextlib import aclosing
from pathlib import Path
from typing import Final

import structlog
from aiohttp import web

from kubelet_py.api import codec, core_v1
from kubelet_py.api.pod import all_containers_of
from kubelet_py.core.log_query import NoLog, QueryInvalid, QueryNotDecodable, choose_container_id, parse_log_query
from kubelet_py.errors import RuntimeCallError
from kubelet_py.host.shared_inotify import SharedInotify
from kubelet_py.server.container_calls import ContainerCalls
from kubelet_py.server.container_logs import open_log, stream_log
from kubelet_py.server.settings import ServerBackend
from kubelet_py.server.streams import Streams

ANY: Final = "*"
"""Every method: upstream's handlers of these paths do not look at it."""
_JSON: Final = "application/json"
_NOT_YET: Final = (
    (ANY, "/logs/{tail:.*}"),
    (ANY, "/debug/{tail:.*}"),
    ("GET", "/stats/{tail:.*}"),
    ("GET", "/metrics/cadvisor"),
    ("GET", "/metrics/resource"),
    ("GET", "/metrics/probes"),
)
_ABSENT_WITHOUT_DEBUGGING: Final = ("/configz", "/checkpoint")
_DEBUGGING: Final = ("/exec", "/attach", "/portForward", "/run", "/containerLogs", "/runningpods", "/logs", "/debug")
_log = structlog.get_logger()

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


class Routes:
    """The handlers over one backend."""

    def __init__(
        self,
        backend: ServerBackend,
        inotify: SharedInotify,
        *,
        speaks_websocket: bool = True,
        checkpoints: bool = True,
    ) -> None:
        self._backend = backend
        self._checkpoints = checkpoints
        self._inotify = inotify
        self._streams = Streams(backend, speaks_websocket=speaks_websocket)

    def install(self, app: web.Application, *, debugging: bool) -> None:
        """All routes; those that show or touch what runs inside pods only when debugging is on."""
        table: list[tuple[str, str, Handler]] = [
            *self.health_routes(),
            ("GET", "/pods", self.pods),
            ("GET", "/pods/", self.pods),
            ("GET", "/runningpods", self.running_pods),
            ("GET", "/runningpods/", self.running_pods),
            (ANY, "/configz", self.configz),
            ("GET", "/why/{namespace}/{pod}", self.why),
            (ANY, "/metrics", self.metrics),
            ("GET", "/containerLogs/{namespace}/{pod}/{container}", self.container_logs),
            *self._stream_routes(),
            *self._container_routes(),
            *((method, path, not_implemented) for method, path in _NOT_YET),
        ]
        for method, path, handler in table:
            if not debugging and path.startswith(_ABSENT_WITHOUT_DEBUGGING):
                continue
            hidden = not debugging and path.startswith(_DEBUGGING)
            app.router.add_route(method, path, debugging_disabled if hidden else handler)

    def _container_routes(self) -> Iterable[tuple[str, str, Handler]]:
        calls = ContainerCalls(self._backend)
        yield ("POST", "/run/{namespace}/{pod}/{container}", calls.run)
        yield ("POST", "/run/{namespace}/{pod}/{uid}/{container}", calls.run)
        if self._checkpoints:
            yield ("POST", "/checkpoint/{namespace}/{pod}/{container}", calls.checkpoint)

    def _stream_routes(self) -> Iterable[tuple[str, str, Handler]]:
        streams = self._streams
        for method in ("GET", "POST"):
            for path in ("/{namespace}/{pod}", "/{namespace}/{pod}/{uid}"):
                yield (method, f"/exec{path}/{{container}}", streams.exec)
                yield (method, f"/attach{path}/{{container}}", streams.attach)
                yield (method, f"/portForward{path}", streams.port_forward)

    def health_routes(self) -> list[tuple[str, str, Handler]]:
        """Load balancers ask with HEAD."""
        return [(ANY, path, self.healthz) for path in ("/healthz", "/healthz/", "/healthz/{check}")]

    def ping_routes(self) -> list[tuple[str, str, Handler]]:
        """Of the healthz server, as upstream that it answers: who restarts an agent by it must not do so for ever while
        the runtime is away."""
        return [(ANY, path, self.ping) for path in ("/healthz", "/healthz/", "/healthz/ping")]

    async def healthz(self, request: web.Request) -> web.Response:
        """All checks, or one of them."""
        problems = {"ping": "", "log": "", **self._backend.health_problems()}
        wanted = request.match_info.get("check")
        if wanted is not None:
            if wanted not in problems:
                raise web.HTTPNotFound(text="404 page not found\n")
            problems = {wanted: problems[wanted]}
        return _health(request, problems)

    async def ping(self, request: web.Request) -> web.Response:
        """Nothing but that somebody answers."""
        return _health(request, {"ping": ""})

    async def pods(self, _request: web.Request) -> web.Response:
        """What is assigned."""
        return _pod_list(self._backend.pods())

    async def running_pods(self, _request: web.Request) -> web.Response:
        """What the runtime has."""
        try:
            return _pod_list(await self._backend.running_pods())
        except RuntimeCallError as error:
            return web.Response(status=500, text=str(error))

    async def configz(self, _request: web.Request) -> web.Response:
        """The effective configuration."""
        return web.Response(body=codec.encode({"kubeletconfig": self._backend.configuration()}), content_type=_JSON)

    async def why(self, request: web.Request) -> web.Response:
        """The story of one pod: ours, the Go kubelet has no such thing."""
        namespace, name = request.match_info["namespace"], request.match_info["pod"]
        pod = self._backend.find_pod(namespace, name)
        if pod is None:
            return web.Response(status=404, text=f'pod "{name}" does not exist')
        return web.Response(text=self._backend.story(pod))

    async def metrics(self, _request: web.Request) -> web.Response:
        """Everything that was registered."""
        from prometheus_client import CONTENT_TYPE_LATEST, generate_latest

        body = await asyncio.to_thread(generate_latest)
        return web.Response(body=body, headers={"Content-Type": CONTENT_TYPE_LATEST})

    async def container_logs(self, request: web.Request) -> web.StreamResponse:
        """One container's log."""
        namespace, pod_name, container = (request.match_info[key] for key in ("namespace", "pod", "container"))
        try:
            query = parse_log_query(request.query, time.time_ns())
        except QueryNotDecodable as error:
            return _message(400, f"Unable to decode query. {error}")
        except QueryInvalid as error:
            return _message(422, f"Invalid request. {error}")
        pod = self._backend.find_pod(namespace, pod_name)
        if pod is None:
            return web.Response(status=404, text=f'pod "{pod_name}" does not exist')
        if not any(entry.name == container for entry in all_containers_of(pod)):
            return web.Response(status=404, text=f'container "{container}" not found in pod "{pod_name}"')
        try:
            container_id = choose_container_id(pod_name, pod.status, container, previous=query.previous)
            reader = await open_log(Path(await self._backend.container_log_path(pod, container_id)), query)
        except NoLog as error:
            return web.Response(status=400, text=str(error))
        except RuntimeCallError as error:
            _log.warning(
                "container_log_not_found", pod=f"{namespace}/{pod_name}", container=container, error=str(error)
            )
            return web.Response(status=400, text=f"unable to retrieve container logs for {container_id}")
        except OSError as error:
            return web.Response(status=400, text=f'failed to open log file "{error.filename}": {error.strerror}')

        async def is_running() -> bool:
            return await self._backend.is_container_running(container_id)

        response = web.StreamResponse(headers={"Content-Type": "text/plain; charset=utf-8"})
        response.enable_chunked_encoding()
        try:
            await response.prepare(request)
            async with aclosing(stream_log(reader, query, self._inotify, is_running)) as stream:
                async for piece in stream:
                    await response.write(piece)
            await response.write_eof()
        except ConnectionError:
            _log.debug("log_client_gone", pod=f"{namespace}/{pod_name}", container=container)
        finally:
            reader.close()
        return response


def _health(request: web.Request, problems: Mapping[str, str]) -> web.Response:
    """The checks by name, each with what is wrong or nothing."""
    failing = {name: problem for name, problem in problems.items() if problem}
    if not failing and "verbose" not in request.query:
        return web.Response(text="ok")
    lines = [f"[-]{name} failed: {failing[name]}" if name in failing else f"[+]{name} ok" for name in problems]
    if not failing:
        return web.Response(text="\n".join([*lines, "healthz check passed", ""]))
    _log.warning("healthz_failed", problems=failing)
    return web.Response(status=500, text="\n".join([*lines, "healthz check failed", ""]))


async def not_implemented(request: web.Request) -> web.Response:
    """A route that this version does not have."""
    return web.Response(status=501, text=f"{request.path} is not served by this version of kubelet-py\n")


async def debugging_disabled(_request: web.Request) -> web.Response:
    """A route that the operator switched off."""
    return web.Response(status=405, text="Debug endpoints are disabled.")


def _pod_list(pods: Iterable[core_v1.Pod]) -> web.Response:
    items = b",".join(codec.encode(pod) for pod in pods)
    body = b'{"kind":"PodList","apiVersion":"v1","metadata":{},"items":[%b]}\n' % items
    return web.Response(body=body, content_type=_JSON)


def _message(status: int, text: str) -> web.Response:
    return web.Response(status=status, body=codec.encode({"message": text}), content_type="text/plain", charset="utf-8")
