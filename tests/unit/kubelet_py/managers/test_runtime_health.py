"""How the runtime is: asked often, believed for half a minute, said once. In virtual time."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any

import pytest
from structlog.testing import capture_logs

from kubelet_py.managers.runtime_health import IMAGES_SECONDS, POLL_SECONDS, RuntimeHealth
from tests.fakes.runtime import FakeRuntimeClient

pytestmark = pytest.mark.looptime


class Node:
    """A runtime and who asks it."""

    def __init__(self) -> None:
        self.fake = FakeRuntimeClient()
        self.changes: list[bool] = []
        self.health = RuntimeHealth(
            self.fake, "unix:///run/fake.sock", self.changes.append, asyncio.get_running_loop().time
        )

    @asynccontextmanager
    async def running(self) -> AsyncIterator[list[Any]]:
        with capture_logs() as logs:
            async with asyncio.TaskGroup() as tasks:
                task = tasks.create_task(self.health.run())
                await asyncio.sleep(0.1)
                yield logs
                task.cancel()


async def test_a_runtime_that_answers_is_well() -> None:
    node = Node()
    assert node.health.type == "unknown"
    assert node.health.network_problem() == "the runtime has not answered yet"
    async with node.running() as logs:
        assert node.health.answered.is_set()
        assert (node.health.type, node.health.network_problem()) == ("fake", None)
        assert not node.health.state.problems
        assert node.health.state.version == "fake://1.0-fake"
        await asyncio.sleep(10 * POLL_SECONDS)
        assert node.changes == [True]
        assert [entry["event"] for entry in logs] == []


async def test_a_runtime_that_comes_late_is_noticed_within_half_a_second() -> None:
    node = Node()
    node.fake.down = True
    async with node.running() as logs:
        assert "container runtime is down" in node.health.state.problems[0]
        await asyncio.sleep(60)
        assert node.changes == []
        node.fake.down = False
        await asyncio.sleep(0.6)
        assert node.changes == [True]
        assert [entry["event"] for entry in logs] == ["runtime_not_ready", "runtime_ready"]


async def test_a_runtime_is_down_after_half_a_minute_of_silence_and_not_before() -> None:
    node = Node()
    async with node.running() as logs:
        well = node.health.state
        node.fake.down = True
        await asyncio.sleep(29)
        assert node.health.state.problems == ()
        await asyncio.sleep(7)
        assert "container runtime is down" in str(node.health.state.problems)
        assert "container runtime is down" in (node.health.network_problem() or "")
        assert node.health.state == replace(well, problems=node.health.state.problems), "what it can do is still known"
        node.fake.down = False
        await asyncio.sleep(1)
        assert node.changes == [True, False, True]
        assert [entry["event"] for entry in logs] == ["runtime_not_ready", "runtime_ready"]


async def test_a_runtime_that_hangs_is_down_too() -> None:
    node = Node()
    async with node.running():
        gate = node.fake.hang("Status", times=None)
        await asyncio.sleep(40)
        assert "no answer within 30 s" in node.health.state.problems[0]
        gate.release()
        await asyncio.sleep(31)
        assert node.health.state.problems == ()


async def test_a_runtime_that_was_replaced_shows_its_new_version() -> None:
    node = Node()
    async with node.running():
        node.fake.down = True
        await asyncio.sleep(10)
        node.fake.runtime_version = "2.0-fake"
        node.fake.down = False
        await asyncio.sleep(POLL_SECONDS)
        assert node.health.state.version == "fake://2.0-fake"


async def test_a_network_that_is_not_ready_is_a_problem_with_its_reason() -> None:
    node = Node()
    node.fake.network_problem = "cni plugin not initialized"
    async with node.running() as logs:
        assert node.health.network_problem() == "cni plugin not initialized"
        assert node.health.state.problems
        node.fake.network_problem = ""
        await asyncio.sleep(1)
        assert node.health.network_problem() is None
        assert node.changes == [True]
        assert [entry["event"] for entry in logs] == ["runtime_not_ready", "runtime_ready"]


async def test_a_trouble_that_comes_back_or_is_worded_otherwise_is_told_once_until_the_end() -> None:
    """A runtime that is started again and again, each time with other words, fills no log."""
    node = Node()
    async with node.running() as logs:
        for number in range(3):
            node.fake.down = True
            await asyncio.sleep(POLL_SECONDS)
            node.fake.network_problem = f"starting, {number}"
            node.fake.down = False
            await asyncio.sleep(POLL_SECONDS)
        troubles = [entry["problem"].partition(":")[0] for entry in logs]
        assert troubles == ["no answer", "container runtime network not ready"]
        node.fake.network_problem = ""
        await asyncio.sleep(1)
        node.fake.down = True
        await asyncio.sleep(2 * POLL_SECONDS)
        told = [entry["event"] for entry in logs]
        assert told == ["runtime_not_ready", "runtime_not_ready", "runtime_ready", "runtime_not_ready"]


async def test_images_are_listed_each_minute() -> None:
    node = Node()
    node.fake.add_image("registry.example/app:1", size=7)
    async with node.running():
        (image,) = node.health.images
        assert (image.sizeBytes, list(image.names or ())[1:]) == (7, ["registry.example/app:1"])
        node.fake.fail("ListImages")
        node.fake.add_image("registry.example/app:2")
        await asyncio.sleep(IMAGES_SECONDS + POLL_SECONDS * 2)
        assert len(node.health.images) == 2


async def test_an_image_service_that_hangs_hides_no_trouble_of_the_runtime() -> None:
    node = Node()
    async with node.running():
        gate = node.fake.hang("ListImages", times=None)
        await asyncio.sleep(IMAGES_SECONDS + 1)
        node.fake.network_problem = "cni plugin not initialized"
        await asyncio.sleep(POLL_SECONDS)
        assert node.health.network_problem() == "cni plugin not initialized"
        assert node.changes == [True, False]
        node.fake.network_problem = ""
        node.fake.add_image("registry.example/app:1")
        await asyncio.sleep(1)
        assert (node.changes, node.health.images) == ([True, False, True], [])
        gate.release()
        await asyncio.sleep(1)
        assert len(node.health.images) == 1
