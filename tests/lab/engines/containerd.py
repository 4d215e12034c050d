"""containerd with its CRI plugin inside a lab host: Debian's 1.6, or the built 2.4 with the built runc."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from tests.lab import debian, gotools
from tests.lab.process import LabError, LabProcess
from tests.lab.registry import ALL_NAMES
from tests.lab.sandbox import BASE_PATH, Sandbox

VERSIONS = ("1.6", "2.4")
DEBIAN_PACKAGES = ("containerd", "runc", "containernetworking-plugins", "iptables", "iproute2", "socat", "conntrack")
PAUSE_IMAGE = "registry.k8s.io/pause:3.10"
CNI_DIRECTORY = "/etc/cni/net.d"


def prepare(version: str) -> tuple[str, str]:
    """Install or build what this version needs; returns the containerd program and the PATH to run it with."""
    if version not in VERSIONS:
        raise LabError(f"no containerd {version!r} in the lab; there are {', '.join(VERSIONS)}")
    debian.ensure(*DEBIAN_PACKAGES)
    if version == "1.6":
        return "/usr/bin/containerd", BASE_PATH
    parts = [gotools.ensure(name) for name in ("containerd", "containerd-shim-runc-v2", "ctr", "runc")]
    return str(parts[0]), ":".join([*dict.fromkeys(str(part.parent) for part in parts), BASE_PATH])


def cni_configuration(pod_network: str, *more: Mapping[str, Any]) -> str:
    """A bridge network with host ports, for containerd, dockershim and any other CRI runtime of the lab."""
    plugins: list[Mapping[str, Any]] = [
        {
            "type": "bridge",
            "bridge": "cni0",
            "isGateway": True,
            "ipMasq": True,
            "hairpinMode": True,
            "ipam": {
                "type": "host-local",
                "ranges": [[{"subnet": pod_network}]],
                "routes": [{"dst": "0.0.0.0/0"}],
            },
        },
        {"type": "portmap", "capabilities": {"portMappings": True}},
        {"type": "firewall"},
        *more,
    ]
    return json.dumps({"cniVersion": "1.0.0", "name": "lab", "plugins": plugins}, indent=2)


def write_cni_configuration(sandbox: Sandbox, *more: Mapping[str, Any]) -> None:
    """Put the network into the lab's /etc/cni/net.d (not seen by the machine), with more plugins at its end."""
    script = f"mkdir -p {CNI_DIRECTORY} && cat > {CNI_DIRECTORY}/10-lab.conflist"
    sandbox.run(["sh", "-c", script], text_input=cni_configuration(sandbox.pod_network, *more))


def configuration(version: str, socket: Path, certs: Path, handlers: Iterable[str] = ()) -> str:
    """The text of containerd's config.toml; `handlers` are more names for runc."""
    plugin = "io.containerd.grpc.v1.cri" if version == "1.6" else "io.containerd.cri.v1.runtime"
    runtimes = "".join(
        f'[plugins."{plugin}".containerd.runtimes.{name}]\n  runtime_type = "io.containerd.runc.v2"\n'
        for name in ("runc", *handlers)
    )
    return _engine_configuration(version, socket, certs) + runtimes


def _engine_configuration(version: str, socket: Path, certs: Path) -> str:
    if version == "1.6":
        return f"""version = 2
[grpc]
  address = "{socket}"
[plugins."io.containerd.grpc.v1.cri"]
  sandbox_image = "{PAUSE_IMAGE}"
  restrict_oom_score_adj = true
  [plugins."io.containerd.grpc.v1.cri".cni]
    bin_dir = "/usr/lib/cni"
    conf_dir = "{CNI_DIRECTORY}"
  [plugins."io.containerd.grpc.v1.cri".registry]
    config_path = "{certs}"
"""
    return f"""version = 3
[grpc]
  address = "{socket}"
[plugins."io.containerd.cri.v1.runtime"]
  restrict_oom_score_adj = true
  [plugins."io.containerd.cri.v1.runtime".cni]
    bin_dirs = ["/usr/lib/cni"]
    conf_dir = "{CNI_DIRECTORY}"
[plugins."io.containerd.cri.v1.images"]
  [plugins."io.containerd.cri.v1.images".pinned_images]
    sandbox = "{PAUSE_IMAGE}"
  [plugins."io.containerd.cri.v1.images".registry]
    config_path = "{certs}"
"""


class Containerd:
    """One containerd that serves CRI on `socket`, reachable from inside and outside."""

    def __init__(self, sandbox: Sandbox, version: str, handlers: Iterable[str] = ()) -> None:
        self.version = version
        directory = sandbox.root / "run" / "containerd"
        directory.mkdir(exist_ok=True)
        self.socket = directory / "containerd.sock"
        self._sandbox = sandbox
        self._program, self._path = prepare(version)
        files = sandbox.root / "containerd"
        certs = files / "certs.d"
        for name in ALL_NAMES:
            (certs / name).mkdir(parents=True)
            hosts = f'server = "http://{name}"\n[host."http://{name}"]\n  capabilities = ["pull", "resolve"]\n'
            (certs / name / "hosts.toml").write_text(hosts)
        self._configuration = files / "config.toml"
        self._configuration.write_text(configuration(version, self.socket, certs, handlers))
        write_cni_configuration(sandbox)
        self.process: LabProcess | None = None
        self.start()

    def start(self) -> None:
        """Start it when it does not run; used again by tests that stopped or killed it."""
        if self.process is None or self.process.poll() is not None:
            self.socket.unlink(missing_ok=True)
            self.process = self._sandbox.popen(
                [self._program, "--config", self._configuration], log="containerd", environment={"PATH": self._path}
            )
        self._sandbox.wait_until(f"containerd {self.version}", self._answers, process=self.process)

    def _answers(self) -> bool:
        if not self._sandbox.accepts(self.socket):
            return False
        listed = self.client("plugins", "list", check=False)
        rows = [line.split() for line in listed.splitlines() if "cri" in line]
        return bool(rows) and all(row[-1] in ("ok", "skip") for row in rows)

    def client(self, *arguments: str, check: bool = True, timeout_seconds: float = 120.0) -> str:
        """Run `ctr` against this engine in the namespace of Kubernetes; returns what it printed."""
        command = ["ctr", "--address", str(self.socket), "--namespace", "k8s.io", *arguments]
        done = self._sandbox.run(
            command, check=check, timeout_seconds=timeout_seconds, environment={"PATH": self._path}
        )
        return done.stdout

    def load(self, archives: Iterable[Path]) -> None:
        """Put images into the engine from docker-archive files."""
        for archive in archives:
            self.client("images", "import", "--local" if self.version != "1.6" else "--no-unpack=false", str(archive))

    def stop(self) -> None:
        """Stop containerd; containers and their shims stay."""
        if self.process is not None:
            self.process.stop()
