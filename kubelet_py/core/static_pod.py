"""Pods that no API server knows: their identity, and their image there, the mirror pod.

A static pod's UID is a hash of what its source says, so that it is the same after every restart of the agent and
another as soon as the text means something else.

Upstream counterparts: pkg/kubelet/config/common.go, pkg/kubelet/pod/mirror_client.go, pkg/api/pod/util.go
(HasAPIObjectReference). Difference: the UID's value is not the Go kubelet's, which hashes a dump of Go's own memory
layout; when one agent replaces the other on a node, static pods start anew.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

import msgspec

from kubelet_py.api import codec, core_v1, meta_v1
from kubelet_py.api import pod as podlib
from kubelet_py.api.pod import (
    CONFIG_HASH_ANNOTATION,
    CONFIG_MIRROR_ANNOTATION,
    CONFIG_SEEN_ANNOTATION,
    CONFIG_SOURCE_ANNOTATION,
    SOURCE_FILE,
)
from kubelet_py.core.container_hash import fnv_128a
from kubelet_py.core.manifest import line_of, read_manifest, steps_of
from kubelet_py.core.pod_defaults import with_pod_defaults
from kubelet_py.core.pod_validation import validate_pod
from kubelet_py.core.problems import ManifestError, Problem

NODE_CRITICAL_PRIORITY: Final = 2_000_001_000
LOCAL_ANNOTATIONS: Final = (CONFIG_SOURCE_ANNOTATION, CONFIG_MIRROR_ANNOTATION, CONFIG_SEEN_ANNOTATION)

_API_VOLUMES: Final = {
    "configMap": "configmaps (via configmap volumes)",
    "secret": "secrets (via secret volumes)",
    "csi": "csidrivers (via CSI volumes)",
    "glusterfs": "endpoints (via glusterFS volumes)",
    "persistentVolumeClaim": "persistentvolumeclaims",
    "ephemeral": "persistentvolumeclaims (via ephemeral volumes)",
    "azureFile": "secrets (via azureFile volumes)",
}
_API_PROJECTIONS: Final = {
    "configMap": "configmaps (via projected volumes)",
    "secret": "secrets (via projected volumes)",
    "serviceAccountToken": "serviceaccounts (via projected volumes)",
    "clusterTrustBundle": "clustertrustbundles",
    "podCertificate": "podcertificates",
}
# Volume kinds of old storage systems, and where each refers to a Secret.
_SECRET_REFS_OF_VOLUMES: Final = ("cephfs", "cinder", "flexVolume", "iscsi", "rbd", "scaleIO", "storageos")


@dataclass(frozen=True, slots=True)
class StaticOrigin:
    """Where static pods come from. `location` is the file's path or the URL."""

    node_name: str
    source: str
    location: str


@dataclass(frozen=True, slots=True)
class StaticPods:
    """Usable pods of one manifest, and what its author should hear of."""

    pods: tuple[core_v1.Pod, ...]
    warnings: tuple[Problem, ...] = ()


def static_pods_of(data: bytes, origin: StaticOrigin) -> StaticPods:
    """The pods of a manifest, complete and valid. Raises ManifestError with everything that is wrong."""
    manifest = read_manifest(data, allow_list=origin.source != SOURCE_FILE)
    pods, problems = [], []
    warnings = list(manifest.warnings)
    is_list = len(manifest.pods) != 1
    for index, stated in enumerate(manifest.pods):
        pod = to_static_pod(stated, origin)
        at = f"items[{index}]." if is_list else ""
        found = validate_pod(pod) or api_references(pod)
        for problem in found:
            path = f"{at}{problem.path}" if problem.path else ""
            problems.append(Problem(path, problem.message, line_of(data, steps_of(path)) if path else 0))
        if warning := priority_warning(pod):
            warnings.append(Problem("spec.priority", warning))
        pods.append(pod)
    if problems:
        raise ManifestError([*problems, *manifest.warnings])
    return StaticPods(tuple(pods), tuple(warnings))


def to_static_pod(stated: core_v1.Pod, origin: StaticOrigin) -> core_v1.Pod:
    """The pod as it runs here: defaults, UID, the node's name behind its own, namespace, hash, toleration, phase."""
    pod = with_pod_defaults(stated)
    metadata = pod.metadata if pod.metadata is not None else meta_v1.ObjectMeta()
    pod.metadata = metadata
    metadata.uid = metadata.uid or compute_static_uid(stated, origin)
    if metadata.name:
        metadata.name = f"{metadata.name}-{origin.node_name.lower()}"
    metadata.namespace = metadata.namespace or "default"
    metadata.annotations = {**(metadata.annotations or {}), CONFIG_HASH_ANNOTATION: metadata.uid}
    if pod.spec is not None:
        pod.spec.nodeName = origin.node_name
        if origin.source == SOURCE_FILE:
            pod.spec.tolerations = _with_no_execute(pod.spec.tolerations or [])
    pod.status = core_v1.PodStatus(phase="Pending")
    return pod


def compute_static_uid(stated: core_v1.Pod, origin: StaticOrigin) -> str:
    """32 hexadecimal digits from what the source says, the node and the place."""
    content = msgspec.json.encode(stated, order="sorted")
    if origin.source == SOURCE_FILE:
        place = f"host:{origin.node_name}file:{origin.location}"
    else:
        place = f"url:{origin.location}"
    return f"{fnv_128a(content + place.encode('utf-8', 'surrogateescape')):032x}"


def api_references(pod: core_v1.Pod) -> tuple[Problem, ...]:
    """What of the API server's a pod refers to, which a static pod may not."""
    return tuple(Problem(path, f"static pods may not reference {kind}") for path, kind in _api_references(pod))


def priority_warning(pod: core_v1.Pod) -> str:
    """Whether the API server may refuse the mirror pod for its priority; "" when not."""
    spec = podlib.spec_of(pod) if pod.spec is not None else core_v1.PodSpec(containers=[])
    if spec.priority is None:
        if not spec.priorityClassName:
            return ""
        return "priorityClassName without priority: it is not used, and creating the mirror pod may fail"
    if not spec.priorityClassName:
        return "priority without priorityClassName: creating the mirror pod may fail if the default class differs"
    if spec.priority != NODE_CRITICAL_PRIORITY or spec.priorityClassName != "system-node-critical":
        return (
            f"a priority other than {NODE_CRITICAL_PRIORITY} with the class system-node-critical: the mirror pod may "
            "be evicted, which does nothing to the static pod"
        )
    return ""


def mirror_pod_of(static: core_v1.Pod, node_uid: str = "") -> core_v1.Pod:
    """What to create in the API server for a static pod. Without the node's UID it has no owner."""
    mirror = codec.copy(static)
    metadata = podlib.metadata_of(mirror)
    mirror_hash = podlib.annotations_of(static).get(CONFIG_HASH_ANNOTATION, "")
    metadata.annotations = {**podlib.annotations_of(static), CONFIG_MIRROR_ANNOTATION: mirror_hash}
    metadata.uid = None
    if node_uid:
        node_name = podlib.spec_of(static).nodeName or ""
        metadata.ownerReferences = [
            meta_v1.OwnerReference(apiVersion="v1", kind="Node", name=node_name, uid=node_uid, controller=True)
        ]
    return mirror


def is_mirror_of(mirror: core_v1.Pod, static: core_v1.Pod) -> bool:
    """The mirror pod shows this static pod as it is now, and is not on its way out."""
    if podlib.full_name(mirror) != podlib.full_name(static):
        return False
    if podlib.metadata_of(mirror).deletionTimestamp is not None:
        return False
    shown = podlib.annotations_of(mirror).get(CONFIG_MIRROR_ANNOTATION)
    return shown == podlib.annotations_of(static).get(CONFIG_HASH_ANNOTATION)


def _with_no_execute(tolerations: list[core_v1.Toleration]) -> list[core_v1.Toleration]:
    """Static pods stay when the node is in trouble: nobody would start them elsewhere."""
    wanted = core_v1.Toleration(operator="Exists", effect="NoExecute")
    same_place = [t for t in tolerations if not (not t.key and t.effect == "NoExecute" and t.operator == "Exists")]
    return [*same_place, wanted]


def _api_references(pod: core_v1.Pod) -> Iterator[tuple[str, str]]:
    spec = podlib.spec_of(pod)
    if spec.serviceAccountName:
        yield "spec.serviceAccountName", "serviceaccounts"
    if spec.imagePullSecrets:
        yield "spec.imagePullSecrets", "secrets"
    for kind in ("initContainers", "containers"):
        for index, container in enumerate(getattr(spec, kind) or ()):
            yield from _references_of_container(container, f"spec.{kind}[{index}]")
    if spec.resourceClaims:
        yield "spec.resourceClaims", "resourceclaims"
    for index, volume in enumerate(spec.volumes or ()):
        yield from _references_of_volume(volume, f"spec.volumes[{index}]")


def _references_of_container(container: core_v1.Container, path: str) -> Iterator[tuple[str, str]]:
    for index, source in enumerate(container.envFrom or ()):
        if source.secretRef is not None:
            yield f"{path}.envFrom[{index}].secretRef", "secrets"
        if source.configMapRef is not None:
            yield f"{path}.envFrom[{index}].configMapRef", "configmaps"
    for index, entry in enumerate(container.env or ()):
        if entry.valueFrom is None:
            continue
        if entry.valueFrom.secretKeyRef is not None:
            yield f"{path}.env[{index}].valueFrom.secretKeyRef", "secrets"
        if entry.valueFrom.configMapKeyRef is not None:
            yield f"{path}.env[{index}].valueFrom.configMapKeyRef", "configmaps"


def _references_of_volume(volume: core_v1.Volume, path: str) -> Iterator[tuple[str, str]]:
    for name, kind in _API_VOLUMES.items():
        if getattr(volume, name) is not None:
            yield f"{path}.{name}", kind
    for name in _SECRET_REFS_OF_VOLUMES:
        if getattr(getattr(volume, name), "secretRef", None) is not None:
            yield f"{path}.{name}.secretRef", "secrets"
    if volume.projected is None:
        return
    for index, projection in enumerate(volume.projected.sources or ()):
        for name, kind in _API_PROJECTIONS.items():
            if getattr(projection, name) is not None:
                yield f"{path}.projected.sources[{index}].{name}", kind
