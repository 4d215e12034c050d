"""What the kernel's cgroup files say of one cgroup: texts in, numbers out, for cgroup v1 and v2.

Owns the names of the files and their formats. Pure: the texts are arguments, a file that is not there is simply not
among them, and a number that the kernel does not give is None. Upstream counterpart: containerd's cgroups library and
cAdvisor's libcontainer handler, whose choices of numbers this keeps: working set is usage without inactive file cache,
resident memory is anonymous memory.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

USER_HZ = 100
"""The unit of cpuacct.stat, which Linux keeps at 100 for programs on every architecture that Docker runs on."""
_UNLIMITED = 1 << 62
"""cgroup v1 writes the largest page counter where there is no limit; nothing real comes near."""

V1_FILES = ("cpuacct.usage", "memory.usage_in_bytes", "memory.stat")
V1_MORE_FILES = (
    *("cpuacct.stat", "cpu.stat", "memory.max_usage_in_bytes", "memory.failcnt", "memory.kmem.usage_in_bytes"),
    *("memory.oom_control", "pids.current", "pids.max"),
    *("blkio.throttle.io_service_bytes_recursive", "blkio.throttle.io_serviced_recursive"),
)
V2_FILES = (
    *("cpu.stat", "cpu.pressure", "memory.current", "memory.stat", "memory.max", "memory.pressure"),
    *("memory.swap.current", "memory.swap.max", "io.pressure"),
)
V2_MORE_FILES = ("memory.peak", "memory.events", "pids.current", "pids.max", "io.stat")


@dataclass(frozen=True, slots=True)
class Pressure:
    """One line of a pressure file: shares of time in percent and the sum in nanoseconds."""

    avg10: float
    avg60: float
    avg300: float
    total_ns: int


@dataclass(frozen=True, slots=True)
class PressureStall:
    """A pressure file: `some` task waited, or all did (`full`)."""

    some: Pressure | None = None
    full: Pressure | None = None


@dataclass(frozen=True, slots=True)
class MemoryUse:
    """The memory of a cgroup. A limit of None is no limit."""

    usage_bytes: int
    working_set_bytes: int
    rss_bytes: int
    page_faults: int
    major_page_faults: int
    limit_bytes: int | None = None
    cache_bytes: int = 0
    mapped_file_bytes: int = 0
    active_file_bytes: int = 0
    inactive_file_bytes: int = 0
    kernel_bytes: int | None = None
    peak_bytes: int | None = None
    limit_hits: int | None = None
    oom_kills: int | None = None

    @property
    def available_bytes(self) -> int | None:
        """What is left below the limit."""
        return None if self.limit_bytes is None else max(self.limit_bytes - self.working_set_bytes, 0)


@dataclass(frozen=True, slots=True)
class SwapUse:
    """The swap of a cgroup."""

    usage_bytes: int
    limit_bytes: int | None = None

    @property
    def available_bytes(self) -> int | None:
        """What is left below the limit."""
        return None if self.limit_bytes is None else max(self.limit_bytes - self.usage_bytes, 0)


@dataclass(frozen=True, slots=True)
class CpuUse:
    """The processor time of a cgroup."""

    usage_ns: int
    user_ns: int | None = None
    system_ns: int | None = None
    periods: int | None = None
    throttled_periods: int | None = None
    throttled_ns: int | None = None


@dataclass(frozen=True, slots=True)
class BlockIo:
    """What went to and from one block device: `operation` in cgroup v1's words, in bytes and in requests."""

    major: int
    minor: int
    operation: str
    size_bytes: int
    requests: int


@dataclass(frozen=True, slots=True)
class HugePages:
    """Huge pages of one size. The peak is known to cgroup v1 alone."""

    page_size: str
    usage_bytes: int
    peak_bytes: int | None


@dataclass(frozen=True, slots=True)
class CgroupUse:
    """Everything that was read of a cgroup."""

    cpu: CpuUse | None = None
    memory: MemoryUse | None = None
    swap: SwapUse | None = None
    cpu_pressure: PressureStall | None = None
    memory_pressure: PressureStall | None = None
    io_pressure: PressureStall | None = None
    block_io: tuple[BlockIo, ...] = ()
    huge_pages: tuple[HugePages, ...] = ()
    tasks: int | None = None
    tasks_limit: int | None = None
    """0 where any number of tasks may run."""


def from_v1(files: Mapping[str, str]) -> CgroupUse:
    """The use from cgroup v1's files, whose names begin with their controller."""
    stat = _pairs(files.get("memory.stat", ""))
    return CgroupUse(
        cpu=_v1_cpu(files),
        memory=_v1_memory(files, stat),
        swap=_v1_swap(stat),
        block_io=_v1_block_io(files),
        huge_pages=_huge_pages(files, "usage_in_bytes", "max_usage_in_bytes"),
        tasks=_number(files, "pids.current"),
        tasks_limit=_limit(files, "pids.max", unlimited=0),
    )


def from_v2(files: Mapping[str, str]) -> CgroupUse:
    """The use from cgroup v2's files."""
    return CgroupUse(
        cpu=_v2_cpu(_pairs(files.get("cpu.stat", ""))),
        memory=_v2_memory(files, _pairs(files.get("memory.stat", ""))),
        swap=_v2_swap(files),
        cpu_pressure=parse_pressure(files.get("cpu.pressure", "")),
        memory_pressure=parse_pressure(files.get("memory.pressure", "")),
        io_pressure=parse_pressure(files.get("io.pressure", "")),
        block_io=_v2_block_io(files.get("io.stat", "")),
        huge_pages=_huge_pages(files, "current", ""),
        tasks=_number(files, "pids.current"),
        tasks_limit=_limit(files, "pids.max", unlimited=0),
    )


def add_up(parts: Iterable[CgroupUse]) -> CgroupUse:
    """Several cgroups as one, as far as sums have a meaning: processor time, memory and swap."""
    uses = list(parts)
    cpus = [use.cpu for use in uses if use.cpu is not None]
    memories = [use.memory for use in uses if use.memory is not None]
    swaps = [use.swap for use in uses if use.swap is not None]
    memory = MemoryUse(
        usage_bytes=sum(part.usage_bytes for part in memories),
        working_set_bytes=sum(part.working_set_bytes for part in memories),
        rss_bytes=sum(part.rss_bytes for part in memories),
        page_faults=sum(part.page_faults for part in memories),
        major_page_faults=sum(part.major_page_faults for part in memories),
    )
    return CgroupUse(
        cpu=CpuUse(sum(part.usage_ns for part in cpus)) if cpus else None,
        memory=memory if memories else None,
        swap=SwapUse(sum(part.usage_bytes for part in swaps)) if swaps else None,
    )


def parse_pressure(text: str) -> PressureStall | None:
    """A pressure file; None when it is empty, which is how a kernel without PSI looks."""
    found = {}
    for line in text.splitlines():
        kind, _, rest = line.partition(" ")
        values = dict(_assignments(rest))
        try:
            found[kind] = Pressure(
                avg10=float(values["avg10"]),
                avg60=float(values["avg60"]),
                avg300=float(values["avg300"]),
                total_ns=int(values["total"]) * 1000,
            )
        except (KeyError, ValueError):
            continue
    return PressureStall(found.get("some"), found.get("full")) if found else None


# ---- v1


def _v1_cpu(files: Mapping[str, str]) -> CpuUse | None:
    usage = _number(files, "cpuacct.usage")
    if usage is None:
        return None
    ticks, quota = _pairs(files.get("cpuacct.stat", "")), _pairs(files.get("cpu.stat", ""))
    return CpuUse(
        usage_ns=usage,
        user_ns=_scaled(ticks.get("user"), 10**9 // USER_HZ),
        system_ns=_scaled(ticks.get("system"), 10**9 // USER_HZ),
        periods=quota.get("nr_periods"),
        throttled_periods=quota.get("nr_throttled"),
        throttled_ns=quota.get("throttled_time"),
    )


def _v1_memory(files: Mapping[str, str], stat: Mapping[str, int]) -> MemoryUse | None:
    usage = _number(files, "memory.usage_in_bytes")
    if usage is None:
        return None
    inactive = stat.get("total_inactive_file", 0)
    limit = stat.get("hierarchical_memory_limit", _UNLIMITED)
    return MemoryUse(
        usage_bytes=usage,
        working_set_bytes=max(usage - inactive, 0),
        rss_bytes=stat.get("total_rss", 0),
        page_faults=stat.get("total_pgfault", 0),
        major_page_faults=stat.get("total_pgmajfault", 0),
        limit_bytes=limit if limit < _UNLIMITED else None,
        cache_bytes=stat.get("total_cache", 0),
        mapped_file_bytes=stat.get("total_mapped_file", 0),
        active_file_bytes=stat.get("total_active_file", 0),
        inactive_file_bytes=inactive,
        kernel_bytes=_number(files, "memory.kmem.usage_in_bytes"),
        peak_bytes=_number(files, "memory.max_usage_in_bytes"),
        limit_hits=_number(files, "memory.failcnt"),
        oom_kills=_pairs(files.get("memory.oom_control", "")).get("oom_kill"),
    )


def _v1_swap(stat: Mapping[str, int]) -> SwapUse | None:
    if "total_swap" not in stat:
        return None  # the kernel does not count swap
    memory, both = (stat.get(f"hierarchical_{name}_limit", _UNLIMITED) for name in ("memory", "memsw"))
    limited = memory < _UNLIMITED and both < _UNLIMITED
    return SwapUse(stat["total_swap"], max(both - memory, 0) if limited else None)


def _v1_block_io(files: Mapping[str, str]) -> tuple[BlockIo, ...]:
    sizes = _v1_device_lines(files.get("blkio.throttle.io_service_bytes_recursive", ""))
    requests = _v1_device_lines(files.get("blkio.throttle.io_serviced_recursive", ""))
    return tuple(BlockIo(*key, sizes.get(key, 0), requests.get(key, 0)) for key in sorted(sizes.keys() | requests))


def _v1_device_lines(text: str) -> dict[tuple[int, int, str], int]:
    found = {}
    for line in text.splitlines():
        words = line.split()
        if len(words) == 3 and words[2].isdecimal() and (device := _device(words[0])):
            found[*device, words[1]] = int(words[2])
    return found


# ---- v2


def _v2_cpu(stat: Mapping[str, int]) -> CpuUse | None:
    if "usage_usec" not in stat:
        return None
    return CpuUse(
        usage_ns=stat["usage_usec"] * 1000,
        user_ns=_scaled(stat.get("user_usec"), 1000),
        system_ns=_scaled(stat.get("system_usec"), 1000),
        periods=stat.get("nr_periods"),
        throttled_periods=stat.get("nr_throttled"),
        throttled_ns=_scaled(stat.get("throttled_usec"), 1000),
    )


def _v2_memory(files: Mapping[str, str], stat: Mapping[str, int]) -> MemoryUse | None:
    usage = _number(files, "memory.current")
    if usage is None:
        return None
    events = _pairs(files.get("memory.events", ""))
    inactive = stat.get("inactive_file", 0)
    return MemoryUse(
        usage_bytes=usage,
        working_set_bytes=max(usage - inactive, 0),
        rss_bytes=stat.get("anon", 0),
        page_faults=stat.get("pgfault", 0),
        major_page_faults=stat.get("pgmajfault", 0),
        limit_bytes=_limit(files, "memory.max"),
        cache_bytes=stat.get("file", 0),
        mapped_file_bytes=stat.get("file_mapped", 0),
        active_file_bytes=stat.get("active_file", 0),
        inactive_file_bytes=inactive,
        kernel_bytes=stat.get("kernel", stat.get("kernel_stack")),
        peak_bytes=_number(files, "memory.peak"),
        limit_hits=events.get("max"),
        oom_kills=events.get("oom_kill"),
    )


def _v2_swap(files: Mapping[str, str]) -> SwapUse | None:
    usage = _number(files, "memory.swap.current")
    return None if usage is None else SwapUse(usage, _limit(files, "memory.swap.max"))


def _v2_block_io(text: str) -> tuple[BlockIo, ...]:
    found = []
    for line in text.splitlines():
        name, _, rest = line.partition(" ")
        device = _device(name)
        if device is None:
            continue
        values = {key: int(number) for key, number in _assignments(rest) if number.isdecimal()}
        for operation, letter in (("Read", "r"), ("Write", "w"), ("Discard", "d")):
            size, requests = values.get(f"{letter}bytes"), values.get(f"{letter}ios")
            if size is not None and requests is not None:
                found.append(BlockIo(*device, operation, size, requests))
    return tuple(found)


# ---- both


def _huge_pages(files: Mapping[str, str], usage: str, peak: str) -> tuple[HugePages, ...]:
    found = []
    for name in sorted(files):
        controller, _, rest = name.partition(".")
        size, _, kind = rest.partition(".")
        value = _number(files, name) if controller == "hugetlb" and kind == usage else None
        if value is not None:
            found.append(HugePages(size, value, _number(files, f"hugetlb.{size}.{peak}")))
    return tuple(found)


def _pairs(text: str) -> dict[str, int]:
    """Lines of a word and a number. Others are left out."""
    found = {}
    for line in text.splitlines():
        name, _, number = line.partition(" ")
        if number.isdecimal():
            found[name] = int(number)
    return found


def _assignments(text: str) -> list[tuple[str, str]]:
    return [(name, value) for name, _, value in (part.partition("=") for part in text.split())]


def _number(files: Mapping[str, str], name: str) -> int | None:
    text = files.get(name, "").strip()
    return int(text) if text.isdecimal() else None


def _limit(files: Mapping[str, str], name: str, unlimited: int | None = None) -> int | None:
    """A file with a number or the word max; None when there is no such file."""
    return unlimited if files.get(name, "").strip() == "max" else _number(files, name)


def _scaled(value: int | None, factor: int) -> int | None:
    return None if value is None else value * factor


def _device(text: str) -> tuple[int, int] | None:
    major, _, minor = text.partition(":")
    return (int(major), int(minor)) if major.isdecimal() and minor.isdecimal() else None
