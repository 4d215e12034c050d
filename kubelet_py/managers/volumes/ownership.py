"""Giving a volume to the pod's fsGroup.

Owns the walk; the modes are `core.volume_plan.fs_group_mode`. Done before any container of the pod runs, so nobody
changes the tree meanwhile. Symbolic links change their group and nothing else.

Upstream counterpart: pkg/volume/volume_linux.go.
"""

import os
import stat
from pathlib import Path

from kubelet_py.core.volume_plan import fs_group_mode


def set_ownership(top: Path, group: int, *, read_only: bool, only_on_root_mismatch: bool = False) -> None:
    """Group and group bits for everything at and beneath a path."""
    if only_on_root_mismatch and _is_owned(top, group, read_only=read_only):
        return
    for parent, directories, files in os.walk(top, topdown=False):
        for name in directories + files:
            _own(os.path.join(parent, name), group, read_only=read_only)
    # The top comes last: a walk that was cut short shows as a mismatch of the root.
    _own(os.fspath(top), group, read_only=read_only)


def _own(path: str, group: int, *, read_only: bool) -> None:
    try:
        state = os.lstat(path)
        os.lchown(path, -1, group)
        if not stat.S_ISLNK(state.st_mode):
            wanted = fs_group_mode(
                stat.S_IMODE(state.st_mode), is_directory=stat.S_ISDIR(state.st_mode), read_only=read_only
            )
            os.chmod(path, wanted)
    except FileNotFoundError:
        return


def _is_owned(top: Path, group: int, *, read_only: bool) -> bool:
    state = top.stat()
    mode = stat.S_IMODE(state.st_mode)
    return state.st_gid == group and fs_group_mode(mode, is_directory=True, read_only=read_only) == mode
