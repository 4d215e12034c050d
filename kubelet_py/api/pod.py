"""Pod identity and the annotations that say where a pod came from.

Upstream counterparts: pkg/kubelet/types/pod_update.go and constants.go.
"""

from collections.abc import Iterator
from typing import NewType

from kubelet_py.api import core_v1, meta_v1

PodUid = NewType("PodUid", str)

CONFIG_SOURCE_ANNOTATION = "kubernetes.io/config.source"
CONFIG_SEEN_ANNOTATION = "kubernetes.io/config.seen"
CONFIG_HASH_ANNOTATION = "kubernetes.io/config.hash"
CONFIG_MIRROR_ANNOTATION = "kubernetes.io/config.mirror"

SOURCE_FILE = "file"
SOURCE_URL = "http"
SOURCE_API = "api"

POD_NAME_LABEL = "io.kubernetes.pod.name"
POD_NAMESPACE_LABEL = "io.kubernetes.pod.namespace"
POD_UID_LABEL = "io.kubernetes.pod.uid"
CONTAINER_NAME_LABEL = "io.kubernetes.container.name"

SYSTEM_CRITICAL_PRIORITY = 2_000_000_000


def metadata_of(pod: core_v1.Pod) -> meta_v1.ObjectMeta:
    """The metadata, which every pod that reached a source's output has."""
    if pod.metadata is None:
        raise ValueError("pod without metadata")
    return pod.metadata


def spec_of(pod: core_v1.Pod) -> core_v1.PodSpec:
    """The spec, which every pod that reached a source's output has."""
    if pod.spec is None:
        raise ValueError("pod without spec")
    return pod.spec


def uid_of(pod: core_v1.Pod) -> PodUid:
    """The UID, the key of everything."""
    return PodUid(metadata_of(pod).uid or "")


def full_name(pod: core_v1.Pod) -> str:
    """`<name>_<namespace>`: what static pods and their mirror pods share."""
    metadata = metadata_of(pod)
    return f"{metadata.name}_{metadata.namespace}"


def display_name(pod: core_v1.Pod) -> str:
    """`<namespace>/<name>`, for people."""
    metadata = metadata_of(pod)
    return f"{metadata.namespace}/{metadata.name}"


def annotations_of(pod: core_v1.Pod) -> dict[str, str]:
    """The annotations, empty when unset."""
    return metadata_of(pod).annotations or {}


def source_of(pod: core_v1.Pod) -> str:
    """Which source gave the pod; the API server unless the annotation says otherwise."""
    return annotations_of(pod).get(CONFIG_SOURCE_ANNOTATION, SOURCE_API)


def is_static(pod: core_v1.Pod) -> bool:
    """From a file or a URL."""
    return source_of(pod) != SOURCE_API


def is_mirror(pod: core_v1.Pod) -> bool:
    """The API server's copy of a static pod."""
    return CONFIG_MIRROR_ANNOTATION in annotations_of(pod)


def is_critical(pod: core_v1.Pod) -> bool:
    """Static, mirror, or of a system-critical priority: never evicted, may preempt."""
    return is_static(pod) or is_mirror(pod) or (spec_of(pod).priority or 0) >= SYSTEM_CRITICAL_PRIORITY


def is_terminal(pod: core_v1.Pod) -> bool:
    """The phase in the object itself is Succeeded or Failed."""
    return pod.status is not None and pod.status.phase in ("Succeeded", "Failed")


def is_host_network(pod: core_v1.Pod) -> bool:
    """The pod uses the node's network namespace."""
    return bool(spec_of(pod).hostNetwork)


def containers_of(pod: core_v1.Pod) -> list[core_v1.Container]:
    """The main containers."""
    return spec_of(pod).containers


def init_containers_of(pod: core_v1.Pod) -> list[core_v1.Container]:
    """The init containers, sidecars included, in their order."""
    return spec_of(pod).initContainers or []


def ephemeral_containers_of(pod: core_v1.Pod) -> list[core_v1.EphemeralContainer]:
    """The ephemeral containers."""
    return spec_of(pod).ephemeralContainers or []


def is_sidecar(container: core_v1.Container) -> bool:
    """An init container that keeps running (restartPolicy Always)."""
    return container.restartPolicy == "Always"


def all_containers_of(pod: core_v1.Pod) -> Iterator[core_v1.Container | core_v1.EphemeralContainer]:
    """Init, main and ephemeral containers, in that order."""
    yield from init_containers_of(pod)
    yield from containers_of(pod)
    yield from ephemeral_containers_of(pod)
