"""Names and limits of cgroups: where a pod's cgroup stands, and what CPU, memory and the rest become there.

Paths here are the cgroup's own ("/kubepods/burstable/pod<uid>"), never places in the file system: `host/cgroups.py`
knows the mounts and writes the files. A cgroup is named by its components, so that both drivers share one name.

Upstream counterparts: pkg/kubelet/cm/helpers_linux.go, cgroup_manager_linux.go, pod_container_manager_linux.go,
pkg/kubelet/kuberuntime/kuberuntime_container_linux.go.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from enum import StrEnum
from math import ceil
from typing import Any, Final

from cri_proto import runtime_v1 as cri
from kubelet_py.api import core_v1
from kubelet_py.api import pod as podlib
from kubelet_py.api import quantity as q
from kubelet_py.core import pod_resources, qos
from kubelet_py.core.pod_resources import CPU, HUGEPAGES_PREFIX, MEMORY, AnyContainer
from kubelet_py.core.qos import QosClass
from kubelet_py.errors import ConfigError

MIN_SHARES: Final = 2
MAX_SHARES: Final = 262144
SHARES_PER_CPU: Final = 1024
DEFAULT_PERIOD_MICROSECONDS: Final = 100_000
MIN_QUOTA_MICROSECONDS: Final = 1000
MAX_QUOTA_MICROSECONDS: Final = 2**63 - 1
UNLIMITED_QUOTA: Final = -1

NODE_CGROUP: Final = "kubepods"

CgroupName = tuple[str, ...]


class CgroupDriver(StrEnum):
    """Who makes cgroups, and so how they are named."""

    CGROUPFS = "cgroupfs"
    SYSTEMD = "systemd"


_DRIVERS: Final[Mapping[int, CgroupDriver]] = {
    cri.SYSTEMD: CgroupDriver.SYSTEMD,
    cri.CGROUPFS: CgroupDriver.CGROUPFS,
}


class SwapBehavior(StrEnum):
    """memorySwap.swapBehavior."""

    NO_SWAP = "NoSwap"
    LIMITED_SWAP = "LimitedSwap"


@dataclass(frozen=True, slots=True)
class CgroupSettings:
    """What the configuration and the machine say about cgroups."""

    driver: CgroupDriver = CgroupDriver.CGROUPFS
    root: str = "/"
    cgroups_per_qos: bool = True
    unified: bool = False
    """The machine has cgroup v2."""
    enforce_cpu_limits: bool = True
    cpu_period_microseconds: int = DEFAULT_PERIOD_MICROSECONDS
    node_memory_bytes: int = 0
    node_allocatable_memory_bytes: int = 0
    node_swap_bytes: int = 0
    page_size_bytes: int = 4096
    hugepage_sizes: tuple[str, ...] = ()
    """As the hugetlb controller names them: "2MB", "1GB"."""
    pod_pids_limit: int = -1
    single_process_oom_kill: bool | None = None
    swap_controller: bool = False
    swap_behavior: SwapBehavior = SwapBehavior.NO_SWAP
    memory_qos: bool = True
    memory_throttling_factor: float | None = None
    tiered_memory_reservation: bool = False


@dataclass(frozen=True, slots=True)
class CgroupLimits:
    """What to write into a cgroup; None leaves a file alone."""

    cpu_shares: int | None = None
    cpu_quota_microseconds: int | None = None
    cpu_period_microseconds: int | None = None
    memory_bytes: int | None = None
    pids: int | None = None
    hugepages: Mapping[str, int] = field(default_factory=dict)
    """By the controller's spelling of the page size."""
    unified: Mapping[str, str] = field(default_factory=dict)
    """cgroup v2 files and their content."""


@dataclass(frozen=True, slots=True)
class QosRequests:
    """What a pod asks for, as its class counts it."""

    qos_class: QosClass
    milli_cpu: int
    memory_bytes: int


@dataclass(frozen=True, slots=True)
class MemoryUsage:
    """What is in use now, in bytes; None where it cannot be read."""

    pod_bytes: int | None
    container_bytes: Mapping[str, int | None]
    """By container id."""


def cpu_shares_of(milli_cpu: int) -> int:
    """cpu.shares for so many thousandths of a core; nothing asked is the kernel's least."""
    return max(MIN_SHARES, min(MAX_SHARES, milli_cpu * SHARES_PER_CPU // 1000))


def milli_cpu_of_shares(shares: int) -> int:
    """The way back, rounded up; below the least there is nothing to read."""
    return ceil(shares * 1000 / SHARES_PER_CPU) if shares >= MIN_SHARES else 0


def cpu_weight_of_shares(shares: int) -> int:
    """cpu.weight of a pod's or QoS class's own cgroup on v2 (containers' weights are the runtime's business)."""
    return 10_000 if shares >= MAX_SHARES else 1 + max(0, shares - MIN_SHARES) * 9999 // 262_142


def cpu_shares_of_weight(weight: int) -> int:
    """The way back, which many shares have in common."""
    return MIN_SHARES + (weight - 1) * 262_142 // 9999


def adopted_limits(found: CgroupLimits, wanted: CgroupLimits, *, unified: bool) -> CgroupLimits:
    """The limits of a cgroup that an agent of earlier made: CPU and memory as found there, the rest as it made them.

    Shares that are one weight on v2 are those of `wanted`.
    """
    shares = found.cpu_shares
    if unified and shares is not None and wanted.cpu_shares is not None:
        is_same = shares == cpu_shares_of_weight(cpu_weight_of_shares(wanted.cpu_shares))
        shares = wanted.cpu_shares if is_same else shares
    return replace(
        wanted,
        cpu_shares=shares,
        cpu_quota_microseconds=found.cpu_quota_microseconds,
        cpu_period_microseconds=found.cpu_period_microseconds,
        memory_bytes=found.memory_bytes,
    )


def cpu_quota_of(milli_cpu: int, period_microseconds: int = DEFAULT_PERIOD_MICROSECONDS) -> int:
    """cpu.cfs_quota_us for a limit; 0 when there is none. CRI has 64 bits for it."""
    quota = min(milli_cpu * period_microseconds // 1000, MAX_QUOTA_MICROSECONDS)
    return max(MIN_QUOTA_MICROSECONDS, quota) if milli_cpu else 0


def milli_cpu_of_quota(quota_microseconds: int, period_microseconds: int) -> int:
    """The way back; 0 when there is no limit."""
    if quota_microseconds == UNLIMITED_QUOTA or period_microseconds <= 0:
        return 0
    return quota_microseconds * 1000 // period_microseconds


def node_cgroup_name(settings: CgroupSettings) -> CgroupName:
    """The cgroup of all pods."""
    root = tuple(part for part in settings.root.split("/") if part)
    return (*root, NODE_CGROUP) if settings.cgroups_per_qos else root


def qos_cgroup_name(qos_class: QosClass, settings: CgroupSettings) -> CgroupName:
    """The cgroup of a QoS class; Guaranteed pods stand right under that of all pods."""
    node = node_cgroup_name(settings)
    return node if qos_class is QosClass.GUARANTEED else (*node, qos_class.lower())


def pod_cgroup_name(pod: core_v1.Pod, settings: CgroupSettings) -> CgroupName:
    """The cgroup of a pod."""
    if not settings.cgroups_per_qos:
        return node_cgroup_name(settings)
    return (*qos_cgroup_name(qos.qos_class_of(pod), settings), f"pod{podlib.uid_of(pod)}")


def driver_of(answer: cri.RuntimeConfigResponse, configured: CgroupDriver) -> CgroupDriver:
    """The driver that the runtime names, or the configured one when it says nothing about Linux.

    An absent part must be looked for: read as a number it is the first driver of the enumeration, systemd. Raises
    ConfigError for a driver that is not known here.
    """
    if not answer.HasField("linux"):
        return configured
    named = answer.linux.cgroup_driver
    if named not in _DRIVERS:
        raise ConfigError(
            f"containerRuntimeEndpoint: the runtime there names cgroup driver {named}, which is not known"
        )
    return _DRIVERS[named]


def cgroup_path(name: CgroupName, driver: CgroupDriver) -> str:
    """The cgroup's path, as the driver spells it; also what CRI's cgroup_parent wants."""
    if driver is CgroupDriver.CGROUPFS or not name:
        return "/" + "/".join(name)
    escaped = [part.replace("-", "_") for part in name]
    return "".join(f"/{'-'.join(escaped[: depth + 1])}.slice" for depth in range(len(escaped)))


def pod_cgroup_parent(pod: core_v1.Pod, settings: CgroupSettings) -> str:
    """CRI's cgroup_parent; without cgroups per QoS the runtime's own choice."""
    return cgroup_path(pod_cgroup_name(pod, settings), settings.driver) if settings.cgroups_per_qos else ""


def pod_uid_of_cgroup(element: str, driver: CgroupDriver) -> str | None:
    """The pod whose cgroup has this last path element, None when it is no pod's.

    Systemd's names have underscores for the dashes of a UID.
    """
    if driver is CgroupDriver.SYSTEMD:
        if not element.endswith(".slice"):
            return None
        element = element.removesuffix(".slice").rpartition("-")[2].replace("_", "-")
    uid = element.removeprefix("pod")
    return uid if uid and uid != element else None


def compute_pod_limits(pod: core_v1.Pod, settings: CgroupSettings) -> CgroupLimits:
    """The limits of a pod's own cgroup."""
    requests = pod_resources.compute_pod_requests(pod)
    limits = pod_resources.compute_pod_limits(pod)
    qos_class = qos.qos_class_of(pod)
    quota = cpu_quota_of(limits.get(CPU, q.ZERO).milli_value, settings.cpu_period_microseconds)
    if not settings.enforce_cpu_limits:
        quota = UNLIMITED_QUOTA
    shares = cpu_shares_of(requests.get(CPU, q.ZERO).milli_value)
    has_cpu_limit = qos_class is QosClass.GUARANTEED or (
        qos_class is QosClass.BURSTABLE and _every_container_limits(pod, CPU)
    )
    return CgroupLimits(
        cpu_shares=MIN_SHARES if qos_class is QosClass.BEST_EFFORT else shares,
        cpu_quota_microseconds=quota if has_cpu_limit else None,
        cpu_period_microseconds=settings.cpu_period_microseconds if has_cpu_limit else None,
        memory_bytes=pod_memory_limit_bytes(pod),
        pids=settings.pod_pids_limit if settings.pod_pids_limit > 0 else None,
        hugepages=dict.fromkeys(settings.hugepage_sizes, 0) | _hugepages_of(requests, settings),
        unified=_pod_memory_protection(pod, settings, requests.get(MEMORY, q.ZERO).value),
    )


def pod_memory_limit_bytes(pod: core_v1.Pod) -> int | None:
    """How much memory the pod's cgroup allows, and so all that it keeps in memory-backed volumes; None for no limit."""
    qos_class = qos.qos_class_of(pod)
    is_limited = qos_class is QosClass.GUARANTEED or (
        qos_class is QosClass.BURSTABLE and _every_container_limits(pod, MEMORY)
    )
    return pod_resources.compute_pod_limits(pod).get(MEMORY, q.ZERO).value if is_limited else None


def compute_class_limits(pods: Mapping[str, QosRequests], settings: CgroupSettings) -> dict[QosClass, CgroupLimits]:
    """The limits of the classes' own cgroups by what their pods request, Guaranteed standing for that of all pods.

    A pod's memory is protected no further than that of the cgroups around it, so each of these protects the sum.
    """
    of_class = {wanted: [asked for asked in pods.values() if asked.qos_class is wanted] for wanted in QosClass}
    burstable = sum(asked.memory_bytes for asked in of_class[QosClass.BURSTABLE])
    guaranteed = sum(asked.memory_bytes for asked in of_class[QosClass.GUARANTEED])
    all_files, burstable_files = {}, {}
    if settings.unified:
        is_protected = settings.memory_qos and settings.tiered_memory_reservation
        low, least = (burstable, guaranteed + burstable) if is_protected else (0, 0)
        burstable_files = {"memory.low": str(low)}
        all_files = {"memory.min": str(least), **burstable_files}
    return {
        QosClass.GUARANTEED: CgroupLimits(unified=all_files),  # what all may use is said elsewhere
        QosClass.BURSTABLE: CgroupLimits(
            cpu_shares=cpu_shares_of(sum(asked.milli_cpu for asked in of_class[QosClass.BURSTABLE])),
            unified=burstable_files,
        ),
        QosClass.BEST_EFFORT: CgroupLimits(cpu_shares=MIN_SHARES),
    }


def qos_requests_of(pod: core_v1.Pod) -> QosRequests:
    """What the pod adds to its class."""
    requests = pod_resources.compute_pod_requests(pod)
    cpu, memory = requests.get(CPU, q.ZERO), requests.get(MEMORY, q.ZERO)
    return QosRequests(qos.qos_class_of(pod), cpu.milli_value, memory.value)


def compute_sandbox_resources(pod: core_v1.Pod, settings: CgroupSettings) -> cri.LinuxContainerResources:
    """The sum of the containers, which the sandbox config carries for runtimes that place the pod in a machine."""
    requests = pod_resources.compute_pod_requests(pod, overhead=False)
    limits = pod_resources.compute_pod_limits(pod, overhead=False)
    return _linux_resources(requests.get(CPU), limits.get(CPU, q.ZERO), limits.get(MEMORY, q.ZERO), settings)


def compute_overhead_resources(pod: core_v1.Pod, settings: CgroupSettings) -> cri.LinuxContainerResources:
    """What the sandbox itself costs, by the pod's RuntimeClass."""
    overhead = podlib.spec_of(pod).overhead
    if overhead is None:
        return cri.LinuxContainerResources()
    cpu = pod_resources.quantity_of(overhead, CPU)
    return _linux_resources(cpu, cpu, pod_resources.quantity_of(overhead, MEMORY), settings)


def to_cri_linux_resources(
    pod: core_v1.Pod, container: AnyContainer, settings: CgroupSettings
) -> cri.LinuxContainerResources:
    """The limits of one container, pod-level limits standing in where it has none of its own."""
    requests, limits = pod_resources.requests_of(container), pod_resources.limits_of(container)
    pod_level = pod_resources.pod_level_limits_of(pod)
    cpu_limit = pod_resources.quantity_of(limits, CPU) or pod_level.get(CPU, q.ZERO)
    memory_limit = pod_resources.quantity_of(limits, MEMORY) or pod_level.get(MEMORY, q.ZERO)
    cpu_request = pod_resources.quantity_of(requests, CPU) if CPU in requests else None
    result = _linux_resources(cpu_request, cpu_limit, memory_limit, settings)
    result.oom_score_adj = qos.oom_score_adj(pod, container, max(1, settings.node_memory_bytes))
    hugepages = _hugepages_of(pod_level, settings) | _hugepages_of(pod_resources.quantities(limits), settings)
    for size in settings.hugepage_sizes:
        result.hugepage_limits.append(cri.HugepageLimit(page_size=size, limit=hugepages.get(size, 0)))
    if settings.swap_controller:
        _set_swap(result, pod, container, settings)
    if settings.unified:
        for name, value in _container_memory_files(pod, container, settings).items():
            result.unified[name] = value
    return result


def hugepage_size_name(size_bytes: int) -> str:
    """The hugetlb controller's spelling of a page size: 2097152 -> "2MB"."""
    units = ("B", "KB", "MB", "GB", "TB", "PB")
    power = 0
    while size_bytes >= 1024 and size_bytes % 1024 == 0 and power < len(units) - 1:
        size_bytes //= 1024
        power += 1
    return f"{size_bytes}{units[power]}"


def _linux_resources(
    cpu_request: q.Quantity | None, cpu_limit: q.Quantity, memory_limit: q.Quantity, settings: CgroupSettings
) -> cri.LinuxContainerResources:
    asked = cpu_limit if cpu_request is None else cpu_request
    result = cri.LinuxContainerResources(
        cpu_shares=cpu_shares_of(asked.milli_value), memory_limit_in_bytes=memory_limit.value
    )
    if settings.enforce_cpu_limits:
        result.cpu_period = settings.cpu_period_microseconds
        result.cpu_quota = cpu_quota_of(cpu_limit.milli_value, settings.cpu_period_microseconds)
    if settings.unified and settings.single_process_oom_kill is False:
        result.unified["memory.oom.group"] = "1"
    return result


def _every_container_limits(pod: core_v1.Pod, resource: str) -> bool:
    if pod_resources.pod_level_limits_of(pod).get(resource):
        return True
    containers = (*podlib.init_containers_of(pod), *podlib.containers_of(pod))
    return all(pod_resources.quantity_of(pod_resources.limits_of(c), resource) for c in containers)


def _hugepages_of(amounts: Mapping[str, q.Quantity], settings: CgroupSettings) -> dict[str, int]:
    found = {}
    for name, amount in amounts.items():
        if name.startswith(HUGEPAGES_PREFIX):
            size = hugepage_size_name(q.parse(name.removeprefix(HUGEPAGES_PREFIX)).value)
            if size in settings.hugepage_sizes:
                found[size] = amount.value
    return found


def may_swap(pod: core_v1.Pod, container: AnyContainer, settings: CgroupSettings) -> bool:
    """The container gets a part of the node's swap: on v2 with its controller, LimitedSwap, Burstable, not critical."""
    request = pod_resources.quantity_of(pod_resources.requests_of(container), MEMORY)
    limit = pod_resources.quantity_of(pod_resources.limits_of(container), MEMORY)
    return (
        settings.unified
        and settings.swap_controller
        and settings.swap_behavior is SwapBehavior.LIMITED_SWAP
        and not podlib.is_critical(pod)
        and qos.qos_class_of(pod) is QosClass.BURSTABLE
        and request != limit
        and 0 < settings.node_memory_bytes >= request.value
    )


def _set_swap(result: Any, pod: core_v1.Pod, container: AnyContainer, settings: CgroupSettings) -> None:
    if not settings.unified:
        # On v1 the figure is memory and swap together: equal to the memory limit means none.
        result.memory_swap_limit_in_bytes = result.memory_limit_in_bytes
        return
    share = 0
    if may_swap(pod, container, settings):
        request = pod_resources.quantity_of(pod_resources.requests_of(container), MEMORY)
        share = int(request.value / settings.node_memory_bytes * settings.node_swap_bytes)
    result.unified["memory.swap.max"] = str(share)


def _container_memory_files(pod: core_v1.Pod, container: AnyContainer, settings: CgroupSettings) -> dict[str, str]:
    if not settings.memory_qos:
        return {"memory.high": "max"}
    request = pod_resources.quantity_of(pod_resources.requests_of(container), MEMORY).value
    limit = pod_resources.quantity_of(pod_resources.limits_of(container), MEMORY).value
    if request and settings.tiered_memory_reservation:
        files = {_protection_file(pod): str(request)}
    else:
        files = {"memory.min": "0", "memory.low": "0"}
    pod_throttles = not limit and bool(pod_resources.pod_level_limits_of(pod).get(MEMORY))
    if not pod_throttles and (request != limit or not request):
        high = _throttling_start(request, limit or settings.node_allocatable_memory_bytes, settings)
        if high:
            files["memory.high"] = str(high)
    return files


def _pod_memory_protection(pod: core_v1.Pod, settings: CgroupSettings, request: int) -> dict[str, str]:
    if not (settings.unified and settings.memory_qos):
        return {}
    files = {}
    if settings.tiered_memory_reservation and request:
        files[_protection_file(pod)] = str(request)
    if pod_resources.has_pod_level_resources(pod) and _every_container_limits(pod, MEMORY):
        limit = pod_resources.compute_pod_limits(pod).get(MEMORY, q.ZERO).value
        high = _throttling_start(request, limit, settings) if request != limit else 0
        if high:
            files["memory.high"] = str(high)
    return files


def _protection_file(pod: core_v1.Pod) -> str:
    return "memory.min" if qos.qos_class_of(pod) is QosClass.GUARANTEED else "memory.low"


def _throttling_start(request: int, limit: int, settings: CgroupSettings) -> int:
    """memory.high in whole pages, or 0 when there is none to set."""
    if settings.memory_throttling_factor is None or not limit:
        return 0
    wanted = request + (limit - request) * settings.memory_throttling_factor
    high = int(wanted // settings.page_size_bytes) * settings.page_size_bytes
    return high if high > request else 0
