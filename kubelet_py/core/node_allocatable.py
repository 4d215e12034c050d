"""What the cgroups of all pods, of the system and of Kubernetes' own daemons may use.

Upstream counterpart: pkg/kubelet/cm/node_container_manager_linux.go.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from kubelet_py.api import quantity as q
from kubelet_py.core.cgroup_rules import CgroupDriver, CgroupLimits, cgroup_path, cpu_shares_of, hugepage_size_name
from kubelet_py.core.node_rules import MachineInfo, NodeSettings
from kubelet_py.core.pod_resources import CPU, MEMORY

PIDS = "pid"
PODS = "pods"
SLICE = ".slice"


@dataclass(frozen=True, slots=True)
class ReservedCgroup:
    """A cgroup that exists already and is held to what is reserved for it. `title`: System or Kube."""

    title: str
    path: str
    limits: CgroupLimits
    only_compressible: bool = False

    @property
    def words(self) -> str:
        """What it is, as events call it."""
        return f"{self.title} Reserved{' Compressible' if self.only_compressible else ''}"


def compute_pods_limits(
    settings: NodeSettings, machine: MachineInfo, capacity: Mapping[str, q.Quantity], enforced: Sequence[str]
) -> CgroupLimits:
    """The cgroup of all pods: capacity less what is reserved where "pods" is enforced, else all there is.

    The CPU shares are written in any case: the kernel's default would starve pods. Eviction thresholds are not taken
    off here, so that eviction comes before the kernel's killer.
    """
    reservations = (settings.kube_reserved, settings.system_reserved) if PODS in enforced else ()

    def left(name: str, amount: q.Quantity) -> q.Quantity:
        for reserved in reservations:
            amount -= q.parse(reserved.get(name, "0"))
        return amount if amount.nanos > 0 else q.ZERO

    return CgroupLimits(
        cpu_shares=cpu_shares_of(left(CPU, capacity[CPU]).milli_value),
        memory_bytes=left(MEMORY, capacity[MEMORY]).value,
        pids=left(PIDS, q.from_units(machine.max_pids)).value if machine.max_pids else None,
        hugepages={hugepage_size_name(p.size_bytes): p.size_bytes * p.count for p in machine.hugepages},
    )


def reserved_cgroups(
    enforced: Sequence[str],
    cgroups: Mapping[str, str],
    reservations: Mapping[str, Mapping[str, str]],
    protects_memory: bool,
) -> tuple[ReservedCgroup, ...]:
    """In the order in which they are enforced; `cgroups` and `reservations` are by `system` and `kube`.

    `protects_memory`: with MemoryQoS on cgroup v2, what is reserved is also kept from being reclaimed.
    """
    found = []
    for suffix in ("", "-compressible"):
        for kind in ("system", "kube"):
            if f"{kind}-reserved{suffix}" in enforced:
                limits = _limits_of(reservations[kind], bool(suffix), protects_memory)
                found.append(ReservedCgroup(kind.title(), cgroups[kind], limits, bool(suffix)))
    return tuple(found)


def existing_cgroup_paths(setting: str, driver: CgroupDriver) -> tuple[str, ...]:
    """Where the cgroup of a setting may be, most likely first: as it is written, and as systemd would make it.

    With systemd the last part is the slice's name, with or without its ending: /runtime, runtime.slice.
    """
    if not setting.strip("/"):
        return ()
    if driver is CgroupDriver.CGROUPFS:
        return (setting,)
    unit = setting.rstrip("/").rpartition("/")[2].removesuffix(SLICE)
    return tuple(dict.fromkeys((setting, cgroup_path(tuple(unit.split("-")), driver))))


def _limits_of(reserved: Mapping[str, str], only_compressible: bool, protects_memory: bool) -> CgroupLimits:
    shares = cpu_shares_of(q.parse(reserved[CPU]).milli_value) if CPU in reserved else None
    if only_compressible:
        return CgroupLimits(cpu_shares=shares)
    memory = q.parse(reserved[MEMORY]).value if MEMORY in reserved else None
    return CgroupLimits(
        cpu_shares=shares,
        memory_bytes=memory,
        pids=q.parse(reserved[PIDS]).value if PIDS in reserved else None,
        unified={"memory.min": str(memory)} if protects_memory and memory is not None else {},
    )
