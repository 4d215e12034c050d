"""The systemd units on a machine that booted: both runtimes, both kinds of pod network, crashes, hangs and restarts.

For a machine of its own only (`make boot`), which it changes: it installs the units and stops services. It is no
test_*.py, so that nobody runs it elsewhere. The tests build on each other, in this order; a pod that is never started
anew runs through them.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import socket
import subprocess
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
import pytest

from cri_proto import runtime_v1 as cri
from cri_proto.runtime_v1.api_pb2_grpc import RuntimeServiceStub
from deploy.standalone import images
from tests.machine.dockershim import PROGRAMS, load_images
from tests.machine.waiting import CALL_SECONDS, until

REPOSITORY = Path(__file__).resolve().parents[2]
UNITS = Path("/etc/systemd/system")
MANIFESTS = Path("/etc/kubernetes/manifests")
KUBELET_CONFIG = Path("/var/lib/kubelet/config.yaml")
CNI = Path("/etc/cni/net.d/10-pods.conflist")
SHIM_SOCKET, CONTAINERD_SOCKET = "/run/dockershim.sock", "/run/containerd/containerd.sock"
READ_ONLY_PORT = 10255
WATCHDOG_SECONDS = 20
MI = 1024 * 1024


def test_both_units_become_ready_and_a_static_pod_runs() -> None:
    """READY comes from the programs themselves (Type=notify), so `systemctl start` returns when they serve."""
    run("systemctl", "enable", "--now", "dockershim.socket", "dockershim.service", "kubelet-py.service")
    for unit in ("dockershim", "kubelet-py"):
        assert show(unit, "ActiveState") == "active"
        assert show(unit, "Type") == "notify"
    assert until(lambda: pod_of("hello"))


@pytest.mark.parametrize("unit", ["dockershim", "kubelet-py"])
def test_they_see_the_mounts_of_the_machine_and_have_their_hardening(unit: str) -> None:
    """No mount namespace of their own; what the unit says is in effect."""
    pid = main_pid(unit)
    assert os.readlink(f"/proc/{pid}/ns/mnt") == os.readlink("/proc/1/ns/mnt")
    status = dict(line.split(":", 1) for line in Path(f"/proc/{pid}/status").read_text().splitlines())
    assert status["Seccomp"].strip() == "2", "LockPersonality and RestrictRealtime are system call filters"
    score = Path(f"/proc/{pid}/oom_score_adj").read_text().strip()
    assert int(score) == {"dockershim": -998, "kubelet-py": -999}[unit]
    assert Path(f"/proc/{pid}/limits").read_text().split("Max open files")[1].split()[0] == "1048576"


@pytest.mark.parametrize(("unit", "most"), [("dockershim", 8.9), ("kubelet-py", 9.3)])
def test_the_units_are_exposed_no_more_than_their_work_needs(unit: str, most: float) -> None:
    """As systemd counts it, from 0 to 10. Both are root on the host's mounts, which is most of the figure."""
    said = re.search(
        r"Overall exposure level for \S+: ([0-9.]+)", run("systemd-analyze", "security", f"{unit}.service")
    )
    assert said
    assert float(said[1]) <= most


def test_the_pods_cgroups_hold_what_it_asked_for() -> None:
    """cgroup v2 and the systemd driver, as Docker has it here: the container's and the pod's.

    And systemd knows of it: a reload writes the limits that it knows.
    """
    uid = find_pod("hello")["metadata"]["uid"].replace("-", "_")
    pod = Path("/sys/fs/cgroup/kubepods.slice/kubepods-burstable.slice", f"kubepods-burstable-pod{uid}.slice")
    container = pod / f"docker-{container_of('hello')[0].removeprefix('docker://')}.scope"
    for directory in (container, pod):
        assert (directory / "memory.max").read_text().strip() == str(64 * MI), directory
        assert (directory / "cpu.max").read_text().split() == ["20000", "100000"], directory
    assert (pod / "cpu.weight").read_text().strip() == "4"
    assert (pod.parent.parent / "kubepods-besteffort.slice" / "cpu.weight").read_text().strip() == "1"
    allocatable = int((pod.parent.parent / "memory.max").read_text())
    assert 256 * MI < allocatable < 4096 * MI
    run("systemctl", "daemon-reload")
    run("systemctl", "set-property", "--runtime", pod.name, "MemoryHigh=60M")
    assert (pod / "memory.max").read_text().strip() == str(64 * MI), "systemd has forgotten it"
    assert (pod / "cpu.max").read_text().split() == ["20000", "100000"]


@pytest.mark.parametrize("unit", ["dockershim", "kubelet-py"])
def test_who_is_killed_is_started_again_and_no_container_notices(unit: str) -> None:
    before, pid = container_of("hello"), main_pid(unit)
    os.kill(pid, signal.SIGKILL)
    until(lambda: main_pid(unit) not in (0, pid) and show(unit, "ActiveState") == "active")
    until(lambda: pod_of("hello"))
    assert container_of("hello") == before


@pytest.mark.parametrize("unit", ["dockershim", "kubelet-py"])
def test_a_restart_is_no_restart_of_containers(unit: str) -> None:
    before, pid = container_of("hello"), main_pid(unit)
    run("systemctl", "restart", unit)
    assert main_pid(unit) not in (0, pid)
    until(lambda: pod_of("hello"))
    assert container_of("hello") == before


@pytest.mark.parametrize("unit", ["dockershim", "kubelet-py"])
def test_who_hangs_is_ended_by_the_watchdog(unit: str) -> None:
    """The unit's own time is a minute; a shorter one here."""
    assert show(unit, "WatchdogUSec") == "1min"
    drop_in = UNITS / f"{unit}.service.d" / "watchdog.conf"
    drop_in.parent.mkdir(exist_ok=True)
    drop_in.write_text(f"[Service]\nWatchdogSec={WATCHDOG_SECONDS}\n")
    run("systemctl", "daemon-reload")
    run("systemctl", "restart", unit)
    until(lambda: pod_of("hello"))
    before, pid = container_of("hello"), until(lambda: main_pid(unit))
    restarts = int(show(unit, "NRestarts"))
    os.kill(pid, signal.SIGSTOP)
    until(lambda: int(show(unit, "NRestarts")) > restarts and show(unit, "ActiveState") == "active")
    assert main_pid(unit) != pid
    assert "Watchdog timeout" in run("journalctl", "--unit", unit, "--no-pager")
    until(lambda: pod_of("hello"))
    assert container_of("hello") == before
    drop_in.unlink()
    run("systemctl", "daemon-reload")
    run("systemctl", "restart", unit)


def test_a_call_starts_dockershim() -> None:
    """Its socket is systemd's: who calls while it is stopped waits for it to start."""
    before = container_of("hello")
    run("systemctl", "stop", "kubelet-py", "dockershim.service")
    assert show("dockershim", "ActiveState") == "inactive"
    assert Path(SHIM_SOCKET).is_socket()
    with grpc.insecure_channel(f"unix://{SHIM_SOCKET}") as channel:
        request = cri.VersionRequest(version="0.1.0")
        version = RuntimeServiceStub(channel).Version(request, timeout=CALL_SECONDS, wait_for_ready=True)
    assert version.runtime_name == "docker"
    until(lambda: show("dockershim", "ActiveState") == "active")
    run("systemctl", "start", "kubelet-py")
    until(lambda: pod_of("hello"))
    assert container_of("hello") == before


def test_without_its_socket_dockershim_is_stopped_and_leaves_no_file() -> None:
    """And pods run on."""
    before = docker_started("hello")
    run("systemctl", "stop", "dockershim.socket")
    until(lambda: show("dockershim", "ActiveState") == "inactive")
    assert not Path(SHIM_SOCKET).exists()
    assert docker_started("hello") == before
    run("systemctl", "start", "dockershim.socket", "dockershim.service")
    until(lambda: pod_of("hello"))


def test_a_restart_of_docker_is_survived() -> None:
    """The agent waits, and the pod runs again."""
    run("systemctl", "restart", "docker")
    until(lambda: pod_of("hello"))
    for unit in ("dockershim", "kubelet-py"):
        assert show(unit, "ActiveState") == "active"


def test_pods_get_their_network_from_cni_on_docker() -> None:
    """A configuration arrives while both run; a pod made after it has its address from there, also after a crash."""
    write_cni()
    run("systemctl", "restart", "dockershim")
    write_pod("on-cni")
    address = until(lambda: pod_of("on-cni"))
    assert address.startswith("10.88."), address
    assert until(lambda: answers(address))
    before = container_of("on-cni")
    os.kill(main_pid("dockershim"), signal.SIGKILL)
    until(lambda: show("dockershim", "ActiveState") == "active")
    assert container_of("on-cni") == before
    uid = find_pod("on-cni")["metadata"]["uid"].replace("-", "_")
    (MANIFESTS / "on-cni.yaml").unlink()
    until(lambda: find_pod("on-cni") == {})
    until(lambda: not list(Path("/sys/fs/cgroup/kubepods.slice").glob(f"**/*pod{uid}.slice")))
    assert uid not in run("systemctl", "list-units", "--all", "--plain", "--no-legend")
    assert "on-cni" not in run("docker", "ps", "--all", "--format", "{{.Names}}")


def test_only_the_endpoint_is_changed_for_containerd() -> None:
    """The same unit, and a pod of containerd that outlives the agent's crash and restart."""
    for manifest in MANIFESTS.iterdir():
        manifest.unlink()
    until(lambda: find_pod("hello") == {})
    run("systemctl", "stop", "kubelet-py", "dockershim.socket", "dockershim.service")
    prepare_containerd()
    write_kubelet_config(CONTAINERD_SOCKET)
    write_pod("there")
    run("systemctl", "start", "kubelet-py")
    address = until(lambda: pod_of("there"))
    assert until(lambda: answers(address))
    before, pid = container_of("there"), main_pid("kubelet-py")
    os.kill(pid, signal.SIGKILL)
    until(lambda: main_pid("kubelet-py") not in (0, pid) and show("kubelet-py", "ActiveState") == "active")
    until(lambda: pod_of("there"))
    run("systemctl", "restart", "containerd")
    run("systemctl", "restart", "kubelet-py")
    until(lambda: pod_of("there"))
    assert container_of("there") == before
    uid = find_pod("there")["metadata"]["uid"].replace("-", "_")
    pod = Path("/sys/fs/cgroup/kubepods.slice/kubepods-burstable.slice", f"kubepods-burstable-pod{uid}.slice")
    assert (pod / "memory.max").read_text().strip() == str(64 * MI)


@pytest.mark.parametrize(("unit", "level"), [("dockershim", "[{} "), ("kubelet-py", "Z {} ")])
def test_neither_has_written_an_error_through_all_of_this(unit: str, level: str) -> None:
    """Kills, restarts and an engine that goes away are no errors of theirs."""
    written = (
        run("journalctl", "--unit", unit, "_TRANSPORT=stdout", "--no-pager", "--output", "cat").lower().splitlines()
    )
    assert len([line for line in written if level.format("info").lower() in line]) > 5, "its lines look otherwise"
    bad = [level.format(word).lower().rstrip() for word in ("error", "critical")] + ["traceback (most recent"]
    assert [line for line in written if any(sign in line for sign in bad)] == []


# How it is installed, as README.md tells


@pytest.fixture(scope="module", autouse=True)
def installed() -> Iterator[None]:
    """Programs, units and settings; the images, since no registry is asked."""
    assert Path("/proc/1/comm").read_text().strip() == "systemd"
    for program in ("kubelet-py", "dockershim"):
        Path("/usr/local/bin", program).symlink_to(PROGRAMS / program)
    for unit in (REPOSITORY / "systemd").iterdir():
        shutil.copy(unit, UNITS)
    Path("/etc/default/dockershim").write_text(f"DOCKERSHIM_FLAGS=--pod-infra-container-image={images.PAUSE}\n")
    write_kubelet_config(SHIM_SOCKET)
    write_pod("hello")
    run("systemctl", "start", "docker")
    load_images()
    run("systemctl", "daemon-reload")
    yield
    for name in ("dockershim", "kubelet-py"):
        print(run("journalctl", "--unit", name, "--no-pager", "--output", "cat", "--lines", "60"))


def write_kubelet_config(endpoint: str) -> None:
    settings = {
        "apiVersion": "kubelet.config.k8s.io/v1beta1",
        "kind": "KubeletConfiguration",
        "containerRuntimeEndpoint": f"unix://{endpoint}",
        "staticPodPath": str(MANIFESTS),
        "cgroupDriver": "systemd",
        "readOnlyPort": READ_ONLY_PORT,
        "authentication": {"anonymous": {"enabled": False}, "webhook": {"enabled": False}},
        "authorization": {"mode": "AlwaysAllow"},
    }
    KUBELET_CONFIG.parent.mkdir(parents=True, exist_ok=True)
    KUBELET_CONFIG.write_text(json.dumps(settings))


def write_pod(name: str) -> None:
    resources = {"requests": {"cpu": "100m", "memory": "32Mi"}, "limits": {"cpu": "200m", "memory": "64Mi"}}
    container = {"name": "hello", "image": images.HELLO, "imagePullPolicy": "Never", "resources": resources}
    spec = {"dnsPolicy": "Default", "terminationGracePeriodSeconds": 2, "containers": [container]}
    MANIFESTS.mkdir(parents=True, exist_ok=True)
    manifest = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name}, "spec": spec}
    (MANIFESTS / f"{name}.yaml").write_text(json.dumps(manifest))


def write_cni() -> None:
    ipam = {"type": "host-local", "ranges": [[{"subnet": "10.88.0.0/16"}]], "routes": [{"dst": "0.0.0.0/0"}]}
    bridge = {"type": "bridge", "bridge": "cni0", "isGateway": True, "ipMasq": True, "ipam": ipam}
    CNI.parent.mkdir(parents=True, exist_ok=True)
    plugins = [bridge, {"type": "portmap", "capabilities": {"portMappings": True}}]
    CNI.write_text(json.dumps({"cniVersion": "1.0.0", "name": "pods", "plugins": plugins}))


def prepare_containerd() -> None:
    """Debian's containerd with the systemd driver, our pause image and Debian's place for CNI plugins."""
    Path("/etc/containerd/config.toml").write_text(f"""version = 2
[plugins."io.containerd.grpc.v1.cri"]
sandbox_image = "{images.PAUSE}"
[plugins."io.containerd.grpc.v1.cri".cni]
bin_dir = "/usr/lib/cni"
conf_dir = "{CNI.parent}"
[plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc]
runtime_type = "io.containerd.runc.v2"
[plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc.options]
SystemdCgroup = true
""")
    write_cni()
    run("systemctl", "stop", "docker.socket", "docker")
    run("systemctl", "restart", "containerd")
    for reference in (images.PAUSE, images.HELLO):
        command = ["ctr", "--namespace", "k8s.io", "images", "import", "-"]
        subprocess.run(command, input=images.archive(reference), check=True, capture_output=True)


# Looking at it


def run(*command: str) -> str:
    done = subprocess.run(command, text=True, capture_output=True, check=False)
    assert done.returncode == 0, f"{' '.join(command)}: {done.stdout}{done.stderr}"
    return done.stdout


def show(unit: str, what: str) -> str:
    return run("systemctl", "show", "--property", what, "--value", f"{unit}.service").strip()


def main_pid(unit: str) -> int:
    return int(show(unit, "MainPID"))


def find_pod(name: str) -> dict[str, Any]:
    """The pod as the agent shows it; empty when there is none, or no agent."""
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{READ_ONLY_PORT}/pods", timeout=60) as reply:
            items: list[dict[str, Any]] = json.load(reply).get("items") or []
    except OSError:
        return {"unknown": True}
    return next((item for item in items if item["metadata"]["name"].startswith(name)), {})


def pod_of(name: str) -> str:
    """The address of the pod when it is Ready, else nothing."""
    status = find_pod(name).get("status", {})
    ready = any(c["type"] == "Ready" and c["status"] == "True" for c in status.get("conditions") or [])
    address: str = status.get("podIP", "") if ready else ""
    return address


def container_of(name: str) -> tuple[str, str, int]:
    """Which run of its container this is."""

    def running() -> dict[str, Any]:
        status: dict[str, Any] = (find_pod(name).get("status", {}).get("containerStatuses") or [{}])[0]
        return status if "running" in status.get("state", {}) else {}

    status = until(running)
    return status["containerID"], status["state"]["running"]["startedAt"], status["restartCount"]


def docker_started(name: str) -> str:
    identifier = run("docker", "ps", "--quiet", "--no-trunc", "--filter", f"name=k8s_hello_{name}").strip()
    return identifier + run("docker", "inspect", "--format", "{{.State.StartedAt}}", identifier)


def answers(address: str) -> bool:
    """Whether the pod's web server speaks to the node."""
    try:
        with socket.create_connection((address, 8080), timeout=60) as connection:
            connection.sendall(b"GET / HTTP/1.0\r\n\r\n")
            return b"Hello from a pod" in connection.makefile("rb").read()
    except (ConnectionRefusedError, TimeoutError):
        return False  # its program is not that far yet, or the machine stands still
