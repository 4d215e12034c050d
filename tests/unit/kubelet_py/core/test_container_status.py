"""The status of containers, from runs and from what was reported before."""

from datetime import UTC, datetime
from typing import Any

import pytest

from cri_proto import runtime_v1 as cri
from kubelet_py.api import codec, core_v1
from kubelet_py.core.container_status import (
    LOST_WHEN_DELETED,
    LOST_WHEN_TERMINATED,
    RESTARTING_ALL_MESSAGE,
    ContainerStatusContext,
    compute_container_statuses,
    lost_state,
    time_of_ns,
)
from kubelet_py.core.observed import ObservedPod, ProbeResult, ProbeVerdict
from tests.sim.pods import (
    CREATED,
    EXITED,
    NOW_NS,
    RUNNING,
    SECOND,
    UNKNOWN,
    make_container,
    make_observed,
    make_pod,
    make_run,
    make_sidecar,
)

PROBE = {"tcpSocket": {"port": 80}}


def status(**fields: Any) -> core_v1.PodStatus:
    return codec.from_builtins(core_v1.PodStatus, fields)


def old(name: str = "app", restart_count: int = 0, **fields: Any) -> dict[str, Any]:
    defaults = {"image": "app:1", "imageID": "", "ready": False, "restartCount": restart_count}
    return {"name": name, **defaults, **fields}


def reported(*statuses: dict[str, Any]) -> core_v1.PodStatus:
    return status(containerStatuses=list(statuses))


def compute(
    pod: core_v1.Pod, observed: ObservedPod, previous: core_v1.PodStatus | None = None, **context: Any
) -> core_v1.ContainerStatus:
    """The status of the first main container."""
    made = ContainerStatusContext(runtime_type="sim", previous=previous or status(), **context)
    return compute_container_statuses(pod, observed, made).main[0]


def compute_init(pod: core_v1.Pod, observed: ObservedPod, **context: Any) -> list[core_v1.ContainerStatus]:
    made = ContainerStatusContext(runtime_type="sim", previous=status(), **context)
    return compute_container_statuses(pod, observed, made).init


def waiting_reason(made: core_v1.ContainerStatus) -> str | None:
    assert made.state is not None
    assert made.state.waiting is not None
    return made.state.waiting.reason


def terminated(state: core_v1.ContainerState | None) -> core_v1.ContainerStateTerminated:
    assert state is not None
    assert state.terminated is not None
    return state.terminated


def test_moments_are_whole_seconds() -> None:
    """As the API writes them; 0 is no moment."""
    assert time_of_ns(NOW_NS + 999_999_999) == datetime(2023, 11, 14, 22, 13, 20, tzinfo=UTC)
    assert time_of_ns(0) is None


class TestStates:
    def test_a_running_container(self) -> None:
        run = make_run("app", restart_count=2, image_ref="app@sha256:1")
        made = compute(make_pod("app"), make_observed(run))
        assert made == core_v1.ContainerStatus(
            name="app",
            image="app:1",
            imageID="app@sha256:1",
            containerID="sim://app-2",
            ready=True,
            started=True,
            restartCount=2,
            state=core_v1.ContainerState(
                running=core_v1.ContainerStateRunning(startedAt=time_of_ns(NOW_NS + 2 * SECOND))
            ),
        )

    def test_a_container_that_ended(self) -> None:
        """What the runtime says and what the container left are joined in the message."""
        run = make_run("app", EXITED, exit_code=3, reason="Error", message="killed")
        made = compute(make_pod("app"), make_observed(run), termination_messages={"app-0": "no disk"})
        assert terminated(made.state) == core_v1.ContainerStateTerminated(
            exitCode=3,
            reason="Error",
            message="killed: no disk",
            startedAt=time_of_ns(NOW_NS),
            finishedAt=time_of_ns(NOW_NS + SECOND),
            containerID="sim://app-0",
        )
        assert (made.ready, made.started) == (False, False)

    def test_a_container_that_left_no_message(self) -> None:
        end = terminated(compute(make_pod("app"), make_observed(make_run("app", EXITED))).state)
        assert (end.message, end.reason) == (None, None)

    def test_a_container_that_was_created_waits(self) -> None:
        assert waiting_reason(compute(make_pod("app"), make_observed(make_run("app", CREATED)))) is None

    def test_a_container_of_unknown_state_waits_unless_it_was_running(self) -> None:
        """What ran and cannot be judged any more has ended, and stays so until more is known."""
        observed = make_observed(make_run("app", UNKNOWN))
        assert waiting_reason(compute(make_pod("app"), observed)) is None
        before = reported(old(containerID="sim://app-0", state={"running": {}}))
        made = compute(make_pod("app"), observed, before)
        end = terminated(made.state)
        assert (end.reason, end.exitCode, end.message) == ("ContainerStatusUnknown", 137, LOST_WHEN_TERMINATED)
        assert made.restartCount == 0
        assert compute(make_pod("app"), observed, status(containerStatuses=[made])) == made
        stranger = reported(old(containerID="sim://other", state={"terminated": {"exitCode": 1}}))
        assert waiting_reason(compute(make_pod("app"), observed, stranger)) is None
        stateless = reported(old(containerID="sim://app-0"))
        assert waiting_reason(compute(make_pod("app"), observed, stateless)) is None

    @pytest.mark.parametrize(("init", "reason"), [((), "ContainerCreating"), (("one",), "PodInitializing")])
    def test_a_container_without_a_run_waits(self, init: tuple[str, ...], reason: str) -> None:
        made = compute(make_pod("app", init=init), make_observed())
        assert (waiting_reason(made), made.image, made.restartCount) == (reason, "app:1", 0)

    def test_the_run_before_is_the_last_state(self) -> None:
        """Only that one."""
        runs = [make_run("app", EXITED, n, exit_code=n) for n in (0, 1)]
        made = compute(make_pod("app"), make_observed(*runs, make_run("app", restart_count=2)))
        assert terminated(made.lastState).exitCode == 1

    def test_user_and_resources(self) -> None:
        """As the runtime says, and as allocated."""
        user = cri.LinuxContainerUser(uid=7, gid=8, supplemental_groups=[9])
        container = make_container("app", resources={"requests": {"cpu": "1"}, "limits": {"cpu": "2"}})
        made = compute(make_pod(container), make_observed(make_run("app", user=user)))
        assert made.user == core_v1.ContainerUser(linux=core_v1.LinuxContainerUser(8, 7, [9]))
        assert made.allocatedResources == {"cpu": "1"}
        assert made.resources is not None
        assert made.resources.limits == {"cpu": "2"}
        assert compute(make_pod(container), make_observed()).resources is None


class TestWhatIsGone:
    def test_an_end_that_was_reported_stays(self) -> None:
        """The dead container was removed; its end is known."""
        before = reported(old(state={"terminated": {"exitCode": 2}}, restartCount=3, containerID="sim://x"))
        made = compute(make_pod("app", restartPolicy="Never"), make_observed(), before)
        assert (terminated(made.state).exitCode, made.restartCount, made.containerID) == (2, 3, "sim://x")

    def test_each_list_remembers_its_own(self) -> None:
        """Init and ephemeral containers that the runtime has forgotten."""
        ended: dict[str, Any] = {"state": {"terminated": {"exitCode": 2}}}
        before = status(
            initContainerStatuses=[old("setup", **ended)], ephemeralContainerStatuses=[old("debug", **ended)]
        )
        pod = make_pod("app", init=["setup"], ephemeral=["debug"])
        made = compute_container_statuses(pod, make_observed(), ContainerStatusContext("sim", before))
        assert [terminated(s.state).exitCode for s in (*made.init, *made.ephemeral)] == [2, 2]

    def test_a_container_of_which_nothing_is_known(self) -> None:
        mounts = [{"name": "v", "mountPath": "/v"}]
        made = compute(make_pod(make_container("app", volumeMounts=mounts)), make_observed())
        assert (made.image, made.imageID, made.ready, made.restartCount) == ("app:1", "", False, 0)
        assert made.volumeMounts == [core_v1.VolumeMountStatus("/v", "v")]
        nameless = make_pod({"name": "app"})
        assert compute(nameless, make_observed()).image == ""

    def test_what_ran_and_vanished_has_ended_somehow(self) -> None:
        """It waits, with a last state that keeps the pod from falling back to Pending."""
        before = reported(old(restart_count=1, state={"running": {}}))
        made = compute(make_pod("app"), make_observed(), before)
        assert (waiting_reason(made), made.restartCount) == ("ContainerCreating", 2)
        end = terminated(made.lastState)
        assert (end.reason, end.exitCode, end.message) == ("ContainerStatusUnknown", 137, LOST_WHEN_DELETED)

    def test_in_a_pod_that_is_being_deleted_that_is_no_restart(self) -> None:
        before = reported(old(restart_count=1, state={"running": {}}))
        pod = make_pod("app", metadata={"deletionTimestamp": "2024-01-01T00:00:00Z"})
        assert compute(pod, make_observed(), before).restartCount == 1

    def test_a_last_state_that_is_known_is_not_overwritten(self) -> None:
        last = {"terminated": {"exitCode": 9}}
        before = reported(old(restart_count=1, state={"running": {}}, lastState=last))
        made = compute(make_pod("app"), make_observed(), before)
        assert (terminated(made.lastState).exitCode, made.restartCount) == (9, 1)

    def test_what_waited_goes_on_waiting(self) -> None:
        before = reported(old(restart_count=1, state={"waiting": {"reason": "ErrImagePull"}}))
        made = compute(make_pod("app"), make_observed(), before)
        assert (waiting_reason(made), made.restartCount, made.lastState) == ("ContainerCreating", 1, None)

    def test_a_status_without_a_state_says_nothing(self) -> None:
        assert compute(make_pod("app"), make_observed(), reported(old(restart_count=5))).restartCount == 0

    def test_the_last_state_survives_garbage_collection(self) -> None:
        """Only the running container is left; how the run before ended was reported."""
        observed = make_observed(make_run("app", restart_count=1))
        ended = reported(old(containerID="sim://app-0", state={"terminated": {"exitCode": 4}}))
        assert terminated(compute(make_pod("app"), observed, ended).lastState).exitCode == 4
        same = reported(
            old(containerID="sim://app-1", state={"running": {}}, lastState={"terminated": {"exitCode": 5}})
        )
        assert terminated(compute(make_pod("app"), observed, same).lastState).exitCode == 5
        other = reported(
            old(containerID="sim://app-0", state={"running": {}}, lastState={"terminated": {"exitCode": 6}})
        )
        assert terminated(compute(make_pod("app"), observed, other).lastState).exitCode == 6
        stateless = reported(old(containerID="sim://app-0", lastState={"terminated": {"exitCode": 7}}))
        assert terminated(compute(make_pod("app"), observed, stateless).lastState).exitCode == 7

    def test_an_end_does_not_stand_before_itself(self) -> None:
        """While the container waited for its restart, its end was the last state; now it is the state again."""
        last = {"terminated": {"exitCode": 4, "containerID": "sim://app-1"}}
        waiting = reported(old(containerID="sim://app-1", state={"waiting": {}}, lastState=last))
        made = compute(make_pod("app"), make_observed(make_run("app", EXITED, 1)), waiting)
        assert made.lastState is None

    def test_a_first_run_has_no_last_state(self) -> None:
        before = reported(old(containerID="sim://other", state={"terminated": {"exitCode": 4}}))
        assert compute(make_pod("app"), make_observed(make_run("app")), before).lastState is None

    def test_the_state_of_what_should_have_ended(self) -> None:
        assert terminated(lost_state()) == core_v1.ContainerStateTerminated(
            exitCode=137, reason="ContainerStatusUnknown", message=LOST_WHEN_TERMINATED
        )


class TestRestartOfAll:
    @pytest.mark.parametrize(
        ("before", "count", "exit_code", "reason"),
        [
            (old(restart_count=1, state={"running": {}}), 2, 137, "RestartingAllContainers"),
            (old(restart_count=1, state={"terminated": {"exitCode": 42}}), 2, 42, None),
            (
                old(restart_count=2, state={"waiting": {}}, lastState={"terminated": {"exitCode": 42}}),
                2,
                42,
                None,
            ),
        ],
    )
    def test_what_was_removed_waits_for_its_restart(
        self, before: dict[str, Any], count: int, exit_code: int, reason: str | None
    ) -> None:
        """The count goes up once, and the last end is kept or made up."""
        made = compute(make_pod("app"), make_observed(), reported(before), is_restarting_all=True)
        assert made.state is not None
        assert made.state.waiting == core_v1.ContainerStateWaiting(
            reason="RestartingAllContainers", message=RESTARTING_ALL_MESSAGE
        )
        assert made.restartCount == count
        assert (terminated(made.lastState).exitCode, terminated(made.lastState).reason) == (exit_code, reason)
        assert terminated(made.lastState).message == (RESTARTING_ALL_MESSAGE if reason else None)

    def test_what_got_lost_meanwhile_names_the_restart(self) -> None:
        before = reported(old(state={"running": {}}))
        observed = make_observed(make_run("app", UNKNOWN))
        made = compute(make_pod("app"), observed, before, is_restarting_all=True)
        assert terminated(made.state).reason == "RestartingAllContainers"


class TestWaiting:
    WAITING = {"app": ("CrashLoopBackOff", "back-off 10s"), "one": ("ErrImagePull", "")}  # noqa: RUF012 - never changed

    def test_what_cannot_start_says_why(self) -> None:
        """The end before it moves to the last state."""
        observed = make_observed(make_run("app", EXITED, exit_code=1))
        made = compute(make_pod("app"), observed, waiting=self.WAITING)
        assert made.state == core_v1.ContainerState(
            waiting=core_v1.ContainerStateWaiting(reason="CrashLoopBackOff", message="back-off 10s")
        )
        assert terminated(made.lastState).exitCode == 1
        assert not made.ready

    def test_without_a_run_too(self) -> None:
        made = compute(make_pod("app"), make_observed(), waiting=self.WAITING)
        assert (waiting_reason(made), made.lastState) == ("CrashLoopBackOff", None)

    def test_what_waits_is_not_ready(self) -> None:
        made = compute(make_pod("app"), make_observed(make_run("app", EXITED, exit_code=1)), waiting=self.WAITING)
        assert (made.started, made.ready) == (False, False)

    def test_what_runs_or_is_through_does_not_wait(self) -> None:
        """An old reason is not news."""
        running = compute(make_pod("app"), make_observed(make_run("app")), waiting=self.WAITING)
        assert running.state is not None
        assert running.state.running is not None
        through = make_observed(make_run("app", EXITED))
        made = compute(make_pod("app", restartPolicy="Never"), through, waiting=self.WAITING)
        assert terminated(made.state).exitCode == 0

    def test_an_init_container_that_is_through_does_not_wait_and_a_sidecar_does(self) -> None:
        observed = make_observed(make_run("one", EXITED))
        assert terminated(compute_init(make_pod("app", init=["one"]), observed, waiting=self.WAITING)[0].state)
        sidecar = compute_init(make_pod("app", init=[make_sidecar("one")]), observed, waiting=self.WAITING)
        assert waiting_reason(sidecar[0]) == "ErrImagePull"
        failed = make_observed(make_run("one", EXITED, exit_code=1))
        made = compute_init(make_pod("app", init=["one"]), failed, waiting=self.WAITING)
        assert waiting_reason(made[0]) == "ErrImagePull"
        assert made[0].state is not None
        assert made[0].state.waiting is not None
        assert made[0].state.waiting.message is None


class TestReadiness:
    POD = make_pod(make_container("app", startupProbe=PROBE, readinessProbe=PROBE))
    RUN = make_run("app")

    @pytest.mark.parametrize(
        ("startup", "readiness", "started", "ready"),
        [
            (None, None, False, False),
            (ProbeResult.UNKNOWN, None, False, False),
            (ProbeResult.FAILURE, ProbeResult.SUCCESS, False, False),
            (ProbeResult.SUCCESS, None, True, False),
            (ProbeResult.SUCCESS, ProbeResult.FAILURE, True, False),
            (ProbeResult.SUCCESS, ProbeResult.SUCCESS, True, True),
        ],
    )
    def test_probes_decide(
        self, startup: ProbeResult | None, readiness: ProbeResult | None, started: bool, ready: bool
    ) -> None:
        """Started first, then ready."""
        probes = {"app-0": ProbeVerdict(startup, None, readiness)}
        made = compute(self.POD, make_observed(self.RUN), probe_results=probes)
        assert (made.started, made.ready) == (started, ready)

    def test_without_probes_what_runs_is_ready(self) -> None:
        made = compute(make_pod("app"), make_observed(self.RUN))
        assert (made.started, made.ready) == (True, True)

    @pytest.mark.parametrize(
        ("container_id", "agent_started_seconds", "kept"),
        [("sim://app-0", 11, True), ("sim://app-0", 10, False), ("sim://app-9", 11, False)],
    )
    def test_a_restart_of_the_agent_makes_nothing_unready(
        self, container_id: str, agent_started_seconds: int, kept: bool
    ) -> None:
        """What ran well before is trusted until the first result; another container is not."""
        before = reported(old(containerID=container_id, started=True, ready=True, state={"running": {}}))
        made = compute(
            self.POD,
            make_observed(self.RUN),
            before,
            agent_started_at_ns=NOW_NS + agent_started_seconds * SECOND,
        )
        assert (made.started, made.ready) == (kept, kept)

    def test_what_became_ready_alone_is_not_trusted_for_its_start(self) -> None:
        """Each of the two goes on as it was reported."""
        before = reported(old(containerID="sim://app-0", started=True, ready=False, state={"running": {}}))
        made = compute(self.POD, make_observed(self.RUN), before, agent_started_at_ns=NOW_NS + 3600 * SECOND)
        assert (made.started, made.ready) == (True, False)

    def test_an_ephemeral_container_is_never_ready(self) -> None:
        """Nor said to have started: no probe asks for either."""
        pod = make_pod("app", ephemeral=["debug"])
        made = compute_container_statuses(
            pod, make_observed(make_run("debug")), ContainerStatusContext("sim", status())
        )
        assert [(s.started, s.ready) for s in made.ephemeral] == [(None, False)]

    def test_an_init_container_is_ready_when_it_is_through(self) -> None:
        """It counts as started while it runs, and so does a sidecar."""
        pod = make_pod("app", init=["one", "two", make_sidecar("mesh")])
        observed = make_observed(make_run("one", EXITED), make_run("two", RUNNING), make_run("mesh"))
        made = compute_init(pod, observed)
        assert [(s.name, s.started, s.ready) for s in made] == [
            ("one", False, True),
            ("two", True, False),
            ("mesh", True, True),
        ]


class TestLongMessages:
    """Twelve KiB for a pod, the same for each of its containers."""

    @pytest.mark.parametrize(("others", "kept"), [(0, 12288), (3, 3072), (5, 2048)])
    def test_each_has_its_share(self, others: int, kept: int) -> None:
        pod = make_pod("app", *(f"other-{number}" for number in range(others)))
        run = make_run("app", EXITED)
        made = compute(pod, make_observed(run), termination_messages={run.id: "x" * 20_000})
        assert terminated(made.state).message == "x" * kept

    def test_no_letter_is_cut_in_two(self) -> None:
        run = make_run("app", EXITED)
        made = compute(make_pod("app"), make_observed(run), termination_messages={run.id: "x" + "\u00e9" * 10_000})
        assert terminated(made.state).message == "x" + "\u00e9" * 6143


class TestForgottenInitContainers:
    """Of which neither the runtime nor a report knows, as of static pods after a restart of the agent."""

    POD = make_pod("app", init=["setup", make_sidecar("mesh")])

    @pytest.mark.parametrize("state", [CREATED, RUNNING, EXITED])
    def test_beside_a_main_container_they_have_done_their_work(self, state: Any) -> None:
        setup, mesh = compute_init(self.POD, make_observed(make_run("app", state)))
        assert terminated(setup.state).reason == "Completed"
        assert terminated(setup.state).exitCode == 0
        assert "treat it as exited normally" in (terminated(setup.state).message or "")
        assert setup.ready
        assert waiting_reason(mesh) == "PodInitializing", "a sidecar is started again"

    @pytest.mark.parametrize(
        "observed",
        [
            make_observed(),
            make_observed(make_run("app", UNKNOWN)),
            make_observed(make_run("app", EXITED, sandbox_id="sandbox-of-before")),
        ],
        ids=["nothing", "unknown", "before"],
    )
    def test_without_one_they_wait(self, observed: ObservedPod) -> None:
        assert [waiting_reason(s) for s in compute_init(self.POD, observed)] == ["PodInitializing"] * 2

    def test_while_all_are_restarted_they_wait(self) -> None:
        made = compute_init(self.POD, make_observed(make_run("app")), is_restarting_all=True)
        assert [waiting_reason(s) for s in made] == ["PodInitializing"] * 2


class TestLists:
    def test_orders(self) -> None:
        """Main and ephemeral containers by name, init containers as in the spec."""
        pod = make_pod("web", "app", init=["two", "one"], ephemeral=["z", "b"])
        made = compute_container_statuses(pod, make_observed(), ContainerStatusContext("sim", status()))
        assert [s.name for s in made.main] == ["app", "web"]
        assert [s.name for s in made.init] == ["two", "one"]
        assert [s.name for s in made.ephemeral] == ["b", "z"]
        assert sorted(made.init_and_main) == ["app", "one", "two", "web"]

    @pytest.mark.parametrize(
        ("mount", "can", "shown"),
        [
            ({}, True, None),
            ({"readOnly": True}, True, "Disabled"),
            ({"readOnly": True, "recursiveReadOnly": "IfPossible"}, True, "Enabled"),
            ({"readOnly": True, "recursiveReadOnly": "IfPossible"}, False, "Disabled"),
            ({"readOnly": True, "recursiveReadOnly": "Disabled"}, True, "Disabled"),
            ({"readOnly": True, "recursiveReadOnly": "Enabled"}, True, "Enabled"),
            ({"readOnly": True, "recursiveReadOnly": "Enabled", "mountPropagation": "None"}, True, "Enabled"),
            (
                {"readOnly": True, "recursiveReadOnly": "Enabled", "mountPropagation": "HostToContainer"},
                True,
                "Disabled",
            ),
        ],
    )
    def test_volume_mounts(self, mount: dict[str, Any], can: bool, shown: str | None) -> None:
        """Recursive read-only says what came of it."""
        container = make_container("app", volumeMounts=[{"name": "v", "mountPath": "/v", **mount}])
        made = compute(make_pod(container), make_observed(make_run("app")), supports_recursive_read_only=can)
        assert made.volumeMounts == [core_v1.VolumeMountStatus("/v", "v", mount.get("readOnly"), shown)]

    def test_volume_mounts_are_settled_once(self) -> None:
        """What was reported stays, whatever the runtime can do now."""
        mounts = [{"name": "v", "mountPath": "/v", "readOnly": True, "recursiveReadOnly": "Enabled"}]
        container = make_container("app", volumeMounts=[{"name": "v", "mountPath": "/v", "readOnly": True}])
        before = reported(old(volumeMounts=mounts))
        made = compute(make_pod(container), make_observed(make_run("app")), before)
        assert made.volumeMounts is not None
        assert made.volumeMounts[0].recursiveReadOnly == "Enabled"
