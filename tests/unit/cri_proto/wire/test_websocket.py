"""WebSocket frames: round trip, any cut of the bytes, what is refused; and wsproto agrees."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cri_proto.wire import websocket

MESSAGES = st.lists(
    st.tuples(
        st.sampled_from([websocket.TEXT, websocket.BINARY]), st.binary(max_size=400), st.binary(min_size=4, max_size=4)
    ),
    max_size=8,
)


@given(MESSAGES, st.lists(st.integers(0, 3000), max_size=20))
def test_messages_survive_the_way_however_they_are_cut(sent: list[tuple[int, bytes, bytes]], points: list[int]) -> None:
    """Masked, cut anywhere, unmasked: the same messages."""
    data = b"".join(websocket.encode_frame(opcode, payload, mask) for opcode, payload, mask in sent)
    places = sorted({0, len(data), *(point % (len(data) + 1) for point in points)})
    decoder = websocket.WebSocketDecoder(masked=True)
    pieces = [data[start:end] for start, end in itertools.pairwise(places)]
    received = [message for piece in pieces for message in decoder.feed(piece)]
    assert received == [websocket.Message(opcode, payload) for opcode, payload, _ in sent]


@pytest.mark.parametrize("length", [0, 125, 126, 65535, 65536])
def test_each_form_of_length(length: int) -> None:
    """The three ways of writing a length, at their borders."""
    decoder = websocket.WebSocketDecoder(masked=False)
    assert decoder.feed(websocket.encode_frame(websocket.BINARY, bytes(length))) == [
        websocket.Message(websocket.BINARY, bytes(length))
    ]


def test_pieces_of_a_message_with_a_ping_between() -> None:
    """A message in pieces is put together, and control frames pass between them."""
    decoder = websocket.WebSocketDecoder(masked=False)
    assert decoder.feed(b"\x02\x02ab" + b"\x89\x01p" + b"\x00\x01c" + b"\x80\x01d") == [
        websocket.Message(websocket.PING, b"p"),
        websocket.Message(websocket.BINARY, b"abcd"),
    ]


@pytest.mark.parametrize(
    ("data", "problem"),
    [
        (b"\xc2\x00", "reserved"),
        (b"\x83\x00", "opcode"),
        (b"\x89\x7e\x00\x80", "control frame"),
        (b"\x09\x00", "control frame"),
        (b"\x82\x80\0\0\0\0", "mask"),
        (b"\x80\x00", "without having begun"),
        (b"\x02\x00\x82\x00", "inside another"),
        (b"\x82\x7f" + (1 << 40).to_bytes(8), "more than"),
    ],
)
def test_what_the_peer_may_not_do(data: bytes, problem: str) -> None:
    """Each has its own words."""
    with pytest.raises(websocket.WebSocketError, match=problem):
        websocket.WebSocketDecoder(masked=False).feed(data)


@given(st.binary(max_size=100))
def test_nonsense_is_refused_or_waits(data: bytes) -> None:
    """Any bytes: messages, WebSocketError, or nothing yet."""
    try:
        websocket.WebSocketDecoder(masked=True).feed(data)
    except websocket.WebSocketError:
        return


def test_the_key_of_the_specification() -> None:
    """The example of RFC 6455, section 1.3."""
    assert websocket.accept_key("dGhlIHNhbXBsZSBub25jZQ==") == "s3pPLMBiTxaQ9kYGzzhZRbK+xOo="
