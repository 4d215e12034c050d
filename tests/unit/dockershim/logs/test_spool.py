"""The log out of the spool loses and doubles no line, whoever dies or moves it; what has been read is removed."""

from __future__ import annotations

import dataclasses
import os
import resource
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from structlog.testing import capture_logs

from cri_proto.wire.log_line import parse_line
from dockershim.logs import LogSource
from dockershim.logs.position import PositionStore
from dockershim.logs.pump import LogPump
from dockershim.logs.spool import SpoolDirectories, SpoolFollower
from dockershim.oci import spool

ID = "c" * 64


class Container:
    """A container whose output comes through the spool, and who follows it."""

    def __init__(self, root: Path) -> None:
        self.spool = root / "log-spool"
        self.directory = self.spool / ID
        self.directory.mkdir(parents=True)
        self.cri_log = root / "pods" / "ns_pod_uid" / "container" / "0.log"
        self.store = PositionStore(root / "state")
        self.written = dict.fromkeys(spool.STREAMS, b"")
        for stream in spool.STREAMS:
            os.mkfifo(spool.fifo(str(self.directory), stream))
        self.follower = self.new_follower()

    @property
    def source(self) -> LogSource:
        """As the feeder gives it."""
        return LogSource(ID, "", str(self.cri_log), False, str(self.spool))

    def new_follower(self) -> SpoolFollower:
        """One that knows nothing but what lies on the disk."""
        follower = SpoolFollower(self.source, self.store)
        follower.open()
        return follower

    def write(self, data: bytes, stream: str = "stdout") -> None:
        """As the spooler does, segment by segment."""
        start = len(self.written[stream])
        self.written[stream] += data
        while data:
            number, at = divmod(start, spool.SEGMENT_BYTES)
            piece, data = data[: spool.SEGMENT_BYTES - at], data[spool.SEGMENT_BYTES - at :]
            with open(spool.segment(str(self.directory), stream, number), "ab") as file:
                file.write(piece)
            start += len(piece)

    def end(self) -> None:
        """All writers have gone."""
        for stream in spool.STREAMS:
            os.unlink(spool.fifo(str(self.directory), stream))

    def step(self) -> None:
        """All that can be written now."""
        while self.follower.step():
            pass

    def die(self) -> None:
        """dockershim is killed, by which its files are closed, and another one goes on."""
        self.follower.close()
        self.follower = self.new_follower()

    def logs(self) -> list[Path]:
        """The oldest first."""
        return [*sorted(self.cri_log.parent.glob("0.log.*")), self.cri_log]

    def text(self, stream: str) -> bytes:
        """What the log has of a stream."""
        lines = [parse_line(line) for path in self.logs() for line in path.read_bytes().split(b"\n")[:-1]]
        return b"".join(
            line.text + (b"" if line.partial else b"\n") for line in lines if line.stream == stream.encode()
        )

    def check(self) -> None:
        """The log is what was written."""
        for stream, written in self.written.items():
            assert self.text(stream) == written


@pytest.fixture
def container(tmp_path: Path) -> Iterator[Container]:
    container = Container(tmp_path)
    yield container
    container.follower.close()


@contextmanager
def disk_with(size_bytes: int) -> Iterator[None]:
    """No file can grow beyond this size."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size_bytes, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, handler)


def numbered(first: int, count: int) -> bytes:
    return b"".join(b"line %d\n" % number for number in range(first, first + count))


def test_both_streams_and_an_unfinished_end(container: Container) -> None:
    container.write(b"one\ntwo")
    container.write(b"error\n", "stderr")
    container.step()
    assert container.text("stdout") == b"one\n"
    container.end()
    container.step()
    container.check()
    assert container.follower.is_finished


def test_killed_before_every_record_and_after(container: Container) -> None:
    for turn in range(5):
        container.write(numbered(100 * turn, 100))
        container.write(b"other\n", "stderr")
        container.step()
        if turn % 2:
            container.follower.save()
        container.die()
    container.end()
    container.step()
    container.check()


@given(st.integers(0, 3000), st.booleans())
def test_killed_in_the_middle_of_a_write(tmp_path_factory: pytest.TempPathFactory, kept: int, saved: bool) -> None:
    """Lines that are all the same: what was written is known by its length, not by luck."""
    container = Container(tmp_path_factory.mktemp("spool"))
    container.write(b"y\n" * 20)
    container.step()
    if saved:
        container.follower.save()
    before = container.cri_log.stat().st_size
    container.write(b"y\n" * 50)
    container.step()
    os.truncate(container.cri_log, min(before + kept, container.cri_log.stat().st_size))
    container.die()
    container.step()
    container.check()
    container.follower.close()


def test_a_machine_that_lost_power_has_a_shorter_log(container: Container) -> None:
    container.write(numbered(0, 10))
    container.step()
    container.follower.save()
    os.truncate(container.cri_log, 5)
    container.die()
    container.write(b"more\n")
    container.step()
    assert container.cri_log.read_bytes().endswith(b" stdout F more\n")
    assert b"\0" not in container.cri_log.read_bytes()


def test_moved_away_and_killed_at_each_step(container: Container) -> None:
    container.write(numbered(0, 10))
    container.step()
    container.cri_log.rename(f"{container.cri_log}.1")
    container.write(numbered(10, 10))
    container.step()  # the file was moved: it still gets what comes before the reopen
    container.follower.reopen()
    container.write(numbered(20, 10))
    container.step()
    assert container.cri_log.read_bytes().count(b"\n") == 10
    container.cri_log.rename(f"{container.cri_log}.2")
    container.cri_log.touch()  # killed between the new file and its record
    container.write(numbered(30, 10))
    container.die()
    container.step()
    container.check()
    assert container.cri_log.read_bytes().count(b"\n") == 10


def test_a_full_disk_doubles_nothing_when_there_is_room_again(container: Container) -> None:
    container.write(numbered(0, 1000))
    container.follower.save()
    with disk_with(10_001), pytest.raises(OSError, match="too large"):
        container.step()
    assert container.cri_log.read_bytes().endswith(b"\n")
    container.step()
    container.check()


def test_what_has_been_read_is_removed_but_for_the_last(container: Container) -> None:
    line = b"x" * 1023 + b"\n"
    container.write(line * (2 * spool.SEGMENT_BYTES // 1024 + 7))
    container.step()
    container.follower.save()
    assert spool.segment_numbers(str(container.directory), "stdout") == [2]
    container.die()
    container.write(b"end\n")
    container.step()
    container.check()


def test_a_log_that_somebody_wrote_to_is_told(container: Container) -> None:
    container.write(numbered(0, 3))
    container.step()
    with container.cri_log.open("ab") as file:
        file.write(b"not ours\n")
    with capture_logs() as logs:
        container.die()
    assert [log["event"] for log in logs] == ["container_log_diverged"]


def test_a_log_that_somebody_deleted_goes_on(container: Container) -> None:
    container.write(numbered(0, 3))
    container.step()
    container.follower.save()
    container.cri_log.unlink()
    container.die()
    container.write(numbered(3, 3))
    container.step()
    assert container.text("stdout") == numbered(3, 3)


def test_segments_that_are_gone_are_told(container: Container) -> None:
    container.write(b"x\n" * spool.SEGMENT_BYTES)
    os.unlink(spool.segment(str(container.directory), "stdout", 0))
    with capture_logs() as logs:
        container.die()
    assert [log["event"] for log in logs] == ["container_log_gap"]
    container.step()
    assert container.text("stdout") == b"x\n" * (spool.SEGMENT_BYTES // 2)


class TestPump:
    """The log thread takes both kinds."""

    def test_it_waits_for_the_spooler_when_the_container_is_dead(self, container: Container, tmp_path: Path) -> None:
        pump = LogPump(container.store, spools=SpoolDirectories(container.spool))
        pump.request(container.source)
        pump.turn()
        writer = os.open(spool.fifo(str(container.directory), "stdout"), os.O_RDWR)
        os.write(writer, b"last words\n")
        assert pump.drain(ID), "its last words are not in the segments yet"
        container.write(os.read(writer, 100))
        assert pump.drain(ID) is None
        assert container.text("stdout") == b"last words\n"
        os.close(writer)
        pump.close()

    def test_a_terminal_that_could_not_be_spooled_is_told_and_read_from_docker(self, tmp_path: Path) -> None:
        """There is no directory for it below the spool."""
        docker_log = tmp_path / "docker" / "json.log"
        docker_log.parent.mkdir()
        docker_log.write_bytes(b'{"log":"one\\r\\n","stream":"stdout","time":"2026-11-26T20:00:00.5Z"}\n')
        cri_log = tmp_path / "0.log"
        pump = LogPump(PositionStore(tmp_path / "state"))
        source = LogSource(ID, str(docker_log), str(cri_log), True, str(tmp_path / "log-spool"))
        with capture_logs() as logs:
            pump.request(source)
            pump.turn()
        assert [(log["event"], log["container_id"]) for log in logs] == [("container_log_not_spooled", ID)]
        assert parse_line(cri_log.read_bytes()).text == b"one"
        pump.close()

    def test_a_terminal_that_is_spooled_is_read_from_the_spool(self, container: Container) -> None:
        container.write(b"one\r\n" + b"x" * 16384 + b"\r\ntwo")
        container.end()
        pump = LogPump(container.store)
        pump.request(dataclasses.replace(container.source, tty=True))
        pump.turn()
        assert pump.drain(ID) is None
        lines = [parse_line(line) for line in container.cri_log.read_bytes().splitlines(keepends=True)]
        assert [(line.partial, line.text) for line in lines] == [(False, b"one"), (False, b"x" * 16384), (True, b"two")]
        pump.close()

    def test_a_removed_container_leaves_nothing(self, container: Container) -> None:
        container.write(numbered(0, 3))
        pump = LogPump(container.store, spools=SpoolDirectories(container.spool))
        pump.request(container.source)
        pump.turn()
        pump.remove(ID)
        assert not container.directory.exists()
        pump.remove(ID)
        pump.close()

    def test_what_nobody_knows_is_removed(self, container: Container, tmp_path: Path) -> None:
        (container.spool / spool.LOCK).touch()
        (container.spool / "stranger").mkdir()
        pump = LogPump(container.store, spools=SpoolDirectories(container.spool))
        pump.retain([ID])
        assert sorted(entry.name for entry in container.spool.iterdir()) == [ID, spool.LOCK]
        pump.close()
