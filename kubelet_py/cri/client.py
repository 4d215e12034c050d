"""Calls a CRI v1 runtime over its unix socket and turns gRPC failures into the agent's errors.

Owns: the channels, deadlines, message limits, the mapping of gRPC codes. Must not know: pods, policies, retries (the
next pass of a pod worker is the retry). Upstream counterpart: k8s.io/cri-client/pkg/remote_runtime.go and
remote_image.go. Differences: one channel serves both services where both have one endpoint; calls take and give CRI
messages, not wrappers.
"""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any, Protocol, TypeVar

import grpc
import grpc.aio

from cri_proto import runtime_v1 as cri
from cri_proto.runtime_v1 import api_pb2_grpc
from kubelet_py.errors import (
    ConfigError,
    RuntimeCallError,
    RuntimeNotFound,
    RuntimeTimeout,
    RuntimeUnavailable,
    RuntimeUnimplemented,
)

MAX_MESSAGE_BYTES = 16 * 1024 * 1024
DEFAULT_TIMEOUT_SECONDS = 120.0

T = TypeVar("T")

_BY_CODE: dict[grpc.StatusCode, type[RuntimeCallError]] = {
    grpc.StatusCode.NOT_FOUND: RuntimeNotFound,
    grpc.StatusCode.UNAVAILABLE: RuntimeUnavailable,
    grpc.StatusCode.DEADLINE_EXCEEDED: RuntimeTimeout,
    grpc.StatusCode.UNIMPLEMENTED: RuntimeUnimplemented,
}

# "filter nothing out", shared because messages that nobody changes need no copies
_ALL_SANDBOXES = cri.ListPodSandboxRequest()
_ALL_CONTAINERS = cri.ListContainersRequest()


class RuntimeClient(Protocol):
    """What the agent asks of a runtime. Every method raises RuntimeCallError or one of its kinds."""

    async def version(self) -> cri.VersionResponse:
        """Names and versions."""

    async def status(self, verbose: bool = False) -> cri.StatusResponse:
        """Runtime and network conditions, features."""

    async def runtime_config(self) -> cri.RuntimeConfigResponse:
        """The cgroup driver."""

    async def update_runtime_config(self, pod_cidr: str) -> None:
        """Hands the node's pod CIDR to the runtime."""

    async def run_pod_sandbox(self, config: cri.PodSandboxConfig, runtime_handler: str) -> str:
        """Creates a sandbox; gives its id."""

    async def stop_pod_sandbox(self, sandbox_id: str) -> None:
        """Stops a sandbox and what runs in it."""

    async def remove_pod_sandbox(self, sandbox_id: str) -> None:
        """Removes a sandbox."""

    async def update_pod_sandbox_resources(
        self, sandbox_id: str, overhead: cri.LinuxContainerResources, resources: cri.LinuxContainerResources
    ) -> None:
        """Tells the runtime that the pod's cgroup changes; RuntimeUnimplemented where it does not care."""

    async def pod_sandbox_status(self, sandbox_id: str) -> cri.PodSandboxStatusResponse:
        """State of one sandbox."""

    async def list_pod_sandboxes(self, pod_uid: str | None = None) -> list[cri.PodSandbox]:
        """All sandboxes, or those of one pod."""

    async def create_container(
        self, sandbox_id: str, config: cri.ContainerConfig, sandbox_config: cri.PodSandboxConfig
    ) -> str:
        """Creates a container; gives its id."""

    async def start_container(self, container_id: str) -> None:
        """Starts a container."""

    async def stop_container(self, container_id: str, grace_period_seconds: int) -> None:
        """Stops a container."""

    async def remove_container(self, container_id: str) -> None:
        """Removes a container."""

    async def container_status(self, container_id: str) -> cri.ContainerStatus:
        """State of one container."""

    async def list_containers(self, pod_uid: str | None = None) -> list[cri.Container]:
        """All containers, or those of one pod."""

    async def update_container_resources(self, container_id: str, resources: cri.LinuxContainerResources) -> None:
        """Changes limits in place."""

    async def reopen_container_log(self, container_id: str) -> None:
        """After a log file was renamed."""

    async def exec_sync(self, container_id: str, command: list[str], timeout_seconds: int) -> cri.ExecSyncResponse:
        """Runs a command; RuntimeTimeout when it outlives the timeout (0: none)."""

    async def checkpoint_container(self, container_id: str, location: str, timeout_seconds: int) -> None:
        """Writes an archive of what runs; RuntimeTimeout when it takes longer, the usual deadline at least."""

    async def streaming_url(self, request: cri.ExecRequest | cri.AttachRequest | cri.PortForwardRequest) -> str:
        """Prepares an exec, attach or port-forward; gives the URL where one client may take it up, soon."""

    async def list_images(self) -> list[cri.Image]:
        """All images."""

    async def image_status(self, image: cri.ImageSpec) -> cri.Image | None:
        """One image, None when there is none."""

    async def pull_image(
        self, image: cri.ImageSpec, auth: cri.AuthConfig | None, sandbox_config: cri.PodSandboxConfig | None
    ) -> str:
        """Pulls an image; gives its id. No deadline: the caller cancels."""

    async def remove_image(self, image: cri.ImageSpec) -> None:
        """Removes an image."""

    async def image_fs_info(self) -> cri.ImageFsInfoResponse:
        """Usage of the image file systems."""

    def container_events(self) -> AsyncIterator[cri.ContainerEventResponse]:
        """Life-cycle events from now on; RuntimeUnimplemented on the first step where there are none."""

    async def close(self) -> None:
        """Closes the channel."""


def translate(call: str, error: grpc.aio.AioRpcError) -> RuntimeCallError:
    """Our error for a gRPC one."""
    code = error.code()
    kind = _BY_CODE.get(code, RuntimeCallError)
    return kind(call, code.name, error.details() or "")


def target_of(endpoint: str, setting: str = "containerRuntimeEndpoint") -> str:
    """The gRPC target of a CRI endpoint; raises ConfigError for what is no local unix socket."""
    if endpoint.startswith("unix:"):
        path = endpoint.removeprefix("unix:").removeprefix("//")
    elif endpoint.startswith("/"):
        path = endpoint
    else:
        raise ConfigError(
            f"{setting}: {endpoint!r} is no unix socket; give one such as unix:///run/containerd/containerd.sock"
        )
    if not path.startswith("/"):
        raise ConfigError(f"{setting}: the path of {endpoint!r} is not absolute; give unix:///PATH")
    return f"unix:{path}"


def connect(
    endpoint: str, timeout_seconds: float = DEFAULT_TIMEOUT_SECONDS, image_endpoint: str = ""
) -> "GrpcRuntimeClient":
    """A client for `endpoint`; images at an endpoint of their own, if one is given.

    Nothing is dialled before the first call, so the runtime may come up later.
    """
    target = target_of(endpoint)
    image_target = target_of(image_endpoint, "imageServiceEndpoint") if image_endpoint else target
    return GrpcRuntimeClient(
        _channel(target), timeout_seconds, _channel(image_target) if image_target != target else None
    )


def _channel(target: str) -> grpc.aio.Channel:
    return grpc.aio.insecure_channel(
        target,
        options=[
            ("grpc.max_receive_message_length", MAX_MESSAGE_BYTES),
            ("grpc.max_send_message_length", MAX_MESSAGE_BYTES),
            ("grpc.initial_reconnect_backoff_ms", 100),
            ("grpc.min_reconnect_backoff_ms", 5000),  # what one attempt may take; a loaded machine needs it
            ("grpc.max_reconnect_backoff_ms", 3000),
            ("grpc.enable_http_proxy", 0),
        ],
    )


class GrpcRuntimeClient:
    """The RuntimeClient over grpc.aio. `images`: the channel of the image service, where it is not the runtime's."""

    def __init__(
        self, channel: grpc.aio.Channel, timeout_seconds: float, images: grpc.aio.Channel | None = None
    ) -> None:
        self._channels = (channel,) if images is None else (channel, images)
        self._timeout = timeout_seconds
        # The generated stubs are classes for both worlds; the async one is described by *AsyncStub in newer stubs only.
        self._runtime: Any = api_pb2_grpc.RuntimeServiceStub(channel)
        self._images: Any = api_pb2_grpc.ImageServiceStub(images or channel)

    async def _call(
        self, name: str, method: Callable[..., Awaitable[T]], request: Any, timeout_seconds: float | None
    ) -> T:
        try:
            return await method(request, timeout=timeout_seconds)
        except grpc.aio.AioRpcError as error:
            raise translate(name, error) from error

    async def _runtime_call(self, name: str, request: Any, timeout_seconds: float | None = None) -> Any:
        return await self._call(name, getattr(self._runtime, name), request, timeout_seconds or self._timeout)

    async def _image_call(self, name: str, request: Any, timeout_seconds: float | None = None) -> Any:
        return await self._call(name, getattr(self._images, name), request, timeout_seconds or self._timeout)

    async def version(self) -> cri.VersionResponse:
        """Version."""
        response: cri.VersionResponse = await self._runtime_call("Version", cri.VersionRequest(version="0.1.0"))
        return response

    async def status(self, verbose: bool = False) -> cri.StatusResponse:
        """Status."""
        response: cri.StatusResponse = await self._runtime_call("Status", cri.StatusRequest(verbose=verbose))
        return response

    async def runtime_config(self) -> cri.RuntimeConfigResponse:
        """RuntimeConfig."""
        response: cri.RuntimeConfigResponse = await self._runtime_call("RuntimeConfig", cri.RuntimeConfigRequest())
        return response

    async def update_runtime_config(self, pod_cidr: str) -> None:
        """UpdateRuntimeConfig."""
        config = cri.RuntimeConfig(network_config=cri.NetworkConfig(pod_cidr=pod_cidr))
        await self._runtime_call("UpdateRuntimeConfig", cri.UpdateRuntimeConfigRequest(runtime_config=config))

    async def run_pod_sandbox(self, config: cri.PodSandboxConfig, runtime_handler: str) -> str:
        """RunPodSandbox, with twice the usual deadline since the network is set up in it."""
        request = cri.RunPodSandboxRequest(config=config, runtime_handler=runtime_handler)
        response = await self._runtime_call("RunPodSandbox", request, self._timeout * 2)
        return self._non_empty("RunPodSandbox", "pod_sandbox_id", response.pod_sandbox_id)

    async def stop_pod_sandbox(self, sandbox_id: str) -> None:
        """StopPodSandbox."""
        await self._runtime_call("StopPodSandbox", cri.StopPodSandboxRequest(pod_sandbox_id=sandbox_id))

    async def remove_pod_sandbox(self, sandbox_id: str) -> None:
        """RemovePodSandbox."""
        await self._runtime_call("RemovePodSandbox", cri.RemovePodSandboxRequest(pod_sandbox_id=sandbox_id))

    async def update_pod_sandbox_resources(
        self, sandbox_id: str, overhead: cri.LinuxContainerResources, resources: cri.LinuxContainerResources
    ) -> None:
        """UpdatePodSandboxResources; the resources are without the overhead."""
        request = cri.UpdatePodSandboxResourcesRequest(
            pod_sandbox_id=sandbox_id, overhead=overhead, resources=resources
        )
        try:
            await self._runtime_call("UpdatePodSandboxResources", request)
        except RuntimeCallError as error:
            # containerd 2.2 has the call, and says in words what there is a code for
            if error.code == "UNKNOWN" and "not implemented" in error.detail:
                raise RuntimeUnimplemented(error.call, error.code, error.detail) from error
            raise

    async def pod_sandbox_status(self, sandbox_id: str) -> cri.PodSandboxStatusResponse:
        """PodSandboxStatus."""
        request = cri.PodSandboxStatusRequest(pod_sandbox_id=sandbox_id)
        response: cri.PodSandboxStatusResponse = await self._runtime_call("PodSandboxStatus", request)
        return response

    async def list_pod_sandboxes(self, pod_uid: str | None = None) -> list[cri.PodSandbox]:
        """ListPodSandbox."""
        request = _ALL_SANDBOXES
        if pod_uid is not None:
            selector = cri.PodSandboxFilter(label_selector={"io.kubernetes.pod.uid": pod_uid})
            request = cri.ListPodSandboxRequest(filter=selector)
        return list((await self._runtime_call("ListPodSandbox", request)).items)

    async def create_container(
        self, sandbox_id: str, config: cri.ContainerConfig, sandbox_config: cri.PodSandboxConfig
    ) -> str:
        """CreateContainer."""
        request = cri.CreateContainerRequest(pod_sandbox_id=sandbox_id, config=config, sandbox_config=sandbox_config)
        response = await self._runtime_call("CreateContainer", request)
        return self._non_empty("CreateContainer", "container_id", response.container_id)

    async def start_container(self, container_id: str) -> None:
        """StartContainer."""
        await self._runtime_call("StartContainer", cri.StartContainerRequest(container_id=container_id))

    async def stop_container(self, container_id: str, grace_period_seconds: int) -> None:
        """StopContainer, with a deadline that leaves room for the grace period."""
        request = cri.StopContainerRequest(container_id=container_id, timeout=grace_period_seconds)
        await self._runtime_call("StopContainer", request, self._timeout + grace_period_seconds)

    async def remove_container(self, container_id: str) -> None:
        """RemoveContainer."""
        await self._runtime_call("RemoveContainer", cri.RemoveContainerRequest(container_id=container_id))

    async def container_status(self, container_id: str) -> cri.ContainerStatus:
        """ContainerStatus."""
        response = await self._runtime_call("ContainerStatus", cri.ContainerStatusRequest(container_id=container_id))
        status: cri.ContainerStatus = response.status
        return status

    async def list_containers(self, pod_uid: str | None = None) -> list[cri.Container]:
        """ListContainers."""
        request = _ALL_CONTAINERS
        if pod_uid is not None:
            selector = cri.ContainerFilter(label_selector={"io.kubernetes.pod.uid": pod_uid})
            request = cri.ListContainersRequest(filter=selector)
        return list((await self._runtime_call("ListContainers", request)).containers)

    async def update_container_resources(self, container_id: str, resources: cri.LinuxContainerResources) -> None:
        """UpdateContainerResources."""
        request = cri.UpdateContainerResourcesRequest(container_id=container_id, linux=resources)
        await self._runtime_call("UpdateContainerResources", request)

    async def reopen_container_log(self, container_id: str) -> None:
        """ReopenContainerLog."""
        await self._runtime_call("ReopenContainerLog", cri.ReopenContainerLogRequest(container_id=container_id))

    async def exec_sync(self, container_id: str, command: list[str], timeout_seconds: int) -> cri.ExecSyncResponse:
        """ExecSync; without a timeout of its own the call has no deadline either."""
        request = cri.ExecSyncRequest(container_id=container_id, cmd=command, timeout=timeout_seconds)
        deadline = timeout_seconds + self._timeout if timeout_seconds else None
        response: cri.ExecSyncResponse = await self._call("ExecSync", self._runtime.ExecSync, request, deadline)
        return response

    async def checkpoint_container(self, container_id: str, location: str, timeout_seconds: int) -> None:
        """CheckpointContainer; the runtime gets the same time as the call."""
        if timeout_seconds < 0:
            detail = f"the timeout must not be below 0, and is {timeout_seconds}"
            raise RuntimeCallError("CheckpointContainer", "INVALID_ARGUMENT", detail)
        seconds = max(timeout_seconds, int(self._timeout))
        request = cri.CheckpointContainerRequest(container_id=container_id, location=location, timeout=seconds)
        await self._runtime_call("CheckpointContainer", request, seconds)

    async def streaming_url(self, request: cri.ExecRequest | cri.AttachRequest | cri.PortForwardRequest) -> str:
        """Exec, Attach or PortForward, by the kind of the request."""
        call = type(request).__name__.removesuffix("Request")
        return str((await self._runtime_call(call, request)).url)

    async def list_images(self) -> list[cri.Image]:
        """ListImages."""
        return list((await self._image_call("ListImages", cri.ListImagesRequest())).images)

    async def image_status(self, image: cri.ImageSpec) -> cri.Image | None:
        """ImageStatus."""
        response = await self._image_call("ImageStatus", cri.ImageStatusRequest(image=image))
        return response.image if response.HasField("image") else None

    async def pull_image(
        self, image: cri.ImageSpec, auth: cri.AuthConfig | None, sandbox_config: cri.PodSandboxConfig | None
    ) -> str:
        """PullImage; the runtime watches the progress, so the call itself has no deadline."""
        request = cri.PullImageRequest(image=image, auth=auth, sandbox_config=sandbox_config)
        response = await self._call("PullImage", self._images.PullImage, request, None)
        return self._non_empty("PullImage", "image_ref", response.image_ref)

    async def remove_image(self, image: cri.ImageSpec) -> None:
        """RemoveImage."""
        await self._image_call("RemoveImage", cri.RemoveImageRequest(image=image))

    async def image_fs_info(self) -> cri.ImageFsInfoResponse:
        """ImageFsInfo."""
        response: cri.ImageFsInfoResponse = await self._image_call("ImageFsInfo", cri.ImageFsInfoRequest())
        return response

    async def container_events(self) -> AsyncIterator[cri.ContainerEventResponse]:
        """GetContainerEvents."""
        stream = self._runtime.GetContainerEvents(cri.GetEventsRequest())
        try:
            async for event in stream:
                yield event
        except grpc.aio.AioRpcError as error:
            raise translate("GetContainerEvents", error) from error
        finally:
            stream.cancel()

    async def close(self) -> None:
        """Closes the channels; calls that are under way are cancelled."""
        for channel in self._channels:
            await channel.close(grace=None)

    @staticmethod
    def _non_empty(call: str, field: str, value: str) -> str:
        if not value:
            raise RuntimeCallError(call, "", f"the runtime answered with an empty {field}")
        return value


async def wait_until_ready(client: RuntimeClient, poll_seconds: float = 0.5) -> cri.VersionResponse:
    """The first Version answer, however long it takes; raises ConfigError when what answers speaks no CRI v1.

    A runtime that is starting may refuse for any reason (containerd: UNKNOWN, not initialized yet), so only "no such
    service" counts as a word for good.
    """
    while True:
        try:
            return await client.version()
        except RuntimeUnimplemented as error:
            raise ConfigError(f"containerRuntimeEndpoint: what answers there is no CRI v1 runtime: {error}") from error
        except RuntimeCallError:
            await asyncio.sleep(poll_seconds)
