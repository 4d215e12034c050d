"""A reflector's sink is what the server has, whatever happens in between."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from kubelet_py.api import core_v1
from kubelet_py.api.pod import uid_of
from kubelet_py.core.source_merge import PodSet
from kubelet_py.kube.backoff import Backoff
from kubelet_py.kube.client import EventKind, Query
from kubelet_py.kube.pods import ApiPodSource
from kubelet_py.kube.resources import PODS
from kubelet_py.kube.watch import Reflector
from tests.fakes.api_clients import client_for
from tests.fakes.api_server import FakeApiServer, Json
from tests.fakes.waiting import background, eventually


class Mirror:
    """Holds what it is told."""

    def __init__(self) -> None:
        self.objects: dict[str, core_v1.Pod] = {}
        self.lists = 0

    def on_replace(self, objects: list[core_v1.Pod]) -> None:
        self.lists += 1
        self.objects = {uid_of(each): each for each in objects}

    def on_event(self, kind: EventKind, changed: core_v1.Pod) -> None:
        if kind is EventKind.DELETED:
            del self.objects[uid_of(changed)]
        else:
            self.objects[uid_of(changed)] = changed

    @property
    def names(self) -> set[str]:
        return {(each.metadata and each.metadata.name) or "" for each in self.objects.values()}


def pod(name: str, node: str = "n1") -> Json:
    return {
        "metadata": {"name": name, "namespace": "default", "managedFields": [{"manager": "m"}]},
        "spec": {"nodeName": node, "containers": [{"name": "a"}]},
    }


@asynccontextmanager
async def reflecting(server: FakeApiServer) -> AsyncIterator[tuple[Mirror, Reflector[core_v1.Pod]]]:
    mirror = Mirror()
    async with client_for(server.url) as client:
        backoff = Backoff(0.005, 0.02, random=lambda: 0.0)
        query = Query(field_selector="spec.nodeName=n1")
        reflector = Reflector(client, PODS, mirror, query, random_fraction=lambda: 0.5, backoff=backoff)
        async with background(reflector.run()):
            yield mirror, reflector


@pytest.fixture
async def server() -> AsyncIterator[FakeApiServer]:
    async with FakeApiServer.running() as running:
        running.put("pods", pod("a"))
        running.put("pods", pod("elsewhere", "n2"))
        yield running


async def test_the_first_list_is_delivered_and_said(server: FakeApiServer) -> None:
    async with reflecting(server) as (mirror, reflector):
        await asyncio.wait_for(reflector.synced.wait(), 30)
        assert mirror.names == {"a"}


async def test_changes_follow(server: FakeApiServer) -> None:
    async with reflecting(server) as (mirror, _):
        await eventually(lambda: mirror.names == {"a"})
        server.put("pods", pod("b"))
        await eventually(lambda: mirror.names == {"a", "b"})
        server.remove("pods", "a", "default")
        await eventually(lambda: mirror.names == {"b"})
    assert mirror.lists == 1


async def test_nobody_keeps_managed_fields(server: FakeApiServer) -> None:
    async with reflecting(server) as (mirror, _):
        server.put("pods", pod("b"))
        await eventually(lambda: mirror.names == {"a", "b"})
    assert all(each.metadata and each.metadata.managedFields is None for each in mirror.objects.values())


async def test_a_watch_that_ends_resumes_without_a_list(server: FakeApiServer) -> None:
    async with reflecting(server) as (mirror, _):
        await eventually(lambda: mirror.names == {"a"})
        for name in ("b", "c"):
            server.end_watches()
            server.put("pods", pod(name))
        await eventually(lambda: mirror.names == {"a", "b", "c"})
    assert mirror.lists == 1


async def test_a_version_that_is_gone_leads_to_a_consistent_list(server: FakeApiServer) -> None:
    async with reflecting(server) as (mirror, _):
        await eventually(lambda: mirror.names == {"a"})
        await server.stop()
        server.remove("pods", "a", "default")
        server.put("pods", pod("b"))
        server.forget_history()
        await server.start()
        await eventually(lambda: mirror.names == {"b"})
    lists = server.asked("GET", "pods")
    assert lists[0].query["resourceVersion"] == "0"
    assert "resourceVersion" not in lists[-1].query


async def test_after_a_refusal_nothing_older_than_what_was_seen_is_listed(server: FakeApiServer) -> None:
    """Another server behind the same address may know less: pods would go and come back."""
    async with reflecting(server) as (mirror, _):
        await eventually(lambda: mirror.lists == 1)
        server.put("pods", pod("b"))
        await eventually(lambda: mirror.names == {"a", "b"})
        server.fail_next(401, reason="Unauthorized")
        server.end_watches()
        await eventually(lambda: mirror.lists == 2)
    lists = [r.query.get("resourceVersion") for r in server.asked("GET", "pods") if "watch" not in r.query]
    newest = (server.find("pods", "b", "default") or {})["metadata"]["resourceVersion"]
    assert lists == ["0", newest]


async def test_an_outage_is_slept_through(server: FakeApiServer) -> None:
    async with reflecting(server) as (mirror, _):
        await eventually(lambda: mirror.names == {"a"})
        await server.stop()
        server.put("pods", pod("b"))
        await asyncio.sleep(0.05)
        await server.start()
        await eventually(lambda: mirror.names == {"a", "b"})
    assert mirror.lists == 1


async def test_the_first_answer_after_an_outage_ends_every_pause(server: FakeApiServer) -> None:
    """A lease that is renewed tells the watches too: nobody sits out a pause of half a minute."""
    mirror = Mirror()
    async with client_for(server.url) as client:
        patient = Reflector(client, PODS, mirror, backoff=Backoff(60.0, 60.0, random=lambda: 0.0))
        await server.stop()
        async with background(patient.run()):
            await eventually(lambda: not client.reachable)
            await server.start()
            await client.get_raw("/api/v1/nodes")
            await eventually(lambda: mirror.lists == 1)


async def test_a_server_that_is_away_at_first_is_waited_for(server: FakeApiServer) -> None:
    await server.stop()
    async with reflecting(server) as (mirror, _):
        await asyncio.sleep(0.05)
        assert mirror.lists == 0
        await server.start()
        await eventually(lambda: mirror.names == {"a"})


async def test_bookmarks_move_the_version_along(server: FakeApiServer) -> None:
    async with reflecting(server) as (mirror, _):
        await eventually(lambda: mirror.names == {"a"})
        await eventually(lambda: bool(server._watches))
        for number in range(3):
            server.put("pods", pod(f"other-{number}", "n2"))
        server.bookmark()
        server.end_watches()
        await eventually(lambda: sum("watch" in r.query for r in server.requests) >= 2)
    versions = [r.query["resourceVersion"] for r in server.requests if "watch" in r.query]
    assert int(versions[1]) == int(versions[0]) + 3


async def test_the_api_source_waits_for_the_node_and_gives_full_sets(server: FakeApiServer) -> None:
    sets: list[tuple[str, set[str], set[str]]] = []
    registered = asyncio.Event()

    def names(pods: tuple[core_v1.Pod, ...]) -> set[str]:
        return {(each.metadata and each.metadata.name) or "" for each in pods}

    def deliver(pod_set: PodSet) -> None:
        sets.append((pod_set.source, names(pod_set.pods), names(pod_set.last_words)))

    async with client_for(server.url) as client, background(ApiPodSource(client, "n1", registered, deliver).run()):
        await asyncio.sleep(0.02)
        assert server.requests == []
        registered.set()
        await eventually(lambda: sets == [("api", {"a"}, set())])
        server.put("pods", pod("b"))
        await eventually(lambda: sets[-1] == ("api", {"a", "b"}, set()))
        server.remove("pods", "a", "default")
        await eventually(lambda: sets[-1] == ("api", {"b"}, {"a"}))
