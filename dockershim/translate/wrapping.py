"""What only dockershim-oci can carry out: the instruction for it, and which of Docker's runtimes has it in front.

Owns the decision whether a container needs it at all; one that does not never meets it. Without it the request is
refused by the field's name. Pure. Upstream counterpart: none. The words are those of `dockershim.oci.instructions`.
"""

from __future__ import annotations

import json
import posixpath
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from cri_proto import runtime_v1 as cri
from dockershim.errors import InvalidArgument
from dockershim.oci import instructions as words

RUNTIME = "dockershim"
"""The Docker runtime that has it in front of Docker's default; `dockershim-NAME` has it in front of NAME."""
_Policy = cri.SupplementalGroupsPolicy
_Mode = cri.NamespaceMode

Instruction = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Wrapping:
    """Docker's runtimes that have dockershim-oci in front, by the handler they serve, and what the host cannot do."""

    runtimes: Mapping[str, str] = field(default_factory=dict)
    user_namespaces_problem: str = ""

    def wrapped(self, runtime: str, wanted_by: str) -> str:
        """The runtime that carries out instructions for this one; InvalidArgument where there is none."""
        if runtime in self.runtimes:
            return self.runtimes[runtime]
        name = f"{RUNTIME}-{runtime}" if runtime else RUNTIME
        raise InvalidArgument(wanted_by, f"needs {words.PROGRAM}, which Docker does not have as a runtime {name!r}")

    def bare(self, runtime: str) -> str:
        """The handler that a runtime serves: itself, unless it is one of ours in front of another."""
        served = [handler for handler, ours in self.runtimes.items() if ours == runtime != handler]
        return min(served, key=len) if served else runtime

    def carry(self, host_config: dict[str, Any], runtime: str, instruction: Instruction, where: str) -> None:
        """Put the runtime into HostConfig, and the instruction where there is one, with a runtime that carries it out.

        `where` is the security context in the request, to name the field in a refusal.
        """
        if instruction:
            said = json.dumps({words.VERSION: words.CURRENT_VERSION, **instruction}, sort_keys=True)
            host_config["Sysctls"] = {**host_config.get("Sysctls", {}), words.KEY: said}
            runtime = self.wrapped(runtime, _wanted_by(instruction, where))
        if runtime:
            host_config["Runtime"] = runtime


def wrapped_runtimes(runtimes: Mapping[str, Any], default: str) -> dict[str, str]:
    """From the Runtimes of Docker's info: handler to the runtime with dockershim-oci in front. "" is the default."""
    ours = {name for name, body in runtimes.items() if posixpath.basename(str(body.get("path") or "")) == words.PROGRAM}
    found: dict[str, str] = {}
    for handler in ("", *runtimes):
        runtime = handler or default
        candidates = (runtime, f"{RUNTIME}-{runtime}", *((RUNTIME,) if runtime == default else ()))
        chosen = next((name for name in candidates if name in ours), None)
        if chosen is not None:
            found[handler] = chosen
    return found


def instruction_of(host_config: Mapping[str, Any]) -> Instruction:
    """The instruction that a container of ours was made with; empty when there is none."""
    text = (host_config.get("Sysctls") or {}).get(words.KEY)
    try:
        found = json.loads(text) if text else {}
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}


def check_sysctls(sysctls: Collection[str]) -> None:
    """Nobody but dockershim gives instructions."""
    if words.KEY in sysctls:
        raise InvalidArgument(f"config.linux.sysctls[{words.KEY!r}]", "is no sysctl of the kernel's")


def _wanted_by(instruction: Instruction, where: str) -> str:
    """The field of a request that an instruction comes from."""
    fields = {
        words.STRICT_GROUPS: f"{where}.supplemental_groups_policy",
        words.USER_NAMESPACE: f"{where}.namespace_options.userns_options",
        words.CDI: "config.CDI_devices",
        words.AMBIENT_CAPABILITIES: f"{where}.capabilities.add_ambient_capabilities",
    }
    return next((fields[word] for word in instruction if word in fields), where)


# ---- groups


def strict_groups(
    secure: cri.LinuxContainerSecurityContext | cri.LinuxSandboxSecurityContext, where: str, devices: Iterable[int] = ()
) -> Instruction:
    """Strict: the groups of the request and of its devices, and no more. Docker itself does so where the primary group
    is given too."""
    if secure.supplemental_groups_policy not in (_Policy.Merge, _Policy.Strict):
        raise InvalidArgument(
            f"{where}.supplemental_groups_policy", f"{secure.supplemental_groups_policy}: want Merge or Strict"
        )
    if secure.supplemental_groups_policy == _Policy.Merge or secure.HasField("run_as_group"):
        return {}
    return {words.STRICT_GROUPS: [*secure.supplemental_groups, *devices]}


# ---- user namespaces


def pod_user_namespace(options: cri.NamespaceOption, where: str) -> Instruction | None:
    """The maps of a pod's own user namespace, None when it has none."""
    userns, where = options.userns_options, f"{where}.namespace_options.userns_options"
    if not options.HasField("userns_options"):
        return None
    if userns.mode == _Mode.NODE:
        if userns.uids or userns.gids:
            raise InvalidArgument(where, "mode NODE has the host's ids and takes no mappings")
        return None
    if userns.mode != _Mode.POD:
        raise InvalidArgument(f"{where}.mode", f"mode {userns.mode}: want POD or NODE")
    for part in ("network", "pid", "ipc"):
        if getattr(options, part) == _Mode.NODE:
            raise InvalidArgument(where, f"mode POD cannot be had together with {part} NODE")
    return {words.UIDS: _mapping(userns.uids, f"{where}.uids"), words.GIDS: _mapping(userns.gids, f"{where}.gids")}


def _mapping(ids: Collection[cri.IDMapping], where: str) -> list[list[int]]:
    if len(ids) != 1:
        raise InvalidArgument(where, f"has {len(ids)} mappings: want one")
    (only,) = ids
    if only.container_id != 0 or not only.length:
        raise InvalidArgument(where, f"maps {only.length} ids from {only.container_id} on: want some from 0 on")
    return [[only.container_id, only.host_id, only.length]]


def sandbox_instruction(secure: cri.LinuxSandboxSecurityContext, wrapping: Wrapping, where: str) -> Instruction:
    """For the pause container."""
    instruction = strict_groups(secure, where)
    userns = pod_user_namespace(secure.namespace_options, where)
    if userns is not None:
        if wrapping.user_namespaces_problem:
            raise InvalidArgument(
                f"{where}.namespace_options.userns_options", f"not on this host: {wrapping.user_namespaces_problem}"
            )
        instruction[words.USER_NAMESPACE] = {**userns, words.JOINS: False, words.UNMAPPED_MOUNTS: []}
    return instruction


def container_user_namespace(
    options: cri.NamespaceOption, sandbox: cri.NamespaceOption, mounts: Iterable[cri.Mount], where: str
) -> Instruction:
    """For a container: it joins its sandbox's namespace, and only mounts that ask for it get the pod's ids."""
    pod = pod_user_namespace(sandbox, "sandbox")
    own = pod_user_namespace(options, where) if options.HasField("userns_options") else pod
    if own != pod:
        raise InvalidArgument(f"{where}.namespace_options.userns_options", "differs from that of the sandbox")
    unmapped = []
    for index, mount in enumerate(mounts):
        if not mount.uidMappings and not mount.gidMappings:
            unmapped.append(_destination(mount))
            continue
        wanted = {
            words.UIDS: [[ids.container_id, ids.host_id, ids.length] for ids in mount.uidMappings],
            words.GIDS: [[ids.container_id, ids.host_id, ids.length] for ids in mount.gidMappings],
        }
        if wanted != pod:
            raise InvalidArgument(f"config.mounts[{index}].uidMappings", "differ from those of the pod")
    if pod is None:
        return {}
    return {words.USER_NAMESPACE: {**pod, words.JOINS: True, words.UNMAPPED_MOUNTS: unmapped}}


def _destination(mount: cri.Mount) -> str:
    """As Docker writes it into the OCI configuration."""
    return posixpath.normpath("/" + mount.container_path.lstrip("/"))


# ---- what else a container may need


def cdi_devices(edits: Mapping[str, Any]) -> Instruction:
    """Edits of CDI devices that the engine cannot be told; variables and groups it can."""
    rest = {name: edits[name] for name in ("deviceNodes", "mounts", "hooks") if name in edits}
    return {words.CDI: rest} if rest else {}


def recursive_read_only(mounts: Iterable[cri.Mount], *, engine_can: bool) -> Instruction:
    """Mounts that an old engine cannot make read-only to the ground."""
    paths = [_destination(mount) for mount in mounts if mount.recursive_read_only]
    return {words.RECURSIVE_READ_ONLY: paths} if paths and not engine_can else {}


def ambient_capabilities(wanted: cri.Capability) -> Instruction:
    """Those that stay with a process that is not root."""
    names = [name.upper().removeprefix("CAP_") for name in wanted.add_ambient_capabilities]
    return {words.AMBIENT_CAPABILITIES: [f"CAP_{name}" for name in names]} if names else {}


def possible_capabilities(*, privileged: bool, host_lacks_some: bool) -> Instruction:
    """A privileged container of an old engine shall not ask for what the host cannot give. Pause is one of them: the
    pod's /sys can be written to only if pause was the first to mount it so."""
    return {words.POSSIBLE_CAPABILITIES: True} if privileged and host_lacks_some else {}


def spooled_log(directory: str, *, tty: bool) -> Instruction:
    """Where a container's output goes before Docker has it."""
    return {words.TERMINAL_SPOOL if tty else words.LOG_SPOOL: directory} if directory else {}


def log_spool_of(host_config: Mapping[str, Any]) -> str:
    """Where a container's output was told to go; empty when it goes to Docker alone."""
    instruction = instruction_of(host_config)
    return str(instruction.get(words.LOG_SPOOL) or instruction.get(words.TERMINAL_SPOOL) or "")
