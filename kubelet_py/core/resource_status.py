"""What the status says of resources: what a container and the pod as a whole really have.

Allocated values are the base; where runtime and cgroups say something else, that is shown, as long as the difference is
no matter of rounding.

Upstream counterpart: convertContainerStatusResources and convertToAPIPodLevelResourcesStatus in
pkg/kubelet/kubelet_pods.go.
"""

from collections.abc import Mapping
from typing import Any, Final

import msgspec

from cri_proto import runtime_v1 as cri
from kubelet_py.api import core_v1
from kubelet_py.api import quantity as q
from kubelet_py.api.pod import spec_of
from kubelet_py.core.cgroup_rules import (
    MIN_SHARES,
    CgroupLimits,
    cpu_shares_of,
    milli_cpu_of_quota,
    milli_cpu_of_shares,
)
from kubelet_py.core.observed import ContainerState, ObservedContainer
from kubelet_py.core.pod_allocation import NO_RESOURCES, Amounts, amounts_of
from kubelet_py.core.pod_resources import CPU, MEMORY, compute_pod_limits, compute_pod_requests, quantity_of

SMALLEST_CPU_LIMIT_MILLI: Final = 10
"""The kernel takes no smaller quota: at or below it, what was asked for is shown."""


def container_resources(
    allocated: core_v1.ResourceRequirements | None,
    run: ObservedContainer,
    actuated: core_v1.ResourceRequirements | None,
) -> core_v1.ResourceRequirements | None:
    """The resources of a container in its status."""
    if allocated is None or run.state is not ContainerState.RUNNING:
        return allocated
    actual = _actual(run.resources, amounts_of(actuated))
    limits = _shown(allocated.limits, actual.cpu_limit_milli, actual.memory_limit_bytes, SMALLEST_CPU_LIMIT_MILLI)
    requests = _shown(allocated.requests, actual.cpu_request_milli, actual.memory_request_bytes, MIN_SHARES)
    return msgspec.structs.replace(allocated, limits=limits, requests=requests)


def _actual(reported: cri.LinuxContainerResources | None, actuated: Amounts) -> Amounts:
    """What the runtime reports; a runtime that reports nothing has what it was told. Memory requests are no limit."""
    if reported is None:
        return actuated
    return Amounts(
        milli_cpu_of_shares(reported.cpu_shares),
        milli_cpu_of_quota(reported.cpu_quota, reported.cpu_period) if reported.cpu_quota > 0 else 0,
        actuated.memory_request_bytes,
        max(0, reported.memory_limit_in_bytes),
    )


def _shown(
    allocated: Mapping[str, Any] | None, cpu_milli: int, memory_bytes: int, smallest_milli: int
) -> dict[str, Any] | None:
    if allocated is None:
        return None
    shown = dict(allocated)
    own_milli = quantity_of(allocated, CPU).milli_value
    if cpu_milli and cpu_milli != own_milli and max(cpu_milli, own_milli) > smallest_milli:
        shown[CPU] = str(q.from_milli(cpu_milli))
    if memory_bytes and memory_bytes != quantity_of(allocated, MEMORY).value:
        shown[MEMORY] = str(q.from_bytes(memory_bytes))
    return shown


def pod_resources(
    pod: core_v1.Pod, is_running: bool, limits: CgroupLimits, previous: core_v1.ResourceRequirements | None
) -> core_v1.ResourceRequirements:
    """The resources of the pod as a whole; `limits` are those that its cgroup has, as far as they are known.

    What is not known, as at the start of the agent, stays as it was said before (`previous`).
    """
    own = spec_of(pod).resources or NO_RESOURCES
    summed = compute_pod_requests(pod)
    if not is_running:
        return core_v1.ResourceRequirements(
            claims=own.claims, requests=_texts(summed) or None, limits=_texts(compute_pod_limits(pod)) or None
        )
    requests: dict[str, Any] = dict(own.requests or {})
    if limits.cpu_shares is not None:
        own_milli = quantity_of(requests, CPU).milli_value
        actual_milli = milli_cpu_of_shares(limits.cpu_shares)
        is_own = cpu_shares_of(own_milli) == limits.cpu_shares and own_milli
        if not is_own and max(actual_milli, own_milli) > MIN_SHARES:
            requests[CPU] = str(q.from_milli(actual_milli))
    if MEMORY not in requests and MEMORY in summed:
        requests[MEMORY] = str(summed[MEMORY])
    if limits.cpu_shares is None and previous is not None:
        requests |= {name: value for name, value in (previous.requests or {}).items() if name == CPU}
        return core_v1.ResourceRequirements(claims=own.claims, requests=requests or None, limits=previous.limits)
    quota = max(0, limits.cpu_quota_microseconds or 0)
    limit_milli = milli_cpu_of_quota(quota, limits.cpu_period_microseconds or 0)
    shown = _shown(own.limits or {}, limit_milli, limits.memory_bytes or 0, SMALLEST_CPU_LIMIT_MILLI)
    return core_v1.ResourceRequirements(claims=own.claims, requests=requests or None, limits=shown or None)


def allocated_pod_resources(pod: core_v1.Pod) -> dict[str, str] | None:
    """What was allocated to the pod as a whole."""
    return _texts(compute_pod_requests(pod)) or None


def _texts(amounts: Mapping[str, q.Quantity]) -> dict[str, str]:
    return {name: str(amount) for name, amount in amounts.items()}
