"""Layers, packages and the catalog: what can be said without downloading or building anything."""

from __future__ import annotations

import hashlib
import io
import json
import tarfile
from pathlib import Path, PurePosixPath

import pytest

from tests.lab.images import catalog
from tests.lab.images.debs import closure
from tests.lab.images.layers import Blob, LayerWriter, merged
from tests.lab.process import LabError


def written(fill: str) -> bytes:
    sink = io.BytesIO()
    with tarfile.open(fileobj=sink, mode="w", format=tarfile.GNU_FORMAT) as tar:
        layer = LayerWriter(tar)
        layer.file("bin/tool", fill.encode(), 0o755)
        layer.file("usr/bin/tool", b"a second one of that name")
        layer.hard_link("bin/other", "usr/bin/tool")
        layer.symlink("var/run", "/run")
        layer.directory("tmp", 0o1777)
    return sink.getvalue()


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("./bin/ls", "usr/bin/ls"),
        ("/lib64/ld.so", "usr/lib64/ld.so"),
        ("usr/bin/env", "usr/bin/env"),
        ("bin", "bin"),
        ("library/x", "library/x"),
        ("./", ""),
    ],
)
def test_paths_are_those_of_a_merged_usr(path: str, expected: str) -> None:
    assert merged(path) == expected


def test_a_layer_has_the_same_bytes_each_time() -> None:
    assert written("x") == written("x") != written("y")


def test_the_first_content_of_a_path_stays() -> None:
    with tarfile.open(fileobj=io.BytesIO(written("x"))) as tar:
        members = {member.name: member for member in tar}
        content = tar.extractfile("usr/bin/tool")
        assert content is not None
        assert content.read() == b"x"
    assert set(members) == {"usr/bin/tool", "usr/bin/other", "var/run", "tmp"}
    assert members["usr/bin/other"].linkname == "usr/bin/tool"
    assert members["tmp"].mode == 0o1777


def test_closure_reads_what_apt_would_install() -> None:
    simulated = (
        "0 upgraded, 2 newly installed\n"
        "Inst libc6 (2.36-9+deb12u14 Debian:12.15/oldstable [amd64]) []\n"
        "Inst libpcre2-8-0 (10.42-1 Debian-Security:12/oldstable-security, Debian:12 [amd64])\n"
        "Inst netbase (6.4 Debian:12.15/oldstable [all])\n"
        "Conf netbase (6.4 Debian:12.15/oldstable [all])\n"
    )
    assert closure(simulated) == [
        ("libc6", "2.36-9+deb12u14"),
        ("libpcre2-8-0", "10.42-1"),
        ("netbase", "6.4"),
    ]


def blobs_of(reference: str) -> list[Blob]:
    digest = f"sha256:{'0' * 64}"
    return [Blob(Path("x.tar"), digest, Path("x.tar.gz"), digest, 1) for _ in catalog.image(reference).layers]


def identity(reference: str) -> str:
    return hashlib.sha256(catalog.configuration(catalog.image(reference), blobs_of(reference))).hexdigest()


def test_images_that_critest_wants_to_be_the_same_are_and_others_are_not() -> None:
    same = {identity(f"{catalog.CRI_TOOLS}/test-image-tags:{number}") for number in (1, 2, 3)}
    different = {identity(f"{catalog.CRI_TOOLS}/test-image-{number}:latest") for number in (1, 2, 3)}
    assert (len(same), len(different)) == (1, 3)
    assert identity("registry.k8s.io/pause:3.9") == identity("k8s.gcr.io/pause:3.9")
    assert identity("registry.k8s.io/pause:3.9") != identity("registry.k8s.io/pause:3.10")


def test_the_configuration_carries_what_runtimes_read() -> None:
    described = json.loads(
        catalog.configuration(catalog.image("registry.k8s.io/pause:3.10"), blobs_of("registry.k8s.io/pause:3.10"))
    )
    assert described["config"]["Entrypoint"] == ["/pause"]
    assert described["config"]["User"] == "65535:65535"
    assert described["rootfs"]["type"] == "layers"
    assert len(described["rootfs"]["diff_ids"]) == 1


def test_an_image_is_laid_out_as_agnhosts_registry_reads_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The tag's file leads to the manifest; every file stands under its digest, and everybody may read it."""
    (tmp_path / "layer").write_bytes(b"layer")
    layer_digest = f"sha256:{hashlib.sha256(b'layer').hexdigest()}"
    held = catalog.Manifest(b"manifest", b"configuration", {layer_digest: tmp_path / "layer"})
    monkeypatch.setattr(catalog, "manifest", lambda reference: held)
    with tarfile.open(tmp_path / "served.tar", "w") as tar:
        catalog.served_layer("registry.k8s.io/pause:3.10.2", "pause", "testing").write(LayerWriter(tar))
    with tarfile.open(tmp_path / "served.tar") as tar:
        assert {(member.isdir(), member.mode) for member in tar} == {(True, 0o755), (False, 0o644)}
        files = {PurePosixPath(each.name): tar.extractfile(each) for each in tar if each.isfile()}
        served = {path: content.read() for path, content in files.items() if content is not None}
    root = PurePosixPath("var/registry/pause")
    found = {path.parent.name: data for path, data in served.items() if path.match("*/sha256/*/*/data")}
    assert sorted(found.values()) == [b"configuration", b"layer", b"manifest"]
    assert all(hashlib.sha256(data).hexdigest() == name for name, data in found.items())
    tagged = served[root / "manifests" / "testing"].decode().strip().removeprefix("sha256:")
    assert served[root / "manifests" / "sha256" / tagged[:2] / tagged / "data"] == b"manifest"


def test_an_image_that_is_not_there_is_named() -> None:
    with pytest.raises(LabError, match="the lab has no image 'busybox:latest'"):
        catalog.image("busybox:latest")
