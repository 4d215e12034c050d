"""The passes over one pod: bring it up to its spec, stop it, clean up after it, remove what is left.

A pass observes, asks `core` what to do, has it done in order (`plan_runner`), observes again, and reports the status
(`pod_reports`). It keeps nothing but what cannot be observed (`PodMemory`), so a pass after a crash of the agent is
like any other.

Upstream counterparts: SyncPod, SyncTerminatingPod, SyncTerminatedPod in pkg/kubelet/kubelet.go and SyncPod in
kuberuntime_manager.go.
"""

import asyncio
import os
from collections.abc import Mapping
from dataclasses import replace
from functools import partial

from kubelet_py.api import core_v1
from kubelet_py.api import pod as pods
from kubelet_py.core import labels
from kubelet_py.core.actions import Action, only_adds
from kubelet_py.core.backoff import BackoffPolicy, next_entry, without_expired
from kubelet_py.core.observed import NS_PER_SECOND, ObservedPod, ObservedSandbox
from kubelet_py.core.pod_actions import PodContext, compute_pod_actions
from kubelet_py.core.pod_phase import TERMINAL_PHASES
from kubelet_py.core.restored_pod import restore_pod
from kubelet_py.core.volume_plan import MountedVolume
from kubelet_py.errors import KubeletError, RuntimeCallError, RuntimeUnavailable, SyncError
from kubelet_py.managers.images import PullBackOff
from kubelet_py.managers.volumes import FAILED_MOUNT
from kubelet_py.sync.plan_runner import PlanRun, PlanRunner
from kubelet_py.sync.pod_logs import remove_pod_logs
from kubelet_py.sync.pod_reports import PodReports
from kubelet_py.sync.pod_services import PassResult, PodMemory, PodServices

RETRY_SECONDS = 10.0
NETWORK_RETRY_SECONDS = 1.0
MOUNT_BACKOFF = BackoffPolicy(0.5, RETRY_SECONDS)  # what a volume is made of is often there a moment later
LATE_COMER_GRACE_SECONDS = 1
DEADLINE_TICK_SECONDS = 1.0
# A plan can uncover the next (an init container that ends at once); after so many rounds the pass ends all the same.
MAX_ROUNDS = 8
MORE_ROUNDS_SECONDS = 0.5


class PodSync:
    """Runs passes. Stateless but for its services; one for all pods."""

    def __init__(self, services: PodServices) -> None:
        self._services = services
        self.reports = PodReports(services)
        self._plans = PlanRunner(services, self.reports)

    def allocated(self, pod: core_v1.Pod) -> core_v1.Pod:
        """The pod as this node has accepted it: what every pass works with."""
        return self._services.allocations.allocated(pod)

    async def _look(self, pod_uid: str, memory: PodMemory) -> ObservedPod:
        memory.looks += 1
        memory.seen = await self._services.observer.observe(pod_uid)
        return memory.seen

    async def _look_first(self, pod_uid: str, memory: PodMemory) -> ObservedPod:
        memory.looks += 1
        memory.is_new = False
        memory.seen = await self._services.observer.observe_new(pod_uid)
        return memory.seen

    async def _look_again(self, before: ObservedPod, memory: PodMemory) -> ObservedPod:
        if memory.has_loose_ends:
            return await self._look(before.uid, memory)
        memory.looks += 1
        memory.seen = await self._services.observer.observe_again(before)
        return memory.seen

    async def _look_after(self, plan: tuple[Action, ...], current: PlanRun, had_loose_ends: bool) -> ObservedPod:
        """The pod after a plan. The runtime need not list the containers that it was just told to make.

        A sandbox that could be made is the only one of its attempt: no call of an earlier agent is under way.
        """
        memory = current.memory
        is_sure = not current.failures and (current.renews_sandbox or not had_loose_ends)
        if current.sandbox is None or not is_sure or not only_adds(plan):
            return await self._look(current.observed.uid, memory)
        memory.looks += 1
        observer, sandbox_id = self._services.observer, current.sandbox.id
        memory.seen = await observer.observe_started(current.observed, sandbox_id, current.started)
        return memory.seen

    async def _recall(self, pod_uid: str, memory: PodMemory) -> ObservedPod:
        """The pod as it was seen last, for its stop: of a hundred pods deleted at once none waits until all are looked
        at. Only its worker starts anything of it, and what has ended meanwhile does not mind being stopped."""
        if memory.seen is None or memory.has_loose_ends:
            return await self._look(pod_uid, memory)
        return memory.seen

    # Bring up

    async def sync_pod(self, pod: core_v1.Pod, memory: PodMemory, stimulus: str) -> PassResult:
        """One pass towards the spec. Raises nothing but cancellation; what went wrong is in the result."""
        opening = self.reports.open(pod, pods.uid_of(pod), stimulus)
        actions: list[Action] = []
        observed = ObservedPod(pods.uid_of(pod))
        try:
            observed = await (self._look_first if memory.is_new else self._look)(pods.uid_of(pod), memory)
            result = await self._sync_observed(pod, memory, observed, actions)
        except KubeletError as error:
            # A step of the plan that fails is a SyncError. A runtime that nobody reaches is told of once, by the node.
            if isinstance(error, RuntimeCallError) and not isinstance(error, RuntimeUnavailable):
                self._services.events(pod, "Warning", "FailedSync", f"error determining status: {error}")
            result = PassResult(retry_seconds=RETRY_SECONDS, error=str(error))
        if not result.is_terminal:
            result = _awake_at_deadline(result, self._deadline_seconds(pod))
        self.reports.tell(opening, observed, actions, result)
        return result

    async def _sync_observed(
        self, pod: core_v1.Pod, memory: PodMemory, observed: ObservedPod, done: list[Action]
    ) -> PassResult:
        services = self._services
        self._check_deadline(pod, memory)
        status = await self.reports.report(pod, memory, observed)
        if status.phase in TERMINAL_PHASES:
            return PassResult(is_terminal=True)
        if not pods.is_host_network(pod):
            problem = services.node.network_problem()
            if problem is not None and not observed.ready_sandboxes:
                services.events(pod, "Warning", "NetworkNotReady", f"network is not ready: {problem}")
                return PassResult(retry_seconds=NETWORK_RETRY_SECONDS, error=f"network is not ready: {problem}")
        services.objects.watch_pod(pod)
        # A resize moves the limits of a running pod step by step; what is made anew has its size from the start.
        try:
            await services.cgroups.ensure_pod(pod, keeps_limits=bool(observed.running))
        except SyncError as error:
            services.events(pod, "Warning", error.reason, error.message)
            raise
        services.allocations.begin(pod)
        try:
            mounted = await services.volumes.ensure_volumes(pod, partial(services.events, pod, "Warning", FAILED_MOUNT))
        except SyncError as error:
            services.events(pod, "Warning", error.reason, error.message)
            now_seconds = services.clock_ns() / NS_PER_SECOND
            memory.mount_backoff = next_entry(memory.mount_backoff, MOUNT_BACKOFF, now_seconds)
            return PassResult(retry_seconds=memory.mount_backoff.delay_seconds, error=str(error))
        memory.mount_backoff = None
        result = await self._act(pod, memory, observed, mounted, done)
        return _awake_to_refresh(result, services.volumes.refresh_due_seconds(pods.uid_of(pod)))

    async def _act(
        self,
        pod: core_v1.Pod,
        memory: PodMemory,
        observed: ObservedPod,
        mounted: Mapping[str, MountedVolume],
        done: list[Action],
    ) -> PassResult:
        """Plans, and has done what is planned, until there is nothing to do or something to wait for."""
        for _ in range(MAX_ROUNDS):
            memory.weighed = memory.looks
            plan = compute_pod_actions(pod, observed, await self._context(pod, memory, observed))
            if not plan:
                break
            done.extend(plan)
            current = PlanRun(pod, memory, observed, mounted, self._usable_sandbox(observed))
            had_loose_ends, memory.has_loose_ends = memory.has_loose_ends, True
            await self._plans.run(plan, current)
            weighed, observed = observed, await self._look_after(plan, current, had_loose_ends)
            memory.has_loose_ends = bool(current.failures)
            status = await self.reports.report(pod, memory, observed)
            if status.phase in TERMINAL_PHASES:
                return PassResult(is_terminal=True)
            if current.failures or current.waits:
                return _result_of(current, observed.has_exits_since(weighed))
        else:
            # What this pass saw is no news to the PLEG, so nothing else would wake the pod.
            return PassResult(retry_seconds=MORE_ROUNDS_SECONDS)
        return PassResult()

    def _deadline_seconds(self, pod: core_v1.Pod) -> float | None:
        """The time left until the pod has been active for too long; None for no limit or not yet started."""
        limit = pods.spec_of(pod).activeDeadlineSeconds
        status = self._services.statuses.last_said(pod)
        started = status.startTime if status is not None else None
        if limit is None or started is None:
            return None
        return started.timestamp() + limit - self._services.clock_ns() / NS_PER_SECOND

    def _check_deadline(self, pod: core_v1.Pod, memory: PodMemory) -> None:
        left_seconds = self._deadline_seconds(pod)
        if left_seconds is not None and left_seconds <= 0 and memory.failure is None:
            message = "Pod was active on the node longer than the specified deadline"
            memory.failure = ("DeadlineExceeded", message)
            self._services.events(pod, "Normal", "DeadlineExceeded", message)

    @staticmethod
    def _usable_sandbox(observed: ObservedPod) -> ObservedSandbox | None:
        newest = observed.newest_sandbox
        return newest if newest is not None and newest.ready else None

    async def _context(self, pod: core_v1.Pod, memory: PodMemory, observed: ObservedPod) -> PodContext:
        counts: dict[str, int] = {}
        unknown = [c.name for c in pods.all_containers_of(pod) if observed.newest(c.name) is None]
        if unknown:
            metadata = pods.metadata_of(pod)
            directory = labels.pod_log_directory(
                self._services.pod_logs_root, metadata.namespace or "", metadata.name or "", pods.uid_of(pod)
            )
            counts = await asyncio.to_thread(_logged_restart_counts, directory, unknown)
        memory.crash_backoff = without_expired(memory.crash_backoff, self._services.steady_seconds())
        return PodContext(
            now_ns=self._services.clock_ns(),
            crash_backoff=memory.crash_backoff,
            probe_results=self._services.prober.verdicts(pods.uid_of(pod)),
            logged_restart_counts=counts,
            actuated=self._services.allocations.actuated(pods.uid_of(pod)),
        )

    # Stop

    async def terminate_pod(
        self, pod: core_v1.Pod | None, pod_uid: str, memory: PodMemory, grace_seconds: int, stimulus: str
    ) -> None:
        """Stops everything of the pod; raises KubeletError while something still runs.

        `pod` None: only the runtime knows it. Cancelled and called again when the grace period shrinks.
        """
        services = self._services
        opening = self.reports.open(pod, pod_uid, f"stop with {grace_seconds} s: {stimulus}")
        observed = ObservedPod(pod_uid)
        try:
            observed = await self._recall(pod_uid, memory)
            if pod is not None:
                services.prober.stop_for_termination(pod_uid)
                await self.reports.report(pod, memory, observed)
            # A sandbox that died by itself, or whose stop failed half-way, still has its network.
            observed = await self._stop_what_lives(pod, memory, observed, grace_seconds, bool(observed.sandboxes))
        except KubeletError as error:
            if pod is not None:
                services.events(pod, "Warning", "FailedKillPod", f"error killing pod: {error}")
            self.reports.tell(opening, observed, [], PassResult(error=str(error)))
            raise
        if pod is not None:
            await self.reports.report(pod, memory, observed, is_stopped_for_good=True)
        services.prober.forget_pod(pod_uid)
        self.reports.tell(opening, observed, [], PassResult())

    async def _stop_what_lives(
        self, pod: core_v1.Pod | None, memory: PodMemory, observed: ObservedPod, grace_seconds: int, must: bool = False
    ) -> ObservedPod:
        """The pod as it is when nothing of it lives; SyncError when something does all the same.

        `must`: whatever there is is stopped, whether it seems to live or not.
        """
        memory.weighed = memory.looks
        if not (must or observed.alive or observed.ready_sandboxes):
            return observed
        memory.seen = None
        await self._services.killer.kill_pod(pod or restore_pod(observed), observed, grace_seconds)
        observed = await self._look_again(observed, memory)
        memory.weighed = memory.looks
        if observed.alive:
            names = ", ".join(container.name for container in observed.alive)
            raise SyncError("FailedKillPod", f"containers still run after they were stopped: {names}")
        return observed

    async def clean_up_pod(self, pod: core_v1.Pod, memory: PodMemory) -> None:
        """Takes down what a stopped pod held: volumes, cgroup; then its status is final. Raises KubeletError."""
        services, uid = self._services, pods.uid_of(pod)
        # A start whose reply was lost can come true after the stop.
        observed = await self._recall(uid, memory)
        observed = await self._stop_what_lives(pod, memory, observed, LATE_COMER_GRACE_SECONDS)
        await services.starter.forget_pod(uid)
        await services.volumes.teardown_volumes(uid)
        await services.cgroups.remove_pod(pod)
        services.objects.forget_pod(uid)
        services.allocations.forget(uid)
        self.reports.report_end(pod, memory, observed)

    async def purge_pod(self, pod_uid: str, pod: core_v1.Pod | None) -> None:
        """Removes what is left of a pod that is gone for good: sandboxes, containers, directory, logs."""
        services = self._services
        await services.remains.remove_all(pod_uid)
        services.observer.forget(pod_uid)
        await services.volumes.remove_pod_directory(pod_uid)
        if pod is not None:
            metadata = pods.metadata_of(pod)
            directory = labels.pod_log_directory(
                services.pod_logs_root, metadata.namespace or "", metadata.name or "", pod_uid
            )
            prefix = f"{metadata.name}_{metadata.namespace}_"
            await asyncio.to_thread(remove_pod_logs, directory, services.log_links_root, prefix)


def _result_of(current: PlanRun, has_more_to_do: bool) -> PassResult:
    """The soonest reasons to look again.

    `has_more_to_do`: something has ended that the plan did not reckon with. By the pass's own look it is no news to the
    PLEG either, and other containers' waits are no reason to let it lie.
    """
    waits = [*current.waits, MORE_ROUNDS_SECONDS] if has_more_to_do else current.waits
    has_failed = any(not isinstance(failure, PullBackOff) for failure in current.failures)
    return PassResult(
        retry_seconds=RETRY_SECONDS if has_failed else None,
        due_seconds=min(waits, default=None),
        error="; ".join(str(failure) for failure in current.failures),
    )


def _awake_at_deadline(result: PassResult, left_seconds: float | None) -> PassResult:
    """The same result, with a look at the pod when its deadline comes."""
    if left_seconds is None or (result.due_seconds is not None and result.due_seconds <= left_seconds):
        return result
    return replace(result, due_seconds=max(left_seconds, DEADLINE_TICK_SECONDS))


def _awake_to_refresh(result: PassResult, due_seconds: float | None) -> PassResult:
    """The same result, with another try at the volumes that could not be refreshed."""
    if due_seconds is None or (result.retry_seconds is not None and result.retry_seconds <= due_seconds):
        return result
    return replace(result, retry_seconds=due_seconds)


def _logged_restart_counts(directory: str, names: list[str]) -> dict[str, int]:
    """For each container with log files `<n>.log`, the count after the highest. Blocking."""
    counts: dict[str, int] = {}
    for name in names:
        try:
            files = os.listdir(f"{directory}/{name}")
        except OSError:
            continue
        numbers = [int(stem) for file in files if (stem := file.partition(".log")[0]).isdigit()]
        if numbers:
            counts[name] = max(numbers) + 1
    return counts
