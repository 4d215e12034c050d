"""Referenced objects are at hand while a pod refers to them, and no longer."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from kubelet_py.api import core_v1
from kubelet_py.errors import ApiNotFound, ApiUnavailable
from kubelet_py.kube import objects
from kubelet_py.kube.backoff import Backoff
from kubelet_py.kube.objects import ObjectKey, ObjectStore, ServiceStore, Strategy, config_maps
from tests.fakes.api_clients import client_for
from tests.fakes.api_server import FakeApiServer
from tests.fakes.waiting import background, eventually

A = ObjectKey("ns", "a")


@pytest.fixture
async def server() -> AsyncIterator[FakeApiServer]:
    async with FakeApiServer.running() as running:
        yield running


@asynccontextmanager
async def storing(server: FakeApiServer, **options: Any) -> AsyncIterator[ObjectStore[core_v1.ConfigMap]]:
    async with client_for(server.url) as client:
        store = config_maps(client, **options)
        async with background(store.run()):
            await eventually(lambda: store._tasks)
            yield store


def put(server: FakeApiServer, name: str = "a", **data: str) -> None:
    server.put("configmaps", {"metadata": {"name": name, "namespace": "ns"}, "data": data})


def gets(server: FakeApiServer) -> int:
    return len(server.asked("GET", "configmaps"))


async def test_pods_share_one_watch_and_see_changes(server: FakeApiServer) -> None:
    put(server, x="1")
    told: list[tuple[str, str]] = []
    async with storing(server, on_change=lambda *news: told.append(news)) as store:
        store.register("p1", [A])
        store.register("p2", [A])
        store.register("p3", [])
        assert (await store.get(*A)).data == {"x": "1"}
        assert (await store.get(*A)).data == {"x": "1"}
        assert (gets(server), store.watches) == (1, 1)
        put(server, x="2")
        await eventually(lambda: told == [("p1", "configmap a changed"), ("p2", "configmap a changed")])
        assert (await store.get(*A)).data == {"x": "2"}
        assert gets(server) == 1


async def test_the_watch_ends_with_the_last_pod(server: FakeApiServer) -> None:
    put(server)
    async with storing(server) as store:
        store.register("p1", [A])
        store.register("p2", [A])
        await store.get(*A)
        store.unregister("p1")
        assert store.watches == 1
        store.register("p2", [])
        assert store.watches == 0
        await eventually(lambda: not server._watches)
        store.unregister("p2")
        store.unregister("p2")


async def test_what_is_not_there_is_not_found_until_it_is(server: FakeApiServer) -> None:
    async with storing(server) as store:
        store.register("p1", [A])
        with pytest.raises(ApiNotFound, match='configmap "a" not found'):
            await store.get(*A)
        put(server, x="1")
        await eventually(lambda: store._items[A].value is not None)
        assert (await store.get(*A)).data == {"x": "1"}


async def test_an_immutable_object_is_read_once_and_not_watched(server: FakeApiServer) -> None:
    server.put("configmaps", {"metadata": {"name": "a", "namespace": "ns"}, "immutable": True})
    async with storing(server) as store:
        store.register("p1", [A])
        await store.get(*A)
        assert store.watches == 0
        await store.get(*A)
    assert gets(server) == 1


async def test_beyond_the_most_watches_objects_are_read_and_kept_for_a_while(server: FakeApiServer) -> None:
    put(server, "a")
    put(server, "b")
    async with storing(server, max_watches=1) as store:
        store.register("p1", [A, ObjectKey("ns", "b")])
        for _ in range(3):
            await store.get("ns", "a")
            await store.get("ns", "b")
        assert store.watches == 1
    assert gets(server) == 2


async def test_the_get_strategy_asks_each_time(server: FakeApiServer) -> None:
    put(server)
    async with storing(server, strategy=Strategy.GET) as store:
        store.register("p1", [A])
        for _ in range(3):
            await store.get(*A)
    assert gets(server) == 3


async def test_a_new_pod_begins_with_what_is_there_now(server: FakeApiServer) -> None:
    """Its environment stays for life; another pod's look of a moment ago is no good to it."""
    put(server, x="1")
    async with storing(server, strategy=Strategy.CACHE) as store:
        store.register("p1", [A])
        assert (await store.get(*A)).data == {"x": "1"}
        put(server, x="2")
        store.register("p1", [A])
        assert (await store.get(*A)).data == {"x": "1"}
        store.register("p2", [A])
        assert (await store.get(*A)).data == {"x": "2"}


async def test_a_copy_serves_while_the_server_is_away(server: FakeApiServer, monkeypatch: pytest.MonkeyPatch) -> None:
    """A crashed container must start again. What is known to be gone does not come back, and new pods ask anew."""
    put(server, x="1")
    monkeypatch.setattr(objects, "CACHE_SECONDS", -1.0)
    async with storing(server, strategy=Strategy.CACHE) as store:
        store.register("p1", [A])
        await store.get(*A)
        server.fail_next(500)
        assert (await store.get(*A)).data == {"x": "1"}
        store.register("p2", [A])
        server.fail_next(500)
        with pytest.raises(ApiUnavailable):
            await store.get(*A)
        await store.get(*A)
        server.remove("configmaps", "a", "ns")
        with pytest.raises(ApiNotFound):
            await store.get(*A)
        server.fail_next(500)
        with pytest.raises(ApiUnavailable):
            await store.get(*A)


async def test_an_object_that_nobody_registered_is_simply_read(server: FakeApiServer) -> None:
    put(server, x="1")
    async with storing(server) as store:
        assert (await store.get(*A)).data == {"x": "1"}
        assert store.watches == 0


async def test_an_authorizer_that_lags_a_moment_does_not_hold_the_pod_up(
    server: FakeApiServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    pauses: list[float] = []

    class Recorded(Backoff):
        def next_seconds(self, now_seconds: float) -> float:
            pauses.append(super().next_seconds(now_seconds))
            return pauses[-1]

    monkeypatch.setattr("kubelet_py.kube.objects.Backoff", Recorded)
    put(server, x="1")
    server.fail_next(403, reason="Forbidden", count=2)
    async with storing(server) as store:
        store.register("p1", [A])
        assert (await store.get(*A)).data == {"x": "1"}
    assert len(pauses) == 2
    assert sum(pauses) < 0.5


async def test_services_with_an_address_are_known_by_namespace(server: FakeApiServer) -> None:
    def put_service(name: str, namespace: str, address: str) -> None:
        metadata = {"name": name, "namespace": namespace, "labels": {"big": "label"}}
        server.put("services", {"metadata": metadata, "spec": {"clusterIP": address}})

    put_service("kubernetes", "default", "10.96.0.1")
    put_service("web", "ns", "10.96.0.2")
    put_service("headless", "ns", "None")
    async with client_for(server.url) as client:
        store = ServiceStore(client)
        async with background(store.run()):
            await eventually(store.synced.is_set)
            assert [each.metadata and each.metadata.name for each in store.services("ns", "default")] == [
                "kubernetes",
                "web",
            ]
            put_service("db", "ns", "10.96.0.3")
            await eventually(lambda: len(store.services("ns")) == 2)
            server.remove("services", "web", "ns")
            await eventually(lambda: len(store.services("ns")) == 1)
            metadata = store.services("ns")[0].metadata
            assert metadata is not None
            assert metadata.labels is None
