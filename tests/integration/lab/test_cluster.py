"""A control plane with the Go kubelet on containerd: a pod is scheduled, runs, can be read from, and goes."""

from __future__ import annotations

import json
import ssl
import urllib.request
from collections.abc import Iterator

import pytest
import yaml

from tests.integration.cluster.waiting import holds
from tests.integration.lab.leftovers import Traces
from tests.lab import gokubelet
from tests.lab.cluster import Cluster
from tests.lab.lab import BUSYBOX, Lab

pytestmark = pytest.mark.lab


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    with Lab.start(containerd="1.6") as lab:
        traces = Traces.of(lab.root)
        with Cluster.start(lab) as running:
            gokubelet.start(running, lab.containerd_socket)
            yield running
    assert traces.left() == []


def prints(cluster: Cluster, text: str, *command: str) -> None:
    """kubectl prints this; a container that runs does not speak at once."""
    assert cluster.kubectl(*command, check=False) == text


def test_a_pod_runs_logs_and_goes(cluster: Cluster) -> None:
    cluster.kubectl("run", "a", f"--image={BUSYBOX}", "--", "sh", "-c", "echo hello; sleep 1000")
    cluster.kubectl("wait", "pod/a", "--for=condition=Ready", "--timeout=60s")
    pod = cluster.get("pod", "a")
    assert (pod["spec"]["nodeName"], pod["status"]["phase"]) == ("node-1", "Running")
    assert pod["status"]["hostIP"] == cluster.lab.node_address
    holds(lambda: prints(cluster, "hello\n", "logs", "a"), within_seconds=60)
    assert "hostname" not in cluster.kubectl("exec", "a", "--", "id")
    cluster.kubectl("delete", "pod", "a", "--now", "--timeout=60s")
    assert not cluster.exists("/api/v1/namespaces/default/pods/a")


def test_the_node_is_what_the_control_plane_says(cluster: Cluster) -> None:
    info = cluster.get("node", "node-1")["status"]["nodeInfo"]
    assert info["kubeletVersion"] == "v1.37.2"
    assert info["containerRuntimeVersion"].startswith("containerd://1.6")
    status, version = cluster.request("GET", "/version")
    assert (status, version["gitVersion"]) == (200, "v1.37.2")


def test_a_client_outside_the_lab_reaches_the_api_server(cluster: Cluster) -> None:
    server = yaml.safe_load(cluster.outside_kubeconfig().read_text())["clusters"][0]["cluster"]["server"]
    assert server.startswith("https://127.0.0.1:")
    context = ssl.create_default_context(cafile=str(cluster.client_ca))
    with urllib.request.urlopen(f"{server}/version", context=context, timeout=30) as answer:
        assert b"v1.37.2" in answer.read()


def test_a_node_may_not_touch_other_nodes(cluster: Cluster) -> None:
    kubeconfig = cluster.node_credentials("node-2")
    program = cluster.programs["kubectl"]
    done = cluster.lab.run([program, f"--kubeconfig={kubeconfig}", "delete", "node", "node-1"], check=False)
    assert done.returncode == 1
    assert "forbidden" in done.stderr


def test_the_api_server_comes_back_after_a_kill(cluster: Cluster) -> None:
    cluster.processes["kube-apiserver"].kill()
    cluster.processes["kube-apiserver"].wait(10)
    assert not cluster.is_ready()
    cluster.start_component("kube-apiserver")
    cluster.lab.wait_until("kube-apiserver", cluster.is_ready, process=cluster.processes["kube-apiserver"])
    assert cluster.exists("/api/v1/nodes/node-1")


def test_a_second_host_joins_as_a_second_node(cluster: Cluster) -> None:
    with Lab.start(containerd="1.6", number=2) as second:
        cluster.lab.join(second)
        kubelet = gokubelet.start(cluster, second.containerd_socket, node="node-2", lab=second)
        for number in (1, 2):
            pin = json.dumps({"spec": {"nodeName": f"node-{number}"}})
            command = ["httpd", "-f", "-p", "8080", "-h", "/etc"]
            cluster.kubectl("run", f"on-{number}", f"--image={BUSYBOX}", f"--overrides={pin}", "--", *command)
        cluster.kubectl("wait", "pod/on-1", "pod/on-2", "--for=condition=Ready", "--timeout=60s")
        address = cluster.get("pod", "on-2")["status"]["podIP"]
        assert address.startswith("10.201.2.")
        fetch = ("exec", "on-1", "--", "wget", "-q", "-O-", f"http://{address}:8080/hostname")
        holds(lambda: prints(cluster, "on-2\n", *fetch), within_seconds=60)
        cluster.kubectl("delete", "pod", "on-1", "on-2", "--now", "--timeout=60s")
        cluster.kubectl("delete", "node", "node-2")
        assert kubelet.stop() == 0
