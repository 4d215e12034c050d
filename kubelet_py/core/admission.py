"""Whether this node takes a pod that was given to it; a refused pod is Failed for good.

The checks run in the Go kubelet's order and the first refusal counts. `needs_fresh_node` says when a stale node object
may be the reason, so that the shell can ask again with a new one.

Upstream counterparts: pkg/kubelet/lifecycle/predicate.go, pkg/kubelet/eviction (Admit), the
filters of pkg/scheduler that they use, pkg/security/apparmor. Not here yet: topology (CPU, memory, device managers).
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from kubelet_py.api import core_v1, meta_v1
from kubelet_py.api import pod as podlib
from kubelet_py.api import quantity as q
from kubelet_py.core import pod_resources, preemption, qos, security
from kubelet_py.core.declared_features import missing_features
from kubelet_py.core.label_selectors import requirement_holds
from kubelet_py.core.pod_resources import CPU, EPHEMERAL_STORAGE, MEMORY, PODS
from kubelet_py.core.qos import QosClass
from kubelet_py.core.sysctl_rules import SysctlAllowlist

OS: Final = "linux"
OS_LABEL: Final = "kubernetes.io/os"
MEMORY_PRESSURE: Final = "MemoryPressure"
_MEMORY_PRESSURE_TAINT: Final = "node.kubernetes.io/memory-pressure"
_ALL_ADDRESSES: Final = "0.0.0.0"


@dataclass(frozen=True, slots=True)
class Rejection:
    """Why not. The pod's status message is `status_message`, the event's is `message`."""

    reason: str
    message: str

    @property
    def status_message(self) -> str:
        """As status.message states it."""
        return f"Pod was rejected: {self.message}"

    @property
    def needs_fresh_node(self) -> bool:
        """Labels may have changed meanwhile: worth one more try with a node read just now."""
        return self.reason == "NodeAffinity"


@dataclass(frozen=True, slots=True)
class Decision:
    """A refusal, or the pods that must give way to the one that is taken."""

    rejection: Rejection | None = None
    victims: tuple[core_v1.Pod, ...] = ()


@dataclass(frozen=True, slots=True)
class NodeState:
    """What of the node decides."""

    name: str
    labels: Mapping[str, str] = field(default_factory=dict)
    allocatable: Mapping[str, Any] = field(default_factory=dict)
    taints: tuple[core_v1.Taint, ...] = ()
    pressures: tuple[str, ...] = ()
    """MemoryPressure, DiskPressure, PIDPressure, those that hold now."""
    strict_supplemental_groups: bool = False
    """The runtime can do supplementalGroupsPolicy Strict."""
    shutting_down: bool = False
    apparmor: bool = True
    """The host has AppArmor."""
    declared_features: tuple[str, ...] = ()


def decide(pod: core_v1.Pod, active_pods: Iterable[core_v1.Pod], node: NodeState, sysctls: SysctlAllowlist) -> Decision:
    """Whether the node takes the pod; a critical one takes the place of others where only resources are missing."""
    others = _without(pod, active_pods)
    rejection = _first_refusal(pod, others, node, sysctls)
    if rejection is None or not podlib.is_critical(pod):
        return Decision(rejection)
    shortage = compute_shortage(pod, others, node)
    if rejection not in map(_refusal_of, shortage):
        return Decision(rejection)
    other_refusal = _place_refusal(pod, others, node) or _last_refusal(pod, node)
    if other_refusal is not None:
        return Decision(other_refusal)
    missing = {each.resource: each.missing for each in shortage}
    victims = preemption.choose_victims(pod, others, missing)
    if victims is None:
        text = f"no set of running pods found to reclaim resources: {preemption.describe(missing)}"
        message = f"preemption: error finding a set of pods to preempt: {text}"
        prefix = "Unexpected error while attempting to recover from admission failure"
        return Decision(Rejection("UnexpectedAdmissionError", f"{prefix}: {message}"))
    return Decision(victims=victims)


def admit(
    pod: core_v1.Pod, active_pods: Iterable[core_v1.Pod], node: NodeState, sysctls: SysctlAllowlist
) -> Rejection | None:
    """None when the node takes the pod beside those that are active."""
    return _first_refusal(pod, _without(pod, active_pods), node, sysctls)


def _without(pod: core_v1.Pod, active_pods: Iterable[core_v1.Pod]) -> list[core_v1.Pod]:
    uid = podlib.uid_of(pod)
    return [other for other in active_pods if podlib.uid_of(other) != uid]


def _first_refusal(
    pod: core_v1.Pod, others: list[core_v1.Pod], node: NodeState, sysctls: SysctlAllowlist
) -> Rejection | None:
    return (
        _pressure_refusal(pod, node)
        or _sysctl_refusal(pod, sysctls)
        or _kind_refusal(pod, node)
        or _resource_refusal(pod, others, node)
        or _place_refusal(pod, others, node)
        or _last_refusal(pod, node)
    )


def _pressure_refusal(pod: core_v1.Pod, node: NodeState) -> Rejection | None:
    if not node.pressures or podlib.is_critical(pod):
        return None
    if node.pressures == (MEMORY_PRESSURE,):
        if qos.qos_class_of(pod) is not QosClass.BEST_EFFORT:
            return None
        taint = core_v1.Taint(key=_MEMORY_PRESSURE_TAINT, effect="NoSchedule")
        if _tolerates(podlib.spec_of(pod).tolerations or (), taint):
            return None
    return Rejection("Evicted", f"The node had condition: [{' '.join(node.pressures)}]. ")


def _sysctl_refusal(pod: core_v1.Pod, sysctls: SysctlAllowlist) -> Rejection | None:
    refusal = sysctls.refusal(pod)
    return Rejection("SysctlForbidden", refusal) if refusal else None


def _kind_refusal(pod: core_v1.Pod, node: NodeState) -> Rejection | None:
    spec = podlib.spec_of(pod)
    wanted_os = (podlib.metadata_of(pod).labels or {}).get(OS_LABEL)
    if wanted_os is not None and wanted_os != OS:
        return Rejection(
            "PodOSSelectorNodeLabelDoesNotMatch",
            "Failed to admit pod as the `kubernetes.io/os` label doesn't match node label",
        )
    if spec.os is not None and spec.os.name != OS:
        return Rejection("PodOSNotSupported", "Failed to admit pod as the OS field doesn't match node OS")
    context = spec.securityContext
    strict = context is not None and context.supplementalGroupsPolicy == "Strict"
    if strict and not node.strict_supplemental_groups:
        return Rejection(
            "SupplementalGroupsPolicyNotSupported", "SupplementalGroupsPolicy=Strict is not supported in this node"
        )
    return None


@dataclass(frozen=True, slots=True)
class Shortage:
    """What the node has too little of for one more pod."""

    resource: str
    requested: int
    used: int
    capacity: int

    @property
    def missing(self) -> int:
        """How much would have to become free."""
        return self.requested - (self.capacity - self.used)


def _resource_refusal(pod: core_v1.Pod, others: list[core_v1.Pod], node: NodeState) -> Rejection | None:
    return next(map(_refusal_of, compute_shortage(pod, others, node)), None)


def compute_shortage(pod: core_v1.Pod, others: list[core_v1.Pod], node: NodeState) -> list[Shortage]:
    """All that is missing, in the order in which it is told."""
    found = []
    allowed_pods = pod_resources.quantity_of(node.allocatable, PODS).value
    if len(others) + 1 > allowed_pods:
        found.append(Shortage(PODS, 1, len(others), allowed_pods))
    requests = pod_resources.compute_pod_requests(pod)
    used: dict[str, int] = {}
    for other in others if requests else ():
        for name, amount in pod_resources.compute_pod_requests(other).items():
            used[name] = used.get(name, 0) + _counted(name, amount)
    ordered = [name for name in (CPU, MEMORY, EPHEMERAL_STORAGE) if name in requests]
    for name in ordered + sorted(set(requests) - set(ordered)):
        # What the node has never heard of is somebody else's to count: cluster-level resources, or devices by claim.
        if pod_resources.is_extended_resource(name) and name not in node.allocatable:
            continue
        wanted = _counted(name, requests[name])
        capacity = _counted(name, pod_resources.quantity_of(node.allocatable, name))
        if wanted > 0 and wanted > capacity - used.get(name, 0):
            found.append(Shortage(name, wanted, used.get(name, 0), capacity))
    return found


def _counted(name: str, amount: q.Quantity) -> int:
    return amount.milli_value if name == CPU else amount.value


def _refusal_of(shortage: Shortage) -> Rejection:
    return Rejection(
        f"OutOf{shortage.resource}",
        f"Node didn't have enough resource: {shortage.resource}, requested: {shortage.requested}, "
        f"used: {shortage.used}, capacity: {shortage.capacity}",
    )


def _place_refusal(pod: core_v1.Pod, others: list[core_v1.Pod], node: NodeState) -> Rejection | None:
    spec = podlib.spec_of(pod)
    if not matches_node_affinity(pod, node):
        return _predicate("NodeAffinity", "node(s) didn't match Pod's node affinity/selector")
    if spec.nodeName and spec.nodeName != node.name:
        return _predicate("NodeName", "node(s) didn't match the requested node name")
    wanted = _host_ports(pod)
    taken = [port for other in others for port in _host_ports(other)] if wanted else ()
    if any(_clash(own, port) for own in wanted for port in taken):
        return _predicate("NodePorts", "node(s) didn't have free ports for the requested pod ports")
    if not podlib.is_static(pod):
        for taint in node.taints:
            if taint.effect == "NoExecute" and not _tolerates(spec.tolerations or (), taint):
                return _predicate("TaintToleration", "node(s) had taints that the pod didn't tolerate")
    return None


def _predicate(name: str, why: str) -> Rejection:
    return Rejection(name, f"Predicate {name} failed: {why}")


def _last_refusal(pod: core_v1.Pod, node: NodeState) -> Rejection | None:
    return _apparmor_refusal(pod, node) or _feature_refusal(pod, node) or _shutdown_refusal(node)


def _feature_refusal(pod: core_v1.Pod, node: NodeState) -> Rejection | None:
    missing = missing_features(pod, node.declared_features)
    if not missing:
        return None
    return Rejection(
        "PodFeatureUnsupported", f"Pod requires node features that are not available: {', '.join(missing)}"
    )


def _apparmor_refusal(pod: core_v1.Pod, node: NodeState) -> Rejection | None:
    """Only of pods that have not begun: what runs already is not looked at again."""
    if pod.status is not None and pod.status.phase not in (None, "", "Pending"):
        return None
    profiles = [security.apparmor_profile_of(pod, container) for container in podlib.all_containers_of(pod)]
    wanted = [profile for profile in profiles if profile is not None and profile[0] != "Unconfined"]
    why = ""
    if wanted and not node.apparmor:
        why = "AppArmor is not enabled on the host"
    elif any(kind == "Localhost" and not (name or "").strip() for kind, name in wanted):
        why = "invalid empty AppArmor profile name"
    return Rejection("AppArmor", f"Cannot enforce AppArmor: {why}") if why else None


def _shutdown_refusal(node: NodeState) -> Rejection | None:
    if not node.shutting_down:
        return None
    return Rejection("NodeShutdown", "Pod was rejected as the node is shutting down.")


def matches_node_affinity(pod: core_v1.Pod, node: NodeState) -> bool:
    """nodeSelector, and one of the required affinity terms."""
    spec = podlib.spec_of(pod)
    if any(node.labels.get(key) != value for key, value in (spec.nodeSelector or {}).items()):
        return False
    affinity = spec.affinity.nodeAffinity if spec.affinity is not None else None
    required = affinity.requiredDuringSchedulingIgnoredDuringExecution if affinity is not None else None
    if required is None:
        return True
    return any(_matches_term(term, node) for term in required.nodeSelectorTerms)


def _matches_term(term: core_v1.NodeSelectorTerm, node: NodeState) -> bool:
    by_label, by_field = term.matchExpressions or (), term.matchFields or ()
    if not by_label and not by_field:
        return False  # an empty term means no node, not every node
    fields = {"metadata.name": node.name}
    return all(requirement_holds(rule, node.labels) for rule in by_label) and all(
        requirement_holds(rule, fields) for rule in by_field
    )


def _tolerates(tolerations: Iterable[core_v1.Toleration], taint: core_v1.Taint) -> bool:
    for toleration in tolerations:
        if toleration.effect and toleration.effect != taint.effect:
            continue
        if toleration.key and toleration.key != taint.key:
            continue
        if toleration.operator == "Exists":
            return True
        if toleration.operator in (None, "", "Equal") and (toleration.value or "") == (taint.value or ""):
            return True
    return False


def _host_ports(pod: core_v1.Pod) -> list[tuple[str, str, int]]:
    sidecars = [c for c in podlib.init_containers_of(pod) if podlib.is_sidecar(c)]
    return [
        (port.hostIP or _ALL_ADDRESSES, port.protocol or "TCP", port.hostPort)
        for container in (*podlib.containers_of(pod), *sidecars)
        for port in container.ports or ()
        if port.hostPort
    ]


def _clash(one: tuple[str, str, int], other: tuple[str, str, int]) -> bool:
    same_address = one[0] == other[0] or _ALL_ADDRESSES in (one[0], other[0])
    return same_address and one[1:] == other[1:]


def node_state_of(
    node: core_v1.Node,
    pressures: tuple[str, ...] = (),
    shutting_down: bool = False,
    apparmor: bool = True,
    declared_features: tuple[str, ...] = (),
) -> NodeState:
    """What counts of a node object."""
    metadata = node.metadata or meta_v1.ObjectMeta()
    status = node.status or core_v1.NodeStatus()
    spec = node.spec or core_v1.NodeSpec()
    return NodeState(
        name=metadata.name or "",
        labels={**(metadata.labels or {}), OS_LABEL: OS},
        allocatable=status.allocatable or {},
        taints=tuple(spec.taints or ()),
        pressures=pressures,
        strict_supplemental_groups=bool(status.features is not None and status.features.supplementalGroupsPolicy),
        shutting_down=shutting_down,
        apparmor=apparmor,
        declared_features=declared_features,
    )
