"""The Go kubelet of Kubernetes 1.37 in a lab: the peer to compare with, on any CRI runtime of the lab."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from tests.lab import gotools
from tests.lab.cluster import CLUSTER_DNS, Cluster
from tests.lab.process import LabProcess
from tests.lab.sandbox import Sandbox


def configuration(cluster: Cluster, endpoint: Path, settings: Mapping[str, Any]) -> dict[str, Any]:
    """A KubeletConfiguration for the test machines: cgroup v1, cgroupfs, no swap check, no lowered OOM score."""
    described: dict[str, Any] = {
        "apiVersion": "kubelet.config.k8s.io/v1beta1",
        "kind": "KubeletConfiguration",
        "containerRuntimeEndpoint": f"unix://{endpoint}",
        "failCgroupV1": False,
        "failSwapOn": False,
        "cgroupDriver": "cgroupfs",
        "oomScoreAdj": 0,
        "authentication": {
            "anonymous": {"enabled": False},
            "webhook": {"enabled": True},
            "x509": {"clientCAFile": str(cluster.client_ca)},
        },
        "authorization": {"mode": "Webhook"},
        "clusterDNS": [CLUSTER_DNS],
        "clusterDomain": "cluster.local",
        "resolvConf": "/etc/resolv.conf",
        "volumePluginDir": "/var/lib/kubelet/volumeplugins",
        "staticPodPath": "/etc/kubernetes/manifests",
        "rotateCertificates": False,
        "evictionHard": {"memory.available": "100Mi", "nodefs.available": "1%", "imagefs.available": "1%"},
    }
    return described | dict(settings)


def start(
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
    """Start the Go kubelet against a CRI socket and wait until its node is Ready.

    It runs beside the control plane, or in another lab host that joined it. The configuration goes to `file`; `under`
    is the beginning of the command, of a program that runs the kubelet.
    """
    program = gotools.ensure("kubelet")
    lab = lab or cluster.lab
    file = file or cluster.directory / f"kubelet-{node}.json"
    file.write_text(json.dumps(configuration(cluster, endpoint, settings or {}), indent=2))
    lab.run(["mkdir", "-p", "/etc/kubernetes/manifests"])
    kubeconfig = cluster.node_credentials(node)
    process = lab.popen(
        [
            *under,
            program,
            f"--config={file}",
            f"--kubeconfig={kubeconfig}",
            f"--hostname-override={node}",
            f"--node-ip={lab.node_address}",
            "--root-dir=/var/lib/kubelet",
            *flags,
        ],
        log=f"kubelet-{node}",
    )
    if wait:
        lab.wait_until(f"node {node}", lambda: node_is_ready(cluster, node), process=process)
    return process


def node_is_ready(cluster: Cluster, node: str) -> bool:
    """Whether the node's Ready condition is true and nothing keeps pods off it."""
    status, described = cluster.request("GET", f"/api/v1/nodes/{node}")
    if status != 200 or described["spec"].get("taints"):
        return False
    conditions = {entry["type"]: entry["status"] for entry in described["status"].get("conditions", ())}
    return conditions.get("Ready") == "True"
