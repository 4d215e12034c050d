"""Sandbox and container RPCs over the fake engine: what is left after a failure at each step."""

from __future__ import annotations

import asyncio
import json
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator, MutableMapping
from pathlib import Path
from typing import Any

import pytest
from structlog.testing import capture_logs

from cri_proto import runtime_v1 as cri
from dockershim.engine import NewContainer
from dockershim.errors import (
    AlreadyExists,
    DeadlineExceeded,
    EngineFailed,
    FailedPrecondition,
    InvalidArgument,
    NameConflict,
    NotFound,
    ResourceExhausted,
    ShimError,
    Unavailable,
)
from dockershim.lifecycle import CREATE_PAUSES_SECONDS, Lifecycle
from dockershim.pulls import Puller
from dockershim.rpc.container_create import ContainerCreate
from dockershim.rpc.container_lifecycle import ContainerLifecycle
from dockershim.rpc.exec_sync import ExecSync
from dockershim.rpc.sandbox_run import SandboxRun
from dockershim.rpc.sandbox_stop import SandboxStop
from dockershim.store import feeder
from dockershim.translate import names
from tests.fakes.docker_engine import FakeDockerEngine
from tests.fakes.docker_node import (
    IMAGE,
    FakeLogs,
    World,
    container_config,
    running_node,
    sandbox_config,
    stocked_engine,
)

READY = cri.PodSandboxState.SANDBOX_READY
EXITED = cri.ContainerState.CONTAINER_EXITED
RUNNING = cri.ContainerState.CONTAINER_RUNNING


class Api:
    """The handlers of one world."""

    def __init__(self, world: World) -> None:
        lifecycle = Lifecycle(world.node)
        self.world = world
        self.run = SandboxRun(world.node, lifecycle, Puller(world.node))
        self.stop = SandboxStop(world.node, lifecycle)
        self.create = ContainerCreate(world.node, lifecycle)
        self.life = ContainerLifecycle(world.node, lifecycle)
        self.exec = ExecSync(world.node)

    async def sandbox(self, config: cri.PodSandboxConfig | None = None) -> str:
        request = cri.RunPodSandboxRequest(config=config or sandbox_config())
        return (await self.run.run_pod_sandbox(request)).pod_sandbox_id

    async def container(self, sandbox_id: str, config: cri.ContainerConfig | None = None) -> str:
        request = cri.CreateContainerRequest(
            pod_sandbox_id=sandbox_id, config=config or container_config(), sandbox_config=sandbox_config()
        )
        return (await self.create.create_container(request)).container_id

    async def start(self, container_id: str) -> None:
        await self.life.start_container(cri.StartContainerRequest(container_id=container_id))

    def nothing_is_left(self, root: Path) -> bool:
        world = self.world
        files = list((root / "sandbox").iterdir())
        store = world.node.store
        left = (world.engine.containers, world.network.attached, files, store.sandboxes, store.containers)
        return left == ({}, {}, [], {}, {})


@pytest.fixture
async def api(tmp_path: Path) -> AsyncIterator[Api]:
    async with running_node(tmp_path) as world:
        yield Api(world)


async def until(condition: Callable[[], bool]) -> None:
    """Let other tasks run until it is so."""
    async with asyncio.timeout(30):
        while not condition():  # noqa: ASYNC110 - the world has no event for it
            await asyncio.sleep(0.001)


async def test_a_name_that_nothing_can_be_found_under_is_tried_for_a_while(api: Api) -> None:
    """Docker has given it away and has nothing to remove yet."""
    began = asyncio.get_running_loop().time()
    for _ in CREATE_PAUSES_SECONDS[1:]:
        api.world.engine.fail_next("create_container", NameConflict("in use", holder=""))
    assert await api.sandbox()
    assert asyncio.get_running_loop().time() - began >= sum(CREATE_PAUSES_SECONDS)


STEPS: dict[str, Callable[[World], None]] = {
    "create": lambda world: world.engine.fail_next("create_container", EngineFailed("disk full")),
    "start": lambda world: world.engine.fail_next("start_container", EngineFailed("runc broken")),
    "look": lambda world: world.engine.fail_next("inspect_container", Unavailable("gone")),
    "connect": lambda world: world.network.failures.append("bridge: no address left"),
}


@pytest.mark.parametrize("step", STEPS)
async def test_a_failed_step_of_run_leaves_nothing(api: Api, tmp_path: Path, step: str) -> None:
    """Whatever fails, everything before it is undone, and the next try works."""
    STEPS[step](api.world)
    with pytest.raises(ShimError):
        await api.sandbox()
    assert api.nothing_is_left(tmp_path)
    await api.sandbox()


async def test_a_bandwidth_that_is_none_is_refused_before_anything_is_made(api: Api) -> None:
    """By the annotation; a pod on the host's network has no bandwidth of its own."""
    config, before = sandbox_config(), Counter(api.world.engine.calls)
    config.annotations["kubernetes.io/ingress-bandwidth"] = "fast"
    with pytest.raises(InvalidArgument, match=r"^config\.annotations: .* kubernetes\.io/ingress-bandwidth is 'fast'"):
        await api.sandbox(config)
    assert api.world.engine.calls == before
    config.linux.security_context.namespace_options.network = cri.NamespaceMode.NODE
    await api.sandbox(config)


async def test_a_record_that_cannot_be_written_stops_the_run(api: Api, tmp_path: Path) -> None:
    """Without a record on disk the network is not asked for anything."""
    directory = tmp_path / "sandbox"
    directory.rmdir()
    directory.write_text("in the way")
    with pytest.raises((EngineFailed, ResourceExhausted)):
        await api.sandbox()
    assert api.world.network.attached == {}
    assert api.world.engine.containers == {}


@pytest.mark.parametrize("call", ["create_container", "start_container", "inspect_container"])
async def test_a_caller_that_goes_away_in_the_middle_leaves_nothing(api: Api, tmp_path: Path, call: str) -> None:
    """The step under way ends first, and then all of it is undone."""
    gate = api.world.engine.hold(call)
    async with asyncio.TaskGroup() as group:
        caller = group.create_task(api.sandbox(), name="caller")
        before = api.world.engine.calls[call]
        await until(lambda: api.world.engine.calls[call] > before)
        caller.cancel()
        await asyncio.sleep(0)
        gate.set()
    await until(lambda: api.nothing_is_left(tmp_path))


async def test_two_callers_for_one_sandbox(api: Api) -> None:
    """One gets it, the other hears that it exists; there is one container."""
    outcomes = await asyncio.gather(api.sandbox(), api.sandbox(), return_exceptions=True)
    assert [type(outcome) for outcome in outcomes if isinstance(outcome, BaseException)] == [AlreadyExists]
    assert len(api.world.engine.containers) == 1


async def test_status_comes_from_the_record(api: Api, tmp_path: Path) -> None:
    """Address, handler and metadata, and the same after all memory is lost."""
    sandbox_id = await api.sandbox()
    container_id = await api.container(sandbox_id)
    await api.start(container_id)
    before = api.world.node.store.sandboxes[sandbox_id].status
    assert before.network.ip == "10.1.0.2"
    assert before.state == READY
    async with running_node(tmp_path, api.world.engine) as reborn:
        assert reborn.node.store.sandboxes[sandbox_id].status == before
        assert reborn.node.store.containers[container_id].status.state == RUNNING


async def test_a_crash_before_the_network_is_up_shows_not_ready(api: Api, tmp_path: Path) -> None:
    """The kubelet then stops and removes it, which gives back what the network holds."""
    sandbox_id = await api.sandbox()
    record = api.world.node.store.sandboxes[sandbox_id].record
    assert record is not None
    half = type(record)(id=sandbox_id, config=record.config)
    await api.world.node.checkpoints.save(half)
    async with running_node(tmp_path, api.world.engine) as reborn:
        assert not reborn.node.store.sandboxes[sandbox_id].ready
        reborn.network.attached[sandbox_id] = "10.1.0.2"
        again = Api(reborn)
        await again.stop.stop_pod_sandbox(cri.StopPodSandboxRequest(pod_sandbox_id=sandbox_id))
        assert reborn.network.attached == {}
        await again.stop.remove_pod_sandbox(cri.RemovePodSandboxRequest(pod_sandbox_id=sandbox_id))
        assert again.nothing_is_left(tmp_path)


async def test_a_record_without_a_container_is_shown_until_it_is_removed(api: Api, tmp_path: Path) -> None:
    """A pause container that vanished while nobody looked still holds an address."""
    sandbox_id = await api.sandbox()
    api.world.engine.containers.clear()
    async with running_node(tmp_path, api.world.engine) as reborn:
        view = reborn.node.store.sandboxes[sandbox_id]
        assert not view.ready
        assert view.status.metadata.name == "web"
        again = Api(reborn)
        await again.stop.remove_pod_sandbox(cri.RemovePodSandboxRequest(pod_sandbox_id=sandbox_id))
        assert again.nothing_is_left(tmp_path)


async def test_a_ghost_of_the_same_name_costs_the_living_nothing(api: Api, tmp_path: Path) -> None:
    """Whoever asks for the sandbox again is told that it runs, and it goes on, whether the ghost is there or gone."""
    engine = api.world.engine
    ghost = await api.sandbox()
    await engine.remove_container(ghost, force=True)
    await until(lambda: api.world.node.store.sandboxes[ghost].pid == 0)
    living = await api.sandbox()
    async with running_node(tmp_path, engine) as reborn:
        again = Api(reborn)
        assert reborn.node.store.sandboxes.keys() == {ghost, living}
        with pytest.raises(AlreadyExists, match=living):
            await again.sandbox()
        await again.stop.remove_pod_sandbox(cri.RemovePodSandboxRequest(pod_sandbox_id=ghost))
        with pytest.raises(AlreadyExists, match=living):
            await again.sandbox()
        assert engine.containers.keys() == {living}
        assert reborn.node.store.sandboxes[living].ready


async def test_who_is_refused_removes_nobody(api: Api) -> None:
    """Also where Docker alone knows that the name is taken."""
    sandbox_id = await api.sandbox()
    api.world.node.store._names.clear()
    with pytest.raises(AlreadyExists, match=sandbox_id):
        await api.sandbox()
    assert api.world.engine.containers[sandbox_id]["State"]["Running"]


@pytest.mark.parametrize("error", [DeadlineExceeded("no answer"), Unavailable("it hung up")])
async def test_a_pause_of_whose_creation_nothing_was_heard_goes(
    api: Api, monkeypatch: pytest.MonkeyPatch, error: ShimError
) -> None:
    """Where Docker made it, where it did not, and where the name is that of one who lives."""
    engine = api.world.engine
    create, is_made = engine.create_container, True

    async def unheard(name: str, body: dict[str, Any]) -> NewContainer:
        if is_made:
            await create(name, body)
        raise error

    alive = await api.sandbox()
    second = sandbox_config()
    second.metadata.attempt = 1
    monkeypatch.setattr(engine, "create_container", unheard)
    with pytest.raises(type(error)):
        await api.sandbox(second)
    assert engine.containers.keys() == {alive}
    is_made = False
    api.world.node.store._names.clear()
    for config in (sandbox_config(), second):
        with pytest.raises(type(error)):
            await api.sandbox(config)
    assert engine.containers.keys() == {alive}


async def test_stop_ends_the_containers_and_can_be_repeated_at_no_cost(api: Api) -> None:
    """The second call asks Docker nothing."""
    sandbox_id = await api.sandbox()
    container_id = await api.container(sandbox_id)
    await api.start(container_id)
    request = cri.StopPodSandboxRequest(pod_sandbox_id=sandbox_id)
    await api.stop.stop_pod_sandbox(request)
    assert api.world.node.store.containers[container_id].status.state == EXITED
    assert api.world.logs.finished == [container_id]
    assert api.world.network.attached == {}
    await asyncio.sleep(0.01)
    before = dict(api.world.engine.calls)
    await api.stop.stop_pod_sandbox(request)
    assert dict(api.world.engine.calls) == before


async def test_a_network_that_cannot_be_torn_down_fails_the_stop(api: Api) -> None:
    """The address is still held, so the kubelet must come again."""
    sandbox_id = await api.sandbox()

    async def broken(request: object, raw: object) -> None:
        raise EngineFailed("DEL failed")

    api.world.network.tear_down = broken  # type: ignore[method-assign] # a fault, not a mock
    request = cri.StopPodSandboxRequest(pod_sandbox_id=sandbox_id)
    with pytest.raises(EngineFailed):
        await api.stop.stop_pod_sandbox(request)
    del api.world.network.tear_down  # back to the class's own
    await api.stop.stop_pod_sandbox(request)
    assert api.world.network.attached == {}


async def test_a_container_is_started_once(api: Api) -> None:
    """Again while it runs is fine; after it ended it is refused."""
    container_id = await api.container(await api.sandbox())
    await api.start(container_id)
    await api.start(container_id)
    api.world.engine.end(container_id, 0)
    await until(lambda: not api.world.node.store.containers[container_id].running)
    with pytest.raises(FailedPrecondition):
        await api.start(container_id)


async def test_a_container_that_ends_before_it_is_limited_has_been_started(api: Api) -> None:
    """The fake's processes are none of this machine: they have ended by the time their cgroup is looked for."""
    config = container_config()
    config.linux.resources.hugepage_limits.add(page_size="2MB", limit=4096)
    container_id = await api.container(await api.sandbox(), config)
    await api.start(container_id)
    await api.life.update_container_resources(
        cri.UpdateContainerResourcesRequest(container_id=container_id, linux=config.linux.resources)
    )
    assert api.world.engine.calls["stop_container"] == 0


async def test_a_container_that_ends_by_itself_is_seen_after_its_log_is_written(api: Api) -> None:
    """The exit becomes visible when the log is whole."""
    container_id = await api.container(await api.sandbox())
    await api.start(container_id)
    api.world.engine.end(container_id, 3, oom=True)
    await until(lambda: not api.world.node.store.containers[container_id].running)
    status = api.world.node.store.containers[container_id].status
    assert (status.exit_code, status.reason) == (3, "OOMKilled")
    assert api.world.logs.finished == [container_id]


async def test_who_ended_while_nobody_looked_is_seen_after_its_log_is_written(api: Api, tmp_path: Path) -> None:
    """By the first answer."""
    container_id = await api.container(await api.sandbox())
    await api.start(container_id)
    api.world.engine.end(container_id, 3)
    logs = FakeLogs()
    logs.finishes.clear()
    asyncio.get_running_loop().call_later(0.05, logs.finishes.set)
    async with running_node(tmp_path, api.world.engine, logs=logs) as reborn:
        assert reborn.node.store.containers[container_id].status.exit_code == 3
        assert logs.finished == [container_id]


async def test_a_log_that_takes_long_holds_up_the_first_answer_for_a_while(
    api: Api, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is written to its end all the same."""
    monkeypatch.setattr(feeder, "FIRST_ANSWER_SECONDS", 0.01)
    container_id = await api.container(await api.sandbox())
    await api.start(container_id)
    api.world.engine.end(container_id, 3)
    logs = FakeLogs()
    logs.finishes.clear()
    async with running_node(tmp_path, api.world.engine, logs=logs):
        assert logs.finished == []
        logs.finishes.set()
        await until(lambda: logs.finished == [container_id])


async def test_the_same_container_again(api: Api) -> None:
    """One that was created and not started gives way; one that runs does not."""
    sandbox_id = await api.sandbox()
    first = await api.container(sandbox_id)
    second = await api.container(sandbox_id)
    assert first not in api.world.node.store.containers
    await api.start(second)
    with pytest.raises(AlreadyExists):
        await api.container(sandbox_id)


@pytest.mark.parametrize("before", [False, True])
async def test_an_images_labels_reach_nothing_on_the_host(api: Api, tmp_path: Path, before: bool) -> None:
    """Neither through a container of ours, nor through one of the version before, which did not set every label."""
    victim = tmp_path / "victim"
    victim.write_text("precious")
    volume = {"image_id": str(victim), "container_path": "/x", "image": "i", "user_specified_image": "", "sub_path": ""}
    image = next(each for each in api.world.engine.images.values() if IMAGE in each["RepoTags"])
    image["Config"]["Labels"] = {
        names.IMAGE_VOLUMES_LABEL: json.dumps([volume]),
        names.AFTER_START_LABEL: json.dumps({"../../victim": "spoiled", "hugetlb.x": "abc"}),
        "annotation.hash": "the image's",
    }
    sandbox_id = await api.sandbox()
    container_id = await api.container(sandbox_id)
    labels = api.world.engine.containers[container_id]["Config"]["Labels"]
    if before:
        labels |= image["Config"]["Labels"]
        labels[names.KEYS_LABEL] = "[]"
    assert await api.world.node.feeder.observer.observe_container(container_id) is not None
    await api.start(container_id)
    view = api.world.node.store.containers[container_id]
    assert view.running
    assert (view.image_volumes, names.cgroup_writes_of(view.after_start)) == ((), {})
    assert dict(view.status.annotations) == ({"hash": "the image's"} if before else {})
    await api.life.remove_container(cri.RemoveContainerRequest(container_id=container_id))
    assert victim.read_text() == "precious"


async def test_containers_need_a_ready_sandbox_and_an_image(api: Api) -> None:
    """Else the request is refused with the matching code."""
    sandbox_id = await api.sandbox()
    config = container_config()
    config.image.image = "registry.k8s.io/none:1"
    with pytest.raises(NotFound):
        await api.container(sandbox_id, config)
    with pytest.raises(NotFound):
        await api.container("0" * 64)
    await api.stop.stop_pod_sandbox(cri.StopPodSandboxRequest(pod_sandbox_id=sandbox_id))
    with pytest.raises(FailedPrecondition):
        await api.container(sandbox_id)


async def test_port_mappings_and_names_are_checked(api: Api) -> None:
    """Before anything is made."""
    config = sandbox_config()
    config.port_mappings.add(container_port=0, host_port=80)
    with pytest.raises(InvalidArgument, match=r"config\.port_mappings\[0\]\.container_port"):
        await api.sandbox(config)
    with pytest.raises(InvalidArgument, match=r"config\.metadata\.name"):
        await api.sandbox(sandbox_config("under_score"))
    assert api.world.engine.calls["create_container"] == 0


async def test_exec_that_is_cut_off_gives_no_guess(api: Api) -> None:
    """The exit code is the one that Docker tells."""
    container_id = await api.container(await api.sandbox())
    await api.start(container_id)
    api.world.engine.exec_results[("probe",)] = (b"ok", b"", 7)
    response = await api.exec.exec_sync(cri.ExecSyncRequest(container_id=container_id, cmd=["probe"], timeout=1))
    assert (response.stdout, response.exit_code) == (b"ok", 7)
    with pytest.raises(InvalidArgument):
        await api.exec.exec_sync(cri.ExecSyncRequest(container_id=container_id))


async def test_events_lost_with_the_stream_are_found_by_the_list(api: Api) -> None:
    """A container that ended while nobody listened is exited after the next connection."""
    container_id = await api.container(await api.sandbox())
    await api.start(container_id)
    api.world.engine.cut_events()
    container = api.world.engine.containers[container_id]
    container["State"] |= {"Running": False, "Status": "exited", "ExitCode": 9, "FinishedAt": "2030-01-01T00:00:00Z"}
    await until(lambda: not api.world.node.store.containers[container_id].running)
    assert api.world.node.store.containers[container_id].status.exit_code == 9


async def add_unreadable(engine: FakeDockerEngine) -> str:
    """A container that says it is one of ours and has more attempts than a message can tell."""
    body = {"Image": IMAGE, "Labels": {names.TYPE_LABEL: names.TYPE_CONTAINER}, "HostConfig": {}}
    container_id = (await engine.create_container(f"k8s_main_web_default_uid-web_{2**40}", body)).id
    await engine.start_container(container_id)
    return container_id


@pytest.fixture
def heard() -> Iterator[list[MutableMapping[str, Any]]]:
    """What the log heard; told to nobody else, since writing tracebacks for people blocks the loop."""
    with capture_logs() as events:
        yield events


async def test_a_container_that_cannot_be_read_hides_no_other(
    api: Api, tmp_path: Path, heard: list[MutableMapping[str, Any]]
) -> None:
    """Neither at the first look, nor at a comparison, nor when an event tells of it."""
    engine = api.world.engine
    container_id = await api.container(await api.sandbox())
    unreadable = await add_unreadable(engine)
    async with running_node(tmp_path, engine) as reborn:
        assert reborn.node.store.containers.keys() == {container_id}
        await engine.start_container(container_id)
        await reborn.node.feeder._resync()
        assert reborn.node.store.containers[container_id].running
        engine.end(unreadable, 0)
        engine.end(container_id, 3)
        await until(lambda: not reborn.node.store.containers[container_id].running)
    assert {event["id"] for event in heard if event["event"] == "container_unreadable"} == {unreadable}


async def test_what_somebody_else_runs_is_not_ours_whatever_its_image_says(api: Api, tmp_path: Path) -> None:
    """Neither at the first look, nor when an event tells of it: a log of ours is written where a label says."""
    engine = api.world.engine
    own = await api.container(await api.sandbox())
    labels = {names.TYPE_LABEL: names.TYPE_CONTAINER, names.LOG_PATH_LABEL: "/etc/cron.d/job"}
    body = {"Image": IMAGE, "Labels": labels, "HostConfig": {}}
    before = (await engine.create_container("busy_turing", body)).id
    async with running_node(tmp_path, engine) as reborn:
        after = (await engine.create_container("k8s_mine", body)).id
        for container_id in (before, after, own):
            await engine.start_container(container_id)
        await until(lambda: reborn.node.store.containers[own].running)
        await reborn.node.feeder._resync()
        assert reborn.node.store.containers.keys() == {own}


@pytest.mark.looptime
@pytest.mark.usefixtures("heard")
@pytest.mark.parametrize("call", ["connect", "list_images", "list_containers"])
async def test_nothing_ends_the_feed(tmp_path: Path, call: str) -> None:
    """What nobody foresaw, at the start and in a comparison, is like an outage: it is tried again."""
    engine = stocked_engine()
    engine.fail_next(call, RuntimeError("unforeseen"))
    async with running_node(tmp_path, engine) as world:
        api = Api(world)
        container_id = await api.container(await api.sandbox())
        await api.start(container_id)
        engine.fail_next(call, RuntimeError("unforeseen"))
        await asyncio.sleep(feeder.RECONCILE_SECONDS + 1)
        engine._streams.clear()  # no event tells of the end
        engine.end(container_id, 3)
        await asyncio.sleep(feeder.RECONCILE_SECONDS + 1)
        assert world.node.store.containers[container_id].status.exit_code == 3


@pytest.mark.usefixtures("heard")
async def test_an_image_that_cannot_be_read_hides_no_other(api: Api) -> None:
    """And what was not foreseen ends no loop."""
    engine, store = api.world.engine, api.world.node.store
    bad = engine.images[engine.add_image("registry.k8s.io/bad:1")]
    bad["Size"] = 2**70
    engine.add_image("registry.k8s.io/good:1")
    engine._emit("image", "load", bad["Id"], bad["Id"], {})
    await until(lambda: store.find_image("registry.k8s.io/good:1") is not None)
    assert store.find_image("registry.k8s.io/bad:1") is None
    listed = engine.calls["list_images"]
    engine.fail_next("list_images", RuntimeError("unforeseen"))
    engine._emit("image", "load", bad["Id"], bad["Id"], {})
    await until(lambda: engine.calls["list_images"] > listed)
    engine.add_image("registry.k8s.io/better:1")
    engine._emit("image", "load", bad["Id"], bad["Id"], {})
    await until(lambda: store.find_image("registry.k8s.io/better:1") is not None)


async def test_docker_away_is_a_condition_with_a_reason(api: Api) -> None:
    """Reads go on from memory, mutations say Unavailable, and it comes back by itself."""
    sandbox_id = await api.sandbox()
    api.world.engine.go_away()
    await until(lambda: "does not answer" in api.world.node.feeder.trouble)
    assert api.world.node.store.sandboxes[sandbox_id].ready
    with pytest.raises(Unavailable):
        await api.sandbox(sandbox_config("other"))
    api.world.engine.away = False
    await until(lambda: not api.world.node.feeder.trouble)


class TestGroupsOfTheImage:
    """A user's groups in the image count beside a group of the request's own, which Docker does not do by itself."""

    @staticmethod
    def config(name: str) -> cri.ContainerConfig:
        config = container_config()
        config.metadata.name = name
        secure = config.linux.security_context
        secure.run_as_user.value, secure.run_as_group.value = 1000, 3000
        secure.supplemental_groups.append(1234)
        return config

    @staticmethod
    def put_files(world: World, group: str) -> None:
        image = next(each["Id"] for each in world.engine.images.values() if IMAGE in each["RepoTags"])
        files = {"/etc/passwd": b"web:x:1000:1000::/:\n", "/etc/group": group.encode()}
        world.engine.image_files[image] = files

    @staticmethod
    def added(world: World, container_id: str) -> list[str]:
        groups: list[str] = world.engine.containers[container_id]["HostConfig"]["GroupAdd"]
        return groups

    async def test_they_are_read_once_for_each_image(self, api: Api) -> None:
        self.put_files(api.world, "logs:x:50000:web\n")
        sandbox_id = await api.sandbox()
        first = await api.container(sandbox_id, self.config("one"))
        before = Counter(api.world.engine.calls)
        second = await api.container(sandbox_id, self.config("two"))
        calls = api.world.engine.calls - before
        assert (calls["create_container"], calls["read_file"], calls["remove_container"]) == (1, 0, 0)
        assert [self.added(api.world, one) for one in (first, second)] == [["50000", "1234"]] * 2
        assert len(api.world.engine.containers) == 3

    async def test_without_any_the_first_container_stays(self, api: Api) -> None:
        self.put_files(api.world, "logs:x:50000:other\n")
        container_id = await api.container(await api.sandbox(), self.config("one"))
        assert self.added(api.world, container_id) == ["1234"]
        assert api.world.engine.calls["create_container"] == 2

    @pytest.mark.parametrize("step", ["read_file", "remove_container"])
    async def test_a_failure_leaves_nothing(self, api: Api, step: str) -> None:
        self.put_files(api.world, "logs:x:50000:web\n")
        sandbox_id = await api.sandbox()
        api.world.engine.fail_next(step, EngineFailed("no luck"))
        with pytest.raises(EngineFailed):
            await api.container(sandbox_id, self.config("one"))
        assert list(api.world.engine.containers) == [sandbox_id]
