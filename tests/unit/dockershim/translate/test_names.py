"""Names and labels, equal to cri-dockerd's."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cri_proto import runtime_v1 as cri
from dockershim.translate import names

part = st.from_regex(r"[a-z0-9]([a-z0-9.-]{0,20}[a-z0-9])?", fullmatch=True)
keys = st.text(min_size=1, max_size=20)


@given(part, part, part, part, st.integers(0, 2**32 - 1))
def test_names_are_read_back(container: str, pod: str, namespace: str, uid: str, attempt: int) -> None:
    """What was put into a name comes out of it."""
    sandbox = cri.PodSandboxMetadata(name=pod, namespace=namespace, uid=uid, attempt=attempt)
    parsed = names.parse_name("/" + names.sandbox_name(sandbox))
    assert parsed == names.ParsedName("POD", pod, namespace, uid, attempt)
    named = names.container_name(sandbox, cri.ContainerMetadata(name=container, attempt=attempt))
    assert names.parse_name(named + "_1a2b3c4d") == names.ParsedName(container, pod, namespace, uid, attempt)


def test_names_of_others_are_none_of_ours() -> None:
    """Whatever does not look like ours."""
    for name in ("", "/busy_beaver", "k8s_a_b_c", "k8s_a_b_c_d_x", "k9s_a_b_c_d_0"):
        assert names.parse_name(name) is None


@given(
    st.dictionaries(keys.filter(lambda k: not k.startswith(("annotation.", "io.kubernetes."))), st.text()),
    st.dictionaries(keys, st.text()),
)
def test_labels_and_annotations_are_read_back(labels: dict[str, str], annotations: dict[str, str]) -> None:
    """Also when Docker adds the image's labels."""
    encoded = names.to_docker_labels(labels, annotations)
    encoded.setdefault("org.opencontainers.image.vendor", "somebody")
    assert names.from_docker_labels(encoded) in (
        (labels, annotations),
        (labels | {"org.opencontainers.image.vendor": labels.get("org.opencontainers.image.vendor", "")}, annotations),
    )


def test_labels_of_cri_dockerd_are_read_too() -> None:
    """Without our own list of keys, everything but dockershim's own counts."""
    found = names.from_docker_labels(
        {"app": "web", "annotation.a": "b", names.TYPE_LABEL: "container", names.SANDBOX_ID_LABEL: "x"}
    )
    assert found == ({"app": "web"}, {"a": "b"})


OF_AN_IMAGE = {"annotation.io.kubernetes.container.hash": "0", "annotation.b": "image", "vendor": "somebody"}


def test_annotations_of_the_image_are_not_the_containers() -> None:
    """Docker adds every label of the image that the request has not."""
    encoded = names.to_docker_labels({"app": "web"}, {"a": "b"})
    assert names.from_docker_labels({**OF_AN_IMAGE, **encoded}) == ({"app": "web"}, {"a": "b"})
    assert names.from_docker_labels({**OF_AN_IMAGE, **names.to_docker_labels({}, {})}) == ({}, {})


def test_labels_of_the_version_before_are_read_too() -> None:
    """Its list has the keys of labels alone, and does not say which annotations are CRI's."""
    found = names.from_docker_labels({"app": "web", "vendor": "x", "annotation.a": "b", names.KEYS_LABEL: '["app"]'})
    assert found == ({"app": "web"}, {"a": "b"})


@pytest.mark.parametrize("label", ["", "{", "7", "null", '{"app": 1}', '"app"', "[" * 100_000, "9" * 5000])
def test_a_list_of_keys_that_is_none_is_not_ours(label: str) -> None:
    """Whoever wrote it: it is read as if it were not there."""
    assert names.from_docker_labels({"app": "web", names.KEYS_LABEL: label}) == ({"app": "web"}, {})


def test_cgroup_files_are_only_what_limits_the_container() -> None:
    """What an image has written there leads nowhere else, and is no error."""
    good = {"memory.high": "1000", "hugetlb.2MB.max": "4096", "io.max": "8:0 rbps=1\n8:16 rbps=2"}
    bad = {
        "../../../etc/cron.d/x": "* * * * * root x",
        "/etc/passwd": "x",
        "memory.high\n": "1",
        "memory": "1",
        "cgroup.procs": "1",
        "pids.max": 5,
    }
    assert names.cgroup_writes_of(json.dumps(good | bad)) == good
    for label in ("", "{", "[1]", "[" * 100_000, "9" * 5000, '{"memory.high": "\\ud800"}'):
        assert names.cgroup_writes_of(label) == {}
