"""What containers of one pod may ask for: debuggers, restart rules, another image, and what becomes of lost ones.

KUBELET=go shows what the Go kubelet does.
"""

from __future__ import annotations

import time
from typing import Any

import pytest

from cri_proto import runtime_v1 as cri
from tests.integration.cluster.objects import SLEEP, container, pod
from tests.integration.cluster.stage import PLAYS_GO, PODS, Stage, condition, container_status, edit_pod
from tests.integration.cluster.waiting import eventually, holds
from tests.lab.lab import BUSYBOX

pytestmark = pytest.mark.lab

RESTART_ON_42 = [{"action": "Restart", "exitCodes": {"operator": "In", "values": [42]}}]
RESTART_ALL_ON_42 = [{"action": "RestartAllContainers", "exitCodes": {"operator": "In", "values": [42]}}]


def test_a_runtime_class_names_the_handler(stage: Stage) -> None:
    name = stage.unique("class")
    described = {"apiVersion": "node.k8s.io/v1", "kind": "RuntimeClass", "metadata": {"name": name}, "handler": "runc"}
    code, answer = stage.cluster.request("POST", "/apis/node.k8s.io/v1/runtimeclasses", described)
    assert code == 201, answer

    def accepted() -> str:  # the API server's own admission hears of the class a moment later
        code, answer = stage.cluster.request("POST", PODS, pod(name, runtimeClassName=name))
        assert code == 201, answer
        uid: str = answer["metadata"]["uid"]
        return uid

    uid = holds(accepted, within_seconds=20)
    stage.wait_ready(name)
    assert [sandbox.runtime_handler for sandbox in stage.sandboxes(uid)] == ["runc"]


def debug(stage: Stage, name: str, script: str, target: str = "") -> None:
    """What `kubectl debug` asks for."""
    added: dict[str, Any] = {"name": "debug", "image": BUSYBOX, "command": ["sh", "-c", script]}
    if target:
        added["targetContainerName"] = target

    def add(seen: dict[str, Any]) -> None:
        seen["spec"].setdefault("ephemeralContainers", []).append(added)

    edit_pod(stage.cluster, name, add, "/ephemeralcontainers")


def ephemeral_state(stage: Stage, name: str) -> dict[str, Any]:
    """The state of the first ephemeral container."""
    state: dict[str, Any] = stage.pod(name)["status"]["ephemeralContainerStatuses"][0]["state"]
    return state


def test_an_ephemeral_container_sees_the_processes_of_its_target(stage: Stage) -> None:
    """It runs once, changes nothing of the pod, and is not started again."""
    name = stage.unique("debug")
    stage.create_pod(pod(name, container(f"echo here; {SLEEP}")))
    before = container_status(stage.wait_ready(name))
    debug(stage, name, "cat /proc/1/cmdline; exit 3", target="main")
    ended = holds(lambda: ephemeral_state(stage, name)["terminated"], within_seconds=20)
    assert ended["exitCode"] == 3
    assert "echo here" in stage.logs(name, "container=debug")
    after = container_status(stage.wait_ready(name))
    assert (after["containerID"], after["restartCount"]) == (before["containerID"], 0)
    stage.kubelet.stop()
    stage.start_kubelet()
    stage.wait_ready(name)
    assert ephemeral_state(stage, name)["terminated"]["containerID"] == ended["containerID"]


def test_a_container_with_a_policy_of_its_own(stage: Stage) -> None:
    """A rule about its exit code comes first, then its own policy, then the pod's."""
    name = stage.unique("rules")
    script = "if [ -e /v/second ]; then exit 0; fi; touch /v/second; exit 42"
    ruled = container(
        script,
        restartPolicy="Never",
        restartPolicyRules=RESTART_ON_42,
        volumeMounts=[{"name": "v", "mountPath": "/v"}],
    )
    created = pod(name, ruled, container("exit 7", "other"), restart="Never", volumes=[{"name": "v", "emptyDir": {}}])
    stage.create_pod(created)
    seen = stage.wait_phase(name, "Failed", within_seconds=60)
    main, other = container_status(seen), container_status(seen, "other")
    assert (main["restartCount"], main["state"]["terminated"]["exitCode"]) == (1, 0)
    assert (other["restartCount"], other["state"]["terminated"]["exitCode"]) == (0, 7)


def test_a_rule_can_restart_the_whole_pod_in_place(stage: Stage) -> None:
    """Init containers run again, volumes and sandbox stay."""
    name = stage.unique("all")
    mounts = [{"name": "v", "mountPath": "/v"}]
    script = f"if [ -e /v/second ]; then {SLEEP}; fi; touch /v/second; exit 42"
    created = stage.create_pod(
        pod(
            name,
            container(script, restartPolicy="Never", restartPolicyRules=RESTART_ALL_ON_42, volumeMounts=mounts),
            container(name="other"),
            restart="Never",
            initContainers=[container("echo run >> /v/runs", "setup", volumeMounts=mounts)],
            volumes=[{"name": "v", "emptyDir": {}}],
        )
    )
    uid = created["metadata"]["uid"]

    def restarted() -> dict[str, Any]:
        seen = stage.pod(name)
        assert container_status(seen)["restartCount"] == 1
        assert container_status(seen, "other")["restartCount"] == 1
        assert condition(seen, "Ready") == "True", seen["status"]
        return seen

    seen = holds(restarted, within_seconds=60)
    assert container_status(seen, "setup")["restartCount"] == 1
    # The Go kubelet forgets the exit code that asked for it: all containers show 137.
    assert container_status(seen)["lastState"]["terminated"]["exitCode"] == (137 if PLAYS_GO else 42)
    assert condition(seen, "AllContainersRestarting") == "False"
    assert stage.cluster.kubectl("exec", name, "-c", "main", "--", "cat", "/v/runs") == "run\nrun\n"
    assert len(stage.sandboxes(uid)) == 1


def change_image(stage: Stage, name: str, image: str) -> None:
    """What `kubectl set image` does."""
    edit_pod(stage.cluster, name, lambda seen: seen["spec"]["containers"][0].update(image=image))


def test_another_image_restarts_the_container_in_place(stage: Stage) -> None:
    name = stage.unique("image")
    uid = stage.create_pod(pod(name))["metadata"]["uid"]
    before = container_status(stage.wait_ready(name))
    change_image(stage, name, f"{BUSYBOX}-none")
    stage.wait_event(name, "Killing", "definition changed, will be restarted")
    eventually(
        "a container that waits for its image",
        lambda: "waiting" in container_status(stage.pod(name))["state"],
        within_seconds=30,
    )
    change_image(stage, name, BUSYBOX)
    after = container_status(stage.wait_ready(name, within_seconds=60))
    assert after["containerID"] != before["containerID"]
    assert after["restartCount"] == 1
    assert len(stage.sandboxes(uid)) == 1


def test_a_shorter_grace_period_counts_at_once(stage: Stage) -> None:
    """A pod that is being stopped with a long time is stopped with a short one."""
    name = stage.unique("grace")
    stubborn = container('trap "" TERM; while true; do sleep 0.2; done')
    stage.create_pod(pod(name, stubborn, terminationGracePeriodSeconds=300))
    stage.wait_ready(name)
    stage.delete_pod(name)
    stage.wait_event(name, "Killing")
    began = time.monotonic()
    stage.delete_pod(name, grace_seconds=2)
    # The Go kubelet was still waiting after half a minute.
    stage.wait_gone(name, within_seconds=330 if PLAYS_GO else 30)
    assert PLAYS_GO or time.monotonic() - began < 20


def test_a_container_that_vanished_is_reported_and_replaced(stage: Stage) -> None:
    """Somebody removes it behind the node's back while no agent looks."""
    name = stage.unique("lost")
    stage.create_pod(pod(name))
    before = container_status(stage.wait_ready(name))
    bare = before["containerID"].rpartition("://")[2]
    stage.kubelet.stop()
    stage.cri.StopContainer(cri.StopContainerRequest(container_id=bare, timeout=1), timeout=30)
    stage.cri.RemoveContainer(cri.RemoveContainerRequest(container_id=bare), timeout=30)
    stage.start_kubelet()

    def replaced() -> dict[str, Any]:
        seen = container_status(stage.pod(name))
        assert seen["containerID"] != before["containerID"]
        assert "running" in seen["state"], seen
        return seen

    after = holds(replaced, within_seconds=60)
    assert after["restartCount"] == 1
    lost = after["lastState"]["terminated"]
    assert (lost["reason"], lost["exitCode"]) == ("ContainerStatusUnknown", 137)


def test_sidecars_stop_in_reverse_order_after_the_main_container(stage: Stage) -> None:
    name = stage.unique("order")
    script = 'trap "cat /proc/uptime > /v/$NAME; exit 0" TERM; echo ready; while true; do sleep 0.1; done'
    sidecars = [container(script, f"side-{number}", restartPolicy="Always") for number in (1, 2)]
    mount = {"name": "v", "mountPath": "/v"}
    for each in sidecars:
        each["env"] = [{"name": "NAME", "value": each["name"]}]
        each["volumeMounts"] = [mount]
    main = container(
        'trap "sleep 1; cat /proc/uptime > /v/main; exit 0" TERM; echo ready; while true; do sleep 0.1; done',
        volumeMounts=[mount],
    )
    path = f"/var/lib/{name}"
    volumes = [{"name": "v", "hostPath": {"path": path, "type": "DirectoryOrCreate"}}]
    stage.create_pod(pod(name, main, initContainers=sidecars, volumes=volumes, terminationGracePeriodSeconds=30))
    stage.wait_ready(name)
    for trapped in ("side-1", "side-2", "main"):
        stage.wait_logs(name, "ready", f"container={trapped}")
    stage.delete_pod(name, grace_seconds=30)
    stage.wait_gone(name, within_seconds=60)
    ends = {file.name: float(file.read_text().split()[0]) for file in stage.inside(path).iterdir()}
    assert ends["main"] < ends["side-2"] < ends["side-1"], ends
