"""What Docker says while it pulls, read for two things: does anything move, and whose turn is it.

Pure. Upstream counterpart: the progress reporter of cri-dockerd's libdocker, which looks whether the last line differs
from the one before. Deliberate differences: bytes count, whichever layer they are of; a count-down to another attempt
is no progress; while a layer is checked or extracted nobody waits for the registry.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

_NO_PROGRESS = ("Retrying in", "Waiting")
_LOCAL = ("Verifying Checksum", "Extracting")


@dataclass(frozen=True, slots=True)
class PullProgress:
    """How far a pull is. `mark` grows with every byte or step done, so that a standstill is seen.

    `local` while this machine works on what has arrived, for which no registry can be blamed.
    """

    mark: int
    layer_count: int
    text: str
    local: bool = False


class PullWatch:
    """Reads the lines of one pull."""

    def __init__(self) -> None:
        self._steps: dict[str, tuple[str, int]] = {}
        self._mark = 0

    def feed(self, line: Mapping[str, Any]) -> PullProgress | None:
        """The progress that a line makes; None when it makes none."""
        layer, status = str(line.get("id", "")), str(line.get("status", ""))
        done = int((line.get("progressDetail") or {}).get("current") or 0)
        step = (status, done)
        if status.startswith(_NO_PROGRESS):
            self._steps[layer] = (status.split(" ")[0], 0)
            return None
        if self._steps.get(layer) == step:
            return None
        self._steps[layer] = step
        self._mark += 1
        local = any(current.startswith(_LOCAL) for current, _ in self._steps.values())
        text = f"{layer}: {status}" if layer else status
        return PullProgress(self._mark, len(self._steps), text, local)
