"""A control plane, and the credentials of one of its nodes."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from kubelet_py.kube.kubeconfig import load_kubeconfig
from tests.lab.cluster import Cluster
from tests.lab.lab import Lab


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    with Lab.start() as lab, Cluster.start(lab) as started:
        yield started


def kubeconfig_of(cluster: Cluster, node: str) -> Path:
    """The node's kubeconfig, for a process outside the lab."""
    outside = load_kubeconfig(cluster.outside_kubeconfig()).server
    inside = cluster.node_credentials(node)
    path = inside.with_suffix(".outside")
    path.write_text(inside.read_text().replace(cluster.server, outside))
    return path
