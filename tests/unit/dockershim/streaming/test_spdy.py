"""A SPDY connection whose streams end on our side while what the client sent is still being handed out."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from cri_proto.wire import spdy_session
from dockershim.streaming.inbox import LIMIT_BYTES
from dockershim.streaming.spdy import SpdyConnection, SpdyStream


class Client:
    """A client whose frames arrive in whole reads, and the server's streams by name."""

    def __init__(self) -> None:
        self.session = spdy_session.SpdySession(client=True)
        self.streams: dict[str, SpdyStream] = {}
        self._opened: asyncio.Queue[SpdyStream] = asyncio.Queue()
        self._reads: asyncio.Queue[bytes] = asyncio.Queue()

    def opened(self, stream: SpdyStream) -> bool:
        """Takes each stream."""
        self.streams[stream.headers["name"]] = stream
        self._opened.put_nowait(stream)
        return True

    def send(self) -> None:
        """All that the session has to say, in one read of the server's."""
        self._reads.put_nowait(self.session.take_output())

    async def read(self) -> bytes:
        """See Wire."""
        return await self._reads.get()

    async def write(self, data: bytes) -> None:
        """See Wire."""
        self.session.receive(data)

    async def until_opened(self, *names: str) -> list[int]:
        """Open streams; their numbers."""
        numbers = [self.session.open({"name": name}) for name in names]
        self.send()
        for _ in names:
            await self._opened.get()
        return numbers


@asynccontextmanager
async def connected() -> AsyncIterator[Client]:
    client = Client()
    async with asyncio.timeout(30), asyncio.TaskGroup() as group:
        group.create_task(SpdyConnection(client, client.opened).run())
        yield client
        client.send()  # nothing, which is the end


async def test_a_stream_that_we_reset_while_its_data_is_handed_out_ends_nothing_else() -> None:
    """The rest of it is dropped, and the other streams go on."""
    async with connected() as client:
        first, second, third = await client.until_opened("first", "second", "third")
        client.session.send(first, b"x" * (LIMIT_BYTES + 1))
        client.session.end(second)
        client.session.send(first, b"late")
        client.session.send(third, b"hello")
        client.send()
        stream = client.streams["first"]
        await stream.inbox.get()  # the inbox was full: the connection waits for us
        await stream.inbox.discard()
        await stream.reset()
        assert await client.streams["third"].inbox.get() == b"hello"


async def test_what_a_client_sends_last_on_a_stream_whose_other_half_we_ended_arrives() -> None:
    """Also when another stream's end comes in the same read."""
    async with connected() as client:
        first, second = await client.until_opened("first", "second")
        stream = client.streams["first"]
        await stream.end()
        client.session.end(second)
        client.session.send(first, b"last words")
        client.session.end(first)
        client.send()
        assert await stream.inbox.get() == b"last words"
        assert await stream.inbox.get() == b""
