"""Commands and checkpoints of containers, as the node's API has them: one question, one answer.

Owns the query and the shape of the answers. Upstream counterpart: getRun and checkpoint of
pkg/kubelet/server/server.go.
"""

import re

import structlog
from aiohttp import web

from kubelet_py.api import codec
from kubelet_py.errors import RuntimeCallError
from kubelet_py.server.path_objects import find_pod, find_running_id
from kubelet_py.server.settings import ServerBackend

_log = structlog.get_logger()


class ContainerCalls:
    """The handlers."""

    def __init__(self, backend: ServerBackend) -> None:
        self._backend = backend

    async def run(self, request: web.Request) -> web.Response:
        """A command without streams: what it wrote to its outputs, one after the other."""
        command = request.query.get("cmd", "").split(" ")
        try:
            done = await self._backend.run(await find_running_id(request, self._backend), command)
        except RuntimeCallError as error:
            _log.info("command_not_run", path=request.path, error=str(error))
            return web.Response(status=500, text=str(error))
        if done.exit_code:
            text = done.stderr.decode(errors="replace")
            said = f"command '{' '.join(command)}' exited with {done.exit_code}: {text}"
            return web.Response(status=500, text=said)
        return web.Response(body=done.stdout + done.stderr, content_type="application/json")

    async def checkpoint(self, request: web.Request) -> web.Response:
        """The container's processes and memory go into an archive on this node, and it runs on."""
        container_id = await find_running_id(request, self._backend)
        timeout = request.query.getall("timeout", ["0"])[-1]
        if not re.fullmatch("-?[0-9]{1,9}", timeout):  # 404 is what the Go kubelet answers
            return web.Response(status=404, text="cannot parse value of timeout parameter: want a number of seconds")
        pod, container = find_pod(request, self._backend), request.match_info["container"]
        try:
            path = await self._backend.checkpoint(pod, container, container_id, int(timeout))
        except (RuntimeCallError, OSError) as error:
            where = f"{request.match_info['namespace']}/{request.match_info['pod']}/{container}"
            _log.warning("checkpoint_failed", container=where, error=str(error))
            return web.Response(status=500, text=f"checkpointing of {where} failed ({error})")
        return web.Response(body=codec.encode({"items": [path]}), content_type="application/json")
