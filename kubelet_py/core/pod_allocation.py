"""The resources of a pod that can change while it runs: what it was given, and what its cgroups have of it.

A resize goes through four states: desired (the spec), allocated (accepted by this node), actuated (handed to runtime
and cgroups), actual (what the runtime reports). Owns the two in the middle as values, and their checkpoint files, which
are the Go kubelet's own, checksum included, so that either agent takes over the other's pods.

Upstream counterpart: pkg/kubelet/allocation (UpdatePodFromAllocation) and its state package.
"""

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

import msgspec

from kubelet_py.api import codec, core_v1
from kubelet_py.api import pod as podlib
from kubelet_py.api import quantity as q
from kubelet_py.core.container_hash import fnv_32a
from kubelet_py.core.pod_resources import CPU, MEMORY, quantities, quantity_of

NO_RESOURCES: Final = core_v1.ResourceRequirements()


@dataclass(frozen=True, slots=True)
class PodResources:
    """The resources of a pod's init and main containers by name, and those of the pod as a whole."""

    containers: Mapping[str, core_v1.ResourceRequirements] = field(default_factory=dict)
    pod_level: core_v1.ResourceRequirements | None = None


@dataclass(frozen=True, slots=True)
class Amounts:
    """CPU and memory in the units of cgroups; 0 where nothing is asked or limited."""

    cpu_request_milli: int = 0
    cpu_limit_milli: int = 0
    memory_request_bytes: int = 0
    memory_limit_bytes: int = 0

    def of(self, resource: str) -> tuple[int, int]:
        """Request and limit of one of the two."""
        if resource == CPU:
            return self.cpu_request_milli, self.cpu_limit_milli
        return self.memory_request_bytes, self.memory_limit_bytes

    def with_memory_of(self, other: "Amounts") -> "Amounts":
        """Our CPU, the other's memory."""
        return Amounts(
            self.cpu_request_milli, self.cpu_limit_milli, other.memory_request_bytes, other.memory_limit_bytes
        )


def resizable_containers_of(pod: core_v1.Pod) -> Iterator[core_v1.Container]:
    """Init and main containers."""
    yield from podlib.init_containers_of(pod)
    yield from podlib.containers_of(pod)


def resources_of(pod: core_v1.Pod) -> PodResources:
    """What the pod's spec says."""
    return PodResources(
        {c.name: c.resources or NO_RESOURCES for c in resizable_containers_of(pod)}, podlib.spec_of(pod).resources
    )


def with_resources(pod: core_v1.Pod, given: PodResources) -> core_v1.Pod:
    """The pod with these resources in its spec: itself when they are its own, else a copy that shares the rest."""
    spec = podlib.spec_of(pod)
    if not differs(pod, given):
        return pod

    def resized(containers: list[core_v1.Container] | None) -> list[core_v1.Container] | None:
        if containers is None:
            return None
        return [
            msgspec.structs.replace(c, resources=given.containers[c.name]) if c.name in given.containers else c
            for c in containers
        ]

    changed = msgspec.structs.replace(
        spec,
        containers=resized(spec.containers) or [],
        initContainers=resized(spec.initContainers),
        resources=given.pod_level,
    )
    return msgspec.structs.replace(pod, spec=changed)


def running_in(status: core_v1.PodStatus) -> set[str]:
    """The names of the containers that run and can be resized."""
    listed = (*(status.initContainerStatuses or ()), *(status.containerStatuses or ()))
    return {entry.name for entry in listed if entry.state is not None and entry.state.running is not None}


def with_larger_requests(pod: core_v1.Pod, other: PodResources) -> core_v1.Pod:
    """The pod asking for the larger of its own requests and these, resource by resource."""
    own = resources_of(pod)
    containers = {name: _larger(mine, other.containers.get(name)) for name, mine in own.containers.items()}
    return with_resources(pod, PodResources(containers, _larger(own.pod_level or NO_RESOURCES, other.pod_level)))


def _larger(
    mine: core_v1.ResourceRequirements, other: core_v1.ResourceRequirements | None
) -> core_v1.ResourceRequirements:
    own, others = mine.requests or {}, (other.requests if other is not None else None) or {}
    raised = {name: value for name, value in others.items() if quantity_of(own, name) < q.parse(value)}
    return msgspec.structs.replace(mine, requests={**own, **raised}) if raised else mine


def differs(pod: core_v1.Pod, given: PodResources) -> bool:
    """Whether the spec says something else; containers that are not given count as equal."""
    own = resources_of(pod)
    return not same_requirements(own.pod_level, given.pod_level) or any(
        name in given.containers and not same_requirements(resources, given.containers[name])
        for name, resources in own.containers.items()
    )


def same_requirements(one: core_v1.ResourceRequirements | None, other: core_v1.ResourceRequirements | None) -> bool:
    """Equal amounts, however they are spelled."""
    one, other = one or NO_RESOURCES, other or NO_RESOURCES
    if one is other:
        return True
    return quantities(one.requests) == quantities(other.requests) and quantities(one.limits) == quantities(other.limits)


def with_pod_limits(
    resources: core_v1.ResourceRequirements, pod_level: core_v1.ResourceRequirements | None
) -> core_v1.ResourceRequirements:
    """The container's resources with the pod's limits where it has none of its own, as its cgroup gets them."""
    inherited = {
        name: limit
        for name, limit in ((pod_level.limits if pod_level is not None else None) or {}).items()
        if name in (CPU, MEMORY) and not quantity_of(resources.limits, name)
    }
    if not inherited:
        return resources
    return msgspec.structs.replace(resources, limits={**(resources.limits or {}), **inherited})


def amounts_of(resources: core_v1.ResourceRequirements | None) -> Amounts:
    """CPU and memory of requirements."""
    resources = resources or NO_RESOURCES
    return Amounts(
        quantity_of(resources.requests, CPU).milli_value,
        quantity_of(resources.limits, CPU).milli_value,
        quantity_of(resources.requests, MEMORY).value,
        quantity_of(resources.limits, MEMORY).value,
    )


def allocated_amounts(pod: core_v1.Pod, container: core_v1.Container) -> Amounts:
    """What the container's cgroup is to have. Both have the allocated resources."""
    return amounts_of(with_pod_limits(container.resources or NO_RESOURCES, podlib.spec_of(pod).resources))


def actuated_amounts(actuated: PodResources, container_name: str) -> Amounts:
    """What the container's cgroup was given; nothing for one that was never made.

    A checkpoint may hold the container's own resources alone: so it begins, and so the Go kubelet writes it.
    """
    own = actuated.containers.get(container_name)
    return Amounts() if own is None else amounts_of(with_pod_limits(own, actuated.pod_level))


def pod_level_changes(pod: core_v1.Pod, actuated: PodResources) -> bool:
    """The pod-level resources are not those of the pod's cgroup."""
    return amounts_of(podlib.spec_of(pod).resources) != amounts_of(actuated.pod_level)


def requirements_of(
    amounts: Amounts, besides: core_v1.ResourceRequirements | None = None
) -> core_v1.ResourceRequirements:
    """Requirements with these amounts of CPU and memory, and everything else as in `besides`."""
    besides = besides or NO_RESOURCES

    def is_explicit_zero(raw: Mapping[str, Any] | None, name: str) -> bool:
        return raw is not None and name in raw and not quantity_of(raw, name)

    def listed(raw: Mapping[str, Any] | None, cpu_milli: int, memory_bytes: int) -> dict[str, str] | None:
        found = {name: value for name, value in (raw or {}).items() if name not in (CPU, MEMORY)}
        # An explicit nothing is no absence: without a request the limit is the request.
        if cpu_milli or is_explicit_zero(raw, CPU):
            found[CPU] = str(q.from_milli(cpu_milli))
        if memory_bytes or is_explicit_zero(raw, MEMORY):
            found[MEMORY] = str(q.from_bytes(memory_bytes))
        return found or None

    return core_v1.ResourceRequirements(
        claims=besides.claims,
        limits=listed(besides.limits, amounts.cpu_limit_milli, amounts.memory_limit_bytes),
        requests=listed(besides.requests, amounts.cpu_request_milli, amounts.memory_request_bytes),
    )


# Checkpoint files


class _Entry(msgspec.Struct):
    ContainerResources: dict[str, core_v1.ResourceRequirements] | None = None
    PodLevelResources: core_v1.ResourceRequirements | None = None
    EmptyDirVolumeLimits: dict[str, Any] | None = None


class _Entries(msgspec.Struct):
    entries: dict[str, _Entry] = {}


class _File(msgspec.Struct):
    data: str
    checksum: int


def encode_checkpoint(pods: Mapping[str, PodResources]) -> bytes:
    """The content of `allocated_pods_state` or `actuated_pods_state`."""
    entries = {uid: _Entry(dict(given.containers), given.pod_level) for uid, given in pods.items()}
    data = codec.encode(_Entries(entries)).decode()
    return json.dumps({"data": data, "checksum": checksum_of(data)}, separators=(",", ":")).encode()


def decode_checkpoint(content: bytes) -> dict[str, PodResources]:
    """By pod UID; InvalidObject when the content is no checkpoint or its checksum is not that of its data."""
    file = codec.decode(_File, content)
    if file.checksum != checksum_of(file.data):
        raise codec.InvalidObject(f"the checksum is {file.checksum}, that of the data {checksum_of(file.data)}")
    found = codec.decode(_Entries, file.data).entries
    return {uid: PodResources(entry.ContainerResources or {}, entry.PodLevelResources) for uid, entry in found.items()}


def checksum_of(data: str) -> int:
    """FNV-1a over the string as Go's dump library writes it."""
    return fnv_32a(f"(string){data}".encode())
