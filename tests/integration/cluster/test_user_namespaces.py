"""Pods whose root is nobody on the node: on a containerd that can make user namespaces, and on both kinds of Docker."""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest

from tests.integration.cluster.objects import SLEEP, container, pod
from tests.integration.cluster.stage import Stage
from tests.lab.cluster import Cluster
from tests.lab.lab import Lab

pytestmark = pytest.mark.lab

BLOCK = 65536


@pytest.fixture(scope="module", params=[("containerd", "2.4"), ("docker", "20.10"), ("docker", "29")], ids="-".join)
def modern(request: pytest.FixtureRequest) -> Iterator[Stage]:
    """A stage with this engine."""
    runtime, version = request.param
    lab = Lab.start(docker=version) if runtime == "docker" else Lab.start(containerd=version)
    try:
        stage = Stage(lab, Cluster.start(lab), runtime)
        try:
            yield stage
        finally:
            stage.close()
    finally:
        lab.stop()


def test_each_pod_has_ids_of_its_own(modern: Stage) -> None:
    """Files of its volumes look like root's from inside; a restart of the agent changes nothing."""
    handlers = modern.node()["status"]["runtimeHandlers"]
    assert any(handler["features"].get("userNamespaces") for handler in handlers), handlers
    mount = {"name": "v", "mountPath": "/v"}
    script = f"echo mine > /v/file; cat /proc/self/uid_map; stat -c %u /v/file /etc/hosts; echo end; {SLEEP}"
    names = [modern.unique("userns") for _ in range(2)]
    first_ids = set()
    for name in names:
        main = container(script, volumeMounts=[mount])
        created = pod(name, main, hostUsers=False, volumes=[{"name": "v", "emptyDir": {}}])
        uid = modern.create_pod(created)["metadata"]["uid"]
        modern.wait_ready(name)
        inside, outside, length, *owners, _ = modern.wait_logs(name, "end").split()
        assert (inside, length) == ("0", str(BLOCK))
        assert owners == ["0", "0"]
        kept = json.loads(modern.inside(f"/var/lib/kubelet/pods/{uid}/userns").read_text())
        assert kept["uidMappings"] == kept["gidMappings"]
        assert kept["uidMappings"] == [{"hostId": int(outside), "containerId": 0, "length": BLOCK}]
        first_ids.add(int(outside))
    assert len(first_ids) == 2
    assert min(first_ids) >= BLOCK
    modern.kubelet.stop()
    modern.start_kubelet()
    assert modern.wait_ready(names[0])["status"]["containerStatuses"][0]["restartCount"] == 0
