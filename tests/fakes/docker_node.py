"""dockershim's parts around the fake engine: a pod network and logs in memory, and a node that runs."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Collection, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from cri_proto import runtime_v1 as cri
from dockershim import app
from dockershim.logs import LogSource
from dockershim.network import NetworkCondition, NetworkFailed, NetworkRequest, NetworkResult
from dockershim.network.pod_settings import bandwidth, pod_cidrs
from dockershim.node import Node, NodeSettings
from dockershim.tasks import Tasks
from tests.fakes.docker_engine import FakeDockerEngine

PAUSE = "registry.k8s.io/pause:3.10"
IMAGE = "registry.k8s.io/test:1"


class FakePodNetwork:
    """Gives addresses out and takes them back."""

    docker_network_mode = "none"
    publishes_ports = False

    def __init__(self) -> None:
        self.attached: dict[str, str] = {}
        self.failures: list[str] = []
        self.pod_cidr = ""
        self.retained: list[set[str]] = []
        self._next = 2

    async def start(self) -> None:
        """See PodNetwork."""

    def check_annotations(self, annotations: Mapping[str, str]) -> None:
        """See PodNetwork."""
        bandwidth(annotations)

    async def set_up(self, request: NetworkRequest) -> NetworkResult:
        """See PodNetwork. A failure leaves half an attachment, which only tear_down gives back."""
        address = f"10.1.0.{self._next}"
        self._next += 1
        self.attached[request.sandbox_id] = address
        if self.failures:
            raise NetworkFailed(self.failures.pop(0))
        return NetworkResult((address,), {"address": address})

    async def tear_down(self, request: NetworkRequest, raw: Mapping[str, Any]) -> None:
        """See PodNetwork."""
        self.attached.pop(request.sandbox_id, None)

    async def retain(self, sandbox_ids: Collection[str]) -> None:
        """See PodNetwork."""
        self.retained.append(set(sandbox_ids))

    def condition(self) -> NetworkCondition:
        """See PodNetwork."""
        return NetworkCondition(True, "", "")

    async def close(self) -> None:
        """See PodNetwork."""

    async def check(self, request: NetworkRequest, raw: Mapping[str, Any]) -> str:
        """See PodNetwork."""
        return "" if request.sandbox_id in self.attached else "not attached"

    async def set_pod_cidr(self, text: str) -> None:
        """See PodNetwork."""
        pod_cidrs(text)
        self.pod_cidr = text

    async def run(self) -> None:
        """See PodNetwork."""


class FakeLogs:
    """Remembers what it was asked."""

    def __init__(self) -> None:
        self.followed: dict[str, LogSource] = {}
        self.finished: list[str] = []
        self.finishes = asyncio.Event()
        """Cleared: a log is long, and its end is not reached."""
        self.finishes.set()
        self.removed: list[str] = []
        self.retained: list[set[str]] = []
        self.spool_directory = ""

    def follow(self, source: LogSource) -> None:
        """See ContainerLogs."""
        self.followed[source.container_id] = source

    async def finish(self, container_id: str) -> None:
        """See ContainerLogs."""
        await self.finishes.wait()
        self.finished.append(container_id)

    async def reopen(self, container_id: str) -> None:
        """See ContainerLogs."""

    async def remove(self, container_id: str) -> None:
        """See ContainerLogs."""
        self.removed.append(container_id)

    async def retain(self, container_ids: Collection[str]) -> None:
        """See ContainerLogs."""
        self.retained.append(set(container_ids))

    async def run(self) -> None:
        """See ContainerLogs."""


class World:
    """A running node and the fakes under it."""

    def __init__(self, engine: FakeDockerEngine, network: FakePodNetwork, logs: FakeLogs, node: Node) -> None:
        self.engine = engine
        self.network = network
        self.logs = logs
        self.node = node


def stocked_engine() -> FakeDockerEngine:
    """A Docker that has the images PAUSE and IMAGE."""
    engine = FakeDockerEngine()
    engine.add_image(PAUSE)
    engine.add_image(IMAGE)
    return engine


@asynccontextmanager
async def running_node(
    root: Path,
    engine: FakeDockerEngine | None = None,
    settings: NodeSettings | None = None,
    logs: FakeLogs | None = None,
) -> AsyncIterator[World]:
    """A node that has caught up with its engine."""
    if engine is None:
        engine = stocked_engine()
    network, logs = FakePodNetwork(), logs or FakeLogs()
    parts = app.Parts(engine, network, logs, settings or NodeSettings(pause_image=PAUSE))
    async with Tasks() as tasks:
        node = app.build_node(parts, root, tasks)
        await asyncio.to_thread(node.checkpoints.prepare)
        tasks.spawn_logged(node.feeder.run(), "feed")
        try:
            await node.feeder.wait_filled()
            yield World(engine, network, logs, node)
        finally:
            tasks.shut_down()


def sandbox_config(name: str = "web", attempt: int = 0) -> cri.PodSandboxConfig:
    """A pod's configuration."""
    return cri.PodSandboxConfig(
        metadata=cri.PodSandboxMetadata(name=name, namespace="default", uid=f"uid-{name}", attempt=attempt)
    )


def container_config(*command: str, name: str = "main", attempt: int = 0) -> cri.ContainerConfig:
    """A container's configuration."""
    return cri.ContainerConfig(
        metadata=cri.ContainerMetadata(name=name, attempt=attempt),
        image=cri.ImageSpec(image=IMAGE),
        command=list(command) or ["sleep"],
    )
