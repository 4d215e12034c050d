"""What is left of a pod on disk, taken down. Blocking: the manager calls these in a thread.

Works from the disk and the kernel's mounts alone, so that it serves the leftovers of an earlier process the same way.
Nothing is removed through a mount: what cannot be unmounted stays, and is named.

Upstream counterparts: pkg/kubelet/volumemanager (reconciler), pkg/kubelet/kubelet_volumes.go. Difference: directories
of volume kinds that this agent does not serve (left by another agent) are only removed when they are empty.
"""

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from kubelet_py.core.volume_plan import VolumeKind
from kubelet_py.host.files import RemovalRefused, remove_tree
from kubelet_py.host.mounts import list_mounts_beneath, unmount
from kubelet_py.host.pod_dirs import PLUGINS, SUBPATHS, VOLUMES, PodDirs

_OWN_PLUGINS: Final = frozenset(kind.value.replace("/", "~") for kind in VolumeKind)


def tear_down_volumes(dirs: PodDirs, pod_uid: str) -> None:
    """Unmount and remove all volumes of a pod; absent ones are fine. RemovalRefused names what must stay."""
    pod = dirs.pod(pod_uid)
    if not pod.is_dir():
        return
    try:
        _unmount_known(pod)
        _remove_volumes(pod)
    except (RemovalRefused, OSError):
        # Somebody mounted something inside a volume, say. The table of all mounts knows; reading it takes milliseconds
        # on a node of many pods, and holds up whoever mounts meanwhile.
        _unmount_all(pod)
        _remove_volumes(pod)


def _remove_volumes(pod: Path) -> None:
    _remove_subpaths(pod / SUBPATHS)
    foreign = []
    for plugin in _entries(pod / VOLUMES):
        if plugin.name in _OWN_PLUGINS:
            remove_tree(Path(plugin.path))
        elif not _remove_empty_levels(Path(plugin.path), levels=2):
            foreign.append(plugin.path)
    for plugin in _entries(pod / PLUGINS):
        if plugin.name in _OWN_PLUGINS:
            remove_tree(Path(plugin.path))
    if foreign:
        raise RemovalRefused(
            f"volumes of a kind that this agent does not serve are still there: {', '.join(foreign)}; "
            "whoever set them up must take them down, or remove the directories by hand once nothing needs them"
        )


def remove_pod_directory(dirs: PodDirs, pod_uid: str) -> None:
    """Everything of a pod on disk."""
    tear_down_volumes(dirs, pod_uid)
    remove_tree(dirs.pod(pod_uid))


def _unmount_known(pod: Path) -> None:
    """What this agent mounts, where it mounts it, however often."""
    for target in _subpath_targets(pod / SUBPATHS):
        _unmount_fully(target)
    for plugin in _entries(pod / VOLUMES):
        if plugin.name in _OWN_PLUGINS:
            for volume in _entries(Path(plugin.path)):
                _unmount_fully(volume)


def _unmount_fully(target: "os.DirEntry[str]") -> None:
    while unmount(Path(target.path)):
        pass


def _unmount_all(pod: Path) -> None:
    """What is mounted anywhere beneath; RemovalRefused names what is not ours or will not go."""
    top = os.path.realpath(pod)
    stuck = []
    for mount_point in list_mounts_beneath(pod):
        relative = os.path.relpath(mount_point, top).split("/")
        ours = relative[0] == SUBPATHS or (relative[0] == VOLUMES and relative[1:2] and relative[1] in _OWN_PLUGINS)
        if not ours:
            stuck.append(f"{mount_point} (not mounted by this agent)")
            continue
        try:
            unmount(Path(mount_point))
        except OSError as error:
            stuck.append(f"{mount_point} ({error.strerror})")
    if stuck:
        raise RemovalRefused(f"still mounted: {', '.join(stuck)}")


def _subpath_targets(top: Path) -> Iterator["os.DirEntry[str]"]:
    for volume in _entries(top):
        for container in _entries(Path(volume.path)):
            yield from _entries(Path(container.path))


def _remove_subpaths(top: Path) -> None:
    """Only the bind targets: an empty file or directory each. Never their content, should a mount have survived."""
    for target in _subpath_targets(top):
        with contextlib.suppress(FileNotFoundError):
            if target.is_dir(follow_symlinks=False):
                os.rmdir(target.path)
            else:
                os.unlink(target.path)
    _remove_empty_levels(top, levels=2)


def _remove_empty_levels(directory: Path, levels: int) -> bool:
    """Remove a directory whose inner levels are empty directories; False when something is in it."""
    if levels > 0:
        for entry in _entries(directory):
            if entry.is_dir(follow_symlinks=False):
                _remove_empty_levels(Path(entry.path), levels - 1)
    try:
        directory.rmdir()
    except FileNotFoundError:
        return True
    except OSError:
        return False
    return True


def _entries(directory: Path) -> list["os.DirEntry[str]"]:
    try:
        return list(os.scandir(directory))
    except (FileNotFoundError, NotADirectoryError):
        return []
