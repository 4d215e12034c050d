"""A lab host: processes in it, its network from outside, and its end in every way it can come."""

from __future__ import annotations

import os
import select
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.integration.cluster.waiting import holds
from tests.integration.lab.leftovers import Traces
from tests.lab.process import LabError
from tests.lab.sandbox import REPOSITORY, Sandbox

pytestmark = pytest.mark.lab

OWNER = """
import sys
from tests.lab.sandbox import Sandbox
host = Sandbox()
host.run(["mkdir", "-p", "/sys/fs/cgroup/memory/kubepods/pod1", "/sys/fs/cgroup/kubepods"], check=False)
host.popen(["sleep", "1000"], log="sleep")
print(host.root, flush=True)
sys.stdin.read()
"""


@pytest.fixture(scope="module")
def host() -> Iterator[Sandbox]:
    with Sandbox() as running:
        yield running


def test_run_returns_output_and_takes_input(host: Sandbox) -> None:
    done = host.run(["sh", "-c", "cat; echo trouble >&2"], text_input="hello")
    assert (done.stdout, done.stderr, done.returncode) == ("hello", "trouble\n", 0)


def test_a_failing_command_says_what_it_printed(host: Sandbox) -> None:
    with pytest.raises(LabError, match=r"ended with 3:\nwhy"):
        host.run(["sh", "-c", "echo why >&2; exit 3"])
    assert host.run(["false"], check=False).returncode == 1


def test_a_program_that_is_not_there_is_named(host: Sandbox) -> None:
    with pytest.raises(LabError, match="no-such-program"):
        host.run(["no-such-program"])


def test_a_command_that_takes_too_long_is_killed(host: Sandbox) -> None:
    with pytest.raises(subprocess.TimeoutExpired):
        host.run(["sleep", "987654"], timeout_seconds=0.1)
    assert "987654" not in host.run(["ps", "axo", "args"]).stdout


def test_a_process_is_signalled_directly_and_its_status_kept(host: Sandbox) -> None:
    process = host.popen(["sh", "-c", "trap 'echo bye; exit 7' TERM; echo up; sleep 1000 & wait"], log="trap")
    host.wait_until("the trap", lambda: "up" in process.log_tail(), process=process)
    assert Path(f"/proc/{process.pid}/cmdline").read_bytes().startswith(b"sh\0")
    assert process.poll() is None
    assert process.stop() == 7
    assert process.poll() == 7
    assert "bye" in process.log_tail()
    killed = host.popen(["sleep", "1000"], log="sleep")
    killed.kill()
    assert killed.wait(5) == -signal.SIGKILL


def test_a_process_that_ends_before_it_is_ready_is_reported_with_its_log(host: Sandbox) -> None:
    process = host.popen(["sh", "-c", "echo wrong flag; exit 2"], log="early")
    with pytest.raises(LabError, match=r"the thing: sh ended with 2:\nwrong flag"):
        host.wait_until("the thing", lambda: False, process=process)


def test_it_looks_like_a_machine_of_its_own(host: Sandbox) -> None:
    assert host.run(["hostname"]).stdout.strip() == host.name
    assert host.run(["sh", "-c", "echo $PPID"]).stdout.strip() == "1"
    assert host.run(["ls", "/var/lib/docker", "/var/lib/kubelet"]).stdout.split() == [
        "/var/lib/docker:",
        "/var/lib/kubelet:",
    ]
    assert {line.rpartition(":")[2] for line in host.run(["cat", "/proc/self/cgroup"]).stdout.split()} <= {"/", "/init"}
    private = [f"{directory}/lab-only" for directory in ("/etc", "/opt", "/run", "/var/lib", "/var/log")]
    host.run(["sh", "-c", 'for file in "$@"; do echo x > $file; done', "sh", *private])
    assert not any(Path(path).exists() for path in private)
    assert (host.root / "run" / "lab-only").read_text() == "x\n"
    assert host.run(["stat", "-f", "-c", "%T", "/run"]).stdout == "tmpfs\n"


def test_its_cgroups_are_directories_of_the_machine(host: Sandbox) -> None:
    traces = Traces.of(host.root)
    assert traces.state["cgroups"]
    assert all(Path(directory).is_dir() for directory in traces.state["cgroups"])


def test_its_network_is_its_own_and_reachable_from_outside(host: Sandbox) -> None:
    server = host.popen(["socat", "TCP-LISTEN:8080,bind=127.0.0.1,fork", "EXEC:echo from-inside"], log="server")

    def answers() -> bool:
        try:
            with host.connect("127.0.0.1", 8080) as connection:
                return connection.recv(100) == b"from-inside\n"
        except ConnectionRefusedError:
            return False

    host.wait_until("the server", answers, process=server)
    with Sandbox() as other, pytest.raises(ConnectionRefusedError):
        other.connect("127.0.0.1", 8080)


def test_a_host_has_no_mount_of_another(host: Sandbox) -> None:
    with Sandbox(number=2) as other:
        assert str(host.root) not in other.run(["cat", "/proc/self/mountinfo"]).stdout


def test_a_stopped_host_leaves_nothing() -> None:
    with Sandbox() as running:
        running.popen(["sleep", "1000"], log="sleep")
        running.run(["sh", "-c", "mount -t tmpfs x /mnt; setsid sleep 1000 >/dev/null 2>&1 &"])
        traces = Traces.of(running.root)
        assert len(traces.left()) > len(traces.state["cgroups"])
    assert traces.left() == []


def start_owner() -> tuple[subprocess.Popen[str], Traces]:
    owner = subprocess.Popen(
        [sys.executable, "-c", OWNER], cwd=REPOSITORY, text=True, stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    assert owner.stdout is not None
    return owner, Traces.of(Path(owner.stdout.readline().strip()))


def test_a_killed_owner_leaves_nothing() -> None:
    owner, traces = start_owner()
    with owner:
        owner.kill()
    assert traces.wait_for_janitor(30)
    assert traces.left() == []


def test_a_killed_janitor_takes_the_processes_along_and_the_sweep_removes_the_rest() -> None:
    owner, traces = start_owner()
    with owner:
        first = os.pidfd_open(traces.state["first"])
        os.kill(traces.state["janitor"], signal.SIGKILL)
        owner.kill()
    try:
        assert select.select([first], [], [], 30)[0]
    finally:
        os.close(first)
    with Sandbox():
        pass  # starting any lab sweeps, unless another test's sweep is at it

    def nothing() -> None:
        assert traces.left() == []

    holds(nothing, within_seconds=30)
