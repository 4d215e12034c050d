"""The plan for a pod, rule by rule."""

import pytest

from kubelet_py.api import core_v1
from kubelet_py.core.actions import (
    Action,
    BackOff,
    ContainerKind,
    CreateSandbox,
    KillContainer,
    KillPod,
    RemoveContainer,
    StartContainer,
)
from kubelet_py.core.backoff import BackoffEntry, crash_backoff_key
from kubelet_py.core.observed import ContainerState, ObservedContainer, ObservedPod, ProbeResult, ProbeVerdict
from kubelet_py.core.pod_actions import POD_DONE, PodContext, compute_pod_actions
from tests.sim.pods import (
    CREATED,
    EXITED,
    NOTHING,
    NOW_NS,
    RUNNING,
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

PROBE = {"tcpSocket": {"port": 80}}
CONTEXT = PodContext(NOW_NS + 3600 * SECOND)
DEAD_SANDBOX = [make_sandbox("s0", 0, ready=False)]


def plan(pod: core_v1.Pod, observed: ObservedPod, context: PodContext = CONTEXT) -> tuple[Action, ...]:
    return compute_pod_actions(pod, observed, context)


def starts(actions: tuple[Action, ...]) -> list[str]:
    return [a.container_name for a in actions if isinstance(a, StartContainer)]


def kinds(actions: tuple[Action, ...]) -> list[str]:
    return [type(a).__name__ for a in actions]


def judged(run: ObservedContainer, **verdict: ProbeResult) -> PodContext:
    return PodContext(CONTEXT.now_ns, probe_results={run.id: ProbeVerdict(**verdict)})


class TestSandbox:
    def test_a_new_pod_gets_a_sandbox_and_its_containers(self) -> None:
        """Attempt 0, and all main containers at once."""
        pod = make_pod("app", "web")
        cause = "the pod has a new sandbox"
        app, web = (crash_backoff_key(c) for c in pod.spec.containers)  # type: ignore[union-attr] # make_pod sets it
        assert plan(pod, NOTHING) == (
            CreateSandbox(0, "no pod sandbox exists"),
            StartContainer("app", ContainerKind.MAIN, 0, cause, backoff_key=app),
            StartContainer("web", ContainerKind.MAIN, 0, cause, backoff_key=web),
        )

    def test_a_post_start_hook_is_noted(self) -> None:
        """The container after it has to wait for it."""
        pod = make_pod("proxy", "app")
        pod.spec.containers[0].lifecycle = core_v1.Lifecycle(  # type: ignore[union-attr] # make_pod sets it
            postStart=core_v1.LifecycleHandler(exec=core_v1.ExecAction(command=["wait"]))
        )
        assert [(a.container_name, a.has_hook) for a in plan(pod, NOTHING) if isinstance(a, StartContainer)] == [
            ("proxy", True),
            ("app", False),
        ]

    def test_a_new_pod_with_init_containers_starts_the_first_of_them(self) -> None:
        """And nothing beside it; what follows needs it."""
        actions = plan(make_pod("app", init=["one", "two"]), NOTHING)
        assert kinds(actions) == ["CreateSandbox", "StartContainer"]
        assert isinstance(actions[1], StartContainer)
        assert (actions[1].container_name, actions[1].kind, actions[1].required) == ("one", ContainerKind.INIT, True)

    def test_a_running_pod_needs_nothing(self) -> None:
        """The fixed point."""
        assert plan(make_pod("app"), make_observed(make_run("app"))) == ()

    def test_a_dead_sandbox_takes_everything_along(self) -> None:
        """Kill, forget the init containers, then as new with the next attempt; restart counts go on."""
        observed = make_observed(make_run("setup", EXITED), make_run("app"), sandboxes=DEAD_SANDBOX)
        actions = plan(make_pod("app", init=["setup"]), observed)
        reason = "pod sandbox is not ready"
        assert actions[:3] == (
            KillPod(reason),
            RemoveContainer("setup-0", "setup", reason),
            CreateSandbox(1, reason),
        )
        assert isinstance(actions[3], StartContainer)
        assert (actions[3].container_name, actions[3].restart_count) == ("setup", 1)

    def test_under_never_a_pod_that_has_run_is_only_cleared_away(self) -> None:
        """Once something lives no more, nothing happens."""
        pod = make_pod("app", restartPolicy="Never")
        assert kinds(plan(pod, make_observed(make_run("app"), sandboxes=DEAD_SANDBOX))) == ["KillPod"]
        assert plan(pod, make_observed(make_run("app", EXITED), sandboxes=DEAD_SANDBOX)) == ()

    def test_under_never_a_sandbox_that_died_before_any_container_is_replaced(self) -> None:
        """Nothing has run yet, so nothing would run twice."""
        pod = make_pod("app", restartPolicy="Never")
        assert kinds(plan(pod, make_observed(sandboxes=DEAD_SANDBOX))) == [
            "KillPod",
            "CreateSandbox",
            "StartContainer",
        ]

    def test_under_never_a_container_that_never_ran_gets_its_run(self) -> None:
        """Its neighbour had its own; the pod would be Pending for ever otherwise."""
        pod = make_pod("app", "web", restartPolicy="Never")
        observed = make_observed(make_run("web", EXITED), sandboxes=DEAD_SANDBOX)
        assert starts(plan(pod, observed)) == ["app"]

    @pytest.mark.parametrize(
        ("state", "exit_code", "own_policy", "goes_on"),
        [
            (EXITED, 0, None, True),
            (EXITED, 1, None, False),
            (EXITED, 1, "OnFailure", True),
            (RUNNING, 0, None, False),
            (UNKNOWN, 0, "OnFailure", True),
            (CREATED, 0, None, True),
        ],
    )
    def test_under_never_initialization_is_not_done_twice(
        self, state: ContainerState, exit_code: int, own_policy: str | None, goes_on: bool
    ) -> None:
        """What failed, or dies with the sandbox, ends the pod; what was through runs again with the others."""
        pod = make_pod("app", init=[make_container("one", restartPolicy=own_policy)], restartPolicy="Never")
        observed = make_observed(make_run("one", state, exit_code=exit_code), sandboxes=DEAD_SANDBOX)
        assert ("CreateSandbox" in kinds(plan(pod, observed))) is goes_on

    def test_under_never_a_container_with_its_own_policy_comes_back(self) -> None:
        """And its neighbour, which has had its run, does not."""
        pod = make_pod(make_container("app", restartPolicy="Always"), "once", restartPolicy="Never")
        observed = make_observed(make_run("app"), make_run("once"), sandboxes=DEAD_SANDBOX)
        assert starts(plan(pod, observed)) == ["app"]

    def test_a_container_that_succeeded_is_not_run_again_on_failure_only(self) -> None:
        """A created one and a failed one are; a living one dies with the sandbox and is too."""
        pod = make_pod("done", "failed", "made", "live", restartPolicy="OnFailure")
        runs = [make_run("done", EXITED), make_run("failed", EXITED, exit_code=1), make_run("made", CREATED)]
        observed = make_observed(*runs, make_run("live"), sandboxes=DEAD_SANDBOX)
        assert starts(plan(pod, observed)) == ["failed", "made", "live"]

    def test_a_pod_whose_work_is_done_gets_no_sandbox(self) -> None:
        """All containers succeeded before the sandbox went."""
        pod = make_pod("app", restartPolicy="OnFailure")
        assert plan(pod, make_observed(make_run("app", EXITED), sandboxes=DEAD_SANDBOX)) == ()
        two_ready = [make_sandbox("s1", 1), make_sandbox("s0", 0)]
        assert plan(pod, make_observed(make_run("app", EXITED), sandboxes=two_ready)) == (KillPod(POD_DONE),)

    def test_a_pod_that_is_being_deleted_needs_nothing_here(self) -> None:
        """Its end is another path's business."""
        pod = make_pod("app", metadata={"deletionTimestamp": "2024-01-01T00:00:00Z"})
        assert plan(pod, NOTHING) == ()


class TestInitContainers:
    POD = make_pod("app", init=["one", "two"])

    def test_the_first_starts_when_none_is_known(self) -> None:
        assert starts(plan(self.POD, make_observed())) == ["one"]

    def test_the_others_wait_while_one_runs(self) -> None:
        assert plan(self.POD, make_observed(make_run("one"))) == ()

    def test_the_next_starts_when_one_is_through(self) -> None:
        assert starts(plan(self.POD, make_observed(make_run("one", EXITED)))) == ["two"]

    def test_the_main_containers_start_when_the_last_is_through(self) -> None:
        """The ones before it may have been removed."""
        assert starts(plan(self.POD, make_observed(make_run("two", EXITED)))) == ["app"]

    def test_a_failed_one_starts_again(self) -> None:
        """With the next restart count, and others wait for it."""
        actions = plan(self.POD, make_observed(make_run("one", EXITED, 2, exit_code=3)))
        assert isinstance(actions[0], StartContainer)
        assert (actions[0].container_name, actions[0].restart_count) == ("one", 3)
        assert actions[0].cause == "init container one failed with exit code 3"
        assert len(actions) == 1

    def test_a_failed_one_ends_the_pod_under_never(self) -> None:
        """The pod is stopped, and then left alone."""
        pod = make_pod("app", init=["one", "two"], restartPolicy="Never")
        run = make_run("one", EXITED, exit_code=1)
        assert plan(pod, make_observed(run)) == (KillPod("init container one failed with exit code 1"),)
        assert plan(pod, make_observed(run, sandboxes=DEAD_SANDBOX)) == ()

    def test_its_own_policy_may_save_it(self) -> None:
        """Container policy before pod policy."""
        pod = make_pod("app", init=[make_container("one", restartPolicy="OnFailure")], restartPolicy="Never")
        assert starts(plan(pod, make_observed(make_run("one", EXITED, exit_code=1)))) == ["one"]

    @pytest.mark.parametrize(("policy", "expected"), [("OnFailure", ["one"]), ("Never", [])])
    def test_killed_for_memory_is_failed_even_with_exit_code_0(self, policy: str, expected: list[str]) -> None:
        pod = make_pod("app", init=["one"], restartPolicy=policy)
        assert starts(plan(pod, make_observed(make_run("one", EXITED, reason="OOMKilled")))) == expected

    def test_one_that_was_never_started_starts_again(self) -> None:
        assert starts(plan(self.POD, make_observed(make_run("one", CREATED)))) == ["one"]

    def test_one_of_unknown_state_is_killed_first(self) -> None:
        actions = plan(self.POD, make_observed(make_run("one", UNKNOWN)))
        assert kinds(actions) == ["KillContainer", "StartContainer"]
        assert isinstance(actions[0], KillContainer)
        assert actions[0].message == 'Init container is in "unknown" state, try killing it before restart'

    def test_one_of_unknown_state_ends_the_pod_under_never(self) -> None:
        pod = make_pod("app", init=["one"], restartPolicy="Never")
        assert plan(pod, make_observed(make_run("one", UNKNOWN))) == (
            KillPod("the state of init container one is unknown"),
        )

    @pytest.mark.parametrize("state", [RUNNING, CREATED, EXITED])
    def test_a_main_container_proves_that_they_are_through(self, state: ContainerState) -> None:
        """Whatever became of them since."""
        observed = make_observed(make_run("app", state, exit_code=1), make_run("one", EXITED, exit_code=1))
        assert "one" not in starts(plan(self.POD, observed))
        assert "two" not in starts(plan(self.POD, observed))

    @pytest.mark.parametrize("sandbox_id", ["old", ""])
    def test_a_main_container_that_ended_elsewhere_proves_nothing(self, sandbox_id: str) -> None:
        """After a reboot the init containers run again; so they do where the sandbox is not known."""
        observed = make_observed(make_run("app", EXITED, sandbox_id=sandbox_id))
        assert starts(plan(self.POD, observed)) == ["one"]

    def test_a_lost_main_container_proves_nothing(self) -> None:
        assert starts(plan(self.POD, make_observed(make_run("app", UNKNOWN)))) == ["one"]

    def test_init_containers_of_an_earlier_sandbox_do_not_count(self) -> None:
        """Also when their removal failed."""
        observed = make_observed(make_run("two", EXITED, sandbox_id="old"))
        assert starts(plan(self.POD, observed)) == ["one"]

    def test_old_runs_are_pruned_to_one(self) -> None:
        """What lives or was only created stays."""
        runs = [make_run("one", EXITED, n, exit_code=1) for n in (0, 1, 3)]
        observed = make_observed(*runs, make_run("one", CREATED, 2))
        removed = [a for a in plan(self.POD, observed) if isinstance(a, RemoveContainer)]
        assert [(a.container_id, a.keep_log) for a in removed] == [("one-1", False), ("one-0", False)]


class TestSidecars:
    def test_the_next_starts_as_soon_as_a_sidecar_runs(self) -> None:
        """It need not end, nor be ready; and it is not required by what follows in the plan."""
        pod = make_pod("app", init=[make_sidecar("mesh"), "setup"])
        assert starts(plan(pod, make_observed(make_run("mesh")))) == ["setup"]
        first = plan(pod, make_observed())[0]
        assert isinstance(first, StartContainer)
        assert not first.required

    def test_the_main_containers_follow_the_last_sidecar(self) -> None:
        pod = make_pod("app", init=["setup", make_sidecar("mesh")])
        assert starts(plan(pod, make_observed(make_run("setup", EXITED), make_run("mesh")))) == ["app"]

    def test_a_startup_probe_holds_the_next_back(self) -> None:
        """Until it succeeds; a failure restarts the sidecar with the grace period of the probe."""
        probe = {**PROBE, "terminationGracePeriodSeconds": 4}
        pod = make_pod("app", init=[make_sidecar("mesh", startupProbe=probe)])
        run = make_run("mesh")
        observed = make_observed(run)
        assert plan(pod, observed) == ()
        assert plan(pod, observed, judged(run, startup=ProbeResult.UNKNOWN)) == ()
        assert starts(plan(pod, observed, judged(run, startup=ProbeResult.SUCCESS))) == ["app"]
        kill, start = plan(pod, observed, judged(run, startup=ProbeResult.FAILURE))
        message = "Init container mesh failed startup probe"
        assert kill == KillContainer("mesh-0", "mesh", message, message, 4)
        assert isinstance(start, StartContainer)

    def test_a_sick_sidecar_is_restarted_and_holds_up_nobody(self) -> None:
        """Its liveness does not matter to the start of the next."""
        pod = make_pod("app", init=[make_sidecar("mesh", livenessProbe={**PROBE, "terminationGracePeriodSeconds": 4})])
        run = make_run("mesh")
        actions = plan(pod, make_observed(run), judged(run, liveness=ProbeResult.FAILURE))
        assert kinds(actions) == ["KillContainer", "StartContainer", "StartContainer"]
        assert starts(actions) == ["mesh", "app"]
        message = "Init container mesh failed liveness probe"
        assert actions[0] == KillContainer("mesh-0", "mesh", message, message, 4)
        assert actions[1].cause == message
        assert starts(plan(pod, make_observed(run), judged(run, liveness=ProbeResult.SUCCESS))) == ["app"]

    def test_a_new_image_restarts_a_sidecar(self) -> None:
        pod = make_pod("app", init=[make_sidecar("mesh")])
        actions = plan(pod, make_observed(make_run("mesh", image="mesh:0"), make_run("app")))
        assert starts(actions) == ["mesh"]
        message = "Init container mesh definition changed"
        assert actions[0] == KillContainer("mesh-0", "mesh", message, message)
        assert actions[1].cause == message

    @pytest.mark.parametrize("exit_code", [0, 1])
    def test_a_sidecar_that_ended_starts_again_whatever_the_policy(self, exit_code: int) -> None:
        """Also beside running main containers, also under Never; one that is missing as well."""
        pod = make_pod("app", init=[make_sidecar("mesh"), make_sidecar("logs")], restartPolicy="Never")
        observed = make_observed(make_run("app"), make_run("mesh", EXITED, exit_code=exit_code))
        assert starts(plan(pod, observed)) == ["mesh", "logs"]

    def test_a_sidecar_that_was_never_started_or_got_lost_starts_again(self) -> None:
        pod = make_pod("app", init=[make_sidecar("mesh")])
        assert starts(plan(pod, make_observed(make_run("mesh", CREATED)))) == ["mesh"]
        assert kinds(plan(pod, make_observed(make_run("mesh", UNKNOWN)))) == ["KillContainer", "StartContainer"]

    def test_sidecars_do_not_keep_a_pod_alive(self) -> None:
        """When the main containers are through, the pod is."""
        pod = make_pod("app", init=[make_sidecar("mesh"), make_sidecar("logs")], restartPolicy="Never")
        observed = make_observed(make_run("app", EXITED), make_run("mesh"), make_run("logs", EXITED))
        assert plan(pod, observed) == (KillPod(POD_DONE),)


class TestMainContainers:
    def test_what_is_missing_starts(self) -> None:
        """With the restart count that the log files tell, when the runtime has forgotten the container."""
        context = PodContext(CONTEXT.now_ns, logged_restart_counts={"app": 4})
        (start,) = plan(make_pod("app"), make_observed(), context)
        assert isinstance(start, StartContainer)
        assert (start.restart_count, start.after_exit_at_ns, start.cause) == (4, None, "the container does not exist")

    @pytest.mark.parametrize(
        ("policy", "exit_code", "expected"),
        [("Always", 0, ["app"]), ("OnFailure", 1, ["app"]), ("OnFailure", 0, []), ("Never", 1, [])],
    )
    def test_what_ended_starts_again_by_policy(self, policy: str, exit_code: int, expected: list[str]) -> None:
        pod = make_pod("app", "keeps", restartPolicy=policy)
        observed = make_observed(make_run("app", EXITED, exit_code=exit_code), make_run("keeps"))
        assert starts(plan(pod, observed)) == expected

    def test_a_restart_tells_when_the_last_run_ended(self) -> None:
        """The shell notes the back-off by it."""
        (start,) = plan(make_pod("app"), make_observed(make_run("app", EXITED, 1, exit_code=2)))
        assert isinstance(start, StartContainer)
        assert start.after_exit_at_ns == NOW_NS + 2 * SECOND
        assert start.cause == "the last run ended with exit code 2"
        assert (start.restart_count, start.required) == (2, False)

    def test_what_was_never_started_starts_again(self) -> None:
        """Even under Never: it did not run."""
        (start,) = plan(make_pod("app", restartPolicy="Never"), make_observed(make_run("app", CREATED)))
        assert start.cause == "the container was created and never started"

    def test_what_got_lost_is_killed_and_the_policy_decides_the_rest(self) -> None:
        """It may have run, so under Never it does not run again."""
        never = make_pod("app", "web", restartPolicy="Never")
        assert kinds(plan(never, make_observed(make_run("app", UNKNOWN), make_run("web")))) == ["KillContainer"]
        kill, start = plan(make_pod("app"), make_observed(make_run("app", UNKNOWN)))
        assert isinstance(kill, KillContainer)
        assert kill.message == 'Container is in "unknown" state, try killing it before restart'
        assert start.cause == "the state of the container is unknown"

    def test_a_new_image_restarts_whatever_the_policy(self) -> None:
        pod = make_pod("app", restartPolicy="Never")
        kill, start = plan(pod, make_observed(make_run("app", image="app:0")))
        cause = "Container app definition changed"
        assert kill == KillContainer("app-0", "app", cause, f"{cause}, will be restarted")
        assert isinstance(start, StartContainer)
        assert (start.restart_count, start.after_exit_at_ns) == (1, None)

    @pytest.mark.parametrize("kind", ["liveness", "startup"])
    def test_a_failed_probe_kills_and_the_policy_decides_the_rest(self, kind: str) -> None:
        """With the grace period of the probe; under Never the pod may be through with it."""
        probe = {**PROBE, "terminationGracePeriodSeconds": 7}
        container = make_container("app", **{f"{kind}Probe": probe})
        run = make_run("app")
        context = judged(run, **{kind: ProbeResult.FAILURE})
        kill, start = plan(make_pod(container), make_observed(run), context)
        cause = f"Container app failed {kind} probe"
        assert kill == KillContainer("app-0", "app", cause, f"{cause}, will be restarted", 7)
        assert start.cause == cause
        never = make_pod(container, "other", restartPolicy="Never")
        assert plan(never, make_observed(run, make_run("other")), context) == (
            KillContainer("app-0", "app", cause, cause, 7),
        )
        assert plan(make_pod(container, restartPolicy="Never"), make_observed(run), context) == (KillPod(POD_DONE),)

    def test_a_pod_that_is_through_is_stopped_and_left_alone(self) -> None:
        pod = make_pod("app", restartPolicy="Never")
        assert plan(pod, make_observed(make_run("app", EXITED))) == (KillPod(POD_DONE),)
        assert plan(pod, make_observed(make_run("app", EXITED), sandboxes=DEAD_SANDBOX)) == ()


class TestBackOff:
    POD = make_pod("app", "web")
    KEY = crash_backoff_key(POD.spec.containers[0])  # type: ignore[union-attr] # make_pod sets it
    RUN = make_run("app", EXITED, exit_code=1, finished_at_ns=NOW_NS)

    def after(self, seconds: float) -> PodContext:
        entry = BackoffEntry(80.0, NOW_NS / SECOND - 5)
        return PodContext(NOW_NS + int(seconds * SECOND), crash_backoff={self.KEY: entry})

    def test_a_crashed_container_waits_and_the_others_do_not(self) -> None:
        wait, start = plan(self.POD, make_observed(self.RUN), self.after(30))
        assert wait == BackOff(
            "app",
            ContainerKind.MAIN,
            50.0,
            "the last run ended with exit code 1",
            "back-off 1m20s restarting failed container=app pod=web_shop(u-1)",
        )
        assert isinstance(start, StartContainer)

    def test_it_starts_when_the_time_is_over(self) -> None:
        assert starts(plan(self.POD, make_observed(self.RUN), self.after(80))) == ["app", "web"]

    def test_a_waiting_container_keeps_the_pod_alive(self) -> None:
        pod = make_pod("app", restartPolicy="OnFailure")
        assert kinds(plan(pod, make_observed(self.RUN), self.after(1))) == ["BackOff"]


class TestEphemeralContainers:
    def test_they_start_once_and_even_before_the_init_containers_are_through(self) -> None:
        pod = make_pod("app", init=["one"], ephemeral=["debug", "shell"])
        actions = plan(pod, make_observed(make_run("one"), make_run("shell", EXITED, exit_code=1)))
        assert [(a.container_name, a.kind) for a in actions if isinstance(a, StartContainer)] == [
            ("debug", ContainerKind.EPHEMERAL)
        ]


class TestRestartAll:
    RULES = (restart_rule("RestartAllContainers", "In", 42),)
    POD = make_pod(
        make_container("app", restartPolicy="Never", restartPolicyRules=list(RULES)),
        "web",
        init=["setup", make_sidecar("mesh")],
    )

    def test_everything_goes_and_the_one_who_asked_goes_last(self) -> None:
        """Its logs stay: their names carry the restart counts on."""
        observed = make_observed(
            make_run("app", EXITED, 0, exit_code=42),
            make_run("app", EXITED, 1, exit_code=42),
            make_run("web"),
            make_run("setup", EXITED),
            make_run("mesh"),
        )
        cause = "a container's exit restarts all containers of the pod"
        assert plan(self.POD, observed) == (
            KillContainer("mesh-0", "mesh", cause, "Stopping container mesh", 0),
            KillContainer("web-0", "web", cause, "Stopping container web", 0),
            RemoveContainer("web-0", "web", cause, required=True),
            RemoveContainer("app-0", "app", cause, required=True),
            RemoveContainer("mesh-0", "mesh", cause, required=True),
            RemoveContainer("setup-0", "setup", cause, required=True),
            RemoveContainer("app-1", "app", cause, required=True),
        )

    def test_it_goes_on_as_long_as_the_one_who_asked_is_there(self) -> None:
        """An agent that was killed in between takes up where it was."""
        left = plan(self.POD, make_observed(make_run("app", EXITED, exit_code=42)))
        assert kinds(left) == ["RemoveContainer"]

    def test_then_the_pod_begins_anew(self) -> None:
        context = PodContext(CONTEXT.now_ns, logged_restart_counts={"setup": 3})
        (start,) = plan(self.POD, make_observed(), context)
        assert isinstance(start, StartContainer)
        assert (start.container_name, start.restart_count) == ("setup", 3)
