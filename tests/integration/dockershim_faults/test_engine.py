"""Docker broken as engines break: Status tells the truth while it lasts, and afterwards the pods are the same."""

from __future__ import annotations

import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager

import grpc
import pytest

from cri_proto import runtime_v1 as cri
from tests.integration.dockershim.harness import code_of, eventually
from tests.integration.dockershim_faults.stage import READY, Stage, refused
from tests.lab.engines.docker import DEFAULT_VERSION, VERSIONS
from tests.lab.lab import Lab
from tests.lab.process import LabProcess

pytestmark = pytest.mark.lab

RUNNING, EXITED = cri.ContainerState.CONTAINER_RUNNING, cri.ContainerState.CONTAINER_EXITED
GONE = (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED)
NOTICED_WITHIN_SECONDS = 25.0
"""A ping each five seconds, five seconds for its answer, and a machine that is busy."""


@contextmanager
def node(version: str = DEFAULT_VERSION, *, live_restore: bool = False) -> Iterator[Stage]:
    """A node whose Docker one may break."""
    with Lab.start(docker=version, docker_settings={"live-restore": live_restore}) as lab:
        stage = Stage(lab)
        yield stage
        stage.close()


def parts(stage: Stage) -> tuple[LabProcess, LabProcess]:
    """dockerd and its containerd."""
    docker = stage.lab.docker
    assert docker.dockerd is not None
    assert docker.containerd is not None
    return docker.dockerd, docker.containerd


def expect_trouble(stage: Stage, word: str) -> None:
    """RuntimeReady becomes false, with a reason for a person."""
    eventually(lambda: not stage.condition().status, NOTICED_WITHIN_SECONDS)
    assert stage.condition().reason == "DockerDaemonNotReady"
    assert word in stage.condition().message


@pytest.mark.parametrize("live_restore", [True, False])
def test_dockerd_killed(live_restore: bool) -> None:
    """With live-restore the pod never notices; without, its end is seen, and a new one takes its place."""
    with node(live_restore=live_restore) as stage:
        empty, config = stage.holdings(), stage.config()
        sandbox, container_id = stage.run_pod(config)
        before = stage.shown(sandbox[0], container_id)
        dockerd, _ = parts(stage)
        dockerd.kill()
        dockerd.wait(10)
        expect_trouble(stage, "Docker")
        assert stage.shown(sandbox[0], container_id) == before
        assert refused(lambda: stage.shim.run_sandbox())[0] in GONE
        assert refused(lambda: stage.shim.exec(container_id, "true"))[0] in GONE
        stage.lab.docker.start()
        eventually(lambda: stage.condition().status)
        if live_restore:
            assert stage.shown(sandbox[0], container_id) == before
            assert stage.shim.exec(container_id, "echo", "here").stdout == b"here\n"
        else:
            assert stage.shim.wait_state(container_id, EXITED).finished_at > 0
            eventually(lambda: [pod.state for pod in stage.pods(config)] == [cri.PodSandboxState.SANDBOX_NOTREADY])
            config.metadata.attempt = 1
            stage.shim.run_sandbox(config)
            assert sorted(pod.state for pod in stage.pods(config)) == [READY, cri.PodSandboxState.SANDBOX_NOTREADY]
        stage.clear(config)
        stage.same(empty)
        stage.works()


def test_dockerd_hung() -> None:
    """Reads are answered, the rest ends soon; what was under way comes true or is gone, and can be removed."""
    with node() as stage:
        empty, config, late = stage.holdings(), stage.config(), stage.config()
        sandbox, container_id = stage.run_pod(config)
        before = stage.shown(sandbox[0], container_id)
        dockerd, _ = parts(stage)
        dockerd.send_signal(signal.SIGSTOP)
        request = cri.RunPodSandboxRequest(config=late)
        under_way = stage.shim.runtime.RunPodSandbox.future(request, timeout=8)
        expect_trouble(stage, "answer")
        begun = time.monotonic()
        assert stage.shown(sandbox[0], container_id) == before
        for call in (
            lambda: stage.shim.run_sandbox(),
            lambda: stage.shim.exec(container_id, "true"),
            lambda: stage.shim.runtime.StopPodSandbox(cri.StopPodSandboxRequest(pod_sandbox_id=sandbox[0])),
        ):
            assert refused(call)[0] in GONE
        assert time.monotonic() - begun < 5
        assert code_of(lambda: under_way.result(timeout=20))[0] in GONE
        dockerd.send_signal(signal.SIGCONT)
        eventually(lambda: stage.condition().status)
        assert stage.shown(sandbox[0], container_id) == before
        for each in (config, late):
            stage.clear(each)
        stage.same(empty)
        stage.works()


@pytest.mark.parametrize("version", VERSIONS)
def test_containerd_below_it_killed(version: str) -> None:
    """Docker still answers, and nothing can be started: Status says which part is missing. Running pods run on."""
    with node(version) as stage:
        empty, config = stage.holdings(), stage.config()
        sandbox, container_id = stage.run_pod(config)
        before = stage.shown(sandbox[0], container_id)
        _, containerd = parts(stage)
        containerd.kill()
        containerd.wait(10)
        code, message = refused(lambda: stage.shim.run_sandbox(stage.config()))
        assert code is grpc.StatusCode.UNAVAILABLE
        assert "containerd" in message
        expect_trouble(stage, "containerd")
        assert stage.shown(sandbox[0], container_id) == before
        stage.lab.docker.start()
        eventually(lambda: stage.condition().status)
        assert stage.shown(sandbox[0], container_id) == before
        stage.works()
        stage.clear(config)
        stage.same(empty)


def test_event_stream_cut(stage: Stage) -> None:
    """What happens while nobody hears of it is known as soon as the stream is there again."""
    empty, config = stage.holdings(), stage.config()
    sandbox = stage.shim.run_sandbox(config)
    ids = [
        stage.shim.run(sandbox, "exec sleep 1000", metadata=cri.ContainerMetadata(name=name), log_path=f"{name}/0.log")
        for name in ("stopped", "removed", "untouched")
    ]
    stage.proxy.on_request = lambda request: request != "GET /events"
    assert stage.proxy.cut("GET /events") == 1
    eventually(lambda: not stage.condition().status)
    stage.lab.docker.client("kill", ids[0])
    stage.lab.docker.client("rm", "--force", ids[1])
    assert stage.shim.status(ids[0]).state == RUNNING  # nobody could know
    stage.proxy.stop_interfering()
    eventually(lambda: stage.condition().status)
    assert (stage.shim.status(ids[0]).state, stage.shim.status(ids[0]).exit_code) == (EXITED, 137)
    assert code_of(lambda: stage.shim.status(ids[1]))[0] is grpc.StatusCode.NOT_FOUND
    assert stage.shim.status(ids[2]).state == RUNNING
    stage.clear(config)
    stage.same(empty)


def test_event_stream_cut_again_and_again_during_mutations(stage: Stage) -> None:
    """Pods come and go as if nothing were."""
    empty = stage.holdings()
    for _ in range(5):
        config = stage.config()
        sandbox = stage.shim.run_sandbox(config)
        stage.proxy.cut("GET /events")
        container_id = stage.shim.run(sandbox, "exit 3")
        stage.proxy.cut("GET /events")
        assert stage.shim.wait_state(container_id, EXITED).exit_code == 3
        stage.clear(config)
    stage.same(empty)


def test_a_pod_removed_behind_our_back_gives_back_what_it_held(stage: Stage) -> None:
    """Its pause and its container are gone; its address, its rules and its records go with its removal."""
    empty, config = stage.holdings(), stage.config()
    sandbox, container_id = stage.run_pod(config)
    stage.lab.docker.client("rm", "--force", container_id, sandbox[0])
    eventually(lambda: [pod.state for pod in stage.pods(config)] == [cri.PodSandboxState.SANDBOX_NOTREADY])
    assert stage.holdings()["addresses"] != empty["addresses"]
    stage.clear(config)
    stage.same(empty)
