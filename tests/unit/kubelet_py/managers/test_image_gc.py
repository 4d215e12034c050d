"""Unused images go when their disk is full or their time is over; the node's events say when that does not help."""

import asyncio
import os
from datetime import UTC, datetime
from pathlib import Path
from typing import NamedTuple

import pytest
from structlog.testing import capture_logs

from cri_proto import runtime_v1 as cri
from kubelet_py.core.image_gc_rules import ImageGcPolicy
from kubelet_py.core.pull_records import VerificationPolicy
from kubelet_py.errors import KubeletError, RuntimeCallError, RuntimeNotFound
from kubelet_py.managers.images import gc
from kubelet_py.managers.images.gc import ImageGc, ImageGcError
from kubelet_py.managers.images.records import PullRecords
from tests.fakes.runtime import FakeRuntimeClient


class Statvfs(NamedTuple):
    f_blocks: int
    f_bavail: int
    f_frsize: int = 1


class Node:
    """A runtime with containers, a disk of a thousand bytes, and a clock."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, policy: ImageGcPolicy | None = None) -> None:
        self.now = 10_000.0
        self.fake = FakeRuntimeClient()
        self.used_bytes = 900
        self.capacity_bytes = 1000
        self.events: list[tuple[str, str]] = []
        policy = policy or ImageGcPolicy()
        self.gc = ImageGc(self.fake, policy, lambda *event: self.events.append(event), clock=lambda: self.now)
        monkeypatch.setattr(os, "statvfs", self.statvfs)

    def statvfs(self, path: str) -> Statvfs:
        assert path == "/var/lib/fake"
        return Statvfs(self.capacity_bytes, self.capacity_bytes - self.used_bytes)

    def add(self, name: str, size: int = 60, pinned: bool = False) -> str:
        image = self.fake.add_image(f"r.example/{name}:1", size=size)
        image.pinned = pinned
        return image.id

    async def run_container(self, image_id: str, mounted: str = "") -> str:
        number = len(self.fake.containers)
        sandbox_config = cri.PodSandboxConfig(metadata=cri.PodSandboxMetadata(name=f"p{number}", uid=f"u{number}"))
        config = cri.ContainerConfig(metadata=cri.ContainerMetadata(name="main"), image=cri.ImageSpec(image=image_id))
        if mounted:
            config.mounts.append(cri.Mount(container_path="/v", image=cri.ImageSpec(image=mounted)))
        sandbox = await self.fake.run_pod_sandbox(sandbox_config, "")
        return await self.fake.create_container(sandbox, config, sandbox_config)

    async def collect_later(self, seconds: float = 300.0) -> None:
        self.now += seconds
        await self.gc.collect()

    @property
    def images(self) -> list[str]:
        return sorted(image.repo_tags[0] for image in self.fake.images.values())


@pytest.fixture
def node(monkeypatch: pytest.MonkeyPatch) -> Node:
    return Node(monkeypatch)


async def first_look(node: Node) -> None:
    """Nothing is old enough yet, so nothing goes."""
    before = node.images
    with pytest.raises(ImageGcError):
        await node.gc.collect()
    assert node.images == before
    node.events.clear()


async def test_images_go_until_the_disk_has_room(node: Node) -> None:
    for name in ("a", "b", "c"):
        node.add(name)
    await first_look(node)
    await node.collect_later()
    assert node.images == ["r.example/c:1"]
    assert node.events == []


async def test_used_pinned_and_mounted_images_stay(node: Node) -> None:
    used, mounted = node.add("used"), node.add("mounted")
    node.add("pinned", pinned=True)
    node.add("free", size=100)
    await node.run_container(used, mounted)
    await first_look(node)
    await node.collect_later()
    assert node.images == ["r.example/mounted:1", "r.example/pinned:1", "r.example/used:1"]


async def test_images_of_dead_containers_are_used_until_these_are_removed(node: Node) -> None:
    container = await node.run_container(node.add("a", size=100))
    await first_look(node)
    with pytest.raises(ImageGcError):
        await node.collect_later()
    assert node.images == ["r.example/a:1"]
    await node.fake.remove_container(container)
    await node.collect_later()
    assert node.images == []


async def test_a_disk_with_room_keeps_everything(node: Node) -> None:
    node.add("a")
    node.used_bytes = 800
    await node.gc.collect()
    await node.collect_later()
    assert node.images == ["r.example/a:1"]


async def test_too_little_to_remove_is_an_event(node: Node) -> None:
    node.add("a", size=5)
    await first_look(node)
    with pytest.raises(ImageGcError, match="freed 5 bytes"):
        await node.collect_later()
    assert node.images == []
    ((reason, message),) = node.events
    assert reason == "FreeDiskSpaceFailed"
    assert message.startswith("Insufficient free disk space on the node's image filesystem (90% of 1000 B used).")


async def test_old_images_go_whatever_the_disk(monkeypatch: pytest.MonkeyPatch) -> None:
    node = Node(monkeypatch, ImageGcPolicy(max_age_seconds=1000.0))
    node.used_bytes = 0
    used = node.add("used")
    container = await node.run_container(used)
    node.add("old")
    await node.gc.collect()
    await node.collect_later(1000.0)
    assert len(node.images) == 2
    await node.collect_later(1.0)
    assert node.images == ["r.example/used:1"]
    await node.fake.remove_container(container)
    node.add("new")
    await node.collect_later(900.0)
    assert len(node.images) == 2
    await node.collect_later(200.0)
    assert node.images == ["r.example/new:1"]


async def test_one_image_that_cannot_be_removed_stops_nothing(node: Node) -> None:
    for name in ("a", "b", "c"):
        node.add(name)
    await first_look(node)
    node.fake.fail("RemoveImage", RuntimeCallError("RemoveImage", "UNKNOWN", "read-only file system"))
    with pytest.raises(ImageGcError, match="/a:1: read-only file system"):
        await node.collect_later()
    assert node.images == ["r.example/a:1"]
    node.used_bytes = 860
    await node.collect_later()
    assert node.images == []


async def test_a_container_that_goes_meanwhile_is_no_error(node: Node) -> None:
    await node.run_container(node.add("used"))
    node.add("free", size=100)
    await first_look(node)
    node.fake.fail("ContainerStatus", RuntimeNotFound("ContainerStatus", "NOT_FOUND", "gone"))
    await node.collect_later()
    assert node.images == ["r.example/used:1"]


async def test_a_disk_without_size_is_an_event(node: Node) -> None:
    node.capacity_bytes = node.used_bytes = 0
    with pytest.raises(ImageGcError):
        await node.gc.collect()
    assert node.events == [("InvalidDiskCapacity", "invalid capacity 0 on image filesystem")]


async def test_a_place_that_cannot_be_looked_at(node: Node, monkeypatch: pytest.MonkeyPatch) -> None:
    def gone(path: str) -> Statvfs:
        raise FileNotFoundError(2, "No such file or directory", path)

    monkeypatch.setattr(os, "statvfs", gone)
    with pytest.raises(ImageGcError, match="/var/lib/fake"):
        await node.gc.collect()


async def test_a_runtime_that_names_no_place(node: Node, monkeypatch: pytest.MonkeyPatch) -> None:
    async def nothing() -> cri.ImageFsInfoResponse:
        return cri.ImageFsInfoResponse()

    monkeypatch.setattr(node.fake, "image_fs_info", nothing)
    with pytest.raises(ImageGcError, match="names no file system"):
        await node.gc.collect()


async def test_only_the_second_failure_in_a_row_is_an_event(node: Node, monkeypatch: pytest.MonkeyPatch) -> None:
    """And a good pass in between starts the count anew."""
    monkeypatch.setattr(gc, "INTERVAL_SECONDS", 0.0)
    outcomes = iter([True, False, True, True, True])
    done = asyncio.Event()

    async def collect() -> None:
        fails = next(outcomes, None)
        if fails is None:
            done.set()
            await asyncio.Event().wait()
        if fails:
            raise KubeletError("the disk is on fire")

    monkeypatch.setattr(node.gc, "collect", collect)
    with capture_logs() as logs:
        task = asyncio.get_running_loop().create_task(node.gc.run())
        await done.wait()
        task.cancel()
    assert node.events == [("ImageGCFailed", "the disk is on fire")] * 2
    assert len(logs) == 4


async def test_switched_off_it_asks_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    node = Node(monkeypatch, ImageGcPolicy(high_percent=100))
    task = asyncio.get_running_loop().create_task(node.gc.run())
    for _ in range(5):
        await asyncio.sleep(0)
    assert not task.done()
    assert node.fake.calls == []
    task.cancel()


async def test_records_of_pulls_go_with_the_images(node: Node, tmp_path: Path) -> None:
    records = PullRecords(tmp_path, VerificationPolicy(), lambda: datetime(2020, 1, 1, tzinfo=UTC))
    await records.prepare(node.fake)
    kept, gone = node.add("kept"), node.add("gone", size=100)
    await node.run_container(kept)
    for name, image_id in (("kept", kept), ("gone", gone)):
        await records.begin(name)
        await records.succeed(name, image_id, None)
    collector = ImageGc(node.fake, ImageGcPolicy(), lambda *event: None, records, clock=lambda: node.now)
    node.gc = collector
    await first_look(node)
    assert len(os.listdir(tmp_path / "image_manager/pulled")) == 2
    await node.collect_later()
    assert len(os.listdir(tmp_path / "image_manager/pulled")) == 1
