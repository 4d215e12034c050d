"""What null stands for in a manifest. The expected values are what the Go kubelet 1.37.2 decodes."""

from typing import Any

import pytest

from kubelet_py.api import core_v1
from kubelet_py.core.manifest import read_manifest
from kubelet_py.core.manifest_nulls import without_nulls


def filled(spec: dict[str, Any] | None = None, **container: Any) -> Any:
    """The spec of a pod, or its one container, without nulls."""
    result = without_nulls({"spec": {"containers": [container], **(spec or {})}}, core_v1.Pod)["spec"]
    return result["containers"][0] if spec is None else {key: result[key] for key in spec}


def test_a_label_of_null_has_no_text() -> None:
    text = b"""
apiVersion: v1
kind: Pod
metadata: {name: a, labels: {a: null, b: c}, annotations: {x: }}
spec: {nodeSelector: {disk: ~}, containers: [{name: c, image: i}]}
"""
    (pod,) = read_manifest(text).pods
    assert pod.metadata is not None
    assert pod.spec is not None
    assert (pod.metadata.labels, pod.metadata.annotations) == ({"a": "", "b": "c"}, {"x": ""})
    assert pod.spec.nodeSelector == {"disk": ""}


def test_a_quantity_of_null_is_zero() -> None:
    resources = {"limits": {"cpu": None, "memory": "1Mi"}, "requests": {"cpu": None}}
    assert filled(resources=resources)["resources"] == {
        "limits": {"cpu": "0", "memory": "1Mi"},
        "requests": {"cpu": "0"},
    }
    assert filled({"overhead": {"cpu": None}}) == {"overhead": {"cpu": "0"}}


@pytest.mark.parametrize(
    ("spec", "expected"),
    [
        ({"securityContext": {"supplementalGroups": [None, 5]}}, {"securityContext": {"supplementalGroups": [0, 5]}}),
        ({"tolerations": [None, {"key": None}]}, {"tolerations": [{}, {"key": None}]}),
        ({"dnsConfig": {"searches": [None]}}, {"dnsConfig": {"searches": [""]}}),
        (
            {"volumes": [{"name": "v", "csi": {"volumeAttributes": {"a": None}}}]},
            {"volumes": [{"name": "v", "csi": {"volumeAttributes": {"a": ""}}}]},
        ),
    ],
)
def test_a_null_in_a_list_is_nothing_of_its_kind(spec: dict[str, Any], expected: dict[str, Any]) -> None:
    assert filled(spec) == expected


def test_an_argument_of_null_is_an_empty_one() -> None:
    assert filled(command=[None, "x"], args=[None]) == {"command": ["", "x"], "args": [""]}


def test_what_has_required_fields_stays_null_and_is_refused_later() -> None:
    container: dict[str, Any] = {
        "name": None,
        "env": [None],
        "ports": [{"containerPort": None}],
        "stdin": None,
        "resources": None,
    }
    assert filled(**container) == container


def test_a_few_required_fields_may_be_nothing() -> None:
    """The value of a header or sysctl, the length of a sleep, a preferred node: upstream requires none of them."""
    headers = {"httpGet": {"port": 80, "httpHeaders": [{"name": "A", "value": None}, {"name": "B"}]}}
    assert filled(livenessProbe=headers)["livenessProbe"]["httpGet"]["httpHeaders"] == [
        {"name": "A", "value": ""},
        {"name": "B", "value": ""},
    ]
    assert filled(lifecycle={"preStop": {"sleep": {}}}) == {"lifecycle": {"preStop": {"sleep": {"seconds": 0}}}}
    preferred = {"weight": 1, "preference": None}
    affinity = {"nodeAffinity": {"preferredDuringSchedulingIgnoredDuringExecution": [preferred]}}
    shown = filled({"affinity": affinity})["affinity"]["nodeAffinity"]
    assert shown["preferredDuringSchedulingIgnoredDuringExecution"] == [{"weight": 1, "preference": {}}]


def test_what_does_not_fit_the_type_is_left_alone() -> None:
    odd = {
        "metadata": {"labels": [None], "managedFields": [{"fieldsV1": {"f:a": None}}], "nope": {"x": None}},
        "spec": [None],
    }
    assert without_nulls(odd, core_v1.Pod) == odd
