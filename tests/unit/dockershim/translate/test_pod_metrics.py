"""The metrics' table: every value has a descriptor with as many labels, and every descriptor has a value."""

from __future__ import annotations

from cri_proto import runtime_v1 as cri
from dockershim.translate.cgroup_files import CgroupUse, HugePages, from_v1, from_v2
from dockershim.translate.pod_metrics import (
    BASE_LABELS,
    ContainerSample,
    FilesystemUse,
    ProcessUse,
    container_metrics,
    metric_descriptors,
    network_metrics,
)
from dockershim.translate.proc_files import parse_interfaces
from tests.unit.dockershim.translate.test_cgroup_files import V1, V2
from tests.unit.dockershim.translate.test_proc_files import NET_DEV

LABELS = ("app", "abc", "busybox", "k8s_app", "default", "web")
CADVISOR = {
    *("container_blkio_device_usage_total", "container_cpu_cfs_periods_total"),
    *("container_cpu_cfs_throttled_periods_total", "container_cpu_cfs_throttled_seconds_total"),
    *("container_cpu_system_seconds_total", "container_cpu_usage_seconds_total", "container_cpu_user_seconds_total"),
    *("container_file_descriptors", "container_fs_inodes_free", "container_fs_inodes_total"),
    *("container_fs_limit_bytes", "container_fs_reads_bytes_total", "container_fs_reads_total"),
    *("container_fs_usage_bytes", "container_fs_writes_bytes_total", "container_fs_writes_total"),
    *("container_hugetlb_max_usage_bytes", "container_hugetlb_usage_bytes", "container_last_seen"),
    *("container_memory_cache", "container_memory_failcnt", "container_memory_failures_total"),
    *("container_memory_kernel_usage", "container_memory_mapped_file", "container_memory_max_usage_bytes"),
    *("container_memory_rss", "container_memory_swap", "container_memory_usage_bytes"),
    *("container_memory_working_set_bytes", "container_network_receive_bytes_total"),
    *("container_network_receive_errors_total", "container_network_receive_packets_dropped_total"),
    *("container_network_receive_packets_total", "container_network_transmit_bytes_total"),
    *("container_network_transmit_errors_total", "container_network_transmit_packets_dropped_total"),
    *("container_network_transmit_packets_total", "container_oom_events_total"),
    *(
        f"container_pressure_{what}_{how}_seconds_total"
        for what in ("cpu", "io", "memory")
        for how in ("stalled", "waiting")
    ),
    *("container_processes", "container_sockets", "container_spec_cpu_period", "container_spec_cpu_quota"),
    *("container_spec_cpu_shares", "container_spec_memory_limit_bytes"),
    *("container_spec_memory_reservation_limit_bytes", "container_spec_memory_swap_limit_bytes"),
    *("container_start_time_seconds", "container_threads", "container_threads_max", "container_ulimits_soft"),
}
"""What the kubelet publishes from its own cAdvisor, which dashboards and alerts are made for."""


def sample(use: CgroupUse) -> ContainerSample:
    """A container that has everything."""
    return ContainerSample(
        use=use,
        processes=ProcessUse(processes=3, file_descriptors=12, sockets=2, open_files_limit=1024),
        filesystem=FilesystemUse("/dev/vda", 10**9, 1000, 900, 4096),
        resources=cri.LinuxContainerResources(cpu_quota=20000, memory_limit_in_bytes=2000),
        started_at_ns=7 * 10**9,
        seen_at_ns=9 * 10**9,
        device_names={(8, 0): "/dev/sda"},
    )


def values(use: CgroupUse) -> dict[tuple[str, ...], int]:
    """Values by name and own labels."""
    found = container_metrics(LABELS, sample(use))
    assert all(tuple(metric.label_values[: len(LABELS)]) == LABELS for metric in found)
    return {(metric.name, *metric.label_values[len(LABELS) :]): metric.value.value for metric in found}


def test_every_metric_of_cadvisor_is_described_and_has_values() -> None:
    """On one kernel or the other, with the labels that its descriptor names."""
    descriptors = {descriptor.name: descriptor for descriptor in metric_descriptors()}
    assert descriptors.keys() >= CADVISOR
    assert all(descriptor.help for descriptor in descriptors.values())
    found = [
        *container_metrics(LABELS, sample(from_v1(V1))),
        *container_metrics(
            LABELS, sample(from_v2({**V2, "memory.pressure": V2["cpu.pressure"], "io.pressure": V2["cpu.pressure"]}))
        ),
        *network_metrics(LABELS, parse_interfaces(NET_DEV)),
    ]
    assert {metric.name for metric in found} == descriptors.keys()
    for metric in found:
        assert len(metric.label_values) == len(descriptors[metric.name].label_keys)
        assert tuple(descriptors[metric.name].label_keys[: len(BASE_LABELS)]) == BASE_LABELS
        assert metric.timestamp == 0  # read for this answer


def test_values() -> None:
    """Seconds are seconds, bytes are bytes, each device and fault of its own."""
    found = values(from_v1(V1))
    assert found["container_cpu_usage_seconds_total",] == 1
    assert found["container_cpu_cfs_throttled_seconds_total",] == 2
    assert found["container_memory_working_set_bytes",] == 700
    assert found["container_memory_failures_total", "pgfault", "container"] == 11
    assert found["container_memory_failures_total", "pgmajfault", "hierarchy"] == 3
    assert found["container_fs_reads_bytes_total", "/dev/sda"] == 4096
    assert found["container_blkio_device_usage_total", "/dev/sda", "8", "0", "Write"] == 512
    assert found["container_fs_usage_bytes", "/dev/vda"] == 4096
    assert found["container_start_time_seconds",] == 7
    assert found["container_ulimits_soft", "max_open_files"] == 1024
    assert found["container_spec_cpu_quota",] == 20000
    assert found["container_spec_cpu_period",] == 100000
    assert found["container_spec_cpu_shares",] == 1024
    assert found["container_threads_max",] == 0
    assert found["container_hugetlb_usage_bytes", "2MB"] == 2097152


def test_what_is_not_known_has_no_value() -> None:
    """A cgroup that could not be read, a page size without a peak: no zeros."""
    names = {key[0] for key in values(CgroupUse(huge_pages=(HugePages("2MB", 1, None),)))}
    assert "container_hugetlb_usage_bytes" in names
    assert not names & {"container_hugetlb_max_usage_bytes", "container_memory_usage_bytes", "container_threads"}
    assert not any("pressure" in name or "cpu_usage" in name for name in names)
