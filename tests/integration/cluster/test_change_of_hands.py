"""A node of the Go kubelet and cri-dockerd becomes one of kubelet-py and dockershim, with its pods running.

The swap that an operator makes: stop the two, start the two others on the same Docker and the same directories.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pytest

from tests.integration.cluster.objects import container, pod
from tests.integration.cluster.stage import NODE, PODS, edit_pod
from tests.integration.cluster.waiting import eventually, holds
from tests.lab import cridockerd, gokubelet, node
from tests.lab.cluster import Cluster
from tests.lab.engines.docker import SETTINGS_FOR_PEERS
from tests.lab.lab import Lab

pytestmark = pytest.mark.lab

SERVICE_ACCOUNT = "/api/v1/namespaces/default/serviceaccounts/default"
SETTINGS = "/api/v1/namespaces/default/configmaps"
HOST_PORT = 8081
DATA = [{"name": "data", "mountPath": "/data"}]
STAY = ("containerID", "restartCount", "state", "lastState", "started", "ready")
"""What is said of a container that nobody has touched; the image's id has a form of its own with cri-dockerd."""
WITHIN_SECONDS = 90.0


def web() -> dict[str, Any]:
    """Volumes, a port of the host, limits, probes, a container that has been restarted, one that came first."""
    first = container("echo hello > /data/index.html", "first", volumeMounts=DATA)
    main = container(
        "echo before; exec httpd -f -p 80 -h /data",
        ports=[{"containerPort": 80, "hostPort": HOST_PORT}],
        volumeMounts=[*DATA, {"name": "settings", "mountPath": "/etc/settings"}],
        resources={"requests": {"cpu": "100m", "memory": "32Mi"}, "limits": {"memory": "64Mi"}},
        readinessProbe={"httpGet": {"path": "/", "port": 80}, "periodSeconds": 1},
        livenessProbe={
            "exec": {"command": ["test", "-e", "/data/index.html"]},
            "periodSeconds": 1,
            "timeoutSeconds": 15,
        },
    )
    again = container("test -e /data/again && exec sleep 3600; touch /data/again; exit 3", "again", volumeMounts=DATA)
    volumes = [{"name": "data", "emptyDir": {}}, {"name": "settings", "configMap": {"name": "settings"}}]
    return pod("web", main, again, initContainers=[first], volumes=volumes, nodeName=NODE)


@dataclass
class HandedOver:
    """The node after the swap, and what was known of it before."""

    lab: Lab
    cluster: Cluster
    before: dict[str, dict[str, Any]]
    docker_ids: set[str]

    def ids_now(self) -> set[str]:
        """What Docker has."""
        return set(self.lab.docker.client("ps", "-aq", "--no-trunc").split())


def seen(cluster: Cluster) -> dict[str, dict[str, Any]]:
    """What the API server has of each pod and its containers that shall not change."""
    found = {}
    for name in ("web", "host", "done"):
        status = cluster.get("pod", name)["status"]
        statuses = [*status.get("initContainerStatuses", ()), *status["containerStatuses"]]
        found[name] = {each["name"]: {key: each.get(key) for key in STAY} for each in statuses}
        found[name]["pod"] = {key: status.get(key) for key in ("phase", "podIP", "startTime", "qosClass")}
    return found


def is_ready(cluster: Cluster, name: str) -> bool:
    """Whether the pod's condition says so."""
    conditions = cluster.get("pod", name)["status"].get("conditions", ())
    return any(each["type"] == "Ready" and each["status"] == "True" for each in conditions)


def settled(cluster: Cluster) -> dict[str, dict[str, Any]]:
    """What is seen once all has happened that shall."""
    assert is_ready(cluster, "web")
    assert is_ready(cluster, "host")
    found = seen(cluster)
    assert found["web"]["again"]["restartCount"] == 1
    assert "running" in found["web"]["again"]["state"]
    assert found["done"]["pod"]["phase"] == "Failed"
    return found


def look_into(cluster: Cluster, name: str) -> None:
    """Add a container to a running pod: once it has run, the agent has weighed all that the pod has."""
    look = {"ephemeralContainers": [container("exit 0", "look")]}
    edit_pod(cluster, name, lambda found: found["spec"].update(look), "/ephemeralcontainers")

    def has_run() -> bool:
        statuses = cluster.get("pod", name)["status"].get("ephemeralContainerStatuses", ())
        return any(each["state"].get("terminated", {}).get("exitCode") == 0 for each in statuses)

    eventually(f"a new container in {name}", has_run, within_seconds=WITHIN_SECONDS)


@pytest.fixture(scope="module")
def handed_over() -> Iterator[HandedOver]:
    started = Lab.start(docker=cridockerd.DOCKER_VERSION, docker_settings=SETTINGS_FOR_PEERS)
    with started as lab, Cluster.start(lab) as cluster:
        shim = cridockerd.start(lab)
        kubelet = gokubelet.start(cluster, shim.socket, node=NODE)
        eventually("the service account", lambda: cluster.exists(SERVICE_ACCOUNT), within_seconds=WITHIN_SECONDS)
        cluster.create(SETTINGS, {"metadata": {"name": "settings"}, "data": {"key": "value"}})
        cluster.create(PODS, web())
        cluster.create(PODS, pod("host", hostNetwork=True, nodeName=NODE))
        cluster.create(PODS, pod("done", container("exit 4"), restart="Never", nodeName=NODE))
        before = holds(lambda: settled(cluster), within_seconds=WITHIN_SECONDS)
        ids = set(lab.docker.client("ps", "-aq", "--no-trunc").split())
        kubelet.stop()
        shim.process.stop()
        ours = node.start_kubelet_py(cluster, node.start_dockershim(lab).socket, node=NODE)
        for name in ("web", "host"):
            look_into(cluster, name)
        yield HandedOver(lab, cluster, before, ids)
        ours.stop()


def test_no_container_is_touched(handed_over: HandedOver) -> None:
    """No restart, no other address, no other state, and every container is there."""
    eventually("web is Ready", lambda: is_ready(handed_over.cluster, "web"), within_seconds=WITHIN_SECONDS)
    assert seen(handed_over.cluster) == handed_over.before
    assert handed_over.before["web"]["again"]["restartCount"] == 1
    assert handed_over.docker_ids <= handed_over.ids_now()


def test_what_was_there_can_be_used(handed_over: HandedOver) -> None:
    """Logs from before, commands in containers, volumes, the port of the host."""
    cluster = handed_over.cluster
    assert cluster.kubectl("logs", "web", "-c", "main") == "before\n"
    assert cluster.kubectl("exec", "web", "-c", "main", "--", "cat", "/etc/settings/key") == "value"
    reached = handed_over.lab.run(["wget", "-q", "-O", "-", f"http://{handed_over.lab.node_address}:{HOST_PORT}/"])
    assert reached.stdout == "hello\n"


def test_it_goes_without_a_trace(handed_over: HandedOver) -> None:
    """Containers, addresses, volumes and checkpoints of what was there before and of what was added."""
    cluster, lab = handed_over.cluster, handed_over.lab
    for name in handed_over.before:
        cluster.kubectl("delete", "pod", name, "--wait=false")
    eventually("no pods", lambda: not cluster.request("GET", PODS)[1]["items"], within_seconds=WITHIN_SECONDS)
    eventually("no containers", lambda: not handed_over.ids_now(), within_seconds=WITHIN_SECONDS)

    def nothing_is_left() -> None:
        """The directories go after the containers."""
        left = "find /var/lib/cri-dockerd /var/lib/dockershim /var/lib/cni /var/lib/kubelet/pods -type f"
        names = [line.rpartition("/")[2] for line in lab.run(["sh", "-c", left]).stdout.splitlines()]
        assert set(names) <= {"lock", "last_reserved_ip.0"}

    holds(nothing_is_left, within_seconds=WITHIN_SECONDS)
