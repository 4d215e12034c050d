"""The phase from the statuses of containers."""

from typing import Any

import pytest

from kubelet_py.api import codec, core_v1
from kubelet_py.core.pod_phase import compute_phase, terminated_state
from tests.sim.pods import make_container, make_pod, make_sidecar, restart_rule

RUNS: dict[str, Any] = {"state": {"running": {}}, "started": True}
STARTS: dict[str, Any] = {"state": {"running": {}}, "started": False}
WAITS: dict[str, Any] = {"state": {"waiting": {}}}
NO_STATE: dict[str, Any] = {}


def ended(exit_code: int, **more: Any) -> dict[str, Any]:
    return {"state": {"terminated": {"exitCode": exit_code, **more}}}


def waits_after(exit_code: int, **more: Any) -> dict[str, Any]:
    return {**WAITS, "lastState": {"terminated": {"exitCode": exit_code, **more}}}


def statuses(**by_name: dict[str, Any]) -> list[core_v1.ContainerStatus]:
    base = {"image": "", "imageID": "", "ready": False, "restartCount": 0}
    return [codec.from_builtins(core_v1.ContainerStatus, {"name": n, **base, **s}) for n, s in by_name.items()]


def phase(
    pod: core_v1.Pod, is_stopped_for_good: bool = False, *, has_begun: bool = False, **by_name: dict[str, Any]
) -> str:
    return compute_phase(pod, statuses(**by_name), is_stopped_for_good, has_begun)


ALWAYS, ON_FAILURE, NEVER = (make_pod("a", "b", restartPolicy=p) for p in ("Always", "OnFailure", "Never"))


@pytest.mark.parametrize(
    ("pod", "a", "b", "expected"),
    [
        (ALWAYS, RUNS, RUNS, "Running"),
        (ALWAYS, RUNS, WAITS, "Pending"),
        (ALWAYS, RUNS, NO_STATE, "Pending"),
        (ALWAYS, RUNS, waits_after(1), "Running"),
        (ALWAYS, waits_after(1), waits_after(1), "Running"),
        (ALWAYS, ended(0), ended(0), "Running"),
        (ON_FAILURE, ended(0), ended(0), "Succeeded"),
        (ON_FAILURE, ended(0), ended(1), "Running"),
        (ON_FAILURE, ended(0), waits_after(1), "Running"),
        (NEVER, RUNS, ended(1), "Running"),
        (NEVER, ended(0), ended(0), "Succeeded"),
        (NEVER, ended(0), ended(1), "Failed"),
        (NEVER, ended(0), waits_after(1), "Failed"),
        (NEVER, ended(0), waits_after(0), "Failed"),
        (NEVER, ended(0), ended(137, reason="RestartingAllContainers"), "Running"),
    ],
)
def test_main_containers(pod: core_v1.Pod, a: dict[str, Any], b: dict[str, Any], expected: str) -> None:
    """Waiting for a first start is Pending; something runs is Running; the rest by policy and exit codes."""
    assert phase(pod, a=a, b=b) == expected


def test_a_container_without_a_status_is_pending() -> None:
    """Nobody knows it yet."""
    assert phase(ALWAYS, a=RUNS) == "Pending"
    assert phase(make_pod("a", init=[make_sidecar("s")]), a=RUNS) == "Pending"


def test_containers_may_have_policies_of_their_own() -> None:
    """One that comes back keeps the pod Running."""
    rules = [restart_rule("Restart", "In", 3)]
    pod = make_pod(make_container("a", restartPolicy="Never", restartPolicyRules=rules), restartPolicy="Never")
    assert phase(pod, a=ended(3)) == "Running"
    assert phase(pod, a=ended(1)) == "Failed"


@pytest.mark.parametrize(("exit_code", "expected"), [(0, "Succeeded"), (1, "Failed")])
def test_a_pod_that_the_agent_stopped_is_final_whatever_the_policy(exit_code: int, expected: str) -> None:
    """Only a static pod is not: it comes back with the agent."""
    assert phase(ALWAYS, True, a=ended(0), b=ended(exit_code)) == expected
    static = make_pod("a", "b", metadata={"annotations": {"kubernetes.io/config.source": "file"}})
    assert phase(static, True, a=ended(0), b=ended(exit_code)) == "Running"


@pytest.mark.parametrize(
    ("init", "main", "policy", "expected"),
    [
        (RUNS, WAITS, "Always", "Pending"),
        (WAITS, WAITS, "Always", "Pending"),
        (NO_STATE, WAITS, "Always", "Pending"),
        (ended(0), WAITS, "Always", "Pending"),
        (ended(0), RUNS, "Always", "Running"),
        (RUNS, RUNS, "Always", "Pending"),
        (RUNS, ended(1), "Always", "Pending"),
        (ended(1), WAITS, "Always", "Pending"),
        (ended(1), WAITS, "Never", "Failed"),
        (waits_after(1), WAITS, "Never", "Failed"),
        (waits_after(0), WAITS, "Never", "Pending"),
        (ended(137, reason="RestartingAllContainers"), WAITS, "Never", "Pending"),
    ],
)
def test_init_containers(init: dict[str, Any], main: dict[str, Any], policy: str, expected: str) -> None:
    """A failure that policy does not mend fails the pod; else it is Pending until they are through, once more where
    the main container ran in a sandbox before."""
    assert phase(make_pod("a", init=["i"], restartPolicy=policy), a=main, i=init) == expected


def test_an_init_container_without_a_status_is_to_come() -> None:
    """Even if the main containers could be thought to be through."""
    assert phase(make_pod("a", init=["i"]), a=WAITS) == "Pending"


@pytest.mark.parametrize(
    ("sidecar", "main", "expected"),
    [
        (STARTS, WAITS, "Pending"),
        (RUNS, WAITS, "Pending"),
        (RUNS, RUNS, "Running"),
        (STARTS, RUNS, "Running"),
        (WAITS, RUNS, "Pending"),
        (NO_STATE, RUNS, "Pending"),
        (waits_after(1), RUNS, "Running"),
        (ended(1), RUNS, "Running"),
        (ended(1), ended(0), "Succeeded"),
        (RUNS, ended(0), "Running"),
    ],
)
def test_sidecars(sidecar: dict[str, Any], main: dict[str, Any], expected: str) -> None:
    """One that ended holds nothing up; one that runs keeps the pod Running until it is stopped."""
    pod = make_pod("a", init=[make_sidecar("s")], restartPolicy="Never")
    assert phase(pod, has_begun=main in (RUNS, ended(0)), a=main, s=sidecar) == expected


@pytest.mark.parametrize(
    ("first", "second", "main", "expected"),
    [
        (WAITS, RUNS, RUNS, "Pending"),
        (RUNS, NO_STATE, RUNS, "Pending"),
        (NO_STATE, WAITS, RUNS, "Pending"),
        (NO_STATE, NO_STATE, ended(0), "Pending"),
        (RUNS, RUNS, ended(0), "Running"),
        (ended(0), ended(1), ended(0), "Succeeded"),
        (ended(1), RUNS, ended(0), "Running"),
    ],
)
def test_every_sidecar_counts(
    first: dict[str, Any], second: dict[str, Any], main: dict[str, Any], expected: str
) -> None:
    """One that is not up yet holds the pod back, whatever the others do."""
    pod = make_pod("a", init=[make_sidecar("s"), make_sidecar("t")], restartPolicy="Never")
    assert phase(pod, a=main, s=first, t=second) == expected


@pytest.mark.parametrize(
    ("first", "second", "expected"),
    [(RUNS, RUNS, "Running"), (STARTS, RUNS, "Pending"), (RUNS, STARTS, "Pending"), (ended(1), RUNS, "Running")],
)
def test_a_new_sandbox_initializes_again(first: dict[str, Any], second: dict[str, Any], expected: str) -> None:
    """The main container ran in the sandbox before; until every sidecar has started, the pod is Pending."""
    pod = make_pod("a", init=[make_sidecar("s"), make_sidecar("t")])
    assert phase(pod, a=waits_after(1), s=first, t=second) == expected
    assert phase(pod, a=ended(137), s=first, t=second) == expected
    assert phase(pod, has_begun=True, a=ended(137), s=first, t=second) == "Running"


def test_a_pod_without_containers_is_pending() -> None:
    """The API refuses it; a manifest might hold it."""
    pod = make_pod("a")
    assert pod.spec is not None
    pod.spec.containers = []
    assert phase(pod) == "Pending"


def test_how_a_container_ended() -> None:
    """Now, or before it began to wait; a running one has not."""
    now, before, runs, never, empty = statuses(a=ended(1), b=waits_after(2), c=RUNS, d=WAITS, e=NO_STATE)
    assert [getattr(terminated_state(s), "exitCode", None) for s in (now, before, runs, never, empty)] == [
        1,
        2,
        None,
        None,
        None,
    ]
