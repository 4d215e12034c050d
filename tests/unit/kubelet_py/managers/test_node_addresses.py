"""The node's addresses follow the machine, and their absence stops nothing."""

import threading
from typing import Any

import pytest
from structlog.testing import capture_logs

from kubelet_py.api import core_v1
from kubelet_py.errors import NodeAddressUnknown
from kubelet_py.managers import node_addresses
from kubelet_py.managers.node_addresses import Addresses, NodeAddresses
from tests.fakes.waiting import background, eventually


def internal(*ips: str) -> Addresses:
    return tuple(core_v1.NodeAddress(type="InternalIP", address=ip) for ip in ips)


class Machine:
    """What it has now: addresses, or none and why."""

    def __init__(self) -> None:
        self.has: Addresses | str = internal("192.0.2.1")
        self.looks = 0
        self.threads: list[threading.Thread] = []
        self.changes: list[Addresses] = []
        self.addresses = NodeAddresses(self.find, 0.001, lambda: self.changes.append(self.addresses.current))

    def find(self) -> Addresses:
        self.threads.append(threading.current_thread())
        self.looks += 1
        if isinstance(self.has, str):
            raise NodeAddressUnknown(self.has)
        return self.has


def said(logs: list[Any]) -> list[tuple[str, object]]:
    return [(entry["event"], entry.get("error", entry.get("addresses"))) for entry in logs]


async def test_an_address_that_changes_is_seen_and_told_once() -> None:
    machine = Machine()
    assert machine.addresses.current == ()
    await machine.addresses.look_first()
    async with background(machine.addresses.run()):
        await eventually(lambda: machine.looks > 3)
        machine.has = internal("192.0.2.7")
        await eventually(lambda: machine.addresses.current == machine.has)
        looks = machine.looks
        await eventually(lambda: machine.looks > looks + 2)
    assert machine.changes == [internal("192.0.2.1"), internal("192.0.2.7")]


async def test_without_an_address_the_last_one_stays_and_each_trouble_is_said_once() -> None:
    machine = Machine()
    with capture_logs() as logs:
        for has in ("no link", "no link", internal("192.0.2.1"), "not there", "not there", internal("192.0.2.1")):
            machine.has = has
            await machine.addresses.look()
        assert machine.addresses.current == internal("192.0.2.1")
    assert machine.changes == [internal("192.0.2.1")]
    assert said(logs) == [
        ("node_addresses_not_found", "no link"),
        ("node_addresses", ["InternalIP 192.0.2.1"]),
        ("node_addresses_not_found", "not there"),
        ("node_addresses", ["InternalIP 192.0.2.1"]),
    ]


async def test_pods_see_what_the_nodes_object_says_and_until_then_what_the_machine_has() -> None:
    """An address that a cloud's controller sets after the start, and one that moves."""
    machine = Machine()
    assert machine.addresses.host_ips(None) == ()
    await machine.addresses.look()
    assert machine.addresses.host_ips(None) == ("192.0.2.1",)
    for ip in ("10.0.0.1", "10.0.0.2"):
        node = core_v1.Node(status=core_v1.NodeStatus(addresses=list(internal(ip))))
        assert machine.addresses.host_ips(node) == (ip,)
        assert machine.addresses.host_ips(node) is machine.addresses.host_ips(node), "a pass of a pod costs a look"
    machine.has = internal("192.0.2.7")
    await machine.addresses.look()
    assert machine.addresses.host_ips(core_v1.Node()) == ("192.0.2.7",)


async def test_a_name_server_that_is_away_holds_up_neither_the_start_nor_the_end(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The look goes on in a thread that nobody waits for; what it finds then is taken."""
    monkeypatch.setattr(node_addresses, "FIRST_LOOK_SECONDS", 0.01)
    machine, answers = Machine(), threading.Event()
    find = machine.find

    def hang() -> Addresses:
        found = find()
        answers.wait()
        return found

    machine.addresses = NodeAddresses(hang, 0.001, lambda: None)
    try:
        with capture_logs() as logs:
            await machine.addresses.look_first()
        assert said(logs) == [("node_addresses_not_found", "the name of the node is not resolved yet")]
        async with background(machine.addresses.run()):
            assert all(thread.daemon for thread in machine.threads)
            answers.set()
            await eventually(lambda: machine.addresses.current == internal("192.0.2.1"))
        async with background(machine.addresses.run()):
            pass
    finally:
        answers.set()


async def test_a_fault_of_the_look_is_not_hidden() -> None:
    def break_down() -> Addresses:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        await NodeAddresses(break_down, 1.0, lambda: None).look()
