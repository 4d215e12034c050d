"""The test images: what each consists of.

Names, versions and demands are those of critest and the Kubernetes e2e suite.
Owns the table. `archive` gives one image as a docker-archive file for direct loading; `registry` in this package
serves all.
"""

from __future__ import annotations

import hashlib
import json
import os
import tarfile
from dataclasses import dataclass, field
from pathlib import Path, PurePath
from typing import Any

from tests.lab.images import content
from tests.lab.images.layers import Blob, Layer, LayerWriter, build
from tests.lab.paths import cache_dir, file_lock
from tests.lab.process import LabError

E2E = "registry.k8s.io/e2e-test-images"
CRI_TOOLS = "gcr.io/k8s-staging-cri-tools"
CREATED = "2023-11-14T22:13:20Z"


@dataclass(frozen=True)
class Image:
    """One image: layers from the bottom up, and the part of its configuration that runtimes read."""

    layers: tuple[Layer, ...]
    command: tuple[str, ...] = ()
    entrypoint: tuple[str, ...] = ()
    user: str = ""
    environment: tuple[str, ...] = ("PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",)
    labels: dict[str, str] = field(default_factory=dict)
    ports: tuple[str, ...] = ()


def _pause(version: str) -> Image:
    return Image((content.PAUSE,), entrypoint=("/pause",), user="65535:65535", labels={"version": version})


def _busybox(
    *layers: Layer, user: str = "", version: str = "", command: tuple[str, ...] = ("sh",), ports: tuple[str, ...] = ()
) -> Image:
    """busybox over a Debian userland; a version only makes the image differ from others."""
    labels = {"version": version} if version else {}
    return Image((content.USERLAND, content.APPLETS, *layers), command=command, user=user, labels=labels, ports=ports)


def _e2e_busybox(version: str) -> Image:
    return _busybox(content.EITHER_SHELL, content.MILLISECONDS, version=version)


def _nginx(version: str) -> Image:
    return _busybox(content.NGINX, version=version, command=("nginx",), ports=("80/tcp",))


def served_layer(reference: str, name: str, tag: str) -> Layer:
    """An image as agnhost's own registry serves it, in that program's directory."""

    def write(layer: LayerWriter) -> None:
        held = manifest(reference)
        digest = f"sha256:{hashlib.sha256(held.text).hexdigest()}"
        files: dict[str, bytes | Path] = {
            f"manifests/{tag}": f"{digest}\n".encode(),
            _stored("manifests", digest): held.text,
            _stored("blobs", f"sha256:{hashlib.sha256(held.configuration).hexdigest()}"): held.configuration,
            **{_stored("blobs", blob): path for blob, path in held.layers.items()},
        }
        for path, content_of in files.items():
            whole = PurePath("var/registry", name, path)
            for parent in reversed(whole.parents):  # an engine that makes them by itself lets root alone in
                layer.directory(str(parent))
            layer.file(str(whole), content_of)

    return Layer("served", f"2 {reference} {name}:{tag} {content.PAUSE.key}", write)


def _stored(kind: str, digest: str) -> str:
    algorithm, _, name = digest.partition(":")
    return f"{kind}/{algorithm}/{name[:2]}/{name}/data"


def _agnhost(version: str) -> Image:
    served = served_layer("registry.k8s.io/pause:3.10.2", "pause", "testing")
    layers = (content.AGNHOST_USERLAND, content.MILLISECONDS, content.AGNHOST, served)
    return Image(layers, entrypoint=("/agnhost",), command=("pause",), labels={"version": version}, ports=("80/tcp",))


_DEFAULT_USER = content.user_layer(
    "default-user:x:1000:1000::/home/default-user:/bin/sh", groups=("group-defined-in-image:x:50000:default-user",)
)

IMAGES: dict[str, Image] = {
    **{f"registry.k8s.io/pause:{version}": _pause(version) for version in ("3.9", "3.10", "3.10.1", "3.10.2")},
    "k8s.gcr.io/pause:3.9": _pause("3.9"),
    f"{E2E}/busybox:1.29-2": _busybox(),
    f"{E2E}/busybox:1.36.1-1": _e2e_busybox("1.36.1-1"),
    f"{E2E}/busybox:1.37.0-2": _e2e_busybox("1.37.0-2"),
    **{f"{E2E}/nginx:{version}": _nginx(version) for version in ("1.14-2", "1.27.0-2", "1.28.0-2")},
    f"{E2E}/httpd:2.4.39-4": _busybox(content.HTTPD, command=("httpd-foreground",), ports=("80/tcp",)),
    **{
        f"{E2E}/nonewprivs:{version}": _busybox(content.NNP, user="1000", version=version, command=("nnp",))
        for version in ("1.3", "1.4")
    },
    f"{E2E}/nonroot:1.5": _busybox(user="1234", version="nonroot"),
    **{f"{E2E}/agnhost:{version}": _agnhost(version) for version in ("2.66.1", "2.55")},
    **{
        f"{E2E}/{name}": Image((content.AGNHOST_USERLAND,), command=("bash",), labels={"name": name})
        for name in ("glibc-dns-testing:2.1.1", "nautilus:1.8", "ipc-utils:1.4")
    },
    f"{E2E}/kitten:1.8": Image((content.AGNHOST_USERLAND, content.KITTEN_FILES), command=("bash",)),
    f"{CRI_TOOLS}/test-image-latest:latest": _busybox(version="latest"),
    **{f"{CRI_TOOLS}/test-image-tag:{tag}": _busybox(version=f"tag-{tag}") for tag in ("test", "all")},
    **{f"{CRI_TOOLS}/test-image-{number}:latest": _busybox(version=f"image-{number}") for number in (1, 2, 3)},
    **{f"{CRI_TOOLS}/test-image-tags:{number}": _busybox(version="tags") for number in (1, 2, 3)},
    f"{CRI_TOOLS}/test-image-user-uid:latest": _busybox(user="1002"),
    f"{CRI_TOOLS}/test-image-user-username:latest": _busybox(user="www-data"),
    f"{CRI_TOOLS}/test-image-user-uid-group:latest": _busybox(user="1003:100"),
    f"{CRI_TOOLS}/test-image-user-username-group:latest": _busybox(user="www-data:100"),
    f"{CRI_TOOLS}/test-image-predefined-group:latest": _busybox(_DEFAULT_USER, user="1000"),
    f"{CRI_TOOLS}/hostnet-nginx-amd64:latest": _busybox(
        content.NGINX, content.NGINX_ON_12003, command=("nginx",), ports=("12003/tcp",)
    ),
}


def image(reference: str) -> Image:
    """The image of this name and tag."""
    if reference not in IMAGES:
        raise LabError(f"the lab has no image {reference!r}; it has {', '.join(IMAGES)}")
    return IMAGES[reference]


def configuration(spec: Image, blobs: list[Blob]) -> bytes:
    """The image configuration; its digest is the image's id."""
    settings: dict[str, Any] = {"Env": list(spec.environment), "Cmd": list(spec.command) or None}
    settings |= {"Entrypoint": list(spec.entrypoint) or None, "User": spec.user, "WorkingDir": "/"}
    if spec.labels:
        settings["Labels"] = spec.labels
    if spec.ports:
        settings["ExposedPorts"] = {port: {} for port in spec.ports}
    described = {
        "architecture": {"x86_64": "amd64", "aarch64": "arm64"}.get(os.uname().machine, os.uname().machine),
        "os": "linux",
        "created": CREATED,
        "config": settings,
        "rootfs": {"type": "layers", "diff_ids": [blob.diff_id for blob in blobs]},
        "history": [{"created": CREATED, "created_by": f"kubelet-py lab: {layer.name}"} for layer in spec.layers],
    }
    return json.dumps(described, sort_keys=True, separators=(",", ":")).encode()


def archive(reference: str) -> Path:
    """A docker-archive file of the image (`docker load`, `ctr images import`), from the cache when it is there."""
    spec = image(reference)
    blobs = [build(layer) for layer in spec.layers]
    described = configuration(spec, blobs)
    identity = hashlib.sha256(described).hexdigest()
    name = reference.rsplit("/", 1)[1].replace(":", "-")
    path = (
        cache_dir()
        / "images"
        / "archives"
        / f"{name}-{hashlib.sha256(reference.encode()).hexdigest()[:6]}-{identity[:16]}.tar"
    )
    with file_lock(f"archive-{path.stem}"):
        if not path.exists():
            path.parent.mkdir(parents=True, exist_ok=True)
            partial = path.with_suffix(f".{os.getpid()}")
            layers = [f"{blob.diff_id.removeprefix('sha256:')}/layer.tar" for blob in blobs]
            manifest = [{"Config": f"{identity}.json", "RepoTags": [reference], "Layers": layers}]
            with tarfile.open(partial, "w", format=tarfile.GNU_FORMAT) as tar:
                writer = LayerWriter(tar)
                writer.file(f"{identity}.json", described)
                for member, blob in zip(layers, blobs, strict=True):
                    writer.file(member, blob.tar)
                writer.file("manifest.json", json.dumps(manifest).encode())
            partial.rename(path)
    return path


@dataclass(frozen=True)
class Manifest:
    """One image as a registry serves it: its manifest, its configuration and the files of its layers."""

    text: bytes
    configuration: bytes
    layers: dict[str, Path]


def manifest(reference: str) -> Manifest:
    """The image in the form of a registry (Docker's schema 2, which every engine of the lab reads)."""
    spec = image(reference)
    blobs = [build(layer) for layer in spec.layers]
    described = configuration(spec, blobs)
    text = {
        "schemaVersion": 2,
        "mediaType": "application/vnd.docker.distribution.manifest.v2+json",
        "config": {
            "mediaType": "application/vnd.docker.container.image.v1+json",
            "size": len(described),
            "digest": f"sha256:{hashlib.sha256(described).hexdigest()}",
        },
        "layers": [
            {"mediaType": "application/vnd.docker.image.rootfs.diff.tar.gzip", "size": blob.size, "digest": blob.digest}
            for blob in blobs
        ],
    }
    return Manifest(json.dumps(text).encode(), described, {blob.digest: blob.compressed for blob in blobs})
