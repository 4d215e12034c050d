"""The sandbox that a pod gets: CRI's PodSandboxConfig.

Upstream counterpart: pkg/kubelet/kuberuntime/kuberuntime_sandbox.go, kuberuntime_sandbox_linux.go.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

from cri_proto import runtime_v1 as cri
from kubelet_py.api import core_v1
from kubelet_py.api import pod as podlib
from kubelet_py.core import cgroup_rules, labels, security
from kubelet_py.core.cgroup_rules import CgroupSettings
from kubelet_py.core.dns import DnsWarning, NodeDns, compute_pod_dns
from kubelet_py.core.hostname import compute_hostname, compute_kernel_hostname

DEFAULT_POD_LOGS_ROOT: Final = "/var/log/pods"

_PROTOCOLS: Final = {"TCP": cri.TCP, "UDP": cri.UDP, "SCTP": cri.SCTP}


@dataclass(frozen=True, slots=True)
class SandboxContext:
    """What a sandbox's configuration needs beside the pod."""

    dns: NodeDns = field(default_factory=NodeDns)
    cgroups: CgroupSettings = field(default_factory=CgroupSettings)
    pod_logs_root: str = DEFAULT_POD_LOGS_ROOT
    user_namespace: cri.UserNamespace | None = None
    volume_groups: tuple[int, ...] = ()
    default_sysctls: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class SandboxPlan:
    """The configuration, and what the pod's owner should be told about it."""

    config: cri.PodSandboxConfig
    warnings: tuple[DnsWarning, ...] = ()


def compute_sandbox_plan(pod: core_v1.Pod, attempt: int, context: SandboxContext) -> SandboxPlan:
    """The configuration with its warnings. Raises SyncError where a name or policy of the pod is impossible."""
    metadata = podlib.metadata_of(pod)
    dns = compute_pod_dns(pod, context.dns)
    config = cri.PodSandboxConfig(
        metadata=cri.PodSandboxMetadata(
            name=metadata.name or "", namespace=metadata.namespace or "", uid=podlib.uid_of(pod), attempt=attempt
        ),
        labels=labels.compute_sandbox_labels(pod),
        annotations=labels.compute_sandbox_annotations(pod),
        dns_config=dns.config,
        log_directory=labels.pod_log_directory(
            context.pod_logs_root, metadata.namespace or "", metadata.name or "", podlib.uid_of(pod)
        ),
        port_mappings=compute_port_mappings(pod),
        linux=_linux_config(pod, context),
    )
    if not podlib.is_host_network(pod):
        config.hostname = compute_kernel_hostname(pod, compute_hostname(pod, context.dns.cluster_domain))
    return SandboxPlan(config, dns.warnings)


def compute_sandbox_config(pod: core_v1.Pod, attempt: int, context: SandboxContext) -> cri.PodSandboxConfig:
    """The configuration alone."""
    return compute_sandbox_plan(pod, attempt, context).config


def compute_port_mappings(pod: core_v1.Pod) -> list[cri.PortMapping]:
    """Every port of the main containers; a container's second port of one name is left out."""
    mappings = []
    for container in podlib.containers_of(pod):
        seen = set()
        for port in container.ports or ():
            protocol = port.protocol or "TCP"
            key = port.name or (protocol, port.hostIP, port.containerPort, port.hostPort)
            if key in seen:
                continue
            seen.add(key)
            mappings.append(
                cri.PortMapping(
                    protocol=_PROTOCOLS.get(protocol, cri.TCP),
                    container_port=port.containerPort,
                    host_port=port.hostPort or 0,
                    host_ip=port.hostIP or "",
                )
            )
    return mappings


def compute_sysctls(pod: core_v1.Pod, defaults: Mapping[str, str]) -> dict[str, str]:
    """The node's defaults where the pod has the namespace to itself, then the pod's own."""
    spec = podlib.spec_of(pod)
    shared_with_node = {
        "IPC": bool(spec.hostIPC),
        "Net": bool(spec.hostNetwork),
        "User": spec.hostUsers is not False,
        "UTS": bool(spec.hostNetwork),
    }
    chosen = {}
    for name, value in defaults.items():
        namespace = sysctl_namespace(name)
        if namespace and not shared_with_node[namespace]:
            chosen[normal_sysctl_name(name)] = value
    own = (spec.securityContext.sysctls if spec.securityContext is not None else None) or ()
    return chosen | {normal_sysctl_name(sysctl.name): sysctl.value for sysctl in own}


def normal_sysctl_name(name: str) -> str:
    """With dots: `net/ipv4/conf/eth0.1/forwarding` becomes `net.ipv4.conf.eth0/1.forwarding`."""
    first = next((c for c in name if c in "./"), ".")
    return name if first == "." else name.translate(str.maketrans("./", "/."))


def sysctl_namespace(name: str) -> str:
    """Which kernel namespace holds a sysctl: IPC, Net, UTS or User; "" when none is known."""
    name = normal_sysctl_name(name)
    if name == "kernel.domainname":
        return "UTS"
    if name in ("kernel.sem", "kernel.shm", "kernel.msg") or name.startswith("fs.mqueue."):
        return "IPC"
    if name in _IPC_SYSCTLS:
        return "IPC"
    if name.startswith("net."):
        return "Net"
    return "User" if name.startswith("user.") else ""


_IPC_SYSCTLS: Final = frozenset(
    f"kernel.{name}" for name in ("shmall", "shmmax", "shmmni", "shm_rmid_forced", "msgmax", "msgmnb", "msgmni")
)


def _linux_config(pod: core_v1.Pod, context: SandboxContext) -> cri.LinuxPodSandboxConfig:
    settings = context.cgroups
    return cri.LinuxPodSandboxConfig(
        cgroup_parent=cgroup_rules.pod_cgroup_parent(pod, settings),
        security_context=security.compute_sandbox_security_context(pod, context.user_namespace, context.volume_groups),
        sysctls=compute_sysctls(pod, context.default_sysctls),
        resources=cgroup_rules.compute_sandbox_resources(pod, settings),
        overhead=cgroup_rules.compute_overhead_resources(pod, settings),
    )
