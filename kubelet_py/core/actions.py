"""The steps that a pod needs next, as frozen values with their causes.

`compute_pod_actions` returns a tuple of these in the order in which the shell runs them. `batches` says which of them
may run at the same time. When an action with `stops_plan` fails, the shell drops the rest and lets the next
observation say what happened; the failure of another one holds nothing up.

Upstream counterpart: podActions in pkg/kubelet/kuberuntime/kuberuntime_manager.go and the steps of its SyncPod.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum

from kubelet_py.core.pod_allocation import Amounts


class ContainerKind(StrEnum):
    """Which list of the pod spec a container is in."""

    INIT = "init"
    MAIN = "main"
    EPHEMERAL = "ephemeral"


@dataclass(frozen=True, slots=True)
class KillPod:
    """Stop every container, then every sandbox. The pod stays assigned; a new sandbox may follow."""

    cause: str

    @property
    def stops_plan(self) -> bool:
        """Nothing may start beside what should be dead."""
        return True


@dataclass(frozen=True, slots=True)
class KillContainer:
    """Stop one container. `grace_period_override_seconds` is set where the rule and not the pod says how long.

    `message` is the text of the Killing event.
    """

    container_id: str
    container_name: str
    cause: str
    message: str = ""
    grace_period_override_seconds: int | None = None

    @property
    def stops_plan(self) -> bool:
        """A second copy may not start while the first lives."""
        return True


@dataclass(frozen=True, slots=True)
class RemoveContainer:
    """Remove a dead container (pruned init containers, restart-all); its logs stay when `keep_log`.

    The newest log of a container carries its restart count on. `required`: what follows in the plan needs this done.
    """

    container_id: str
    container_name: str
    cause: str
    keep_log: bool = True
    required: bool = False

    @property
    def stops_plan(self) -> bool:
        """A restart of all containers must not begin half-way; a pruned leftover is only litter."""
        return self.required


@dataclass(frozen=True, slots=True)
class CreateSandbox:
    """Run a new sandbox with this attempt number."""

    attempt: int
    cause: str

    @property
    def stops_plan(self) -> bool:
        """Containers need the sandbox."""
        return True


@dataclass(frozen=True, slots=True)
class ContainerResize:
    """Other amounts of CPU and memory for a container that runs."""

    container_id: str
    container_name: str
    current: Amounts
    wanted: Amounts


@dataclass(frozen=True, slots=True)
class ResizePod:
    """Change the limits of the pod's cgroup and of containers while they run.

    `starts_follow`: a container with a new size is about to start, and needs the pod's cgroup to have room for it.
    """

    cause: str
    updates: tuple[ContainerResize, ...] = ()
    starts_follow: bool = False

    @property
    def stops_plan(self) -> bool:
        """Containers that only share the pod with one that is resized start all the same."""
        return self.starts_follow


@dataclass(frozen=True, slots=True)
class StartContainer:
    """Pull the image if need be, create and start a container in the ready sandbox.

    `after_exit_at_ns` is when the run before it ended; where it is set, the shell notes the restart under
    `backoff_key` with `backoff.next_entry`. `required`: what follows in the plan needs this container. `has_hook`: it
    has a postStart hook, and the main containers after it start when that is through, well or not. `leftovers` are the
    ids of its copies that were created and never started: they are removed first, since a start whose reply was lost
    can come true, and would pile up otherwise.
    """

    container_name: str
    kind: ContainerKind
    restart_count: int
    cause: str
    after_exit_at_ns: int | None = None
    backoff_key: str = ""
    required: bool = False
    has_hook: bool = False
    leftovers: tuple[str, ...] = ()

    @property
    def stops_plan(self) -> bool:
        """Init containers that run to completion are required; the others fail alone."""
        return self.required


@dataclass(frozen=True, slots=True)
class BackOff:
    """The container would be started but must wait; the pod is looked at again when the time is over.

    `message` goes into the waiting state with the reason CrashLoopBackOff.
    """

    container_name: str
    kind: ContainerKind
    remaining_seconds: float
    cause: str
    message: str = ""

    @property
    def stops_plan(self) -> bool:
        """Waiting is no failure."""
        return False


Action = KillPod | KillContainer | RemoveContainer | CreateSandbox | ResizePod | StartContainer | BackOff


def only_adds(actions: Iterable[Action]) -> bool:
    """Whether every sandbox and container that there was is left as it is."""
    return all(
        isinstance(action, CreateSandbox | BackOff) or (isinstance(action, StartContainer) and not action.leftovers)
        for action in actions
    )


def _may_join(action: Action, last: Action) -> bool:
    match action, last:
        case KillContainer(), KillContainer():
            return True
        case StartContainer(kind=ContainerKind.MAIN), StartContainer(kind=ContainerKind.MAIN, has_hook=False):
            return True
        case _:
            return False


def batches(actions: Iterable[Action]) -> tuple[tuple[Action, ...], ...]:
    """The actions in order, those that may run at the same time in one batch.

    Kills go together, and so do the starts of main containers, but for those after one with a postStart hook: proxies
    hold their pod's other containers up with one until they serve. Init containers start one after the other because
    the order of the spec is promised, removals because the last one carries the reason for the others.
    """
    result: list[list[Action]] = []
    for action in actions:
        if result and _may_join(action, result[-1][-1]):
            result[-1].append(action)
        else:
            result.append([action])
    return tuple(tuple(batch) for batch in result)
