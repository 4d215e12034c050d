"""Whether and when a pod may be resized in place, and what its status and events say about it.

Upstream counterparts: pkg/kubelet/allocation (handlers.go, sortPendingResizes), the resize conditions of
pkg/kubelet/status, pkg/kubelet/events/resize.go. Deliberate difference: lastProbeTime moves only when something else
of a condition does, so that a pending resize that is looked at again writes no status.
"""

import json
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

from kubelet_py.api import codec, core_v1
from kubelet_py.api import pod as podlib
from kubelet_py.api import quantity as q
from kubelet_py.core import pod_resources, qos
from kubelet_py.core.cgroup_rules import CgroupSettings, may_swap
from kubelet_py.core.observed import ContainerState, ObservedPod
from kubelet_py.core.pod_allocation import (
    PodResources,
    actuated_amounts,
    allocated_amounts,
    pod_level_changes,
    resizable_containers_of,
)
from kubelet_py.core.pod_resources import CPU, MEMORY
from kubelet_py.core.qos import QosClass

RESIZE_PENDING: Final = "PodResizePending"
RESIZE_IN_PROGRESS: Final = "PodResizeInProgress"
DEFERRED: Final = "Deferred"
INFEASIBLE: Final = "Infeasible"
ERROR: Final = "Error"
RESTART_CONTAINER: Final = "RestartContainer"


def infeasibility(desired: core_v1.Pod, allocated: core_v1.Pod, settings: CgroupSettings) -> str:
    """Why this node can never do this resize, or ""."""
    before = {container.name: container for container in resizable_containers_of(allocated)}
    for container in resizable_containers_of(desired):
        old = before.get(container.name)
        if old is None or restarts_for(old, MEMORY):
            continue
        changes = _memory_request_of(container) != _memory_request_of(old)
        if changes and (may_swap(desired, container, settings) or may_swap(allocated, old, settings)):
            return "In-place resize of containers with swap is not supported."
    return ""


def restarts_for(container: core_v1.Container, resource: str) -> bool:
    """The container's resizePolicy asks for a restart when this resource changes."""
    policies = {policy.resourceName: policy.restartPolicy for policy in container.resizePolicy or ()}
    return policies.get(resource) == RESTART_CONTAINER


def increases_requests(desired: core_v1.Pod, allocated: core_v1.Pod) -> bool:
    """The pod as a whole asks for more than it has."""
    new, old = pod_resources.compute_pod_requests(desired), pod_resources.compute_pod_requests(allocated)
    return any(new.get(name, q.ZERO) > old.get(name, q.ZERO) for name in (CPU, MEMORY))


def queue_position(
    desired: core_v1.Pod, allocated: core_v1.Pod, pending: core_v1.PodCondition | None
) -> tuple[Any, ...]:
    """Sorts pending resizes: those that take no more first, then by priority, QoS class and time of waiting."""
    since = pending.lastTransitionTime if pending is not None else None
    return (
        increases_requests(desired, allocated),
        -(podlib.spec_of(desired).priority or 0),
        qos.qos_class_of(desired) is not QosClass.GUARANTEED,
        since is None,
        since.timestamp() if since is not None else 0.0,
    )


def is_in_progress(pod: core_v1.Pod, actuated: PodResources | None, observed: ObservedPod) -> bool:
    """Something that runs has not yet what was allocated to it. `pod` has the allocated resources."""
    if actuated is None:
        return False
    spec = podlib.spec_of(pod)
    if None not in (spec.resources, actuated.pod_level) and pod_level_changes(pod, actuated):
        return True
    for container in resizable_containers_of(pod):
        newest = observed.newest(container.name)
        if newest is None or newest.state is not ContainerState.RUNNING:
            continue  # it gets the right size when it starts
        if allocated_amounts(pod, container) != actuated_amounts(actuated, container.name):
            return True
    return False


# Conditions


@dataclass(frozen=True, slots=True)
class ResizeConditions:
    """The two conditions of a pod, those that hold."""

    pending: core_v1.PodCondition | None = None
    in_progress: core_v1.PodCondition | None = None

    def listed(self) -> list[core_v1.PodCondition]:
        """As they stand in the status."""
        return [condition for condition in (self.pending, self.in_progress) if condition is not None]


NO_CONDITIONS: Final = ResizeConditions()


def conditions_of(status: core_v1.PodStatus | None) -> ResizeConditions:
    """What the API server knows, for an agent that was restarted."""
    by_type = {condition.type: condition for condition in (status.conditions if status is not None else None) or ()}
    return ResizeConditions(by_type.get(RESIZE_PENDING), by_type.get(RESIZE_IN_PROGRESS))


def condition(
    kind: str, old: core_v1.PodCondition | None, reason: str, message: str, generation: int | None, now: datetime
) -> core_v1.PodCondition:
    """The condition with this reason; the same object when nothing of it is new."""
    reason_text, message_text = reason or None, message or None
    if old is not None and (old.reason, old.message, old.observedGeneration) == (reason_text, message_text, generation):
        return old
    moved = old is None or old.reason != reason_text
    return core_v1.PodCondition(
        type=kind,
        status="True",
        reason=reason_text,
        message=message_text,
        observedGeneration=generation,
        lastProbeTime=now,
        lastTransitionTime=now if moved or old is None else old.lastTransitionTime,
    )


def progress_condition(
    old: core_v1.PodCondition | None, reason: str, message: str, generation: int | None, now: datetime
) -> core_v1.PodCondition:
    """The condition of a resize under way: it keeps the generation it began with, and an error until another comes."""
    if old is None:
        return condition(RESIZE_IN_PROGRESS, None, reason, message, generation, now)
    if not reason and not message:
        reason, message = old.reason or "", old.message or ""
    return condition(RESIZE_IN_PROGRESS, old, reason, message, old.observedGeneration, now)


# Events


def event_message(prefix: str, pod: core_v1.Pod, generation: int | None, error: str = "") -> str:
    """`Pod resize started: {...}` with the resources that it is about, as the Go kubelet writes it."""
    summary: dict[str, Any] = {}
    for key, containers in (
        ("initContainers", podlib.init_containers_of(pod)),
        ("containers", podlib.containers_of(pod)),
    ):
        listed = [{"name": c.name, "resources": _sorted(c.resources)} for c in containers]
        if listed:
            summary[key] = listed
    summary["generation"] = generation or 0
    if error:
        summary["error"] = error
    return f"Pod resize {prefix}: {json.dumps(summary, separators=(',', ':'), ensure_ascii=False)}"


def _sorted(resources: core_v1.ResourceRequirements | None) -> dict[str, Any]:
    found: dict[str, Any] = codec.to_builtins(resources) if resources is not None else {}
    return {key: dict(sorted(found[key].items())) for key in ("limits", "requests") if found.get(key)}


def _memory_request_of(container: core_v1.Container) -> q.Quantity:
    return pod_resources.quantity_of(pod_resources.requests_of(container), MEMORY)
