"""Events arrive, are counted up, and never get in anyone's way."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from itertools import count

import pytest
import structlog

from kubelet_py.api import core_v1
from kubelet_py.managers.events import EventRecorder
from tests.fakes.api_clients import client_for
from tests.fakes.api_server import FakeApiServer, Json
from tests.fakes.waiting import background, eventually

ABOUT = core_v1.ObjectReference(kind="Pod", namespace="default", name="a", uid="u", fieldPath="spec.containers{app}")


@pytest.fixture
async def server() -> AsyncIterator[FakeApiServer]:
    async with FakeApiServer.running() as running:
        yield running


@asynccontextmanager
async def recording(server: FakeApiServer, queue_limit: int = 1000) -> AsyncIterator[EventRecorder]:
    numbers = count(1)
    async with client_for(server.url) as client:
        recorder = EventRecorder(client, "n1", unique=lambda: next(numbers), queue_limit=queue_limit)
        async with background(recorder.run()):
            yield recorder


def events_at(server: FakeApiServer) -> list[Json]:
    return [body for (path, _, _), body in server.objects.items() if path.endswith("/events")]


async def test_an_event_arrives_with_who_what_and_where(server: FakeApiServer) -> None:
    async with recording(server) as recorder:
        recorder.record(ABOUT, "Normal", "Started", "Started container app")
        await eventually(lambda: events_at(server))
    event = events_at(server)[0]
    assert event["metadata"]["name"] == "a.1"
    assert event["metadata"]["namespace"] == "default"
    assert (event["type"], event["reason"], event["message"], event["count"]) == (
        "Normal",
        "Started",
        "Started container app",
        1,
    )
    assert event["source"] == {"component": "kubelet", "host": "n1"}
    assert event["involvedObject"]["fieldPath"] == "spec.containers{app}"


async def test_the_same_event_again_is_counted_up(server: FakeApiServer) -> None:
    async with recording(server) as recorder:
        for _ in range(3):
            recorder.record(ABOUT, "Warning", "BackOff", "again")
        await eventually(lambda: events_at(server) and events_at(server)[0]["count"] == 3)
    assert len(events_at(server)) == 1


async def test_an_event_that_expired_at_the_server_begins_anew(server: FakeApiServer) -> None:
    async with recording(server) as recorder:
        recorder.record(ABOUT, "Warning", "BackOff", "again")
        await eventually(lambda: events_at(server))
        server.remove("events", "a.1", "default")
        recorder.record(ABOUT, "Warning", "BackOff", "again")
        await eventually(lambda: events_at(server))
    assert (events_at(server)[0]["metadata"]["name"], events_at(server)[0]["count"]) == ("a.2", 1)


async def test_a_full_queue_drops_the_oldest_and_counts_it(server: FakeApiServer) -> None:
    async with client_for(server.url) as client:
        recorder = EventRecorder(client, "n1", queue_limit=2)
        for number in range(5):
            recorder.record(ABOUT, "Normal", f"R{number}", "m")
        assert recorder.dropped == 3
        await recorder.flush(5)
    assert sorted(event["reason"] for event in events_at(server)) == ["R3", "R4"]


async def test_events_of_an_outage_arrive_later(server: FakeApiServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("kubelet_py.managers.events.RETRY_SECONDS", 0.01)
    async with recording(server) as recorder:
        await server.stop()
        recorder.record(ABOUT, "Normal", "Killing", "m")
        await server.start()
        await eventually(lambda: events_at(server))


async def test_an_event_the_server_refuses_is_logged_and_left(server: FakeApiServer) -> None:
    server.fail_next(403, reason="Forbidden")
    async with recording(server) as recorder:
        recorder.record(ABOUT, "Normal", "A", "m")
        recorder.record(ABOUT, "Normal", "B", "m")
        await eventually(lambda: events_at(server))
    assert [event["reason"] for event in events_at(server)] == ["B"]


async def test_standalone_an_event_is_a_log_line() -> None:
    recorder = EventRecorder(None, "n1")
    with structlog.testing.capture_logs() as lines:
        recorder.record(ABOUT, "Normal", "Started", "m")
    assert [(line["event"], line["reason"]) for line in lines] == [("event", "Started")]
    await recorder.run()
    await recorder.flush(0.1)
