"""Everything that the API server would refuse in a volume is named, with its place and what would be right."""

from typing import Any

import pytest

from kubelet_py.core.name_rules import DNS_LABEL_MESSAGE
from tests.unit.kubelet_py.core.pod_builder import NO_QUANTITY, a_pod, problems_of

BAD_MODE = "must be a number between 0 and 0777 (octal), both inclusive"


@pytest.mark.parametrize(
    ("volume", "problem"),
    [
        ({"name": ""}, "name: Required value"),
        ({"name": "A"}, f'name: Invalid value: "A": {DNS_LABEL_MESSAGE}'),
        (
            {"emptyDir": {}, "hostPath": {"path": "/x"}},
            ": Forbidden: may not specify more than 1 volume type, found emptyDir, hostPath",
        ),
        (
            {"emptyDir": {"medium": "Tape"}},
            (
                'emptyDir.medium: Unsupported value: "Tape": supported values: "", "Memory", "HugePages", '
                '"HugePages-<size>"'
            ),
        ),
        ({"emptyDir": {"sizeLimit": "x"}}, f'emptyDir.sizeLimit: Invalid value: "x": {NO_QUANTITY}'),
        (
            {"emptyDir": {"sizeLimit": "-1"}},
            "emptyDir.sizeLimit: Forbidden: SizeLimit field must be a valid resource quantity",
        ),
        ({"hostPath": {"path": ""}}, "hostPath.path: Required value"),
        ({"hostPath": {"path": "/a/../b"}}, "hostPath.path: Invalid value: \"/a/../b\": must not contain '..'"),
        (
            {"hostPath": {"path": "/a", "type": "Dir"}},
            (
                'hostPath.type: Unsupported value: "Dir": supported values: "", "DirectoryOrCreate", '
                '"Directory", "FileOrCreate", "File", "Socket", "CharDevice", "BlockDevice"'
            ),
        ),
        ({"configMap": {}}, "configMap.name: Required value"),
        ({"secret": {}}, "secret.secretName: Required value"),
        (
            {"secret": {"secretName": "s", "defaultMode": 512}},
            f"secret.defaultMode: Invalid value: 512: {BAD_MODE}",
        ),
        (
            {"secret": {"secretName": "s", "items": [{"key": "/", "path": "p"}]}},
            (
                "secret.items[0].key: Invalid value: \"/\": must be 1 to 253 characters, alphanumeric, '-', "
                "'_' or '.', and neither '.' nor '..'"
            ),
        ),
        ({"secret": {"secretName": "s", "items": [{"key": "k", "path": ""}]}}, "secret.items[0].path: Required value"),
        (
            {"secret": {"secretName": "s", "items": [{"key": "k", "path": "/p"}]}},
            'secret.items[0].path: Invalid value: "/p": must be a relative path',
        ),
        (
            {"secret": {"secretName": "s", "items": [{"key": "k", "path": "..p"}]}},
            "secret.items[0].path: Invalid value: \"..p\": must not start with '..'",
        ),
        (
            {"downwardAPI": {"items": [{"path": "p"}]}},
            "downwardAPI.items[0]: Required value: one of fieldRef and resourceFieldRef",
        ),
        (
            {"downwardAPI": {"items": [{"path": "p", "fieldRef": {"fieldPath": "spec.nodeName"}}]}},
            (
                'downwardAPI.items[0].fieldRef.fieldPath: Unsupported value: "spec.nodeName": supported '
                'values: "metadata.name", "metadata.namespace", "metadata.labels", "metadata.annotations", '
                '"metadata.uid"'
            ),
        ),
        (
            {"downwardAPI": {"items": [{"path": "p", "resourceFieldRef": {"resource": "limits.cpu"}}]}},
            "downwardAPI.items[0].resourceFieldRef.containerName: Required value",
        ),
        (
            {"projected": {"sources": [{}]}},
            "projected.sources[0]: Forbidden: must specify exactly one volume type, found none",
        ),
        (
            {"projected": {"sources": [{"configMap": {"items": [{"key": "/", "path": "p"}]}}]}},
            (
                'projected.sources[0].configMap.items[0].key: Invalid value: "/": must be 1 to 253 '
                "characters, alphanumeric, '-', '_' or '.', and neither '.' nor '..'"
            ),
        ),
        (
            {"projected": {"sources": [{"downwardAPI": {"items": [{"path": "p"}]}}]}},
            ("projected.sources[0].downwardAPI.items[0]: Required value: one of fieldRef and resourceFieldRef"),
        ),
        (
            {"projected": {"sources": [{"serviceAccountToken": {"path": "t", "expirationSeconds": 5}}]}},
            (
                "projected.sources[0].serviceAccountToken.expirationSeconds: Invalid value: 5: must be "
                "greater than or equal to 600"
            ),
        ),
        (
            {"configMap": {"name": "c", "defaultMode": -1}},
            f"configMap.defaultMode: Invalid value: -1: {BAD_MODE}",
        ),
        (
            {"downwardAPI": {"defaultMode": 512}},
            f"downwardAPI.defaultMode: Invalid value: 512: {BAD_MODE}",
        ),
        (
            {"projected": {"sources": [], "defaultMode": 512}},
            f"projected.defaultMode: Invalid value: 512: {BAD_MODE}",
        ),
        (
            {"secret": {"secretName": "s", "items": [{"key": "k", "path": "p", "mode": 512}]}},
            f"secret.items[0].mode: Invalid value: 512: {BAD_MODE}",
        ),
        (
            {"downwardAPI": {"items": [{"path": "p", "mode": 512, "fieldRef": {"fieldPath": "metadata.uid"}}]}},
            f"downwardAPI.items[0].mode: Invalid value: 512: {BAD_MODE}",
        ),
        (
            {"downwardAPI": {"items": [{"path": "", "fieldRef": {"fieldPath": "metadata.uid"}}]}},
            "downwardAPI.items[0].path: Required value",
        ),
        (
            {"downwardAPI": {"items": [{"path": "p", "fieldRef": {"fieldPath": "metadata.labels['x"}}]}},
            (
                'downwardAPI.items[0].fieldRef.fieldPath: Unsupported value: "metadata.labels[\'x": supported values: '
                '"metadata.name", "metadata.namespace", "metadata.labels", "metadata.annotations", "metadata.uid"'
            ),
        ),
        (
            {"downwardAPI": {"items": [{"path": "p", "resourceFieldRef": {"resource": "", "containerName": "c"}}]}},
            "downwardAPI.items[0].resourceFieldRef.resource: Required value",
        ),
        (
            {"projected": {"sources": [{"configMap": {"name": "c"}, "secret": {"name": "s"}}]}},
            "projected.sources[0]: Forbidden: must specify exactly one volume type, found configMap, secret",
        ),
        (
            {"projected": {"sources": [{"serviceAccountToken": {"path": ""}}]}},
            "projected.sources[0].serviceAccountToken.path: Required value",
        ),
        ({"image": {}}, "image.reference: Required value"),
        (
            {"image": {"reference": "a", "pullPolicy": "X"}},
            ('image.pullPolicy: Unsupported value: "X": supported values: "Always", "IfNotPresent", "Never"'),
        ),
        ({"nfs": {"server": "s", "path": ""}}, "nfs.path: Required value"),
        ({"persistentVolumeClaim": {"claimName": ""}}, "persistentVolumeClaim.claimName: Required value"),
    ],
)
def test_volumes(volume: dict[str, Any], problem: str) -> None:
    """One thing wrong is one problem, with its place."""
    (found,) = problems_of(a_pod(volumes=[{"name": "v", **volume}]))
    assert found.removeprefix("spec.volumes[0]").removeprefix(".") == problem


@pytest.mark.parametrize(
    "volume",
    [
        {"emptyDir": {"sizeLimit": "0"}},
        *({"emptyDir": {"medium": medium}} for medium in ("", "Memory", "HugePages", "HugePages-1Gi")),
        *({"image": {"reference": "a", "pullPolicy": policy}} for policy in ("Always", "IfNotPresent", "Never")),
        *({"secret": {"secretName": "s", "defaultMode": mode}} for mode in (0, 0o777)),
        {"downwardAPI": {"items": [{"path": "p", "fieldRef": {"fieldPath": "metadata.labels['x']"}}]}},
        {"projected": {"sources": [{"serviceAccountToken": {"path": "t", "expirationSeconds": 600}}]}},
    ],
)
def test_the_last_of_what_is_right(volume: dict[str, Any]) -> None:
    assert problems_of(a_pod(volumes=[{"name": "v", **volume}])) == []


def test_volume_names_are_unique() -> None:
    """The second one is the problem."""
    assert problems_of(a_pod(volumes=[{"name": "v"}, {"name": "v"}])) == ['spec.volumes[1].name: Duplicate value: "v"']
