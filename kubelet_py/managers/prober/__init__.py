"""Asks containers how they are, as their probes say. Upstream counterpart: pkg/kubelet/prober."""

from kubelet_py.managers.prober.manager import ProbeHooks, ProbeManager
from kubelet_py.managers.prober.transport import NetworkProbes, ProbeAnswer, ProbeError, ProbeTarget, ProbeTransport

__all__ = [
    "NetworkProbes",
    "ProbeAnswer",
    "ProbeError",
    "ProbeHooks",
    "ProbeManager",
    "ProbeTarget",
    "ProbeTransport",
]
