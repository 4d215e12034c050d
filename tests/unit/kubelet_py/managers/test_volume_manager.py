"""Volumes whose sources go away and come back, and those of file systems that hang."""

import asyncio
import threading
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest
from structlog.testing import capture_logs

from kubelet_py.api import core_v1
from kubelet_py.api.pod import containers_of
from kubelet_py.core.volume_plan import MountedVolume, VolumeKind
from kubelet_py.errors import SyncError
from kubelet_py.managers.volumes import VolumeManager, VolumeSettings, setup
from tests.fakes.waiting import eventually
from tests.unit.kubelet_py.sync.rig import UID, Clock, Sources, a_container, a_pod


@pytest.fixture
def sources() -> Sources:
    made = Sources()
    made.config_maps["app"] = core_v1.ConfigMap(data={"key": "1"})
    return made


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
async def manager(tmp_path: Path, sources: Sources, clock: Clock) -> AsyncIterator[VolumeManager]:
    made = VolumeManager(tmp_path, sources, VolumeSettings(make_root_shared=False), clock.seconds)
    made.prepare()
    with capture_logs():
        yield made


def pod_with(*names: str) -> core_v1.Pod:
    """A pod that mounts these ConfigMaps."""
    return a_pod(
        a_container(volumeMounts=[{"name": name, "mountPath": f"/{name}"} for name in names]),
        volumes=[{"name": name, "configMap": {"name": name}} for name in names],
    )


def content(root: Path, name: str = "app") -> str:
    return (root / "pods" / UID / "volumes" / "kubernetes.io~configmap" / name / "key").read_text()


async def test_a_mounted_volume_whose_source_is_gone_keeps_what_it_held(
    manager: VolumeManager, sources: Sources, clock: Clock, tmp_path: Path
) -> None:
    pod, complaints = pod_with("app"), list[str]()
    mounted = await manager.ensure_volumes(pod, complaints.append)
    assert (complaints, manager.refresh_due_seconds(UID)) == ([], None)
    del sources.config_maps["app"]
    assert await manager.ensure_volumes(pod, complaints.append) == mounted
    assert complaints == ['MountVolume.SetUp failed for volume "app" : configmap "app" not found']
    assert content(tmp_path) == "1"
    sources.config_maps["app"] = core_v1.ConfigMap(data={"key": "2"})
    clock.advance(0.5)
    assert await manager.ensure_volumes(pod, complaints.append) == mounted
    assert (len(complaints), content(tmp_path), manager.refresh_due_seconds(UID)) == (1, "2", None)


async def test_tries_to_refresh_become_rare_while_the_server_is_away(
    manager: VolumeManager, sources: Sources, clock: Clock
) -> None:
    """Each may take as long as the client waits, and each complaint is an event."""
    pod, complaints, waits = pod_with("app"), list[str](), list[float | None]()
    await manager.ensure_volumes(pod)
    sources.is_away, sources.asked = True, 0
    for _ in range(10):
        await manager.ensure_volumes(pod, complaints.append)
        await manager.ensure_volumes(pod, complaints.append)
        waits.append(due := manager.refresh_due_seconds(UID))
        clock.advance(due or 0)
    assert waits == [0.5, 1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 122.0, 122.0]
    assert (len(complaints), sources.asked) == (10, 10)


async def test_a_source_that_changes_ends_the_wait(manager: VolumeManager, sources: Sources, tmp_path: Path) -> None:
    pod = pod_with("app")
    manager.note_change(UID)
    await manager.ensure_volumes(pod)
    del sources.config_maps["app"]
    await manager.ensure_volumes(pod)
    sources.config_maps["app"] = core_v1.ConfigMap(data={"key": "2"})
    manager.note_change(UID)
    await manager.ensure_volumes(pod)
    assert content(tmp_path) == "2"


async def test_a_change_that_comes_while_a_try_fails_ends_the_wait_too(
    manager: VolumeManager, sources: Sources, monkeypatch: pytest.MonkeyPatch
) -> None:
    pod = pod_with("app")
    await manager.ensure_volumes(pod)
    answer = asyncio.Event()

    async def slow(namespace: str, name: str) -> core_v1.ConfigMap | None:
        await answer.wait()
        return None

    monkeypatch.setattr(sources, "config_map", slow)
    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(manager.ensure_volumes(pod), name="pass")
        await asyncio.sleep(0)
        manager.note_change(UID)
        answer.set()
    assert manager.refresh_due_seconds(UID) is None


async def test_a_volume_that_was_never_mounted_holds_the_pod_up(
    manager: VolumeManager, sources: Sources, clock: Clock
) -> None:
    pod, complaints = pod_with("app", "other"), list[str]()
    for _ in range(2):
        with pytest.raises(SyncError, match='"other" not found'):
            await manager.ensure_volumes(pod, complaints.append)
    assert complaints == []
    sources.config_maps["other"] = core_v1.ConfigMap(data={"key": "1"})
    assert sorted(await manager.ensure_volumes(pod)) == ["app", "other"]


async def test_a_refresh_that_cannot_be_written_is_tried_again(
    manager: VolumeManager, sources: Sources, clock: Clock, tmp_path: Path
) -> None:
    pod, complaints = pod_with("app"), list[str]()
    await manager.ensure_volumes(pod)
    directory = tmp_path / "pods" / UID / "volumes" / "kubernetes.io~configmap" / "app"
    directory.rename(aside := tmp_path / "aside")
    directory.touch()
    sources.config_maps["app"] = core_v1.ConfigMap(data={"key": "2"})
    await manager.ensure_volumes(pod, complaints.append)
    assert complaints == [f'MountVolume.SetUp failed for volume "app" : File exists: {directory}']
    directory.unlink()
    aside.rename(directory)
    clock.advance(0.5)
    await manager.ensure_volumes(pod)
    assert content(tmp_path) == "2"


class DeadServer:
    """What a look at an NFS server's files is when the server is gone."""

    def __init__(self) -> None:
        self.is_back = threading.Event()
        self.looks = 0

    def look(self, *_: object) -> None:
        self.looks += 1
        self.is_back.wait()


@pytest.fixture
def dead_server() -> Iterator[DeadServer]:
    made = DeadServer()
    yield made
    made.is_back.set()


def pod_on(volume: dict[str, Any], uid: str = UID, **mount: str) -> core_v1.Pod:
    mounts = [{"name": "data", "mountPath": "/data", **mount}]
    return a_pod(a_container(volumeMounts=mounts), metadata={"uid": uid}, volumes=[{"name": "data", **volume}])


async def test_pods_whose_file_system_hangs_hold_no_other_up(
    manager: VolumeManager, dead_server: DeadServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(setup, "set_up_host_path", dead_server.look)
    async with asyncio.TaskGroup() as tasks:
        hanging = [
            tasks.create_task(manager.ensure_volumes(pod_on({"hostPath": {"path": "/nfs"}}, f"u{number}")))
            for number in range(40)
        ]
        await eventually(lambda: dead_server.looks == len(hanging))
        async with asyncio.timeout(10):
            assert "data" in await manager.ensure_volumes(pod_on({"emptyDir": {}}))
            await manager.teardown_volumes(UID)
        for task in hanging:
            task.cancel()


async def test_of_one_pod_no_second_operation_hangs_beside_the_first(
    tmp_path: Path, dead_server: DeadServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(setup, "set_up_host_path", dead_server.look)
    manager = VolumeManager(tmp_path, None, VolumeSettings(setup_timeout_seconds=0.01, make_root_shared=False))
    pod = pod_on({"hostPath": {"path": "/nfs"}})
    with pytest.raises(SyncError, match=r"timed out after 0\.01 s waiting for the file system"):
        await manager.ensure_volumes(pod)
    with pytest.raises(SyncError, match="an earlier attempt still hangs"):
        await manager.ensure_volumes(pod)
    with pytest.raises(SyncError, match="an earlier operation on the pod's volumes still hangs"):
        await manager.teardown_volumes(UID)
    assert dead_server.looks == 1


async def test_a_sub_path_that_hangs_is_not_tried_beside_itself(
    tmp_path: Path, dead_server: DeadServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("kubelet_py.managers.volumes.manager.bind_subpath", dead_server.look)
    manager = VolumeManager(tmp_path, None, VolumeSettings(setup_timeout_seconds=0.01, make_root_shared=False))
    pod = pod_on({"hostPath": {"path": "/nfs"}}, subPath="part")
    mounted = {"data": MountedVolume("data", "/nfs", VolumeKind.HOST_PATH)}
    for _ in range(2):
        with pytest.raises(SyncError, match="timed out waiting for the file system"):
            await manager.to_cri_mounts(pod, containers_of(pod)[0], mounted)
    assert dead_server.looks == 1
