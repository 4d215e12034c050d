"""Images as volumes: what is refused, what Docker is told, and what the status shows."""

from __future__ import annotations

import json
from dataclasses import asdict, replace
from typing import Any

import pytest

from cri_proto import runtime_v1 as cri
from dockershim.errors import FailedPrecondition, InvalidArgument, ShimError
from dockershim.translate.image_volumes import ImageVolume, decode, encode, layer_directories, wanted_volumes
from dockershim.translate.mounts import to_cri_mounts

IMAGE_ID = "sha256:" + "7" * 64
VOLUME = ImageVolume("/data", IMAGE_ID, "registry.k8s.io/data:1", IMAGE_ID, "usr/lib")


def wanted(**fields: Any) -> tuple[ImageVolume, ...]:
    """What comes of one mount."""
    spec = cri.ImageSpec(image=IMAGE_ID, user_specified_image="registry.k8s.io/data:1")
    mount = cri.Mount(container_path="/data/", readonly=True, image=spec, image_sub_path="usr/lib")
    mount.MergeFrom(cri.Mount(**fields))
    return wanted_volumes([cri.Mount(container_path="/b", host_path="/b"), mount], lambda reference: reference)


def test_what_a_request_wants() -> None:
    """Mounts of the host are left to others."""
    assert wanted() == (VOLUME,)


@pytest.mark.parametrize(
    ("fields", "named"),
    [
        ({"host_path": "/x"}, "host_path"),
        ({"container_path": "data"}, "container_path"),
        ({"propagation": cri.MountPropagation.PROPAGATION_BIDIRECTIONAL}, "propagation"),
        ({"mount_options": ["noexec"]}, "mount_options"),
        ({"image_sub_path": "/etc"}, "image_sub_path"),
        ({"image_sub_path": "a/../../etc"}, "image_sub_path"),
        ({"image_sub_path": "a\0b"}, "image_sub_path"),
    ],
)
def test_what_cannot_be_had_is_refused_with_the_kubelets_word(fields: dict[str, Any], named: str) -> None:
    """The message begins with it and names the field."""
    with pytest.raises(InvalidArgument, match=rf"^ImageVolumeMountFailed: config\.mounts\[1\]\.{named}"):
        wanted(**fields)


def test_it_must_be_read_only_and_the_image_must_be_there() -> None:
    """Both in the kubelet's word."""
    mount = cri.Mount(container_path="/a", image=cri.ImageSpec(image="i"))
    with pytest.raises(InvalidArgument, match=r"^ImageVolumeMountFailed: .*readonly"):
        wanted_volumes([mount], lambda reference: reference)
    mount.readonly = True
    with pytest.raises(FailedPrecondition, match=r"^ImageVolumeMountFailed: .*'i' is not on this node"):
        wanted_volumes([mount], lambda reference: "")


def test_what_docker_is_told() -> None:
    """The image itself, or a tree on the host; read-only in both cases."""
    assert VOLUME.to_docker(None) == {
        "Type": "image",
        "Source": IMAGE_ID,
        "Target": "/data",
        "ReadOnly": True,
        "ImageOptions": {"Subpath": "usr/lib"},
    }
    assert VOLUME.to_docker("/tree/usr/lib") == {
        "Type": "bind",
        "Source": "/tree/usr/lib",
        "Target": "/data",
        "ReadOnly": True,
    }


@pytest.mark.parametrize("kind", ["bind", "image"])
def test_the_status_shows_the_image_and_never_our_path(kind: str) -> None:
    """Whatever Docker calls the mount."""
    mounts = [
        {"Type": kind, "Source": "/root/image-volumes/7", "Destination": "/data", "RW": False},
        {"Type": "bind", "Source": "/b", "Destination": "/b", "RW": True},
    ]
    host, image = to_cri_mounts(mounts, {}, decode(encode((VOLUME,))))
    assert (host.host_path, host.container_path) == ("/b", "/b")
    assert image == VOLUME.to_cri()
    assert (image.host_path, image.image.image_ref, image.image_sub_path) == ("", IMAGE_ID, "usr/lib")


def entries(**changed: Any) -> str:
    """A label with one volume that somebody has changed."""
    return json.dumps([asdict(VOLUME) | changed])


@pytest.mark.parametrize(
    "label",
    [
        "",
        "{",
        "[1]",
        '[{"other": 1}]',
        "[" * 100_000,
        "9" * 5000,
        entries(other=1),
        entries(container_path=["/data"]),
        entries(image="\ud800"),
        entries(image_id="/etc/shadow"),
        entries(image_id=f"../{IMAGE_ID}"),
        entries(image_id=f"{IMAGE_ID}\n"),
        entries(image_id=IMAGE_ID.removeprefix("sha256:")),
        entries(image_id=[]),
    ],
)
def test_a_label_of_somebody_else_means_nothing(label: str) -> None:
    """No error either: the container is shown without."""
    assert decode(label) == ()


def test_the_label_is_read_back_and_is_there_without_volumes() -> None:
    """Empty, so that an image's own cannot stand in its place."""
    volumes = (VOLUME, replace(VOLUME, container_path="/other", sub_path=""))
    assert decode(encode(volumes)) == volumes
    assert encode(()) == ""


def test_the_layers_are_topmost_first() -> None:
    """A single layer has none below it."""
    data = {"UpperDir": "/d/top/diff", "LowerDir": "/d/b/diff:/d/a/diff"}
    assert layer_directories({"GraphDriver": {"Name": "overlay2", "Data": data}}) == (
        "/d/top/diff",
        "/d/b/diff",
        "/d/a/diff",
    )
    single = {"GraphDriver": {"Name": "overlay2", "Data": {"UpperDir": "/d/only/diff"}}}
    assert layer_directories(single) == ("/d/only/diff",)


@pytest.mark.parametrize("driver", [None, {"Name": "vfs", "Data": None}, {"Name": "overlay2", "Data": {}}])
def test_a_store_without_directories_is_named(driver: Any) -> None:
    """And what would be right."""
    with pytest.raises(ShimError, match=r"^ImageVolumeMountFailed: Docker stores images with .*want .*Docker 28"):
        layer_directories({"GraphDriver": driver})
