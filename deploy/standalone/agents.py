"""Starting dockershim and kubelet-py from this checkout, and the files they are given."""

import json
import shlex
import sys
from pathlib import Path

from deploy.standalone import daemons, images, pods
from deploy.standalone.node import (
    COMMAND,
    DATA,
    DOCKERSHIM_SOCKET,
    KUBELET_CONFIG,
    KUBELET_ROOT,
    MANIFESTS,
    POD_LOGS,
    Record,
)

CHECKOUT = Path(__file__).resolve().parents[2]
READ_ONLY_PORT = 10255
HEALTHZ_PORT = 10248
PORT = 10250
POD_PORT = 8080
_ENVIRONMENT = {"PYTHONPATH": str(CHECKOUT), "PYTHONDONTWRITEBYTECODE": "1"}


def start_dockershim(record: Record) -> None:
    """dockershim on the node's Docker."""
    command = daemons.python(
        "dockershim",
        f"--container-runtime-endpoint=unix://{DOCKERSHIM_SOCKET}",
        f"--docker-endpoint=unix://{record.docker_socket}",
        f"--root-directory={DATA}/dockershim",
        f"--pod-infra-container-image={images.PAUSE}",
        "--network-plugin=bridge",
    )
    daemons.start(record, "dockershim", command, _ENVIRONMENT)


def wait_for_runtime(record: Record) -> None:
    """Until the CRI endpoint says that runtime and network are ready."""
    name = "dockershim" if record.runtime == "docker" else "containerd"
    daemons.wait_for(record, name, "a ready CRI runtime", lambda: pods.answers(record.endpoint))


def start_kubelet(record: Record) -> None:
    """kubelet-py without an API server, with a manifest directory."""
    for directory in (MANIFESTS, POD_LOGS, KUBELET_ROOT):
        directory.mkdir(parents=True, exist_ok=True)
    KUBELET_CONFIG.write_text(json.dumps(_kubelet_configuration(record), indent=1))
    command = daemons.python(
        "kubelet_py",
        f"--config={KUBELET_CONFIG}",
        f"--root-dir={KUBELET_ROOT}",
        f"--cert-dir={KUBELET_ROOT}/pki",
    )
    daemons.start(record, "kubelet-py", command, _ENVIRONMENT)


def write_example() -> Path:
    """The manifest of the example pod, unless the person has changed it."""
    path = MANIFESTS / "hello.yaml"
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(_EXAMPLE)
    return path


def write_command() -> None:
    """A short command for the person: kubelet-py of this checkout, pointed at this node."""
    environment = {**_ENVIRONMENT, "KUBELET_PY_CONFIG": str(KUBELET_CONFIG)}
    settings = " ".join(f"{name}={shlex.quote(value)}" for name, value in environment.items())
    COMMAND.parent.mkdir(parents=True, exist_ok=True)
    COMMAND.write_text(f'#!/bin/sh\nexec env {settings} {shlex.quote(sys.executable)} -m kubelet_py "$@"\n')
    COMMAND.chmod(0o755)


def _kubelet_configuration(record: Record) -> dict[str, object]:
    return {
        "apiVersion": "kubelet.config.k8s.io/v1beta1",
        "kind": "KubeletConfiguration",
        "staticPodPath": str(MANIFESTS),
        "podLogsDir": str(POD_LOGS),
        "containerRuntimeEndpoint": f"unix://{record.endpoint}",
        "address": "127.0.0.1",
        "port": PORT,
        "readOnlyPort": READ_ONLY_PORT,
        "healthzPort": HEALTHZ_PORT,
        "authentication": {"anonymous": {"enabled": False}, "webhook": {"enabled": False}},
        "authorization": {"mode": "AlwaysAllow"},
        "cgroupDriver": "cgroupfs",
        "failCgroupV1": False,
        "failSwapOn": False,
        # nothing outside this directory may be needed, and a restricted root may not lower its own score
        "oomScoreAdj": 0,
        "makeIPTablesUtilChains": False,
    }


_EXAMPLE = f"""apiVersion: v1
kind: Pod
metadata:
  name: hello
  labels:
    app: hello
spec:
  dnsPolicy: Default
  terminationGracePeriodSeconds: 2
  containers:
  - name: hello
    image: {images.HELLO}
    imagePullPolicy: Never
    ports:
    - containerPort: {POD_PORT}
    resources:
      requests: {{cpu: 10m, memory: 16Mi}}
      limits: {{memory: 64Mi}}
"""
