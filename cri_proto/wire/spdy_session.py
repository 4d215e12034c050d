"""A SPDY/3.1 connection: which streams there are, which halves of them are open, what may be sent.

Owns the states of streams. Sans-IO: `receive` takes bytes and gives events; whatever is to be sent, replies to pings
included, is collected for `take_output`. Upstream counterpart: spdystream's connection.go. Windows are not kept, as in
spdystream: back-pressure is that of the TCP connection. Deliberate difference: the number of streams is limited.

A stream has two halves: `remote` (the peer may still send) and `local` (we may). When both are closed it is gone; it is
gone at once after a reset by either side. Data for a stream that is gone is dropped: it was under way.
"""

from __future__ import annotations

from dataclasses import dataclass

from cri_proto.wire import spdy_frames as frames
from cri_proto.wire.spdy_frames import SpdyError

MAX_STREAMS = 1024
MAX_PIECE_BYTES = 32 * 1024


class LocalError(RuntimeError):
    """We would break the protocol."""


@dataclass(frozen=True, slots=True)
class StreamOpened:
    """The peer opened a stream; answer with `accept` or `reset`."""

    stream_id: int
    headers: dict[str, str]


@dataclass(frozen=True, slots=True)
class StreamAccepted:
    """The peer took a stream of ours."""

    stream_id: int


@dataclass(frozen=True, slots=True)
class DataReceived:
    """Bytes of a stream."""

    stream_id: int
    data: bytes


@dataclass(frozen=True, slots=True)
class StreamEnded:
    """The peer will send nothing more on this stream."""

    stream_id: int


@dataclass(frozen=True, slots=True)
class StreamReset:
    """The peer broke a stream off; it is gone."""

    stream_id: int
    status: int


@dataclass(frozen=True, slots=True)
class PeerLeaves:
    """The peer will open no stream any more."""


Event = StreamOpened | StreamAccepted | DataReceived | StreamEnded | StreamReset | PeerLeaves


@dataclass(slots=True)
class _Halves:
    local: bool
    remote: bool


class SpdySession:
    """One side of a connection. Clients open streams with odd numbers, servers with even ones."""

    def __init__(self, *, client: bool, max_streams: int = MAX_STREAMS) -> None:
        self._encoder = frames.FrameEncoder()
        self._decoder = frames.FrameDecoder()
        self._streams: dict[int, _Halves] = {}
        self._output = bytearray()
        self._next_id = 1 if client else 2
        self._remote_parity = 0 if client else 1
        self._last_remote_id = 0
        self._max_streams = max_streams
        self._broken = False

    # ---- what the peer sends

    def receive(self, data: bytes) -> list[Event]:
        """The events in these bytes. After a SpdyError only `take_output` makes sense (it holds a GOAWAY)."""
        if self._broken:
            raise SpdyError("the connection is broken already")
        events: list[Event] = []
        try:
            for frame in self._decoder.feed(data):
                self._receive(frame, events)
        except SpdyError:
            self._broken = True
            self._send(frames.GoAway(self._last_remote_id, frames.GOAWAY_PROTOCOL_ERROR))
            raise
        return events

    def _receive(self, frame: frames.Frame, events: list[Event]) -> None:
        match frame:
            case frames.SynStream():
                self._receive_open(frame, events)
            case frames.Data():
                if halves := self._open_for_peer(frame.stream_id):
                    if frame.data:
                        events.append(DataReceived(frame.stream_id, frame.data))
                    if frame.fin:
                        self._end_remote(frame.stream_id, halves, events)
            case frames.SynReply() | frames.Headers():
                if halves := self._open_for_peer(frame.stream_id):
                    if isinstance(frame, frames.SynReply):
                        events.append(StreamAccepted(frame.stream_id))
                    if frame.fin:
                        self._end_remote(frame.stream_id, halves, events)
            case frames.RstStream():
                if self._streams.pop(frame.stream_id, None):
                    events.append(StreamReset(frame.stream_id, frame.status))
            case frames.Ping():
                # pings that answer ours would have our parity; we send none
                if frame.ping_id % 2 == self._remote_parity:
                    self._send(frame)
            case frames.GoAway():
                events.append(PeerLeaves())
            case frames.WindowUpdate() | frames.Settings():
                pass

    def _receive_open(self, frame: frames.SynStream, events: list[Event]) -> None:
        stream_id = frame.stream_id
        if stream_id % 2 != self._remote_parity or stream_id <= self._last_remote_id:
            raise SpdyError(f"stream {stream_id} cannot be opened after {self._last_remote_id}")
        self._last_remote_id = stream_id
        if len(self._streams) >= self._max_streams:
            self._send(frames.RstStream(stream_id, frames.RST_REFUSED_STREAM))
            return
        halves = self._streams[stream_id] = _Halves(local=not frame.unidirectional, remote=True)
        events.append(StreamOpened(stream_id, frame.headers))
        if frame.fin:
            self._end_remote(stream_id, halves, events)

    def _open_for_peer(self, stream_id: int) -> _Halves | None:
        halves = self._streams.get(stream_id)
        return halves if halves is not None and halves.remote else None

    def _end_remote(self, stream_id: int, halves: _Halves, events: list[Event]) -> None:
        halves.remote = False
        events.append(StreamEnded(stream_id))
        self._forget_when_closed(stream_id, halves)

    def _forget_when_closed(self, stream_id: int, halves: _Halves) -> None:
        if not halves.local and not halves.remote:
            self._streams.pop(stream_id, None)

    # ---- what we send

    def take_output(self) -> bytes:
        """The bytes to send now, in this order, each once."""
        output = bytes(self._output)
        self._output.clear()
        return output

    def open(self, headers: dict[str, str]) -> int:
        """Open a stream of ours; returns its number."""
        stream_id = self._next_id
        self._next_id += 2
        self._streams[stream_id] = _Halves(local=True, remote=True)
        self._send(frames.SynStream(stream_id, headers))
        return stream_id

    def accept(self, stream_id: int) -> None:
        """Take a stream that the peer opened."""
        if stream_id in self._streams:
            self._send(frames.SynReply(stream_id, {}))

    def is_known(self, stream_id: int) -> bool:
        """Whether a half of the stream is still open."""
        return stream_id in self._streams

    def can_send(self, stream_id: int) -> bool:
        """Whether our half is open."""
        halves = self._streams.get(stream_id)
        return halves is not None and halves.local

    def send(self, stream_id: int, data: bytes) -> None:
        """Bytes on a stream whose local half is open."""
        if not self.can_send(stream_id):
            raise LocalError(f"stream {stream_id} is not open for sending")
        for start in range(0, len(data), MAX_PIECE_BYTES):
            self._send(frames.Data(stream_id, data[start : start + MAX_PIECE_BYTES]))

    def end(self, stream_id: int) -> None:
        """Close our half. A half that is closed stays so."""
        if self.can_send(stream_id):
            halves = self._streams[stream_id]
            halves.local = False
            self._send(frames.Data(stream_id, b"", fin=True))
            self._forget_when_closed(stream_id, halves)

    def reset(self, stream_id: int, status: int = frames.RST_CANCEL) -> None:
        """Break a stream off. One that is gone stays so."""
        if self._streams.pop(stream_id, None):
            self._send(frames.RstStream(stream_id, status))

    def go_away(self) -> None:
        """Say that we end in good order."""
        self._send(frames.GoAway(self._last_remote_id, frames.GOAWAY_OK))

    def _send(self, frame: frames.Frame) -> None:
        self._output += self._encoder.encode(frame)
