"""Cgroup files in systemd's words."""

from __future__ import annotations

import pytest

from cri_proto import runtime_v1 as cri
from dockershim.translate.resources import swap_file
from dockershim.translate.scope_properties import INFINITY, scope_properties


@pytest.mark.parametrize(
    ("file", "value", "properties"),
    [
        ("memory.high", "4096", {"MemoryHigh": 4096}),
        ("memory.min", " 0\n", {"MemoryMin": 0}),
        ("memory.low", "1", {"MemoryLow": 1}),
        ("memory.max", "max", {"MemoryMax": INFINITY}),
        ("memory.swap.max", "0", {"MemorySwapMax": 0}),
        ("pids.max", "7", {"TasksMax": 7}),
        ("cpu.weight", "100", {"CPUWeight": 100}),
        ("cpu.max", "20000 100000", {"CPUQuotaPeriodUSec": 100_000, "CPUQuotaPerSecUSec": 200_000}),
        ("cpu.max", "33300", {"CPUQuotaPeriodUSec": 100_000, "CPUQuotaPerSecUSec": 340_000}),
        ("cpu.max", "max 5000", {"CPUQuotaPeriodUSec": 5000, "CPUQuotaPerSecUSec": INFINITY}),
    ],
)
def test_what_systemd_has_a_word_for(file: str, value: str, properties: dict[str, int]) -> None:
    """A quota is rounded up to whole percents, which is what systemd keeps."""
    assert scope_properties({file: value}) == tuple((name, ("t", number)) for name, number in properties.items())


@pytest.mark.parametrize(
    ("file", "value"),
    [
        ("hugetlb.2MB.max", "0"),
        ("memory.oom.group", "1"),
        ("memory.high", "much"),
        ("memory.high", str(2**64)),
        ("memory.high", "9" * 5000),
        ("cpu.max", ""),
        ("cpu.max", "1 2 3"),
        ("cpu.max", "1 x"),
        ("cpu.max", "1 0"),
    ],
)
def test_the_rest_is_left_to_the_files(file: str, value: str) -> None:
    """The kernel says what is wrong with a value."""
    assert scope_properties({file: value}) == ()


def test_swap_of_a_container() -> None:
    """What it has beside its memory; no limit without one of memory."""
    before = cri.LinuxContainerResources(memory_limit_in_bytes=10, memory_swap_limit_in_bytes=10)
    assert swap_file({}, before) == {"memory.swap.max": "0"}
    assert swap_file({"Memory": 20, "MemorySwap": 25}, before) == {"memory.swap.max": "5"}
    assert swap_file({}, cri.LinuxContainerResources()) == {}
