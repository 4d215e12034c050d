"""The three kinds of pass over one pod: bring it up to its spec, stop it, clean up after it.

A pass observes, asks `core` what to do, does it in order, observes again, and reports the status. It keeps nothing but
what cannot be observed (`PodMemory`), so a pass after a crash of the agent is like any other.

Upstream counterparts: SyncPod, SyncTerminatingPod, SyncTerminatedPod in pkg/kubelet/kubelet.go and SyncPod in
kuberuntime_manager.go.
"""

import asyncio
import contextlib
import glob
import os
import time
from collections.abc import Callable, Coroutine, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, TypeVar

import structlog

from kubelet_py.api import core_v1
from kubelet_py.api import pod as pods
from kubelet_py.core import labels
from kubelet_py.core.actions import (
    Action,
    BackOff,
    CreateSandbox,
    KillContainer,
    KillPod,
    RemoveContainer,
    StartContainer,
    batches,
)
from kubelet_py.core.backoff import CRASH_BACKOFF, BackoffEntry, BackoffPolicy, next_entry
from kubelet_py.core.observed import ContainerState, ObservedPod, ObservedSandbox
from kubelet_py.core.pod_actions import PodContext, compute_pod_actions
from kubelet_py.core.pod_phase import TERMINAL_PHASES
from kubelet_py.core.pod_resources import AnyContainer
from kubelet_py.core.pod_status import StatusContext, compute_pod_status, finish_status, hold_back_final_phase
from kubelet_py.core.pod_story import PodStories, StoryEntry, describe_all, digest
from kubelet_py.core.termination import container_grace_period_seconds
from kubelet_py.core.volume_plan import MountedVolume
from kubelet_py.cri import RuntimeClient
from kubelet_py.errors import KubeletError, RuntimeNotFound, SyncError
from kubelet_py.managers.images import PullBackOff
from kubelet_py.managers.volumes import VolumeManager
from kubelet_py.sync.container_start import ContainerOrder, ContainerStarter
from kubelet_py.sync.observer import PodObserver
from kubelet_py.sync.pod_kill import PodKiller
from kubelet_py.sync.pod_logs import remove_pod_logs
from kubelet_py.sync.ports import CgroupKeeper, EventSink, NodeView, PodObjects, Prober, StatusSink
from kubelet_py.sync.termination_messages import read_termination_message

log = structlog.get_logger()

T = TypeVar("T")

NS_PER_SECOND = 1_000_000_000
RETRY_SECONDS = 10.0
NETWORK_RETRY_SECONDS = 1.0
LATE_COMER_GRACE_SECONDS = 1
DEADLINE_TICK_SECONDS = 1.0
# A plan can uncover the next (an init container that ends at once); after so many rounds the pass ends all the same.
MAX_ROUNDS = 8
FAULT_STORY_ENTRIES = 8
MORE_ROUNDS_SECONDS = 0.5


@dataclass(slots=True)
class PodMemory:
    """What a worker knows of its pod that cannot be observed. Losing it costs at most a shorter wait."""

    waiting: dict[str, tuple[str, str]] = field(default_factory=dict)
    crash_backoff: dict[str, BackoffEntry] = field(default_factory=dict)
    termination_messages: dict[str, str] = field(default_factory=dict)
    observed: ObservedPod | None = None  # as the pass that runs has reported it
    failure: tuple[str, str] | None = None
    disruption: tuple[str, str] | None = None


@dataclass(frozen=True, slots=True)
class PassResult:
    """How a syncing pass ended, and when to look again besides the usual re-sync.

    `retry_seconds` follows a failure and may be spread out; `due_seconds` is known: a back-off's end, a deadline.
    """

    is_terminal: bool = False
    retry_seconds: float | None = None
    due_seconds: float | None = None
    error: str = ""


@dataclass(frozen=True, slots=True)
class PodServices:
    """Everything that a pass works with."""

    client: RuntimeClient
    observer: PodObserver
    starter: ContainerStarter
    killer: PodKiller
    volumes: VolumeManager
    node: NodeView
    objects: PodObjects
    statuses: StatusSink
    events: EventSink
    cgroups: CgroupKeeper
    prober: Prober
    stories: PodStories
    pod_logs_root: str = "/var/log/pods"
    log_links_root: str = "/var/log/containers"
    crash_policy: BackoffPolicy = CRASH_BACKOFF
    agent_started_at_ns: int = 0
    clock_ns: Callable[[], int] = time.time_ns


@dataclass(slots=True)
class _Pass:
    """The state of one syncing pass."""

    pod: core_v1.Pod
    memory: PodMemory
    observed: ObservedPod
    mounted: Mapping[str, MountedVolume]
    sandbox: ObservedSandbox | None = None
    failures: list[KubeletError] = field(default_factory=list)
    waits: list[float] = field(default_factory=list)
    renews_sandbox: bool = False


class PodSync:
    """Runs passes. Stateless but for its services; one for all pods."""

    def __init__(self, services: PodServices) -> None:
        self._services = services

    # Bring up

    async def sync_pod(self, pod: core_v1.Pod, memory: PodMemory, stimulus: str) -> PassResult:
        """One pass towards the spec. Raises nothing but cancellation; what went wrong is in the result."""
        services = self._services
        teller = _Teller(pods.uid_of(pod), _name_of(pod), stimulus, services.clock_ns())
        actions: list[Action] = []
        observed = ObservedPod(pods.uid_of(pod))
        try:
            observed = await services.observer.observe(pods.uid_of(pod))
            result = await self._sync_observed(pod, memory, observed, actions)
        except KubeletError as error:
            result = PassResult(retry_seconds=RETRY_SECONDS, error=str(error))
        if not result.is_terminal:
            result = _awake_at_deadline(result, self._deadline_seconds(pod))
        self._tell(teller, observed, actions, result)
        return result

    def note_fault(self, pod_uid: str, pod_name: str, stimulus: str, error: Exception) -> None:
        """A pass raised what it never should: the fault is ours. The pod is looked at again later."""
        services = self._services
        story = services.stories.tell(pod_uid)[-FAULT_STORY_ENTRIES:]
        earlier = [f"{entry.stimulus}: {entry.result}" for entry in story]
        text = f"fault of the agent: {type(error).__name__}: {error}"
        services.stories.add(pod_uid, StoryEntry(services.clock_ns(), stimulus, "not known", (), text))
        log.error("pod_pass_broke", pod=pod_name, pod_uid=pod_uid, stimulus=stimulus, story=earlier, exc_info=error)

    async def _sync_observed(
        self, pod: core_v1.Pod, memory: PodMemory, observed: ObservedPod, done: list[Action]
    ) -> PassResult:
        services = self._services
        self._check_deadline(pod, memory)
        status = await self._report(pod, memory, observed)
        if status.phase in TERMINAL_PHASES:
            return PassResult(is_terminal=True)
        if not pods.is_host_network(pod):
            problem = services.node.network_problem()
            if problem is not None and not observed.ready_sandboxes:
                services.events(pod, "Warning", "NetworkNotReady", f"network is not ready: {problem}")
                return PassResult(retry_seconds=NETWORK_RETRY_SECONDS, error=f"network is not ready: {problem}")
        services.objects.watch_pod(pod)
        await services.cgroups.ensure_pod(pod)
        try:
            mounted = await services.volumes.ensure_volumes(pod)
        except SyncError as error:
            services.events(pod, "Warning", error.reason, error.message)
            raise
        for _ in range(MAX_ROUNDS):
            plan = compute_pod_actions(pod, observed, await self._context(pod, memory, observed))
            if not plan:
                break
            done.extend(plan)
            current = _Pass(pod, memory, observed, mounted, self._usable_sandbox(observed))
            await self._run(plan, current)
            observed = await services.observer.observe(pods.uid_of(pod))
            status = await self._report(pod, memory, observed)
            if status.phase in TERMINAL_PHASES:
                return PassResult(is_terminal=True)
            if current.failures or current.waits:
                return _result_of(current)
        else:
            # What this pass saw is no news to the PLEG, so nothing else would wake the pod.
            return PassResult(retry_seconds=MORE_ROUNDS_SECONDS)
        return PassResult()

    def _deadline_seconds(self, pod: core_v1.Pod) -> float | None:
        """The time left until the pod has been active for too long; None for no limit or not yet started."""
        limit = pods.spec_of(pod).activeDeadlineSeconds
        status = self._services.statuses.status_of(pods.uid_of(pod)) or pod.status
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
        return PodContext(
            now_ns=self._services.clock_ns(),
            crash_backoff=memory.crash_backoff,
            probe_results=self._services.prober.verdicts(pods.uid_of(pod)),
            logged_restart_counts=counts,
        )

    # Run a plan

    async def _run(self, plan: tuple[Action, ...], current: _Pass) -> None:
        """Batch after batch; the first failure that matters ends it."""
        current.renews_sandbox = any(isinstance(action, CreateSandbox) for action in plan)
        for batch in batches(plan):
            outcomes = await asyncio.gather(*(self._act(action, current) for action in batch), return_exceptions=True)
            must_stop = False
            for action, outcome in zip(batch, outcomes, strict=True):
                if outcome is None:
                    continue
                if not isinstance(outcome, KubeletError):
                    raise outcome
                current.failures.append(outcome)
                must_stop = must_stop or action.stops_plan
            if must_stop:
                return

    async def _act(self, action: Action, current: _Pass) -> None:
        services, pod = self._services, current.pod
        match action:
            case KillPod():
                if current.renews_sandbox and current.observed.sandboxes:
                    message = "Pod sandbox changed, it will be killed and re-created."
                    services.events(pod, "Normal", "SandboxChanged", message)
                # Not seen through: the pass that comes instead stops the same things, maybe with less time.
                await services.killer.kill_pod(pod, current.observed)
                current.sandbox = None
            case KillContainer():
                grace_seconds = container_grace_period_seconds(pod, action.grace_period_override_seconds)
                await services.killer.kill_container(
                    pod, action.container_id, action.container_name, action.message, grace_seconds
                )
            case RemoveContainer():
                await _unbroken(self._remove_container(action.container_id))
                if not action.keep_log:
                    await asyncio.to_thread(self._remove_logs, pod, action, current.observed)
            case CreateSandbox():
                current.sandbox = await _unbroken(services.starter.run_sandbox(pod, action.attempt))
                await self._report_sandbox(current)
            case StartContainer():
                await self._start(action, current)
            case BackOff():
                self._note_backoff(action, current)

    async def _start(self, action: StartContainer, current: _Pass) -> None:
        services, memory = self._services, current.memory
        container = _container_named(current.pod, action.container_name)
        if current.sandbox is None:
            raise SyncError("CreatePodSandboxError", "the pod has no sandbox to start in", action.container_name)
        if action.after_exit_at_ns is not None:
            memory.crash_backoff[action.backoff_key] = next_entry(
                memory.crash_backoff.get(action.backoff_key),
                services.crash_policy,
                services.clock_ns() / NS_PER_SECOND,
                action.after_exit_at_ns / NS_PER_SECOND,
            )
        order = ContainerOrder(
            current.pod,
            container,
            action.restart_count,
            current.sandbox,
            current.mounted,
            self._target_of(container, current.observed),
        )
        try:
            await services.starter.start(order)
        except PullBackOff as error:
            memory.waiting[action.container_name] = (error.reason, error.message)
            current.waits.append(error.remaining_seconds)
            raise
        except SyncError as error:
            memory.waiting[action.container_name] = (error.reason, error.message)
            raise
        memory.waiting.pop(action.container_name, None)

    @staticmethod
    def _target_of(container: AnyContainer, observed: ObservedPod) -> str:
        """The container whose process namespace an ephemeral container joins."""
        name = container.targetContainerName if isinstance(container, core_v1.EphemeralContainer) else None
        target = observed.newest(name) if name else None
        return target.id if target is not None else ""

    def _note_backoff(self, action: BackOff, current: _Pass) -> None:
        pod = current.pod
        current.waits.append(action.remaining_seconds)
        current.memory.waiting[action.container_name] = ("CrashLoopBackOff", action.message)
        metadata = pods.metadata_of(pod)
        message = (
            f"Back-off restarting failed container {action.container_name} in pod "
            f"{metadata.name}_{metadata.namespace}({pods.uid_of(pod)})"
        )
        self._services.events(pod, "Warning", "BackOff", message, action.container_name)

    async def _remove_container(self, container_id: str) -> None:
        try:
            await self._services.client.remove_container(container_id)
        except RuntimeNotFound:
            return

    def _remove_logs(self, pod: core_v1.Pod, action: RemoveContainer, observed: ObservedPod) -> None:
        """The log files of a run that is gone; the newest stay, their names carry the restart count. Blocking."""
        removed = next((c for c in observed.containers if c.id == action.container_id), None)
        newest = observed.newest(action.container_name)
        if removed is None or newest is None or removed.restart_count == newest.restart_count:
            return
        metadata = pods.metadata_of(pod)
        directory = labels.pod_log_directory(
            self._services.pod_logs_root, metadata.namespace or "", metadata.name or "", pods.uid_of(pod)
        )
        path = f"{directory}/{labels.container_log_path(action.container_name, removed.restart_count)}"
        for file in (path, *glob.glob(f"{glob.escape(path)}.*")):
            with contextlib.suppress(FileNotFoundError):
                os.unlink(file)

    # Stop

    async def terminate_pod(
        self, pod: core_v1.Pod | None, pod_uid: str, memory: PodMemory, grace_seconds: int, stimulus: str
    ) -> None:
        """Stops everything of the pod; raises KubeletError while something still runs.

        `pod` None: only the runtime knows it. Cancelled and called again when the grace period shrinks.
        """
        services = self._services
        teller = _Teller(pod_uid, _name_of(pod), f"stop with {grace_seconds} s: {stimulus}", services.clock_ns())
        observed = ObservedPod(pod_uid)
        try:
            observed = await services.observer.observe(pod_uid)
            if pod is not None:
                services.prober.stop_for_termination(pod_uid)
                await self._report(pod, memory, observed)
            observed = await self._stop_what_lives(pod, observed, grace_seconds)
        except KubeletError as error:
            self._tell(teller, observed, [], PassResult(error=str(error)))
            raise
        if pod is not None:
            await self._report(pod, memory, observed, is_stopped_for_good=True)
        services.prober.forget_pod(pod_uid)
        self._tell(teller, observed, [], PassResult())

    async def _stop_what_lives(self, pod: core_v1.Pod | None, observed: ObservedPod, grace_seconds: int) -> ObservedPod:
        """The pod as it is when nothing of it lives; SyncError when something does all the same."""
        if not observed.alive and not observed.ready_sandboxes:
            return observed
        await self._services.killer.kill_pod(pod, observed, grace_seconds)
        observed = await self._services.observer.observe(observed.uid)
        if observed.alive:
            names = ", ".join(container.name for container in observed.alive)
            raise SyncError("FailedKillPod", f"containers still run after they were stopped: {names}")
        return observed

    async def clean_up_pod(self, pod: core_v1.Pod, memory: PodMemory) -> None:
        """Takes down what a stopped pod held: volumes, cgroup; then its status is final. Raises KubeletError."""
        services, uid = self._services, pods.uid_of(pod)
        observed = await services.observer.observe(uid)
        # A start whose reply was lost can come true after the stop.
        observed = await self._stop_what_lives(pod, observed, LATE_COMER_GRACE_SECONDS)
        services.starter.forget_pod(uid)
        await services.volumes.teardown_volumes(uid)
        await services.cgroups.remove_pod(pod)
        services.objects.forget_pod(uid)
        status = self._compute_status(pod, memory, observed, is_stopped_for_good=True)
        services.statuses.set_status(pod, finish_status(pod, status, services.clock_ns()))

    async def purge_pod(self, pod_uid: str, pod: core_v1.Pod | None) -> None:
        """Removes what is left of a pod that is gone for good: sandboxes, containers, directory, logs."""
        services = self._services
        sandboxes, containers = await asyncio.gather(
            services.client.list_pod_sandboxes(pod_uid), services.client.list_containers(pod_uid)
        )
        for container in containers:
            await self._remove_container(container.id)
        for sandbox in sandboxes:
            with contextlib.suppress(RuntimeNotFound):
                await services.client.remove_pod_sandbox(sandbox.id)
        services.observer.forget(pod_uid)
        await services.volumes.remove_pod_directory(pod_uid)
        if pod is not None:
            metadata = pods.metadata_of(pod)
            directory = labels.pod_log_directory(
                services.pod_logs_root, metadata.namespace or "", metadata.name or "", pod_uid
            )
            prefix = f"{metadata.name}_{metadata.namespace}_"
            await asyncio.to_thread(remove_pod_logs, directory, services.log_links_root, prefix)

    # Report

    async def _report(
        self, pod: core_v1.Pod, memory: PodMemory, observed: ObservedPod, is_stopped_for_good: bool = False
    ) -> core_v1.PodStatus:
        await self._read_termination_messages(memory, observed)
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
        reported = services.statuses.status_of(pods.uid_of(pod)) or pod.status or core_v1.PodStatus()
        could_run = not is_stopped_for_good
        services.statuses.set_status(pod, hold_back_final_phase(reported, status, could_run, services.clock_ns()))
        return status

    async def _report_sandbox(self, current: _Pass) -> None:
        """The sandbox is there before any image is pulled: PodReadyToStartContainers and the address say so."""
        if current.sandbox is not None:
            others = tuple(s for s in current.observed.sandboxes if s.id != current.sandbox.id)
            seen = ObservedPod(
                current.observed.uid,
                current.observed.name,
                current.observed.namespace,
                (current.sandbox, *others),
                current.observed.containers,
                self._services.clock_ns(),
            )
            await self._report(current.pod, current.memory, seen)

    def _compute_status(
        self, pod: core_v1.Pod, memory: PodMemory, observed: ObservedPod, is_stopped_for_good: bool
    ) -> core_v1.PodStatus:
        services = self._services
        return compute_pod_status(
            pod,
            observed,
            StatusContext(
                now_ns=services.clock_ns(),
                runtime_type=services.node.runtime_type(),
                previous=services.statuses.status_of(pods.uid_of(pod)),
                host_ips=services.node.host_ips(),
                waiting=memory.waiting,
                termination_messages=memory.termination_messages,
                probe_results=services.prober.verdicts(pods.uid_of(pod)),
                is_stopped_for_good=is_stopped_for_good,
                failure=memory.failure,
                disruption=memory.disruption,
                agent_started_at_ns=services.agent_started_at_ns,
            ),
        )

    async def _read_termination_messages(self, memory: PodMemory, observed: ObservedPod) -> None:
        messages = memory.termination_messages
        for container in observed.containers:
            if container.state is ContainerState.EXITED and container.id not in messages:
                messages[container.id] = await asyncio.to_thread(read_termination_message, container)
        if len(messages) > len(observed.containers):
            present = {container.id for container in observed.containers}
            for container_id in messages.keys() - present:
                del messages[container_id]

    def _tell(self, teller: "_Teller", observed: ObservedPod, actions: list[Action], result: PassResult) -> None:
        """One line in the log and one entry in the pod's story. What only repeats itself is told at length once."""
        stories, now_ns = self._services.stories, self._services.clock_ns()
        lines = describe_all(actions)
        wait_seconds = result.retry_seconds if result.due_seconds is None else result.due_seconds
        text = result.error or ("done" if wait_seconds is None else f"again in {wait_seconds:.0f} s")
        stories.add(teller.uid, StoryEntry(now_ns, teller.stimulus, digest(observed), lines, text))
        is_news = not stories.tell(teller.uid)[-1].repeats
        tell = log.info if is_news and (actions or result.error) else log.debug
        tell(
            "pod_synced",
            pod=teller.name,
            pod_uid=teller.uid,
            stimulus=teller.stimulus,
            actions=lines,
            result=text,
            seconds=round((now_ns - teller.began_ns) / NS_PER_SECOND, 3),
        )


@dataclass(frozen=True, slots=True)
class _Teller:
    """What the story of a pass begins with."""

    uid: str
    name: str
    stimulus: str
    began_ns: int


def _name_of(pod: core_v1.Pod | None) -> str:
    return pods.display_name(pod) if pod is not None else ""


async def _unbroken(work: Coroutine[Any, Any, T]) -> T:
    """Sees a call through that makes or unmakes something, even when the pass is cancelled meanwhile.

    A sandbox whose creation was abandoned half-way would turn up later with nobody to expect it. The task is owned
    here: this function does not return before it has ended.
    """
    task = asyncio.get_running_loop().create_task(work)
    interruption: asyncio.CancelledError | None = None
    while not task.done():
        try:
            await asyncio.wait((task,))
        except asyncio.CancelledError as error:
            interruption = error
    if interruption is not None:
        if not task.cancelled():
            task.exception()  # the next observation says what became of it
        raise interruption
    return task.result()


def _container_named(pod: core_v1.Pod, name: str) -> AnyContainer:
    return next(container for container in pods.all_containers_of(pod) if container.name == name)


def _result_of(current: _Pass) -> PassResult:
    """The soonest reasons to look again."""
    has_failed = any(not isinstance(failure, PullBackOff) for failure in current.failures)
    return PassResult(
        retry_seconds=RETRY_SECONDS if has_failed else None,
        due_seconds=min(current.waits, default=None),
        error="; ".join(str(failure) for failure in current.failures),
    )


def _awake_at_deadline(result: PassResult, left_seconds: float | None) -> PassResult:
    """The same result, with a look at the pod when its deadline comes."""
    if left_seconds is None or (result.due_seconds is not None and result.due_seconds <= left_seconds):
        return result
    return replace(result, due_seconds=max(left_seconds, DEADLINE_TICK_SECONDS))


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
