"""SELinux labels of processes, mounts and volumes: dockershim on a Docker that uses them, and kubelet-py above it.

For a machine of its own only (`make boot`), which boots with SELinux in its permissive mode: the kernel forbids nothing
there, but it knows which labels exist and which each process and file has. It is no test_*.py, so that nobody runs it
elsewhere.
"""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import grpc
import pytest

from cri_proto import runtime_v1 as cri
from deploy.standalone import images
from tests.machine.dockershim import PROGRAMS, SOCKET, STATE, Runtime, docker, pid_of, running
from tests.machine.waiting import CALL_SECONDS, until

LEVEL = "s0:c11,c22"
WANTED = cri.SELinuxOption(user="system_u", role="system_r", type="container_t", level=LEVEL)
PROCESS, FILE = f"system_u:system_r:container_t:{LEVEL}", f"system_u:object_r:container_file_t:{LEVEL}"
MANIFESTS = STATE / "manifests"


@pytest.fixture(scope="module")
def shim() -> Iterator[Runtime]:
    """Docker told to use SELinux."""
    assert ":" in label_of_process(1), "the kernel has no policy"
    with running({"selinux-enabled": True}) as started:
        yield started


@pytest.fixture(scope="module")
def pod(shim: Runtime) -> tuple[str, cri.PodSandboxConfig]:
    """One with a label."""
    return shim.pod(selinux_options=WANTED)


def test_a_sandbox_and_its_containers_have_the_label_that_was_asked_for(
    shim: Runtime, pod: tuple[str, cri.PodSandboxConfig]
) -> None:
    """As the kernel calls the process; a container that says nothing has its sandbox's."""
    assert label_of_process(pid_of(pod[0])) == PROCESS
    assert label_of_process(pid_of(shim.run(pod))) == PROCESS
    secure = cri.LinuxContainerSecurityContext(selinux_options=WANTED)
    assert label_of_process(pid_of(shim.run(pod, security_context=secure))) == PROCESS


def test_each_part_of_a_label_can_be_asked_for_alone(shim: Runtime, pod: tuple[str, cri.PodSandboxConfig]) -> None:
    """The rest is Docker's, or the sandbox's."""
    own = cri.LinuxContainerSecurityContext(selinux_options=cri.SELinuxOption(level="s0:c33,c44"))
    assert label_of_process(pid_of(shim.run(pod, security_context=own))).endswith(":s0:c33,c44")
    other = cri.LinuxContainerSecurityContext(selinux_options=cri.SELinuxOption(type="initrc_t"))
    assert label_of_process(pid_of(shim.run(pod, security_context=other))).split(":")[2] == "initrc_t"


def test_pods_that_ask_for_nothing_are_kept_apart(shim: Runtime) -> None:
    """Each has a level of its own, which its containers share."""
    levels = set()
    for _ in range(2):
        pod = shim.pod()
        label = label_of_process(pid_of(pod[0]))
        assert label.split(":")[2] == "container_t"
        assert label_of_process(pid_of(shim.run(pod))) == label
        levels.add(label)
    assert len(levels) == 2


def test_a_privileged_container_is_not_confined(shim: Runtime) -> None:
    pod = shim.pod(privileged=True)
    secure = cri.LinuxContainerSecurityContext(privileged=True)
    assert label_of_process(pid_of(shim.run(pod, security_context=secure))).split(":")[2] != "container_t"


def test_a_label_that_the_policy_does_not_know_starts_nothing(shim: Runtime) -> None:
    """The kernel refuses it, and no sandbox is left."""
    before = docker("ps", "--all", "--quiet")
    with pytest.raises(grpc.RpcError):
        shim.pod(selinux_options=cri.SELinuxOption(type="absent_t"))
    assert docker("ps", "--all", "--quiet") == before


def test_a_mount_is_relabeled_when_that_is_asked_for(
    shim: Runtime, pod: tuple[str, cri.PodSandboxConfig], tmp_path: Path
) -> None:
    """With all that is in it; one that does not ask for it stays as it is."""
    (ours, theirs) = (tmp_path / "ours", tmp_path / "theirs")
    for directory in (ours, theirs):
        directory.mkdir()
        (directory / "file").write_text("x")
    before = label_of_file(theirs)
    assert before != FILE
    shim.run(
        pod,
        "echo x >/ours/made; sleep 100000",
        [
            cri.Mount(host_path=str(ours), container_path="/ours", selinux_relabel=True),
            cri.Mount(host_path=str(theirs), container_path="/theirs"),
        ],
    )
    until((ours / "made").exists)
    assert [label_of_file(each) for each in (ours, ours / "file", ours / "made")] == [FILE] * 3
    assert [label_of_file(each) for each in (theirs, theirs / "file")] == [before] * 2


def test_kubelet_py_has_the_volumes_of_a_pod_relabeled(shim: Runtime) -> None:
    """A pod with seLinuxOptions: its process, its emptyDir, its hosts file and its termination message."""
    assert shim.is_ready()
    container = {
        "name": "c", "image": images.HELLO, "imagePullPolicy": "Never",
        "volumeMounts": [{"name": "v", "mountPath": "/v"}],
    }  # fmt: skip
    options = {"user": "system_u", "role": "system_r", "type": "container_t", "level": LEVEL}
    spec = {
        "containers": [container], "volumes": [{"name": "v", "emptyDir": {}}], "dnsPolicy": "Default",
        "terminationGracePeriodSeconds": 1, "securityContext": {"seLinuxOptions": options},
    }  # fmt: skip
    MANIFESTS.mkdir()
    manifest = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "labeled"}, "spec": spec}
    (MANIFESTS / "labeled.yaml").write_text(json.dumps(manifest))
    settings = {
        "apiVersion": "kubelet.config.k8s.io/v1beta1", "kind": "KubeletConfiguration", "cgroupDriver": "systemd",
        "containerRuntimeEndpoint": f"unix://{SOCKET}", "staticPodPath": str(MANIFESTS), "readOnlyPort": 0,
        "authentication": {"anonymous": {"enabled": False}, "webhook": {"enabled": False}},
        "authorization": {"mode": "AlwaysAllow"},
    }  # fmt: skip
    (STATE / "config.yaml").write_text(json.dumps(settings))
    root = STATE / "kubelet"
    with (STATE / "kubelet.log").open("wb") as log:
        command = [str(PROGRAMS / "kubelet-py"), f"--config={STATE}/config.yaml", f"--root-dir={root}"]
        agent = subprocess.Popen(command, stdout=log, stderr=log)
    try:
        container_id = until(lambda: docker("ps", "--quiet", "--filter", "name=k8s_c_labeled"))
        assert label_of_process(pid_of(container_id)) == PROCESS
        (directory,) = (root / "pods").iterdir()
        (message,) = (directory / "containers/c").iterdir()
        for file in (directory / "volumes/kubernetes.io~empty-dir/v", directory / "etc-hosts", message):
            assert label_of_file(file) == FILE, file
    finally:
        print((STATE / "kubelet.log").read_text()[-4000:])
        (MANIFESTS / "labeled.yaml").unlink()
        until(lambda: docker("ps", "--quiet", "--filter", "name=_labeled-"), lambda found: not found)
        agent.terminate()
        agent.wait(CALL_SECONDS)


def label_of_process(pid: int) -> str:
    return Path(f"/proc/{pid}/attr/current").read_text().strip("\0\n")


def label_of_file(path: Path) -> str:
    return os.getxattr(path, "security.selinux").decode().strip("\0")
