"""The statistics of containers and pods, read from the kernel when they are asked for. Docker is not asked.

Owns what is remembered between two readings: processor time for the rate, places of cgroups, counts of layers. Readings
block and follow one another in a thread of their own (`in_turn`). Must not know the store: what to
look at comes in as views. Upstream counterpart: containerd's stats collector with its cgroups; cri-dockerd asks Docker
for each container. Deliberate difference: nothing runs when nobody asks.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Collection, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TypeVar

from cri_proto import runtime_v1 as cri
from dockershim.stats.cgroups import CgroupPlace, CgroupReader, read_text
from dockershim.stats.layers import DiskUse, LayerUsage
from dockershim.stats.processes import read_processes
from dockershim.translate import pod_metrics
from dockershim.translate.cgroup_files import CgroupUse, add_up
from dockershim.translate.pod_metrics import ContainerSample, FilesystemUse
from dockershim.translate.proc_files import InterfaceUse, parse_interfaces, upper_directory
from dockershim.translate.stats import (
    CpuSample,
    SandboxReading,
    next_sample,
    to_cri_container_stats,
    to_cri_filesystem,
    to_cri_sandbox_stats,
)
from dockershim.translate.views import ContainerView, SandboxView

T = TypeVar("T")
Pod = tuple[SandboxView, Sequence[ContainerView]]
RETAIN_SLACK = 256


class Statistics:
    """The readings. `default_interface` is what a pod's own interface is called."""

    def __init__(
        self,
        clock_ns: Callable[[], int],
        layers: LayerUsage,
        default_interface: str,
        cgroup_root: Path = Path("/sys/fs/cgroup"),
        proc: Path = Path("/proc"),
    ) -> None:
        self.layers = layers
        self._clock_ns = clock_ns
        self._default_interface = default_interface
        self._proc = proc
        self._cgroups = CgroupReader(cgroup_root, proc)
        self._rates: dict[str, CpuSample] = {}
        self._layer_of: dict[str, str] = {}
        self._devices: dict[tuple[int, int], str] = {}
        self._snapshots = ""
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="statistics")

    async def in_turn(self, work: Callable[[], T]) -> T:
        """Do a reading in the one thread for readings."""
        return await asyncio.get_running_loop().run_in_executor(self._thread, work)

    def retain(self, identifiers: Collection[str], image_directories: Collection[str]) -> None:
        """Forget all other containers, sandboxes and layers, when that is worth while. In turn with the readings."""
        if len(self._rates) + len(self._layer_of) < 4 * len(identifiers) + RETAIN_SLACK:
            return
        self._cgroups.retain(identifiers)
        self._rates = {key: sample for key, sample in self._rates.items() if key in identifiers}
        self._layer_of = {key: directory for key, directory in self._layer_of.items() if key in identifiers}
        self.layers.retain({*self._layer_of.values(), *image_directories, *self._snapshot_directories()})

    # ---- statistics

    def containers(self, views: Sequence[ContainerView], root: str) -> list[cri.ContainerStats]:
        """The statistics of containers. `root` is Docker's directory, on the file system of the writable layers."""
        return [self._container(view, self._use(self._place(view)), root) for view in views]

    def sandboxes(self, pods: Sequence[Pod], root: str) -> list[cri.PodSandboxStats]:
        """The statistics of pods with all of their containers."""
        return [self._sandbox(sandbox, containers, root) for sandbox, containers in pods]

    def _place(self, view: ContainerView | SandboxView) -> CgroupPlace | None:
        return self._cgroups.locate(view.id, view.pid) if view.running else None

    def _use(self, place: CgroupPlace | None) -> CgroupUse | None:
        return self._cgroups.read(place) if place is not None else None

    def _container(self, view: ContainerView, use: CgroupUse | None, root: str) -> cri.ContainerStats:
        now = self._clock_ns()
        layer = self._writable_layer(view)
        message = None
        if layer is not None:
            message = to_cri_filesystem(self._layer_root(root), layer.used_bytes, layer.inodes, layer.counted_at_ns)
        return to_cri_container_stats(view, use, self._rate(view.id, now, use), now, message)

    def _sandbox(self, sandbox: SandboxView, containers: Sequence[ContainerView], root: str) -> cri.PodSandboxStats:
        pause, places = self._place(sandbox), [self._place(view) for view in containers]
        members = [place for place in (pause, *places) if place is not None]
        uses = [self._use(place) for place in places]
        above = _pods_own(sandbox, members)
        own = self._use(above) or add_up(use for use in (self._use(pause), *uses) if use is not None)
        now = self._clock_ns()
        reading = SandboxReading(
            at_ns=now,
            use=own,
            rate_nano_cores=self._rate(sandbox.id, now, own),
            interfaces=self._interfaces(sandbox),
            processes=sum(len(self._cgroups.processes(place)) for place in members),
        )
        stats = [self._container(view, use, root) for view, use in zip(containers, uses, strict=True)]
        return to_cri_sandbox_stats(sandbox, reading, self._default_interface, stats)

    def _rate(self, identifier: str, now_ns: int, use: CgroupUse | None) -> int | None:
        if use is None or use.cpu is None:
            return None
        sample = self._rates[identifier] = next_sample(self._rates.get(identifier), now_ns, use.cpu.usage_ns)
        return sample.rate_nano_cores

    def _interfaces(self, sandbox: SandboxView) -> tuple[InterfaceUse, ...]:
        if sandbox.host_network or sandbox.pid <= 0 or self._cgroups.locate(sandbox.id, sandbox.pid) is None:
            return ()  # the node's interfaces are not the pod's, and a process that is not the pod's has others
        return parse_interfaces(read_text(f"{self._proc}/{sandbox.pid}/net/dev"))

    # ---- layers

    def disk(
        self, views: Iterable[ContainerView | SandboxView], image_directories: Collection[str], root: str
    ) -> tuple[str, DiskUse | None, DiskUse]:
        """A directory on the file system of layers; what images use there, as far as known; what containers use.

        Docker's own store says which directories are an image's. In the containerd image store they are all those
        beside a container's that no container writes to; a pull may still be filling one.
        """
        written = {self.writable_directory(view): _ended_at(view) for view in views}
        written.pop("", None)
        counts = [count for path, ended in written.items() if (count := self.layers.writable(path, ended))]
        containers = DiskUse(
            sum(count.used_bytes for count in counts),
            sum(count.inodes for count in counts),
            min((count.counted_at_ns for count in counts), default=self._clock_ns()),
        )
        settled = bool(image_directories)
        frozen = set(image_directories) if settled else self._snapshot_directories() - written.keys()
        return self._layer_root(root), self.layers.frozen(frozen, settled=settled), containers

    def _snapshot_directories(self) -> set[str]:
        try:
            return (
                {f"{self._snapshots}/{name}/fs" for name in os.listdir(self._snapshots)} if self._snapshots else set()
            )
        except OSError:
            return set()

    def _layer_root(self, root: str) -> str:
        return self._snapshots or root

    def _writable_layer(self, view: ContainerView) -> DiskUse | None:
        directory = self.writable_directory(view)
        return self.layers.writable(directory, _ended_at(view)) if directory else None

    def writable_directory(self, view: ContainerView | SandboxView) -> str:
        """Where its writable layer is; empty where that cannot be known."""
        if view.writable_directory:
            self._layer_of[view.id] = view.writable_directory
        known = self._layer_of.get(view.id, "")
        if not known and self._place(view) is not None:
            known = upper_directory(read_text(f"{self._proc}/{view.pid}/mountinfo"))
            if known:
                self._layer_of[view.id] = known
                if known.endswith("/fs"):
                    self._snapshots = os.path.dirname(os.path.dirname(known))
        return known

    # ---- metrics

    def metrics(self, pods: Sequence[Pod], root: str) -> list[cri.PodSandboxMetrics]:
        """The metrics of pods and their running containers."""
        return [self._pod_metrics(sandbox, containers, root) for sandbox, containers in pods]

    def _pod_metrics(
        self, sandbox: SandboxView, containers: Sequence[ContainerView], root: str
    ) -> cri.PodSandboxMetrics:
        metadata = sandbox.item.metadata
        pod = (metadata.namespace, metadata.name)
        labels = (pod_metrics.POD_CONTAINER, sandbox.id, "", sandbox.name, *pod)
        running = [view for view in containers if view.running]
        return cri.PodSandboxMetrics(
            pod_sandbox_id=sandbox.id,
            metrics=pod_metrics.network_metrics(labels, self._interfaces(sandbox)),
            container_metrics=[
                cri.ContainerMetrics(
                    container_id=view.id,
                    metrics=pod_metrics.container_metrics(
                        (view.item.metadata.name, view.id, view.item.image.image, view.name, *pod), sample
                    ),
                )
                for view in running
                if (sample := self._sample(view, root)) is not None
            ],
        )

    def _sample(self, view: ContainerView, root: str) -> ContainerSample | None:
        place = self._cgroups.locate(view.id, view.pid)
        if place is None:
            return None
        use = self._cgroups.read(place, everything=True)
        for part in use.block_io:
            self._device_name(part.major, part.minor)
        return ContainerSample(
            use=use,
            processes=read_processes(self._proc, self._cgroups.processes(place), view.pid),
            filesystem=self._filesystem(view, root),
            resources=view.status.resources.linux,
            started_at_ns=view.status.started_at,
            seen_at_ns=self._clock_ns(),
            device_names=self._devices,
        )

    def _filesystem(self, view: ContainerView, root: str) -> FilesystemUse | None:
        layer = self._writable_layer(view)  # which tells where the layers are
        try:
            layers = self._layer_root(root)
            found, device = os.statvfs(layers), os.stat(layers).st_dev
        except OSError:
            return None
        return FilesystemUse(
            device=self._device_name(os.major(device), os.minor(device)),
            size_bytes=found.f_blocks * found.f_frsize,
            inodes=found.f_files,
            inodes_free=found.f_ffree,
            layer_bytes=layer.used_bytes if layer else None,
        )

    def _device_name(self, major: int, minor: int) -> str:
        name = self._devices.get((major, minor))
        if name is None:
            event = read_text(f"/sys/dev/block/{major}:{minor}/uevent")
            named = next(
                (line.removeprefix("DEVNAME=") for line in event.splitlines() if line.startswith("DEVNAME=")), ""
            )
            name = self._devices[major, minor] = f"/dev/{named}" if named else f"{major}:{minor}"
        return name


def _pods_own(sandbox: SandboxView, members: Sequence[CgroupPlace]) -> CgroupPlace | None:
    """The cgroup above a pod's containers when it is that pod's alone, as the kubelet names it."""
    above, uid = members[0].parent() if members else None, sandbox.item.metadata.uid
    named = above is not None and uid and uid.replace("-", "_") in above.name.replace("-", "_")
    return above if named else None


def _ended_at(view: ContainerView | SandboxView) -> int:
    return 0 if isinstance(view, SandboxView) else view.status.finished_at
