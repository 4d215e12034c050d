"""Mirror pods follow the static pods."""

import asyncio
from collections.abc import AsyncIterator, Container
from contextlib import asynccontextmanager

import pytest

from kubelet_py.api import core_v1, meta_v1
from kubelet_py.api.pod import CONFIG_MIRROR_ANNOTATION, annotations_of, is_mirror, uid_of
from kubelet_py.core.source_merge import PodSet
from kubelet_py.kube.client import Query
from kubelet_py.kube.pods import ApiPodSource
from kubelet_py.kube.resources import PODS
from kubelet_py.managers import mirror_pods
from kubelet_py.managers.mirror_pods import MirrorPodManager
from tests.fakes.api_clients import client_for
from tests.fakes.api_server import FakeApiServer
from tests.fakes.waiting import background, eventually
from tests.unit.kubelet_py.managers.kube_objects import NODE, put_pod, static_pod, stored_pod

NODE_OBJECT = core_v1.Node(metadata=meta_v1.ObjectMeta(name=NODE, uid="node-uid"))


@pytest.fixture
async def server() -> AsyncIterator[FakeApiServer]:
    async with FakeApiServer.running() as running:
        yield running


@asynccontextmanager
async def mirroring(server: FakeApiServer, stopping: Container[str] = ()) -> AsyncIterator[MirrorPodManager]:
    registered = asyncio.Event()
    registered.set()
    async with client_for(server.url) as client:
        manager = MirrorPodManager(
            client,
            lambda: NODE_OBJECT,
            registered,
            is_stopping=lambda full_name: full_name in stopping,
            taken_seconds=0.02,
            random_fraction=lambda: 0.0,
        )

        def deliver(pod_set: PodSet) -> None:
            if pod_set.mirrors_may_differ:
                manager.on_mirror_pods([pod for pod in pod_set.pods if is_mirror(pod)])

        source = ApiPodSource(client, NODE, registered, deliver)
        async with background(manager.run(), source.run()):
            yield manager


def mirror_hash(server: FakeApiServer, name: str) -> str | None:
    if server.find("pods", name, "default") is None:
        return None
    return annotations_of(stored_pod(server, name)).get(CONFIG_MIRROR_ANNOTATION)


async def test_a_static_pod_gets_a_mirror_owned_by_the_node(server: FakeApiServer) -> None:
    async with mirroring(server) as manager:
        manager.on_static_pods([static_pod("web")], complete=True)
        await eventually(lambda: mirror_hash(server, "web") == "h1")
    metadata = stored_pod(server, "web").metadata
    assert metadata is not None
    assert metadata.ownerReferences == [
        meta_v1.OwnerReference(apiVersion="v1", kind="Node", name=NODE, uid="node-uid", controller=True)
    ]


async def test_a_changed_static_pod_gets_a_new_mirror(server: FakeApiServer) -> None:
    async with mirroring(server) as manager:
        manager.on_static_pods([static_pod("web")], complete=True)
        await eventually(lambda: mirror_hash(server, "web") == "h1")
        manager.on_static_pods([static_pod("web", "h2")], complete=True)
        await eventually(lambda: mirror_hash(server, "web") == "h2")


@pytest.mark.parametrize("successor", [[], [static_pod("web", "h2")]], ids=["removed", "changed"])
async def test_the_mirror_stays_while_its_static_pod_stops(server: FakeApiServer, successor: list[core_v1.Pod]) -> None:
    stopping: set[str] = set()
    async with mirroring(server, stopping) as manager:
        manager.on_static_pods([static_pod("web")], complete=True)
        await eventually(lambda: mirror_hash(server, "web") == "h1")
        stopping.add("web_default")
        manager.on_static_pods([*successor, static_pod("other")], complete=True)
        await eventually(lambda: mirror_hash(server, "other") == "h1")
        assert mirror_hash(server, "web") == "h1"
        stopping.clear()
        manager.look_again()
        await eventually(lambda: mirror_hash(server, "web") == ("h2" if successor else None))


@pytest.mark.parametrize("grace", [0, 30])
async def test_a_mirror_that_somebody_deletes_comes_back(server: FakeApiServer, grace: int) -> None:
    async with mirroring(server) as manager, client_for(server.url) as person:
        manager.on_static_pods([static_pod("web")], complete=True)
        await eventually(lambda: mirror_hash(server, "web") == "h1")
        first = uid_of(stored_pod(server, "web"))
        await person.delete(PODS, "web", "default", grace_period_seconds=grace)
        await eventually(lambda: mirror_hash(server, "web") == "h1" and uid_of(stored_pod(server, "web")) != first)
        assert len((await person.list(PODS, Query("default"))).items or []) == 1


async def test_an_orphan_goes_once_all_sources_are_known(server: FakeApiServer) -> None:
    put_pod(server, "orphan", annotations={CONFIG_MIRROR_ANNOTATION: "h1"})
    put_pod(server, "normal")
    async with mirroring(server) as manager:
        manager.on_static_pods([static_pod("web")], complete=False)
        await eventually(lambda: mirror_hash(server, "web") == "h1")
        assert mirror_hash(server, "orphan") == "h1"
        manager.on_static_pods([static_pod("web")], complete=True)
        await eventually(lambda: mirror_hash(server, "orphan") is None)
    assert server.find("pods", "normal", "default") is not None


async def test_after_a_restart_the_mirror_of_the_same_pod_is_left_alone(server: FakeApiServer) -> None:
    put_pod(server, "web", annotations={CONFIG_MIRROR_ANNOTATION: "h1"})
    put_pod(server, "old", annotations={CONFIG_MIRROR_ANNOTATION: "h1"})
    async with mirroring(server) as manager:
        manager.on_static_pods([static_pod("web")], complete=True)
        await eventually(lambda: mirror_hash(server, "old") is None)
    assert [r.path for r in server.requests if r.method in ("POST", "DELETE")] == [
        "/api/v1/namespaces/default/pods/old"
    ]


async def test_a_name_that_another_pod_has_is_tried_until_it_is_free(server: FakeApiServer) -> None:
    put_pod(server, "web")
    async with mirroring(server) as manager:
        manager.on_static_pods([static_pod("web")], complete=True)
        await eventually(lambda: len(server.asked("POST", "pods")) > 1)
        assert mirror_hash(server, "web") is None
        server.remove("pods", "web", "default")
        await eventually(lambda: mirror_hash(server, "web") == "h1")


async def test_a_mirror_that_the_server_refuses_keeps_no_other_from_its(server: FakeApiServer) -> None:
    """A namespace that is not there yet, a quota, a webhook."""
    async with mirroring(server) as manager:
        manager.on_static_pods([static_pod("first")], complete=True)
        await eventually(lambda: mirror_hash(server, "first") == "h1")
        server.fail_next(403, reason="Forbidden")
        manager.on_static_pods([static_pod(name) for name in ("first", "refused", "last")], complete=True)
        await eventually(lambda: mirror_hash(server, "refused") == "h1")
    made = [r.body["metadata"]["name"] for r in server.asked("POST", "pods")]
    assert made == ["first", "refused", "last", "refused"]


async def test_a_mirror_that_is_refused_holds_up_no_news(
    server: FakeApiServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is tried again after a pause of its own, or when its static pod changes; others come and go meanwhile."""
    monkeypatch.setattr(mirror_pods, "FIRST_PAUSE_SECONDS", 1_000_000)
    monkeypatch.setattr(mirror_pods, "LONGEST_PAUSE_SECONDS", 1_000_000)
    async with mirroring(server) as manager:
        manager.on_static_pods([static_pod("first")], complete=True)
        await eventually(lambda: mirror_hash(server, "first") == "h1")
        server.fail_next(403, reason="Forbidden")
        manager.on_static_pods([static_pod("refused")], complete=False)
        await eventually(lambda: len(server.asked("POST", "pods")) == 2)
        manager.on_static_pods([static_pod("refused"), static_pod("other")], complete=True)
        await eventually(lambda: mirror_hash(server, "other") == "h1")
        manager.on_static_pods([static_pod("refused")], complete=True)
        await eventually(lambda: mirror_hash(server, "other") is None)
        assert mirror_hash(server, "refused") is None
        manager.on_static_pods([static_pod("refused", "h2")], complete=True)
        await eventually(lambda: mirror_hash(server, "refused") == "h2")
    made = [r.body["metadata"]["name"] for r in server.asked("POST", "pods")]
    assert made == ["first", "refused", "other", "refused"]
