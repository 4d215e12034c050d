"""The parts as they are connected: what one of them learns, the others see."""

import asyncio
from pathlib import Path

from kubelet_py.api import core_v1, meta_v1
from kubelet_py.app.agent import Agent
from kubelet_py.app.node_parts import ApiClients, read_identity
from kubelet_py.config import load
from tests.fakes.api_clients import client_for
from tests.fakes.runtime import FakeRuntimeClient
from tests.unit.kubelet_py.app.test_run import a_config


async def test_pods_see_the_address_that_a_clouds_controller_gave_the_node(tmp_path: Path) -> None:
    """With --cloud-provider=external alone the machine's own address is not the node's, and nobody knows it before."""
    settings = await asyncio.to_thread(load, [*a_config(tmp_path), "--cloud-provider=external"])
    identity = await asyncio.to_thread(read_identity, settings)
    async with client_for("http://127.0.0.1:1") as api:
        agent = Agent(settings, identity, FakeRuntimeClient(), ApiClients(api, api, api))
        await agent.addresses.look()
        assert [each.type for each in agent.addresses.current] == ["Hostname"]
        assert agent.node.host_ips() == ()
        assert agent.node_manager is not None
        for version, ip in enumerate(("192.0.2.1", "192.0.2.7")):
            node = core_v1.Node(
                metadata=meta_v1.ObjectMeta(name="node-1", resourceVersion=str(version)),
                status=core_v1.NodeStatus(addresses=[core_v1.NodeAddress(type="InternalIP", address=ip)]),
            )
            agent.node_manager.on_replace([node])
            assert agent.node.host_ips() == (ip,)
