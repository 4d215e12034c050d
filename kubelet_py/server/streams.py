"""Exec, attach and port-forward as the node's API has them: which container, which streams, and where they are.

Owns the query and the checks; `tunnel` and `websockets` carry the bytes. Upstream counterpart: getExec, getAttach and
getPortForward of pkg/kubelet/server/server.go.
"""

from collections.abc import Mapping

import structlog
from aiohttp import web

from cri_proto import runtime_v1 as cri
from cri_proto.wire import portforward
from cri_proto.wire.remotecommand import StreamSet
from kubelet_py.errors import RuntimeCallError
from kubelet_py.server.path_objects import find_container, find_pod, find_running_id
from kubelet_py.server.settings import ServerBackend
from kubelet_py.server.tunnel import tunnel
from kubelet_py.server.websockets import is_websocket, translate, tunnel_messages, wants_translation, wants_tunnel

StreamRequest = cri.ExecRequest | cri.AttachRequest | cri.PortForwardRequest
_log = structlog.get_logger()


class Streams:
    """The handlers."""

    def __init__(self, backend: ServerBackend, *, speaks_websocket: bool = True) -> None:
        """`speaks_websocket`: what a runtime may not understand of WebSocket is put into SPDY for it."""
        self._backend = backend
        self._speaks_websocket = speaks_websocket

    async def exec(self, request: web.Request) -> web.StreamResponse:
        """A command in a container."""
        container_id = await find_running_id(request, self._backend)
        command = request.query.getall("command", [])
        if not command:
            raise web.HTTPBadRequest(text="you must specify at least one command to execute")
        streams = _streams(request.query, _is_set(request.query, "tty"))
        wanted = cri.ExecRequest(container_id=container_id, cmd=command, **streams)
        return await self._open(request, wanted)

    async def attach(self, request: web.Request) -> web.StreamResponse:
        """A container's own process. Whether it has a terminal was settled when it was made, whatever is asked for."""
        container_id = await find_running_id(request, self._backend)
        has_terminal = bool(find_container(request, self._backend).tty)
        wanted = cri.AttachRequest(container_id=container_id, **_streams(request.query, has_terminal))
        return await self._open(request, wanted)

    async def port_forward(self, request: web.Request) -> web.StreamResponse:
        """Connections into a pod. Who speaks WebSocket and no SPDY inside it names the ports here."""
        ports: tuple[int, ...] = ()
        if is_websocket(request) and not self._is_tunnel(request):
            try:
                ports = portforward.parse_ports(request.query.getall("port", []))
            except portforward.PortForwardError as error:
                raise web.HTTPBadRequest(text=str(error)) from error
        try:
            sandbox_id = await self._backend.sandbox_id(find_pod(request, self._backend))
        except RuntimeCallError as error:
            raise web.HTTPInternalServerError(text=str(error)) from error
        if sandbox_id is None:
            raise web.HTTPInternalServerError(text="the pod has no sandbox that runs")
        return await self._open(request, cri.PortForwardRequest(pod_sandbox_id=sandbox_id, port=ports))

    def _is_tunnel(self, request: web.Request) -> bool:
        return self._speaks_websocket and wants_tunnel(request)

    async def _open(self, request: web.Request, wanted: StreamRequest) -> web.StreamResponse:
        if "upgrade" not in request.headers.get("Connection", "").lower():
            raise web.HTTPBadRequest(text="you must ask for an upgrade of the connection: SPDY/3.1 or websocket")
        try:
            return await self._carry(request, wanted, await self._backend.streaming_url(wanted))
        except RuntimeCallError as error:
            _log.warning("stream_not_opened", path=request.path, error=str(error))
            raise web.HTTPInternalServerError(text=str(error)) from error

    async def _carry(self, request: web.Request, wanted: StreamRequest, url: str) -> web.StreamResponse:
        match wanted:
            case cri.PortForwardRequest() if self._is_tunnel(request):
                return await tunnel_messages(request, url)
            case cri.ExecRequest() | cri.AttachRequest() if self._speaks_websocket and wants_translation(request):
                streams = StreamSet(wanted.stdin, wanted.stdout, wanted.stderr, wanted.tty)
                return await translate(request, url, streams)
            case _:
                return await tunnel(request, url)


def _streams(query: Mapping[str, str], has_terminal: bool) -> dict[str, bool]:
    wanted = {field: _is_set(query, name) for field, name in _STREAM_WORDS.items()}
    wanted["tty"] = has_terminal
    if has_terminal:
        wanted["stderr"] = False  # a terminal has one output
    if not (wanted["stdin"] or wanted["stdout"] or wanted["stderr"]):
        raise web.HTTPBadRequest(text="you must specify at least 1 of stdin, stdout, stderr")
    return wanted


def _is_set(query: Mapping[str, str], name: str) -> bool:
    return query.get(name) in ("1", "true")


_STREAM_WORDS = {"stdin": "input", "stdout": "output", "stderr": "error"}
