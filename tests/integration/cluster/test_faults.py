"""Parts that go away and come back: the agent, dockershim, the engine, the API server. Pods outlive them all."""

from __future__ import annotations

import contextlib
import os
import signal
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from cri_proto import runtime_v1 as cri
from tests.integration.cluster.objects import SLEEP, container, mortal_pod, pod
from tests.integration.cluster.stage import NODE, PLAYS_GO, PODS, Stage, condition, container_status
from tests.integration.cluster.waiting import eventually, holds
from tests.lab import gokubelet
from tests.lab.engines.containerd import write_cni_configuration

pytestmark = pytest.mark.lab


def runs_of(seen: Mapping[str, Any]) -> list[tuple[str, str, int]]:
    """Which run of each container this is: id, start and restart count."""
    return [
        (status["containerID"], status["state"]["running"]["startedAt"], status["restartCount"])
        for status in seen["status"]["containerStatuses"]
    ]


def wait_node_ready(stage: Stage, within_seconds: float = 60) -> None:
    """Until pods may be scheduled here."""
    eventually("a Ready node", lambda: gokubelet.node_is_ready(stage.cluster, NODE), within_seconds=within_seconds)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL], ids=["SIGTERM", "SIGKILL"])
def test_a_restart_of_the_agent_restarts_no_container(stage: Stage, number: int) -> None:
    """Running and finished pods stay as they are. What was deleted meanwhile goes, what was created starts, what ended
    is reported, and a container that crashed is restarted with the next count.
    """
    kept, deleted, created = (stage.unique(stem) for stem in ("kept", "deleted", "created"))
    done, ended, crashed = (stage.unique(stem) for stem in ("done", "ended", "crashed"))
    stage.create_pod(pod(kept, container(), container(SLEEP, "second")))
    stage.create_pod(pod(deleted))
    stage.create_pod(pod(done, container("echo well done"), restart="Never"))
    stage.create_pod(mortal_pod(ended, 3, restart="Never"))
    stage.create_pod(mortal_pod(crashed, 3))
    before = {name: stage.wait_ready(name) for name in (kept, deleted, ended, crashed)}
    finished = stage.wait_phase(done, "Succeeded")
    stage.kubelet.send_signal(number)
    code = stage.kubelet.wait(20)
    assert code == (0 if number == signal.SIGTERM else -signal.SIGKILL)
    for name in (ended, crashed):
        stage.tell_to_end(before[name]["metadata"]["uid"])
    stage.delete_pod(deleted, grace_seconds=1)
    stage.create_pod(pod(created) | {"spec": {**pod(created)["spec"], "nodeName": NODE}})
    runs = [runs_of(before[name])[0][0] for name in (ended, crashed)]
    eventually(
        "the end of both runs", lambda: all(stage.container_status(run).state == 2 for run in runs), within_seconds=15
    )
    stage.start_kubelet()
    stage.wait_ready(created)
    stage.wait_gone(deleted)
    assert container_status(stage.wait_phase(ended, "Failed"))["state"]["terminated"]["exitCode"] == 3

    def restarted() -> None:
        main = container_status(stage.pod(crashed))
        assert main["restartCount"] == 1, main
        assert main["state"].get("running"), main
        assert main["lastState"]["terminated"]["exitCode"] == 3

    holds(restarted, within_seconds=30)
    assert runs_of(stage.wait_ready(kept)) == runs_of(before[kept])
    again = stage.pod(done)["status"]
    if not PLAYS_GO:  # it forgets addresses and resources of a pod that it finds finished
        assert again == finished["status"]
    assert again["phase"] == "Succeeded"
    assert stage.logs(done) == "well done\n"
    uid = before[kept]["metadata"]["uid"]
    assert len(stage.containers(uid)) == 2
    assert len(stage.sandboxes(uid)) == 1


def test_the_end_of_dockershim_touches_no_pod(stage: Stage) -> None:
    """A killed dockershim comes back with all pods as they were, and new ones can start."""
    if stage.shim is None:
        pytest.skip("containerd needs no dockershim")
    name, later = stage.unique("survivor"), stage.unique("later")
    stage.create_pod(pod(name))
    before = runs_of(stage.wait_ready(name))
    stage.shim.process.kill()
    stage.shim.process.wait(10)
    stage.create_pod(pod(later))
    stage.start_shim()
    stage.wait_ready(later, within_seconds=60)
    assert runs_of(stage.wait_ready(name)) == before


def test_the_engine_restarts_under_running_pods(stage: Stage) -> None:
    """While the engine is away the node says so; back again, the node is Ready and pods come and go as before."""
    name, later = stage.unique("under"), stage.unique("after")
    stage.create_pod(pod(name))
    before = runs_of(stage.wait_ready(name))
    with stage.new_log_lines() as log:
        stage.engine_process().kill()
        stage.engine_process().wait(10)

        def not_ready() -> None:
            assert condition(stage.node(), "Ready") == "False", stage.node()["status"]["conditions"]

        holds(not_ready, within_seconds=60)
        stage.create_pod(pod(later))
        stage.start_engine()
        wait_node_ready(stage)
        stage.wait_ready(later, within_seconds=60)
        seen = stage.wait_ready(name, within_seconds=60)
        if stage.runtime == "containerd":
            assert runs_of(seen) == before, "its shims keep the containers"
        if not PLAYS_GO:
            assert len(log.lines("runtime_not_ready")) <= 3
            assert log.lines("runtime_ready")
    for each in (name, later):
        stage.delete_pod(each)
        stage.wait_gone(each)


def test_a_node_that_rebooted_runs_its_pods_again(stage: Stage) -> None:
    """After the loss of everything that ran, pods come back with new sandboxes and one restart counted, init containers
    run again, a pod that may not restart has failed, and a finished one stays finished.
    """
    always, never, done = (stage.unique(stem) for stem in ("always", "never", "done"))
    setup = container("echo set up", "setup")
    stage.create_pod(pod(always, container(f"echo up; {SLEEP}"), initContainers=[setup]))
    stage.create_pod(pod(never, restart="Never"))
    stage.create_pod(pod(done, container("echo well done"), restart="Never"))
    before = stage.wait_ready(always)
    stage.wait_ready(never)
    stage.wait_phase(done, "Succeeded")
    stage.kubelet.kill()
    stage.kubelet.wait(10)
    if stage.shim is not None:
        stage.shim.process.kill()
        stage.shim.process.wait(10)
    stage.engine_process().kill()
    stage.engine_process().wait(10)
    stage.kill_containers()
    stage.start_engine()
    if stage.shim is not None:
        stage.start_shim()
    stage.start_kubelet()

    def again() -> None:
        seen = stage.pod(always)
        main = container_status(seen)
        assert main["restartCount"] == 1, main
        assert condition(seen, "Ready") == "True", seen["status"]
        assert seen["metadata"]["uid"] == before["metadata"]["uid"]

    holds(again, within_seconds=60)
    assert stage.logs(always) == "up\n"
    assert container_status(stage.wait_phase(never, "Failed"))["restartCount"] == 0
    assert stage.pod(done)["status"]["phase"] == "Succeeded"
    assert stage.logs(done) == "well done\n"
    for name in (always, never, done):
        stage.delete_pod(name)
        stage.wait_gone(name)


def test_pods_live_on_while_the_api_server_is_away(stage: Stage) -> None:
    """A container that dies meanwhile is restarted, and its status is there once the API server is back."""
    name, dying = stage.unique("alone"), stage.unique("dying")
    stage.create_pod(pod(name))
    uid = stage.create_pod(mortal_pod(dying, 1))["metadata"]["uid"]
    before = runs_of(stage.wait_ready(name))
    stage.wait_ready(dying)
    stage.cluster.processes["kube-apiserver"].kill()
    stage.cluster.processes["kube-apiserver"].wait(10)
    stage.tell_to_end(uid)

    def second_run() -> None:
        assert {c.metadata.attempt for c in stage.containers(uid) if c.state == 1} == {1}

    holds(second_run, within_seconds=40)
    stage.start_api_server()

    def caught_up() -> None:
        main = container_status(stage.pod(dying))
        assert (main["restartCount"], "running" in main["state"]) == (1, True), main

    holds(caught_up, within_seconds=30)
    assert runs_of(stage.wait_ready(name)) == before
    later = stage.unique("back")
    stage.create_pod(pod(later, nodeName=NODE))  # the scheduler looks again after up to half a minute
    stage.wait_ready(later, within_seconds=60)


@pytest.mark.skipif(PLAYS_GO, reason="the log lines are ours")
def test_an_agent_that_starts_without_its_api_server_waits_and_says_so_once(stage: Stage) -> None:
    """A line tells that the API server does not answer; running pods are not touched; then it catches up."""
    name = stage.unique("early")
    stage.create_pod(pod(name))
    before = runs_of(stage.wait_ready(name))
    stage.kubelet.terminate()
    stage.kubelet.wait(20)
    stage.cluster.processes["kube-apiserver"].kill()
    stage.cluster.processes["kube-apiserver"].wait(10)
    with stage.new_log_lines() as log:
        stage.start_kubelet(wait=False)
        log.wait("api_server", within_seconds=30)
        uid = before[0][0]
        stage.start_api_server()
        wait_node_ready(stage)
        later = stage.unique("late")
        stage.create_pod(pod(later, nodeName=NODE))
        stage.wait_ready(later)
        assert len([line for line in log.lines("api_server") if "WARNING" in line or "ERROR" in line]) <= 2
    assert stage.container_status(uid).state == 1
    assert runs_of(stage.wait_ready(name)) == before


@pytest.mark.skipif(PLAYS_GO, reason="the log lines are ours")
def test_an_agent_that_starts_without_its_runtime_waits_and_says_so_once(stage: Stage) -> None:
    """One line tells that the runtime does not answer; the node is NotReady with that reason; then it catches up."""
    stage.kubelet.terminate()
    stage.kubelet.wait(20)
    stage.engine_process().kill()
    stage.engine_process().wait(10)
    if stage.shim is not None:
        stage.shim.process.kill()
        stage.shim.process.wait(10)
    name = stage.unique("waiting")
    stage.create_pod(pod(name) | {"spec": {**pod(name)["spec"], "nodeName": NODE}})
    with stage.new_log_lines() as log:
        process = stage.start_kubelet(wait=False)
        log.wait("runtime_not_ready")

        def not_ready() -> None:
            (ready,) = (c for c in stage.node()["status"]["conditions"] if c["type"] == "Ready")
            assert ready["status"] == "False", ready
            assert "runtime" in ready["message"], ready

        holds(not_ready, within_seconds=60)
        assert process.poll() is None
        stage.start_engine()
        stage.start_shim()
        wait_node_ready(stage)
        stage.wait_ready(name, within_seconds=60)
        assert len(log.lines("runtime_not_ready")) <= 3
        assert log.lines("runtime_list_failed") == log.lines("container_gc_failed") == []


def test_nothing_is_left_when_everything_is_deleted(stage: Stage) -> None:
    """After thirty pods came and went there is no container, sandbox, cgroup, mount or directory of theirs, and the
    agent has no more descriptors than before.
    """
    stage.cluster.request("DELETE", f"{PODS}?gracePeriodSeconds=1")
    stage.wait_alone()
    cycle(stage, [stage.unique("warm") for _ in range(10)])
    wait_empty(stage)
    before = descriptors(stage)
    for _ in range(3):
        cycle(stage, [stage.unique("cycle") for _ in range(10)])
    wait_empty(stage)

    more = descriptors(stage) - before
    # Connections to the API server are kept for half a minute, up to as many as pods came at once.
    assert more.pop("socket:", 0) <= 12, "a socket for each pod would be thirty"
    assert more.total() <= 2, more


def cycle(stage: Stage, names: list[str]) -> None:
    """These pods, until they are Ready and gone."""
    for name in names:
        volumes = [{"name": "memory", "emptyDir": {"medium": "Memory"}}, {"name": "disk", "emptyDir": {}}]
        mounts = [{"name": each["name"], "mountPath": f"/{each['name']}"} for each in volumes]
        stage.create_pod(pod(name, container(volumeMounts=mounts), volumes=volumes))
    for name in names:
        stage.wait_ready(name, within_seconds=90)
    for name in names:
        stage.delete_pod(name)
    for name in names:
        stage.wait_gone(name, within_seconds=60)


def descriptors(stage: Stage) -> Counter[str]:
    """How much the agent has open, by kind or path."""
    found: Counter[str] = Counter()
    for link in Path(f"/proc/{stage.kubelet.pid}/fd").iterdir():
        with contextlib.suppress(FileNotFoundError):
            found[os.readlink(link).partition("[")[0]] += 1
    return found


def wait_empty(stage: Stage) -> None:
    """Until nothing of any pod is left on the node."""

    def empty() -> None:
        assert stage.containers() == []
        assert stage.sandboxes() == []
        for directory in ("/var/lib/kubelet/pods", "/var/log/pods", "/var/log/containers"):
            assert list(stage.inside(directory).iterdir()) == [], directory
        mounts = [line.split()[1] for line in stage.inside("/proc/1/mounts").read_text().splitlines()]
        assert [mount for mount in mounts if "/var/lib/kubelet/pods" in mount] == []
        cgroups = [path for path in stage.inside("/sys/fs/cgroup").glob("*/kubepods/**/pod*") if path.is_dir()]
        assert cgroups == []

    holds(empty, within_seconds=40)


def test_a_pod_has_not_gone_before_its_address_is_free(stage: Stage) -> None:
    """A network plugin that fails leaves a sandbox that is not ready any more, and yet has its address.

    Not so on Docker: dockershim takes a network down with the plugins that set it up.
    """
    name = stage.unique("unplugged")
    uid = stage.create_pod(pod(name))["metadata"]["uid"]
    stage.wait_ready(name)

    def failed_again() -> None:
        assert stage.wait_event(name, "FailedKillPod", "no-such-plugin")["count"] >= 2, "nothing lived at this try"

    write_cni_configuration(stage.lab, {"type": "no-such-plugin"})
    try:
        stage.delete_pod(name)
        if stage.runtime == "containerd":
            holds(failed_again, within_seconds=30)
            assert [sandbox.state for sandbox in stage.sandboxes(uid)] == [cri.SANDBOX_NOTREADY]
            assert stage.find_pod(name) is not None
        else:
            stage.wait_gone(name)
    finally:
        write_cni_configuration(stage.lab)
    stage.wait_gone(name)
