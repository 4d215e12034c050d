"""Where a lab's cgroup directories go on the kinds of machines there are."""

from __future__ import annotations

from pathlib import Path

from tests.lab.cgroups import Hierarchy, is_unified, plan, remove

V1_MOUNTS = """\
proc /proc proc rw,relatime 0 0
tmpfs /sys/fs/cgroup tmpfs rw,relatime,mode=755 0 0
cgroup /sys/fs/cgroup/cpu,cpuacct cgroup rw,relatime,cpu,cpuacct 0 0
cgroup /sys/fs/cgroup/memory cgroup rw,relatime,memory 0 0
cgroup /sys/fs/cgroup/systemd cgroup rw,relatime,name=systemd 0 0
cgroup2 /sys/fs/cgroup/unified cgroup2 rw,relatime 0 0
"""
V1_OWN = """\
4:memory:/jobs/17
2:cpu,cpuacct:/
1:name=systemd:/
0::/
"""
V2_MOUNTS = "cgroup2 /sys/fs/cgroup cgroup2 rw,nosuid,nodev,noexec,relatime,nsdelegate,memory_recursiveprot 0 0\n"


def test_on_v1_the_directories_lie_below_the_own_cgroup() -> None:
    found = {entry.mount_point: entry for entry in plan("lab-1", V1_MOUNTS, V1_OWN)}
    assert found == {
        "/sys/fs/cgroup/cpu,cpuacct": Hierarchy(
            "/sys/fs/cgroup/cpu,cpuacct", "cgroup", "cpu,cpuacct", "/sys/fs/cgroup/cpu,cpuacct/lab-1"
        ),
        "/sys/fs/cgroup/memory": Hierarchy(
            "/sys/fs/cgroup/memory", "cgroup", "memory", "/sys/fs/cgroup/memory/jobs/17/lab-1"
        ),
        "/sys/fs/cgroup/systemd": Hierarchy(
            "/sys/fs/cgroup/systemd", "cgroup", "name=systemd", "/sys/fs/cgroup/systemd/lab-1"
        ),
        "/sys/fs/cgroup/unified": Hierarchy("/sys/fs/cgroup/unified", "cgroup2", "", "/sys/fs/cgroup/unified/lab-1"),
    }


def test_an_empty_v2_mount_beside_v1_is_not_a_unified_machine() -> None:
    assert not is_unified(plan("lab-1", V1_MOUNTS, V1_OWN))


def test_on_v2_the_directory_is_at_the_top_because_a_cgroup_with_processes_delegates_nothing() -> None:
    found = plan("lab-1", V2_MOUNTS, "0::/user.slice/user-0.slice/session-1.scope\n")
    assert is_unified(found)
    assert [entry.directory for entry in found] == ["/sys/fs/cgroup/lab-1"]


def test_a_machine_without_cgroups_has_no_plan() -> None:
    assert plan("lab-1", "proc /proc proc rw 0 0\n", "") == ()


def test_remove_takes_nested_directories_and_does_not_mind_missing_ones(tmp_path: Path) -> None:
    (tmp_path / "lab-1" / "kubepods" / "pod1").mkdir(parents=True)
    assert remove([str(tmp_path / "lab-1"), str(tmp_path / "never-there")]) == []
    assert list(tmp_path.iterdir()) == []
