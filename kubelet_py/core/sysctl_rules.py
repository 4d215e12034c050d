"""Which sysctls pods may set: the safe ones that this kernel keeps apart for each pod, and what the operator allows.

Upstream counterpart: pkg/kubelet/sysctl.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Final

from kubelet_py.api import core_v1
from kubelet_py.api import pod as podlib
from kubelet_py.core.sandbox_config import normal_sysctl_name, sysctl_namespace

_SAFE_SYSCTLS: Final[Mapping[str, tuple[int, int]]] = {
    "kernel.shm_rmid_forced": (0, 0),
    "net.ipv4.ip_local_port_range": (0, 0),
    "net.ipv4.tcp_syncookies": (0, 0),
    "net.ipv4.ping_group_range": (0, 0),
    "net.ipv4.ip_unprivileged_port_start": (0, 0),
    "net.ipv4.ip_local_reserved_ports": (3, 16),
    "net.ipv4.tcp_keepalive_time": (4, 5),
    "net.ipv4.tcp_keepalive_intvl": (4, 5),
    "net.ipv4.tcp_keepalive_probes": (4, 5),
    "net.ipv4.tcp_fin_timeout": (4, 6),
    "net.ipv4.tcp_notsent_lowat": (4, 6),
    "net.ipv4.tcp_rmem": (4, 15),
    "net.ipv4.tcp_wmem": (4, 15),
    "net.ipv4.tcp_slow_start_after_idle": (4, 15),
}


@dataclass(frozen=True, slots=True)
class SysctlAllowlist:
    """Which sysctls pods may set: exact names and prefixes."""

    names: frozenset[str]
    prefixes: tuple[str, ...] = ()

    def refusal(self, pod: core_v1.Pod) -> str:
        """What is wrong with the pod's sysctls, or ""."""
        spec = podlib.spec_of(pod)
        # The Go kubelet asks nothing of UTS here, though pods on the node's network share it.
        shared = {"IPC": spec.hostIPC, "Net": spec.hostNetwork, "User": spec.hostUsers is not False}
        for sysctl in (spec.securityContext.sysctls if spec.securityContext is not None else None) or ():
            name = normal_sysctl_name(sysctl.name)
            if name not in self.names and not name.startswith(self.prefixes or "\0"):
                return f'forbidden sysctl: "{name}" not allowlisted'
            namespace = sysctl_namespace(name)
            if shared.get(namespace):
                return f'forbidden sysctl: "{name}" not allowed with host {namespace} enabled'
        return ""


def compute_sysctl_allowlist(unsafe_patterns: Iterable[str], kernel_version: tuple[int, int]) -> SysctlAllowlist:
    """The safe ones that this kernel keeps apart, and what the operator allows. ValueError for one of no namespace."""
    names = {name for name, since in _SAFE_SYSCTLS.items() if kernel_version >= since}
    prefixes = []
    for pattern in unsafe_patterns:
        name, star, _ = normal_sysctl_name(pattern).partition("*")
        if not sysctl_namespace(name):
            raise ValueError(f'the sysctls "{name}" are not known to be namespaced')
        if star:
            prefixes.append(name)
        else:
            names.add(name)
    return SysctlAllowlist(frozenset(names), tuple(prefixes))
