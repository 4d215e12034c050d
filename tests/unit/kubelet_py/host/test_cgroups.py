"""Which file gets what, on both versions; v2 in a scratch tree."""

from dataclasses import replace
from pathlib import Path

from kubelet_py.core.cgroup_rules import CgroupLimits, adopted_limits
from kubelet_py.host.cgroups import CgroupTree, discover, unified_files, v1_files
from kubelet_py.host.mounts import parse_mountinfo

LIMITS = CgroupLimits(
    cpu_shares=1024,
    cpu_quota_microseconds=-1,
    cpu_period_microseconds=100_000,
    memory_bytes=1 << 30,
    pids=-1,
    hugepages={"2MB": 0},
    unified={"memory.min": "0"},
)

V1 = """\
30 20 0:29 / /sys/fs/cgroup/cpu,cpuacct rw - cgroup cgroup rw,cpu,cpuacct
31 20 0:30 / /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory
32 20 0:31 / /sys/fs/cgroup/systemd rw - cgroup cgroup rw,xattr,name=systemd
33 20 0:32 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw
34 20 0:33 / /mnt/with\\040space rw shared:1 - tmpfs tmpfs rw
"""


def test_a_machine_is_v1_as_soon_as_one_controller_is() -> None:
    tree = discover(parse_mountinfo(V1))
    assert not tree.is_unified
    assert tree.controllers["cpuacct"] == Path("/sys/fs/cgroup/cpu,cpuacct")
    assert tree.controllers["name=systemd"] == Path("/sys/fs/cgroup/systemd")
    assert len(list(tree.directories("/kubepods"))) == 3
    assert discover(parse_mountinfo(V1.splitlines()[3])).unified == Path("/sys/fs/cgroup/unified")


def test_mountinfo_is_read_with_its_escapes() -> None:
    entries = parse_mountinfo(V1 + "nonsense\n")
    assert entries[-1].mount_point == "/mnt/with space"
    assert entries[-1].is_shared
    assert not entries[0].is_shared


def test_limits_by_version() -> None:
    assert dict(unified_files(LIMITS)) == {
        "cpu.weight": "39",
        "cpu.max": "max 100000",
        "memory.max": str(1 << 30),
        "pids.max": "max",
        "hugetlb.2MB.max": "0",
        "memory.min": "0",
    }
    assert list(v1_files(LIMITS)) == [
        ("cpu", "cpu.shares", "1024"),
        ("cpu", "cpu.cfs_period_us", "100000"),
        ("cpu", "cpu.cfs_quota_us", "-1"),
        ("memory", "memory.limit_in_bytes", str(1 << 30)),
        ("pids", "pids.max", "max"),
        ("hugetlb", "hugetlb.2MB.limit_in_bytes", "0"),
    ]
    assert list(unified_files(CgroupLimits())) == []
    assert list(v1_files(CgroupLimits())) == []


def test_on_v2_each_level_passes_its_controllers_on(tmp_path: Path) -> None:
    tree = CgroupTree(tmp_path)
    for level in (tmp_path, tmp_path / "kubepods", tmp_path / "kubepods" / "burstable"):
        level.mkdir(exist_ok=True)
        (level / "cgroup.controllers").write_text("cpuset cpu memory pids misc\n")
        (level / "cgroup.subtree_control").write_text("cpu memory cpuset\n")
    pod = tmp_path / "kubepods" / "burstable" / "podx"
    pod.mkdir()
    (pod / "cgroup.controllers").write_text("cpu memory\n")
    tree.ensure("/kubepods/burstable/podx", LIMITS)
    for level in (tmp_path, tmp_path / "kubepods", tmp_path / "kubepods" / "burstable"):
        # A file of the scratch tree keeps the last word written; the kernel's adds it up.
        assert (level / "cgroup.subtree_control").read_text() == "+pids"
    assert (pod / "cpu.max").read_text() == "max 100000"
    assert not (pod / "pids.max").exists(), "a controller that is not there is left out"
    assert not (pod / "cgroup.subtree_control").exists()


def test_beside_v1_the_v2_hierarchy_is_only_tidied(tmp_path: Path) -> None:
    """runc puts containers into a v2 hierarchy without controllers too: nothing is made there, all is removed."""
    assert discover(parse_mountinfo(V1)).hybrid == Path("/sys/fs/cgroup/unified")
    tree = CgroupTree(controllers={"memory": tmp_path / "memory"}, hybrid=tmp_path / "unified")
    (tmp_path / "memory").mkdir()
    tree.ensure("/kubepods/pod1")
    assert not (tmp_path / "unified").exists()
    (tmp_path / "unified/kubepods/pod1/container").mkdir(parents=True)
    tree.remove("/kubepods/pod1")
    assert list((tmp_path / "unified/kubepods").iterdir()) == []
    assert list((tmp_path / "memory/kubepods").iterdir()) == []


def test_huge_pages_are_limited_when_they_are_reserved_where_the_kernel_can(tmp_path: Path) -> None:
    limits = CgroupLimits(hugepages={"2MB": 4096})
    new, old, v1 = CgroupTree(tmp_path / "new"), CgroupTree(tmp_path / "old"), CgroupTree(None, {"hugetlb": tmp_path})
    for name in ("new", "old"):
        (tmp_path / name / "pod").mkdir(parents=True)
        (tmp_path / name / "pod" / "cgroup.controllers").write_text("hugetlb")
    (tmp_path / "pod").mkdir()
    reserved = tmp_path / "new" / "pod" / "hugetlb.2MB.rsvd.max", tmp_path / "pod" / "hugetlb.2MB.rsvd.limit_in_bytes"
    for file in reserved:
        file.touch()
    for tree in (new, old, v1):
        tree.update("/pod", limits)
    assert [file.read_text() for file in reserved] == ["4096", "4096"]
    assert (tmp_path / "old" / "pod" / "hugetlb.2MB.max").read_text() == "4096"
    assert not (tmp_path / "old" / "pod" / "hugetlb.2MB.rsvd.max").exists()
    CgroupTree(None, {"memory": tmp_path}).update("/pod", limits)


def test_limits_are_read_back_on_v2(tmp_path: Path) -> None:
    tree = CgroupTree(tmp_path)
    assert tree.limits("/pod") is None
    (tmp_path / "pod").mkdir()
    assert tree.limits("/pod") == CgroupLimits(), "no controller"
    for limits in (
        CgroupLimits(cpu_shares=1025, cpu_quota_microseconds=5000, cpu_period_microseconds=100_000, memory_bytes=4096),
        CgroupLimits(cpu_shares=262_144, cpu_period_microseconds=50_000),
    ):
        unlimited = replace(limits, cpu_quota_microseconds=limits.cpu_quota_microseconds or -1)
        for file, value in unified_files(replace(unlimited, memory_bytes=limits.memory_bytes or -1)):
            (tmp_path / "pod" / file).write_text(f"{value}\n")
        found = tree.limits("/pod")
        assert found is not None
        assert adopted_limits(found, limits, unified=True) == limits


def test_limits_are_read_back_on_v1(tmp_path: Path) -> None:
    tree = CgroupTree(None, {"cpu": tmp_path / "cpu", "memory": tmp_path / "memory"})
    (tmp_path / "cpu" / "pod").mkdir(parents=True)
    assert tree.limits("/pod") is None, "half of it is not there"
    (tmp_path / "memory" / "pod").mkdir(parents=True)
    limits = CgroupLimits(cpu_shares=102, cpu_quota_microseconds=5000, cpu_period_microseconds=100_000, memory_bytes=64)
    for controller, file, value in v1_files(limits):
        (tmp_path / controller / "pod" / file).write_text(f"{value}\n")
    assert tree.limits("/pod") == limits
    (tmp_path / "cpu" / "pod" / "cpu.cfs_quota_us").write_text("-1\n")
    (tmp_path / "memory" / "pod" / "memory.limit_in_bytes").write_text("9223372036854771712\n")
    assert tree.limits("/pod") == CgroupLimits(cpu_shares=102, cpu_period_microseconds=100_000)
    assert CgroupTree(None, {"memory": tmp_path / "memory"}).limits("/pod") == CgroupLimits()
    assert CgroupTree(None, {"cpu": tmp_path / "cpu"}).limits("/none") is None


def test_memory_in_use_is_read_where_it_is_counted(tmp_path: Path) -> None:
    """None where it is not, or the file says nothing."""
    v1, v2 = CgroupTree(None, {"memory": tmp_path}), CgroupTree(tmp_path)
    (tmp_path / "a").mkdir()
    assert v1.memory_usage_bytes("/a") is None
    (tmp_path / "a" / "memory.usage_in_bytes").write_text("4096\n")
    (tmp_path / "a" / "memory.current").write_text("8192\n")
    assert (v1.memory_usage_bytes("/a"), v2.memory_usage_bytes("/a")) == (4096, 8192)
    assert CgroupTree(None, {"cpu": tmp_path}).memory_usage_bytes("/a") is None
    (tmp_path / "a" / "memory.current").write_text("nonsense")
    assert v2.memory_usage_bytes("/a") is None


def test_swap_is_counted_where_its_file_is(tmp_path: Path) -> None:
    """On v2 the root has no limits of its own, so a cgroup below it is looked at."""
    v1, v2 = CgroupTree(None, {"memory": tmp_path}), CgroupTree(tmp_path)
    assert not v1.counts_swap("")
    assert not v2.counts_swap("/own")
    (tmp_path / "memory.memsw.limit_in_bytes").touch()
    (tmp_path / "own").mkdir()
    (tmp_path / "own" / "memory.swap.max").touch()
    assert v1.counts_swap("")
    assert v2.counts_swap("/own")
    assert not CgroupTree(None, {"cpu": tmp_path}).counts_swap("")
