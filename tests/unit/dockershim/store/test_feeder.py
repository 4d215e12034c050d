"""Objects that Docker lists and cannot inspect, as after a power cut: the node is ready, and they can be removed."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path

import pytest

from cri_proto import runtime_v1 as cri
from dockershim.errors import DeadlineExceeded, EngineFailed
from dockershim.lifecycle import Lifecycle
from dockershim.store.feeder import FIRST_RETRY_SECONDS, RECONCILE_SECONDS
from dockershim.translate import names
from tests.fakes.docker_engine import FakeDockerEngine
from tests.fakes.docker_node import IMAGE, PAUSE, World, running_node

EXITED = cri.ContainerState.CONTAINER_EXITED


@pytest.fixture
def engine() -> FakeDockerEngine:
    made = FakeDockerEngine()
    made.add_image(PAUSE)
    made.add_image(IMAGE, user="7")
    return made


async def make(engine: FakeDockerEngine, kind: str, name: str, *, started: bool = True) -> str:
    """A container that runs, or shall."""
    labels = {names.TYPE_LABEL: kind, names.SANDBOX_ID_LABEL: "s", names.LOG_PATH_LABEL: "/var/log/pods/main/0.log"}
    made = await engine.create_container(name, {"Image": IMAGE, "Labels": labels, "HostConfig": {}})
    engine.containers[made.id]["LogPath"] = "/var/lib/docker/containers/json.log"
    if started:
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


async def compare(engine: FakeDockerEngine, world: World) -> None:
    """Cut the event stream, which is followed by a comparison."""
    before = engine.calls["list_containers"]
    engine.cut_events()
    await asyncio.sleep(5 * FIRST_RETRY_SECONDS)
    assert engine.calls["list_containers"] == before + 1
    assert not world.node.feeder.trouble


@pytest.mark.looptime
async def test_one_look_that_fails_takes_nothing_of_what_is_known(tmp_path: Path, engine: FakeDockerEngine) -> None:
    """An end is shown with all the rest as it was, and the next comparison looks again, however soon it comes."""
    container = await make(engine, names.TYPE_CONTAINER, "k8s_main_web_default_uid_0")
    engine.containers[container]["HostConfig"]["Memory"] = 2**20
    async with running_node(tmp_path, engine) as world:
        store = world.node.store
        known = store.containers[container]
        with engine.unheard():
            engine.end(container, 9)
        ended_ns = time.time_ns()
        engine.fail_next("inspect_container", EngineFailed("a disk that hung"))
        await compare(engine, world)
        view = store.containers[container]
        assert (view.status.state, view.item.state, view.pid) == (EXITED, EXITED, 0)
        assert (view.status.exit_code, view.status.reason) == (9, "Error")
        assert view.status.message == "Docker cannot inspect it: a disk that hung"
        assert view.status.finished_at >= ended_ns
        for field in ("created_at", "started_at", "resources", "log_path", "mounts"):
            assert getattr(view.status, field) == getattr(known.status, field)
        assert view.docker_log_path == known.docker_log_path
        assert world.logs.finished == [container]
        await compare(engine, world)
        assert (store.containers[container].status.message, store.containers[container].unseen) == ("", False)
        assert store.containers[container].status.finished_at <= ended_ns


@pytest.mark.looptime
async def test_an_end_that_was_shown_stays_as_it_was_shown(tmp_path: Path, engine: FakeDockerEngine) -> None:
    """However often Docker cannot tell of it."""
    container = await make(engine, names.TYPE_CONTAINER, "k8s_main_web_default_uid_0")
    async with running_node(tmp_path, engine) as world:
        engine.broken = {container}
        engine.end(container, 9)
        await compare(engine, world)
        shown = world.node.store.containers[container].status
        assert shown.state == EXITED
        await compare(engine, world)
        assert world.node.store.containers[container].status == shown


@pytest.mark.looptime
async def test_a_start_that_docker_cannot_tell_of_is_seen(tmp_path: Path, engine: FakeDockerEngine) -> None:
    """With what is known of the container; its log is followed once Docker can tell."""
    container = await make(engine, names.TYPE_CONTAINER, "k8s_main_web_default_uid_0", started=False)
    engine.containers[container]["HostConfig"]["Memory"] = 2**20
    async with running_node(tmp_path, engine) as world:
        store = world.node.store
        engine.broken = {container}
        await engine.start_container(container)
        await compare(engine, world)
        assert (store.containers[container].running, store.containers[container].pid) == (True, 0)
        assert store.containers[container].status.resources.linux.memory_limit_in_bytes == 2**20
        assert container not in world.logs.followed
        engine.broken.clear()
        await compare(engine, world)
        assert store.containers[container].pid
        assert container in world.logs.followed


@pytest.mark.looptime
@pytest.mark.parametrize("ends", [True, False])
async def test_a_pod_that_is_known_stays_so(tmp_path: Path, engine: FakeDockerEngine, ends: bool) -> None:
    """What Docker lists of it says no more than whether it runs."""
    sandbox = await make(engine, names.TYPE_SANDBOX, "k8s_POD_web_default_uid_0")
    engine.containers[sandbox]["ResolvConfPath"] = "/var/lib/docker/containers/resolv.conf"
    async with running_node(tmp_path, engine) as world:
        known = world.node.store.sandboxes[sandbox]
        engine.broken = {sandbox}
        with engine.unheard():
            if ends:
                engine.end(sandbox, 137)
        await world.node.feeder.observer.observe_listed((await engine.list_containers())[0], known.observed_at_ns + 1)
        view = world.node.store.sandboxes[sandbox]
        assert view.running is not ends
        assert (view.resolv_conf_path, view.created_at_ns) == (known.resolv_conf_path, known.created_at_ns)


async def test_what_somebody_has_seen_since_counts_for_more(tmp_path: Path, engine: FakeDockerEngine) -> None:
    """A list from before is no reason to wait for the end of a log."""
    container = await make(engine, names.TYPE_CONTAINER, "k8s_main_web_default_uid_0")
    async with running_node(tmp_path, engine) as world:
        known = world.node.store.containers[container]
        line = {**(await engine.list_containers())[0], "State": "exited"}
        engine.broken = {container}
        await world.node.feeder.observer.observe_listed(line, known.observed_at_ns - 1)
        assert world.node.store.containers[container] is known
        assert not world.logs.finished


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
