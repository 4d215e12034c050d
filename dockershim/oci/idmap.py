"""Root file system and mounts of a container with the ids of its user namespace, in a mount namespace of our own.

The kernel maps the ids (`mount_setattr` with a user namespace), so no file changes its owner on disk and nothing is
copied. The mapped trees are mounted in a private mount namespace, which the real runtime is started in and copies for
the container; the host sees none of them and nothing is left to clean up. An overlay cannot be mapped itself, its
layers can, so the engine's overlay is mounted a second time from mapped layers.

Upstream counterpart: containerd's overlay snapshotter with idmapped layers, and runc 1.2's idmapped mounts. Deliberate
difference: the upper layer is mapped as well, so that the engine needs no part in it, and old runtimes can do it too.
"""

from __future__ import annotations

import ctypes
import errno
import os
import signal
import stat

from dockershim.oci import instructions as words

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Any

    Json = dict[str, Any]
    Mapping = Sequence[Sequence[int]]

STAGE = "/run/dockershim-oci"
"""Where the trees are mounted; everybody must be able to get to it, since the container's root is nobody out here."""
ROOT = f"{STAGE}/rootfs"
"""An empty directory on the host, which has to be there: the runtime changes to it for each exec."""
OVERLAY_KERNEL = (5, 19)
"""The first kernel whose overlay takes mapped layers."""
_CLONE_NEWNS, _CLONE_NEWUSER = 0x20000, 0x10000000
_MS_REC, _MS_SLAVE, _MNT_DETACH = 0x4000, 0x80000, 2
_OPEN_TREE, _MOVE_MOUNT, _MOUNT_SETATTR = 428, 429, 442  # the same numbers on every architecture
_AT_FDCWD, _AT_EMPTY_PATH, _AT_RECURSIVE = -100, 0x1000, 0x8000
_OPEN_TREE_CLONE, _MOVE_MOUNT_F_EMPTY_PATH = 1, 4
_MOUNT_ATTR_IDMAP = 0x100000
_PR_GET_SECUREBITS, _PR_SET_SECUREBITS, _SECBIT_NO_SETUID_FIXUP = 27, 28, 4
_FLAGS = {"ro": 1, "nosuid": 2, "nodev": 4, "noexec": 8, "noatime": 1024, "nodiratime": 2048}
_OVERLAY_LAYERS = ("lowerdir", "upperdir", "workdir")
_WORK = "dockershim-work"

_libc = ctypes.CDLL(None, use_errno=True)
_libc.setfsuid.restype = _libc.setfsgid.restype = ctypes.c_uint


class _MountAttr(ctypes.Structure):
    _fields_ = [
        ("attr_set", ctypes.c_uint64),
        ("attr_clr", ctypes.c_uint64),
        ("propagation", ctypes.c_uint64),
        ("userns_fd", ctypes.c_uint64),
    ]


def stage(spec: Json, wanted: Json, namespace_path: str) -> None:
    """Mount what the container needs with mapped ids, and point the configuration at it."""
    namespace = _user_namespace(wanted[words.UIDS], wanted[words.GIDS], namespace_path)
    try:
        _own_stdio(wanted[words.UIDS], wanted[words.GIDS])
        _enter_private_mounts()
        os.mkdir(ROOT)
        owner = wanted[words.UIDS][0][1], wanted[words.GIDS][0][1]
        _stage_root(spec["root"]["path"], namespace, owner)
        spec["root"]["path"] = ROOT
        unmapped = set(wanted[words.UNMAPPED_MOUNTS])
        for index, mount in enumerate(spec.get("mounts") or ()):
            if mount.get("type") == "bind" and mount["destination"] not in unmapped:
                target = f"{STAGE}/{index}"
                _stage_bind(mount, target, namespace, owner)
    finally:
        os.close(namespace)


def supports(directory: str) -> str:
    """Why containers whose files are in this directory cannot have user namespaces; empty when they can."""
    release = os.uname().release
    if tuple(int("".join(filter(str.isdigit, part)) or 0) for part in release.split(".")[:2]) < OVERLAY_KERNEL:
        return f"kernel {release} is older than {OVERLAY_KERNEL[0]}.{OVERLAY_KERNEL[1]}"
    mapping = ((0, 65536, 65536),)
    try:
        namespace = _user_namespace(mapping, mapping, "")
        try:
            os.close(_mapped_clone(directory, namespace, recursive=False))
        finally:
            os.close(namespace)
    except OSError as error:
        return f"{directory} cannot be mounted with mapped ids: {error.strerror}"
    return ""


# ---- user namespaces


def _user_namespace(uids: Mapping, gids: Mapping, path: str) -> int:
    """A descriptor of a user namespace with these maps: the one that is there, or one made for its maps alone."""
    if path:
        return os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    ready, gate = os.pipe(), os.pipe()
    child = os.fork()
    if child == 0:
        try:
            os.close(ready[0])
            os.close(gate[1])
            failed = _libc.unshare(_CLONE_NEWUSER)
            os.write(ready[1], bytes([ctypes.get_errno() if failed else 0]))
            os.read(gate[0], 1)  # until the parent has the descriptor, or is gone
        finally:
            os._exit(0)
    try:
        os.close(ready[1])
        code = os.read(ready[0], 1)
        if code != b"\0":
            raise OSError(code[0] if code else errno.EIO, os.strerror(code[0] if code else errno.EIO), "user namespace")
        for name, mapping in (("uid_map", uids), ("gid_map", gids)):
            with open(f"/proc/{child}/{name}", "w") as file:
                file.write("".join(f"{inside} {host} {size}\n" for inside, host, size in mapping))
        return os.open(f"/proc/{child}/ns/user", os.O_RDONLY | os.O_CLOEXEC)
    finally:
        for end in (ready[0], *gate):
            os.close(end)
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)


def _own_stdio(uids: Mapping, gids: Mapping) -> None:
    """Give the container's root its own stdio pipes, so that /dev/stdout can be opened in there."""
    for descriptor in range(3):
        if stat.S_ISFIFO(os.fstat(descriptor).st_mode):
            os.fchown(descriptor, uids[0][1], gids[0][1])


# ---- mounts


def _enter_private_mounts() -> None:
    """A mount namespace in which nothing that we mount reaches the host, with an empty directory to mount on."""
    os.makedirs(ROOT, exist_ok=True)
    os.chmod(STAGE, 0o711)
    _check(_libc.unshare(_CLONE_NEWNS), "mount namespace")
    _mount(None, "/", None, _MS_REC | _MS_SLAVE, None)
    _mount("tmpfs", STAGE, "tmpfs", 0, "mode=0711,size=1m")


def _stage_root(source: str, namespace: int, owner: tuple[int, int]) -> None:
    found = containing_mount(source)
    if found.kind == "overlay" and found.point == source:
        _stage_overlay(found, ROOT, namespace, owner)
    else:
        _move(_mapped_clone(source, namespace, recursive=False), ROOT)


def _stage_overlay(found: Mount, target: str, namespace: int, owner: tuple[int, int]) -> None:
    """Mount an overlay again, from layers with mapped ids."""
    layers, rest = split_overlay_options(found.options)
    upper = layers.get("upperdir", "")
    # the engine may have mounted it with paths relative to where all its layers are
    home = os.path.dirname(os.path.dirname(upper if upper.startswith("/") else found.point))
    lower = [os.path.join(home, layer) for layer in layers["lowerdir"].split(":")]
    if lower[0].startswith("/proc/self/fd/"):
        raise ValueError(f"the layers of {found.point} cannot be found: whoever mounted them gave no names")
    staged: list[str] = []

    def stage(path: str) -> str:
        directory = f"{target}-{len(staged)}"
        os.mkdir(directory)
        _move(_mapped_clone(path, namespace, recursive=False), directory)
        staged.append(directory)
        return os.path.basename(directory)  # short: all options share one page

    data = [f"lowerdir={':'.join(map(stage, lower))}", *rest]
    if upper:
        parent, name = os.path.split(os.path.join(home, upper))
        os.makedirs(os.path.join(parent, _WORK), mode=0o700, exist_ok=True)  # the engine's own is in use
        parent = stage(parent)
        data += [f"upperdir={parent}/{name}", f"workdir={parent}/{_WORK}"]
    here = os.open(".", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    os.chdir(STAGE)
    try:
        with _FileIds(owner):
            _mount("overlay", target, "overlay", found.flags, ",".join(data))
    finally:
        os.fchdir(here)
        os.close(here)
    for directory in staged:
        _check(_libc.umount2(directory.encode(), _MNT_DETACH), directory)


class _FileIds:
    """Make files as the container's root, with all rights of the host's: an overlay writes to its upper layer with the
    ids and rights of who mounted it, and the host's own ids do not exist in there."""

    def __init__(self, owner: tuple[int, int]) -> None:
        self._owner = owner
        self._bits = 0

    def __enter__(self) -> None:
        self._bits = _check(_libc.prctl(_PR_GET_SECUREBITS, 0, 0, 0, 0), "securebits")
        _check(_libc.prctl(_PR_SET_SECUREBITS, self._bits | _SECBIT_NO_SETUID_FIXUP, 0, 0, 0), "securebits")
        self._become(*self._owner)

    def __exit__(self, *_: object) -> None:
        self._become(0, 0)
        _check(_libc.prctl(_PR_SET_SECUREBITS, self._bits, 0, 0, 0), "securebits")

    def _become(self, uid: int, gid: int) -> None:
        for change, wanted in ((_libc.setfsgid, gid), (_libc.setfsuid, uid)):
            change(ctypes.c_uint(wanted))
            if change(ctypes.c_uint(wanted)) != wanted:  # it answers with what was before, and never with an error
                raise OSError(errno.EPERM, os.strerror(errno.EPERM), "ids of the container's root")


def _stage_bind(mount: Json, target: str, namespace: int, owner: tuple[int, int]) -> None:
    source = mount["source"]
    recursive = "rbind" in (mount.get("options") or ())
    try:
        clone = _mapped_clone(source, namespace, recursive=recursive)
    except OSError as error:
        found = containing_mount(source)
        if found.kind != "overlay":
            raise OSError(error.errno, f"{error.strerror}: files of {source} cannot have the pod's ids") from None
        os.mkdir(target)
        _stage_overlay(found, target, namespace, owner)  # an image that is a volume, or a directory of one
        mount["source"] = os.path.normpath(target + found.root + source[len(found.point) :])
        return
    if os.path.isdir(source):
        os.mkdir(target)
    else:
        os.close(os.open(target, os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600))
    _move(clone, target)
    mount["source"] = target


class Mount:
    """A line of mountinfo: where, which part of its file system, of what kind, with which flags and options."""

    def __init__(self, line: str) -> None:
        before, _, after = line.rstrip("\n").partition(" - ")
        fields, (self.kind, _, options) = before.split(" "), after.split(" ", 2)
        self.root, self.point = _unescaped(fields[3]), _unescaped(fields[4])
        self.flags = sum(_FLAGS.get(flag, 0) for flag in fields[5].split(","))
        self.options = _unescaped(options)


def containing_mount(path: str, mountinfo: str = "/proc/self/mountinfo") -> Mount:
    """The mount that a path is in: of those with the longest path, the newest."""
    found = None
    with open(mountinfo) as file:
        for mount in map(Mount, file):
            inside = path == mount.point or path.startswith(mount.point.rstrip("/") + "/")
            if inside and (found is None or len(mount.point) >= len(found.point)):
                found = mount
    if found is None:
        raise ValueError(f"{path} is in no mount of {mountinfo}")
    return found


def split_overlay_options(options: str) -> tuple[dict[str, str], list[str]]:
    """The layers of an overlay, and its other options but for ro and rw, which are flags."""
    layers, rest, lowers = {}, [], []
    for option in options.split(","):
        name, _, value = option.partition("=")
        if name == "lowerdir+":
            lowers.append(value)
        elif name in _OVERLAY_LAYERS:
            layers[name] = value
        elif name not in ("rw", "ro"):
            rest.append(option)
    if lowers:
        layers["lowerdir"] = ":".join(lowers)
    if set(layers) not in ({"lowerdir"}, set(_OVERLAY_LAYERS)) or "\\" in options:
        raise ValueError(f"an overlay with options that are not understood: {options}")
    return layers, rest


def _unescaped(text: str) -> str:
    for code, character in (("\\040", " "), ("\\011", "\t"), ("\\012", "\n"), ("\\134", "\\")):
        text = text.replace(code, character)
    return text


# ---- system calls


def _mapped_clone(path: str, namespace: int, *, recursive: bool) -> int:
    """A mount of its own of a tree, not attached anywhere, with mapped ids. What is mounted below keeps its ids."""
    flags = _OPEN_TREE_CLONE | os.O_CLOEXEC | (_AT_RECURSIVE if recursive else 0)
    tree = _check(_libc.syscall(_OPEN_TREE, _AT_FDCWD, path.encode(), flags), path)
    attributes = _MountAttr(_MOUNT_ATTR_IDMAP, 0, 0, namespace)
    size = ctypes.c_size_t(ctypes.sizeof(attributes))
    try:
        _check(_libc.syscall(_MOUNT_SETATTR, tree, b"", _AT_EMPTY_PATH, ctypes.byref(attributes), size), path)
    except OSError:
        os.close(tree)
        raise
    return tree


def _move(tree: int, target: str) -> None:
    try:
        _check(_libc.syscall(_MOVE_MOUNT, tree, b"", _AT_FDCWD, target.encode(), _MOVE_MOUNT_F_EMPTY_PATH), target)
    finally:
        os.close(tree)


def _mount(source: str | None, target: str, kind: str | None, flags: int, data: str | None) -> None:
    encoded = [text.encode() if text is not None else None for text in (source, target, kind)]
    _check(_libc.mount(*encoded, ctypes.c_ulong(flags), data.encode() if data is not None else None), target)


def _check(result: int, what: str) -> int:
    if result < 0:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code), what)
    return result
