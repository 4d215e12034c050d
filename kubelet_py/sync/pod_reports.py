"""Tells what a pass saw: the pod's status to its writer, the pod's story and one line of the log.

Upstream counterparts: generateAPIPodStatus in pkg/kubelet/kubelet_pods.go, SetPodStatus in pkg/kubelet/status.
"""

import asyncio
from dataclasses import dataclass, replace

import structlog

from kubelet_py.api import core_v1
from kubelet_py.api import pod as pods
from kubelet_py.core.actions import Action
from kubelet_py.core.observed import NS_PER_SECOND, ContainerState, ObservedPod, ObservedSandbox
from kubelet_py.core.pod_status import (
    StatusContext,
    compute_pod_status,
    finish_status,
    hold_back_final_phase,
    was_rejected,
)
from kubelet_py.core.pod_story import StoryEntry, describe_all, digest
from kubelet_py.sync.pod_services import PassResult, PodMemory, PodServices
from kubelet_py.sync.termination_messages import read_termination_message

log = structlog.get_logger()

FAULT_STORY_ENTRIES = 8


@dataclass(frozen=True, slots=True)
class PassOpening:
    """What the story of a pass begins with."""

    uid: str
    name: str
    stimulus: str
    began_ns: int


class PodReports:
    """The reports of all pods. Stateless but for its services."""

    def __init__(self, services: PodServices) -> None:
        self._services = services

    # The status

    async def report(
        self, pod: core_v1.Pod, memory: PodMemory, observed: ObservedPod, is_stopped_for_good: bool = False
    ) -> core_v1.PodStatus:
        """The status of the pod as it was observed, handed on; probes follow what runs."""
        await self._read_termination_messages(memory, observed)
        if is_stopped_for_good:
            self._services.allocations.clear_conditions(pods.uid_of(pod))
        else:
            self._services.allocations.note_progress(pod, observed)
        memory.observed = None if is_stopped_for_good else observed
        status = self._set_status(pod, memory, observed, is_stopped_for_good)
        pod_ips = tuple(known.ip for known in status.podIPs or ())
        self._services.prober.sync_pod(pod, observed.running, pod_ips)
        return status

    def refresh_status(self, pod: core_v1.Pod, memory: PodMemory) -> None:
        """A probe changed its mind while a pass waits for a hook, a pull or a stop: the status need not wait."""
        if memory.observed is not None:
            self._set_status(pod, memory, memory.observed, is_stopped_for_good=False)

    def _set_status(
        self, pod: core_v1.Pod, memory: PodMemory, observed: ObservedPod, is_stopped_for_good: bool
    ) -> core_v1.PodStatus:
        services = self._services
        status = self._compute_status(pod, memory, observed, is_stopped_for_good)
        reported = services.statuses.last_said(pod) or core_v1.PodStatus()
        could_run = not is_stopped_for_good
        services.statuses.set_status(pod, hold_back_final_phase(reported, status, could_run, services.clock_ns()))
        return status

    async def report_sandbox(
        self, pod: core_v1.Pod, memory: PodMemory, observed: ObservedPod, sandbox: ObservedSandbox
    ) -> None:
        """The sandbox is there before any image is pulled: PodReadyToStartContainers and the address say so."""
        others = tuple(known for known in observed.sandboxes if known.id != sandbox.id)
        seen = replace(observed, sandboxes=(sandbox, *others), observed_at_ns=self._services.clock_ns())
        await self.report(pod, memory, seen)

    def report_end(self, pod: core_v1.Pod, memory: PodMemory, observed: ObservedPod) -> None:
        """The final status of a pod of which nothing lives any more; of one that was rejected, its rejection."""
        said = self._services.statuses.last_said(pod)
        if said is not None and was_rejected(said) and not observed.containers:
            self._services.statuses.set_status(pod, said)
            return
        status = self._compute_status(pod, memory, observed, is_stopped_for_good=True)
        self._services.statuses.set_status(pod, finish_status(pod, status, self._services.clock_ns()))

    def _compute_status(
        self, pod: core_v1.Pod, memory: PodMemory, observed: ObservedPod, is_stopped_for_good: bool
    ) -> core_v1.PodStatus:
        services = self._services
        sandbox = observed.newest_sandbox
        handler = sandbox.runtime_handler if sandbox is not None else ""
        return compute_pod_status(
            pod,
            observed,
            StatusContext(
                now_ns=services.clock_ns(),
                runtime_type=services.node.runtime_type(),
                previous=services.statuses.last_said(pod),
                host_ips=services.node.host_ips(),
                waiting=memory.waiting,
                termination_messages=memory.termination_messages,
                probe_results=services.prober.verdicts(pods.uid_of(pod)),
                is_stopped_for_good=is_stopped_for_good,
                failure=memory.failure,
                disruption=memory.disruption,
                supports_recursive_read_only=services.node.supports_recursive_read_only(handler),
                agent_started_at_ns=services.agent_started_at_ns,
                resize_conditions=services.allocations.conditions(pods.uid_of(pod)),
                actuated=services.allocations.actuated(pods.uid_of(pod)),
                pod_limits=services.cgroups.limits_of(pods.uid_of(pod)),
            ),
        )

    async def _read_termination_messages(self, memory: PodMemory, observed: ObservedPod) -> None:
        messages = memory.termination_messages
        for container in observed.containers:
            if container.state is not ContainerState.EXITED:  # also one that somebody has started again
                messages.pop(container.id, None)
            elif container.id not in messages:
                messages[container.id] = await asyncio.to_thread(read_termination_message, container)
        if len(messages) > len(observed.containers):
            present = {container.id for container in observed.containers}
            for container_id in messages.keys() - present:
                del messages[container_id]

    # The story

    def open(self, pod: core_v1.Pod | None, pod_uid: str, stimulus: str) -> PassOpening:
        """A pass begins."""
        name = pods.display_name(pod) if pod is not None else ""
        return PassOpening(pod_uid, name, stimulus, self._services.clock_ns())

    def note_fault(self, pod_uid: str, pod_name: str, stimulus: str, error: Exception) -> None:
        """A pass raised what it never should: the fault is ours. The pod is looked at again later."""
        services = self._services
        story = services.stories.tell(pod_uid)[-FAULT_STORY_ENTRIES:]
        earlier = [f"{entry.stimulus}: {entry.result}" for entry in story]
        text = f"fault of the agent: {type(error).__name__}: {error}"
        services.stories.add(pod_uid, StoryEntry(services.clock_ns(), stimulus, "not known", (), text))
        log.error("pod_pass_broke", pod=pod_name, pod_uid=pod_uid, stimulus=stimulus, story=earlier, exc_info=error)

    def tell(self, opening: PassOpening, observed: ObservedPod, actions: list[Action], result: PassResult) -> None:
        """One line in the log and one entry in the pod's story. What only repeats itself is told at length once."""
        stories, now_ns = self._services.stories, self._services.clock_ns()
        lines = describe_all(actions)
        wait_seconds = result.retry_seconds if result.due_seconds is None else result.due_seconds
        text = result.error or ("done" if wait_seconds is None else f"again in {wait_seconds:.0f} s")
        stories.add(opening.uid, StoryEntry(now_ns, opening.stimulus, digest(observed), lines, text))
        is_news = not stories.tell(opening.uid)[-1].repeats
        tell = log.info if is_news and (actions or result.error) else log.debug
        tell(
            "pod_synced",
            pod=opening.name,
            pod_uid=opening.uid,
            stimulus=opening.stimulus,
            actions=lines,
            result=text,
            seconds=round((now_ns - opening.began_ns) / NS_PER_SECOND, 3),
        )
