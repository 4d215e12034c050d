"""What pods see as their node's IPs."""

import pytest

from kubelet_py.api import core_v1
from kubelet_py.core.node_addresses import compute_host_ips


def addresses(*each: tuple[str, str]) -> list[core_v1.NodeAddress]:
    return [core_v1.NodeAddress(type=kind, address=address) for kind, address in each]


def node(*each: tuple[str, str]) -> core_v1.Node:
    return core_v1.Node(status=core_v1.NodeStatus(addresses=addresses(*each)))


OWN = addresses(("InternalIP", "192.0.2.9"), ("Hostname", "n1"))


@pytest.mark.parametrize(
    ("of_the_node", "expected"),
    [
        ([("Hostname", "10.0.0.9"), ("ExternalIP", "198.51.100.1"), ("InternalIP", "10.0.0.1")], ("10.0.0.1",)),
        ([("InternalIP", "10.0.0.1"), ("ExternalIP", "fd00::1")], ("10.0.0.1", "fd00::1")),
        ([("ExternalIP", "198.51.100.1"), ("ExternalDNS", "n1.example")], ("198.51.100.1",)),
        ([("InternalIP", "fd00::1"), ("InternalIP", "fd00::2"), ("InternalIP", "10.0.0.1")], ("fd00::1", "10.0.0.1")),
        ([("InternalIP", "n1.example"), ("InternalIP", "fd00:0::1")], ("fd00::1",)),
    ],
)
def test_internal_addresses_go_before_external_ones_and_one_of_each_family_counts(
    of_the_node: list[tuple[str, str]], expected: tuple[str, ...]
) -> None:
    assert compute_host_ips(node(*of_the_node), OWN) == expected


def test_until_the_object_says_something_the_machine_does() -> None:
    """No object yet, one without a status, and one of which its cloud knows the name only."""
    for seen in (None, core_v1.Node(), core_v1.Node(status=core_v1.NodeStatus()), node(("Hostname", "n1"))):
        assert compute_host_ips(seen, OWN) == ("192.0.2.9",)
        assert compute_host_ips(seen, ()) == ()
