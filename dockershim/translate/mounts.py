"""Mounts and devices in Docker's words and back.

Pure: whether the host path exists is the caller's business. Upstream counterpart: cri-dockerd's
core/container_create.go (mounts) and core/convert.go. Deliberate difference: mounts that Docker cannot make are refused
by name, with the prefixes that the kubelet knows.
"""

from __future__ import annotations

import posixpath
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from cri_proto import runtime_v1 as cri
from dockershim.errors import InvalidArgument
from dockershim.oci import instructions as words
from dockershim.translate.image_volumes import ImageVolume, is_image_volume
from dockershim.translate.wrapping import instruction_of

_TO_DOCKER = {
    cri.MountPropagation.PROPAGATION_PRIVATE: "",
    cri.MountPropagation.PROPAGATION_HOST_TO_CONTAINER: "rslave",
    cri.MountPropagation.PROPAGATION_BIDIRECTIONAL: "rshared",
}
_FROM_DOCKER = {
    "rslave": cri.MountPropagation.PROPAGATION_HOST_TO_CONTAINER,
    "slave": cri.MountPropagation.PROPAGATION_HOST_TO_CONTAINER,
    "rshared": cri.MountPropagation.PROPAGATION_BIDIRECTIONAL,
    "shared": cri.MountPropagation.PROPAGATION_BIDIRECTIONAL,
}
READ_ONLY_RECURSIVE_API = (1, 44)
_PERMISSIONS = frozenset("rwm")


@dataclass(frozen=True, slots=True)
class MountSupport:
    """Whether the engine knows recursive read-only, dockershim-oci is there for what it does not know, and the host
    relabels files for SELinux."""

    read_only_recursive: bool
    wrapped: bool = False
    relabels: bool = False


def to_docker_mounts(mounts: Iterable[cri.Mount], support: MountSupport) -> list[dict[str, Any]]:
    """Docker's Mounts for paths of the host, all of type bind. With `relabels`, those to relabel are left to Binds."""
    result = []
    for index, mount in enumerate(mounts):
        if is_image_volume(mount):
            continue  # see `image_volumes`
        field = f"config.mounts[{index}]"
        _refuse_unavailable(mount, field, support)
        if support.relabels and mount.selinux_relabel:
            continue
        options: dict[str, Any] = {}
        if mount.propagation not in _TO_DOCKER:
            raise InvalidArgument(f"{field}.propagation", f"{mount.propagation} is no mount propagation")
        propagation = _TO_DOCKER[mount.propagation]
        if propagation:
            options["Propagation"] = propagation
        if mount.readonly and support.read_only_recursive:
            options["ReadOnlyForceRecursive" if mount.recursive_read_only else "ReadOnlyNonRecursive"] = True
        body: dict[str, Any] = {
            "Type": "bind",
            "Source": mount.host_path,
            "Target": mount.container_path,
            "ReadOnly": mount.readonly,
        }
        if options:
            body["BindOptions"] = options
        result.append(body)
    return result


def to_docker_relabeled(mounts: Iterable[cri.Mount]) -> list[str]:
    """Docker's Binds for the mounts whose host path shall get the pod's SELinux label: Mounts cannot say that."""
    result = []
    for index, mount in enumerate(mounts):
        if not mount.selinux_relabel or is_image_volume(mount):
            continue
        if ":" in mount.host_path + mount.container_path or mount.recursive_read_only:
            problem = "cannot be had with ':' in a path or recursive_read_only: Docker relabels through Binds only"
            raise InvalidArgument(f"config.mounts[{index}].selinux_relabel", problem)
        # Z is the label of this container, which is its sandbox's: the pod's containers share what they mount
        options = ["ro" if mount.readonly else "rw", "Z", _TO_DOCKER.get(mount.propagation, "")]
        result.append(":".join((mount.host_path, mount.container_path, ",".join(filter(None, options)))))
    return result


def _refuse_unavailable(mount: cri.Mount, field: str, support: MountSupport) -> None:
    if mount.image_sub_path:
        raise InvalidArgument(f"{field}.image_sub_path", "needs an image volume")
    if mount.mount_options:
        raise InvalidArgument(f"{field}.mount_options", "are not available on Docker")
    if not posixpath.isabs(mount.container_path):
        raise InvalidArgument(f"{field}.container_path", f"{mount.container_path!r}: want an absolute path")
    if not posixpath.isabs(mount.host_path):
        raise InvalidArgument(f"{field}.host_path", f"{mount.host_path!r}: want an absolute path")
    if mount.recursive_read_only:
        if not mount.readonly:
            raise InvalidArgument("", f"RROUnsupported: {field}.recursive_read_only needs readonly beside it")
        if mount.propagation != cri.MountPropagation.PROPAGATION_PRIVATE:
            raise InvalidArgument("", f"RROUnsupported: {field}.recursive_read_only needs private propagation")
        if not support.read_only_recursive and not support.wrapped:
            needs = f"Docker 25 (API 1.44) or newer, or {words.PROGRAM} registered with Docker"
            raise InvalidArgument("", f"RROUnsupported: {field}.recursive_read_only needs {needs}")


def to_cri_mounts(
    mounts: Iterable[Mapping[str, Any]], host_config: Mapping[str, Any], volumes: Iterable[ImageVolume] = ()
) -> list[cri.Mount]:
    """CRI mounts from Docker's Mounts and from what is known of image volumes.

    Anonymous volumes of the image are Docker's own and left out.
    """
    images = {volume.container_path: volume for volume in volumes}
    instruction = instruction_of(host_config)
    userns = instruction.get(words.USER_NAMESPACE) or {words.UIDS: (), words.GIDS: (), words.UNMAPPED_MOUNTS: ()}
    recursive = set(instruction.get(words.RECURSIVE_READ_ONLY, ())) | {
        wanted.get("Target")
        for wanted in host_config.get("Mounts") or ()
        if (wanted.get("BindOptions") or {}).get("ReadOnlyForceRecursive")
    }
    found = [
        cri.Mount(
            container_path=mount.get("Destination", ""),
            host_path=mount.get("Source", ""),
            readonly=not mount.get("RW", True),
            propagation=_FROM_DOCKER.get(mount.get("Propagation", ""), cri.MountPropagation.PROPAGATION_PRIVATE),
            recursive_read_only=mount.get("Destination") in recursive,
        )
        for mount in mounts
        if mount.get("Type") == "bind" and mount.get("Destination") not in images
    ]
    found += [volume.to_cri() for volume in images.values()]
    for mapped in (mount for mount in found if mount.container_path not in userns[words.UNMAPPED_MOUNTS]):
        mapped.uidMappings.extend(_ids(userns[words.UIDS]))
        mapped.gidMappings.extend(_ids(userns[words.GIDS]))
    return found


def _ids(mapping: Iterable[Iterable[int]]) -> list[cri.IDMapping]:
    return [cri.IDMapping(container_id=inside, host_id=host, length=size) for inside, host, size in mapping]


def to_docker_devices(devices: Iterable[cri.Device]) -> list[dict[str, str]]:
    """Docker's Devices."""
    result = []
    for index, device in enumerate(devices):
        if not device.permissions or set(device.permissions) - _PERMISSIONS:
            raise InvalidArgument(f"config.devices[{index}].permissions", f"{device.permissions!r}: want some of rwm")
        result.append(
            {
                "PathOnHost": device.host_path,
                "PathInContainer": device.container_path or device.host_path,
                "CgroupPermissions": device.permissions,
            }
        )
    return result
