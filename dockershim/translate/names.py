"""Names and labels of dockershim's containers, equal to cri-dockerd's so that a node can change hands.

Owns the container names, the label keys, the `annotation.` encoding and reading them back. Pure. Upstream counterpart:
cri-dockerd's core/naming.go and labels in core/helpers.go. Deliberate difference: metadata comes from the kubelet's
labels where they are there, and from the name only for the rest, so a name that does not parse loses nothing.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from cri_proto import runtime_v1 as cri
from dockershim.translate.resources import is_limit_file

PREFIX = "k8s"
SANDBOX_NAME = "POD"
ANNOTATION_PREFIX = "annotation."
TYPE_LABEL = "io.kubernetes.docker.type"
TYPE_SANDBOX = "podsandbox"
TYPE_CONTAINER = "container"
LOG_PATH_LABEL = "io.kubernetes.container.logpath"
SANDBOX_ID_LABEL = "io.kubernetes.sandbox.id"
CONTAINER_NAME_LABEL = "io.kubernetes.container.name"
POD_NAME_LABEL = "io.kubernetes.pod.name"
POD_NAMESPACE_LABEL = "io.kubernetes.pod.namespace"
POD_UID_LABEL = "io.kubernetes.pod.uid"
# What CRI said and Docker has no place for; ours alone, other runtimes ignore them. Every container gets all of them,
# empty where there is nothing to say: what is left out is what the image says.
IMAGE_LABEL = "io.kubernetes.dockershim.image"
AFTER_START_LABEL = "io.kubernetes.dockershim.after-start"
IMAGE_VOLUMES_LABEL = "io.kubernetes.dockershim.image-volumes"
CREATED_AT_LABEL = "io.kubernetes.dockershim.created-at"  # so that nobody need ask when Docker made it
KEYS_LABEL = "io.kubernetes.dockershim.keys"  # which labels are CRI's: Docker adds those of the image
_ANNOTATIONS_LISTED = 2  # stands among the keys where they are those of annotations, too
_OWN_LABELS = frozenset(
    {
        TYPE_LABEL,
        LOG_PATH_LABEL,
        SANDBOX_ID_LABEL,
        IMAGE_LABEL,
        AFTER_START_LABEL,
        IMAGE_VOLUMES_LABEL,
        CREATED_AT_LABEL,
        KEYS_LABEL,
    }
)


@dataclass(frozen=True, slots=True)
class ParsedName:
    """What a name of ours says."""

    container: str
    pod: str
    namespace: str
    uid: str
    attempt: int


def sandbox_name(metadata: cri.PodSandboxMetadata) -> str:
    """The Docker name of a sandbox."""
    parts = (PREFIX, SANDBOX_NAME, metadata.name, metadata.namespace, metadata.uid, str(metadata.attempt))
    return "_".join(parts)


def container_name(sandbox: cri.PodSandboxMetadata, container: cri.ContainerMetadata) -> str:
    """The Docker name of a container."""
    parts = (PREFIX, container.name, sandbox.name, sandbox.namespace, sandbox.uid, str(container.attempt))
    return "_".join(parts)


def cgroup_writes_of(label: str) -> dict[str, str]:
    """The cgroup files of AFTER_START_LABEL; none where there is none or somebody else wrote it."""
    found = read_json(label)
    if not isinstance(found, dict):
        return {}
    return {name: value for name, value in found.items() if is_limit_file(name) and isinstance(value, str)}


def read_json(label: str) -> Any:
    """What a label holds. None where it is no JSON, or not what a message can carry: an image may say anything."""
    try:
        found = json.loads(label)
        json.dumps(found, ensure_ascii=False).encode()  # JSON can spell halves of characters, which are no text
    except (ValueError, RecursionError):
        return None
    return found


def created_at_of(labels: Mapping[str, str]) -> int:
    """The nanoseconds of CREATED_AT_LABEL; 0 where there is none or somebody else wrote it."""
    text = labels.get(CREATED_AT_LABEL, "")
    found = int(text) if text.isascii() and text.isdigit() and len(text) < 20 else 0
    return found if found < 1 << 63 else 0


def parse_name(name: str) -> ParsedName | None:
    """Read a name back; None when it is none of ours. A seventh part (random, from old retries) is accepted."""
    parts = name.removeprefix("/").split("_")
    if len(parts) not in (6, 7) or parts[0] != PREFIX or not parts[5].isdigit():
        return None
    return ParsedName(parts[1], parts[2], parts[3], parts[4], int(parts[5]))


def to_docker_labels(labels: Mapping[str, str], annotations: Mapping[str, str]) -> dict[str, str]:
    """CRI labels and annotations as Docker labels."""
    encoded = dict(labels)
    encoded.update((ANNOTATION_PREFIX + key, value) for key, value in annotations.items())
    encoded[KEYS_LABEL] = json.dumps([_ANNOTATIONS_LISTED, *sorted(encoded)], separators=(",", ":"))
    return encoded


def from_docker_labels(labels: Mapping[str, str]) -> tuple[dict[str, str], dict[str, str]]:
    """CRI labels and annotations from Docker labels; without dockershim's own and, where we can tell, the image's."""
    keys = _known_keys(labels)
    plain: dict[str, str] = {}
    annotations: dict[str, str] = {}
    for key, value in labels.items():
        if key.startswith(ANNOTATION_PREFIX):
            if keys is None or _ANNOTATIONS_LISTED not in keys or key in keys:
                annotations[key.removeprefix(ANNOTATION_PREFIX)] = value
        elif key in keys if keys is not None else key not in _OWN_LABELS:
            plain[key] = value
    return plain, annotations


def _known_keys(labels: Mapping[str, str]) -> list[Any] | None:
    found = read_json(labels.get(KEYS_LABEL, ""))
    return found if isinstance(found, list) else None  # not made by us


def strip_sandbox_marker(labels: dict[str, str]) -> dict[str, str]:
    """The sandbox's labels without the container name `POD` that Docker's copy carries for compatibility."""
    if labels.get(CONTAINER_NAME_LABEL) == SANDBOX_NAME:
        del labels[CONTAINER_NAME_LABEL]
    return labels
