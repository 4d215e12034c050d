"""What changed between two lists of sandboxes and containers.

A record is the small part of the lists that says whether anything happened: ids and states. Two records of a pod give
its lifecycle events; a pod with events needs a fresh observation.

Upstream counterpart: pkg/kubelet/pleg/generic.go (podRecords, generateEvents). Deliberate differences: a sandbox that
comes or goes says SandboxChanged instead of posing as a container; a container that is created and not yet started is
CREATED and not unknown.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import NamedTuple

from cri_proto import runtime_v1 as cri
from kubelet_py.api.pod import CONTAINER_NAME_LABEL, POD_UID_LABEL
from kubelet_py.core.cri_observation import state_of
from kubelet_py.core.observed import ContainerState, ObservedPod


class EventKind(StrEnum):
    """What happened to a container or sandbox."""

    CONTAINER_STARTED = "ContainerStarted"
    CONTAINER_DIED = "ContainerDied"
    CONTAINER_REMOVED = "ContainerRemoved"
    CONTAINER_CHANGED = "ContainerChanged"
    SANDBOX_CHANGED = "SandboxChanged"


@dataclass(frozen=True, slots=True)
class PodLifecycleEvent:
    """One event of one pod; `id` is the container's or the sandbox's."""

    uid: str
    kind: EventKind
    id: str


class ContainerRecord(NamedTuple):
    """A container as the list shows it."""

    id: str
    name: str
    sandbox_id: str
    state: ContainerState


class PodRecord(NamedTuple):
    """A pod as the lists show it."""

    uid: str
    name: str = ""
    namespace: str = ""
    sandboxes: tuple[tuple[str, bool], ...] = ()
    containers: tuple[ContainerRecord, ...] = ()

    @property
    def is_alive(self) -> bool:
        """Something of the pod runs or may run."""
        return any(ready for _, ready in self.sandboxes) or any(
            c.state in (ContainerState.RUNNING, ContainerState.UNKNOWN) for c in self.containers
        )


def pod_records(sandboxes: Iterable[cri.PodSandbox], containers: Iterable[cri.Container]) -> dict[str, PodRecord]:
    """The lists by pod UID. What belongs to no pod (no UID anywhere) is not ours and left out."""
    sandboxes_of: dict[str, list[tuple[str, bool]]] = {}
    containers_of: dict[str, list[ContainerRecord]] = {}
    names: dict[str, tuple[str, str]] = {}
    uid_of_sandbox: dict[str, str] = {}
    for sandbox in sandboxes:
        uid = sandbox.metadata.uid or sandbox.labels.get(POD_UID_LABEL, "")
        if not uid:
            continue
        uid_of_sandbox[sandbox.id] = uid
        names[uid] = (sandbox.metadata.name, sandbox.metadata.namespace)
        sandboxes_of.setdefault(uid, []).append((sandbox.id, sandbox.state == cri.SANDBOX_READY))
    for container in containers:
        uid = container.labels.get(POD_UID_LABEL) or uid_of_sandbox.get(container.pod_sandbox_id, "")
        if not uid:
            continue
        containers_of.setdefault(uid, []).append(
            ContainerRecord(
                container.id,
                container.labels.get(CONTAINER_NAME_LABEL, container.metadata.name),
                container.pod_sandbox_id,
                state_of(container.state),
            )
        )
    return {
        uid: PodRecord(
            uid,
            *names.get(uid, ("", "")),
            tuple(sorted(sandboxes_of.get(uid, ()))),
            tuple(sorted(containers_of.get(uid, ()))),
        )
        for uid in sandboxes_of.keys() | containers_of.keys()
    }


def record_of(observed: ObservedPod) -> PodRecord:
    """What the lists would show of a pod that was observed."""
    return PodRecord(
        observed.uid,
        observed.name,
        observed.namespace,
        tuple(sorted((sandbox.id, sandbox.ready) for sandbox in observed.sandboxes)),
        tuple(sorted(ContainerRecord(c.id, c.name, c.sandbox_id, c.state) for c in observed.containers)),
    )


def is_known(record: PodRecord | None, container_id: str, kind: int) -> bool:
    """Whether an event of the runtime was seen by a look before it came: most tell of the agent's own doings.

    `kind` is a ContainerEventType; runtimes send those of sandboxes with the sandbox's id.
    """
    if record is None or kind not in (cri.CONTAINER_CREATED_EVENT, cri.CONTAINER_STARTED_EVENT):
        return False
    began = kind == cri.CONTAINER_STARTED_EVENT
    return (container_id, True) in record.sandboxes or any(
        known.id == container_id and (not began or known.state is ContainerState.RUNNING) for known in record.containers
    )


def _container_events(old: ContainerState | None, new: ContainerState | None) -> list[EventKind]:
    if old is new:
        return []
    match new:
        case ContainerState.RUNNING:
            return [EventKind.CONTAINER_STARTED]
        case ContainerState.EXITED:
            return [EventKind.CONTAINER_DIED]
        case None:
            if old is ContainerState.EXITED:
                return [EventKind.CONTAINER_REMOVED]
            return [EventKind.CONTAINER_DIED, EventKind.CONTAINER_REMOVED]
        case _:
            return [EventKind.CONTAINER_CHANGED]


def diff_pod(old: PodRecord | None, new: PodRecord | None) -> tuple[PodLifecycleEvent, ...]:
    """The events between two records of one pod; None where the pod is not in the lists."""
    some = new or old
    if some is None or old == new:
        return ()
    uid = some.uid
    old_sandboxes = dict(old.sandboxes) if old else {}
    new_sandboxes = dict(new.sandboxes) if new else {}
    old_states = {c.id: c.state for c in old.containers} if old else {}
    new_states = {c.id: c.state for c in new.containers} if new else {}
    events = [
        PodLifecycleEvent(uid, EventKind.SANDBOX_CHANGED, sandbox_id)
        for sandbox_id in sorted(old_sandboxes.keys() | new_sandboxes.keys())
        if old_sandboxes.get(sandbox_id) != new_sandboxes.get(sandbox_id)
    ]
    for container_id in sorted(old_states.keys() | new_states.keys()):
        kinds = _container_events(old_states.get(container_id), new_states.get(container_id))
        events.extend(PodLifecycleEvent(uid, kind, container_id) for kind in kinds)
    return tuple(events)


def diff_pods(old: Mapping[str, PodRecord], new: Mapping[str, PodRecord]) -> dict[str, tuple[PodLifecycleEvent, ...]]:
    """The events by UID, only of pods that have some: exactly these need a fresh observation."""
    changes = {uid: diff_pod(old.get(uid), new.get(uid)) for uid in sorted(old.keys() | new.keys())}
    return {uid: events for uid, events in changes.items() if events}
