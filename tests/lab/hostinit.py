"""The first process of a lab host (its PID 1): prepares the namespaces, then starts what it is asked to.

Owns the lab's mounts and the service on `init.sock`: one connection is one process. The client sends the command with
three file descriptors; it gets the process' pidfd, and the exit status when the process ends. Closing the connection
earlier kills the process. Processes are children of this one, so they have the lab's namespaces and cgroups without
any nsenter. Knows nothing of engines. Standard library only.
"""

from __future__ import annotations

import contextlib
import json
import os
import selectors
import signal
import socket
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.lab import cgroups, kernel

OVERLAID = ("/etc", "/opt", "/var/lib", "/var/log")
"""Directories whose changes stay in the lab, on top of what the machine has."""
PRIVATE = (
    "/var/lib/docker", "/var/lib/containerd", "/var/lib/kubelet", "/var/lib/dockershim", "/var/lib/cni",
    "/var/lib/etcd", "/var/lib/calico", "/var/log/pods", "/var/log/containers",
)  # fmt: skip
"""Directories that are empty in a new lab and lie on a real filesystem (overlay2 does not stack on an overlay)."""
SOCKET_NAME = "init.sock"
MAX_REQUEST_BYTES = 1 << 20


def prepare(root: Path, name: str, hierarchies: tuple[cgroups.Hierarchy, ...]) -> None:
    """Make the namespaces of the calling process, which is already the first of its PID namespace."""
    cgroups.enter(hierarchies)
    kernel.unshare(
        kernel.CLONE_NEWNS
        | kernel.CLONE_NEWNET
        | kernel.CLONE_NEWUTS
        | kernel.CLONE_NEWIPC
        | (kernel.CLONE_NEWCGROUP if hierarchies else 0)
    )
    kernel.sethostname(name)
    kernel.mount("none", "/", flags=kernel.MS_REC | kernel.MS_PRIVATE)
    nothing = kernel.MS_NOSUID | kernel.MS_NODEV | kernel.MS_NOEXEC
    for target, kind in (("/proc", "proc"), ("/sys", "sysfs")):
        kernel.detach(target)
        kernel.mount(kind, target, kind, nothing)
    _forget_other_labs(root)
    kernel.mount("tmpfs", "/dev/shm", "tmpfs", kernel.MS_NOSUID | kernel.MS_NODEV)
    if hierarchies:
        cgroups.mount_inside(hierarchies)
    for directory in OVERLAID:
        _overlay(root, directory)
    for directory in PRIVATE:
        _bind(root / "data" / directory.lstrip("/").replace("/", "-"), directory)
    _bind(root / "run", "/run")
    Path("/run/lock").mkdir(exist_ok=True)
    Path("/opt/cni").mkdir(exist_ok=True)
    if not Path("/opt/cni/bin").exists():
        Path("/opt/cni/bin").symlink_to("/usr/lib/cni")
    Path("/etc/hostname").write_text(f"{name}\n")
    Path("/etc/hosts").unlink(missing_ok=True)
    Path("/etc/hosts").write_text(f"127.0.0.1 localhost\n127.0.1.1 {name}\n")
    Path("/etc/resolv.conf").unlink(missing_ok=True)
    Path("/etc/resolv.conf").write_text("search lab.invalid\nnameserver 10.200.0.1\n")  # nobody answers there
    kernel.mount("none", "/", flags=kernel.MS_REC | kernel.MS_SHARED)


def _forget_other_labs(root: Path) -> None:
    """Their /run is the machine's mount. A copy of it would go when they end, in the middle of what runs here."""
    for line in Path("/proc/self/mountinfo").read_text().splitlines():
        point = Path(line.split()[4])
        if point.is_relative_to(root.parent) and not point.is_relative_to(root):
            with contextlib.suppress(OSError):  # it has just ended
                kernel.detach(str(point))


def _overlay(root: Path, directory: str) -> None:
    layers = root / "overlay" / directory.lstrip("/").replace("/", "-")
    for part in ("upper", "work"):
        (layers / part).mkdir(parents=True)
    (layers / "upper").chmod(0o755)
    kernel.mount(
        "overlay", directory, "overlay", 0, f"lowerdir={directory},upperdir={layers}/upper,workdir={layers}/work"
    )


def _bind(source: Path, target: str) -> None:
    source.mkdir(parents=True, exist_ok=True)
    Path(target).mkdir(parents=True, exist_ok=True)
    kernel.mount(str(source), target, flags=kernel.MS_BIND)


@dataclass
class _Child:
    """A process that somebody waits for."""

    pid: int
    connection: socket.socket


class Service:
    """Starts processes on request and reaps every process of the lab."""

    def __init__(self, root: Path) -> None:
        self._selector = selectors.DefaultSelector()
        self._children: dict[int, _Child] = {}
        self._listener = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._listener.bind(str(root / SOCKET_NAME))
        self._listener.listen(64)
        self._wakeup, wakeup_writer = socket.socketpair()
        for end in (self._wakeup, wakeup_writer):
            end.setblocking(False)
        self._wakeup_writer = wakeup_writer
        signal.signal(signal.SIGCHLD, lambda *_: None)
        signal.set_wakeup_fd(wakeup_writer.fileno(), warn_on_full_buffer=False)
        self._selector.register(self._listener, selectors.EVENT_READ, self._accept)
        self._selector.register(self._wakeup, selectors.EVENT_READ, self._drain_wakeup)

    def serve(self) -> None:
        """Run until killed; the end of this process is the end of every process in the lab."""
        while True:
            self._reap()
            for key, _ in self._selector.select():
                key.data(key.fileobj)

    def _drain_wakeup(self, wakeup: socket.socket) -> None:
        with contextlib.suppress(BlockingIOError):
            while wakeup.recv(4096):
                pass

    def _accept(self, listener: socket.socket) -> None:
        connection, _ = listener.accept()
        self._selector.register(connection, selectors.EVENT_READ, self._request)

    def _request(self, connection: socket.socket) -> None:
        try:
            message, descriptors, _, _ = socket.recv_fds(connection, MAX_REQUEST_BYTES, 3)
        except OSError:
            message, descriptors = b"", []
        try:
            child = next((child for child in self._children.values() if child.connection is connection), None)
            if not message:
                self._forget(connection, child)
            elif child is None:
                self._start(connection, json.loads(message), descriptors)
        finally:
            for descriptor in descriptors:
                os.close(descriptor)

    def _forget(self, connection: socket.socket, child: _Child | None) -> None:
        if child is not None:
            del self._children[child.pid]
            with contextlib.suppress(ProcessLookupError):
                os.killpg(child.pid, signal.SIGKILL)
        self._selector.unregister(connection)
        connection.close()

    def _start(self, connection: socket.socket, request: dict[str, Any], descriptors: list[int]) -> None:
        try:
            process = subprocess.Popen(
                request["command"],
                stdin=descriptors[0],
                stdout=descriptors[1],
                stderr=descriptors[2],
                env=request["environment"],
                cwd=request["directory"],
                start_new_session=True,
            )
        except (OSError, ValueError) as error:
            connection.send(json.dumps({"error": str(error)}).encode())
            self._forget(connection, None)
            return
        process.returncode = 0  # reaped in _reap, not by the Popen object
        self._children[process.pid] = _Child(process.pid, connection)
        pidfd = os.pidfd_open(process.pid)
        try:
            socket.send_fds(connection, [json.dumps({"pid": process.pid}).encode()], [pidfd])
        except OSError:
            pass  # the client is gone: its connection reads as closed next
        finally:
            os.close(pidfd)

    def _reap(self) -> None:
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return
            if pid == 0:
                return
            child = self._children.pop(pid, None)
            if child is not None:
                with contextlib.suppress(OSError):
                    child.connection.send(json.dumps({"status": os.waitstatus_to_exitcode(status)}).encode())
                self._selector.unregister(child.connection)
                child.connection.close()
