"""Pods that get other resources while they run. KUBELET=go shows what the Go kubelet does."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import pytest

from kubelet_py.core.pod_allocation import decode_checkpoint
from tests.integration.cluster.objects import SLEEP, container, pod
from tests.integration.cluster.stage import PLAYS_GO, Stage, container_status, edit_pod
from tests.integration.cluster.waiting import holds

pytestmark = pytest.mark.lab

MI = 1024 * 1024
# The Go kubelet may look at what it deferred again only after three minutes.
RETRY_SECONDS = 240 if PLAYS_GO else 20
STATE_FILES = ("allocated_pods_state", "actuated_pods_state")


def sized(cpu: str = "100m", memory: str = "64Mi") -> dict[str, Any]:
    """A Guaranteed container's resources."""
    amounts = {"cpu": cpu, "memory": memory}
    return {"requests": amounts, "limits": amounts}


def resize(stage: Stage, name: str, resources: Mapping[str, Any], container_name: str = "main") -> dict[str, Any]:
    """Asks for other resources of one container, as `kubectl edit --subresource=resize` does."""

    def ask(wanted: dict[str, Any]) -> None:
        for entry in (*wanted["spec"].get("initContainers", ()), *wanted["spec"]["containers"]):
            if entry["name"] == container_name:
                entry["resources"] = dict(resources)

    return edit_pod(stage.cluster, name, ask, "/resize")


def condition_of(seen: Mapping[str, Any], kind: str) -> dict[str, Any] | None:
    """The whole condition."""
    return next((c for c in seen["status"].get("conditions", ()) if c["type"] == kind), None)


def wait_resized(stage: Stage, name: str, resources: Mapping[str, Any], within_seconds: float = 20) -> dict[str, Any]:
    """The pod, once its status shows these resources and no resize is under way."""

    def reached() -> dict[str, Any]:
        seen = stage.pod(name)
        assert container_status(seen)["resources"] == resources, seen["status"]
        assert condition_of(seen, "PodResizeInProgress") is None, seen["status"]
        assert condition_of(seen, "PodResizePending") is None, seen["status"]
        return seen

    return holds(reached, within_seconds=within_seconds)


def cgroup_values(stage: Stage, uid: str) -> dict[str, int]:
    """What the pod's own cgroup and its container's have: memory limit, quota, shares."""
    found: dict[str, int] = {}
    for controller, file in (("memory", "memory.limit_in_bytes"), ("cpu", "cpu.cfs_quota_us"), ("cpu", "cpu.shares")):
        script = f"cat $(find /sys/fs/cgroup/{controller} -type d -name 'pod{uid}')/{file}"
        found[file] = int(stage.lab.run(["sh", "-c", script]).stdout)
    return found


def inside(stage: Stage, name: str) -> tuple[int, int]:
    """Memory limit and CPU quota as the container sees them."""
    files = "/sys/fs/cgroup/memory/memory.limit_in_bytes /sys/fs/cgroup/cpu/cpu.cfs_quota_us"
    memory, quota = stage.cluster.kubectl("exec", name, "--", "sh", "-c", f"cat {files}").split()
    return int(memory), int(quota)


def test_a_container_grows_and_shrinks_without_a_restart(stage: Stage) -> None:
    name = stage.unique("resize")
    created = stage.create_pod(pod(name, container(resources=sized())))
    seen = stage.wait_ready(name)
    uid, first = created["metadata"]["uid"], container_status(seen)
    assert first["resources"] == sized()
    assert first["allocatedResources"] == sized()["requests"]
    assert cgroup_values(stage, uid) == {
        "memory.limit_in_bytes": 64 * MI, "cpu.cfs_quota_us": 10_000, "cpu.shares": 102
    }  # fmt: skip
    for wanted, memory, quota in ((sized("200m", "128Mi"), 128 * MI, 20_000), (sized("50m", "80Mi"), 80 * MI, 5_000)):
        asked = resize(stage, name, wanted)
        seen = wait_resized(stage, name, wanted)
        status = container_status(seen)
        assert status["allocatedResources"] == wanted["requests"]
        assert (status["containerID"], status["restartCount"]) == (first["containerID"], 0)
        assert inside(stage, name) == (memory, quota)
        values = cgroup_values(stage, uid)
        assert (values["memory.limit_in_bytes"], values["cpu.cfs_quota_us"]) == (memory, quota)
        generation = asked["metadata"]["generation"]
        assert seen["status"]["observedGeneration"] == generation
        message = stage.wait_event(name, "ResizeCompleted", f'"generation":{generation}')["message"]
        prefix, _, summary = message.partition(": ")
        assert prefix == "Pod resize completed"
        assert json.loads(summary)["containers"] == [{"name": "main", "resources": wanted}]
    stage.wait_event(name, "ResizeStarted")


def test_a_policy_can_ask_for_a_restart(stage: Stage) -> None:
    name = stage.unique("resize")
    policies = [
        {"resourceName": "memory", "restartPolicy": "RestartContainer"},
        {"resourceName": "cpu", "restartPolicy": "NotRequired"},
    ]
    stage.create_pod(pod(name, container(resources=sized(), resizePolicy=policies)))
    stage.wait_ready(name)
    resize(stage, name, sized("150m"))
    assert container_status(wait_resized(stage, name, sized("150m")))["restartCount"] == 0
    resize(stage, name, sized("150m", "96Mi"))
    seen = wait_resized(stage, name, sized("150m", "96Mi"))
    assert container_status(seen)["restartCount"] == 1
    stage.wait_event(name, "Killing", "resize requires restart")
    stage.wait_ready(name)
    assert inside(stage, name) == (96 * MI, 15_000)


def test_what_does_not_fit_waits_until_it_does(stage: Stage) -> None:
    """Also over a restart of the agent: what the pod was given stays, whatever its spec asks for."""
    stage.wait_alone()
    name, filler = stage.unique("resize"), stage.unique("filler")
    cores = int(stage.node()["status"]["allocatable"]["cpu"])
    stage.create_pod(pod(filler, container(resources={"requests": {"cpu": f"{cores * 1000 - 600}m"}})))
    uid = stage.create_pod(pod(name, container(resources=sized())))["metadata"]["uid"]
    stage.wait_ready(filler)
    stage.wait_ready(name)
    asked = resize(stage, name, sized("700m"))

    def deferred() -> dict[str, Any]:
        found = condition_of(stage.pod(name), "PodResizePending")
        assert found is not None
        assert found["reason"] == "Deferred", found
        return found

    pending = holds(deferred, within_seconds=15)
    assert pending["message"].startswith("Node didn't have enough resource: cpu, requested: 700, used: ")
    assert pending["observedGeneration"] == asked["metadata"]["generation"]
    message = stage.wait_event(name, "ResizeDeferred")["message"]
    assert message.startswith('Pod resize OutOfcpu: {"containers":[{"name":"main","resources":{"limits":{"cpu":"700m"')
    stage.kubelet.stop()
    stage.start_kubelet()
    assert container_status(stage.wait_ready(name))["resources"] == sized()
    assert holds(deferred, within_seconds=15)["reason"] == "Deferred"
    assert container_status(stage.pod(name))["restartCount"] == 0
    resize(stage, name, sized("120m"))
    wait_resized(stage, name, sized("120m"), within_seconds=RETRY_SECONDS)
    resize(stage, name, sized("700m"))
    holds(deferred, within_seconds=15)
    stage.delete_pod(filler)
    seen = wait_resized(stage, name, sized("700m"), within_seconds=RETRY_SECONDS)
    assert container_status(seen)["restartCount"] == 0

    def kept() -> list[dict[str, Any] | None]:
        # Read by our own codec also where the Go kubelet wrote it: one format, one checksum.
        files = [stage.inside(f"/var/lib/kubelet/{file}").read_bytes() for file in STATE_FILES]
        limits = [decode_checkpoint(content)[uid].containers["main"].limits for content in files]
        assert limits == [{"cpu": "700m", "memory": "64Mi"}] * len(STATE_FILES)
        return limits

    holds(kept, within_seconds=15)


def test_memory_in_use_is_not_taken_away(stage: Stage) -> None:
    """The resize stays in progress with what is wrong, and goes on when there is room."""
    name = stage.unique("resize")
    eat = f"until [ -e /dev/shm/stop ]; do sleep 0.1; done; rm -f /dev/shm/big /dev/shm/stop; {SLEEP}"
    script = f"dd if=/dev/zero of=/dev/shm/big bs=1M count=40; echo full; {eat}"
    stage.create_pod(pod(name, container(script, resources=sized("100m", "128Mi"))))
    stage.wait_logs(name, "full")
    resize(stage, name, sized("100m", "32Mi"))

    def failed() -> str:
        found = condition_of(stage.pod(name), "PodResizeInProgress")
        assert found is not None
        assert found.get("reason") == "Error", found
        return str(found["message"])

    assert "below current usage" in holds(failed, within_seconds=30)
    stage.wait_event(name, "ResizeError", "below current usage")
    assert inside(stage, name)[0] == 128 * MI
    stage.cluster.kubectl("exec", name, "--", "touch", "/dev/shm/stop")
    seen = wait_resized(stage, name, sized("100m", "32Mi"), within_seconds=120)
    assert container_status(seen)["restartCount"] == 0


def test_a_sidecar_and_the_pod_as_a_whole_are_resized(stage: Stage) -> None:
    name = stage.unique("resize")
    sidecar = container(name="side", restartPolicy="Always", resources=sized("50m", "32Mi"))
    uid = stage.create_pod(pod(name, container(resources=sized()), initContainers=[sidecar]))["metadata"]["uid"]
    stage.wait_ready(name)
    assert cgroup_values(stage, uid)["memory.limit_in_bytes"] == 96 * MI
    resize(stage, name, sized("60m", "48Mi"), "side")

    def reached() -> None:
        assert container_status(stage.pod(name), "side")["resources"] == sized("60m", "48Mi")
        assert cgroup_values(stage, uid)["memory.limit_in_bytes"] == 112 * MI

    holds(reached, within_seconds=20)
    assert stage.pod(name)["status"]["allocatedResources"] == {"cpu": "160m", "memory": "112Mi"}
