"""CDI devices: which a container asks for, and for an engine that does not know them the edits that they stand for.

Owns the choice among specifications and what of them can be carried out. Pure: what was read of the host's files is an
argument. Upstream counterpart: container-device-interface's pkg/cdi, which newer Docker engines use by themselves.
Deliberate difference: an edit that we do not carry out is refused by its name.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from cri_proto import runtime_v1 as cri
from dockershim.errors import InvalidArgument

Json = dict[str, Any]

EDITS = ("env", "deviceNodes", "mounts", "hooks", "additionalGids")
"""Of a specification's containerEdits, those that dockershim-oci carries out."""
HOOKS = ("prestart", "createRuntime", "createContainer", "startContainer", "poststart", "poststop")
ANNOTATION_PREFIX = "cdi.k8s.io/"
"""Of the annotations in which device plugins ask for devices, a comma between two."""
_KIND_PART = r"[A-Za-z](?:[A-Za-z0-9_.-]*[A-Za-z0-9])?"
_DEVICE = re.compile(rf"{_KIND_PART}/{_KIND_PART}=[A-Za-z0-9](?:[A-Za-z0-9_.:-]*[A-Za-z0-9])?")


def wanted_devices(config: cri.ContainerConfig) -> dict[str, str]:
    """The devices that a container asks for, each once, and the field that does so. InvalidArgument with the field."""
    asked = [(device.name, f"config.CDI_devices[{index}].name") for index, device in enumerate(config.CDI_devices)]
    for key, value in sorted(config.annotations.items()):
        if key.startswith(ANNOTATION_PREFIX):
            asked += [(name, f"config.annotations[{key!r}]") for name in value.split(",")]
    wanted: dict[str, str] = {}
    for name, where in asked:
        if not _DEVICE.fullmatch(name):
            raise InvalidArgument(where, f"{name!r}: want vendor/class=device")
        wanted.setdefault(name, where)
    return wanted


@dataclass(frozen=True, slots=True)
class CdiSpecification:
    """One file. Of two that have the same device the one of the later directory counts."""

    path: str
    directory: int
    content: Mapping[str, Any]


def requested_edits(wanted: Mapping[str, str], found: Iterable[CdiSpecification], broken: Sequence[str] = ()) -> Json:
    """All edits for `wanted_devices`, in their order. `broken` says what could not be read."""
    found = tuple(found)
    edits: Json = {name: [] for name in EDITS}
    used: list[str] = []
    for name, where in wanted.items():
        kind, _, device_name = name.partition("=")
        specification, device = _device(kind, device_name, found, broken, where)
        try:
            if specification.path not in used:
                used.append(specification.path)
                _append(edits, specification.content.get("containerEdits") or {})
            _append(edits, device.get("containerEdits") or {})
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            raise InvalidArgument(where, f"{name!r}: {specification.path} cannot be used: {error}") from error
    return {name: values for name, values in edits.items() if values}


def _device(
    kind: str, name: str, found: Iterable[CdiSpecification], broken: Sequence[str], where: str
) -> tuple[CdiSpecification, Mapping[str, Any]]:
    candidates = [
        (specification, device)
        for specification in found
        if specification.content.get("kind") == kind
        for device in specification.content.get("devices") or ()
        if isinstance(device, dict) and device.get("name") == name
    ]
    if not candidates:
        hint = f"; cannot be read: {', '.join(broken)}" if broken else ""
        raise InvalidArgument(where, f"no CDI specification on this node has {kind}={name}{hint}")
    last = max(specification.directory for specification, _ in candidates)
    chosen = [each for each in candidates if each[0].directory == last]
    if len(chosen) > 1:
        paths = ", ".join(sorted(specification.path for specification, _ in chosen))
        raise InvalidArgument(where, f"{kind}={name} stands in more than one place: {paths}")
    return chosen[0]


def _append(edits: Json, more: Mapping[str, Any]) -> None:
    unknown = sorted(set(more) - set(EDITS))
    if unknown:
        raise ValueError(f"containerEdits.{unknown[0]} is nothing that an engine without CDI can be made to do")
    edits["env"] += [_text(each) for each in more.get("env") or ()]
    edits["deviceNodes"] += [{**each, "path": _text(each["path"])} for each in more.get("deviceNodes") or ()]
    edits["mounts"] += [_mount(each) for each in more.get("mounts") or ()]
    edits["hooks"] += [_hook(each) for each in more.get("hooks") or ()]
    edits["additionalGids"] += [int(each) for each in more.get("additionalGids") or () if int(each)]


def _mount(mount: Mapping[str, Any]) -> Json:
    kind, options = str(mount.get("type") or "bind"), [_text(each) for each in mount.get("options") or ()]
    if kind == "bind" and not {"bind", "rbind"} & set(options):
        options.append("bind")
    return {
        "destination": _text(mount["containerPath"]),
        "source": _text(mount["hostPath"]),
        "type": kind,
        "options": options,
    }


def _hook(hook: Mapping[str, Any]) -> Json:
    if hook["hookName"] not in HOOKS:
        raise ValueError(f"no OCI hook has the name {hook['hookName']!r}")
    return {
        "hookName": hook["hookName"],
        **{key: hook[key] for key in ("path", "args", "env", "timeout") if key in hook},
    }


def _text(value: object) -> str:
    if not isinstance(value, str) or not value:
        raise ValueError(f"want a text and not {value!r}")
    return value
