"""What `make bench` compares: two node agents on one engine, each with the CRI server that an operator gives it.

containerd serves CRI itself, to whichever agent has its turn. Docker does not: there the Go kubelet comes with
cri-dockerd and kubelet-py with dockershim, and only the shim whose agent has its turn runs.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.lab import cridockerd, gokubelet, gotools, node
from tests.lab.cluster import Cluster
from tests.lab.engines.docker import SETTINGS_FOR_PEERS
from tests.lab.lab import Lab
from tests.lab.process import CriServer, LabProcess

NODE = "node-1"
OURS, PEER = "kubelet-py", "Go kubelet"


@dataclass(frozen=True)
class Served:
    """Where CRI is served, and by which shim where it is not the engine itself."""

    socket: Path
    shim: LabProcess | None = None


@dataclass(frozen=True)
class Stack:
    """A node agent, and the shim below it where the engine needs one."""

    agent: str
    start_agent: Callable[[Cluster, Path], LabProcess]
    shim: str = ""
    start_shim: Callable[[Lab], CriServer] | None = None

    @property
    def name(self) -> str:
        """As the table shows it."""
        return f"{self.agent} + {self.shim}" if self.shim else self.agent

    @contextmanager
    def serving(self, lab: Lab) -> Iterator[Served]:
        """CRI for as long as a turn takes."""
        if self.start_shim is None:
            yield Served(lab.containerd_socket)
            return
        server = self.start_shim(lab)
        try:
            yield Served(server.socket, server.process)
        finally:
            server.process.stop()


@dataclass(frozen=True)
class Comparison:
    """Two stacks on one engine."""

    engine: str
    """In words, for the reader of the figures."""
    start_lab: Callable[[], Lab]
    engine_parts: Callable[[Lab], Sequence[LabProcess | None]]
    peer: Stack
    ours: Stack

    @property
    def bare(self) -> str:
        """What serves the CRI calls that are made without any agent."""
        return self.ours.shim or self.engine

    def engine_processes(self, lab: Lab) -> list[LabProcess]:
        """Those that serve all pods; the shims of single containers are the same under every agent."""
        return [part for part in self.engine_parts(lab) if part is not None]

    def headline(self) -> str:
        """What was compared with what."""
        return f"{self.ours.name} against {self.peer.name}, in turns on {self.engine}"


def _go_kubelet(cluster: Cluster, socket: Path) -> LabProcess:
    return gokubelet.start(cluster, socket, node=NODE)


def _kubelet_py(cluster: Cluster, socket: Path) -> LabProcess:
    return node.start_kubelet_py(cluster, socket, node=NODE)


_PEER_WITH_VERSION = f"{PEER} {gotools.KUBERNETES_VERSION.lstrip('v')}"
RUNTIMES = {
    "containerd": Comparison(
        "containerd 1.6",
        lambda: Lab.start(containerd="1.6"),
        lambda lab: [lab.containerd.process],
        Stack(_PEER_WITH_VERSION, _go_kubelet),
        Stack(OURS, _kubelet_py),
    ),
    "docker": Comparison(
        f"Docker {gotools.DOCKER_VERSION}",
        lambda: Lab.start(docker=cridockerd.DOCKER_VERSION, docker_settings=SETTINGS_FOR_PEERS),
        lambda lab: [lab.docker.dockerd, lab.docker.containerd],
        Stack(
            _PEER_WITH_VERSION, _go_kubelet, f"cri-dockerd {gotools.CRI_DOCKERD_VERSION.lstrip('v')}", cridockerd.start
        ),
        Stack(OURS, _kubelet_py, "dockershim", node.start_dockershim),
    ),
}
