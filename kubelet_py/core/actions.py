"""The steps that a pod needs next, as frozen values with their causes.

`compute_pod_actions` returns a tuple of these in the order in which the shell runs them. The shell stops at the first
failure and lets the next observation say what happened. Actions of the kinds named in `PARALLEL` that stand side by
side may run at the same time.
"""

from dataclasses import dataclass
from enum import StrEnum


class ContainerKind(StrEnum):
    """Which list of the pod spec a container is in."""

    INIT = "init"
    MAIN = "main"
    EPHEMERAL = "ephemeral"


@dataclass(frozen=True, slots=True)
class KillPod:
    """Stop every container, then every sandbox. The pod stays assigned; a new sandbox may follow."""

    cause: str


@dataclass(frozen=True, slots=True)
class KillContainer:
    """Stop one container. `grace_period_override_seconds` is set where the rule and not the pod says how long."""

    container_id: str
    container_name: str
    cause: str
    message: str = ""
    grace_period_override_seconds: int | None = None


@dataclass(frozen=True, slots=True)
class RemoveContainer:
    """Remove a dead container (pruned init containers, restart-all); its logs stay when `keep_log`."""

    container_id: str
    container_name: str
    cause: str
    keep_log: bool = True


@dataclass(frozen=True, slots=True)
class CreateSandbox:
    """Run a new sandbox with this attempt number."""

    attempt: int
    cause: str


@dataclass(frozen=True, slots=True)
class StartContainer:
    """Pull the image if need be, create and start a container in the ready sandbox."""

    container_name: str
    kind: ContainerKind
    restart_count: int
    cause: str


@dataclass(frozen=True, slots=True)
class BackOff:
    """The container would be started but must wait; the pod is looked at again when the time is over."""

    container_name: str
    kind: ContainerKind
    remaining_seconds: float
    cause: str


Action = KillPod | KillContainer | RemoveContainer | CreateSandbox | StartContainer | BackOff

PARALLEL: tuple[type[Action], ...] = (KillContainer, RemoveContainer, StartContainer)
