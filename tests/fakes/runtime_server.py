"""The fake runtime behind a real gRPC server on a unix socket, so that the agent's own client is what is tested."""

from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import grpc
import grpc.aio

from cri_proto import runtime_v1 as cri
from kubelet_py.api.pod import POD_UID_LABEL
from kubelet_py.cri.client import MAX_MESSAGE_BYTES
from kubelet_py.errors import RuntimeCallError
from tests.fakes.runtime import FakeRuntimeClient

_Rpc = tuple[Any, Callable[[FakeRuntimeClient, Any], Awaitable[Any]]]


@asynccontextmanager
async def serving(fake: FakeRuntimeClient, socket: Path) -> AsyncIterator[str]:
    """The server while the block runs; gives the endpoint."""
    server = grpc.aio.server(
        options=[
            ("grpc.max_receive_message_length", MAX_MESSAGE_BYTES),
            ("grpc.max_send_message_length", MAX_MESSAGE_BYTES * 2),
        ]
    )
    runtime: dict[str, Any] = {name: _unary(fake, *rpc) for name, rpc in _RUNTIME.items()}
    runtime["GetContainerEvents"] = grpc.unary_stream_rpc_method_handler(
        _events(fake), cri.GetEventsRequest.FromString, cri.ContainerEventResponse.SerializeToString
    )
    images = {name: _unary(fake, *rpc) for name, rpc in _IMAGES.items()}
    server.add_generic_rpc_handlers(
        (
            grpc.method_handlers_generic_handler("runtime.v1.RuntimeService", runtime),
            grpc.method_handlers_generic_handler("runtime.v1.ImageService", images),
        )
    )
    server.add_insecure_port(f"unix:{socket}")
    await server.start()
    try:
        yield f"unix://{socket}"
    finally:
        await server.stop(None)


def _unary(
    fake: FakeRuntimeClient, request_type: Any, answer: Callable[[FakeRuntimeClient, Any], Awaitable[Any]]
) -> Any:
    async def handle(request: Any, context: Any) -> Any:
        try:
            return await answer(fake, request)
        except RuntimeCallError as error:
            await context.abort(grpc.StatusCode[error.code or "UNKNOWN"], error.detail)

    return grpc.unary_unary_rpc_method_handler(
        handle, request_type.FromString, lambda response: response.SerializeToString()
    )


def _events(fake: FakeRuntimeClient) -> Callable[[Any, Any], AsyncIterator[cri.ContainerEventResponse]]:
    async def handle(_: Any, context: Any) -> AsyncIterator[cri.ContainerEventResponse]:
        try:
            async for event in fake.container_events():
                yield event
        except RuntimeCallError as error:
            await context.abort(grpc.StatusCode[error.code], error.detail)

    return handle


async def _empty(work: Awaitable[None], response: Any) -> Any:
    await work
    return response


async def _wrapped(work: Awaitable[Any], wrap: Callable[[Any], Any]) -> Any:
    return wrap(await work)


def _image_status(image: cri.Image | None) -> cri.ImageStatusResponse:
    return cri.ImageStatusResponse(image=image)


def _uid(labels: Mapping[str, str]) -> str | None:
    return labels.get(POD_UID_LABEL)


async def _containers(fake: FakeRuntimeClient, request: cri.ListContainersRequest) -> cri.ListContainersResponse:
    return cri.ListContainersResponse(containers=await fake.list_containers(_uid(request.filter.label_selector)))


async def _sandboxes(fake: FakeRuntimeClient, request: cri.ListPodSandboxRequest) -> cri.ListPodSandboxResponse:
    return cri.ListPodSandboxResponse(items=await fake.list_pod_sandboxes(_uid(request.filter.label_selector)))


_RUNTIME: dict[str, _Rpc] = {
    "Version": (cri.VersionRequest, lambda fake, _: fake.version()),
    "Status": (cri.StatusRequest, lambda fake, r: fake.status(r.verbose)),
    "RuntimeConfig": (cri.RuntimeConfigRequest, lambda fake, _: fake.runtime_config()),
    "UpdateRuntimeConfig": (
        cri.UpdateRuntimeConfigRequest,
        lambda fake, r: _empty(
            fake.update_runtime_config(r.runtime_config.network_config.pod_cidr), cri.UpdateRuntimeConfigResponse()
        ),
    ),
    "RunPodSandbox": (
        cri.RunPodSandboxRequest,
        lambda fake, r: _wrapped(
            fake.run_pod_sandbox(r.config, r.runtime_handler), lambda id_: cri.RunPodSandboxResponse(pod_sandbox_id=id_)
        ),
    ),
    "StopPodSandbox": (
        cri.StopPodSandboxRequest,
        lambda fake, r: _empty(fake.stop_pod_sandbox(r.pod_sandbox_id), cri.StopPodSandboxResponse()),
    ),
    "RemovePodSandbox": (
        cri.RemovePodSandboxRequest,
        lambda fake, r: _empty(fake.remove_pod_sandbox(r.pod_sandbox_id), cri.RemovePodSandboxResponse()),
    ),
    "PodSandboxStatus": (cri.PodSandboxStatusRequest, lambda fake, r: fake.pod_sandbox_status(r.pod_sandbox_id)),
    "ListPodSandbox": (cri.ListPodSandboxRequest, _sandboxes),
    "CreateContainer": (
        cri.CreateContainerRequest,
        lambda fake, r: _wrapped(
            fake.create_container(r.pod_sandbox_id, r.config, r.sandbox_config),
            lambda id_: cri.CreateContainerResponse(container_id=id_),
        ),
    ),
    "StartContainer": (
        cri.StartContainerRequest,
        lambda fake, r: _empty(fake.start_container(r.container_id), cri.StartContainerResponse()),
    ),
    "StopContainer": (
        cri.StopContainerRequest,
        lambda fake, r: _empty(fake.stop_container(r.container_id, r.timeout), cri.StopContainerResponse()),
    ),
    "RemoveContainer": (
        cri.RemoveContainerRequest,
        lambda fake, r: _empty(fake.remove_container(r.container_id), cri.RemoveContainerResponse()),
    ),
    "ContainerStatus": (
        cri.ContainerStatusRequest,
        lambda fake, r: _wrapped(
            fake.container_status(r.container_id), lambda status: cri.ContainerStatusResponse(status=status)
        ),
    ),
    "ListContainers": (cri.ListContainersRequest, _containers),
    "UpdatePodSandboxResources": (
        cri.UpdatePodSandboxResourcesRequest,
        lambda fake, r: _empty(
            fake.update_pod_sandbox_resources(r.pod_sandbox_id, r.overhead, r.resources),
            cri.UpdatePodSandboxResourcesResponse(),
        ),
    ),
    "UpdateContainerResources": (
        cri.UpdateContainerResourcesRequest,
        lambda fake, r: _empty(
            fake.update_container_resources(r.container_id, r.linux), cri.UpdateContainerResourcesResponse()
        ),
    ),
    "ReopenContainerLog": (
        cri.ReopenContainerLogRequest,
        lambda fake, r: _empty(fake.reopen_container_log(r.container_id), cri.ReopenContainerLogResponse()),
    ),
    "CheckpointContainer": (
        cri.CheckpointContainerRequest,
        lambda fake, r: _empty(
            fake.checkpoint_container(r.container_id, r.location, r.timeout), cri.CheckpointContainerResponse()
        ),
    ),
    "ExecSync": (cri.ExecSyncRequest, lambda fake, r: fake.exec_sync(r.container_id, list(r.cmd), r.timeout)),
}

_IMAGES: dict[str, _Rpc] = {
    "ListImages": (
        cri.ListImagesRequest,
        lambda fake, _: _wrapped(fake.list_images(), lambda images: cri.ListImagesResponse(images=images)),
    ),
    "ImageStatus": (cri.ImageStatusRequest, lambda fake, r: _wrapped(fake.image_status(r.image), _image_status)),
    "PullImage": (
        cri.PullImageRequest,
        lambda fake, r: _wrapped(
            fake.pull_image(
                r.image,
                r.auth if r.HasField("auth") else None,
                r.sandbox_config if r.HasField("sandbox_config") else None,
            ),
            lambda ref: cri.PullImageResponse(image_ref=ref),
        ),
    ),
    "RemoveImage": (
        cri.RemoveImageRequest,
        lambda fake, r: _empty(fake.remove_image(r.image), cri.RemoveImageResponse()),
    ),
    "ImageFsInfo": (cri.ImageFsInfoRequest, lambda fake, _: fake.image_fs_info()),
}
