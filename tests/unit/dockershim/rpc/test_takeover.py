"""What dockershim finds when it starts: sandboxes of cri-dockerd's, and things that others held for the vanished."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from unittest.mock import AsyncMock

import pytest

from cri_proto import runtime_v1 as cri
from dockershim.errors import FailedPrecondition, InvalidArgument
from dockershim.lifecycle import Lifecycle
from dockershim.node import NodeSettings
from dockershim.rpc.container_lifecycle import ContainerLifecycle
from dockershim.store import feeder
from tests.fakes.docker_engine import FakeDockerEngine
from tests.fakes.docker_node import PAUSE, World, container_config, running_node, stocked_engine
from tests.unit.dockershim.rpc.test_sandboxes import Api, until

READY = cri.PodSandboxState.SANDBOX_READY
FOREIGN_LABELS = {
    "io.kubernetes.docker.type": "podsandbox",
    "io.kubernetes.container.name": "POD",
    "io.kubernetes.pod.name": "old",
    "io.kubernetes.pod.namespace": "default",
    "io.kubernetes.pod.uid": "uid-old",
}


async def add_foreign(engine: FakeDockerEngine, root: Path, *, checkpoint: bool = True) -> str:
    """A sandbox as cri-dockerd makes it, with its checkpoint."""
    body = {"Image": PAUSE, "Labels": dict(FOREIGN_LABELS), "HostConfig": {"NetworkMode": "none"}}
    sandbox_id = (await engine.create_container("k8s_POD_old_default_uid-old_0", body)).id
    await engine.start_container(sandbox_id)
    (root / "sandbox").mkdir(exist_ok=True)
    if checkpoint:
        data = {"version": "v1", "name": "old", "namespace": "default", "data": {"host_network": False}}
        (root / "sandbox" / sandbox_id).write_text(json.dumps(data))
    return sandbox_id


@pytest.fixture
def engine() -> FakeDockerEngine:
    return stocked_engine()


@pytest.fixture
def inside(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The pids whose namespaces were looked into; each has one address."""
    looked: list[int] = []

    async def addresses(pid: int) -> tuple[str, ...]:
        looked.append(pid)
        return ("10.9.0.7", "fd00::7")

    monkeypatch.setattr("dockershim.app._addresses_inside", addresses)
    return looked


@pytest.mark.parametrize("checkpoint", [True, False])
async def test_a_sandbox_of_cri_dockerd_keeps_its_address(
    tmp_path: Path, engine: FakeDockerEngine, inside: list[int], checkpoint: bool
) -> None:
    """It is ready, with whose it is and where; its namespace is entered once and not at each look."""
    sandbox_id = await add_foreign(engine, tmp_path, checkpoint=checkpoint)
    async with running_node(tmp_path, engine) as world:
        status = world.node.store.sandboxes[sandbox_id].status
        assert (status.state, status.network.ip) == (READY, "10.9.0.7")
        assert [ip.ip for ip in status.network.additional_ips] == ["fd00::7"]
        assert status.metadata == cri.PodSandboxMetadata(name="old", namespace="default", uid="uid-old")
        await world.node.feeder.observer.observe_sandbox(sandbox_id)
        assert len(inside) == 1
        await Lifecycle(world.node).stop_sandbox(world.node.store.sandboxes[sandbox_id])
    async with running_node(tmp_path, engine) as world:  # the record is ours now, and still says what it is of
        status = world.node.store.sandboxes[sandbox_id].status
        assert (status.state != READY, status.metadata.uid) == (True, "uid-old")
        assert len(inside) == 1


async def test_our_own_half_made_sandbox_is_not_taken_for_one(
    tmp_path: Path, engine: FakeDockerEngine, inside: list[int]
) -> None:
    """Without a record it has no address, so that the kubelet makes a whole one."""
    async with running_node(tmp_path, engine) as world:
        sandbox_id = await Api(world).sandbox()
    (tmp_path / "sandbox" / sandbox_id).unlink()
    async with running_node(tmp_path, engine) as world:
        assert world.node.store.sandboxes[sandbox_id].status.network.ip == ""
        assert inside == []


async def test_logs_and_network_hear_once_what_there_is(tmp_path: Path, engine: FakeDockerEngine) -> None:
    """At the start, and not again after an outage of Docker."""
    async with running_node(tmp_path, engine) as world:
        api = Api(world)
        sandbox_id = await api.sandbox()
        container_id = await api.container(sandbox_id)
    async with running_node(tmp_path, engine) as world:
        await until(lambda: bool(world.network.retained))
        assert world.network.retained == [{sandbox_id}]
        assert world.logs.retained == [{container_id}]
        connects = engine.calls["connect"]
        engine.cut_events()
        await until(lambda: engine.calls["connect"] > connects and not world.node.feeder.trouble)
        assert len(world.network.retained) == 1


async def test_an_idle_node_asks_docker_nothing_about_single_containers(
    tmp_path: Path, engine: FakeDockerEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A hundred containers, many pings and comparisons: no look at any of them."""
    monkeypatch.setattr(feeder, "RECONCILE_SECONDS", 0.01)
    monkeypatch.setattr(feeder, "PING_SECONDS", 0.01)
    async with running_node(tmp_path, engine) as world:
        api = Api(world)
        sandbox_id = await api.sandbox()
        for attempt in range(100):
            await api.start(await api.container(sandbox_id, container_config(attempt=attempt)))
        await asyncio.sleep(0.05)
        before = dict(engine.calls)
        await until(lambda: engine.calls["list_containers"] > before["list_containers"] + 10)
        changed = {name for name, count in engine.calls.items() if count != before.get(name, 0)}
        assert changed <= {"list_containers", "list_images", "ping"}


class Running:
    """A started container whose process is a real one."""

    def __init__(self, world: World, container_id: str) -> None:
        self.life = ContainerLifecycle(world.node, Lifecycle(world.node))
        self.world = world
        self.id = container_id

    async def update(self, **linux: Any) -> None:
        """UpdateContainerResources."""
        request = cri.UpdateContainerResourcesRequest(container_id=self.id, linux=cri.LinuxContainerResources(**linux))
        await self.life.update_container_resources(request)


@pytest.fixture
def process() -> Iterator[subprocess.Popen[bytes]]:
    with subprocess.Popen(["sleep", "300"]) as started:
        yield started
        started.kill()


async def test_the_oom_score_changes_with_the_resources(
    tmp_path: Path, engine: FakeDockerEngine, process: subprocess.Popen[bytes]
) -> None:
    """The kubelet sends a new one when a pod's memory request changes; zero says nothing; nonsense is refused."""
    async with running_node(tmp_path, engine) as world:
        api = Api(world)
        container_id = await api.container(await api.sandbox())
        running = Running(world, container_id)
        with pytest.raises(InvalidArgument, match="oom_score_adj"):
            await running.update(oom_score_adj=800)  # created, and Docker cannot
        await running.update(memory_limit_in_bytes=1 << 20)
        await api.start(container_id)
        engine.containers[container_id]["State"]["Pid"] = process.pid
        await world.node.feeder.observer.observe_container(container_id)
        await running.update(oom_score_adj=900)
        score = Path(f"/proc/{process.pid}/oom_score_adj")
        assert await asyncio.to_thread(score.read_text) == "900\n"
        await running.update(cpu_shares=100)
        assert await asyncio.to_thread(score.read_text) == "900\n"
        with pytest.raises(InvalidArgument, match=r"linux\.oom_score_adj"):
            await running.update(oom_score_adj=1001)


def cgroup_files_of(pid: int, root: Path, name: str) -> list[Path]:
    """An empty file of this name wherever a process may have its cgroup below a root of the test's own."""
    directories: set[Path] = set()
    for line in Path(f"/proc/{pid}/cgroup").read_text().splitlines():
        _, controllers, path = line.split(":", 2)
        directories |= {root / each / path.lstrip("/") for each in ("", *controllers.split(","))}
    for directory in directories:
        directory.mkdir(parents=True, exist_ok=True)
        (directory / name).touch()
    return [directory / name for directory in directories]


async def test_limits_changed_while_a_container_runs_outlive_dockershim(
    tmp_path: Path, engine: FakeDockerEngine, process: subprocess.Popen[bytes]
) -> None:
    """Shown, and written again by a change that does not mention them; forgotten with the container."""
    engine.cgroup_version = "2"
    root, state = tmp_path / "cgroup", tmp_path / "state"
    files = await asyncio.to_thread(cgroup_files_of, process.pid, root, "memory.high")
    settings = NodeSettings(pause_image=PAUSE, cgroup_root=str(root))
    config = container_config()
    config.linux.resources.unified["memory.high"] = "1000"
    async with running_node(state, engine, settings) as world:
        api = Api(world)
        container_id = await api.container(await api.sandbox(), config)
        await api.start(container_id)
        await Running(world, container_id).update(unified={"memory.high": "2000"})
        engine.containers[container_id]["State"]["Pid"] = process.pid
    async with running_node(state, engine, settings) as reborn:
        shown = reborn.node.store.containers[container_id].status.resources.linux
        assert dict(shown.unified) == {"memory.high": "2000"}
        await Running(reborn, container_id).update(cpu_shares=100)
        assert {file.read_text() for file in files if file.read_text()} == {"2000"}
        await Api(reborn).life.remove_container(cri.RemoveContainerRequest(container_id=container_id))
        assert list((state / "limits").iterdir()) == []


async def test_changed_limits_that_could_not_be_kept_are_kept_by_the_next_try(
    tmp_path: Path, engine: FakeDockerEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine.cgroup_version = "2"
    async with running_node(tmp_path, engine) as world:
        api = Api(world)
        container_id = await api.container(await api.sandbox())
        await api.start(container_id)
        full = AsyncMock(side_effect=OSError("the disk is full"))
        with monkeypatch.context() as patch:
            patch.setattr(world.node.changed_limits, "save", full)
            with pytest.raises(OSError, match="full"):
                await Running(world, container_id).update(unified={"memory.high": "2000"})
        await Running(world, container_id).update(unified={"memory.high": "2000"})
        assert [path.name for path in (tmp_path / "limits").iterdir()] == [container_id]


async def test_changes_side_by_side_undo_none_of_each_other(tmp_path: Path, engine: FakeDockerEngine) -> None:
    engine.cgroup_version = "2"
    async with running_node(tmp_path, engine) as world:
        api = Api(world)
        container_id = await api.container(await api.sandbox())
        await api.start(container_id)
        async with asyncio.TaskGroup() as tasks:
            for name in ("memory.high", "memory.low"):
                tasks.create_task(Running(world, container_id).update(unified={name: "2000"}))
        shown = world.node.store.containers[container_id].status.resources.linux
        assert dict(shown.unified) == {"memory.high": "2000", "memory.low": "2000"}


async def test_huge_pages_are_limited_when_they_are_reserved(
    tmp_path: Path, engine: FakeDockerEngine, process: subprocess.Popen[bytes]
) -> None:
    """Which is none of the limits that are shown."""
    engine.cgroup_version = "2"
    files = {
        name: await asyncio.to_thread(cgroup_files_of, process.pid, tmp_path, name)
        for name in ("hugetlb.2MB.max", "hugetlb.2MB.rsvd.max")
    }
    settings = NodeSettings(pause_image=PAUSE, cgroup_root=str(tmp_path))
    async with running_node(tmp_path, engine, settings) as world:
        api = Api(world)
        container_id = await api.container(await api.sandbox())
        await api.start(container_id)
        engine.containers[container_id]["State"]["Pid"] = process.pid
        await world.node.feeder.observer.observe_container(container_id)
        limits = [cri.HugepageLimit(page_size="2MB", limit=4096)]
        await Running(world, container_id).update(hugepage_limits=limits)
        for paths in files.values():
            assert {path.read_text() for path in paths if path.read_text()} == {"4096"}
        shown = world.node.store.containers[container_id].status.resources.linux
        assert (list(shown.hugepage_limits), dict(shown.unified)) == (limits, {})


async def test_limits_of_a_container_that_went_meanwhile_are_forgotten(
    tmp_path: Path, engine: FakeDockerEngine
) -> None:
    """While dockershim looks, and while it does not."""
    engine.cgroup_version = "2"
    limits = tmp_path / "limits"
    async with running_node(tmp_path, engine) as world:
        api = Api(world)
        sandbox_id = await api.sandbox()
        first, second = [await api.container(sandbox_id, container_config(name=name)) for name in ("one", "two")]
        for container_id in (first, second):
            await api.start(container_id)
            await Running(world, container_id).update(unified={"memory.high": "2000"})
        await engine.remove_container(first, force=True)
        await until(lambda: [path.name for path in limits.iterdir()] == [second])
    await engine.remove_container(second, force=True)
    async with running_node(tmp_path, engine):
        await until(lambda: not list(limits.iterdir()))


async def test_what_an_update_cannot_do_is_refused(tmp_path: Path, engine: FakeDockerEngine) -> None:
    """Annotations, and limits that are written once at the start."""
    async with running_node(tmp_path, engine) as world:
        api = Api(world)
        container_id = await api.container(await api.sandbox())
        life = ContainerLifecycle(world.node, Lifecycle(world.node))
        request = cri.UpdateContainerResourcesRequest(container_id=container_id, annotations={"a": "b"})
        with pytest.raises(InvalidArgument, match="annotations"):
            await life.update_container_resources(request)
        request = cri.UpdateContainerResourcesRequest(container_id=container_id)
        request.linux.hugepage_limits.add(page_size="2MB", limit=1)
        with pytest.raises(FailedPrecondition, match="does not run"):
            await life.update_container_resources(request)


async def test_only_the_processes_of_ones_own_pod_can_be_joined(tmp_path: Path, engine: FakeDockerEngine) -> None:
    """A target elsewhere, or one that does not run, is refused by the field."""
    async with running_node(tmp_path, engine) as world:
        api = Api(world)
        sandbox_id = await api.sandbox()
        target = await api.container(sandbox_id)
        config = container_config(name="debug")
        options = config.linux.security_context.namespace_options
        options.pid, options.target_id = cri.NamespaceMode.TARGET, target
        with pytest.raises(InvalidArgument, match="target_id"):
            await api.container(sandbox_id, config)
        await api.start(target)
        await api.container(sandbox_id, config)


async def test_the_user_is_what_the_containers_files_say(tmp_path: Path, engine: FakeDockerEngine) -> None:
    """Read when it is first seen running, kept after its end; before it runs nobody can tell."""
    async with running_node(tmp_path, engine) as world:
        api = Api(world)
        config = container_config()
        config.linux.security_context.run_as_user.value = 0
        container_id = await api.container(await api.sandbox(), config)
        assert not world.node.store.containers[container_id].status.HasField("user")
        await api.start(container_id)
        engine.containers[container_id]["State"]["Pid"] = os.getpid()  # our own root stands for the container's
        await world.node.feeder.observer.observe_container(container_id)
        assert world.node.store.containers[container_id].status.user.linux.uid == 0
        engine.containers[container_id]["State"]["Pid"] = 0
        engine.end(container_id, 0)
        await until(lambda: not world.node.store.containers[container_id].running)
        assert world.node.store.containers[container_id].status.HasField("user")
