"""The bundles are at hand while a pod needs any; pods hear of changes to theirs."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from kubelet_py.api import codec, core_v1
from kubelet_py.errors import ApiUnavailable
from kubelet_py.kube import trust_bundles
from kubelet_py.kube.trust_bundles import TrustBundleStore
from tests.fakes.api_clients import client_for
from tests.fakes.api_server import FakeApiServer
from tests.fakes.waiting import background, eventually

CERTIFICATES = "/apis/certificates.k8s.io/v1"
KNOWN = "the ClusterTrustBundles are known"
PEM = "-----BEGIN CERTIFICATE-----\n{}\n-----END CERTIFICATE-----\n"


@pytest.fixture
async def server() -> AsyncIterator[FakeApiServer]:
    async with FakeApiServer.running() as running:
        yield running


@asynccontextmanager
async def storing(server: FakeApiServer, **options: Any) -> AsyncIterator[TrustBundleStore]:
    async with client_for(server.url) as client:
        store = TrustBundleStore(client, **options)
        async with background(store.run()):
            yield store


def put(server: FakeApiServer, name: str, content: str = "QQ==", signer: str = "", **metadata: Any) -> None:
    spec = {"trustBundle": PEM.format(content), "signerName": signer}
    server.put("clustertrustbundles", {"metadata": {"name": name, **metadata}, "spec": spec}, prefix=CERTIFICATES)


def source(**fields: Any) -> core_v1.ClusterTrustBundleProjection:
    return codec.from_builtins(core_v1.ClusterTrustBundleProjection, {"path": "ca.pem", **fields})


def lists(server: FakeApiServer) -> int:
    return len(server.asked("GET", "clustertrustbundles"))


async def test_nothing_is_asked_for_before_a_pod_needs_it_and_one_watch_serves_all(server: FakeApiServer) -> None:
    put(server, "a")
    async with storing(server) as store:
        store.register("plain", [])
        assert not store.is_watching
        store.register("p1", [source(name="a")])
        store.register("p2", [source(signerName="s/t", labelSelector={})])
        assert {name: each.anchors for name, each in (await store.bundles()).items()} == {"a": (b"A",)}
        assert await store.bundles() == await store.bundles()
        await eventually(lambda: len(server._watches) == 1)
        assert lists(server) == 1
        assert server.requests[0].query == {"resourceVersion": "0"}


async def test_the_watch_ends_with_the_last_pod_and_begins_again_with_the_next(server: FakeApiServer) -> None:
    put(server, "a")
    async with storing(server) as store:
        store.register("p1", [source(name="a")])
        store.register("p2", [source(name="a")])
        await store.bundles()
        await eventually(lambda: len(server._watches) == 1)
        store.unregister("p1")
        store.unregister("unknown")
        assert await store.bundles()
        store.register("p2", [])
        await eventually(lambda: not store.is_watching)
        put(server, "a", "QUI=")
        store.register("p3", [source(name="a")])
        assert (await store.bundles())["a"].anchors == (b"AB",)
        assert lists(server) == 2


async def test_pods_hear_of_bundles_that_they_mean_or_meant_and_of_no_others(server: FakeApiServer) -> None:
    put(server, "s:t:1", signer="s/t", labels={"live": "yes"})
    told: list[tuple[str, str]] = []
    async with storing(server, on_change=lambda *news: told.append(news)) as store:
        store.register("named", [source(name="later")])
        store.register("signed", [source(signerName="s/t", labelSelector={"matchLabels": {"live": "yes"}})])
        await store.bundles()
        await eventually(lambda: told == [("named", KNOWN), ("signed", KNOWN)])
        told.clear()
        put(server, "later")
        await eventually(lambda: told == [("named", "clustertrustbundle later changed")])
        told.clear()
        put(server, "s:t:1", signer="s/t", labels={"live": "no"})
        await eventually(lambda: told == [("signed", "clustertrustbundle s:t:1 changed")])
        told.clear()
        put(server, "s:t:1", "QUI=", signer="s/t", labels={"live": "no"})
        put(server, "later", annotations={"nobody": "cares"})
        put(server, "unrelated")
        server.remove("clustertrustbundles", "later", prefix=CERTIFICATES)
        await eventually(lambda: told == [("named", "clustertrustbundle later changed")])
        assert set(await store.bundles()) == {"s:t:1", "unrelated"}


async def test_what_changed_between_two_watches_is_told(server: FakeApiServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("kubelet_py.kube.watch.FIRST_PAUSE_SECONDS", 0.01)
    put(server, "a")
    put(server, "b")
    put(server, "c")
    told: list[tuple[str, str]] = []
    async with storing(server, on_change=lambda *news: told.append(news)) as store:
        for name in "abcd":
            store.register(f"pod-{name}", [source(name=name)])
        await store.bundles()
        await eventually(lambda: len(server._watches) == 1)
        told.clear()
        await server.stop()
        put(server, "a", "QUI=")
        server.remove("clustertrustbundles", "b", prefix=CERTIFICATES)
        put(server, "d")
        server.forget_history()
        await server.start()
        await eventually(lambda: len(told) >= 3)
        assert sorted(told) == [(f"pod-{name}", f"clustertrustbundle {name} changed") for name in "abd"]


async def test_a_server_that_does_not_list_them_is_named_and_who_waited_is_woken(
    server: FakeApiServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(trust_bundles, "FIRST_LIST_SECONDS", 0.05)
    monkeypatch.setattr("kubelet_py.kube.watch.FIRST_PAUSE_SECONDS", 0.01)
    told: list[tuple[str, str]] = []
    async with storing(server, on_change=lambda *news: told.append(news)) as store:
        with pytest.raises(ApiUnavailable, match="the API server did not say in time"):
            await store.bundles()
        server.fail_next(404, reason="NotFound", count=1000)
        store.register("p1", [source(name="a", optional=True)])
        await eventually(lambda: store._reflector is not None and store._reflector.problem is not None)
        with pytest.raises(ApiUnavailable, match="made to fail"):
            await store.bundles()
        assert told == []
        server._failures.clear()
        await eventually(lambda: told == [("p1", KNOWN)])
        assert await store.bundles() == {}
        await eventually(lambda: store._reflector is not None and store._reflector.problem is None)
