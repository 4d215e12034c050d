"""Everything wrong with the settings of images is said at the start, in one go, with the place."""

import json
from pathlib import Path
from typing import Any

import pytest

from kubelet_py.app.image_parts import ImageParts, make_image_parts
from kubelet_py.app.pod_objects import StandaloneObjects
from kubelet_py.config import load
from kubelet_py.errors import ConfigError
from tests.fakes.runtime import FakeRuntimeClient
from tests.unit.kubelet_py.sync.rig import Node

CONFIG, DIRECTORY = "--image-credential-provider-config", "--image-credential-provider-bin-dir"


def a_document(*names: str, **fields: Any) -> str:
    plugin = {
        "matchImages": ["r.example"],
        "defaultCacheDuration": "1m",
        "apiVersion": "credentialprovider.kubelet.k8s.io/v1",
    }
    return json.dumps(
        {
            "kind": "CredentialProviderConfig",
            "apiVersion": "kubelet.config.k8s.io/v1",
            "providers": [{"name": name, **plugin, **fields} for name in names],
        }
    )


def parts(tmp_path: Path, *flags: str, **settings: Any) -> ImageParts:
    file = tmp_path / "kubelet.json"
    head = {"apiVersion": "kubelet.config.k8s.io/v1beta1", "kind": "KubeletConfiguration", "failCgroupV1": False}
    file.write_text(
        json.dumps(head | {"containerRuntimeEndpoint": "unix:///run/x.sock", "failSwapOn": False} | settings)
    )
    loaded = load([f"--config={file}", f"--root-dir={tmp_path}", *flags])
    return make_image_parts(
        loaded, FakeRuntimeClient(), lambda *event: None, lambda *event: None, StandaloneObjects(Node())
    )


def problems(tmp_path: Path, *flags: str, **settings: Any) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        parts(tmp_path, *flags, **settings)
    return list(caught.value.problems)


def test_an_allowlist_that_is_none(tmp_path: Path) -> None:
    (problem,) = problems(
        tmp_path,
        imagePullCredentialsVerificationPolicy="NeverVerifyAllowlistedImages",
        preloadedImagesVerificationAllowlist=["a:1"],
    )
    assert problem.startswith("imagePullCredentialsVerificationPolicy, preloadedImagesVerificationAllowlist: 'a:1' has")


def test_without_the_gate_there_are_no_records(tmp_path: Path) -> None:
    parts(tmp_path, featureGates={"KubeletEnsureSecretPulledImages": False})


def test_each_flag_needs_the_other(tmp_path: Path) -> None:
    assert problems(tmp_path, f"{CONFIG}=/etc/x.yaml") == [f"{CONFIG} needs {DIRECTORY} too"]
    assert problems(tmp_path, f"{DIRECTORY}=/opt/x") == [f"{DIRECTORY} needs {CONFIG} too"]


def test_a_file_and_a_directory_of_files(tmp_path: Path) -> None:
    for name in ("one", "two"):
        program = tmp_path / name
        program.write_text("#!/bin/sh\n")
        program.chmod(0o755)
        (tmp_path / "conf.d").mkdir(exist_ok=True)
        (tmp_path / f"conf.d/{name}.yaml").write_text(a_document(name))
    (tmp_path / "conf.d/notes.txt").write_text("not read")
    parts(tmp_path, f"{CONFIG}={tmp_path}/conf.d/one.yaml", f"{DIRECTORY}={tmp_path}")
    parts(tmp_path, f"{CONFIG}={tmp_path}/conf.d", f"{DIRECTORY}={tmp_path}")


def test_files_that_cannot_be_read_are_all_named(tmp_path: Path) -> None:
    directory = tmp_path / "conf.d"
    directory.mkdir()
    flags = (f"{CONFIG}={directory}", f"{DIRECTORY}={tmp_path}")
    assert problems(tmp_path, *flags) == [f"{CONFIG}: {directory} holds no file that ends in .json, .yaml, .yml"]
    (directory / "a.yaml").write_text("a: [")
    (directory / "b.yaml").write_bytes(b"\xff")
    (directory / "c.yaml").write_text("")
    first, second, third = problems(tmp_path, *flags)
    assert first.startswith(f"{CONFIG}: {directory}/a.yaml: line 2")
    assert second.startswith(f"{CONFIG}: {directory}/b.yaml: ")
    assert third == f"{CONFIG}: {directory}/c.yaml: holds nothing: write one CredentialProviderConfig"
    (missing,) = problems(tmp_path, f"{CONFIG}=/nowhere", flags[1])
    assert "/nowhere" in missing


def test_mistakes_in_the_configuration_are_all_named(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text(a_document("one", "a/b", matchImages=[]))
    found = problems(tmp_path, f"{CONFIG}={tmp_path}/a.yaml", f"{DIRECTORY}={tmp_path}")
    assert len(found) == 3
    assert all(problem.startswith(f"{CONFIG}: {tmp_path}/a.yaml: providers[") for problem in found)


def test_tokens_need_their_gate(tmp_path: Path) -> None:
    attributes = {"serviceAccountTokenAudience": "a", "cacheType": "Token", "requireServiceAccount": True}
    (tmp_path / "a.yaml").write_text(a_document("one", tokenAttributes=attributes))
    gates = {"KubeletServiceAccountTokenForCredentialProviders": False}
    (problem,) = problems(tmp_path, f"{CONFIG}={tmp_path}/a.yaml", f"{DIRECTORY}={tmp_path}", featureGates=gates)
    assert "needs the feature gate" in problem


def test_programs_that_cannot_be_run_are_all_named(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text(a_document("one", "two"))
    (tmp_path / "one").write_text("")
    assert problems(tmp_path, f"{CONFIG}={tmp_path}/a.yaml", f"{DIRECTORY}={tmp_path}") == [
        f"{DIRECTORY}: {tmp_path}/{name} is no program that can be run" for name in ("one", "two")
    ]
