"""The managers against kube-apiserver 1.37, with a node's rights and no more (Node authorizer, NodeRestriction)."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from typing import Any

import pytest

from kubelet_py.api import codec, core_v1
from kubelet_py.api.pod import is_mirror, uid_of
from kubelet_py.core.node_rules import NodeSettings, Pressure, RuntimeState, node_reference
from kubelet_py.core.source_merge import PodSet
from kubelet_py.errors import ApiForbidden
from kubelet_py.kube import resources
from kubelet_py.kube.client import ApiClient, ClientSettings
from kubelet_py.kube.connection import Connection
from kubelet_py.kube.kubeconfig import load_kubeconfig
from kubelet_py.kube.objects import ObjectKey, ServiceStore, config_maps
from kubelet_py.kube.pods import ApiPodSource
from kubelet_py.managers.events import EventRecorder
from kubelet_py.managers.lease import LeaseManager
from kubelet_py.managers.mirror_pods import MirrorPodManager
from kubelet_py.managers.node import NodeClients, NodeInputs, NodeManager
from kubelet_py.managers.status import StatusManager
from kubelet_py.managers.status.merge import status_changes
from tests.fakes.waiting import background, eventually
from tests.integration.kube.conftest import kubeconfig_of
from tests.lab.cluster import Cluster
from tests.unit.kubelet_py.managers.kube_objects import MACHINE, static_pod, status

pytestmark = pytest.mark.lab

UP = RuntimeState("docker://20.10", ())


@dataclass
class Node:
    """A node made of the parts under test."""

    name: str
    client: ApiClient
    manager: NodeManager
    statuses: StatusManager
    mirrors: MirrorPodManager
    recorder: EventRecorder
    pods: dict[str, core_v1.Pod] = field(default_factory=dict)
    runtime: RuntimeState = UP
    pressure: Pressure = field(default_factory=Pressure)

    def deliver(self, pod_set: PodSet) -> None:
        self.pods = {(pod.metadata and pod.metadata.name) or "": pod for pod in pod_set.pods}
        self.statuses.on_api_pods(pod_set.fresh)
        if pod_set.mirrors_may_differ:
            mirrors = [pod for pod in pod_set.pods if is_mirror(pod)]
            self.statuses.on_mirror_pods(mirrors)
            self.mirrors.on_mirror_pods(mirrors)


@asynccontextmanager
async def running(cluster: Cluster, name: str) -> AsyncIterator[Node]:
    connection = Connection(load_kubeconfig(kubeconfig_of(cluster, name)))
    settings = replace(NodeSettings(name=name), status_update_seconds=0.5, lease_duration_seconds=4)
    async with contextlib.AsyncExitStack() as stack:
        main, events, heartbeat = [
            await stack.enter_async_context(ApiClient(connection, ClientSettings("kubelet-py-test", qps=qps)))
            for qps in (50.0, 50.0, 0.0)
        ]
        recorder = EventRecorder(events, name)
        inputs = NodeInputs(
            machine=lambda: MACHINE,
            addresses=lambda: (core_v1.NodeAddress(type="InternalIP", address="10.200.0.1"),),
            runtime=lambda: node.runtime,
            pressure=lambda: node.pressure,
        )
        manager = NodeManager(NodeClients(main, heartbeat), settings, inputs, recorder)
        mirrors = MirrorPodManager(main, lambda: manager.node, manager.registered)
        node = Node(name, main, manager, StatusManager(main), mirrors, recorder)
        source = ApiPodSource(main, name, manager.registered, node.deliver)
        lease = LeaseManager(heartbeat, settings, lambda: manager.node)
        parts: list[Any] = [manager, node.statuses, mirrors, recorder, source, lease]
        async with background(*(part.run() for part in parts)):
            await asyncio.wait_for(manager.registered.wait(), 60)
            yield node


async def ask(cluster: Cluster, path: str) -> Any:
    """An object as the admin sees it, None when it is not there."""
    code, answer = await asyncio.to_thread(cluster.request, "GET", path)
    return answer if code == 200 else None


async def create(cluster: Cluster, path: str, body: Any) -> Any:
    return await asyncio.to_thread(cluster.create, path, body)


def pod_body(name: str, node: str, **spec: Any) -> Any:
    base = {"nodeName": node, "containers": [{"name": "app", "image": "registry.k8s.io/pause:3.10"}]}
    return {"metadata": {"name": name}, "spec": base | {"tolerations": [{"operator": "Exists"}]} | spec}


async def until(cluster: Cluster, path: str, wanted: Any, seconds: float = 60.0) -> Any:
    """Wait until the admin sees what is wanted."""
    async with asyncio.timeout(seconds):
        while True:
            found = await ask(cluster, path)
            if wanted(found):
                return found
            await asyncio.sleep(0.1)


PODS = "/api/v1/namespaces/default/pods"


async def test_a_node_registers_becomes_ready_and_holds_its_lease(cluster: Cluster) -> None:
    async with running(cluster, "n-reg") as node:

        def ready(found: Any) -> bool:
            conditions = found["status"]["conditions"] if found else []
            return {c["type"]: c["status"] for c in conditions}.get("Ready") == "True"

        found = await until(cluster, "/api/v1/nodes/n-reg", ready)
        assert found["status"]["allocatable"]["memory"] == "8Gi"
        assert found["status"]["nodeInfo"]["containerRuntimeVersion"] == "docker://20.10"
        lease_path = "/apis/coordination.k8s.io/v1/namespaces/kube-node-lease/leases/n-reg"
        lease = await until(cluster, lease_path, lambda found: found)
        await until(cluster, lease_path, lambda found: found["spec"]["renewTime"] > lease["spec"]["renewTime"])
        node.runtime = RuntimeState("", ("container runtime is down",))
        node.manager.look_now()
        await until(cluster, "/api/v1/nodes/n-reg", lambda found: not ready(found))
        events = "/api/v1/namespaces/default/events?fieldSelector=involvedObject.name=n-reg"
        for reason in ("Starting", "NodeNotReady"):
            await until(cluster, events, lambda found, reason=reason: reason in _reasons(found))


def _reasons(events: Any) -> set[str]:
    return {event["reason"] for event in events["items"]} if events else set()


async def test_a_restarted_node_adopts_its_object(cluster: Cluster) -> None:
    async with running(cluster, "n-again"):
        before = await until(cluster, "/api/v1/nodes/n-again", lambda found: found)
    async with running(cluster, "n-again"):
        after = await ask(cluster, "/api/v1/nodes/n-again")
    assert after["metadata"]["uid"] == before["metadata"]["uid"]


async def test_a_bound_pod_arrives_reports_and_goes(cluster: Cluster) -> None:
    async with running(cluster, "n-pod") as node:
        await create(cluster, PODS, pod_body("mine", "n-pod"))
        await create(cluster, PODS, pod_body("other", "n-reg"))
        await eventually(lambda: node.pods, seconds=60)
        assert set(node.pods) == {"mine"}
        pod = node.pods["mine"]
        running_status = status("Running", Ready="True", ContainersReady="True")
        running_status.podIP = "10.201.0.5"
        running_status.podIPs = [core_v1.PodIP(ip="10.201.0.5")]
        node.statuses.set_status(pod, running_status)
        found = await until(cluster, f"{PODS}/mine", lambda found: found["status"]["phase"] == "Running")
        assert found["status"]["podIPs"] == [{"ip": "10.201.0.5"}]
        assert found["status"]["qosClass"] == "BestEffort"
        await asyncio.to_thread(cluster.request, "DELETE", f"{PODS}/mine", {"gracePeriodSeconds": 30})
        await eventually(lambda: _terminating(node.pods["mine"]), seconds=60)
        node.statuses.set_status(node.pods["mine"], status("Succeeded", Ready="False"))
        node.statuses.finish(uid_of(pod))
        await until(cluster, f"{PODS}/mine", lambda found: found is None)
        await eventually(lambda: not node.pods, seconds=60)


def _terminating(pod: core_v1.Pod) -> bool:
    return pod.metadata is not None and pod.metadata.deletionTimestamp is not None


async def test_what_the_server_keeps_in_other_words_is_no_change(cluster: Cluster) -> None:
    """A status with all that a container's can have, written once, is not written again."""
    full = {
        "name": "app",
        "image": "registry.k8s.io/pause:3.10",
        "imageID": "sha256:ee",
        "containerID": "containerd://1",
        "ready": True,
        "started": True,
        "restartCount": 1,
        "state": {"running": {"startedAt": "2026-01-01T00:00:00Z"}},
        "lastState": {"terminated": {"exitCode": 1, "startedAt": "2026-01-01T00:00:00Z"}},
        "allocatedResources": {"cpu": "100m", "memory": "64Mi"},
        "resources": {"limits": {"cpu": "1", "memory": "1Gi"}, "requests": {"cpu": "1500m", "memory": "64Mi"}},
        "user": {"linux": {"uid": 0, "gid": 0, "supplementalGroups": [0, 10]}},
        "volumeMounts": [{"name": "v", "mountPath": "/v", "readOnly": True, "recursiveReadOnly": "Disabled"}],
    }
    plain = {"name": "app", "image": "i", "imageID": "", "ready": False, "restartCount": 0}
    waiting = plain | {"state": {"waiting": {"reason": "ContainerCreating"}}}
    ended = plain | {"state": {"terminated": {"exitCode": 0, "containerID": "containerd://1"}}, "resources": {}}
    async with running(cluster, "n-words") as node:
        await create(cluster, PODS, pod_body("words", "n-words"))
        await eventually(lambda: "words" in node.pods, seconds=60)
        for number, container in enumerate((waiting, full, ended, plain)):
            fields = {
                "phase": "Running",
                "conditions": [{"type": "Ready", "status": "True", "observedGeneration": number + 1}],
                "containerStatuses": [container],
                "podIPs": [{"ip": "10.0.0.1"}, {"ip": "fd00::1"}],
                "podIP": "10.0.0.1",
                "resources": {"requests": {"cpu": "1500m"}},
            }
            wanted = codec.from_builtins(core_v1.PodStatus, fields)
            node.statuses.set_status(node.pods["words"], wanted)
            assert await node.statuses.flush(60)
            found = await ask(cluster, f"{PODS}/words")
            assert status_changes(codec.from_builtins(core_v1.PodStatus, found["status"]), wanted) == {}


async def test_a_pod_replaced_under_its_name_keeps_its_own_status(cluster: Cluster) -> None:
    async with running(cluster, "n-same") as node:
        await create(cluster, PODS, pod_body("same", "n-same"))
        await eventually(lambda: "same" in node.pods, seconds=60)
        old = node.pods["same"]
        await asyncio.to_thread(cluster.request, "DELETE", f"{PODS}/same", {"gracePeriodSeconds": 0})
        await create(cluster, PODS, pod_body("same", "n-same"))
        node.statuses.set_status(old, status("Failed"))
        node.statuses.finish(uid_of(old))
        assert await node.statuses.flush(60)
        found = await ask(cluster, f"{PODS}/same")
        assert found["status"]["phase"] == "Pending"
        assert found["metadata"]["uid"] != uid_of(old)


async def test_a_static_pod_is_mirrored_and_reports_through_its_mirror(cluster: Cluster) -> None:
    async with running(cluster, "n-static") as node:
        static = static_pod("web-n-static")
        assert static.spec is not None
        static.spec.nodeName = "n-static"
        node.mirrors.on_static_pods([static], complete=True)
        node.statuses.set_status(static, status("Running", Ready="True"))
        path = f"{PODS}/web-n-static"
        first = await until(cluster, path, lambda found: found and found["status"].get("phase") == "Running")
        assert first["metadata"]["ownerReferences"][0]["kind"] == "Node"
        await asyncio.to_thread(cluster.request, "DELETE", path)
        again = await until(cluster, path, lambda found: found and found["metadata"]["uid"] != first["metadata"]["uid"])
        assert again["metadata"]["annotations"]["kubernetes.io/config.mirror"] == "h1"
        await until(cluster, path, lambda found: found["status"].get("phase") == "Running")
        node.mirrors.on_static_pods([], complete=True)
        await until(cluster, path, lambda found: found is None)


async def test_config_maps_of_a_pod_are_watched_with_a_nodes_rights(cluster: Cluster) -> None:
    maps = "/api/v1/namespaces/default/configmaps"
    async with running(cluster, "n-cm") as node:
        await create(cluster, maps, {"metadata": {"name": "settings"}, "data": {"a": "1"}})
        volume = {"name": "v", "configMap": {"name": "settings"}}
        await create(cluster, PODS, pod_body("with-map", "n-cm", volumes=[volume]))
        await eventually(lambda: "with-map" in node.pods, seconds=60)
        changed = asyncio.Event()
        store = config_maps(node.client, on_change=lambda pod_uid, stimulus: changed.set())
        async with background(store.run()):
            await asyncio.sleep(0)
            store.register("p", [ObjectKey("default", "settings"), ObjectKey("default", "none")])
            assert (await store.get("default", "settings")).data == {"a": "1"}
            assert store.watches == 1
            await asyncio.to_thread(cluster.request, "PATCH", f"{maps}/settings", {"data": {"a": "2"}})
            await asyncio.wait_for(changed.wait(), 60)
            assert (await store.get("default", "settings")).data == {"a": "2"}
        services = ServiceStore(node.client)
        async with background(services.run()):
            await asyncio.wait_for(services.synced.wait(), 60)
            assert [each.metadata and each.metadata.name for each in services.services("default")] == ["kubernetes"]
        # What the status manager must know: a pod that is not there is none of this node's business.
        with pytest.raises(ApiForbidden):
            await node.client.get(resources.PODS, "nobody", "default")


async def test_a_burst_of_pods_and_an_outage_lose_nothing(cluster: Cluster) -> None:
    """Statuses and events said while the API server is dead are there after it is back; the watch goes on."""
    names = [f"burst-{number}" for number in range(30)]
    async with running(cluster, "n-burst") as node:
        for name in names:
            await create(cluster, PODS, pod_body(name, "n-burst"))
        await eventually(lambda: len(node.pods) == len(names), seconds=60)
        for pod in node.pods.values():
            node.statuses.set_status(pod, status("Running", Ready="True"))
        assert await node.statuses.flush(60)
        await asyncio.to_thread(cluster.processes["kube-apiserver"].kill)
        for pod in node.pods.values():
            node.statuses.set_status(pod, status("Running", Ready="False"))
        node.recorder.record(node_reference("n-burst"), "Normal", "DuringOutage", "said while nobody listened")
        await eventually(lambda: not node.client.reachable, seconds=60)
        await asyncio.to_thread(cluster.start_component, "kube-apiserver")
        assert await node.statuses.flush(120)
        for name in names:
            found = await until(cluster, f"{PODS}/{name}", lambda found: found)
            conditions = {c["type"]: c["status"] for c in found["status"]["conditions"]}
            assert conditions["Ready"] == "False"
        await create(cluster, PODS, pod_body("after", "n-burst"))
        await eventually(lambda: "after" in node.pods, seconds=60)
        path = "/api/v1/namespaces/default/events?fieldSelector=reason=DuringOutage"
        await until(cluster, path, lambda found: found and found["items"])
