"""What the pod workers need from the rest of the agent; `app` connects these with the managers.

Kept as protocols so that a pass can be run against fakes that were verified against the real thing, and so that a
standalone node (no API server) is a matter of wiring and not of special cases.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Protocol

from kubelet_py.api import core_v1
from kubelet_py.api.pod import PodUid
from kubelet_py.api.quantity import Quantity
from kubelet_py.core.cgroup_rules import CgroupLimits, CgroupSettings, MemoryUsage
from kubelet_py.core.dns import NodeDns
from kubelet_py.core.env import EnvSources
from kubelet_py.core.event_rules import EventSink as EventSink
from kubelet_py.core.observed import ObservedContainer, ProbeVerdict
from kubelet_py.core.pod_resources import AnyContainer
from kubelet_py.core.security import SecuritySettings


class NodeView(Protocol):
    """The node as the pods' configuration sees it, at this moment."""

    def dns(self) -> NodeDns:
        """Cluster DNS and the host's resolv.conf."""

    def cgroups(self) -> CgroupSettings:
        """Driver, root and limits of the cgroup tree."""

    def security(self) -> SecuritySettings:
        """Defaults for security contexts."""

    def default_sysctls(self) -> Mapping[str, str]:
        """What pods get where they have the kernel's namespace to themselves."""

    def host_ips(self) -> tuple[str, ...]:
        """The node's addresses, the primary family first."""

    def allocatable(self) -> Mapping[str, Quantity]:
        """What pods may use in all."""

    def hosts_file(self) -> str:
        """The node's /etc/hosts, for pods in the host's network."""

    def network_problem(self) -> str | None:
        """Why pods cannot get a network now, or None."""

    def runtime_type(self) -> str:
        """What stands before :// in container ids, such as `containerd` or `docker`."""

    def supports_recursive_read_only(self, runtime_handler: str) -> bool:
        """Whether this handler of the runtime makes mounts read-only with all that is mounted beneath."""


class PodObjects(Protocol):
    """API objects that a pod refers to, apart from volumes."""

    async def env_sources(self, pod: core_v1.Pod, container: AnyContainer, pod_ips: tuple[str, ...]) -> EnvSources:
        """Everything that the container's environment may refer to."""

    async def runtime_handler(self, pod: core_v1.Pod) -> str:
        """The handler of the pod's RuntimeClass, "" for the default; SyncError when there is no such class."""

    def watch_pod(self, pod: core_v1.Pod) -> None:
        """The pod is here: keep its ConfigMaps and Secrets fresh."""

    def forget_pod(self, pod_uid: str) -> None:
        """The pod is gone."""


class StatusSink(Protocol):
    """The one writer of pod status."""

    def status_of(self, uid: PodUid) -> core_v1.PodStatus | None:
        """The newest status that was set, None when nothing was."""

    def last_said(self, pod: core_v1.Pod) -> core_v1.PodStatus | None:
        """The same, or before that what the API server has of the pod, in a static one's mirror."""

    def set_status(self, pod: core_v1.Pod, status: core_v1.PodStatus) -> None:
        """A newer status; written soon."""

    def finish(self, uid: PodUid) -> None:
        """Nothing of a pod that is being deleted is left here: its API object may go."""

    def forget(self, uid: PodUid) -> None:
        """The source has the pod no more."""


class CgroupKeeper(Protocol):
    """The cgroups of pods."""

    async def ensure_pod(self, pod: core_v1.Pod, *, keeps_limits: bool = False) -> None:
        """The pod's cgroup with its limits; `keeps_limits`: one that exists keeps those it has."""

    def limits_of(self, pod_uid: str) -> CgroupLimits:
        """The limits that the pod's cgroup has, as far as they are known here."""

    async def update_pod(self, pod: core_v1.Pod, step: CgroupLimits, after: CgroupLimits) -> None:
        """Writes `step`; from then on the cgroup has the limits `after`. SyncError when the kernel refuses."""

    async def memory_usage(self, pod: core_v1.Pod, container_ids: Sequence[str]) -> MemoryUsage | None:
        """How much memory the pod and its containers use now; None where the cgroups are not kept here."""

    async def remove_pod(self, pod: core_v1.Pod) -> None:
        """Removes it; again is fine."""

    async def remove_orphans(self, is_known: Callable[[str], bool]) -> None:
        """Removes those of pods that nobody knows, by UID."""


class Prober(Protocol):
    """Probe results."""

    def verdicts(self, pod_uid: str) -> Mapping[str, ProbeVerdict]:
        """By container id."""

    def sync_pod(self, pod: core_v1.Pod, running: Sequence[ObservedContainer], pod_ips: tuple[str, ...]) -> None:
        """Probes what runs and stops probing what does not."""

    def stop_for_termination(self, pod_uid: str) -> None:
        """Liveness and startup probes end; readiness goes on."""

    def forget_pod(self, pod_uid: str) -> None:
        """All probes of the pod end."""
