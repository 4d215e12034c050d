"""When a pod needs a new sandbox, and why.

Upstream counterpart: PodSandboxChanged in pkg/kubelet/kuberuntime/util/util.go.
"""

from dataclasses import dataclass

from kubelet_py.api import core_v1
from kubelet_py.api.pod import is_host_network
from kubelet_py.core.observed import ObservedPod, ObservedSandbox


@dataclass(frozen=True, slots=True)
class SandboxVerdict:
    """Either the sandbox that serves, or the attempt number of the next one and the reason for it."""

    current: ObservedSandbox | None
    next_attempt: int = 0
    reason: str = ""


def judge_sandbox(pod: core_v1.Pod, observed: ObservedPod) -> SandboxVerdict:
    """Whether the newest sandbox serves. The reason is the message of the condition PodReadyToStartContainers."""
    newest = observed.newest_sandbox
    if newest is None:
        return SandboxVerdict(None, 0, "no pod sandbox exists")
    if len(observed.ready_sandboxes) > 1:
        reason = "multiple pod sandboxes are ready and need to be reconciled"
    elif not newest.ready:
        reason = "pod sandbox is not ready"
    elif newest.host_network != is_host_network(pod):
        reason = "network namespace mode changed and sandbox needs to be recreated"
    elif not newest.host_network and not newest.ips:
        reason = "pod sandbox has no IP address"
    else:
        return SandboxVerdict(newest)
    return SandboxVerdict(None, newest.attempt + 1, reason)
