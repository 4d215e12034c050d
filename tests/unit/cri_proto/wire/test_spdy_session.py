"""A SPDY connection: two sides on a wire in memory, and every state with every input."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cri_proto.wire import spdy_frames as spdy
from cri_proto.wire import spdy_session as session
from cri_proto.wire.spdy_session import SpdySession


class Wire:
    """Both sides; what one sends the other receives, in pieces of a given size."""

    def __init__(self, piece_bytes: int = 1 << 20) -> None:
        self.client, self.server = SpdySession(client=True), SpdySession(client=False)
        self._piece_bytes = piece_bytes

    def carry(self, sender: SpdySession, receiver: SpdySession) -> list[session.Event]:
        """Everything under way in one direction."""
        data = sender.take_output()
        step = self._piece_bytes
        return [event for at in range(0, len(data), step) for event in receiver.receive(data[at : at + step])]

    def to_server(self) -> list[session.Event]:
        """Client to server."""
        return self.carry(self.client, self.server)

    def to_client(self) -> list[session.Event]:
        """Server to client."""
        return self.carry(self.server, self.client)


@pytest.mark.parametrize("piece_bytes", [1, 7, 1 << 20])
def test_a_stream_lives_and_ends(piece_bytes: int) -> None:
    """Open, accept, data both ways, half-close on each side; then nobody knows it any more."""
    wire = Wire(piece_bytes)
    first = wire.client.open({"streamType": "stdin"})
    assert wire.to_server() == [session.StreamOpened(first, {"streamtype": "stdin"})]
    wire.server.accept(first)
    assert wire.to_client() == [session.StreamAccepted(first)]
    wire.client.send(first, b"hello")
    wire.client.end(first)
    received = wire.to_server()
    assert b"".join(e.data for e in received if isinstance(e, session.DataReceived)) == b"hello"
    assert received[-1] == session.StreamEnded(first)
    wire.server.send(first, b"x" * 100_000)
    wire.server.end(first)
    received = wire.to_client()
    assert sum(len(e.data) for e in received if isinstance(e, session.DataReceived)) == 100_000
    assert received[-1] == session.StreamEnded(first)
    assert not wire.client.is_known(first)
    assert not wire.server.is_known(first)


def test_what_is_under_way_to_a_reset_stream_is_dropped() -> None:
    """Neither side stumbles over the last words of the other."""
    wire = Wire()
    first = wire.client.open({})
    wire.to_server()
    wire.server.reset(first)
    wire.client.send(first, b"late")
    assert wire.to_server() == []
    assert wire.to_client() == [session.StreamReset(first, spdy.RST_CANCEL)]
    with pytest.raises(session.LocalError):
        wire.client.send(first, b"later")


def test_pings_come_back_and_ours_do_not_go_round() -> None:
    """A peer's ping is answered once; an answer is not answered."""
    server = SpdySession(client=False)
    ping = spdy.FrameEncoder().encode(spdy.Ping(7))
    assert server.receive(ping) == []
    assert server.take_output() == ping
    server.receive(spdy.FrameEncoder().encode(spdy.Ping(8)))
    assert server.take_output() == b""


def test_streams_are_limited_and_refused_ones_keep_the_headers_in_step() -> None:
    """The header block of a refused stream is inflated too: the next stream is understood."""
    client, server = SpdySession(client=True), SpdySession(client=False, max_streams=1)
    first, second = client.open({"a": "1"}), client.open({"a": "2"})
    assert server.receive(client.take_output()) == [session.StreamOpened(first, {"a": "1"})]
    assert client.receive(server.take_output()) == [session.StreamReset(second, spdy.RST_REFUSED_STREAM)]
    server.reset(first)
    third = client.open({"a": "3"})
    assert server.receive(client.take_output()) == [session.StreamOpened(third, {"a": "3"})]


@pytest.mark.parametrize("numbers", [(2,), (3, 1), (3, 3)])
def test_stream_numbers_that_may_not_be(numbers: tuple[int, ...]) -> None:
    """Of the wrong side, going back, or used before: the connection is over, and the peer is told."""
    encoder, server = spdy.FrameEncoder(), SpdySession(client=False)
    data = b"".join(encoder.encode(spdy.SynStream(number, {})) for number in numbers)
    with pytest.raises(spdy.SpdyError):
        server.receive(data)
    last = server.take_output()[-8:]
    assert int.from_bytes(last[4:]) == spdy.GOAWAY_PROTOCOL_ERROR
    with pytest.raises(spdy.SpdyError):
        server.receive(b"")


INPUTS: list[spdy.Frame] = [
    spdy.SynReply(1, {}),
    spdy.SynReply(1, {}, fin=True),
    spdy.Headers(1, {"a": "b"}),
    spdy.Headers(1, {}, fin=True),
    spdy.Data(1, b"x"),
    spdy.Data(1, b"", fin=True),
    spdy.RstStream(1, 5),
    spdy.WindowUpdate(1, 9),
    spdy.Settings(),
    spdy.GoAway(0, 0),
    spdy.Ping(1),
]
STATES = ("unknown", "open", "we ended", "they ended", "gone", "reset")


@pytest.mark.parametrize("state", STATES)
@pytest.mark.parametrize("frame", INPUTS, ids=lambda frame: f"{type(frame).__name__}{getattr(frame, 'fin', '')}")
def test_every_state_takes_every_input(state: str, frame: spdy.Frame) -> None:
    """No frame for a stream is fatal in any state; and only an open remote half brings data or an end."""
    encoder, server = spdy.FrameEncoder(), SpdySession(client=False)
    if state != "unknown":
        server.receive(encoder.encode(spdy.SynStream(1, {})))
    if state in ("we ended", "gone"):
        server.end(1)
    if state in ("they ended", "gone"):
        server.receive(encoder.encode(spdy.Data(1, b"", fin=True)))
    if state == "reset":
        server.reset(1)
    remote_open = state in ("open", "we ended")
    events = server.receive(encoder.encode(frame))
    carries = [e for e in events if isinstance(e, session.DataReceived | session.StreamEnded | session.StreamAccepted)]
    assert remote_open or not carries
    if isinstance(frame, spdy.RstStream):
        assert bool(events) == server_knew(state)
        assert not server.is_known(1)
    if getattr(frame, "fin", False) and remote_open:
        assert events[-1] == session.StreamEnded(1)


def server_knew(state: str) -> bool:
    """Whether a half is open."""
    return state in ("open", "we ended", "they ended")


@given(st.lists(st.tuples(st.sampled_from(["open", "send", "end", "reset", "carry"]), st.integers(0, 5)), max_size=40))
def test_both_sides_agree_after_any_conversation(steps: list[tuple[str, int]]) -> None:
    """Random work of both sides: when everything has arrived, both know the same streams."""
    wire = Wire(5)
    opened: list[int] = []
    for what, number in steps:
        side = (wire.client, wire.server)[number % 2]
        target = opened[number % len(opened)] if opened else 0
        if what == "open":
            opened.append(wire.client.open({"n": str(number)}))
            wire.to_server()
        elif what == "send" and side.can_send(target):
            side.send(target, b"data")
        elif what == "end":
            side.end(target)
        elif what == "reset":
            side.reset(target)
        elif what == "carry":
            wire.to_server()
            wire.to_client()
    wire.to_server()
    wire.to_client()
    wire.to_server()
    assert [wire.client.is_known(n) for n in opened] == [wire.server.is_known(n) for n in opened]
