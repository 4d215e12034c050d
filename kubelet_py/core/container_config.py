"""The container that a pod's container becomes: CRI's ContainerConfig.

Mounts of volumes, the environment's sources and the image's user come in ready; making directories and files for them
is the shell's.

Upstream counterparts: pkg/kubelet/kuberuntime/kuberuntime_container.go (generateContainerConfig),
pkg/kubelet/kubelet_pods.go (GenerateRunContainerOptions).
"""

from collections.abc import Mapping
from dataclasses import dataclass, field

from cri_proto import runtime_v1 as cri
from kubelet_py.api import core_v1
from kubelet_py.core import cgroup_rules, labels, security
from kubelet_py.core.cgroup_rules import CgroupSettings
from kubelet_py.core.env import EnvSources, compute_env
from kubelet_py.core.expansion import expand_all
from kubelet_py.core.hosts_file import HOSTS_PATH, needs_hosts_mount
from kubelet_py.core.pod_resources import AnyContainer
from kubelet_py.core.security import ImageUser, SecuritySettings
from kubelet_py.core.volume_plan import clean_container_path


@dataclass(frozen=True, slots=True)
class ContainerContext:
    """What a container's configuration needs beside the pod."""

    image_ref: str
    """What PullImage or ImageStatus gave."""
    restart_count: int = 0
    image_user: ImageUser = field(default_factory=ImageUser)
    env: EnvSources = field(default_factory=EnvSources)
    mounts: tuple[cri.Mount, ...] = ()
    """Of the volumes, subPath and propagation resolved."""
    hosts_file_host_path: str = ""
    termination_message_host_path: str = ""
    """The file that was made for this instance; empty when there is none."""
    cgroups: CgroupSettings = field(default_factory=CgroupSettings)
    security: SecuritySettings = field(default_factory=SecuritySettings)
    user_namespace: cri.UserNamespace | None = None
    volume_groups: tuple[int, ...] = ()
    target_container_id: str = ""
    """Whose process namespace an ephemeral container joins."""
    devices: tuple[cri.Device, ...] = ()
    cdi_devices: tuple[cri.CDIDevice, ...] = ()
    extra_env: Mapping[str, str] = field(default_factory=dict)
    """From device plugins; the pod's own variables win."""
    extra_annotations: Mapping[str, str] = field(default_factory=dict)


def compute_container_config(
    pod: core_v1.Pod, container: AnyContainer, context: ContainerContext
) -> cri.ContainerConfig:
    """The configuration. Raises SyncError("CreateContainerConfigError") where the pod asks for the impossible."""
    variables = {**context.extra_env, **compute_env(pod, container, context.env)}
    security.verify_run_as_non_root(pod, container, context.image_user)
    return cri.ContainerConfig(
        metadata=cri.ContainerMetadata(name=container.name, attempt=context.restart_count),
        image=cri.ImageSpec(image=context.image_ref, user_specified_image=container.image or ""),
        command=expand_all(container.command, variables),
        args=expand_all(container.args, variables),
        working_dir=container.workingDir or "",
        envs=to_cri_env(variables),
        mounts=_mounts(pod, container, context),
        devices=context.devices,
        CDI_devices=context.cdi_devices,
        labels=labels.compute_container_labels(pod, container),
        annotations=labels.compute_container_annotations(
            pod, container, context.restart_count, context.extra_annotations
        ),
        log_path=labels.container_log_path(container.name, context.restart_count),
        stdin=bool(container.stdin),
        stdin_once=bool(container.stdinOnce),
        tty=bool(container.tty),
        linux=cri.LinuxContainerConfig(
            resources=cgroup_rules.to_cri_linux_resources(pod, container, context.cgroups),
            security_context=_security_context(pod, container, context),
        ),
    )


def to_cri_env(variables: Mapping[str, str]) -> list[cri.KeyValue]:
    """Variables as CRI carries them: values are bytes."""
    return [cri.KeyValue(key=name, value=value.encode("utf-8", "surrogateescape")) for name, value in variables.items()]


def _security_context(
    pod: core_v1.Pod, container: AnyContainer, context: ContainerContext
) -> cri.LinuxContainerSecurityContext:
    result = security.compute_container_security_context(
        pod, container, context.image_user, context.security, context.user_namespace, context.volume_groups
    )
    if context.target_container_id and result.namespace_options.pid == cri.CONTAINER:
        result.namespace_options.pid = cri.TARGET
        result.namespace_options.target_id = context.target_container_id
    return result


def _mounts(pod: core_v1.Pod, container: AnyContainer, context: ContainerContext) -> list[cri.Mount]:
    mounts = [cri.Mount.FromString(mount.SerializeToString()) for mount in context.mounts]
    if context.hosts_file_host_path and needs_hosts_mount(pod, container, context.env.pod_ips):
        mounts.append(
            cri.Mount(
                container_path=HOSTS_PATH,
                host_path=context.hosts_file_host_path,
                selinux_relabel=context.security.selinux_enabled,
            )
        )
    if context.termination_message_host_path and container.terminationMessagePath:
        mounts.append(
            cri.Mount(
                container_path=clean_container_path(container.terminationMessagePath),
                host_path=context.termination_message_host_path,
                selinux_relabel=context.security.selinux_enabled,
            )
        )
    if context.user_namespace is not None:
        for mount in mounts:
            mount.uidMappings.extend(context.user_namespace.uids)
            mount.gidMappings.extend(context.user_namespace.gids)
    return mounts
