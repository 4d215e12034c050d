"""CDI specifications as they lie on a host."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest

from dockershim.cdi import container_edits
from dockershim.errors import InvalidArgument

NAME = "vendor.com/class=a"


def text(**edits: Any) -> str:
    return json.dumps({"kind": "vendor.com/class", "devices": [{"name": "a", "containerEdits": edits}]})


async def test_files_of_both_kinds_and_directories_are_read_and_others_are_not(tmp_path: Path) -> None:
    """A file that cannot be read costs nobody anything but its own devices, whose refusal names it."""
    (tmp_path / "a.yaml").write_text("kind: vendor.com/class\ndevices: [{name: a, containerEdits: {env: [A=yaml]}}]\n")
    (tmp_path / "b.txt").write_text("{")
    (tmp_path / "c.json").write_text("{")
    (tmp_path / "d.yml").write_text("[1")
    (tmp_path / "e.json").write_text("[]")
    directories = (tmp_path / "missing", tmp_path)
    assert await container_edits({NAME: "f"}, directories) == {"env": ["A=yaml"]}
    with pytest.raises(InvalidArgument, match=r"c\.json .*d\.yml .*e\.json"):
        await container_edits({"vendor.com/class=b": "f"}, directories)


async def test_a_nodes_kind_and_numbers_are_the_hosts(tmp_path: Path) -> None:
    """Where they are not said: of a device, of a pipe; what is said stays."""
    os.mkfifo(tmp_path / "pipe")
    nodes: list[dict[str, Any]] = [
        {"path": "/dev/mine", "hostPath": "/dev/null"},
        {"path": str(tmp_path / "pipe")},
        {"path": "/dev/said", "type": "b", "major": 7, "minor": 9},
    ]
    (tmp_path / "a.json").write_text(text(deviceNodes=nodes))
    edits = await container_edits({NAME: "f"}, (tmp_path,))
    assert edits["deviceNodes"] == [
        {**nodes[0], "type": "c", "major": 1, "minor": 3},
        {**nodes[1], "type": "p"},
        nodes[2],
    ]


@pytest.mark.parametrize(("path", "said"), [("/no/such", "No such file"), ("/etc", "is no device")])
async def test_a_node_that_is_none_is_refused(tmp_path: Path, path: str, said: str) -> None:
    (tmp_path / "a.json").write_text(text(deviceNodes=[{"path": path}]))
    with pytest.raises(InvalidArgument, match=said):
        await container_edits({NAME: "f"}, (tmp_path,))
