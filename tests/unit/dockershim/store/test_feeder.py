"""Objects that Docker lists and cannot inspect, as after a power cut: the node is ready, and they can be removed."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from cri_proto import runtime_v1 as cri
from dockershim.errors import DeadlineExceeded
from dockershim.lifecycle import Lifecycle
from dockershim.store.feeder import RECONCILE_SECONDS
from dockershim.translate import names
from tests.fakes.docker_engine import FakeDockerEngine
from tests.fakes.docker_node import IMAGE, PAUSE, running_node


@pytest.fixture
def engine() -> FakeDockerEngine:
    made = FakeDockerEngine()
    made.add_image(PAUSE)
    made.add_image(IMAGE, user="7")
    return made


async def make(engine: FakeDockerEngine, kind: str, name: str) -> str:
    """A container that runs."""
    labels = {names.TYPE_LABEL: kind, names.SANDBOX_ID_LABEL: "s", names.LOG_PATH_LABEL: "/var/log/pods/main/0.log"}
    made = await engine.create_container(name, {"Image": IMAGE, "Labels": labels, "HostConfig": {}})
    engine.containers[made.id]["LogPath"] = "/var/lib/docker/containers/json.log"
    await engine.start_container(made.id)
    return made.id


async def test_a_container_that_has_ended_is_shown_as_listed_and_can_be_removed(
    tmp_path: Path, engine: FakeDockerEngine
) -> None:
    """The other one is shown as ever."""
    bad = await make(engine, names.TYPE_CONTAINER, "k8s_bad_web_default_uid_1")
    good = await make(engine, names.TYPE_CONTAINER, "k8s_good_web_default_uid_0")
    engine.end(bad, 3)
    engine.broken = {bad}
    async with running_node(tmp_path, engine) as world:
        store = world.node.store
        view = store.containers[bad]
        assert (view.status.state, view.status.exit_code) == (cri.ContainerState.CONTAINER_EXITED, 3)
        assert view.item.metadata == cri.ContainerMetadata(name="bad", attempt=1)
        assert store.containers[good].pid
        await Lifecycle(world.node).remove_container(view)
        assert engine.containers.keys() == store.containers.keys() == {good}


@pytest.mark.looptime
async def test_what_runs_is_shown_so_and_looked_at_again(tmp_path: Path, engine: FakeDockerEngine) -> None:
    """A pod and its container, until Docker can tell of them: only then has a log somebody who follows it."""
    sandbox = await make(engine, names.TYPE_SANDBOX, "k8s_POD_web_default_uid_0")
    container = await make(engine, names.TYPE_CONTAINER, "k8s_main_web_default_uid_0")
    engine.broken = {sandbox, container}
    async with running_node(tmp_path, engine) as world:
        store = world.node.store
        assert store.sandboxes[sandbox].running
        assert store.containers[container].running
        assert (store.sandboxes[sandbox].pid, store.containers[container].pid) == (0, 0)
        assert container not in world.logs.followed
        engine.broken.clear()
        await asyncio.sleep(2 * RECONCILE_SECONDS + 1)
        assert store.sandboxes[sandbox].pid
        assert store.containers[container].pid
        assert container in world.logs.followed


@pytest.mark.looptime
async def test_an_end_that_docker_cannot_tell_of_is_seen(tmp_path: Path, engine: FakeDockerEngine) -> None:
    """By the next comparison, and its log is whole by then."""
    container = await make(engine, names.TYPE_CONTAINER, "k8s_main_web_default_uid_0")
    async with running_node(tmp_path, engine) as world:
        engine.broken = {container}
        engine.end(container, 9)
        await asyncio.sleep(RECONCILE_SECONDS + 1)
        assert world.node.store.containers[container].status.exit_code == 9
        assert container in world.logs.finished


async def test_a_docker_that_does_not_answer_is_asked_again(tmp_path: Path, engine: FakeDockerEngine) -> None:
    """That says nothing of the one that it was asked about."""
    container = await make(engine, names.TYPE_CONTAINER, "k8s_main_web_default_uid_0")
    engine.fail_next("inspect_container", DeadlineExceeded("Docker did not answer in time"))
    async with running_node(tmp_path, engine) as world:
        assert world.node.store.containers[container].pid


async def test_an_image_is_shown_as_listed_until_docker_can_tell_of_it(
    tmp_path: Path, engine: FakeDockerEngine
) -> None:
    """It has its names and its size; the other one has all."""
    image_id = engine.add_image("registry.k8s.io/bad:1", user="8", size=5)
    engine.broken = {image_id}
    async with running_node(tmp_path, engine) as world:
        store = world.node.store
        image = store.images[image_id].message
        assert ([*image.repo_tags], image.size, image.HasField("uid")) == (["registry.k8s.io/bad:1"], 5, False)
        other = store.find_image(IMAGE)
        assert other is not None
        assert other.message.uid.value == 7
        before = engine.calls["inspect_image"]
        engine.broken.clear()
        for _ in range(2):
            await world.node.feeder.images.refresh()
            assert store.images[image_id].message.uid.value == 8
        assert engine.calls["inspect_image"] == before + 1
