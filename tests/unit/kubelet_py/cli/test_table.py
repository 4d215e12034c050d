"""Pods read as kubectl shows them."""

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from kubelet_py.cli.table import age, pod_description, pod_status, pod_table

NOW = datetime(2026, 1, 1, 12, 0, tzinfo=UTC)


def pod(name: str = "hello-node", **status: Any) -> dict[str, Any]:
    """A pod with one container."""
    return {
        "metadata": {"name": name, "namespace": "default", "uid": "u1", "labels": {"b": "2", "a": "1"}},
        "spec": {"nodeName": "node", "containers": [{"name": "hello", "image": "img:1"}]},
        "status": {"phase": "Running", "startTime": "2026-01-01T11:59:30Z", **status},
    }


def entry(state: dict[str, Any], **more: Any) -> dict[str, Any]:
    """A container status."""
    return {"name": "hello", "ready": "running" in state, "restartCount": 0, "state": state, **more}


def test_the_table_is_aligned_and_sorted() -> None:
    """One line for each pod."""
    running = pod("b", podIP="10.0.0.2", containerStatuses=[entry({"running": {}})])
    waiting = pod("a", phase="Pending", containerStatuses=[entry({"waiting": {"reason": "ImagePullBackOff"}})])
    assert pod_table([running, waiting], NOW).splitlines() == [
        "NAMESPACE   NAME   READY   STATUS             RESTARTS   IP         AGE",
        "default     a      0/1     ImagePullBackOff   0          <none>     30s",
        "default     b      1/1     Running            0          10.0.0.2   30s",
    ]


def test_no_pods_are_said_in_words() -> None:
    """Not an empty table."""
    assert pod_table([], NOW) == "No pods."


@pytest.mark.parametrize(
    ("status", "word"),
    [
        ({"phase": "Pending"}, "Pending"),
        ({"phase": "Failed", "reason": "Evicted"}, "Evicted"),
        ({"containerStatuses": [entry({"waiting": {"reason": "CrashLoopBackOff"}})]}, "CrashLoopBackOff"),
        ({"containerStatuses": [entry({"terminated": {"reason": "Completed", "exitCode": 0}})]}, "Completed"),
        ({"containerStatuses": [entry({"terminated": {"exitCode": 3}})]}, "ExitCode:3"),
        ({"initContainerStatuses": [entry({"running": {}})]}, "Init:0/1"),
        ({"initContainerStatuses": [entry({"waiting": {"reason": "ErrImagePull"}})]}, "Init:ErrImagePull"),
        ({"initContainerStatuses": [entry({"terminated": {"exitCode": 0}})]}, "Running"),
    ],
)
def test_the_status_says_what_is_wrong(status: dict[str, Any], word: str) -> None:
    """The phase, or the reason of a container."""
    assert pod_status(pod(**status)) == word


def test_a_pod_that_is_being_deleted_is_terminating() -> None:
    """Whatever its containers do."""
    leaving = pod()
    leaving["metadata"]["deletionTimestamp"] = "2026-01-01T12:00:00Z"
    assert pod_status(leaving) == "Terminating"


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0, "0s"), (119, "119s"), (120, "2m"), (150, "2m30s"), (3600, "60m"), (4 * 3600, "4h"), (72 * 3600, "3d")],
)
def test_ages_are_short(seconds: int, text: str) -> None:
    """As kubectl writes them."""
    assert age(NOW - timedelta(seconds=seconds), NOW) == text


def test_an_unknown_start_has_an_unknown_age() -> None:
    """Before the agent has acknowledged the pod."""
    assert age(None, NOW) == "<unknown>"


def test_a_description_names_containers_and_why_a_condition_does_not_hold() -> None:
    """What a person asks next."""
    text = pod_description(
        pod(
            conditions=[{"type": "Ready", "status": "False", "reason": "ContainersNotReady"}],
            containerStatuses=[
                entry(
                    {"waiting": {"reason": "CrashLoopBackOff"}},
                    lastState={"terminated": {"exitCode": 2, "reason": "Error"}},
                    containerID="docker://abc",
                )
            ],
        ),
        NOW,
    )
    assert "Labels:     a=1,b=2" in text
    assert "    State:     waiting (reason=CrashLoopBackOff)" in text
    assert "    Last end:  exit code 2 (Error)" in text
    assert "  Ready: False  (ContainersNotReady)" in text


def test_a_pods_words_do_not_reach_the_terminal_as_commands() -> None:
    """Termination messages and reasons are the container's own text."""
    sly = pod(
        containerStatuses=[entry({"terminated": {"reason": "\x1b[2J", "message": "\x1b]0;root\x07", "exitCode": 1}})]
    )
    assert "\x1b" not in pod_table([sly], NOW)
    shown = pod_description(sly, NOW)
    assert "message=\\x1b]0;root\\x07" in shown
    assert "\x1b" not in shown
