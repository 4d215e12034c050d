"""Our own programs as processes of a lab: dockershim on the lab's Docker, kubelet-py on any CRI socket.

They run from this checkout, with the interpreter that runs the tests. Owns their command lines and when they are ready.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from tests.lab import gokubelet
from tests.lab.cluster import Cluster
from tests.lab.engines.containerd import write_cni_configuration
from tests.lab.lab import Lab
from tests.lab.process import CriServer, LabProcess
from tests.lab.sandbox import REPOSITORY, Sandbox

ENVIRONMENT = {"PYTHONPATH": str(REPOSITORY), "PYTHONDONTWRITEBYTECODE": "1", "PYTHONUNBUFFERED": "1"}


def start_dockershim(lab: Lab, *flags: str, cni: bool = True) -> CriServer:
    """Start dockershim on the lab's Docker and wait until it listens; with a CNI network unless told not to."""
    if cni:
        write_cni_configuration(lab)
    socket = lab.root / "run" / "dockershim.sock"
    process = lab.popen(
        [
            sys.executable, "-m", "dockershim",
            f"--container-runtime-endpoint=unix://{socket}", f"--docker-endpoint=unix://{lab.docker_socket}",
            *flags,
        ],
        log="dockershim",
        environment=ENVIRONMENT,
    )  # fmt: skip
    lab.wait_until("dockershim", lambda: lab.accepts(socket), process=process)
    return CriServer(process, socket)


def start_kubelet_py(
    cluster: Cluster,
    endpoint: Path,
    *,
    node: str = "node-1",
    lab: Sandbox | None = None,
    settings: Mapping[str, Any] | None = None,
    flags: Sequence[str] = (),
    file: Path | None = None,
    under: Sequence[str] = (),
    wait: bool = True,
) -> LabProcess:
    """Start kubelet-py with the configuration that the Go kubelet gets here, and wait until it knows its pods and its
    node is Ready, which it may still be called since the agent before. The configuration goes to `file`; `under` is the
    beginning of the command, of a program that runs the agent."""
    lab = lab or cluster.lab
    file = file or cluster.directory / f"kubelet-py-{node}.json"
    file.write_text(json.dumps(gokubelet.configuration(cluster, endpoint, settings or {}), indent=2))
    lab.run(["mkdir", "-p", "/etc/kubernetes/manifests"])
    log = lab.logs / f"kubelet-py-{node}.log"
    old_bytes = log.stat().st_size if log.exists() else 0
    process = lab.popen(
        [
            *under, sys.executable, "-m", "kubelet_py",
            f"--config={file}", f"--kubeconfig={cluster.node_credentials(node)}",
            f"--container-runtime-endpoint=unix://{endpoint}", f"--hostname-override={node}",
            f"--node-ip={lab.node_address}", "--root-dir=/var/lib/kubelet", *flags,
        ],
        log=log.stem,
        environment=ENVIRONMENT,
    )  # fmt: skip
    if wait:
        lab.wait_until(f"the pods of {node}", lambda: b"sources_ready" in log.read_bytes()[old_bytes:], process=process)
        lab.wait_until(f"node {node}", lambda: gokubelet.node_is_ready(cluster, node), process=process)
    return process
