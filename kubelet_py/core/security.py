"""Security contexts of pods and containers in CRI's terms: users, groups, capabilities, profiles, namespaces.

Upstream counterparts: pkg/kubelet/kuberuntime/security_context.go, security_context_others.go, helpers.go,
pkg/securitycontext, pkg/kubelet/kuberuntime/util, pkg/security/apparmor.
Difference: which per-CPU thermal paths exist is an argument, as nothing here looks at the machine.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

from cri_proto import runtime_v1 as cri
from kubelet_py.api import core_v1
from kubelet_py.api import pod as podlib
from kubelet_py.core.name_rules import MAX_ID, check_id
from kubelet_py.core.pod_resources import AnyContainer
from kubelet_py.errors import SyncError

MASKED_PATHS: Final = (
    "/proc/asound",
    "/proc/acpi",
    "/proc/interrupts",
    "/proc/kcore",
    "/proc/keys",
    "/proc/latency_stats",
    "/proc/timer_list",
    "/proc/timer_stats",
    "/proc/sched_debug",
    "/proc/scsi",
    "/sys/firmware",
    "/sys/devices/virtual/powercap",
)
READONLY_PATHS: Final = ("/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger")

_APPARMOR_ANNOTATION_PREFIX: Final = "container.apparmor.security.beta.kubernetes.io/"
_APPARMOR_LOCALHOST_PREFIX: Final = "localhost/"
_REASON: Final = "CreateContainerConfigError"

_FROM_POD: Final = ("runAsUser", "runAsGroup", "runAsNonRoot", "seLinuxOptions")


@dataclass(frozen=True, slots=True)
class ImageUser:
    """Who the image wants to run as: a number or a name. An image that says nothing runs as root."""

    uid: int | None = 0
    username: str = ""

    @classmethod
    def of(cls, image: cri.Image) -> "ImageUser":
        """As the runtime tells it; runtimes that find no user in an image leave out both."""
        if image.HasField("uid"):
            return cls(image.uid.value)
        return cls(None, image.username) if image.username else cls()


@dataclass(frozen=True, slots=True)
class SecuritySettings:
    """What the node's configuration and machine say."""

    seccomp_default: bool = False
    seccomp_root: str = "/var/lib/kubelet/seccomp"
    extra_masked_paths: tuple[str, ...] = ()
    """/sys/devices/system/cpu/cpu*/thermal_throttle, those that exist."""
    selinux_enabled: bool = False
    """Files of a pod must get its label, else its processes cannot have them."""


def effective(pod: core_v1.Pod, container: AnyContainer, name: str) -> Any:
    """A field of the container's security context, or the pod's where containers inherit it."""
    own = getattr(container.securityContext, name) if container.securityContext is not None else None
    if own is not None or name not in _FROM_POD:
        return own
    pod_level = podlib.spec_of(pod).securityContext
    return getattr(pod_level, name) if pod_level is not None else None


def verify_run_as_non_root(pod: core_v1.Pod, container: AnyContainer, image_user: ImageUser) -> None:
    """Raises SyncError when runAsNonRoot is asked for and the container would, or might, run as root."""
    if not effective(pod, container, "runAsNonRoot"):
        return
    metadata = podlib.metadata_of(pod)
    where = f'(pod: "{metadata.name}_{metadata.namespace}({metadata.uid})", container: {container.name})'
    user = effective(pod, container, "runAsUser")
    uid, wrong = image_user.uid, ""
    if user is not None:
        if user == 0:
            wrong = "container's runAsUser breaks non-root policy"
    elif uid is None and image_user.username:
        wrong = (
            f"container has runAsNonRoot and image has non-numeric user ({image_user.username}), "
            "cannot verify user is non-root"
        )
    elif uid == 0:
        wrong = "container has runAsNonRoot and image will run as root"
    elif uid is not None and (problem := check_id(uid)):
        wrong = (
            f"container has runAsNonRoot and image has an invalid user id ({uid}). (Must be 1-({MAX_ID})): {problem}"
        )
    if wrong:
        raise SyncError(_REASON, f"{wrong} {where}", container.name)


def compute_namespaces(pod: core_v1.Pod, user_namespace: cri.UserNamespace | None = None) -> cri.NamespaceOption:
    """Which namespaces the pod shares with the node, and whether its containers share one for processes."""
    spec = podlib.spec_of(pod)
    if spec.hostPID:
        pid = cri.NODE
    else:
        pid = cri.POD if spec.shareProcessNamespace else cri.CONTAINER
    return cri.NamespaceOption(
        network=cri.NODE if spec.hostNetwork else cri.POD,
        ipc=cri.NODE if spec.hostIPC else cri.POD,
        pid=pid,
        userns_options=user_namespace,
    )


def compute_supplemental_groups(pod: core_v1.Pod, volume_groups: Sequence[int]) -> list[int]:
    """fsGroup, the pod's own groups, then those that volumes ask for."""
    context = podlib.spec_of(pod).securityContext
    groups = list(context.supplementalGroups or ()) if context is not None else []
    own = [context.fsGroup] if context is not None and context.fsGroup is not None else []
    return [*own, *groups, *volume_groups]


def compute_groups_policy(pod: core_v1.Pod) -> "cri.SupplementalGroupsPolicy":
    """Merge with the image's groups, or Strict."""
    context = podlib.spec_of(pod).securityContext
    policy = context.supplementalGroupsPolicy if context is not None else None
    if policy not in (None, "Merge", "Strict"):
        raise SyncError(_REASON, f"unsupported supplementalGroupsPolicy: {policy}")
    return cri.Strict if policy == "Strict" else cri.Merge


def to_cri_seccomp(pod: core_v1.Pod, container: AnyContainer, settings: SecuritySettings) -> cri.SecurityProfile:
    """The container's profile, else the pod's, else what the node's default says."""
    pod_level = podlib.spec_of(pod).securityContext
    profile = container.securityContext.seccompProfile if container.securityContext is not None else None
    if profile is None and pod_level is not None:
        profile = pod_level.seccompProfile
    if profile is None:
        kind = cri.SecurityProfile.RuntimeDefault if settings.seccomp_default else cri.SecurityProfile.Unconfined
        return cri.SecurityProfile(profile_type=kind)
    if profile.type == "RuntimeDefault":
        return cri.SecurityProfile(profile_type=cri.SecurityProfile.RuntimeDefault)
    if profile.type == "Localhost":
        if not profile.localhostProfile:
            raise SyncError(
                _REASON, "localhostProfile must be set if seccompProfile type is Localhost.", container.name
            )
        return cri.SecurityProfile(
            profile_type=cri.SecurityProfile.Localhost,
            localhost_ref=f"{settings.seccomp_root}/{profile.localhostProfile}",
        )
    return cri.SecurityProfile(profile_type=cri.SecurityProfile.Unconfined)


def to_cri_apparmor(pod: core_v1.Pod, container: AnyContainer) -> tuple[cri.SecurityProfile | None, str]:
    """The profile, and the text that older runtimes read instead."""
    profile = apparmor_profile_of(pod, container)
    if profile is None:
        return None, ""
    kind, reference = profile
    if kind == "RuntimeDefault":
        return cri.SecurityProfile(profile_type=cri.SecurityProfile.RuntimeDefault), "runtime/default"
    if kind == "Unconfined":
        return cri.SecurityProfile(profile_type=cri.SecurityProfile.Unconfined), "unconfined"
    if kind != "Localhost":
        raise SyncError(_REASON, f'unknown apparmor profile type: "{kind}"', container.name)
    if reference is None:
        raise SyncError(_REASON, "missing localhost apparmor profile name", container.name)
    localhost = cri.SecurityProfile(profile_type=cri.SecurityProfile.Localhost, localhost_ref=reference)
    return localhost, _APPARMOR_LOCALHOST_PREFIX + reference


def to_cri_selinux(options: core_v1.SELinuxOptions | None) -> cri.SELinuxOption | None:
    """The four parts of an SELinux label."""
    if options is None:
        return None
    return cri.SELinuxOption(
        user=options.user or "", role=options.role or "", type=options.type or "", level=options.level or ""
    )


def has_privileged_container(pod: core_v1.Pod) -> bool:
    """The sandbox must be privileged too."""
    return any(
        container.securityContext is not None and bool(container.securityContext.privileged)
        for container in podlib.all_containers_of(pod)
    )


def compute_sandbox_security_context(
    pod: core_v1.Pod, user_namespace: cri.UserNamespace | None = None, volume_groups: Sequence[int] = ()
) -> cri.LinuxSandboxSecurityContext:
    """The sandbox: as narrow a seccomp profile as the runtime has, the pod's user, groups and namespaces."""
    result = cri.LinuxSandboxSecurityContext(
        privileged=has_privileged_container(pod),
        seccomp=cri.SecurityProfile(profile_type=cri.SecurityProfile.RuntimeDefault),
        namespace_options=compute_namespaces(pod, user_namespace),
        supplemental_groups=compute_supplemental_groups(pod, volume_groups),
        supplemental_groups_policy=compute_groups_policy(pod),
    )
    context = podlib.spec_of(pod).securityContext
    if context is not None:
        if context.runAsUser is not None:
            result.run_as_user.value = context.runAsUser
        if context.runAsGroup is not None:
            result.run_as_group.value = context.runAsGroup
        if (selinux := to_cri_selinux(context.seLinuxOptions)) is not None:
            result.selinux_options.CopyFrom(selinux)
    return result


def compute_container_security_context(
    pod: core_v1.Pod,
    container: AnyContainer,
    image_user: ImageUser,
    settings: SecuritySettings,
    user_namespace: cri.UserNamespace | None = None,
    volume_groups: Sequence[int] = (),
) -> cri.LinuxContainerSecurityContext:
    """The container, after `verify_run_as_non_root`."""
    unmasked = effective(pod, container, "procMount") == "Unmasked"
    apparmor, legacy_apparmor = to_cri_apparmor(pod, container)
    result = cri.LinuxContainerSecurityContext(
        privileged=bool(effective(pod, container, "privileged")),
        readonly_rootfs=bool(effective(pod, container, "readOnlyRootFilesystem")),
        no_new_privs=effective(pod, container, "allowPrivilegeEscalation") is False,
        namespace_options=compute_namespaces(pod, user_namespace),
        supplemental_groups=compute_supplemental_groups(pod, volume_groups),
        supplemental_groups_policy=compute_groups_policy(pod),
        seccomp=to_cri_seccomp(pod, container, settings),
        apparmor=apparmor,
        apparmor_profile=legacy_apparmor,
        selinux_options=to_cri_selinux(effective(pod, container, "seLinuxOptions")),
        masked_paths=() if unmasked else (*MASKED_PATHS, *settings.extra_masked_paths),
        readonly_paths=() if unmasked else READONLY_PATHS,
    )
    capabilities = effective(pod, container, "capabilities")
    if capabilities is not None:
        result.capabilities.add_capabilities.extend(capabilities.add or ())
        result.capabilities.drop_capabilities.extend(capabilities.drop or ())
    user, group = effective(pod, container, "runAsUser"), effective(pod, container, "runAsGroup")
    if user is not None:
        result.run_as_user.value = user
    else:
        if image_user.uid is not None:
            result.run_as_user.value = image_user.uid
        result.run_as_username = image_user.username
    if group is not None:
        result.run_as_group.value = group
    return result


def apparmor_profile_of(pod: core_v1.Pod, container: AnyContainer) -> tuple[str, str | None] | None:
    """Type and name of the container's AppArmor profile; None where nothing is asked for."""
    if container.securityContext is not None and container.securityContext.appArmorProfile is not None:
        own = container.securityContext.appArmorProfile
        return own.type, own.localhostProfile
    # Static pods come without the API server's translation of the old annotation.
    old = podlib.annotations_of(pod).get(_APPARMOR_ANNOTATION_PREFIX + container.name)
    if old == "runtime/default":
        return "RuntimeDefault", None
    if old == "unconfined":
        return "Unconfined", None
    if old is not None and old.startswith(_APPARMOR_LOCALHOST_PREFIX):
        return "Localhost", old.removeprefix(_APPARMOR_LOCALHOST_PREFIX)
    context = podlib.spec_of(pod).securityContext
    if context is not None and context.appArmorProfile is not None:
        return context.appArmorProfile.type, context.appArmorProfile.localhostProfile
    return None
