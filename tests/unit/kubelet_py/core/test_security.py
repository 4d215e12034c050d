"""Security contexts come out in CRI as the Go kubelet puts them."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from cri_proto import runtime_v1 as cri
from kubelet_py.api import core_v1
from kubelet_py.api import pod as podlib
from kubelet_py.core import security
from kubelet_py.core.security import ImageUser, SecuritySettings
from kubelet_py.errors import SyncError
from tests.unit.kubelet_py.core.pod_builder import UID, a_container, a_pod


def _context(
    pod: core_v1.Pod, user: ImageUser | None = None, settings: SecuritySettings | None = None
) -> cri.LinuxContainerSecurityContext:
    return security.compute_container_security_context(
        pod, podlib.containers_of(pod)[0], user or ImageUser(), settings or SecuritySettings()
    )


def _pod(container: dict[str, Any] | None = None, **pod_level: Any) -> core_v1.Pod:
    return a_pod(a_container(securityContext=container or {}), securityContext=pod_level)


def test_container_wins_over_pod() -> None:
    """In the four fields that containers inherit."""
    inherited = _context(_pod(runAsUser=1, runAsGroup=2, seLinuxOptions={"user": "u", "level": "s0"}))
    assert (inherited.run_as_user.value, inherited.run_as_group.value) == (1, 2)
    assert inherited.selinux_options == cri.SELinuxOption(user="u", level="s0")
    own = _context(_pod({"runAsUser": 3, "runAsGroup": 4, "seLinuxOptions": {"role": "r"}}, runAsUser=1, runAsGroup=2))
    assert (own.run_as_user.value, own.run_as_group.value, own.selinux_options.role) == (3, 4, "r")


def test_user_of_the_image() -> None:
    """Stands in when nobody says who; by number or by name."""
    assert _context(a_pod(), ImageUser(uid=7)).run_as_user.value == 7
    named = _context(a_pod(), ImageUser(uid=None, username="app"))
    assert not named.HasField("run_as_user")
    assert named.run_as_username == "app"
    assert _context(a_pod()).HasField("run_as_user")


def test_switches() -> None:
    """Privileged, read-only root, capabilities, no new privileges."""
    context = _context(
        _pod(
            {
                "privileged": True,
                "readOnlyRootFilesystem": True,
                "capabilities": {"add": ["NET_ADMIN"], "drop": ["ALL"]},
                "allowPrivilegeEscalation": False,
            }
        )
    )
    assert (context.privileged, context.readonly_rootfs, context.no_new_privs) == (True, True, True)
    assert list(context.capabilities.add_capabilities) == ["NET_ADMIN"]
    assert list(context.capabilities.drop_capabilities) == ["ALL"]
    plain = _context(_pod({"allowPrivilegeEscalation": True, "capabilities": {}}))
    assert (plain.privileged, plain.readonly_rootfs, plain.no_new_privs) == (False, False, False)


def test_masked_paths() -> None:
    """The defaults and what the machine has beside; none for Unmasked."""
    settings = SecuritySettings(extra_masked_paths=("/sys/x",))
    assert list(_context(a_pod(), settings=settings).masked_paths) == [*security.MASKED_PATHS, "/sys/x"]
    assert list(_context(a_pod()).readonly_paths) == list(security.READONLY_PATHS)
    unmasked = _context(_pod({"procMount": "Unmasked"}))
    assert (list(unmasked.masked_paths), list(unmasked.readonly_paths)) == ([], [])


@pytest.mark.parametrize(
    ("spec", "expected"),
    [
        ({}, (cri.POD, cri.POD, cri.CONTAINER)),
        ({"hostNetwork": True}, (cri.NODE, cri.POD, cri.CONTAINER)),
        ({"hostIPC": True}, (cri.POD, cri.NODE, cri.CONTAINER)),
        ({"hostPID": True}, (cri.POD, cri.POD, cri.NODE)),
        ({"shareProcessNamespace": True}, (cri.POD, cri.POD, cri.POD)),
    ],
)
def test_namespaces(spec: dict[str, Any], expected: tuple[int, int, int]) -> None:
    """Network, IPC and process namespace by what the pod shares."""
    options = security.compute_namespaces(a_pod(**spec))
    assert (options.network, options.ipc, options.pid) == expected


def test_a_container_has_the_namespaces_and_groups_of_its_pod() -> None:
    """As the sandbox has them: one mapping of ids, one policy, the groups of the volumes."""
    pod = a_pod(securityContext={"supplementalGroups": [5], "supplementalGroupsPolicy": "Strict"})
    mapping = cri.UserNamespace(mode=cri.POD, uids=[cri.IDMapping(host_id=65536, length=65536)])
    container = podlib.containers_of(pod)[0]
    context = security.compute_container_security_context(
        pod, container, ImageUser(), SecuritySettings(), mapping, volume_groups=(9,)
    )
    sandbox = security.compute_sandbox_security_context(pod, mapping, (9,))
    for made in (context, sandbox):
        assert made.namespace_options.userns_options == mapping
        assert list(made.supplemental_groups) == [5, 9]
        assert made.supplemental_groups_policy == cri.Strict


def test_groups() -> None:
    """fsGroup, the pod's own, then the volumes'; Strict leaves the image's out."""
    pod = a_pod(securityContext={"fsGroup": 0, "supplementalGroups": [5, 6], "supplementalGroupsPolicy": "Strict"})
    assert security.compute_supplemental_groups(pod, (9,)) == [0, 5, 6, 9]
    assert security.compute_groups_policy(pod) == cri.Strict
    assert security.compute_supplemental_groups(a_pod(), ()) == []
    assert security.compute_supplemental_groups(a_pod(securityContext={}), ()) == []
    assert security.compute_groups_policy(a_pod()) == cri.Merge
    assert security.compute_groups_policy(a_pod(securityContext={"supplementalGroupsPolicy": "Merge"})) == cri.Merge
    with _refuses("unsupported supplementalGroupsPolicy: Other", container=""):
        security.compute_groups_policy(a_pod(securityContext={"supplementalGroupsPolicy": "Other"}))


def _refusal(pod: core_v1.Pod, user: ImageUser) -> str:
    with pytest.raises(SyncError) as caught:
        security.verify_run_as_non_root(pod, podlib.containers_of(pod)[0], user)
    assert (caught.value.reason, caught.value.container_name) == ("CreateContainerConfigError", "main")
    return caught.value.message


@contextmanager
def _refuses(message: str, container: str = "main") -> Iterator[None]:
    with pytest.raises(SyncError) as caught:
        yield
    said = caught.value.reason, caught.value.message, caught.value.container_name
    assert said == ("CreateContainerConfigError", message, container)


def test_run_as_non_root_refusals() -> None:
    """Root, a name that may be root, and numbers that are no user."""
    where = f'(pod: "web_shop({UID})", container: main)'
    pod = _pod(runAsNonRoot=True)
    assert _refusal(_pod(runAsNonRoot=True, runAsUser=0), ImageUser(5)) == (
        f"container's runAsUser breaks non-root policy {where}"
    )
    assert _refusal(pod, ImageUser(0)) == f"container has runAsNonRoot and image will run as root {where}"
    assert _refusal(pod, ImageUser(None, "app")) == (
        f"container has runAsNonRoot and image has non-numeric user (app), cannot verify user is non-root {where}"
    )
    assert "image has an invalid user id (-5)" in _refusal(pod, ImageUser(-5))


@pytest.mark.parametrize(
    ("image", "user"),
    [
        (cri.Image(uid=cri.Int64Value(value=5)), ImageUser(5)),
        (cri.Image(uid=cri.Int64Value(value=0)), ImageUser(0)),
        (cri.Image(username="app"), ImageUser(None, "app")),
        (cri.Image(), ImageUser(0)),
    ],
)
def test_an_image_that_names_no_user_runs_as_root(image: cri.Image, user: ImageUser) -> None:
    assert ImageUser.of(image) == user


def test_run_as_non_root_passes() -> None:
    """Without the policy, with a user, and where the container lifts the pod's policy."""
    for pod, user in (
        (a_pod(), ImageUser(0)),
        (_pod(runAsNonRoot=True, runAsUser=5), ImageUser(0)),
        (_pod(runAsNonRoot=True), ImageUser(5)),
        (_pod(runAsNonRoot=True), ImageUser(5, "app")),
        (_pod({"runAsNonRoot": False}, runAsNonRoot=True), ImageUser(0)),
    ):
        security.verify_run_as_non_root(pod, podlib.containers_of(pod)[0], user)


def test_seccomp() -> None:
    """The container's, else the pod's, else the node's default."""
    profile = cri.SecurityProfile
    assert _context(a_pod()).seccomp.profile_type == profile.Unconfined
    assert _context(a_pod(), settings=SecuritySettings(seccomp_default=True)).seccomp == profile()
    by_pod = _pod(seccompProfile={"type": "RuntimeDefault"})
    assert _context(by_pod).seccomp.profile_type == profile.RuntimeDefault
    by_both = _pod({"seccompProfile": {"type": "Unconfined"}}, seccompProfile={"type": "RuntimeDefault"})
    assert _context(by_both).seccomp.profile_type == profile.Unconfined
    local = _context(_pod({"seccompProfile": {"type": "Localhost", "localhostProfile": "a/b.json"}})).seccomp
    assert local == profile(profile_type=profile.Localhost, localhost_ref="/var/lib/kubelet/seccomp/a/b.json")
    with _refuses("localhostProfile must be set if seccompProfile type is Localhost."):
        _context(_pod({"seccompProfile": {"type": "Localhost"}}))


@pytest.mark.parametrize(
    ("own", "annotation", "by_pod", "expected"),
    [
        (None, None, None, ""),
        ({"type": "RuntimeDefault"}, None, None, "runtime/default"),
        ({"type": "Unconfined"}, "runtime/default", None, "unconfined"),
        ({"type": "Localhost", "localhostProfile": "p"}, None, None, "localhost/p"),
        (None, "runtime/default", {"type": "Unconfined"}, "runtime/default"),
        (None, "unconfined", None, "unconfined"),
        (None, "localhost/p", None, "localhost/p"),
        (None, "nonsense", {"type": "Unconfined"}, "unconfined"),
    ],
)
def test_apparmor(own: Any, annotation: str | None, by_pod: Any, expected: str) -> None:
    """The container's field, the old annotation, the pod's field; both spellings of CRI agree."""
    profile = cri.SecurityProfile
    annotations = {"container.apparmor.security.beta.kubernetes.io/main": annotation} if annotation else {}
    pod = a_pod(
        a_container(securityContext={"appArmorProfile": own}),
        metadata={"annotations": annotations},
        securityContext={"appArmorProfile": by_pod},
    )
    context = _context(pod)
    assert context.apparmor_profile == expected
    assert context.HasField("apparmor") == bool(expected)
    kind = {"r": profile.RuntimeDefault, "u": profile.Unconfined, "l": profile.Localhost, "": 0}[expected[:1]]
    assert context.apparmor.profile_type == kind
    if expected.startswith("localhost/"):
        assert context.apparmor.localhost_ref == "p"


def test_bad_apparmor() -> None:
    """A profile without a name, a type that is none."""
    with _refuses("missing localhost apparmor profile name"):
        _context(_pod({"appArmorProfile": {"type": "Localhost"}}))
    with _refuses('unknown apparmor profile type: "X"'):
        _context(_pod({"appArmorProfile": {"type": "X"}}))


def test_sandbox() -> None:
    """As narrow as the runtime can, privileged only for privileged containers."""
    plain = security.compute_sandbox_security_context(a_pod())
    assert plain.seccomp.profile_type == cri.SecurityProfile.RuntimeDefault
    assert not plain.privileged
    unset = security.compute_sandbox_security_context(a_pod(securityContext={}))
    assert not unset.HasField("run_as_user")
    assert unset == plain
    pod = _pod({"privileged": True}, runAsUser=1, runAsGroup=2, fsGroup=3, seLinuxOptions={"type": "t"})
    mapping = cri.UserNamespace(mode=cri.POD)
    context = security.compute_sandbox_security_context(pod, mapping, (4,))
    assert context.privileged
    assert (context.run_as_user.value, context.run_as_group.value) == (1, 2)
    assert list(context.supplemental_groups) == [3, 4]
    assert context.selinux_options.type == "t"
    assert context.namespace_options.userns_options == mapping
