"""The status of a pod as a whole."""

from typing import Any

import pytest

from kubelet_py.api import codec, core_v1
from kubelet_py.core.cgroup_rules import CgroupLimits
from kubelet_py.core.container_status import time_of_ns
from kubelet_py.core.observed import ObservedPod, ProbeResult, ProbeVerdict
from kubelet_py.core.pod_allocation import PodResources
from kubelet_py.core.pod_conditions import condition_of
from kubelet_py.core.pod_status import (
    StatusContext,
    compute_pod_status,
    compute_rejected_status,
    finish_status,
    hold_back_final_phase,
    was_rejected,
)
from tests.sim.pods import (
    EXITED,
    NOTHING,
    NOW_NS,
    SECOND,
    make_container,
    make_observed,
    make_pod,
    make_run,
    make_sandbox,
    make_sidecar,
    restart_rule,
)

RUNNING_POD = make_observed(make_run("app"))


def status(**fields: Any) -> core_v1.PodStatus:
    return codec.from_builtins(core_v1.PodStatus, fields)


def container(name: str = "app", **fields: Any) -> dict[str, Any]:
    return {"name": name, "image": "", "imageID": "", "ready": False, "restartCount": 0, **fields}


def compute(pod: core_v1.Pod, observed: ObservedPod = RUNNING_POD, **context: Any) -> core_v1.PodStatus:
    return compute_pod_status(pod, observed, StatusContext(NOW_NS, "sim", **context))


def ready(made: core_v1.PodStatus) -> str | None:
    found = condition_of(made.conditions, "Ready")
    return found.status if found else None


def test_a_running_pod() -> None:
    """Everything in its place."""
    made = compute(make_pod("app", metadata={"generation": 3}), host_ips=["192.0.2.1"])
    assert (made.phase, made.reason, made.message, made.qosClass) == ("Running", None, None, "BestEffort")
    assert (made.hostIP, made.hostIPs) == ("192.0.2.1", [core_v1.HostIP(ip="192.0.2.1")])
    assert (made.podIP, made.podIPs) == ("10.0.0.9", [core_v1.PodIP(ip="10.0.0.9")])
    assert (made.startTime, made.observedGeneration, ready(made)) == (time_of_ns(NOW_NS), 3, "True")
    assert (made.initContainerStatuses, made.ephemeralContainerStatuses) == (None, None)
    assert made.containerStatuses is not None
    assert made.containerStatuses[0].ready


def test_all_that_the_agent_knows_beside_the_runtime_is_in_the_status() -> None:
    """Why a container waits, what it wrote before it ended, probes, disruption, resources, mounts, all three lists."""
    mount = {"name": "v", "mountPath": "/v", "readOnly": True, "recursiveReadOnly": "IfPossible"}
    sizes = {"requests": {"cpu": "100m", "memory": "1Mi"}}
    pod = make_pod(
        make_container("app", volumeMounts=[mount], readinessProbe={"exec": {"command": ["x"]}}, resources=sizes),
        make_container("held", restartPolicy="Never"),
        init=["setup"],
        ephemeral=["debug"],
        volumes=[{"name": "v"}],
    )
    observed = make_observed(
        make_run("setup", EXITED), make_run("app", started_at_ns=NOW_NS), make_run("debug", EXITED, exit_code=3)
    )
    made = compute(
        pod,
        observed,
        previous=status(phase="Running"),
        waiting={"held": ("ImagePullBackOff", "no such image")},
        termination_messages={"debug-0": "out of ideas"},
        probe_results={"app-0": ProbeVerdict(readiness=ProbeResult.SUCCESS)},
        disruption=("EvictionByEvictionAPI", "drained"),
        supports_recursive_read_only=True,
        actuated=PodResources({"app": core_v1.ResourceRequirements(requests={"cpu": "200m", "memory": "2Mi"})}),
        pod_limits=CgroupLimits(cpu_shares=204),
    )
    (setup,) = made.initContainerStatuses or []
    app, held = made.containerStatuses or []
    (debug,) = made.ephemeralContainerStatuses or []
    assert (setup.name, setup.containerID) == ("setup", "sim://setup-0")
    assert app.ready
    assert [volume.recursiveReadOnly for volume in app.volumeMounts or ()] == ["Enabled"]
    assert app.resources is not None
    assert app.resources.requests == {"cpu": "200m", "memory": "2Mi"}
    assert held.state is not None
    assert held.state.waiting == core_v1.ContainerStateWaiting(reason="ImagePullBackOff", message="no such image")
    assert debug.state is not None
    assert debug.state.terminated is not None
    assert debug.state.terminated.message == "out of ideas"
    target = condition_of(made.conditions, "DisruptionTarget")
    assert target is not None
    assert (target.status, target.reason, target.lastTransitionTime) == (
        "True",
        "EvictionByEvictionAPI",
        time_of_ns(NOW_NS),
    )
    assert made.resources == core_v1.ResourceRequirements(requests={"cpu": "200m", "memory": "1Mi"})
    assert made.allocatedResources == {"cpu": "100m", "memory": "1Mi"}


def test_a_condition_that_holds_keeps_its_time() -> None:
    before = compute(make_pod("app"), previous=status(phase="Pending"))
    later = compute_pod_status(make_pod("app"), RUNNING_POD, StatusContext(NOW_NS + SECOND, "sim", previous=before))
    assert [c.lastTransitionTime for c in later.conditions or ()] == [time_of_ns(NOW_NS)] * len(later.conditions or ())


def test_a_pod_that_is_not_reported_to_run_shows_what_was_allocated() -> None:
    pod = make_pod(make_container("app", resources={"requests": {"cpu": "100m"}}))
    made = compute(pod, previous=status(phase="Pending"), pod_limits=CgroupLimits(cpu_shares=204))
    assert made.resources == core_v1.ResourceRequirements(requests={"cpu": "100m"})


def test_a_pod_of_which_nothing_is_there_yet() -> None:
    """Pending, and the condition says what it waits for."""
    made = compute(make_pod("app"), NOTHING)
    assert (made.phase, made.podIP, made.podIPs, made.hostIP, made.hostIPs) == ("Pending", None, None, None, None)
    sandbox = condition_of(made.conditions, "PodReadyToStartContainers")
    assert sandbox is not None
    assert sandbox.message == "no pod sandbox exists"


def test_the_start_time_is_set_once() -> None:
    """From what is held, or what the server has."""
    began = "2024-01-01T00:00:00Z"
    assert compute(make_pod("app"), previous=status(startTime=began)).startTime == status(startTime=began).startTime
    at_server = make_pod("app", status={"startTime": began})
    assert compute(at_server, previous=status()).startTime == status(startTime=began).startTime


def test_what_others_wrote_stays() -> None:
    """Claims of the scheduler are not ours to drop."""
    pod = make_pod("app", status={"resourceClaimStatuses": [{"name": "gpu"}], "nominatedNodeName": "n"})
    made = compute(pod)
    assert made.resourceClaimStatuses == [core_v1.PodResourceClaimStatus(name="gpu")]
    assert made.nominatedNodeName == "n"
    pod.status = status(extendedResourceClaimStatus={"resourceClaimName": "x", "requestMappings": []})
    made = compute(pod)
    assert made.extendedResourceClaimStatus is not None
    assert made.extendedResourceClaimStatus.resourceClaimName == "x"


def test_a_pod_without_a_status_object() -> None:
    """As a manifest on disk has none."""
    pod = make_pod("app")
    pod.status = None
    assert compute(pod).phase == "Running"
    assert compute_rejected_status(pod, "OutOfcpu", "no cpu", StatusContext(NOW_NS, "sim")).phase == "Failed"


class TestPhase:
    @pytest.mark.parametrize("final", ["Succeeded", "Failed"])
    def test_a_final_phase_never_changes(self, final: str) -> None:
        """Neither the server's nor the one that is held; the reason stays with it."""
        held = compute(make_pod("app"), previous=status(phase=final, reason="R", message="M"))
        assert (held.phase, held.reason, held.message) == (final, "R", "M")
        at_server = make_pod("app", status={"phase": final, "reason": "S"})
        made = compute(at_server, previous=status(phase="Running", reason="R"), failure=("Evicted", "x"))
        assert (made.phase, made.reason) == (final, None)
        again = compute(at_server, previous=made)
        assert (again.phase, again.reason) == (final, "S")

    def test_the_agent_can_fail_a_pod(self) -> None:
        """Eviction, deadline: phase, reason and message; also while containers still run."""
        made = compute(make_pod("app"), failure=("DeadlineExceeded", "too long"))
        assert (made.phase, made.reason, made.message, ready(made)) == (
            "Failed",
            "DeadlineExceeded",
            "too long",
            "False",
        )

    def test_a_reason_goes_with_its_phase(self) -> None:
        """What explained Pending does not explain Running."""
        held = status(phase="Pending", reason="Slow")
        assert compute(make_pod("app"), previous=held).reason is None
        assert compute(make_pod("app"), NOTHING, previous=held).reason == "Slow"

    def test_a_stopped_pod_is_final_and_waits_for_nothing(self) -> None:
        """Reasons for waiting are of another time."""
        ended = make_observed(make_run("app", EXITED, exit_code=1))
        waiting = {"app": ("CrashLoopBackOff", "x")}
        made = compute(make_pod("app"), ended, waiting=waiting, is_stopped_for_good=True)
        assert made.phase == "Failed"
        (app,) = made.containerStatuses or []
        assert app.state is not None
        assert app.state.waiting is None
        made = compute(make_pod("app"), ended, waiting=waiting)
        assert made.phase == "Running"
        (app,) = made.containerStatuses or []
        assert app.state is not None
        assert app.state.waiting == core_v1.ContainerStateWaiting(reason="CrashLoopBackOff", message="x")

    def test_a_rejected_pod(self) -> None:
        """Nothing but the refusal."""
        pod = make_pod("app", metadata={"generation": 2}, status={"conditions": [{"type": "x", "status": "True"}]})
        made = compute_rejected_status(pod, "OutOfcpu", "no cpu left", StatusContext(NOW_NS, "sim"))
        assert (made.phase, made.reason, made.message) == ("Failed", "OutOfcpu", "Pod was rejected: no cpu left")
        assert (made.observedGeneration, made.qosClass, made.containerStatuses) == (2, "BestEffort", None)
        assert made.conditions == [core_v1.PodCondition(type="x", status="True")]
        assert made.startTime == time_of_ns(NOW_NS)
        again = compute_rejected_status(
            make_pod("app", status={"startTime": "2024-01-01T00:00:00Z"}), "R", "", StatusContext(NOW_NS, "sim")
        )
        assert again.startTime == status(startTime="2024-01-01T00:00:00Z").startTime

    def test_a_pod_that_ran_here_and_is_rejected_is_ready_no_more(self) -> None:
        """The node was restarted and has no room for it any more."""
        ran = container("app", state={"running": {}}) | {"ready": True}
        before = {"phase": "Running", "conditions": [{"type": "Ready", "status": "True"}], "containerStatuses": [ran]}
        made = compute_rejected_status(make_pod("app", status=before), "OutOfcpu", "", StatusContext(NOW_NS, "sim"))
        assert (made.conditions, made.containerStatuses) == (None, None)
        assert was_rejected(made)
        assert not was_rejected(status(phase="Failed", containerStatuses=[ran]))
        assert not was_rejected(status(phase="Pending"))


def test_a_sidecar_that_starts_holds_a_pod_back_until_a_main_container_has_begun_in_its_sandbox() -> None:
    """One that ended in a sandbox before has not."""
    pod = make_pod("app", init=[make_sidecar("s", startupProbe={"tcpSocket": {"port": 1}})])
    old, new = make_sandbox("old", ready=False), make_sandbox("new")
    starts = make_run("s", sandbox_id="new")
    before, now = make_run("app", EXITED, sandbox_id="old"), make_run("app", sandbox_id="new")
    assert compute(pod, make_observed(starts, before, sandboxes=[new, old])).phase == "Pending"
    assert compute(pod, make_observed(starts, now, sandboxes=[new, old])).phase == "Running"
    assert compute(pod, make_observed(starts, before, sandboxes=[old])).phase == "Pending"


class TestAddresses:
    def ips(self, pod: core_v1.Pod, observed: ObservedPod, *host_ips: str, previous: Any = ()) -> list[str]:
        held = status(podIPs=[{"ip": ip} for ip in previous])
        return [ip.ip for ip in compute(pod, observed, host_ips=host_ips, previous=held).podIPs or ()]

    def test_one_of_each_family_in_the_order_of_the_node(self) -> None:
        """Whatever order and number the runtime gives."""
        observed = make_observed(sandboxes=[make_sandbox(ips=("fd00::1", "10.0.0.1", "10.0.0.2", "fd00::2"))])
        pod = make_pod("app")
        assert self.ips(pod, observed) == ["10.0.0.1", "fd00::1"]
        assert self.ips(pod, observed, "192.0.2.1") == ["10.0.0.1", "fd00::1"]
        assert self.ips(pod, observed, "fd00::99", "192.0.2.1") == ["fd00::1", "10.0.0.1"]

    def test_a_pod_that_ended_keeps_its_address(self) -> None:
        """The sandbox is gone or dead."""
        dead = make_observed(sandboxes=[make_sandbox(ready=False)])
        assert self.ips(make_pod("app"), dead, previous=["10.0.0.7"]) == ["10.0.0.7"]
        assert self.ips(make_pod("app"), NOTHING, previous=["10.0.0.7"]) == ["10.0.0.7"]

    def test_a_pod_in_the_host_network_has_the_addresses_of_the_node(self) -> None:
        """They do not change once set, but a second family may join."""
        pod = make_pod("app", hostNetwork=True)
        assert self.ips(pod, NOTHING, "192.0.2.1") == ["192.0.2.1"]
        assert self.ips(pod, NOTHING, "192.0.2.1", "fd00::1") == ["192.0.2.1", "fd00::1"]
        assert self.ips(pod, NOTHING, "192.0.2.9", "fd00::1", previous=["192.0.2.1"]) == ["192.0.2.1", "fd00::1"]
        assert self.ips(pod, NOTHING, "fd00::1", "192.0.2.9", previous=["192.0.2.1"]) == ["192.0.2.1"]
        assert self.ips(pod, NOTHING, previous=["192.0.2.1"]) == ["192.0.2.1"]
        assert self.ips(pod, NOTHING, "192.0.2.1", "192.0.2.2") == ["192.0.2.1"], "one of each family"


class TestRestartOfAll:
    POD = make_pod(
        make_container("app", restartPolicy="Never", restartPolicyRules=[restart_rule("RestartAllContainers", "In", 7)])
    )
    RUNS = container(state={"running": {}})

    def restarting(self, made: core_v1.PodStatus) -> str | None:
        found = condition_of(made.conditions, "AllContainersRestarting")
        return found.status if found else None

    def waiting(self, made: core_v1.PodStatus) -> str | None:
        assert made.containerStatuses is not None
        state = made.containerStatuses[0].state
        return state.waiting.reason if state and state.waiting else None

    def test_from_the_exit_to_the_new_start(self) -> None:
        """True from the exit until nothing is left; then the containers wait for their start; then it is over."""
        asked = compute(self.POD, make_observed(make_run("app", EXITED, exit_code=7)), previous=status())
        assert (self.restarting(asked), asked.phase) == ("True", "Running")
        cleared = compute(self.POD, make_observed(), previous=asked)
        assert (self.restarting(cleared), self.waiting(cleared), cleared.phase) == (
            "False",
            "RestartingAllContainers",
            "Running",
        )
        anew = compute(self.POD, make_observed(make_run("app", restart_count=1)), previous=cleared)
        assert (self.restarting(anew), self.waiting(anew), anew.phase) == ("False", None, "Running")

    def test_a_condition_that_an_earlier_agent_left_does_no_harm(self) -> None:
        """Containers run again, so the restart is over."""
        said = status(conditions=[{"type": "AllContainersRestarting", "status": "True"}])
        made = compute(self.POD, make_observed(make_run("app", restart_count=1)), previous=said)
        assert self.restarting(made) == "False"
        assert self.waiting(compute(self.POD, make_observed(), previous=status())) == "ContainerCreating"

    def test_what_is_left_of_ephemeral_containers_is_not_waited_for(self) -> None:
        asked = compute(self.POD, make_observed(make_run("app", EXITED, exit_code=7)), previous=status())
        cleared = compute(self.POD, make_observed(make_run("debug", EXITED)), previous=asked)
        assert self.waiting(cleared) == "RestartingAllContainers"

    def test_other_pods_have_no_such_condition(self) -> None:
        assert self.restarting(compute(make_pod("app"))) is None


class TestHoldBack:
    NOW = NOW_NS + 9 * SECOND
    BEFORE = status(phase="Running", reason="R", message="M")

    def final(self) -> core_v1.PodStatus:
        conditions = [{"type": t, "status": "True"} for t in ("Ready", "ContainersReady", "Initialized")]
        return status(phase="Failed", reason="Evicted", conditions=conditions)

    def test_no_final_phase_while_containers_could_run(self) -> None:
        sent = hold_back_final_phase(self.BEFORE, self.final(), could_run=True, now_ns=self.NOW)
        assert (sent.phase, sent.reason, sent.message) == ("Running", "R", "M")

    def test_a_final_phase_is_never_ready(self) -> None:
        sent = hold_back_final_phase(self.BEFORE, self.final(), could_run=False, now_ns=self.NOW)
        assert (sent.phase, sent.reason) == ("Failed", "Evicted")
        assert [(c.type, c.status, c.reason, c.lastTransitionTime) for c in sent.conditions or ()] == [
            ("Ready", "False", "PodFailed", time_of_ns(self.NOW)),
            ("ContainersReady", "False", "PodFailed", time_of_ns(self.NOW)),
            ("Initialized", "True", None, None),
        ]

    def test_of_a_static_pod_that_was_reported_on_before_nothing_is_held_back(self) -> None:
        """Its mirror has the final phase already; an empty one would take that away."""
        unknown = core_v1.PodStatus()
        sent = hold_back_final_phase(unknown, status(phase="Succeeded"), could_run=True, now_ns=self.NOW)
        assert sent.phase == "Succeeded"

    def test_a_phase_that_was_final_before_is_sent(self) -> None:
        before = status(phase="Succeeded")
        sent = hold_back_final_phase(before, status(phase="Succeeded"), could_run=True, now_ns=self.NOW)
        assert (sent.phase, sent.conditions) == ("Succeeded", None)

    def test_what_still_runs_is_sent_as_it_is(self) -> None:
        made = status(phase="Running", reason="new")
        assert hold_back_final_phase(self.BEFORE, made, could_run=True, now_ns=self.NOW).reason == "new"

    def test_the_reason_of_a_pod_that_succeeded(self) -> None:
        ready_before = status(phase="Succeeded", conditions=[{"type": "Ready", "status": "True", "message": "m"}])
        (condition,) = (
            hold_back_final_phase(self.BEFORE, ready_before, could_run=False, now_ns=self.NOW).conditions or []
        )
        assert (condition.status, condition.reason, condition.message) == ("False", "PodCompleted", None)

    def test_other_phases_pass(self) -> None:
        made = status(phase="Running", conditions=[{"type": "Ready", "status": "True"}])
        assert hold_back_final_phase(self.BEFORE, made, could_run=False, now_ns=self.NOW) == made


class TestFinish:
    RUNS: dict[str, Any] = {"state": {"running": {}}}  # noqa: RUF012 - never changed
    WAITS: dict[str, Any] = {"state": {"waiting": {}}}  # noqa: RUF012 - never changed
    DONE: dict[str, Any] = {"state": {"terminated": {"exitCode": 0}}}  # noqa: RUF012 - never changed

    def ends(self, pod: core_v1.Pod, made: core_v1.PodStatus) -> dict[str, int | None]:
        done = finish_status(pod, made, NOW_NS)
        statuses = [*(done.initContainerStatuses or ()), *(done.containerStatuses or ())]
        return {s.name: s.state.terminated.exitCode if s.state and s.state.terminated else None for s in statuses}

    def test_what_never_ended_has_ended(self) -> None:
        """Also what waited for its first start; and the pod failed."""
        made = status(phase="Running", containerStatuses=[container("a", **self.RUNS), container("b", **self.DONE)])
        assert self.ends(make_pod("a", "b"), made) == {"a": 137, "b": 0}
        made.conditions = status(conditions=[{"type": "Ready", "status": "True"}]).conditions
        done = finish_status(make_pod("a", "b"), made, NOW_NS)
        assert done.phase == "Failed"
        assert [(c.status, c.lastTransitionTime) for c in done.conditions or ()] == [("False", time_of_ns(NOW_NS))]
        ran = container("a", **self.RUNS, started=True) | {"ready": True}
        done = finish_status(make_pod("a"), status(containerStatuses=[ran]), NOW_NS)
        assert [(s.ready, s.started) for s in done.containerStatuses or ()] == [(False, False)]
        assert self.ends(make_pod("a"), status(containerStatuses=[container("a", **self.WAITS)])) == {"a": 137}

    def test_a_sidecar_that_ran_last_has_initialized_the_pod(self) -> None:
        """It ends by a signal, and not well."""
        killed = container("s", state={"terminated": {"exitCode": 137}})
        made = status(initContainerStatuses=[killed], containerStatuses=[container("a", **self.WAITS)])
        assert self.ends(make_pod("a", init=[make_sidecar("s")]), made) == {"s": 137, "a": 137}
        assert self.ends(make_pod("a", init=["s"]), made) == {"s": 137, "a": None}
        pulling = status(
            initContainerStatuses=[container("s", **self.WAITS)], containerStatuses=[container("a", **self.WAITS)]
        )
        assert self.ends(make_pod("a", init=[make_sidecar("s")]), pulling) == {"s": 137, "a": None}
        nobody = status(containerStatuses=[container("a", **self.WAITS)])
        assert self.ends(make_pod("a", init=["s"]), nobody) == {"a": None}

    @pytest.mark.parametrize("phase", ["Succeeded", "Failed"])
    def test_a_final_phase_stays(self, phase: str) -> None:
        assert finish_status(make_pod("a"), status(phase=phase), NOW_NS).phase == phase

    def test_a_static_pod_does_not_fail(self) -> None:
        """It comes back."""
        pod = make_pod("a", metadata={"annotations": {"kubernetes.io/config.source": "file"}})
        assert finish_status(pod, status(phase="Running"), NOW_NS).phase == "Running"

    def test_who_never_had_a_turn_keeps_waiting(self) -> None:
        """Init containers after the one that ran last, and all main containers of a pod that was not initialized."""
        pod = make_pod("m", init=["i", "j", "k"])
        init = [container("i", **self.DONE), container("j", **self.RUNS), container("k", **self.WAITS)]
        made = status(initContainerStatuses=init, containerStatuses=[container("m", **self.WAITS)])
        assert self.ends(pod, made) == {"i": 0, "j": 137, "k": None, "m": None}

    def test_at_least_the_first_had_its_turn(self) -> None:
        pod = make_pod("m", init=["i"])
        waits = container("i", **self.WAITS)
        made = status(initContainerStatuses=[waits], containerStatuses=[container("m", **self.WAITS)])
        assert self.ends(pod, made) == {"i": 137, "m": None}

    @pytest.mark.parametrize(
        "trace",
        [
            {"init": {"state": {"terminated": {"exitCode": 0}}}},
            {"init": {"state": {"waiting": {}}, "lastState": {"terminated": {"exitCode": 0}}}},
            {"main": {"state": {"waiting": {}}, "lastState": {"terminated": {"exitCode": 1}}}},
        ],
    )
    def test_an_initialized_pod_is_over_as_a_whole(self, trace: dict[str, Any]) -> None:
        """The last init container succeeded, or a main container has run."""
        pod = make_pod("m", init=["i"])
        made = status(
            initContainerStatuses=[container("i", **trace.get("init", self.WAITS))],
            containerStatuses=[container("m", **trace.get("main", self.WAITS))],
        )
        assert self.ends(pod, made)["m"] == 137

    def test_a_status_without_states(self) -> None:
        made = status(initContainerStatuses=[container("i")], containerStatuses=[container("m")])
        assert self.ends(make_pod("m", init=["i"]), made) == {"i": 137, "m": None}
