"""What the Node object says: labels, taints, capacity, allocatable, conditions, and when that is worth posting.

Pure. Machine facts, settings and what the other managers know come in as values. Must not know the API server.
Upstream counterparts: pkg/kubelet/nodestatus/setters.go, kubelet_node_status.go, cm/node_container_manager.
"""

import ipaddress
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Final

import msgspec

from cri_proto import runtime_v1 as cri
from kubelet_py.api import core_v1, meta_v1, quantity
from kubelet_py.api.quantity import Quantity

CPU: Final = "cpu"
MEMORY: Final = "memory"
PODS: Final = "pods"
EPHEMERAL_STORAGE: Final = "ephemeral-storage"
HUGEPAGES_PREFIX: Final = "hugepages-"

CONTROLLER_ATTACH_ANNOTATION: Final = "volumes.kubernetes.io/controller-managed-attach-detach"
PROVIDED_IP_ANNOTATION: Final = "alpha.kubernetes.io/provided-node-ip"
CLOUD_TAINT: Final = "node.cloudprovider.kubernetes.io/uninitialized"

LABEL_HOSTNAME: Final = "kubernetes.io/hostname"
OS_LABELS: Final = ("kubernetes.io/os", "beta.kubernetes.io/os")
ARCH_LABELS: Final = ("kubernetes.io/arch", "beta.kubernetes.io/arch")

MAX_NAMES_PER_IMAGE: Final = 5


@dataclass(frozen=True, slots=True)
class Hugepages:
    """Pre-allocated pages of one size."""

    size_bytes: int
    count: int


@dataclass(frozen=True, slots=True)
class MachineInfo:
    """What the host is. Architecture and operating system carry Go's names."""

    machine_id: str
    system_uuid: str
    boot_id: str
    kernel_version: str
    os_image: str
    cores: int
    memory_bytes: int
    architecture: str = "amd64"
    operating_system: str = "linux"
    swap_bytes: int = 0
    hugepages: tuple[Hugepages, ...] = ()
    ephemeral_storage_bytes: int = 0
    max_pids: int = 0
    """How many processes the kernel lets be; 0 when it does not say."""


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeSettings:
    """What flags and configuration say about the node."""

    name: str
    hostname: str = ""
    labels: Mapping[str, str] = field(default_factory=dict)
    taints: tuple[core_v1.Taint, ...] = ()
    register: bool = True
    provider_id: str = ""
    external_cloud: bool = False
    provided_ips: tuple[str, ...] = ()
    controller_attach: bool = True
    max_pods: int = 110
    pods_per_core: int = 0
    kube_reserved: Mapping[str, str] = field(default_factory=dict)
    system_reserved: Mapping[str, str] = field(default_factory=dict)
    eviction_hard: Mapping[str, str] = field(default_factory=dict)
    local_storage: bool = True
    kubelet_port: int = 10250
    kubelet_version: str = "v1.37.2"
    max_images: int = 50
    status_update_seconds: float = 10.0
    status_report_seconds: float = 300.0
    lease_duration_seconds: int = 40
    declared_features: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Pressure:
    """What the eviction manager says."""

    memory: bool = False
    disk: bool = False
    pid: bool = False


@dataclass(frozen=True, slots=True)
class RuntimeState:
    """What the runtime last said of itself. `problems` makes the node not Ready."""

    version: str = ""
    """`<type>://<version>`, as the node shows it."""
    problems: tuple[str, ...] = ("container runtime status check may not have completed yet",)
    handlers: tuple[core_v1.NodeRuntimeHandler, ...] = ()
    supplemental_groups_policy: bool | None = None
    """None: it has not said."""


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeObservation:
    """Everything that the status is made of, at one moment."""

    machine: MachineInfo
    addresses: tuple[core_v1.NodeAddress, ...]
    """(): not known."""
    runtime: RuntimeState = RuntimeState()
    pressure: Pressure = Pressure()
    problems: tuple[str, ...] = ()
    """What else makes the node not Ready: PLEG, shutdown, storage."""
    images: Sequence[core_v1.ContainerImage] = ()
    extended_capacity: Mapping[str, str] = field(default_factory=dict)
    extended_allocatable: Mapping[str, str] = field(default_factory=dict)
    volumes_in_use: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class NodeEvent:
    """An event that a change of the status is worth."""

    reason: str
    message: str
    type: str = "Normal"


RECONCILED_LABELS: Final = frozenset(
    {
        LABEL_HOSTNAME,
        *OS_LABELS,
        *ARCH_LABELS,
        *("topology.kubernetes.io/zone", "topology.kubernetes.io/region"),
        *("failure-domain.beta.kubernetes.io/zone", "failure-domain.beta.kubernetes.io/region"),
        *("node.kubernetes.io/instance-type", "beta.kubernetes.io/instance-type", "node.kubernetes.io/windows-build"),
    }
)
"""What a node that is there already gets anew. The rest of --node-labels counts when it is made, and people may change
it then."""


def default_labels(settings: NodeSettings, machine: MachineInfo) -> dict[str, str]:
    """The labels at registration; those of --node-labels may override."""
    labels = {LABEL_HOSTNAME: settings.hostname or settings.name} | platform_labels(machine)
    return labels | dict(settings.labels)


def platform_labels(machine: MachineInfo) -> dict[str, str]:
    """The labels that are asserted again and again, whoever changes them."""
    return dict.fromkeys(OS_LABELS, machine.operating_system) | dict.fromkeys(ARCH_LABELS, machine.architecture)


def initial_node(settings: NodeSettings, machine: MachineInfo) -> core_v1.Node:
    """The object to register, without a status."""
    annotations = {}
    if settings.controller_attach:
        annotations[CONTROLLER_ATTACH_ANNOTATION] = "true"
    if provided := _provided_ip(settings):
        annotations[PROVIDED_IP_ANNOTATION] = provided
    taints = list(settings.taints)
    if settings.external_cloud:
        taints.append(core_v1.Taint(key=CLOUD_TAINT, value="true", effect="NoSchedule"))
    return core_v1.Node(
        metadata=meta_v1.ObjectMeta(
            name=settings.name, labels=default_labels(settings, machine), annotations=annotations or None
        ),
        spec=core_v1.NodeSpec(providerID=settings.provider_id or None, taints=taints or None),
    )


def _provided_ip(settings: NodeSettings) -> str | None:
    """What an external cloud is told of --node-ip: 0.0.0.0 and :: name a family and no address."""
    if not settings.external_cloud:
        return None
    given = map(ipaddress.ip_address, settings.provided_ips)
    return ",".join(str(address) for address in given if not address.is_unspecified) or None


def address_annotation_changes(existing: core_v1.Node, settings: NodeSettings) -> dict[str, str | None]:
    """What to write into the annotations, so that they say of --node-ip what the settings say: set, or taken away."""
    annotations = (existing.metadata and existing.metadata.annotations) or {}
    wanted = _provided_ip(settings)
    return {} if annotations.get(PROVIDED_IP_ANNOTATION) == wanted else {PROVIDED_IP_ANNOTATION: wanted}


def registration_patch(
    existing: core_v1.Node, settings: NodeSettings, machine: MachineInfo
) -> dict[str, object] | None:
    """What a node object that was there already lacks, or has from other settings; None when nothing."""
    metadata = existing.metadata or meta_v1.ObjectMeta()
    labels, annotations = metadata.labels or {}, metadata.annotations or {}
    wanted_labels = {k: v for k, v in default_labels(settings, machine).items() if k in RECONCILED_LABELS}
    label_changes: dict[str, object] = {k: v for k, v in wanted_labels.items() if labels.get(k) != v}
    annotation_changes: dict[str, object] = {**address_annotation_changes(existing, settings)}
    attach = "true" if settings.controller_attach else None
    if annotations.get(CONTROLLER_ATTACH_ANNOTATION) != attach:
        annotation_changes[CONTROLLER_ATTACH_ANNOTATION] = attach
    changes = {
        name: change for name, change in (("labels", label_changes), ("annotations", annotation_changes)) if change
    }
    return {"metadata": changes} if changes else None


def compute_capacity(settings: NodeSettings, observed: NodeObservation) -> dict[str, Quantity]:
    """What the machine has."""
    machine = observed.machine
    pods = settings.max_pods
    if settings.pods_per_core > 0:
        pods = min(machine.cores * settings.pods_per_core, pods)
    capacity = {
        CPU: quantity.from_units(machine.cores),
        MEMORY: quantity.from_bytes(machine.memory_bytes),
        PODS: quantity.from_units(pods),
    }
    if settings.local_storage and machine.ephemeral_storage_bytes:
        capacity[EPHEMERAL_STORAGE] = quantity.from_bytes(machine.ephemeral_storage_bytes)
    for pages in machine.hugepages:
        name = HUGEPAGES_PREFIX + str(quantity.from_bytes(pages.size_bytes))
        capacity[name] = quantity.from_bytes(pages.size_bytes * pages.count)
    return capacity | {name: quantity.parse(value) for name, value in observed.extended_capacity.items()}


def compute_allocatable(
    settings: NodeSettings, observed: NodeObservation, capacity: Mapping[str, Quantity]
) -> dict[str, Quantity]:
    """What pods may request: capacity less reservations and hard eviction thresholds, never below zero."""
    allocatable = {}
    for name, amount in capacity.items():
        reserved = _reserved(settings, name) + hard_eviction_reserve(settings.eviction_hard, name, amount)
        allocatable[name] = _at_least_zero(amount - reserved)
    if MEMORY in allocatable:
        for name, amount in capacity.items():
            if name.startswith(HUGEPAGES_PREFIX):
                allocatable[MEMORY] = _at_least_zero(allocatable[MEMORY] - amount)
    return allocatable | {name: quantity.parse(value) for name, value in observed.extended_allocatable.items()}


def hard_eviction_reserve(thresholds: Mapping[str, str], resource: str, capacity: Quantity) -> Quantity:
    """What a hard threshold keeps free of one resource. 100% is how a threshold is switched off, as is 0%."""
    signal = {MEMORY: "memory.available", EPHEMERAL_STORAGE: "nodefs.available"}.get(resource, "")
    threshold = thresholds.get(signal, "")
    if not threshold:
        return quantity.ZERO
    if threshold.endswith("%"):
        percent = float(threshold[:-1])
        return quantity.from_bytes(int(capacity.value * percent / 100) if percent < 100 else 0)
    return quantity.parse(threshold)


def _reserved(settings: NodeSettings, resource: str) -> Quantity:
    total = quantity.ZERO
    for reservation in (settings.kube_reserved, settings.system_reserved):
        if resource in reservation:
            total += quantity.parse(reservation[resource])
    return total


def _at_least_zero(amount: Quantity) -> Quantity:
    return amount if amount.nanos > 0 else Quantity(0, amount.format)


def compute_node_status(
    settings: NodeSettings, observed: NodeObservation, existing: core_v1.NodeStatus | None, now: datetime
) -> core_v1.NodeStatus:
    """The whole status. What others wrote (attached volumes, foreign conditions, stale addresses' owner) is kept."""
    before = existing or core_v1.NodeStatus()
    capacity = _with_foreign(compute_capacity(settings, observed), before.capacity)
    allocatable = compute_allocatable(settings, observed, capacity)
    machine, runtime = observed.machine, observed.runtime
    info = core_v1.NodeSystemInfo(
        architecture=machine.architecture,
        bootID=machine.boot_id,
        containerRuntimeVersion=runtime.version,
        kernelVersion=machine.kernel_version,
        kubeProxyVersion="",
        kubeletVersion=settings.kubelet_version,
        machineID=machine.machine_id,
        operatingSystem=machine.operating_system,
        osImage=machine.os_image,
        systemUUID=machine.system_uuid,
        swap=core_v1.NodeSwapStatus(capacity=machine.swap_bytes) if machine.swap_bytes else None,
    )
    return msgspec.structs.replace(
        before,
        addresses=_addresses(settings, observed, before),
        capacity=_texts(capacity),
        allocatable=_texts(allocatable),
        conditions=compute_conditions(settings, observed, capacity, before.conditions or [], now),
        daemonEndpoints=core_v1.NodeDaemonEndpoints(kubeletEndpoint=core_v1.DaemonEndpoint(Port=settings.kubelet_port)),
        declaredFeatures=sorted(settings.declared_features) or None,
        features=(
            core_v1.NodeFeatures(supplementalGroupsPolicy=runtime.supplemental_groups_policy)
            if runtime.supplemental_groups_policy is not None
            else before.features
        ),
        images=reported_images(observed.images, settings.max_images) or None,
        nodeInfo=info,
        runtimeHandlers=list(runtime.handlers) or None,
        volumesInUse=sorted(observed.volumes_in_use) or None,
    )


def _addresses(
    settings: NodeSettings, observed: NodeObservation, before: core_v1.NodeStatus
) -> list[core_v1.NodeAddress] | None:
    if before.addresses and (settings.external_cloud or not observed.addresses):
        # The cloud's, or what it will replace: two that write would undo each other for ever. Or the last that are
        # known of a machine that has none now.
        return before.addresses
    return list(observed.addresses) or None


def _with_foreign(capacity: dict[str, Quantity], before: Mapping[str, str] | None) -> dict[str, Quantity]:
    """With what somebody else advertises for the node. Huge page sizes that the kernel no longer offers go to zero, so
    that the scheduler sees it."""
    others = {name: value for name, value in (before or {}).items() if name not in capacity}
    return capacity | {
        name: quantity.ZERO if name.startswith(HUGEPAGES_PREFIX) else quantity.parse(value)
        for name, value in others.items()
    }


def _texts(resources: Mapping[str, Quantity]) -> dict[str, str]:
    return {name: str(resources[name]) for name in sorted(resources)}


def reported_images(images: Iterable[core_v1.ContainerImage], limit: int) -> list[core_v1.ContainerImage]:
    """The biggest images first, each with at most five names, digests before tags; a limit below 0 is none."""
    largest = sorted(images, key=lambda image: image.sizeBytes or 0, reverse=True)
    if limit >= 0:
        largest = largest[:limit]
    reported = []
    for image in largest:
        names = sorted(image.names or [], key=lambda name: "@" not in name)[:MAX_NAMES_PER_IMAGE]
        reported.append(core_v1.ContainerImage(names=names, sizeBytes=image.sizeBytes))
    return reported


def runtime_problems(status: cri.RuntimeStatus) -> tuple[str, ...]:
    """Why the runtime is not ready for pods, in the words the Ready condition shows."""
    conditions = {condition.type: condition for condition in status.conditions}
    problems = []
    for name, what in (
        ("RuntimeReady", "container runtime not ready"),
        ("NetworkReady", "container runtime network not ready"),
    ):
        condition = conditions.get(name)
        if condition is None:
            problems.append(f"{what}: the runtime does not report {name}")
        elif not condition.status:
            problems.append(f"{what}: {name}=false reason:{condition.reason} message:{condition.message}")
    return tuple(problems)


def runtime_state(version: cri.VersionResponse, status: cri.StatusResponse) -> RuntimeState:
    """What a node shows of a runtime that answered."""
    handlers = tuple(
        core_v1.NodeRuntimeHandler(
            name=handler.name,
            features=core_v1.NodeRuntimeHandlerFeatures(
                recursiveReadOnlyMounts=handler.features.recursive_read_only_mounts,
                userNamespaces=handler.features.user_namespaces,
            ),
        )
        for handler in sorted(status.runtime_handlers, key=lambda handler: handler.name)
    )
    return RuntimeState(
        version=f"{version.runtime_name}://{version.runtime_version}",
        problems=runtime_problems(status.status),
        handlers=handlers,
        supplemental_groups_policy=(
            status.features.supplemental_groups_policy if status.HasField("features") else None
        ),
    )


def compute_conditions(
    settings: NodeSettings,
    observed: NodeObservation,
    capacity: Mapping[str, Quantity],
    existing: Sequence[core_v1.NodeCondition],
    now: datetime,
) -> list[core_v1.NodeCondition]:
    """Our four conditions, pressure first and Ready last, after the ones that others own."""
    pressure = observed.pressure
    wanted = [
        _pressure("MemoryPressure", pressure.memory, ("KubeletHas", "Memory"), "memory available"),
        _disk_pressure(pressure.disk),
        _pressure("PIDPressure", pressure.pid, ("KubeletHas", "PID"), "PID available"),
        _ready(settings, observed, capacity),
    ]
    ours = {condition.type for condition in wanted}
    before = {condition.type: condition for condition in existing}
    moment = now.astimezone(UTC).replace(microsecond=0)
    for condition in wanted:
        old = before.get(condition.type)
        same = old is not None and old.status == condition.status
        condition.lastHeartbeatTime = moment
        condition.lastTransitionTime = old.lastTransitionTime if old is not None and same else moment
    return [condition for condition in existing if condition.type not in ours] + wanted


def _pressure(kind: str, under: bool, reason: tuple[str, str], what: str) -> core_v1.NodeCondition:
    word = "insufficient" if under else "sufficient"
    return core_v1.NodeCondition(
        type=kind,
        status="True" if under else "False",
        reason=f"{reason[0]}{word.capitalize()}{reason[1]}",
        message=f"kubelet has {word} {what}",
    )


def _disk_pressure(under: bool) -> core_v1.NodeCondition:
    return core_v1.NodeCondition(
        type="DiskPressure",
        status="True" if under else "False",
        reason="KubeletHasDiskPressure" if under else "KubeletHasNoDiskPressure",
        message="kubelet has disk pressure" if under else "kubelet has no disk pressure",
    )


def _ready(
    settings: NodeSettings, observed: NodeObservation, capacity: Mapping[str, Quantity]
) -> core_v1.NodeCondition:
    problems = [*observed.runtime.problems, *observed.problems]
    required = [CPU, MEMORY, PODS]
    if settings.local_storage:
        required.append(EPHEMERAL_STORAGE)
    if missing := [name for name in required if name not in capacity]:
        problems.append(f"missing node capacity for resources: {', '.join(missing)}")
    if not problems:
        return core_v1.NodeCondition(
            type="Ready", status="True", reason="KubeletReady", message="kubelet is posting ready status"
        )
    message = problems[0] if len(problems) == 1 else f"[{', '.join(problems)}]"
    return core_v1.NodeCondition(type="Ready", status="False", reason="KubeletNotReady", message=message)


def is_ready(status: core_v1.NodeStatus | None) -> bool:
    """The Ready condition is True."""
    conditions = (status.conditions if status else None) or []
    return any(condition.type == "Ready" and condition.status == "True" for condition in conditions)


def same_apart_from_heartbeats(a: core_v1.NodeStatus, b: core_v1.NodeStatus) -> bool:
    """Nothing that is worth a post differs."""
    return _without_heartbeats(a) == _without_heartbeats(b)


def _without_heartbeats(status: core_v1.NodeStatus) -> core_v1.NodeStatus:
    conditions = [msgspec.structs.replace(condition, lastHeartbeatTime=None) for condition in status.conditions or []]
    return msgspec.structs.replace(status, conditions=sorted(conditions, key=lambda condition: condition.type))


def condition_events(name: str, before: core_v1.NodeStatus | None, after: core_v1.NodeStatus) -> tuple[NodeEvent, ...]:
    """The transitions of the conditions, as events. A first False Ready is none; first pressure conditions are."""
    old = {condition.type: condition.status for condition in (before.conditions if before else None) or []}
    events = []
    for condition in after.conditions or []:
        reason = _event_reason(condition)
        if not reason or old.get(condition.type) == condition.status:
            continue
        if condition.type == "Ready" and "Ready" not in old:
            continue
        events.append(NodeEvent(reason, f"Node {name} status is now: {reason}"))
    return tuple(events)


def _event_reason(condition: core_v1.NodeCondition) -> str:
    bad = condition.status == "True"
    return {
        "Ready": "NodeReady" if bad else "NodeNotReady",
        "MemoryPressure": "NodeHasInsufficientMemory" if bad else "NodeHasSufficientMemory",
        "DiskPressure": "NodeHasDiskPressure" if bad else "NodeHasNoDiskPressure",
        "PIDPressure": "NodeHasInsufficientPID" if bad else "NodeHasSufficientPID",
    }.get(condition.type, "")


def schedulable_event(name: str, was_unschedulable: bool | None, is_unschedulable: bool) -> NodeEvent | None:
    """spec.unschedulable flipped; nothing at the first look."""
    if was_unschedulable is None or was_unschedulable == is_unschedulable:
        return None
    reason = "NodeNotSchedulable" if is_unschedulable else "NodeSchedulable"
    return NodeEvent(reason, f"Node {name} status is now: {reason}")


def reboot_event(name: str, before: core_v1.NodeStatus | None, boot_id: str) -> NodeEvent | None:
    """The machine started again since the last report."""
    if before is None or before.nodeInfo is None or not before.nodeInfo.bootID or before.nodeInfo.bootID == boot_id:
        return None
    return NodeEvent("Rebooted", f"Node {name} has been rebooted, boot id: {boot_id}", "Warning")


def node_reference(name: str) -> core_v1.ObjectReference:
    """What events about the node point at; the UID is the name, which is what `kubectl describe node` looks for."""
    return core_v1.ObjectReference(apiVersion="v1", kind="Node", name=name, uid=name)
