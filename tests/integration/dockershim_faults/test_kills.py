"""dockershim killed with signal 9 at every step of every mutation: after its restart the pods are the same."""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from cri_proto import runtime_v1 as cri
from tests.integration.dockershim.harness import code_of, eventually
from tests.integration.dockershim_faults.stage import FIRST, LAST, READY, Stage

pytestmark = pytest.mark.lab

Sandbox = tuple[str, cri.PodSandboxConfig]
RUNNING, EXITED = cri.ContainerState.CONTAINER_RUNNING, cri.ContainerState.CONTAINER_EXITED
CREATE, START, STOP = "POST /containers/create", "POST /containers/ID/start", "POST /containers/ID/stop"
KILL, REMOVE, LOOK = "POST /containers/ID/kill", "DELETE /containers/ID", "GET /containers/ID/json"
AROUND = pytest.mark.parametrize("answered", [False, True], ids=["before", "after"])


@pytest.fixture(scope="module")
def bystander(stage: Stage) -> tuple[cri.PodSandboxStatus, cri.ContainerStatus]:
    """A pod that nobody touches."""
    sandbox = stage.shim.run_sandbox(stage.config())
    container_id = stage.shim.run(sandbox, "exec sleep 1000")
    return stage.shim.sandbox_status(sandbox[0]), stage.shim.status(container_id)


@pytest.fixture(autouse=True)
def untouched(stage: Stage, bystander: tuple[cri.PodSandboxStatus, cri.ContainerStatus]) -> Iterator[None]:
    """It is shown and it runs as before, whatever happens to dockershim meanwhile."""
    yield
    sandbox, container = bystander
    assert (stage.shim.sandbox_status(sandbox.id), stage.shim.status(container.id)) == bystander


def killed_by_a_plugin(stage: Stage, place: str, verb: str, call: Callable[[], object]) -> None:
    """The plugin kills it, and works on; it is started again."""
    stage.obey(place, verb, "kill")
    code_of(call)
    assert stage.shim.process is not None
    assert stage.shim.process.wait(10) == -signal.SIGKILL
    stage.restart()


def killed_in(stage: Stage, request: str, answered: bool, call: Callable[[], object]) -> None:
    """Kill it in the middle of a call, and start it again."""
    killed = stage.kill_at(lambda seen: seen == request, answered=answered)
    code_of(call)
    assert killed.is_set(), f"the call did not come to {request}"
    stage.restart()


@AROUND
@pytest.mark.parametrize("request_", [CREATE, START, LOOK])
def test_in_run_pod_sandbox(stage: Stage, request_: str, answered: bool) -> None:
    """What is left is shown as not ready, and goes; or the pod is run again, under the same name."""
    with stage.passing_pod() as config:
        killed_in(stage, request_, answered, lambda: stage.shim.run_sandbox(config))
        assert all(item.state != READY for item in stage.pods(config))
        stage.shim.run_sandbox(config)
        [pod] = stage.pods(config)
        assert pod.state == READY
        assert stage.shim.sandbox_status(pod.id).network.ip


@pytest.mark.parametrize("place", [FIRST, LAST])
@pytest.mark.parametrize("again", [True, False], ids=["run again", "removed"])
def test_in_a_plugin_at_add(stage: Stage, place: str, again: bool) -> None:
    """The address that a plugin had given is given back."""
    with stage.passing_pod() as config:
        killed_by_a_plugin(stage, place, "ADD", lambda: stage.shim.run_sandbox(config))
        assert all(item.state != READY for item in stage.pods(config))
        if again:
            stage.shim.run_sandbox(config)


@pytest.mark.parametrize("place", [FIRST, LAST])
@pytest.mark.parametrize("rpc", ["StopPodSandbox", "RemovePodSandbox"])
def test_in_a_plugin_at_del(stage: Stage, place: str, rpc: str) -> None:
    with stage.passing_pod() as config:
        sandbox, _ = stage.run_pod(config)
        request = getattr(cri, f"{rpc}Request")(pod_sandbox_id=sandbox[0])
        killed_by_a_plugin(stage, place, "DEL", lambda: getattr(stage.shim.runtime, rpc)(request, timeout=30))


@AROUND
def test_in_create_container(stage: Stage, answered: bool) -> None:
    """The container is there or not; it can be made again under its name, and runs."""
    with stage.passing_pod() as config:
        sandbox = stage.shim.run_sandbox(config)
        killed_in(stage, CREATE, answered, lambda: stage.shim.create(sandbox, "exec sleep 1000"))
        container_id = stage.shim.run(sandbox, "exec sleep 1000")
        assert stage.shim.status(container_id).state == RUNNING
        shown = stage.shim.runtime.ListContainers(
            cri.ListContainersRequest(filter=cri.ContainerFilter(pod_sandbox_id=sandbox[0]))
        )
        assert [container.id for container in shown.containers] == [container_id]


@AROUND
@pytest.mark.parametrize("request_", [START, LOOK])
def test_in_start_container(stage: Stage, request_: str, answered: bool) -> None:
    """It is created or it runs, and a second start makes it run; its log begins with its first line."""
    with stage.passing_pod() as config:
        sandbox = stage.shim.run_sandbox(config)
        container_id = stage.shim.create(sandbox, "echo first; exec sleep 1000")
        killed_in(stage, request_, answered, lambda: stage.shim.start_container(container_id))
        stage.shim.start_container(container_id)
        log = Path(stage.shim.wait_state(container_id, RUNNING).log_path)
        eventually(lambda: "first" in log.read_text())
        stage.shim.runtime.StopContainer(cri.StopContainerRequest(container_id=container_id))
        assert [line.split(" ", 3)[3] for line in log.read_text().splitlines()] == ["first"]


@AROUND
@pytest.mark.parametrize("request_", [STOP, LOOK])
def test_in_stop_container(stage: Stage, request_: str, answered: bool) -> None:
    """A second stop ends it, and the exit code is known."""
    with stage.passing_pod() as config:
        sandbox = stage.shim.run_sandbox(config)
        container_id = stage.shim.run(sandbox, "trap 'exit 4' TERM; echo up; while :; do sleep 0.1; done")
        eventually(lambda: "up" in Path(stage.shim.status(container_id).log_path).read_text())
        stop = cri.StopContainerRequest(container_id=container_id, timeout=10)
        killed_in(stage, request_, answered, lambda: stage.shim.runtime.StopContainer(stop, timeout=60))
        stage.shim.runtime.StopContainer(stop, timeout=60)
        assert (stage.shim.status(container_id).state, stage.shim.status(container_id).exit_code) == (EXITED, 4)


@AROUND
@pytest.mark.parametrize("request_", [STOP, REMOVE])
def test_in_remove_container(stage: Stage, request_: str, answered: bool) -> None:
    with stage.passing_pod() as config:
        _, container_id = stage.run_pod(config)
        remove = cri.RemoveContainerRequest(container_id=container_id)
        killed_in(stage, request_, answered, lambda: stage.shim.runtime.RemoveContainer(remove, timeout=60))
        stage.shim.runtime.RemoveContainer(remove, timeout=60)
        assert not stage.shim.runtime.ListContainers(
            cri.ListContainersRequest(filter=cri.ContainerFilter(id=container_id))
        ).containers


@AROUND
@pytest.mark.parametrize(
    ("rpc", "request_"),
    [
        ("StopPodSandbox", STOP),
        ("StopPodSandbox", KILL),
        ("StopPodSandbox", LOOK),
        ("RemovePodSandbox", STOP),
        ("RemovePodSandbox", KILL),
        ("RemovePodSandbox", REMOVE),
    ],
)
def test_in_the_end_of_a_pod(stage: Stage, rpc: str, request_: str, answered: bool) -> None:
    """Stopped and removed again, nothing is left."""
    with stage.passing_pod() as config:
        sandbox, _ = stage.run_pod(config)
        request = getattr(cri, f"{rpc}Request")(pod_sandbox_id=sandbox[0])
        killed_in(stage, request_, answered, lambda: getattr(stage.shim.runtime, rpc)(request, timeout=60))
