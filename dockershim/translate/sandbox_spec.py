"""The Docker container that holds a sandbox: the pause container's create body.

Pure. Upstream counterpart: makeSandboxDockerConfig in cri-dockerd's core/sandbox_run.go. Deliberate differences: the
sandbox's own seccomp and AppArmor profiles count, and what cannot be honoured is refused.
"""

from __future__ import annotations

import posixpath
from dataclasses import dataclass, field
from typing import Any

from cri_proto import runtime_v1 as cri
from dockershim.errors import InvalidArgument
from dockershim.translate import handler_annotations, names, security, wrapping
from dockershim.translate.resources import clamp_oom_score
from dockershim.translate.security import HostSecurity
from dockershim.translate.wrapping import Wrapping

OOM_SCORE_ADJ = -998
CPU_SHARES = 2
SHM_SIZE_BYTES = 64 * 1024 * 1024
# Docker's file is the source of the CRI log and not its archive: it is read as it grows, so some rounds are enough.
# Said here since the daemon's own defaults may keep nothing, or everything.
LOG_CONFIG = {"Type": "json-file", "Config": {"max-size": "64m", "max-file": "4"}}
DEFAULT_HANDLERS = ("", "docker")
_FIELD = "config.linux.security_context"
_MAX_PORT = 65535


@dataclass(frozen=True, slots=True)
class SandboxContext:
    """What the node adds to the request."""

    image: str
    network_mode: str
    """The Docker network; empty where Docker shall have nothing to do with the pod's network."""
    publishes_ports: bool
    lowest_oom_score: int = -1000
    systemd_cgroups: bool = False
    runtimes: tuple[str, ...] = ()
    host: HostSecurity = field(default_factory=HostSecurity)
    wrapping: Wrapping = field(default_factory=Wrapping)
    api_version: tuple[int, int] = (1, 41)


def check_metadata(config: cri.PodSandboxConfig) -> None:
    """The parts of a name must be there, and must be readable back."""
    metadata = config.metadata
    for part in ("name", "namespace", "uid"):
        value = getattr(metadata, part)
        if not value:
            raise InvalidArgument(f"config.metadata.{part}", "is empty")
        if "_" in value or "/" in value:
            raise InvalidArgument(f"config.metadata.{part}", f"{value!r}: '_' and '/' are not allowed")


def is_host_network(config: cri.PodSandboxConfig) -> bool:
    """Whether the pod shares the node's network."""
    return bool(config.linux.security_context.namespace_options.network == cri.NamespaceMode.NODE)


def docker_runtime(handler: str, runtimes: tuple[str, ...]) -> str:
    """Docker's runtime for a handler; empty means Docker's default."""
    if handler in DEFAULT_HANDLERS:
        return ""
    if handler not in runtimes:
        known = ", ".join(runtimes) or "none"
        raise InvalidArgument("runtime_handler", f"Docker has no runtime {handler!r} (it has: {known})")
    return handler


def docker_cgroup_parent(parent: str, *, systemd: bool) -> str:
    """Docker wants the slice's own name under systemd, and a path under cgroupfs."""
    return posixpath.basename(parent.rstrip("/")) if systemd else parent


def to_docker_sandbox(config: cri.PodSandboxConfig, handler: str, context: SandboxContext) -> dict[str, Any]:
    """The create body of the pause container."""
    check_metadata(config)
    if config.HasField("windows"):
        raise InvalidArgument("config.windows", "this node runs Linux")
    linux = config.linux
    secure = linux.security_context
    options = secure.namespace_options
    security.check_namespaces(options, _FIELD)
    if options.pid == cri.NamespaceMode.TARGET:
        raise InvalidArgument(f"{_FIELD}.namespace_options.pid", "TARGET is for containers")
    security.check_legacy_seccomp(secure, _FIELD)
    wrapping.check_sysctls(linux.sysctls)
    host_network = is_host_network(config)
    labels = names.to_docker_labels(config.labels, config.annotations)
    labels[names.TYPE_LABEL] = names.TYPE_SANDBOX
    labels[names.CONTAINER_NAME_LABEL] = names.SANDBOX_NAME
    host_config: dict[str, Any] = {
        "IpcMode": "host" if options.ipc == cri.NamespaceMode.NODE else "shareable",
        "PidMode": "host" if options.pid == cri.NamespaceMode.NODE else "",
        "NetworkMode": "host" if host_network else context.network_mode or "none",
        "Sysctls": dict(linux.sysctls),
        "CpuShares": CPU_SHARES,
        "OomScoreAdj": clamp_oom_score(OOM_SCORE_ADJ, context.lowest_oom_score),
        "ShmSize": SHM_SIZE_BYTES,
        "CgroupParent": docker_cgroup_parent(linux.cgroup_parent, systemd=context.systemd_cgroups),
        "Privileged": secure.privileged,
        "ReadonlyRootfs": secure.readonly_rootfs,
        "GroupAdd": security.group_add(secure.supplemental_groups),
        "SecurityOpt": _security_options(secure, context.host),
        "RestartPolicy": {"Name": "no"},
        "LogConfig": LOG_CONFIG,
    }
    runtime = docker_runtime(handler, context.runtimes)
    lacks_some = runtime in context.wrapping.runtimes and bool(context.host.missing_capabilities)
    instruction = {
        **wrapping.sandbox_instruction(secure, context.wrapping, _FIELD),
        **wrapping.possible_capabilities(privileged=secure.privileged, host_lacks_some=lacks_some),
    }
    context.wrapping.carry(host_config, runtime, instruction, _FIELD)
    if runtime and context.api_version >= handler_annotations.API:
        host_config["Annotations"] = handler_annotations.sandbox_annotations(config)
    body: dict[str, Any] = {
        "Image": context.image,
        "User": security.user_of(
            security.optional(secure, "run_as_user"), security.optional(secure, "run_as_group"), "", _FIELD
        ),
        "Labels": labels,
        "Healthcheck": {"Test": ["NONE"]},
        "HostConfig": host_config,
    }
    if not host_network:
        body["Hostname"] = config.hostname
        if not context.network_mode:
            body["NetworkDisabled"] = True  # not "none", for which Docker has a process fetch the namespace
        if context.publishes_ports:
            body["ExposedPorts"], host_config["PortBindings"] = port_bindings(config)
    return body


def _security_options(secure: cri.LinuxSandboxSecurityContext, host: HostSecurity) -> list[str]:
    options = ["no-new-privileges"]
    options += security.selinux_options(security.optional(secure, "selinux_options"))
    if not secure.privileged:
        options += security.seccomp_option(security.optional(secure, "seccomp"), host, _FIELD)
        options += security.apparmor_option(security.optional(secure, "apparmor"), "", host, _FIELD)
    return options


def port_bindings(config: cri.PodSandboxConfig) -> tuple[dict[str, Any], dict[str, Any]]:
    """ExposedPorts and PortBindings for the mappings that ask for a host port."""
    exposed: dict[str, Any] = {}
    bindings: dict[str, Any] = {}
    for index, mapping in enumerate(config.port_mappings):
        check_port_mapping(mapping, index)
        if not mapping.host_port:
            continue
        key = f"{mapping.container_port}/{cri.Protocol.Name(mapping.protocol).lower()}"
        exposed[key] = {}
        bindings.setdefault(key, []).append({"HostPort": str(mapping.host_port), "HostIp": mapping.host_ip})
    return exposed, bindings


def check_port_mapping(mapping: cri.PortMapping, index: int) -> None:
    """Ports that exist."""
    for part, lowest in (("container_port", 1), ("host_port", 0)):
        value = getattr(mapping, part)
        if not lowest <= value <= _MAX_PORT:
            raise InvalidArgument(f"config.port_mappings[{index}].{part}", f"{value} is not in {lowest}..{_MAX_PORT}")
    if mapping.protocol not in cri.Protocol.values():
        raise InvalidArgument(f"config.port_mappings[{index}].protocol", f"{mapping.protocol} is no protocol")
