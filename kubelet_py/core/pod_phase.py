"""The phase of a pod from the statuses of its containers.

Upstream counterpart: getPhase in pkg/kubelet/kubelet_pods.go.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from kubelet_py.api import core_v1
from kubelet_py.api.pod import containers_of, init_containers_of, is_sidecar, is_static
from kubelet_py.core.container_status import RESTARTING_ALL
from kubelet_py.core.restart_rules import restarts_after_exit

PENDING = "Pending"
RUNNING = "Running"
SUCCEEDED = "Succeeded"
FAILED = "Failed"

TERMINAL_PHASES = (SUCCEEDED, FAILED)

Statuses = Mapping[str, core_v1.ContainerStatus]


def terminated_state(status: core_v1.ContainerStatus) -> core_v1.ContainerStateTerminated | None:
    """How the container ended, now or before it began to wait."""
    state = status.state or core_v1.ContainerState()
    if state.terminated is not None:
        return state.terminated
    if state.waiting is not None and status.lastState is not None:
        return status.lastState.terminated
    return None


def _may_run_again(pod: core_v1.Pod, container: core_v1.Container, ended: core_v1.ContainerStateTerminated) -> bool:
    return ended.reason == RESTARTING_ALL or restarts_after_exit(pod, container, ended.exitCode)


@dataclass(slots=True)
class _Count:
    has_pending_regular_init: bool = False
    has_pending_sidecar: bool = False
    has_failed_init: bool = False
    has_unstarted: bool = False
    """Of a main container or sidecar nobody knows that it ever ran."""
    has_running: bool = False
    stopped: int = 0
    stopped_for_good: int = 0
    succeeded: int = 0


def _count_init(pod: core_v1.Pod, statuses: Statuses, count: _Count) -> None:
    for container in init_containers_of(pod):
        status = statuses.get(container.name)
        if is_sidecar(container):
            _count_sidecar(status, count)
            continue
        ended = terminated_state(status) if status else None
        if ended is None:
            count.has_pending_regular_init = True
        elif ended.exitCode != 0 and not _may_run_again(pod, container, ended):
            count.has_failed_init = True


def _count_sidecar(status: core_v1.ContainerStatus | None, count: _Count) -> None:
    if status is None or status.state is None:
        count.has_unstarted = True
    elif status.state.running is not None:
        count.has_pending_sidecar |= not status.started
        count.has_running = True
    elif terminated_state(status) is None:
        count.has_unstarted = True
    # a sidecar that ended holds no pod back


def _count_mains(pod: core_v1.Pod, statuses: Statuses, count: _Count) -> None:
    for container in containers_of(pod):
        status = statuses.get(container.name)
        if status is None or status.state is None:
            count.has_unstarted = True
            continue
        if status.state.running is not None:
            count.has_running = True
            continue
        ended = terminated_state(status)
        if ended is None:
            count.has_unstarted = True
            continue
        count.stopped += 1
        count.stopped_for_good += not _may_run_again(pod, container, ended)
        count.succeeded += status.state.terminated is not None and ended.exitCode == 0


def compute_phase(
    pod: core_v1.Pod,
    statuses: Iterable[core_v1.ContainerStatus],
    is_stopped_for_good: bool,
    has_begun_in_sandbox: bool,
) -> str:
    """The phase by the init and main containers. `is_stopped_for_good`: the agent stopped the pod, nothing restarts.

    `has_begun_in_sandbox`: a main container has had its turn in the present sandbox; then a sidecar that starts again
    does not make the pod Pending.
    """
    known = {status.name: status for status in statuses}
    count = _Count()
    _count_init(pod, known, count)
    _count_mains(pod, known, count)
    if count.has_failed_init:
        return FAILED
    if count.has_pending_regular_init or (count.has_pending_sidecar and not has_begun_in_sandbox):
        return PENDING
    if count.has_unstarted:
        return PENDING
    if count.has_running:
        return RUNNING
    if not count.stopped:
        return PENDING
    all_succeeded = count.stopped == count.succeeded
    # Static pods come back with the next start of the agent: a stop by the agent is not the end of them.
    if is_stopped_for_good and not is_static(pod):
        return SUCCEEDED if all_succeeded else FAILED
    if count.stopped != count.stopped_for_good:
        return RUNNING
    return SUCCEEDED if all_succeeded else FAILED
