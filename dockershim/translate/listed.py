"""What a line of Docker's list says, also where nothing else does: for a container that Docker cannot inspect.

Pure. After a power cut an image or container may have lost what only the inspect answer shows, and is still there and
has to be removed by somebody, who must see it first. Upstream counterpart: containerd's recovery, which shows what it
cannot load as unknown; here the list knows whether it runs.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from cri_proto import runtime_v1 as cri
from dockershim.translate.views import ContainerView, kind_of

_EXITED = re.compile(r"^Exited \((\d{1,3})\)")
UNKNOWN_EXIT_CODE = 255
"""Of an end of which nothing else is known: it must not pass for a success."""


def kind_of_listed(line: Mapping[str, Any]) -> str:
    """Sandbox, container, or "" for what is not ours."""
    return kind_of(line.get("Names") or (), line["Labels"])


def is_running(line: Mapping[str, Any]) -> bool:
    """Whether it has processes, paused ones too."""
    return line.get("State") in ("running", "paused", "restarting")


def has_run_unseen(view: ContainerView, line: Mapping[str, Any]) -> bool:
    """Whether one that was created only has run since."""
    return view.status.state == cri.ContainerState.CONTAINER_CREATED and line.get("State") != "created"


def listed_exit_code(line: Mapping[str, Any]) -> int:
    """How a container ended that does not run."""
    told = _EXITED.match(str(line.get("Status") or ""))
    return int(told[1]) if told else UNKNOWN_EXIT_CODE


def not_inspected(trouble: str) -> str:
    """What people are told of a container that is shown without an inspect answer."""
    return f"Docker cannot inspect it: {trouble}"


def listed_as_inspected(line: Mapping[str, Any], running: bool, trouble: str) -> dict[str, Any]:
    """The part of an inspect answer that a view is made of. `trouble` is why there is no real one."""
    created = datetime.fromtimestamp(int(line.get("Created") or 0), UTC).isoformat()
    state: dict[str, Any] = {"Running": running, "StartedAt": created}
    if not running:
        state |= {"FinishedAt": created, "ExitCode": listed_exit_code(line)}
    return {
        "Id": str(line["Id"]),
        "Name": next((name for name in line.get("Names") or () if name.count("/") == 1), ""),  # the others are links
        "Created": created,
        "Image": line.get("ImageID"),
        "Config": {"Image": line.get("Image"), "Labels": line.get("Labels")},
        "HostConfig": line.get("HostConfig") or {},
        "State": {**state, "Error": not_inspected(trouble)},
    }
