"""What a node refuses without a scheduler, and who gives way. KUBELET=go shows the Go kubelet's words."""

from __future__ import annotations

from typing import Any

import pytest
import yaml

from tests.integration.cluster.objects import container, pod
from tests.integration.cluster.stage import NODE, PLAYS_GO, Stage
from tests.integration.cluster.waiting import holds

pytestmark = pytest.mark.lab


def cores(stage: Stage) -> int:
    """What pods may have."""
    return int(stage.node()["status"]["allocatable"]["cpu"])


@pytest.mark.parametrize(
    ("spec", "reason", "message"),
    [
        (
            {"containers": [container(resources={"requests": {"cpu": "500"}})]},
            "OutOfcpu",
            "Pod was rejected: Node didn't have enough resource: cpu, requested: 500000, used: ",
        ),
        (
            {"nodeSelector": {"colour": "blue"}},
            "NodeAffinity",
            "Pod was rejected: Predicate NodeAffinity failed: node(s) didn't match Pod's node affinity/selector",
        ),
        (
            {"securityContext": {"sysctls": [{"name": "kernel.msgmax", "value": "65536"}]}},
            "SysctlForbidden",
            'Pod was rejected: forbidden sysctl: "kernel.msgmax" not allowlisted',
        ),
        (
            {"os": {"name": "windows"}, "containers": [{"name": "main", "image": "none"}]},
            "PodOSNotSupported",
            "Pod was rejected: Failed to admit pod as the OS field doesn't match node OS",
        ),
    ],
    ids=["cpu", "selector", "sysctl", "os"],
)
def test_what_the_node_refuses_has_failed(stage: Stage, spec: dict[str, Any], reason: str, message: str) -> None:
    name = stage.unique("refused")
    stage.create_pod(with_spec(name, spec))
    seen = stage.wait_phase(name, "Failed")
    status = seen["status"]
    assert status["reason"] == reason, status
    assert status["message"].startswith(message), status
    stage.wait_event(name, reason, message.removeprefix("Pod was rejected: "))
    assert stage.cluster.kubectl("get", "pod", name, "--no-headers").split()[2] == reason, (
        "and not how a container ended"
    )
    stage.delete_pod(name)
    stage.wait_gone(name)


def with_spec(name: str, spec: dict[str, Any]) -> dict[str, Any]:
    """A pod on our node whose spec is this one."""
    made = pod(name, nodeName=NODE)
    made["spec"].update(spec)
    return made


@pytest.mark.skipif(PLAYS_GO, reason="the log lines are ours")
def test_the_node_is_read_once_more_before_a_pod_is_refused_for_its_labels(stage: Stage) -> None:
    """The pod may come before the label that it was sent here for: the agent hears of both by two watches."""
    name = stage.unique("picky")
    with stage.new_log_lines() as log:
        stage.create_pod(pod(name, nodeName=NODE, nodeSelector={"colour": "blue"}))
        assert stage.wait_phase(name, "Failed")["status"]["reason"] == "NodeAffinity"
        assert log.lines("node_not_read_again") == []


@pytest.mark.skipif(PLAYS_GO, reason="the log lines are ours")
def test_a_static_pod_is_judged_before_the_api_server_is_there(stage: Stage) -> None:
    """The node has no object yet: what it knows of itself decides, and the mirror pod tells later."""
    refused, taken = stage.unique("refused"), stage.unique("taken")
    unsafe = {"sysctls": [{"name": "kernel.msgmax", "value": "65536"}]}
    stage.kubelet.terminate()
    stage.kubelet.wait(20)
    stage.cluster.processes["kube-apiserver"].kill()
    stage.cluster.processes["kube-apiserver"].wait(10)
    stage.write_manifest(f"{refused}.yaml", yaml.safe_dump(pod(refused, securityContext=unsafe)))
    with stage.new_log_lines() as log:
        stage.start_kubelet(wait=False)
        log.wait("SysctlForbidden", refused, within_seconds=30)
    stage.write_manifest(f"{taken}.yaml", yaml.safe_dump(pod(taken)))

    def runs_alone() -> None:
        here = {c.labels["io.kubernetes.pod.name"] for c in stage.containers() if c.state == 1}
        assert here & {f"{refused}-{NODE}", f"{taken}-{NODE}"} == {f"{taken}-{NODE}"}

    holds(runs_alone, within_seconds=30)
    stage.start_api_server()
    status = stage.wait_phase(f"{refused}-{NODE}", "Failed", within_seconds=60)["status"]
    assert status["reason"] == "SysctlForbidden", status
    stage.wait_ready(f"{taken}-{NODE}")
    stage.remove_manifest(f"{refused}.yaml")
    stage.remove_manifest(f"{taken}.yaml")
    stage.wait_gone(f"{refused}-{NODE}")
    stage.wait_gone(f"{taken}-{NODE}")


def test_a_host_port_is_given_once(stage: Stage) -> None:
    first, second = stage.unique("port"), stage.unique("port")
    ports = [{"containerPort": 80, "hostPort": 31999}]
    stage.create_pod(pod(first, container(ports=ports), nodeName=NODE))
    stage.wait_ready(first)
    stage.create_pod(pod(second, container(ports=ports), nodeName=NODE))
    status = stage.wait_phase(second, "Failed")["status"]
    assert (status["reason"], status["message"]) == (
        "NodePorts",
        "Pod was rejected: Predicate NodePorts failed: node(s) didn't have free ports for the requested pod ports",
    )


def test_a_critical_pod_takes_the_place_of_another(stage: Stage) -> None:
    """As few and as cheap pods as possible give way, with what happened in their status."""
    stage.wait_alone()
    small, big, critical = stage.unique("small"), stage.unique("big"), stage.unique("critical")
    stage.create_pod(pod(small, container(resources={"requests": {"cpu": "100m"}}), nodeName=NODE))
    most = {"requests": {"cpu": f"{cores(stage) * 1000 - 300}m"}}
    stage.create_pod(pod(big, container(resources=most), nodeName=NODE))
    stage.wait_ready(small)
    stage.wait_ready(big)
    wanted = container(resources={"requests": {"cpu": "700m"}})
    stage.create_pod(pod(critical, wanted, nodeName=NODE, priorityClassName="system-node-critical"))

    def preempted() -> dict[str, Any]:
        status: dict[str, Any] = stage.pod(big)["status"]
        # Its container ends with 0, which the Go kubelet takes for a success.
        wanted = ("Succeeded", None) if PLAYS_GO else ("Failed", "Preempting")
        assert (status["phase"], status.get("reason")) == wanted, status
        return status

    status = holds(preempted, within_seconds=30)
    assert PLAYS_GO or status["message"] == "Preempted in order to admit critical pod"
    disruption = next(c for c in status["conditions"] if c["type"] == "DisruptionTarget")
    assert (disruption["status"], disruption["reason"]) == ("True", "TerminationByKubelet")
    assert disruption["message"] == "Pod was preempted by Kubelet to accommodate a critical pod."
    stage.wait_event(big, "Preempting", "Preempted in order to admit critical pod")
    stage.wait_ready(critical)
    stage.wait_ready(small)


def test_a_critical_pod_starts_when_the_other_has_stopped(stage: Stage) -> None:
    """Never do both of them use the node: here the one that gives way takes most of its grace period."""
    stage.wait_alone()
    slow, critical = stage.unique("slow"), stage.unique("critical")
    most = {"requests": {"cpu": f"{cores(stage) * 1000 - 300}m"}}
    stage.create_pod(
        pod(
            slow,
            container(
                command=["sh", "-c", "trap 'sleep 6; exit 0' TERM; echo ready; while true; do sleep 0.1; done"],
                resources=most,
            ),
            nodeName=NODE,
            terminationGracePeriodSeconds=30,
        )
    )
    stage.wait_logs(slow, "ready")
    wanted = container(resources={"requests": {"cpu": "700m"}})
    stage.create_pod(pod(critical, wanted, nodeName=NODE, priorityClassName="system-node-critical"))
    stage.wait_event(slow, "Preempting", "Preempted in order to admit critical pod")
    stage.wait_ready(critical)

    def ended() -> str:
        state = stage.pod(slow)["status"]["containerStatuses"][0]["state"]
        assert "terminated" in state, state
        finished_at: str = state["terminated"]["finishedAt"]
        return finished_at

    finished_at = holds(ended, within_seconds=10)
    started_at: str = stage.pod(critical)["status"]["containerStatuses"][0]["state"]["running"]["startedAt"]
    assert finished_at <= started_at
    assert [event for event in stage.events(slow) if event["reason"] == "ExceededGracePeriod"] == []


def test_the_cgroup_of_all_pods_is_held_to_what_the_node_has(stage: Stage) -> None:
    stage.create_pod(pod(stage.unique("any")))
    capacity = stage.node()["status"]["capacity"]
    memory_kib = int(capacity["memory"].removesuffix("Ki"))

    def limited() -> None:
        find = "cat $(find /sys/fs/cgroup/{} -type d -name kubepods)/{}"
        limit = stage.lab.run(["sh", "-c", find.format("memory", "memory.limit_in_bytes")]).stdout
        assert int(limit) == memory_kib * 1024
        shares = stage.lab.run(["sh", "-c", find.format("cpu", "cpu.shares")]).stdout
        assert int(shares) == cores(stage) * 1024
        pids = stage.lab.run(["sh", "-c", find.format("pids", "pids.max")]).stdout
        assert int(pids) > 1000

    holds(limited, within_seconds=20)
    events = holds(lambda: node_events(stage, "NodeAllocatableEnforced"), within_seconds=20)
    assert events[0]["message"] == "Updated Node Allocatable limit across pods"


def node_events(stage: Stage, reason: str) -> list[dict[str, Any]]:
    """Events of this reason about the node; fails when there are none."""
    path = "/api/v1/namespaces/default/events?fieldSelector=involvedObject.kind=Node"
    code, answer = stage.cluster.request("GET", path)
    assert code == 200, answer
    found = [event for event in answer["items"] if event["reason"] == reason]
    assert found, [event["reason"] for event in answer["items"]]
    return found
