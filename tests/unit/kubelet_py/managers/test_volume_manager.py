"""Volumes whose sources go away, and come back."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from kubelet_py.api import core_v1
from kubelet_py.errors import SyncError
from kubelet_py.managers.volumes import VolumeManager, VolumeSettings
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
    made.close()


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
