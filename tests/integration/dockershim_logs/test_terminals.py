"""The log of a container with a terminal under --spool-logs: whole whoever is killed, and the terminal is one still."""

from __future__ import annotations

import contextlib
import fcntl
import os
import select
import signal
import struct
import subprocess
import termios
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import grpc
import pytest

from cri_proto import runtime_v1 as cri
from tests.integration.dockershim.harness import Shim, eventually
from tests.integration.dockershim.test_user_namespaces import LINUX as USERNS_LINUX
from tests.integration.dockershim.test_user_namespaces import pod_with_user_namespace
from tests.integration.dockershim_logs import test_spool as spooling
from tests.integration.dockershim_logs.test_spool import EXITED, lines_of, touch
from tests.lab.engines.docker import OCI_PROGRAM
from tests.lab.lab import Lab

pytestmark = pytest.mark.lab

EXEC_ROOT = "run/docker/containerd"
SLOW_RUNTIME = """#!/bin/sh
case " $* " in
*" create "*)
    runc "$@" || exit
    [ ! -e {gate}/closed ] || {{ touch {gate}/reached; while [ -e {gate}/closed ]; do sleep 0.02; done; }}
    ;;
*)
    exec runc "$@"
    ;;
esac
"""
"""runc, but `create` does not return while the gate is closed."""
ELSEWHERE = """#!/bin/sh
for word; do
    shift
    case $word in
    /run/docker/runtime-*) word=/run/elsewhere/runtime-runc/moby ;;
    esac
    set -- "$@" "$word"
done
exec {program} "$@"
"""
"""dockershim-oci in an engine that says nothing of its exec-root."""


def program(path: Path, text: str) -> Path:
    path.write_text(text)
    path.chmod(0o755)
    return path


@pytest.fixture(scope="module")
def gate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("gate")


@pytest.fixture(scope="module", params=["20.10", "29"])
def shim(request: pytest.FixtureRequest, gate: Path) -> Iterator[Shim]:
    runtime = program(gate / "slow-runc", SLOW_RUNTIME.format(gate=gate))
    ours = {"path": str(OCI_PROGRAM), "runtimeArgs": [f"--oci-runtime={runtime}"]}
    settings = {"live-restore": True, "runtimes": {"dockershim": ours}}
    with Lab.start(docker=request.param, docker_settings=settings) as lab:
        # a runtime with arguments is a script of Docker's; its name tells dockershim what is behind it
        made = Shim(lab, "dockershim", None, "--spool-logs")
        yield made
        made.remove_all()
        assert sorted(path.name for path in (made.root / "log-spool").iterdir()) == ["spooler.lock", "spooler.sock"]
        made.stop()


def log_of(shim: Shim, container_id: str) -> list[bytes]:
    return [line.text for line in lines_of([Path(shim.status(container_id).log_path)], b"stdout")]


def names_of(shim: Shim, container_id: str) -> list[Path]:
    """Docker's FIFOs of a container, for its output and its input, as the test sees them."""
    return sorted(Path(f"/proc/{shim.lab.pid}/root/{EXEC_ROOT}/{container_id}").glob("*"))


def test_the_name_is_dockers_again_when_the_container_runs(shim: Shim) -> None:
    sandbox = shim.run_sandbox()
    container_id = shim.run(sandbox, "exec sleep 1000", tty=True)
    assert [(path.suffix, path.is_fifo(), path.is_symlink()) for path in names_of(shim, container_id)] == [
        ("", True, False),
        ("", True, False),
    ]
    assert (shim.root / "log-spool" / container_id / "stdout.fifo").is_fifo()
    shim.remove_sandbox(sandbox[0])


def test_five_kills_of_dockerd_lose_and_double_no_line(shim: Shim) -> None:
    spooling.count_through(shim, [spooling.dockerd_dies] * 5, spooling.nothing, tty=True)


def test_five_kills_of_dockershim_lose_and_double_no_line(shim: Shim) -> None:
    spooling.count_through(shim, [spooling.dockershim_dies] * 5, spooling.nothing, tty=True)


def test_kills_of_everything_between_rotations_lose_and_double_no_line(shim: Shim) -> None:
    def rotate(container_id: str, log: Path) -> None:
        log.rename(f"{log}.{len(list(log.parent.iterdir())):03d}")
        shim.runtime.ReopenContainerLog(cri.ReopenContainerLogRequest(container_id=container_id))

    both, one = spooling.both_die, spooling.spooler_dies
    deaths = [both, one, spooling.dockerd_dies, spooling.dockershim_dies, both]
    assert len(spooling.count_through(shim, deaths, rotate, tty=True)) == 6


def test_a_container_that_ends_while_all_are_dead_has_its_last_words_in_the_log(shim: Shim) -> None:
    sandbox = shim.run_sandbox()
    script = "echo first; while [ ! -e /tmp/go ]; do usleep 10000; done; seq 1 20000; printf end"
    container_id = shim.run(sandbox, script, tty=True)
    pid = spooling.pid_of(shim, container_id)
    eventually(lambda: log_of(shim, container_id) == [b"first"])
    shim.kill()
    spooling.kill_docker(shim)
    touch(shim, pid, "/tmp/go")
    eventually(lambda: not Path(f"/proc/{shim.lab.pid}/root/proc/{pid}/root").exists())
    shim.start(wait_ready=False)
    spooling.start_docker(shim)
    eventually(lambda: shim.status(container_id).state == EXITED)
    eventually(lambda: shim.has_whole_log(container_id))
    assert log_of(shim, container_id) == [b"first", *(b"%d" % number for number in range(1, 20001)), b"end"]
    shim.remove_sandbox(sandbox[0])


def test_containers_that_end_at_once_keep_their_last_words(shim: Shim) -> None:
    """In the log and in Docker's own; and the name of Docker's FIFO is gone as without a spool."""
    sandbox = shim.run_sandbox()
    for number in range(10):
        metadata = cri.ContainerMetadata(name=f"short-{number}")
        script = f"seq 1 {100 * number}; echo error >&2; printf end-{number}"
        container_id = shim.run(sandbox, script, tty=True, metadata=metadata, log_path=f"{number}.log")
        shim.wait_state(container_id, EXITED)
        words = [*(str(line) for line in range(1, 100 * number + 1)), "error", f"end-{number}"]
        assert [text.decode() for text in log_of(shim, container_id)] == words
        assert shim.lab.docker.client("logs", container_id).split() == words
        assert names_of(shim, container_id) == []
    shim.remove_sandbox(sandbox[0])


def test_long_lines_are_cut_as_docker_cuts_them(shim: Shim) -> None:
    sandbox = shim.run_sandbox()
    container_id = shim.run(sandbox, "head -c 40000 /dev/zero | tr '\\0' x; echo; echo two", tty=True)
    status = shim.wait_state(container_id, EXITED)
    lines = lines_of([Path(status.log_path)], b"stdout")
    assert [(line.partial, len(line.text)) for line in lines] == [
        (True, 16384),
        (True, 16384),
        (False, 40000 - 2 * 16384),
        (False, 3),
    ]
    shim.remove_sandbox(sandbox[0])


@contextlib.contextmanager
def attached(shim: Shim, container_id: str) -> Iterator[int]:
    """The master of the terminal in which crictl is attached to the container's."""
    master, slave = os.openpty()
    fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", 41, 97, 0, 0))
    command = shim.lab.inside(shim.crictl("attach", "-i", "-t", container_id))
    process = subprocess.Popen(command, stdin=slave, stdout=slave, stderr=slave, start_new_session=True)
    os.close(slave)
    try:
        yield master
    finally:
        process.kill()
        process.wait(10)
        os.close(master)


def ask(master: int, question: bytes, answer: bytes) -> None:
    """Type until the answer comes: who attaches has no prompt that tells when he is there."""
    seen, deadline = b"", time.monotonic() + 30
    while answer not in seen:
        assert time.monotonic() < deadline, f"{answer!r} did not come: {seen!r}"
        os.write(master, question + b"\n")
        while select.select([master], [], [], 0.5)[0]:
            seen += os.read(master, 65536)


def test_attach_has_keys_and_size_and_answers_also_after_dockerd_was_killed(shim: Shim) -> None:
    sandbox = shim.run_sandbox()
    container_id = shim.run(sandbox, "exec sh", tty=True, stdin=True)
    for number in (6, 7):
        with attached(shim, container_id) as master:
            ask(master, b"stty size", b"\n41 97")
            ask(master, b"test -t 1 && echo is-a-$((6*%d))" % number, b"is-a-%d" % (6 * number))
        eventually(lambda: b"is-a-%d" % (6 * number) in log_of(shim, container_id))  # noqa: B023 # called at once
        spooling.dockerd_dies(shim)
    shim.remove_sandbox(sandbox[0])


def test_processes_that_are_added_with_a_terminal_are_not_in_the_log(shim: Shim) -> None:
    sandbox = shim.run_sandbox()
    container_id = shim.run(sandbox, "echo one; exec sleep 1000", tty=True)
    eventually(lambda: log_of(shim, container_id) == [b"one"])
    docker = ["docker", "--host", f"unix://{shim.lab.docker.socket}"]
    master, slave = os.openpty()
    shim.lab.popen([*docker, "exec", "-t", container_id, "echo", "two"], log="exec", stdout=slave, stdin=slave).wait(20)
    os.close(slave)
    assert b"two" in os.read(master, 1000)
    os.close(master)
    assert log_of(shim, container_id) == [b"one"]
    shim.remove_sandbox(sandbox[0])


def test_output_of_a_user_namespace(shim: Shim) -> None:
    sandbox = pod_with_user_namespace(shim)
    container_id = shim.run(sandbox, "echo one > /dev/stdout; echo err >&2", tty=True, linux=USERNS_LINUX)
    shim.wait_state(container_id, EXITED)
    assert log_of(shim, container_id) == [b"one", b"err"]
    assert (shim.root / "log-spool" / container_id).exists()
    shim.remove_sandbox(sandbox[0])


def test_a_dockerd_killed_between_create_and_start_costs_that_start_and_no_more(shim: Shim, gate: Path) -> None:
    """containerd's shim has our FIFO open, and nobody gives the name back. Docker 29 removes task and names with the
    container, 20.10 forgets both."""
    sandbox = shim.run_sandbox()
    container_id = shim.create(sandbox, "echo never", tty=True)
    (gate / "reached").unlink(missing_ok=True)
    (gate / "closed").touch()
    failed: list[grpc.RpcError] = []

    def start() -> None:
        try:
            shim.start_container(container_id)
        except grpc.RpcError as error:
            failed.append(error)

    starting = threading.Thread(target=start)
    starting.start()
    eventually((gate / "reached").exists)
    assert any(path.is_symlink() for path in names_of(shim, container_id))
    dockerd = shim.lab.docker.dockerd
    assert dockerd is not None
    dockerd.send_signal(signal.SIGSTOP)
    (gate / "closed").unlink()
    ours = shim.root / "log-spool" / container_id / "stdout.fifo"
    eventually(lambda: len(holders(shim, ours)) == 2)  # the spooler and containerd's shim
    spooling.dockerd_dies(shim)
    starting.join(60)
    assert failed
    assert shim.status(container_id).state != cri.ContainerState.CONTAINER_RUNNING
    shim.remove_sandbox(sandbox[0])
    assert not ours.parent.exists()
    if shim.lab.docker.version == "29":
        eventually(lambda: not names_of(shim, container_id))
    assert not holders(shim, ours)
    another = shim.run_sandbox()
    container_id = shim.run(another, "echo next", tty=True)
    shim.wait_state(container_id, EXITED)
    assert log_of(shim, container_id) == [b"next"]
    shim.remove_sandbox(another[0])


def holders(shim: Shim, path: Path) -> set[str]:
    """Processes that have a file open, by pid."""
    found = shim.lab.run(["sh", "-c", f"ls -l /proc/[0-9]*/fd 2>/dev/null | grep -B99 {path} || true"], check=False)
    pid, pids = "", set()
    for line in found.stdout.splitlines():
        if line.startswith("/proc/"):
            pid = line.split("/")[2]
        elif line.endswith(str(path)):
            pids.add(pid)
    return pids


def test_where_docker_does_not_tell_its_exec_root_logs_come_from_docker_and_that_is_said(tmp_path: Path) -> None:
    ours = program(tmp_path / "dockershim-oci", ELSEWHERE.format(program=OCI_PROGRAM))
    settings = {"live-restore": True, "runtimes": {"dockershim": {"path": str(ours)}}}
    with Lab.start(docker="20.10", docker_settings=settings) as lab:
        shim = Shim(lab, "dockershim", None, "--spool-logs")
        sandbox = shim.run_sandbox()
        container_id = shim.run(sandbox, "echo one; echo two", tty=True)
        shim.wait_state(container_id, EXITED)
        assert log_of(shim, container_id) == [b"one", b"two"]
        assert not (shim.root / "log-spool" / container_id).exists()
        assert shim.process is not None
        said = [line for line in shim.process.log_tail(1000).splitlines() if "container_log_not_spooled" in line]
        assert [container_id in line for line in said] == [True]
        piped = shim.run(sandbox, "echo three", metadata=cri.ContainerMetadata(name="piped"), log_path="piped.log")
        shim.wait_state(piped, EXITED)
        assert log_of(shim, piped) == [b"three"]
        assert (shim.root / "log-spool" / piped).exists()
        shim.remove_all()
        shim.stop()
