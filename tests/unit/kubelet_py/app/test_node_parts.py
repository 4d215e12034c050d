"""What the node knows of itself before anybody has seen its object."""

from dataclasses import replace

from kubelet_py.api import core_v1, quantity
from kubelet_py.app.node_parts import NodeIdentity, local_node_state
from kubelet_py.core.admission import NodeState
from kubelet_py.core.node_rules import NodeSettings, RuntimeState
from kubelet_py.host.machine import AddressWish
from tests.unit.kubelet_py.managers.kube_objects import MACHINE, NODE

TAINT = core_v1.Taint(key="dedicated", effect="NoExecute")


def test_what_decides_on_static_pods_before_the_node_is_registered() -> None:
    settings = NodeSettings(name=NODE, labels={"disk": "ssd"}, taints=(TAINT,), declared_features=("Some",))
    amounts = {"pods": quantity.parse("110")}
    identity = NodeIdentity(settings, MACHINE, AddressWish(NODE, NODE))
    state = local_node_state(identity, amounts, RuntimeState(supplemental_groups_policy=True), has_apparmor=False)
    assert state.labels["disk"] == "ssd"
    assert state.labels["kubernetes.io/hostname"] == NODE
    assert replace(state, labels={}) == NodeState(
        NODE,
        allocatable=amounts,
        taints=(TAINT,),
        strict_supplemental_groups=True,
        apparmor=False,
        declared_features=("Some",),
    )
    assert not local_node_state(identity, {}, RuntimeState(), has_apparmor=True).strict_supplemental_groups
