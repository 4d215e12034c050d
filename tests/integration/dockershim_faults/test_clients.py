"""Clients that get in each other's way, go away, or find their names taken: one pod each, and nothing else."""

from __future__ import annotations

from collections import Counter

import grpc
import pytest

from cri_proto import runtime_v1 as cri
from tests.integration.dockershim.harness import code_of
from tests.integration.dockershim_faults.stage import READY, Stage
from tests.lab.lab import BUSYBOX

pytestmark = pytest.mark.lab

CLIENTS = 8


def test_many_clients_make_the_same_sandbox(stage: Stage) -> None:
    """One gets it, the others are told that it is there; it works, and goes without a trace."""
    with stage.passing_pod() as config:
        request = cri.RunPodSandboxRequest(config=config)
        calls = [stage.shim.runtime.RunPodSandbox.future(request, timeout=60) for _ in range(CLIENTS)]
        codes = Counter(code_of(call.result)[0] for call in calls)
        assert codes == {grpc.StatusCode.OK: 1, grpc.StatusCode.ALREADY_EXISTS: CLIENTS - 1}
        assert [pod.state for pod in stage.pods(config)] == [READY]


def test_clients_that_go_away_in_the_middle(stage: Stage) -> None:
    """Whenever the caller of RunPodSandbox goes, the pod is whole or not there at all."""
    before = stage.holdings()
    configs = [stage.config() for _ in range(12)]
    for number, config in enumerate(configs):
        request = cri.RunPodSandboxRequest(config=config)
        timeout_seconds = 0.03 * (number + 1)
        code_of(lambda: stage.shim.runtime.RunPodSandbox(request, timeout=timeout_seconds))  # noqa: B023 # at once
    stage.shim.run_sandbox(configs[0]) if not stage.pods(configs[0]) else None
    for config in configs:
        assert {pod.state for pod in stage.pods(config)} <= {READY}
        stage.clear(config)
    stage.same(before)


@pytest.mark.parametrize("state", ["running", "exited", "created"])
@pytest.mark.parametrize("kind", ["sandbox", "container"])
def test_a_stray_container_has_the_name(stage: Stage, kind: str, state: str) -> None:
    """Whatever it is, it is not ours: it goes, and the pod runs."""
    with stage.passing_pod() as config:
        sandbox = stage.shim.run_sandbox(config) if kind == "container" else ("", config)
        metadata = config.metadata
        part = "POD" if kind == "sandbox" else "main"
        name = f"--name=k8s_{part}_{metadata.name}_{metadata.namespace}_{metadata.uid}_0"
        command = ["create", name, BUSYBOX] if state == "created" else ["run", "--detach", name, BUSYBOX]
        stray = stage.lab.docker.client(*command, "sleep", "0" if state == "exited" else "1000").strip()
        if state == "exited":
            stage.lab.docker.client("wait", stray)
        sandbox = sandbox if sandbox[0] else stage.shim.run_sandbox(config)
        container_id = stage.shim.run(sandbox, "exec sleep 1000")
        assert stage.shim.status(container_id).state == cri.ContainerState.CONTAINER_RUNNING
        assert stray not in stage.holdings()["containers"]


def test_our_own_has_the_name(stage: Stage) -> None:
    """A second container of the same name and attempt: refused while the first runs, in its place once it has ended."""
    with stage.passing_pod() as config:
        sandbox = stage.shim.run_sandbox(config)
        first = stage.shim.run(sandbox, "exec sleep 1000")
        assert code_of(lambda: stage.shim.create(sandbox, "true"))[0] is grpc.StatusCode.ALREADY_EXISTS
        stage.shim.runtime.StopContainer(cri.StopContainerRequest(container_id=first))
        second = stage.shim.run(sandbox, "exec sleep 1000")
        assert code_of(lambda: stage.shim.status(first))[0] is grpc.StatusCode.NOT_FOUND
        assert stage.shim.status(second).state == cri.ContainerState.CONTAINER_RUNNING
