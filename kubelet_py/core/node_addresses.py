"""Which of a node's addresses stand for it in its pods. Pure.

Upstream counterpart: GetNodeHostIPs in pkg/util/node. Deliberate difference: an object without any IP, as a cloud's
controller has not looked at it yet, leaves it to what the machine knows of itself.
"""

import ipaddress
from collections.abc import Iterable, Sequence

from kubelet_py.api import core_v1


def compute_host_ips(node: core_v1.Node | None, own: Sequence[core_v1.NodeAddress]) -> tuple[str, ...]:
    """The IPs of the node's object, its primary family first, or of `own`, what the machine was last seen to have."""
    status = node.status if node is not None else None
    return _one_of_each_family((status.addresses if status is not None else None) or ()) or _one_of_each_family(own)


def _one_of_each_family(addresses: Sequence[core_v1.NodeAddress]) -> tuple[str, ...]:
    found: dict[int, str] = {}
    for kind in ("InternalIP", "ExternalIP"):
        for ip in _ips(each.address for each in addresses if each.type == kind):
            found.setdefault(ip.version, str(ip))
    return tuple(found.values())


def _ips(texts: Iterable[str]) -> Iterable[ipaddress.IPv4Address | ipaddress.IPv6Address]:
    for text in texts:
        try:
            yield ipaddress.ip_address(text)
        except ValueError:
            continue
