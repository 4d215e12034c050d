"""Writing files whole, and reading and removing without harm what containers wrote.

Owns the operations where a slip shows or destroys what is not ours: replacing a file, reading below a directory that a
container writes to, and removing such a tree. Knows nothing of pods.

Upstream counterpart: pkg/util/removeall and the renameio habit. Difference: the removal checks the mount id of every
directory that it enters, so that a bind mount of the same file system is not entered either.
"""

import contextlib
import errno
import os
import secrets
import stat
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from kubelet_py.errors import KubeletError
from kubelet_py.host.mounts import mount_id_of

# Deeper trees are pulled up to the top while they are removed; each level costs one open file.
_MAX_OPEN_LEVELS: Final = 48


class RemovalRefused(KubeletError):
    """Something is mounted inside the tree; nothing of the mount's content was touched."""


def write_atomic(
    path: Path, data: bytes, mode: int = 0o644, *, may_replace: bool = True, survives_power_loss: bool = True
) -> None:
    """Readers see the old content or the new, never a part; the mode is exact, whatever the umask.

    `may_replace` False: FileExistsError when somebody else was faster. `survives_power_loss` False: for what is made
    anew after a boot; it spares the disk a wait in which nobody else on it gets on either.
    """
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}.tmp")  # several threads may write the same file
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    try:
        with os.fdopen(descriptor, "wb") as file:
            os.fchmod(file.fileno(), mode)
            file.write(data)
            if survives_power_loss:
                file.flush()
                os.fsync(file.fileno())
        if may_replace:
            os.rename(temporary, path)
        else:
            os.link(temporary, path)
            os.unlink(temporary)
    except BaseException:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(temporary)
        raise


def read_inside(root: Path, path: str, max_bytes: int) -> str:
    """The text of a file below `root`, where somebody else may write links: none of them leads outside.

    OSError: it is not there, not inside, no plain file, or longer than `max_bytes`.
    """
    top = os.path.realpath(root)
    resolved = os.path.realpath(os.path.join(top, path))
    if not resolved.startswith(top.rstrip("/") + "/"):
        raise OSError(errno.EXDEV, "a link leads out of the directory", path)
    *directories, name = os.path.relpath(resolved, top).split("/")
    descriptor = os.open(top, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        for directory in directories:  # one at a time, in case a link came after the look above
            deeper = os.open(directory, os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=descriptor)
            os.close(descriptor)
            descriptor = deeper
        # O_NONBLOCK: a pipe without a writer must not hold us.
        file = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, dir_fd=descriptor)
    finally:
        os.close(descriptor)
    with os.fdopen(file, "rb") as stream:
        if not stat.S_ISREG(os.fstat(file).st_mode):
            raise OSError(errno.EINVAL, "it is no plain file", path)
        data = stream.read(max_bytes + 1)
    if len(data) > max_bytes:
        raise OSError(errno.EFBIG, f"it is longer than {max_bytes} bytes", path)
    return data.decode("utf-8", "surrogateescape")


@dataclass(slots=True)
class _Level:
    """One open directory on the way down."""

    descriptor: int
    path: str
    entries: list[str]


def remove_tree(path: Path) -> None:
    """Remove a file or a directory with all it holds; absent is fine.

    Never follows a symbolic link, never enters or empties a mount: RemovalRefused then names the mount point.
    """
    try:
        parent = os.open(path.parent, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    except FileNotFoundError:
        return
    try:
        try:
            is_directory = stat.S_ISDIR(os.stat(path.name, dir_fd=parent, follow_symlinks=False).st_mode)
        except FileNotFoundError:
            return
        if not is_directory:
            os.unlink(path.name, dir_fd=parent)
            return
        _empty_directory(parent, path)
        with contextlib.suppress(FileNotFoundError):
            os.rmdir(path.name, dir_fd=parent)
    finally:
        os.close(parent)


def _empty_directory(parent: int, path: Path) -> None:
    mount_id = mount_id_of(parent)
    levels = [_open_level(parent, path.name, str(path), mount_id)]
    try:
        while levels:
            level = levels[-1]
            if not level.entries:
                os.close(levels.pop().descriptor)
                if levels:
                    _remove_emptied(levels[-1].descriptor, os.path.basename(level.path))
                    continue
                return
            name = level.entries.pop()
            try:
                os.unlink(name, dir_fd=level.descriptor)
                continue
            except FileNotFoundError:
                continue
            except (IsADirectoryError, PermissionError) as error:
                if not _is_directory(name, level.descriptor):
                    raise RemovalRefused(f"cannot remove {level.path}/{name}: {error.strerror}") from error
            except OSError as error:
                raise RemovalRefused(f"cannot remove {level.path}/{name}: {error.strerror}") from error
            if len(levels) > _MAX_OPEN_LEVELS:
                top = levels[0]
                moved = f".deep-{secrets.token_hex(8)}"
                os.rename(name, moved, src_dir_fd=level.descriptor, dst_dir_fd=top.descriptor)
                top.entries.append(moved)
                continue
            levels.append(_open_level(level.descriptor, name, f"{level.path}/{name}", mount_id))
    finally:
        for level in levels:
            os.close(level.descriptor)


def _open_level(parent: int, name: str, path: str, mount_id: int) -> _Level:
    descriptor = os.open(name, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=parent)
    try:
        if mount_id_of(descriptor) != mount_id:
            raise RemovalRefused(f"will not remove {path}: it is a mount point; unmount it first")
        return _Level(descriptor, path, os.listdir(descriptor))
    except BaseException:
        os.close(descriptor)
        raise


def _remove_emptied(parent: int, name: str) -> None:
    with contextlib.suppress(FileNotFoundError):
        os.rmdir(name, dir_fd=parent)


def _is_directory(name: str, parent: int) -> bool:
    return stat.S_ISDIR(os.stat(name, dir_fd=parent, follow_symlinks=False).st_mode)
