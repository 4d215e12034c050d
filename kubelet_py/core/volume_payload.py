"""The files that configMap, secret, downwardAPI and projected volumes hold.

Owns which file gets which bytes and mode, and the texts for what is missing. API objects and tokens come in as
arguments; `managers.volumes` fetches them and writes the files.

Upstream counterparts: pkg/volume/{configmap,secret,downwardapi,projected}, pkg/fieldpath, pkg/api/v1/resource.
"""

import base64
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Final

from kubelet_py.api import core_v1, quantity
from kubelet_py.api.pod import all_containers_of, metadata_of
from kubelet_py.core.pod_resources import HUGEPAGES_PREFIX

DEFAULT_MODE: Final = 0o644
OWNER_ONLY_MODE: Final = 0o600
DEFAULT_TOKEN_SECONDS: Final = 3600
_MAX_PATH_LENGTH: Final = 4096

_GO_ESCAPES: Final = {
    "\a": "\\a",
    "\b": "\\b",
    "\f": "\\f",
    "\n": "\\n",
    "\r": "\\r",
    "\t": "\\t",
    "\v": "\\v",
    "\\": "\\\\",
    '"': '\\"',
}


class PayloadError(ValueError):
    """Something that a volume needs is missing or not usable; the message is for the pod's events."""


@dataclass(frozen=True, slots=True)
class ProjectedFile:
    """One file: its bytes, its mode, and an owner when it is not root."""

    data: bytes
    mode: int
    owner: int | None = None


Payload = Mapping[str, ProjectedFile]


@dataclass(frozen=True, slots=True)
class TokenAsk:
    """One service account token for one pod; equal asks may share a token."""

    namespace: str
    service_account: str
    pod_name: str
    pod_uid: str
    audience: str = ""
    expiration_seconds: int = DEFAULT_TOKEN_SECONDS
    service_account_uid: str = ""
    """The account as the asker knows it: one made anew under the name since is refused. Empty: whichever there is."""


@dataclass(frozen=True, slots=True)
class NodeFacts:
    """What downward API files may show of the node; `allocatable` is used where a container sets no limit."""

    name: str = ""
    host_ips: tuple[str, ...] = ()
    allocatable: Mapping[str, quantity.Quantity] | None = None


def config_map_files(
    config_map: core_v1.ConfigMap, items: Iterable[core_v1.KeyToPath] | None, default_mode: int, *, optional: bool
) -> dict[str, ProjectedFile]:
    """All keys, or the mapped ones."""
    data = {key: text.encode() for key, text in (config_map.data or {}).items()}
    binary = {key: base64.b64decode(text) for key, text in (config_map.binaryData or {}).items()}
    missing = "configmap references non-existent config key: {key}"
    return _keyed_files(data | binary, items, default_mode, missing, optional=optional)


def secret_files(
    secret: core_v1.Secret, items: Iterable[core_v1.KeyToPath] | None, default_mode: int, *, optional: bool
) -> dict[str, ProjectedFile]:
    """All keys, or the mapped ones."""
    data = {key: base64.b64decode(text) for key, text in (secret.data or {}).items()}
    return _keyed_files(data, items, default_mode, "references non-existent secret key: {key}", optional=optional)


def downward_api_files(
    pod: core_v1.Pod, items: Iterable[core_v1.DownwardAPIVolumeFile], default_mode: int, node: NodeFacts
) -> dict[str, ProjectedFile]:
    """One file per item."""
    files = {}
    for item in items:
        if item.fieldRef is not None:
            text = field_text(pod, item.fieldRef.fieldPath)
        elif item.resourceFieldRef is not None:
            text = resource_text(pod, item.resourceFieldRef, node)
        else:
            raise PayloadError(f"downward API file {item.path} names neither fieldRef nor resourceFieldRef")
        mode = default_mode if item.mode is None else item.mode
        files[checked_path(item.path)] = ProjectedFile(text.encode(), mode)
    return files


def owned_file(data: bytes, default_mode: int, owner: int | None, fs_group: int | None) -> ProjectedFile:
    """A token or a trust bundle: readable by its owner alone where somebody else is to read it as owner or group."""
    # With fsGroup the group's read bit is added later, when the volume's ownership is set.
    mode = default_mode if owner is None and fs_group is None else OWNER_ONLY_MODE
    return ProjectedFile(data, mode, owner)


def field_text(pod: core_v1.Pod, path: str) -> str:
    """What a fieldRef of a downward API volume shows."""
    metadata = metadata_of(pod)
    name, subscript = _split_subscript(path)
    maps = {"metadata.labels": metadata.labels, "metadata.annotations": metadata.annotations}
    if name in maps:
        values = maps[name] or {}
        if subscript is not None:
            return str(values.get(subscript, ""))
        return "\n".join(f"{key}={go_quoted(values[key])}" for key in sorted(values))
    plain: Mapping[str, str | None] = {
        "metadata.name": metadata.name,
        "metadata.namespace": metadata.namespace,
        "metadata.uid": metadata.uid,
    }
    if subscript is None and path in plain:
        return plain[path] or ""
    raise PayloadError(
        f"unsupported fieldPath: {path}; a volume can show metadata.name, .namespace, .uid, .labels, .annotations, "
        "and one label or annotation as metadata.labels['key']"
    )


def resource_text(pod: core_v1.Pod, selector: core_v1.ResourceFieldSelector, node: NodeFacts) -> str:
    """What a resourceFieldRef shows: the amount divided by the divisor, rounded up."""
    container = next((c for c in all_containers_of(pod) if c.name == selector.containerName), None)
    if container is None:
        raise PayloadError(f'container "{selector.containerName}" not found, which a resourceFieldRef names')
    side, _, resource = selector.resource.partition(".")
    if side not in ("limits", "requests") or not resource:
        raise PayloadError(f"unsupported container resource: {selector.resource}; it begins with limits. or requests.")
    resources = container.resources
    given = (resources.limits if side == "limits" else resources.requests) if resources is not None else None
    try:
        amount = quantity.parse((given or {}).get(resource) or "0")
        if not amount.nanos and side == "limits" and not resource.startswith(HUGEPAGES_PREFIX):
            amount = (node.allocatable or {}).get(resource, quantity.ZERO)
        divisor = quantity.parse(selector.divisor) if selector.divisor else quantity.ZERO
    except quantity.InvalidQuantity as error:
        raise PayloadError(f"{selector.resource} of container {selector.containerName}: {error}") from error
    unit = divisor.nanos or 10**9
    return str(-(-amount.nanos // unit))


def go_quoted(text: str) -> str:
    """Text in double quotes, escaped as readers of downward API files know it."""
    pieces = []
    for character in text:
        if character in _GO_ESCAPES:
            pieces.append(_GO_ESCAPES[character])
        elif character == " " or character.isprintable():
            pieces.append(character)
        elif ord(character) < 0x80:
            pieces.append(f"\\x{ord(character):02x}")
        elif ord(character) < 0x10000:
            pieces.append(f"\\u{ord(character):04x}")
        else:
            pieces.append(f"\\U{ord(character):08x}")
    return '"' + "".join(pieces) + '"'


def checked_path(path: str) -> str:
    """A path inside a volume in its plain form; PayloadError when it could lead out or hide the writer's own names."""
    if path.startswith("/"):
        raise PayloadError(f"invalid path: must be relative path: {path}")
    if len(path) > _MAX_PATH_LENGTH:
        raise PayloadError(f"invalid path: must be less than or equal to {_MAX_PATH_LENGTH} characters")
    parts = [part for part in path.split("/") if part not in ("", ".")]
    if ".." in parts:
        raise PayloadError(f"invalid path: must not contain '..': {path}")
    if not parts:
        raise PayloadError("invalid path: must not be empty")
    if parts[0].startswith(".."):
        raise PayloadError(f"invalid path: must not start with '..': {path}")
    return "/".join(parts)


def default_mode_of(mode: int | None) -> int:
    """The mode of files that name none."""
    return DEFAULT_MODE if mode is None else mode


def _keyed_files(
    data: Mapping[str, bytes],
    items: Iterable[core_v1.KeyToPath] | None,
    default_mode: int,
    missing: str,
    *,
    optional: bool,
) -> dict[str, ProjectedFile]:
    if not items:
        return {checked_path(key): ProjectedFile(content, default_mode) for key, content in data.items()}
    files = {}
    for item in items:
        if item.key not in data:
            if optional:
                continue
            raise PayloadError(missing.format(key=item.key))
        mode = default_mode if item.mode is None else item.mode
        files[checked_path(item.path)] = ProjectedFile(data[item.key], mode)
    return files


def _split_subscript(path: str) -> tuple[str, str | None]:
    if path.endswith("']"):
        name, bracket, key = path[:-2].partition("['")
        if bracket:
            return name, key
    return path, None
