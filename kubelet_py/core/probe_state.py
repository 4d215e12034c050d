"""What a probe's answers come to, and when it is due.

Owns defaults, thresholds, the value before the first answer, the order of the three kinds, and due times. Must not
know how a container is asked. Moments are seconds of any one clock; the caller says what time it is.

Upstream counterpart: doProbe and newWorker in pkg/kubelet/prober/worker.go. Deliberate differences: a probe is due
when its initial delay is over, not at the next tick of its period after that; liveness and readiness are due at the
moment when the startup probe succeeds.
"""

from dataclasses import dataclass, replace
from enum import StrEnum

from kubelet_py.api import core_v1
from kubelet_py.core.observed import NS_PER_SECOND, ProbeResult, ProbeVerdict

# What ran for this long before the agent started is taken to be as it was reported.
TRUSTED_BEFORE_START_SECONDS = 10
# How often one due probe is tried when it cannot be asked at all.
MAX_ATTEMPTS = 3


class ProbeKind(StrEnum):
    """The three kinds, with the words that begin their events."""

    STARTUP = "Startup"
    LIVENESS = "Liveness"
    READINESS = "Readiness"


@dataclass(frozen=True, slots=True)
class ProbeTiming:
    """Times and thresholds with the API's defaults filled in."""

    initial_delay_seconds: int = 0
    period_seconds: int = 10
    timeout_seconds: int = 1
    success_threshold: int = 1
    failure_threshold: int = 3


@dataclass(frozen=True, slots=True)
class ProbeState:
    """One probe of one container. `result` holds after thresholds; `last` and `run` count equal answers in a row.

    On hold, it is not asked again as long as the container lives.
    """

    result: ProbeResult
    last: ProbeResult | None = None
    run: int = 0
    is_on_hold: bool = False


@dataclass(frozen=True, slots=True)
class RunFacts:
    """The container that a probe begins with, and what was last reported of it."""

    container_id: str
    started_at_ns: int
    agent_started_at_ns: int = 0
    reported: core_v1.ContainerStatus | None = None


_INITIAL = {
    ProbeKind.STARTUP: ProbeResult.UNKNOWN,
    ProbeKind.LIVENESS: ProbeResult.SUCCESS,
    ProbeKind.READINESS: ProbeResult.FAILURE,
}


def timing_of(probe: core_v1.Probe) -> ProbeTiming:
    """The probe's times; what is unset or 0 gets the default, as the API server would have filled it in."""
    return ProbeTiming(
        initial_delay_seconds=max(probe.initialDelaySeconds or 0, 0),
        period_seconds=probe.periodSeconds or 10,
        timeout_seconds=probe.timeoutSeconds or 1,
        success_threshold=probe.successThreshold or 1,
        failure_threshold=probe.failureThreshold or 3,
    )


def probes_of(container: core_v1.Container) -> dict[ProbeKind, core_v1.Probe]:
    """The probes that a container has, the startup probe first."""
    found = {
        ProbeKind.STARTUP: container.startupProbe,
        ProbeKind.LIVENESS: container.livenessProbe,
        ProbeKind.READINESS: container.readinessProbe,
    }
    return {kind: probe for kind, probe in found.items() if probe is not None}


def initial_state(kind: ProbeKind, facts: RunFacts) -> ProbeState:
    """Before the first answer. After a restart of the agent, what was ready or started stays so until a probe fails."""
    if is_as_reported(facts) and facts.reported is not None:
        if kind is ProbeKind.STARTUP and facts.reported.started:
            return ProbeState(ProbeResult.SUCCESS, is_on_hold=True)
        if kind is ProbeKind.READINESS and facts.reported.ready:
            return ProbeState(ProbeResult.SUCCESS)
    return ProbeState(_INITIAL[kind])


def is_as_reported(facts: RunFacts) -> bool:
    """The container ran well before the agent did, and the report is about this very container."""
    reported_id = (facts.reported.containerID or "") if facts.reported is not None else ""
    is_older = facts.started_at_ns < facts.agent_started_at_ns - TRUSTED_BEFORE_START_SECONDS * NS_PER_SECOND
    return facts.started_at_ns > 0 and is_older and reported_id.rpartition("://")[2] == facts.container_id


def after_answer(kind: ProbeKind, timing: ProbeTiming, state: ProbeState, answer: ProbeResult) -> ProbeState:
    """The state after one more answer, SUCCESS or FAILURE. The result changes when the threshold is reached."""
    run = state.run + 1 if state.last is answer else 1
    threshold = timing.success_threshold if answer is ProbeResult.SUCCESS else timing.failure_threshold
    if run < threshold:
        return replace(state, last=answer, run=run)
    is_final = kind is ProbeKind.STARTUP or (kind is ProbeKind.LIVENESS and answer is ProbeResult.FAILURE)
    return ProbeState(answer, answer, 0 if is_final else run, is_final)


def when_terminating(kind: ProbeKind, state: ProbeState) -> ProbeState:
    """Nothing is restarted in a pod that ends, so only readiness goes on."""
    return state if kind is ProbeKind.READINESS else ProbeState(ProbeResult.SUCCESS, is_on_hold=True)


def is_due_now(kind: ProbeKind, state: ProbeState, startup: ProbeState | None) -> bool:
    """Whether a probe whose time has come is asked: not on hold, and nothing before the startup probe's success."""
    if state.is_on_hold:
        return False
    return kind is ProbeKind.STARTUP or startup is None or startup.result is ProbeResult.SUCCESS


def first_due_seconds(
    timing: ProbeTiming, now_seconds: float, container_age_seconds: float, agent_age_seconds: float, jitter: float
) -> float:
    """When to ask for the first time. `jitter` from 0 to 1 spreads the probes of an agent that has just started."""
    spread_seconds = timing.period_seconds * jitter if agent_age_seconds < timing.period_seconds else 0.0
    delay_seconds = max(timing.initial_delay_seconds - container_age_seconds, 0.0)
    return now_seconds + max(spread_seconds, delay_seconds)


def next_due_seconds(timing: ProbeTiming, due_seconds: float, now_seconds: float) -> float:
    """The next time after one: at a fixed rate; times missed meanwhile are made up for by one, at once."""
    return max(due_seconds + timing.period_seconds, now_seconds)


def verdict_of(states: dict[ProbeKind, ProbeState]) -> ProbeVerdict:
    """What the probes of one container come to."""

    def result(kind: ProbeKind) -> ProbeResult | None:
        state = states.get(kind)
        return state.result if state is not None else None

    return ProbeVerdict(result(ProbeKind.STARTUP), result(ProbeKind.LIVENESS), result(ProbeKind.READINESS))
