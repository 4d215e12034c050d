"""The statistics and metrics of containers and pods: unary, listed and streamed. No call to Docker.

Upstream counterpart: containerd's container_stats*.go, sandbox_stats*.go and list_*metric*.go. As there, lists have
pods that are ready, and a container that does not run has its writable layer and nothing else.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from typing import TypeVar

from cri_proto import runtime_v1 as cri
from dockershim.errors import NotRunning
from dockershim.node import Node
from dockershim.stats import Pod
from dockershim.translate.pod_metrics import metric_descriptors
from dockershim.translate.views import ContainerView

T = TypeVar("T")
CHUNK_ITEMS = 100
"""Metrics are long: a hundred containers are two megabytes."""


class Stats:
    """The handlers."""

    def __init__(self, node: Node) -> None:
        self._node = node
        self._descriptors = metric_descriptors()

    # ---- containers

    async def container_stats(self, request: cri.ContainerStatsRequest) -> cri.ContainerStatsResponse:
        """See CRI."""
        view = self._node.store.require_container(request.container_id)
        (stats,) = await self._read_containers([view])
        return cri.ContainerStatsResponse(stats=stats)

    async def list_container_stats(self, request: cri.ListContainerStatsRequest) -> cri.ListContainerStatsResponse:
        """See CRI."""
        return cri.ListContainerStatsResponse(stats=await self._read_containers(self._containers(request.filter)))

    async def stream_container_stats(
        self, request: cri.StreamContainerStatsRequest
    ) -> AsyncIterator[cri.StreamContainerStatsResponse]:
        """See CRI."""
        views = self._containers(request.filter)
        for start in range(0, len(views), CHUNK_ITEMS):
            chunk = await self._read_containers(views[start : start + CHUNK_ITEMS])
            yield cri.StreamContainerStatsResponse(container_stats=chunk)

    def _containers(self, wanted: cri.ContainerStatsFilter) -> list[ContainerView]:
        store = self._node.store
        same = cri.ContainerFilter(
            id=wanted.id, pod_sandbox_id=wanted.pod_sandbox_id, label_selector=wanted.label_selector
        )
        return [store.containers[item.id] for item in store.select_containers(same)]

    async def _read_containers(self, views: Sequence[ContainerView]) -> list[cri.ContainerStats]:
        return await self._read(lambda root: self._node.stats.containers(views, root))

    # ---- pods

    async def pod_sandbox_stats(self, request: cri.PodSandboxStatsRequest) -> cri.PodSandboxStatsResponse:
        """See CRI."""
        view = self._node.store.require_sandbox(request.pod_sandbox_id)
        if not view.ready:
            raise NotRunning(f"sandbox {view.id} is not ready: it has no statistics")
        (stats,) = await self._read_sandboxes([(view, self._node.store.members(view.id))])
        return cri.PodSandboxStatsResponse(stats=stats)

    async def list_pod_sandbox_stats(self, request: cri.ListPodSandboxStatsRequest) -> cri.ListPodSandboxStatsResponse:
        """See CRI."""
        return cri.ListPodSandboxStatsResponse(stats=await self._read_sandboxes(self._ready_pods(request.filter)))

    async def stream_pod_sandbox_stats(
        self, request: cri.StreamPodSandboxStatsRequest
    ) -> AsyncIterator[cri.StreamPodSandboxStatsResponse]:
        """See CRI."""
        for chunk in _chunks(self._ready_pods(request.filter)):
            yield cri.StreamPodSandboxStatsResponse(pod_sandbox_stats=await self._read_sandboxes(chunk))

    def _ready_pods(self, wanted: cri.PodSandboxStatsFilter) -> list[Pod]:
        store = self._node.store
        same = cri.PodSandboxFilter(id=wanted.id, label_selector=wanted.label_selector)
        views = [store.sandboxes[item.id] for item in store.select_sandboxes(same)]
        return [(view, store.members(view.id)) for view in views if view.ready]

    async def _read_sandboxes(self, pods: Sequence[Pod]) -> list[cri.PodSandboxStats]:
        return await self._read(lambda root: self._node.stats.sandboxes(pods, root))

    # ---- metrics

    async def list_metric_descriptors(
        self, request: cri.ListMetricDescriptorsRequest
    ) -> cri.ListMetricDescriptorsResponse:
        """See CRI."""
        return cri.ListMetricDescriptorsResponse(descriptors=self._descriptors)

    async def list_pod_sandbox_metrics(
        self, request: cri.ListPodSandboxMetricsRequest
    ) -> cri.ListPodSandboxMetricsResponse:
        """See CRI."""
        pods = self._ready_pods(cri.PodSandboxStatsFilter())
        return cri.ListPodSandboxMetricsResponse(pod_metrics=await self._read_metrics(pods))

    async def stream_pod_sandbox_metrics(
        self, request: cri.StreamPodSandboxMetricsRequest
    ) -> AsyncIterator[cri.StreamPodSandboxMetricsResponse]:
        """See CRI."""
        for chunk in _chunks(self._ready_pods(cri.PodSandboxStatsFilter())):
            yield cri.StreamPodSandboxMetricsResponse(pod_sandbox_metrics=await self._read_metrics(chunk))

    async def _read_metrics(self, pods: Sequence[Pod]) -> list[cri.PodSandboxMetrics]:
        return await self._read(lambda root: self._node.stats.metrics(pods, root))

    async def _read(self, reading: Callable[[str], T]) -> T:
        """Let go of what is remembered of containers that are gone, and read, given Docker's directory."""
        node, stats = self._node, self._node.stats
        root = node.feeder.require_info().root_directory
        known, image_directories = {*node.store.containers, *node.store.sandboxes}, node.store.image_directories

        def work() -> T:
            stats.retain(known, image_directories)
            return reading(root)

        return await stats.in_turn(work)


def _chunks(pods: Sequence[Pod]) -> Iterable[Sequence[Pod]]:
    return (pods[start : start + CHUNK_ITEMS] for start in range(0, len(pods), CHUNK_ITEMS))
