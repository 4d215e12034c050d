"""The create body of a workload container.

Pure. Upstream counterpart: cri-dockerd's core/container_create.go. Deliberate differences: see `security`,
`resources` and `mounts`; the image is given by id, and the name that the user wrote is kept in a label.
"""

from __future__ import annotations

import json
import posixpath
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from cri_proto import runtime_v1 as cri
from dockershim.errors import InvalidArgument
from dockershim.translate import (
    handler_annotations,
    image_volumes,
    mounts,
    names,
    resources,
    sandbox_spec,
    security,
    wrapping,
)
from dockershim.translate.cdi import wanted_devices
from dockershim.translate.image_volumes import ImageVolume
from dockershim.translate.security import HostSecurity
from dockershim.translate.signals import to_docker_signal
from dockershim.translate.wrapping import Instruction, Wrapping

_FIELD = "config.linux.security_context"
_RESOURCES = "config.linux.resources"
CDI_API = (1, 44)
"""Docker 25 reads CDI specifications by itself."""


@dataclass(frozen=True, slots=True)
class ContainerContext:
    """What the node and the sandbox add to the request."""

    sandbox_id: str
    sandbox_metadata: cri.PodSandboxMetadata
    image_id: str
    api_version: tuple[int, int]
    docker_runtime: str = ""
    runtime_handler: str = ""
    """As the pod asked for it: empty where it leaves the choice to Docker."""
    host_network: bool = False
    host_ipc: bool = False
    cgroup_version: str = "1"
    lowest_oom_score: int = -1000
    systemd_cgroups: bool = False
    host: HostSecurity = field(default_factory=HostSecurity)
    image_volumes: tuple[ImageVolume, ...] = ()
    image_sources: Mapping[ImageVolume, str] = field(default_factory=dict)
    """Where the trees of image volumes are on the host, for an engine that does not mount images by itself."""
    etc_mounts: tuple[cri.Mount, ...] = ()
    """Files of the pod that Docker does not make for it, see `etc_files`."""
    sandbox_namespaces: cri.NamespaceOption = field(default_factory=cri.NamespaceOption)
    wrapping: Wrapping = field(default_factory=Wrapping)
    log_spool: str = ""
    """Where output can be spooled; empty when it cannot, or is not wanted."""
    created_at_ns: int = 0

    cdi_edits: Mapping[str, Any] = field(default_factory=dict)
    """What the wanted CDI devices stand for, where the engine does not know by itself."""

    @property
    def is_wrapped(self) -> bool:
        """Whether instructions can be carried out for this container."""
        return self.docker_runtime in self.wrapping.runtimes


def log_path(config: cri.ContainerConfig, sandbox_config: cri.PodSandboxConfig) -> str:
    """Where the log goes; empty when the request does not want one. It must stay below the pod's directory."""
    directory, relative = sandbox_config.log_directory, config.log_path
    if not directory or not relative:
        return ""
    if not posixpath.isabs(directory) or ".." in directory.split("/"):
        raise InvalidArgument("sandbox_config.log_directory", f"{directory!r}: want an absolute path without '..'")
    if posixpath.isabs(relative) or ".." in relative.split("/"):
        raise InvalidArgument("config.log_path", f"{relative!r}: want a path below the log directory, without '..'")
    return posixpath.join(directory, relative)


def to_docker_container(
    config: cri.ContainerConfig, sandbox_config: cri.PodSandboxConfig, context: ContainerContext
) -> dict[str, Any]:
    """The create body."""
    _check(config)
    secure = config.linux.security_context
    body: dict[str, Any] = {
        "Image": context.image_id,
        "Entrypoint": list(config.command) or None,
        "Cmd": list(config.args) or None,
        "Env": [*_environment(config), *context.cdi_edits.get("env", ())],
        "WorkingDir": config.working_dir,
        "User": security.user_of(
            security.optional(secure, "run_as_user"),
            security.optional(secure, "run_as_group"),
            secure.run_as_username,
            _FIELD,
        ),
        "OpenStdin": config.stdin,
        "StdinOnce": config.stdin_once,
        "Tty": config.tty,
        "Labels": _labels(config, sandbox_config, context),
        "Healthcheck": {"Test": ["NONE"]},
        "HostConfig": _host_config(config, sandbox_config, context),
    }
    signal = to_docker_signal(config.stop_signal)
    if signal:
        body["StopSignal"] = signal
    return {key: value for key, value in body.items() if value is not None}


def _check(config: cri.ContainerConfig) -> None:
    name = config.metadata.name
    if not name:
        raise InvalidArgument("config.metadata.name", "is empty")
    if "_" in name or "/" in name:
        raise InvalidArgument("config.metadata.name", f"{name!r}: '_' and '/' are not allowed")
    if config.HasField("windows"):
        raise InvalidArgument("config.windows", "this node runs Linux")
    secure = config.linux.security_context
    security.check_namespaces(secure.namespace_options, _FIELD)
    security.check_legacy_seccomp(secure, _FIELD)
    if secure.HasField("run_as_user") and secure.run_as_username:
        raise InvalidArgument(
            f"{_FIELD}.run_as_username", "stands beside run_as_user; only one of the two may be given"
        )


def _environment(config: cri.ContainerConfig) -> list[str]:
    result = []
    for index, pair in enumerate(config.envs):
        try:
            result.append(f"{pair.key}={pair.value.decode()}")
        except UnicodeDecodeError:
            raise InvalidArgument(f"config.envs[{index}].value", f"{pair.key}: Docker takes UTF-8 text only") from None
    return result


def _labels(
    config: cri.ContainerConfig, sandbox_config: cri.PodSandboxConfig, context: ContainerContext
) -> dict[str, str]:
    labels = names.to_docker_labels(config.labels, config.annotations)
    labels[names.TYPE_LABEL] = names.TYPE_CONTAINER
    labels[names.SANDBOX_ID_LABEL] = context.sandbox_id
    labels[names.LOG_PATH_LABEL] = log_path(config, sandbox_config)
    labels[names.CREATED_AT_LABEL] = str(context.created_at_ns)
    labels[names.IMAGE_LABEL] = config.image.user_specified_image or config.image.image
    writes = resources.cgroup_writes(config.linux.resources, cgroup_version=context.cgroup_version, field=_RESOURCES)
    labels[names.AFTER_START_LABEL] = json.dumps(writes, sort_keys=True) if writes else ""
    labels[names.IMAGE_VOLUMES_LABEL] = image_volumes.encode(context.image_volumes)
    return labels


def _host_config(
    config: cri.ContainerConfig, sandbox_config: cri.PodSandboxConfig, context: ContainerContext
) -> dict[str, Any]:
    secure = config.linux.security_context
    options = secure.namespace_options
    _check_shared(options, context)
    if context.host.selinux and context.image_sources:
        problem = "on a host with SELinux needs Docker 28 (API 1.48), which labels the image's files"
        raise InvalidArgument("", f"{image_volumes.FAILED}: an image volume {problem}")
    parent = sandbox_spec.docker_cgroup_parent(sandbox_config.linux.cgroup_parent, systemd=context.systemd_cgroups)
    files = [*config.mounts, *context.etc_mounts]  # in this order: errors say which of the request's it is
    result: dict[str, Any] = {
        "Mounts": [
            *mounts.to_docker_mounts(files, _mount_support(context)),
            *(volume.to_docker(context.image_sources.get(volume)) for volume in context.image_volumes),
        ],
        "Binds": mounts.to_docker_relabeled(files) if context.host.selinux else [],
        "Devices": mounts.to_docker_devices(config.devices),
        "NetworkMode": f"container:{context.sandbox_id}",
        "IpcMode": f"container:{context.sandbox_id}",
        "PidMode": security.pid_mode(options, context.sandbox_id, _FIELD),
        "UTSMode": "host" if context.host_network else "",
        "CgroupParent": parent,
        "Privileged": secure.privileged,
        "ReadonlyRootfs": secure.readonly_rootfs,
        "GroupAdd": security.group_add([*secure.supplemental_groups, *context.cdi_edits.get("additionalGids", ())]),
        "SecurityOpt": _security_options(secure, context.host),
        "RestartPolicy": {"Name": "no"},
        "LogConfig": sandbox_spec.LOG_CONFIG,
    }
    result.update(security.docker_capabilities(secure.capabilities, context.host.missing_capabilities))
    result.update(_resources(config, context))
    if config.linux.HasField("security_context"):
        result.update(security.masked_paths(secure))
    if secure.privileged:
        result["CgroupnsMode"] = "host"  # as containerd does; privileged containers manage the node's cgroups
    context.wrapping.carry(result, context.docker_runtime, _instruction(config, context), _FIELD)
    if context.runtime_handler not in sandbox_spec.DEFAULT_HANDLERS and context.api_version >= handler_annotations.API:
        result["Annotations"] = handler_annotations.container_annotations(
            config, context.sandbox_id, context.sandbox_metadata, sandbox_config.annotations
        )
    devices = wanted_devices(config)
    if devices and context.api_version >= CDI_API:
        result["DeviceRequests"] = [{"Driver": "cdi", "DeviceIDs": list(devices)}]
    return result


def _mount_support(context: ContainerContext) -> mounts.MountSupport:
    return mounts.MountSupport(
        read_only_recursive=context.api_version >= mounts.READ_ONLY_RECURSIVE_API,
        wrapped=context.is_wrapped,
        relabels=context.host.selinux,
    )


def _instruction(config: cri.ContainerConfig, context: ContainerContext) -> Instruction:
    """What Docker cannot be told."""
    secure, engine_can = config.linux.security_context, context.api_version >= mounts.READ_ONLY_RECURSIVE_API
    lacks_some = context.is_wrapped and bool(context.host.missing_capabilities)
    spool = context.log_spool if context.is_wrapped and config.log_path else ""
    return {
        **wrapping.strict_groups(secure, _FIELD, context.cdi_edits.get("additionalGids", ())),
        **wrapping.recursive_read_only(config.mounts, engine_can=engine_can),
        **wrapping.ambient_capabilities(secure.capabilities),
        **wrapping.cdi_devices(context.cdi_edits),
        **wrapping.possible_capabilities(privileged=secure.privileged, host_lacks_some=lacks_some),
        **wrapping.spooled_log(spool, tty=config.tty),
        **wrapping.container_user_namespace(
            secure.namespace_options, context.sandbox_namespaces, config.mounts, _FIELD
        ),
    }


def _check_shared(options: cri.NamespaceOption, context: ContainerContext) -> None:
    """Network and IPC are the sandbox's. POD is also what a request says that says nothing."""
    for part, has in (("network", context.host_network), ("ipc", context.host_ipc)):
        if getattr(options, part) == cri.NamespaceMode.NODE and not has:
            raise InvalidArgument(f"{_FIELD}.namespace_options.{part}", "is NODE, and the sandbox has one of its own")


def _resources(config: cri.ContainerConfig, context: ContainerContext) -> dict[str, Any]:
    wanted = config.linux.resources
    return resources.to_docker_resources(wanted, _RESOURCES, lowest_oom_score=context.lowest_oom_score)


def _security_options(secure: cri.LinuxContainerSecurityContext, host: HostSecurity) -> list[str]:
    options = security.selinux_options(security.optional(secure, "selinux_options"))
    if secure.no_new_privs:
        options.append("no-new-privileges")
    if secure.privileged:
        security.check_privileged_apparmor(secure, _FIELD)
        return options
    profile = security.optional(secure, "seccomp")
    # a container without a profile runs without one: the kubelet says RuntimeDefault when it wants that
    options += security.seccomp_option(profile, host, _FIELD) if profile else ["seccomp=unconfined"]
    options += security.apparmor_option(security.optional(secure, "apparmor"), secure.apparmor_profile, host, _FIELD)
    return options
