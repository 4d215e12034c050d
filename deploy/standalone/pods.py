"""The pods of the node as the CRI runtime shows them: to refuse a runtime that is in use, and to remove them all."""

from pathlib import Path

import grpc

from cri_proto import runtime_v1 as cri
from cri_proto.runtime_v1.api_pb2_grpc import RuntimeServiceStub

_CALL_SECONDS = 120.0


def answers(endpoint: Path) -> bool:
    """Whether the runtime says that it and its network are ready."""
    with grpc.insecure_channel(f"unix://{endpoint}") as channel:
        try:
            reply = RuntimeServiceStub(channel).Status(cri.StatusRequest(), timeout=5)
        except grpc.RpcError:
            return False
    return all(condition.status for condition in reply.status.conditions)


def names(endpoint: Path) -> list[str]:
    """namespace/name of every pod the runtime knows."""
    with grpc.insecure_channel(f"unix://{endpoint}") as channel:
        reply = RuntimeServiceStub(channel).ListPodSandbox(cri.ListPodSandboxRequest(), timeout=_CALL_SECONDS)
    return sorted({f"{pod.metadata.namespace}/{pod.metadata.name}" for pod in reply.items})


def remove_all(endpoint: Path) -> int:
    """Stop and remove every pod of the runtime; how many there were."""
    with grpc.insecure_channel(f"unix://{endpoint}") as channel:
        runtime = RuntimeServiceStub(channel)
        listed = runtime.ListContainers(cri.ListContainersRequest(), timeout=_CALL_SECONDS).containers
        for container in listed:
            request = cri.StopContainerRequest(container_id=container.id, timeout=2)
            runtime.StopContainer(request, timeout=_CALL_SECONDS)
        pods = runtime.ListPodSandbox(cri.ListPodSandboxRequest(), timeout=_CALL_SECONDS).items
        for pod in pods:
            runtime.StopPodSandbox(cri.StopPodSandboxRequest(pod_sandbox_id=pod.id), timeout=_CALL_SECONDS)
            runtime.RemovePodSandbox(cri.RemovePodSandboxRequest(pod_sandbox_id=pod.id), timeout=_CALL_SECONDS)
    return len(pods)
