"""The parts as they are connected: what one of them learns, the others see."""

import asyncio
import json
from pathlib import Path

from structlog.testing import capture_logs

from kubelet_py.api import codec, core_v1, meta_v1
from kubelet_py.app.agent import Agent
from kubelet_py.app.node_parts import ApiClients, read_identity
from kubelet_py.config import load
from tests.fakes.api_clients import client_for
from tests.fakes.api_server import FakeApiServer
from tests.fakes.runtime import FakeRuntimeClient
from tests.fakes.waiting import background, eventually
from tests.unit.kubelet_py.app.test_run import a_config

GPU = "nvidia.com/gpu"


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


async def test_devices_of_the_former_kubelet_are_advertised_and_given_to_nobody(tmp_path: Path) -> None:
    """Its plugins are not asked any more, and a pod that the scheduler sends for one would run without it."""
    settings = await asyncio.to_thread(load, a_config(tmp_path))
    directory = Path(settings.flags.root_dir) / "device-plugins"
    await asyncio.to_thread(directory.mkdir, parents=True)
    identity = await asyncio.to_thread(read_identity, settings)
    assert identity.orphaned_devices == ()
    checkpoint = directory / "kubelet_internal_checkpoint"
    await asyncio.to_thread(checkpoint.write_text, "cut o")
    with capture_logs() as logs:
        identity = await asyncio.to_thread(read_identity, settings)
    assert identity.orphaned_devices == ()
    assert [entry["event"] for entry in logs] == ["device_checkpoint_not_read"]
    content = json.dumps({"Data": {"PodDeviceEntries": None, "RegisteredDevices": {GPU: ["d1"]}}, "Checksum": 1})
    await asyncio.to_thread(checkpoint.write_text, content)
    with capture_logs() as logs:
        identity = await asyncio.to_thread(read_identity, settings)
    assert [(entry["event"], entry["resources"]) for entry in logs] == [("devices_without_plugins", (GPU,))]
    async with FakeApiServer.running() as server, client_for(server.url) as api:
        before = {"capacity": {GPU: "4", "a.com/dongle": "2"}, "allocatable": {GPU: "4", "a.com/dongle": "2"}}
        server.put("nodes", {"metadata": {"name": "node-1"}, "spec": {}, "status": before})
        agent = Agent(settings, identity, FakeRuntimeClient(), ApiClients(api, api, api))
        manager = agent.node_manager
        assert manager is not None
        assert str(agent.node_state().allocatable[GPU]) == "0", "no object seen yet"
        manager.on_replace([codec.from_builtins(core_v1.Node, server.find("nodes", "node-1"))])
        allocatable = agent.node_state().allocatable
        assert (str(allocatable[GPU]), allocatable["a.com/dongle"]) == ("0", "2")

        def status() -> core_v1.NodeStatus:
            return codec.from_builtins(core_v1.Node, server.find("nodes", "node-1")).status or core_v1.NodeStatus()

        async with background(manager.run()):
            await eventually(lambda: (status().allocatable or {}).get("cpu"))
    assert [(amounts or {})[GPU] for amounts in (status().capacity, status().allocatable)] == ["0", "0"]
    assert (status().allocatable or {})["a.com/dongle"] == "2"
