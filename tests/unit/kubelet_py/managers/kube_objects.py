"""Nodes and pods for the tests of the managers that talk to the API server."""

from collections.abc import Mapping

from kubelet_py.api import codec, core_v1, meta_v1
from kubelet_py.api.pod import CONFIG_HASH_ANNOTATION, CONFIG_SOURCE_ANNOTATION
from kubelet_py.core.node_rules import MachineInfo
from tests.fakes.api_server import FakeApiServer, Json

NODE = "n1"
MACHINE = MachineInfo(
    machine_id="m",
    system_uuid="s",
    boot_id="boot-1",
    kernel_version="6.1",
    os_image="Debian",
    cores=4,
    memory_bytes=8 << 30,
    ephemeral_storage_bytes=100 << 30,
)


def put_pod(server: FakeApiServer, name: str, phase: str = "Pending", **metadata: object) -> core_v1.Pod:
    """A pod of our node at the server, as the agent gets it."""
    body: Json = {
        "metadata": {"name": name, "namespace": "default"} | metadata,
        "spec": {"nodeName": NODE, "containers": [{"name": "app", "image": "i"}]},
        "status": {"phase": phase, "qosClass": "BestEffort"},
    }
    return codec.from_builtins(core_v1.Pod, server.put("pods", body))


def stored_pod(server: FakeApiServer, name: str) -> core_v1.Pod:
    """A pod of the server as it is now."""
    return codec.from_builtins(core_v1.Pod, server.find("pods", name, "default"))


def static_pod(name: str, hash_: str = "h1", annotations: Mapping[str, str] | None = None) -> core_v1.Pod:
    """A pod of the manifest directory."""
    marks = {CONFIG_SOURCE_ANNOTATION: "file", CONFIG_HASH_ANNOTATION: hash_} | dict(annotations or {})
    return core_v1.Pod(
        metadata=meta_v1.ObjectMeta(name=name, namespace="default", uid=hash_, annotations=marks),
        spec=core_v1.PodSpec(nodeName=NODE, containers=[core_v1.Container(name="app", image="i")]),
    )


def status(phase: str, **conditions: str) -> core_v1.PodStatus:
    """A status with these conditions."""
    return core_v1.PodStatus(
        phase=phase, conditions=[core_v1.PodCondition(type=kind, status=value) for kind, value in conditions.items()]
    )
