"""Exec, Attach, PortForward: checks, and a URL behind which the work waits for its client.

Upstream counterpart: cri-dockerd's core/streaming.go. Docker is asked nothing before the client comes.
"""

from __future__ import annotations

import functools
import socket
import time

from cri_proto import runtime_v1 as cri
from cri_proto.wire.remotecommand import StreamSet
from dockershim.errors import FailedPrecondition, InvalidArgument, NotRunning
from dockershim.node import Node
from dockershim.streaming.port_forward import connect_in_namespace
from dockershim.streaming.remote_command import AttachTarget, ExecCommand, RemoteCommands
from dockershim.streaming.server import ATTACH, EXEC, CommandTicket, PortForwardTicket, StreamingServer
from dockershim.translate.views import ContainerView


class Streaming:
    """The handlers."""

    def __init__(self, node: Node) -> None:
        self._node = node
        self._commands = RemoteCommands(node.engine, node.feeder.exec_exits, node.tasks)
        self._server = StreamingServer(node.tasks, time.monotonic, node.settings.streaming_certificate)

    async def exec(self, request: cri.ExecRequest) -> cri.ExecResponse:
        """See CRI."""
        if not request.cmd:
            raise InvalidArgument("cmd", "is empty")
        streams = _streams(request)
        view = self._running_container(request.container_id)
        command = ExecCommand(view.id, tuple(request.cmd), streams, view.exec_user)
        ticket = CommandTicket(EXEC, streams, functools.partial(self._commands.exec, command))
        return cri.ExecResponse(url=await self._server.url(ticket))

    async def attach(self, request: cri.AttachRequest) -> cri.AttachResponse:
        """See CRI."""
        streams = _streams(request)
        view = self._running_container(request.container_id)
        target = AttachTarget(view.id, streams, view.tty, view.stdin_once)
        ticket = CommandTicket(ATTACH, streams, functools.partial(self._commands.attach, target))
        return cri.AttachResponse(url=await self._server.url(ticket))

    async def port_forward(self, request: cri.PortForwardRequest) -> cri.PortForwardResponse:
        """See CRI. The ports are for clients that cannot name them; others name one with each connection."""
        for port in request.port:
            if not 0 < port < 1 << 16:
                raise InvalidArgument("port", f"{port}: want 1 to 65535")
        sandbox_id = self._node.store.require_sandbox(request.pod_sandbox_id).id
        self._namespace_path(sandbox_id)

        async def connect(port: int) -> socket.socket:
            try:
                path = self._namespace_path(sandbox_id)
            except FailedPrecondition as error:
                raise ConnectionRefusedError(str(error)) from error
            return await connect_in_namespace(path, port)

        return cri.PortForwardResponse(url=await self._server.url(PortForwardTicket(connect, tuple(request.port))))

    def _running_container(self, reference: str) -> ContainerView:
        view = self._node.store.require_container(reference)
        if not view.running:
            raise NotRunning(f"container {view.id} does not run")
        return view

    def _namespace_path(self, sandbox_id: str) -> str:
        view = self._node.store.sandbox(sandbox_id)
        if view is None or not view.running or not view.pid:
            raise NotRunning(f"sandbox {sandbox_id} does not run")
        return f"/proc/{view.pid}/ns/net"


def _streams(request: cri.ExecRequest | cri.AttachRequest) -> StreamSet:
    if request.tty and request.stderr:
        raise InvalidArgument("stderr", "cannot be streamed apart from stdout when tty is true")
    if not (request.stdin or request.stdout or request.stderr):
        raise InvalidArgument("stdin", "one of stdin, stdout and stderr must be true")
    return StreamSet(stdin=request.stdin, stdout=request.stdout, stderr=request.stderr, tty=request.tty)
