"""Where a container's cgroup is, and the reading of its files.

Owns paths below /sys/fs/cgroup and the way to a cgroup by way of a process. Blocking, for threads. Must not know CRI.
Upstream counterpart: containerd's cgroups library. A container's cgroup is believed to be its own only when the path
carries its id, so that a process id that was given out again never lends its numbers.
"""

from __future__ import annotations

import os
from collections.abc import Collection, Iterable
from dataclasses import dataclass, field
from pathlib import Path

from dockershim.translate import cgroup_files
from dockershim.translate.cgroup_files import CgroupUse
from dockershim.translate.proc_files import parse_cgroup_paths

LINKS_OF_A_LEAF = 2
"""Of a directory without directories: its name, and its own "."; each below has a ".." more."""
_READ_BYTES = 64 * 1024


@dataclass(frozen=True, slots=True)
class CgroupPlace:
    """The directories of one cgroup by controller; with cgroup v2 there is one, under the empty name."""

    directories: dict[str, str]

    def parent(self) -> CgroupPlace:
        """The cgroup above."""
        return CgroupPlace({name: os.path.dirname(path) for name, path in self.directories.items()})

    @property
    def name(self) -> str:
        """The last part of its path."""
        return os.path.basename(next(iter(self.directories.values()), ""))


@dataclass(slots=True)
class CgroupReader:
    """Finds and reads cgroups. Places are remembered: an id's cgroup does not move."""

    root: Path = Path("/sys/fs/cgroup")
    proc: Path = Path("/proc")
    _places: dict[str, CgroupPlace] = field(default_factory=dict)
    _unified: bool | None = None

    @property
    def unified(self) -> bool:
        """Whether this host has cgroup v2 alone."""
        if self._unified is None:
            self._unified = (self.root / "cgroup.controllers").exists()
        return self._unified

    def locate(self, container_id: str, pid: int) -> CgroupPlace | None:
        """The cgroup of a container by its first process; None when it cannot be told."""
        place = self._places.get(container_id)
        if place is None and pid > 0:
            place = self._look_up(container_id, pid)
            if place is not None:
                self._places[container_id] = place
        return place

    def retain(self, container_ids: Collection[str]) -> None:
        """Forget the places of all others."""
        self._places = {key: place for key, place in self._places.items() if key in container_ids}

    def _look_up(self, container_id: str, pid: int) -> CgroupPlace | None:
        paths = parse_cgroup_paths(read_text(f"{self.proc}/{pid}/cgroup"))
        if self.unified:
            paths = {name: path for name, path in paths.items() if not name}
        else:
            paths = {name: path for name, path in paths.items() if name and "=" not in name}
        found = {
            name: os.path.join(self.root, name, path.lstrip("/")).rstrip("/")
            for name, path in paths.items()
            if container_id in os.path.basename(path)
        }
        return CgroupPlace(found) if found else None

    def read(self, place: CgroupPlace, *, everything: bool = False) -> CgroupUse:
        """What the kernel counts of a cgroup now: processor, memory, swap, pressure; or all there is."""
        if self.unified:
            names = cgroup_files.V2_FILES + (cgroup_files.V2_MORE_FILES if everything else ())
        else:
            names = cgroup_files.V1_FILES + (cgroup_files.V1_MORE_FILES if everything else ())
        files = self._read_files(place, names)
        if everything:
            files |= self._read_files(place, self._huge_page_files(place))
        return cgroup_files.from_v2(files) if self.unified else cgroup_files.from_v1(files)

    def processes(self, place: CgroupPlace) -> list[int]:
        """The processes in a cgroup and in those below: an init system in a container moves all of them there."""
        pending = [self._directory(place, "pids.current") or next(iter(place.directories.values()), "")]
        found: set[int] = set()  # one that moves meanwhile is seen twice
        while pending:
            directory = pending.pop()
            found.update(int(line) for line in read_text(f"{directory}/cgroup.procs").split())
            pending += _directories_below(directory)
        return sorted(found)

    def _read_files(self, place: CgroupPlace, names: Iterable[str]) -> dict[str, str]:
        files = {}
        for name in names:
            directory = self._directory(place, name)
            if directory:
                text = read_text(f"{directory}/{name}")
                if text:
                    files[name] = text
        return files

    def _directory(self, place: CgroupPlace, name: str) -> str:
        return place.directories.get("" if self.unified else name.partition(".")[0], "")

    def _huge_page_files(self, place: CgroupPlace) -> list[str]:
        directory = self._directory(place, "hugetlb.")
        try:
            return [name for name in os.listdir(directory) if name.startswith("hugetlb.")] if directory else []
        except OSError:
            return []


def _directories_below(directory: str) -> list[str]:
    try:
        if os.stat(directory).st_nlink == LINKS_OF_A_LEAF:  # nearly all: the dozens of files are not listed then
            return []
        with os.scandir(directory) as entries:
            return [entry.path for entry in entries if entry.is_dir(follow_symlinks=False)]
    except OSError:
        return []


def read_text(path: str) -> str:
    """A small file of the kernel in whole; empty when it is not there, went away meanwhile, or is not supported."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return ""
    try:
        pieces = []
        while piece := os.read(descriptor, _READ_BYTES):
            pieces.append(piece)
        return b"".join(pieces).decode(errors="replace")
    except OSError:
        return ""
    finally:
        os.close(descriptor)
