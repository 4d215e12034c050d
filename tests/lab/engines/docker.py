"""Docker inside a lab host: Debian's 20.10 with Debian's containerd, or the built 29 with built containerd and runc.

Each dockerd has a containerd of its own, so a test can kill either without touching the lab's CRI containerd.
"""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.lab import debian, gotools
from tests.lab.process import LabError, LabProcess
from tests.lab.registry import ALL_NAMES
from tests.lab.sandbox import BASE_PATH, REPOSITORY, Sandbox

VERSIONS = ("20.10", "29")
DEFAULT_VERSION = os.environ.get("KUBELET_PY_DOCKER", VERSIONS[0])
"""Of tests that say of one Docker what is so of both; `make shim ENGINE=29` has them say it of the other."""
DEBIAN_PACKAGES = ("docker.io", "containerd", "runc", "iptables", "iproute2")
CLIENT = "/usr/bin/docker"
RELOADED = "Reloaded configuration"
OCI_PROGRAM = REPOSITORY / "deploy" / "dockershim-oci"
"""Registered unless a test's settings say `runtimes={}`."""
OOM_FLOOR = Path(__file__).with_name("oom-floor")
SETTINGS_FOR_PEERS: Mapping[str, Any] = {
    "runtimes": {"dockershim": {"path": str(OCI_PROGRAM)}, "oom-floor": {"path": str(OOM_FLOOR)}},
    "default-runtime": "oom-floor",
}
"""Of a Docker for shims that give pause a negative OOM score, which needs a right that tests may not have."""


def runtimes(handlers: Iterable[str] = ()) -> dict[str, Any]:
    """Those that a Docker of the lab has beside its own; runc once more under each other name."""
    return {"dockershim": {"path": str(OCI_PROGRAM)}, **{name: {"path": "runc"} for name in handlers}}


@dataclass(frozen=True)
class _Programs:
    """Where the parts of one Docker version are."""

    dockerd: str
    containerd: str
    proxy: str
    path: str


def prepare(version: str) -> _Programs:
    """Install or build what this version needs; quick when it is there."""
    if version not in VERSIONS:
        raise LabError(f"no Docker {version!r} in the lab; there are {', '.join(VERSIONS)}")
    debian.ensure(*DEBIAN_PACKAGES)
    if version == "20.10":
        return _Programs("/usr/sbin/dockerd", "/usr/bin/containerd", "/usr/sbin/docker-proxy", BASE_PATH)
    parts = {
        name: gotools.ensure(name)
        for name in ("containerd", "containerd-shim-runc-v2", "runc", "docker-proxy", "dockerd")
    }
    directories = dict.fromkeys(str(parts[name].parent) for name in ("runc", "containerd", "dockerd"))
    return _Programs(
        str(parts["dockerd"]),
        str(parts["containerd"]),
        str(parts["docker-proxy"]),
        ":".join([*directories, BASE_PATH]),
    )


class Docker:
    """One dockerd with its containerd. `socket` is reachable from inside and outside."""

    def __init__(self, sandbox: Sandbox, version: str, settings: Mapping[str, Any] | None = None) -> None:
        self.version = version
        self.socket = sandbox.root / "run" / "docker.sock"
        self._sandbox = sandbox
        self._programs = prepare(version)
        self._settings = dict(settings or {})
        self._directory = sandbox.root / "docker"
        self._directory.mkdir()
        self._containerd_socket = sandbox.root / "run" / "docker-containerd.sock"
        self.containerd: LabProcess | None = None
        self.dockerd: LabProcess | None = None
        self._write_configuration()
        self.start()

    def _write_configuration(self) -> None:
        self._containerd_configuration = self._directory / "containerd.toml"
        lines = [
            "version = 2",
            'root = "/var/lib/docker/containerd-root"',
            'state = "/run/docker-containerd"',
            'disabled_plugins = ["io.containerd.grpc.v1.cri"]',
            "[grpc]",
            f'address = "{self._containerd_socket}"',
        ]
        self._containerd_configuration.write_text("\n".join(lines) + "\n")
        settings: dict[str, Any] = {
            "data-root": "/var/lib/docker/data",
            "exec-root": "/run/docker",
            "pidfile": "/run/docker.pid",
            "hosts": [f"unix://{self.socket}"],
            "containerd": str(self._containerd_socket),
            "live-restore": False,
            "insecure-registries": list(ALL_NAMES),
            "exec-opts": ["native.cgroupdriver=cgroupfs"],
            "userland-proxy-path": self._programs.proxy,
            "runtimes": runtimes(),
        }
        if self.version == "20.10":
            settings |= {"storage-driver": "overlay2", "oom-score-adjust": 0}
        self._configuration = self._directory / "daemon.json"
        self._configuration.write_text(json.dumps(settings | self._settings, indent=2))

    def start(self) -> None:
        """Start what does not run; used again by tests that stopped or killed a part."""
        environment = {"PATH": self._programs.path}
        if self.containerd is None or self.containerd.poll() is not None:
            self._containerd_socket.unlink(missing_ok=True)
            self.containerd = self._sandbox.popen(
                [self._programs.containerd, "--config", self._containerd_configuration],
                log="docker-containerd",
                environment=environment,
            )
        self._sandbox.wait_until(
            "Docker's containerd", lambda: self._sandbox.accepts(self._containerd_socket), process=self.containerd
        )
        if self.dockerd is None or self.dockerd.poll() is not None:
            (self._sandbox.root / "run" / "docker.pid").unlink(missing_ok=True)
            self.dockerd = self._sandbox.popen(
                [self._programs.dockerd, "--config-file", self._configuration], log="dockerd", environment=environment
            )
        self._sandbox.wait_until(
            f"Docker {self.version}", lambda: self._sandbox.accepts(self.socket), process=self.dockerd
        )
        self.client("version", "--format", "{{.Server.Version}}")

    def reload(self, settings: Mapping[str, Any]) -> None:
        """Have the running dockerd take over these settings, of those that it takes over while it runs."""
        assert self.dockerd is not None
        log = self._sandbox.logs / "dockerd.log"
        before = log.read_text().count(RELOADED)
        self._settings |= settings
        self._configuration.write_text(json.dumps(json.loads(self._configuration.read_text()) | self._settings))
        self.dockerd.send_signal(signal.SIGHUP)
        self._sandbox.wait_until(
            "the new settings", lambda: log.read_text().count(RELOADED) > before, process=self.dockerd
        )

    def client(self, *arguments: str, check: bool = True, timeout_seconds: float = 120.0) -> str:
        """Run Debian's docker client against this engine; returns what it printed."""
        command = [CLIENT, "--host", f"unix://{self.socket}", *arguments]
        return self._sandbox.run(command, check=check, timeout_seconds=timeout_seconds).stdout

    def load(self, archives: Iterable[Path]) -> None:
        """Put images into the engine from docker-archive files."""
        for archive in archives:
            self.client("load", "--quiet", "--input", str(archive))

    def stop(self) -> None:
        """Stop dockerd, then its containerd, in order."""
        for process in (self.dockerd, self.containerd):
            if process is not None:
                process.stop()
