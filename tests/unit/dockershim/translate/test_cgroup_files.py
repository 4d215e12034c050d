"""The kernel's cgroup files, version 1 and 2, whole and in pieces."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from dockershim.translate import cgroup_files
from dockershim.translate.cgroup_files import (
    BlockIo,
    CgroupUse,
    CpuUse,
    HugePages,
    MemoryUse,
    Pressure,
    PressureStall,
    SwapUse,
    add_up,
    from_v1,
    from_v2,
    parse_pressure,
)

NO_LIMIT = "9223372036854771712\n"
V1 = {
    "cpuacct.usage": "1500000000\n",
    "cpuacct.stat": "user 100\nsystem 50\n",
    "cpu.stat": "nr_periods 10\nnr_throttled 4\nthrottled_time 2000000000\n",
    "memory.usage_in_bytes": "1000\n",
    "memory.max_usage_in_bytes": "1500\n",
    "memory.failcnt": "7\n",
    "memory.kmem.usage_in_bytes": "64\n",
    "memory.oom_control": "oom_kill_disable 0\nunder_oom 0\noom_kill 2\n",
    "memory.stat": (
        "cache 1\nrss 2\ntotal_cache 400\ntotal_rss 500\ntotal_mapped_file 30\ntotal_active_file 100\n"
        "total_inactive_file 300\ntotal_pgfault 11\ntotal_pgmajfault 3\ntotal_swap 20\n"
        "hierarchical_memory_limit 2000\nhierarchical_memsw_limit 2500\n"
    ),
    "pids.current": "5\n",
    "pids.max": "max\n",
    "blkio.throttle.io_service_bytes_recursive": "8:0 Read 4096\n8:0 Write 512\n8:0 Total 4608\nTotal 4608\n",
    "blkio.throttle.io_serviced_recursive": "8:0 Read 2\n8:0 Write 1\n8:0 Total 3\nTotal 3\n",
    "hugetlb.2MB.usage_in_bytes": "2097152\n",
    "hugetlb.2MB.max_usage_in_bytes": "4194304\n",
    "hugetlb.2MB.limit_in_bytes": "0\n",
}
V2 = {
    "cpu.stat": (
        "usage_usec 1500000\nuser_usec 1000000\nsystem_usec 500000\nnr_periods 10\nnr_throttled 4\n"
        "throttled_usec 2000000\n"
    ),
    "cpu.pressure": "some avg10=1.50 avg60=2.00 avg300=0.25 total=12\nfull avg10=0.00 avg60=0.00 avg300=0.00 total=3\n",
    "io.pressure": "some avg10=0.00 avg60=0.00 avg300=0.00 total=1\n",
    "memory.current": "1000\n",
    "memory.peak": "1500\n",
    "memory.max": "2000\n",
    "memory.stat": (
        "anon 500\nfile 400\nkernel 64\nkernel_stack 16\nfile_mapped 30\ninactive_file 300\nactive_file 100\n"
        "pgfault 11\npgmajfault 3\n"
    ),
    "memory.events": "low 0\nhigh 0\nmax 7\noom 2\noom_kill 2\n",
    "memory.swap.current": "20\n",
    "memory.swap.max": "500\n",
    "pids.current": "5\n",
    "pids.max": "100\n",
    "io.stat": "8:0 rbytes=4096 wbytes=512 rios=2 wios=1 dbytes=0 dios=0\n253:1\n",
    "hugetlb.2MB.current": "2097152\n",
}
MEMORY = MemoryUse(
    usage_bytes=1000,
    working_set_bytes=700,
    rss_bytes=500,
    page_faults=11,
    major_page_faults=3,
    limit_bytes=2000,
    cache_bytes=400,
    mapped_file_bytes=30,
    active_file_bytes=100,
    inactive_file_bytes=300,
    kernel_bytes=64,
    peak_bytes=1500,
    limit_hits=7,
    oom_kills=2,
)
CPU = CpuUse(1_500_000_000, 1_000_000_000, 500_000_000, 10, 4, 2_000_000_000)
NAMES = sorted({*V1, *V2, *cgroup_files.V1_FILES, *cgroup_files.V2_FILES, *cgroup_files.V2_MORE_FILES})


def test_version_1() -> None:
    """Every number; the working set is usage without inactive file cache."""
    assert from_v1(V1) == CgroupUse(
        cpu=CPU,
        memory=MEMORY,
        swap=SwapUse(20, 500),
        block_io=(
            BlockIo(8, 0, "Read", 4096, 2),
            BlockIo(8, 0, "Total", 4608, 3),
            BlockIo(8, 0, "Write", 512, 1),
        ),
        huge_pages=(HugePages("2MB", 2097152, 4194304),),
        tasks=5,
        tasks_limit=0,
    )
    assert MEMORY.available_bytes == 1300
    assert SwapUse(20, 500).available_bytes == 480


def test_version_2() -> None:
    """The same container, and pressure."""
    some = Pressure(avg10=1.5, avg60=2.0, avg300=0.25, total_ns=12_000)
    assert from_v2(V2) == CgroupUse(
        cpu=CPU,
        memory=MEMORY,
        swap=SwapUse(20, 500),
        cpu_pressure=PressureStall(some, Pressure(0.0, 0.0, 0.0, 3000)),
        io_pressure=PressureStall(Pressure(0.0, 0.0, 0.0, 1000), None),
        block_io=(
            BlockIo(8, 0, "Read", 4096, 2),
            BlockIo(8, 0, "Write", 512, 1),
            BlockIo(8, 0, "Discard", 0, 0),
        ),
        huge_pages=(HugePages("2MB", 2097152, None),),
        tasks=5,
        tasks_limit=100,
    )


def test_what_the_kernel_does_not_count_is_no_zero() -> None:
    """A kernel without swap accounting, without limits, without anything."""
    assert from_v1({}) == from_v2({}) == CgroupUse()
    stat = "total_rss 5\nhierarchical_memory_limit 9223372036854771712\n"
    bare = from_v1({"memory.usage_in_bytes": "10", "memory.stat": stat})
    assert bare.memory is not None
    assert bare.memory.limit_bytes is None
    assert bare.memory.available_bytes is None
    assert bare.memory.oom_kills is None
    assert bare.swap is None
    unlimited = from_v2({"memory.current": "10", "memory.max": "max", "memory.swap.current": "0"})
    assert unlimited.memory is not None
    assert unlimited.memory.limit_bytes is None
    assert unlimited.swap == SwapUse(0, None)
    assert SwapUse(0, None).available_bytes is None
    # swap may not be limited although memory is
    unlimited_swap = stat.replace(NO_LIMIT, "100\n") + f"hierarchical_memsw_limit {NO_LIMIT}total_swap 1\n"
    assert from_v1({"memory.stat": unlimited_swap}).swap == SwapUse(1, None)


def test_pressure_without_psi() -> None:
    """A kernel that has PSI switched off refuses the read, which arrives here as nothing."""
    assert parse_pressure("") is None
    assert parse_pressure("some avg10=x\n") is None


@given(st.dictionaries(st.sampled_from(NAMES), st.text(max_size=60) | st.sampled_from([*V1.values(), *V2.values()])))
def test_no_text_breaks_the_parsers(files: dict[str, str]) -> None:
    """Whatever stands in the files, the answer is numbers that make sense, or nothing."""
    for use in (from_v1(files), from_v2(files)):
        if use.memory is not None:
            assert 0 <= use.memory.working_set_bytes <= use.memory.usage_bytes
            assert use.memory.available_bytes is None or use.memory.available_bytes >= 0
        if use.swap is not None:
            assert use.swap.available_bytes is None or use.swap.available_bytes >= 0


@given(st.lists(st.tuples(st.integers(0, 2**40), st.integers(0, 2**40)), max_size=5))
def test_a_sum_is_the_sum(parts: list[tuple[int, int]]) -> None:
    """And the sum of nothing is nothing."""
    uses = [CgroupUse(cpu=CpuUse(cpu), memory=MemoryUse(memory, memory, 0, 0, 0)) for cpu, memory in parts]
    total = add_up([*uses, CgroupUse()])
    if not parts:
        assert total == CgroupUse()
    else:
        assert total.cpu == CpuUse(sum(cpu for cpu, _ in parts))
        assert total.memory is not None
        assert total.memory.usage_bytes == sum(memory for _, memory in parts)
        assert total.memory.limit_bytes is None
