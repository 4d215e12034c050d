"""Connections into a pod's network namespace, which here is the one that we are in."""

from __future__ import annotations

import asyncio
import errno
import socket
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from unittest.mock import AsyncMock

import pytest

from dockershim.streaming import port_forward
from dockershim.streaming.inbox import Inbox
from dockershim.streaming.port_forward import connect_in_namespace

OURS = "/proc/self/ns/net"
MORE_THAN_ITS_QUEUE = 4


@pytest.fixture
def stalled_port() -> Iterator[int]:
    """The port of a server that accepts nothing, and whose queue is full."""
    with ExitStack() as open_until_the_end, socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        server.listen(0)
        for _ in range(MORE_THAN_ITS_QUEUE):
            client = open_until_the_end.enter_context(socket.socket())
            client.setblocking(False)
            client.connect_ex(server.getsockname())
        yield server.getsockname()[1]


async def test_a_server_that_accepts_nothing_keeps_nobody_from_a_thread(stalled_port: int) -> None:
    """With one thread for everybody, work that came later is done while the connection still waits."""
    asyncio.get_running_loop().set_default_executor(ThreadPoolExecutor(max_workers=1))
    async with asyncio.TaskGroup() as group:
        connecting = group.create_task(connect_in_namespace(OURS, stalled_port))
        await asyncio.sleep(0)  # its thread is asked for first
        await asyncio.to_thread(lambda: None)
        assert not connecting.done()
        connecting.cancel()


async def test_a_server_that_accepts_nothing_is_not_waited_for_for_ever(
    stalled_port: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And the client is told so."""
    monkeypatch.setattr(port_forward, "CONNECT_SECONDS", 0.0)
    with pytest.raises(TimeoutError) as caught:
        await connect_in_namespace(OURS, stalled_port)
    assert (caught.value.errno, caught.value.strerror) == (errno.ETIMEDOUT, "Connection timed out")


async def test_a_server_is_reached_and_its_absence_is_told() -> None:
    """The connection is ready for the loop."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        with await connect_in_namespace(OURS, port) as client:
            assert client.getpeername() == ("127.0.0.1", port)
            assert not client.getblocking()
    with pytest.raises(ConnectionRefusedError):
        await connect_in_namespace(OURS, port)


class Silence:
    """A client that has sent more than the pod takes, and then hears nothing."""

    def __init__(self) -> None:
        self.inbox = Inbox()

    async def write(self, data: bytes) -> None:
        raise AssertionError("the pod says nothing")

    async def end(self) -> None:
        raise AssertionError("the pod does not end")


async def test_a_client_that_goes_leaves_nothing_to_a_pod_that_takes_nothing() -> None:
    """What it had sent is not waited for."""
    ours, pods = socket.socketpair()
    ours.setblocking(False)
    pods.setblocking(False)
    silence = Silence()
    with pods:
        async with asyncio.TaskGroup() as group:
            copying = group.create_task(port_forward._connect_and_copy(AsyncMock(return_value=ours), 80, silence))
            await silence.inbox.put(b"x" * 4_000_000)
            await asyncio.get_running_loop().sock_recv(pods, 1)
            copying.cancel()
    assert ours.fileno() == -1
