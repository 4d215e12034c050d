"""kill -9 of the process that writes container logs, at random moments in a stream, loses and doubles no line."""

from __future__ import annotations

import os
import random
import re
import subprocess
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest

from cri_proto.wire.log_line import parse_line
from tests.integration.dockershim_logs.stage import Stage, ask, end, start, wait_until

LINES = int(os.environ.get("KUBELET_PY_LOG_LINES", "100000"))
"""The long variant has a million."""
KILLS = 5
REOPENS = 3
MAX_BYTES = 4 << 20
NUMBER = re.compile(rb"line (\d+) of a container")


@pytest.fixture
def stage(tmp_path: Path) -> Iterator[Stage]:
    """A follower on files that do not exist yet."""
    docker_log = tmp_path / "containers" / "c-json.log"
    docker_log.parent.mkdir()
    stage = Stage(tmp_path, docker_log)
    yield stage
    stage.stop()


def reached(stage: Stage, size_bytes: int, docker: subprocess.Popen[str]) -> bool:
    """The stream has come so far, or to its end."""
    return stage.written_bytes() >= size_bytes or docker.poll() is not None


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
            wait_until(partial(reached, stage, moment, docker))
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
