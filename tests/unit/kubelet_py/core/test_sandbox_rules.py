"""When a sandbox must be renewed."""

from kubelet_py.core.sandbox_rules import SandboxVerdict, judge_sandbox
from tests.sim.pods import NOTHING, make_observed, make_pod, make_sandbox

POD = make_pod("app")


def test_a_ready_sandbox_with_an_address_serves() -> None:
    """Nothing to do."""
    sandbox = make_sandbox()
    assert judge_sandbox(POD, make_observed(sandboxes=[sandbox])) == SandboxVerdict(sandbox)


def test_the_first_sandbox_has_attempt_0() -> None:
    """None exists."""
    assert judge_sandbox(POD, NOTHING) == SandboxVerdict(None, 0, "no pod sandbox exists")


def test_two_ready_sandboxes_are_both_given_up() -> None:
    """Nobody knows which of them has the containers' network."""
    two = [make_sandbox("s4", 4), make_sandbox("s3", 3)]
    expected = "multiple pod sandboxes are ready and need to be reconciled"
    assert judge_sandbox(POD, make_observed(sandboxes=two)) == SandboxVerdict(None, 5, expected)


def test_a_dead_newest_sandbox_is_replaced() -> None:
    """Even when an older one is ready."""
    two = [make_sandbox("s1", 1, ready=False), make_sandbox("s0", 0)]
    assert judge_sandbox(POD, make_observed(sandboxes=two)) == SandboxVerdict(None, 2, "pod sandbox is not ready")


def test_another_network_mode_needs_another_sandbox() -> None:
    """In both directions."""
    reason = "network namespace mode changed and sandbox needs to be recreated"
    host = make_observed(sandboxes=[make_sandbox(host_network=True, ips=())])
    assert judge_sandbox(POD, host) == SandboxVerdict(None, 1, reason)
    assert judge_sandbox(make_pod("app", hostNetwork=True), make_observed()) == SandboxVerdict(None, 1, reason)
    assert judge_sandbox(make_pod("app", hostNetwork=True), host).current is not None


def test_a_sandbox_without_an_address_is_replaced() -> None:
    """Unless it lives in the host's network."""
    bare = make_observed(sandboxes=[make_sandbox(ips=())])
    assert judge_sandbox(POD, bare) == SandboxVerdict(None, 1, "pod sandbox has no IP address")
