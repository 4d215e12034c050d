"""dockershim keeps one spooler running, finds the one that is there, and says so when there is none."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import struct
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from dockershim.logs import LogSource
from dockershim.logs.json_file import JsonFileLogs
from dockershim.logs.spooler import SpoolerKeeper
from dockershim.oci import spool

ID = "c" * 64


async def until(condition: Callable[[], bool]) -> None:
    """Poll: the other side is another process."""
    async with asyncio.timeout(20):
        while not condition():  # noqa: ASYNC110 # a process of its own sets no event
            await asyncio.sleep(0.005)


@asynccontextmanager
async def kept(directory: Path) -> AsyncIterator[SpoolerKeeper]:
    """A keeper at work."""
    keeper = SpoolerKeeper(directory)
    async with asyncio.TaskGroup() as group:
        task = group.create_task(keeper.run(), name="keeper")
        await until(lambda: keeper.is_there)
        yield keeper
        task.cancel()


def pids(directory: Path) -> list[int]:
    """The spooler of a directory, as who listens there; none when nobody does."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as connection:
        try:
            connection.connect(f"{directory}/{spool.SOCKET}")
        except OSError:
            return []
        pid, _, _ = struct.unpack("3i", connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12))
        return [pid]


async def test_it_is_started_found_again_and_started_again_when_it_dies(tmp_path: Path) -> None:
    directory = tmp_path / "spool"
    async with kept(directory):
        [first] = pids(directory)
    async with kept(directory) as keeper:
        assert pids(directory) == [first]
        with capture_logs() as logs:
            os.kill(first, signal.SIGKILL)
            await until(lambda: not keeper.is_there)
            await until(lambda: keeper.is_there)
        assert [log["event"] for log in logs] == ["log_spooler_died"]
        [second] = pids(directory)
        assert second != first
    os.kill(second, signal.SIGKILL)


async def test_a_spool_that_cannot_be_is_told(tmp_path: Path) -> None:
    (tmp_path / "spool").write_text("no directory")
    keeper = SpoolerKeeper(tmp_path / "spool")
    with capture_logs() as logs:
        async with asyncio.TaskGroup() as group:
            task = group.create_task(keeper.run(), name="keeper")
            await until(lambda: bool(logs))
            task.cancel()
    assert logs[0]["event"] == "log_spooler_not_started"
    assert "spool" in logs[0]["error"]


@pytest.mark.parametrize("wanted", [True, False])
async def test_it_is_kept_for_new_containers_or_for_those_that_need_it(tmp_path: Path, wanted: bool) -> None:
    """When the flag is gone, a container of before may still run; new ones go to Docker."""
    directory = tmp_path / "spool"
    logs = JsonFileLogs(tmp_path / "state", directory, spools_new=wanted)
    assert logs.spool_directory == ""
    async with asyncio.TaskGroup() as group:
        task = group.create_task(logs.run(), name="logs")
        if wanted:
            await until(lambda: bool(logs.spool_directory))
            assert logs.spool_directory == str(directory)
        else:
            (directory / ID).mkdir(parents=True)
            logs.follow(LogSource(ID, "", str(tmp_path / "0.log"), False, str(directory)))
            await until(lambda: bool(pids(directory)))
            assert logs.spool_directory == ""
        task.cancel()
    [pid] = pids(directory)
    os.kill(pid, signal.SIGKILL)
