"""When a probe is due and what its answers come to."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kubelet_py.api import core_v1
from kubelet_py.core import probe_state
from kubelet_py.core.observed import ProbeResult, ProbeVerdict
from kubelet_py.core.probe_state import ProbeKind, ProbeState, ProbeTiming, RunFacts

SUCCESS, FAILURE, UNKNOWN = ProbeResult.SUCCESS, ProbeResult.FAILURE, ProbeResult.UNKNOWN
NS = 1_000_000_000
ANSWERS = st.lists(st.sampled_from([SUCCESS, FAILURE]), max_size=30)
TIMINGS = st.builds(
    ProbeTiming,
    initial_delay_seconds=st.integers(0, 60),
    period_seconds=st.integers(1, 60),
    success_threshold=st.integers(1, 4),
    failure_threshold=st.integers(1, 4),
)


def reported(**fields: bool) -> core_v1.ContainerStatus:
    """A status that was reported of the container `c1`."""
    status = core_v1.ContainerStatus(
        name="main", image="", imageID="", ready=False, restartCount=0, containerID="docker://c1"
    )
    for name, value in fields.items():
        setattr(status, name, value)
    return status


def fed(kind: ProbeKind, timing: ProbeTiming, *answers: ProbeResult) -> ProbeState:
    """The state after these answers."""
    state = probe_state.initial_state(kind, RunFacts("c1", 0))
    for answer in answers:
        state = probe_state.after_answer(kind, timing, state, answer)
    return state


def test_what_is_unset_gets_the_defaults_of_the_api() -> None:
    """An empty probe, one with zeros, and one that says everything."""
    assert probe_state.timing_of(core_v1.Probe()) == ProbeTiming(0, 10, 1, 1, 3)
    zeros = core_v1.Probe(
        initialDelaySeconds=0, periodSeconds=0, timeoutSeconds=0, successThreshold=0, failureThreshold=0
    )
    assert probe_state.timing_of(zeros) == ProbeTiming()
    full = core_v1.Probe(
        initialDelaySeconds=5, periodSeconds=2, timeoutSeconds=3, successThreshold=4, failureThreshold=6
    )
    assert probe_state.timing_of(full) == ProbeTiming(5, 2, 3, 4, 6)


def test_a_container_has_the_probes_that_it_names() -> None:
    """None, some, and the startup probe first."""
    assert probe_state.probes_of(core_v1.Container(name="main")) == {}
    one, two = core_v1.Probe(periodSeconds=1), core_v1.Probe(periodSeconds=2)
    found = probe_state.probes_of(core_v1.Container(name="main", readinessProbe=two, startupProbe=one))
    assert list(found.items()) == [(ProbeKind.STARTUP, one), (ProbeKind.READINESS, two)]


@pytest.mark.parametrize(
    ("kind", "result"),
    [(ProbeKind.STARTUP, UNKNOWN), (ProbeKind.LIVENESS, SUCCESS), (ProbeKind.READINESS, FAILURE)],
)
def test_before_the_first_answer(kind: ProbeKind, result: ProbeResult) -> None:
    """A new container is not ready, not started, and alive."""
    assert probe_state.initial_state(kind, RunFacts("c1", 0)) == ProbeState(result)


def test_after_a_restart_of_the_agent_a_report_is_believed() -> None:
    """What was started is not asked again whether it has; what was ready stays so until a probe says otherwise."""
    facts = RunFacts("c1", 100 * NS, 111 * NS, reported(started=True, ready=True))
    assert probe_state.initial_state(ProbeKind.STARTUP, facts) == ProbeState(SUCCESS, is_on_hold=True)
    assert probe_state.initial_state(ProbeKind.READINESS, facts) == ProbeState(SUCCESS)
    assert probe_state.initial_state(ProbeKind.LIVENESS, facts) == ProbeState(SUCCESS)
    unready = RunFacts("c1", 100 * NS, 111 * NS, reported(started=False, ready=False))
    assert probe_state.initial_state(ProbeKind.STARTUP, unready) == ProbeState(UNKNOWN)
    assert probe_state.initial_state(ProbeKind.READINESS, unready) == ProbeState(FAILURE)


@pytest.mark.parametrize(
    "facts",
    [
        RunFacts("c1", 100 * NS, 110 * NS, reported(ready=True)),  # started too shortly before the agent
        RunFacts("c1", 0, 111 * NS, reported(ready=True)),  # nobody knows when it started
        RunFacts("c2", 100 * NS, 111 * NS, reported(ready=True)),  # the report is about another run
        RunFacts("c1", 100 * NS, 111 * NS, None),  # no report
    ],
)
def test_a_report_is_not_believed_when_it_may_be_about_something_else(facts: RunFacts) -> None:
    """Then the container begins unready."""
    assert not probe_state.is_as_reported(facts)
    assert probe_state.initial_state(ProbeKind.READINESS, facts) == ProbeState(FAILURE)


def test_a_result_changes_when_its_threshold_is_reached() -> None:
    """Two successes after one failure, then two failures in a row: a success between them begins the count anew."""
    timing = ProbeTiming(success_threshold=2, failure_threshold=2)
    assert fed(ProbeKind.READINESS, timing, FAILURE, SUCCESS).result is FAILURE
    assert fed(ProbeKind.READINESS, timing, FAILURE, SUCCESS, SUCCESS).result is SUCCESS
    assert fed(ProbeKind.READINESS, timing, SUCCESS, SUCCESS, FAILURE, SUCCESS, FAILURE).result is SUCCESS
    assert fed(ProbeKind.READINESS, timing, SUCCESS, SUCCESS, FAILURE, FAILURE).result is FAILURE


def test_each_answer_has_its_own_threshold() -> None:
    """Five failures make it unready, and one success ready again; and the other way round."""
    timing = ProbeTiming(success_threshold=1, failure_threshold=5)
    assert fed(ProbeKind.READINESS, timing, SUCCESS, *[FAILURE] * 4).result is SUCCESS
    assert fed(ProbeKind.READINESS, timing, SUCCESS, *[FAILURE] * 5).result is FAILURE
    assert fed(ProbeKind.READINESS, timing, SUCCESS, *[FAILURE] * 5, SUCCESS).result is SUCCESS
    timing = ProbeTiming(success_threshold=3, failure_threshold=1)
    assert fed(ProbeKind.READINESS, timing, SUCCESS, SUCCESS).result is FAILURE
    assert fed(ProbeKind.READINESS, timing, *[SUCCESS] * 3, FAILURE).result is FAILURE


def test_a_container_that_is_to_be_restarted_is_asked_no_more() -> None:
    """Liveness and startup are on hold after the failure; startup also after its success, readiness never."""
    once = ProbeTiming(failure_threshold=1)
    assert fed(ProbeKind.LIVENESS, once, FAILURE) == ProbeState(FAILURE, FAILURE, 0, True)
    assert fed(ProbeKind.STARTUP, once, FAILURE).is_on_hold
    assert fed(ProbeKind.STARTUP, once, SUCCESS).is_on_hold
    assert not fed(ProbeKind.LIVENESS, once, SUCCESS).is_on_hold
    assert not fed(ProbeKind.READINESS, once, FAILURE).is_on_hold


@given(TIMINGS, ANSWERS)
def test_readiness_is_what_the_last_long_enough_run_of_answers_said(
    timing: ProbeTiming, answers: list[ProbeResult]
) -> None:
    """Counted over from the whole history, without the machine."""
    expected, run, last = FAILURE, 0, None
    for answer in answers:
        run, last = (run + 1 if answer is last else 1), answer
        needed = timing.success_threshold if answer is SUCCESS else timing.failure_threshold
        expected = answer if run >= needed else expected
    assert fed(ProbeKind.READINESS, timing, *answers).result is expected


@given(st.sampled_from(ProbeKind), TIMINGS, ANSWERS)
def test_only_startup_and_failed_liveness_are_ever_on_hold(
    kind: ProbeKind, timing: ProbeTiming, answers: list[ProbeResult]
) -> None:
    """A probe that is on hold has a result that explains it."""
    state = fed(kind, timing, *answers)
    if state.is_on_hold:
        assert kind is ProbeKind.STARTUP or (kind is ProbeKind.LIVENESS and state.result is FAILURE)


def test_in_a_pod_that_ends_only_readiness_goes_on() -> None:
    """The others count as a success, since nothing would be restarted."""
    failed = ProbeState(FAILURE, FAILURE, 1)
    assert probe_state.when_terminating(ProbeKind.READINESS, failed) is failed
    for kind in (ProbeKind.LIVENESS, ProbeKind.STARTUP):
        assert probe_state.when_terminating(kind, failed) == ProbeState(SUCCESS, is_on_hold=True)


def test_nothing_is_asked_before_the_startup_probe_succeeded() -> None:
    """Without a startup probe at once; with one after its success; a probe on hold never."""
    asked = ProbeState(SUCCESS)
    for kind in (ProbeKind.LIVENESS, ProbeKind.READINESS):
        assert probe_state.is_due_now(kind, asked, None)
        assert not probe_state.is_due_now(kind, asked, ProbeState(UNKNOWN))
        assert probe_state.is_due_now(kind, asked, ProbeState(SUCCESS, is_on_hold=True))
        assert not probe_state.is_due_now(kind, ProbeState(FAILURE, is_on_hold=True), None)
    assert probe_state.is_due_now(ProbeKind.STARTUP, ProbeState(UNKNOWN), ProbeState(UNKNOWN))


def test_the_first_question_waits_for_the_initial_delay() -> None:
    """Counted from the start of the container, not from when the agent saw it."""
    timing = ProbeTiming(initial_delay_seconds=10)
    assert probe_state.first_due_seconds(timing, 1000.0, 0.0, 3600.0, 0.9) == 1010.0
    assert probe_state.first_due_seconds(timing, 1000.0, 4.0, 3600.0, 0.9) == 1006.0
    assert probe_state.first_due_seconds(timing, 1000.0, 400.0, 3600.0, 0.9) == 1000.0


def test_the_probes_of_a_fresh_agent_are_spread() -> None:
    """Over one period, as long as the agent is younger than that; a longer initial delay holds all the same."""
    timing = ProbeTiming(period_seconds=20)
    assert probe_state.first_due_seconds(timing, 1000.0, 500.0, 5.0, 0.5) == 1010.0
    assert probe_state.first_due_seconds(timing, 1000.0, 500.0, 20.0, 0.5) == 1000.0
    slow = ProbeTiming(period_seconds=20, initial_delay_seconds=60)
    assert probe_state.first_due_seconds(slow, 1000.0, 0.0, 5.0, 0.5) == 1060.0


@given(TIMINGS, st.floats(0, 1e6), st.floats(0, 1e3))
def test_questions_come_at_a_fixed_rate_and_never_in_the_past(timing: ProbeTiming, due: float, late: float) -> None:
    """An answer that took less than a period does not move the next question; a longer one brings it at once."""
    following = probe_state.next_due_seconds(timing, due, due + late)
    assert following >= due + late
    assert following == (due + timing.period_seconds if late <= timing.period_seconds else due + late)


def test_a_verdict_holds_the_results_of_all_three() -> None:
    """None where there is no such probe."""
    assert probe_state.verdict_of({}) == ProbeVerdict()
    states = {kind: ProbeState(result) for kind, result in zip(ProbeKind, (SUCCESS, FAILURE, UNKNOWN), strict=True)}
    assert probe_state.verdict_of(states) == ProbeVerdict(startup=SUCCESS, liveness=FAILURE, readiness=UNKNOWN)
