"""Which files of a container's log are kept, compressed and removed when it has grown too long.

A log is `<n>.log`; what was rotated from it is `<n>.log.<YYYYMMDD-HHMMSS>`, compressed `....gz`, and while that is
being written `....gz.tmp`. Pure: names in, names out; their order is that of time.

Upstream counterpart: pkg/kubelet/logs/container_log_manager.go. Difference: the time in the names is UTC, so that they
sort in its order whatever the clock's zone does.
"""

import re
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final

COMPRESSED_SUFFIX: Final = ".gz"
PARTIAL_SUFFIX: Final = ".tmp"
_LOG_NAME: Final = re.compile(r"\d+\.log")
_ROTATED: Final = re.compile(r"\.\d{8}-\d{6}(\.gz)?")
# What a crash can leave: a compressed file that was not finished, under upstream's name for it or ours.
_PARTIAL: Final = re.compile(r"\.\d{8}-\d{6}(\.gz)?\.tmp")


@dataclass(frozen=True, slots=True)
class RotationPlan:
    """What becomes of the rotated files of one log before it is rotated once more, oldest first."""

    removed: tuple[str, ...]
    compressed: tuple[str, ...]


def is_log_name(name: str) -> bool:
    """Whether a file is the log that a run of a container writes."""
    return _LOG_NAME.fullmatch(name) is not None


def restart_count_of(log_name: str) -> int:
    """The run that writes it."""
    return int(log_name.removesuffix(".log"))


def lost_log(names: Iterable[str], known_run: int) -> tuple[str | None, int]:
    """The log of the newest run, if it is gone, and that run; -1 for none.

    `names` are all files of a container's directory, `known_run` is the newest run that was seen there before. That a
    run had a log is told by what was rotated from it, too.
    """
    present = rotated = -1
    for name in names:
        count, dot_log, rest = name.partition(".log")
        if not is_log_name(count + dot_log):
            continue
        if rest:
            rotated = max(rotated, int(count))
        else:
            present = max(present, int(count))
    newest = max(present, rotated, known_run)
    return (f"{newest}.log" if newest > present else None), newest


def rotated_name(log_name: str, at_seconds: float) -> str:
    """What the log is called after its rotation at that time (seconds since the epoch)."""
    return f"{log_name}.{datetime.fromtimestamp(at_seconds, UTC):%Y%m%d-%H%M%S}"


def plan_rotation(log_name: str, names: Iterable[str], max_files: int) -> RotationPlan:
    """`names` are all files of the directory; `max_files` counts the log itself and the file that it becomes."""
    mine = sorted(name for name in names if name.startswith(log_name))
    rotated = [name for name in mine if _ROTATED.fullmatch(name[len(log_name) :])]
    present = set(rotated)
    unused = [name for name in mine if _PARTIAL.fullmatch(name[len(log_name) :])]
    unused += [name for name in rotated if name + COMPRESSED_SUFFIX in present]
    used = [name for name in rotated if name not in unused]
    excess = used[: max(0, len(used) - max(0, max_files - 2))]
    kept = used[len(excess) :]
    return RotationPlan(
        removed=(*unused, *excess),
        compressed=tuple(name for name in kept if not name.endswith(COMPRESSED_SUFFIX)),
    )
