"""From sources to workers: hands every change to the pod it concerns, refuses what the node cannot take, tidies up.

Upstream counterpart: syncLoop, HandlePodAdditions ... and HandlePodCleanups in pkg/kubelet. Difference: there is no
loop over one select: each source, the PLEG and the housekeeping are tasks of their own that talk to the workers.
"""

import asyncio
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass

import msgspec
import structlog

from kubelet_py.api import core_v1
from kubelet_py.api import pod as pods
from kubelet_py.core import preemption
from kubelet_py.core.admission import Decision, NodeState, Rejection, admit, decide
from kubelet_py.core.pod_conditions import TERMINATION_BY_KUBELET
from kubelet_py.core.pod_status import StatusContext, compute_rejected_status
from kubelet_py.core.pod_worker import KillRequested, Phase
from kubelet_py.core.source_merge import PodOperation, PodSet, PodUpdate, SourceProblem
from kubelet_py.core.sysctl_rules import SysctlAllowlist
from kubelet_py.errors import KubeletError
from kubelet_py.managers.allocations import PodAllocations
from kubelet_py.managers.pleg import Pleg
from kubelet_py.managers.user_namespaces import UserNamespaces
from kubelet_py.managers.volumes import VolumeManager
from kubelet_py.sync.pending_resizes import PendingResizes
from kubelet_py.sync.pod_workers import PodWorkers
from kubelet_py.sync.ports import CgroupKeeper, EventSink, NodeView, StatusSink
from kubelet_py.sync.preemptions import Preemptions
from kubelet_py.sync.sources.merge import SourceMerge

log = structlog.get_logger()

HOUSEKEEPING_SECONDS = 2.0
ORPHANS_SECONDS = 10.0


@dataclass(frozen=True, slots=True)
class Admission:
    """What decides whether a pod is taken. `look_at_server` brings `node` up to date, None where nothing can; it raises
    KubeletError."""

    node: Callable[[], NodeState]
    sysctls: SysctlAllowlist
    look_at_server: Callable[[], Awaitable[None]] | None = None


@dataclass(frozen=True, slots=True)
class LoopServices:
    """What the loop works with.

    `on_static_pods` hears of all pods when static ones have changed and when every source has spoken, and whether it
    has; `on_problem` of everything that a source holds and cannot be used, once each time it changes.
    """

    workers: PodWorkers
    preemptions: Preemptions
    merge: SourceMerge
    pleg: Pleg
    volumes: VolumeManager
    user_namespaces: UserNamespaces
    cgroups: CgroupKeeper
    allocations: PodAllocations
    statuses: StatusSink
    events: EventSink
    node: NodeView
    admission: Admission
    on_static_pods: Callable[[list[core_v1.Pod], bool], None]
    on_problem: Callable[[SourceProblem], None]
    clock_ns: Callable[[], int]


class SyncLoop:
    """`accept` takes full sets from sources; `run` keeps the house."""

    def __init__(self, services: LoopServices) -> None:
        self._services = services
        self._since_orphans = 0.0
        self._resizes = PendingResizes(
            services.allocations, services.node.cgroups, self._refusal, services.workers.wake
        )
        self._problems: dict[str, frozenset[SourceProblem]] = {}
        self._in_doubt: dict[str, core_v1.Pod] = {}
        self._doubted = asyncio.Event()

    async def accept(self, pod_set: PodSet) -> None:
        """A source's newest set. Waits for the first look into the runtime: what runs already decides how to begin."""
        services = self._services
        await services.pleg.wait_listed()
        await services.workers.wait_started()
        self.accept_now(pod_set)

    def accept_now(self, pod_set: PodSet) -> None:
        """The same, once the runtime has been listed."""
        services = self._services
        was_ready = services.merge.ready
        updates = services.merge.accept(pod_set)
        for update in updates:
            self._handle(update)
        if services.merge.ready:
            self._resizes.retry()
        if services.merge.ready and not was_ready:
            log.info("sources_ready", pods=len(services.merge.pods()))
        problems = frozenset(pod_set.problems)
        for problem in sorted(problems - self._problems.get(pod_set.source, frozenset()), key=lambda p: p.location):
            services.on_problem(problem)
        self._problems[pod_set.source] = problems
        if services.merge.ready != was_ready or any(pods.is_static(update.pod) for update in updates):
            services.on_static_pods(services.merge.pods(), services.merge.ready)

    async def run(self) -> None:
        """Housekeeping and second looks, for ever."""
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._keep_house_for_ever(), name="housekeeping")
            tasks.create_task(self._look_again(), name="second-looks")

    async def _keep_house_for_ever(self) -> None:
        while True:
            await asyncio.sleep(HOUSEKEEPING_SECONDS)
            self._bring_forward()
            if self._services.merge.ready:
                await self._tidy_up()

    async def _look_again(self) -> None:
        """The pod may be here before the label of the node that it was sent here for: two watches, and no order."""
        look_at_server = self._services.admission.look_at_server
        while look_at_server is not None:
            await self._doubted.wait()
            self._doubted.clear()
            waiting = list(self._in_doubt)
            try:
                await look_at_server()
            except KubeletError as error:
                log.info("node_not_read_again", consequence="pods are judged by its labels of before", error=str(error))
            for uid in waiting:
                pod = self._in_doubt.pop(uid, None)
                if pod is not None:
                    self._add(pod, is_last_look=True)

    def active_pods(self) -> list[core_v1.Pod]:
        """The pods that count for resources, with what they take of the node: admitted and not through."""
        workers, allocations = self._services.workers, self._services.allocations
        result = []
        for pod in self._services.merge.pods():
            uid = pods.uid_of(pod)
            state = workers.state(uid)
            is_active = state is not None and state.phase in (Phase.SYNCING, Phase.TERMINATING)
            if is_active and allocations.is_allocated(uid):
                result.append(allocations.occupied(pod, self._services.statuses.status_of(uid)))
        return result

    def _handle(self, update: PodUpdate) -> None:
        pod = update.pod
        if pods.is_mirror(pod):
            return  # the copy of a static pod: mirror_pods and the status manager look after it
        workers = self._services.workers
        if self._in_doubt.pop(pods.uid_of(pod), None) is not None and update.operation is not PodOperation.REMOVE:
            self._add(pod)
            return
        match update.operation:
            case PodOperation.ADD:
                self._add(pod)
            case PodOperation.REMOVE:
                self._resizes.drop(pods.uid_of(pod))
                workers.remove(pods.uid_of(pod))
            case PodOperation.RECONCILE if not pods.is_terminal(pod) and not pods.spec_of(pod).readinessGates:
                workers.note(pod)
            case _:
                self._resizes.consider(pod)
                workers.update(pod)

    def _add(self, pod: core_v1.Pod, is_last_look: bool = False) -> None:
        services = self._services
        uid = pods.uid_of(pod)
        record = services.pleg.records.get(uid)
        is_alive = record is not None and record.is_alive
        is_leaving = pods.is_terminal(pod) or pods.metadata_of(pod).deletionTimestamp is not None
        # What an agent of earlier gave the pod counts, not what its spec asks for by now.
        decision = Decision() if is_leaving or is_alive else self._decide(services.allocations.allocated(pod))
        if decision.rejection is not None:
            if decision.rejection.needs_fresh_node and services.admission.look_at_server and not is_last_look:
                self._in_doubt[uid] = pod
                self._doubted.set()
                return
            pod = self._reject(pod, decision.rejection)
        elif not is_leaving:
            services.allocations.allocate(services.allocations.allocated(pod))
            services.allocations.backfill(pod)
            self._resizes.consider(pod)
        services.workers.update(pod, is_alive)

    def _decide(self, pod: core_v1.Pod) -> Decision:
        """Whether the pod is taken; those that give way to it are stopped, and it waits for that."""
        services = self._services
        decision = decide(pod, self.active_pods(), services.admission.node(), services.admission.sysctls)
        self._preempt(pod, decision.victims)
        services.preemptions.wait(pods.uid_of(pod), decision.victims)
        return decision

    def _refusal(self, pod: core_v1.Pod) -> Rejection | None:
        """Why a pod that runs cannot have this size now. A critical one gets it once others have given way."""
        services = self._services
        node, active = services.admission.node(), self.active_pods()
        self._preempt(pod, decide(pod, active, node, services.admission.sysctls).victims)
        return admit(pod, active, node, services.admission.sysctls)

    def _preempt(self, pod: core_v1.Pod, victims: Iterable[core_v1.Pod]) -> None:
        """Stops these, unless they give way already."""
        services = self._services
        for victim in victims:
            state = services.workers.state(pods.uid_of(victim))
            if state is None or state.is_evicted:
                continue
            services.events(victim, "Warning", preemption.REASON, preemption.MESSAGE)
            services.workers.kill(
                pods.uid_of(victim),
                KillRequested(
                    f"{pods.display_name(pod)} is critical and needs its place",
                    is_eviction=True,
                    spec_grace_seconds=pods.spec_of(victim).terminationGracePeriodSeconds,
                ),
                (preemption.REASON, preemption.MESSAGE),
                (TERMINATION_BY_KUBELET, preemption.DISRUPTION_MESSAGE),
            )

    def _reject(self, pod: core_v1.Pod, rejection: Rejection) -> core_v1.Pod:
        """Says no: an event and the final status. The pod that comes back carries it, and ends as any final pod."""
        services = self._services
        services.events(pod, "Warning", rejection.reason, rejection.message)
        context = StatusContext(services.clock_ns(), services.node.runtime_type())
        status = compute_rejected_status(pod, rejection.reason, rejection.message, context)
        services.statuses.set_status(pod, status)
        return msgspec.structs.replace(pod, status=status)

    def _bring_forward(self) -> None:
        """What stands in the way of pods goes, and those that waited for it begin.

        A source that has not spoken may still know a pod, so that it keeps what it has. But what a static pod waits
        for goes: it may be the API server itself, which is the source that all wait for.
        """
        services = self._services
        is_complete = services.merge.ready
        wanted = [pod for pod in services.merge.pods() if not pods.is_mirror(pod)]
        desired = {pods.uid_of(pod) for pod in wanted}
        static_names = {pods.full_name(pod) for pod in wanted if pods.is_static(pod)}
        for pod in services.workers.forget_finished(lambda uid: uid in desired or not is_complete):
            self._add(pod)
        known = services.workers.states()
        for uid, record in list(services.pleg.records.items()):
            name = f"{record.name}_{record.namespace}"
            if record.is_alive and uid not in known and uid not in desired and (is_complete or name in static_names):
                log.warning("unknown_pod_stopped", pod=f"{record.namespace}/{record.name}", pod_uid=uid)
                services.workers.stop_orphan(uid, name)
        if is_complete:
            for pod in self._unhandled(known, desired):
                self._add(pod)

    async def _tidy_up(self) -> None:
        services = self._services
        self._resizes.retry()
        self._since_orphans += HOUSEKEEPING_SECONDS
        if self._since_orphans >= ORPHANS_SECONDS:
            self._since_orphans = 0.0
            try:
                await services.volumes.cleanup_orphans(self._is_known)
                await services.user_namespaces.release_orphans(self._is_known)
                await services.cgroups.remove_orphans(self._is_known)
                services.allocations.forget_orphans(self._is_known)
            except (KubeletError, OSError) as error:
                log.warning("orphans_left", error=str(error))

    def _is_known(self, pod_uid: str) -> bool:
        """Whether anybody knows the pod now. Who has seen something of a pod on the node asks after that and not
        before: nothing is made for a pod that is not known yet, and pods come at any moment."""
        services = self._services
        return (
            services.workers.state(pod_uid) is not None
            or pod_uid in services.pleg.records
            or services.merge.has(pods.PodUid(pod_uid))
        )

    def _unhandled(self, known: Iterable[str], desired: set[pods.PodUid]) -> list[core_v1.Pod]:
        """Pods of a source without a worker: a UID that was stopped as unknown and then turned up after all."""
        missing = desired - set(known) - self._in_doubt.keys()
        return [pod for pod in self._services.merge.pods() if pods.uid_of(pod) in missing and not pods.is_mirror(pod)]
