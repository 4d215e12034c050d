"""The life of a pod on this node, as far as it cannot be undone: syncing, terminating, terminated, finished.

One table for each UID's worker: (phase, input) -> state and outputs. What is not listed raises InvalidTransition with
the story, because it means that the shell and this table disagree about the past. Knows nothing of containers.

    Syncing      passes of compute_pod_actions; the only phase that starts anything
    Terminating  containers are being stopped; the grace period can only shrink; nothing starts any more
    Terminated   no container runs; volumes and cgroups are being taken down
    Finished     nothing is left; a UID never comes back from here, it is forgotten and may then begin again

Upstream counterpart: pkg/kubelet/pod_workers.go. Deliberate differences: queues, timers and goroutines are the shell's.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from enum import StrEnum

from kubelet_py.api import core_v1
from kubelet_py.api.pod import full_name, is_terminal, metadata_of, spec_of, uid_of
from kubelet_py.core.termination import ORPHAN_GRACE_SECONDS, effective_grace_seconds
from kubelet_py.errors import KubeletError

STORY_LENGTH = 32


class Phase(StrEnum):
    """Where a UID is on its one-way road."""

    SYNCING = "syncing"
    TERMINATING = "terminating"
    TERMINATED = "terminated"
    FINISHED = "finished"


# Inputs


@dataclass(frozen=True, slots=True)
class PodUpdated:
    """The configuration of the pod, new or changed. `is_new`: the source just added it."""

    is_deleting: bool = False
    is_terminal: bool = False
    is_new: bool = False
    deletion_grace_seconds: int | None = None
    spec_grace_seconds: int | None = None


@dataclass(frozen=True, slots=True)
class PodRemoved:
    """The source has the pod no more: the file is gone, or the API object was deleted by force."""

    spec_grace_seconds: int | None = None


@dataclass(frozen=True, slots=True)
class KillRequested:
    """The agent itself wants the pod gone (eviction, deadline, shutdown, preemption)."""

    cause: str
    is_eviction: bool = False
    grace_override_seconds: int | None = None
    spec_grace_seconds: int | None = None


@dataclass(frozen=True, slots=True)
class OrphanSeen:
    """The runtime has something alive under this UID and no source knows it."""

    grace_override_seconds: int = ORPHAN_GRACE_SECONDS


@dataclass(frozen=True, slots=True)
class SyncDone:
    """A syncing pass is over; `is_terminal` when the pod's phase became Succeeded or Failed."""

    is_terminal: bool = False
    spec_grace_seconds: int | None = None


@dataclass(frozen=True, slots=True)
class ContainersStopped:
    """The terminating pass is over: no container of the pod runs."""


@dataclass(frozen=True, slots=True)
class CleanedUp:
    """The terminated pass is over: volumes, cgroups and devices of the pod are free."""


@dataclass(frozen=True, slots=True)
class Purged:
    """Housekeeping: no source knows the UID any more, or it was added again."""


Input = PodUpdated | PodRemoved | KillRequested | OrphanSeen | SyncDone | ContainersStopped | CleanedUp | Purged


def update_of(pod: core_v1.Pod, is_new: bool = False) -> PodUpdated:
    """What the table needs to know of a pod object."""
    metadata = metadata_of(pod)
    return PodUpdated(
        is_deleting=metadata.deletionTimestamp is not None,
        is_terminal=is_terminal(pod),
        is_new=is_new,
        deletion_grace_seconds=metadata.deletionGracePeriodSeconds,
        spec_grace_seconds=spec_of(pod).terminationGracePeriodSeconds,
    )


# Outputs


@dataclass(frozen=True, slots=True)
class RunSync:
    """Wake the worker for a syncing pass."""


@dataclass(frozen=True, slots=True)
class CancelSync:
    """Interrupt the pass that runs now; another kind of pass, or one with less time, comes next."""


@dataclass(frozen=True, slots=True)
class RunTerminating:
    """Wake the worker for a terminating pass with this grace period."""

    grace_seconds: int


@dataclass(frozen=True, slots=True)
class RunTerminated:
    """Wake the worker for a terminated pass."""


@dataclass(frozen=True, slots=True)
class Finish:
    """The worker's task may end; the status manager may delete the API object."""


@dataclass(frozen=True, slots=True)
class Forget:
    """Drop the record. Where the same UID was added again meanwhile (`restart_requested`), it begins anew."""


Output = RunSync | CancelSync | RunTerminating | RunTerminated | Finish | Forget


# State


@dataclass(frozen=True, slots=True)
class StoryRow:
    """One transition that happened."""

    phase: Phase
    input: Input
    next_phase: Phase


@dataclass(frozen=True, slots=True)
class WorkerState:
    """What must be remembered of one UID."""

    uid: str
    full_name: str
    phase: Phase = Phase.SYNCING
    grace_seconds: int | None = None
    is_deleted: bool = False
    is_evicted: bool = False
    is_runtime_only: bool = False
    restart_requested: bool = False
    cause: str = ""
    story: tuple[StoryRow, ...] = field(default=(), compare=False)


@dataclass(frozen=True, slots=True)
class Transition:
    """The state after an input, and what the shell does about it."""

    state: WorkerState
    outputs: tuple[Output, ...] = ()


class InvalidTransition(KubeletError):
    """An input that this phase does not know: a fault of the agent. The message carries the story."""

    def __init__(self, state: WorkerState, input_: Input) -> None:
        rows = "; ".join(f"{row.phase} {row.input} -> {row.next_phase}" for row in state.story) or "nothing before"
        super().__init__(f"pod {state.full_name} ({state.uid}) is {state.phase} and got {input_}; story: {rows}")
        self.state = state
        self.input = input_


def _ignore(state: WorkerState, _: Input) -> Transition:
    return Transition(state)


def _begin_terminating(state: WorkerState, cause: str, grace_seconds: int) -> Transition:
    state = replace(state, phase=Phase.TERMINATING, grace_seconds=grace_seconds, cause=cause)
    return Transition(state, (CancelSync(), RunTerminating(grace_seconds)))


def _shorten(state: WorkerState, deletion_seconds: int | None, override_seconds: int | None) -> Transition:
    grace_seconds = effective_grace_seconds(state.grace_seconds, deletion_seconds, override_seconds)
    if grace_seconds == state.grace_seconds:
        return Transition(state)
    return Transition(replace(state, grace_seconds=grace_seconds), (CancelSync(), RunTerminating(grace_seconds)))


def _syncing_updated(state: WorkerState, update: PodUpdated) -> Transition:
    grace_seconds = effective_grace_seconds(None, update.deletion_grace_seconds, None, update.spec_grace_seconds)
    if update.is_deleting:
        return _begin_terminating(replace(state, is_deleted=True), "the pod was deleted", grace_seconds)
    if update.is_terminal:
        return _begin_terminating(state, "the phase of the pod is final", grace_seconds)
    return Transition(state, (RunSync(),))


def _syncing_removed(state: WorkerState, removed: PodRemoved) -> Transition:
    grace_seconds = effective_grace_seconds(None, spec_seconds=removed.spec_grace_seconds)
    return _begin_terminating(replace(state, is_deleted=True), "the source has the pod no more", grace_seconds)


def _syncing_kill(state: WorkerState, kill: KillRequested) -> Transition:
    grace_seconds = effective_grace_seconds(None, None, kill.grace_override_seconds, kill.spec_grace_seconds)
    return _begin_terminating(replace(state, is_evicted=kill.is_eviction), kill.cause, grace_seconds)


def _syncing_orphan(state: WorkerState, orphan: OrphanSeen) -> Transition:
    grace_seconds = effective_grace_seconds(None, override_seconds=orphan.grace_override_seconds)
    return _begin_terminating(replace(state, is_deleted=True), "no source knows the pod", grace_seconds)


def _syncing_done(state: WorkerState, done: SyncDone) -> Transition:
    if not done.is_terminal:
        return Transition(state)
    grace_seconds = effective_grace_seconds(None, spec_seconds=done.spec_grace_seconds)  # sidecars may still run
    return _begin_terminating(state, "the containers of the pod are through", grace_seconds)


def _terminating_updated(state: WorkerState, update: PodUpdated) -> Transition:
    if update.is_new:
        return Transition(replace(state, restart_requested=True))
    state = replace(state, is_deleted=state.is_deleted or update.is_deleting)
    return _shorten(state, update.deletion_grace_seconds, None)


def _terminating_removed(state: WorkerState, _: PodRemoved) -> Transition:
    return Transition(replace(state, is_deleted=True, restart_requested=False))


def _terminating_kill(state: WorkerState, kill: KillRequested) -> Transition:
    state = replace(state, is_evicted=state.is_evicted or kill.is_eviction)
    return _shorten(state, None, kill.grace_override_seconds)


def _terminating_stopped(state: WorkerState, _: ContainersStopped) -> Transition:
    if state.is_runtime_only:
        # Without a configuration there are no volumes to take down; orphaned directories have a cleaner of their own.
        return Transition(replace(state, phase=Phase.FINISHED), (Finish(),))
    return Transition(replace(state, phase=Phase.TERMINATED), (RunTerminated(),))


def _after_updated(state: WorkerState, update: PodUpdated) -> Transition:
    if update.is_new:
        return Transition(replace(state, restart_requested=True))
    return Transition(replace(state, is_deleted=state.is_deleted or update.is_deleting))


def _terminated_clean(state: WorkerState, _: CleanedUp) -> Transition:
    return Transition(replace(state, phase=Phase.FINISHED), (Finish(),))


def _finished_purged(state: WorkerState, _: Purged) -> Transition:
    return Transition(state, (Forget(),))


TABLE: Mapping[tuple[Phase, type[Input]], Callable[..., Transition]] = {
    (Phase.SYNCING, PodUpdated): _syncing_updated,
    (Phase.SYNCING, PodRemoved): _syncing_removed,
    (Phase.SYNCING, KillRequested): _syncing_kill,
    (Phase.SYNCING, OrphanSeen): _syncing_orphan,
    (Phase.SYNCING, SyncDone): _syncing_done,
    (Phase.TERMINATING, PodUpdated): _terminating_updated,
    (Phase.TERMINATING, PodRemoved): _terminating_removed,
    (Phase.TERMINATING, KillRequested): _terminating_kill,
    (Phase.TERMINATING, OrphanSeen): _ignore,  # it is being stopped already
    (Phase.TERMINATING, SyncDone): _ignore,  # the pass that was cancelled
    (Phase.TERMINATING, ContainersStopped): _terminating_stopped,
    (Phase.TERMINATED, PodUpdated): _after_updated,
    (Phase.TERMINATED, PodRemoved): _terminating_removed,
    (Phase.TERMINATED, KillRequested): _ignore,
    (Phase.TERMINATED, OrphanSeen): _ignore,  # an old list; what really lives shows up again when the UID is forgotten
    (Phase.TERMINATED, CleanedUp): _terminated_clean,
    (Phase.FINISHED, PodUpdated): _after_updated,
    (Phase.FINISHED, PodRemoved): _terminating_removed,
    (Phase.FINISHED, KillRequested): _ignore,
    (Phase.FINISHED, OrphanSeen): _ignore,
    (Phase.FINISHED, Purged): _finished_purged,
}


def transition(state: WorkerState, input_: Input) -> Transition:
    """The table, applied: the next state with its story, and the outputs."""
    handler = TABLE.get((state.phase, type(input_)))
    if handler is None:
        raise InvalidTransition(state, input_)
    result = handler(state, input_)
    row = StoryRow(state.phase, input_, result.state.phase)
    return Transition(replace(result.state, story=(*state.story, row)[-STORY_LENGTH:]), result.outputs)


def open_worker(pod: core_v1.Pod, is_runtime_alive: bool) -> Transition:
    """The first time a UID's configuration is seen.

    A pod whose phase is already final and of which nothing lives skips the stop: the agent was restarted in between,
    and only the taking down remains.
    """
    state = WorkerState(uid_of(pod), full_name(pod))
    if is_terminal(pod) and not is_runtime_alive:
        is_deleted = metadata_of(pod).deletionTimestamp is not None
        state = replace(state, phase=Phase.TERMINATED, grace_seconds=1, is_deleted=is_deleted)
        return Transition(state, (RunTerminated(),))
    return transition(state, update_of(pod))


def open_orphan(uid: str, pod_full_name: str) -> Transition:
    """A UID that only the runtime knows: it begins, and ends, with its stop."""
    return transition(WorkerState(uid, pod_full_name, is_runtime_only=True), OrphanSeen())


# What others may conclude. `None` stands for a UID without a worker; before the first round over all sources has been
# worked off (`is_synced`), that means nothing.


def could_have_running_containers(state: WorkerState | None, is_synced: bool) -> bool:
    """Containers of the UID may run."""
    return state.phase in (Phase.SYNCING, Phase.TERMINATING) if state else not is_synced


def is_content_removable(state: WorkerState | None, is_synced: bool) -> bool:
    """Dead containers, directories and logs may be removed: the pod is gone for good, or evicted and must give way.

    Of a pod that only has ended, the API server may still be asked for logs.
    """
    if state is None:
        return is_synced
    return state.is_evicted or (state.is_deleted and state.phase in (Phase.TERMINATED, Phase.FINISHED))


def should_be_finished(state: WorkerState | None, is_synced: bool) -> bool:
    """Nothing of the UID is left, so that its API object may be deleted."""
    return state.phase is Phase.FINISHED if state else is_synced


# Static pods


@dataclass(frozen=True, slots=True)
class StaticPodGate:
    """Static pods with one full name run one after the other: a changed manifest is another UID with the same name."""

    started: Mapping[str, str] = field(default_factory=dict)
    waiting: Mapping[str, tuple[str, ...]] = field(default_factory=dict)

    def request(self, pod_full_name: str, uid: str) -> tuple["StaticPodGate", bool]:
        """Asks to start; the gate after it, and whether the pod may. Who may not waits in the order of asking."""
        queue = self.waiting.get(pod_full_name, ())
        if self.started.get(pod_full_name) == uid:
            return self, True
        if pod_full_name in self.started or (queue and queue[0] != uid):
            if uid in queue:
                return self, False
            return replace(self, waiting={**self.waiting, pod_full_name: (*queue, uid)}), False
        return StaticPodGate({**self.started, pod_full_name: uid}, self._without(pod_full_name, uid)), True

    def release(self, pod_full_name: str, uid: str) -> "StaticPodGate":
        """The UID is finished or will never start: those that wait for the name may ask again."""
        started = {name: other for name, other in self.started.items() if (name, other) != (pod_full_name, uid)}
        return StaticPodGate(started, self._without(pod_full_name, uid))

    def _without(self, pod_full_name: str, uid: str) -> dict[str, tuple[str, ...]]:
        return _compact(
            (name, tuple(u for u in queue if (name, u) != (pod_full_name, uid))) for name, queue in self.waiting.items()
        )


def _compact(items: Iterable[tuple[str, tuple[str, ...]]]) -> dict[str, tuple[str, ...]]:
    return {name: queue for name, queue in items if queue}
