"""Grace periods and the order of stopping."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kubelet_py.api import core_v1
from kubelet_py.core.termination import (
    KillStep,
    compute_kill_steps,
    container_grace_period_seconds,
    effective_grace_seconds,
    probe_grace_period_seconds,
    stop_timeout_seconds,
)
from tests.sim.pods import make_pod, make_run, make_sidecar


def test_the_probe_may_have_its_own_grace_period() -> None:
    """None without a probe or without a number."""
    assert probe_grace_period_seconds(None) is None
    assert probe_grace_period_seconds(core_v1.Probe()) is None
    assert probe_grace_period_seconds(core_v1.Probe(terminationGracePeriodSeconds=4)) == 4


@pytest.mark.parametrize(
    ("deletion", "spec", "override", "probe", "expected"),
    [
        (None, 30, None, None, 30),
        (None, 30, None, 4, 4),
        (None, 30, None, 60, 60),
        (10, 30, None, 4, 10),
        (10, 30, 1, 4, 1),
        (None, None, None, None, 2),
        (None, None, None, 4, 2),
        (0, 30, None, None, 0),
    ],
)
def test_who_says_how_long(
    deletion: int | None, spec: int | None, override: int | None, probe: int | None, expected: int
) -> None:
    """Override, then deletion, then probe, then spec; 2 s where nobody says anything."""
    pod = make_pod("app", metadata={"deletionGracePeriodSeconds": deletion}, terminationGracePeriodSeconds=spec)
    assert container_grace_period_seconds(pod, override, probe) == expected


def test_every_container_gets_two_seconds() -> None:
    """Also when the preStop hook ate everything."""
    assert stop_timeout_seconds(30, 4.7) == 26
    assert stop_timeout_seconds(30, 29.5) == 2
    assert stop_timeout_seconds(0, 0.0) == 2


def test_the_first_number_counts_and_then_only_smaller_ones() -> None:
    """The API server's number, the kill's, else the pod's own; never below 1 s."""
    assert effective_grace_seconds(None, spec_seconds=30) == 30
    assert effective_grace_seconds(None) == 1
    assert effective_grace_seconds(None, 10, None, 30) == 10
    assert effective_grace_seconds(None, 10, 5, 30) == 5
    assert effective_grace_seconds(5, 10, None, 30) == 5
    assert effective_grace_seconds(5, 3, None, 30) == 3
    assert effective_grace_seconds(5, None, 0, 30) == 1
    assert effective_grace_seconds(60, None, None, 30) == 60


@given(
    current=st.integers(1, 1000),
    deletion=st.none() | st.integers(0, 2000),
    override=st.none() | st.integers(0, 2000),
    spec=st.none() | st.integers(0, 2000),
)
def test_a_grace_period_never_grows(current: int, deletion: int | None, override: int | None, spec: int | None) -> None:
    """Nor does it reach 0."""
    assert 1 <= effective_grace_seconds(current, deletion, override, spec) <= current


def test_sidecars_outlive_the_main_containers_and_later_sidecars() -> None:
    """Those that do not run are not waited for; plain init and ephemeral containers wait for nobody."""
    pod = make_pod(
        "app",
        "gone",
        "worker",
        init=[make_sidecar("mesh"), "setup", make_sidecar("dead"), make_sidecar("logs")],
        ephemeral=["debug"],
    )
    living = [make_run(name) for name in ("mesh", "setup", "logs", "worker", "app", "debug")]
    assert compute_kill_steps(pod, living) == (
        KillStep("app-0", "app"),
        KillStep("debug-0", "debug"),
        KillStep("worker-0", "worker"),
        KillStep("logs-0", "logs", ("app", "worker")),
        KillStep("setup-0", "setup"),
        KillStep("mesh-0", "mesh", ("app", "worker", "logs")),
    )


@given(st.lists(st.booleans(), max_size=5), st.data())
def test_nobody_waits_in_a_circle(sidecars: list[bool], data: st.DataObject) -> None:
    """The waits can always be worked off: each one waits only for containers named before it."""
    init = [make_sidecar(f"i{n}") if is_sidecar else f"i{n}" for n, is_sidecar in enumerate(sidecars)]
    names = ["a", "b", *(f"i{n}" for n in range(len(sidecars)))]
    living = data.draw(st.permutations(names)) if names else []
    gone: set[str] = set()
    for step in compute_kill_steps(make_pod("a", "b", init=init), [make_run(name) for name in living]):
        assert set(step.after) <= gone
        gone.add(step.container_name)
    assert gone == set(living)
