"""A container's cgroup files in systemd's words: the properties of its scope.

Where Docker makes cgroups with systemd, a container's is a scope, and whenever systemd is reloaded it writes there what
it knows of the scope's limits, over whatever stands in the files. What Docker's API has no field for is therefore told
to systemd beside being written. Pure. Upstream counterpart: libcontainer's cgroups/systemd, which does so for runtimes
that give it such files themselves.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

Property = tuple[str, tuple[str, int]]
"""A name, and a D-Bus variant: signature and value."""

INFINITY = 2**64 - 1
_MAX = "max"
_COUNTS = {
    "cpu.weight": "CPUWeight",
    "memory.min": "MemoryMin",
    "memory.low": "MemoryLow",
    "memory.high": "MemoryHigh",
    "memory.max": "MemoryMax",
    "memory.swap.max": "MemorySwapMax",
    "pids.max": "TasksMax",
}
_CPU_MAX = "cpu.max"
_DEFAULT_PERIOD_MICROSECONDS = 100_000
_SECOND_MICROSECONDS = 1_000_000
_PERCENT_OF_A_SECOND = 10_000  # systemd keeps CPU quotas in whole percent


def scope_properties(files: Mapping[str, str]) -> tuple[Property, ...]:
    """For the files that systemd has a word for. A value that is none is left to the kernel to refuse."""
    return tuple(_properties(files))


def _properties(files: Mapping[str, str]) -> Iterator[Property]:
    for file, text in files.items():
        value = text.strip()
        if file in _COUNTS and (value == _MAX or _is_number(value)):
            yield _COUNTS[file], ("t", INFINITY if value == _MAX else int(value))
        elif file == _CPU_MAX:
            yield from _quota(value.split())


def _quota(words: list[str]) -> Iterator[Property]:
    if not 1 <= len(words) <= 2 or not all(_is_number(word) for word in words if word != _MAX):
        return
    period = int(words[1]) if len(words) == 2 and _is_number(words[1]) else _DEFAULT_PERIOD_MICROSECONDS
    if period:
        yield "CPUQuotaPeriodUSec", ("t", period)
        yield "CPUQuotaPerSecUSec", ("t", _per_second(words[0], period))


def _per_second(quota: str, period: int) -> int:
    """Rounded up: the file gets the exact value, and systemd's must not be the smaller one."""
    if quota == _MAX:
        return INFINITY
    return -(-int(quota) * _SECOND_MICROSECONDS // period // _PERCENT_OF_A_SECOND) * _PERCENT_OF_A_SECOND


def _is_number(text: str) -> bool:
    return text.isascii() and text.isdigit() and len(text) <= len(str(INFINITY)) and int(text) < INFINITY
