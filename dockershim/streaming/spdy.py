"""A SPDY connection of a server: one reader, an inbox for each stream.

Owns the shell around `cri_proto.wire.spdy_session`. Must not know what the streams carry. Upstream counterpart:
apimachinery's httpstream/spdy.
"""

from __future__ import annotations

from collections.abc import Callable

import structlog

from cri_proto.wire import spdy_frames, spdy_session
from dockershim.streaming.inbox import Inbox
from dockershim.streaming.wires import Gone, Wire

_log = structlog.get_logger()


class SpdyStream:
    """One stream that the client opened."""

    def __init__(self, connection: SpdyConnection, stream_id: int, headers: dict[str, str]) -> None:
        self._connection = connection
        self.id = stream_id
        self.headers = headers
        self.inbox = Inbox()

    async def write(self, data: bytes) -> None:
        """Send bytes. Gone when the stream or the connection is."""
        await self._connection.write(self.id, data)

    async def end(self) -> None:
        """Send the end. Fine when the stream is gone."""
        await self._connection.end(self.id)

    async def reset(self) -> None:
        """Break it off."""
        await self._connection.reset(self.id)


class SpdyConnection:
    """The connection. `opened` is asked for each new stream; False refuses it."""

    def __init__(self, wire: Wire, opened: Callable[[SpdyStream], bool]) -> None:
        self._wire = wire
        self._opened = opened
        self._session = spdy_session.SpdySession(client=False)
        self._streams: dict[int, SpdyStream] = {}

    async def run(self) -> None:
        """Read until the client is gone; then every stream is broken off."""
        try:
            while data := await self._wire.read():
                for event in self._session.receive(data):
                    await self._handle(event)
                self._forget_gone()  # not earlier: what came in one read may have more of a stream that ended meanwhile
                await self._flush()
        except spdy_frames.SpdyError as error:
            _log.warning("streaming_client_broke_spdy", error=str(error))
            await self.go_away()
        except Gone:
            pass
        finally:
            for stream in self._streams.values():
                await stream.inbox.break_off()

    async def _handle(self, event: spdy_session.Event) -> None:
        match event:
            case spdy_session.StreamOpened():
                self._open(event)
                await self._flush()
            case spdy_session.DataReceived():
                await self._streams[event.stream_id].inbox.put(event.data)
            case spdy_session.StreamEnded():
                await self._streams[event.stream_id].inbox.end()
            case spdy_session.StreamReset():
                stream = self._streams.pop(event.stream_id)
                await stream.inbox.discard()
                await stream.inbox.break_off()

    def _open(self, event: spdy_session.StreamOpened) -> None:
        stream = SpdyStream(self, event.stream_id, event.headers)
        self._streams[event.stream_id] = stream
        if self._opened(stream):
            self._session.accept(event.stream_id)
        else:
            self._session.reset(event.stream_id, spdy_frames.RST_REFUSED_STREAM)

    def _forget_gone(self) -> None:
        for stream_id in [key for key in self._streams if not self._session.is_known(key)]:
            del self._streams[stream_id]

    async def write(self, stream_id: int, data: bytes) -> None:
        """Send bytes of a stream."""
        if not self._session.can_send(stream_id):
            raise Gone(f"stream {stream_id} is gone")
        self._session.send(stream_id, data)
        await self._flush()

    async def end(self, stream_id: int) -> None:
        """Send the end of a stream."""
        self._session.end(stream_id)
        await self._flush_quietly()

    async def reset(self, stream_id: int) -> None:
        """Break a stream off."""
        self._session.reset(stream_id)
        await self._flush_quietly()

    async def go_away(self) -> None:
        """Say that we end."""
        self._session.go_away()
        await self._flush_quietly()

    async def _flush_quietly(self) -> None:
        try:
            await self._flush()
        except Gone:
            return

    async def _flush(self) -> None:
        # no await between taking and writing: the order of bytes is that of the session
        if output := self._session.take_output():
            await self._wire.write(output)
