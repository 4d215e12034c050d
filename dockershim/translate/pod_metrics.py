"""The metrics of pods and containers that the kubelet publishes at /metrics/cadvisor: their names, and their values.

Owns the table of metrics: descriptors and values come from the same lines, so neither can lack the other. Pure. A
metric that the kernel has no number for has no value, rather than a zero. Upstream counterpart: containerd's
list_metric_descriptors.go and list_pod_sandbox_metrics_linux.go; the names are cAdvisor's. Deliberate differences:
the labels are all of cAdvisor's (containerd leaves `name` out), network is told for each interface of a pod and not for
eth0 alone, a start time is in seconds, and fault types are spelled as the kernel spells them. Values are whole numbers
in CRI, so seconds are whole seconds.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

from cri_proto import runtime_v1 as cri
from dockershim.translate.cgroup_files import CgroupUse, MemoryUse, Pressure, PressureStall, SwapUse
from dockershim.translate.proc_files import InterfaceUse

COUNTER, GAUGE = cri.MetricType.COUNTER, cri.MetricType.GAUGE
BASE_LABELS = ("container", "id", "image", "name", "namespace", "pod")
POD_CONTAINER = "POD"
"""What cAdvisor calls the container that stands for the pod's network."""
_SECOND_NS = 10**9
_DEFAULT_CPU_SHARES = 1024
_DEFAULT_CPU_PERIOD = 100_000


@dataclass(frozen=True, slots=True)
class ProcessUse:
    """The processes of a container: how many, their open files, and the soft limit of the first one."""

    processes: int
    file_descriptors: int
    sockets: int
    open_files_limit: int | None


@dataclass(frozen=True, slots=True)
class FilesystemUse:
    """The file system that writable layers are on, and what one layer uses of it."""

    device: str
    size_bytes: int
    inodes: int
    inodes_free: int
    layer_bytes: int | None


@dataclass(frozen=True, slots=True)
class ContainerSample:
    """Everything that the metrics of a running container are made of."""

    use: CgroupUse
    processes: ProcessUse
    filesystem: FilesystemUse | None
    resources: cri.LinuxContainerResources
    started_at_ns: int
    seen_at_ns: int
    device_names: dict[tuple[int, int], str]


Point = tuple[tuple[str, ...], int]
"""The values of a metric's own labels, and its value."""


@dataclass(frozen=True, slots=True)
class _Metric:
    """One metric of containers: where its points come from."""

    name: str
    kind: cri.MetricType
    help: str
    points: Callable[[ContainerSample], Iterable[Point]]
    labels: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class _NetworkMetric:
    """One metric of a pod's interfaces."""

    name: str
    help: str
    value: Callable[[InterfaceUse], int]


def _plain(value: Callable[[ContainerSample], int | None]) -> Callable[[ContainerSample], Iterable[Point]]:
    def points(sample: ContainerSample) -> Iterator[Point]:
        number = value(sample)
        if number is not None:
            yield (), number

    return points


def _cpu(name: str, scale: int = 1) -> Callable[[ContainerSample], Iterable[Point]]:
    def value(sample: ContainerSample) -> int | None:
        number: int | None = getattr(sample.use.cpu, name, None)
        return None if number is None else number // scale

    return _plain(value)


def _memory(value: Callable[[MemoryUse], int | None]) -> Callable[[ContainerSample], Iterable[Point]]:
    return _plain(lambda sample: None if sample.use.memory is None else value(sample.use.memory))


def _swap(value: Callable[[SwapUse], int | None]) -> Callable[[ContainerSample], Iterable[Point]]:
    return _plain(lambda sample: None if sample.use.swap is None else value(sample.use.swap))


def _stalled(
    stall: Callable[[CgroupUse], PressureStall | None], line: Callable[[PressureStall], Pressure | None]
) -> Callable[[ContainerSample], Iterable[Point]]:
    def value(sample: ContainerSample) -> int | None:
        found = stall(sample.use)
        pressure = line(found) if found is not None else None
        return None if pressure is None else pressure.total_ns // _SECOND_NS

    return _plain(value)


def _failures(sample: ContainerSample) -> Iterator[Point]:
    memory = sample.use.memory
    if memory is not None:
        for scope in ("container", "hierarchy"):
            yield ("pgfault", scope), memory.page_faults
            yield ("pgmajfault", scope), memory.major_page_faults


def _filesystem(value: Callable[[FilesystemUse], int | None]) -> Callable[[ContainerSample], Iterable[Point]]:
    def points(sample: ContainerSample) -> Iterator[Point]:
        number = value(sample.filesystem) if sample.filesystem is not None else None
        if sample.filesystem is not None and number is not None:
            yield (sample.filesystem.device,), number

    return points


def _device_io(operation: str, unit: str) -> Callable[[ContainerSample], Iterable[Point]]:
    def points(sample: ContainerSample) -> Iterator[Point]:
        for part in sample.use.block_io:
            if part.operation == operation:
                yield (_device(sample, part.major, part.minor),), getattr(part, unit)

    return points


def _block_io(sample: ContainerSample) -> Iterator[Point]:
    for part in sample.use.block_io:
        labels = (_device(sample, part.major, part.minor), str(part.major), str(part.minor), part.operation)
        yield labels, part.size_bytes


def _device(sample: ContainerSample, major: int, minor: int) -> str:
    return sample.device_names.get((major, minor), f"{major}:{minor}")


def _huge_pages(value: str) -> Callable[[ContainerSample], Iterable[Point]]:
    def points(sample: ContainerSample) -> Iterator[Point]:
        for pages in sample.use.huge_pages:
            number: int | None = getattr(pages, value)
            if number is not None:
                yield (pages.page_size,), number

    return points


def _open_files(sample: ContainerSample) -> Iterator[Point]:
    if sample.processes.open_files_limit is not None:
        yield ("max_open_files",), sample.processes.open_files_limit


def _swap_limit(resources: cri.LinuxContainerResources) -> int:
    return max(resources.memory_swap_limit_in_bytes, 0)


def _some(stall: PressureStall) -> Pressure | None:
    return stall.some


def _full(stall: PressureStall) -> Pressure | None:
    return stall.full


_CONTAINER_METRICS = (
    _Metric(
        "container_last_seen", GAUGE, "When the runtime last saw the container.",
        _plain(lambda s: s.seen_at_ns // _SECOND_NS),
    ),
    _Metric(
        "container_start_time_seconds", GAUGE, "When the container was started, in seconds since 1970.",
        _plain(lambda s: s.started_at_ns // _SECOND_NS),
    ),
    _Metric(
        "container_cpu_usage_seconds_total", COUNTER, "Processor time used, in seconds.", _cpu("usage_ns", _SECOND_NS)
    ),
    _Metric(
        "container_cpu_user_seconds_total", COUNTER, "Processor time used by programs, in seconds.",
        _cpu("user_ns", _SECOND_NS),
    ),
    _Metric(
        "container_cpu_system_seconds_total", COUNTER, "Processor time used by the kernel, in seconds.",
        _cpu("system_ns", _SECOND_NS),
    ),
    _Metric("container_cpu_cfs_periods_total", COUNTER, "Enforcement periods that have passed.", _cpu("periods")),
    _Metric(
        "container_cpu_cfs_throttled_periods_total", COUNTER, "Enforcement periods in which it was throttled.",
        _cpu("throttled_periods"),
    ),
    _Metric(
        "container_cpu_cfs_throttled_seconds_total", COUNTER, "Time for which it was throttled, in seconds.",
        _cpu("throttled_ns", _SECOND_NS),
    ),
    _Metric("container_memory_usage_bytes", GAUGE, "Memory in use, caches included.", _memory(lambda m: m.usage_bytes)),
    _Metric(
        "container_memory_working_set_bytes", GAUGE, "Memory in use without inactive file cache.",
        _memory(lambda m: m.working_set_bytes),
    ),
    _Metric("container_memory_rss", GAUGE, "Anonymous memory in bytes.", _memory(lambda m: m.rss_bytes)),
    _Metric("container_memory_cache", GAUGE, "Page cache in bytes.", _memory(lambda m: m.cache_bytes)),
    _Metric(
        "container_memory_mapped_file", GAUGE, "Memory-mapped files in bytes.", _memory(lambda m: m.mapped_file_bytes)
    ),
    _Metric(
        "container_memory_total_active_file_bytes", GAUGE, "Active file cache.", _memory(lambda m: m.active_file_bytes)
    ),
    _Metric(
        "container_memory_total_inactive_file_bytes", GAUGE, "Inactive file cache.",
        _memory(lambda m: m.inactive_file_bytes),
    ),
    _Metric(
        "container_memory_kernel_usage", GAUGE, "Memory that the kernel holds for it, in bytes.",
        _memory(lambda m: m.kernel_bytes),
    ),
    _Metric(
        "container_memory_max_usage_bytes", GAUGE, "The most memory that was in use.", _memory(lambda m: m.peak_bytes)
    ),
    _Metric(
        "container_memory_failcnt", COUNTER, "How often memory use met its limit.", _memory(lambda m: m.limit_hits)
    ),
    _Metric("container_oom_events_total", COUNTER, "Out-of-memory kills.", _memory(lambda m: m.oom_kills)),
    _Metric(
        "container_memory_failures_total", COUNTER, "Page faults.", _failures, ("failure_type", "scope")
    ),
    _Metric("container_memory_swap", GAUGE, "Swap in use, in bytes.", _swap(lambda swap: swap.usage_bytes)),
    _Metric(
        "container_hugetlb_usage_bytes", GAUGE, "Huge pages in use.", _huge_pages("usage_bytes"), ("pagesize",)
    ),
    _Metric(
        "container_hugetlb_max_usage_bytes", GAUGE, "The most huge pages that were in use.",
        _huge_pages("peak_bytes"), ("pagesize",),
    ),
    _Metric(
        "container_pressure_cpu_waiting_seconds_total", COUNTER, "Time in which some task waited for a processor.",
        _stalled(lambda use: use.cpu_pressure, _some),
    ),
    _Metric(
        "container_pressure_cpu_stalled_seconds_total", COUNTER, "Time in which all tasks waited for a processor.",
        _stalled(lambda use: use.cpu_pressure, _full),
    ),
    _Metric(
        "container_pressure_memory_waiting_seconds_total", COUNTER, "Time in which some task waited for memory.",
        _stalled(lambda use: use.memory_pressure, _some),
    ),
    _Metric(
        "container_pressure_memory_stalled_seconds_total", COUNTER, "Time in which all tasks waited for memory.",
        _stalled(lambda use: use.memory_pressure, _full),
    ),
    _Metric(
        "container_pressure_io_waiting_seconds_total", COUNTER, "Time in which some task waited for a device.",
        _stalled(lambda use: use.io_pressure, _some),
    ),
    _Metric(
        "container_pressure_io_stalled_seconds_total", COUNTER, "Time in which all tasks waited for a device.",
        _stalled(lambda use: use.io_pressure, _full),
    ),
    _Metric(
        "container_fs_usage_bytes", GAUGE, "What the writable layer uses.", _filesystem(lambda f: f.layer_bytes),
        ("device",),
    ),
    _Metric(
        "container_fs_limit_bytes", GAUGE, "The size of the file system of the writable layer.",
        _filesystem(lambda f: f.size_bytes), ("device",),
    ),
    _Metric(
        "container_fs_inodes_total", GAUGE, "Inodes of that file system.", _filesystem(lambda f: f.inodes), ("device",)
    ),
    _Metric(
        "container_fs_inodes_free", GAUGE, "Free inodes of that file system.", _filesystem(lambda f: f.inodes_free),
        ("device",),
    ),
    _Metric(
        "container_fs_reads_bytes_total", COUNTER, "Bytes read from a device.", _device_io("Read", "size_bytes"),
        ("device",),
    ),
    _Metric("container_fs_reads_total", COUNTER, "Reads from a device.", _device_io("Read", "requests"), ("device",)),
    _Metric(
        "container_fs_writes_bytes_total", COUNTER, "Bytes written to a device.", _device_io("Write", "size_bytes"),
        ("device",),
    ),
    _Metric("container_fs_writes_total", COUNTER, "Writes to a device.", _device_io("Write", "requests"), ("device",)),
    _Metric(
        "container_blkio_device_usage_total", COUNTER, "Bytes to and from a device, by operation.", _block_io,
        ("device", "major", "minor", "operation"),
    ),
    _Metric("container_processes", GAUGE, "Processes.", _plain(lambda s: s.processes.processes)),
    _Metric("container_threads", GAUGE, "Threads.", _plain(lambda s: s.use.tasks)),
    _Metric(
        "container_threads_max", GAUGE, "How many threads there may be; 0 for any number.",
        _plain(lambda s: s.use.tasks_limit),
    ),
    _Metric("container_file_descriptors", GAUGE, "Open files.", _plain(lambda s: s.processes.file_descriptors)),
    _Metric("container_sockets", GAUGE, "Open sockets.", _plain(lambda s: s.processes.sockets)),
    _Metric(
        "container_ulimits_soft", GAUGE, "Soft limits of the first process; none where it is unlimited.", _open_files,
        ("ulimit",),
    ),
    _Metric(
        "container_spec_cpu_period", GAUGE, "The enforcement period in microseconds.",
        _plain(lambda s: s.resources.cpu_period or _DEFAULT_CPU_PERIOD),
    ),
    _Metric(
        "container_spec_cpu_quota", GAUGE, "Processor time for each period in microseconds; none where unlimited.",
        _plain(lambda s: s.resources.cpu_quota if s.resources.cpu_quota > 0 else None),
    ),
    _Metric(
        "container_spec_cpu_shares", GAUGE, "The weight against other containers.",
        _plain(lambda s: s.resources.cpu_shares or _DEFAULT_CPU_SHARES),
    ),
    _Metric(
        "container_spec_memory_limit_bytes", GAUGE, "The memory limit; 0 for none.",
        _plain(lambda s: s.resources.memory_limit_in_bytes),
    ),
    _Metric(
        "container_spec_memory_reservation_limit_bytes", GAUGE, "The memory reservation, which CRI does not have: 0.",
        _plain(lambda s: 0),
    ),
    _Metric(
        "container_spec_memory_swap_limit_bytes", GAUGE, "The limit of memory and swap together; 0 for none.",
        _plain(lambda s: _swap_limit(s.resources)),
    ),
)  # fmt: skip

_NETWORK_METRICS = (
    _NetworkMetric("container_network_receive_bytes_total", "Bytes received.", lambda i: i.rx_bytes),
    _NetworkMetric("container_network_receive_packets_total", "Packets received.", lambda i: i.rx_packets),
    _NetworkMetric(
        "container_network_receive_packets_dropped_total", "Received packets that were dropped.", lambda i: i.rx_dropped
    ),
    _NetworkMetric("container_network_receive_errors_total", "Errors while receiving.", lambda i: i.rx_errors),
    _NetworkMetric("container_network_transmit_bytes_total", "Bytes sent.", lambda i: i.tx_bytes),
    _NetworkMetric("container_network_transmit_packets_total", "Packets sent.", lambda i: i.tx_packets),
    _NetworkMetric(
        "container_network_transmit_packets_dropped_total", "Packets to send that were dropped.", lambda i: i.tx_dropped
    ),
    _NetworkMetric("container_network_transmit_errors_total", "Errors while sending.", lambda i: i.tx_errors),
)


def metric_descriptors() -> list[cri.MetricDescriptor]:
    """What metrics there are, with the names of their labels in the order in which values come."""
    containers = [
        cri.MetricDescriptor(name=metric.name, help=metric.help, label_keys=(*BASE_LABELS, *metric.labels))
        for metric in _CONTAINER_METRICS
    ]
    networks = [
        cri.MetricDescriptor(name=metric.name, help=metric.help, label_keys=(*BASE_LABELS, "interface"))
        for metric in _NETWORK_METRICS
    ]
    return containers + networks


def container_metrics(base_labels: tuple[str, ...], sample: ContainerSample) -> list[cri.Metric]:
    """The metrics of a container, read now: without a time of their own."""
    return [
        cri.Metric(
            name=metric.name,
            metric_type=metric.kind,
            label_values=base_labels + labels,
            value=cri.UInt64Value(value=max(value, 0)),
        )
        for metric in _CONTAINER_METRICS
        for labels, value in metric.points(sample)
    ]


def network_metrics(base_labels: tuple[str, ...], interfaces: Iterable[InterfaceUse]) -> list[cri.Metric]:
    """The metrics of a pod's interfaces."""
    return [
        cri.Metric(
            name=metric.name,
            metric_type=COUNTER,
            label_values=(*base_labels, interface.name),
            value=cri.UInt64Value(value=metric.value(interface)),
        )
        for interface in interfaces
        for metric in _NETWORK_METRICS
    ]
