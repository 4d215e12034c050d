"""The engines of the standalone node: Docker where none answers, or containerd with its CRI plugin.

Owns their configuration and their start, each with directories and sockets of its own, so that engines of the machine
are never touched. A Docker that already answers is used as it is and left as it was.
"""

import json
import socket
import subprocess
import tempfile
from collections.abc import Sequence
from pathlib import Path

from deploy.standalone import daemons, images
from deploy.standalone.console import StandaloneError
from deploy.standalone.node import CONTAINERD_SOCKET, DATA, DOCKER_SOCKET, HOST_DOCKER_SOCKET, RUN, Record

BRIDGE = "kubelet-py0"
POD_SUBNET = "10.244.210.0/24"
DOCKER_SUBNET = "10.244.211.1/24"
CNI_CONFIG = DATA / "cni"
PACKAGES = {
    "docker": ("docker.io", "containerd", "runc", "iptables", "iproute2", "busybox-static"),
    "containerd": ("containerd", "runc", "iptables", "iproute2", "containernetworking-plugins", "busybox-static"),
}
OCI_PROGRAM = Path(__file__).resolve().parents[1] / "dockershim-oci"
APPARMOR = Path("/sys/module/apparmor/parameters/enabled")


def packages(runtime: str) -> tuple[str, ...]:
    """The Debian packages that the runtime needs on this machine."""
    try:
        enforced = APPARMOR.read_text().strip() == "Y"
    except OSError:
        enforced = False
    # Docker starts no container where the kernel has AppArmor and the tool that loads a profile is not there
    return (*PACKAGES[runtime], "apparmor") if enforced else PACKAGES[runtime]


def accepts(path: Path) -> bool:
    """Whether somebody listens on the socket."""
    with socket.socket(socket.AF_UNIX) as client:
        client.settimeout(2)
        try:
            client.connect(str(path))
        except OSError:
            return False
    return True


def host_docker_answers() -> bool:
    """Whether this machine's own Docker runs."""
    return accepts(HOST_DOCKER_SOCKET)


def start_containerd(record: Record) -> None:
    """A containerd of our own: under dockerd, or as the CRI runtime itself."""
    if not record.snapshotter:
        record.snapshotter = "overlayfs" if _overlay_works() else "native"
        record.save()
    configuration = DATA / "containerd.toml"
    configuration.write_text(_containerd_configuration(record))
    CNI_CONFIG.mkdir(exist_ok=True)
    (CNI_CONFIG / "10-kubelet-py.conflist").write_text(_cni_configuration())
    daemons.start(record, "containerd", ["containerd", "--config", configuration])
    daemons.wait_for(record, "containerd", "containerd's socket", lambda: accepts(CONTAINERD_SOCKET))


def start_docker(record: Record) -> None:
    """A dockerd of our own on that containerd."""
    start_containerd(record)
    configuration = DATA / "dockerd.json"
    configuration.write_text(json.dumps(_dockerd_settings(), indent=1))
    daemons.start(record, "dockerd", ["dockerd", "--config-file", configuration])
    daemons.wait_for(record, "dockerd", "Docker's socket", lambda: _docker_lists(DOCKER_SOCKET))


def load_images(record: Record) -> None:
    """Put the two images into the engine, unless they are there."""
    for reference in (images.PAUSE, images.HELLO):
        if reference not in _present_images(record):
            with tempfile.NamedTemporaryFile(suffix=".tar") as archive:
                archive.write(images.archive(reference))
                archive.flush()
                if record.runtime == "docker":
                    _client(record, "load", "--quiet", "--input", archive.name)
                else:
                    _client(record, "images", "import", "--snapshotter", record.snapshotter, archive.name)


def remove_images(record: Record) -> None:
    """Take the two images out of a Docker that was there before us; our own engines vanish whole."""
    for reference in _present_images(record):
        if reference in (images.PAUSE, images.HELLO):
            _client(record, "image", "rm", "--force", reference)


def remove_containers(record: Record) -> None:
    """Without the CRI: every container of an engine of our own, or those that carry its labels."""
    if record.runtime == "docker":
        label = [] if record.own_docker else ["--filter", "label=io.kubernetes.pod.uid"]
        found = _client(record, "container", "ls", "--all", "--quiet", *label).split()
        if found:
            _client(record, "container", "rm", "--force", *found)
        return
    for container in _client(record, "tasks", "list", "--quiet").split():
        _client(record, "tasks", "rm", "--force", container)
    for container in _client(record, "containers", "list", "--quiet").split():
        _client(record, "containers", "rm", container)


def networks(record: Record) -> list[str]:
    """The networks of a Docker that was there before us."""
    if record.runtime != "docker" or record.own_docker:
        return []
    return _client(record, "network", "ls", "--format", "{{.Name}}").split()


def remove_networks(record: Record) -> None:
    """Take the pod network out of that Docker."""
    for name in set(networks(record)) - set(record.before.get("docker_networks", [])):
        if name == "dockershim":
            _client(record, "network", "rm", name)


def _present_images(record: Record) -> list[str]:
    if record.runtime == "docker":
        return _client(record, "image", "ls", "--format", "{{.Repository}}:{{.Tag}}").split()
    return _client(record, "images", "list", "--quiet").split()


def _client(record: Record, *arguments: str) -> str:
    """Debian's docker client or ctr against the node's engine."""
    if record.runtime == "docker":
        return _run(["docker", "--host", f"unix://{record.docker_socket}", *arguments])
    return _run(["ctr", "--address", str(CONTAINERD_SOCKET), "--namespace", "k8s.io", *arguments])


def _run(command: Sequence[str]) -> str:
    done = subprocess.run(command, text=True, capture_output=True, check=False, timeout=120)
    if done.returncode:
        raise StandaloneError(f"{' '.join(command)}: {done.stderr.strip() or done.stdout.strip()}")
    return done.stdout


def _docker_lists(path: Path) -> bool:
    if not accepts(path):
        return False
    command = ["docker", "--host", f"unix://{path}", "version", "--format", "{{.Server.Version}}"]
    return subprocess.run(command, capture_output=True, check=False, timeout=60).returncode == 0


def _dockerd_settings() -> dict[str, object]:
    return {
        "data-root": str(DATA / "docker"),
        "exec-root": str(RUN / "docker"),
        "pidfile": str(RUN / "docker.pid"),
        "hosts": [f"unix://{DOCKER_SOCKET}"],
        "containerd": str(CONTAINERD_SOCKET),
        "bip": DOCKER_SUBNET,
        "exec-opts": ["native.cgroupdriver=cgroupfs"],
        "runtimes": {"dockershim": {"path": str(OCI_PROGRAM)}},
        # a nested or restricted root may not lower its oom_score_adj
        "oom-score-adjust": 0,
    }


def _overlay_works() -> bool:
    """Whether an overlay can be mounted in our directory; not where that is an overlay itself."""
    with tempfile.TemporaryDirectory(dir=DATA) as scratch:
        parts = {name: f"{scratch}/{name}" for name in ("lower", "upper", "work", "merged")}
        for part in parts.values():
            Path(part).mkdir()
        options = f"lowerdir={parts['lower']},upperdir={parts['upper']},workdir={parts['work']}"
        mount = ["mount", "-t", "overlay", "overlay", "-o", options, parts["merged"]]
        works = subprocess.run(mount, capture_output=True, check=False).returncode == 0
        if works:
            subprocess.run(["umount", parts["merged"]], check=True)
    return works


def _containerd_configuration(record: Record) -> str:
    head = f"""version = 2
root = "{DATA}/containerd"
state = "{RUN}/containerd"
[grpc]
  address = "{CONTAINERD_SOCKET}"
"""
    if record.runtime == "docker":
        return f'disabled_plugins = ["io.containerd.grpc.v1.cri"]\n{head}'
    return f"""{head}
[plugins."io.containerd.internal.v1.opt"]
  path = "{DATA}/containerd-opt"
[plugins."io.containerd.grpc.v1.cri"]
  sandbox_image = "{images.PAUSE}"
  restrict_oom_score_adj = true
  [plugins."io.containerd.grpc.v1.cri".containerd]
    snapshotter = "{record.snapshotter}"
  [plugins."io.containerd.grpc.v1.cri".cni]
    bin_dir = "/usr/lib/cni"
    conf_dir = "{CNI_CONFIG}"
"""


def _cni_configuration() -> str:
    ipam = {
        "type": "host-local",
        "dataDir": str(RUN / "ipam"),
        "ranges": [[{"subnet": POD_SUBNET}]],
        "routes": [{"dst": "0.0.0.0/0"}],
    }
    bridge = {"type": "bridge", "bridge": BRIDGE, "isGateway": True, "ipMasq": True, "hairpinMode": True, "ipam": ipam}
    plugins = [bridge, {"type": "portmap", "capabilities": {"portMappings": True}}, {"type": "firewall"}]
    return json.dumps({"cniVersion": "1.0.0", "name": "kubelet-py-up", "plugins": plugins}, indent=1)
