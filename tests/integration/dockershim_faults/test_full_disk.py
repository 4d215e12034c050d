"""Disks without room: the call says so, nothing half-made stays, and with room again all goes on."""

from __future__ import annotations

import time
from collections.abc import Iterator

import grpc
import pytest

from cri_proto import runtime_v1 as cri
from tests.integration.dockershim.harness import eventually
from tests.integration.dockershim_faults.stage import Stage, refused
from tests.lab.engines.docker import DEFAULT_VERSION
from tests.lab.lab import Lab

pytestmark = pytest.mark.lab

DOCKER, LOGS, SHIM, CNI = "/var/lib/docker/data", "/run/small-logs", "/run/small-root", "/var/lib/cni/cache"
DISKS = {DOCKER: "192m", LOGS: "2m", SHIM: "1m", CNI: "1m"}
FILL = "cat /dev/zero > $1/filler 2>/dev/null; true"


@pytest.fixture(scope="module")
def lab() -> Iterator[Lab]:
    mounts = " && ".join(
        f"mkdir -p {path} && mount -t tmpfs -o size={size} small {path}" for path, size in DISKS.items()
    )
    with Lab.start(docker=DEFAULT_VERSION, before_engines=["sh", "-ec", mounts]) as started:
        yield started


@pytest.fixture(scope="module")
def stage(lab: Lab) -> Iterator[Stage]:
    made = Stage(lab, name="full", root=SHIM)
    yield made
    made.close()


def fill(stage: Stage, path: str) -> None:
    stage.lab.run(["sh", "-c", FILL, "sh", path])


def free(stage: Stage, path: str) -> None:
    stage.lab.run(["rm", f"{path}/filler"])


def test_dockers_own(stage: Stage) -> None:
    before, config = stage.holdings(), stage.config()
    fill(stage, DOCKER)
    code, message = refused(lambda: stage.shim.run_sandbox(config))
    assert code is grpc.StatusCode.RESOURCE_EXHAUSTED
    assert "no space left" in message
    stage.clear(config)
    stage.same(before)
    free(stage, DOCKER)
    stage.works()


@pytest.mark.parametrize("path", [SHIM, CNI])
def test_the_records_of_dockershim(stage: Stage, path: str) -> None:
    """No new pod without its record; but pods can be removed, which is what such a node needs."""
    before, config = stage.holdings(), stage.config()
    kept = stage.shim.run_sandbox(stage.config())
    fill(stage, path)
    _, message = refused(lambda: stage.shim.run_sandbox(config))
    assert "No space left" in message
    assert stage.pods(config) == []
    stage.shim.remove_sandbox(kept[0])
    free(stage, path)
    stage.same(before)
    stage.works()


def test_the_logs(stage: Stage) -> None:
    """The container runs on; its log goes on where it stopped, with every line."""
    before, config = stage.holdings(), stage.config()
    config.log_directory = f"{LOGS}/pod"
    sandbox = stage.shim.run_sandbox(config)
    rest = "while [ ! -e /tmp/go ]; do sleep 0.1; done; seq 101 3000; exec sleep 1000"
    container_id = stage.shim.run(sandbox, f"seq 1 100; {rest}")
    log = f"{LOGS}/pod/main/0.log"

    def lines() -> list[str]:
        return stage.lab.run(["cat", log]).stdout.splitlines()

    eventually(lambda: len(lines()) == 100)
    fill(stage, LOGS)
    stage.shim.exec(container_id, "touch", "/tmp/go")
    time.sleep(2)  # it has much to say, and nowhere to say it
    assert stage.shim.status(container_id).state == cri.ContainerState.CONTAINER_RUNNING
    assert len(lines()) < 3000
    free(stage, LOGS)
    eventually(lambda: len(lines()) == 3000)
    assert [line.split(" ", 3)[3] for line in lines()] == [str(number) for number in range(1, 3001)]
    stage.clear(config)
    stage.same(before)
