"""The files of checkpoints: what stands in them, and how it is read back.

Owns names and contents. A container's checkpoint is a tar archive as containerd writes it and checkpointctl reads it:
CRIU's images in `checkpoint/`, `config.dump` (which container of which image), `spec.dump` (its OCI configuration),
`status.dump` (its CRI status) and `rootfs-diff.tar` (its writable layer, as a layer of an OCI image). A pod's is a
directory: `pod.options` (which containers), `pod.dump` (its CRI configuration) and an archive of each container. Pure.
Upstream counterpart: containerd's internal/cri/server/container_checkpoint_linux.go, checkpointctl's lib/metadata.go.
Deliberate difference: `stats-dump`, CRIU's own timing, is missing, since Docker's runtime deletes it with its work.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from google.protobuf import json_format
from google.protobuf.descriptor import FieldDescriptor

from cri_proto import runtime_v1 as cri
from dockershim.translate.handler_annotations import container_annotations
from dockershim.translate.views import ContainerView, SandboxView

IMAGES = "checkpoint"
CONFIG_DUMP, SPEC_DUMP, STATUS_DUMP = "config.dump", "spec.dump", "status.dump"
ROOTFS_DIFF = "rootfs-diff.tar"
POD_DUMP, POD_OPTIONS = "pod.dump", "pod.options"
VERSION = 1
WHITEOUT, OPAQUE = ".wh.", ".wh..wh..opq"
"""How a layer of an OCI image says that a file, or all that was in a directory, is gone."""
_NEVER = "0001-01-01T00:00:00Z"


class Unreadable(ValueError):
    """A file of a checkpoint does not hold what it must."""


@dataclass(frozen=True, slots=True)
class CheckpointedPod:
    """What a pod's checkpoint says of the pod."""

    containers: tuple[str, ...]
    config: cri.PodSandboxConfig


def config_dump(view: ContainerView, runtime: str, checkpointed_at_ns: int) -> bytes:
    """Which container this was."""
    image = view.status.image.user_specified_image or view.status.image.image
    return _json(
        {
            "id": view.id,
            "name": view.item.metadata.name,
            "rootfsImage": image,
            "rootfsImageRef": view.status.image_id or view.status.image_ref,
            "rootfsImageName": image,
            "runtime": runtime,
            "createdTime": _time(view.status.created_at),
            "checkpointedTime": _time(checkpointed_at_ns),
            "restoredTime": _NEVER,
            "restored": False,
        }
    )


def spec_dump(spec: Mapping[str, Any], view: ContainerView, sandbox: SandboxView) -> bytes:
    """Its OCI configuration, with the annotations by which tools find the pod."""
    config = cri.ContainerConfig(metadata=view.item.metadata, image=view.status.image)
    added = container_annotations(config, sandbox.id, sandbox.status.metadata, {})
    return _json({**spec, "annotations": {**(spec.get("annotations") or {}), **added}})


def status_dump(status: cri.ContainerStatus) -> bytes:
    """Its status, with numbers for enums and times as Go's encoder writes them."""
    return _json(_plain(status))


def pod_options(containers: Sequence[str]) -> bytes:
    """Which containers a pod's checkpoint has."""
    return _json({"version": VERSION, "containers": list(containers), "mountLabel": "", "processLabel": ""})


def pod_dump(config: cri.PodSandboxConfig) -> bytes:
    """The pod."""
    return _json(json_format.MessageToDict(config, preserving_proto_field_name=True))


def parse_pod(options: bytes, dump: bytes) -> CheckpointedPod:
    """Read both back."""
    body = _object(options, POD_OPTIONS)
    containers = body.get("containers")
    if body.get("version") != VERSION or not isinstance(containers, list) or not containers:
        raise Unreadable(f"{POD_OPTIONS}: want version {VERSION} and a list of containers")
    for name in containers:
        if not isinstance(name, str) or not name or "/" in name or name.startswith("."):
            raise Unreadable(f"{POD_OPTIONS}: {name!r} is no name of a container")
    try:
        config = json_format.ParseDict(_object(dump, POD_DUMP), cri.PodSandboxConfig())
    except json_format.ParseError as error:
        raise Unreadable(f"{POD_DUMP}: {error}") from error
    return CheckpointedPod(tuple(containers), config)


def container_archive(name: str) -> str:
    """The archive of a container in a pod's checkpoint."""
    return f"{name}.tar"


def parse_config_dump(dump: bytes) -> tuple[str, str]:
    """The id of the container, and that of its image."""
    body = _object(dump, CONFIG_DUMP)
    found = [body.get(name) for name in ("id", "rootfsImageRef")]
    if not all(isinstance(each, str) and each for each in found):
        raise Unreadable(f"{CONFIG_DUMP}: want id and rootfsImageRef")
    return str(found[0]), str(found[1])


def _json(value: Any) -> bytes:
    return json.dumps(value, indent=1).encode()


def _object(data: bytes, what: str) -> dict[str, Any]:
    try:
        body = json.loads(data)
    except ValueError as error:
        raise Unreadable(f"{what} is no JSON: {error}") from error
    if not isinstance(body, dict):
        raise Unreadable(f"{what} is no JSON object")
    return body


def _time(at_ns: int) -> str:
    if at_ns <= 0:
        return _NEVER
    moment = datetime.fromtimestamp(at_ns // 10**9, UTC)
    return f"{moment:%Y-%m-%dT%H:%M:%S}.{at_ns % 10**9:09d}Z"


def _plain(message: Any) -> dict[str, Any]:
    """A message as plain values: protobuf's own JSON has strings for 64-bit numbers and names for enums."""
    body: dict[str, Any] = {}
    for field, value in message.ListFields():
        if field.message_type is not None and field.message_type.GetOptions().map_entry:
            body[field.name] = dict(value)
        elif field.is_repeated:
            body[field.name] = [_value(field, each) for each in value]
        else:
            body[field.name] = _value(field, value)
    return body


def _value(field: FieldDescriptor, value: Any) -> Any:
    return _plain(value) if field.message_type is not None else value
