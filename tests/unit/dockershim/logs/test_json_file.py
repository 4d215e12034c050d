"""The log thread serves all containers: prompt when idle, fair in a flood, patient with trouble."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from dockershim import inotify
from dockershim.logs import LogSource
from dockershim.logs.json_file import JsonFileLogs, NotFollowed
from dockershim.logs.position import PositionStore
from dockershim.logs.pump import LogPump
from tests.unit.dockershim.logs.docker_lines import Line, cri, docker


def lines(count: int, text: str = "line {}\n", first: int = 0) -> list[Line]:
    """Numbered entries."""
    return [Line(text.format(at), number=at) for at in range(first, first + count)]


class Files:
    """The log files of one container below a root."""

    def __init__(self, root: Path, name: str) -> None:
        self.id = name * 64
        self.docker_log = root / "containers" / self.id / f"{self.id}-json.log"
        self.docker_log.parent.mkdir(parents=True)
        self.cri_log = root / "pods" / name / "0.log"

    @property
    def source(self) -> LogSource:
        """As the container RPCs give it."""
        return LogSource(self.id, str(self.docker_log), str(self.cri_log))

    def append(self, entries: list[Line]) -> None:
        """As dockerd does."""
        with self.docker_log.open("ab") as file:
            file.write(docker(entries))


@asynccontextmanager
async def running(root: Path) -> AsyncIterator[JsonFileLogs]:
    """The whole service."""
    logs = JsonFileLogs(root / "state")
    async with asyncio.TaskGroup() as group:
        task = group.create_task(logs.run(), name="container-logs")
        yield logs
        task.cancel()


async def written(path: Path, size: int) -> bytes:
    """The content of a file once it has grown to a size: woken by the kernel, not by a clock."""
    loop = asyncio.get_running_loop()
    watcher = inotify.Inotify()
    changed = asyncio.Event()
    loop.add_reader(watcher.fd, changed.set)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        watcher.add(path.parent, inotify.MODIFY | inotify.CREATE)
        async with asyncio.timeout(20):
            while not path.exists() or path.stat().st_size < size:
                await changed.wait()
                changed.clear()
                watcher.read()
    finally:
        loop.remove_reader(watcher.fd)
        watcher.close()
    return path.read_bytes()


async def test_lines_appear_as_docker_writes_them(tmp_path: Path) -> None:
    files = Files(tmp_path, "a")
    async with running(tmp_path) as logs:
        logs.follow(files.source)
        logs.follow(files.source)
        for first in range(0, 9, 3):
            files.append(lines(3, first=first))
            expected = cri(lines(first + 3))
            assert await written(files.cri_log, len(expected)) == expected


async def test_a_file_that_docker_makes_again_is_followed(tmp_path: Path) -> None:
    files = Files(tmp_path, "a")
    async with running(tmp_path) as logs:
        logs.follow(files.source)
        for first in range(0, 30, 3):
            files.append(lines(3, first=first))
            os.rename(files.docker_log, f"{files.docker_log}.1")
        files.append(lines(1, first=30))
        # a generation that is replaced before the thread has looked is Docker's loss: wait for the last line only
        assert (await written(files.cri_log, len(cri(lines(1, first=30))))).startswith(b"2026")
        await logs.finish(files.id)
        assert files.cri_log.read_bytes().endswith(cri(lines(1, first=30)))


async def test_finish_returns_when_the_last_line_is_written(tmp_path: Path) -> None:
    files = Files(tmp_path, "a")
    files.append(lines(20_000))
    async with running(tmp_path) as logs:
        logs.follow(files.source)
        await logs.finish(files.id)
        assert files.cri_log.read_bytes() == cri(lines(20_000))
        await logs.finish(files.id)
        with pytest.raises(NotFollowed):
            await logs.reopen(files.id)


async def test_after_a_restart_a_log_that_had_ended_is_not_written_again(tmp_path: Path) -> None:
    files = Files(tmp_path, "a")
    files.append(lines(10))
    for _ in range(2):
        async with running(tmp_path) as logs:
            logs.follow(files.source)
            await logs.finish(files.id)
    assert files.cri_log.read_bytes() == cri(lines(10))


async def test_reopen_goes_on_in_a_new_file_without_loss(tmp_path: Path) -> None:
    files = Files(tmp_path, "a")
    moved = files.cri_log.with_suffix(".moved")
    async with running(tmp_path) as logs:
        logs.follow(files.source)
        files.append(lines(5))
        await written(files.cri_log, len(cri(lines(5))))
        files.cri_log.rename(moved)
        await logs.reopen(files.id)
        assert files.cri_log.exists()
        files.append(lines(5, first=5))
        await logs.finish(files.id)
    assert moved.read_bytes() + files.cri_log.read_bytes() == cri(lines(10))


async def test_remove_forgets_the_container_and_keeps_its_log(tmp_path: Path) -> None:
    files = Files(tmp_path, "a")
    files.append(lines(5))
    async with running(tmp_path) as logs:
        logs.follow(files.source)
        await logs.finish(files.id)
        assert (tmp_path / "state" / files.id).exists()
        await logs.remove(files.id)
        await logs.remove(files.id)
    assert list((tmp_path / "state").iterdir()) == []
    assert files.cri_log.read_bytes() == cri(lines(5))


async def test_records_of_containers_that_are_no_more_are_forgotten(tmp_path: Path) -> None:
    gone, there = Files(tmp_path, "a"), Files(tmp_path, "b")
    async with running(tmp_path) as logs:
        for files in (gone, there):
            logs.follow(files.source)
            await logs.finish(files.id)
        await logs.retain([there.id])
    assert [path.name for path in (tmp_path / "state").iterdir()] == [there.id]


async def test_a_container_whose_files_are_gone_is_finished_at_once(tmp_path: Path) -> None:
    files = Files(tmp_path, "a")
    files.docker_log.parent.rmdir()
    async with running(tmp_path) as logs:
        logs.follow(files.source)
        async with asyncio.timeout(5):
            await logs.finish(files.id)


def test_a_flood_does_not_starve_the_others(tmp_path: Path) -> None:
    flood, quiet = Files(tmp_path, "a"), Files(tmp_path, "b")
    flood.append(lines(30_000))
    quiet.append(lines(3))
    clock = iter(range(10**6))
    pump = LogPump(PositionStore(tmp_path / "state"), monotonic=lambda: next(clock) * 0.005)
    pump.request(flood.source)
    pump.request(quiet.source)
    pump.turn()
    assert quiet.cri_log.read_bytes() == cri(lines(3))
    assert 0 < flood.cri_log.stat().st_size < len(cri(lines(30_000)))
    pump.close()


def test_a_log_that_cannot_be_written_is_told_once_tried_again_and_harms_no_other(tmp_path: Path) -> None:
    bad, good = Files(tmp_path, "a"), Files(tmp_path, "b")
    bad.append(lines(3))
    good.append(lines(3))
    bad.cri_log.mkdir(parents=True)
    now = 0.0
    pump = LogPump(PositionStore(tmp_path / "state"), monotonic=lambda: now)
    pump.request(bad.source)
    pump.request(good.source)
    with capture_logs() as logged:
        assert pump.turn() == 1.0
        now = 1.0
        assert pump.turn() == 1.0
    assert [entry["event"] for entry in logged] == ["container_log_waits"]
    assert good.cri_log.read_bytes() == cri(lines(3))
    bad.cri_log.rmdir()
    now = 2.0
    pump.turn()
    assert bad.cri_log.read_bytes() == cri(lines(3))
    pump.close()


def test_positions_are_recorded_soon_after_a_log_was_written(tmp_path: Path) -> None:
    files = Files(tmp_path, "a")
    now = 100.0
    pump = LogPump(PositionStore(tmp_path / "state"), monotonic=lambda: now)
    pump.request(files.source)
    pump.turn()
    files.append(lines(3))
    due_seconds = pump.turn()
    if due_seconds is not None:
        now += due_seconds
        assert pump.turn() is None
    position = PositionStore(tmp_path / "state").load(files.id)
    assert position is not None
    assert position.latest.output_bytes == len(cri(lines(3)))
    pump.close()
