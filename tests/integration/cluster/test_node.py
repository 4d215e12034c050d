"""The node object, its lease, and who may ask the node's own API."""

from __future__ import annotations

import json
import os
from typing import Any

import pytest

from tests.integration.cluster.objects import pod
from tests.integration.cluster.stage import NODE, Stage, condition
from tests.integration.cluster.waiting import eventually, holds

pytestmark = pytest.mark.lab

LEASE = f"/apis/coordination.k8s.io/v1/namespaces/kube-node-lease/leases/{NODE}"


def test_the_node_says_what_it_is(stage: Stage) -> None:
    """Addresses, capacity, allocatable, conditions, nodeInfo, labels, port and images are those of this machine."""
    node = stage.node()
    status = node["status"]
    assert {(a["type"], a["address"]) for a in status["addresses"]} == {
        ("InternalIP", stage.lab.node_address),
        ("Hostname", NODE),
    }
    capacity, allocatable = status["capacity"], status["allocatable"]
    assert capacity["cpu"] == str(os.cpu_count())
    assert capacity["pods"] == allocatable["pods"] == "110"
    assert {"cpu", "memory", "pods", "ephemeral-storage"} <= set(capacity)
    kib = {key: int(each["memory"].removesuffix("Ki")) for key, each in (("all", capacity), ("free", allocatable))}
    assert kib["all"] - kib["free"] == 100 * 1024, "evictionHard keeps 100Mi"
    for kind, wanted in (("Ready", "True"), ("MemoryPressure", "False"), ("DiskPressure", "False")):
        assert condition(node, kind) == wanted
    assert condition(node, "PIDPressure") == "False"
    info = status["nodeInfo"]
    assert info["kubeletVersion"].startswith("v1.37")
    assert info["containerRuntimeVersion"].startswith(f"{stage.runtime}://")
    assert (info["operatingSystem"], info["architecture"]) == ("linux", "amd64")
    assert info["kernelVersion"] == os.uname().release
    assert info["osImage"].startswith("Debian")
    assert info["bootID"]
    assert info["systemUUID"]
    labels = node["metadata"]["labels"]
    assert labels["kubernetes.io/hostname"] == NODE
    assert (labels["kubernetes.io/os"], labels["kubernetes.io/arch"]) == ("linux", "amd64")
    assert status["daemonEndpoints"]["kubeletEndpoint"]["Port"] == 10250

    def has_images() -> bool:
        """The first status may be written before the first list of images is there."""
        return any("busybox" in name for image in stage.node()["status"].get("images", ()) for name in image["names"])

    eventually("its images", has_images, within_seconds=60)


def test_the_lease_is_renewed(stage: Stage) -> None:
    """The node holds its lease of 40 s and renews it every ten."""

    def lease() -> dict[str, Any]:
        code, answer = stage.cluster.request("GET", LEASE)
        assert code == 200
        spec: dict[str, Any] = answer["spec"]
        return spec

    first = lease()
    assert first["holderIdentity"] == NODE
    assert first["leaseDurationSeconds"] == 40
    eventually("a renewal", lambda: lease()["renewTime"] != first["renewTime"], within_seconds=20)


def test_strangers_are_refused(stage: Stage) -> None:
    """Without credentials, with a certificate of another authority or a wrong token the answer is 401."""
    assert stage.kubelet_request("/pods") == (401, "Unauthorized")
    assert stage.kubelet_request("/pods", headers={"Authorization": "Bearer nonsense"}) == (401, "Unauthorized")


def test_users_without_rights_are_forbidden(stage: Stage) -> None:
    """A user whom nobody gave rights gets 403 with the words of the Go kubelet, resource by resource."""
    bob = stage.cluster.user_credentials("bob")
    code, text = stage.kubelet_request("/pods", user=bob)
    assert code == 403
    assert text == "Forbidden (user=bob, verb=get, resource=nodes, subresource(s)=[pods proxy])\n"
    code, text = stage.kubelet_request("/containerLogs/default/a/b", user=bob)
    assert code == 403
    assert text == "Forbidden (user=bob, verb=get, resource=nodes, subresource(s)=[proxy])\n"


def test_the_api_server_and_those_with_rights_are_served(stage: Stage) -> None:
    """The API server's certificate and the token of a service account that may use nodes/proxy list the node's pods."""
    name = stage.unique("served")
    stage.create_pod(pod(name))
    stage.wait_ready(name)

    def names(answer: tuple[int, str]) -> list[str]:
        assert answer[0] == 200, answer
        return [item["metadata"]["name"] for item in json.loads(answer[1])["items"]]

    assert name in names(stage.kubelet_request("/pods", user=stage.cluster.kubelet_client))
    account = stage.unique("reader")
    stage.cluster.create("/api/v1/namespaces/default/serviceaccounts", {"metadata": {"name": account}})
    token = stage.cluster.kubectl("create", "token", account).strip()
    headers = {"Authorization": f"Bearer {token}"}
    code, text = stage.kubelet_request("/pods", headers=headers)
    assert code == 403
    assert f"user=system:serviceaccount:default:{account}" in text
    trusted = stage.unique("trusted")
    stage.cluster.create("/api/v1/namespaces/default/serviceaccounts", {"metadata": {"name": trusted}})
    stage.cluster.create(
        "/apis/rbac.authorization.k8s.io/v1/clusterrolebindings",
        {
            "metadata": {"name": trusted},
            "roleRef": {
                "apiGroup": "rbac.authorization.k8s.io",
                "kind": "ClusterRole",
                "name": "system:kubelet-api-admin",
            },
            "subjects": [{"kind": "ServiceAccount", "name": trusted, "namespace": "default"}],
        },
    )
    token = stage.cluster.kubectl("create", "token", trusted).strip()

    def served() -> None:
        assert name in names(stage.kubelet_request("/pods", headers={"Authorization": f"Bearer {token}"}))

    holds(served, within_seconds=60)  # a refusal is remembered for half a minute


def test_the_node_is_healthy(stage: Stage) -> None:
    """/healthz answers ok on 10250 with rights, and on 10248 to whoever is on the machine."""
    assert stage.kubelet_request("/healthz", user=stage.cluster.kubelet_client) == (200, "ok")
    asked = stage.lab.run(["curl", "-sS", "http://127.0.0.1:10248/healthz"], check=False)
    if asked.returncode == 127:
        pytest.skip("no curl in the lab")
    assert asked.stdout == "ok"
