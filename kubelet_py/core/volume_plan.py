"""Which volumes a pod has, how each is to be set up, and how a container sees them.

Owns the rules: kinds and their directories, sizes of memory-backed volumes, ownership by fsGroup, host path types,
checks of volumeMounts. Touches no disk: `managers.volumes` does what is planned here.

Upstream counterparts: pkg/volume/{emptydir,hostpath,volume_linux.go}, pkg/kubelet/kubelet_pods.go (makeMounts).
Differences: a volume of a kind that this agent does not serve is named when the pod starts, and not after the
two minutes that a wait for its mount takes upstream.
"""

import posixpath
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Final

from cri_proto import runtime_v1 as cri
from kubelet_py.api import core_v1, quantity
from kubelet_py.api.pod import all_containers_of, containers_of, init_containers_of, spec_of
from kubelet_py.core.pod_resources import HUGEPAGES_PREFIX


class VolumeKind(StrEnum):
    """The volume sources served; the value is the plugin's name, `/` becomes `~` on disk."""

    EMPTY_DIR = "kubernetes.io/empty-dir"
    HOST_PATH = "kubernetes.io/host-path"
    CONFIG_MAP = "kubernetes.io/configmap"
    SECRET = "kubernetes.io/secret"
    DOWNWARD_API = "kubernetes.io/downward-api"
    PROJECTED = "kubernetes.io/projected"
    IMAGE = "kubernetes.io/image"


FILE_KINDS: Final = frozenset({VolumeKind.CONFIG_MAP, VolumeKind.SECRET, VolumeKind.DOWNWARD_API, VolumeKind.PROJECTED})
"""Kinds whose content the agent writes and refreshes; containers get them read-only."""

TMPFS_KINDS: Final = frozenset({VolumeKind.SECRET, VolumeKind.DOWNWARD_API, VolumeKind.PROJECTED})
"""Kinds whose content never reaches a disk."""

_SOURCES: Final = {
    "emptyDir": VolumeKind.EMPTY_DIR,
    "hostPath": VolumeKind.HOST_PATH,
    "configMap": VolumeKind.CONFIG_MAP,
    "secret": VolumeKind.SECRET,
    "downwardAPI": VolumeKind.DOWNWARD_API,
    "projected": VolumeKind.PROJECTED,
    "image": VolumeKind.IMAGE,
}

MEDIUM_MEMORY: Final = "Memory"
MEDIUM_HUGE_PAGES: Final = "HugePages"
DIRECTORY_MODE: Final = 0o777

_FS_GROUP_MODE: Final = 0o660
_FS_GROUP_READ_ONLY_MODE: Final = 0o440
_FS_GROUP_DIRECTORY_MODE: Final = 0o2110

_PROPAGATION: Final = {
    "": cri.PROPAGATION_PRIVATE,
    "None": cri.PROPAGATION_PRIVATE,
    "HostToContainer": cri.PROPAGATION_HOST_TO_CONTAINER,
    "Bidirectional": cri.PROPAGATION_BIDIRECTIONAL,
}


class PlanError(ValueError):
    """The pod asks for something that cannot be; the message is for its events."""


@dataclass(frozen=True, slots=True)
class MountedVolume:
    """A volume that is ready on the host."""

    name: str
    host_path: str
    kind: VolumeKind
    read_only: bool = False
    relabel: bool = False


@dataclass(frozen=True, slots=True)
class MountPlan:
    """How one volumeMount is to be seen in the container; `sub_path` is still to be resolved."""

    index: int
    volume: MountedVolume
    container_path: str
    sub_path: str
    read_only: bool
    recursive_read_only: bool
    propagation: cri.MountPropagation
    image: cri.ImageSpec | None = None
    """The runtime makes the mount itself, of this image; `sub_path` is then its business too."""


@dataclass(frozen=True, slots=True)
class MountContext:
    """What the rules about volumeMounts must know besides the pod."""

    expand: Callable[[str], str] = field(default=lambda text: text)
    recursive_read_only_supported: bool = False
    images: Mapping[str, cri.ImageSpec] = field(default_factory=dict)
    """What was pulled for image volumes, by the volume's name."""


def kind_of(volume: core_v1.Volume) -> VolumeKind:
    """The kind of a volume; PlanError names one that is not served. A volume that names no source is an emptyDir."""
    for attribute, kind in _SOURCES.items():
        if getattr(volume, attribute) is not None:
            return kind
    other = next(
        (name for name in volume.__struct_fields__ if name != "name" and getattr(volume, name) is not None), ""
    )
    if not other:
        return VolumeKind.EMPTY_DIR
    served = ", ".join(_SOURCES)
    raise PlanError(f"volumes of type {other} are not served by this agent; it serves {served}")


def volumes_of(pod: core_v1.Pod) -> list[core_v1.Volume]:
    """The volumes of the spec."""
    return spec_of(pod).volumes or []


def image_volumes_of(
    pod: core_v1.Pod, container: core_v1.Container | core_v1.EphemeralContainer
) -> dict[str, core_v1.ImageVolumeSource]:
    """The image volumes that the container mounts, by name: the runtime makes them, once the image is there."""
    names = {mount.name for mount in container.volumeMounts or ()}
    return {volume.name: volume.image for volume in volumes_of(pod) if volume.image and volume.name in names}


def setup_failure(volume_name: str, cause: str) -> str:
    """The text of the FailedMount event."""
    return f'MountVolume.SetUp failed for volume "{volume_name}" : {cause}'


def fs_group_of(pod: core_v1.Pod) -> int | None:
    """The group that owns the pod's volumes."""
    security = spec_of(pod).securityContext
    return security.fsGroup if security is not None else None


def fs_group_on_root_mismatch(pod: core_v1.Pod) -> bool:
    """Ownership of a whole volume is set only when its top directory shows that it is wrong."""
    security = spec_of(pod).securityContext
    return security is not None and security.fsGroupChangePolicy == "OnRootMismatch"


def common_run_as_user(pod: core_v1.Pod) -> int | None:
    """The one user that all containers run as, when the spec says so for every one of them."""
    security = spec_of(pod).securityContext
    default = security.runAsUser if security is not None else None
    users: set[int | None] = set()
    for container in all_containers_of(pod):
        own = container.securityContext.runAsUser if container.securityContext is not None else None
        users.add(default if own is None else own)
    return users.pop() if len(users) == 1 else None


def fs_group_mode(mode: int, *, is_directory: bool, read_only: bool) -> int:
    """The mode that a file or directory of a volume gets when its group becomes fsGroup."""
    wanted = mode | (_FS_GROUP_READ_ONLY_MODE if read_only else _FS_GROUP_MODE)
    return wanted | _FS_GROUP_DIRECTORY_MODE if is_directory else wanted


def tmpfs_size_bytes(
    size_limit_bytes: int | None, pod_memory_limit_bytes: int | None, node_allocatable_memory_bytes: int | None
) -> int | None:
    """The size of a memory-backed volume: the smallest of what bounds it; None means half the RAM."""
    bounds = [
        bound
        for bound in (size_limit_bytes, pod_memory_limit_bytes, node_allocatable_memory_bytes)
        if bound is not None
    ]
    positive = [bound for bound in bounds if bound > 0]
    return min(positive) if positive else None


def host_path_type_problem(path: str, wanted: str, found: str) -> str:
    """Why a host path of this type cannot be used, or "". `found` is "", directory, file, socket, char or block."""
    expectations = {
        "Directory": ("directory", "a directory"),
        "DirectoryOrCreate": ("directory", "a directory"),
        "File": ("file", "a file"),
        "FileOrCreate": ("file", "a file"),
        "Socket": ("socket", "a socket file"),
        "CharDevice": ("char", "a character device"),
        "BlockDevice": ("block", "a block device"),
    }
    if not wanted:
        return ""
    if wanted not in expectations:
        return f"hostPath.type {wanted!r} is unknown; it may be {', '.join(expectations)} or empty"
    expected, name = expectations[wanted]
    return "" if found == expected else f"hostPath type check failed: {path} is not {name}"


def compute_mount_plans(
    container: core_v1.Container | core_v1.EphemeralContainer,
    mounted: Mapping[str, MountedVolume],
    context: MountContext,
) -> Sequence[MountPlan]:
    """The container's volumeMounts in their order, checked; PlanError says which one cannot be and why."""
    return tuple(
        _plan_mount(index, mount, container.name, mounted, context)
        for index, mount in enumerate(container.volumeMounts or ())
    )


def clean_container_path(path: str) -> str:
    """A path inside a container, absolute and without `//`, `/./` and `..`."""
    return posixpath.normpath(f"/{path.lstrip('/')}")


def nested_mount_points(pod: core_v1.Pod, volume_name: str) -> tuple[str, ...]:
    """The directories of a volume on which containers mount other volumes, as relative paths.

    The runtime cannot make them in a volume that is read-only. What is mounted inside of those is theirs to have.
    """
    found: dict[str, None] = {}
    for container in all_containers_of(pod):
        mounts = [(mount.name, clean_container_path(mount.mountPath)) for mount in container.volumeMounts or ()]
        for name, own in mounts:
            if name != volume_name:
                continue
            inside = sorted(path[len(own) + 1 :] for _, path in mounts if path.startswith(f"{own}/"))
            for path in inside:
                if not any(path.startswith(f"{other}/") for other in inside):
                    found[path] = None
    return tuple(found)


def huge_page_size_bytes(pod: core_v1.Pod, medium: str) -> int:
    """The size of the pages of an emptyDir on huge pages; PlanError when the pod asks for none of them, or for several.

    The medium names it, or is that of the only size that the pod requests.
    """
    spec = spec_of(pod)
    resources = [spec.resources, *(each.resources for each in (*containers_of(pod), *init_containers_of(pod)))]
    sizes = {
        quantity.parse(name.removeprefix(HUGEPAGES_PREFIX)).value
        for each in resources
        for name in ((each.requests or {}) if each is not None else {})
        if name.startswith(HUGEPAGES_PREFIX)
    }
    if medium != MEDIUM_HUGE_PAGES:
        sizes &= {quantity.parse(medium.removeprefix(f"{MEDIUM_HUGE_PAGES}-")).value}
    if len(sizes) > 1:
        raise PlanError(f"medium: {medium} can't be used if container requests multiple huge page sizes")
    if not sizes:
        raise PlanError(
            f"medium {medium}: hugePages storage requested, but there is no resource request for huge pages"
        )
    return sizes.pop()


def is_huge_page_medium(medium: str) -> bool:
    """Whether an emptyDir is to be on huge pages."""
    return medium == MEDIUM_HUGE_PAGES or medium.startswith(f"{MEDIUM_HUGE_PAGES}-")


def volumes_to_set_up(pod: core_v1.Pod) -> list[core_v1.Volume]:
    """The volumes that a container mounts and that are made here; image volumes are the runtime's work."""
    used = {mount.name for container in all_containers_of(pod) for mount in container.volumeMounts or ()}
    return [volume for volume in volumes_of(pod) if volume.name in used and volume.image is None]


def _plan_mount(
    index: int,
    mount: core_v1.VolumeMount,
    container_name: str,
    mounted: Mapping[str, MountedVolume],
    context: MountContext,
) -> MountPlan:
    image = context.images.get(mount.name)
    volume = mounted.get(mount.name)
    if image is not None:
        volume = MountedVolume(mount.name, "", VolumeKind.IMAGE, read_only=True)
    if volume is None:
        raise PlanError(f'cannot find volume "{mount.name}" to mount into container "{container_name}"')
    propagation = _PROPAGATION.get(mount.mountPropagation or "")
    if propagation is None:
        raise PlanError(
            f'invalid mountPropagation "{mount.mountPropagation}" of volume "{mount.name}"; '
            "it may be None, HostToContainer or Bidirectional"
        )
    container_path = mount.mountPath
    if not container_path.startswith("/"):
        container_path = "/" + container_path
    return MountPlan(
        index=index,
        volume=volume,
        container_path=container_path,
        sub_path=_sub_path(mount, context.expand),
        read_only=bool(mount.readOnly) or volume.read_only,
        recursive_read_only=_recursive_read_only(mount, context.recursive_read_only_supported),
        propagation=propagation,
        image=image,
    )


def _sub_path(mount: core_v1.VolumeMount, expand: Callable[[str], str]) -> str:
    try:
        sub_path = expand(mount.subPathExpr) if mount.subPathExpr else mount.subPath or ""
    except ValueError as error:
        raise PlanError(f'failed to expand subPath for volumeMount "{mount.name}": {error}') from error
    if sub_path.startswith("/"):
        raise PlanError(f"error SubPath `{sub_path}` must not be an absolute path")
    if ".." in sub_path.split("/"):
        raise PlanError(f"unable to provision SubPath `{sub_path}`: must not contain '..'")
    return "/".join(part for part in sub_path.split("/") if part not in ("", "."))


def _recursive_read_only(mount: core_v1.VolumeMount, supported: bool) -> bool:
    wanted = mount.recursiveReadOnly or "Disabled"
    if wanted == "Disabled":
        return False
    prefix = (
        "failed to resolve recursive read-only mode: "
        f'volume "{mount.name}" requested recursive read-only mode, but it is'
    )
    if not mount.readOnly:
        raise PlanError(f"{prefix} not read-only")
    if mount.mountPropagation not in (None, "", "None"):
        raise PlanError(f'{prefix} not compatible with propagation "{mount.mountPropagation}"')
    if wanted == "Enabled" and not supported:
        raise PlanError(f"{prefix} not supported by the runtime")
    if wanted not in ("Enabled", "IfPossible"):
        raise PlanError(f'unknown recursive read-only mode "{wanted}"; it may be Disabled, IfPossible or Enabled')
    return supported
