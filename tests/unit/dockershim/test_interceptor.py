"""What a call finds while dockershim starts: it waits for the first look at Docker, and no longer than that."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from dockershim import interceptor
from dockershim.errors import Unavailable
from dockershim.interceptor import CallInterceptor
from dockershim.store.feeder import Feeder
from tests.fakes.docker_engine import FakeDockerEngine
from tests.fakes.docker_node import running_node


class Starting(Feeder):
    """A feeder that has not looked yet."""

    def __init__(self) -> None:
        self.trouble = "dockershim has not reached Docker yet"
        self._filled, self._tried = asyncio.Event(), asyncio.Event()


async def turns() -> None:
    """Lets every task run until it waits."""
    for _ in range(5):
        await asyncio.sleep(0)


async def test_a_call_waits_for_the_first_look() -> None:
    """A client that has just started dockershim need not try again."""
    feeder = Starting()
    async with asyncio.TaskGroup() as tasks:
        waiting = tasks.create_task(CallInterceptor(feeder)._check_ready("ListContainers"))
        await turns()
        assert not waiting.done()
        feeder._filled.set()
        feeder._tried.set()
    assert waiting.exception() is None


async def test_a_call_while_docker_is_away_fails_at_once_with_the_reason() -> None:
    feeder = Starting()
    feeder._set_trouble("connection refused")
    for _ in range(2):
        with pytest.raises(Unavailable, match="connection refused"):
            await CallInterceptor(feeder)._check_ready("ListContainers")


async def test_a_look_that_takes_too_long_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(interceptor, "LONGEST_START_SECONDS", 0.01)
    with pytest.raises(Unavailable, match="has not reached Docker yet"):
        await CallInterceptor(Starting())._check_ready("ListContainers")


async def test_some_calls_are_answered_at_any_time() -> None:
    """Whoever asks for the state must hear it."""
    await CallInterceptor(Starting())._check_ready("Status")


async def test_a_filled_store_answers_also_while_docker_is_away(tmp_path: Path) -> None:
    async with running_node(tmp_path, FakeDockerEngine()) as world:
        world.node.feeder._set_trouble("gone")
        await CallInterceptor(world.node.feeder)._check_ready("ListContainers")
