"""The node as the configuration of pods sees it: DNS, cgroups, addresses, allocatable.

Owns reading the host's resolv.conf and hosts file (again when they changed); everything else comes from settings and
from the machine's facts, which do not change while the agent runs.
"""

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from kubelet_py.api.quantity import Quantity
from kubelet_py.config import Settings
from kubelet_py.core.cgroup_rules import CgroupDriver, CgroupLimits, CgroupSettings, cpu_shares_of
from kubelet_py.core.dns import NodeDns, ResolvConf, parse_resolv_conf
from kubelet_py.core.node_rules import (
    MachineInfo,
    NodeObservation,
    NodeSettings,
    compute_allocatable,
    compute_capacity,
    node_allocatable_limits,
)
from kubelet_py.core.security import SecuritySettings
from kubelet_py.managers.runtime_health import RuntimeHealth


@dataclass(slots=True)
class CachedFile:
    """A small text file of the host, read again when its time or size changed."""

    path: str
    _stamp: tuple[int, int, int] | None = None
    _text: str = ""

    def text(self) -> str:
        """The content; "" while there is no such file."""
        try:
            status = os.stat(self.path)
            stamp = (status.st_ino, status.st_size, status.st_mtime_ns)
            if stamp != self._stamp:
                with open(self.path, encoding="utf-8", errors="replace") as file:
                    self._text = file.read()
                self._stamp = stamp
        except OSError:
            self._stamp, self._text = None, ""
        return self._text


@dataclass(slots=True)
class HostView:
    """The NodeView of the real node."""

    settings: Settings
    node_settings: NodeSettings
    machine: MachineInfo
    ips: tuple[str, ...]
    health: RuntimeHealth
    cgroup_driver: Callable[[], CgroupDriver]
    cgroup_unified: bool
    _hosts: CachedFile = field(default_factory=lambda: CachedFile("/etc/hosts"))
    _resolv: CachedFile = field(init=False)
    _allocatable: dict[str, Quantity] = field(init=False)

    def __post_init__(self) -> None:
        self._resolv = CachedFile(self.settings.config.resolvConf)
        observed = NodeObservation(machine=self.machine, addresses=())
        capacity = compute_capacity(self.node_settings, observed)
        self._allocatable = compute_allocatable(self.node_settings, observed, capacity)

    def dns(self) -> NodeDns:
        """Cluster DNS and the host's resolv.conf."""
        config = self.settings.config
        host = parse_resolv_conf(self._resolv.text()) if config.resolvConf else ResolvConf()
        return NodeDns(
            cluster_dns=config.clusterDNS,
            cluster_domain=config.clusterDomain,
            host=host,
            resolv_conf_path=config.resolvConf,
        )

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
            single_process_oom_kill=config.singleProcessOOMKill,
            memory_throttling_factor=config.memoryThrottlingFactor,
        )

    def pods_limits(self) -> CgroupLimits:
        """What the cgroup of all pods may use: enforceNodeAllocatable "pods"; eviction thresholds are not taken off."""
        if "pods" not in self.settings.config.enforceNodeAllocatable:
            return CgroupLimits()
        observed = NodeObservation(machine=self.machine, addresses=())
        limits = node_allocatable_limits(self.node_settings, compute_capacity(self.node_settings, observed))
        return CgroupLimits(cpu_shares=cpu_shares_of(limits["cpu"].milli_value), memory_bytes=limits["memory"].value)

    def security(self) -> SecuritySettings:
        """Defaults for security contexts."""
        root = f"{self.settings.flags.root_dir}/seccomp"
        return SecuritySettings(seccomp_default=self.settings.config.seccompDefault, seccomp_root=root)

    def host_ips(self) -> tuple[str, ...]:
        """The node's addresses."""
        return self.ips

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
