"""Volumes and the node's HTTP API in a real cluster: what a container sees, what kubectl and a stranger get.

One pod with every kind of volume that this agent serves writes what it finds to its log.
"""

import json
import ssl
from collections.abc import Iterator
from typing import Any

import pytest

from tests.integration.cluster.waiting import eventually
from tests.lab.cluster import Cluster
from tests.lab.lab import BUSYBOX, Lab
from tests.lab.node import start_dockershim, start_kubelet_py

pytestmark = pytest.mark.lab

SCRIPT = """
id
stat -L -c '%n %a %g' /disk /memory /config/key /secret/password /sub/made /sub-of-memory
grep -c ' /memory tmpfs' /proc/mounts
cat /config/key /secret/password /down/labels /mapped/deep/name
ls /var/run/secrets/kubernetes.io/serviceaccount
cat /var/run/secrets/kubernetes.io/serviceaccount/namespace
echo; touch /config/x 2>&1; touch /disk/y && ls /sub-of-disk
echo file-by-subpath; cat /one-file
touch /sub/named/by-expansion; ls /disk/of/everything
touch /memory/seen-inside; ls /config/nested/deep /config/pass
echo ready
while true; do cat /config/key; sleep 1; done
"""


def everything_pod() -> dict[str, Any]:
    mounts = [
        {"name": "disk", "mountPath": "/disk"},
        {"name": "disk", "mountPath": "/sub/made", "subPath": "made/here"},
        {"name": "disk", "mountPath": "/sub-of-disk", "subPathExpr": "."},
        {"name": "disk", "mountPath": "/sub/named", "subPathExpr": "of/$(POD)"},
        {"name": "memory", "mountPath": "/memory"},
        {"name": "memory", "mountPath": "/sub-of-memory", "subPath": "inner"},
        {"name": "config", "mountPath": "/config"},
        {"name": "memory", "mountPath": "/config/nested/deep"},
        {"name": "secret", "mountPath": "/config/pass"},
        {"name": "config", "mountPath": "/one-file", "subPath": "key"},
        {"name": "mapped", "mountPath": "/mapped"},
        {"name": "secret", "mountPath": "/secret"},
        {"name": "down", "mountPath": "/down"},
    ]
    volumes = [
        {"name": "disk", "emptyDir": {}},
        {"name": "memory", "emptyDir": {"medium": "Memory", "sizeLimit": "1Mi"}},
        {"name": "config", "configMap": {"name": "settings"}},
        {
            "name": "mapped",
            "projected": {
                "sources": [{"configMap": {"name": "settings", "items": [{"key": "key", "path": "deep/name"}]}}]
            },
        },
        {"name": "secret", "secret": {"secretName": "pass", "defaultMode": 0o400}},
        {"name": "down", "downwardAPI": {"items": [{"path": "labels", "fieldRef": {"fieldPath": "metadata.labels"}}]}},
    ]
    container = {
        "name": "main",
        "image": BUSYBOX,
        "imagePullPolicy": "Never",
        "command": ["sh", "-c", SCRIPT],
        "env": [{"name": "POD", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}}],
        "volumeMounts": mounts,
    }
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": "everything", "labels": {"app": "all"}},
        "spec": {
            "containers": [container],
            "volumes": volumes,
            "securityContext": {"runAsUser": 1234, "fsGroup": 4321},
            "terminationGracePeriodSeconds": 1,
        },
    }


@pytest.fixture(scope="module", params=["containerd", "docker"])
def cluster(request: pytest.FixtureRequest) -> Iterator[Cluster]:
    starting = Lab.start(containerd="1.6") if request.param == "containerd" else Lab.start(docker="20.10")
    with starting as lab, Cluster.start(lab) as cluster:
        socket = lab.containerd_socket if request.param == "containerd" else start_dockershim(lab).socket
        start_kubelet_py(cluster, socket, node="node-1", flags=("-v=4",))
        namespace = "/api/v1/namespaces/default"
        cluster.request(
            "POST", f"{namespace}/configmaps", {"metadata": {"name": "settings"}, "data": {"key": "first\n"}}
        )
        cluster.request(
            "POST", f"{namespace}/secrets", {"metadata": {"name": "pass"}, "stringData": {"password": "geheim\n"}}
        )
        cluster.request("POST", f"{namespace}/pods", everything_pod())
        yield cluster


def logs(cluster: Cluster, *flags: str) -> str:
    return cluster.kubectl("logs", "everything", *flags, check=False)


def wait_until_shown(cluster: Cluster) -> None:
    eventually("the output of the pod's script", lambda: "ready" in logs(cluster), within_seconds=60)


def test_a_container_sees_every_kind_of_volume(cluster: Cluster) -> None:
    wait_until_shown(cluster)
    lines = logs(cluster).splitlines()
    shown = "\n".join(lines)
    assert "uid=1234" in lines[0]
    assert "4321" in lines[0]
    assert "/disk 2777 4321" in shown
    assert "/memory 3777 4321" in shown
    assert "/sub-of-memory 3777 4321" in shown
    assert "/config/key 644 4321" in shown
    assert "/secret/password 440 4321" in shown
    assert "/sub/made 2777 4321" in shown
    assert "first" in lines
    assert "geheim" in lines
    assert 'app="all"' in shown
    assert {"ca.crt", "namespace", "token"} <= set(lines)
    assert "default" in lines
    assert "Read-only file system" in shown
    assert {"seen-inside", "password"} <= set(lines), "volumes that are mounted inside a read-only one"
    index = lines.index("file-by-subpath")
    assert lines[index + 1 : index + 3] == ["first", "by-expansion"]


def test_a_changed_config_map_reaches_the_running_container(cluster: Cluster) -> None:
    wait_until_shown(cluster)
    cluster.kubectl("patch", "configmap", "settings", "--type=merge", "-p", json.dumps({"data": {"key": "second\n"}}))
    # sooner than the pod is re-synced
    eventually("the new content", lambda: logs(cluster, "--tail=1").strip() == "second", within_seconds=20)


def test_kubectl_logs_with_its_flags(cluster: Cluster) -> None:
    wait_until_shown(cluster)
    assert len(logs(cluster, "--tail=3").splitlines()) == 3
    assert logs(cluster, "--limit-bytes=5") == logs(cluster)[:5]
    assert logs(cluster, "--tail=1", "--timestamps").split("T")[0].count("-") == 2
    words = [cluster.programs["kubectl"], f"--kubeconfig={cluster.kubeconfig}", "logs", "everything", "--previous"]
    refused = cluster.lab.run(words, check=False)
    assert 'previous terminated container "main" in pod "everything" not found' in refused.stderr


def test_a_stranger_gets_no_answer_and_rbac_decides_about_the_others(cluster: Cluster) -> None:
    def ask(path: str, name: str = "", groups: tuple[str, ...] = (), token: str = "") -> tuple[int, str]:
        context = ssl.create_default_context()
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
        if name:
            credentials = cluster.user_credentials(name, groups)
            context.load_cert_chain(credentials.certificate, credentials.key)
        headers = {"Authorization": f"Bearer {token}"} if token else {}
        connection = cluster.lab.connect("127.0.0.1", 10250)
        with context.wrap_socket(connection) as tls:
            lines = [f"GET {path} HTTP/1.0", "Host: node", *(f"{key}: {value}" for key, value in headers.items())]
            tls.sendall("\r\n".join([*lines, "", ""]).encode())
            answer = b""
            while piece := tls.recv(65536):
                answer += piece
        head, _, body = answer.partition(b"\r\n\r\n")
        return int(head.split()[1]), body.decode()

    assert ask("/pods") == (401, "Unauthorized")
    assert ask("/pods", token="invented") == (401, "Unauthorized")
    assert ask("/pods", "mallory") == (
        403,
        "Forbidden (user=mallory, verb=get, resource=nodes, subresource(s)=[pods proxy])\n",
    )
    status, body = ask("/pods", "root", ("system:masters",))
    assert status == 200
    assert "everything" in [item["metadata"]["name"] for item in json.loads(body)["items"]]
    cluster.kubectl("create", "clusterrole", "reads-pods", "--verb=get", "--resource=nodes/pods")
    cluster.kubectl(
        "create", "clusterrolebinding", "sa", "--clusterrole=reads-pods", "--serviceaccount=default:default"
    )
    token = cluster.kubectl("create", "token", "default").strip()
    eventually("a binding that holds", lambda: ask("/pods", token=token)[0] == 200, within_seconds=60)
    assert ask("/configz", token=token)[0] == 403


def test_a_deleted_pod_leaves_no_mount_and_no_directory(cluster: Cluster) -> None:
    uid = cluster.get("pod", "everything")["metadata"]["uid"]
    where = f"/var/lib/kubelet/pods/{uid}"
    assert where in cluster.lab.run(["cat", "/proc/self/mountinfo"]).stdout
    cluster.kubectl("delete", "pod", "everything", "--wait=true")
    eventually(
        "the end of mounts and directories",
        lambda: (
            where not in cluster.lab.run(["cat", "/proc/self/mountinfo"]).stdout
            and uid not in cluster.lab.run(["ls", "/var/lib/kubelet/pods"]).stdout
        ),
        within_seconds=60,
    )
