"""The status of each container of a pod, from the runs that the runtime shows and what was reported before.

Owns the states and their reasons, restart counts, `started` and `ready`, and what becomes of containers that vanished.
Must not know phases and conditions.

Upstream counterpart: convertToAPIContainerStatuses in pkg/kubelet/kubelet_pods.go, UpdatePodStatus in
pkg/kubelet/prober/prober_manager.go. Deliberate differences: the last state survives the garbage collection of the
dead container it came from; a container of unknown state is reported as ended until more is known, where the Go kubelet
falls back to waiting, and counts as restarted when its successor starts, so that no count shrinks.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime

import msgspec

from cri_proto import runtime_v1 as cri
from kubelet_py.api import core_v1
from kubelet_py.api.pod import (
    all_containers_of,
    containers_of,
    ephemeral_containers_of,
    init_containers_of,
    is_sidecar,
    spec_of,
)
from kubelet_py.core.observed import (
    NO_VERDICT,
    NS_PER_SECOND,
    ContainerState,
    ObservedContainer,
    ObservedPod,
    ProbeResult,
    ProbeVerdict,
)
from kubelet_py.core.pod_allocation import PodResources
from kubelet_py.core.resource_status import container_resources
from kubelet_py.core.restart_rules import AnyContainer, is_being_deleted, should_be_restarted

CONTAINER_CREATING = "ContainerCreating"
POD_INITIALIZING = "PodInitializing"
COMPLETED = "Completed"
STATUS_UNKNOWN = "ContainerStatusUnknown"
RESTARTING_ALL = "RestartingAllContainers"
RESTARTING_ALL_MESSAGE = "The container is removed because RestartAllContainers in place"
LOST_WHEN_TERMINATED = "The container could not be located when the pod was terminated"
LOST_WHEN_DELETED = "The container could not be located when the pod was deleted.  The container used to be Running"
_FORGOTTEN_INIT = "Unable to get init container status from container runtime"
FORGOTTEN_INIT_MESSAGE = f"{_FORGOTTEN_INIT} and pod has been initialized, treat it as exited normally"
UNKNOWN_EXIT_CODE = 137
MAX_POD_MESSAGE_BYTES = 12 * 1024
"""What the termination messages of a pod may take together; each container has an equal share."""

# Probe results do not survive the agent; what started this long before it is trusted as it was reported.
TRUSTED_BEFORE_START_NS = 10 * NS_PER_SECOND


@dataclass(frozen=True, slots=True)
class ContainerStatusContext:
    """What container statuses are made of beside the pod and the observation.

    `waiting`: container name to (reason, message) of what keeps it from starting. `termination_messages`: container id
    to the text read from its message file or log. `runtime_type` is the prefix of container ids.
    """

    runtime_type: str
    previous: core_v1.PodStatus
    waiting: Mapping[str, tuple[str, str]] = field(default_factory=dict)
    termination_messages: Mapping[str, str] = field(default_factory=dict)
    probe_results: Mapping[str, ProbeVerdict] = field(default_factory=dict)
    is_restarting_all: bool = False
    supports_recursive_read_only: bool = False
    agent_started_at_ns: int = 0
    actuated: PodResources | None = None


def time_of_ns(ns: int) -> datetime | None:
    """A moment as the API writes it, whole seconds; None for 0."""
    return datetime.fromtimestamp(ns // NS_PER_SECOND, UTC) if ns else None


def by_name(statuses: Sequence[core_v1.ContainerStatus] | None) -> dict[str, core_v1.ContainerStatus]:
    """The statuses by container name."""
    return {status.name: status for status in statuses or ()}


@dataclass(frozen=True, slots=True)
class ContainerStatuses:
    """The three lists of a pod's status, in the orders that the API promises: main and ephemeral by name, init as in
    the spec.
    """

    init: list[core_v1.ContainerStatus]
    main: list[core_v1.ContainerStatus]
    ephemeral: list[core_v1.ContainerStatus]

    @property
    def init_and_main(self) -> dict[str, core_v1.ContainerStatus]:
        """What phase and conditions are made of."""
        return by_name([*self.init, *self.main])


def compute_container_statuses(
    pod: core_v1.Pod, observed: ObservedPod, context: ContainerStatusContext
) -> ContainerStatuses:
    """The statuses of all containers of the spec."""
    maker = _Maker(pod, observed, context)
    previous = context.previous
    init = [maker.make(c, by_name(previous.initContainerStatuses), True) for c in init_containers_of(pod)]
    main = [maker.make(c, by_name(previous.containerStatuses), False) for c in spec_of(pod).containers]
    old_ephemeral = by_name(previous.ephemeralContainerStatuses)
    ephemeral = [maker.make_ephemeral(c, old_ephemeral) for c in ephemeral_containers_of(pod)]
    return ContainerStatuses(
        init, sorted(main, key=lambda status: status.name), sorted(ephemeral, key=lambda status: status.name)
    )


@dataclass(frozen=True, slots=True)
class _Maker:
    pod: core_v1.Pod
    observed: ObservedPod
    context: ContainerStatusContext

    def make(
        self, container: AnyContainer, old_statuses: Mapping[str, core_v1.ContainerStatus], is_init: bool
    ) -> core_v1.ContainerStatus:
        old = old_statuses.get(container.name)
        history = self.observed.named(container.name)
        newest = history[0] if history else None
        status = self._of_runs(container, history, old) if history else self._without_runs(container, old)
        if is_init and newest is None and self._must_have_succeeded(container, status):
            status = _taken_as_completed(status)
        else:
            status = self._with_waiting_reason(container, status, newest, is_init)
        return self._with_probe_results(container, status, newest, old, is_init)

    def make_ephemeral(
        self, container: AnyContainer, old_statuses: Mapping[str, core_v1.ContainerStatus]
    ) -> core_v1.ContainerStatus:
        """Nobody asks whether an ephemeral container is ready, so it never is; it has no probes to start it either."""
        return msgspec.structs.replace(self.make(container, old_statuses, False), ready=False, started=None)

    def _must_have_succeeded(self, container: AnyContainer, status: core_v1.ContainerStatus) -> bool:
        """An init container of which neither the runtime nor a report knows anything, beside main containers.

        It happens to static pods: finished init containers are removed, and only this agent has their statuses.
        """
        is_waiting = status.state is not None and status.state.waiting is not None
        if not is_waiting or _is_sidecar(container) or self.context.is_restarting_all:
            return False
        sandbox = self.observed.newest_sandbox
        here = ("", sandbox.id if sandbox is not None else "")
        found = [self.observed.newest(main.name) for main in containers_of(self.pod)]
        return any(
            run is not None and run.sandbox_id in here and run.state is not ContainerState.UNKNOWN for run in found
        )

    # Containers that the runtime knows

    def _of_runs(
        self, container: AnyContainer, history: Sequence[ObservedContainer], old: core_v1.ContainerStatus | None
    ) -> core_v1.ContainerStatus:
        newest = history[0]
        state = self._state_of(newest, old)
        last_state = self._last_state_before(newest, old) if len(history) == 1 else self._state_of(history[1], None)
        is_lost = newest.state is ContainerState.UNKNOWN and state.terminated is None
        if is_lost and old is not None and old.containerID == self._full_id(newest):
            # Its end was reported when it got lost; nothing new is known, so that is not taken back.
            state, last_state = old.state or state, old.lastState
        allocated = container.resources
        actuated = self.context.actuated.containers.get(container.name) if self.context.actuated else None
        return core_v1.ContainerStatus(
            name=container.name,
            image=newest.image,
            imageID=newest.image_ref,
            containerID=self._full_id(newest),
            ready=False,
            restartCount=newest.restart_count,
            state=state,
            lastState=last_state,
            resources=container_resources(allocated, newest, actuated),
            allocatedResources=allocated.requests if allocated else None,
            user=_user_of(newest),
            volumeMounts=self._volume_mounts(container, old),
        )

    def _full_id(self, container: ObservedContainer) -> str:
        return f"{self.context.runtime_type}://{container.id}"

    def _state_of(self, run: ObservedContainer, old: core_v1.ContainerStatus | None) -> core_v1.ContainerState:
        match run.state:
            case ContainerState.RUNNING:
                return core_v1.ContainerState(
                    running=core_v1.ContainerStateRunning(startedAt=time_of_ns(run.started_at_ns))
                )
            case ContainerState.EXITED:
                return core_v1.ContainerState(
                    terminated=core_v1.ContainerStateTerminated(
                        exitCode=run.exit_code,
                        reason=run.reason or None,
                        message=self._termination_message(run),
                        startedAt=time_of_ns(run.started_at_ns),
                        finishedAt=time_of_ns(run.finished_at_ns),
                        containerID=self._full_id(run),
                    )
                )
            case ContainerState.UNKNOWN if old is not None and old.state is not None and old.state.running is not None:
                return _lost_state(LOST_WHEN_TERMINATED, self.context.is_restarting_all)
            case _:
                return core_v1.ContainerState(waiting=core_v1.ContainerStateWaiting())

    def _termination_message(self, run: ObservedContainer) -> str | None:
        text = ": ".join(part for part in (run.message, self.context.termination_messages.get(run.id, "")) if part)
        share = MAX_POD_MESSAGE_BYTES // sum(1 for _ in all_containers_of(self.pod))
        return text.encode()[:share].decode(errors="ignore") or None

    def _last_state_before(
        self, newest: ObservedContainer, old: core_v1.ContainerStatus | None
    ) -> core_v1.ContainerState | None:
        """The run before the only one that is left, as it was reported when it was there."""
        if old is None or not newest.restart_count:
            return None
        last = old.lastState.terminated if old.lastState is not None else None
        if last is not None and last.containerID == self._full_id(newest):
            return None  # while it waited for its restart, its own end stood there
        if old.containerID != self._full_id(newest) and old.state is not None and old.state.terminated is not None:
            return old.state
        return old.lastState

    # Containers that the runtime does not know

    def _without_runs(self, container: AnyContainer, old: core_v1.ContainerStatus | None) -> core_v1.ContainerStatus:
        reason = POD_INITIALIZING if init_containers_of(self.pod) else CONTAINER_CREATING
        fresh = core_v1.ContainerStatus(
            name=container.name,
            image=container.image or "",
            imageID="",
            ready=False,
            restartCount=0,
            state=core_v1.ContainerState(waiting=core_v1.ContainerStateWaiting(reason=reason)),
            volumeMounts=self._volume_mounts(container, None),
        )
        if old is None or old.state is None:
            return fresh
        if self.context.is_restarting_all:
            return self._removed_for_restart(fresh, old)
        if old.state.terminated is not None:
            return msgspec.structs.replace(old, ready=False)
        status = msgspec.structs.replace(fresh, restartCount=old.restartCount, lastState=old.lastState)
        was_terminated_before = old.lastState is not None and old.lastState.terminated is not None
        if old.state.running is None or was_terminated_before:
            return status
        # It ran when it was last seen. To say "waiting" without a last state would put the pod back to Pending.
        restarts = 0 if is_being_deleted(self.pod) else 1
        return msgspec.structs.replace(
            status, restartCount=old.restartCount + restarts, lastState=_lost_state(LOST_WHEN_DELETED, False)
        )

    @staticmethod
    def _removed_for_restart(fresh: core_v1.ContainerStatus, old: core_v1.ContainerStatus) -> core_v1.ContainerStatus:
        waiting = core_v1.ContainerStateWaiting(reason=RESTARTING_ALL, message=RESTARTING_ALL_MESSAGE)
        state = core_v1.ContainerState(waiting=waiting)
        if old.state is not None and old.state.waiting is not None:
            # Not the first look after the removal, or it never ran.
            count, last_state = old.restartCount, old.lastState
        elif old.state is not None and old.state.terminated is not None:
            count, last_state = old.restartCount + 1, old.state
        else:
            count, last_state = old.restartCount + 1, _lost_state(RESTARTING_ALL_MESSAGE, True)
        return msgspec.structs.replace(fresh, state=state, lastState=last_state, restartCount=count)

    # What both have

    def _with_waiting_reason(
        self, container: AnyContainer, status: core_v1.ContainerStatus, newest: ObservedContainer | None, is_init: bool
    ) -> core_v1.ContainerStatus:
        """A container that should run and cannot waits, and says why; its last exit moves to the last state."""
        problem = self.context.waiting.get(container.name)
        is_through = is_init and newest is not None and _has_succeeded(newest) and not _is_sidecar(container)
        if problem is None or is_through or not should_be_restarted(self.pod, container, newest):
            return status
        reason, message = problem
        state = core_v1.ContainerState(waiting=core_v1.ContainerStateWaiting(reason=reason, message=message or None))
        ended = status.state is not None and status.state.terminated is not None
        return msgspec.structs.replace(status, state=state, lastState=status.state if ended else status.lastState)

    def _with_probe_results(
        self,
        container: AnyContainer,
        status: core_v1.ContainerStatus,
        newest: ObservedContainer | None,
        old: core_v1.ContainerStatus | None,
        is_init: bool,
    ) -> core_v1.ContainerStatus:
        if is_init and not _is_sidecar(container):
            state = status.state or core_v1.ContainerState()
            is_ready = state.terminated is not None and state.terminated.exitCode == 0
            return msgspec.structs.replace(status, started=state.running is not None, ready=is_ready)
        is_running = status.state is not None and status.state.running is not None
        if newest is None or not is_running:
            return msgspec.structs.replace(status, started=False, ready=False)
        verdict = self.context.probe_results.get(newest.id, NO_VERDICT)
        is_trusted = (
            old is not None
            and old.containerID == self._full_id(newest)
            and 0 < newest.started_at_ns < self.context.agent_started_at_ns - TRUSTED_BEFORE_START_NS
        )
        started = _holds(container.startupProbe, verdict.startup, is_trusted and old is not None and bool(old.started))
        ready = started and _holds(
            container.readinessProbe, verdict.readiness, is_trusted and old is not None and old.ready
        )
        return msgspec.structs.replace(status, started=started, ready=ready)

    def _volume_mounts(
        self, container: AnyContainer, old: core_v1.ContainerStatus | None
    ) -> list[core_v1.VolumeMountStatus] | None:
        if old is not None and old.volumeMounts:
            return old.volumeMounts  # settled when the container was made
        return [self._volume_mount(mount) for mount in container.volumeMounts or ()] or None

    def _volume_mount(self, mount: core_v1.VolumeMount) -> core_v1.VolumeMountStatus:
        status = core_v1.VolumeMountStatus(name=mount.name, mountPath=mount.mountPath, readOnly=mount.readOnly)
        if mount.readOnly:
            wanted = mount.recursiveReadOnly in ("Enabled", "IfPossible")
            can = self.context.supports_recursive_read_only and mount.mountPropagation in (None, "None")
            status.recursiveReadOnly = "Enabled" if wanted and can else "Disabled"
        return status


def _holds(probe: core_v1.Probe | None, result: ProbeResult | None, as_before: bool) -> bool:
    """Whether a state that a probe guards is reached: without a probe at once, else when it says so."""
    if probe is None:
        return True
    return as_before if result is None else result is ProbeResult.SUCCESS


def _is_sidecar(container: AnyContainer) -> bool:
    return isinstance(container, core_v1.Container) and is_sidecar(container)


def _taken_as_completed(status: core_v1.ContainerStatus) -> core_v1.ContainerStatus:
    ended = core_v1.ContainerStateTerminated(exitCode=0, reason=COMPLETED, message=FORGOTTEN_INIT_MESSAGE)
    return msgspec.structs.replace(status, state=core_v1.ContainerState(terminated=ended))


def _has_succeeded(run: ObservedContainer) -> bool:
    return run.state is ContainerState.EXITED and run.exit_code == 0


def _lost_state(message: str, is_restarting_all: bool) -> core_v1.ContainerState:
    return core_v1.ContainerState(
        terminated=core_v1.ContainerStateTerminated(
            exitCode=UNKNOWN_EXIT_CODE,
            reason=RESTARTING_ALL if is_restarting_all else STATUS_UNKNOWN,
            message=message,
        )
    )


def lost_state() -> core_v1.ContainerState:
    """The state of a container that should have ended and of which nothing is left to tell."""
    return _lost_state(LOST_WHEN_TERMINATED, False)


def _user_of(run: ObservedContainer) -> core_v1.ContainerUser | None:
    user: cri.LinuxContainerUser | None = run.user
    if user is None:
        return None
    groups = list(user.supplemental_groups) or None
    return core_v1.ContainerUser(linux=core_v1.LinuxContainerUser(user.gid, user.uid, groups))
