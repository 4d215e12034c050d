"""Pods are refused for the Go kubelet's reasons, in its words."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kubelet_py.api import codec, core_v1
from kubelet_py.core.admission import (
    Decision,
    NodeState,
    Rejection,
    admit,
    decide,
    matches_node_affinity,
    node_state_of,
)
from kubelet_py.core.declared_features import RESTART_ALL_CONTAINERS, declared_features
from kubelet_py.core.sysctl_rules import SysctlAllowlist, compute_sysctl_allowlist
from tests.unit.kubelet_py.core.pod_builder import a_container, a_pod, sized

ALLOCATABLE = {"cpu": "4", "memory": "8Gi", "pods": "10", "ephemeral-storage": "10Gi", "example.com/gpu": "2"}
NODE = NodeState("n1", labels={"zone": "a", "cores": "4"}, allocatable=ALLOCATABLE)
MEMORY_TAINT = "node.kubernetes.io/memory-pressure"
SYSCTLS = compute_sysctl_allowlist((), (6, 1))


def _other(number: int = 0, *containers: dict[str, Any], **spec: Any) -> core_v1.Pod:
    return a_pod(*containers, metadata={"uid": f"other-{number}", "name": f"o{number}"}, **spec)


def _admit(pod: core_v1.Pod, *others: core_v1.Pod, node: NodeState = NODE) -> tuple[str, str] | None:
    rejection = admit(pod, others, node, SYSCTLS)
    return None if rejection is None else (rejection.reason, rejection.message)


def test_what_fits_is_taken() -> None:
    """And a pod does not stand in its own way."""
    pod = a_pod(a_container(ports=[{"containerPort": 1, "hostPort": 80}], **sized({"cpu": "3"})), nodeName="n1")
    assert _admit(pod) is None
    assert _admit(pod, pod) is None


def test_rejection_texts() -> None:
    """The status says that it was a refusal; a label miss is worth another look."""
    assert Rejection("NodeAffinity", "m").status_message == "Pod was rejected: m"
    assert Rejection("NodeAffinity", "m").needs_fresh_node
    assert not Rejection("OutOfcpu", "m").needs_fresh_node


@pytest.mark.parametrize(
    ("requests", "used", "expected"),
    [
        ({"cpu": "3"}, {"cpu": "1500m"}, ("cpu", 3000, 1500, 4000)),
        ({"memory": "9Gi"}, {}, ("memory", 9 * 2**30, 0, 8 * 2**30)),
        ({"ephemeral-storage": "11Gi"}, {}, ("ephemeral-storage", 11 * 2**30, 0, 10 * 2**30)),
        ({"example.com/gpu": "2"}, {"example.com/gpu": "1"}, ("example.com/gpu", 2, 1, 2)),
        ({"hugepages-2Mi": "2Mi"}, {}, ("hugepages-2Mi", 2**21, 0, 0)),
    ],
)
def test_resources(requests: Any, used: Any, expected: tuple[str, int, int, int]) -> None:
    """What is asked for, used and there stands in the message."""
    name, requested, taken, capacity = expected
    assert _admit(a_pod(a_container(**sized(requests))), _other(0, a_container(**sized(used)))) == (
        f"OutOf{name}",
        f"Node didn't have enough resource: {name}, requested: {requested}, used: {taken}, capacity: {capacity}",
    )


def test_unknown_extended_resources_are_somebody_elses() -> None:
    """The node does not count what it has never heard of; nor what is zero."""
    assert _admit(a_pod(a_container(**sized({"example.com/other": "5", "hugepages-1Gi": "0"})))) is None


def test_the_last_of_a_resource_may_be_taken() -> None:
    """All that is left, to the milli, and one place among the pods."""
    wanted = a_pod(a_container(**sized({"cpu": "2500m", "memory": "8Gi"})))
    others = [_other(0, a_container(**sized({"cpu": "1500m"}))), *(_other(i) for i in range(1, 9))]
    assert _admit(wanted, *others) is None
    full = _other(0, a_container(**sized({"cpu": "4"})))
    assert _admit(a_pod(a_container(**sized({"cpu": "1m"}))), full) == (
        "OutOfcpu",
        "Node didn't have enough resource: cpu, requested: 1, used: 4000, capacity: 4000",
    )
    unheard = sized({"example.com/aaa": "1", "example.com/gpu": "3"})
    assert (_admit(a_pod(a_container(**unheard))) or ("",))[0] == "OutOfexample.com/gpu"


def test_number_of_pods() -> None:
    """Counts before resources do."""
    assert _admit(a_pod(a_container(**sized({"cpu": "99"}))), *(_other(i) for i in range(10))) == (
        "OutOfpods",
        "Node didn't have enough resource: pods, requested: 1, used: 10, capacity: 10",
    )


def test_node_name() -> None:
    """A pod of another node."""
    assert _admit(a_pod(nodeName="n2")) == (
        "NodeName",
        "Predicate NodeName failed: node(s) didn't match the requested node name",
    )


def _terms(*terms: dict[str, Any]) -> dict[str, Any]:
    required = {"nodeSelectorTerms": list(terms)}
    return {"affinity": {"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": required}}}


def _rule(key: str, operator: str, *values: str) -> dict[str, Any]:
    return {"key": key, "operator": operator, "values": list(values)}


@pytest.mark.parametrize(
    ("spec", "matches"),
    [
        ({}, True),
        ({"nodeSelector": {"zone": "a"}}, True),
        ({"nodeSelector": {"zone": "b"}}, False),
        ({"affinity": {}}, True),
        (_terms({}), False),
        (_terms({}, {"matchExpressions": [_rule("zone", "In", "a", "b")]}), True),
        (_terms({"matchExpressions": [_rule("zone", "In", "b")]}), False),
        (_terms({"matchExpressions": [_rule("none", "In", "b")]}), False),
        (_terms({"matchExpressions": [_rule("zone", "NotIn", "b"), _rule("none", "NotIn", "b")]}), True),
        (_terms({"matchExpressions": [_rule("zone", "NotIn", "a")]}), False),
        (_terms({"matchExpressions": [_rule("zone", "Exists"), _rule("none", "DoesNotExist")]}), True),
        (_terms({"matchExpressions": [_rule("none", "Exists")]}), False),
        (_terms({"matchExpressions": [_rule("cores", "Gt", "3"), _rule("cores", "Lt", "5")]}), True),
        (_terms({"matchExpressions": [_rule("cores", "Gt", "4")]}), False),
        (_terms({"matchExpressions": [_rule("zone", "Gt", "4")]}), False),
        (_terms({"matchExpressions": [_rule("cores", "Gt", "1", "2")]}), False),
        (_terms({"matchExpressions": [_rule("none", "Lt", "1")]}), False),
        (_terms({"matchExpressions": [_rule("zone", "Near", "a")]}), False),
        (_terms({"matchFields": [_rule("metadata.name", "In", "n1")]}), True),
        (_terms({"matchFields": [_rule("metadata.name", "In", "n2")]}), False),
    ],
)
def test_node_affinity(spec: dict[str, Any], matches: bool) -> None:
    """Every operator; terms are alternatives, rules of a term all hold; an empty term matches nothing."""
    pod = a_pod(**spec)
    assert matches_node_affinity(pod, NODE) == matches
    expected = (
        None
        if matches
        else (
            "NodeAffinity",
            "Predicate NodeAffinity failed: node(s) didn't match Pod's node affinity/selector",
        )
    )
    assert _admit(pod) == expected


@pytest.mark.parametrize(
    ("wanted", "taken", "clash"),
    [
        ({}, {}, True),
        ({"hostIP": "192.0.2.1"}, {}, True),
        ({"hostIP": "192.0.2.1"}, {"hostIP": "192.0.2.2"}, False),
        ({"hostIP": "192.0.2.1"}, {"hostIP": "192.0.2.1"}, True),
        ({}, {"hostIP": "192.0.2.1"}, True),
        ({"protocol": "UDP"}, {}, False),
        ({"protocol": "TCP"}, {}, True),
        ({"protocol": "UDP"}, {"protocol": "UDP"}, True),
        ({"hostPort": 81}, {}, False),
    ],
)
def test_host_ports(wanted: dict[str, Any], taken: dict[str, Any], clash: bool) -> None:
    """One pod for an address, protocol and port; sidecars count, other init containers do not."""
    base = {"containerPort": 1, "hostPort": 80}
    pod = a_pod(a_container(ports=[{**base, **wanted}, {"containerPort": 2}]))
    expected = (
        None
        if not clash
        else (
            "NodePorts",
            "Predicate NodePorts failed: node(s) didn't have free ports for the requested pod ports",
        )
    )
    sidecar = a_container("s", restartPolicy="Always", ports=[{**base, **taken}])
    assert _admit(pod, _other(0, a_container(ports=[{**base, **taken}]))) == expected
    assert _admit(pod, _other(0, initContainers=[sidecar])) == expected
    assert _admit(pod, _other(0, initContainers=[{**sidecar, "restartPolicy": None}])) is None


TAINTED = NodeState(
    "n1",
    allocatable=ALLOCATABLE,
    taints=(
        core_v1.Taint(key="soft", effect="NoSchedule"),
        core_v1.Taint(key="gone", effect="NoExecute", value="now"),
    ),
)


@pytest.mark.parametrize(
    ("tolerations", "taken"),
    [
        ([], False),
        ([{"operator": "Exists"}], True),
        ([{"key": "gone", "operator": "Exists", "effect": "NoExecute"}], True),
        ([{"key": "gone", "operator": "Equal", "value": "now"}], True),
        ([{"key": "gone", "value": "now"}], True),
        ([{"key": "gone", "value": "later"}], False),
        ([{"key": "other", "operator": "Exists"}], False),
        ([{"key": "gone", "operator": "Exists", "effect": "NoSchedule"}], False),
        ([{"key": "gone", "operator": "Gt", "value": "now"}], False),
        ([{"key": "gone", "operator": "", "value": "now"}], True),
        ([{"key": "gone", "operator": "Exists", "effect": "NoSchedule"}, {"operator": "Exists"}], True),
        ([{"key": "other", "operator": "Exists"}, {"operator": "Exists"}], True),
        ([{"key": "gone"}], False),
    ],
)
def test_taints(tolerations: list[dict[str, Any]], taken: bool) -> None:
    """Only NoExecute counts here."""
    expected = (
        None
        if taken
        else (
            "TaintToleration",
            "Predicate TaintToleration failed: node(s) had taints that the pod didn't tolerate",
        )
    )
    assert _admit(a_pod(tolerations=tolerations), node=TAINTED) == expected


def test_static_pods_tolerate_everything() -> None:
    """Nobody would start them elsewhere."""
    pod = a_pod(metadata={"annotations": {"kubernetes.io/config.source": "file"}})
    assert _admit(pod, node=TAINTED) is None


def test_kinds_of_pods() -> None:
    """Another operating system, groups that the runtime cannot keep apart."""
    assert _admit(a_pod(metadata={"labels": {"kubernetes.io/os": "windows"}})) == (
        "PodOSSelectorNodeLabelDoesNotMatch",
        "Failed to admit pod as the `kubernetes.io/os` label doesn't match node label",
    )
    assert _admit(a_pod(metadata={"labels": {"kubernetes.io/os": "linux"}}, os={"name": "linux"})) is None
    assert _admit(a_pod(os={"name": "windows"})) == (
        "PodOSNotSupported",
        "Failed to admit pod as the OS field doesn't match node OS",
    )
    strict = a_pod(securityContext={"supplementalGroupsPolicy": "Strict"})
    assert _admit(strict) == (
        "SupplementalGroupsPolicyNotSupported",
        "SupplementalGroupsPolicy=Strict is not supported in this node",
    )
    assert _admit(strict, node=NodeState("n1", allocatable=ALLOCATABLE, strict_supplemental_groups=True)) is None


@pytest.mark.parametrize(
    ("pressures", "spec", "refused"),
    [
        (("MemoryPressure",), {}, True),
        (("MemoryPressure",), {"containers": [a_container(**sized({"cpu": "1"}))]}, False),
        (
            ("MemoryPressure",),
            {"tolerations": [{"key": "node.kubernetes.io/memory-pressure", "operator": "Exists"}]},
            False,
        ),
        (
            ("MemoryPressure",),
            {"tolerations": [{"key": "node.kubernetes.io/memory-pressure", "effect": "NoSchedule"}]},
            False,
        ),
        (
            ("MemoryPressure",),
            {"tolerations": [{"key": "node.kubernetes.io/memory-pressure", "effect": "NoExecute"}]},
            True,
        ),
        (("DiskPressure",), {"containers": [a_container(**sized({"cpu": "1"}))]}, True),
        (("MemoryPressure", "DiskPressure"), {}, True),
        (("DiskPressure",), {"priority": 2_000_000_000}, False),
        ((), {}, False),
    ],
)
def test_pressure(pressures: tuple[str, ...], spec: dict[str, Any], refused: bool) -> None:
    """Critical pods pass; memory pressure alone stops only what asks for nothing."""
    body = {"metadata": {"name": "a", "uid": "u"}, "spec": {"containers": [a_container()], **spec}}
    pod = codec.from_builtins(core_v1.Pod, body)
    expected = ("Evicted", f"The node had condition: [{' '.join(pressures)}]. ") if refused else None
    assert _admit(pod, node=NodeState("n1", allocatable=ALLOCATABLE, pressures=pressures)) == expected


def test_shutdown() -> None:
    """Comes last."""
    assert _admit(a_pod(), node=NodeState("n1", allocatable=ALLOCATABLE, shutting_down=True)) == (
        "NodeShutdown",
        "Pod was rejected as the node is shutting down.",
    )


def _sysctl(name: str, allowed: SysctlAllowlist = SYSCTLS, **spec: Any) -> str:
    pod = a_pod(securityContext={"sysctls": [{"name": name, "value": "1"}]}, **spec)
    rejection = admit(pod, (), NODE, allowed)
    assert rejection is None or rejection.reason == "SysctlForbidden"
    return "" if rejection is None else rejection.message


def test_sysctls() -> None:
    """The safe ones, those that the operator allows, and only in namespaces of the pod's own."""
    assert _sysctl("net.ipv4.tcp_syncookies") == ""
    assert _sysctl("net/ipv4/tcp_syncookies") == ""
    assert _sysctl("kernel.msgmax") == 'forbidden sysctl: "kernel.msgmax" not allowlisted'
    assert _sysctl("kernel.shm_rmid_forced", hostIPC=True) == (
        'forbidden sysctl: "kernel.shm_rmid_forced" not allowed with host IPC enabled'
    )
    assert _sysctl("net.ipv4.tcp_rmem", hostNetwork=True) == (
        'forbidden sysctl: "net.ipv4.tcp_rmem" not allowed with host Net enabled'
    )
    more = compute_sysctl_allowlist(("kernel.msg*", "net.core.somaxconn", "user.*"), (6, 1))
    assert _sysctl("kernel.msgmax", more) == ""
    assert _sysctl("net.core.somaxconn", more) == ""
    assert _sysctl("user.max_x", more) == 'forbidden sysctl: "user.max_x" not allowed with host User enabled'
    assert _sysctl("user.max_x", more, hostUsers=False) == ""
    uts = compute_sysctl_allowlist(("kernel.domainname",), (6, 1))
    assert _sysctl("kernel.domainname", uts, hostIPC=True, hostNetwork=True) == ""


def test_sysctls_of_old_kernels() -> None:
    """What an old kernel does not keep apart is not safe there."""
    since = compute_sysctl_allowlist((), (4, 15))
    assert _sysctl("net.ipv4.tcp_rmem", since) == ""
    old = compute_sysctl_allowlist((), (4, 4))
    assert "net.ipv4.tcp_keepalive_time" not in old.names
    assert "net.ipv4.ip_local_reserved_ports" in old.names
    with pytest.raises(ValueError, match=r'the sysctls "vm\." are not known to be namespaced'):
        compute_sysctl_allowlist(("vm.*",), (6, 1))


def test_node_state_of_a_node() -> None:
    """What counts of the object; the operating system's label is always right."""
    node = codec.from_builtins(
        core_v1.Node,
        {
            "metadata": {"name": "n", "labels": {"kubernetes.io/os": "plan9", "a": "b"}},
            "spec": {"taints": [{"key": "t", "effect": "NoExecute"}]},
            "status": {"allocatable": {"cpu": "1"}, "features": {"supplementalGroupsPolicy": True}},
        },
    )
    state = node_state_of(node, ("DiskPressure",), shutting_down=True)
    assert state.labels == {"kubernetes.io/os": "linux", "a": "b"}
    assert (state.name, state.allocatable, state.strict_supplemental_groups) == ("n", {"cpu": "1"}, True)
    assert [taint.key for taint in state.taints] == ["t"]
    assert (state.pressures, state.shutting_down) == (("DiskPressure",), True)
    state = node_state_of(node, apparmor=False, declared_features=("Some",))
    assert (state.apparmor, state.declared_features) == (False, ("Some",))
    assert node_state_of(core_v1.Node()) == NodeState("", labels={"kubernetes.io/os": "linux"})


@given(st.lists(st.integers(min_value=0, max_value=3000), max_size=12))
def test_admitted_pods_never_exceed_the_node(requests: list[int]) -> None:
    """Whatever arrives in whatever order, the sum of what was taken fits, and nothing that fits is refused."""
    active: list[core_v1.Pod] = []
    used = 0
    for number, milli in enumerate(requests):
        pod = _other(number, a_container(**sized({"cpu": f"{milli}m"})))
        fits = used + milli <= 4000 and len(active) < 10
        assert (admit(pod, active, NODE, SYSCTLS) is None) == (fits or (milli == 0 and len(active) < 10))
        if fits:
            active.append(pod)
            used += milli
    assert used <= 4000


# AppArmor


@pytest.mark.parametrize(
    ("profile", "apparmor", "why"),
    [
        ({"type": "RuntimeDefault"}, False, "AppArmor is not enabled on the host"),
        ({"type": "Localhost", "localhostProfile": " "}, True, "invalid empty AppArmor profile name"),
        ({"type": "Localhost"}, True, "invalid empty AppArmor profile name"),
        ({"type": "Localhost", "localhostProfile": "mine"}, True, ""),
        ({"type": "Unconfined"}, False, ""),
        (None, False, ""),
    ],
)
def test_apparmor(profile: dict[str, str] | None, apparmor: bool, why: str) -> None:
    """Only of pods that have not begun."""
    node = NodeState("n1", allocatable=ALLOCATABLE, apparmor=apparmor)
    context = {"appArmorProfile": profile} if profile else {}
    expected = ("AppArmor", f"Cannot enforce AppArmor: {why}") if why else None
    assert _admit(a_pod(a_container(securityContext=context)), node=node) == expected
    assert _admit(a_pod(a_container(), securityContext=context), node=node) == expected
    running = a_pod(a_container(securityContext=context))
    running.status = core_v1.PodStatus(phase="Running")
    assert _admit(running, node=node) is None
    for phase in ("Pending", "", None):
        running.status = core_v1.PodStatus(phase=phase)
        assert _admit(running, node=node) == expected


# Critical pods


CRITICAL: dict[str, Any] = {"priority": 2_000_000_000}


def test_a_critical_pod_takes_the_place_of_others() -> None:
    small, big = _other(1, a_container(**sized({"cpu": "1"}))), _other(2, a_container(**sized({"cpu": "3"})))
    pod = a_pod(a_container(**sized({"cpu": "1500m"})), **CRITICAL)
    assert decide(pod, [small, big], NODE, SYSCTLS) == Decision(victims=(big,))
    fits = a_pod(a_container(**sized({"cpu": "1"})), **CRITICAL)
    assert decide(fits, [small], NODE, SYSCTLS) == Decision()


def test_an_ordinary_pod_takes_nobodys_place() -> None:
    pod = a_pod(a_container(**sized({"cpu": "5"})))
    refusal = decide(pod, [_other()], NODE, SYSCTLS).rejection
    assert refusal is not None
    assert refusal.reason == "OutOfcpu"


def test_a_critical_pod_is_refused_for_what_no_place_would_mend() -> None:
    big = _other(1, a_container(**sized({"cpu": "4"})))
    elsewhere = a_pod(a_container(**sized({"cpu": "1"})), nodeName="n2", **CRITICAL)
    refusal = decide(elsewhere, [big], NODE, SYSCTLS).rejection
    assert refusal is not None
    assert refusal.reason == "NodeName"
    foreign = a_pod(a_container(), os={"name": "windows"}, **CRITICAL)
    refusal = decide(foreign, [big], NODE, SYSCTLS).rejection
    assert refusal is not None
    assert refusal.reason == "PodOSNotSupported"


def test_where_nobody_can_make_room_a_critical_pod_is_refused() -> None:
    pod = a_pod(a_container(**sized({"cpu": "5"})), **CRITICAL)
    assert decide(pod, [_other()], NODE, SYSCTLS).rejection == Rejection(
        "UnexpectedAdmissionError",
        "Unexpected error while attempting to recover from admission failure: preemption: error finding a set of pods "
        "to preempt: no set of running pods found to reclaim resources: [(res: cpu, q: 1000), ]",
    )


def test_a_pod_that_needs_what_the_node_does_not_declare_is_refused() -> None:
    rule = {"action": "RestartAllContainers", "exitCodes": {"operator": "In", "values": [1]}}
    pod = a_pod(a_container(restartPolicy="Never", restartPolicyRules=[rule]), hostNetwork=True, hostUsers=False)
    able = NodeState("n1", allocatable=ALLOCATABLE, declared_features=(RESTART_ALL_CONTAINERS,))
    words = "Pod requires node features that are not available: "
    assert _admit(pod, node=able) == ("PodFeatureUnsupported", f"{words}UserNamespacesHostNetworkSupport")
    assert _admit(pod) == (
        "PodFeatureUnsupported",
        f"{words}RestartAllContainersOnContainerExits, UserNamespacesHostNetworkSupport",
    )
    assert _admit(a_pod(a_container(restartPolicyRules=[rule])), node=able) is None


def test_a_node_declares_what_its_gates_let_it() -> None:
    assert RESTART_ALL_CONTAINERS in declared_features(lambda name: True)
    assert declared_features(lambda name: False) == ()
