"""The process and its manager: a passed socket, readiness, and no Docker in sight."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import grpc
import pytest

from cri_proto import runtime_v1 as cri
from cri_proto.runtime_v1 import api_pb2_grpc
from tests.integration.dockershim.harness import eventually
from tests.lab.sandbox import REPOSITORY

ACTIVATE = """
import os, sys
os.dup2(int(sys.argv[1]), 3)
os.set_inheritable(3, True)
os.environ["LISTEN_PID"], os.environ["LISTEN_FDS"] = str(os.getpid()), "1"
os.execv(sys.executable, [sys.executable, "-m", "dockershim", *sys.argv[2:]])
"""


class Manager:
    """Does what systemd does: holds the socket, listens for READY=1, starts again."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.path = root / "cri.sock"
        self.listener = socket.socket(socket.AF_UNIX)
        self.listener.bind(str(self.path))
        self.listener.listen()
        self.notifications = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.notifications.bind(str(root / "notify"))
        self.notifications.settimeout(30)
        self.process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        flags = [
            f"--container-runtime-endpoint=unix://{self.path}",
            f"--docker-endpoint=unix://{self.root}/no-docker.sock",
            f"--root-directory={self.root}/state",
            f"--cni-conf-dir={self.root}",
            f"--cni-cache-dir={self.root}/cache",
            "--network-plugin=cni",
        ]
        descriptor = self.listener.fileno()
        self.process = subprocess.Popen(
            [sys.executable, "-c", ACTIVATE, str(descriptor), *flags],
            cwd=REPOSITORY,
            env={**os.environ, "NOTIFY_SOCKET": str(self.root / "notify"), "WATCHDOG_USEC": "200000"},
            pass_fds=[descriptor],
        )

    def hear(self, wanted: str) -> None:
        while wanted not in self.notifications.recv(4096).decode():
            pass

    def stop(self) -> None:
        if self.process is not None:
            self.process.send_signal(signal.SIGTERM)
            assert self.process.wait(20) == 0
        self.listener.close()
        self.notifications.close()


@pytest.fixture
def manager(tmp_path: Path) -> Iterator[Manager]:
    made = Manager(tmp_path)
    made.start()
    yield made
    made.stop()


def test_a_passed_socket_outlives_the_process(manager: Manager) -> None:
    """READY=1 and the watchdog are sent; callers that come while dockershim is replaced wait and are answered."""
    manager.hear("READY=1")
    manager.hear("WATCHDOG=1")
    with grpc.insecure_channel(f"unix://{manager.path}") as channel:
        stub = api_pb2_grpc.RuntimeServiceStub(channel)
        assert stub.Version(cri.VersionRequest(), timeout=10).runtime_name == "docker"
        assert manager.process is not None
        manager.process.kill()
        manager.process.wait(10)
        manager.start()
        eventually(lambda: stub.Version(cri.VersionRequest(), timeout=20).runtime_name == "docker")

        def runtime_ready() -> cri.RuntimeCondition:
            found: cri.RuntimeCondition = stub.Status(cri.StatusRequest(), timeout=10).status.conditions[0]
            return found

        eventually(lambda: "no-docker.sock" in runtime_ready().message)
        assert not runtime_ready().status
