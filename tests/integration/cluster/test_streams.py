"""kubectl exec, attach, cp and port-forward through the API server and this node, on both runtimes."""

from __future__ import annotations

import hashlib
import os
import signal
from pathlib import Path

import pytest

from tests.integration.cluster.objects import SLEEP, container, pod
from tests.integration.cluster.stage import Stage
from tests.integration.cluster.waiting import eventually

pytestmark = pytest.mark.lab

BLOCK_BYTES = 10 * 1024 * 1024


def test_kubectl_exec_and_cp(stage: Stage, tmp_path: Path) -> None:
    """Output, exit code, stdin with its end, and ten megabytes copied in and out again."""
    name, kubectl = stage.unique("exec"), stage.cluster.kubectl
    stage.create_pod(pod(name, container(SLEEP)))
    stage.wait_ready(name)
    assert kubectl("exec", name, "--", "sh", "-c", "echo out") == "out\n"
    assert kubectl("exec", "-i", name, "--", "cat", text_input="typed\n") == "typed\n"
    assert kubectl("exec", name, "--", "sh", "-c", "echo seen; exit 5", check=False) == "seen\n"
    data = os.urandom(BLOCK_BYTES)
    (tmp_path / "in").write_bytes(data)
    kubectl("cp", str(tmp_path / "in"), f"{name}:/tmp/copied")
    kubectl("cp", f"{name}:/tmp/copied", str(tmp_path / "out"))
    assert hashlib.sha256((tmp_path / "out").read_bytes()).digest() == hashlib.sha256(data).digest()


def test_kubectl_attach(stage: Stage) -> None:
    """What is typed reaches the container's own process."""
    name = stage.unique("attach")
    stage.create_pod(pod(name, container("read line; echo got $line; sleep 1000", stdin=True, stdinOnce=True)))
    stage.wait_ready(name)
    kubectl = f"{stage.cluster.programs['kubectl']} --kubeconfig={stage.cluster.kubeconfig}"
    typed = f"(echo hello; sleep 2) | {kubectl} attach -i {name}"
    client = stage.lab.popen(["sh", "-c", typed], log=f"attach-{name}")
    eventually("the answer", lambda: "got hello" in client.log_tail(), within_seconds=30)
    client.kill()


def test_kubectl_port_forward(stage: Stage) -> None:
    """A connection through the forwarded port reaches the pod, and comes back."""
    name = stage.unique("forward")
    stage.create_pod(pod(name, container("while true; do nc -ll -p 8080 -e cat; sleep 0.1; done")))
    stage.wait_ready(name)
    port = 28080 if stage.runtime == "docker" else 28081
    programs, config = stage.cluster.programs, stage.cluster.kubeconfig
    client = stage.lab.popen(
        [programs["kubectl"], f"--kubeconfig={config}", "port-forward", name, f"{port}:8080"], log=f"forward-{name}"
    )
    try:
        eventually("a forwarded port", lambda: "Forwarding from" in client.log_tail(), within_seconds=30)
        with stage.lab.connect("127.0.0.1", port) as connection:
            connection.settimeout(20)
            connection.sendall(b"hello")
            assert connection.recv(100) == b"hello"
    finally:
        client.send_signal(signal.SIGTERM)
        client.wait(10)
