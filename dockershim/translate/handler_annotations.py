"""What the OCI runtime of a handler learns of a pod: annotations in the container's OCI configuration.

Runtimes with virtual machines (Kata, gVisor) tell sandbox and container apart by them and take settings of the pod from
them; Docker's default runtime has no use for any. Pure. Upstream counterpart: containerd's annotations of its CRI
plugin, whose keys these are; cri-dockerd passes nothing. Deliberate difference: no list of permitted keys, since the
operator who registers a runtime decides what it listens to.
"""

from __future__ import annotations

from collections.abc import Mapping

from cri_proto import runtime_v1 as cri

API = (1, 43)
_PREFIX = "io.kubernetes.cri"


def sandbox_annotations(config: cri.PodSandboxConfig) -> dict[str, str]:
    """For the pause container of a pod."""
    return {**config.annotations, **_pod(config.metadata), f"{_PREFIX}.container-type": "sandbox"}


def container_annotations(
    config: cri.ContainerConfig, sandbox_id: str, metadata: cri.PodSandboxMetadata, pod: Mapping[str, str]
) -> dict[str, str]:
    """For a container: the pod's, its own, and which sandbox it belongs to."""
    return {
        **pod,
        **config.annotations,
        **_pod(metadata),
        f"{_PREFIX}.container-type": "container",
        f"{_PREFIX}.container-name": config.metadata.name,
        f"{_PREFIX}.image-name": config.image.user_specified_image or config.image.image,
        f"{_PREFIX}.sandbox-id": sandbox_id,
    }


def _pod(metadata: cri.PodSandboxMetadata) -> dict[str, str]:
    return {
        f"{_PREFIX}.sandbox-name": metadata.name,
        f"{_PREFIX}.sandbox-namespace": metadata.namespace,
        f"{_PREFIX}.sandbox-uid": metadata.uid,
    }
