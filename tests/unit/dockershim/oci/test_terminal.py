"""The output of a container with a terminal: real FIFOs, opened as dockerd and containerd's shim open them."""

from __future__ import annotations

import contextlib
import json
import os
import select
import signal
import stat
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from dockershim.oci import instructions as words
from dockershim.oci import spool, terminal
from tests.unit.dockershim.oci.test_spool import ID, PROGRAM, Node, until

CHECKOUT_PROGRAM = PROGRAM.parents[2] / "deploy" / words.PROGRAM
PROGRAMS = [[sys.executable, "-I", "-S", str(PROGRAM)], [str(CHECKOUT_PROGRAM)]]
NAMES = ["init-stdout", f"{ID}-stdout"]
"""In Docker 20.10 and 29."""


class Engine(Node):
    """A Docker whose exec-root is ours, with one container that has a terminal."""

    def __init__(self, root: Path, program: list[str], name: str) -> None:
        super().__init__(root)
        self.program = program
        self.bundle = root / "bundle"
        self.bundle.mkdir()
        self.fifo = root / "exec" / "containerd" / ID / name
        self.fifo.parent.mkdir(parents=True)
        os.mkfifo(self.fifo, 0o700)
        self.inode = self.fifo.stat().st_ino
        self.runtime = root / "runtime"
        self.runtime_does("")
        self.dockerd = self.open_as_dockerd()
        self.shim: list[int] = []

    def runtime_does(self, script: str) -> None:
        """What the real OCI runtime is."""
        self.runtime.write_text(f"#!/bin/sh\n{script}\n")
        self.runtime.chmod(0o755)

    def open_as_dockerd(self) -> int:
        """By its name: at the start of a container, and when dockerd itself starts."""
        return os.open(self.fifo, os.O_RDONLY | os.O_NONBLOCK)

    def call(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """As containerd's shim does it for Docker."""
        options = ["--root", str(self.root / "exec" / "runtime-runc" / "moby"), "--log", str(self.root / "log")]
        command = [*self.program, f"--oci-runtime={self.runtime}", *options, *arguments]
        return subprocess.run(command, text=True, capture_output=True, check=False, timeout=20)

    def create(self) -> subprocess.CompletedProcess[str]:
        """The container is made."""
        instruction = {words.VERSION: words.CURRENT_VERSION, words.TERMINAL_SPOOL: str(self.spool)}
        spec = {"process": {"terminal": True}, "linux": {"sysctl": {words.KEY: json.dumps(instruction)}}}
        (self.bundle / "config.json").write_text(json.dumps(spec))
        return self.call("create", "--bundle", str(self.bundle), "--console-socket", "/c", ID)

    def open_as_shim(self) -> None:
        """For writing, then for reading, by its name."""
        self.shim = [os.open(self.fifo, os.O_WRONLY), os.open(self.fifo, os.O_RDONLY)]

    def run_container(self) -> None:
        """Create, start."""
        assert self.create().returncode == 0
        self.open_as_shim()
        assert self.call("start", ID).returncode == 0

    def end_container(self) -> None:
        """The shim has copied all and closes."""
        for end in self.shim:
            os.close(end)
        self.shim = []

    def is_dockers(self) -> bool:
        """The name leads to Docker's own FIFO."""
        found = self.fifo.lstat()
        return stat.S_ISFIFO(found.st_mode) and found.st_ino == self.inode

    def names(self) -> list[str]:
        """What lies beside it."""
        return sorted(path.name for path in self.fifo.parent.iterdir())

    def copy(self, size: int) -> bytes:
        """So much of what dockerd gets."""
        data = b""
        while len(data) < size:
            assert select.select([self.dockerd], [], [], 20)[0]
            piece = os.read(self.dockerd, size - len(data))
            if not piece:
                break
            data += piece
        return data


@pytest.fixture(params=zip(PROGRAMS, NAMES, strict=True), ids=["python", "sh"])
def engine(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Engine]:
    engine = Engine(tmp_path, *request.param)
    yield engine
    engine.end_container()
    os.close(engine.dockerd)
    engine.kill()


def test_the_shim_writes_into_the_spool_and_docker_has_a_copy(engine: Engine) -> None:
    assert engine.create().returncode == 0
    assert not engine.is_dockers()
    engine.open_as_shim()
    assert engine.call("start", ID).returncode == 0
    assert engine.is_dockers()
    assert engine.names() == [engine.fifo.name]
    os.write(engine.shim[0], b"one\r\n")
    assert engine.copy(5) == b"one\r\n"
    os.write(engine.shim[0], b"end")
    engine.end_container()
    until(engine.has_ended)
    assert engine.text() == b"one\r\nend"
    assert engine.copy(100) == b"end", "and then the end, at which dockerd closes its log"


def test_a_dockerd_that_restarts_reads_on(engine: Engine) -> None:
    engine.run_container()
    os.close(engine.dockerd)
    os.write(engine.shim[0], b"while it was away\r\n")
    until(lambda: engine.text() == b"while it was away\r\n")
    engine.dockerd = engine.open_as_dockerd()
    assert engine.copy(19) == b"while it was away\r\n"


def test_a_killed_spooler_loses_nothing(engine: Engine) -> None:
    engine.run_container()
    written = b""
    for turn in range(3):
        written += b"%d\r\n" % turn * 10_000
        pid = engine.pid()
        os.kill(pid, signal.SIGKILL)
        until(lambda: not engine.pid())
        os.write(engine.shim[0], b"%d\r\n" % turn * 10_000)
        engine.start()
        until(lambda: engine.text() == written)  # noqa: B023 # called at once
    engine.end_container()
    until(engine.has_ended)
    assert engine.text() == written


def test_a_spooler_that_dies_between_create_and_start_is_waited_for(engine: Engine) -> None:
    """The shim's open finds no reader until there is another one."""
    assert engine.create().returncode == 0
    engine.kill()
    script = "import os, sys; os.write(os.open(sys.argv[1], os.O_WRONLY), b'late')"
    shim = subprocess.Popen([sys.executable, "-c", script, str(engine.fifo)])
    engine.start()
    assert shim.wait(20) == 0
    until(engine.has_ended)
    assert engine.text() == b"late"


def test_without_a_spooler_no_container_is_made_and_no_name_is_touched(engine: Engine) -> None:
    engine.kill()
    failed = engine.create()
    assert failed.returncode == 1
    assert "Connection refused" in (engine.root / "log").read_text()
    assert engine.is_dockers()
    assert engine.names() == [engine.fifo.name]


def test_where_docker_has_no_such_fifo_all_is_as_without(engine: Engine) -> None:
    """dockershim sees it by the directory that is not there."""
    engine.fifo.rename(engine.root / "elsewhere")
    engine.runtime_does('echo "$@"')
    done = engine.create()
    assert done.returncode == 0
    assert "create --bundle" in done.stdout
    assert not engine.directory.exists()
    assert engine.names() == []
    assert engine.call("start", ID).returncode == 0


@pytest.mark.parametrize("left", [[], [terminal.ASIDE], [terminal.ASIDE, ".new"]])
def test_a_start_that_failed_or_was_killed_is_made_again(engine: Engine, left: list[str]) -> None:
    """Docker removes the names and makes its FIFO anew; what a killed wrapper left beside it is nobody's."""
    engine.runtime_does("exit 7")
    assert engine.create().returncode == 7
    os.close(engine.dockerd)
    for path in engine.fifo.parent.iterdir():
        path.unlink()
    os.mkfifo(engine.fifo)
    for suffix in left:
        Path(f"{engine.fifo}{suffix}").symlink_to("nowhere")
    engine.inode, engine.dockerd = engine.fifo.stat().st_ino, engine.open_as_dockerd()
    engine.runtime_does("")
    engine.run_container()
    os.write(engine.shim[0], b"again")
    assert engine.copy(5) == b"again"
    assert engine.names() == [engine.fifo.name]
    engine.end_container()
    until(engine.has_ended)
    assert engine.text() == b"again"


def test_a_name_that_is_still_ours_is_refused(engine: Engine) -> None:
    """dockerd would have opened ours, and would take bytes away from the spooler."""
    assert engine.create().returncode == 0
    again = engine.create()
    assert again.returncode == 1
    assert "start once more" in again.stderr


def test_a_container_that_never_started_is_forgotten_when_it_is_removed(engine: Engine) -> None:
    """Nobody ever wrote, so no event tells of its end; the next container does."""
    engine.runtime_does("exit 7")
    engine.create()
    fifo = f"/proc/{engine.pid()}/fd"
    held = str(engine.directory)

    def holds() -> bool:
        for name in os.listdir(fifo):
            with contextlib.suppress(FileNotFoundError):  # closed since it was listed
                if os.readlink(f"{fifo}/{name}").startswith(held):
                    return True
        return False

    until(holds)
    until(lambda: (engine.directory / "stdout.000000").exists())
    for path in list(engine.directory.iterdir()):
        path.unlink()
    engine.directory.rmdir()
    spool.hand_over(str(engine.spool), "d" * 64, [])
    until(lambda: not holds())
