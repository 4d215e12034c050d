"""Files that readers see change all at once.

    <dir>/..2026_01_31_10_20_30.<random>/a/b    the content
    <dir>/..data -> ..2026_...                  switched by one rename
    <dir>/a -> ..data/a                         what the container opens

Owns this layout, which applications know (they watch `..data`). Blocking; knows nothing of where the bytes come from.

Upstream counterpart: pkg/volume/util/atomic_writer.go. Differences: a change of mode or owner alone is a change too;
leftovers of a writer that died are removed at the next write.
"""

import contextlib
import os
import secrets
import stat
from collections.abc import Callable, Collection
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

from kubelet_py.core.volume_payload import Payload, ProjectedFile
from kubelet_py.host.files import remove_tree

DATA_LINK: Final = "..data"
_NEW_DATA_LINK: Final = "..data_tmp"
_DIRECTORY_MODE: Final = 0o755


def write_payload(
    directory: Path,
    payload: Payload,
    set_ownership: Callable[[Path], None],
    now: datetime,
    mount_points: Collection[str] = (),
) -> bool:
    """Make the directory hold exactly these files. False when it already did, and nothing was written.

    `mount_points` are directories in it that others mount on, made where they are not there: the removal of one would
    unmount it in containers that run.
    """
    written = _write(directory, payload, set_ownership, now, {path.partition("/")[0] for path in mount_points})
    for path in mount_points:
        _make_mount_point(directory, path)
    return written


def _make_mount_point(directory: Path, path: str) -> None:
    """A file of the payload that others mount on is there already."""
    level = directory
    for part in path.split("/"):
        level = level / part
        if os.path.lexists(level):
            continue
        try:
            level.mkdir()
        except NotADirectoryError:
            return
        level.chmod(_DIRECTORY_MODE)


def _write(
    directory: Path, payload: Payload, set_ownership: Callable[[Path], None], now: datetime, foreign: set[str]
) -> bool:
    old = _current_directory(directory)
    if old is not None and _holds(directory / old, payload):
        _link_visible(directory, payload)
        _drop_stale(directory, payload, {old, *foreign})
        return False
    new = _make_timestamped(directory, now)
    try:
        for path, file in payload.items():
            _write_file(directory / new / path, file)
        set_ownership(directory / new)
        link = directory / _NEW_DATA_LINK
        with contextlib.suppress(FileNotFoundError):
            link.unlink()
        link.symlink_to(new)
        link.rename(directory / DATA_LINK)
    except BaseException:
        remove_tree(directory / new)
        raise
    _link_visible(directory, payload)
    _drop_stale(directory, payload, {new, *foreign})
    return True


def _current_directory(directory: Path) -> str | None:
    try:
        name = os.readlink(directory / DATA_LINK)
    except OSError:
        return None
    return name if name.startswith("..") and "/" not in name and (directory / name).is_dir() else None


def _holds(content: Path, payload: Payload) -> bool:
    found = {
        os.path.relpath(os.path.join(parent, name), content) for parent, _, names in os.walk(content) for name in names
    }
    return found == set(payload) and all(_is_same(content / path, file) for path, file in payload.items())


def _is_same(path: Path, file: ProjectedFile) -> bool:
    state = path.lstat()
    if not stat.S_ISREG(state.st_mode) or state.st_size != len(file.data):
        return False
    # fsGroup adds bits later; what the payload asks for must be there.
    if stat.S_IMODE(state.st_mode) & file.mode != file.mode or state.st_uid != (file.owner or 0):
        return False
    return path.read_bytes() == file.data


def _make_timestamped(directory: Path, now: datetime) -> str:
    name = f"..{now.astimezone(UTC):%Y_%m_%d_%H_%M_%S}.{secrets.randbelow(10**10):010d}"
    path = directory / name
    path.mkdir()
    path.chmod(_DIRECTORY_MODE)
    return name


def _write_file(path: Path, file: ProjectedFile) -> None:
    missing = []
    parent = path.parent
    while not parent.exists():
        missing.append(parent)
        parent = parent.parent
    for level in reversed(missing):
        level.mkdir()
        level.chmod(_DIRECTORY_MODE)
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    with os.fdopen(descriptor, "wb") as output:
        output.write(file.data)
        if file.owner is not None:
            os.fchown(output.fileno(), file.owner, -1)
        os.fchmod(output.fileno(), file.mode)


def _first_parts(payload: Payload) -> set[str]:
    return {path.partition("/")[0] for path in payload}


def _link_visible(directory: Path, payload: Payload) -> None:
    for name in _first_parts(payload):
        link, target = directory / name, f"{DATA_LINK}/{name}"
        try:
            link.symlink_to(target)
        except FileExistsError:
            if not link.is_symlink() or os.readlink(link) != target:
                remove_tree(link)
                link.symlink_to(target)


def _drop_stale(directory: Path, payload: Payload, kept: set[str]) -> None:
    keep = _first_parts(payload) | {DATA_LINK} | kept
    for entry in list(os.scandir(directory)):
        if entry.name not in keep:
            remove_tree(Path(entry.path))
