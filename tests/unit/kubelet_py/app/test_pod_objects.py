"""What pods refer to at the API server, and what holds while it is away."""

from collections.abc import AsyncIterator

import pytest

from kubelet_py.api import codec, core_v1, meta_v1
from kubelet_py.api.pod import uid_of
from kubelet_py.app.pod_objects import ApiObjects
from kubelet_py.core.pod_certificates import SourceKey
from kubelet_py.core.volume_payload import PayloadError
from kubelet_py.errors import SyncError
from kubelet_py.kube.objects import ServiceStore, config_maps, secrets
from kubelet_py.kube.trust_bundles import TrustBundleStore
from kubelet_py.managers.pod_certificates import PodCertificates
from kubelet_py.managers.service_account_tokens import ServiceAccountTokens
from tests.fakes.api_clients import client_for
from tests.fakes.api_server import FakeApiServer
from tests.fakes.waiting import background, eventually
from tests.unit.kubelet_py.sync.rig import Node, a_pod

NODE_V1 = "/apis/node.k8s.io/v1"


@pytest.fixture
async def server() -> AsyncIterator[FakeApiServer]:
    async with FakeApiServer.running() as running:
        yield running


@pytest.fixture
async def objects(server: FakeApiServer) -> AsyncIterator[ApiObjects]:
    async with client_for(server.url) as client:
        yield ApiObjects(
            client,
            Node(),
            config_maps(client),
            secrets(client),
            ServiceStore(client),
            ServiceAccountTokens(client),
        )


async def test_a_runtime_class_is_known_while_the_api_server_is_away(
    server: FakeApiServer, objects: ApiObjects
) -> None:
    """A pod whose sandbox has died is started again; a class that was never seen, or is gone, is an error."""
    pod = a_pod(runtimeClassName="fast")
    assert await objects.runtime_handler(a_pod()) == ""
    with pytest.raises(SyncError, match='no runtime class for "fast" is known'):
        await objects.runtime_handler(pod)
    server.put("runtimeclasses", {"metadata": {"name": "fast"}, "handler": "runc-fast"}, prefix=NODE_V1)
    assert await objects.runtime_handler(pod) == "runc-fast"
    await server.stop()
    assert await objects.runtime_handler(pod) == "runc-fast"
    with pytest.raises(SyncError, match='failed to get runtime class "other"'):
        await objects.runtime_handler(a_pod(runtimeClassName="other"))
    await server.start()
    server.remove("runtimeclasses", "fast", prefix=NODE_V1)
    with pytest.raises(SyncError, match='no runtime class for "fast" is known'):
        await objects.runtime_handler(pod)


async def test_bundles_are_at_hand_while_a_pod_has_a_volume_of_them(server: FakeApiServer) -> None:
    server.put(
        "clustertrustbundles",
        {"metadata": {"name": "roots"}, "spec": {"trustBundle": ""}},
        prefix="/apis/certificates.k8s.io/v1",
    )
    sources = [{"configMap": {"name": "c"}}, {"clusterTrustBundle": {"name": "roots", "path": "ca.pem"}}]
    volumes = [{"name": "disk", "emptyDir": {}}, {"name": "ca", "projected": {"sources": sources}}]
    volumes.append({"name": "none", "projected": {}})
    pod = a_pod(volumes=codec.from_builtins(list[core_v1.Volume], volumes))
    async with client_for(server.url) as client:
        store = TrustBundleStore(client)
        objects = ApiObjects(
            client,
            Node(),
            config_maps(client),
            secrets(client),
            ServiceStore(client),
            ServiceAccountTokens(client),
            store,
        )
        async with background(objects.run()):
            objects.watch_pod(a_pod(uid="other"))
            await eventually(lambda: server.asked("GET", "services"))
            assert not server.asked("GET", "clustertrustbundles")
            objects.watch_pod(pod)
            assert set(await objects.trust_bundles()) == {"roots"}
            objects.forget_pod(uid_of(pod))
            await eventually(lambda: not store.is_watching)


async def test_certificates_are_asked_for_while_a_pod_has_a_volume_of_them(server: FakeApiServer) -> None:
    source = {"podCertificate": {"signerName": "example.com/s", "keyType": "ED25519", "keyPath": "key"}}
    volumes = codec.from_builtins(list[core_v1.Volume], [{"name": "tls", "projected": {"sources": [source]}}])
    pod, name = a_pod(volumes=volumes), "podcertificaterequests"
    node = core_v1.Node(metadata=meta_v1.ObjectMeta(name="node-1", uid="u"))
    async with client_for(server.url) as client:
        certificates = PodCertificates(client, "node-1", lambda: node, lambda *event: None)
        objects = ApiObjects(
            client,
            Node(),
            config_maps(client),
            secrets(client),
            ServiceStore(client),
            ServiceAccountTokens(client),
            certificates=certificates,
        )
        async with background(objects.run()):
            objects.watch_pod(a_pod(uid="other"))
            await eventually(lambda: server.asked("GET", "services"))
            assert not server.asked("GET", name)
            objects.watch_pod(pod)
            await eventually(lambda: server.asked("GET", name))
            with pytest.raises(PayloadError, match="credential bundle is not issued yet"):
                await objects.pod_certificate("other", SourceKey("tls", 0))
            objects.forget_pod(uid_of(pod))
            await eventually(lambda: not certificates.is_watching)


async def test_a_node_whose_feature_gate_is_off_says_so(objects: ApiObjects) -> None:
    objects.watch_pod(a_pod())
    objects.forget_pod("uid")
    with pytest.raises(PayloadError, match="the feature gate ClusterTrustBundleProjection is off"):
        await objects.trust_bundles()
    with pytest.raises(PayloadError, match="the feature gate PodCertificateRequest is off"):
        await objects.pod_certificate("uid", SourceKey("tls", 0))
