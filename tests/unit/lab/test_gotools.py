"""The main module that a Go tool is built from."""

from __future__ import annotations

import pytest

from tests.lab.gotools import GO_TOOLS, KUBERNETES_VERSION, BuildError, ensure, render_go_mod, tool_path


def test_staging_directories_become_published_modules_of_the_same_release() -> None:
    described = {
        "Go": "1.26.0",
        "Replace": [{"Old": {"Path": "k8s.io/api"}, "New": {"Path": "./staging/src/k8s.io/api"}}],
    }
    assert render_go_mod(GO_TOOLS["kubelet"], described) == (
        "module lab.invalid/tool\n\ngo 1.26.0\n\nrequire k8s.io/kubernetes v1.37.2\n\n"
        "replace k8s.io/api => k8s.io/api v0.37.2\n"
    )


def test_replacements_by_modules_are_repeated_and_those_by_directories_elsewhere_left_out() -> None:
    described = {
        "Go": "1.25.0",
        "Replace": [
            {"Old": {"Path": "k8s.io/api"}, "New": {"Path": "k8s.io/api", "Version": "v0.36.0"}},
            {"Old": {"Path": "example.invalid/x"}, "New": {"Path": "../x"}},
        ],
    }
    text = render_go_mod(GO_TOOLS["crictl"], described)
    assert "replace k8s.io/api => k8s.io/api v0.36.0\n" in text
    assert "example.invalid" not in text


@pytest.mark.parametrize("name", sorted(GO_TOOLS))
def test_every_tool_has_a_place_of_its_own_that_is_keyed_by_version(name: str) -> None:
    assert tool_path(name).name == name
    assert tool_path(name).parent.name.endswith(f"@{GO_TOOLS[name].version}")
    assert len({tool_path(other) for other in GO_TOOLS}) == len(GO_TOOLS)


def test_kubernetes_programs_say_their_version() -> None:
    stamps = dict(GO_TOOLS["kube-apiserver"].stamps)
    assert stamps["k8s.io/component-base/version.gitVersion"] == KUBERNETES_VERSION
    assert stamps["k8s.io/component-base/version.gitMajor"] == "1"


def test_an_unknown_tool_is_named_with_the_known_ones() -> None:
    with pytest.raises(BuildError, match="no such Go tool: 'kubelt'; known: etcd, kube-apiserver"):
        ensure("kubelt")
