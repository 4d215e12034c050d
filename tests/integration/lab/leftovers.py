"""What a lab could leave on the machine, looked for in every place that it uses."""

from __future__ import annotations

import contextlib
import json
import os
import re
import select
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.lab.janitor import STATE_NAME


@dataclass(frozen=True)
class Traces:
    """How to recognize what belongs to one lab, noted while it ran."""

    root: Path
    namespaces: frozenset[str]
    outsiders: frozenset[tuple[Path, str]]
    """Processes that were there too and not of the lab, each with its start."""
    state: dict[str, Any]

    @classmethod
    def of(cls, root: Path) -> Traces:
        """The traces of a running lab."""
        state: dict[str, Any] = json.loads((root / STATE_NAME).read_text())
        namespaces = _namespaces_of(Path(f"/proc/{state['first']}"))
        outsiders = frozenset(
            (process, _start_of(process)) for process in _processes() if not namespaces & _namespaces_of(process)
        )
        return cls(root, namespaces, outsiders, state)

    def left(self) -> list[str]:
        """What is still there; empty when the lab is gone without a trace."""
        found = [str(self.root)] if self.root.exists() else []
        found += [directory for directory in self.state["cgroups"] if Path(directory).exists()]
        found += [line for line in Path("/proc/self/mountinfo").read_text().splitlines() if str(self.root) in line]
        for process in _processes():
            with contextlib.suppress(OSError):  # it has just ended
                shared = self.namespaces & _namespaces_of(process)
                if shared and not (_is_zombie(process) or self._is_another(process)):
                    found.append(f"{process} in {', '.join(shared)}: {(process / 'cmdline').read_text()}")
        return found

    def _is_another(self, process: Path) -> bool:
        """The number of a namespace that is gone is given to the next new one, such as a container next door has."""
        if (process, _start_of(process)) in self.outsiders:
            return True
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


def _processes() -> Iterator[Path]:
    return Path("/proc").glob("[0-9]*")


def _namespaces_of(process: Path) -> frozenset[str]:
    """Those that it lives in, not that of its children to come. Empty when it has just ended."""
    try:
        return frozenset(os.readlink(process / "ns" / kind) for kind in ("pid", "mnt", "net", "ipc", "uts"))
    except OSError:
        return frozenset()


def _stat_of(process: Path) -> list[str]:
    """The fields of its status from the third on."""
    return (process / "stat").read_text().rpartition(")")[2].split()


def _is_zombie(process: Path) -> bool:
    """Whether it is dead and only waits for the machine's init to collect its status."""
    return _stat_of(process)[0] == "Z"


def _start_of(process: Path) -> str:
    """When it began, in ticks since the machine did; empty when it has just ended."""
    try:
        return _stat_of(process)[19]
    except OSError:
        return ""
