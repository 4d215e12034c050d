"""How long a container may take to stop, and in which order containers of a pod stop.

Owns grace periods and the order; the shell runs preStop hooks, waits and calls StopContainer.

Upstream counterpart: killContainer and setTerminationGracePeriod in kuberuntime_container.go,
kuberuntime_termination_order.go, calculateEffectiveGracePeriod in pkg/kubelet/pod_workers.go.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from kubelet_py.api import core_v1
from kubelet_py.api.pod import containers_of, init_containers_of, is_sidecar, metadata_of, spec_of
from kubelet_py.core.observed import ObservedContainer

MINIMUM_GRACE_SECONDS = 2
ORPHAN_GRACE_SECONDS = 1


def probe_grace_period_seconds(probe: core_v1.Probe | None) -> int | None:
    """The probe's own grace period, when it has one."""
    return probe.terminationGracePeriodSeconds if probe is not None else None


def container_grace_period_seconds(
    pod: core_v1.Pod, override_seconds: int | None = None, probe_seconds: int | None = None
) -> int:
    """The time a container has from the start of its stop, preStop hook included.

    The pod worker's override (a kill with a number) comes first, then the time that the API server set at the deletion,
    then the grace period of the probe that gave up, then the pod's.
    """
    if override_seconds is not None:
        return override_seconds
    deletion_seconds = metadata_of(pod).deletionGracePeriodSeconds
    if deletion_seconds is not None:
        return deletion_seconds
    spec_seconds = spec_of(pod).terminationGracePeriodSeconds
    if spec_seconds is None:
        return MINIMUM_GRACE_SECONDS
    return spec_seconds if probe_seconds is None else probe_seconds


def stop_timeout_seconds(grace_seconds: int, used_seconds: float) -> int:
    """What is left for StopContainer after the preStop hook and the wait for other containers; never below 2 s."""
    return max(MINIMUM_GRACE_SECONDS, grace_seconds - int(used_seconds))


def effective_grace_seconds(
    current_seconds: int | None,
    deletion_seconds: int | None = None,
    override_seconds: int | None = None,
    spec_seconds: int | None = None,
) -> int:
    """The grace period of a pod that terminates: the smallest that was asked for, which can only shrink; at least 1."""
    asked = [s for s in (current_seconds, deletion_seconds, override_seconds) if s is not None]
    if asked:
        return max(1, min(asked))
    return max(1, spec_seconds or 0)


@dataclass(frozen=True, slots=True)
class KillStep:
    """One container to stop. Its signal waits until those named in `after` are gone or its grace period is over."""

    container_id: str
    container_name: str
    after: tuple[str, ...] = ()


def compute_kill_steps(pod: core_v1.Pod, containers: Iterable[ObservedContainer]) -> tuple[KillStep, ...]:
    """All at once, but sidecars after the main containers and after the sidecars that were started later.

    preStop hooks run at once for all, also for those that wait with the signal.
    """
    living = list(containers)
    names = {container.name for container in living}
    mains = [container.name for container in containers_of(pod) if container.name in names]
    after: dict[str, tuple[str, ...]] = {}
    later_sidecars: list[str] = []
    for container in reversed(init_containers_of(pod)):
        if is_sidecar(container) and container.name in names:
            after[container.name] = (*mains, *later_sidecars)
            later_sidecars.append(container.name)
    return tuple(KillStep(c.id, c.name, after.get(c.name, ())) for c in _in_stop_order(pod, living))


def _in_stop_order(pod: core_v1.Pod, living: Sequence[ObservedContainer]) -> list[ObservedContainer]:
    """Main and other containers first, then init containers from the last to the first, as people read a plan."""
    position = {container.name: -index for index, container in enumerate(init_containers_of(pod), start=1)}
    rank = {name: len(position) + index for name, index in position.items()}
    return sorted(living, key=lambda c: (c.name in rank, rank.get(c.name, 0), c.name, c.id))
