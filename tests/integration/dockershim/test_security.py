"""Security settings on real Docker of both kinds, each looked at from inside the container."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import docker
import docker.errors
import grpc
import pytest

from cri_proto import runtime_v1 as cri
from tests.integration.dockershim.harness import Shim, code_of
from tests.lab.engines.docker import OCI_PROGRAM, VERSIONS
from tests.lab.lab import BUSYBOX, PAUSE, Lab

pytestmark = pytest.mark.lab

GROUPS_IMAGE = "gcr.io/k8s-staging-cri-tools/test-image-predefined-group:latest"
"""User 1000 of it is in group 50000."""
RECORDER = Path(__file__).with_name("recording-runtime")
"""runc, with a copy of each container's OCI configuration in /run/recorded."""
Kind = cri.SecurityProfile.ProfileType
Mode = cri.NamespaceMode
PRIVATE = cri.MountPropagation.PROPAGATION_PRIVATE
TO_CONTAINER = cri.MountPropagation.PROPAGATION_HOST_TO_CONTAINER
BIDIRECTIONAL = cri.MountPropagation.PROPAGATION_BIDIRECTIONAL
OWN_PID = cri.NamespaceOption(pid=Mode.CONTAINER)


@pytest.fixture(scope="module", params=VERSIONS)
def lab(request: pytest.FixtureRequest) -> Iterator[Lab]:
    behind = {"path": str(OCI_PROGRAM), "runtimeArgs": [f"--oci-runtime={RECORDER}"]}
    runtimes = {
        "dockershim": {"path": str(OCI_PROGRAM)},
        "recorder": {"path": str(RECORDER)},
        "dockershim-recorder": behind,
    }
    with Lab.start(
        docker=request.param, images=[PAUSE, BUSYBOX, GROUPS_IMAGE], docker_settings={"runtimes": runtimes}
    ) as started:
        yield started


def secured(**fields: Any) -> cri.LinuxContainerConfig:
    secure = cri.LinuxContainerSecurityContext(namespace_options=OWN_PID)
    secure.MergeFrom(cri.LinuxContainerSecurityContext(**fields))
    return cri.LinuxContainerConfig(security_context=secure)


def run(shim: Shim, **fields: Any) -> str:
    return shim.run(shim.run_sandbox(), "exec sleep 1000", linux=secured(**fields))


def said(shim: Shim, container_id: str, script: str) -> str:
    response = shim.exec(container_id, "sh", "-c", script)
    assert response.exit_code == 0, response
    return response.stdout.decode().strip()


def process_status(shim: Shim, container_id: str) -> dict[str, str]:
    """/proc/1/status, of the first process and not of one that is added."""
    lines = said(shim, container_id, "cat /proc/1/status").splitlines()
    return {name: value.strip() for name, _, value in (line.partition(":") for line in lines)}


def runtime_of(shim: Shim, identifier: str) -> str:
    (inspected,) = json.loads(shim.lab.docker.client("inspect", identifier))
    return str(inspected["HostConfig"]["Runtime"])


# ---- users and groups


@pytest.mark.parametrize("with_group", [False, True])
def test_groups_of_the_image_count_with_merge_and_not_with_strict(shim: Shim, with_group: bool) -> None:
    """For the first process and for those that are added, whether or not the request has a group of its own.

    Docker adds the image's only where it has none, and leaves them out only where it has one.
    """
    fields: dict[str, Any] = {"supplemental_groups": [1234], "run_as_user": cri.Int64Value(value=1000)}
    if with_group:
        fields["run_as_group"] = cri.Int64Value(value=3000)
    primary = 3000 if with_group else 1000
    for policy, expected in (
        (cri.SupplementalGroupsPolicy.Merge, {1234, 50000}),
        (cri.SupplementalGroupsPolicy.Merge, {1234, 50000}),  # what is known of the image by now
        (cri.SupplementalGroupsPolicy.Strict, {1234}),
    ):
        linux = secured(supplemental_groups_policy=policy, **fields)
        image = cri.ImageSpec(image=GROUPS_IMAGE)
        sandbox = shim.run_sandbox()
        container_id = shim.run(sandbox, "exec sleep 1000", image=image, linux=linux)
        first = {int(text) for text in process_status(shim, container_id)["Groups"].split()}
        added = {int(text) for text in said(shim, container_id, "id -G").split()}
        shown = shim.status(container_id).user.linux
        assert (shown.uid, shown.gid) == (1000, primary)
        assert first | {primary} == added == set(shown.supplemental_groups) == expected | {primary}
        wrapped = policy == cri.SupplementalGroupsPolicy.Strict and not with_group
        assert runtime_of(shim, container_id) == ("dockershim" if wrapped else "runc")
        shim.remove_sandbox(sandbox[0])
    assert shim.docker_ids() == []


def test_a_strict_pod(shim: Shim) -> None:
    """As the kubelet says it, to the sandbox too."""
    strict = cri.LinuxSandboxSecurityContext(
        supplemental_groups_policy=cri.SupplementalGroupsPolicy.Strict, supplemental_groups=[7]
    )
    sandbox = shim.run_sandbox(shim.sandbox_config(linux=cri.LinuxPodSandboxConfig(security_context=strict)))
    plain = shim.run(sandbox, "exec sleep 1000", linux=secured())
    assert runtime_of(shim, plain) == "runc"


# ---- capabilities and privileges


def test_capabilities(shim: Shim) -> None:
    """Added, dropped, all, none, and ambient ones that a user keeps."""
    net_admin, chown = 1 << 12, 1
    container_id = run(shim, capabilities=cri.Capability(add_capabilities=["NET_ADMIN"], drop_capabilities=["CHOWN"]))
    effective = int(process_status(shim, container_id)["CapEff"], 16)
    assert effective & net_admin
    assert not effective & chown
    container_id = run(shim, capabilities=cri.Capability(drop_capabilities=["ALL"]))
    assert int(process_status(shim, container_id)["CapBnd"], 16) == 0
    ambient = cri.Capability(add_ambient_capabilities=["NET_ADMIN"])
    container_id = run(shim, capabilities=ambient, run_as_user=cri.Int64Value(value=1000))
    status = process_status(shim, container_id)
    assert int(status["CapAmb"], 16) == int(status["CapEff"], 16) == net_admin
    assert runtime_of(shim, container_id) == "dockershim"


def test_privileged_has_all_that_the_host_can_give(shim: Shim) -> None:
    """Every capability that the engine knows, no seccomp, writable /sys; added processes too. This host lacks some."""
    secure = cri.LinuxSandboxSecurityContext(privileged=True)
    sandbox = shim.run_sandbox(shim.sandbox_config(linux=cri.LinuxPodSandboxConfig(security_context=secure)))
    container_id = shim.run(sandbox, "exec sleep 1000", linux=secured(privileged=True))
    status = process_status(shim, container_id)
    ours = int(Path("/proc/self/status").read_text().split("CapBnd:")[1].split()[0], 16)
    known = 38 if shim.lab.docker.version == "20.10" else 41  # PERFMON is the first that 20.10 does not know
    assert int(status["CapEff"], 16) == ours & (1 << known) - 1
    assert status["Seccomp"] == "0"
    said(shim, container_id, "hostname changed && mkdir -p /m && mount -t tmpfs tmpfs /m")
    assert "rw" in said(shim, container_id, "grep ' /sys ' /proc/mounts").split()[3].split(",")


def test_no_new_privileges(shim: Shim) -> None:
    for wanted in (True, False):
        container_id = run(shim, no_new_privs=wanted)
        assert process_status(shim, container_id)["NoNewPrivs"] == str(int(wanted))


# ---- profiles


def test_seccomp(shim: Shim) -> None:
    """A filter with RuntimeDefault and with a local profile, none with Unconfined and without a word."""
    profile = shim.lab.root / "seccomp.json"
    rule = {"names": ["mkdir", "mkdirat"], "action": "SCMP_ACT_ERRNO"}
    profile.write_text(json.dumps({"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [rule]}))
    local = cri.SecurityProfile(profile_type=Kind.Localhost, localhost_ref=str(profile))
    cases = (
        ("2", cri.SecurityProfile(profile_type=Kind.RuntimeDefault)),
        ("2", local),
        ("0", cri.SecurityProfile(profile_type=Kind.Unconfined)),
        ("0", None),
    )
    for mode, wanted in cases:
        container_id = run(shim, seccomp=wanted)
        assert process_status(shim, container_id)["Seccomp"] == mode
        refused = shim.exec(container_id, "mkdir", "/made").exit_code != 0
        assert refused == (wanted is local)


def test_a_sandbox_with_a_local_seccomp_profile(shim: Shim) -> None:
    """Pause runs under it."""
    profile = shim.lab.root / "seccomp-sandbox.json"
    profile.write_text(json.dumps({"defaultAction": "SCMP_ACT_ALLOW", "syscalls": []}))
    local = cri.SecurityProfile(profile_type=Kind.Localhost, localhost_ref=str(profile))
    secure = cri.LinuxSandboxSecurityContext(seccomp=local)
    sandbox_id, _ = shim.run_sandbox(shim.sandbox_config(linux=cri.LinuxPodSandboxConfig(security_context=secure)))
    (inspected,) = json.loads(shim.lab.docker.client("inspect", sandbox_id))
    assert any("SCMP_ACT_ALLOW" in option for option in inspected["HostConfig"]["SecurityOpt"])


# ---- what can be seen and written


def test_masked_and_read_only_paths(shim: Shim) -> None:
    """Those of the request are hidden and protected; empty lists hide nothing."""
    container_id = run(shim, masked_paths=["/proc/cpuinfo"], readonly_paths=["/proc/sys"])
    assert said(shim, container_id, "cat /proc/cpuinfo | wc -c") == "0"
    assert shim.exec(container_id, "sh", "-c", "echo 1 > /proc/sys/net/ipv4/ip_forward").exit_code != 0
    unmasked = run(shim, capabilities=cri.Capability(add_capabilities=["NET_ADMIN", "SYS_ADMIN"]))
    assert int(said(shim, unmasked, "cat /proc/cpuinfo /proc/timer_list | wc -c")) > 0
    mounts = said(shim, unmasked, "cat /proc/mounts")
    assert not [line for line in mounts.splitlines() if line.split()[1].startswith("/proc/")]


def test_read_only_root_file_system(shim: Shim) -> None:
    for wanted in (True, False):
        container_id = run(shim, readonly_rootfs=wanted)
        assert (shim.exec(container_id, "touch", "/file").exit_code != 0) == wanted


# ---- namespaces


def test_process_namespaces(shim: Shim) -> None:
    """The node's, the pod's, the container's own, and that of another container of the pod."""
    sandbox = shim.run_sandbox()
    ids = {}
    for name, options in (
        ("own", OWN_PID),
        ("pod", cri.NamespaceOption(pid=Mode.POD)),
        ("node", cri.NamespaceOption(pid=Mode.NODE)),
    ):
        secure = cri.LinuxContainerSecurityContext(namespace_options=options)
        ids[name] = shim.run(
            sandbox,
            "exec sleep 1000",
            linux=cri.LinuxContainerConfig(security_context=secure),
            metadata=cri.ContainerMetadata(name=name),
        )
    target = cri.NamespaceOption(pid=Mode.TARGET, target_id=ids["own"])
    secure = cri.LinuxContainerSecurityContext(namespace_options=target)
    ids["target"] = shim.run(
        sandbox,
        "exec sleep 2000",
        linux=cri.LinuxContainerConfig(security_context=secure),
        metadata=cri.ContainerMetadata(name="target"),
    )
    seen = {name: said(shim, identifier, "readlink /proc/self/ns/pid") for name, identifier in ids.items()}
    assert seen["target"] == seen["own"]
    assert len({seen["own"], seen["pod"], seen["node"]}) == 3
    assert seen["node"] == shim.lab.run(["readlink", "/proc/self/ns/pid"]).stdout.strip()
    assert "sleep" in said(shim, ids["target"], "cat /proc/1/cmdline")
    assert said(shim, ids["pod"], "cat /proc/1/comm") == "pause"


def test_sysctls_of_the_pod(shim: Shim) -> None:
    """Those of its network and IPC reach the containers; an instruction for dockershim-oci is none."""
    linux = cri.LinuxPodSandboxConfig(sysctls={"net.ipv4.ip_local_port_range": "2000 3000", "kernel.msgmax": "9000"})
    container_id = shim.run(shim.run_sandbox(shim.sandbox_config(linux=linux)), "exec sleep 1000", linux=secured())
    assert said(shim, container_id, "cat /proc/sys/net/ipv4/ip_local_port_range").split() == ["2000", "3000"]
    assert said(shim, container_id, "cat /proc/sys/kernel/msgmax") == "9000"
    forged = cri.LinuxPodSandboxConfig(sysctls={"dockershim.oci": "{}"})
    code, message = code_of(lambda: shim.run_sandbox(shim.sandbox_config(linux=forged)))
    assert code is grpc.StatusCode.INVALID_ARGUMENT
    assert "dockershim.oci" in message


# ---- mounts and devices


def test_recursive_read_only(shim: Shim) -> None:
    """A file system mounted below is read-only as well, and only then."""
    directory = shim.lab.root / f"tree-{shim.lab.docker.version}"
    below = directory / "below"
    shim.lab.run(["sh", "-c", f"mkdir -p {below} && mount -t tmpfs tmpfs {below}"])
    try:
        for recursive in (False, True):
            mount = cri.Mount(
                container_path="/tree", host_path=str(directory), readonly=True, recursive_read_only=recursive
            )
            container_id = shim.run(shim.run_sandbox(), "exec sleep 1000", mounts=[mount], linux=secured())
            assert shim.exec(container_id, "touch", "/tree/file").exit_code != 0
            assert (shim.exec(container_id, "touch", "/tree/below/file").exit_code != 0) == recursive
            assert list(shim.status(container_id).mounts) == [mount]
    finally:
        shim.remove_all()
        shim.lab.run(["umount", str(below)])


def test_propagation(shim: Shim) -> None:
    """What the host mounts later is seen, what the container mounts is seen by the host, or neither."""
    results = {}
    for propagation in (PRIVATE, TO_CONTAINER, BIDIRECTIONAL):
        directory = shim.lab.root / f"propagation-{shim.lab.docker.version}-{propagation}"
        script = f"mkdir -p {directory} && mount --bind {directory} {directory} && mount --make-rshared {directory}"
        shim.lab.run(["sh", "-c", script])
        mount = cri.Mount(container_path="/shared", host_path=str(directory), propagation=propagation)
        linux = secured(capabilities=cri.Capability(add_capabilities=["SYS_ADMIN"]))
        container_id = shim.run(shim.run_sandbox(), "exec sleep 1000", mounts=[mount], linux=linux)
        shim.lab.run(["sh", "-c", f"mkdir {directory}/host && mount -t tmpfs tmpfs {directory}/host"])
        said(shim, container_id, "mkdir /shared/inside && mount -t tmpfs tmpfs /shared/inside")
        results[propagation] = (
            " /shared/host " in said(shim, container_id, "cat /proc/mounts"),
            f" {directory}/inside " in shim.lab.run(["cat", "/proc/mounts"]).stdout,
        )
        assert shim.status(container_id).mounts[0].propagation == propagation
    assert results == {
        PRIVATE: (False, False),
        TO_CONTAINER: (True, False),
        BIDIRECTIONAL: (True, True),
    }


def test_devices(shim: Shim) -> None:
    """The device of the host, under the name and with the rights that the request says."""
    devices = [cri.Device(host_path="/dev/kmsg", container_path="/dev/mine", permissions="r")]
    container_id = shim.run(shim.run_sandbox(), "exec sleep 1000", devices=devices, linux=secured())
    assert said(shim, container_id, "stat -c %t:%T /dev/mine") == "1:b"
    assert shim.exec(container_id, "sh", "-c", "echo x > /dev/mine").exit_code != 0


CDI = {
    "cdiVersion": "0.7.0",
    "kind": "example.com/thing",
    "containerEdits": {"env": ["THINGS=yes"]},
    "devices": [
        {
            "name": "one",
            "containerEdits": {
                "env": ["THING=one"],
                "deviceNodes": [{"path": "/dev/thing", "hostPath": "/dev/kmsg", "permissions": "r"}],
                "mounts": [{"hostPath": "/etc/hostname", "containerPath": "/thing/name", "options": ["ro", "bind"]}],
                "hooks": [{"hookName": "createRuntime", "path": "/bin/touch", "args": ["touch", "/run/hooked"]}],
                "additionalGids": [777],
            },
        },
        {"name": "two", "containerEdits": {"env": ["OTHER=two"]}},
    ],
}


def test_cdi_devices(shim: Shim) -> None:
    """All that a specification says of a device, asked for by the field or as device plugins do by an annotation: by
    Docker itself from 25 on, before that by dockershim-oci.

    Old specifications are YAML more often than not, so one of the two files is.
    """
    write = "mkdir -p /etc/cdi && cat > /etc/cdi/$0 && rm -f /run/hooked"
    shim.lab.run(["sh", "-c", write, "thing.json"], text_input=json.dumps(CDI))
    more = 'cdiVersion: "0.5.0"\nkind: example.com/more\ndevices:\n- name: x\n  containerEdits: {env: [MORE=x]}\n'
    shim.lab.run(["sh", "-c", write, "more.yaml"], text_input=more)
    names = ["example.com/thing=one", "example.com/thing=two", "example.com/more=x"]
    linux = secured(run_as_user=cri.Int64Value(value=1000), run_as_group=cri.Int64Value(value=1000))
    devices = [cri.CDIDevice(name=name) for name in names[:2]]
    plugins = {"cdi.k8s.io/plugin_1": ",".join(names[1:])}
    container_id = shim.run(
        shim.run_sandbox(), "exec sleep 1000", CDI_devices=devices, annotations=plugins, linux=linux
    )
    environment = said(shim, container_id, "tr '\\0' '\\n' < /proc/1/environ").splitlines()
    assert {"THINGS=yes", "THING=one", "OTHER=two", "MORE=x"} <= set(environment)
    assert said(shim, container_id, "stat -c '%F %t:%T %u' /dev/thing") == "character special file 1:b 1000"
    assert shim.exec(container_id, "sh", "-c", "echo x > /dev/thing").exit_code != 0
    assert said(shim, container_id, "cat /thing/name") == shim.lab.run(["cat", "/etc/hostname"]).stdout.strip()
    assert " /thing/name " in said(shim, container_id, "grep ' ro,' /proc/mounts")
    assert "777" in process_status(shim, container_id)["Groups"].split()
    assert shim.lab.run(["stat", "-c", "%F", "/run/hooked"]).stdout.strip() == "regular empty file"
    wrapped = shim.lab.docker.version == "20.10"
    assert runtime_of(shim, container_id) == ("dockershim" if wrapped else "runc")


def test_a_cdi_device_that_is_not_there_is_named(shim: Shim) -> None:
    """When the container is created or, by an engine that looks itself, when it is started; and nothing runs."""
    devices = [cri.CDIDevice(name="example.com/thing=none")]
    code, message = code_of(lambda: shim.run(shim.run_sandbox(), "exec sleep 1000", CDI_devices=devices))
    assert code is not grpc.StatusCode.OK
    assert "example.com/thing=none" in message
    wanted = cri.ContainerFilter(state=cri.ContainerStateValue(state=cri.ContainerState.CONTAINER_RUNNING))
    assert not shim.runtime.ListContainers(cri.ListContainersRequest(filter=wanted)).containers


# ---- runtimes


def test_runtimes_of_other_handlers_learn_of_the_pod(shim: Shim) -> None:
    """Annotations in the OCI configuration of sandbox and container, where Docker can pass them."""
    sandbox = pod_of_handler(shim, "recorder")
    container_id = shim.run(sandbox, "exec sleep 1000", linux=secured(), annotations={"example.com/own": "1"})
    first, second = (recorded(shim, identifier).get("annotations") or {} for identifier in (sandbox[0], container_id))
    if shim.lab.docker.version == "20.10":
        assert first == second == {}
        return
    assert first["example.com/note"] == second["example.com/note"] == "kept"
    assert second["example.com/own"] == "1"
    kinds = [one["io.kubernetes.cri.container-type"] for one in (first, second)]
    assert kinds == ["sandbox", "container"]
    assert second["io.kubernetes.cri.sandbox-id"] == sandbox[0]


def test_a_handler_with_the_program_in_front(shim: Shim) -> None:
    """Its own containers reach it as they are, one that needs more reaches it edited."""
    handlers = shim.runtime.Status(cri.StatusRequest()).runtime_handlers
    assert next(one for one in handlers if one.name == "recorder").features.user_namespaces
    sandbox = pod_of_handler(shim, "recorder")
    plain = shim.run(sandbox, "exec sleep 1000", linux=secured())
    linux = secured(supplemental_groups_policy=cri.SupplementalGroupsPolicy.Strict, supplemental_groups=[7])
    strict = shim.run(sandbox, "exec sleep 1000", linux=linux, metadata=cri.ContainerMetadata(name="strict"))
    assert [runtime_of(shim, one) for one in (plain, strict)] == ["recorder", "dockershim-recorder"]
    spec = recorded(shim, strict)
    assert spec["process"]["user"]["additionalGids"] == [0, 7]
    assert "dockershim.oci" not in json.dumps(spec)


def pod_of_handler(shim: Shim, handler: str) -> tuple[str, cri.PodSandboxConfig]:
    config = shim.sandbox_config()
    request = cri.RunPodSandboxRequest(config=config, runtime_handler=handler)
    return shim.runtime.RunPodSandbox(request, timeout=60).pod_sandbox_id, config


def recorded(shim: Shim, identifier: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((shim.lab.root / "run" / "recorded" / f"{identifier}.json").read_text())
    return found


# ---- what Status promises


def test_status_promises_what_the_tests_above_saw(shim: Shim) -> None:
    """For the default handler: groups, recursive read-only mounts, user namespaces."""
    status = shim.runtime.Status(cri.StatusRequest())
    assert status.features.supplemental_groups_policy
    default = next(handler for handler in status.runtime_handlers if not handler.name)
    assert default.features.recursive_read_only_mounts
    assert default.features.user_namespaces


def test_an_instruction_that_cannot_be_read_is_an_error_that_docker_shows(shim: Shim) -> None:
    """And never a container without what was asked for."""
    with contextlib.closing(docker.APIClient(f"unix://{shim.docker_socket}", version="1.41", timeout=30)) as api:

        def start(text: str, runtime: str) -> str:
            host_config = api.create_host_config(runtime=runtime, sysctls={"dockershim.oci": text})
            created = api.create_container(BUSYBOX, ["true"], host_config=host_config)
            try:
                with pytest.raises(docker.errors.APIError) as refusal:
                    api.start(created)
                return str(refusal.value)
            finally:
                api.remove_container(created, force=True)

        for text in ("{", '{"version": 99}', '{"version": 1, "unheard_of": 1}'):
            assert "dockershim-oci: sysctl dockershim.oci" in start(text, "dockershim")
        assert "dockershim.oci" in start('{"version": 1}', "runc")  # the real runtime does not let it pass either
