"""Security settings of sandboxes and containers in Docker's words.

Owns users, groups, capabilities, seccomp, AppArmor, SELinux, masked paths and namespaces. Pure: the text of a local
seccomp profile and what the engine supports are arguments. Upstream counterpart: cri-dockerd's
core/security_context*.go. Deliberate differences: the newer AppArmor field is read, the sandbox's own profiles count,
an empty list of masked paths unmasks, and what Docker cannot do is refused by the field's name or left to `wrapping`.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from cri_proto import runtime_v1 as cri
from dockershim.errors import InvalidArgument

_APPARMOR_PREFIX = "localhost/"
ProfileType = cri.SecurityProfile.ProfileType


@dataclass(frozen=True, slots=True)
class HostSecurity:
    """What the engine's host can do, and what was read for this request."""

    apparmor: bool = False
    seccomp_profile: str | None = None
    missing_capabilities: tuple[str, ...] = ()
    selinux: bool = False


def user_of(user: cri.Int64Value | None, group: cri.Int64Value | None, username: str, field: str) -> str:
    """Docker's User: empty means the image's."""
    name = str(user.value) if user is not None else username
    if group is None:
        return name
    if not name:
        raise InvalidArgument(f"{field}.run_as_group", "needs run_as_user or run_as_username beside it")
    return f"{name}:{group.value}"


def check_namespaces(options: cri.NamespaceOption, field: str) -> None:
    """Only modes that mean something where they stand."""
    modes = cri.NamespaceMode
    allowed = {
        "network": (modes.POD, modes.NODE),
        "ipc": (modes.POD, modes.NODE),
        "pid": (modes.POD, modes.CONTAINER, modes.NODE, modes.TARGET),
    }
    for part, known in allowed.items():
        if getattr(options, part) not in known:
            wanted = ", ".join(modes.Name(mode) for mode in known)
            raise InvalidArgument(f"{field}.namespace_options.{part}", f"mode {getattr(options, part)}: want {wanted}")
    if options.target_id and options.pid != modes.TARGET:
        raise InvalidArgument(f"{field}.namespace_options.target_id", "needs pid TARGET beside it")


def check_legacy_seccomp(
    secure: cri.LinuxContainerSecurityContext | cri.LinuxSandboxSecurityContext, field: str
) -> None:
    """The string that `seccomp` replaced: nobody who speaks this version of CRI fills it alone."""
    if secure.seccomp_profile_path and not secure.HasField("seccomp"):
        raise InvalidArgument(f"{field}.seccomp_profile_path", "is no longer read; use seccomp")


def seccomp_option(profile: cri.SecurityProfile | None, host: HostSecurity, field: str) -> list[str]:
    """`seccomp=` option. A missing profile is the caller's to decide."""
    if profile is None or profile.profile_type == ProfileType.RuntimeDefault:
        return []
    if profile.profile_type == ProfileType.Unconfined:
        return ["seccomp=unconfined"]
    if host.seccomp_profile is None:
        raise InvalidArgument(f"{field}.seccomp.localhost_ref", "names no readable profile")
    return [f"seccomp={host.seccomp_profile}"]


def apparmor_option(profile: cri.SecurityProfile | None, legacy: str, host: HostSecurity, field: str) -> list[str]:
    """`apparmor=` option, from the field or, where that is missing, from the older string."""
    profile = _apparmor_profile(profile, legacy, field)
    if profile is None or profile.profile_type == ProfileType.RuntimeDefault:
        return []
    if profile.profile_type == ProfileType.Unconfined:
        return ["apparmor=unconfined"] if host.apparmor else []
    name = profile.localhost_ref.removeprefix(_APPARMOR_PREFIX)
    if not host.apparmor:
        raise InvalidArgument(f"{field}.apparmor", f"profile {name!r}: AppArmor is not on for Docker on this host")
    if not name:
        raise InvalidArgument(f"{field}.apparmor.localhost_ref", "is empty")
    return [f"apparmor={name}"]


def check_privileged_apparmor(secure: cri.LinuxContainerSecurityContext, field: str) -> None:
    """A privileged container cannot have a profile of its own: Docker leaves it and what is executed in it unconfined,
    whatever it is told. RuntimeDefault means nothing more than that for a privileged container."""
    profile = _apparmor_profile(optional(secure, "apparmor"), secure.apparmor_profile, field)
    if profile is not None and profile.profile_type == ProfileType.Localhost:
        name = profile.localhost_ref.removeprefix(_APPARMOR_PREFIX)
        raise InvalidArgument(f"{field}.apparmor", f"profile {name!r}: Docker confines no privileged container")


def local_apparmor_profile(
    secure: cri.LinuxContainerSecurityContext | cri.LinuxSandboxSecurityContext, field: str
) -> str:
    """The name of the profile that the kernel must know for this; empty when none is asked for by its name."""
    if secure.privileged:
        return ""
    profile = _apparmor_profile(optional(secure, "apparmor"), getattr(secure, "apparmor_profile", ""), field)
    if profile is None or profile.profile_type != ProfileType.Localhost:
        return ""
    return profile.localhost_ref.removeprefix(_APPARMOR_PREFIX)


def _apparmor_profile(profile: cri.SecurityProfile | None, legacy: str, field: str) -> cri.SecurityProfile | None:
    return _legacy_apparmor(legacy, field) if profile is None else profile


def _legacy_apparmor(text: str, field: str) -> cri.SecurityProfile | None:
    if not text:
        return None
    if text == "runtime/default":
        return cri.SecurityProfile(profile_type=ProfileType.RuntimeDefault)
    if text == "unconfined":
        return cri.SecurityProfile(profile_type=ProfileType.Unconfined)
    if text.startswith(_APPARMOR_PREFIX):
        return cri.SecurityProfile(profile_type=ProfileType.Localhost, localhost_ref=text)
    raise InvalidArgument(
        f"{field}.apparmor_profile", f"{text!r}: want runtime/default, unconfined or localhost/<profile>"
    )


def selinux_options(options: cri.SELinuxOption | None) -> list[str]:
    """`label=` options."""
    if options is None:
        return []
    pairs = (("user", options.user), ("role", options.role), ("type", options.type), ("level", options.level))
    return [f"label={name}:{value}" for name, value in pairs if value]


def docker_capabilities(wanted: cri.Capability, missing: Iterable[str]) -> dict[str, list[str]]:
    """CapAdd and CapDrop, without the prefix. ALL means all that this host can give, as it does for containerd."""
    add = [name.upper().removeprefix("CAP_") for name in wanted.add_capabilities]
    drop = [name.upper().removeprefix("CAP_") for name in wanted.drop_capabilities]
    if "ALL" in add:
        drop += [name for name in missing if name not in drop and name not in add]
    return {"CapAdd": add, "CapDrop": drop}


def group_add(groups: Iterable[int]) -> list[str]:
    """Supplemental groups by number."""
    return [str(group) for group in groups]


def masked_paths(security: cri.LinuxContainerSecurityContext) -> dict[str, Any]:
    """MaskedPaths and ReadonlyPaths. Docker takes its own defaults for null and none for an empty list."""
    if security.privileged:
        return {}
    return {"MaskedPaths": list(security.masked_paths), "ReadonlyPaths": list(security.readonly_paths)}


def pid_mode(options: cri.NamespaceOption, sandbox_id: str, field: str) -> str:
    """Docker's PidMode of a container."""
    if options.pid == cri.NamespaceMode.NODE:
        return "host"
    if options.pid == cri.NamespaceMode.POD:
        return f"container:{sandbox_id}"
    if options.pid == cri.NamespaceMode.TARGET:
        if not options.target_id:
            raise InvalidArgument(f"{field}.namespace_options.target_id", "is empty, and pid is TARGET")
        return f"container:{options.target_id}"
    return ""


def optional(message: Any, field: str) -> Any:
    """A sub-message, or None where the request left it out."""
    return getattr(message, field) if message.HasField(field) else None
