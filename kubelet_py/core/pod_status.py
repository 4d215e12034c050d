"""The status of a pod for the API server: what is reported is computed whole, each time.

Owns phase, reason, IPs, QoS class and start time; `container_status`, `pod_phase` and `pod_conditions` hold the parts.
Knows nothing of when and how a status is sent; `hold_back_final_phase` is for whoever sends it.

Upstream counterpart: generateAPIPodStatus in pkg/kubelet/kubelet_pods.go, mergePodStatus and TerminatePod in
pkg/kubelet/status/status_manager.go. Deliberate difference: node addresses are reported without an API server too.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import msgspec

from kubelet_py.api import core_v1
from kubelet_py.api.pod import containers_of, init_containers_of, is_host_network, is_sidecar, is_static, metadata_of
from kubelet_py.core.cgroup_rules import CgroupLimits
from kubelet_py.core.container_status import (
    ContainerStatusContext,
    compute_container_statuses,
    lost_state,
    time_of_ns,
)
from kubelet_py.core.observed import ObservedPod, ProbeVerdict
from kubelet_py.core.pod_allocation import PodResources
from kubelet_py.core.pod_conditions import (
    ALL_RESTARTING,
    CONTAINERS_READY,
    OWNED,
    POD_COMPLETED,
    POD_FAILED,
    READY,
    ConditionFacts,
    compute_conditions,
    condition_of,
)
from kubelet_py.core.pod_phase import FAILED, RUNNING, TERMINAL_PHASES, compute_phase
from kubelet_py.core.qos import qos_class_of
from kubelet_py.core.resource_status import allocated_pod_resources, pod_resources
from kubelet_py.core.restart_rules import could_restart_all, restarts_all
from kubelet_py.core.sandbox_rules import judge_sandbox


@dataclass(frozen=True, slots=True)
class StatusContext:
    """What the status needs beside the pod and the observation.

    `previous` is what the status manager holds; without it the object's own status is continued. `host_ips`: the node's
    addresses, the primary family first. `is_stopped_for_good`: the agent stopped the pod and nothing of it runs now.
    `failure`: (reason, message) of an eviction, a rejection or a deadline, which makes the phase Failed. `disruption`:
    (reason, message) of the condition DisruptionTarget. `pod_limits`: what the pod's cgroup has. The other fields are
    those of ContainerStatusContext.
    """

    now_ns: int
    runtime_type: str
    previous: core_v1.PodStatus | None = None
    host_ips: Sequence[str] = ()
    waiting: Mapping[str, tuple[str, str]] = field(default_factory=dict)
    termination_messages: Mapping[str, str] = field(default_factory=dict)
    probe_results: Mapping[str, ProbeVerdict] = field(default_factory=dict)
    is_stopped_for_good: bool = False
    failure: tuple[str, str] | None = None
    disruption: tuple[str, str] | None = None
    supports_recursive_read_only: bool = False
    agent_started_at_ns: int = 0
    resize_conditions: Sequence[core_v1.PodCondition] = ()
    actuated: PodResources | None = None
    pod_limits: CgroupLimits = field(default_factory=CgroupLimits)


def compute_pod_status(pod: core_v1.Pod, observed: ObservedPod, context: StatusContext) -> core_v1.PodStatus:
    """The whole status. It shares no mutable part with `context.previous` that anybody changes."""
    at_server = pod.status or core_v1.PodStatus()
    previous = context.previous or at_server
    restarts_now = restarts_all(pod, observed)
    containers = compute_container_statuses(
        pod,
        observed,
        ContainerStatusContext(
            runtime_type=context.runtime_type,
            previous=previous,
            waiting={} if context.is_stopped_for_good else context.waiting,  # nothing starts any more
            termination_messages=context.termination_messages,
            probe_results=context.probe_results,
            is_restarting_all=restarts_now or _is_cleared_for_restart(pod, observed, previous),
            supports_recursive_read_only=context.supports_recursive_read_only,
            agent_started_at_ns=context.agent_started_at_ns,
            actuated=context.actuated,
        ),
    )
    phase = compute_phase(
        pod, containers.init_and_main.values(), context.is_stopped_for_good, _has_begun_in_sandbox(pod, observed)
    )
    phase, reason, message = _settle_phase(phase, previous, at_server, context.failure)
    facts = ConditionFacts(
        phase=phase,
        statuses=containers.init_and_main,
        sandbox_problem=judge_sandbox(pod, observed).reason,
        is_restarting_all=restarts_now if could_restart_all(pod) else None,
        disruption=context.disruption,
    )
    now = time_of_ns(context.now_ns)
    pod_ips = _pod_ips(pod, observed, previous, context.host_ips)
    return core_v1.PodStatus(
        phase=phase,
        reason=reason,
        message=message,
        observedGeneration=metadata_of(pod).generation,
        conditions=[
            *compute_conditions(pod, facts, previous.conditions, now),
            *(context.resize_conditions if phase not in TERMINAL_PHASES else ()),
        ],
        resources=pod_resources(pod, previous.phase == RUNNING, context.pod_limits, previous.resources),
        allocatedResources=allocated_pod_resources(pod),
        containerStatuses=containers.main or None,
        initContainerStatuses=containers.init or None,
        ephemeralContainerStatuses=containers.ephemeral or None,
        hostIP=context.host_ips[0] if context.host_ips else None,
        hostIPs=[core_v1.HostIP(ip=ip) for ip in context.host_ips[:2]] or None,
        podIP=pod_ips[0] if pod_ips else None,
        podIPs=[core_v1.PodIP(ip=ip) for ip in pod_ips] or None,
        qosClass=str(qos_class_of(pod)),
        startTime=previous.startTime or at_server.startTime or now,
        # Others write these; a status that leaves them out would take them away.
        nominatedNodeName=at_server.nominatedNodeName,
        resourceClaimStatuses=at_server.resourceClaimStatuses,
        extendedResourceClaimStatus=at_server.extendedResourceClaimStatus,
    )


def compute_rejected_status(pod: core_v1.Pod, reason: str, message: str, context: StatusContext) -> core_v1.PodStatus:
    """The status of a pod that this node will not run: nothing but the refusal, and what others say of it."""
    at_server = pod.status or core_v1.PodStatus()
    return core_v1.PodStatus(
        phase=FAILED,
        reason=reason,
        message=f"Pod was rejected: {message}",
        observedGeneration=metadata_of(pod).generation,
        conditions=[condition for condition in at_server.conditions or () if condition.type not in OWNED] or None,
        qosClass=str(qos_class_of(pod)),
        startTime=at_server.startTime or time_of_ns(context.now_ns),
        nominatedNodeName=at_server.nominatedNodeName,
        resourceClaimStatuses=at_server.resourceClaimStatuses,
        extendedResourceClaimStatus=at_server.extendedResourceClaimStatus,
    )


def was_rejected(status: core_v1.PodStatus) -> bool:
    """A node has said no to the pod, and nothing of it ever was."""
    return status.phase == FAILED and not (status.containerStatuses or status.initContainerStatuses)


def _has_begun_in_sandbox(pod: core_v1.Pod, observed: ObservedPod) -> bool:
    """A main container has had its turn in the sandbox that serves now, so that this one is initialized."""
    sandbox, names = observed.newest_sandbox, {container.name for container in containers_of(pod)}
    return (
        sandbox is not None
        and sandbox.ready
        and any(c.sandbox_id == sandbox.id and c.name in names for c in observed.containers)
    )


def _is_cleared_for_restart(pod: core_v1.Pod, observed: ObservedPod, previous: core_v1.PodStatus) -> bool:
    """All containers were restarting, and nothing of them is left but what was reported."""
    said = condition_of(previous.conditions, ALL_RESTARTING)
    names = {container.name for container in (*init_containers_of(pod), *containers_of(pod))}
    return said is not None and said.status == "True" and not any(c.name in names for c in observed.containers)


def _settle_phase(
    phase: str, previous: core_v1.PodStatus, at_server: core_v1.PodStatus, failure: tuple[str, str] | None
) -> tuple[str, str | None, str | None]:
    """Phase, reason and message: a final phase stays, a failure by the agent wins, the rest is as computed."""
    final = [p for p in (at_server.phase, previous.phase) if p in TERMINAL_PHASES]
    if failure is not None and not final:
        return (FAILED, *failure)
    if final and final[0] is not None:
        phase = final[0]
    if phase == previous.phase:
        return phase, previous.reason or at_server.reason, previous.message or at_server.message
    return phase, None, None


def _is_ipv6(ip: str) -> bool:
    return ":" in ip


def _pod_ips(
    pod: core_v1.Pod, observed: ObservedPod, previous: core_v1.PodStatus, host_ips: Sequence[str]
) -> list[str]:
    """One address of each family, the node's primary family first; pods in the host's network have the node's."""
    if is_host_network(pod):
        found = [known.ip for known in previous.podIPs or ()] or list(host_ips[:1])
        second = host_ips[1] if len(host_ips) > 1 else None
        if second and len(found) == 1 and _is_ipv6(found[0]) != _is_ipv6(second):
            found.append(second)
        return found
    sandbox = observed.newest_sandbox
    if sandbox is None or not sandbox.ready:
        # A pod that has ended keeps the address it was known by.
        return [known.ip for known in previous.podIPs or ()]
    return list(pod_ips_in_order(sandbox.ips, host_ips))


def pod_ips_in_order(sandbox_ips: Sequence[str], host_ips: Sequence[str]) -> tuple[str, ...]:
    """A pod's addresses as its status and its environment have them: one of each family, the node's family first."""
    primary_is_ipv6 = bool(host_ips) and _is_ipv6(host_ips[0])
    first_of_family = {_is_ipv6(ip): ip for ip in reversed(sandbox_ips)}
    families = (primary_is_ipv6, not primary_is_ipv6)
    return tuple(first_of_family[family] for family in families if family in first_of_family)


def hold_back_final_phase(
    reported: core_v1.PodStatus, computed: core_v1.PodStatus, could_run: bool, now_ns: int
) -> core_v1.PodStatus:
    """What may be sent: no final phase while containers could run, and never a final phase beside a Ready pod.

    Of a static pod that an agent before this one has reported on, nothing is held back.
    """
    becomes_final = computed.phase in TERMINAL_PHASES and reported.phase not in TERMINAL_PHASES
    if becomes_final and could_run and reported.phase:
        return msgspec.structs.replace(computed, phase=reported.phase, reason=reported.reason, message=reported.message)
    if computed.phase not in TERMINAL_PHASES:
        return computed
    return msgspec.structs.replace(computed, conditions=_without_readiness(computed, now_ns))


def _without_readiness(status: core_v1.PodStatus, now_ns: int) -> list[core_v1.PodCondition] | None:
    reason = POD_FAILED if status.phase == FAILED else POD_COMPLETED
    return [
        msgspec.structs.replace(c, status="False", reason=reason, message=None, lastTransitionTime=time_of_ns(now_ns))
        if c.type in (READY, CONTAINERS_READY) and c.status == "True"
        else c
        for c in status.conditions or ()
    ] or None


def finish_status(pod: core_v1.Pod, status: core_v1.PodStatus, now_ns: int) -> core_v1.PodStatus:
    """The last status of a pod whose containers are gone: what never ended, as far as is known, has ended now.

    Containers that never had their turn keep waiting: main containers of a pod that was not initialized, and init
    containers after the last one that shows a trace of a run.
    """
    init = list(status.initContainerStatuses or ())
    main = list(status.containerStatuses or ())
    is_through = _is_through(pod, init)
    begun = max((index for index, s in enumerate(init) if _has_run(s)), default=0)
    init = [_ended(s) if index <= begun else s for index, s in enumerate(init)]
    if not init_containers_of(pod) or any(_has_run(s) for s in main) or is_through:
        main = [_ended(s) for s in main]
    is_final = status.phase in TERMINAL_PHASES or is_static(pod)
    finished = msgspec.structs.replace(
        status,
        phase=status.phase if is_final else FAILED,
        initContainerStatuses=init or None,
        containerStatuses=main or None,
    )
    return hold_back_final_phase(status, finished, could_run=False, now_ns=now_ns)


def _has_run(status: core_v1.ContainerStatus) -> bool:
    state = status.state or core_v1.ContainerState()
    return bool(state.running or state.terminated or (status.lastState and status.lastState.terminated))


def _is_through(pod: core_v1.Pod, init: Sequence[core_v1.ContainerStatus]) -> bool:
    """The last init container has ended well; a sidecar need only have run."""
    if not init:
        return False
    return _has_run(init[-1]) if is_sidecar(init_containers_of(pod)[-1]) else _has_succeeded(init[-1])


def _has_succeeded(status: core_v1.ContainerStatus) -> bool:
    ends = [state.terminated for state in (status.state, status.lastState) if state and state.terminated]
    return any(end.exitCode == 0 for end in ends)


def _ended(status: core_v1.ContainerStatus) -> core_v1.ContainerStatus:
    if status.state is not None and status.state.terminated is not None:
        return status
    return msgspec.structs.replace(status, state=lost_state(), ready=False, started=False)
