"""CRI's statistics from what was read of cgroups, interfaces and layers.

Pure: readings and clock readings are arguments. What a kernel does not say stays unset, never zero. Upstream
counterpart: containerd's container_stats_list.go and sandbox_stats_linux.go. Deliberate difference: available memory
and swap are unset where there is no limit.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from cri_proto import runtime_v1 as cri
from dockershim.translate.cgroup_files import CgroupUse, CpuUse, MemoryUse, Pressure, PressureStall, SwapUse
from dockershim.translate.proc_files import InterfaceUse
from dockershim.translate.views import ContainerView, SandboxView

SHORTEST_WINDOW_NS = 10**9


@dataclass(frozen=True, slots=True)
class CpuSample:
    """The processor time of a cgroup at one moment, and the rate that was known then."""

    at_ns: int
    usage_ns: int
    rate_nano_cores: int | None = None


def next_sample(before: CpuSample | None, at_ns: int, usage_ns: int) -> CpuSample:
    """The sample to keep, with the rate to show: since the one before, unless that is too near to tell.

    Processor time that went back means another cgroup of the same name: the rate begins anew.
    """
    if before is None or usage_ns < before.usage_ns or at_ns < before.at_ns:
        return CpuSample(at_ns, usage_ns)
    elapsed = at_ns - before.at_ns
    if elapsed < SHORTEST_WINDOW_NS:
        return before
    return CpuSample(at_ns, usage_ns, (usage_ns - before.usage_ns) * 10**9 // elapsed)


def to_cri_container_stats(
    view: ContainerView,
    use: CgroupUse | None,
    rate_nano_cores: int | None,
    at_ns: int,
    layer: cri.FilesystemUsage | None,
) -> cri.ContainerStats:
    """The statistics of a container; one that does not run has no `use`."""
    use = use or CgroupUse()
    item = view.item
    return cri.ContainerStats(
        attributes=cri.ContainerAttributes(
            id=view.id, metadata=item.metadata, labels=item.labels, annotations=item.annotations
        ),
        cpu=_cpu(use.cpu, use.cpu_pressure, rate_nano_cores, at_ns),
        memory=_memory(use.memory, use.memory_pressure, at_ns),
        swap=_swap(use.swap, at_ns),
        io=_io(use.io_pressure, at_ns),
        writable_layer=layer,
    )


@dataclass(frozen=True, slots=True)
class SandboxReading:
    """What was read of a pod as a whole."""

    at_ns: int
    use: CgroupUse
    rate_nano_cores: int | None
    interfaces: tuple[InterfaceUse, ...]
    processes: int


def to_cri_sandbox_stats(
    view: SandboxView, reading: SandboxReading, default_interface: str, containers: Iterable[cri.ContainerStats]
) -> cri.PodSandboxStats:
    """The statistics of a pod. Its default interface is the first one when the named one is not there."""
    item, use, at_ns = view.item, reading.use, reading.at_ns
    return cri.PodSandboxStats(
        attributes=cri.PodSandboxAttributes(
            id=view.id, metadata=item.metadata, labels=item.labels, annotations=item.annotations
        ),
        linux=cri.LinuxPodSandboxStats(
            cpu=_cpu(use.cpu, use.cpu_pressure, reading.rate_nano_cores, at_ns),
            memory=_memory(use.memory, use.memory_pressure, at_ns),
            network=_network(reading.interfaces, default_interface, at_ns),
            process=cri.ProcessUsage(timestamp=at_ns, process_count=_value(reading.processes)),
            containers=containers,
            io=_io(use.io_pressure, at_ns),
        ),
    )


def to_cri_filesystem(mountpoint: str, used_bytes: int, inodes: int | None, at_ns: int) -> cri.FilesystemUsage:
    """What is used of a file system; `mountpoint` is a directory on it."""
    return cri.FilesystemUsage(
        timestamp=at_ns,
        fs_id=cri.FilesystemIdentifier(mountpoint=mountpoint),
        used_bytes=_value(used_bytes),
        inodes_used=_value(inodes),
    )


def _cpu(use: CpuUse | None, stall: PressureStall | None, rate: int | None, at_ns: int) -> cri.CpuUsage | None:
    if use is None:
        return None
    return cri.CpuUsage(
        timestamp=at_ns,
        usage_core_nano_seconds=_value(use.usage_ns),
        usage_nano_cores=_value(rate),
        psi=_stall(stall),
    )


def _memory(use: MemoryUse | None, stall: PressureStall | None, at_ns: int) -> cri.MemoryUsage | None:
    if use is None:
        return None
    return cri.MemoryUsage(
        timestamp=at_ns,
        working_set_bytes=_value(use.working_set_bytes),
        available_bytes=_value(use.available_bytes),
        usage_bytes=_value(use.usage_bytes),
        rss_bytes=_value(use.rss_bytes),
        page_faults=_value(use.page_faults),
        major_page_faults=_value(use.major_page_faults),
        psi=_stall(stall),
    )


def _swap(use: SwapUse | None, at_ns: int) -> cri.SwapUsage | None:
    if use is None:
        return None
    return cri.SwapUsage(
        timestamp=at_ns,
        swap_available_bytes=_value(use.available_bytes),
        swap_usage_bytes=_value(use.usage_bytes),
    )


def _io(stall: PressureStall | None, at_ns: int) -> cri.IoUsage | None:
    return None if stall is None else cri.IoUsage(timestamp=at_ns, psi=_stall(stall))


def _network(interfaces: Sequence[InterfaceUse], default: str, at_ns: int) -> cri.NetworkUsage | None:
    if not interfaces:
        return None
    messages = [
        cri.NetworkInterfaceUsage(
            name=interface.name,
            rx_bytes=_value(interface.rx_bytes),
            rx_errors=_value(interface.rx_errors),
            tx_bytes=_value(interface.tx_bytes),
            tx_errors=_value(interface.tx_errors),
        )
        for interface in interfaces
    ]
    chosen = next((message for message in messages if message.name == default), messages[0])
    return cri.NetworkUsage(timestamp=at_ns, default_interface=chosen, interfaces=messages)


def _stall(stall: PressureStall | None) -> cri.PsiStats | None:
    if stall is None:
        return None
    return cri.PsiStats(Full=_pressure(stall.full), Some=_pressure(stall.some))


def _pressure(pressure: Pressure | None) -> cri.PsiData | None:
    if pressure is None:
        return None
    return cri.PsiData(Total=pressure.total_ns, Avg10=pressure.avg10, Avg60=pressure.avg60, Avg300=pressure.avg300)


def _value(number: int | None) -> cri.UInt64Value | None:
    return None if number is None else cri.UInt64Value(value=number)
