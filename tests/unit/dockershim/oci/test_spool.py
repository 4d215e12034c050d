"""The spooler and who hands it a container's output: real pipes, real processes, all of which may be killed."""

from __future__ import annotations

import fcntl
import json
import os
import select
import signal
import socket
import struct
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from dockershim import oci
from dockershim.oci import instructions as words
from dockershim.oci import spool, spooler
from dockershim.oci.spooler import EMPTY, ENDED, MOVED, WAITS, Stream

PROGRAM = Path(oci.__file__).with_name("__main__.py")
ID = "c" * 64


def until(condition: Callable[[], bool]) -> None:
    """Poll: the other side is another process."""
    deadline = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < deadline
        select.select([], [], [], 0.005)


class Node:
    """A spool, its spooler, and containers that dockershim-oci starts."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.spool = root / "log-spool"
        self.spool.mkdir()
        self.directory = self.spool / ID
        self.start()

    def start(self) -> None:
        """A spooler that can be reached."""
        command = [sys.executable, "-I", "-S", str(PROGRAM), words.SPOOLER_VERB, str(self.spool)]
        subprocess.run(command, check=True, timeout=20)

    def pid(self) -> int:
        """Of the spooler; 0 when there is none."""
        descriptor, path = spool.reachable(str(self.spool))
        with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as connection:
            try:
                connection.connect(path)
            except OSError:
                return 0
            finally:
                os.close(descriptor)
            pid, _, _ = struct.unpack("3i", connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12))
        return int(pid)

    def kill(self) -> None:
        """The spooler dies."""
        pid = self.pid()
        if pid:
            os.kill(pid, signal.SIGKILL)
            until(lambda: not self.pid())

    def run(self, script: str) -> subprocess.Popen[bytes]:
        """A container whose runtime is a shell script: it writes as it likes. Docker's ends are our pipes."""
        bundle = self.root / "bundle"
        bundle.mkdir(exist_ok=True)
        instruction = {words.VERSION: words.CURRENT_VERSION, words.LOG_SPOOL: str(self.spool)}
        spec = {"process": {}, "linux": {"sysctl": {words.KEY: json.dumps(instruction)}}}
        (bundle / "config.json").write_text(json.dumps(spec))
        runtime = self.root / "runtime"
        runtime.write_text(f"#!/bin/sh\n{script}\n")
        runtime.chmod(0o755)
        command = [sys.executable, "-I", "-S", str(PROGRAM), f"--oci-runtime={runtime}"]
        return subprocess.Popen(
            [*command, "--log", str(self.root / "log"), "create", "--bundle", str(bundle), ID],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )

    def text(self, stream: str = "stdout") -> bytes:
        """All that is in the segments."""
        directory = str(self.directory)
        numbers = spool.segment_numbers(directory, stream) if self.directory.exists() else []
        return b"".join(Path(spool.segment(directory, stream, number)).read_bytes() for number in numbers)

    def has_ended(self) -> bool:
        """The spooler says that nothing comes any more."""
        return not any(os.path.exists(spool.fifo(str(self.directory), stream)) for stream in spool.STREAMS)


@pytest.fixture
def node(tmp_path: Path) -> Iterator[Node]:
    node = Node(tmp_path)
    yield node
    node.kill()


def test_a_containers_output_is_in_the_spool_and_goes_to_docker_too(node: Node) -> None:
    out, err = node.run("echo out; echo err >&2").communicate(timeout=20)
    assert (out, err) == (b"out\n", b"err\n")
    until(node.has_ended)
    assert (node.text(), node.text("stderr")) == (b"out\n", b"err\n")


def test_a_flood_is_whole_in_both(node: Node) -> None:
    out, _ = node.run("exec seq 1 1500000").communicate(timeout=60)
    numbers = b"".join(b"%d\n" % number for number in range(1, 1_500_001))
    assert out == numbers
    until(node.has_ended)
    assert node.text() == numbers
    assert spool.segment_numbers(str(node.directory), "stdout") == [0, 1, 2]


def test_a_docker_that_does_not_read_is_left_behind(node: Node) -> None:
    container = node.run("exec seq 1 1500000")
    until(lambda: container.poll() is not None)
    until(node.has_ended)
    assert node.text() == b"".join(b"%d\n" % number for number in range(1, 1_500_001))
    container.communicate(timeout=20)


def test_a_docker_that_is_gone_costs_nothing(node: Node) -> None:
    container = node.run("read go; exec seq 1 200000")
    assert container.stdin is not None
    assert container.stdout is not None
    assert container.stderr is not None
    container.stdout.close()
    container.stderr.close()
    container.stdin.write(b"go\n")
    container.stdin.close()
    until(lambda: container.poll() is not None)
    until(node.has_ended)
    assert node.text() == b"".join(b"%d\n" % number for number in range(1, 200_001))


def test_a_killed_spooler_loses_nothing(node: Node) -> None:
    container = node.run("for turn in 1 2 3 4 5 6 7 8; do seq 1 100000; done; read go")
    for share in (1, 2, 3):
        until(lambda: len(node.text()) > share * 688_895)  # noqa: B023 # called at once
        node.kill()
        node.start()
    container.communicate(timeout=20)
    until(node.has_ended)
    assert node.text() == b"".join(b"%d\n" % number for number in range(1, 100_001)) * 8


def test_without_a_spooler_no_container_is_made(node: Node) -> None:
    node.kill()
    out, err = node.run("echo out").communicate(timeout=20)
    assert out == b""
    assert b"Connection refused" in err
    assert "Connection refused" in (node.root / "log").read_text()


def test_a_runtime_that_failed_is_tried_once_more(node: Node) -> None:
    failed = node.run("exit 1")
    failed.communicate(timeout=20)
    assert failed.returncode == 1
    assert node.run("echo again").communicate(timeout=20)[0] == b"again\n"
    until(node.has_ended)
    assert node.text() == b"again\n"


def test_there_is_one_spooler(node: Node) -> None:
    before = node.pid()
    node.start()
    assert node.pid() == before


def test_a_spooler_without_a_directory_says_so(node: Node, tmp_path: Path) -> None:
    command = [sys.executable, "-I", "-S", str(PROGRAM), words.SPOOLER_VERB, str(tmp_path / "nowhere")]
    ended = subprocess.run(command, check=False, timeout=20, capture_output=True)
    assert ended.returncode == 1
    assert b"nowhere" in ended.stderr


def test_a_container_that_is_removed_while_it_writes_is_forgotten(node: Node) -> None:
    """Its directory is gone; others are served on."""
    container = node.run("read go; exec seq 1 1500000")
    until(lambda: all((node.directory / f"{stream}.000000").exists() for stream in spool.STREAMS))
    for path in list(node.directory.iterdir()):
        path.unlink()
    node.directory.rmdir()
    out, _ = container.communicate(b"go\n", timeout=20)
    assert out.startswith(b"1\n2\n")
    assert node.run("echo next").communicate(timeout=20)[0] == b"next\n"
    assert node.run("echo next").communicate(timeout=20)[0] == b"next\n"


def test_a_container_that_is_removed_before_it_is_served_is_forgotten(node: Node) -> None:
    os.kill(node.pid(), signal.SIGSTOP)
    pid = node.pid()
    container = node.run("echo gone")
    until(lambda: container.poll() is not None)
    for path in list(node.directory.iterdir()):
        path.unlink()
    node.directory.rmdir()
    os.kill(pid, signal.SIGCONT)
    container.communicate(timeout=20)
    assert node.run("echo next").communicate(timeout=20)[0] == b"next\n"
    assert node.pid() == pid


class TestStream:
    """One stream, moved by hand."""

    @pytest.fixture
    def pipe(self, tmp_path: Path) -> Iterator[tuple[Stream, int]]:
        reading, writing = os.pipe2(os.O_NONBLOCK)
        stream = Stream(str(tmp_path), "stdout", reading)
        yield stream, writing
        stream.close()

    def test_what_became_of_it(self, pipe: tuple[Stream, int], tmp_path: Path) -> None:
        stream, writing = pipe
        assert stream.take() == EMPTY
        os.write(writing, b"one\n")
        assert stream.take() == MOVED
        os.write(writing, b"two\n")
        os.close(writing)
        assert stream.take() == ENDED
        assert (tmp_path / "stdout.000000").read_bytes() == b"one\ntwo\n"

    def test_it_waits_when_nobody_reads_the_segments(
        self, pipe: tuple[Stream, int], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(spool, "SEGMENT_BYTES", 100)
        monkeypatch.setattr(spooler, "AHEAD_SEGMENTS", 3)
        stream, writing = pipe
        os.write(writing, b"x" * 250)
        assert stream.take() == MOVED
        os.write(writing, b"x" * 100)
        assert stream.take() == WAITS
        assert sorted(path.name for path in tmp_path.iterdir()) == [f"stdout.00000{number}" for number in range(3)]
        (tmp_path / "stdout.000000").unlink()
        assert stream.take() == MOVED
        os.close(writing)
        assert stream.take() == ENDED
        assert stream.end == 350

    def test_an_engine_is_stuck_when_it_reads_nothing_and_not_when_nobody_fed_it(
        self, pipe: tuple[Stream, int], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """The spooler was not run for longer than it waits for an engine."""
        monkeypatch.setattr(spooler, "ENGINE_LAG_BYTES", 4)
        monkeypatch.setattr(spooler, "ENGINE_PATIENCE_SECONDS", -1.0)
        stream, writing = pipe
        reading, stream.engine = os.pipe2(os.O_NONBLOCK)
        os.write(writing, b"one\n")
        assert stream.take() == MOVED
        os.write(writing, b"two\n")
        assert stream.take() == WAITS
        stream.feed_engine()
        assert stream.take() == MOVED
        stream.feed_engine()
        assert os.read(reading, 100) == b"one\ntwo\n"
        capacity = fcntl.fcntl(stream.engine, fcntl.F_SETPIPE_SZ, 1)
        os.write(writing, b"x" * (capacity + 4))
        assert stream.take() == MOVED
        stream.feed_engine()
        assert stream.engine_is_stuck
        os.write(writing, b"more\n")
        assert stream.take() == MOVED
        os.close(reading)
        os.close(writing)

    def test_a_full_disk_loses_nothing(self, pipe: tuple[Stream, int], tmp_path: Path) -> None:
        import resource

        stream, writing = pipe
        os.write(writing, b"one\n")
        stream.take()
        os.write(writing, b"two\n")
        before = resource.getrlimit(resource.RLIMIT_FSIZE)
        handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (4, before[1]))
        try:
            with pytest.raises(OSError, match="too large"):
                stream.take()
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, before)
            signal.signal(signal.SIGXFSZ, handler)
        assert stream.take() == MOVED
        os.close(writing)
        assert (tmp_path / "stdout.000000").read_bytes() == b"one\ntwo\n"

    def test_a_segment_that_cannot_be_made_loses_nothing(
        self, pipe: tuple[Stream, int], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(spool, "SEGMENT_BYTES", 4)
        stream, writing = pipe
        os.write(writing, b"one\ntwo\n")
        (tmp_path / "stdout.000001").symlink_to("nowhere")
        with pytest.raises(OSError, match="symbolic links"):
            stream.take()
        (tmp_path / "stdout.000001").unlink()
        assert stream.take() == MOVED
        os.close(writing)
        assert [(tmp_path / f"stdout.00000{number}").read_bytes() for number in (0, 1)] == [b"one\n", b"two\n"]

    def test_another_spooler_goes_on_at_the_end(self, pipe: tuple[Stream, int], tmp_path: Path) -> None:
        stream, writing = pipe
        os.write(writing, b"one\n")
        stream.take()
        other = Stream(str(tmp_path), "stdout", os.dup(stream.fifo))
        os.write(writing, b"two\n")
        assert other.take() == MOVED
        assert (tmp_path / "stdout.000000").read_bytes() == b"one\ntwo\n"
        other.close()
        os.close(writing)
