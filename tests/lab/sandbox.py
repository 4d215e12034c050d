"""A lab host: private mount, network, PID, UTS, IPC and cgroup namespaces that feel like a machine of their own.

Owns the life of the host as the test process sees it (start, run, stop) and the sockets into its network. What is
inside: an own /proc, /sys, /run, cgroup hierarchies, writable copies of /etc, /opt, /var/lib and /var/log, lo and a
bridge `lab0` that holds the node address. /tmp, /root and the rest are the machine's. Unix sockets below `root` are
reachable from outside.
"""

from __future__ import annotations

import fcntl
import json
import os
import secrets
import select
import shutil
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import IO, Self

from tests.lab import janitor, kernel, process
from tests.lab.paths import labs_dir
from tests.lab.process import LabError, LabProcess
from tests.lab.progress import say

REPOSITORY = Path(__file__).resolve().parents[2]
NODE_PREFIX_LENGTH = 24
START_WITHIN_SECONDS = 30.0
BASE_PATH = "/usr/local/sbin:/usr/sbin:/sbin:/usr/bin:/bin"

NETWORK_SCRIPT = """
ip link set lo up
ip link add lab0 type bridge
ip addr add "$1" dev lab0
ip link set lab0 up
echo 1 > /proc/sys/net/ipv4/ip_forward
echo 1 > /proc/sys/net/ipv4/conf/all/route_localnet
iptables -w -A FORWARD -m comment --comment 'lab: accept, also when dockerd sets the policy to DROP' -j ACCEPT
"""


class Sandbox:
    """A running lab host. Use it as a context manager, or call `stop`; it stops by itself when this process dies."""

    def __init__(self, name: str | None = None, number: int = 1) -> None:
        """Start a lab host. Hosts that `join` each other need different numbers, from 1 to 20."""
        sweep()
        self.id = secrets.token_hex(4)
        self.name = name or f"lab-{self.id}"
        self.root = labs_dir() / self.id
        self.logs = self.root / "log"
        self.node_address = f"10.200.0.{10 * number - 9}"
        self.pod_network = f"10.201.{number}.0/24"
        self.environment: dict[str, str] = {
            "PATH": BASE_PATH,
            "HOME": os.environ.get("HOME", "/root"),
            "LANG": "C.UTF-8",
            "TERM": os.environ.get("TERM", "dumb"),
        }
        self._processes: list[LabProcess] = []
        self._at_stop: list[Callable[[], None]] = []
        labs_dir().mkdir(parents=True, exist_ok=True)
        request = {"root": str(self.root), "name": self.name, "cgroup": f"lab-{self.id}", "owner": os.getpid()}
        self._janitor = subprocess.Popen(
            [sys.executable, "-S", "-m", "tests.lab.janitor", json.dumps(request)],
            cwd=REPOSITORY,
            env={**self.environment, "PYTHONDONTWRITEBYTECODE": "1"},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            start_new_session=True,
        )
        try:
            self.pid = self._await_ready()
            self.logs.mkdir()
            self._set_up_network()
        except BaseException:
            self.stop()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def _await_ready(self) -> int:
        output: IO[bytes] | None = self._janitor.stdout
        assert output is not None
        readable, _, _ = select.select([output], [], [], START_WITHIN_SECONDS)
        line = output.readline() if readable else b""
        reply = json.loads(line) if line else {"error": f"no answer within {START_WITHIN_SECONDS:.0f} s"}
        if "error" in reply:
            raise LabError(f"the lab host did not start: {reply['error']}")
        return int(reply["pid"])

    def _set_up_network(self) -> None:
        self.run(["sh", "-ec", NETWORK_SCRIPT, "sh", f"{self.node_address}/{NODE_PREFIX_LENGTH}"])
        self.add_host_names(self.node_address, self.name)

    def join(self, other: Sandbox) -> None:
        """Connect two hosts: their bridges become one network, and their pods reach each other."""
        ours, theirs = f"to-{other.id}", f"to-{self.id}"
        peer = ["peer", "name", theirs, "netns", str(other.pid)]
        link = ["nsenter", f"--net=/proc/{self.pid}/ns/net", "ip", "link", "add", ours, "type", "veth", *peer]
        subprocess.run(link, check=True)
        for host, device, remote in ((self, ours, other), (other, theirs, self)):
            host.run(["ip", "link", "set", device, "master", "lab0", "up"])
            host.run(["ip", "route", "add", remote.pod_network, "via", remote.node_address])
            host.add_host_names(remote.node_address, remote.name)

    def add_host_names(self, address: str, *names: str) -> None:
        """Add a line to the lab's /etc/hosts."""
        self.run(["sh", "-c", 'echo "$@" >> /etc/hosts', "sh", address, *names])

    def run(
        self,
        command: Sequence[str | os.PathLike[str]],
        *,
        check: bool = True,
        text_input: str = "",
        timeout_seconds: float = 120.0,
        environment: Mapping[str, str] | None = None,
        directory: str | os.PathLike[str] = "/",
    ) -> subprocess.CompletedProcess[str]:
        """Run a command inside to its end; raises LabError with its output when it fails and `check` is set."""
        return process.run(
            self.root,
            [os.fspath(word) for word in command],
            environment={**self.environment, **(environment or {})},
            directory=os.fspath(directory),
            text_input=text_input,
            timeout_seconds=timeout_seconds,
            check=check,
        )

    def popen(
        self,
        command: Sequence[str | os.PathLike[str]],
        *,
        log: str,
        environment: Mapping[str, str] | None = None,
        directory: str | os.PathLike[str] = "/",
        stdin: int | None = None,
        stdout: int | None = None,
        stderr: int | None = None,
    ) -> LabProcess:
        """Start a process inside. What it prints goes to `logs/<log>.log`, unless file descriptors are given."""
        path = self.logs / f"{log}.log"
        with path.open("ab") as sink, open("/dev/null", "rb") as nothing:
            started = LabProcess(
                self.root,
                [os.fspath(word) for word in command],
                environment={**self.environment, **(environment or {})},
                directory=os.fspath(directory),
                stdin=nothing.fileno() if stdin is None else stdin,
                stdout=sink.fileno() if stdout is None else stdout,
                stderr=sink.fileno() if stderr is None else stderr,
                log=path,
            )
        self._processes.append(started)  # a process that nobody refers to would be closed, and so killed
        return started

    def inside(self, command: Sequence[str]) -> list[str]:
        """The same command as one that a program outside can start itself."""
        return enter_command(self.pid, command)

    def make_socket(self, family: int = socket.AF_INET, kind: int = socket.SOCK_STREAM) -> socket.socket:
        """A socket that lives in the lab's network, for a client or server that runs outside."""
        made: list[socket.socket] = []
        trouble: list[BaseException] = []

        def make() -> None:  # setns moves this thread only, and the thread ends here
            try:
                with open(f"/proc/{self.pid}/ns/net", "rb") as namespace:
                    kernel.set_namespace(namespace.fileno(), kernel.CLONE_NEWNET)
                made.append(socket.socket(family, kind))
            except BaseException as error:
                trouble.append(error)

        thread = threading.Thread(target=make, name=f"lab-{self.id}-socket")
        thread.start()
        thread.join()
        if trouble:
            raise trouble[0]
        return made[0]

    def connect(self, host: str, port: int, timeout_seconds: float = 10.0) -> socket.socket:
        """A TCP connection to a port inside, made from outside."""
        connection = self.make_socket()
        connection.settimeout(timeout_seconds)
        try:
            connection.connect((host, port))
        except OSError:
            connection.close()
            raise
        return connection

    def wait_until(
        self,
        what: str,
        ready: Callable[[], bool],
        *,
        process: LabProcess | None = None,
        timeout_seconds: float = 60.0,
    ) -> None:
        """Poll until `ready` says so; fails at once when the process that should become ready ends."""
        deadline = time.monotonic() + timeout_seconds
        while not ready():
            if process is not None and process.poll() is not None:
                raise LabError(f"{what}: {process.command[0]} ended with {process.returncode}:\n{process.log_tail()}")
            if time.monotonic() > deadline:
                tail = f":\n{process.log_tail()}" if process else ""
                raise LabError(f"{what}: not ready after {timeout_seconds:.0f} s{tail}")
            time.sleep(0.02)

    def accepts(self, path: Path) -> bool:
        """Whether somebody listens on a Unix socket."""
        with socket.socket(socket.AF_UNIX) as probe:
            try:
                probe.connect(str(path))
            except OSError:
                return False
        return True

    def at_stop(self, action: Callable[[], None]) -> None:
        """Do this when the lab stops in order, the latest first; a crash of the owner skips it."""
        self._at_stop.append(action)

    def stop(self) -> None:
        """End everything inside and remove what is left. Returns when nothing is."""
        while self._at_stop:
            self._at_stop.pop()()
        keep = os.environ.get("KUBELET_PY_LAB_LOGS")
        if keep and self.logs.is_dir():
            shutil.copytree(self.logs, Path(keep) / self.id, dirs_exist_ok=True)
        if self._janitor.stdin:
            self._janitor.stdin.close()
        if self._janitor.wait():
            say(f"lab {self.id} left something behind")
        if self._janitor.stdout:
            self._janitor.stdout.close()
        for started in self._processes:
            started.poll()  # all are dead: this closes their descriptors


def enter_command(first_process: int, command: Sequence[str]) -> list[str]:
    """A command for the terminal of a person: by nsenter, so in the lab's namespaces but not in its cgroups."""
    namespaces = ["--mount", "--net", "--pid", "--uts", "--ipc", "--cgroup"]
    return ["nsenter", "--target", str(first_process), *namespaces, "--wd=/", "--", *command]


def sweep() -> list[str]:
    """Remove what labs left whose owner and janitor are dead. Returns their ids."""
    swept = []
    for root in sorted(labs_dir().glob("*")) if labs_dir().is_dir() else ():
        try:
            if not (root / janitor.STATE_NAME).exists():  # its janitor does not hold the lock yet, or never will
                if time.time() - root.stat().st_mtime > START_WITHIN_SECONDS:
                    shutil.rmtree(root, ignore_errors=True)
                continue
            lock = os.open(root / janitor.LOCK_NAME, os.O_RDWR | os.O_CLOEXEC)
        except FileNotFoundError:
            continue  # removed meanwhile
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            directories = json.loads((root / janitor.STATE_NAME).read_text())["cgroups"]
            for left in janitor.remove(root, directories):
                say(f"sweep: {left} is still there")
            swept.append(root.name)
        except (BlockingIOError, FileNotFoundError):
            pass  # its janitor or its first process lives, or another sweep was faster
        finally:
            os.close(lock)
    return swept
