"""The steps of a resize in place: which containers get other limits, in which order, around the pod's own cgroup.

A container never has more than its pod: the pod grows before its containers and shrinks after them, and among the
containers those that shrink come first. Memory comes before CPU.

Upstream counterpart: computePodResizeAction and doPodResizeAction in kuberuntime_manager.go. Deliberate difference: a
pod without a limit counts as one with an endless limit, so that a limit that is added is written after the containers'.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from math import inf
from typing import Any

from cri_proto import runtime_v1 as cri
from kubelet_py.api import core_v1
from kubelet_py.core.actions import ContainerResize
from kubelet_py.core.cgroup_rules import (
    DEFAULT_PERIOD_MICROSECONDS,
    CgroupLimits,
    cpu_quota_of,
    cpu_shares_of,
    milli_cpu_of_shares,
)
from kubelet_py.core.observed import ObservedContainer
from kubelet_py.core.pod_allocation import PodResources, actuated_amounts, allocated_amounts
from kubelet_py.core.pod_resources import CPU, MEMORY, quantity_of
from kubelet_py.core.resize_rules import restarts_for

RESOURCES = (MEMORY, CPU)


@dataclass(frozen=True, slots=True)
class ResizeNeed:
    """What a running container needs: nothing, other limits, or to start anew."""

    update: ContainerResize | None = None
    restarts: bool = False


def judge_container(
    pod: core_v1.Pod, container: core_v1.Container, run: ObservedContainer, actuated: PodResources
) -> ResizeNeed:
    """`pod` and `container` have the allocated resources; the container runs."""
    wanted = allocated_amounts(pod, container)
    current = actuated_amounts(actuated, container.name)
    changed = [resource for resource in RESOURCES if wanted.of(resource) != current.of(resource)]
    if not changed:
        return ResizeNeed()
    if any(restarts_for(container, resource) for resource in changed):
        return ResizeNeed(restarts=True)
    return ResizeNeed(ContainerResize(run.id, container.name, current, wanted))


def starts_with_new_size(pod: core_v1.Pod, container: core_v1.Container, actuated: PodResources) -> bool:
    """A container that is about to start has another size than the pod's cgroup was made for, which must follow."""
    return allocated_amounts(pod, container) != actuated_amounts(actuated, container.name)


def in_order(updates: Iterable[ContainerResize], resource: str) -> tuple[ContainerResize, ...]:
    """Those that change this resource, decreases first; a limit counts before a request."""
    changing = [u for u in updates if u.current.of(resource) != u.wanted.of(resource)]
    return tuple(sorted(changing, key=lambda update: _grows(update, resource)))


def _grows(update: ContainerResize, resource: str) -> bool:
    (old_request, old_limit), (new_request, new_limit) = update.current.of(resource), update.wanted.of(resource)
    return new_limit > old_limit if new_limit != old_limit else new_request > old_request


@dataclass(frozen=True, slots=True)
class PodSteps:
    """What is written into the pod's cgroup before and after its containers change."""

    before: tuple[CgroupLimits, ...] = ()
    after: tuple[CgroupLimits, ...] = ()


def pod_steps(resource: str, current: CgroupLimits, target: CgroupLimits) -> PodSteps:
    """The writes for one resource. Limits that the target does not name stay as they are."""
    if resource == MEMORY:
        if target.memory_bytes is None or target.memory_bytes == current.memory_bytes:
            return PodSteps()
        step = CgroupLimits(memory_bytes=target.memory_bytes, unified=target.unified)
        grows = _endless(target.memory_bytes) > _endless(current.memory_bytes)
        return PodSteps(before=(step,)) if grows else PodSteps(after=(step,))
    before: list[CgroupLimits] = []
    after: list[CgroupLimits] = []
    if target.cpu_quota_microseconds is not None and target.cpu_quota_microseconds != current.cpu_quota_microseconds:
        step = CgroupLimits(
            cpu_quota_microseconds=target.cpu_quota_microseconds, cpu_period_microseconds=target.cpu_period_microseconds
        )
        grows = _endless(target.cpu_quota_microseconds) > _endless(current.cpu_quota_microseconds)
        (before if grows else after).append(step)
    if target.cpu_shares is not None and target.cpu_shares != current.cpu_shares:
        step = CgroupLimits(cpu_shares=target.cpu_shares)
        # Requests grow after limits and shrink before them: they never stand above.
        if target.cpu_shares > (current.cpu_shares or 0):
            before.append(step)
        else:
            after.insert(0, step)
    return PodSteps(tuple(before), tuple(after))


def _endless(limit: int | None) -> float:
    return limit if limit is not None and limit > 0 else inf


def merged(current: CgroupLimits, step: CgroupLimits) -> CgroupLimits:
    """The limits after one more write."""
    changes = {
        name: value
        for name in ("cpu_shares", "cpu_quota_microseconds", "cpu_period_microseconds", "memory_bytes")
        if (value := getattr(step, name)) is not None
    }
    return replace(current, **changes, unified={**current.unified, **step.unified})


def without_overhead(limits: CgroupLimits, overhead: Mapping[str, Any] | None) -> CgroupLimits:
    """A pod's limits less what its RuntimeClass adds for the sandbox itself; what has no limit keeps none."""
    cpu, memory = quantity_of(overhead, CPU).milli_value, quantity_of(overhead, MEMORY).value
    shares, quota = limits.cpu_shares, limits.cpu_quota_microseconds
    if shares is not None and cpu:
        shares = cpu_shares_of(max(0, milli_cpu_of_shares(shares) - cpu))
    if quota is not None and quota > 0:
        quota -= cpu_quota_of(cpu, limits.cpu_period_microseconds or DEFAULT_PERIOD_MICROSECONDS)
    memory_bytes = limits.memory_bytes
    if memory_bytes is not None and memory_bytes > 0:
        memory_bytes -= memory
    return replace(limits, cpu_shares=shares, cpu_quota_microseconds=quota, memory_bytes=memory_bytes)


def to_cri_pod_resources(limits: CgroupLimits) -> cri.LinuxContainerResources:
    """A pod's limits as UpdatePodSandboxResources carries them."""
    return cri.LinuxContainerResources(
        cpu_shares=limits.cpu_shares or 0,
        cpu_quota=limits.cpu_quota_microseconds or 0,
        cpu_period=limits.cpu_period_microseconds or 0,
        memory_limit_in_bytes=limits.memory_bytes or 0,
        unified=dict(limits.unified),
    )


def usage_problems(
    updates: Iterable[ContainerResize],
    pod_limit_bytes: int | None,
    pod_usage_bytes: int | None,
    container_usage_bytes: Mapping[str, int | None],
) -> list[str]:
    """Which memory limits would come to stand below what is in use. `pod_limit_bytes`: the new one where it shrinks."""
    problems = []
    if pod_limit_bytes is not None:
        if pod_usage_bytes is None:
            problems.append("missing pod memory usage")
        elif pod_usage_bytes >= pod_limit_bytes:
            problems.append(
                f"attempting to set pod memory limit ({pod_limit_bytes}) below current usage ({pod_usage_bytes})"
            )
    for update in updates:
        limit = update.wanted.memory_limit_bytes
        if not limit or limit >= _endless(update.current.memory_limit_bytes):
            continue
        usage = container_usage_bytes.get(update.container_id)
        if usage is None:
            problems.append(f'missing container "{update.container_name}" memory usage')
        elif usage >= limit:
            problems.append(
                f'attempting to set container "{update.container_name}" memory limit ({limit}) '
                f"below current usage ({usage})"
            )
    return problems
