"""The node registers, says when it is Ready, and reports what changes."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime

import pytest

from kubelet_py.api import codec, core_v1, meta_v1
from kubelet_py.core.node_rules import MachineInfo, NodeSettings, RuntimeState, is_ready
from kubelet_py.errors import ApiNotFound
from kubelet_py.managers.lease import LEASE_NAMESPACE, LeaseManager
from kubelet_py.managers.node import NodeClients, NodeInputs, NodeManager
from tests.fakes.api_clients import client_for
from tests.fakes.api_server import FakeApiServer, Json
from tests.fakes.waiting import background, eventually
from tests.unit.kubelet_py.managers.kube_objects import MACHINE, NODE

UP = RuntimeState("docker://20.10", ())
DOWN = RuntimeState("docker://20.10", ("container runtime is down",))
LEASES = "/apis/coordination.k8s.io/v1"


@dataclass
class Host:
    """What the node manager is told."""

    runtime: RuntimeState = UP
    machine: MachineInfo = MACHINE
    events: list[tuple[str, str]] = field(default_factory=list)

    def inputs(self) -> NodeInputs:
        addresses = (core_v1.NodeAddress(type="InternalIP", address="10.0.0.1"),)
        return NodeInputs(machine=lambda: self.machine, addresses=lambda: addresses, runtime=lambda: self.runtime)

    def record(self, about: core_v1.ObjectReference, type_: str, reason: str, message: str) -> None:
        assert about.kind == "Node"
        self.events.append((type_, reason))

    @property
    def reasons(self) -> list[str]:
        return [reason for _, reason in self.events]


@pytest.fixture
async def server() -> AsyncIterator[FakeApiServer]:
    async with FakeApiServer.running() as running:
        yield running


def settings(**changes: object) -> NodeSettings:
    return replace(NodeSettings(name=NODE, status_update_seconds=0.02, lease_duration_seconds=1), **changes)  # type: ignore[arg-type] # any field


@asynccontextmanager
async def managing(server: FakeApiServer, host: Host, **changes: object) -> AsyncIterator[NodeManager]:
    async with client_for(server.url) as client:
        manager = NodeManager(
            NodeClients(client, client), settings(**changes), host.inputs(), host, random_fraction=lambda: 0.5
        )
        async with background(manager.run()):
            yield manager


def node_at(server: FakeApiServer) -> core_v1.Node:
    return codec.from_builtins(core_v1.Node, server.find("nodes", NODE))


def ready_at(server: FakeApiServer) -> bool:
    return server.find("nodes", NODE) is not None and is_ready(node_at(server).status)


async def test_a_new_node_is_created_with_its_status(server: FakeApiServer) -> None:
    host = Host()
    async with managing(server, host) as manager:
        await asyncio.wait_for(manager.registered.wait(), 30)
        await eventually(lambda: ready_at(server))
    assert host.reasons[0] == "Starting"
    assert {"NodeHasSufficientMemory", "NodeHasNoDiskPressure", "NodeHasSufficientPID"} <= set(host.reasons)
    assert (server.find("nodes", NODE) or {})["metadata"]["labels"]["kubernetes.io/os"] == "linux"


async def test_a_node_that_is_there_is_adopted_and_keeps_its_own_labels(server: FakeApiServer) -> None:
    """Of --node-labels only well-known ones are set anew."""
    labels = {"mine": "1", "pool": "b"}
    server.put("nodes", {"metadata": {"name": NODE, "labels": labels, "annotations": {"a": "b"}}, "spec": {}})
    zone = {"topology.kubernetes.io/zone": "z"}
    async with managing(server, Host(), labels={"tier": "edge", "pool": "a", **zone}):
        await eventually(lambda: ready_at(server))
    metadata = node_at(server).metadata
    assert metadata is not None
    assert metadata.labels is not None
    assert {**labels, **zone}.items() <= metadata.labels.items()
    assert "tier" not in metadata.labels
    assert metadata.annotations is not None
    assert metadata.annotations["volumes.kubernetes.io/controller-managed-attach-detach"] == "true"


async def test_registration_is_tried_until_the_server_answers(server: FakeApiServer) -> None:
    await server.stop()
    async with managing(server, Host()) as manager:
        await asyncio.sleep(0.05)
        assert not manager.registered.is_set()
        await server.start()
        await eventually(lambda: ready_at(server))


async def test_a_runtime_that_comes_up_makes_the_node_ready_at_once(server: FakeApiServer) -> None:
    """Within the fast poll, long before the next tick."""
    host = Host(runtime=DOWN)
    async with managing(server, host, status_update_seconds=1000.0):
        await eventually(lambda: server.find("nodes", NODE))
        await asyncio.sleep(0.05)
        assert not ready_at(server)
        host.runtime = UP
        await eventually(lambda: host.reasons[-1] == "NodeReady")
    assert ready_at(server)


async def test_a_runtime_that_goes_down_shows_with_its_reason(server: FakeApiServer) -> None:
    host = Host()
    async with managing(server, host):
        await eventually(lambda: ready_at(server))
        host.runtime = DOWN
        await eventually(lambda: host.reasons[-1] == "NodeNotReady")
    conditions = {each.type: each for each in (node_at(server).status or core_v1.NodeStatus()).conditions or []}
    assert conditions["Ready"].message == "container runtime is down"
    assert conditions["Ready"].reason == "KubeletNotReady"


async def test_nothing_changed_is_nothing_posted(server: FakeApiServer) -> None:
    async with managing(server, Host()):
        await eventually(lambda: server.asked("PATCH", "nodes"))  # the first is sent whatever it says
        posts = len(server.asked("PATCH", "nodes"))
        await asyncio.sleep(0.2)
        assert len(server.asked("PATCH", "nodes")) == posts


async def test_an_unchanged_status_is_posted_when_the_report_is_due(server: FakeApiServer) -> None:
    async with managing(server, Host(), status_report_seconds=0.01):
        await eventually(lambda: len(server.asked("PATCH", "nodes")) >= 3)


async def test_what_others_write_into_the_status_stays(server: FakeApiServer) -> None:
    host = Host()
    async with managing(server, host):
        await eventually(lambda: ready_at(server))
        body: Json = dict(server.find("nodes", NODE) or {})
        foreign = [*body["status"]["conditions"], {"type": "KernelDeadlock", "status": "False"}]
        body["status"] = body["status"] | {
            "conditions": foreign,
            "volumesAttached": [{"name": "v", "devicePath": "/d"}],
        }
        server.put("nodes", body)
        await asyncio.sleep(0.05)
        host.runtime = DOWN
        await eventually(lambda: not ready_at(server))
    status = node_at(server).status
    assert status is not None
    assert "KernelDeadlock" in {each.type for each in status.conditions or []}
    assert status.volumesAttached == [core_v1.AttachedVolume(name="v", devicePath="/d")]


async def test_an_os_label_that_somebody_changed_is_set_right(server: FakeApiServer) -> None:
    async with managing(server, Host()):
        await eventually(lambda: ready_at(server))
        body: Json = dict(server.find("nodes", NODE) or {})
        body["metadata"] = body["metadata"] | {"labels": body["metadata"]["labels"] | {"kubernetes.io/os": "dos"}}
        server.put("nodes", body)
        await eventually(
            lambda: (server.find("nodes", NODE) or {})["metadata"]["labels"]["kubernetes.io/os"] == "linux"
        )


@pytest.mark.parametrize("register", [True, False])
async def test_the_address_for_the_cloud_is_set_right_with_the_next_status(
    server: FakeApiServer, register: bool
) -> None:
    """Also on a node that somebody else has registered; other annotations stay."""
    name = "alpha.kubernetes.io/provided-node-ip"

    def annotations() -> Json:
        return dict((server.find("nodes", NODE) or {})["metadata"].get("annotations") or {})

    async def annotate(manager: NodeManager, changes: Json) -> None:
        """Somebody's change, and the manager has seen it."""
        body: Json = dict(server.find("nodes", NODE) or {})
        body["metadata"] = body["metadata"] | {"annotations": changes}
        server.put("nodes", body)
        await eventually(
            lambda: (
                manager.node is not None
                and manager.node.metadata is not None
                and manager.node.metadata.annotations == changes
            )
        )

    host = Host()
    server.put("nodes", {"metadata": {"name": NODE, "annotations": {"a": "b"}}, "spec": {}})
    async with managing(server, host, register=register, external_cloud=True, provided_ips=("10.0.0.1",)) as manager:
        await eventually(lambda: annotations().get(name) == "10.0.0.1" and ready_at(server))
        await annotate(manager, {"a": "b"})
        host.runtime = DOWN
        await eventually(lambda: annotations() == {"a": "b", name: "10.0.0.1"})
    host.runtime = UP
    async with managing(server, host, register=register) as manager:
        await eventually(lambda: name not in annotations() and ready_at(server))
        await annotate(manager, {"a": "b", name: "10.0.0.9"})
        host.runtime = DOWN
        await eventually(lambda: annotations() == {"a": "b"})


async def test_a_cordon_is_an_event(server: FakeApiServer) -> None:
    host = Host()
    async with managing(server, host):
        await eventually(lambda: ready_at(server))
        for unschedulable, reason in ((True, "NodeNotSchedulable"), (False, "NodeSchedulable")):
            body: Json = dict(server.find("nodes", NODE) or {})
            server.put("nodes", body | {"spec": {"unschedulable": unschedulable}})
            await eventually(lambda reason=reason: host.reasons[-1] == reason)  # type: ignore[misc] # the loop's value


async def test_a_node_object_that_is_deleted_is_registered_again(server: FakeApiServer) -> None:
    """Until then the one of before still says what the node is."""
    async with managing(server, Host()) as manager:
        await eventually(lambda: ready_at(server) and manager.node)
        server.remove("nodes", NODE)
        await eventually(lambda: ready_at(server))
        assert manager.last_seen is not None


async def test_a_look_at_the_server_shows_what_the_watch_has_not_told(server: FakeApiServer) -> None:
    async with managing(server, Host()) as manager:
        await eventually(lambda: ready_at(server) and manager.node)
        body: Json = dict(server.find("nodes", NODE) or {})
        server.put("nodes", body | {"metadata": body["metadata"] | {"labels": {"disk": "ssd"}}})
        await manager.look_at_server()
        assert manager.node is not None
        assert ((manager.node.metadata or meta_v1.ObjectMeta()).labels or {})["disk"] == "ssd"
        server.remove("nodes", NODE)
        with pytest.raises(ApiNotFound):
            await manager.look_at_server()


async def test_a_node_object_whose_deletion_no_watch_has_seen_is_registered_again(server: FakeApiServer) -> None:
    """The list that begins the next watch lacks it, long before the next report is due."""
    async with managing(server, Host()):
        await eventually(lambda: server.asked("GET", "nodes") and server.asked("PATCH", "nodes"))
        server.end_watches()
        server.remove("nodes", NODE)
        server.forget_history()
        await eventually(lambda: ready_at(server))


async def test_a_reboot_is_said_once(server: FakeApiServer) -> None:
    async with managing(server, Host()):
        await eventually(lambda: ready_at(server))
    host = Host(machine=replace(MACHINE, boot_id="boot-2"))
    async with managing(server, host):
        await eventually(lambda: "Rebooted" in host.reasons)
        await asyncio.sleep(0.1)
    assert host.events.count(("Warning", "Rebooted")) == 1


@asynccontextmanager
async def leasing(server: FakeApiServer, node: core_v1.Node | None = None) -> AsyncIterator[None]:
    async with client_for(server.url) as client:
        manager = LeaseManager(client, settings(), lambda: node, random_fraction=lambda: 0.0)
        async with background(manager.run()):
            yield


def lease_at(server: FakeApiServer) -> Json | None:
    return server.find("leases", NODE, LEASE_NAMESPACE, prefix=LEASES)


def renewed_at(server: FakeApiServer) -> datetime:
    lease = lease_at(server)
    return datetime.fromisoformat(lease["spec"]["renewTime"]) if lease else datetime.min.replace(tzinfo=UTC)


async def test_the_lease_is_made_and_renewed_and_owned_by_the_node(server: FakeApiServer) -> None:
    server.put("nodes", {"metadata": {"name": NODE, "uid": "u1"}})
    async with leasing(server, node_at(server)):
        await eventually(lambda: lease_at(server))
        first = renewed_at(server)
        await eventually(lambda: renewed_at(server) > first)
    lease = lease_at(server) or {}
    assert lease["metadata"]["ownerReferences"] == [{"apiVersion": "v1", "kind": "Node", "name": NODE, "uid": "u1"}]
    assert (lease["spec"]["holderIdentity"], lease["spec"]["leaseDurationSeconds"]) == (NODE, 1)


async def test_the_lease_comes_back_when_it_or_the_server_was_away(server: FakeApiServer) -> None:
    async with leasing(server):
        await eventually(lambda: lease_at(server))
        server.remove("leases", NODE, LEASE_NAMESPACE, prefix=LEASES)
        await eventually(lambda: lease_at(server))
        await server.stop()
        last = renewed_at(server)
        await asyncio.sleep(0.3)
        await server.start()
        await eventually(lambda: renewed_at(server) > last)


async def test_a_lease_that_somebody_else_wrote_is_read_again_and_renewed(server: FakeApiServer) -> None:
    async with leasing(server):
        await eventually(lambda: lease_at(server))
        server.put("leases", dict(lease_at(server) or {}), prefix=LEASES)
        last = renewed_at(server)
        await eventually(lambda: renewed_at(server) > last)
