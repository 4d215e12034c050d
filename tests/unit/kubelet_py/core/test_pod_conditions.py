"""Conditions: ours computed, foreign ones kept."""

from datetime import UTC, datetime
from typing import Any

import pytest

from kubelet_py.api import codec, core_v1
from kubelet_py.core.pod_conditions import (
    ConditionFacts,
    Verdict,
    compute_conditions,
    condition_of,
    judge_containers_ready,
    judge_initialized,
    judge_ready,
)
from tests.sim.pods import make_container, make_pod, make_sidecar, restart_rule

NOW = datetime(2024, 1, 2, tzinfo=UTC)
BEFORE = datetime(2024, 1, 1, tzinfo=UTC)


def container(ready: bool = False, started: bool = False, **state: Any) -> core_v1.ContainerStatus:
    fields = {"name": "", "image": "", "imageID": "", "restartCount": 0, "ready": ready, "started": started}
    return codec.from_builtins(core_v1.ContainerStatus, {**fields, "state": state or {"waiting": {}}})


def facts(phase: str = "Running", sandbox_problem: str = "", **statuses: core_v1.ContainerStatus) -> ConditionFacts:
    return ConditionFacts(phase, statuses, sandbox_problem)


def condition(type_: str, status: str = "True", **more: Any) -> core_v1.PodCondition:
    return core_v1.PodCondition(type=type_, status=status, **more)


class TestContainersReady:
    POD = make_pod("a", "b", init=["i", make_sidecar("s")])

    def test_all_ready(self) -> None:
        """Main containers and sidecars; plain init containers are not asked."""
        ready = container(ready=True)
        verdict = judge_containers_ready(self.POD, facts(a=ready, b=ready, s=ready))
        assert verdict == Verdict("ContainersReady", True)

    def test_who_is_not(self) -> None:
        verdict = judge_containers_ready(self.POD, facts(a=container(), s=container()))
        message = "containers with unknown status: [b], containers with unready status: [s a]"
        assert verdict == Verdict("ContainersReady", False, "ContainersNotReady", message)

    def test_final_phases(self) -> None:
        """A pod that succeeded and one that failed are not ready, for a reason of their own."""
        done = container()
        completed = Verdict("ContainersReady", False, "PodCompleted")
        assert judge_containers_ready(self.POD, facts("Succeeded", a=done, b=done, s=done)) == completed
        assert judge_containers_ready(self.POD, facts("Succeeded", a=done)).reason == "ContainersNotReady"
        assert judge_containers_ready(self.POD, facts("Failed")) == Verdict("ContainersReady", False, "PodFailed")


class TestReady:
    def test_follows_the_containers(self) -> None:
        unready = Verdict("ContainersReady", False, "PodFailed", "m")
        assert judge_ready(make_pod("a"), unready, []) == Verdict("Ready", False, "PodFailed", "m")
        assert judge_ready(make_pod("a"), Verdict("ContainersReady", True), []) == Verdict("Ready", True)

    def test_gates_have_a_say(self) -> None:
        pod = make_pod("a", readinessGates=[{"conditionType": t} for t in ("x/up", "x/no", "x/none")])
        verdict = judge_ready(pod, Verdict("ContainersReady", True), [condition("x/up"), condition("x/no", "False")])
        assert (verdict.type, verdict.is_true, verdict.reason) == ("Ready", False, "ReadinessGatesNotReady")
        assert verdict.message == (
            'the status of pod readiness gate "x/no" is not "True", but False, '
            'corresponding condition of pod readiness gate "x/none" does not exist.'
        )


class TestInitialized:
    POD = make_pod("a", init=["i", make_sidecar("s")])

    def test_all_through(self) -> None:
        done = facts(i=container(ready=True), s=container(started=True))
        assert judge_initialized(self.POD, done, None) == Verdict("Initialized", True)
        assert judge_initialized(make_pod("a"), facts(), None) == Verdict("Initialized", True)

    def test_who_is_not(self) -> None:
        message = "containers with unknown status: [i], containers with incomplete status: [s]"
        expected = Verdict("Initialized", False, "ContainersNotInitialized", message)
        assert judge_initialized(self.POD, facts(s=container(ready=True)), None) == expected

    def test_once_initialized_always_initialized(self) -> None:
        """A sidecar that restarts, and a restart of all containers, do not take it back."""
        unready = container()
        assert judge_initialized(self.POD, facts(i=unready, s=unready, a=container(running={})), None).is_true
        assert judge_initialized(self.POD, facts(i=unready, s=unready), [condition("Initialized")]).is_true
        assert not judge_initialized(self.POD, facts(i=unready, s=unready), [condition("Initialized", "False")]).is_true

    def test_a_pod_that_succeeded(self) -> None:
        done = facts("Succeeded", i=container(), s=container())
        assert judge_initialized(self.POD, done, None) == Verdict("Initialized", True, "PodCompleted")
        assert judge_initialized(self.POD, facts("Succeeded", i=container()), None).reason == (
            "ContainersNotInitialized"
        )


def compute(pod: core_v1.Pod, of: ConditionFacts, *previous: core_v1.PodCondition) -> dict[str, core_v1.PodCondition]:
    made = compute_conditions(pod, of, previous, NOW)
    assert len({c.type for c in made}) == len(made)
    return {c.type: c for c in made}


class TestAll:
    def test_the_ones_we_own(self) -> None:
        """With generation and time."""
        pod = make_pod("app", metadata={"generation": 7})
        made = compute(pod, facts(app=container(ready=True)))
        assert list(made) == ["PodReadyToStartContainers", "Initialized", "Ready", "ContainersReady", "PodScheduled"]
        assert all(c == condition(c.type, lastTransitionTime=NOW, observedGeneration=7) for c in made.values())

    def test_what_was_initialized_stays_so(self) -> None:
        """As the status that is held says, though the containers are removed for a restart."""
        pod = make_pod("app", init=["setup"])
        waits = facts(setup=container(), app=container())
        assert compute(pod, waits, condition("Initialized"))["Initialized"].status == "True"
        assert compute(pod, waits)["Initialized"].status == "False"

    def test_the_sandbox(self) -> None:
        made = compute(make_pod("app"), facts(sandbox_problem="pod sandbox is not ready"))["PodReadyToStartContainers"]
        assert (made.status, made.reason, made.message) == ("False", "PodSandboxNotReady", "pod sandbox is not ready")

    def test_times_move_only_with_the_status(self) -> None:
        """A new reason or generation is no transition; a time that is missing is set."""
        unready = condition("Ready", "False", lastTransitionTime=BEFORE, reason="Other", observedGeneration=1)
        was_ready = condition("ContainersReady", "True", lastTransitionTime=BEFORE)
        timeless = condition("PodScheduled")
        made = compute(make_pod("app"), facts(app=container()), unready, was_ready, timeless)
        assert (made["Ready"].lastTransitionTime, made["Ready"].reason) == (BEFORE, "ContainersNotReady")
        assert made["ContainersReady"].lastTransitionTime == NOW
        assert made["PodScheduled"].lastTransitionTime == NOW

    def test_foreign_conditions_are_kept_as_the_server_has_them(self) -> None:
        """Ours of an older time are not."""
        at_server = {"conditions": [{"type": "x/gate", "status": "True"}, {"type": "Ready", "status": "True"}]}
        pod = make_pod("app", status=at_server, readinessGates=[{"conditionType": "x/gate"}])
        made = compute(pod, facts(app=container(ready=True)), condition("x/gate", "False"), condition("x/old"))
        assert (made["x/gate"].status, made["Ready"].status, "x/old" in made) == ("True", "True", False)

    def test_a_disruption_is_said_once_and_kept(self) -> None:
        """Also when an earlier agent or another party said it."""
        of = ConditionFacts("Failed", {}, "", disruption=("TerminationByKubelet", "low on memory"))
        made = compute(make_pod("app"), of)["DisruptionTarget"]
        assert (made.status, made.reason, made.message) == ("True", "TerminationByKubelet", "low on memory")
        assert compute(make_pod("app"), facts("Failed"), made)["DisruptionTarget"] == made
        foreign = make_pod("app", status={"conditions": [{"type": "DisruptionTarget", "status": "True"}]})
        assert compute(foreign, facts())["DisruptionTarget"] == condition("DisruptionTarget")

    def test_a_disruption_that_others_take_back_is_taken_back(self) -> None:
        withdrawn = make_pod("app", status={"conditions": [{"type": "DisruptionTarget", "status": "False"}]})
        assert compute(withdrawn, facts(), condition("DisruptionTarget"))["DisruptionTarget"].status == "False"

    @pytest.mark.parametrize(
        ("phase", "restarting", "status", "reason"),
        [
            ("Running", True, "True", "RestartAllContainersStarted"),
            ("Running", False, "False", None),
            ("Succeeded", False, "False", "PodCompleted"),
            ("Failed", True, "False", "PodFailed"),
        ],
    )
    def test_a_restart_of_all_containers(self, phase: str, restarting: bool, status: str, reason: str | None) -> None:
        """Only pods that could do it have the condition."""
        rules = [restart_rule("RestartAllContainers", "In", 1)]
        pod = make_pod(make_container("app", restartPolicy="Never", restartPolicyRules=rules))
        made = compute(pod, ConditionFacts(phase, {}, "", is_restarting_all=restarting))["AllContainersRestarting"]
        assert (made.status, made.reason) == (status, reason)
        assert made.message == ("container exited with restart policy rule" if status == "True" else None)
        assert "AllContainersRestarting" not in compute(pod, ConditionFacts(phase, {}, ""))


def test_a_condition_by_type() -> None:
    """None where there is none."""
    assert condition_of([condition("a"), condition("b")], "b") == condition("b")
    assert condition_of(None, "b") is None
