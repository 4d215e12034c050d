"""A container's log through real Docker and real dockershim, both killed with signal 9 while it floods."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import pytest

from cri_proto import runtime_v1 as cri
from cri_proto.wire.log_line import parse_line
from dockershim.logs.docker_json import translate
from tests.integration.dockershim.harness import Shim, eventually
from tests.integration.dockershim_logs.stage import wait_until
from tests.lab.lab import Lab

pytestmark = pytest.mark.lab

LINES = int(os.environ.get("KUBELET_PY_LOG_LINES", "100000"))
"""`make long` has a million."""
BYTES_OF_A_LINE = 45
EXITED = cri.ContainerState.CONTAINER_EXITED
IN_FLIGHT_BYTES = 1_500_000
"""More than a killed dockerd can have read from the container and not yet written: it buffers a megabyte."""


@pytest.fixture(scope="module")
def shim() -> Iterator[Shim]:
    with Lab.start(docker="20.10", docker_settings={"live-restore": True}) as lab:
        made = Shim(lab)
        yield made
        made.remove_all()
        made.stop()


def kill_dockershim(shim: Shim) -> None:
    shim.kill()
    shim.start()


def kill_dockerd(shim: Shim) -> None:
    docker = shim.lab.docker
    assert docker.dockerd is not None
    docker.dockerd.kill()
    docker.dockerd.wait(10)
    docker.start()
    eventually(lambda: shim.runtime.Status(cri.StatusRequest()).status.conditions[0].status)


def flood(shim: Shim, kills: list[str]) -> tuple[cri.ContainerStatus, list[int]]:
    """A container counts while these are killed, one after the other; its status and the numbers of its log."""
    sandbox = shim.run_sandbox()
    container_id = shim.run(sandbox, f"exec seq 1 {LINES}")
    log = Path(shim.status(container_id).log_path)
    for index, victim in enumerate(kills, start=1):
        goal_bytes = LINES * BYTES_OF_A_LINE * index // (len(kills) + 1)
        wait_until(lambda: log.stat().st_size >= goal_bytes or shim.status(container_id).state == EXITED)  # noqa: B023 # called at once
        {"dockershim": kill_dockershim, "dockerd": kill_dockerd}[victim](shim)
    wait_until(lambda: shim.status(container_id).state == EXITED)
    wait_until(lambda: shim.has_whole_log(container_id))
    with log.open("rb") as file:
        return shim.status(container_id), [int(parse_line(line).text) for line in file]


def test_five_kills_of_dockershim_lose_and_double_no_line(shim: Shim) -> None:
    _, numbers = flood(shim, ["dockershim"] * 5)
    assert numbers == list(range(1, LINES + 1))


def test_five_kills_of_both_lose_nothing_that_docker_kept(shim: Shim) -> None:
    """A killed dockerd takes along what it had read and not written, and goes on in the middle of a line; all that it
    wrote is in the log, once."""
    victims = ["dockershim", "dockerd", "dockershim", "dockerd", "dockershim"]
    status, numbers = flood(shim, victims)
    [inspected] = json.loads(shim.lab.docker.client("inspect", status.id))
    docker_log = Path(f"/proc/{shim.lab.pid}/root{inspected['LogPath']}")
    files = sorted(docker_log.parent.glob(f"{docker_log.name}*"), reverse=True)
    assert Path(status.log_path).read_bytes() == b"".join(translate(file.read_bytes()) for file in files)
    torn = {index for index, (before, number) in enumerate(pairwise(numbers), start=1) if number <= before}
    whole = [number for index, number in enumerate(numbers) if index not in torn]
    assert len(torn) <= victims.count("dockerd")
    assert whole == sorted(set(whole))
    lost_bytes = sum(len(f"{number}\n") for number in set(range(1, LINES + 1)) - set(whole))
    print(f"Docker itself lost {LINES - len(whole)} of {LINES} lines, {lost_bytes} bytes")
    assert lost_bytes <= victims.count("dockerd") * IN_FLIGHT_BYTES
