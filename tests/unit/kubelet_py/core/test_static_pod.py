"""Static pods have a stable identity, refer to nothing of the API server's, and are mirrored there."""

import datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kubelet_py.api import codec, core_v1
from kubelet_py.api import pod as podlib
from kubelet_py.core.problems import ManifestError
from kubelet_py.core.static_pod import (
    StaticOrigin,
    api_references,
    compute_static_uid,
    is_mirror_of,
    mirror_pod_of,
    priority_warning,
    static_pods_of,
    to_static_pod,
)
from tests.unit.kubelet_py.core.pod_builder import a_container, a_pod

FILE = StaticOrigin("Node-1", "file", "/etc/manifests/web.yaml")
URL = StaticOrigin("Node-1", "http", "http://config.example/pods")


def _stated(**spec: Any) -> core_v1.Pod:
    return a_pod(metadata={"uid": None, "namespace": None}, **spec)


def test_what_a_static_pod_gets() -> None:
    """Node name behind its own, namespace, hash, toleration, node, phase, defaults."""
    stated = _stated()
    pod = to_static_pod(stated, FILE)
    metadata, spec = podlib.metadata_of(pod), podlib.spec_of(pod)
    assert (metadata.name, metadata.namespace) == ("web-node-1", "default")
    assert metadata.uid == compute_static_uid(stated, FILE)
    assert metadata.annotations == {"kubernetes.io/config.hash": metadata.uid}
    assert (spec.nodeName, spec.restartPolicy) == ("Node-1", "Always")
    assert [(t.operator, t.effect) for t in spec.tolerations or ()] == [("Exists", "NoExecute")]
    assert pod.status is not None
    assert pod.status.phase == "Pending"


def test_what_is_said_stays() -> None:
    """A UID and a namespace of its own; a toleration is not doubled; a URL's pods get none."""
    stated = a_pod(tolerations=[{"operator": "Exists", "effect": "NoExecute"}, {"operator": "Exists"}])
    pod = to_static_pod(stated, FILE)
    assert podlib.uid_of(pod) == podlib.uid_of(stated)
    assert podlib.metadata_of(pod).namespace == "shop"
    assert [(t.operator, t.effect) for t in podlib.spec_of(pod).tolerations or ()] == [
        ("Exists", None),
        ("Exists", "NoExecute"),
    ]
    others: list[dict[str, Any]] = [
        {"operator": "Exists", "effect": "NoSchedule"},
        {"operator": "Exists", "effect": "NoExecute", "key": "gpu"},
    ]
    pod = to_static_pod(a_pod(tolerations=others), FILE)
    assert [(t.key, t.effect) for t in podlib.spec_of(pod).tolerations or ()] == [
        (None, "NoSchedule"),
        ("gpu", "NoExecute"),
        (None, "NoExecute"),
    ]
    assert podlib.spec_of(to_static_pod(_stated(), URL)).tolerations is None
    assert to_static_pod(core_v1.Pod(), FILE).spec is None


def test_uid_says_what_and_where() -> None:
    """The same text at the same place is the same pod; anything else is another."""
    uid = compute_static_uid(_stated(), FILE)
    assert uid == compute_static_uid(_stated(), FILE)
    assert len(uid) == 32
    others = {
        compute_static_uid(_stated(hostNetwork=True), FILE),
        compute_static_uid(_stated(), StaticOrigin("Node-2", "file", FILE.location)),
        compute_static_uid(_stated(), StaticOrigin("Node-1", "file", "/etc/manifests/x.yaml")),
        compute_static_uid(_stated(), URL),
    }
    assert len(others | {uid}) == 5


def test_uid_has_not_changed_since_the_first_release() -> None:
    """A running static pod must not start anew because the agent was updated."""
    body = {"metadata": {"name": "a", "labels": {"y": "1", "x": "2"}}, "spec": {"containers": [{"name": "c"}]}}
    pod = codec.from_builtins(core_v1.Pod, body)
    assert compute_static_uid(pod, StaticOrigin("n", "file", "/m/a.yaml")) == "fab2b94a157994cdbdb8e3c32ec64607"
    assert compute_static_uid(pod, StaticOrigin("n", "http", "http://x/")) == "f53813e5d590cc82840ce4654e3ba78e"


@given(st.permutations(["b", "a", "d", "c"]))
def test_uid_does_not_depend_on_the_order_of_keys(keys: list[str]) -> None:
    """Neither of labels nor of fields."""
    body = {"spec": {"containers": []}, "metadata": {"labels": {key: key for key in keys}, "name": "x"}}
    expected = {"metadata": {"name": "x", "labels": {key: key for key in "abcd"}}, "spec": {"containers": []}}
    assert compute_static_uid(codec.from_builtins(core_v1.Pod, body), FILE) == compute_static_uid(
        codec.from_builtins(core_v1.Pod, expected), FILE
    )


@pytest.mark.parametrize(
    ("spec", "expected"),
    [
        ({"serviceAccountName": "sa"}, ("spec.serviceAccountName", "serviceaccounts")),
        ({"imagePullSecrets": [{"name": "s"}]}, ("spec.imagePullSecrets", "secrets")),
        ({"resourceClaims": [{"name": "c"}]}, ("spec.resourceClaims", "resourceclaims")),
        ({"volumes": [{"name": "v", "configMap": {}}]}, ("spec.volumes[0].configMap", "configmaps (via configmap v")),
        ({"volumes": [{"name": "v", "csi": {"driver": "d"}}]}, ("spec.volumes[0].csi", "csidrivers (via CSI volumes)")),
        (
            {"volumes": [{"name": "v", "projected": {"sources": [{"serviceAccountToken": {"path": "t"}}]}}]},
            ("spec.volumes[0].projected.sources[0].serviceAccountToken", "serviceaccounts (via projected volumes)"),
        ),
        (
            {"volumes": [{"name": "v", "iscsi": {"targetPortal": "", "iqn": "", "lun": 0, "secretRef": {}}}]},
            ("spec.volumes[0].iscsi.secretRef", "secrets"),
        ),
    ],
)
def test_references_to_api_objects(spec: dict[str, Any], expected: tuple[str, str]) -> None:
    """Are named, each with its field."""
    (problem,) = api_references(a_pod(**spec))
    assert problem.path == expected[0]
    assert problem.message.startswith(f"static pods may not reference {expected[1]}")


def test_references_of_containers() -> None:
    """In all their variables, init containers first."""
    env = [
        {"name": "A", "value": "x"},
        {"name": "B", "valueFrom": {"secretKeyRef": {"name": "s", "key": "k"}}},
        {"name": "C", "valueFrom": {"configMapKeyRef": {"name": "s", "key": "k"}}},
    ]
    env_from = [{"secretRef": {"name": "s"}}, {"configMapRef": {"name": "c"}}]
    pod = a_pod(a_container(env=env), initContainers=[a_container("i", envFrom=env_from)])
    assert [str(problem) for problem in api_references(pod)] == [
        "spec.initContainers[0].envFrom[0].secretRef: static pods may not reference secrets",
        "spec.initContainers[0].envFrom[1].configMapRef: static pods may not reference configmaps",
        "spec.containers[0].env[1].valueFrom.secretKeyRef: static pods may not reference secrets",
        "spec.containers[0].env[2].valueFrom.configMapKeyRef: static pods may not reference configmaps",
    ]


def test_plain_volumes_are_fine() -> None:
    """What the node has itself."""
    volumes = [
        {"name": "a", "emptyDir": {}},
        {"name": "b", "hostPath": {"path": "/x"}},
        {"name": "c", "projected": {"sources": [{"downwardAPI": {}}]}},
    ]
    assert api_references(a_pod(volumes=volumes)) == ()


TEXT = """\
apiVersion: v1
kind: Pod
metadata:
  name: {name}
spec:
  containers:
  - name: main
    image: app
    ports:
    - containerPort: {port}
"""


_MAY_BE_EVICTED = (
    "a priority other than 2000001000 with the class system-node-critical: the mirror pod may be evicted, which does "
    "nothing to the static pod"
)


def test_from_text_to_pods() -> None:
    """Complete, valid, ready to run."""
    found = static_pods_of(TEXT.format(name="web", port=80).encode(), FILE)
    assert [podlib.full_name(pod) for pod in found.pods] == ["web-node-1_default"]
    assert found.warnings == ()


def test_all_problems_of_a_text() -> None:
    """With lines, and with what was not understood."""
    text = TEXT.format(name="A", port=0) + "  restartpolicy: No\n  imagePullSecrets: [{name: s}]\n"
    with pytest.raises(ManifestError) as caught:
        static_pods_of(text.encode(), FILE)
    lines = [str(problem)[:60] for problem in caught.value.problems]
    assert lines[0].startswith('line 4: metadata.name: Invalid value: "A-node-1"')
    assert lines[1].startswith("line 10: spec.containers[0].ports[0].containerPort: Invalid")
    assert lines[2].startswith("line 11: spec.restartpolicy: unknown field, ignored; did you")
    usable = text.replace("name: A", "name: a").replace("containerPort: 0", "containerPort: 1")
    with pytest.raises(ManifestError) as caught:
        static_pods_of(usable.encode(), FILE)
    assert str(caught.value.problems[0]) == "line 12: spec.imagePullSecrets: static pods may not reference secrets"


def test_lists_from_a_url() -> None:
    """Problems name the item; a pod without anything says what is missing."""
    item = '{"metadata": {"name": "%s"}, "spec": {"containers": [{"name": "c", "image": "i"}]}}'
    text = '{"apiVersion": "v1", "kind": "PodList", "items": [%s, %s]}'
    found = static_pods_of((text % (item % "a", item % "b")).encode(), URL)
    assert [podlib.metadata_of(pod).name for pod in found.pods] == ["a-node-1", "b-node-1"]
    assert len({podlib.uid_of(pod) for pod in found.pods}) == 2
    with pytest.raises(ManifestError, match=r"items\[1\].metadata.name: Invalid value"):
        static_pods_of((text % (item % "a", item % "B")).encode(), URL)
    with pytest.raises(ManifestError, match=r"items\[1\].spec: Required value"):
        static_pods_of((text % (item % "a", "{}")).encode(), URL)


@pytest.mark.parametrize(
    ("spec", "warning"),
    [
        ({}, ""),
        (
            {"priorityClassName": "x"},
            "priorityClassName without priority: it is not used, and creating the mirror pod may fail",
        ),
        (
            {"priority": 5},
            "priority without priorityClassName: creating the mirror pod may fail if the default class differs",
        ),
        ({"priority": 5, "priorityClassName": "system-node-critical"}, _MAY_BE_EVICTED),
        ({"priority": 2_000_001_000, "priorityClassName": "x"}, _MAY_BE_EVICTED),
        ({"priority": 2_000_001_000, "priorityClassName": "system-node-critical"}, ""),
    ],
)
def test_priority_warnings(spec: dict[str, Any], warning: str) -> None:
    """Where the API server may refuse or evict the mirror pod."""
    assert priority_warning(a_pod(**spec)) == warning
    assert priority_warning(core_v1.Pod()) == ""


def test_priority_warning_reaches_the_reader() -> None:
    """As a warning of the manifest."""
    text = TEXT.format(name="web", port=80) + "  priority: 5\n"
    (warning,) = static_pods_of(text.encode(), FILE).warnings
    assert str(warning).startswith("spec.priority: priority without priorityClassName")


def test_mirror_pod() -> None:
    """Carries the hash, belongs to the node, gets a UID of its own."""
    static = to_static_pod(_stated(), FILE)
    mirror = mirror_pod_of(static, "node-uid")
    metadata = podlib.metadata_of(mirror)
    assert metadata.annotations is not None
    assert metadata.annotations["kubernetes.io/config.mirror"] == podlib.uid_of(static)
    assert metadata.uid is None
    assert metadata.ownerReferences is not None
    owner = metadata.ownerReferences[0]
    assert (owner.kind, owner.name, owner.uid, owner.controller) == ("Node", "Node-1", "node-uid", True)
    assert mirror_pod_of(static).metadata is not None
    assert podlib.metadata_of(mirror_pod_of(static)).ownerReferences is None
    assert podlib.uid_of(static)


def test_mirror_matching() -> None:
    """Same name, same hash, not being deleted."""
    static = to_static_pod(_stated(), FILE)
    assert is_mirror_of(mirror_pod_of(static), static)
    changed = to_static_pod(_stated(hostNetwork=True), FILE)
    assert not is_mirror_of(mirror_pod_of(changed), static)
    other = to_static_pod(a_pod(metadata={"name": "other"}), FILE)
    assert not is_mirror_of(mirror_pod_of(other), static)
    deleted = mirror_pod_of(static)
    podlib.metadata_of(deleted).deletionTimestamp = datetime.datetime.now(datetime.UTC)
    assert not is_mirror_of(deleted, static)
