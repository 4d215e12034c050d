"""An agent that cannot start says why in one line and ends with 1."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

from tests.integration.cluster.stage import NODE, PLAYS_GO, Stage
from tests.lab import gokubelet
from tests.lab.node import ENVIRONMENT

pytestmark = [pytest.mark.lab, pytest.mark.skipif(PLAYS_GO, reason="the words are ours")]


def refused(stage: Stage, *flags: str, **settings: object) -> list[str]:
    """Starts another agent that must end by itself with 1; the lines that it says as an error."""
    name = stage.unique("refused")
    file = stage.cluster.directory / f"{name}.json"
    file.write_text(json.dumps(gokubelet.configuration(stage.cluster, stage.socket, settings)))
    command = [
        sys.executable,
        "-m",
        "kubelet_py",
        f"--config={file}",
        f"--kubeconfig={stage.cluster.node_credentials(NODE)}",
        f"--hostname-override={NODE}",
        f"--node-ip={stage.lab.node_address}",
        f"--root-dir=/var/lib/{name}",
        f"--cert-dir=/var/lib/{name}/pki",
        *flags,
    ]
    process = stage.lab.popen(command, log=name, environment=ENVIRONMENT)
    try:
        code = process.wait(30)
    except subprocess.TimeoutExpired:
        process.stop()
        pytest.fail(f"it runs: {process.log_tail()}")
    assert process.log is not None
    text = process.log.read_text()
    assert code == 1, text
    assert "Traceback" not in text, text
    return [line for line in text.splitlines() if line.startswith("kubelet-py: ")]


FREE = {"port": 10350, "healthzPort": 10348}


def test_a_kubeconfig_that_is_not_there(stage: Stage) -> None:
    """The line names the flag and the file."""
    (line,) = refused(stage, "--kubeconfig=/etc/kubernetes/nowhere.conf", **FREE)
    assert "kubeconfig" in line
    assert "/etc/kubernetes/nowhere.conf" in line


def test_a_kubeconfig_that_makes_no_sense(stage: Stage) -> None:
    """The line names the file and what is wrong with it."""
    file = stage.cluster.directory / "broken.kubeconfig"
    file.write_text("apiVersion: v1\nkind: Config\ncurrent-context: nobody\n")
    (line,) = refused(stage, f"--kubeconfig={file}", **FREE)
    assert str(file) in line
    assert "nobody" in line


def test_a_certificate_that_is_not_there(stage: Stage) -> None:
    """The line names the setting's file."""
    (line,) = refused(stage, **FREE, tlsCertFile="/etc/no.crt", tlsPrivateKeyFile="/etc/no.key")
    assert "/etc/no.crt" in line
    (line,) = refused(
        stage, **FREE, authentication={"x509": {"clientCAFile": "/etc/no-ca.crt"}, "webhook": {"enabled": True}}
    )
    assert "/etc/no-ca.crt" in line


def test_a_second_agent_on_the_same_node(stage: Stage) -> None:
    """The port is taken, and the line says by whom that may be; the first agent runs on."""
    (line,) = refused(stage)
    assert ":10250: Address already in use" in line
    assert "another kubelet" in line
    (line,) = refused(stage, port=10350)
    assert ":10248: Address already in use" in line
    assert stage.kubelet.poll() is None
