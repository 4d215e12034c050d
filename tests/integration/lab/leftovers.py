"""What a lab could leave on the machine, looked for in every place that it uses."""

from __future__ import annotations

import json
import os
import re
import select
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.lab.janitor import STATE_NAME


@dataclass(frozen=True)
class Traces:
    """How to recognize what belongs to one lab, noted while it ran."""

    root: Path
    namespaces: frozenset[str]
    state: dict[str, Any]

    @classmethod
    def of(cls, root: Path) -> Traces:
        """The traces of a running lab."""
        state: dict[str, Any] = json.loads((root / STATE_NAME).read_text())
        kinds = ("pid", "mnt", "net", "ipc", "uts")
        namespaces = frozenset(os.readlink(f"/proc/{state['first']}/ns/{kind}") for kind in kinds)
        return cls(root, namespaces, state)

    def left(self) -> list[str]:
        """What is still there; empty when the lab is gone without a trace."""
        found = [str(self.root)] if self.root.exists() else []
        found += [directory for directory in self.state["cgroups"] if Path(directory).exists()]
        found += [line for line in Path("/proc/self/mountinfo").read_text().splitlines() if str(self.root) in line]
        for namespace in Path("/proc").glob("[0-9]*/ns/*"):
            process = namespace.parents[1]
            try:
                if os.readlink(namespace) not in self.namespaces or _is_zombie(process):
                    continue
                if not self._is_of_another_lab(process):
                    found.append(f"{namespace}: {(process / 'cmdline').read_text()}")
            except OSError:
                continue
        return found

    def _is_of_another_lab(self, process: Path) -> bool:
        """The number of a namespace that is gone is given to the next new one, such as a container next door has."""
        labs = set(re.findall(r"/lab-([0-9a-f]+)", (process / "cgroup").read_text()))
        return bool(labs) and self.root.name not in labs

    def wait_for_janitor(self, timeout_seconds: float) -> bool:
        """Whether the janitor has ended in time; it is not our child, so its pidfd is what can be waited for."""
        try:
            pidfd = os.pidfd_open(self.state["janitor"])
        except ProcessLookupError:
            return True
        try:
            return bool(select.select([pidfd], [], [], timeout_seconds)[0])
        finally:
            os.close(pidfd)


def _is_zombie(process: Path) -> bool:
    """Whether it is dead and only waits for the machine's init to collect its status."""
    return (process / "stat").read_text().rpartition(")")[2].split()[0] == "Z"
