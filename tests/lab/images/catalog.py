"""The test images: what each consists of.

Names, versions and demands are those of critest and the Kubernetes e2e suite.
Owns the table. `archive` gives one image as a docker-archive file for direct loading; `registry` in this package
serves all.
"""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import tarfile
import tempfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.lab import debian
from tests.lab.images import debs
from tests.lab.images.layers import Blob, Layer, LayerWriter, build
from tests.lab.paths import cache_dir, file_lock
from tests.lab.process import LabError

SOURCES = Path(__file__).parent / "sources"
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


def _compile(source: str) -> bytes:
    """A static program from C."""
    debian.ensure("gcc", "libc6-dev")
    with tempfile.TemporaryDirectory() as scratch:
        program = Path(scratch) / "program"
        subprocess.run(["gcc", "-Os", "-s", "-static", "-o", str(program), str(SOURCES / source)], check=True)
        return program.read_bytes()


def _source_key(source: str) -> str:
    return hashlib.sha256((SOURCES / source).read_bytes()).hexdigest()


def _write_userland(layer: LayerWriter) -> None:
    debs.add_system(layer)
    debs.add_packages(layer, "base-files", "base-passwd", "bash", "netbase", "busybox")


def _write_applets(layer: LayerWriter) -> None:
    program, applets = debs.busybox_applets()
    layer.file("usr/bin/busybox", program, 0o755)
    for applet in applets:
        layer.hard_link(applet, "usr/bin/busybox")


PAUSE = Layer("pause", _source_key("pause.c"), lambda layer: layer.file("pause", _compile("pause.c"), 0o755))
USERLAND = Layer("userland", "1", _write_userland)
APPLETS = Layer("applets", "1", _write_applets)
BASH_AS_SH = Layer("bash-as-sh", "1", lambda layer: layer.symlink("usr/bin/sh", "bash"))


def _pause(version: str) -> Image:
    return Image((PAUSE,), entrypoint=("/pause",), user="65535:65535", labels={"version": version})


def _busybox(*layers: Layer, user: str = "", labels: dict[str, str] | None = None) -> Image:
    return Image((USERLAND, APPLETS, *layers), command=("sh",), user=user, labels=labels or {})


IMAGES: dict[str, Image] = {
    **{f"registry.k8s.io/pause:{version}": _pause(version) for version in ("3.9", "3.10", "3.10.1", "3.10.2")},
    "k8s.gcr.io/pause:3.9": _pause("3.9"),
    f"{E2E}/busybox:1.29-2": _busybox(),
    f"{E2E}/busybox:1.36.1-1": _busybox(BASH_AS_SH, labels={"version": "1.36.1-1"}),
    f"{E2E}/busybox:1.37.0-2": _busybox(BASH_AS_SH, labels={"version": "1.37.0-2"}),
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
