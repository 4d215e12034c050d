"""Restart rules, container policy and pod policy."""

import pytest

from kubelet_py.api import core_v1
from kubelet_py.api.pod import containers_of
from kubelet_py.core.restart_rules import (
    could_restart_all,
    is_init_failed,
    matching_rule,
    restarts_after_exit,
    restarts_after_kill,
    restarts_all,
    should_be_restarted,
)
from tests.sim.pods import (
    CREATED,
    EXITED,
    RUNNING,
    UNKNOWN,
    make_container,
    make_observed,
    make_pod,
    make_run,
    restart_rule,
)

DELETED = {"deletionTimestamp": "2024-01-01T00:00:00Z"}


def first(pod: core_v1.Pod) -> core_v1.Container:
    return containers_of(pod)[0]


@pytest.mark.parametrize(
    ("pod_policy", "container_policy", "exit_code", "restarts"),
    [
        ("Always", None, 0, True),
        ("Always", None, 1, True),
        ("OnFailure", None, 0, False),
        ("OnFailure", None, 1, True),
        ("Never", None, 1, False),
        (None, None, 0, True),
        ("Never", "Always", 0, True),
        ("Never", "OnFailure", 3, True),
        ("Always", "OnFailure", 0, False),
        ("Always", "Never", 1, False),
    ],
)
def test_the_container_policy_comes_before_the_pod_policy(
    pod_policy: str | None, container_policy: str | None, exit_code: int, restarts: bool
) -> None:
    """A policy of the container replaces that of the pod."""
    pod = make_pod(make_container("app", restartPolicy=container_policy), restartPolicy=pod_policy)
    assert restarts_after_exit(pod, first(pod), exit_code) is restarts


def test_rules_come_before_both_policies() -> None:
    """The first rule that matches decides; no match falls back to the policy."""
    rules = [restart_rule("Restart", "In", 42, 43), restart_rule("Restart", "NotIn", 0, 7, 42, 43)]
    pod = make_pod(make_container("app", restartPolicy="Never", restartPolicyRules=rules))
    assert {code: restarts_after_exit(pod, first(pod), code) for code in (42, 5, 7, 0)} == {
        42: True,
        5: True,
        7: False,
        0: False,
    }


def test_rules_without_a_container_policy_do_not_count() -> None:
    """The API demands the policy beside the rules; without it the pod's policy holds."""
    rules = [restart_rule("Restart", "In", 1)]
    pod = make_pod(make_container("app", restartPolicyRules=rules), restartPolicy="Never")
    assert not restarts_after_exit(pod, first(pod), 1)


def test_rules_that_say_nothing_are_passed_over() -> None:
    """No exit codes, or an operator of a newer API."""
    container = make_container("app", restartPolicyRules=[{"action": "Restart"}, restart_rule("Restart", "Between", 1)])
    assert matching_rule(first(make_pod(container)), 1) is None


def test_a_probe_asks_only_the_policies() -> None:
    """There is no exit code yet that a rule could read."""
    rules = [restart_rule("Restart", "NotIn", 0)]
    pod = make_pod(make_container("app", restartPolicy="Never", restartPolicyRules=rules))
    assert not restarts_after_kill(pod, first(pod))
    assert restarts_after_kill(make_pod("app"), first(make_pod("app")))
    assert not restarts_after_kill(make_pod("app", restartPolicy="Never"), first(make_pod("app")))


def test_what_should_be_started() -> None:
    """New, created: yes; running: no; ended or lost: by policy; in a pod that is being deleted: never."""
    pod = make_pod("app", restartPolicy="Never")
    app = first(pod)
    assert should_be_restarted(pod, app, None)
    assert should_be_restarted(pod, app, make_run("app", CREATED))
    assert not should_be_restarted(pod, app, make_run("app", UNKNOWN))
    assert should_be_restarted(make_pod("app"), app, make_run("app", UNKNOWN))
    assert not should_be_restarted(pod, app, make_run("app", RUNNING))
    assert not should_be_restarted(pod, app, make_run("app", EXITED, exit_code=1))
    assert not should_be_restarted(make_pod("app", metadata=DELETED), app, None)


@pytest.mark.parametrize(
    ("state", "exit_code", "reason", "failed"),
    [
        (EXITED, 0, "Completed", False),
        (EXITED, 1, "Error", True),
        (EXITED, 0, "OOMKilled", True),
        (UNKNOWN, 0, "", True),
        (RUNNING, 0, "", False),
    ],
)
def test_an_init_container_succeeds_only_by_a_clean_exit(
    state: object, exit_code: int, reason: str, failed: bool
) -> None:
    """Killed for memory is failed whatever the exit code says."""
    run = make_run("setup", state, exit_code=exit_code, reason=reason)  # type: ignore[arg-type] # parametrize is untyped
    assert is_init_failed(run) is failed


def test_one_exit_can_restart_the_whole_pod() -> None:
    """Only the newest run counts, only when it ended, only while nobody deletes the pod."""
    rules = [restart_rule("RestartAllContainers", "In", 42)]
    container = make_container("app", restartPolicy="Never", restartPolicyRules=rules)
    pod = make_pod(container, "other")
    ended = make_run("app", EXITED, exit_code=42)
    assert could_restart_all(pod)
    assert not could_restart_all(make_pod("app"))
    assert restarts_all(pod, make_observed(ended))
    assert not restarts_all(pod, make_observed(ended, make_run("app", RUNNING, 1)))
    assert not restarts_all(pod, make_observed(make_run("app", EXITED, exit_code=1)))
    assert not restarts_all(pod, make_observed())
    assert not restarts_all(make_pod(container, metadata=DELETED), make_observed(ended))


def test_a_plain_restart_rule_restarts_only_its_container() -> None:
    """The action makes the difference."""
    rules = [restart_rule("Restart", "In", 42)]
    pod = make_pod(make_container("app", restartPolicy="Never", restartPolicyRules=rules))
    assert not could_restart_all(pod)
    assert not restarts_all(pod, make_observed(make_run("app", EXITED, exit_code=42)))
