"""The conditions of a pod that this agent owns, and the keeping of those it does not.

Upstream counterpart: pkg/kubelet/status/generate.go, PodConditionByKubelet in pkg/kubelet/types/pod_status.go.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime

from kubelet_py.api import core_v1
from kubelet_py.api.pod import containers_of, init_containers_of, is_sidecar, metadata_of, spec_of
from kubelet_py.core.pod_phase import FAILED, SUCCEEDED, Statuses

POD_SCHEDULED = "PodScheduled"
INITIALIZED = "Initialized"
READY = "Ready"
CONTAINERS_READY = "ContainersReady"
READY_TO_START = "PodReadyToStartContainers"
ALL_RESTARTING = "AllContainersRestarting"
DISRUPTION_TARGET = "DisruptionTarget"

OWNED = frozenset(
    (
        POD_SCHEDULED,
        INITIALIZED,
        READY,
        CONTAINERS_READY,
        READY_TO_START,
        ALL_RESTARTING,
        "PodResizePending",
        "PodResizeInProgress",
    )
)

TERMINATION_BY_KUBELET = "TerminationByKubelet"
POD_COMPLETED = "PodCompleted"
POD_FAILED = "PodFailed"
SANDBOX_NOT_READY = "PodSandboxNotReady"
UNKNOWN_STATUSES = "UnknownContainerStatuses"


@dataclass(frozen=True, slots=True)
class Verdict:
    """A condition without its bookkeeping."""

    type: str
    is_true: bool
    reason: str = ""
    message: str = ""


@dataclass(frozen=True, slots=True)
class ConditionFacts:
    """What conditions are computed from. `sandbox_problem` is empty when the sandbox serves."""

    phase: str
    statuses: Statuses
    sandbox_problem: str
    is_restarting_all: bool | None = None
    disruption: tuple[str, str] | None = None


def condition_of(conditions: Iterable[core_v1.PodCondition] | None, condition_type: str) -> core_v1.PodCondition | None:
    """The condition of that type."""
    return next((c for c in conditions or () if c.type == condition_type), None)


def _is_true(conditions: Iterable[core_v1.PodCondition] | None, condition_type: str) -> bool:
    found = condition_of(conditions, condition_type)
    return found is not None and found.status == "True"


def _listed(names: Iterable[str]) -> str:
    return f"[{' '.join(names)}]"


def _unready_message(unknown: Sequence[str], others: Sequence[str], word: str) -> str:
    parts = []
    if unknown:
        parts.append(f"containers with unknown status: {_listed(unknown)}")
    if others:
        parts.append(f"containers with {word} status: {_listed(others)}")
    return ", ".join(parts)


def judge_containers_ready(pod: core_v1.Pod, facts: ConditionFacts) -> Verdict:
    """All main containers and sidecars are ready."""
    watched = [c.name for c in init_containers_of(pod) if is_sidecar(c)] + [c.name for c in containers_of(pod)]
    unknown = [name for name in watched if name not in facts.statuses]
    unready = [name for name in watched if name in facts.statuses and not facts.statuses[name].ready]
    if facts.phase == SUCCEEDED and not unknown:
        return Verdict(CONTAINERS_READY, False, POD_COMPLETED)
    if facts.phase == FAILED:
        return Verdict(CONTAINERS_READY, False, POD_FAILED)
    message = _unready_message(unknown, unready, "unready")
    if message:
        return Verdict(CONTAINERS_READY, False, "ContainersNotReady", message)
    return Verdict(CONTAINERS_READY, True)


def judge_ready(pod: core_v1.Pod, containers_ready: Verdict, conditions: Sequence[core_v1.PodCondition]) -> Verdict:
    """The containers are ready, and so say all readiness gates among `conditions`."""
    if not containers_ready.is_true:
        return Verdict(READY, False, containers_ready.reason, containers_ready.message)
    messages = []
    for gate in spec_of(pod).readinessGates or ():
        found = condition_of(conditions, gate.conditionType)
        if found is None:
            messages.append(f'corresponding condition of pod readiness gate "{gate.conditionType}" does not exist.')
        elif found.status != "True":
            messages.append(
                f'the status of pod readiness gate "{gate.conditionType}" is not "True", but {found.status}'
            )
    if messages:
        return Verdict(READY, False, "ReadinessGatesNotReady", ", ".join(messages))
    return Verdict(READY, True)


def _has_any_main_started(pod: core_v1.Pod, statuses: Statuses) -> bool:
    """Some main container runs or has ended: initialization is behind the pod."""
    found = [statuses[container.name] for container in containers_of(pod) if container.name in statuses]
    return any(s.state is not None and (s.state.running or s.state.terminated) for s in found)


def judge_initialized(
    pod: core_v1.Pod, facts: ConditionFacts, previous: Sequence[core_v1.PodCondition] | None
) -> Verdict:
    """All init containers are through and all sidecars have started."""
    unknown, incomplete = [], []
    for container in init_containers_of(pod):
        status = facts.statuses.get(container.name)
        if status is None:
            unknown.append(container.name)
        elif not (status.started if is_sidecar(container) else status.ready):
            incomplete.append(container.name)
    if facts.phase == SUCCEEDED and not unknown:
        return Verdict(INITIALIZED, True, POD_COMPLETED)
    message = _unready_message(unknown, incomplete, "incomplete")
    # What was initialized stays so, also while all containers are being restarted in place.
    if not message or _has_any_main_started(pod, facts.statuses) or _is_true(previous, INITIALIZED):
        return Verdict(INITIALIZED, True)
    return Verdict(INITIALIZED, False, "ContainersNotInitialized", message)


def _judge_all_restarting(facts: ConditionFacts) -> Verdict:
    if facts.phase in (SUCCEEDED, FAILED):
        return Verdict(ALL_RESTARTING, False, POD_COMPLETED if facts.phase == SUCCEEDED else POD_FAILED)
    if facts.is_restarting_all:
        reason = "RestartAllContainersStarted"
        return Verdict(ALL_RESTARTING, True, reason, "container exited with restart policy rule")
    return Verdict(ALL_RESTARTING, False)


def compute_conditions(
    pod: core_v1.Pod,
    facts: ConditionFacts,
    previous: Sequence[core_v1.PodCondition] | None,
    now: datetime | None,
) -> list[core_v1.PodCondition]:
    """Foreign conditions as the API server has them, then ours; a time of transition moves only with the status."""
    at_server = (pod.status.conditions if pod.status else None) or []
    kept = [c for c in at_server if c.type not in OWNED and c.type != DISRUPTION_TARGET]
    # Others set it as well, and take it back.
    disruption = condition_of(at_server, DISRUPTION_TARGET) or condition_of(previous, DISRUPTION_TARGET)
    verdicts = []
    if facts.disruption is not None:
        verdicts.append(Verdict(DISRUPTION_TARGET, True, *facts.disruption))
    elif disruption is not None:
        kept.append(disruption)
    containers_ready = judge_containers_ready(pod, facts)
    problem = facts.sandbox_problem
    verdicts += [
        Verdict(READY_TO_START, not problem, SANDBOX_NOT_READY if problem else "", problem),
        judge_initialized(pod, facts, previous),
        judge_ready(pod, containers_ready, kept),
        containers_ready,
        Verdict(POD_SCHEDULED, True),
    ]
    if facts.is_restarting_all is not None:
        verdicts.append(_judge_all_restarting(facts))
    generation = metadata_of(pod).generation
    return [*kept, *(_with_history(verdict, previous, generation, now) for verdict in verdicts)]


def _with_history(
    verdict: Verdict,
    previous: Sequence[core_v1.PodCondition] | None,
    generation: int | None,
    now: datetime | None,
) -> core_v1.PodCondition:
    status = "True" if verdict.is_true else "False"
    old = condition_of(previous, verdict.type)
    is_unchanged = old is not None and old.status == status and old.lastTransitionTime is not None
    return core_v1.PodCondition(
        type=verdict.type,
        status=status,
        reason=verdict.reason or None,
        message=verdict.message or None,
        lastTransitionTime=old.lastTransitionTime if old is not None and is_unchanged else now,
        observedGeneration=generation,
    )
