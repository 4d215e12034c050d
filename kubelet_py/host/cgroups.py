"""Making, limiting and removing cgroups by writing files (the cgroupfs driver), on cgroup v1 and v2.

Owns where the hierarchies are mounted and which file holds what. Names and numbers are `core.cgroup_rules`. Blocking,
but the kernel answers at once. Knows nothing of pods.

Upstream counterpart: pkg/kubelet/cm/cgroup_manager_linux.go and libcontainer's managers. The systemd driver, whose
slices are made over D-Bus, is `systemd_slices`.
"""

import contextlib
import errno
import os
import signal
import time
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Final, Protocol

from kubelet_py.core.cgroup_rules import CgroupDriver, CgroupLimits, cpu_shares_of_weight, cpu_weight_of_shares
from kubelet_py.host.mounts import MountEntry, list_mounts

V2_CONTROLLERS: Final = ("cpu", "cpuset", "memory", "pids", "hugetlb", "io")
DEFAULT_PERIOD_MICROSECONDS: Final = 100_000
_V1_ENDLESS_MEMORY: Final = 2**62
"""Where nothing limits memory, v1 reads as just below 2**63, by the size of a page."""
_KILL_SECONDS: Final = 5.0
_KILL_PAUSE_SECONDS: Final = 0.01
_CONTROLLER_NAMES: Final = frozenset(
    {"cpu", "cpuacct", "cpuset", "memory", "devices", "freezer", "blkio", "pids", "hugetlb", "net_cls", "net_prio",
     "perf_event", "rdma", "misc", "name=systemd"}
)  # fmt: skip


class Tree(Protocol):
    """Cgroups of one driver, by its paths. Blocking; OSError says what was refused."""

    def ensure(self, path: str, limits: CgroupLimits | None = None) -> None:
        """The cgroup exists with these limits."""

    def update(self, path: str, limits: CgroupLimits) -> None:
        """The limits of one that exists, whoever made it."""

    def remove(self, path: str) -> None:
        """It is gone, with all beneath it."""

    def children(self, path: str) -> list[str]:
        """What is right beneath."""

    def limits(self, path: str) -> CgroupLimits | None:
        """CPU and memory as the kernel has them; None where there is no such cgroup."""

    def memory_usage_bytes(self, path: str) -> int | None:
        """In use now."""


Trees = Mapping[CgroupDriver, Tree]


class CgroupTree:
    """Where cgroups are: `unified` is the v2 hierarchy when it rules; else `controllers` has each one of v1.

    `hybrid` is a v2 hierarchy beside those of v1, without controllers: nothing is made there, but runc puts containers
    there too, so what it leaves is removed. Without arguments it is the tree of this machine.
    """

    def __init__(
        self,
        unified: Path | None = None,
        controllers: Mapping[str, Path] | None = None,
        hybrid: Path | None = None,
    ) -> None:
        if unified is None and controllers is None:
            unified, controllers, hybrid = _discover(list_mounts())
        self.unified = unified
        self.controllers: Mapping[str, Path] = controllers or {}
        self.hybrid = hybrid

    @property
    def is_unified(self) -> bool:
        """cgroup v2 rules this machine."""
        return self.unified is not None

    def directories(self, path: str) -> Iterator[Path]:
        """Where a cgroup is in the file system: once on v2, once for each hierarchy on v1."""
        relative = _relative(path)
        roots = [self.unified] if self.unified is not None else dict.fromkeys(self.controllers.values())
        for root in roots:
            yield root / relative if relative else root

    def exists(self, path: str) -> bool:
        """In every hierarchy."""
        return all(directory.is_dir() for directory in self.directories(path))

    def children(self, path: str) -> list[str]:
        """The names of the cgroups right beneath, in whichever hierarchy they are."""
        found: set[str] = set()
        for directory in self.directories(path):
            with contextlib.suppress(FileNotFoundError):
                found.update(entry.name for entry in os.scandir(directory) if entry.is_dir(follow_symlinks=False))
        return sorted(found)

    def pids(self, path: str) -> list[int]:
        """All processes in the cgroup and beneath it."""
        found: set[int] = set()
        for directory in self.directories(path):
            for parent, _, files in os.walk(directory):
                if "cgroup.procs" in files:
                    # A cgroup may vanish while it is read (ENODEV).
                    with contextlib.suppress(OSError):
                        found.update(map(int, Path(parent, "cgroup.procs").read_text().split()))
        return sorted(found)

    def ensure(self, path: str, limits: CgroupLimits | None = None) -> None:
        """The cgroup exists with these limits; what is None there is left as it is. OSError names the file."""
        for directory in self.directories(path):
            if self.unified is not None:
                _make_unified(self.unified, directory)
            else:
                _make_v1(directory)
        if limits is not None:
            self.update(path, limits)

    def update(self, path: str, limits: CgroupLimits) -> None:
        """Write the limits of a cgroup that exists; what no controller of the machine serves is left out."""
        if self.unified is not None:
            directory = next(self.directories(path))
            available = _words(directory / "cgroup.controllers")
            for file, value in unified_files(limits):
                if file.partition(".")[0] in available:
                    _write(directory / file, value)
            for size, amount in limits.hugepages.items():
                _write_where_there(directory / f"hugetlb.{size}.rsvd.max", str(amount))
            return
        for controller, file, value in v1_files(limits):
            if controller in self.controllers:
                _write(self.controllers[controller] / path.strip("/") / file, value)
        for size, amount in limits.hugepages.items() if "hugetlb" in self.controllers else ():
            file_path = self.controllers["hugetlb"] / path.strip("/") / f"hugetlb.{size}.rsvd.limit_in_bytes"
            _write_where_there(file_path, str(amount))

    def limits(self, path: str) -> CgroupLimits | None:
        """CPU and memory as the kernel has them; None where there is no such cgroup."""
        relative = _relative(path)
        if self.unified is not None:
            directory = self.unified / relative
            if not directory.is_dir():
                return None
            weight = _number(directory / "cpu.weight")
            quota, period = [*_words(directory / "cpu.max"), "", ""][:2]
            return CgroupLimits(
                cpu_shares=cpu_shares_of_weight(weight) if weight else None,
                cpu_quota_microseconds=int(quota) if quota.isdecimal() else None,
                cpu_period_microseconds=int(period) if period.isdecimal() else None,
                memory_bytes=_number(directory / "memory.max"),
            )
        found = {name: self.controllers[name] / relative for name in ("cpu", "memory") if name in self.controllers}
        if not all(directory.is_dir() for directory in found.values()):
            return None

        def read(controller: str, file: str) -> int | None:
            return _number(found[controller] / file) if controller in found else None

        memory_bytes = read("memory", "memory.limit_in_bytes")
        has_limit = memory_bytes is not None and memory_bytes < _V1_ENDLESS_MEMORY
        return CgroupLimits(
            cpu_shares=read("cpu", "cpu.shares"),
            cpu_quota_microseconds=read("cpu", "cpu.cfs_quota_us"),
            cpu_period_microseconds=read("cpu", "cpu.cfs_period_us"),
            memory_bytes=memory_bytes if has_limit else None,
        )

    def counts_swap(self, own_cgroup: str) -> bool:
        """The kernel limits swap by cgroup; `own_cgroup` is one below the root of v2, where the root has no limits."""
        if self.unified is not None:
            return (self.unified / _relative(own_cgroup) / "memory.swap.max").exists()
        return "memory" in self.controllers and (self.controllers["memory"] / "memory.memsw.limit_in_bytes").exists()

    def memory_usage_bytes(self, path: str) -> int | None:
        """How much memory is in use in the cgroup and beneath; None where nobody counts it."""
        if self.unified is not None:
            file = self.unified / _relative(path) / "memory.current"
        elif "memory" in self.controllers:
            file = self.controllers["memory"] / _relative(path) / "memory.usage_in_bytes"
        else:
            return None
        try:
            return int(file.read_text())
        except (OSError, ValueError):
            return None

    def remove(self, path: str) -> None:
        """Remove the cgroup and all beneath it; what still runs in it is killed. Absent is fine."""
        for directory in self.directories(path):
            _remove(directory)
        if self.hybrid is not None:
            _remove(self.hybrid / _relative(path))


def discover(mounts: Iterable[MountEntry] | None = None) -> CgroupTree:
    """The tree of this machine, or the one that these mounts make."""
    return CgroupTree(*_discover(list_mounts() if mounts is None else mounts))


def unified_files(limits: CgroupLimits) -> Iterator[tuple[str, str]]:
    """The v2 files of some limits and their content."""
    if limits.cpu_shares is not None:
        yield "cpu.weight", str(cpu_weight_of_shares(limits.cpu_shares))
    if limits.cpu_quota_microseconds is not None:
        quota = limits.cpu_quota_microseconds
        period = limits.cpu_period_microseconds or DEFAULT_PERIOD_MICROSECONDS
        yield "cpu.max", f"{quota if quota > 0 else 'max'} {period}"
    if limits.memory_bytes is not None:
        yield "memory.max", str(limits.memory_bytes) if limits.memory_bytes > 0 else "max"
    if limits.pids is not None:
        yield "pids.max", str(limits.pids) if limits.pids > 0 else "max"
    for size, amount in limits.hugepages.items():
        yield f"hugetlb.{size}.max", str(amount)
    yield from limits.unified.items()


def v1_files(limits: CgroupLimits) -> Iterator[tuple[str, str, str]]:
    """Controller, file and content on v1."""
    if limits.cpu_shares is not None:
        yield "cpu", "cpu.shares", str(limits.cpu_shares)
    if limits.cpu_quota_microseconds is not None:
        yield "cpu", "cpu.cfs_period_us", str(limits.cpu_period_microseconds or DEFAULT_PERIOD_MICROSECONDS)
        yield "cpu", "cpu.cfs_quota_us", str(limits.cpu_quota_microseconds if limits.cpu_quota_microseconds > 0 else -1)
    if limits.memory_bytes is not None:
        yield "memory", "memory.limit_in_bytes", str(limits.memory_bytes if limits.memory_bytes > 0 else -1)
    if limits.pids is not None:
        yield "pids", "pids.max", str(limits.pids) if limits.pids > 0 else "max"
    for size, amount in limits.hugepages.items():
        yield "hugetlb", f"hugetlb.{size}.limit_in_bytes", str(amount)


def _relative(path: str) -> str:
    relative = path.strip("/")
    if ".." in relative.split("/"):
        raise ValueError(f"{path!r} is no cgroup path")
    return relative


def _discover(mounts: Iterable[MountEntry]) -> tuple[Path | None, dict[str, Path], Path | None]:
    """v1 rules as soon as one controller is mounted there: v2 then has none to give."""
    controllers: dict[str, Path] = {}
    unified: Path | None = None
    for entry in mounts:
        if entry.file_system == "cgroup2" and unified is None:
            unified = Path(entry.mount_point)
        elif entry.file_system == "cgroup":
            for option in entry.super_options.split(","):
                if option in _CONTROLLER_NAMES:
                    controllers.setdefault(option, Path(entry.mount_point))
    return (None, controllers, unified) if controllers else (unified, {}, None)


def _make_unified(root: Path, directory: Path) -> None:
    """Every level gives its controllers to the next: a controller that is not passed on has no files there."""
    current = root
    for part in directory.relative_to(root).parts:
        _pass_on_controllers(current)
        current = current / part
        current.mkdir(mode=0o755, exist_ok=True)


def _pass_on_controllers(directory: Path) -> None:
    available = _words(directory / "cgroup.controllers")
    enabled = _words(directory / "cgroup.subtree_control")
    for controller in V2_CONTROLLERS:
        if controller in available and controller not in enabled:
            # One by one: a controller that cannot be passed on (realtime processes, say) does not hold back the others.
            with contextlib.suppress(OSError):
                _write(directory / "cgroup.subtree_control", f"+{controller}")


def _make_v1(directory: Path) -> None:
    try:
        directory.mkdir(mode=0o755)
    except FileExistsError:
        return
    except FileNotFoundError:
        _make_v1(directory.parent)
        directory.mkdir(mode=0o755, exist_ok=True)
    # A new cpuset holds nothing, and nothing can run in it.
    for name in ("cpuset.cpus", "cpuset.mems"):
        with contextlib.suppress(FileNotFoundError):
            if not (directory / name).read_text().strip():
                _write(directory / name, (directory.parent / name).read_text().strip())


def _remove(directory: Path) -> None:
    try:
        os.rmdir(directory)  # the runtime has most often removed all beneath it
    except FileNotFoundError:
        return
    except OSError:
        _remove_with_all_beneath(directory)


def _remove_with_all_beneath(directory: Path) -> None:
    deadline = time.monotonic() + _KILL_SECONDS
    while True:
        try:
            for parent, _, _ in os.walk(directory, topdown=False):
                with contextlib.suppress(FileNotFoundError):
                    os.rmdir(parent)
            return
        except OSError as error:
            if error.errno != errno.EBUSY or time.monotonic() > deadline:
                raise
        _kill_all(directory)
        time.sleep(_KILL_PAUSE_SECONDS)


def _kill_all(directory: Path) -> None:
    with contextlib.suppress(OSError):
        if (directory / "cgroup.kill").exists():
            _write(directory / "cgroup.kill", "1")
            return
    for parent, _, files in os.walk(directory):
        if "cgroup.procs" in files:
            with contextlib.suppress(OSError):
                for pid in map(int, Path(parent, "cgroup.procs").read_text().split()):
                    with contextlib.suppress(ProcessLookupError):
                        os.kill(pid, signal.SIGKILL)


def _write(file: Path, value: str) -> None:
    try:
        with open(file, "w", encoding="ascii") as output:
            output.write(value)
    except OSError as error:
        raise OSError(error.errno, f"cannot write {value!r}: {error.strerror}", str(file)) from error


def _write_where_there(file: Path, value: str) -> None:
    """For what a kernel may be too old for: that pages are counted when they are reserved, and not only when used."""
    if file.exists():
        _write(file, value)


def _number(file: Path) -> int | None:
    """What one file holds; None for what has no limit, and where no controller has such a file."""
    word = next(iter(_words(file)), "")
    return int(word) if word.isdecimal() else None


def _words(file: Path) -> list[str]:
    try:
        return file.read_text().split()
    except OSError:
        return []
