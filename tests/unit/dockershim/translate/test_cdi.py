"""Which edits CDI devices stand for."""

from __future__ import annotations

from typing import Any

import pytest

from dockershim.errors import InvalidArgument
from dockershim.translate.cdi import CdiSpecification, requested_edits


def specification(path: str = "/etc/cdi/a.json", directory: int = 0, **devices: dict[str, Any]) -> CdiSpecification:
    """A file with devices of vendor.com/class by name, each with its edits; `every` are those for all."""
    every = devices.pop("every", {})
    listed = [{"name": name, "containerEdits": edits} for name, edits in devices.items()]
    return CdiSpecification(path, directory, {"kind": "vendor.com/class", "containerEdits": every, "devices": listed})


def test_edits_for_all_come_once_and_first() -> None:
    found = [specification(every={"env": ["ALL=1"]}, a={"env": ["A=1"]}, b={"env": ["B=1"], "additionalGids": [0, 7]})]
    edits = requested_edits(["vendor.com/class=b", "vendor.com/class=a"], found)
    assert edits == {"env": ["ALL=1", "B=1", "A=1"], "additionalGids": [7]}


def test_mounts_and_hooks_are_said_as_oci_says_them() -> None:
    mount = {"hostPath": "/lib/x", "containerPath": "/x", "options": ["ro", "nosuid"]}
    hook = {"hookName": "createContainer", "path": "/bin/hook", "args": ["hook", "-v"], "timeout": 3}
    edits = requested_edits(["vendor.com/class=a"], [specification(a={"mounts": [mount], "hooks": [hook]})])
    assert edits["mounts"] == [
        {"destination": "/x", "source": "/lib/x", "type": "bind", "options": ["ro", "nosuid", "bind"]}
    ]
    assert edits["hooks"] == [hook]


def test_the_later_directory_counts() -> None:
    found = [
        specification("/etc/cdi/a.json", 0, a={"env": ["FROM=etc"]}),
        specification("/var/run/cdi/a.json", 1, a={"env": ["FROM=run"]}),
    ]
    assert requested_edits(["vendor.com/class=a"], found) == {"env": ["FROM=run"]}


@pytest.mark.parametrize(
    ("name", "edits", "said"),
    [
        ("class=a", {}, "want vendor/class=device"),
        ("vendor.com/class", {}, "want vendor/class=device"),
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
        requested_edits([name], [specification(a=edits)], ["/etc/cdi/x (bad)"])
    assert "config.CDI_devices[0].name" in str(refusal.value)


def test_one_device_in_two_places_is_nobodys() -> None:
    found = [specification("/etc/cdi/a.json", a={}), specification("/etc/cdi/b.json", a={})]
    with pytest.raises(InvalidArgument, match=r"more than one place: /etc/cdi/a.json, /etc/cdi/b.json"):
        requested_edits(["vendor.com/class=a"], found)
