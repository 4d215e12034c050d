"""Images as volumes: what a request wants, what Docker is told, what is kept of it, and where an image's layers are.

Pure. Docker 28 mounts images by itself; older engines get a bind mount of a tree that `dockershim.image_volumes` makes.
Upstream counterpart: containerd's container_image_mount_linux.go; cri-dockerd has none. Deliberate difference: a file
may be mounted too, not only a directory.
"""

from __future__ import annotations

import json
import posixpath
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any

from cri_proto import runtime_v1 as cri
from dockershim.errors import FailedPrecondition, InvalidArgument
from dockershim.translate import names
from dockershim.translate.image_views import layer_paths, unpacked_layers

NATIVE_API = (1, 48)
FAILED = "ImageVolumeMountFailed"  # the kubelet knows this word
_IMAGE_ID = re.compile(r"sha256:[0-9a-f]{64}")
_DRIVERS_WITH_DIRECTORIES = ("overlay2", "fuse-overlayfs")


@dataclass(frozen=True, slots=True)
class ImageVolume:
    """One mount of an image in a container."""

    container_path: str
    image: str
    user_specified_image: str
    image_id: str
    sub_path: str

    def to_cri(self) -> cri.Mount:
        """As the status of a container shows it."""
        spec = cri.ImageSpec(image=self.image, user_specified_image=self.user_specified_image, image_ref=self.image_id)
        return cri.Mount(container_path=self.container_path, readonly=True, image=spec, image_sub_path=self.sub_path)

    def to_docker(self, source: str | None) -> dict[str, Any]:
        """Docker's Mount: of the image itself, or of the tree at `source` on the host."""
        body: dict[str, Any] = {"Target": self.container_path, "ReadOnly": True}
        if source is not None:
            return {"Type": "bind", "Source": source, **body}
        body |= {"Type": "image", "Source": self.image_id}
        if self.sub_path:
            body["ImageOptions"] = {"Subpath": self.sub_path}
        return body


def is_image_volume(mount: cri.Mount) -> bool:
    """Whether a mount wants an image and not a path of the host."""
    return bool(mount.HasField("image") and mount.image.image)


def wanted_volumes(mounts: Iterable[cri.Mount], id_of_image: Callable[[str], str]) -> tuple[ImageVolume, ...]:
    """The volumes among the mounts of a request. `id_of_image` answers with nothing for an image that is not there."""
    return tuple(
        _wanted_volume(mount, f"config.mounts[{index}]", id_of_image)
        for index, mount in enumerate(mounts)
        if is_image_volume(mount)
    )


def _wanted_volume(mount: cri.Mount, field: str, id_of_image: Callable[[str], str]) -> ImageVolume:

    def refuse(part: str, problem: str) -> InvalidArgument:
        return InvalidArgument("", f"{FAILED}: {field}.{part}: {problem}")

    if mount.host_path:
        raise refuse("host_path", "stands beside image; only one of the two may be given")
    if not posixpath.isabs(mount.container_path):
        raise refuse("container_path", f"{mount.container_path!r}: want an absolute path")
    if not mount.readonly:
        raise refuse("readonly", "an image can only be mounted read-only")
    if mount.propagation != cri.MountPropagation.PROPAGATION_PRIVATE:
        raise refuse("propagation", "an image is mounted with private propagation")
    if mount.mount_options:
        raise refuse("mount_options", "are not available on Docker")
    sub_path = mount.image_sub_path
    if posixpath.isabs(sub_path) or ".." in sub_path.split("/") or "\0" in sub_path:
        raise refuse("image_sub_path", f"{sub_path!r}: want a relative path without '..'")
    image_id = id_of_image(mount.image.image)
    if not image_id:
        raise FailedPrecondition(f"{FAILED}: {field}.image: {mount.image.image!r} is not on this node; pull it first")
    return ImageVolume(
        posixpath.normpath(mount.container_path),
        mount.image.image,
        mount.image.user_specified_image,
        image_id,
        sub_path,
    )


def no_such_path(volume: ImageVolume) -> InvalidArgument:
    """The error for a sub path that the image has not."""
    return InvalidArgument("", f"{FAILED}: {volume.sub_path!r} does not exist in image {volume.image}")


def encode(volumes: tuple[ImageVolume, ...]) -> str:
    """For a label of the container; empty where there are none."""
    if not volumes:
        return ""
    return json.dumps([asdict(volume) for volume in volumes], separators=(",", ":"))


def decode(label: str) -> tuple[ImageVolume, ...]:
    """From that label; none where there is none or somebody else wrote it.

    An id becomes part of a path on the host, so what is none is not believed, whoever wrote it.
    """
    found = names.read_json(label)
    if not isinstance(found, list) or not all(map(_is_ours, found)):
        return ()
    return tuple(ImageVolume(**entry) for entry in found)


def _is_ours(entry: Any) -> bool:
    parts = {part.name for part in fields(ImageVolume)}
    if not isinstance(entry, dict) or entry.keys() != parts:
        return False
    return all(isinstance(value, str) for value in entry.values()) and bool(_IMAGE_ID.fullmatch(entry["image_id"]))


def layer_directories(inspect: Mapping[str, Any]) -> tuple[str, ...]:
    """Where the layers of an image are on the host, the topmost first."""
    driver = inspect.get("GraphDriver") or {}
    if driver.get("Name") not in _DRIVERS_WITH_DIRECTORIES or not layer_paths(inspect).get("UpperDir"):
        wanted = f"{' or '.join(_DRIVERS_WITH_DIRECTORIES)}, or Docker 28 (API 1.48)"
        raise FailedPrecondition(
            f"{FAILED}: Docker stores images with {driver.get('Name') or 'containerd'}: want {wanted}"
        )
    return unpacked_layers(inspect)
