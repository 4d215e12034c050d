"""A process inside a lab host, seen from outside: started through the host's first process, held by a pidfd.

Owns the client side of hostinit's service. The pid is the one that the machine sees (usable with psutil and /proc).
"""

from __future__ import annotations

import contextlib
import json
import os
import select
import signal
import socket
import subprocess
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.lab.hostinit import MAX_REQUEST_BYTES, SOCKET_NAME


class LabError(Exception):
    """Something in the lab could not be started, did not get ready or ended badly."""


class LabProcess:
    """One running process. Closing it, or losing the owner, kills it."""

    def __init__(
        self,
        root: Path,
        command: Sequence[str],
        *,
        environment: Mapping[str, str],
        directory: str = "/",
        stdin: int,
        stdout: int,
        stderr: int,
        log: Path | None = None,
    ) -> None:
        self.command = tuple(command)
        self.log = log
        self.returncode: int | None = None
        self._connection = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        try:
            self._connection.connect(str(root / SOCKET_NAME))
            request = {"command": list(command), "environment": dict(environment), "directory": directory}
            socket.send_fds(self._connection, [json.dumps(request).encode()], [stdin, stdout, stderr])
            message, descriptors, _, _ = socket.recv_fds(self._connection, MAX_REQUEST_BYTES, 1)
        except OSError as error:
            self._connection.close()
            raise LabError(f"the lab host at {root} does not answer: {error}") from error
        reply: dict[str, Any] = json.loads(message) if message else {"error": "the lab host is gone"}
        if "error" in reply:
            self._connection.close()
            raise LabError(f"{command[0]}: {reply['error']}")
        self.pidfd = descriptors[0]
        self.inner_pid: int = reply["pid"]
        self.pid = _pid_of(self.pidfd)

    def poll(self) -> int | None:
        """The exit code when the process has ended (negative: a signal), else None."""
        return self._receive(0.0)

    def wait(self, timeout_seconds: float | None = None) -> int:
        """Wait for the end; raises subprocess.TimeoutExpired like Popen."""
        code = self._receive(timeout_seconds)
        if code is None:
            raise subprocess.TimeoutExpired(self.command, timeout_seconds or 0.0)
        return code

    def _receive(self, timeout_seconds: float | None) -> int | None:
        if self.returncode is None:
            poll = select.poll()
            poll.register(self._connection, select.POLLIN)
            if not poll.poll(None if timeout_seconds is None else timeout_seconds * 1000):
                return None
            message = b""
            with contextlib.suppress(OSError):
                message = self._connection.recv(MAX_REQUEST_BYTES)
            self.returncode = json.loads(message)["status"] if message else -signal.SIGKILL
            self._connection.close()
            os.close(self.pidfd)
        return self.returncode

    def send_signal(self, number: int) -> None:
        """Signal the process; nothing happens when it has ended."""
        if self.poll() is None:
            with contextlib.suppress(ProcessLookupError):
                signal.pidfd_send_signal(self.pidfd, number)

    def terminate(self) -> None:
        """SIGTERM."""
        self.send_signal(signal.SIGTERM)

    def kill(self) -> None:
        """SIGKILL."""
        self.send_signal(signal.SIGKILL)

    def stop(self, timeout_seconds: float = 10.0) -> int:
        """SIGTERM, then SIGKILL when that did not end it in time."""
        self.terminate()
        try:
            return self.wait(timeout_seconds)
        except subprocess.TimeoutExpired:
            self.kill()
            return self.wait()

    def log_tail(self, lines: int = 30) -> str:
        """The end of its log file."""
        if self.log is None or not self.log.exists():
            return "(no log)"
        return "\n".join(self.log.read_text(errors="replace").splitlines()[-lines:])


@dataclass(frozen=True)
class CriServer:
    """A running process that serves CRI, and the socket it does so on (reachable from outside too)."""

    process: LabProcess
    socket: Path


def _pid_of(pidfd: int) -> int:
    """The pid in the caller's PID namespace."""
    for line in Path(f"/proc/self/fdinfo/{pidfd}").read_text().splitlines():
        if line.startswith("Pid:"):
            return int(line.split()[1])
    raise LabError("the kernel does not tell the pid of a pidfd")


def run(
    root: Path,
    command: Sequence[str],
    *,
    environment: Mapping[str, str],
    directory: str,
    text_input: str,
    timeout_seconds: float,
    check: bool,
) -> subprocess.CompletedProcess[str]:
    """Run a command to its end inside a lab host and return its output, like subprocess.run(capture_output=True)."""
    with tempfile.TemporaryFile() as stdin, tempfile.TemporaryFile() as stdout, tempfile.TemporaryFile() as stderr:
        stdin.write(text_input.encode())
        stdin.seek(0)
        process = LabProcess(
            root,
            command,
            environment=environment,
            directory=directory,
            stdin=stdin.fileno(),
            stdout=stdout.fileno(),
            stderr=stderr.fileno(),
        )
        try:
            code = process.wait(timeout_seconds)
        except BaseException:
            process.kill()
            process.wait()
            raise
        outputs = []
        for stream in (stdout, stderr):
            stream.seek(0)
            outputs.append(stream.read().decode(errors="replace"))
    if check and code:
        raise LabError(f"{' '.join(command)} ended with {code}:\n{outputs[1].strip()}\n{outputs[0].strip()}")
    return subprocess.CompletedProcess(list(command), code, outputs[0], outputs[1])
