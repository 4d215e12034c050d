"""kubelet-py without an API server, on a runtime's socket: pods are files, and its own API asks for no name.

Owns the agent and its directory while it runs. For a machine of its own only (`make boot`).
"""

from __future__ import annotations

import contextlib
import json
import shutil
import subprocess
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from tests.machine.dockershim import PROGRAMS
from tests.machine.waiting import CALL_SECONDS

STATE = Path("/var/lib/kubelet-test")
ROOT = STATE / "kubelet"
MANIFESTS = STATE / "manifests"
PORT = 10250
SETTINGS = {
    "apiVersion": "kubelet.config.k8s.io/v1beta1", "kind": "KubeletConfiguration", "cgroupDriver": "systemd",
    "staticPodPath": str(MANIFESTS), "port": PORT, "readOnlyPort": 0,
    "runtimeRequestTimeout": "20m",  # an emulated processor is slow
    "authentication": {"anonymous": {"enabled": True}, "webhook": {"enabled": False}},
    "authorization": {"mode": "AlwaysAllow"},
}  # fmt: skip


@contextlib.contextmanager
def running(endpoint: Path) -> Iterator[None]:
    """Its log is printed in the end."""
    MANIFESTS.mkdir(parents=True)
    config = STATE / "config.yaml"
    config.write_text(json.dumps({**SETTINGS, "containerRuntimeEndpoint": f"unix://{endpoint}"}))
    with (STATE / "log").open("wb") as log:
        command = [str(PROGRAMS / "kubelet-py"), f"--config={config}", f"--root-dir={ROOT}"]
        agent = subprocess.Popen(command, stdout=log, stderr=log)
    try:
        yield
    finally:
        agent.terminate()
        agent.wait(CALL_SECONDS)
        print("\n".join((STATE / "log").read_text().splitlines()[-60:]))
        shutil.rmtree(STATE)


def write_pod(name: str, spec: Mapping[str, Any]) -> None:
    """A static pod."""
    manifest = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name}, "spec": spec}
    (MANIFESTS / f"{name}.yaml").write_text(json.dumps(manifest))
