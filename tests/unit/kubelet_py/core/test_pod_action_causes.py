"""Each action of a plan names its cause, as `kubelet-py why` shows it; and a plan has nothing beside what is named."""

from typing import Any

import pytest

from kubelet_py.api import core_v1
from kubelet_py.core.actions import KillContainer, KillPod, RemoveContainer, ResizePod, StartContainer
from kubelet_py.core.backoff import BackoffEntry, crash_backoff_key
from kubelet_py.core.observed import ObservedPod, ProbeResult, ProbeVerdict
from kubelet_py.core.pod_actions import PodContext, compute_pod_actions
from kubelet_py.core.pod_allocation import resources_of
from tests.sim.pods import (
    CREATED,
    EXITED,
    NOTHING,
    NOW_NS,
    SECOND,
    UNKNOWN,
    make_container,
    make_observed,
    make_pod,
    make_run,
    make_sandbox,
    make_sidecar,
    restart_rule,
)

NEVER_STARTED = "the container was created and never started"
STATE_UNKNOWN = "the state of the container is unknown"
BEFORE_IS_THROUGH = "the init container before it is through"
PROBE = {"tcpSocket": {"port": 80}}
DEAD_SANDBOX = [make_sandbox("s0", 0, ready=False)]


def told(pod: core_v1.Pod, observed: ObservedPod, **context: Any) -> list[tuple[str, str, str]]:
    """Kind, container and cause of each action."""
    actions = compute_pod_actions(pod, observed, PodContext(NOW_NS + 3600 * SECOND, **context))
    return [(type(action).__name__, getattr(action, "container_name", ""), action.cause) for action in actions]


def start(name: str, cause: str) -> tuple[str, str, str]:
    return StartContainer.__name__, name, cause


def kill(name: str, cause: str) -> tuple[str, str, str]:
    return KillContainer.__name__, name, cause


class TestInitContainers:
    POD = make_pod("app", init=["one", "two", "three"])

    @pytest.mark.parametrize(
        ("run", "expected"),
        [
            ({}, [start("one", "the pod has a sandbox")]),
            ({"name": "one", "state": CREATED}, [start("one", NEVER_STARTED)]),
            ({"name": "one", "state": EXITED}, [start("two", BEFORE_IS_THROUGH)]),
            ({"name": "one", "state": EXITED, "sandbox_id": ""}, [start("two", BEFORE_IS_THROUGH)]),
            ({"name": "one", "state": EXITED, "sandbox_id": "s7"}, [start("one", "the pod has a sandbox")]),
            ({"name": "one", "state": UNKNOWN}, [kill("one", STATE_UNKNOWN), start("one", STATE_UNKNOWN)]),
        ],
    )
    def test_by_state(self, run: dict[str, Any], expected: list[tuple[str, str, str]]) -> None:
        assert told(self.POD, make_observed(*([make_run(**run)] if run else []))) == expected

    def test_a_new_sandbox_begins_with_the_first(self) -> None:
        assert told(self.POD, NOTHING) == [
            ("CreateSandbox", "", "no pod sandbox exists"),
            start("one", "the pod has a new sandbox"),
        ]

    def test_no_sandbox_for_an_initialization_that_failed_for_good(self) -> None:
        pod = make_pod("app", init=["one"], restartPolicy="Never")
        observed = make_observed(
            make_run("one", EXITED, exit_code=1), make_run("app", sandbox_id="s0"), sandboxes=DEAD_SANDBOX
        )
        assert told(pod, observed) == [
            ("KillPod", "", "pod sandbox is not ready, and an init container may not run again")
        ]

    @pytest.mark.parametrize(("exit_code", "kind"), [(7, "StartContainer"), (8, "KillPod")])
    def test_rules_look_at_the_exit_code(self, exit_code: int, kind: str) -> None:
        rules = [restart_rule("Restart", "In", 7)]
        one = make_container("one", restartPolicy="Never", restartPolicyRules=rules)
        observed = make_observed(make_run("one", EXITED, exit_code=exit_code))
        ((found, _, cause),) = told(make_pod("app", init=[one]), observed)
        assert (found, cause) == (kind, f"init container one failed with exit code {exit_code}")

    def test_a_main_container_that_runs_is_enough_wherever_it_stands(self) -> None:
        pod = make_pod("absent", "app", init=["one"])
        assert told(pod, make_observed(make_run("app"))) == [start("absent", "the container does not exist")]

    def test_of_old_runs_only_the_newest_keeps_its_log(self) -> None:
        """In the same sandbox the newest run itself stays; with a new sandbox they all go."""
        runs = make_run("one", restart_count=1), make_run("one", EXITED)
        (pruned,) = compute_pod_actions(self.POD, make_observed(*runs), PodContext(NOW_NS))
        assert pruned == RemoveContainer("one-0", "one", "a newer run of the init container is known", keep_log=False)
        actions = compute_pod_actions(self.POD, make_observed(*runs, sandboxes=DEAD_SANDBOX), PodContext(NOW_NS))
        assert [(a.container_id, a.keep_log) for a in actions if isinstance(a, RemoveContainer)] == [
            ("one-1", True),
            ("one-0", False),
        ]


class TestSidecars:
    POD = make_pod("app", init=[make_sidecar("side")])

    @pytest.mark.parametrize(
        ("state", "expected"),
        [
            (None, [start("side", "the sidecar is missing")]),
            (CREATED, [start("side", NEVER_STARTED)]),
            (EXITED, [start("side", "sidecar side ended with exit code 3")]),
            (UNKNOWN, [kill("side", STATE_UNKNOWN), start("side", STATE_UNKNOWN)]),
        ],
    )
    def test_by_state(self, state: Any, expected: list[tuple[str, str, str]]) -> None:
        runs = [make_run("app"), *([make_run("side", state, exit_code=3)] if state else [])]
        assert told(self.POD, make_observed(*runs)) == expected

    @pytest.mark.parametrize("kind", ["startup", "liveness"])
    def test_a_failed_probe(self, kind: str) -> None:
        pod = make_pod("app", init=[make_sidecar("side", **{f"{kind}Probe": PROBE})])
        results = {"side-0": ProbeVerdict(**{kind: ProbeResult.FAILURE})}
        cause = f"Init container side failed {kind} probe"
        observed = make_observed(make_run("app"), make_run("side"))
        assert told(pod, observed, probe_results=results) == [kill("side", cause), start("side", cause)]

    def test_a_size_that_needs_a_restart(self) -> None:
        def pod(cpu: str) -> core_v1.Pod:
            policy = [{"resourceName": "cpu", "restartPolicy": "RestartContainer"}]
            return make_pod(
                "app", init=[make_sidecar("side", resources={"requests": {"cpu": cpu}}, resizePolicy=policy)]
            )

        cause = "Container side resize requires restart"
        observed = make_observed(make_run("app"), make_run("side"))
        assert told(pod("200m"), observed, actuated=resources_of(pod("100m"))) == [
            kill("side", cause),
            (ResizePod.__name__, "", "the allocated resources changed"),
            start("side", cause),
        ]


class TestMessages:
    """What the events of a kill say, in the Go kubelet's words."""

    @pytest.mark.parametrize(
        ("pod", "name", "word"),
        [
            (make_pod("app"), "app", "Container"),
            (make_pod("app", init=["one"]), "one", "Init container"),
            (make_pod("app", init=[make_sidecar("one")]), "one", "Init container"),
        ],
    )
    def test_a_state_that_nobody_knows(self, pod: core_v1.Pod, name: str, word: str) -> None:
        actions = compute_pod_actions(pod, make_observed(make_run(name, UNKNOWN)), PodContext(NOW_NS))
        message = f'{word} is in "unknown" state, try killing it before restart'
        assert actions[0] == KillContainer(f"{name}-0", name, STATE_UNKNOWN, message)


class TestStarts:
    def test_an_ephemeral_container(self) -> None:
        pod = make_pod("app", ephemeral=["debug"])
        assert told(pod, make_observed(make_run("app"))) == [start("debug", "the container is new")]

    def test_copies_that_never_started_are_removed_with_the_start(self) -> None:
        """And no run that ended."""
        runs = make_run("app", CREATED, 2), make_run("app", CREATED, 1), make_run("app", EXITED, 0, exit_code=1)
        (action,) = compute_pod_actions(make_pod("app"), make_observed(*runs), PodContext(NOW_NS))
        assert isinstance(action, StartContainer)
        assert action.leftovers == ("app-2", "app-1")

    def test_the_last_of_the_wait_is_waited_for(self) -> None:
        """Half a second too. A container of which no run is known waits for nothing."""
        pod = make_pod("app")
        assert pod.spec is not None
        entries = {crash_backoff_key(pod.spec.containers[0]): BackoffEntry(10.0, NOW_NS / SECOND)}
        ended = make_observed(make_run("app", EXITED, finished_at_ns=NOW_NS))
        now_ns = NOW_NS + 9 * SECOND + SECOND // 2
        (action,) = compute_pod_actions(pod, ended, PodContext(now_ns, crash_backoff=entries))
        assert type(action).__name__ == "BackOff"
        (action,) = compute_pod_actions(pod, make_observed(), PodContext(now_ns, crash_backoff=entries))
        assert isinstance(action, StartContainer)


def test_a_pod_of_which_two_containers_are_kept_lives() -> None:
    pod = make_pod("a", "b", restartPolicy="Never")
    assert told(pod, make_observed(make_run("a"), make_run("b"))) == []
    assert told(pod, make_observed(make_run("a", EXITED), make_run("b", EXITED))) == [
        (KillPod.__name__, "", "no container is left to run")
    ]
