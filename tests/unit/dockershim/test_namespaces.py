"""Reading addresses inside a namespace: here the one that we are in."""

from __future__ import annotations

from dockershim.namespaces import ipv6_addresses, read_addresses

TABLE = """\
00000000000000000000000000000001 01 80 10 80       lo
fd000000000000000000000000000005 02 40 00 80     eth0
fe80000000000000007c1ffffe000001 02 40 20 80     eth0
fd000000000000000000000000000006 03 40 00 80     eth1
"""


def test_only_global_addresses_of_the_interface_count() -> None:
    """No link-local ones, and none of other interfaces."""
    assert ipv6_addresses(TABLE, "eth0") == ["fd00::5"]


def test_our_own_loopback() -> None:
    """IPv4 by the kernel's own word."""
    assert read_addresses("/proc/self/ns/net", "lo")[:1] == ("127.0.0.1",)


def test_an_interface_that_is_not_there_has_none() -> None:
    """And that is no error."""
    assert read_addresses("/proc/self/ns/net", "none0") == ()
