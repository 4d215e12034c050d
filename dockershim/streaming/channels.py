"""The channels of an exec or attach, alike over SPDY and over WebSocket.

Owns how a client's stdin and terminal sizes come in, and output and the end go out. Must not know Docker. Upstream
counterpart: cri-streaming's remotecommand/{httpstream,websocket}.go.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from typing import Protocol

import structlog

from cri_proto.wire import remotecommand as wire
from dockershim.streaming.inbox import Inbox
from dockershim.streaming.spdy import SpdyConnection, SpdyStream
from dockershim.streaming.wires import Gone, WebSocket, Wire

_log = structlog.get_logger()
STREAMS_SECONDS = 30.0


class Channels(Protocol):
    """One client. `run` must be running while the others are used."""

    async def run(self) -> None:
        """Read what the client sends, until it is gone."""
        ...

    async def ready(self) -> None:
        """Until the client has opened everything. TimeoutError when it does not."""
        ...

    @property
    def stdin(self) -> Inbox:
        """What the client types. Without stdin asked for nothing comes, nor ends."""
        ...

    def sizes(self) -> AsyncIterator[wire.TerminalSize]:
        """The sizes of the client's terminal as they change."""
        ...

    async def write(self, name: str, data: bytes) -> None:
        """Output. What the client did not ask for is dropped. Gone when the client is."""
        ...

    async def finish(self, outcome: wire.Outcome) -> None:
        """Tell how it ended. The client closes the connection then."""
        ...


async def decode_sizes(inbox: Inbox) -> AsyncIterator[wire.TerminalSize]:
    """Sizes out of their channel. Nonsense ends them: the terminal keeps its size."""
    decoder = wire.SizeDecoder()
    try:
        while data := await inbox.get():
            for size in decoder.feed(data):
                yield size
    except wire.RemoteCommandError as error:
        _log.warning("terminal_size_unreadable", error=str(error))
    except Gone:
        return
    finally:
        await inbox.discard()


class SpdyChannels:
    """One SPDY stream for each channel."""

    def __init__(self, raw: Wire, wanted: wire.StreamSet, protocol: str) -> None:
        self._connection = SpdyConnection(raw, self._opened)
        self._protocol = protocol
        self._names = wanted.names(protocol)
        self._streams: dict[str, SpdyStream] = {}
        self._complete = asyncio.Event()

    def _opened(self, stream: SpdyStream) -> bool:
        name = stream.headers.get(wire.STREAM_TYPE, "")
        if name not in self._names or name in self._streams:
            _log.debug("stream_refused", stream=name[:40])
            return False
        self._streams[name] = stream
        if len(self._streams) == len(self._names):
            self._complete.set()
        return True

    async def run(self) -> None:
        """See Channels."""
        await self._connection.run()

    async def ready(self) -> None:
        """See Channels."""
        async with asyncio.timeout(STREAMS_SECONDS):
            await self._complete.wait()

    @property
    def stdin(self) -> Inbox:
        """See Channels."""
        return self._inbox(wire.STDIN)

    async def sizes(self) -> AsyncIterator[wire.TerminalSize]:
        """See Channels."""
        if wire.RESIZE in self._streams:
            async for size in decode_sizes(self._inbox(wire.RESIZE)):
                yield size

    def _inbox(self, name: str) -> Inbox:
        return self._streams[name].inbox if name in self._streams else Inbox()

    async def write(self, name: str, data: bytes) -> None:
        """See Channels."""
        if name in self._streams:
            await self._streams[name].write(data)

    async def finish(self, outcome: wire.Outcome) -> None:
        """See Channels."""
        with contextlib.suppress(Gone):
            for name in (wire.STDOUT, wire.STDERR):
                if name in self._streams:
                    await self._streams[name].end()
            error = self._streams.get(wire.ERROR)
            if error is not None:
                if status := wire.format_status(outcome, self._protocol):
                    await error.write(status)
                await error.end()
            for name in (wire.STDIN, wire.RESIZE):
                if name in self._streams:
                    await self._streams[name].inbox.discard()
                    await self._streams[name].end()


class WebSocketChannels:
    """The first byte of each message names the channel."""

    def __init__(self, raw: Wire, wanted: wire.StreamSet, protocol: str) -> None:
        self._socket = WebSocket(raw)
        self._protocol = protocol
        self._outputs = wanted.names(protocol) & {wire.STDOUT, wire.STDERR}
        # what comes for an input that nobody reads is dropped: in an inbox it would hold up the messages after it
        self._inputs = {name: Inbox() for name in ((wire.STDIN, wire.RESIZE) if wanted.stdin else (wire.RESIZE,))}

    async def run(self) -> None:
        """See Channels."""
        try:
            while (message := await self._socket.receive()) is not None:
                match wire.decode_channel(message, self._protocol):
                    case wire.ChannelData(name, data) if name in self._inputs:
                        await self._inputs[name].put(data)
                    case wire.ChannelClosed(name) if name in self._inputs:
                        await self._inputs[name].end()
        except wire.RemoteCommandError as error:
            _log.warning("streaming_client_broke_protocol", error=str(error))
            await self._socket.close(1002, str(error))
        except Gone:
            pass
        finally:
            for inbox in self._inputs.values():
                await inbox.break_off()

    async def ready(self) -> None:
        """See Channels. An empty message tells the client that we are there."""
        first = next((name for name in (wire.STDOUT, wire.STDERR) if name in self._outputs), wire.ERROR)
        await self._send(first, b"")

    @property
    def stdin(self) -> Inbox:
        """See Channels."""
        return self._inputs.get(wire.STDIN) or Inbox()

    def sizes(self) -> AsyncIterator[wire.TerminalSize]:
        """See Channels."""
        return decode_sizes(self._inputs[wire.RESIZE])

    async def write(self, name: str, data: bytes) -> None:
        """See Channels."""
        if name in self._outputs:
            await self._send(name, data)

    async def finish(self, outcome: wire.Outcome) -> None:
        """See Channels."""
        with contextlib.suppress(Gone):
            status = wire.format_status(outcome, self._protocol)
            if status:
                await self._send(wire.ERROR, status)
            await self._socket.close()
        for inbox in self._inputs.values():
            await inbox.discard()

    async def _send(self, name: str, data: bytes) -> None:
        await self._socket.send(wire.encode_channel(name, data, self._protocol), text=wire.is_text(self._protocol))
