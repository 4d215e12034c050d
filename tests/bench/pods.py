"""Pods through the API server, timed by a watch: create -> Ready and delete -> gone, many at once or one in turn.

The times are those at which the watcher hears of the change, the same for every agent measured.
"""

import asyncio
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import psutil

from kubelet_py.api import core_v1, meta_v1
from kubelet_py.kube.client import ApiClient, ClientSettings, EventKind, Query
from kubelet_py.kube.connection import Connection
from kubelet_py.kube.kubeconfig import load_kubeconfig
from kubelet_py.kube.resources import PODS

NAMESPACE = "default"
BATCH_DEADLINE_SECONDS = 300.0
SETTLE_SECONDS = 15.0
"""From the last pod's start until an agent counts as idle: what follows a start (events, status echoes) may take so
long that a measurement begun sooner sees the end of the start and not what 100 pods cost from then on."""


AGENT, SHIM, ENGINE = "agent", "shim", "engine"
"""The parts of a node that are measured one by one."""


@dataclass(slots=True)
class Usage:
    """What one part of the node took."""

    cpu_seconds: float = 0.0
    idle_cpu_percent: float = 0.0
    resident_mib: float = 0.0


@dataclass(slots=True)
class Batch:
    """What one batch of pods took. Seconds; one start and one deletion for each pod; usage by part."""

    starts: list[float] = field(default_factory=list)
    deletions: list[float] = field(default_factory=list)
    all_ready_seconds: float = 0.0
    all_gone_seconds: float = 0.0
    usage: dict[str, Usage] = field(default_factory=dict)


@dataclass(slots=True)
class _Watched:
    """What the watch has said so far, in the clock of this process."""

    ready: dict[str, float] = field(default_factory=dict)
    gone: dict[str, float] = field(default_factory=dict)
    changed: asyncio.Event = field(default_factory=asyncio.Event)


class Meter:
    """CPU and memory of each part of the node, by the processes that make it up."""

    def __init__(self, parts: Mapping[str, Iterable[int]]) -> None:
        self._parts = {part: [psutil.Process(pid) for pid in pids] for part, pids in parts.items()}

    def cpu_seconds(self) -> dict[str, float]:
        """User and system time so far, that of ended children included."""
        return {
            part: sum(sum(process.cpu_times()[:4]) for process in processes) for part, processes in self._parts.items()
        }

    def count_work(self, batch: Batch, before: Mapping[str, float]) -> None:
        """Add what has been taken since then, and the memory that is held now."""
        for part, now in self.cpu_seconds().items():
            usage = batch.usage.setdefault(part, Usage())
            usage.cpu_seconds += now - before[part]
            resident_mib = sum(process.memory_info().rss for process in self._parts[part]) / 2**20
            usage.resident_mib = max(usage.resident_mib, resident_mib)

    def count_idle(self, batch: Batch, before: Mapping[str, float], seconds: float) -> None:
        """What has been taken since then, while nothing was asked for."""
        for part, now in self.cpu_seconds().items():
            batch.usage[part].idle_cpu_percent = (now - before[part]) / seconds * 100


class PodBench:
    """Makes and deletes pods on one node. Use within `async with`."""

    def __init__(self, kubeconfig: Path, node: str, image: str) -> None:
        connection = Connection(load_kubeconfig(kubeconfig))
        self._client = ApiClient(connection, ClientSettings("kubelet-py-bench", 0.0, 1, max_parallel=16))
        self._node = node
        self._image = image
        self._watched = _Watched()
        self._count = 0

    async def run(self, at_once: int, turns: int, meter: Meter, idle_seconds: float) -> Batch:
        """`turns` times `at_once` pods; the idle CPU is that with the last batch running."""
        result = Batch()
        async with asyncio.TaskGroup() as tasks:
            watching = tasks.create_task(self._watch())
            for turn in range(turns):
                await self._turn(at_once, result, meter, idle_seconds if turn == turns - 1 else 0.0)
            watching.cancel()
        return result

    async def close(self) -> None:
        """Closes the connection."""
        await self._client.close()

    async def _turn(self, at_once: int, result: Batch, meter: Meter, idle_seconds: float) -> None:
        self._count += 1
        names = [f"bench-{self._count}-{index}" for index in range(at_once)]
        cpu, began = meter.cpu_seconds(), time.monotonic()
        created = dict(zip(names, await asyncio.gather(*map(self._create, names)), strict=True))
        await self._until(names, self._watched.ready, "Ready")
        result.all_ready_seconds = max(self._watched.ready[name] for name in names) - began
        result.starts += [self._watched.ready[name] - created[name] for name in names]
        if idle_seconds:
            await asyncio.sleep(SETTLE_SECONDS)  # counted as work of the pods' start, which it is
        meter.count_work(result, cpu)
        if idle_seconds:
            cpu = meter.cpu_seconds()
            await asyncio.sleep(idle_seconds)
            meter.count_idle(result, cpu, idle_seconds)
        cpu, began = meter.cpu_seconds(), time.monotonic()
        deleted = dict(zip(names, await asyncio.gather(*map(self._delete, names)), strict=True))
        await self._until(names, self._watched.gone, "gone")
        result.all_gone_seconds = max(self._watched.gone[name] for name in names) - began
        result.deletions += [self._watched.gone[name] - deleted[name] for name in names]
        meter.count_work(result, cpu)

    async def _create(self, name: str) -> float:
        pod = core_v1.Pod(
            metadata=meta_v1.ObjectMeta(name=name, namespace=NAMESPACE),
            spec=core_v1.PodSpec(
                nodeName=self._node,
                terminationGracePeriodSeconds=1,
                containers=[core_v1.Container(name="pause", image=self._image, imagePullPolicy="IfNotPresent")],
            ),
        )
        began = time.monotonic()
        await self._client.create(PODS, pod, NAMESPACE)
        return began

    async def _delete(self, name: str) -> float:
        began = time.monotonic()
        await self._client.delete(PODS, name, NAMESPACE)
        return began

    async def _watch(self) -> None:
        listed = await self._client.list(PODS, Query(NAMESPACE))
        version = listed.metadata.resourceVersion if listed.metadata is not None else None
        async with self._client.watch(
            PODS, Query(NAMESPACE), resource_version=version or "0", timeout_seconds=3600
        ) as events:
            async for kind, pod in events:
                self._note(kind, pod, time.monotonic())
        raise ConnectionError("the API server ended the watch that times the pods")

    def _note(self, kind: EventKind, pod: core_v1.Pod, now: float) -> None:
        name = (pod.metadata.name if pod.metadata is not None else None) or ""
        if kind is EventKind.DELETED:
            self._watched.gone[name] = now
        elif kind is not EventKind.BOOKMARK and name not in self._watched.ready and _is_ready(pod):
            self._watched.ready[name] = now
        self._watched.changed.set()

    async def _until(self, names: Sequence[str], seen: Mapping[str, float], what: str) -> None:
        try:
            async with asyncio.timeout(BATCH_DEADLINE_SECONDS):
                while not all(name in seen for name in names):
                    self._watched.changed.clear()
                    await self._watched.changed.wait()
        except TimeoutError:
            raise TimeoutError(await self._tell_of([name for name in names if name not in seen], what)) from None

    async def _tell_of(self, missing: Sequence[str], what: str) -> str:
        """Which pods were waited for in vain, and what the API server says of them now."""
        listed = await self._client.list(PODS, Query(NAMESPACE))
        there = {pod.metadata.name: pod.status for pod in listed.items or () if pod.metadata is not None}
        found = [f"{name} ({_phase(there[name])})" if name in there else f"{name} (not there)" for name in missing]
        return f"{len(missing)} pods were not {what} within {BATCH_DEADLINE_SECONDS:.0f} s: {', '.join(found)}"


def _phase(status: core_v1.PodStatus | None) -> str:
    return (status.phase if status is not None else None) or "no phase"


def _is_ready(pod: core_v1.Pod) -> bool:
    conditions = (pod.status.conditions if pod.status is not None else None) or []
    return any(condition.type == "Ready" and condition.status == "True" for condition in conditions)
