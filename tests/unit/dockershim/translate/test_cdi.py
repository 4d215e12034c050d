"""Which edits CDI devices stand for."""

from __future__ import annotations

from typing import Any

import pytest

from cri_proto import runtime_v1 as cri
from dockershim.errors import InvalidArgument
from dockershim.translate.cdi import CdiSpecification, requested_edits, wanted_devices
from dockershim.translate.container_spec import CDI_API
from tests.unit.dockershim.translate.test_specs import container_body


def asking(*names: str, **annotations: str) -> cri.ContainerConfig:
    """By the field, and by annotations that begin as those of devices do."""
    return cri.ContainerConfig(
        metadata=cri.ContainerMetadata(name="main"),
        CDI_devices=[cri.CDIDevice(name=name) for name in names],
        annotations={
            "cdi.k8s.io": "none",
            "other": "v/c=none",
            **{f"cdi.k8s.io/{k}": v for k, v in annotations.items()},
        },
    )


def test_devices_of_field_and_annotations_are_asked_for_once() -> None:
    """The kubelet sends what a device plugin said in either way, and may send it in both."""
    config = asking("v/c=a", "v/c=b", "v/c=a", z="v/c=z", p="v/c=b,nvidia.com/gpu=GPU-1:0")
    assert wanted_devices(config) == {
        "v/c=a": "config.CDI_devices[0].name",
        "v/c=b": "config.CDI_devices[1].name",
        "nvidia.com/gpu=GPU-1:0": "config.annotations['cdi.k8s.io/p']",
        "v/c=z": "config.annotations['cdi.k8s.io/z']",
    }
    requests = container_body(config, api_version=CDI_API)["HostConfig"]["DeviceRequests"]
    assert requests == [{"Driver": "cdi", "DeviceIDs": ["v/c=a", "v/c=b", "nvidia.com/gpu=GPU-1:0", "v/c=z"]}]


@pytest.mark.parametrize(
    "name", ["", "c=a", "v/c", "v/c=", "1v/c=a", "v/c/d=a", "v-/c=a", "v/c=a:", "v/c=a ", "v/c=a\n"]
)
def test_what_is_no_device_is_refused_where_it_stands(name: str) -> None:
    with pytest.raises(InvalidArgument, match=r"^config\.CDI_devices\[1\]\.name: .* want vendor/class=device"):
        wanted_devices(asking("v/c=a", name))
    with pytest.raises(InvalidArgument, match=r"^config\.annotations\['cdi\.k8s\.io/p'\]: .* want vendor/class=device"):
        wanted_devices(asking(p=f"v/c=a,{name}"))


NAMED = {"vendor.com/class=a": "config.CDI_devices[0].name"}


def specification(path: str = "/etc/cdi/a.json", directory: int = 0, **devices: dict[str, Any]) -> CdiSpecification:
    """A file with devices of vendor.com/class by name, each with its edits; `every` are those for all."""
    every = devices.pop("every", {})
    listed = [{"name": name, "containerEdits": edits} for name, edits in devices.items()]
    return CdiSpecification(path, directory, {"kind": "vendor.com/class", "containerEdits": every, "devices": listed})


def test_edits_for_all_come_once_and_first() -> None:
    found = [specification(every={"env": ["ALL=1"]}, a={"env": ["A=1"]}, b={"env": ["B=1"], "additionalGids": [0, 7]})]
    edits = requested_edits({"vendor.com/class=b": "f", "vendor.com/class=a": "g"}, found)
    assert edits == {"env": ["ALL=1", "B=1", "A=1"], "additionalGids": [7]}


def test_mounts_and_hooks_are_said_as_oci_says_them() -> None:
    mount = {"hostPath": "/lib/x", "containerPath": "/x", "options": ["ro", "nosuid"]}
    hook = {"hookName": "createContainer", "path": "/bin/hook", "args": ["hook", "-v"], "timeout": 3}
    edits = requested_edits(NAMED, [specification(a={"mounts": [mount], "hooks": [hook]})])
    assert edits["mounts"] == [
        {"destination": "/x", "source": "/lib/x", "type": "bind", "options": ["ro", "nosuid", "bind"]}
    ]
    assert edits["hooks"] == [hook]


def test_the_later_directory_counts() -> None:
    found = [
        specification("/etc/cdi/a.json", 0, a={"env": ["FROM=etc"]}),
        specification("/var/run/cdi/a.json", 1, a={"env": ["FROM=run"]}),
    ]
    assert requested_edits(NAMED, found) == {"env": ["FROM=run"]}


@pytest.mark.parametrize(
    ("name", "edits", "said"),
    [
        ("vendor.com/class=b", {}, r"no CDI specification on this node has .*; cannot be read: /etc/cdi/x"),
        ("vendor.com/other=a", {}, "no CDI specification"),
        ("vendor.com/class=a", {"intelRdt": {}}, "containerEdits.intelRdt"),
        ("vendor.com/class=a", {"hooks": [{"hookName": "never", "path": "/x"}]}, "never"),
        ("vendor.com/class=a", {"deviceNodes": [{}]}, "path"),
        ("vendor.com/class=a", {"deviceNodes": ["/dev/x"]}, "a.json cannot be used"),
        ("vendor.com/class=a", {"mounts": [{"hostPath": "/x", "containerPath": ""}]}, "want a text"),
        ("vendor.com/class=a", {"env": [5]}, "want a text"),
        ("vendor.com/class=a", {"additionalGids": ["x"]}, "a.json cannot be used"),
        ("vendor.com/class=a", ["env"], "a.json cannot be used"),
    ],
)
def test_what_cannot_be_done_is_refused_by_name(name: str, edits: Any, said: str) -> None:
    with pytest.raises(InvalidArgument, match=said) as refusal:
        requested_edits({name: "config.CDI_devices[0].name"}, [specification(a=edits)], ["/etc/cdi/x (bad)"])
    assert "config.CDI_devices[0].name" in str(refusal.value)


def test_one_device_in_two_places_is_nobodys() -> None:
    found = [specification("/etc/cdi/a.json", a={}), specification("/etc/cdi/b.json", a={})]
    with pytest.raises(InvalidArgument, match=r"more than one place: /etc/cdi/a.json, /etc/cdi/b.json"):
        requested_edits(NAMED, found)
