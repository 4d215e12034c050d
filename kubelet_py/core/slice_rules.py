"""What systemd is told of a cgroup that is one of its slices: the unit's name and its properties.

A property that systemd knows must be told to it: it writes its own idea of a slice's limits whenever it is reloaded.
What it has no property for (huge pages, `unified` keys of other kinds) is written into the files.

Upstream counterparts: libcontainer's cgroups/systemd, pkg/kubelet/cm/cgroup_manager_linux.go.
"""

from collections.abc import Iterator
from typing import Any, Final

from kubelet_py.core.cgroup_rules import DEFAULT_PERIOD_MICROSECONDS, CgroupLimits, cpu_weight_of_shares

Property = tuple[str, tuple[str, Any]]
"""A name, and a D-Bus variant: signature and value."""

INFINITY: Final = 2**64 - 1
_PERCENT_OF_A_SECOND: Final = 10_000  # systemd keeps CPU quotas in whole percent
_SECOND_MICROSECONDS: Final = 1_000_000
_BYTES_PROPERTIES: Final = {
    "memory.min": "MemoryMin",
    "memory.low": "MemoryLow",
    "memory.high": "MemoryHigh",
    "memory.swap.max": "MemorySwapMax",
}


def unit_name(path: str) -> str:
    """The unit of a cgroup: the last element of its path, `kubepods-burstable-pod<uid>.slice`."""
    return path.rpartition("/")[2]


def creation_properties(unit: str) -> tuple[Property, ...]:
    """What a slice is made with, besides its limits: everything is counted, nothing stops it at a shutdown but us."""
    return (
        ("Description", ("s", f"pods of this node: {unit}")),
        ("DefaultDependencies", ("b", False)),
        ("MemoryAccounting", ("b", True)),
        ("CPUAccounting", ("b", True)),
        ("IOAccounting", ("b", True)),
        ("TasksAccounting", ("b", True)),
    )


def limit_properties(limits: CgroupLimits, *, unified: bool) -> tuple[Property, ...]:
    """The limits that systemd has a word for; what is None is left as it is."""
    return tuple(_properties(limits, unified))


def _properties(limits: CgroupLimits, unified: bool) -> Iterator[Property]:
    if limits.cpu_shares is not None:
        if unified:
            yield "CPUWeight", ("t", cpu_weight_of_shares(limits.cpu_shares))
        else:
            yield "CPUShares", ("t", limits.cpu_shares)
    if limits.cpu_quota_microseconds is not None:
        period = limits.cpu_period_microseconds or DEFAULT_PERIOD_MICROSECONDS
        yield "CPUQuotaPeriodUSec", ("t", period)
        yield "CPUQuotaPerSecUSec", ("t", _quota_per_second(limits.cpu_quota_microseconds, period))
    if limits.memory_bytes is not None:
        yield "MemoryMax" if unified else "MemoryLimit", ("t", _or_infinity(limits.memory_bytes))
    if limits.pids is not None:
        yield "TasksMax", ("t", _or_infinity(limits.pids))
    if unified:
        for file, value in limits.unified.items():
            if file in _BYTES_PROPERTIES:
                yield _BYTES_PROPERTIES[file], ("t", INFINITY if value == "max" else int(value))


def _quota_per_second(quota_microseconds: int, period_microseconds: int) -> int:
    """Rounded up: the file gets the exact value, and systemd's must not be the smaller one."""
    if quota_microseconds <= 0:
        return INFINITY
    exact = quota_microseconds * _SECOND_MICROSECONDS // period_microseconds
    return -(-exact // _PERCENT_OF_A_SECOND) * _PERCENT_OF_A_SECOND


def _or_infinity(value: int) -> int:
    return value if value > 0 else INFINITY
