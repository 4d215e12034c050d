"""ExecSync: run a command to its end, or to the end of its time.

Upstream counterpart: cri-dockerd's core/exec.go. Deliberate differences: the process is killed when the time is over;
the output is cut and not refused when there is too much of it; the exit code is Docker's and never a guess.
"""

from __future__ import annotations

import asyncio

from cri_proto import runtime_v1 as cri
from dockershim.engine import ExecStream
from dockershim.engine.stdcopy import STDERR
from dockershim.errors import DeadlineExceeded, InvalidArgument, NotRunning
from dockershim.node import Node
from dockershim.streaming import execs

OUTPUT_LIMIT_BYTES = 16 * 1024 * 1024 - 64 * 1024  # both streams and the rest of the answer fit into one message


class _Output:
    """Both streams, up to a limit for the two together; the rest is read and dropped, so that nothing blocks."""

    def __init__(self, limit_bytes: int) -> None:
        self.stdout = bytearray()
        self.stderr = bytearray()
        self._room = limit_bytes

    def add(self, stream: int, data: bytes) -> None:
        """Keep what there is room for."""
        kept = data[: self._room]
        self._room -= len(kept)
        (self.stderr if stream == STDERR else self.stdout).extend(kept)


class ExecSync:
    """The handler."""

    def __init__(self, node: Node) -> None:
        self._node = node

    async def exec_sync(self, request: cri.ExecSyncRequest) -> cri.ExecSyncResponse:
        """See CRI."""
        if not request.cmd:
            raise InvalidArgument("cmd", "is empty")
        if request.timeout < 0:
            raise InvalidArgument("timeout", f"{request.timeout} is negative")
        view = self._node.store.require_container(request.container_id)
        if not view.running:
            raise NotRunning(f"container {view.id} does not run")
        body = {"AttachStdout": True, "AttachStderr": True, "Cmd": list(request.cmd), "User": view.exec_user}
        exec_id = await self._node.engine.exec_create(view.id, body)
        output = _Output(OUTPUT_LIMIT_BYTES)
        try:
            async with asyncio.timeout(request.timeout or None):
                exit_code = await self._run(view.id, exec_id, output)
        except TimeoutError:
            await self._node.tasks.complete(
                execs.kill(self._node.engine, view.id, exec_id), f"kill exec {exec_id[:12]}"
            )
            raise DeadlineExceeded(
                f"command {request.cmd[0]!r} in container {view.id} did not end within {request.timeout} s; killed"
            ) from None
        except asyncio.CancelledError:
            self._node.tasks.spawn_logged(execs.kill(self._node.engine, view.id, exec_id), f"kill exec {exec_id[:12]}")
            raise
        return cri.ExecSyncResponse(stdout=bytes(output.stdout), stderr=bytes(output.stderr), exit_code=exit_code)

    async def _run(self, container_id: str, exec_id: str, output: _Output) -> int:
        with self._node.feeder.exec_exits.expect(exec_id, container_id) as end:
            stream = await self._node.engine.exec_start(exec_id, tty=False)
            try:
                await end.follow(self._drain(stream, output))
            finally:
                await stream.close()
            return await execs.exit_code(self._node.engine, exec_id, end.told)

    async def _drain(self, stream: ExecStream, output: _Output) -> None:
        async for number, data in stream:
            output.add(number, data)
