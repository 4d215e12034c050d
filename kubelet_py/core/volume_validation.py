"""What the API server would refuse in the volumes of a pod.

Upstream counterpart: pkg/apis/core/validation (ValidateVolumes and what it calls).
"""

from collections.abc import Iterable
from typing import Any, Final

from kubelet_py.api import core_v1
from kubelet_py.api import quantity as q
from kubelet_py.core import name_rules
from kubelet_py.core.container_validation import check_resource_field
from kubelet_py.core.problems import ProblemList

HOST_PATH_TYPES: Final = (
    "",
    "DirectoryOrCreate",
    "Directory",
    "FileOrCreate",
    "File",
    "Socket",
    "CharDevice",
    "BlockDevice",
)
_MAX_MODE: Final = 0o777
_VOLUME_FIELDS: Final = (
    "metadata.name",
    "metadata.namespace",
    "metadata.labels",
    "metadata.annotations",
    "metadata.uid",
)


def check_volumes(volumes: Iterable[core_v1.Volume], path: str, problems: ProblemList) -> set[str]:
    """All volumes; gives their names."""
    names: set[str] = set()
    for index, volume in enumerate(volumes):
        where = f"{path}[{index}]"
        if not volume.name:
            problems.required(f"{where}.name")
        else:
            problems.invalid(f"{where}.name", volume.name, name_rules.check_dns_label(volume.name))
            if volume.name in names:
                problems.duplicate(f"{where}.name", volume.name)
        names.add(volume.name)
        given = [name for name in volume.__struct_fields__ if name != "name" and getattr(volume, name) is not None]
        if len(given) > 1:
            problems.forbidden(where, f"may not specify more than 1 volume type, found {', '.join(given)}")
        _check_source(volume, where, problems)
    return names


def _check_source(volume: core_v1.Volume, path: str, problems: ProblemList) -> None:
    if volume.emptyDir is not None:
        _check_empty_dir(volume.emptyDir, f"{path}.emptyDir", problems)
    if volume.hostPath is not None:
        where = f"{path}.hostPath"
        if not volume.hostPath.path:
            problems.required(f"{where}.path")
        elif ".." in volume.hostPath.path.split("/"):
            problems.invalid(f"{where}.path", volume.hostPath.path, "must not contain '..'")
        problems.one_of(f"{where}.type", volume.hostPath.type, HOST_PATH_TYPES)
    if volume.configMap is not None:
        _check_keyed(volume.configMap, f"{path}.configMap", problems)
        if not volume.configMap.name:
            problems.required(f"{path}.configMap.name")
    if volume.secret is not None:
        _check_keyed(volume.secret, f"{path}.secret", problems)
        if not volume.secret.secretName:
            problems.required(f"{path}.secret.secretName")
    if volume.downwardAPI is not None:
        _check_mode(volume.downwardAPI.defaultMode, f"{path}.downwardAPI.defaultMode", problems)
        _check_downward_items(volume.downwardAPI.items or (), f"{path}.downwardAPI", problems)
    if volume.projected is not None:
        _check_projected(volume.projected, f"{path}.projected", problems)
    if volume.image is not None:
        if not volume.image.reference:
            problems.required(f"{path}.image.reference")
        problems.one_of(f"{path}.image.pullPolicy", volume.image.pullPolicy, ("Always", "IfNotPresent", "Never"))
    if volume.nfs is not None:
        for name in ("server", "path"):
            if not getattr(volume.nfs, name):
                problems.required(f"{path}.nfs.{name}")
    if volume.persistentVolumeClaim is not None and not volume.persistentVolumeClaim.claimName:
        problems.required(f"{path}.persistentVolumeClaim.claimName")


def _check_empty_dir(source: core_v1.EmptyDirVolumeSource, path: str, problems: ProblemList) -> None:
    medium = source.medium or ""
    if not medium.startswith("HugePages-"):
        problems.one_of(f"{path}.medium", medium, ("", "Memory", "HugePages", "HugePages-<size>"))
    if source.sizeLimit is None:
        return
    try:
        limit = q.parse(source.sizeLimit)
    except q.InvalidQuantity as error:
        problems.invalid(f"{path}.sizeLimit", source.sizeLimit, str(error))
        return
    if limit.nanos < 0:
        problems.forbidden(f"{path}.sizeLimit", "SizeLimit field must be a valid resource quantity")


def _check_keyed(source: Any, path: str, problems: ProblemList) -> None:
    """The items of a ConfigMap or Secret."""
    _check_mode(getattr(source, "defaultMode", None), f"{path}.defaultMode", problems)
    for index, item in enumerate(source.items or ()):
        where = f"{path}.items[{index}]"
        problems.invalid(f"{where}.key", item.key, name_rules.check_config_key(item.key))
        _check_file_path(item.path, f"{where}.path", problems)
        _check_mode(item.mode, f"{where}.mode", problems)


def _check_downward_items(items: Iterable[core_v1.DownwardAPIVolumeFile], path: str, problems: ProblemList) -> None:
    for index, item in enumerate(items):
        where = f"{path}.items[{index}]"
        _check_file_path(item.path, f"{where}.path", problems)
        _check_mode(item.mode, f"{where}.mode", problems)
        if (item.fieldRef is None) == (item.resourceFieldRef is None):
            problems.required(where, "one of fieldRef and resourceFieldRef")
        elif item.fieldRef is not None:
            field = item.fieldRef.fieldPath or ""
            if not (field.startswith(("metadata.annotations['", "metadata.labels['")) and field.endswith("']")):
                problems.one_of(f"{where}.fieldRef.fieldPath", field, _VOLUME_FIELDS)
        else:
            assert item.resourceFieldRef is not None
            if not item.resourceFieldRef.containerName:
                problems.required(f"{where}.resourceFieldRef.containerName")
            check_resource_field(item.resourceFieldRef, f"{where}.resourceFieldRef", problems)


def _check_projected(source: core_v1.ProjectedVolumeSource, path: str, problems: ProblemList) -> None:
    _check_mode(source.defaultMode, f"{path}.defaultMode", problems)
    for index, projection in enumerate(source.sources or ()):
        where = f"{path}.sources[{index}]"
        given = [name for name in projection.__struct_fields__ if getattr(projection, name) is not None]
        if len(given) != 1:
            problems.forbidden(where, f"must specify exactly one volume type, found {', '.join(given) or 'none'}")
        for name in ("configMap", "secret"):
            if (keyed := getattr(projection, name)) is not None:
                _check_keyed(keyed, f"{where}.{name}", problems)
        if projection.downwardAPI is not None:
            _check_downward_items(projection.downwardAPI.items or (), f"{where}.downwardAPI", problems)
        if projection.serviceAccountToken is not None:
            _check_file_path(projection.serviceAccountToken.path, f"{where}.serviceAccountToken.path", problems)
            seconds = projection.serviceAccountToken.expirationSeconds
            problems.at_least(f"{where}.serviceAccountToken.expirationSeconds", seconds, 600)


def _check_mode(mode: int | None, path: str, problems: ProblemList) -> None:
    if mode is not None and not 0 <= mode <= _MAX_MODE:
        problems.invalid(path, mode, "must be a number between 0 and 0777 (octal), both inclusive")


def _check_file_path(path: str, where: str, problems: ProblemList) -> None:
    if not path:
        problems.required(where)
        return
    problems.invalid(where, path, name_rules.check_path_inside(path))
    if path.startswith(".."):
        problems.invalid(where, path, "must not start with '..'")
