"""A Go kubelet on its own, without an API server, shows dockershim's statistics and metrics as its own."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest

from tests.integration.dockershim.harness import Shim, eventually
from tests.lab import gotools
from tests.lab.lab import BUSYBOX, Lab

pytestmark = pytest.mark.lab
NODE = "node-1"
MIB = 1024 * 1024


@pytest.fixture
def kubelet(lab: Lab, shim: Shim) -> Iterator[None]:
    """It runs one pod and reads statistics from the runtime alone."""
    directory = lab.root / "go-kubelet"
    manifests = directory / "manifests"
    manifests.mkdir(parents=True)
    configuration = {
        "apiVersion": "kubelet.config.k8s.io/v1beta1",
        "kind": "KubeletConfiguration",
        "containerRuntimeEndpoint": f"unix://{shim.socket}",
        "featureGates": {"PodAndContainerStatsFromCRI": True},
        "failCgroupV1": False,
        "failSwapOn": False,
        "cgroupDriver": "cgroupfs",
        "oomScoreAdj": 0,
        "readOnlyPort": 10255,
        "authentication": {"anonymous": {"enabled": True}, "webhook": {"enabled": False}},
        "authorization": {"mode": "AlwaysAllow"},
        "staticPodPath": str(manifests),
        "volumePluginDir": str(directory / "plugins"),
        "enableServer": True,
    }
    pod = {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": "web", "namespace": "default"},
        "spec": {
            "containers": [
                {
                    "name": "main",
                    "image": BUSYBOX,
                    "command": ["sh", "-c", "head -c 1048576 /dev/urandom > /data; sleep 1000"],
                    "resources": {"limits": {"memory": "64Mi"}},
                }
            ],
            "terminationGracePeriodSeconds": 1,
        },
    }
    (directory / "kubelet.json").write_text(json.dumps(configuration))
    (manifests / "web.json").write_text(json.dumps(pod))
    process = lab.popen(
        [
            gotools.ensure("kubelet"),
            f"--config={directory / 'kubelet.json'}",
            f"--root-dir={directory / 'root'}",
            f"--hostname-override={NODE}",
            f"--node-ip={lab.node_address}",
        ],
        log="go-kubelet",
    )
    yield
    process.stop()


def get(lab: Lab, path: str) -> str:
    """The body of an answer; empty while nobody answers."""
    try:
        with lab.connect("127.0.0.1", 10255) as connection:
            connection.sendall(f"GET {path} HTTP/1.0\r\n\r\n".encode())
            answer = b"".join(iter(lambda: connection.recv(65536), b"")).decode()
    except OSError:
        return ""
    return answer.partition("\r\n\r\n")[2]


def series(text: str, name: str, **labels: str) -> list[float]:
    """The values of a metric with these labels."""
    wanted = [f'{key}="{value}"' for key, value in labels.items()]
    return [
        float(line.rpartition("}")[2].split()[0])
        for line in text.splitlines()
        if line.startswith(name + "{") and all(part in line for part in wanted)
    ]


def summary(lab: Lab) -> dict[str, Any]:
    """The statistics of our pod; empty while there are none."""
    text = get(lab, "/stats/summary")
    pods = json.loads(text).get("pods") or [] if text.startswith("{") else []
    return next((pod for pod in pods if pod["podRef"]["name"] == f"web-{NODE}"), {})


@pytest.mark.usefixtures("kubelet")
def test_the_kubelet_publishes_what_dockershim_says(lab: Lab) -> None:
    """At /metrics/cadvisor with the labels that dashboards select by, and in the summary."""
    of_pod = {"namespace": "default", "pod": f"web-{NODE}"}

    def published() -> bool:
        return bool(series(get(lab, "/metrics/cadvisor"), "container_memory_working_set_bytes", **of_pod))

    eventually(published, timeout_seconds=90)
    eventually(lambda: bool(summary(lab).get("containers")), timeout_seconds=60)
    eventually(lambda: summary(lab)["containers"][0]["rootfs"].get("usedBytes", 0) >= MIB, timeout_seconds=60)
    text = get(lab, "/metrics/cadvisor")
    of_container = {**of_pod, "container": "main"}
    (working_set,) = series(text, "container_memory_working_set_bytes", **of_container)
    assert 0 < working_set < 64 * MIB
    assert series(text, "container_spec_memory_limit_bytes", **of_container) == [64 * MIB]
    assert len(series(text, "container_cpu_usage_seconds_total", **of_container)) == 1
    (received,) = series(text, "container_network_receive_bytes_total", **of_pod, container="POD", interface="eth0")
    assert received >= 0
    pod = summary(lab)
    main = pod["containers"][0]
    assert main["name"] == "main"
    assert main["memory"]["availableBytes"] == 64 * MIB - main["memory"]["workingSetBytes"]
    assert pod["memory"]["workingSetBytes"] > 0
    assert pod["cpu"]["usageCoreNanoSeconds"] >= main["cpu"]["usageCoreNanoSeconds"] > 0
    assert pod["network"]["name"] == "eth0"
    assert pod["process_stats"]["process_count"] >= 2
    assert main["rootfs"]["capacityBytes"] > main["rootfs"]["usedBytes"]
