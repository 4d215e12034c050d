"""Cgroups of pods: made once with their limits below their class, removed with the pod. On a tree without a kernel."""

import asyncio
import threading
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from blockbuster import blockbuster_ctx
from structlog.testing import capture_logs

from kubelet_py.api import codec, core_v1
from kubelet_py.core.cgroup_rules import CgroupDriver, CgroupLimits, CgroupSettings, MemoryUsage
from kubelet_py.errors import SyncError
from kubelet_py.managers.pod_cgroups import PodCgroups

GUARANTEED = {"limits": {"cpu": "1", "memory": "1Mi"}, "requests": {"cpu": "1", "memory": "1Mi"}}
BURSTABLE = {"requests": {"cpu": "500m"}}


class Tree:
    """What PodCgroups asks of a CgroupTree, with a record of what was asked."""

    def __init__(self) -> None:
        self.made: dict[str, CgroupLimits | None] = {}
        self.ensured: list[str] = []
        self.error: OSError | None = None

    def ensure(self, path: str, limits: CgroupLimits | None = None) -> None:
        if self.error is not None:
            raise self.error
        self.ensured.append(path)
        self.made[path] = limits

    update = ensure

    def remove(self, path: str) -> None:
        if self.error is not None:
            raise self.error
        for known in [known for known in self.made if known == path or known.startswith(f"{path}/")]:
            del self.made[known]

    def limits(self, path: str) -> CgroupLimits | None:
        return (self.made[path] or CgroupLimits()) if path in self.made else None

    def memory_usage_bytes(self, path: str) -> int | None:
        return len(path) if path in self.made else None

    def children(self, path: str) -> list[str]:
        return [Path(known).name for known in self.made if str(Path(known).parent) == path]


def a_pod(uid: str = "u-1", resources: Mapping[str, Any] | None = None) -> core_v1.Pod:
    return codec.from_builtins(
        core_v1.Pod,
        {
            "metadata": {"name": "web", "namespace": "shop", "uid": uid},
            "spec": {"containers": [{"name": "main", "resources": dict(resources or {})}]},
        },
    )


class Node:
    def __init__(self, tree: Tree | None = None, **settings: Any) -> None:
        self.tree = tree or Tree()
        self.settings = replace(CgroupSettings(driver=CgroupDriver.CGROUPFS, cgroups_per_qos=True), **settings)
        # The real ones are tested in tests/integration/host and on a machine with systemd.
        self.cgroups = PodCgroups(dict.fromkeys(CgroupDriver, self.tree), lambda: self.settings)


async def test_each_class_has_its_own_place() -> None:
    node = Node()
    with blockbuster_ctx("kubelet_py"):
        for uid, resources in (("g", GUARANTEED), ("b", BURSTABLE), ("n", None)):
            await node.cgroups.ensure_pod(a_pod(uid, resources))
    assert {"/kubepods/podg", "/kubepods/burstable/podb", "/kubepods/besteffort/podn"} <= node.tree.made.keys()
    limits = node.tree.made["/kubepods/podg"]
    assert limits is not None
    assert limits.memory_bytes == 1024 * 1024


async def test_a_cgroup_that_is_as_it_should_be_is_not_touched() -> None:
    node = Node()
    await node.cgroups.ensure_pod(a_pod())
    before = list(node.tree.ensured)
    await node.cgroups.ensure_pod(a_pod())
    assert node.tree.ensured == before
    node.settings = replace(node.settings, pod_pids_limit=7)
    await node.cgroups.ensure_pod(a_pod())
    assert len(node.tree.ensured) == len(before) + 1


async def test_the_burstable_class_shares_cpu_by_its_requests() -> None:
    node = Node()
    await node.cgroups.ensure_pod(a_pod("a", BURSTABLE))
    await node.cgroups.ensure_pod(a_pod("b", BURSTABLE))
    shares = node.tree.made["/kubepods/burstable"]
    assert shares is not None
    assert shares.cpu_shares == 1024
    await node.cgroups.remove_pod(a_pod("a", BURSTABLE))
    shares = node.tree.made["/kubepods/burstable"]
    assert shares is not None
    assert shares.cpu_shares == 512


async def test_the_classes_protect_the_memory_of_their_pods() -> None:
    """A pod's memory is protected no further than that of the cgroups around it."""
    node = Node(unified=True, tiered_memory_reservation=True)
    await node.cgroups.ensure_pod(a_pod("g", GUARANTEED))
    await node.cgroups.ensure_pod(a_pod("b", {"requests": {"memory": "3"}}))
    assert node.tree.made["/kubepods"] == CgroupLimits(unified={"memory.min": "1048579", "memory.low": "3"})
    burstable = node.tree.made["/kubepods/burstable"]
    assert burstable is not None
    assert burstable.unified == {"memory.low": "3"}
    await node.cgroups.remove_pod(a_pod("b"))
    assert node.tree.made["/kubepods"] == CgroupLimits(unified={"memory.min": "1048576", "memory.low": "0"})


async def test_a_removed_pod_leaves_nothing_and_can_come_back() -> None:
    node = Node()
    for _ in range(2):
        await node.cgroups.ensure_pod(a_pod())
        assert "/kubepods/besteffort/podu-1" in node.tree.made
        await node.cgroups.remove_pod(a_pod())
        assert "/kubepods/besteffort/podu-1" not in node.tree.made
    await node.cgroups.remove_pod(a_pod())


async def test_the_kernels_refusals_hold_the_pod_up() -> None:
    node = Node()
    node.tree.error = OSError("read-only file system")
    with pytest.raises(SyncError, match="read-only") as caught:
        await node.cgroups.ensure_pod(a_pod())
    assert caught.value.reason == "FailedCreatePodContainer"
    with pytest.raises(SyncError, match="read-only") as caught:
        await node.cgroups.remove_pod(a_pod())
    assert caught.value.reason == "FailedKillPod"
    node.tree.error = None
    await node.cgroups.ensure_pod(a_pod())


async def test_what_is_not_ours_is_left_alone() -> None:
    node = Node(cgroups_per_qos=False)
    await node.cgroups.ensure_pod(a_pod())
    await node.cgroups.remove_pod(a_pod())
    await node.cgroups.remove_orphans(lambda uid: False)
    assert node.tree.ensured == []


async def test_cgroups_of_pods_that_nobody_knows_go() -> None:
    node = Node()
    for path in ("/kubepods/podold", "/kubepods/burstable/podold2", "/kubepods/burstable/podnew", "/kubepods/other"):
        node.tree.made[path] = None
    with capture_logs() as logs:
        await node.cgroups.remove_orphans({"new"}.__contains__)
    assert sorted(node.tree.made) == ["/kubepods/burstable/podnew", "/kubepods/other"]
    assert len(logs) == 2


async def test_a_cgroup_that_will_not_go_keeps_no_other_from_going(monkeypatch: pytest.MonkeyPatch) -> None:
    """A process that hangs in a file system."""
    node = Node()
    for path in ("/kubepods/podstuck", "/kubepods/burstable/podold"):
        node.tree.made[path] = None
    remove = node.tree.remove

    def refuse(path: str) -> None:
        if path.endswith("stuck"):
            raise OSError("Device or resource busy")
        remove(path)

    monkeypatch.setattr(node.tree, "remove", refuse)
    with capture_logs() as logs:
        await node.cgroups.remove_orphans(lambda uid: False)
    assert list(node.tree.made) == ["/kubepods/podstuck"]
    assert "orphaned_pod_cgroup_stays" in {line["event"] for line in logs}


class HeldTree(Tree):
    """One whose looks and removals wait for the test, in their threads."""

    def __init__(self) -> None:
        super().__init__()
        self.reached, self.may_go_on = threading.Semaphore(0), threading.Semaphore(0)

    def _hold(self) -> None:
        self.reached.release()
        assert self.may_go_on.acquire(timeout=30)

    def children(self, path: str) -> list[str]:
        self._hold()
        return super().children(path)

    def remove(self, path: str) -> None:
        self._hold()
        super().remove(path)


async def test_a_pod_that_comes_while_orphans_are_looked_for_keeps_its_cgroup() -> None:
    """It is known before its cgroup is made, and whether it is known is asked after the cgroups were seen."""
    tree, known = HeldTree(), set[str]()
    node = Node(tree)
    tree.made["/kubepods/podold"] = None
    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(node.cgroups.remove_orphans(known.__contains__))
        await asyncio.to_thread(tree.reached.acquire)
        known.add("u-1")
        await node.cgroups.ensure_pod(a_pod())
        tree.may_go_on.release(4)  # three classes and a removal
    assert "/kubepods/besteffort/podu-1" in tree.made
    assert "/kubepods/podold" not in tree.made


async def test_a_pod_that_comes_back_while_its_cgroup_is_removed_gets_a_new_one() -> None:
    """The removal has one of the two threads; what waits for the other goes in order."""
    asyncio.get_running_loop().set_default_executor(ThreadPoolExecutor(2))
    tree = HeldTree()
    node = Node(tree)
    tree.made["/kubepods/besteffort/podu-1"] = None
    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(node.cgroups.remove_orphans(lambda uid: False))
        tree.may_go_on.release(3)
        for _ in range(4):
            await asyncio.to_thread(tree.reached.acquire)
        coming = tasks.create_task(node.cgroups.ensure_pod(a_pod()))
        await asyncio.sleep(0)
        await asyncio.to_thread(int)
        assert tree.ensured == [], "it waits for the removal"
        tree.may_go_on.release()
        await coming
    assert tree.made["/kubepods/besteffort/podu-1"] is not None


async def test_a_pod_is_resized_step_by_step() -> None:
    """What is written is the step, what is known afterwards are all limits, and its class follows."""
    node = Node()
    await node.cgroups.ensure_pod(a_pod("b", BURSTABLE))
    bigger = a_pod("b", {"requests": {"cpu": "2"}})
    step, after = CgroupLimits(cpu_shares=2048), CgroupLimits(cpu_shares=2048, pids=5)
    await node.cgroups.update_pod(bigger, step, after)
    assert node.tree.made["/kubepods/burstable/podb"] == step
    assert node.cgroups.limits_of("b") == after
    shares = node.tree.made["/kubepods/burstable"]
    assert shares is not None
    assert shares.cpu_shares == 2048
    node.tree.error = OSError("busy")
    with pytest.raises(SyncError, match="busy") as caught:
        await node.cgroups.update_pod(bigger, step, CgroupLimits())
    assert caught.value.reason == "ResizeError"
    assert node.cgroups.limits_of("b") == after
    assert node.cgroups.limits_of("other") == CgroupLimits()


async def test_the_limits_of_a_pod_that_runs_stay(tmp_path: Path) -> None:
    """Also those that an agent of before gave it: what was done of a resize is not undone. Nothing runs: all is new."""
    node = Node()
    path = "/kubepods/podg"
    small, large = (
        a_pod("g", {"limits": {"cpu": cpu, "memory": memory}, "requests": {"cpu": cpu, "memory": memory}})
        for cpu, memory in (("1", "1Mi"), ("2", "2Mi"))
    )
    half_way = CgroupLimits(1024, 100_000, 100_000, 2 << 20)
    node.tree.made[path] = half_way
    await node.cgroups.ensure_pod(small, keeps_limits=True)
    assert node.tree.made[path] is None, "nothing was written"
    assert node.cgroups.limits_of("g").memory_bytes == 2 << 20
    await node.cgroups.ensure_pod(large, keeps_limits=True)
    assert node.cgroups.limits_of("g").cpu_shares == 1024
    await node.cgroups.ensure_pod(large)
    assert node.cgroups.limits_of("g").cpu_shares == 2048
    await node.cgroups.remove_pod(large)
    await node.cgroups.ensure_pod(small, keeps_limits=True)
    limits = node.tree.made[path]
    assert limits is not None, "one that is gone is made with its limits"
    assert limits.memory_bytes == 1 << 20


async def test_memory_in_use_is_read_for_the_pod_and_its_containers() -> None:
    """Runtimes put words around the id."""
    node = Node()
    await node.cgroups.ensure_pod(a_pod())
    pod_path = "/kubepods/besteffort/podu-1"
    node.tree.made[f"{pod_path}/cri-c1.scope"] = None
    usage = await node.cgroups.memory_usage(a_pod(), ["c1", "c2"])
    assert usage == MemoryUsage(len(pod_path), {"c1": len(pod_path) + len("/cri-c1.scope")})


async def test_with_the_systemd_driver_they_are_slices_by_its_names() -> None:
    node = Node(driver=CgroupDriver.SYSTEMD)
    await node.cgroups.ensure_pod(a_pod(resources=BURSTABLE))
    burstable = "/kubepods.slice/kubepods-burstable.slice"
    assert set(node.tree.made) == {
        "/kubepods.slice",
        "/kubepods.slice/kubepods-besteffort.slice",
        burstable,
        f"{burstable}/kubepods-burstable-podu_1.slice",
    }
    await node.cgroups.ensure_pod(a_pod("u-2", BURSTABLE))
    await node.cgroups.remove_orphans({"u-2"}.__contains__)
    assert f"{burstable}/kubepods-burstable-podu_1.slice" not in node.tree.made
    assert f"{burstable}/kubepods-burstable-podu_2.slice" in node.tree.made
    await node.cgroups.remove_pod(a_pod("u-2", BURSTABLE))
    assert f"{burstable}/kubepods-burstable-podu_2.slice" not in node.tree.made


async def test_without_cgroups_for_classes_pods_are_only_counted() -> None:
    node = Node(cgroups_per_qos=False)
    await node.cgroups.update_pod(a_pod(), CgroupLimits(memory_bytes=1), CgroupLimits(memory_bytes=1))
    assert node.tree.made == {}
    assert node.cgroups.limits_of("u-1") == CgroupLimits(memory_bytes=1)
    assert await node.cgroups.memory_usage(a_pod(), ["c1"]) is None
