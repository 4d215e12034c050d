"""Cgroups of the real kernel, under a root of the test's own that goes with it."""

import asyncio
import contextlib
import os
import secrets
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from kubelet_py.api import codec, core_v1
from kubelet_py.core.cgroup_rules import CgroupDriver, CgroupLimits, CgroupSettings, adopted_limits
from kubelet_py.errors import SyncError
from kubelet_py.host.cgroups import CgroupTree, discover
from kubelet_py.host.mounts import list_mounts
from kubelet_py.managers.pod_cgroups import PodCgroups

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="cgroups are root's")


def trees() -> list[Any]:
    """The tree that rules here, and an empty v2 hierarchy where there is one besides."""
    found = [pytest.param(discover(), id="v2" if discover().is_unified else "v1")]
    v2 = next((entry for entry in list_mounts() if entry.file_system == "cgroup2"), None)
    if v2 is not None and not discover().is_unified:
        found.append(pytest.param(CgroupTree(Path(v2.mount_point)), id="v2-without-controllers"))
    return found


@pytest.fixture(params=trees())
def tree(request: pytest.FixtureRequest) -> CgroupTree:
    assert isinstance(request.param, CgroupTree)
    return request.param


@contextlib.contextmanager
def scratch(tree: CgroupTree) -> Iterator[str]:
    name = f"/kubelet-py-test-{secrets.token_hex(4)}"
    try:
        yield name
    finally:
        tree.remove(name)
    assert not any(directory.exists() for directory in tree.directories(name))


@pytest.fixture
def root(tree: CgroupTree) -> Iterator[str]:
    with scratch(tree) as name:
        yield name


@pytest.fixture
def ruling() -> Iterator[tuple[CgroupTree, str]]:
    """The tree that rules here, and a root in it."""
    tree = discover()
    with scratch(tree) as name:
        yield tree, name


def read(tree: CgroupTree, path: str, controller: str, file: str) -> str:
    top = tree.unified if tree.unified is not None else tree.controllers[controller]
    return (top / path.strip("/") / file).read_text().strip()


def test_limits_are_what_the_kernel_then_says(tree: CgroupTree, root: str) -> None:
    limits = CgroupLimits(
        cpu_shares=512,
        cpu_quota_microseconds=50_000,
        cpu_period_microseconds=100_000,
        memory_bytes=64 * 1024**2,
        pids=100,
    )
    for _ in range(2):
        tree.ensure(f"{root}/a/b", limits)
    path = f"{root}/a/b"
    assert tree.exists(path)
    assert tree.children(f"{root}/a") == ["b"]
    if tree.unified is not None and "cpu" not in (tree.unified / "cgroup.controllers").read_text().split():
        return
    if tree.is_unified:
        assert read(tree, path, "cpu", "cpu.max") == "50000 100000"
        assert read(tree, path, "memory", "memory.max") == str(64 * 1024**2)
    else:
        assert read(tree, path, "cpu", "cpu.shares") == "512"
        assert read(tree, path, "cpu", "cpu.cfs_quota_us") == "50000"
        assert read(tree, path, "memory", "memory.limit_in_bytes") == str(64 * 1024**2)
        assert read(tree, path, "cpuset", "cpuset.cpus"), "a new cpuset can be used at once"
    assert read(tree, path, "pids", "pids.max") == "100"
    found = tree.limits(path)
    assert found is not None
    assert adopted_limits(found, limits, unified=tree.is_unified) == limits
    tree.update(path, CgroupLimits(pids=-1, memory_bytes=-1))
    assert read(tree, path, "pids", "pids.max") == "max"


def test_what_still_runs_goes_with_the_cgroup(tree: CgroupTree, root: str) -> None:
    path = f"{root}/pod"
    tree.ensure(f"{path}/inner")
    with subprocess.Popen(["sleep", "1000"]) as process:
        for directory in tree.directories(f"{path}/inner"):
            (directory / "cgroup.procs").write_text(str(process.pid))
        assert tree.pids(path) == [process.pid]
        tree.remove(path)
        assert process.wait(timeout=5) == -9
    assert not tree.exists(path)
    tree.remove(path)
    assert tree.pids(path) == []
    with pytest.raises(ValueError, match="no cgroup path"):
        tree.remove("/../etc")


def make_pod(uid: str, resources: dict[str, Any]) -> core_v1.Pod:
    return codec.from_builtins(
        core_v1.Pod,
        {
            "metadata": {"name": "p", "namespace": "n", "uid": uid},
            "spec": {"containers": [{"name": "c", "image": "x", "resources": resources}]},
        },
    )


def test_pods_stand_under_their_classes(ruling: tuple[CgroupTree, str]) -> None:
    tree, root = ruling
    settings = CgroupSettings(root=root, unified=tree.is_unified, pod_pids_limit=64)
    best_effort = make_pod("aaaa-1", {})
    burstable = make_pod("bbbb-2", {"requests": {"cpu": "500m"}})
    guaranteed = make_pod(
        "cccc-3", {"limits": {"cpu": "1", "memory": "64Mi"}, "requests": {"cpu": "1", "memory": "64Mi"}}
    )
    cgroups = PodCgroups({CgroupDriver.CGROUPFS: tree}, lambda: settings)

    async def main() -> None:
        for pod in (best_effort, burstable, guaranteed, burstable):
            await cgroups.ensure_pod(pod)
        assert tree.exists(f"{root}/kubepods/besteffort/podaaaa-1")
        assert tree.exists(f"{root}/kubepods/burstable/podbbbb-2")
        assert tree.exists(f"{root}/kubepods/podcccc-3")
        assert read(tree, f"{root}/kubepods/podcccc-3", "pids", "pids.max") == "64"
        for _ in range(2):
            await cgroups.remove_pod(burstable)
        assert not tree.exists(f"{root}/kubepods/burstable/podbbbb-2")
        assert tree.exists(f"{root}/kubepods/burstable")

    asyncio.run(main())


def test_no_cgroups_are_made_where_somebody_else_does(ruling: tuple[CgroupTree, str]) -> None:
    tree, root = ruling
    settings = CgroupSettings(root=root, cgroups_per_qos=False)
    cgroups = PodCgroups({CgroupDriver.CGROUPFS: tree}, lambda: settings)
    asyncio.run(cgroups.ensure_pod(make_pod("u", {})))
    assert not tree.exists(root)


def test_a_cgroup_that_cannot_be_made_is_the_pods_problem(tmp_path: Path) -> None:
    blocked = tmp_path / "cgroup"
    blocked.write_text("a file where a hierarchy should be")
    cgroups = PodCgroups({CgroupDriver.CGROUPFS: CgroupTree(blocked)}, CgroupSettings)
    with pytest.raises(SyncError) as caught:
        asyncio.run(cgroups.ensure_pod(make_pod("u", {})))
    assert caught.value.reason == "FailedCreatePodContainer"
