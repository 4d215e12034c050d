"""What the cgroups of pods and daemons may use."""

from kubelet_py.core.cgroup_rules import CgroupDriver, CgroupLimits
from kubelet_py.core.node_allocatable import (
    ReservedCgroup,
    compute_pods_limits,
    existing_cgroup_paths,
    reserved_cgroups,
)
from kubelet_py.core.node_rules import Hugepages, MachineInfo, NodeObservation, NodeSettings, compute_capacity

GI = 1 << 30
MACHINE = MachineInfo(
    "", "", "", "", "", cores=4, memory_bytes=8 * GI, max_pids=1000, hugepages=(Hugepages(2 << 20, 3),)
)
SETTINGS = NodeSettings(
    name="node-1",
    kube_reserved={"cpu": "500m", "memory": "1Gi", "pid": "100"},
    system_reserved={"cpu": "250m", "memory": "9Gi"},
)
CAPACITY = compute_capacity(SETTINGS, NodeObservation(machine=MACHINE, addresses=()))


def test_pods_have_what_is_not_reserved() -> None:
    """Never less than nothing; what is not known of the machine is not limited."""
    assert compute_pods_limits(SETTINGS, MACHINE, CAPACITY, ["pods"]) == CgroupLimits(
        cpu_shares=3328, memory_bytes=0, pids=900, hugepages={"2MB": 6 << 20}
    )
    unknown = MachineInfo("", "", "", "", "", cores=4, memory_bytes=8 * GI)
    assert compute_pods_limits(SETTINGS, unknown, CAPACITY, ["pods"]).pids is None


def test_pods_have_all_there_is_where_nothing_is_enforced() -> None:
    assert compute_pods_limits(SETTINGS, MACHINE, CAPACITY, ["none"]) == CgroupLimits(
        cpu_shares=4096, memory_bytes=8 * GI, pids=1000, hugepages={"2MB": 6 << 20}
    )


def test_daemons_are_held_to_what_is_reserved_for_them() -> None:
    cgroups = {"system": "/system", "kube": "/kube"}
    reservations = {"system": {"cpu": "250m", "memory": "1Gi", "pid": "7"}, "kube": {"ephemeral-storage": "1Gi"}}
    every = ["pods", "kube-reserved", "system-reserved", "system-reserved-compressible", "kube-reserved-compressible"]
    found = reserved_cgroups(every, cgroups, reservations, protects_memory=True)
    assert found == (
        ReservedCgroup(
            "System", "/system", CgroupLimits(256, memory_bytes=GI, pids=7, unified={"memory.min": str(GI)})
        ),
        ReservedCgroup("Kube", "/kube", CgroupLimits()),
        ReservedCgroup("System", "/system", CgroupLimits(256), only_compressible=True),
        ReservedCgroup("Kube", "/kube", CgroupLimits(), only_compressible=True),
    )
    assert [each.words for each in found][::2] == ["System Reserved", "System Reserved Compressible"]
    (only,) = reserved_cgroups(["system-reserved"], cgroups, reservations, protects_memory=False)
    assert only.limits.unified == {}
    assert reserved_cgroups(["pods"], cgroups, reservations, protects_memory=True) == ()


def test_a_reserved_cgroup_may_be_named_as_systemd_names_it() -> None:
    """As it is written comes first; nothing is nowhere."""
    assert existing_cgroup_paths("/daemons/kube", CgroupDriver.CGROUPFS) == ("/daemons/kube",)
    assert existing_cgroup_paths("/system", CgroupDriver.SYSTEMD) == ("/system", "/system.slice")
    assert existing_cgroup_paths("a-b.slice", CgroupDriver.SYSTEMD) == ("a-b.slice", "/a.slice/a-b.slice")
    assert existing_cgroup_paths("/a.slice/a-b.slice/", CgroupDriver.SYSTEMD)[1] == "/a.slice/a-b.slice"
    assert existing_cgroup_paths("/system.slice", CgroupDriver.SYSTEMD) == ("/system.slice",)
    assert existing_cgroup_paths("", CgroupDriver.CGROUPFS) == existing_cgroup_paths("/", CgroupDriver.SYSTEMD) == ()
