"""Processes started by exec: their exit code, and their end when nobody waits for them any more.

Owns the two waits that Docker's API makes necessary. Must not know who asked. Upstream counterpart: cri-dockerd's
core/exec.go. Deliberate difference: the exit code is never a guess; a process that nobody wants is killed.
"""

from __future__ import annotations

import asyncio

import structlog

from dockershim import host
from dockershim.engine import DockerEngine
from dockershim.errors import EngineFailed, ShimError

_log = structlog.get_logger()
PID_POLLS_SECONDS = (0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 20.0)
"""A machine that stands still may take long until Docker has the process that nobody wants any more."""
EXIT_POLLS_SECONDS = (0.1, 0.4, 0.5, 1.0, 2.0, 5.0)
"""How long to wait for what Docker tells before asking: there is no event of an exec that could not start."""


async def exit_code(engine: DockerEngine, exec_id: str, told: asyncio.Future[int]) -> int:
    """The code of an exec whose output has ended. `told` has it when Docker tells, a moment later, see ExecExits."""
    for pause_seconds in EXIT_POLLS_SECONDS:
        await asyncio.wait({told}, timeout=pause_seconds)
        if told.done():
            return told.result()
        state = await engine.exec_inspect(exec_id)
        if not state.get("Running") and state.get("ExitCode") is not None:
            return int(state["ExitCode"])
    raise EngineFailed(f"the output of exec {exec_id} has ended and Docker still calls it running")


async def kill(engine: DockerEngine, container_id: str, exec_id: str) -> None:
    """Kill the process and its descendants. Never raises: what went wrong is logged."""
    problem = "Docker shows no process for it"
    try:
        for pause_seconds in PID_POLLS_SECONDS:  # Docker answers the start a moment before there is a process
            state = await engine.exec_inspect(exec_id)
            pid = int(state.get("Pid") or 0)
            if pid and state.get("Running"):
                if await host.kill_process_tree(pid, container_id):
                    return
                problem = f"process {pid} is not of this container"
            elif state.get("ExitCode") is not None:
                return
            await asyncio.sleep(pause_seconds)
    except ShimError as error:
        problem = str(error)
    _log.warning("exec_not_killed", container=container_id, exec=exec_id, error=problem)
