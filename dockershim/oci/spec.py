"""What an instruction changes in an OCI configuration. Pure: the configuration is an argument and is edited in place.

Owns the meaning of each word of `instructions` but for mounting, which `idmap` does. Must not touch files.
"""

from __future__ import annotations

import json

from dockershim.oci import instructions as words
from dockershim.oci.capabilities import CAPABILITIES

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    Json = dict[str, Any]

_KNOWN = {
    words.VERSION,
    words.STRICT_GROUPS,
    words.RECURSIVE_READ_ONLY,
    words.AMBIENT_CAPABILITIES,
    words.POSSIBLE_CAPABILITIES,
    words.CDI,
    words.LOG_SPOOL,
    words.TERMINAL_SPOOL,
    words.USER_NAMESPACE,
}
_CAPABILITY_SETS = ("bounding", "effective", "permitted", "inheritable", "ambient")
_PING_GROUPS = "net.ipv4.ping_group_range"


class BadInstruction(Exception):
    """The instruction cannot be read or carried out."""


def take_instruction(spec: Json) -> Json | None:
    """Take the instruction out of the configuration; None when there is none."""
    linux = spec.get("linux") or {}
    sysctls = linux.get("sysctl") or {}
    text = sysctls.pop(words.KEY, None)
    if text is None:
        return None
    if not sysctls:
        linux.pop("sysctl", None)
    try:
        instruction = json.loads(text)
    except ValueError as error:
        raise BadInstruction(f"sysctl {words.KEY} is no JSON ({error}): {text[:200]}") from None
    if not isinstance(instruction, dict):
        raise BadInstruction(f"sysctl {words.KEY} is no JSON object: {text[:200]}")
    unknown = sorted(set(instruction) - _KNOWN)
    if unknown or instruction.get(words.VERSION) != words.CURRENT_VERSION:
        said = f"version {instruction.get(words.VERSION)!r}" + (f" with {', '.join(unknown)}" if unknown else "")
        raise BadInstruction(
            f"sysctl {words.KEY} has {said}; this {words.PROGRAM} knows version {words.CURRENT_VERSION}: "
            "register the one that belongs to the running dockershim"
        )
    return instruction


def edit(spec: Json, instruction: Json) -> None:
    """Carry out all of it but the id-mapping of mounts."""
    if words.STRICT_GROUPS in instruction:
        user = spec["process"]["user"]
        groups = [user.get("gid", 0), *instruction[words.STRICT_GROUPS]]
        user["additionalGids"] = list(dict.fromkeys(groups))
    for destination in instruction.get(words.RECURSIVE_READ_ONLY, ()):
        mount = _mount_at(spec, destination)
        mount["options"] = [option for option in mount.get("options", ()) if option != "ro"] + ["rro"]
    if words.AMBIENT_CAPABILITIES in instruction:
        _add_ambient_capabilities(spec, instruction[words.AMBIENT_CAPABILITIES])
    if words.CDI in instruction:
        _add_cdi_devices(spec, instruction[words.CDI])
        if words.USER_NAMESPACE in instruction:
            drivers = [mount["destination"] for mount in instruction[words.CDI].get("mounts", ())]
            instruction[words.USER_NAMESPACE][words.UNMAPPED_MOUNTS] += drivers
    if words.USER_NAMESPACE in instruction:
        _enter_user_namespace(spec, instruction[words.USER_NAMESPACE])


def _mount_at(spec: Json, destination: str) -> Json:
    found: list[Json] = [mount for mount in spec.get("mounts") or () if mount.get("destination") == destination]
    if len(found) != 1:
        raise BadInstruction(f"{len(found)} mounts at {destination}, where the instruction speaks of one")
    return found[0]


def keep_capabilities(process: Json, bounding: int) -> None:
    """Leave out of a process what is not in a bounding set, which nobody below it can have."""
    sets = process.get("capabilities") or {}
    for name, wanted in sets.items():
        sets[name] = [capability for capability in wanted or () if _is_in(capability, bounding)]


def _is_in(capability: str, bounding: int) -> bool:
    name = capability.removeprefix("CAP_")
    return name not in CAPABILITIES or bool(bounding >> CAPABILITIES.index(name) & 1)


def _add_ambient_capabilities(spec: Json, wanted: list[str]) -> None:
    sets = spec["process"].setdefault("capabilities", {})
    for name in _CAPABILITY_SETS:
        had = sets.get(name) or []
        sets[name] = had + [capability for capability in wanted if capability not in had]


def _add_cdi_devices(spec: Json, edits: Json) -> None:
    for node in edits.get("deviceNodes", ()):
        _add_device(spec, node)
    for mount in edits.get("mounts", ()):
        others = [had for had in spec.get("mounts") or () if had["destination"] != mount["destination"]]
        spec["mounts"] = [*others, mount]
    for hook in edits.get("hooks", ()):
        named = dict(hook)
        spec.setdefault("hooks", {}).setdefault(named.pop("hookName"), []).append(named)


def _add_device(spec: Json, node: Json) -> None:
    """The node, owned by the container's user where nobody else is said, and the right to use it."""
    linux, user = spec["linux"], spec["process"]["user"]
    device = {key: node[key] for key in ("path", "type", "major", "minor", "fileMode") if node.get(key) is not None}
    for key in ("uid", "gid"):
        owner = node.get(key) if node.get(key) is not None else user.get(key)
        if owner:
            device[key] = owner
    linux["devices"] = [had for had in linux.get("devices") or () if had["path"] != node["path"]] + [device]
    if node["type"] in ("b", "c"):
        rule = {"allow": True, "type": node["type"], "access": node.get("permissions") or "rwm"}
        rule |= {key: node[key] for key in ("major", "minor") if node.get(key) is not None}
        linux.setdefault("resources", {}).setdefault("devices", []).append(rule)


def _enter_user_namespace(spec: Json, wanted: Json) -> None:
    linux = spec["linux"]
    namespaces = linux["namespaces"]
    if any(namespace["type"] == "user" for namespace in namespaces):
        raise BadInstruction("Docker itself uses user namespaces (userns-remap); pods cannot have their own beside it")
    namespace = {"type": "user"}
    if wanted[words.JOINS]:
        namespace["path"] = _sandbox_user_namespace(namespaces)
    namespaces.append(namespace)
    for field, key in (("uidMappings", words.UIDS), ("gidMappings", words.GIDS)):
        linux[field] = [{"containerID": inside, "hostID": host, "size": size} for inside, host, size in wanted[key]]
    if _PING_GROUPS in (linux.get("sysctl") or {}):  # Docker's own wish, and it names groups that do not exist in there
        linux["sysctl"][_PING_GROUPS] = f"0 {wanted[words.GIDS][0][2] - 1}"


def _sandbox_user_namespace(namespaces: list[Json]) -> str:
    """Beside the network or IPC namespace that Docker tells the container to join."""
    for namespace in namespaces:
        path = str(namespace.get("path") or "")
        if namespace["type"] in ("network", "ipc") and path.startswith("/proc/"):
            return path.rpartition("/")[0] + "/user"
    raise BadInstruction("the container joins no namespace of a sandbox, so there is no user namespace to join")


def user_namespace_path(spec: Json) -> str:
    """The user namespace that the container joins; empty when it gets a new one."""
    for namespace in spec["linux"]["namespaces"]:
        if namespace["type"] == "user":
            return str(namespace.get("path") or "")
    return ""
