"""A lab's private view of the machine's cgroups, for cgroup v1, hybrid and v2 machines.

The lab's first process moves to a directory of its own in every hierarchy and unshares the cgroup namespace; the
hierarchies are then mounted afresh inside the lab, rooted at that directory. `/kubepods` in a lab is `<lab
directory>/kubepods` on the machine. On v1 the directory lies below the cgroup of whoever starts the lab, so limits
set on the tests hold for the lab too. The machine's own mounts are only read.
"""

from __future__ import annotations

import contextlib
import errno
import os
import time
from dataclasses import dataclass
from pathlib import Path

from tests.lab import kernel

MOUNT_POINT = Path("/sys/fs/cgroup")
REMOVE_WITHIN_SECONDS = 10.0


@dataclass(frozen=True)
class Hierarchy:
    """One mounted cgroup hierarchy and the lab's directory in it."""

    mount_point: str
    kind: str
    options: str
    directory: str


def plan(name: str, mounts: str, own_cgroups: str) -> tuple[Hierarchy, ...]:
    """The hierarchies of a machine and the directory for a lab in each; pure.

    `mounts` is /proc/self/mounts, `own_cgroups` is /proc/self/cgroup.
    """
    own: dict[frozenset[str], str] = {}
    for line in own_cgroups.splitlines():
        _, listed, path = line.split(":", 2)
        own[frozenset(listed.split(","))] = path
    found: dict[str, Hierarchy] = {}
    for line in mounts.splitlines():
        _, mount_point, kind, options, *_ = line.split(" ")
        if not Path(mount_point).is_relative_to(MOUNT_POINT):
            continue
        if kind == "cgroup2":
            found[mount_point] = Hierarchy(mount_point, kind, "", f"{mount_point}/{name}")
        elif kind == "cgroup":
            for names, path in own.items():
                if names != {""} and names <= set(options.split(",")):
                    directory = os.path.normpath(f"{mount_point}/{path.lstrip('/')}/{name}")
                    found[mount_point] = Hierarchy(mount_point, kind, ",".join(sorted(names)), directory)
    return tuple(found.values())


def is_unified(hierarchies: tuple[Hierarchy, ...]) -> bool:
    """Whether cgroup v2 is what the machine uses, and not an empty mount beside v1."""
    return [entry.kind for entry in hierarchies] == ["cgroup2"]


def create(hierarchies: tuple[Hierarchy, ...]) -> None:
    """Make the lab's directories; a cpuset one gets its parent's processors, else no process could enter."""
    for entry in hierarchies:
        directory = Path(entry.directory)
        directory.mkdir(exist_ok=True)
        if "cpuset" in entry.options.split(","):
            for file in ("cpuset.cpus", "cpuset.mems"):
                (directory / file).write_text((directory.parent / file).read_text())


def enter(hierarchies: tuple[Hierarchy, ...]) -> None:
    """Move the calling process into the lab's directories."""
    for entry in hierarchies:
        (Path(entry.directory) / "cgroup.procs").write_text("0")


def mount_inside(hierarchies: tuple[Hierarchy, ...]) -> None:
    """Mount the hierarchies in the calling process' private mount namespace, after it unshared the cgroup namespace."""
    flags = kernel.MS_NOSUID | kernel.MS_NODEV | kernel.MS_NOEXEC
    if is_unified(hierarchies):
        kernel.mount("cgroup2", str(MOUNT_POINT), "cgroup2", flags)
        _leave_root(MOUNT_POINT)
        return
    kernel.mount("tmpfs", str(MOUNT_POINT), "tmpfs", flags, "mode=755")
    for entry in hierarchies:
        Path(entry.mount_point).mkdir(parents=True)
        kernel.mount(entry.kind, entry.mount_point, entry.kind, flags, entry.options)


def _leave_root(root: Path) -> None:
    """On v2 a cgroup with processes cannot hand out controllers: move to a child, then enable all for the others."""
    (root / "init").mkdir(exist_ok=True)
    (root / "init" / "cgroup.procs").write_text("0")
    for controller in (root / "cgroup.controllers").read_text().split():
        with contextlib.suppress(OSError):
            (root / "cgroup.subtree_control").write_text(f"+{controller}")


def remove(directories: list[str]) -> list[str]:
    """Remove the lab's directories with all below; the processes must be dead or dying. Returns what is still there."""
    deadline = time.monotonic() + REMOVE_WITHIN_SECONDS
    left = [directory for directory in directories if not _remove_tree(Path(directory))]
    while left and time.monotonic() < deadline:
        time.sleep(0.02)
        left = [directory for directory in left if not _remove_tree(Path(directory))]
    return left


def _remove_tree(directory: Path) -> bool:
    for parent, _, _ in os.walk(directory, topdown=False):
        try:
            os.rmdir(parent)
        except OSError as error:
            if error.errno != errno.ENOENT:
                return False
    return not directory.exists()
