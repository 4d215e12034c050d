"""What systemd is told of the slices of pods. tests/machine holds it against systemd itself."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kubelet_py.core.cgroup_rules import CgroupDriver, CgroupLimits, cgroup_path, pod_uid_of_cgroup
from kubelet_py.core.slice_rules import INFINITY, creation_properties, limit_properties, unit_name

UID = "0b1c-4d5e"


def test_the_unit_is_the_last_part_of_the_path() -> None:
    path = cgroup_path(("kubepods", "burstable", f"pod{UID}"), CgroupDriver.SYSTEMD)
    assert unit_name(path) == "kubepods-burstable-pod0b1c_4d5e.slice"
    assert pod_uid_of_cgroup(unit_name(path), CgroupDriver.SYSTEMD) == UID


@pytest.mark.parametrize(
    ("element", "driver", "uid"),
    [
        ("kubepods-podu_1.slice", CgroupDriver.SYSTEMD, "u-1"),
        ("kubepods-burstable.slice", CgroupDriver.SYSTEMD, None),
        ("kubepods-pod.slice", CgroupDriver.SYSTEMD, None),
        ("docker-podx.scope", CgroupDriver.SYSTEMD, None),
        ("podu-1", CgroupDriver.CGROUPFS, "u-1"),
        ("pod", CgroupDriver.CGROUPFS, None),
        ("burstable", CgroupDriver.CGROUPFS, None),
    ],
)
def test_only_pods_cgroups_name_a_pod(element: str, driver: CgroupDriver, uid: str | None) -> None:
    assert pod_uid_of_cgroup(element, driver) == uid


def test_each_limit_has_its_word_on_v2() -> None:
    limits = CgroupLimits(
        cpu_shares=1024,
        cpu_quota_microseconds=50_000,
        cpu_period_microseconds=100_000,
        memory_bytes=64,
        pids=7,
        hugepages={"2MB": 1},
        unified={"memory.high": "32", "memory.low": "max", "memory.oom.group": "1"},
    )
    assert dict(limit_properties(limits, unified=True)) == {
        "CPUWeight": ("t", 39),
        "CPUQuotaPeriodUSec": ("t", 100_000),
        "CPUQuotaPerSecUSec": ("t", 500_000),
        "MemoryMax": ("t", 64),
        "TasksMax": ("t", 7),
        "MemoryHigh": ("t", 32),
        "MemoryLow": ("t", INFINITY),
    }


def test_v1_has_words_of_its_own() -> None:
    limits = CgroupLimits(cpu_shares=2, memory_bytes=64, unified={"memory.high": "1"})
    assert dict(limit_properties(limits, unified=False)) == {"CPUShares": ("t", 2), "MemoryLimit": ("t", 64)}


def test_no_limit_is_said_as_well() -> None:
    """A resize may take one away. What is None is not mentioned."""
    limits = CgroupLimits(cpu_quota_microseconds=-1, memory_bytes=-1, pids=-1)
    said = dict(limit_properties(limits, unified=True))
    assert said.pop("CPUQuotaPeriodUSec") == ("t", 100_000)
    assert set(said) == {"CPUQuotaPerSecUSec", "MemoryMax", "TasksMax"}
    assert set(said.values()) == {("t", INFINITY)}
    assert limit_properties(CgroupLimits(), unified=True) == ()
    zero = CgroupLimits(cpu_quota_microseconds=0, memory_bytes=0, pids=0)
    assert limit_properties(zero, unified=True) == limit_properties(limits, unified=True)
    assert limit_properties(CgroupLimits(pids=1), unified=True) == (("TasksMax", ("t", 1)),)


@given(st.integers(1, 10**9), st.integers(1000, 1_000_000))
def test_a_quota_is_never_less_than_was_asked_for_and_whole_percents(quota: int, period: int) -> None:
    """Systemd cuts off what is below a percent of a core."""
    limits = CgroupLimits(cpu_quota_microseconds=quota, cpu_period_microseconds=period)
    said = dict(limit_properties(limits, unified=True))["CPUQuotaPerSecUSec"][1]
    exact = quota * 1_000_000 // period
    assert isinstance(said, int), "D-Bus takes no other number"
    assert said % 10_000 == 0
    assert exact <= said < exact + 10_000


def test_a_slice_is_counted_and_stops_with_nobody() -> None:
    """With the signatures that D-Bus wants; the description is what `systemctl status` shows."""
    made = dict(creation_properties("kubepods.slice"))
    assert made.pop("Description") == ("s", "pods of this node: kubepods.slice")
    assert made.pop("DefaultDependencies") == ("b", False)
    assert set(made) == {"MemoryAccounting", "CPUAccounting", "IOAccounting", "TasksAccounting"}
    assert set(made.values()) == {("b", True)}
