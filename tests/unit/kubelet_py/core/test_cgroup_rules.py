"""Cgroup names and limits are the Go kubelet's."""

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cri_proto import runtime_v1 as cri
from kubelet_py.api import core_v1
from kubelet_py.api import pod as podlib
from kubelet_py.core import cgroup_rules as rules
from kubelet_py.core.cgroup_rules import CgroupDriver, CgroupLimits, CgroupSettings, SwapBehavior
from kubelet_py.core.qos import QosClass
from kubelet_py.errors import ConfigError
from tests.unit.kubelet_py.core.pod_builder import UID, a_container, a_pod, sized

GIB = 2**30
FULL = {"cpu": "500m", "memory": "1Gi"}
V1 = CgroupSettings(node_memory_bytes=10 * GIB)
V2 = CgroupSettings(node_memory_bytes=10 * GIB, node_allocatable_memory_bytes=8 * GIB, unified=True)


def _container(pod: core_v1.Pod, settings: CgroupSettings) -> cri.LinuxContainerResources:
    return rules.to_cri_linux_resources(pod, podlib.containers_of(pod)[0], settings)


@pytest.mark.parametrize("configured", list(CgroupDriver))
def test_the_driver_that_a_runtime_names(configured: CgroupDriver) -> None:
    """One that says nothing about Linux is not one that says systemd."""
    for number, driver in ((cri.SYSTEMD, CgroupDriver.SYSTEMD), (cri.CGROUPFS, CgroupDriver.CGROUPFS)):
        answer = cri.RuntimeConfigResponse(linux=cri.LinuxRuntimeConfiguration(cgroup_driver=number))
        assert rules.driver_of(answer, configured) is driver
    assert rules.driver_of(cri.RuntimeConfigResponse(), configured) is configured


def test_a_driver_that_nobody_knows_is_refused() -> None:
    """A runtime of a later Kubernetes."""
    answer = cri.RuntimeConfigResponse.FromString(b"\x0a\x02\x08\x07")
    with pytest.raises(ConfigError, match="names cgroup driver 7"):
        rules.driver_of(answer, CgroupDriver.SYSTEMD)


def test_paths_by_driver() -> None:
    """cgroupfs nests plain names; systemd repeats the prefix in each slice and escapes hyphens."""
    guaranteed, burstable = a_pod(a_container(**sized(FULL, FULL))), a_pod(a_container(**sized({"cpu": "1"})))
    name = rules.pod_cgroup_name(guaranteed, V1)
    assert rules.cgroup_path(name, CgroupDriver.CGROUPFS) == f"/kubepods/pod{UID}"
    name = rules.pod_cgroup_name(burstable, V1)
    assert rules.cgroup_path(name, CgroupDriver.CGROUPFS) == f"/kubepods/burstable/pod{UID}"
    escaped = UID.replace("-", "_")
    assert rules.cgroup_path(name, CgroupDriver.SYSTEMD) == (
        f"/kubepods.slice/kubepods-burstable.slice/kubepods-burstable-pod{escaped}.slice"
    )
    assert rules.cgroup_path((), CgroupDriver.SYSTEMD) == "/"
    assert rules.cgroup_path((), CgroupDriver.CGROUPFS) == "/"


def test_root_and_flat_hierarchy() -> None:
    """A cgroup root comes first; without QoS cgroups pods stand right below it."""
    below = CgroupSettings(root="/node/pods/")
    assert rules.node_cgroup_name(below) == ("node", "pods", "kubepods")
    assert rules.qos_cgroup_name(QosClass.BEST_EFFORT, below) == ("node", "pods", "kubepods", "besteffort")
    flat = CgroupSettings(root="/node", cgroups_per_qos=False)
    assert rules.pod_cgroup_name(a_pod(), flat) == ("node",)
    assert rules.pod_cgroup_parent(a_pod(), flat) == "", "the runtime's own choice"
    assert rules.pod_cgroup_parent(a_pod(), below) == f"/node/pods/kubepods/besteffort/pod{UID}"


@pytest.mark.parametrize(("milli", "shares"), [(0, 2), (1, 2), (2, 2), (250, 256), (1000, 1024), (10**9, 262144)])
def test_shares(milli: int, shares: int) -> None:
    """1024 for a core, within what the kernel takes."""
    assert rules.cpu_shares_of(milli) == shares


@pytest.mark.parametrize(
    ("milli", "quota"), [(0, 0), (1, 1000), (10, 1000), (500, 50_000), (2000, 200_000), (10**17, 2**63 - 1)]
)
def test_quota(milli: int, quota: int) -> None:
    """Microseconds of a period of 100 ms, never under a millisecond, nor more than CRI can say."""
    assert rules.cpu_quota_of(milli) == quota


def test_ways_back() -> None:
    """What a runtime reports becomes thousandths of a core again."""
    assert rules.milli_cpu_of_shares(1024) == 1000
    assert rules.milli_cpu_of_shares(1) == 0
    assert rules.milli_cpu_of_quota(50_000, 100_000) == 500
    assert rules.milli_cpu_of_quota(-1, 100_000) == 0
    assert rules.milli_cpu_of_quota(50_000, 0) == 0


@pytest.mark.parametrize(("shares", "weight"), [(2, 1), (0, 1), (1024, 39), (262144, 10000)])
def test_weight(shares: int, weight: int) -> None:
    """The pod's own cgroup has a weight that grows with its shares."""
    assert rules.cpu_weight_of_shares(shares) == weight


@given(st.integers(min_value=3, max_value=200_000))
def test_shares_come_back_within_their_rounding(milli: int) -> None:
    """A request survives the way through the kernel's unit."""
    assert abs(rules.milli_cpu_of_shares(rules.cpu_shares_of(milli)) - milli) <= 1


def test_what_an_agent_of_earlier_made_is_taken_as_it_is() -> None:
    """On v2 many shares are one weight: those that are wanted are not called others. What is not read was made so."""
    wanted = CgroupLimits(cpu_shares=1025, cpu_quota_microseconds=9000, memory_bytes=2048, pids=5, unified={"a": "b"})
    read = rules.cpu_shares_of_weight(rules.cpu_weight_of_shares(1025))
    found = CgroupLimits(cpu_shares=read, cpu_quota_microseconds=7000, cpu_period_microseconds=100, memory_bytes=1024)
    assert read != 1025
    v2 = rules.adopted_limits(found, wanted, unified=True)
    assert v2 == CgroupLimits(1025, 7000, 100, 1024, pids=5, unified={"a": "b"})
    assert rules.adopted_limits(found, wanted, unified=False).cpu_shares == read
    other = replace(found, cpu_shares=rules.cpu_shares_of_weight(rules.cpu_weight_of_shares(2048)))
    assert rules.adopted_limits(other, wanted, unified=True).cpu_shares == other.cpu_shares
    assert rules.adopted_limits(CgroupLimits(), wanted, unified=True).cpu_shares is None
    assert rules.adopted_limits(found, CgroupLimits(), unified=True).cpu_shares == read


@given(st.integers(1, 10_000))
def test_weights_come_back(weight: int) -> None:
    assert rules.cpu_weight_of_shares(rules.cpu_shares_of_weight(weight)) in (weight - 1, weight)


def test_limits_of_a_guaranteed_pod() -> None:
    """Shares, quota and memory."""
    assert rules.compute_pod_limits(a_pod(a_container(**sized(FULL, FULL))), V1) == CgroupLimits(
        cpu_shares=512, cpu_quota_microseconds=50_000, cpu_period_microseconds=100_000, memory_bytes=GIB
    )


def test_limits_of_a_burstable_pod() -> None:
    """Memory and quota only when every container has them, or the pod as a whole."""
    one_without = a_pod(a_container(**sized({"cpu": "1"}, FULL)), a_container("b"))
    assert rules.compute_pod_limits(one_without, V1) == CgroupLimits(cpu_shares=1024)
    all_with = a_pod(a_container(**sized({"cpu": "250m"}, FULL)))
    limits = rules.compute_pod_limits(all_with, V1)
    assert (limits.cpu_quota_microseconds, limits.memory_bytes) == (50_000, GIB)
    as_a_whole = a_pod(a_container(), resources={"limits": {"memory": "2Gi"}, "requests": {"memory": "1Gi"}})
    limits = rules.compute_pod_limits(as_a_whole, V1)
    assert (limits.cpu_quota_microseconds, limits.memory_bytes) == (None, 2 * GIB)


def test_limits_of_a_best_effort_pod() -> None:
    """The least of shares; process ids are limited for all."""
    settings = CgroupSettings(pod_pids_limit=100)
    assert rules.compute_pod_limits(a_pod(), settings) == CgroupLimits(cpu_shares=2, pids=100)


def test_quota_not_enforced() -> None:
    """cpuCFSQuota false: the pod's quota is lifted, the container's not set."""
    settings = CgroupSettings(enforce_cpu_limits=False, node_memory_bytes=GIB)
    pod = a_pod(a_container(**sized(FULL, FULL)))
    assert rules.compute_pod_limits(pod, settings).cpu_quota_microseconds == -1
    assert (_container(pod, settings).cpu_quota, _container(pod, settings).cpu_period) == (0, 0)


def test_container_resources() -> None:
    """A container's request makes its shares, its limits quota and memory, its class the OOM score."""
    resources = _container(a_pod(a_container(**sized({"cpu": "250m"}, FULL))), V1)
    assert resources == cri.LinuxContainerResources(
        cpu_shares=256, cpu_quota=50_000, cpu_period=100_000, memory_limit_in_bytes=GIB, oom_score_adj=999
    )


def test_container_without_request_takes_its_limit() -> None:
    """And without either the kernel's least."""
    assert _container(a_pod(a_container(**sized(None, {"cpu": "2"}))), V1).cpu_shares == 2048
    assert _container(a_pod(), V1).cpu_shares == 2


def test_pod_level_limits_stand_in() -> None:
    """A container without limits of its own gets the pod's."""
    pod = a_pod(a_container(), resources={"limits": FULL})
    resources = _container(pod, V1)
    assert (resources.cpu_quota, resources.memory_limit_in_bytes) == (50_000, GIB)


def test_hugepages() -> None:
    """Each size of the machine is stated, zero unless asked for; other sizes do not exist."""
    settings = CgroupSettings(node_memory_bytes=GIB, hugepage_sizes=("2MB", "1GB"))
    wanted = {"hugepages-2Mi": "4Mi", "hugepages-64Ki": "64Ki"}
    pod = a_pod(a_container(**sized(wanted, wanted)))
    assert [(h.page_size, h.limit) for h in _container(pod, settings).hugepage_limits] == [
        ("2MB", 4 * 2**20),
        ("1GB", 0),
    ]
    assert rules.compute_pod_limits(pod, settings).hugepages == {"2MB": 4 * 2**20, "1GB": 0}


@pytest.mark.parametrize(
    ("size", "name"), [(1, "1B"), (65536, "64KB"), (2**21, "2MB"), (2**30, "1GB"), (2**70, f"{2**20}PB"), (0, "0B")]
)
def test_hugepage_size_names(size: int, name: str) -> None:
    """The hugetlb controller's spelling."""
    assert rules.hugepage_size_name(size) == name


def test_oom_group() -> None:
    """On v2, singleProcessOOMKill false kills a container as a whole."""
    settings = CgroupSettings(unified=True, single_process_oom_kill=False, memory_qos=False)
    assert _container(a_pod(), settings).unified["memory.oom.group"] == "1"


def _swap(settings: dict[str, Any], pod: core_v1.Pod) -> str:
    return _container(
        pod, CgroupSettings(unified=True, swap_controller=True, node_memory_bytes=10 * GIB, **settings)
    ).unified["memory.swap.max"]


def test_swap() -> None:
    """None by default; LimitedSwap gives burstable containers their share of it."""
    pod = a_pod(a_container(**sized({"memory": "1Gi"})))
    limited = {"swap_behavior": SwapBehavior.LIMITED_SWAP, "node_swap_bytes": 10 * GIB}
    assert _swap({}, pod) == "0"
    assert _swap(limited, pod) == str(GIB)
    assert _swap(limited, a_pod(a_container(**sized({"memory": "20Gi"})))) == "0"
    assert _swap(limited, a_pod(a_container(**sized({"cpu": "1", "memory": "1Gi"}, {"memory": "1Gi"})))) == "0"
    assert _swap(limited, a_pod()) == "0"
    assert _swap(limited, a_pod(a_container(**sized({"memory": "1Gi"})), priority=2_000_000_000)) == "0"


def test_swap_on_v1() -> None:
    """There the limit counts memory and swap together: equal means no swap beyond it."""
    settings = CgroupSettings(swap_controller=True, node_memory_bytes=GIB)
    pod = a_pod(a_container(**sized(None, {"memory": "1Mi"})))
    assert _container(pod, settings).memory_swap_limit_in_bytes == 2**20


def test_memory_files_of_containers() -> None:
    """MemoryQoS states protection and throttling; without the gate throttling is lifted."""
    burstable = a_pod(a_container(**sized({"memory": "1Gi"}, {"memory": "2Gi"})))
    assert dict(_container(burstable, V2).unified) == {"memory.min": "0", "memory.low": "0"}
    off = CgroupSettings(unified=True, memory_qos=False)
    assert dict(_container(burstable, off).unified) == {"memory.high": "max"}
    throttled = CgroupSettings(
        unified=True,
        memory_throttling_factor=0.9,
        tiered_memory_reservation=True,
        node_allocatable_memory_bytes=8 * GIB,
    )
    expected = int((GIB + 0.9 * GIB) // 4096) * 4096
    assert dict(_container(burstable, throttled).unified) == {"memory.low": str(GIB), "memory.high": str(expected)}
    guaranteed = a_pod(a_container(**sized(FULL, FULL)))
    assert dict(_container(guaranteed, throttled).unified) == {"memory.min": str(GIB)}
    best_effort = dict(_container(a_pod(), throttled).unified)
    assert best_effort["memory.high"] == str(int(0.9 * 8 * GIB // 4096) * 4096)
    by_pod = a_pod(a_container(), resources={"limits": {"memory": "1Gi"}, "requests": {"memory": "512Mi"}})
    assert "memory.high" not in _container(by_pod, throttled).unified


def test_throttling_needs_room() -> None:
    """A point below the request is none."""
    settings = CgroupSettings(unified=True, memory_throttling_factor=0.00001)
    pod = a_pod(a_container(**sized({"memory": "1Mi"}, {"memory": "2Mi"})))
    assert "memory.high" not in _container(pod, settings).unified


def test_memory_files_of_pods() -> None:
    """The pod's own cgroup protects its request, and throttles when pod-level resources are set."""
    settings = CgroupSettings(unified=True, memory_throttling_factor=0.5, tiered_memory_reservation=True)
    pod = a_pod(a_container(), resources={"limits": {"memory": "2Gi"}, "requests": {"memory": "1Gi"}})
    assert rules.compute_pod_limits(pod, settings).unified == {
        "memory.low": str(GIB),
        "memory.high": str(GIB + GIB // 2),
    }
    same = a_pod(a_container(), resources={"limits": {"memory": "1Gi"}, "requests": {"memory": "1Gi"}})
    assert rules.compute_pod_limits(same, settings).unified == {"memory.low": str(GIB)}
    unlimited = a_pod(a_container(), resources={"requests": {"memory": "1Gi"}})
    assert rules.compute_pod_limits(unlimited, settings).unified == {"memory.low": str(GIB)}
    assert rules.compute_pod_limits(a_pod(), settings).unified == {}
    assert rules.compute_pod_limits(pod, V1).unified == {}


def test_classes_have_the_sum_of_their_pods() -> None:
    """Of CPU time the Burstable one; with TieredReservation the memory of pods is protected on every level above."""
    pods = {
        "g": a_pod(a_container(**sized(FULL, FULL))),
        "b1": a_pod(a_container(**sized({"cpu": "250m", "memory": "1Gi"}))),
        "b2": a_pod(a_container(**sized({"cpu": "750m"}))),
        "n": a_pod(),
    }
    asked = {uid: rules.qos_requests_of(pod) for uid, pod in pods.items()}
    tiered = CgroupSettings(unified=True, tiered_memory_reservation=True)
    assert rules.compute_class_limits(asked, tiered) == {
        QosClass.GUARANTEED: CgroupLimits(unified={"memory.min": str(2 * GIB), "memory.low": str(GIB)}),
        QosClass.BURSTABLE: CgroupLimits(cpu_shares=1024, unified={"memory.low": str(GIB)}),
        QosClass.BEST_EFFORT: CgroupLimits(cpu_shares=2),
    }
    # what an earlier setting left is taken back
    without = {
        QosClass.GUARANTEED: CgroupLimits(unified={"memory.min": "0", "memory.low": "0"}),
        QosClass.BURSTABLE: CgroupLimits(cpu_shares=1024, unified={"memory.low": "0"}),
        QosClass.BEST_EFFORT: CgroupLimits(cpu_shares=2),
    }
    assert rules.compute_class_limits(asked, V2) == without
    off = CgroupSettings(unified=True, tiered_memory_reservation=True, memory_qos=False)
    assert rules.compute_class_limits(asked, off) == without
    assert rules.compute_class_limits({}, V1) == {
        QosClass.GUARANTEED: CgroupLimits(),
        QosClass.BURSTABLE: CgroupLimits(cpu_shares=2),
        QosClass.BEST_EFFORT: CgroupLimits(cpu_shares=2),
    }


def test_sandbox_resources_and_overhead() -> None:
    """The sandbox config carries the sum of the containers, and what the sandbox costs beside."""
    pod = a_pod(a_container(**sized(FULL, FULL)), a_container("b", **sized(FULL, FULL)), overhead={"cpu": "1"})
    resources = rules.compute_sandbox_resources(pod, V1)
    assert (resources.cpu_shares, resources.cpu_quota, resources.memory_limit_in_bytes) == (1024, 100_000, 2 * GIB)
    overhead = rules.compute_overhead_resources(pod, V1)
    assert (overhead.cpu_shares, overhead.cpu_quota, overhead.memory_limit_in_bytes) == (1024, 100_000, 0)
    assert rules.compute_overhead_resources(a_pod(), V1) == cri.LinuxContainerResources()


def _limited(memory: str | None, **fields: Any) -> dict[str, Any]:
    resources = sized({"cpu": "10m"}, {"memory": memory} if memory else {})
    return a_container(**resources, **fields)


@pytest.mark.parametrize(
    ("pod", "limit"),
    [
        (a_pod(_limited("1Mi")), 1 << 20),
        (a_pod(_limited("1Mi", name="a"), _limited(None, name="b")), None),
        (a_pod(_limited(None), resources={"limits": {"memory": "2Mi"}}), 2 << 20),
        (a_pod(a_container()), None),
        (a_pod(_limited("1Mi"), initContainers=[_limited("4Mi", name="i")]), 4 << 20),
        (a_pod(_limited("1Mi"), initContainers=[_limited("4Mi", name="s", restartPolicy="Always")]), 5 << 20),
        (a_pod(_limited("1Mi"), initContainers=[_limited(None, name="i")]), None),
        (a_pod(_limited("1Mi"), overhead={"memory": "2Mi"}), 3 << 20),
    ],
)
def test_memory_backed_volumes_may_be_as_large_as_the_pod(pod: core_v1.Pod, limit: int | None) -> None:
    """Sidecars, init containers and overhead count, as in its cgroup."""
    assert rules.pod_memory_limit_bytes(pod) == limit
    assert rules.compute_pod_limits(pod, V1).memory_bytes == limit
