"""A follower in a process of its own that can be killed, on the log files of one container."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[3]


def start(module: str, *arguments: object) -> subprocess.Popen[str]:
    """A process of this test."""
    return subprocess.Popen(
        [sys.executable, "-m", f"tests.integration.dockershim_logs.{module}", *map(str, arguments)],
        cwd=REPOSITORY,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )


def ask(process: subprocess.Popen[str], command: str) -> str:
    """A command to the follower, and its answer."""
    assert process.stdin is not None
    assert process.stdout is not None
    process.stdin.write(command + "\n")
    process.stdin.flush()
    return process.stdout.readline().strip()


def end(process: subprocess.Popen[str]) -> None:
    """Kill and reap it."""
    process.kill()
    process.communicate()


class Stage:
    """The files, and the two processes on them."""

    def __init__(self, root: Path, docker_log: Path) -> None:
        self.docker_log = docker_log
        self.cri_log = root / "pods" / "0.log"
        self.state = root / "state"
        self.rotations = 0
        self.follower = self._follow()

    def _follow(self) -> subprocess.Popen[str]:
        process = start("follower_process", self.state, self.docker_log, self.cri_log)
        assert process.stdout is not None
        assert process.stdout.readline() == "following\n"
        return process

    def stop(self) -> None:
        """The follower dies."""
        end(self.follower)

    def kill(self) -> None:
        """The follower dies, and a new one goes on."""
        end(self.follower)
        self.follower = self._follow()

    def rotate(self) -> None:
        """What the kubelet does with a log that has grown."""
        self.rotations += 1
        self.cri_log.rename(f"{self.cri_log}.{self.rotations:04d}")
        assert ask(self.follower, "reopen") == "reopened"

    def logs(self) -> list[Path]:
        """The log files, the oldest first."""
        return [*sorted(self.cri_log.parent.glob("0.log.*")), self.cri_log]

    def written_bytes(self) -> int:
        """How long the log is by now."""
        return sum(path.stat().st_size for path in self.logs() if path.exists())


def wait_until(ready: Callable[[], bool]) -> None:
    """Poll: the other side is another process."""
    deadline = time.monotonic() + 120
    while not ready():
        assert time.monotonic() < deadline
        time.sleep(0.001)
