"""The client's errors, retries, limits and what it tells about the server."""

import asyncio
from collections.abc import AsyncIterator

import aiohttp
import pytest
import structlog

from kubelet_py.api import core_v1, meta_v1
from kubelet_py.errors import ApiError, ApiForbidden, ApiGone, ApiNotFound, ApiUnavailable
from kubelet_py.kube.client import ApiClient, Query
from kubelet_py.kube.resources import CONFIG_MAPS, EVENTS, NODES, leases
from tests.fakes.api_clients import USER_AGENT, client_for
from tests.fakes.api_server import FakeApiServer


@pytest.fixture
async def server() -> AsyncIterator[FakeApiServer]:
    async with FakeApiServer.running() as running:
        yield running


@pytest.fixture
async def client(server: FakeApiServer) -> AsyncIterator[ApiClient]:
    async with client_for(server.url) as made:
        yield made


def config_map(name: str) -> core_v1.ConfigMap:
    return core_v1.ConfigMap(metadata=meta_v1.ObjectMeta(name=name))


def test_paths_are_those_of_the_api() -> None:
    assert NODES.path(name="a/b") == "/api/v1/nodes/a%2Fb"
    assert CONFIG_MAPS.path("ns", "a", "status") == "/api/v1/namespaces/ns/configmaps/a/status"
    assert leases().path("ns") == "/apis/coordination.k8s.io/v1/namespaces/ns/leases"
    assert CONFIG_MAPS.path() == "/api/v1/configmaps"


async def test_every_request_says_who_asks(server: FakeApiServer, client: ApiClient) -> None:
    await client.list(CONFIG_MAPS)
    assert server.requests[0].headers["User-Agent"] == USER_AGENT


@pytest.mark.parametrize(
    ("code", "kind"), [(401, ApiForbidden), (403, ApiForbidden), (404, ApiNotFound), (410, ApiGone), (400, ApiError)]
)
async def test_a_refusal_becomes_an_error_of_its_kind(
    server: FakeApiServer, client: ApiClient, code: int, kind: type[ApiError]
) -> None:
    server.fail_next(code, reason="Why")
    with pytest.raises(kind) as refused:
        await client.get(CONFIG_MAPS, "a", "ns")
    assert (refused.value.status, refused.value.reason, refused.value.message) == (code, "Why", "made to fail")


async def test_a_server_error_is_worth_trying_again_but_not_by_the_client(
    server: FakeApiServer, client: ApiClient
) -> None:
    server.fail_next(500)
    with pytest.raises(ApiUnavailable) as refused:
        await client.list(CONFIG_MAPS)
    assert refused.value.retry_after_seconds is None
    assert len(server.requests) == 1


async def test_retry_after_is_obeyed_by_the_client(server: FakeApiServer, client: ApiClient) -> None:
    server.fail_next(429, count=2, retry_after="0")
    assert (await client.list(CONFIG_MAPS)).items == []
    assert len(server.requests) == 3


async def test_a_server_that_says_later_for_ever_is_given_up(server: FakeApiServer, client: ApiClient) -> None:
    server.fail_next(429, count=10, retry_after="0")
    with pytest.raises(ApiUnavailable) as refused:
        await client.list(CONFIG_MAPS)
    assert refused.value.retry_after_seconds == 0
    assert len(server.requests) == 4


async def test_an_outage_is_said_once_and_its_end_once(server: FakeApiServer, client: ApiClient) -> None:
    await client.list(CONFIG_MAPS)
    with structlog.testing.capture_logs() as lines:
        await server.stop()
        for _ in range(3):
            with pytest.raises(ApiUnavailable):
                await client.list(CONFIG_MAPS)
        assert not client.reachable
        await server.start()
        await client.list(CONFIG_MAPS)
        await client.list(CONFIG_MAPS)
    assert [line["event"] for line in lines] == ["api_server_unreachable", "api_server_reachable_again"]
    assert client.reachable


async def test_a_slow_server_is_unavailable_when_the_deadline_is_over(server: FakeApiServer) -> None:
    server.delay_seconds = 30
    async with client_for(server.url, timeout_seconds=0.05) as client:
        with pytest.raises(ApiUnavailable):
            await client.list(CONFIG_MAPS)
    server.delay_seconds = 0


async def test_the_rate_limit_holds_requests_back(server: FakeApiServer) -> None:
    loop = asyncio.get_running_loop()
    async with client_for(server.url, qps=1.0) as client:  # burst 100
        client._bucket._tokens = 0.9
        client._bucket._qps = 20.0
        started = loop.time()
        for _ in range(3):
            await client.list(CONFIG_MAPS)
    assert loop.time() - started >= 0.09


async def test_an_answer_that_is_no_object_is_an_error_with_its_path(server: FakeApiServer, client: ApiClient) -> None:
    server.put("configmaps", {"metadata": {"name": "bad", "namespace": "ns"}, "data": "text"})
    with pytest.raises(ApiError, match=r"answer cannot be read: .*\$\.data"):
        await client.get(CONFIG_MAPS, "bad", "ns")


async def test_a_watch_takes_an_object_of_many_chunks(server: FakeApiServer, client: ApiClient) -> None:
    """Larger than any read of the socket, and cut anywhere."""
    text = "x" * 900_000
    server.put("configmaps", {"metadata": {"name": "big", "namespace": "ns"}, "data": {"a": text}})
    server.put("configmaps", {"metadata": {"name": "small", "namespace": "ns"}})
    names = []
    async with client.watch(CONFIG_MAPS, Query("ns"), resource_version="1", timeout_seconds=10) as events:
        async for _, changed in events:
            names.append(changed.metadata.name if changed.metadata else "")
            if len(names) == 2:
                break
    assert names == ["big", "small"]


async def test_a_watch_from_a_version_out_of_reach_is_gone(server: FakeApiServer, client: ApiClient) -> None:
    server.forget_history()
    async with client.watch(CONFIG_MAPS, resource_version="1", timeout_seconds=5) as events:
        with pytest.raises(ApiGone):
            await anext(events)


async def test_connections_are_used_again(server: FakeApiServer, client: ApiClient) -> None:
    for _ in range(5):
        await client.list(CONFIG_MAPS)
    session = client._session
    assert session is not None
    assert isinstance(session.connector, aiohttp.TCPConnector)
    assert sum(len(each) for each in session.connector._conns.values()) == 1


async def test_an_event_goes_where_it_belongs(server: FakeApiServer, client: ApiClient) -> None:
    about = core_v1.ObjectReference(kind="Pod", name="a", namespace="ns")
    await client.create(EVENTS, core_v1.Event(involvedObject=about, metadata=meta_v1.ObjectMeta(name="e")), "ns")
    assert server.find("events", "e", "ns") is not None
