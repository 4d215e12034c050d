"""Pulls over the fake engine: single flight and the deadline by progress."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from dockershim.engine import RegistryAuth
from dockershim.errors import DeadlineExceeded, NotFound
from dockershim.node import NodeSettings
from dockershim.pulls import Puller
from tests.fakes.docker_node import running_node

NEW = "registry.k8s.io/new:1"


async def test_one_pull_for_all_who_want_the_same(tmp_path: Path) -> None:
    """Other credentials are another pull."""
    async with running_node(tmp_path) as world:
        world.engine.registry[NEW] = world.engine.make_image(NEW)
        puller = Puller(world.node)
        ids = await asyncio.gather(*(puller.pull(NEW, None) for _ in range(5)))
        assert set(ids) == {world.engine.registry[NEW]["Id"]}
        assert world.engine.calls["pull_image"] == 1
        await asyncio.gather(puller.pull(NEW, None), puller.pull(NEW, RegistryAuth(username="me")))
        assert world.engine.calls["pull_image"] == 3


async def test_the_pull_goes_on_while_one_waiter_is_left(tmp_path: Path) -> None:
    """And it ends with the last one."""
    async with running_node(tmp_path) as world:
        world.engine.registry[NEW] = world.engine.make_image(NEW)
        gate = world.engine.hold("pull_image")
        puller = Puller(world.node)
        async with asyncio.TaskGroup() as group:
            first = group.create_task(puller.pull(NEW, None), name="first")
            second = group.create_task(puller.pull(NEW, None), name="second")
            await asyncio.sleep(0.01)
            first.cancel()
            await asyncio.sleep(0.01)
            gate.set()
        assert second.result() == world.engine.registry[NEW]["Id"]


@pytest.mark.looptime
async def test_a_standstill_ends_the_pull_and_slow_progress_does_not(tmp_path: Path) -> None:
    """The deadline counts from the last step, the first one included."""
    settings = NodeSettings(pause_image="registry.k8s.io/pause:3.10", pull_progress_deadline_seconds=0.1)
    async with running_node(tmp_path, settings=settings) as world:
        world.engine.registry[NEW] = world.engine.make_image(NEW)
        puller = Puller(world.node)
        world.engine.pull_steps = [0.06] * 4
        await puller.pull(NEW, None)
        world.engine.pull_steps = [0.01, 5.0]
        with pytest.raises(DeadlineExceeded, match="no progress"):
            await puller.pull(NEW, None)


@pytest.mark.looptime
async def test_extracting_takes_as_long_as_it_takes(tmp_path: Path) -> None:
    """The deadline is for the registry, not for this machine's disk."""
    settings = NodeSettings(pause_image="registry.k8s.io/pause:3.10", pull_progress_deadline_seconds=0.1)
    async with running_node(tmp_path, settings=settings) as world:
        world.engine.registry[NEW] = world.engine.make_image(NEW)
        world.engine.pulls_extract = True
        world.engine.pull_steps = [0.01, 0.4]
        await Puller(world.node).pull(NEW, None)


async def test_a_waiter_that_is_gone_before_the_pull_begins(tmp_path: Path) -> None:
    """Docker is not asked at all, and the next one gets a pull of its own."""
    async with running_node(tmp_path) as world:
        world.engine.registry[NEW] = world.engine.make_image(NEW)
        puller = Puller(world.node)
        async with asyncio.TaskGroup() as group:
            hasty = group.create_task(puller.pull(NEW, None), name="hasty")
            await asyncio.sleep(0)
            hasty.cancel()
        assert world.engine.calls["pull_image"] == 0
        await puller.pull(NEW, None)
        assert world.engine.calls["pull_image"] == 1


async def test_what_is_not_there(tmp_path: Path) -> None:
    """NotFound for everybody who waited."""
    async with running_node(tmp_path) as world:
        puller = Puller(world.node)
        outcomes = await asyncio.gather(*(puller.pull(NEW, None) for _ in range(3)), return_exceptions=True)
        assert [type(outcome) for outcome in outcomes] == [NotFound] * 3
