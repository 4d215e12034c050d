"""Exec, attach and port-forward as the node's API has them: which container, which streams, and where they are.

Owns the query and the checks; `tunnel` carries the bytes. Upstream counterpart: getExec, getAttach and getPortForward
of pkg/kubelet/server/server.go.
"""

from collections.abc import Mapping

import structlog
from aiohttp import web

from cri_proto import runtime_v1 as cri
from kubelet_py.api import core_v1
from kubelet_py.api.pod import all_containers_of, uid_of
from kubelet_py.core.log_query import NoLog, choose_container_id
from kubelet_py.errors import RuntimeCallError
from kubelet_py.server.settings import ServerBackend
from kubelet_py.server.tunnel import tunnel

_log = structlog.get_logger()


class Streams:
    """The handlers."""

    def __init__(self, backend: ServerBackend) -> None:
        self._backend = backend

    async def exec(self, request: web.Request) -> web.StreamResponse:
        """A command in a container."""
        container_id = self._container_id(request)
        command = request.query.getall("command", [])
        if not command:
            raise web.HTTPBadRequest(text="you must specify at least one command to execute")
        wanted = cri.ExecRequest(container_id=container_id, cmd=command, **_streams(request.query))
        return await self._tunnel(request, wanted)

    async def attach(self, request: web.Request) -> web.StreamResponse:
        """A container's own process."""
        return await self._tunnel(
            request, cri.AttachRequest(container_id=self._container_id(request), **_streams(request.query))
        )

    async def port_forward(self, request: web.Request) -> web.StreamResponse:
        """Connections into a pod."""
        try:
            sandbox_id = await self._backend.sandbox_id(self._pod(request))
        except RuntimeCallError as error:
            raise web.HTTPInternalServerError(text=str(error)) from error
        if sandbox_id is None:
            raise web.HTTPInternalServerError(text="the pod has no sandbox that runs")
        return await self._tunnel(request, cri.PortForwardRequest(pod_sandbox_id=sandbox_id))

    async def _tunnel(
        self, request: web.Request, wanted: cri.ExecRequest | cri.AttachRequest | cri.PortForwardRequest
    ) -> web.StreamResponse:
        if "upgrade" not in request.headers.get("Connection", "").lower():
            raise web.HTTPBadRequest(text="you must ask for an upgrade of the connection: SPDY/3.1 or websocket")
        try:
            return await tunnel(request, await self._backend.streaming_url(wanted))
        except RuntimeCallError as error:
            _log.warning("stream_not_opened", path=request.path, error=str(error))
            raise web.HTTPInternalServerError(text=str(error)) from error

    def _pod(self, request: web.Request) -> core_v1.Pod:
        namespace, name = request.match_info["namespace"], request.match_info["pod"]
        pod = self._backend.find_pod(namespace, name)
        uid = request.match_info.get("uid")
        if pod is None or (uid is not None and uid != uid_of(pod)):
            raise web.HTTPNotFound(text=f"pod {name}_{namespace} does not exist")
        return pod

    def _container_id(self, request: web.Request) -> str:
        pod, container = self._pod(request), request.match_info["container"]
        if not any(entry.name == container for entry in all_containers_of(pod)):
            raise web.HTTPNotFound(text=f"container not found ({container!r})")
        try:
            name = request.match_info["pod"]
            return choose_container_id(name, pod.status, container, previous=False).rpartition("://")[2]
        except NoLog as error:
            raise web.HTTPInternalServerError(text=str(error)) from error


def _streams(query: Mapping[str, str]) -> dict[str, bool]:
    wanted = {field: query.get(name) in ("1", "true") for field, name in _STREAM_WORDS.items()}
    if wanted["tty"]:
        wanted["stderr"] = False  # a terminal has one output
    if not (wanted["stdin"] or wanted["stdout"] or wanted["stderr"]):
        raise web.HTTPBadRequest(text="you must specify at least 1 of stdin, stdout, stderr")
    return wanted


_STREAM_WORDS = {"stdin": "input", "stdout": "output", "stderr": "error", "tty": "tty"}
