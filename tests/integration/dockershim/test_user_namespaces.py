"""Pods with user namespaces on real Docker, through dockershim-oci: seen from inside, from the host, and on disk."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path

import grpc
import pytest

from cri_proto import runtime_v1 as cri
from tests.integration.dockershim.harness import Shim, code_of
from tests.lab.engines.docker import VERSIONS
from tests.lab.lab import BUSYBOX, Lab

pytestmark = pytest.mark.lab

FIRST_HOST_ID = (1 << 31) + 65536  # the Go kubelet gives ids as high as these
IDS = [cri.IDMapping(host_id=FIRST_HOST_ID, container_id=0, length=65536)]
USERNS = cri.NamespaceOption(
    pid=cri.NamespaceMode.CONTAINER,
    userns_options=cri.UserNamespace(mode=cri.NamespaceMode.POD, uids=IDS, gids=IDS),
)
LINUX = cri.LinuxContainerConfig(security_context=cri.LinuxContainerSecurityContext(namespace_options=USERNS))


@pytest.fixture(scope="module", params=VERSIONS)
def lab(request: pytest.FixtureRequest) -> Iterator[Lab]:
    with Lab.start(docker=request.param) as started:
        yield started


def pod_with_user_namespace(shim: Shim) -> tuple[str, cri.PodSandboxConfig]:
    secure = cri.LinuxSandboxSecurityContext(namespace_options=USERNS)
    return shim.run_sandbox(shim.sandbox_config(linux=cri.LinuxPodSandboxConfig(security_context=secure)))


def said(shim: Shim, container_id: str, script: str) -> str:
    response = shim.exec(container_id, "sh", "-c", script)
    assert response.exit_code == 0, response
    return response.stdout.decode()


def host_pid(shim: Shim, container_id: str) -> int:
    (inspected,) = json.loads(shim.lab.docker.client("inspect", container_id))
    return int(inspected["State"]["Pid"])


def test_status_says_that_pods_can_have_them(shim: Shim) -> None:
    """For the default handler and for the one that is Docker's own."""
    handlers = shim.runtime.Status(cri.StatusRequest()).runtime_handlers
    assert {handler.name: handler.features.user_namespaces for handler in handlers} | {"": True, "runc": True} == {
        handler.name: handler.features.user_namespaces for handler in handlers
    }


def test_root_inside_is_nobody_outside(shim: Shim) -> None:
    """The maps are those of the request, and the host sees the process under the mapped id."""
    sandbox = pod_with_user_namespace(shim)
    container_id = shim.run(sandbox, "exec sleep 1000", linux=LINUX)
    for name in ("uid_map", "gid_map"):
        assert said(shim, container_id, f"cat /proc/1/{name}").split() == ["0", str(FIRST_HOST_ID), "65536"]
    assert said(shim, container_id, "id -u; id -g").split() == ["0", "0"]
    ids = [
        line.split()[1]
        for line in shim.lab.run(["cat", f"/proc/{host_pid(shim, container_id)}/status"]).stdout.splitlines()
        if line.startswith(("Uid:", "Gid:"))
    ]
    assert ids == [str(FIRST_HOST_ID)] * 2
    shown = shim.sandbox_status(sandbox[0]).linux.namespaces.options.userns_options
    assert (shown.mode, list(shown.uids)) == (cri.NamespaceMode.POD, IDS)


def test_containers_of_a_pod_share_the_namespace_that_owns_their_network(shim: Shim) -> None:
    """So a capability inside is good for the pod's network and for nothing of the host's."""
    sandbox = pod_with_user_namespace(shim)
    secure = cri.LinuxContainerSecurityContext(
        namespace_options=USERNS, capabilities=cri.Capability(add_capabilities=["NET_ADMIN"])
    )
    first = shim.run(sandbox, "exec sleep 1000", linux=cri.LinuxContainerConfig(security_context=secure))
    second = shim.run(sandbox, "exec sleep 1000", linux=LINUX, metadata=cri.ContainerMetadata(name="second"))
    namespaces = {said(shim, one, "readlink /proc/1/ns/user") for one in (first, second)}
    assert len(namespaces) == 1
    assert namespaces != {os.readlink("/proc/self/ns/user")}
    said(shim, first, "ip link set lo down && ip link set lo up && ping -c 1 -w 5 127.0.0.1")
    assert shim.exec(second, "ip", "link", "set", "lo", "down").exit_code != 0
    assert shim.sandbox_status(sandbox[0]).network.ip in said(shim, first, "ip addr")
    assert shim.exec(first, "sh", "-c", "echo x > /proc/sysrq-trigger").exit_code != 0


def test_the_root_file_system_belongs_to_the_pods_ids_and_keeps_its_own_on_disk(shim: Shim) -> None:
    """Files of the image can be changed, given away and removed; nothing was copied or changed in the image."""
    sandbox = pod_with_user_namespace(shim)
    container_id = shim.run(sandbox, "exec sleep 1000", linux=LINUX)
    assert said(shim, container_id, "stat -c %u:%g / /etc/passwd /etc/resolv.conf /etc/hostname").split() == ["0:0"] * 4
    said(
        shim, container_id, "echo changed >> /etc/passwd; touch /given; chown 5:6 /given; mkdir -p /a/b; rm /etc/group"
    )
    assert said(shim, container_id, "stat -c %u:%g /given /a/b").split() == ["5:6", "0:0"]
    assert "changed" in said(shim, container_id, "cat /etc/passwd")
    assert shim.exec(container_id, "cat", "/etc/group").exit_code != 0
    plain = shim.run(shim.run_sandbox(), "exec sleep 1000")
    assert "changed" not in said(shim, plain, "cat /etc/passwd; cat /etc/group; stat -c %u:%g /etc/passwd")


def test_mounts_have_the_pods_ids_only_where_they_ask_for_them(shim: Shim) -> None:
    """A mapped mount: root inside makes files of root on the host. Another one: everything belongs to nobody."""
    sandbox = pod_with_user_namespace(shim)
    mapped, plain = (shim.lab.root / f"volume-{name}" for name in ("mapped", "plain"))
    for directory in (mapped, plain):
        directory.mkdir(exist_ok=True)
        (directory / "there").write_text("host's\n")
        os.chown(directory / "there", 33, 33)
    mounts = [
        cri.Mount(container_path="/mapped", host_path=str(mapped), uidMappings=IDS, gidMappings=IDS),
        cri.Mount(container_path="/plain/", host_path=str(plain)),
    ]
    container_id = shim.run(sandbox, "exec sleep 1000", linux=LINUX, mounts=mounts)
    assert said(shim, container_id, "stat -c %u:%g /mapped/there /plain/there").split() == ["33:33", "65534:65534"]
    said(shim, container_id, "touch /mapped/new && chown 7:8 /mapped/new && touch /mapped/root")
    made = [(mapped / name).stat() for name in ("new", "root")]
    assert [(file.st_uid, file.st_gid) for file in made] == [(7, 8), (0, 0)]
    assert shim.exec(container_id, "touch", "/plain/new").exit_code != 0
    mounts[1].container_path = "/plain"
    assert sorted(shim.status(container_id).mounts, key=lambda mount: mount.container_path) == mounts


@pytest.mark.parametrize("sub_path", ["", "etc"])
def test_images_that_are_volumes_have_the_pods_ids(shim: Shim, sub_path: str) -> None:
    """Whole, and a directory of one; status tells."""
    volume = cri.Mount(
        container_path="/volume",
        readonly=True,
        image=cri.ImageSpec(image=BUSYBOX),
        image_sub_path=sub_path,
        uidMappings=IDS,
        gidMappings=IDS,
    )
    container_id = shim.run(pod_with_user_namespace(shim), "exec sleep 1000", linux=LINUX, mounts=[volume])
    inside = "/volume" if sub_path else "/volume/etc"
    assert said(shim, container_id, f"stat -c %u:%g /volume {inside}/passwd").split() == ["0:0"] * 2
    assert shim.exec(container_id, "touch", f"{inside}/new").exit_code != 0
    (shown,) = shim.status(container_id).mounts
    assert (shown.image.image, list(shown.uidMappings)) == (BUSYBOX, IDS)


def test_users_output_and_terminals_work_as_ever(shim: Shim) -> None:
    """A user of the pod's own, output by way of /dev/stdout, the log, and a terminal."""
    sandbox = pod_with_user_namespace(shim)
    secure = cri.LinuxContainerSecurityContext(namespace_options=USERNS, supplemental_groups=[1234])
    secure.run_as_user.value = secure.run_as_group.value = 1000
    linux = cri.LinuxContainerConfig(security_context=secure)
    container_id = shim.run(sandbox, "echo by name > /dev/stdout; exec sleep 1000", linux=linux)
    assert said(shim, container_id, "id -u; id -G").split() == ["1000", "1000", "1234"]
    user = shim.status(container_id).user.linux
    assert (user.uid, user.gid, list(user.supplemental_groups)) == (1000, 1000, [1000, 1234])
    name = cri.ContainerMetadata(name="terminal")
    terminal = shim.run(sandbox, "tty; ls -l $(tty)", linux=LINUX, metadata=name, tty=True, log_path="terminal/0.log")
    ended = shim.wait_state(terminal, cri.ContainerState.CONTAINER_EXITED)
    assert ended.exit_code == 0
    assert "/dev/pts/0" in Path(ended.log_path).read_text()
    assert "by name" in Path(shim.status(container_id).log_path).read_text()


def test_dockershim_killed_between_the_steps(shim: Shim) -> None:
    """What a container needs is in Docker's hands from its creation: a new dockershim starts it as it was meant."""
    sandbox = pod_with_user_namespace(shim)
    container_id = shim.create(sandbox, "cat /proc/self/uid_map; exec sleep 1000", linux=LINUX)
    shim.kill()
    shim.start()
    shim.start_container(container_id)
    assert said(shim, container_id, "cat /proc/self/uid_map").split() == ["0", str(FIRST_HOST_ID), "65536"]
    again = shim.run(sandbox, "exec sleep 1000", linux=LINUX, metadata=cri.ContainerMetadata(name="later"))
    assert said(shim, again, "cat /proc/self/uid_map").split() == ["0", str(FIRST_HOST_ID), "65536"]


def test_nothing_is_left(shim: Shim) -> None:
    """Neither mounts on the host nor files of the layer, after pods that were made, killed and removed."""
    sandbox = pod_with_user_namespace(shim)
    shim.run(sandbox, "touch /x; exec sleep 1000", linux=LINUX)
    shim.remove_sandbox(sandbox[0])
    assert shim.docker_ids() == []
    assert "dockershim-oci" not in shim.lab.run(["cat", "/proc/self/mountinfo"]).stdout
    work = shim.lab.run(["find", "/var/lib/docker", "-name", "dockershim-work"]).stdout
    assert work == ""


def test_containers_without_one_never_meet_the_program(shim: Shim) -> None:
    """Not even beside a pod that has one."""
    pod_with_user_namespace(shim)
    sandbox = shim.run_sandbox()
    container_id = shim.run(sandbox, "exec sleep 1000")
    inspected = json.loads(shim.lab.docker.client("inspect", sandbox[0], container_id))
    assert [one["HostConfig"]["Runtime"] for one in inspected] == ["runc", "runc"]


@pytest.mark.parametrize("part", ["network", "pid", "ipc"])
def test_namespaces_of_the_host_are_refused_beside_it(shim: Shim, part: str) -> None:
    """By name, and nothing is left."""
    options = cri.NamespaceOption()
    options.CopyFrom(USERNS)
    setattr(options, part, cri.NamespaceMode.NODE)
    secure = cri.LinuxSandboxSecurityContext(namespace_options=options)
    config = shim.sandbox_config(linux=cri.LinuxPodSandboxConfig(security_context=secure))
    code, message = code_of(lambda: shim.run_sandbox(config))
    assert code is grpc.StatusCode.INVALID_ARGUMENT
    assert "userns_options" in message
    assert part in message
    assert shim.docker_ids() == []
