"""QoS classes and OOM scores follow the Go kubelet's rules."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kubelet_py.api import core_v1
from kubelet_py.api import pod as podlib
from kubelet_py.api import quantity as q
from kubelet_py.core import pod_resources
from kubelet_py.core.qos import QosClass, compute_qos_class, oom_score_adj, qos_class_of
from tests.unit.kubelet_py.core.pod_builder import a_container, a_pod, sized

GIB = 2**30
FULL = {"cpu": "1", "memory": "1Gi"}


@pytest.mark.parametrize(
    ("containers", "expected"),
    [
        ([a_container()], QosClass.BEST_EFFORT),
        ([a_container(**sized(FULL, FULL))], QosClass.GUARANTEED),
        ([a_container(**sized(FULL, FULL)), a_container("b")], QosClass.BURSTABLE),
        ([a_container(**sized({"cpu": "1"}, FULL))], QosClass.BURSTABLE),
        ([a_container(**sized({"cpu": "1"}, {"cpu": "1"}))], QosClass.BURSTABLE),
        ([a_container(**sized({"memory": "1Gi"}))], QosClass.BURSTABLE),
        ([a_container(**sized({"example.com/gpu": "1"}, {"example.com/gpu": "1"}))], QosClass.BEST_EFFORT),
        ([a_container(**sized({"cpu": "0"}, {"memory": "0"}))], QosClass.BEST_EFFORT),
    ],
)
def test_class_by_requests_and_limits(containers: list[dict[str, Any]], expected: QosClass) -> None:
    """Guaranteed when both resources are limited and asked for alike everywhere, BestEffort when nowhere."""
    assert compute_qos_class(a_pod(*containers)) is expected


def test_init_containers_count() -> None:
    """A burstable init container makes the pod burstable."""
    pod = a_pod(a_container(**sized(FULL, FULL)), initContainers=[a_container("i", **sized({"cpu": "1"}))])
    assert compute_qos_class(pod) is QosClass.BURSTABLE


def test_pod_level_resources_decide_alone() -> None:
    """With them the containers' own do not matter."""
    pod = a_pod(a_container(), resources={"requests": FULL, "limits": FULL})
    assert compute_qos_class(pod) is QosClass.GUARANTEED


def test_stated_class_wins() -> None:
    """What the API server wrote into the status is not computed again."""
    pod = a_pod()
    pod.status = core_v1.PodStatus(qosClass="Guaranteed")
    assert qos_class_of(pod) is QosClass.GUARANTEED
    pod.status = core_v1.PodStatus()
    assert qos_class_of(pod) is QosClass.BEST_EFFORT


def test_no_containers_is_best_effort() -> None:
    """A pod that is not valid still has a class."""
    pod = a_pod()
    podlib.spec_of(pod).containers = []
    assert compute_qos_class(pod) is QosClass.BEST_EFFORT


def _score(pod: core_v1.Pod, index: int = 0) -> int:
    return oom_score_adj(pod, podlib.containers_of(pod)[index], 10 * GIB)


def test_scores_of_classes() -> None:
    """Guaranteed is killed last, BestEffort first."""
    assert _score(a_pod(a_container(**sized(FULL, FULL)))) == -997
    assert _score(a_pod()) == 1000


def test_burstable_score_falls_with_the_request() -> None:
    """A tenth of the memory is a tenth of the score, within what leaves room to the other classes."""
    assert _score(a_pod(a_container(**sized({"memory": "1Gi"})))) == 900
    assert _score(a_pod(a_container(**sized({"cpu": "1"})))) == 999
    assert _score(a_pod(a_container(**sized({"memory": "10Gi"})))) == 3
    assert _score(a_pod(a_container(**sized({"memory": "20Gi"})))) == 3


def test_node_critical_pods_are_protected() -> None:
    """system-node-critical with its priority is treated as Guaranteed."""
    pod = a_pod(priority=2_000_001_000, priorityClassName="system-node-critical")
    assert _score(pod) == -997
    assert _score(a_pod(priority=2_000_001_000, priorityClassName="other")) == 1000


def test_sidecar_outlives_the_containers_it_serves() -> None:
    """Its score is at most that of the smallest main container."""
    sidecar = a_container("side", restartPolicy="Always", **sized({"memory": "512Mi"}))
    pod = a_pod(a_container(**sized({"memory": "2Gi"})), initContainers=[sidecar])
    assert oom_score_adj(pod, podlib.init_containers_of(pod)[0], 10 * GIB) == 800
    big = a_container("side", restartPolicy="Always", **sized({"memory": "4Gi"}))
    pod = a_pod(a_container(**sized({"memory": "2Gi"})), initContainers=[big])
    assert oom_score_adj(pod, podlib.init_containers_of(pod)[0], 10 * GIB) == 600
    once = a_container("once", **sized({"memory": "512Mi"}))
    pod = a_pod(a_container(**sized({"memory": "2Gi"})), initContainers=[once])
    assert oom_score_adj(pod, podlib.init_containers_of(pod)[0], 10 * GIB) == 950, "it serves nobody"
    pod = a_pod(a_container("big", restartPolicy="Always", **sized({"memory": "1Gi"})), a_container("b"))
    assert _score(pod) == 900, "and neither does a main container that is always restarted"


def test_pod_level_leftover_is_shared() -> None:
    """What the pod asks for beyond its containers counts for each of them alike."""
    pod = a_pod(a_container(**sized({"memory": "1Gi"})), a_container("b"), resources={"requests": {"memory": "3Gi"}})
    assert _score(pod) == 1000 - 200
    assert _score(pod, 1) == 1000 - 100
    side = a_container("side", restartPolicy="Always")
    pod = a_pod(a_container(), initContainers=[side], resources={"requests": {"memory": "4Gi"}})
    assert _score(pod) == 1000 - 200
    assert oom_score_adj(pod, podlib.init_containers_of(pod)[0], 10 * GIB) == 1000 - 200
    pod = a_pod(a_container(**sized({"memory": "1Gi"})), resources={"requests": {"cpu": "3"}})
    assert _score(pod) == 900


_amounts = st.sampled_from([None, "0", "100m", "1", "2"])
_resources = st.builds(
    lambda rc, rm, lc, lm: sized(
        {k: v for k, v in (("cpu", rc), ("memory", rm)) if v}, {k: v for k, v in (("cpu", lc), ("memory", lm)) if v}
    ),
    _amounts,
    _amounts,
    _amounts,
    _amounts,
)


@given(st.lists(_resources, min_size=1, max_size=3), st.lists(_resources, max_size=2))
def test_class_follows_its_definition(mains: list[dict[str, Any]], inits: list[dict[str, Any]]) -> None:
    """Guaranteed: all equal and non-zero. BestEffort: all zero. Everything else: Burstable."""
    pod = a_pod(
        *[a_container(f"m{i}", **r) for i, r in enumerate(mains)],
        initContainers=[a_container(f"i{i}", **r) for i, r in enumerate(inits)],
    )
    pairs = [
        (
            pod_resources.quantity_of(r["resources"]["requests"], name),
            pod_resources.quantity_of(r["resources"]["limits"], name),
        )
        for r in (*mains, *inits)
        for name in ("cpu", "memory")
    ]
    if all(not request and not limit for request, limit in pairs):
        expected = QosClass.BEST_EFFORT
    elif all(request == limit and request for request, limit in pairs):
        expected = QosClass.GUARANTEED
    else:
        expected = QosClass.BURSTABLE
    assert compute_qos_class(pod) is expected


def test_sums_of_a_pod() -> None:
    """Mains and sidecars add up; an init container with the sidecars before it is a floor; overhead comes on top."""
    pod = a_pod(
        a_container("a", **sized({"cpu": "1"}, {"cpu": "1"})),
        a_container("b", **sized({"cpu": "1"}, {"cpu": "2"})),
        initContainers=[
            a_container("early", **sized({"cpu": "2"})),
            a_container("side", restartPolicy="Always", **sized({"cpu": "500m"})),
            a_container("big", **sized({"cpu": "4", "memory": "1Gi"})),
        ],
        overhead={"cpu": "100m", "memory": "1Mi"},
    )
    requests = pod_resources.compute_pod_requests(pod)
    assert requests["cpu"] == q.parse("4600m")
    assert requests["memory"] == q.parse("1025Mi")
    assert pod_resources.compute_pod_requests(pod, overhead=False)["cpu"] == q.parse("4500m")
    limits = pod_resources.compute_pod_limits(pod)
    assert limits == {"cpu": q.parse("3100m")}
    assert pod_resources.compute_pod_limits(pod, overhead=False) == {"cpu": q.parse("3")}


def test_extended_resources() -> None:
    """A vendor's domain makes one; the project's own domain and the quota spelling do not."""
    assert pod_resources.is_extended_resource("example.com/gpu")
    assert not pod_resources.is_extended_resource("cpu")
    assert not pod_resources.is_extended_resource("kubernetes.io/thing")
    assert not pod_resources.is_extended_resource("requests.example.com/gpu")
