"""Which dead containers, sandboxes and log directories may go.

Owns the choice; the shell lists, removes, and tries again next minute what did not work. Nothing that runs is chosen.

Upstream counterpart: pkg/kubelet/kuberuntime/kuberuntime_gc.go. Deliberate difference: a container that belongs to no
known pod name is grouped by its own id, so that it is never counted as history of another.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from kubelet_py.core.labels import pod_uid_of_log_directory
from kubelet_py.core.observed import NS_PER_SECOND, ContainerState
from kubelet_py.core.termination import MINIMUM_GRACE_SECONDS


@dataclass(frozen=True, slots=True)
class GcPolicy:
    """The flags of container garbage collection; negative numbers mean no limit."""

    min_age_seconds: float = 0.0
    max_per_container: int = 1
    max_containers: int = -1


@dataclass(frozen=True, slots=True)
class GcContainer:
    """A container as garbage collection sees it."""

    id: str
    pod_uid: str
    name: str
    sandbox_id: str
    state: ContainerState
    created_at_ns: int
    grace_period_seconds: int = MINIMUM_GRACE_SECONDS
    """What it has from its signal on, should it run after all."""


@dataclass(frozen=True, slots=True)
class GcSandbox:
    """A sandbox as garbage collection sees it."""

    id: str
    pod_uid: str
    ready: bool
    created_at_ns: int


PodPredicate = Callable[[str], bool]


def dead_containers(
    containers: Iterable[GcContainer], policy: GcPolicy, now_ns: int, is_gone: PodPredicate, sources_ready: bool = True
) -> tuple[str, ...]:
    """The ids to remove, oldest first.

    `is_gone` says for a UID that nothing of the pod is wanted any more. While the sources are not all read
    nobody can know that, and only the limits per container and node count.
    """
    limit_ns = now_ns - int(policy.min_age_seconds * NS_PER_SECOND)
    units: dict[tuple[str, str], list[GcContainer]] = {}
    for container in containers:
        if container.state is not ContainerState.RUNNING and container.created_at_ns <= limit_ns:
            units.setdefault((container.pod_uid, container.name or container.id), []).append(container)
    chosen: list[GcContainer] = []
    kept: list[list[GcContainer]] = []
    for (uid, _), unit in units.items():
        unit.sort(key=lambda c: (c.created_at_ns, c.id), reverse=True)
        if sources_ready and is_gone(uid):
            chosen.extend(unit)
            continue
        keep = len(unit) if policy.max_per_container < 0 else policy.max_per_container
        chosen.extend(unit[keep:])
        if unit[:keep]:
            kept.append(unit[:keep])
    chosen.extend(_over_node_limit(kept, policy.max_containers))
    return tuple(c.id for c in sorted(chosen, key=lambda c: (c.created_at_ns, c.id)))


def _over_node_limit(kept: Sequence[list[GcContainer]], max_containers: int) -> list[GcContainer]:
    """First every unit shrinks to an equal share, at least one; then the oldest of the node go."""
    total = sum(len(unit) for unit in kept)
    if max_containers < 0 or total <= max_containers:
        return []
    share = max(1, max_containers // len(kept))
    chosen = [container for unit in kept for container in unit[share:]]
    rest = [container for unit in kept for container in unit[:share]]
    rest.sort(key=lambda c: (c.created_at_ns, c.id))
    return [*chosen, *rest[: max(0, len(rest) - max_containers)]]


def dead_sandboxes(
    sandboxes: Iterable[GcSandbox],
    containers: Iterable[GcContainer],
    is_gone: PodPredicate,
    sources_ready: bool = True,
) -> tuple[str, ...]:
    """The ids to remove, oldest first: all of a pod that is gone, all but the newest of the others.

    A sandbox that is ready or holds a container stays in any case; its containers go first.
    """
    occupied = {container.sandbox_id for container in containers}
    by_pod: dict[str, list[GcSandbox]] = {}
    for sandbox in sandboxes:
        by_pod.setdefault(sandbox.pod_uid, []).append(sandbox)
    chosen: list[GcSandbox] = []
    for uid, unit in by_pod.items():
        unit.sort(key=lambda s: (s.created_at_ns, s.id), reverse=True)
        candidates = unit if sources_ready and is_gone(uid) else unit[1:]
        chosen.extend(s for s in candidates if not s.ready and s.id not in occupied)
    return tuple(s.id for s in sorted(chosen, key=lambda s: (s.created_at_ns, s.id)))


def dead_log_directories(names: Iterable[str], is_gone: PodPredicate, sources_ready: bool = True) -> tuple[str, ...]:
    """The directories under the pod log root whose pods are gone; none before all sources are read."""
    if not sources_ready:
        return ()
    return tuple(name for name in names if "_" in name and is_gone(pod_uid_of_log_directory(name)))
