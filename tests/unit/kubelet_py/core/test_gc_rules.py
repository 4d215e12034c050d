"""What garbage collection takes."""

from hypothesis import given
from hypothesis import strategies as st

from kubelet_py.core.gc_rules import (
    GcContainer,
    GcPolicy,
    GcSandbox,
    dead_containers,
    dead_log_directories,
    dead_sandboxes,
)
from kubelet_py.core.observed import ContainerState
from tests.sim.pods import CREATED, EXITED, NOW_NS, RUNNING, SECOND, UNKNOWN


def dead(n: int, name: str = "app", uid: str = "u", state: ContainerState = EXITED) -> GcContainer:
    """A container that was made n seconds after the epoch of these tests."""
    return GcContainer(f"{uid}-{name}-{n}", uid, name, "s", state, NOW_NS + n * SECOND)


def nobody(_: str) -> bool:
    return False


def everybody(_: str) -> bool:
    return True


NOW = NOW_NS + 100 * SECOND


def test_one_dead_run_of_each_container_stays() -> None:
    """The newest; what runs is not even counted."""
    seen = [dead(0), dead(1), dead(2), dead(3, state=RUNNING), dead(0, "web"), dead(0, uid="v")]
    assert dead_containers(seen, GcPolicy(), NOW, nobody) == ("u-app-0", "u-app-1")


def test_created_and_unknown_containers_count_as_dead() -> None:
    """They are history like others."""
    seen = [dead(0, state=CREATED), dead(1, state=UNKNOWN), dead(2)]
    assert dead_containers(seen, GcPolicy(), NOW, nobody) == ("u-app-0", "u-app-1")


def test_a_pod_that_is_gone_keeps_nothing() -> None:
    """But not before all sources are read."""
    seen = [dead(0), dead(1), dead(2, state=RUNNING)]
    assert dead_containers(seen, GcPolicy(), NOW, everybody) == ("u-app-0", "u-app-1")
    assert dead_containers(seen, GcPolicy(), NOW, everybody, sources_ready=False) == ("u-app-0",)


def test_only_the_pods_that_are_gone_lose_all() -> None:
    """Containers, sandboxes and logs of their neighbours keep their newest."""
    seen = [dead(0), dead(1), dead(0, uid="v"), dead(1, uid="v")]
    assert dead_containers(seen, GcPolicy(), NOW, lambda uid: uid == "v") == ("u-app-0", "v-app-0", "v-app-1")
    sandboxes = [GcSandbox(f"{uid}{n}", uid, False, n) for uid in "uv" for n in range(2)]
    assert dead_sandboxes(sandboxes, [], lambda uid: uid == "v") == ("u0", "v0", "v1")


def test_young_containers_are_spared() -> None:
    """By the age of their creation."""
    assert dead_containers([dead(1)], GcPolicy(min_age_seconds=99), NOW, everybody) == ("u-app-1",), "just old enough"
    policy = GcPolicy(min_age_seconds=99)
    assert dead_containers([dead(0), dead(2)], policy, NOW, everybody) == ("u-app-0",)


def test_no_limit_and_a_limit_of_none() -> None:
    """Negative keeps all, zero keeps none."""
    seen = [dead(0), dead(1)]
    assert dead_containers(seen, GcPolicy(max_per_container=-1), NOW, nobody) == ()
    assert dead_containers(seen, GcPolicy(max_per_container=0), NOW, nobody) == ("u-app-0", "u-app-1")


def test_the_limit_of_the_node_is_shared_out() -> None:
    """Equal parts first, at least one each, then the oldest of all go."""
    seen = [dead(n, name) for name in ("a", "b") for n in range(3)] + [dead(9, "c")]
    many = GcPolicy(max_per_container=3, max_containers=7)
    assert dead_containers(seen, many, NOW, nobody) == ()
    six = GcPolicy(max_per_container=3, max_containers=6)
    assert dead_containers(seen, six, NOW, nobody) == ("u-a-0", "u-b-0")
    none = GcPolicy(max_per_container=3, max_containers=0)
    assert len(dead_containers(seen, none, NOW, nobody)) == len(seen)
    four = GcPolicy(max_per_container=3, max_containers=4)
    assert dead_containers(seen, four, NOW, nobody) == ("u-a-0", "u-b-0", "u-a-1", "u-b-1")
    two = GcPolicy(max_per_container=3, max_containers=2)
    assert dead_containers(seen, two, NOW, nobody) == ("u-a-0", "u-b-0", "u-a-1", "u-b-1", "u-a-2")


def test_a_container_without_a_name_is_nobodys_history() -> None:
    """Two of them are two."""
    nameless = [GcContainer("x", "u", "", "s", EXITED, 0), GcContainer("y", "u", "", "s", EXITED, 1)]
    assert dead_containers(nameless, GcPolicy(), NOW, nobody) == ()


def sandbox(n: int, ready: bool = False) -> GcSandbox:
    return GcSandbox(f"s{n}", "u", ready, n)


def test_the_newest_sandbox_stays() -> None:
    """Unless the pod is gone, and that is known."""
    seen = [sandbox(0), sandbox(2), sandbox(1)]
    assert dead_sandboxes(seen, [], nobody) == ("s0", "s1")
    assert dead_sandboxes(seen, [], everybody) == ("s0", "s1", "s2")
    assert dead_sandboxes(seen, [], everybody, sources_ready=False) == ("s0", "s1")


def test_a_sandbox_in_use_stays() -> None:
    """Ready, or with a container in it, dead or alive."""
    seen = [sandbox(0), sandbox(1, ready=True), sandbox(2)]
    holder = GcContainer("c", "u", "app", "s0", EXITED, 0)
    assert dead_sandboxes(seen, [holder], everybody) == ("s2",)


def test_log_directories_of_pods_that_are_gone() -> None:
    """Only names of ours, and only when all sources are read."""
    names = ["shop_web_u-1", "shop_web_u-2", "lost+found"]
    assert dead_log_directories(names, lambda uid: uid == "u-1") == ("shop_web_u-1",)
    assert dead_log_directories(names, everybody, sources_ready=False) == ()


containers = st.lists(
    st.builds(dead, st.integers(0, 50), st.sampled_from("ab"), st.sampled_from("uv"), st.sampled_from(ContainerState)),
    max_size=15,
    unique_by=lambda c: c.id,
)


@given(containers, st.integers(-1, 3), st.integers(-1, 6), st.booleans())
def test_nothing_that_runs_is_taken_and_the_limits_hold(
    seen: list[GcContainer], per_container: int, on_node: int, gone: bool
) -> None:
    """Whatever there is; and a second round finds nothing more."""
    policy = GcPolicy(0.0, per_container, on_node)
    taken = set(dead_containers(seen, policy, NOW, everybody if gone else nobody))
    left = [c for c in seen if c.id not in taken]
    assert {c.id for c in seen if c.state is RUNNING} <= {c.id for c in left}
    corpses = [c for c in left if c.state is not RUNNING]
    if gone:
        assert corpses == []
    if on_node >= 0:
        assert len(corpses) <= on_node
    if per_container >= 0:
        units = [(c.pod_uid, c.name) for c in corpses]
        assert all(units.count(unit) <= per_container for unit in units)
    assert dead_containers(left, policy, NOW, everybody if gone else nobody) == ()
