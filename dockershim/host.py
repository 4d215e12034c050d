"""Small things of the host that requests touch: directories, resolv.conf, profiles, cgroup files, processes.

Owns blocking work on local files; the async functions do it in threads. Must not know Docker or the store. Upstream
counterpart: scattered over cri-dockerd's core/. Deliberate difference: a process is killed only while a descriptor
holds on to it and it has been seen to be the right one.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import posixpath
import re
import resource
import select
import signal
import stat
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType

import structlog

from cri_proto import runtime_v1 as cri
from dockershim import oci, scopes
from dockershim.errors import EngineFailed, InvalidArgument
from dockershim.oci.capabilities import CAPABILITIES, bounding_set
from dockershim.oci.instructions import PROGRAM, USER_NAMESPACES_VERB
from dockershim.translate import etc_files
from dockershim.translate.proc_files import parse_cgroup_paths
from dockershim.translate.scope_properties import Property
from dockershim.translate.users import ContainerUser, resolve_user

_log = structlog.get_logger()
_CAP_SYS_RESOURCE = 24
_APPARMOR_LISTING = Path("/sys/kernel/security/apparmor/profiles")
_LOWEST_OOM_SCORE = -1000
_ENDING_MILLISECONDS = 100
_PROFILE_LIMIT_BYTES = 4 * 1024 * 1024
_IDENTITY_FILE_LIMIT_BYTES = 1024 * 1024


# ---- mount sources


async def ensure_mount_sources(mounts: list[tuple[str, str]]) -> None:
    """Make the host directories that do not exist, as containerd does. Pairs of field and path."""
    if mounts:
        await asyncio.to_thread(_ensure_mount_sources, mounts)


def _ensure_mount_sources(mounts: list[tuple[str, str]]) -> None:
    for field, path in mounts:
        try:
            if not os.path.lexists(path):
                os.makedirs(path, mode=0o755, exist_ok=True)
            elif not os.path.exists(path):
                raise InvalidArgument(field, f"{path} is a symbolic link to something that does not exist")
        except OSError as error:
            raise InvalidArgument(field, f"{path} does not exist and cannot be made: {error.strerror}") from error


# ---- log files


async def ensure_log_file(path: str) -> None:
    """An empty log where there is none yet. An empty path means that nobody wants the log."""
    if path:
        await asyncio.to_thread(_ensure_log_file, path)


def _ensure_log_file(path: str) -> None:
    try:
        os.makedirs(os.path.dirname(path), mode=0o755, exist_ok=True)
        os.close(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o640))
    except OSError as error:
        raise EngineFailed(f"cannot make the log file {path}: {error.strerror}") from error


# ---- resolv.conf


async def write_resolv_conf(path: str, dns: cri.DNSConfig) -> None:
    """Put the content in place. Same inode: the containers have the file itself mounted."""
    await asyncio.to_thread(_write_in_place, path, etc_files.render_resolv_conf(dns).encode())


def _write_in_place(path: str, content: bytes) -> None:
    try:
        with open(path, "r+b") as file:
            if file.read() != content:
                file.seek(0)
                file.write(content)
                file.truncate()
    except OSError as error:
        raise EngineFailed(f"cannot write the pod's resolv.conf at {path}: {error.strerror}") from error


# ---- seccomp profiles


async def read_seccomp_profile(profile: cri.SecurityProfile | None, field: str) -> str | None:
    """The text of a local profile as Docker takes it; None when the request names none."""
    if profile is None or profile.profile_type != cri.SecurityProfile.ProfileType.Localhost:
        return None
    path = profile.localhost_ref.removeprefix("localhost/")
    return await asyncio.to_thread(_read_seccomp_profile, path, f"{field}.seccomp.localhost_ref")


def _read_seccomp_profile(path: str, field: str) -> str:
    if not os.path.isabs(path):
        raise InvalidArgument(field, f"{path!r}: want an absolute path")
    try:
        with open(path, "rb") as file:
            data = file.read(_PROFILE_LIMIT_BYTES)
        return json.dumps(json.loads(data), separators=(",", ":"))
    except OSError as error:
        raise InvalidArgument(field, f"cannot read {path}: {error.strerror}") from error
    except ValueError as error:
        raise InvalidArgument(field, f"{path} is no JSON: {error}") from error


# ---- AppArmor profiles


async def require_apparmor_profile(name: str, field: str, listing: Path = _APPARMOR_LISTING) -> None:
    """InvalidArgument when the kernel does not know this profile; where there is no list, Docker finds out.

    Docker says so only when it starts the container, in words that name no profile.
    """
    if not name:
        return
    try:
        lines = await asyncio.to_thread(listing.read_text)
    except OSError:
        return
    if name not in {line.rpartition(" (")[0] for line in lines.splitlines()}:
        raise InvalidArgument(
            f"{field}.apparmor", f"profile {name!r} is not loaded on this host (apparmor_parser loads it)"
        )


# ---- capabilities


def missing_capabilities(proc_self: Path = Path("/proc/self")) -> tuple[str, ...]:
    """Capabilities that this host has and nobody here may hand out: those outside our bounding set."""
    mask = bounding_set((proc_self / "status").read_text())
    return tuple(name for bit, name in enumerate(CAPABILITIES) if not mask >> bit & 1)


# ---- user namespaces


async def user_namespaces_problem(directory: str) -> str:
    """Why containers whose files are in this directory cannot have user namespaces; empty when they can.

    Tried by the program that will do it, in a process of its own since it forks; found out once.
    """
    if directory not in _user_namespaces_problems:
        program = str(Path(oci.__file__).with_name("__main__.py"))
        command = (sys.executable, "-I", "-S", program, USER_NAMESPACES_VERB, directory)
        process = await asyncio.create_subprocess_exec(
            *command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
        )
        output, _ = await process.communicate()
        said = output.decode(errors="replace").strip()
        _user_namespaces_problems[directory] = said or (f"{PROGRAM} failed" if process.returncode else "")
    return _user_namespaces_problems[directory]


_user_namespaces_problems: dict[str, str] = {}


# ---- oom_score_adj


def lowest_oom_score(proc_self: Path = Path("/proc/self")) -> int:
    """The lowest oom_score_adj that this process may set, found by trying; its own value is put back."""
    own = int((proc_self / "oom_score_adj").read_text())
    capabilities = re.search(r"^CapEff:\s*([0-9a-f]+)$", (proc_self / "status").read_text(), re.MULTILINE)
    if capabilities and int(capabilities.group(1), 16) >> _CAP_SYS_RESOURCE & 1:
        return _LOWEST_OOM_SCORE
    low, high = _LOWEST_OOM_SCORE, own  # `high` is permitted
    try:
        while low < high:
            middle = (low + high) // 2
            try:
                (proc_self / "oom_score_adj").write_text(str(middle))
            except PermissionError:
                low = middle + 1
            else:
                high = middle
    finally:
        (proc_self / "oom_score_adj").write_text(str(own))
    return high


async def set_oom_score(container_id: str, pid: int, value: int, cgroup_root: str, field: str) -> None:
    """Give every process of a container this score; InvalidArgument where the host does not let us."""
    await asyncio.to_thread(_set_oom_score, container_id, pid, value, Path(cgroup_root), field)


def _set_oom_score(container_id: str, pid: int, value: int, cgroup_root: Path, field: str) -> None:
    for member in sorted({pid, *_container_processes(container_id, pid, cgroup_root)}):
        try:
            path = Path(f"/proc/{member}/oom_score_adj")
            if int(path.read_text()) != value:
                path.write_text(str(value))
        except (FileNotFoundError, ProcessLookupError):
            continue  # it ended meanwhile
        except OSError as error:
            raise InvalidArgument(field, f"this host does not let us set {value}: {error.strerror}") from error


def _container_processes(container_id: str, pid: int, cgroup_root: Path) -> list[int]:
    paths = _cgroup_paths(pid)
    for controller in ("memory", "pids", ""):
        directory = paths.get(controller, "")
        if container_id not in directory:
            continue  # seen from inside a cgroup namespace it could be anybody's
        with contextlib.suppress(OSError):
            file = cgroup_root / controller / directory.lstrip("/") / "cgroup.procs"
            return [int(line) for line in file.read_text().split()]
    return _descendants(pid)


# ---- limits of this process


def raise_open_files() -> tuple[int, int]:
    """The soft limit of open files up to the hard one: each followed log holds two. Before and after."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != hard:
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    return soft, hard


# ---- users of containers


async def resolve_container_user(pid: int, wanted: ContainerUser) -> cri.LinuxContainerUser | None:
    """Who a container's first process is; None when its files cannot be had (it has ended, or links lead away)."""
    return await asyncio.to_thread(_resolve_container_user, Path(f"/proc/{pid}/root"), wanted)


def _resolve_container_user(root: Path, wanted: ContainerUser) -> cri.LinuxContainerUser | None:
    try:
        directory = os.open(root, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError:
        return None
    try:
        passwd, group = (_read_identity_file(directory, name) for name in ("passwd", "group"))
    except OSError:
        return None
    finally:
        os.close(directory)
    return resolve_user(wanted, passwd, group)


def _read_identity_file(root: int, name: str) -> str:
    """A file of /etc inside a container, which may have put anything there: no link is followed, nothing waits."""
    try:
        directory = os.open("etc", os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=root)
    except FileNotFoundError:
        return ""
    try:
        descriptor = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, dir_fd=directory)
    except FileNotFoundError:
        return ""
    finally:
        os.close(directory)
    with open(descriptor, "rb") as file:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            raise OSError(f"{name} is no regular file")
        return file.read(_IDENTITY_FILE_LIMIT_BYTES).decode(errors="replace")


# ---- cgroup files


async def write_cgroup_files(
    pid: int, writes: Mapping[str, str], cgroup_root: str, where_there: Mapping[str, str] = MappingProxyType({})
) -> None:
    """Write files in the cgroup of a process, and those of `where_there` that the kernel has. EngineFailed while it
    lives; of one that has ended nothing is left to limit, and a short one may end before we come."""
    if (writes or where_there) and pid:
        await asyncio.to_thread(_write_cgroup_files, pid, writes, cgroup_root, where_there)


async def tell_systemd(pid: int, properties: Sequence[Property]) -> None:
    """The limits of a process' scope, so that systemd keeps to them when it is reloaded. They are in force without it,
    so a systemd that does not answer is told of in the log, and the container runs."""
    unit = posixpath.basename(_cgroup_paths(pid).get("", "")) if pid and properties else ""
    if not unit.endswith(".scope"):
        return
    try:
        await scopes.set_unit_properties(unit, properties)
    except EngineFailed as error:
        _log.warning("systemd_not_told", unit=unit, error=str(error), consequence="a daemon-reload undoes limits")


def _write_cgroup_files(pid: int, writes: Mapping[str, str], cgroup_root: str, where_there: Mapping[str, str]) -> None:
    try:
        for name in _write_in_cgroup(pid, writes, cgroup_root):
            # the kubelet sends a zero limit for every page size there is; without the controller nothing is to limit
            if writes[name] != "0":
                raise EngineFailed(f"the kernel has no cgroup file {name}; cannot set it to {writes[name]}")
        _write_in_cgroup(pid, where_there, cgroup_root)
    except EngineFailed as error:
        if not _has_ended(pid):
            raise
        _log.debug("cgroup_files_of_ended_process", pid=pid, error=str(error))


def _has_ended(pid: int) -> bool:
    """Whether a process is no more. One that ends leaves its cgroup a moment before it is seen as ended."""
    try:
        process = os.pidfd_open(pid)
    except ProcessLookupError:
        return True
    except OSError:
        return False  # the kernel cannot tell
    try:
        poll = select.poll()
        poll.register(process, select.POLLIN)
        return bool(poll.poll(_ENDING_MILLISECONDS))
    finally:
        os.close(process)


def _write_in_cgroup(pid: int, writes: Mapping[str, str], cgroup_root: str) -> list[str]:
    """Those that are not there."""
    missing: list[str] = []
    paths = _cgroup_paths(pid)
    for name, value in writes.items():
        controller = name.partition(".")[0]
        directory = paths.get(controller, paths.get(""))
        root = Path(cgroup_root) / controller if controller in paths else Path(cgroup_root)
        if directory is None:
            missing.append(name)
            continue
        file = root / directory.lstrip("/") / name
        try:
            # never made: the kernel would refuse that in other words than it has for a file that is not there
            descriptor = os.open(file, os.O_WRONLY | os.O_TRUNC | os.O_CLOEXEC)
            try:
                os.write(descriptor, value.encode())
            finally:
                os.close(descriptor)
        except FileNotFoundError:
            missing.append(name)
        except OSError as error:
            raise EngineFailed(f"cannot write {value} to {file}: {error.strerror}") from error
    return missing


def _cgroup_paths(pid: int) -> dict[str, str]:
    """Controller to directory of a process; none when it has ended."""
    try:
        return parse_cgroup_paths(Path(f"/proc/{pid}/cgroup").read_text())
    except OSError:
        return {}


# ---- processes


async def kill_process_tree(pid: int, container_id: str) -> bool:
    """Kill a process and its descendants when it is one of this container's; True when it was."""
    return await asyncio.to_thread(_kill_process_tree, pid, container_id)


def _kill_process_tree(pid: int, container_id: str) -> bool:
    if pid <= 1:
        return False
    try:
        descriptor = os.pidfd_open(pid)
    except OSError:
        return False
    try:
        # the descriptor holds the process: what is true of the pid now is true of what the signal will reach
        if not _is_in_container(pid, container_id):
            return False
        for child in _descendants(pid):
            with contextlib.suppress(OSError):
                os.kill(child, signal.SIGKILL)
        with contextlib.suppress(ProcessLookupError):
            signal.pidfd_send_signal(descriptor, signal.SIGKILL)
    finally:
        os.close(descriptor)
    return True


def _is_in_container(pid: int, container_id: str) -> bool:
    try:
        return container_id in Path(f"/proc/{pid}/cgroup").read_text()
    except OSError:
        return False


def _descendants(pid: int) -> list[int]:
    found: list[int] = []
    waiting = [pid]
    while waiting:
        current = waiting.pop()
        for children in Path(f"/proc/{current}/task").glob("*/children"):
            with contextlib.suppress(OSError):
                waiting += (born := [int(text) for text in children.read_text().split()])
                found += born
    return found
