"""Which pods give way to a critical one."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kubelet_py.api import core_v1
from kubelet_py.api import pod as pods
from kubelet_py.core.preemption import choose_victims, describe, is_preemptable, patience_seconds
from tests.sim.pods import make_container, make_pod

CRITICAL = 2_000_000_000


def a_pod(name: str, requests: dict[str, str] | None = None, guaranteed: bool = False, **fields: Any) -> core_v1.Pod:
    resources: dict[str, Any] = {"requests": requests} if requests else {}
    if guaranteed:
        resources["limits"] = requests
    return make_pod(make_container("app", resources=resources), metadata={"uid": name, "name": name}, **fields)


PREEMPTOR = a_pod("critical", priority=CRITICAL)


def names(victims: tuple[core_v1.Pod, ...] | None) -> list[str] | None:
    return None if victims is None else [pods.uid_of(pod) for pod in victims]


def test_critical_pods_stand_above_others_and_else_the_priority_counts() -> None:
    assert is_preemptable(PREEMPTOR, a_pod("plain"))
    assert not is_preemptable(PREEMPTOR, a_pod("other", priority=CRITICAL))
    assert is_preemptable(a_pod("higher", priority=CRITICAL + 1), a_pod("other", priority=CRITICAL))
    assert not is_preemptable(a_pod("plain", priority=5), a_pod("unset"))
    assert not is_preemptable(a_pod("unset"), a_pod("plain", priority=5))


def test_the_cheapest_class_goes_first() -> None:
    """BestEffort pods only make room for themselves."""
    guaranteed = a_pod("guaranteed", {"cpu": "1", "memory": "1Gi"}, guaranteed=True)
    burstable, best_effort = a_pod("burstable", {"cpu": "1"}), a_pod("best-effort")
    everybody = [guaranteed, burstable, best_effort]
    assert names(choose_victims(PREEMPTOR, everybody, {"pods": 1})) == ["best-effort"]
    assert names(choose_victims(PREEMPTOR, everybody, {"cpu": 500})) == ["burstable"]
    assert names(choose_victims(PREEMPTOR, everybody, {"cpu": 1500})) == ["burstable", "guaranteed"]
    assert names(choose_victims(PREEMPTOR, everybody, {"memory": 1, "pods": 1})) == ["guaranteed"]
    assert names(choose_victims(PREEMPTOR, everybody, {"cpu": 1000, "pods": 3})) == [
        "best-effort",
        "burstable",
        "guaranteed",
    ]


def test_the_pod_that_comes_closest_goes() -> None:
    """And of two that would do, the smaller."""
    small, middle, big = (a_pod(f"{cpu}m", {"cpu": f"{cpu}m"}) for cpu in (100, 500, 900))
    assert names(choose_victims(PREEMPTOR, [big, middle, small], {"cpu": 400})) == ["500m"]
    assert names(choose_victims(PREEMPTOR, [small, middle], {"cpu": 600})) == ["500m", "100m"]
    assert names(choose_victims(PREEMPTOR, [big, small, middle], {"cpu": 50})) == ["100m"]


def test_where_all_of_them_would_not_do_nobody_goes() -> None:
    assert choose_victims(PREEMPTOR, [a_pod("a", {"cpu": "1"})], {"cpu": 1001}) is None
    assert choose_victims(PREEMPTOR, [a_pod("a", {"cpu": "1"}, priority=CRITICAL)], {"cpu": 1}) is None
    assert choose_victims(PREEMPTOR, [], {}) == ()


def test_what_is_missing_is_listed() -> None:
    assert describe({"cpu": 5, "pods": 1}) == "[(res: cpu, q: 5), (res: pods, q: 1), ]"


@given(
    st.lists(st.tuples(st.sampled_from(["0", "100m", "1", "3"]), st.booleans()), max_size=6),
    st.integers(1, 9000),
    st.integers(1, 4),
)
def test_the_victims_free_enough_and_none_is_spared_in_vain(
    others: list[tuple[str, bool]], milli_cpu: int, count: int
) -> None:
    """Without any one of them something would be missing."""
    running = [a_pod(f"p{n}", {"cpu": cpu, "memory": "0"}, guaranteed) for n, (cpu, guaranteed) in enumerate(others)]
    milli = {"0": 0, "100m": 100, "1": 1000, "3": 3000}
    size = {f"p{n}": milli[cpu] for n, (cpu, _) in enumerate(others)}
    victims = names(choose_victims(PREEMPTOR, running, {"cpu": milli_cpu, "pods": count}))
    if victims is None:
        assert sum(size.values()) < milli_cpu or len(running) < count
        return
    assert sum(size[name] for name in victims) >= milli_cpu
    assert len(victims) >= count
    assert len(set(victims)) == len(victims)


@pytest.mark.parametrize("cpu", ["1", "2"])
def test_static_pods_are_critical(cpu: str) -> None:
    static = make_pod("app", metadata={"annotations": {"kubernetes.io/config.source": "file"}})
    assert names(choose_victims(static, [a_pod("a", {"cpu": cpu})], {"cpu": 1})) == ["a"]


@pytest.mark.parametrize(
    ("grace_seconds", "seconds"), [(None, 10), (0, 10), (6, 10), (7, 10), (8, 12), (9, 13), (30, 45), (61, 91)]
)
def test_the_wait_is_half_as_long_again_as_the_grace_period_and_ten_seconds_at_least(
    grace_seconds: int | None, seconds: int
) -> None:
    assert patience_seconds(grace_seconds) == seconds
