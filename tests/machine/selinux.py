"""SELinux: labels of processes, mounts and volumes, and what they forbid; dockershim on Docker, kubelet-py above it.

For a machine of its own only (`make boot`), whose policy knows what containers may do with what is theirs;
all else there is let alone (tests/lab/machine.py). The policy is enforced through all of this. It is no test_*.py, so
that nobody runs it elsewhere.
"""

from __future__ import annotations

import os
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

import grpc
import pytest

from cri_proto import runtime_v1 as cri
from deploy.standalone import images
from tests.machine import kubelet
from tests.machine.dockershim import SOCKET, Runtime, docker, pid_of, running, systemctl
from tests.machine.waiting import until

LEVEL = "s0:c11,c22"
WANTED = cri.SELinuxOption(user="system_u", role="system_r", type="container_t", level=LEVEL)
PROCESS, FILE = f"system_u:system_r:container_t:{LEVEL}", f"system_u:object_r:container_file_t:{LEVEL}"
ENFORCE = Path("/sys/fs/selinux/enforce")
LAYERS = Path("/var/lib/docker/overlay2")
"""What comes in there has its type: the kernel asks for it below an overlay, too. Where there is a policy for Docker,
the installation sees to that."""


@pytest.fixture(scope="module")
def shim() -> Iterator[Runtime]:
    """Docker told to use SELinux, on a kernel that does what the policy says."""
    assert ":" in label_of_process(1), "the kernel has no policy"
    systemctl("start", "docker")
    os.setxattr(LAYERS, "security.selinux", b"system_u:object_r:container_ro_file_t:s0")
    with running({"selinux-enabled": True}) as started:
        ENFORCE.write_text("1")
        assert ENFORCE.read_text() == "1"
        try:
            yield started
        finally:
            ENFORCE.write_text("0")
            print(*(line for line in kernel_log() if "avc:" in line), sep="\n")


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


def test_a_container_reads_what_has_its_label_and_nothing_else(
    shim: Runtime, pod: tuple[str, cri.PodSandboxConfig], tmp_path: Path
) -> None:
    """Of two directories of root's that root in a container asks for, the kernel gives it the one with its label.

    And it gives that one to no pod with another level, but to a privileged one, which has no label of a container's.
    """
    (ours, theirs) = (tmp_path / "ours", tmp_path / "theirs")
    for directory in (ours, theirs):
        directory.mkdir()
        (directory / "file").write_text("x")
    mounts = [
        cri.Mount(host_path=str(ours), container_path="/ours"),
        cri.Mount(host_path=str(theirs), container_path="/theirs"),
    ]
    relabeled = [cri.Mount(host_path=str(ours), container_path="/ours", selinux_relabel=True), mounts[1]]
    labeled = shim.run(pod, mounts=relabeled)
    assert label_of_file(ours / "file") == FILE
    assert shim.exec(labeled, "cat /ours/file && echo more >>/ours/file && echo y >/ours/made").exit_code == 0
    for script in ("cat /theirs/file", "echo more >>/theirs/file", "echo y >/theirs/made", "ls /theirs"):
        assert_is_denied(shim, labeled, script)
    other = shim.run(shim.pod(), mounts=mounts)
    for script in ("cat /ours/file", "echo more >>/ours/file", "cat /theirs/file"):
        assert_is_denied(shim, other, script)
    secure = cri.LinuxContainerSecurityContext(privileged=True)
    free = shim.run(shim.pod(privileged=True), mounts=mounts, security_context=secure)
    assert shim.exec(free, "cat /ours/file /theirs/file").stdout == b"xmore\nx"


def test_a_container_signals_none_of_another_pod(shim: Runtime, pod: tuple[str, cri.PodSandboxConfig]) -> None:
    """Of those whose processes it sees; one of its own pod's is another matter."""
    node = cri.NamespaceOption(pid=cri.NamespaceMode.NODE)
    seeing = shim.pod(namespace_options=node, selinux_options=WANTED)
    secure = cri.LinuxContainerSecurityContext(namespace_options=node, selinux_options=WANTED)
    mine, theirs = shim.run(seeing, security_context=secure), shim.run(shim.pod())
    assert_is_denied(shim, mine, f"kill -9 {pid_of(theirs)}")
    assert_is_denied(shim, mine, "kill -9 1")
    labeled = shim.run(pod)
    assert shim.exec(mine, f"kill -9 {pid_of(labeled)}").exit_code == 0
    until(lambda: pid_of(labeled) == 0)
    assert pid_of(theirs) > 0


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
    with kubelet.running(SOCKET):
        kubelet.write_pod("labeled", spec)
        container_id = until(lambda: docker("ps", "--quiet", "--filter", "name=k8s_c_labeled"))
        assert label_of_process(pid_of(container_id)) == PROCESS
        for script in ("echo x >/v/made; cat /v/made", "cat /etc/hosts; echo over >/dev/termination-log"):
            docker("exec", container_id, "/bin/busybox", "sh", "-ec", script)
        (directory,) = (kubelet.ROOT / "pods").iterdir()
        (message,) = (directory / "containers/c").iterdir()
        volume = directory / "volumes/kubernetes.io~empty-dir/v"
        for file in (volume, volume / "made", directory / "etc-hosts", message):
            assert label_of_file(file) == FILE, file
        assert message.read_text() == "over\n"
        (kubelet.MANIFESTS / "labeled.yaml").unlink()
        until(lambda: docker("ps", "--quiet", "--filter", "name=_labeled-"), lambda found: not found)


def label_of_process(pid: int) -> str:
    return Path(f"/proc/{pid}/attr/current").read_text().strip("\0\n")


def label_of_file(path: Path) -> str:
    return os.getxattr(path, "security.selinux").decode().strip("\0")


def assert_is_denied(shim: Runtime, container_id: str, script: str) -> None:
    """As SELinux does it: root in the container, whom the mode of no file stops."""
    answer = shim.exec(container_id, script)
    assert answer.exit_code != 0, script
    assert re.search(b"(?i)permission denied", answer.stderr), answer


def kernel_log() -> list[str]:
    done = subprocess.run(["dmesg"], check=True, text=True, capture_output=True)
    return done.stdout.splitlines()[-80:]
