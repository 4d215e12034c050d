"""The node as the configuration of pods sees it: DNS, cgroups, addresses, allocatable.

Owns reading the host's resolv.conf and hosts file (again when they changed); everything else comes from settings and
from the machine's facts, which do not change while the agent runs, but for its addresses.
"""

import glob
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from kubelet_py.api.quantity import Quantity
from kubelet_py.config import Settings
from kubelet_py.core.cgroup_rules import (
    CgroupDriver,
    CgroupLimits,
    CgroupSettings,
    SwapBehavior,
    hugepage_size_name,
)
from kubelet_py.core.dns import NodeDns, ResolvConf, check_resolv_conf_limits, parse_resolv_conf
from kubelet_py.core.node_allocatable import ReservedCgroup, compute_pods_limits, reserved_cgroups
from kubelet_py.core.node_rules import (
    MachineInfo,
    NodeObservation,
    NodeSettings,
    compute_allocatable,
    compute_capacity,
)
from kubelet_py.core.security import SecuritySettings
from kubelet_py.errors import SyncError
from kubelet_py.managers.runtime_health import RuntimeHealth


@dataclass(slots=True)
class CachedFile:
    """A small text file of the host, read again when its time or size changed."""

    path: str
    _stamp: tuple[int, int, int] | None = None
    _text: str = ""

    def text(self) -> str:
        """The content; OSError where it cannot be read."""
        status = os.stat(self.path)
        stamp = (status.st_ino, status.st_size, status.st_mtime_ns)
        if stamp != self._stamp:
            with open(self.path, encoding="utf-8", errors="replace") as file:
                self._text = file.read()
            self._stamp = stamp
        return self._text


@dataclass(slots=True)
class HostView:
    """The NodeView of the real node."""

    settings: Settings
    node_settings: NodeSettings
    machine: MachineInfo
    host_ips: Callable[[], tuple[str, ...]]
    """The node's addresses, which may change."""
    health: RuntimeHealth
    cgroup_driver: Callable[[], CgroupDriver]
    cgroup_unified: bool
    counts_swap: bool
    selinux_enabled: bool
    _hosts: CachedFile = field(default_factory=lambda: CachedFile("/etc/hosts"))
    _resolv: CachedFile = field(init=False)
    _allocatable: dict[str, Quantity] = field(init=False)
    _thermal_paths: tuple[str, ...] = field(
        default_factory=lambda: tuple(sorted(glob.glob("/sys/devices/system/cpu/cpu*/thermal_throttle")))
    )

    def __post_init__(self) -> None:
        self._resolv = CachedFile(self.settings.config.resolvConf)
        observed = NodeObservation(machine=self.machine, addresses=())
        capacity = compute_capacity(self.node_settings, observed)
        self._allocatable = compute_allocatable(self.node_settings, observed, capacity)

    def dns(self) -> NodeDns:
        """Cluster DNS and the host's resolv.conf; SyncError when that cannot be read or understood."""
        config = self.settings.config
        loopbacks = tuple(dict.fromkeys("::1" if ":" in ip else "127.0.0.1" for ip in self.host_ips()))
        try:
            host = parse_resolv_conf(self._resolv.text()) if config.resolvConf else ResolvConf()
        except (OSError, ValueError) as error:
            why = error.strerror if isinstance(error, OSError) else error
            message = f"{config.resolvConf}: {why}; resolvConf must name a file such as /etc/resolv.conf, or be empty"
            raise SyncError("CreatePodSandboxError", message) from error
        return NodeDns(
            cluster_dns=config.clusterDNS,
            cluster_domain=config.clusterDomain,
            host=host,
            resolv_conf_path=config.resolvConf,
            loopbacks=loopbacks or ("127.0.0.1",),
        )

    def dns_problem(self) -> str | None:
        """What of the host's resolv.conf pods will not get."""
        if not self.settings.config.resolvConf:
            return None
        try:
            warning = check_resolv_conf_limits(self.dns())
        except SyncError as error:
            return error.message
        return warning.message if warning is not None else None

    def cgroups(self) -> CgroupSettings:
        """Driver, root and limits of the cgroup tree."""
        config = self.settings.config
        memory = self._allocatable.get("memory")
        return CgroupSettings(
            driver=self.cgroup_driver(),
            root=config.cgroupRoot or "/",
            cgroups_per_qos=config.cgroupsPerQOS,
            unified=self.cgroup_unified,
            enforce_cpu_limits=config.cpuCFSQuota,
            cpu_period_microseconds=int(config.cpuCFSQuotaPeriod * 1_000_000),
            node_memory_bytes=self.machine.memory_bytes,
            node_allocatable_memory_bytes=memory.value if memory is not None else self.machine.memory_bytes,
            pod_pids_limit=config.podPidsLimit,
            node_swap_bytes=self.machine.swap_bytes,
            swap_controller=self.counts_swap,
            swap_behavior=SwapBehavior(config.memorySwap.swapBehavior or SwapBehavior.NO_SWAP),
            hugepage_sizes=tuple(hugepage_size_name(pages.size_bytes) for pages in self.machine.hugepages),
            single_process_oom_kill=(
                not self.cgroup_unified if config.singleProcessOOMKill is None else config.singleProcessOOMKill
            ),
            memory_qos=self.settings.gates.enabled("MemoryQoS"),
            memory_throttling_factor=config.memoryThrottlingFactor,
            tiered_memory_reservation=config.memoryReservationPolicy == "TieredReservation",
        )

    def pods_limits(self) -> CgroupLimits:
        """What the cgroup of all pods may use."""
        capacity = compute_capacity(self.node_settings, NodeObservation(machine=self.machine, addresses=()))
        enforced = self.settings.config.enforceNodeAllocatable
        return compute_pods_limits(self.node_settings, self.machine, capacity, enforced)

    def reserved_cgroups(self) -> tuple[ReservedCgroup, ...]:
        """The cgroups of the daemons beside the pods that are to be held to what is reserved for them."""
        config, node = self.settings.config, self.node_settings
        return reserved_cgroups(
            config.enforceNodeAllocatable,
            {"system": config.systemReservedCgroup, "kube": config.kubeReservedCgroup},
            {"system": node.system_reserved, "kube": node.kube_reserved},
            self.cgroup_unified and self.settings.gates.enabled("MemoryQoS"),
        )

    def default_sysctls(self) -> Mapping[str, str]:
        """What pods get where they have the kernel's namespace to themselves."""
        return self.settings.config.defaultPodSysctls

    def security(self) -> SecuritySettings:
        """Defaults for security contexts."""
        root = f"{self.settings.flags.root_dir}/seccomp"
        return SecuritySettings(
            seccomp_default=self.settings.config.seccompDefault,
            seccomp_root=root,
            extra_masked_paths=self._thermal_paths,
            selinux_enabled=self.selinux_enabled,
        )

    def allocatable(self) -> Mapping[str, Quantity]:
        """What pods may use in all."""
        return self._allocatable

    def hosts_file(self) -> str:
        """The node's /etc/hosts."""
        return self._hosts.text()

    def network_problem(self) -> str | None:
        """Why pods cannot get a network now."""
        return self.health.network_problem()

    def runtime_type(self) -> str:
        """What stands before :// in container ids."""
        return self.health.type

    def supports_recursive_read_only(self, runtime_handler: str) -> bool:
        """Whether this handler of the runtime makes mounts read-only with all that is mounted beneath."""
        handler = next((known for known in self.health.state.handlers if (known.name or "") == runtime_handler), None)
        return handler is not None and bool(handler.features and handler.features.recursiveReadOnlyMounts)
