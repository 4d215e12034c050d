"""kill -9 of the process that writes container logs, at random moments in a stream, loses and doubles no line."""

from __future__ import annotations

import os
import random
import re
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from cri_proto.wire.log_line import parse_line

LINES = int(os.environ.get("KUBELET_PY_LOG_LINES", "100000"))
KILLS = 5
REOPENS = 3
MAX_BYTES = 4 << 20
REPOSITORY = Path(__file__).resolve().parents[3]
NUMBER = re.compile(rb"line (\d+) of a container")


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

    def __init__(self, root: Path) -> None:
        self.docker_log = root / "containers" / "c-json.log"
        self.docker_log.parent.mkdir()
        self.cri_log = root / "pods" / "0.log"
        self.state = root / "state"
        self.rotations = 0
        self.follower = self._follow()

    def _follow(self) -> subprocess.Popen[str]:
        process = start("follower_process", self.state, self.docker_log, self.cri_log)
        assert process.stdout is not None
        assert process.stdout.readline() == "following\n"
        return process

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


@pytest.fixture
def stage(tmp_path: Path) -> Iterator[Stage]:
    """A follower on files that do not exist yet."""
    stage = Stage(tmp_path)
    yield stage
    end(stage.follower)


def wait_until(ready: Callable[[], bool]) -> None:
    """Poll: the other side is another process."""
    deadline = time.monotonic() + 120
    while not ready():
        assert time.monotonic() < deadline
        time.sleep(0.001)


def test_no_line_is_lost_or_doubled_by_kills_and_rotations(stage: Stage) -> None:
    seed = random.randrange(1 << 30)
    print(f"seed {seed}")
    chance = random.Random(seed)
    docker = start("docker_process", stage.docker_log, LINES, seed, MAX_BYTES)
    try:
        total_bytes = LINES * 110
        moments = sorted(chance.randrange(total_bytes) for _ in range(KILLS + REOPENS))
        reopens = set(chance.sample(range(KILLS + REOPENS), REOPENS))
        for index, moment in enumerate(moments):
            wait_until(lambda moment=moment: stage.written_bytes() >= moment or docker.poll() is not None)  # type: ignore[misc] # mypy cannot type a lambda with a default
            if index in reopens:
                stage.rotate()
            else:
                stage.kill()
        docker.communicate()
        assert ask(stage.follower, "finish") == "finished"
    finally:
        end(docker)
    numbers = []
    for path in stage.logs():
        with path.open("rb") as file:
            for raw in file:
                line = parse_line(raw)
                found = NUMBER.match(line.text)
                assert found is not None, raw
                numbers.append(int(found[1]))
                assert line.partial == (numbers[-1] % 10 == 9)
                assert line.stream == (b"stderr" if numbers[-1] % 3 == 0 else b"stdout")
    assert numbers == list(range(LINES))
