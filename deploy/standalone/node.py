"""Where the standalone node keeps its things, and what it must remember to undo itself.

Owns the paths and the record on disk. Everything lies below two directories, so that removing them removes the node.
The record is written before a thing is done, so that `down` also undoes a half-finished `up`.
"""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

RUN = Path("/run/kubelet-py-up")
DATA = Path("/var/lib/kubelet-py-up")

CONTAINERD_SOCKET = RUN / "containerd.sock"
DOCKER_SOCKET = RUN / "docker.sock"
DOCKERSHIM_SOCKET = RUN / "dockershim.sock"
COMMAND = RUN / "kubelet-py"
MANIFESTS = DATA / "manifests"
LOGS = DATA / "logs"
POD_LOGS = DATA / "pod-logs"
KUBELET_ROOT = DATA / "kubelet"
KUBELET_CONFIG = DATA / "kubelet.yaml"
HOST_DOCKER_SOCKET = Path("/var/run/docker.sock")

_RECORD = DATA / "record.json"


@dataclass
class Daemon:
    """A process that was started here; the start time tells it from a later process with the same number."""

    name: str
    pid: int
    started_ticks: int


@dataclass
class Record:
    """What `up` did and what the machine was like before it."""

    runtime: str
    own_docker: bool = False
    snapshotter: str = ""
    daemons: list[Daemon] = field(default_factory=list)
    before: Mapping[str, Any] = field(default_factory=dict)

    def save(self) -> None:
        """Put the record on disk, whole or not at all."""
        DATA.mkdir(parents=True, exist_ok=True)
        partial = _RECORD.with_suffix(".new")
        partial.write_text(json.dumps(asdict(self), indent=1))
        partial.replace(_RECORD)

    @property
    def endpoint(self) -> Path:
        """The CRI socket of the chosen runtime."""
        return DOCKERSHIM_SOCKET if self.runtime == "docker" else CONTAINERD_SOCKET

    @property
    def docker_socket(self) -> Path:
        """The Docker that is used: ours, or the one that ran already."""
        return DOCKER_SOCKET if self.own_docker else HOST_DOCKER_SOCKET


def load_record() -> Record | None:
    """What an earlier `up` left, finished or not."""
    try:
        stored = json.loads(_RECORD.read_text())
    except FileNotFoundError:
        return None
    daemons = [Daemon(**daemon) for daemon in stored.pop("daemons")]
    return Record(daemons=daemons, **stored)
