"""Probes and hooks of containers, as a cluster shows them."""

from __future__ import annotations

import time
from datetime import datetime
from typing import Any

import pytest

from tests.integration.cluster.objects import SLEEP, container, pod
from tests.integration.cluster.stage import Stage, condition, container_status
from tests.integration.cluster.waiting import eventually, holds

pytestmark = pytest.mark.lab

FLAG_IS_SET = {"exec": {"command": ["test", "-e", "/v/end"]}, "periodSeconds": 1}
FLAG_IS_UNSET = {"exec": {"command": ["test", "!", "-e", "/v/end"]}, "periodSeconds": 1}
SERVER = f"mkdir -p /www; echo fine > /www/index.html; httpd -p 8080 -h /www; {SLEEP}"


def flag_pod(name: str, script: str = SLEEP, grace_seconds: int = 1, **fields: Any) -> dict[str, Any]:
    """A pod whose container sees the file /v/end once Stage.tell_to_end was called."""
    main = container(script, volumeMounts=[{"name": "v", "mountPath": "/v"}], **fields)
    return pod(name, main, volumes=[{"name": "v", "emptyDir": {}}], terminationGracePeriodSeconds=grace_seconds)


def unset(stage: Stage, uid: str) -> None:
    """Takes back what tell_to_end did."""
    stage.inside(f"/var/lib/kubelet/pods/{uid}/volumes/kubernetes.io~empty-dir/v/end").unlink()


def wait_running(stage: Stage, name: str) -> dict[str, Any]:
    """The pod, once its container runs."""

    def reached() -> dict[str, Any]:
        found = stage.pod(name)
        assert "running" in container_status(found)["state"], found["status"]
        return found

    return holds(reached, within_seconds=30)


def wait_restarted(stage: Stage, name: str) -> None:
    """Until the container has been restarted at least once."""

    def restarted() -> bool:
        return int(container_status(stage.pod(name))["restartCount"]) > 0

    eventually("a restart", restarted, within_seconds=30)


def test_readiness_comes_and_goes_with_its_probe(stage: Stage) -> None:
    """A pod is Ready exactly while the readiness probe of its container succeeds; each failure is an event."""
    name = stage.unique("readiness")
    uid = stage.create_pod(flag_pod(name, readinessProbe={**FLAG_IS_SET, "failureThreshold": 1}))["metadata"]["uid"]
    running = wait_running(stage, name)
    assert condition(running, "Ready") == "False"
    assert (container_status(running)["started"], container_status(running)["ready"]) == (True, False)
    stage.wait_event(name, "Unhealthy", "Readiness probe failed: ")
    stage.tell_to_end(uid)
    stage.wait_ready(name)
    unset(stage, uid)
    eventually("not Ready", lambda: condition(stage.pod(name), "Ready") == "False", within_seconds=30)
    assert container_status(stage.pod(name))["restartCount"] == 0


def test_liveness_restarts_a_container(stage: Stage) -> None:
    """After the threshold the container is killed, says so in two events, and starts again."""
    name = stage.unique("liveness")
    probe = {**FLAG_IS_UNSET, "failureThreshold": 2}
    uid = stage.create_pod(flag_pod(name, f"rm -f /v/end; {SLEEP}", livenessProbe=probe))["metadata"]["uid"]
    stage.wait_ready(name)
    stage.tell_to_end(uid)
    stage.wait_event(name, "Unhealthy", "Liveness probe failed: ")
    stage.wait_event(name, "Killing", "Container main failed liveness probe, will be restarted")
    wait_restarted(stage, name)
    stage.wait_ready(name)


def test_a_startup_probe_holds_the_others_back(stage: Stage) -> None:
    """While a container has not started, a liveness probe that would fail is not asked; then it is, at once."""
    name = stage.unique("startup")
    startup = {**FLAG_IS_SET, "failureThreshold": 60}
    liveness = {"exec": {"command": ["false"]}, "periodSeconds": 1, "failureThreshold": 1}
    uid = stage.create_pod(flag_pod(name, startupProbe=startup, livenessProbe=liveness))["metadata"]["uid"]
    wait_running(stage, name)
    eventually(
        "four periods in which nothing may happen",
        lambda: stage.wait_event(name, "Unhealthy", "Startup probe failed: ")["count"] >= 4,
        within_seconds=30,
    )
    status = container_status(stage.pod(name))
    assert (status["started"], status["ready"], status["restartCount"]) == (False, False, 0)
    stage.tell_to_end(uid)
    stage.wait_event(name, "Killing", "Container main failed liveness probe, will be restarted")
    wait_restarted(stage, name)


def test_an_exec_probe_that_takes_too_long_fails(stage: Stage) -> None:
    """The timeout of an exec probe is a failure with the command in its event."""
    name = stage.unique("exec-timeout")
    probe = {"exec": {"command": ["sleep", "30"]}, "periodSeconds": 1, "timeoutSeconds": 1}
    stage.create_pod(pod(name, container(readinessProbe=probe)))
    stage.wait_event(name, "Unhealthy", 'command timed out: "sleep 30" timed out after 1s')
    assert condition(stage.pod(name), "Ready") == "False"


def test_http_and_tcp_probes_reach_the_pod(stage: Stage) -> None:
    """Two containers, one that answers HTTP and TCP by the name of its port, one whose port nobody listens at."""
    name = stage.unique("network")
    answers = container(
        SERVER,
        ports=[{"name": "web", "containerPort": 8080}],
        readinessProbe={"httpGet": {"path": "/index.html", "port": "web"}, "periodSeconds": 1},
        livenessProbe={"tcpSocket": {"port": "web"}, "periodSeconds": 1},
        startupProbe={"tcpSocket": {"port": "web"}, "periodSeconds": 1, "failureThreshold": 60},
    )
    missing = container(name="missing", readinessProbe={"httpGet": {"path": "/gone", "port": 8080}, "periodSeconds": 1})
    closed = container(name="closed", readinessProbe={"tcpSocket": {"port": 81}, "periodSeconds": 1})
    stage.create_pod(pod(name, answers, missing, closed))
    eventually("ready", lambda: container_status(stage.pod(name))["ready"], within_seconds=60)
    stage.wait_event(name, "Unhealthy", "Readiness probe failed: HTTP probe failed with statuscode: 404")
    stage.wait_event(name, "Unhealthy", ":81: connect: connection refused")
    assert container_status(stage.pod(name))["restartCount"] == 0


def test_a_ready_container_stays_ready_when_the_agent_restarts(stage: Stage) -> None:
    """The Ready condition does not move while a new agent has yet to probe a container that it finds ready."""
    name = stage.unique("restart")
    probe = {"exec": {"command": ["true"]}, "periodSeconds": 5}
    startup = {"exec": {"command": ["true"]}, "periodSeconds": 1}
    stage.create_pod(pod(name, container(readinessProbe=probe, startupProbe=startup)))
    before = stage.wait_ready(name)
    started = datetime.fromisoformat(container_status(before)["state"]["running"]["startedAt"]).timestamp()
    eventually("an old container", lambda: time.time() > started + 12, within_seconds=15)
    stage.kubelet.stop()
    stage.start_kubelet()

    def is_steady() -> bool:
        after = stage.pod(name)
        assert ready_condition(after) == ready_condition(before), after["status"]
        return time.time() > started + 20

    eventually("some probes later", is_steady, within_seconds=30)


def ready_condition(found: dict[str, Any]) -> dict[str, Any]:
    """The Ready condition of a pod, whole."""
    conditions: list[dict[str, Any]] = found["status"]["conditions"]
    return next(entry for entry in conditions if entry["type"] == "Ready")


def test_hooks_run_after_the_start_and_before_the_stop(stage: Stage) -> None:
    """postStart is through before the container counts as running; preStop ends a container that ignores SIGTERM."""
    name = stage.unique("hooks")
    waits = "until [ -e /v/hello ]; do sleep 0.1; done; echo greeted; until [ -e /v/end ]; do sleep 0.1; done"
    script = f'trap "" TERM; {waits}'
    hooks = {
        "postStart": {"exec": {"command": ["touch", "/v/hello"]}},
        "preStop": {"exec": {"command": ["touch", "/v/end"]}},
    }
    stage.create_pod(flag_pod(name, script, grace_seconds=60, lifecycle=hooks))
    stage.wait_ready(name)
    stage.wait_logs(name, "greeted")
    stage.delete_pod(name)
    stage.wait_gone(name, within_seconds=20)


def test_a_failing_post_start_hook_stops_the_container(stage: Stage) -> None:
    """Its event, its reason in the status, and the container is killed."""
    name = stage.unique("bad-hook")
    hooks = {"postStart": {"exec": {"command": ["sh", "-c", "echo no; exit 3"]}}}
    stage.create_pod(pod(name, container(lifecycle=hooks)))
    stage.wait_event(name, "FailedPostStartHook", "PostStartHook failed")
    waiting = stage.wait_waiting(name, "PostStartHookError")
    assert 'exited with 3: , message: "no\\n"' in waiting["message"]
    stage.wait_event(name, "Killing", "FailedPostStartHook")


def test_a_pod_goes_at_once_whose_post_start_hook_hangs(stage: Stage) -> None:
    """A deletion does not wait for a hook; and a preStop sleep ends with a shorter grace period."""
    name = stage.unique("hanging-hook")
    hooks = {"postStart": {"exec": {"command": ["sleep", "600"]}}, "preStop": {"sleep": {"seconds": 40}}}
    stage.create_pod(flag_pod(name, grace_seconds=60, lifecycle=hooks))
    stage.wait_event(name, "Started", within_seconds=30)
    stage.delete_pod(name)
    stage.wait_event(name, "Killing")
    stage.delete_pod(name, grace_seconds=1)
    stage.wait_gone(name, within_seconds=15)
