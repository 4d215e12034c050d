"""When Docker is looked at, and when what is known already does: over the fake engine, event by event."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from cri_proto import runtime_v1 as cri
from dockershim.engine import EngineEvent
from dockershim.errors import EngineFailed
from dockershim.pulls import Puller
from dockershim.rpc.images import Images
from dockershim.store.feeder import RECONCILE_SECONDS
from tests.fakes.docker_node import IMAGE, container_config, running_node
from tests.unit.dockershim.rpc.test_sandboxes import EXITED, RUNNING, Api, until

CREATED = cri.ContainerState.CONTAINER_CREATED
NEW = "registry.k8s.io/new:1"
CHANNELS = (b"out\n", b"err\n", 3)


@pytest.fixture
async def api(tmp_path: Path) -> AsyncIterator[Api]:
    async with running_node(tmp_path) as world:
        yield Api(world)


async def quiet(api: Api) -> None:
    """Until all events that the fake has told are dealt with."""
    await asyncio.sleep(0.02)
    api.world.engine.calls.clear()


def looks(api: Api) -> int:
    return api.world.engine.calls["inspect_container"]


def rich_config() -> cri.ContainerConfig:
    """Something of everything that a status shows."""
    config = container_config("sleep", "1000")
    config.labels["app"] = "web"
    config.annotations["hash"] = "abc"
    config.log_path = "main/0.log"
    config.tty = config.stdin = config.stdin_once = True
    config.stop_signal = cri.Signal.SIGNAL_SIGINT
    config.linux.resources.MergeFrom(
        cri.LinuxContainerResources(
            cpu_period=100000,
            cpu_quota=50000,
            cpu_shares=512,
            memory_limit_in_bytes=1 << 26,
            memory_swap_limit_in_bytes=1 << 27,
            cpuset_cpus="0",
            oom_score_adj=500,
            hugepage_limits=[cri.HugepageLimit(page_size="2MB", limit=1 << 22)],
        )
    )
    for number, propagation in enumerate(cri.MountPropagation.keys()):
        config.mounts.append(
            cri.Mount(container_path=f"/mnt/{number}", host_path="/tmp", readonly=number == 1, propagation=propagation)
        )
    return config


async def test_a_new_container_is_shown_as_docker_has_it(api: Api) -> None:
    """Without a look: a look changes nothing of what is shown."""
    sandbox_id = await api.sandbox()
    await quiet(api)
    container_id = await api.container(sandbox_id, rich_config())
    await asyncio.sleep(0.02)
    assert looks(api) == 0
    before = api.world.node.store.containers[container_id]
    assert before.status.state == CREATED
    seen = await api.world.node.feeder.observer.observe_container(container_id)
    assert seen is not None
    assert (seen.status, seen.item) == (before.status, before.item)
    assert (before.unseen, seen.unseen) == (True, False)
    assert {
        part: getattr(seen, part) for part in ("name", "sandbox_id", "tty", "stdin_once", "log_path", "after_start")
    } == {
        part: getattr(before, part) for part in ("name", "sandbox_id", "tty", "stdin_once", "log_path", "after_start")
    }


async def test_who_is_warned_looks(api: Api) -> None:
    """Docker leaves out what the kernel cannot do and says so: the status shows what it does."""
    sandbox_id = await api.sandbox()
    await quiet(api)
    api.world.engine.warnings = ["Your kernel does not support swap limit capabilities"]
    container_id = await api.container(sandbox_id)
    assert looks(api) == 1
    assert not api.world.node.store.containers[container_id].unseen
    api.world.engine.fail_next("inspect_container", EngineFailed("broken"))
    with pytest.raises(EngineFailed, match="broken"):
        await api.container(sandbox_id, container_config(name="other"))
    assert [view.id for view in api.world.node.store.members(sandbox_id)] == [container_id]


@pytest.mark.looptime
async def test_what_nobody_starts_is_looked_at_by_the_comparison(tmp_path: Path) -> None:
    """Once, and not before a minute has passed: whoever creates a container starts it."""
    now = [0]
    async with running_node(tmp_path) as world:
        world.node.feeder._monotonic_ns = lambda: now[0]
        api = Api(world)
        container_id = await api.container(await api.sandbox())
        await asyncio.sleep(RECONCILE_SECONDS)
        world.engine.calls.clear()
        created_at_ns = world.node.store.containers[container_id].observed_at_ns
        for seconds, expected in ((59, 0), (61, 1), (121, 1)):
            now[0] = created_at_ns + seconds * 10**9
            await asyncio.sleep(RECONCILE_SECONDS)
            assert looks(api) == expected


@pytest.mark.parametrize("hours", [-1, 1])
async def test_a_clock_that_is_set_hides_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, hours: int) -> None:
    """Neither what Docker tells nor what is done by a call, for a minute or ever; nor does it cost a look more."""
    real, ahead_ns = time.time_ns, [0]
    monkeypatch.setattr(time, "time_ns", lambda: real() + ahead_ns[0])
    async with running_node(tmp_path) as world:
        api, engine, store = Api(world), world.engine, world.node.store
        sandbox_id = await api.sandbox()
        ends, stopped, removed = [await api.container(sandbox_id, container_config(name=name)) for name in "abc"]
        for container_id in (ends, stopped, removed):
            await api.start(container_id)
        await quiet(api)
        ahead_ns[0] = hours * 3600 * 10**9
        engine.end(ends, 3)
        await until(lambda: store.containers[ends].status.state == EXITED)
        assert looks(api) == 1
        await api.life.stop_container(cri.StopContainerRequest(container_id=stopped))
        assert store.containers[stopped].status.state == EXITED
        await api.life.remove_container(cri.RemoveContainerRequest(container_id=removed))
        await api.start(await api.container(sandbox_id, container_config(name="d")))
        engine.add_image(NEW)
        engine._emit("image", "load", NEW, NEW, {})
        await until(lambda: store.find_image(NEW) is not None)
        engine.end(sandbox_id, 0)
        await until(lambda: not store.sandboxes[sandbox_id].running)
        await api.stop.remove_pod_sandbox(cri.RemovePodSandboxRequest(pod_sandbox_id=sandbox_id))
        assert (engine.containers, store.sandboxes, store.containers) == ({}, {}, {})


@pytest.mark.parametrize("busy", ["claim", "look"])
async def test_an_end_between_two_event_streams_is_seen_also_by_who_was_busy_with_the_container(
    api: Api, busy: str
) -> None:
    """What they saw may be older than the end, and no event tells of it: the list that follows does."""
    container_id = await api.container(await api.sandbox())
    await api.start(container_id)
    view = api.world.node.store.containers[container_id]
    feeder, engine = api.world.node.feeder, api.world.engine
    await quiet(api)
    async with feeder.claim(view.name) if busy == "claim" else feeder.observer._look(container_id):
        engine.cut_events()
        engine.end(container_id, 3)
        await until(lambda: engine.calls["list_containers"] == 1 and feeder._following)
        assert api.world.node.store.containers[container_id].status.state == RUNNING
    await until(lambda: api.world.node.store.containers[container_id].status.state == EXITED)
    assert api.world.node.store.containers[container_id].status.exit_code == 3
    assert looks(api) == 1


async def test_an_end_that_docker_told_nobody_and_does_not_list_yet_is_seen(api: Api) -> None:
    """Its list follows the event, after the network and the mounts are taken down."""
    container_id = await api.container(await api.sandbox())
    await api.start(container_id)
    await quiet(api)
    engine = api.world.engine
    engine.listed_as[container_id] = "running"
    engine.cut_events()
    engine.end(container_id, 3)
    await until(lambda: api.world.node.store.containers[container_id].status.state == EXITED)
    assert engine.calls["list_containers"] == 1
    assert looks(api) == 1


async def test_a_container_that_others_started_and_that_ended_between_two_event_streams_is_seen(api: Api) -> None:
    """Neither what is known nor what is listed runs, and yet they are not the same."""
    container_id = await api.container(await api.sandbox())
    await quiet(api)
    api.world.engine.cut_events()
    await api.world.engine.start_container(container_id)
    api.world.engine.end(container_id, 3)
    await until(lambda: api.world.node.store.containers[container_id].status.state == EXITED)
    assert looks(api) == 1


async def test_a_stop_and_its_event_share_one_look(api: Api) -> None:
    """Whichever of the two begins it."""
    container_id = await api.container(await api.sandbox())
    await api.start(container_id)
    await quiet(api)
    await api.life.stop_container(cri.StopContainerRequest(container_id=container_id))
    status = api.world.node.store.containers[container_id].status
    assert (status.state, status.exit_code) == (EXITED, 137)
    await asyncio.sleep(0.02)
    assert (looks(api), api.world.engine.calls["stop_container"]) == (1, 1)


@pytest.mark.parametrize("fails", [False, True])
async def test_a_stop_waits_for_the_look_that_an_event_has_begun(api: Api, fails: bool) -> None:
    """And looks itself when that one fails."""
    container_id = await api.container(await api.sandbox())
    await api.start(container_id)
    await quiet(api)
    engine = api.world.engine
    gate = engine.hold("inspect_container")
    engine.end(container_id, 7)
    if fails:
        engine.fail_next("inspect_container", EngineFailed("broken"))
    async with asyncio.TaskGroup() as group:
        await until(lambda: looks(api) == 1)
        stop = group.create_task(api.life.stop_container(cri.StopContainerRequest(container_id=container_id)))
        await until(lambda: engine.calls["stop_container"] == 1)
        gate.set()
        await stop
    await asyncio.sleep(0.02)
    assert api.world.node.store.containers[container_id].status.exit_code == 7
    assert looks(api) == 1 + fails


async def test_a_stop_that_looks_in_the_moment_of_the_event_takes_the_only_look(api: Api) -> None:
    """The event has been read and its look is on its way when the stop returns and is faster."""
    container_id = await api.container(await api.sandbox())
    await api.start(container_id)
    await quiet(api)
    engine, feeder = api.world.engine, api.world.node.feeder
    engine.cut_events()
    engine.end(container_id, 7)
    view = api.world.node.store.containers[container_id]
    feeder._handle_container_event(EngineEvent("container", "die", container_id, view.name, feeder._monotonic_ns(), {}))
    await feeder.observer.observe_end(container_id)
    await asyncio.sleep(0.02)
    assert api.world.node.store.containers[container_id].status.exit_code == 7
    assert looks(api) == 1


async def test_a_stop_looks_itself_when_no_event_comes(api: Api) -> None:
    """Nothing hangs on the event stream."""
    container_id = await api.container(await api.sandbox())
    await api.start(container_id)
    api.world.engine._streams.clear()
    await api.life.stop_container(cri.StopContainerRequest(container_id=container_id))
    assert api.world.node.store.containers[container_id].status.state == EXITED


async def test_the_end_of_pause_needs_no_look(api: Api) -> None:
    """By an RPC or by itself: it is not ready any more, and that is all."""
    for by_itself in (False, True):
        sandbox_id = await api.sandbox()
        await quiet(api)
        if by_itself:
            api.world.engine.end(sandbox_id, 137)
        else:
            await api.stop.stop_pod_sandbox(cri.StopPodSandboxRequest(pod_sandbox_id=sandbox_id))
        await until(lambda: not api.world.node.store.sandboxes[sandbox_id].ready)  # noqa: B023 - called at once
        await asyncio.sleep(0.02)
        view = api.world.node.store.sandboxes[sandbox_id]
        assert (view.running, view.pid, view.item.state) == (False, 0, cri.PodSandboxState.SANDBOX_NOTREADY)
        assert view.status.state == cri.PodSandboxState.SANDBOX_NOTREADY
        assert looks(api) == 0
        await api.stop.remove_pod_sandbox(cri.RemovePodSandboxRequest(pod_sandbox_id=sandbox_id))


async def test_pause_that_was_removed_by_somebody_stays_as_a_ghost(api: Api) -> None:
    """Its kill finds nothing; what it held is still to be given back."""
    sandbox_id = await api.sandbox()
    api.world.engine.cut_events()
    del api.world.engine.containers[sandbox_id]
    await api.stop.stop_pod_sandbox(cri.StopPodSandboxRequest(pod_sandbox_id=sandbox_id))
    assert not api.world.node.store.sandboxes[sandbox_id].running


async def test_a_second_life_of_a_container_is_seen(api: Api) -> None:
    """Somebody starts it again with Docker's own client, and it ends again."""
    container_id = await api.container(await api.sandbox())
    await api.start(container_id)
    await api.life.stop_container(cri.StopContainerRequest(container_id=container_id))
    await api.world.engine.start_container(container_id)
    await until(lambda: api.world.node.store.containers[container_id].status.state == RUNNING)
    api.world.engine.end(container_id, 9)
    await until(lambda: api.world.node.store.containers[container_id].status.exit_code == 9)


async def test_a_container_started_by_somebody_else_right_after_its_creation_is_seen(api: Api) -> None:
    """The view that was made without a look is older than whatever happens to it."""
    container_id = await api.container(await api.sandbox())
    await api.world.engine.start_container(container_id)
    await until(lambda: api.world.node.store.containers[container_id].status.state == RUNNING)


async def test_the_exit_code_of_an_exec_is_told(api: Api) -> None:
    """Docker is asked only when it does not tell."""
    api.world.engine.exec_results["true",] = CHANNELS
    container_id = await api.container(await api.sandbox())
    await api.start(container_id)
    await quiet(api)
    request = cri.ExecSyncRequest(container_id=container_id, cmd=["true"])
    assert (await api.exec.exec_sync(request)).exit_code == 3
    assert api.world.engine.calls["exec_inspect"] == 0
    api.world.engine._streams.clear()
    assert (await api.exec.exec_sync(request)).exit_code == 3
    assert api.world.engine.calls["exec_inspect"] == 1


# ---- images


async def pull(api: Api, reference: str = NEW) -> str:
    """PullImage."""
    images = Images(api.world.node, Puller(api.world.node))
    return (await images.pull_image(cri.PullImageRequest(image=cri.ImageSpec(image=reference)))).image_ref


async def test_a_pull_takes_one_look(api: Api) -> None:
    """At the image alone, and its event takes none; what is shown is what a list would show."""
    engine, store = api.world.engine, api.world.node.store
    engine.registry[NEW] = engine.make_image(NEW, user="7:8", size=77)
    await quiet(api)
    image_id = await pull(api)
    await asyncio.sleep(0.1)
    assert (engine.calls["inspect_image"], engine.calls["list_images"]) == (1, 0)
    shown = store.images[image_id]
    assert (shown.message.uid.value, shown.message.size) == (7, 77)
    await api.world.node.feeder.images.refresh()
    assert (store.images[image_id], store.images[image_id].message) == (shown, shown.message)


async def test_a_pulled_tag_is_the_new_images_alone(api: Api) -> None:
    """The former image keeps its other names."""
    engine, store = api.world.engine, api.world.node.store
    former = engine.add_image(NEW, "registry.k8s.io/kept:1")
    await api.world.node.feeder.images.refresh()
    engine.registry[NEW] = engine.make_image(NEW)
    image_id = await pull(api)
    found = store.find_image(NEW)
    assert found is not None
    assert found.id == image_id != former
    assert list(store.images[former].message.repo_tags) == ["registry.k8s.io/kept:1"]
    kept = store.find_image("registry.k8s.io/kept:1")
    assert kept is not None
    assert kept.id == former


async def test_what_others_do_to_images_is_seen(api: Api) -> None:
    """A pull by somebody else, also of the name that we have just pulled; a removal."""
    engine, store = api.world.engine, api.world.node.store
    engine.registry[NEW] = engine.make_image(NEW)
    engine.images.pop(await pull(api))
    moved = engine.make_image(NEW, "registry.k8s.io/other:1")
    engine.registry[NEW] = moved
    await engine.pull_image("registry.k8s.io/new", "1", None, lambda _: None)
    await until(lambda: moved["Id"] in store.images)
    await engine.remove_image(IMAGE, force=False)
    await until(lambda: store.find_image(IMAGE) is None)


async def test_an_event_of_a_pull_that_fails_is_not_lost(api: Api) -> None:
    """Somebody else pulls the same at the same time, and succeeds."""
    engine, store = api.world.engine, api.world.node.store
    gate = engine.hold("pull_image")
    async with asyncio.TaskGroup() as group:
        ours = group.create_task(pull(api))
        await until(lambda: engine.calls["pull_image"] > 0)
        body: dict[str, Any] = engine.make_image(NEW)
        engine.images[body["Id"]] = body
        engine._emit("image", "pull", NEW, NEW, {})
        await asyncio.sleep(0.1)
        assert store.find_image(NEW) is None  # it waits for our own look
        engine.fail_next("pull_image", EngineFailed("never mind"))
        ours.cancel()
        gate.set()
    await until(lambda: store.find_image(NEW) is not None)


async def test_an_image_that_vanishes_right_after_its_pull(api: Api) -> None:
    """The pull did not bring it."""
    engine = api.world.engine
    engine.registry[NEW] = engine.make_image("registry.k8s.io/somebody:1")
    with pytest.raises(EngineFailed, match="does not have it"):
        await pull(api)


def event(action: str, identifier: str, time_ns: int) -> EngineEvent:
    """Of an image."""
    return EngineEvent("image", action, identifier, identifier, time_ns, {})


async def test_an_event_that_a_list_covers_is_no_news(api: Api) -> None:
    """Our own removals and lists cause no further list."""
    engine, feed = api.world.engine, api.world.node.feeder.images
    await feed.refresh()
    await quiet(api)
    feed.handle(event("delete", "sha256:1", feed._listed_at_ns))
    await asyncio.sleep(0.1)
    assert engine.calls["list_images"] == 0
    feed.handle(event("delete", "sha256:1", feed._listed_at_ns + 1))
    await until(lambda: engine.calls["list_images"] == 1)
