"""The CRI services: every RPC, bound to its handler.

Owns nothing else: handlers are in `rpc`, errors become codes in `interceptor`. Upstream counterpart: cri-dockerd's
core/docker_service.go.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Coroutine
from typing import Any

import grpc.aio

from cri_proto.runtime_v1 import api_pb2_grpc
from dockershim.lifecycle import Lifecycle
from dockershim.node import Node
from dockershim.pulls import Puller
from dockershim.rpc.checkpoints import CheckpointAndRestore
from dockershim.rpc.container_create import ContainerCreate
from dockershim.rpc.container_lifecycle import ContainerLifecycle
from dockershim.rpc.container_query import ContainerQuery
from dockershim.rpc.events import Events
from dockershim.rpc.exec_sync import ExecSync
from dockershim.rpc.images import Images
from dockershim.rpc.runtime import Runtime
from dockershim.rpc.sandbox_query import SandboxQuery
from dockershim.rpc.sandbox_run import SandboxRun
from dockershim.rpc.sandbox_stop import SandboxStop
from dockershim.rpc.sandbox_update import SandboxUpdate
from dockershim.rpc.stats import Stats
from dockershim.rpc.streaming import Streaming

Unary = Callable[[Any], Coroutine[Any, Any, Any]]
Stream = Callable[[Any], AsyncIterator[Any]]


def runtime_handlers(node: Node, lifecycle: Lifecycle, puller: Puller) -> tuple[dict[str, Unary], dict[str, Stream]]:
    """RuntimeService: unary handlers and streams by RPC."""
    runtime = Runtime(node)
    run, stop, sandboxes = SandboxRun(node, lifecycle, puller), SandboxStop(node, lifecycle), SandboxQuery(node)
    create, containers = ContainerCreate(node, lifecycle), ContainerQuery(node)
    life, streaming = ContainerLifecycle(node, lifecycle), Streaming(node)
    stats = Stats(node)
    checkpoints = CheckpointAndRestore(node, lifecycle, run.run_pod_sandbox, create.create_for_restore, life.start_from)
    unary: dict[str, Unary] = {
        "Version": runtime.version,
        "Status": runtime.status,
        "RuntimeConfig": runtime.runtime_config,
        "UpdateRuntimeConfig": runtime.update_runtime_config,
        "RunPodSandbox": run.run_pod_sandbox,
        "StopPodSandbox": stop.stop_pod_sandbox,
        "RemovePodSandbox": stop.remove_pod_sandbox,
        "UpdatePodSandboxResources": SandboxUpdate(node, lifecycle).update_pod_sandbox_resources,
        "PodSandboxStatus": sandboxes.pod_sandbox_status,
        "ListPodSandbox": sandboxes.list_pod_sandbox,
        "CreateContainer": create.create_container,
        "StartContainer": life.start_container,
        "StopContainer": life.stop_container,
        "RemoveContainer": life.remove_container,
        "UpdateContainerResources": life.update_container_resources,
        "ReopenContainerLog": life.reopen_container_log,
        "ContainerStatus": containers.container_status,
        "ListContainers": containers.list_containers,
        "ExecSync": ExecSync(node).exec_sync,
        "Exec": streaming.exec,
        "Attach": streaming.attach,
        "PortForward": streaming.port_forward,
        "ContainerStats": stats.container_stats,
        "ListContainerStats": stats.list_container_stats,
        "PodSandboxStats": stats.pod_sandbox_stats,
        "ListPodSandboxStats": stats.list_pod_sandbox_stats,
        "ListMetricDescriptors": stats.list_metric_descriptors,
        "ListPodSandboxMetrics": stats.list_pod_sandbox_metrics,
        "CheckpointContainer": checkpoints.checkpoint_container,
        "CheckpointPod": checkpoints.checkpoint_pod,
        "RestorePod": checkpoints.restore_pod,
    }
    streams: dict[str, Stream] = {
        "StreamPodSandboxes": sandboxes.stream_pod_sandboxes,
        "StreamContainers": containers.stream_containers,
        "GetContainerEvents": Events(node).get_container_events,
        "StreamContainerStats": stats.stream_container_stats,
        "StreamPodSandboxStats": stats.stream_pod_sandbox_stats,
        "StreamPodSandboxMetrics": stats.stream_pod_sandbox_metrics,
    }
    return unary, streams


def image_handlers(node: Node, puller: Puller) -> tuple[dict[str, Unary], dict[str, Stream]]:
    """ImageService: unary handlers and streams by RPC."""
    images = Images(node, puller)
    unary: dict[str, Unary] = {
        "ListImages": images.list_images,
        "ImageStatus": images.image_status,
        "PullImage": images.pull_image,
        "RemoveImage": images.remove_image,
        "ImageFsInfo": images.image_fs_info,
    }
    return unary, {"StreamImages": images.stream_images}


def add_services(server: grpc.aio.Server, node: Node) -> None:
    """Register both services."""
    lifecycle, puller = Lifecycle(node), Puller(node)
    runtime: Any = _bind(api_pb2_grpc.RuntimeServiceServicer, *runtime_handlers(node, lifecycle, puller))
    images: Any = _bind(api_pb2_grpc.ImageServiceServicer, *image_handlers(node, puller))
    api_pb2_grpc.add_RuntimeServiceServicer_to_server(runtime, server)
    api_pb2_grpc.add_ImageServiceServicer_to_server(images, server)


def _bind(base: type, unary: dict[str, Unary], streams: dict[str, Stream]) -> object:
    """A servicer with these methods. What the contract has and we do not bind stays Unimplemented by the base."""
    servicer = base()
    for name, handler in unary.items():
        setattr(servicer, name, _unary_method(handler))
    for name, stream in streams.items():
        setattr(servicer, name, _stream_method(stream))
    return servicer


def _unary_method(handler: Unary) -> Callable[[Any, Any], Coroutine[Any, Any, Any]]:
    async def method(request: Any, context: Any) -> Any:
        return await handler(request)

    return method


def _stream_method(handler: Stream) -> Callable[[Any, Any], AsyncIterator[Any]]:
    async def method(request: Any, context: Any) -> AsyncIterator[Any]:
        async for response in handler(request):
            yield response

    return method
