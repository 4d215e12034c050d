"""The processes of a container: how many there are and what they have open.

Blocking, for threads. A process that ends while it is looked at is counted and has nothing open. Upstream counterpart:
cAdvisor's process metrics.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from dockershim.stats.cgroups import read_text
from dockershim.translate.pod_metrics import ProcessUse
from dockershim.translate.proc_files import soft_open_files_limit


def read_processes(proc: Path, members: Sequence[int], first: int) -> ProcessUse:
    """Look at each process. `first` is the one whose limits count."""
    descriptors = sockets = 0
    for member in members:
        for target in _open_files(f"{proc}/{member}/fd"):
            descriptors += 1
            sockets += target.startswith("socket:")
    limit = soft_open_files_limit(read_text(f"{proc}/{first}/limits"))
    return ProcessUse(len(members), descriptors, sockets, limit)


def _open_files(directory: str) -> list[str]:
    try:
        names = os.listdir(directory)
    except OSError:
        return []
    found = []
    for name in names:
        try:
            found.append(os.readlink(f"{directory}/{name}"))
        except OSError:
            continue
    return found
