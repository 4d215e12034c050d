"""Docker's bridge as the pods' network, and the choice between it and CNI."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from dockershim.network import NetworkFailed, NetworkRequest
from dockershim.network.bridge import BridgeNetwork, BridgeSettings, check_ranges
from dockershim.network.cni import CniNetwork
from dockershim.network.selection import NetworkSettings, select_network

REQUEST = NetworkRequest("s1", "pod", "ns", "u1", "", (), {}, None)
CONFIGURATION = '{"cniVersion":"1.0.0","name":"pods","type":"bridge"}'


class Docker:
    """The two things the bridge needs of Docker."""

    def __init__(self) -> None:
        self.networks: dict[str, Mapping[str, Any]] = {}
        self.addresses: dict[str, Sequence[str]] = {}
        self.trouble: Exception | None = None

    async def ensure_network(self, name: str, body: Mapping[str, Any]) -> None:
        """Make it unless it is there."""
        if self.trouble is not None:
            raise self.trouble
        self.networks.setdefault(name, body)

    async def addresses_of(self, sandbox_id: str) -> Sequence[str]:
        """What Docker gave."""
        return self.addresses.get(sandbox_id, ())


async def test_the_network_is_made_and_pods_have_what_docker_gave_them() -> None:
    docker = Docker()
    settings = BridgeSettings(subnets=("10.9.0.0/16", "fd09::/64"), mtu=1400)
    network = BridgeNetwork(settings, docker.ensure_network, docker.addresses_of)
    assert not network.condition().ready
    await network.start()
    assert network.condition().ready
    body = docker.networks[network.docker_network_mode]
    assert body["EnableIPv6"] is True
    assert body["IPAM"]["Config"] == [{"Subnet": "10.9.0.0/16"}, {"Subnet": "fd09::/64"}]
    assert body["Options"]["com.docker.network.driver.mtu"] == "1400"
    docker.addresses["s1"] = ["10.9.0.2", "", "fd09::2"]
    result = await network.set_up(REQUEST)
    assert result.ips == ("10.9.0.2", "fd09::2")
    await network.tear_down(REQUEST, result.raw)
    await network.tear_down(REQUEST, {})


async def test_docker_away_is_told_by_the_condition_until_it_is_back() -> None:
    docker = Docker()
    docker.trouble = ConnectionError("no answer")
    network = BridgeNetwork(BridgeSettings(), docker.ensure_network, docker.addresses_of)
    await network.start()
    assert network.condition().message == "Docker network dockershim: no answer"
    docker.trouble = None
    await network.start()
    assert network.condition().ready


async def test_a_sandbox_without_an_address_is_an_error() -> None:
    docker = Docker()
    network = BridgeNetwork(BridgeSettings(), docker.ensure_network, docker.addresses_of)
    await network.start()
    with pytest.raises(NetworkFailed, match="s1"):
        await network.set_up(REQUEST)


@pytest.mark.parametrize(
    ("plugin", "configured", "kind"),
    [
        ("auto", True, CniNetwork),
        ("auto", False, BridgeNetwork),
        ("cni", False, CniNetwork),
        ("cni", True, CniNetwork),
        ("bridge", True, BridgeNetwork),
    ],
)
def test_cni_is_taken_when_it_is_configured_or_asked_for(
    tmp_path: Path, plugin: str, configured: bool, kind: type
) -> None:
    if configured:
        (tmp_path / "10-pods.conf").write_text(CONFIGURATION)
    settings = NetworkSettings(tmp_path / "state", tmp_path / "netns", plugin, tmp_path, (tmp_path,))
    docker = Docker()
    network = select_network(settings, docker.ensure_network, docker.addresses_of)
    assert type(network) is kind
    assert network.publishes_ports is (kind is BridgeNetwork)


def test_an_unknown_plugin_is_refused_with_the_known_ones(tmp_path: Path) -> None:
    docker = Docker()
    with pytest.raises(ValueError, match="auto, cni, bridge"):
        select_network(NetworkSettings(tmp_path, tmp_path, "kubenet"), docker.ensure_network, docker.addresses_of)


async def test_a_sandbox_connected_by_cni_before_is_given_back_by_cni(tmp_path: Path) -> None:
    told = tmp_path / "told"
    plugin = tmp_path / "fake"
    plugin.write_text(f'#!/bin/sh\ncat > /dev/null\necho "$CNI_COMMAND $CNI_CONTAINERID [$CNI_NETNS]" >> {told}\n')
    plugin.chmod(0o755)
    docker = Docker()
    settings = NetworkSettings(tmp_path / "state", tmp_path / "netns", "bridge", tmp_path / "net.d", (tmp_path,))
    network = select_network(settings, docker.ensure_network, docker.addresses_of)
    raw = {
        "kind": "cni",
        "network": {"cniVersion": "1.0.0", "name": "pods", "plugins": [{"type": "fake"}]},
        "interface": "eth0",
        "args": "",
        "runtime_config": {},
        "netns_inode": 1,
    }
    await network.tear_down(REQUEST, raw)
    assert told.read_text() == "DEL s1 []\n"


def test_a_network_with_other_ranges_is_no_silent_surprise() -> None:
    """Docker cannot change them; the message says what to do."""
    body = BridgeSettings(subnets=("10.9.0.0/16", "fd09::/64")).create_body()
    there = {"IPAM": {"Config": [{"Subnet": "fd09::/64"}, {"Subnet": "10.9.0.0/16", "Gateway": "10.9.0.1"}]}}
    check_ranges("dockershim", there, body)
    check_ranges("dockershim", there, BridgeSettings().create_body())
    with pytest.raises(NetworkFailed, match=r"docker network rm dockershim"):
        check_ranges("dockershim", {"IPAM": {"Config": [{"Subnet": "172.18.0.0/16"}]}}, body)


async def test_pod_ranges_that_cannot_be_had_are_refused_or_told() -> None:
    """Docker's network stays as it is."""
    docker = Docker()
    network = BridgeNetwork(BridgeSettings(), docker.ensure_network, docker.addresses_of)
    await network.set_pod_cidr("10.1.0.0/16")
    with pytest.raises(ValueError, match=r"10\.1\.0\.0/99"):
        await network.set_pod_cidr("10.1.0.0/99")
