"""One volume of each kind, made ready on disk. Blocking: the manager calls these in a thread.

Every function may be called again for a volume that is ready, half ready, or was made by an earlier process.

Upstream counterparts: pkg/volume/{emptydir,hostpath,configmap,secret,downwardapi,projected}.
"""

import os
import stat
from collections.abc import Collection
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Final

from kubelet_py.api import core_v1, quantity
from kubelet_py.core.volume_payload import Payload, PayloadError
from kubelet_py.core.volume_plan import (
    DIRECTORY_MODE,
    MEDIUM_MEMORY,
    TMPFS_KINDS,
    MountedVolume,
    VolumeKind,
    host_path_type_problem,
    huge_page_size_bytes,
    is_huge_page_medium,
    tmpfs_size_bytes,
)
from kubelet_py.host.mounts import is_mount_point, mount_huge_pages, mount_tmpfs
from kubelet_py.host.pod_dirs import PodDirs
from kubelet_py.managers.volumes.atomic_writer import write_payload
from kubelet_py.managers.volumes.ownership import set_ownership

_READY_MARK: Final = "ready"


@dataclass(frozen=True, slots=True)
class SetupContext:
    """What all volumes of one pod share."""

    dirs: PodDirs
    pod_uid: str
    fs_group: int | None
    only_on_root_mismatch: bool
    pod_memory_limit_bytes: int | None
    node_allocatable_memory_bytes: int | None
    now: datetime


def set_up_empty_dir(context: SetupContext, pod: core_v1.Pod, volume: core_v1.Volume) -> MountedVolume:
    """A directory of the pod's own, on disk, in memory or on huge pages."""
    kind = VolumeKind.EMPTY_DIR
    source = volume.emptyDir
    medium = (source.medium or "") if source is not None else ""
    if medium not in ("", MEDIUM_MEMORY) and not is_huge_page_medium(medium):
        raise PayloadError(f"unknown storage medium {medium!r}; it may be empty (disk), Memory or HugePages[-<size>]")
    path = context.dirs.volume(context.pod_uid, kind, volume.name)
    mark = context.dirs.plugin_state(context.pod_uid, kind, volume.name) / _READY_MARK
    if not (mark.exists() and path.is_dir() and is_mount_point(path) == bool(medium)):
        _make_directory(path)
        if medium and not is_mount_point(path):
            limit = source.sizeLimit if source is not None else None
            if medium == MEDIUM_MEMORY:
                _mount_memory(context, path, quantity.parse(limit).value if limit is not None else None)
            else:
                mount_huge_pages(path, huge_page_size_bytes(pod, medium))
        _open_to_all(path)
        if context.fs_group is not None:
            set_ownership(path, context.fs_group, read_only=False, only_on_root_mismatch=context.only_on_root_mismatch)
        # Without the mark the walk above would run again after each restart, over files that containers then own.
        mark.parent.mkdir(mode=0o750, parents=True, exist_ok=True)
        mark.touch(mode=0o640)
    return MountedVolume(volume.name, str(path), kind, relabel=True)


def _open_to_all(path: Path) -> None:
    """Everybody may read and write; the sticky bit that a tmpfs begins with stays."""
    mode = stat.S_IMODE(path.stat().st_mode)
    if mode & DIRECTORY_MODE != DIRECTORY_MODE:
        path.chmod(mode | DIRECTORY_MODE)


def set_up_host_path(volume: core_v1.Volume) -> MountedVolume:
    """A path of the node, checked or made as its type says."""
    source = volume.hostPath
    if source is None or not source.path:
        raise PayloadError("hostPath.path is empty; it names a file or directory of the node")
    path, wanted = source.path, source.type or ""
    if ".." in path.split("/"):
        raise PayloadError(f"hostPath.path {path} must not contain '..'")
    found = _file_type(path)
    if not found and wanted == "DirectoryOrCreate":
        os.makedirs(path, mode=0o755, exist_ok=True)
        found = _file_type(path)
    elif not found and wanted == "FileOrCreate":
        # The directory is not made: a wrong path should show as an error and not as an empty tree.
        os.close(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o644))
        found = _file_type(path)
    problem = host_path_type_problem(path, wanted, found)
    if problem:
        raise PayloadError(problem)
    return MountedVolume(volume.name, path, VolumeKind.HOST_PATH)


def set_up_files(
    context: SetupContext, name: str, kind: VolumeKind, payload: Payload, mount_points: Collection[str] = ()
) -> MountedVolume:
    """A directory with files of the agent's, in memory where they may be secret, and with what others mount on."""
    path = context.dirs.volume(context.pod_uid, kind, name)
    _make_directory(path)
    if not is_mount_point(path):
        if kind in TMPFS_KINDS:
            _mount_memory(context, path, None)
        _open_to_all(path)

    def own(written: Path) -> None:
        if context.fs_group is not None:
            set_ownership(written, context.fs_group, read_only=True)

    write_payload(path, payload, own, context.now, mount_points)
    if context.fs_group is not None:
        # The content has its group since before it became visible; here only the top directory is left.
        os.chown(path, -1, context.fs_group)
        path.chmod(DIRECTORY_MODE | stat.S_ISGID)
    return MountedVolume(name, str(path), kind, read_only=True, relabel=True)


def _mount_memory(context: SetupContext, path: Path, size_limit_bytes: int | None) -> None:
    size = tmpfs_size_bytes(size_limit_bytes, context.pod_memory_limit_bytes, context.node_allocatable_memory_bytes)
    mount_tmpfs(path, size)


def _make_directory(path: Path) -> None:
    for parent in (path.parents[2], path.parents[1], path.parent):
        parent.mkdir(mode=0o750, exist_ok=True)
    path.mkdir(mode=0o750, exist_ok=True)


def _file_type(path: str) -> str:
    try:
        mode = os.stat(path).st_mode
    except (FileNotFoundError, NotADirectoryError):
        return ""
    kinds = {
        stat.S_IFDIR: "directory",
        stat.S_IFREG: "file",
        stat.S_IFSOCK: "socket",
        stat.S_IFCHR: "char",
        stat.S_IFBLK: "block",
    }
    return kinds.get(stat.S_IFMT(mode), "other")
