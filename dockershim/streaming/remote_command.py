"""Exec and attach: a client's channels joined to a process that Docker runs.

Owns who waits for whom and what is left when either side goes. Must not know HTTP. Upstream counterpart: cri-dockerd's
core/streaming.go and dockershim's exec. Deliberate differences: a process whose client goes away is killed, so that
nothing is left (an attached container is only let go); a terminal keeps ctrl-p.

Docker ends the output of a terminal when its stdin is closed, and that of an attached container whose stdin stays open
for the next client: there the end of stdin is not passed on.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

import structlog

from cri_proto.wire import remotecommand as wire
from dockershim.engine import DETACH_KEYS, DockerEngine, ProcessStream
from dockershim.engine.stdcopy import STDERR
from dockershim.errors import ShimError
from dockershim.store.exec_exits import ExecExits
from dockershim.streaming import execs
from dockershim.streaming.channels import Channels
from dockershim.streaming.inbox import Inbox
from dockershim.streaming.wires import Gone
from dockershim.tasks import Tasks

_log = structlog.get_logger()
LEAVE_SECONDS = 5.0
RESIZE_POLLS_SECONDS = (0.02, 0.05, 0.1, 0.2, 0.5, 1.0)

Work = Callable[[Channels], Awaitable[wire.Outcome]]


async def serve_channels(channels: Channels, work: Work) -> None:
    """Run the work for a client; cancel it when the client goes first, tell the outcome otherwise."""
    async with asyncio.TaskGroup() as group:
        client = group.create_task(channels.run(), name="streaming client")
        process = group.create_task(_outcome(channels, work), name="streamed process")
        await asyncio.wait({client, process}, return_when=asyncio.FIRST_COMPLETED)
        if process.done() and not process.cancelled() and process.exception() is None:
            await channels.finish(process.result())
            await asyncio.wait({client}, timeout=LEAVE_SECONDS)
        process.cancel()
        client.cancel()


async def _outcome(channels: Channels, work: Work) -> wire.Outcome:
    try:
        await channels.ready()
        return await work(channels)
    except TimeoutError:
        return wire.Outcome(error="the client did not open its streams in time")
    except ShimError as error:
        return wire.Outcome(error=str(error))
    except Gone:
        return wire.Outcome(error="the client is gone")


@dataclass(frozen=True, slots=True)
class ExecCommand:
    """What to run, and where."""

    container_id: str
    command: tuple[str, ...]
    streams: wire.StreamSet
    user: str = ""


@dataclass(frozen=True, slots=True)
class AttachTarget:
    """A container's own process. `tty` and `stdin_once` as the container was made."""

    container_id: str
    streams: wire.StreamSet
    tty: bool
    stdin_once: bool


class RemoteCommands:
    """Runs both."""

    def __init__(self, engine: DockerEngine, exits: ExecExits, tasks: Tasks) -> None:
        self._engine = engine
        self._exits = exits
        self._tasks = tasks

    async def exec(self, what: ExecCommand, channels: Channels) -> wire.Outcome:
        """Run a command until it has ended; its exit code."""
        tty = what.streams.tty
        body = {
            "AttachStdin": what.streams.stdin,
            "AttachStdout": True,
            "AttachStderr": not tty,
            "Tty": tty,
            "Cmd": list(what.command),
            "User": what.user,
            "DetachKeys": DETACH_KEYS,
        }
        exec_id = await self._engine.exec_create(what.container_id, body)
        try:
            with self._exits.expect(exec_id, what.container_id) as end:
                stream = await self._engine.exec_start(exec_id, tty=tty)

                async def resize(size: wire.TerminalSize) -> None:
                    await self._engine.exec_resize(exec_id, size.width, size.height)

                await end.follow(_join(channels, stream, resize, half_close=not tty, stdin=what.streams.stdin))
                return wire.Outcome(await execs.exit_code(self._engine, exec_id, end.told))
        except (asyncio.CancelledError, Gone):
            kill = execs.kill(self._engine, what.container_id, exec_id)
            self._tasks.spawn_logged(kill, f"kill exec {exec_id[:12]}")
            raise

    async def attach(self, what: AttachTarget, channels: Channels) -> wire.Outcome:
        """Join a container's own process until it ends or the client goes."""
        stream = await self._engine.attach(what.container_id, stdin=what.streams.stdin, tty=what.tty)

        async def resize(size: wire.TerminalSize) -> None:
            await self._engine.resize_container(what.container_id, size.width, size.height)

        half_close = what.stdin_once and not what.tty
        await _join(channels, stream, resize, half_close=half_close, stdin=what.streams.stdin)
        return wire.Outcome()


async def _join(
    channels: Channels,
    stream: ProcessStream,
    resize: Callable[[wire.TerminalSize], Awaitable[None]],
    *,
    half_close: bool,
    stdin: bool,
) -> None:
    """Carry everything until the output has ended; the stream is closed then."""
    try:
        async with asyncio.TaskGroup() as group:
            inputs = [group.create_task(_follow_sizes(channels, resize), name="terminal sizes")]
            if stdin:
                inputs.append(group.create_task(_feed(channels.stdin, stream, half_close), name="stdin"))
            try:
                await _pass_output(channels, stream)
            finally:
                for task in inputs:
                    task.cancel()
    except BaseExceptionGroup as group_error:
        # one cause is enough for the caller: the others are its echo
        raise group_error.exceptions[0] from group_error
    finally:
        await stream.close()


async def _pass_output(channels: Channels, stream: ProcessStream) -> None:
    try:
        async for number, data in stream:
            await channels.write(wire.STDERR if number == STDERR else wire.STDOUT, data)
    except ConnectionError:
        return  # Docker is gone; the exit code will tell


async def _feed(inbox: Inbox, stream: ProcessStream, half_close: bool) -> None:
    try:
        while data := await inbox.get():
            await stream.write(data)
        if half_close:
            await stream.write_eof()
    except (OSError, Gone):
        pass  # the process reads no more, or the client is gone: whoever waits for the output learns it
    finally:
        await inbox.discard()


async def _follow_sizes(channels: Channels, resize: Callable[[wire.TerminalSize], Awaitable[None]]) -> None:
    async for size in channels.sizes():
        with contextlib.suppress(ShimError):
            await _resize_when_running(size, resize)


async def _resize_when_running(size: wire.TerminalSize, resize: Callable[[wire.TerminalSize], Awaitable[None]]) -> None:
    for pause_seconds in RESIZE_POLLS_SECONDS:  # Docker answers the start a moment before there is a terminal
        try:
            await resize(size)
        except ShimError as error:
            _log.debug("terminal_not_resized", error=str(error))
            await asyncio.sleep(pause_seconds)
        else:
            return
