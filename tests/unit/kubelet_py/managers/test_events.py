"""Events arrive, are counted up, and never get in anyone's way."""

import asyncio
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
async def recording(
    server: FakeApiServer, queue_limit: int = 1000, quiet: asyncio.Event | None = None
) -> AsyncIterator[EventRecorder]:
    numbers = count(1)
    async with client_for(server.url) as client:
        recorder = EventRecorder(client, "n1", unique=lambda: next(numbers), queue_limit=queue_limit, quiet=quiet)
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


async def test_ordinary_events_give_way_until_it_is_quiet(server: FakeApiServer) -> None:
    """While pods wait for the runtime, what is told about others can wait; then it goes in its order."""
    quiet = asyncio.Event()
    async with recording(server, quiet=quiet) as recorder:
        recorder.record(ABOUT, "Normal", "Created", "m")
        for _ in range(20):
            await asyncio.sleep(0)
        recorder.record(ABOUT, "Normal", "Started", "m")
        assert events_at(server) == []
        quiet.set()
        await eventually(lambda: len(events_at(server)) == 2)
    assert [event["reason"] for event in events_at(server)] == ["Created", "Started"]


@pytest.mark.parametrize(("queue_limit", "last"), [(1000, "Warning"), (4, "Normal")])
async def test_a_warning_or_a_long_queue_gives_way_to_nothing(
    server: FakeApiServer, queue_limit: int, last: str
) -> None:
    """And takes all that came before it along."""
    async with recording(server, queue_limit, quiet=asyncio.Event()) as recorder:
        recorder.record(ABOUT, "Normal", "A", "m")
        for _ in range(20):
            await asyncio.sleep(0)
        recorder.record(ABOUT, "Normal", "B", "m")
        recorder.record(ABOUT, last, "C", "m")
        await eventually(lambda: len(events_at(server)) == 3)


async def test_warnings_come_in_at_any_moment_of_the_end_of_giving_way(server: FakeApiServer) -> None:
    """The first has ended the wait, which takes some turns of the loop."""
    async with recording(server, quiet=asyncio.Event()) as recorder:
        recorder.record(ABOUT, "Normal", "A", "m")
        for _ in range(20):
            await asyncio.sleep(0)
        for number in range(8):
            recorder.record(ABOUT, "Warning", f"W{number}", "m")
            await asyncio.sleep(0)
        await eventually(lambda: len(events_at(server)) == 9)


async def test_events_give_way_for_a_while_only(server: FakeApiServer, monkeypatch: pytest.MonkeyPatch) -> None:
    """A node that is never quiet tells all the same."""
    monkeypatch.setattr("kubelet_py.managers.events.GIVE_WAY_SECONDS", 0.01)
    async with recording(server, quiet=asyncio.Event()) as recorder:
        recorder.record(ABOUT, "Normal", "A", "m")
        await eventually(lambda: events_at(server))


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
