"""Stopping and removing what Docker cannot inspect."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from cri_proto import runtime_v1 as cri
from dockershim.errors import DeadlineExceeded, ShimError, Unavailable
from dockershim.lifecycle import Lifecycle
from dockershim.translate import names
from dockershim.translate.listed import UNKNOWN_EXIT_CODE
from tests.fakes.docker_engine import FakeDockerEngine
from tests.fakes.docker_node import IMAGE, World, running_node, stocked_engine


@pytest.fixture
def engine() -> FakeDockerEngine:
    return stocked_engine()


async def make(engine: FakeDockerEngine, kind: str, name: str, sandbox_id: str = "") -> str:
    """A container that runs."""
    labels = {names.TYPE_LABEL: kind, names.SANDBOX_ID_LABEL: sandbox_id}
    made = await engine.create_container(name, {"Image": IMAGE, "Labels": labels, "HostConfig": {}})
    await engine.start_container(made.id)
    return made.id


class Pod:
    """One whose container and sandbox run and cannot be inspected."""

    def __init__(self, world: World, sandbox_id: str, container_id: str) -> None:
        self.world = world
        self.store = world.node.store
        self.life = Lifecycle(world.node)
        self.sandbox_id = sandbox_id
        self.container_id = container_id


@pytest.fixture(params=["from the start", "since then"])
async def pod(tmp_path: Path, engine: FakeDockerEngine, request: pytest.FixtureRequest) -> AsyncIterator[Pod]:
    sandbox_id = await make(engine, names.TYPE_SANDBOX, "k8s_POD_web_default_uid_0")
    container_id = await make(engine, names.TYPE_CONTAINER, "k8s_main_web_default_uid_0", sandbox_id)
    broken = {sandbox_id, container_id}
    if request.param == "from the start":
        engine.broken = broken
    async with running_node(tmp_path, engine) as world:
        engine.broken = broken
        yield Pod(world, sandbox_id, container_id)


async def test_a_container_is_stopped(pod: Pod) -> None:
    """Docker stops it as ever; how it ended nobody knows, and when it did is now."""
    running = pod.store.containers[pod.container_id]
    await pod.life.stop_container(running, 0)
    status = pod.store.containers[pod.container_id].status
    assert (status.state, status.exit_code) == (cri.ContainerState.CONTAINER_EXITED, UNKNOWN_EXIT_CODE)
    assert (status.created_at, status.started_at) == (running.status.created_at, running.status.started_at)
    assert status.finished_at > status.started_at
    assert "unexpectedly nil" in status.message
    assert pod.world.logs.finished == [pod.container_id]


async def test_a_container_is_removed(pod: Pod) -> None:
    """By force, as any that runs."""
    await pod.life.remove_container(pod.store.containers[pod.container_id])
    assert pod.container_id not in pod.world.engine.containers
    assert not pod.store.containers


async def test_a_pod_is_stopped_and_removed(pod: Pod) -> None:
    """With its containers."""
    await pod.life.stop_sandbox(pod.store.sandboxes[pod.sandbox_id])
    assert not pod.store.sandboxes[pod.sandbox_id].running
    assert not pod.store.containers[pod.container_id].running
    await pod.life.remove_sandbox(pod.store.sandboxes[pod.sandbox_id])
    assert not pod.world.engine.containers
    assert not pod.store.sandboxes


@pytest.mark.parametrize("error", [Unavailable("Docker does not answer"), DeadlineExceeded("not in time")])
async def test_a_docker_that_does_not_answer_is_asked_again(
    tmp_path: Path, engine: FakeDockerEngine, error: ShimError
) -> None:
    """By the next stop: it may know all of the end."""
    container_id = await make(engine, names.TYPE_CONTAINER, "k8s_main_web_default_uid_0")
    async with running_node(tmp_path, engine) as world:
        life, store = Lifecycle(world.node), world.node.store
        engine._streams.clear()
        engine.fail_next("inspect_container", error)
        with pytest.raises(type(error)):
            await life.stop_container(store.containers[container_id], 0)
        await life.stop_container(store.containers[container_id], 0)
        assert store.containers[container_id].status.exit_code == 137
