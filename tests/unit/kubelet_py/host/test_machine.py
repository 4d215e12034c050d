"""Machine facts from a scratch root, and which address stands for the node."""

import ipaddress
import socket
from pathlib import Path
from typing import NamedTuple

import pytest

from kubelet_py.core.node_rules import Hugepages
from kubelet_py.errors import ConfigError, NodeAddressUnknown
from kubelet_py.host import machine
from kubelet_py.host.machine import AddressWish, node_addresses, node_ips, parse_node_ip, read_machine_info


class Address(NamedTuple):
    """As psutil gives them."""

    family: int
    address: str


def scratch(root: Path, **files: str) -> Path:
    base = {
        "proc/meminfo": "MemTotal:       1024 kB\nSwapTotal:      512 kB\nHugePages_Total:   3\n",
        "proc/sys/kernel/random/boot_id": "boot\n",
        "etc/machine-id": "machine\n",
        "etc/os-release": 'NAME="x"\nPRETTY_NAME="Debian 12"\n',
        "sys/kernel/mm/hugepages/hugepages-2048kB/nr_hugepages": "4\n",
    }
    for name, text in (base | files).items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return root


def test_facts_are_read_from_their_files(tmp_path: Path) -> None:
    info = read_machine_info(tmp_path / "not" / "there" / "yet", scratch(tmp_path))
    assert (info.machine_id, info.system_uuid, info.boot_id) == ("machine", "machine", "boot")
    assert (info.memory_bytes, info.swap_bytes, info.os_image) == (1 << 20, 512 << 10, "Debian 12")
    assert info.hugepages == (Hugepages(2 << 20, 4),)
    assert info.ephemeral_storage_bytes > 0
    assert info.cores >= 1


def test_a_virtual_machine_in_a_device_tree_has_its_uuid_from_there(tmp_path: Path) -> None:
    root = scratch(tmp_path, **{"proc/device-tree/vm,uuid": "from-tree\0"})
    assert read_machine_info(tmp_path, root).system_uuid == "from-tree"


@pytest.fixture
def host(monkeypatch: pytest.MonkeyPatch) -> dict[str, list[Address]]:
    """A machine with these interfaces, whose name resolves to nothing."""
    interfaces = {
        "lo": [Address(socket.AF_INET, "127.0.0.1")],
        "cni0": [Address(socket.AF_INET, "10.200.0.1")],
        "eth0": [
            Address(socket.AF_INET, "192.0.2.2"),
            Address(socket.AF_INET6, "fd00::2"),
            Address(socket.AF_INET6, "fe80::1%eth0"),
        ],
    }
    monkeypatch.setattr("psutil.net_if_addrs", lambda: interfaces)
    monkeypatch.setattr(machine, "_resolve", lambda name: [])
    monkeypatch.setattr(machine, "_default_route_interfaces", lambda: ["eth0"])
    return interfaces


def ips(*wished: str, hostname: str = "n1") -> list[str]:
    return [str(each) for each in node_ips(AddressWish("n1", hostname, tuple(map(parse_node_ip, wished))))]


def test_without_a_wish_the_interface_of_the_default_route_decides(host: object) -> None:
    assert ips() == ["192.0.2.2"]
    assert ips("::") == ["fd00::2"]
    assert ips("0.0.0.0") == ["192.0.2.2"]


def test_without_a_default_route_any_global_address_will_do(host: object, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine, "_default_route_interfaces", list)
    assert ips() == ["10.200.0.1"]


def test_what_another_interface_has_is_not_the_nodes_when_the_link_is_down(
    host: object, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The address of before stays while it is there, and none takes its place when it has gone."""
    assert [str(each) for each in node_ips(AddressWish("n1", "n1"))] == ["192.0.2.2"]
    monkeypatch.setattr(machine, "_default_route_interfaces", list)
    assert [str(each) for each in node_ips(AddressWish("n1", "n1"), ["192.0.2.2", "n1"])] == ["192.0.2.2"]
    with pytest.raises(NodeAddressUnknown):
        node_ips(AddressWish("n1", "n1"), ["192.0.2.99", "n1"])


def test_the_nodes_name_in_dns_goes_first(host: object, monkeypatch: pytest.MonkeyPatch) -> None:
    answers = [ipaddress.ip_address(each) for each in ("127.0.0.1", "198.51.100.9", "10.200.0.1")]
    monkeypatch.setattr(machine, "_resolve", lambda name: answers)
    assert ips() == ["10.200.0.1"]


def test_a_hostname_that_is_an_address_is_the_address(host: object) -> None:
    assert ips(hostname="198.51.100.7") == ["198.51.100.7"]


def test_two_wished_addresses_are_both_shown_in_their_order(host: object) -> None:
    wish = AddressWish("n1", "n1", (parse_node_ip("fd00::2"), parse_node_ip("192.0.2.2")))
    assert [(each.type, each.address) for each in node_addresses(wish)] == [
        ("InternalIP", "fd00::2"),
        ("InternalIP", "192.0.2.2"),
        ("Hostname", "n1"),
    ]


def test_under_an_external_cloud_only_the_hostname_is_known(host: object) -> None:
    wish = AddressWish("n1", "n1", external_cloud=True)
    assert [each.type for each in node_addresses(wish)] == ["Hostname"]


@pytest.mark.parametrize(
    ("wished", "said"),
    [
        ("127.0.0.1", "is a loopback address"),
        ("224.0.0.1", "is a multicast address"),
        ("fe80::1", "is a link-local address"),
        ("198.51.100.1", "is on no interface of this machine; there are: 10.200.0.1, 192.0.2.2, fd00::2"),
    ],
)
def test_an_address_that_is_not_the_nodes_now_may_be_so_later(host: object, wished: str, said: str) -> None:
    with pytest.raises(NodeAddressUnknown, match="--node-ip") as refused:
        ips(wished)
    assert said in str(refused.value)


def test_what_is_no_address_never_becomes_one() -> None:
    with pytest.raises(ConfigError, match="--node-ip: 'nonsense' is not an IP address"):
        parse_node_ip("nonsense")


def test_interfaces_that_cannot_be_listed_are_no_addresses(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse() -> None:
        raise OSError(24, "Too many open files")

    monkeypatch.setattr("psutil.net_if_addrs", refuse)
    with pytest.raises(NodeAddressUnknown, match="Too many open files"):
        ips("192.0.2.2")


def test_no_address_at_all_is_an_error_that_names_the_way_out(
    host: dict[str, list[Address]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(machine, "_default_route_interfaces", list)
    del host["eth0"], host["cni0"]
    with pytest.raises(NodeAddressUnknown, match="name one with --node-ip"):
        ips()
