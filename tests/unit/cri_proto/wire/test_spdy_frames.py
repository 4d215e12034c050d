"""SPDY frames: round trip, any cut of the bytes, limits, and nonsense."""

from __future__ import annotations

import hashlib
import itertools
import zlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cri_proto.wire import spdy_frames as spdy
from cri_proto.wire.spdy_dictionary import HEADER_DICTIONARY

STREAM = st.integers(1, 0x7FFFFFFF)
WORD = st.integers(0, 0xFFFFFFFF)
HEADERS = st.dictionaries(
    st.text("abcdefghijklmnopqrstuvwxyz-:", min_size=1, max_size=12), st.text(max_size=40), max_size=8
)
FRAMES = st.one_of(
    st.builds(spdy.SynStream, STREAM, HEADERS, st.booleans(), st.booleans()),
    st.builds(spdy.SynReply, STREAM, HEADERS, st.booleans()),
    st.builds(spdy.Headers, STREAM, HEADERS, st.booleans()),
    st.builds(spdy.RstStream, STREAM, WORD),
    st.builds(spdy.Ping, WORD),
    st.builds(spdy.GoAway, STREAM, WORD),
    st.builds(spdy.WindowUpdate, STREAM, WORD),
    st.just(spdy.Settings()),
    st.builds(spdy.Data, STREAM, st.binary(max_size=300), st.booleans()),
)


def cut(data: bytes, points: list[int]) -> list[bytes]:
    """The pieces between the points."""
    places = sorted({0, len(data), *(point % (len(data) + 1) for point in points)})
    return [data[start:end] for start, end in itertools.pairwise(places)]


def merged(frames: list[spdy.Frame]) -> list[spdy.Frame]:
    """Pieces of one data frame put together: where they were cut does not matter."""
    result: list[spdy.Frame] = []
    for frame in frames:
        match (result[-1] if result else None, frame):
            case (spdy.Data(stream, before, False), spdy.Data(same, data, fin)) if same == stream:
                result[-1] = spdy.Data(stream, before + data, fin)
            case _:
                result.append(frame)
    return result


def test_the_dictionary_is_that_of_the_specification() -> None:
    """1,423 bytes, byte for byte what Go's programs have."""
    assert len(HEADER_DICTIONARY) == 1423
    expected = "51d27341373f923f3cd88e1eb7162aeaa3723d7585ff2399201dc06498407f02"
    assert hashlib.sha256(HEADER_DICTIONARY).hexdigest() == expected


@given(st.lists(FRAMES, max_size=12), st.lists(st.integers(0, 5000), max_size=30))
def test_frames_survive_the_way_however_they_are_cut(sent: list[spdy.Frame], points: list[int]) -> None:
    """Encode, cut anywhere, decode: the same frames."""
    encoder, decoder = spdy.FrameEncoder(), spdy.FrameDecoder()
    data = b"".join(encoder.encode(frame) for frame in sent)
    received = [frame for piece in cut(data, points) for frame in decoder.feed(piece)]
    assert merged(received) == merged(sent)


@given(st.binary(max_size=200))
def test_nonsense_is_refused_or_waits(data: bytes) -> None:
    """Any bytes: frames, SpdyError, or nothing yet; never another error."""
    decoder = spdy.FrameDecoder()
    try:
        decoder.feed(data)
    except spdy.SpdyError:
        return


def control(kind: int, body: bytes, version: int = 3) -> bytes:
    """A control frame by hand."""
    return bytes((0x80, version, 0, kind, 0)) + len(body).to_bytes(3) + body


def block(text: bytes) -> bytes:
    """A compressed header block by hand."""
    deflater = zlib.compressobj(zdict=HEADER_DICTIONARY)
    return deflater.compress(text) + deflater.flush(zlib.Z_SYNC_FLUSH)


def words(*texts: bytes) -> bytes:
    """Texts with their lengths."""
    return b"".join(len(text).to_bytes(4) + text for text in texts)


@pytest.mark.parametrize(
    ("data", "problem"),
    [
        (control(spdy.PING, b"\0\0\0\1", version=2), "SPDY version 2"),
        (bytes((0x80, 3, 0, 1, 0)) + (spdy.MAX_CONTROL_BYTES + 1).to_bytes(3), "control frame of"),
        (control(spdy.RST_STREAM, b"\0"), "only 1 bytes"),
        (control(spdy.SYN_REPLY, b"\0\0\0\1nonsense"), "cannot be inflated"),
        (control(spdy.SYN_REPLY, b"\0\0\0\1" + block(bytes(100_000))), "inflates to more"),
        (control(spdy.SYN_REPLY, b"\0\0\0\1" + block((1000).to_bytes(4))), "1000 headers"),
        (control(spdy.SYN_REPLY, b"\0\0\0\1" + block((1).to_bytes(4) + words(b"a"))), "middle of a header"),
        (control(spdy.SYN_REPLY, b"\0\0\0\1" + block((2).to_bytes(4) + words(b"a", b"", b"A", b""))), "twice"),
        (control(spdy.SYN_REPLY, b"\0\0\0\1" + block((1).to_bytes(4) + words(b"a", b"\xff"))), "UTF-8"),
        (control(spdy.SYN_REPLY, b"\0\0\0\1" + block((0).to_bytes(4) + b"x")), "after the last header"),
    ],
)
def test_what_the_peer_may_not_do(data: bytes, problem: str) -> None:
    """Each limit has its own words."""
    with pytest.raises(spdy.SpdyError, match=problem):
        spdy.FrameDecoder().feed(data)


def test_a_long_data_frame_is_not_collected() -> None:
    """Its first bytes are handed on before the last ones have come."""
    decoder = spdy.FrameDecoder()
    whole = spdy.FrameEncoder().encode(spdy.Data(5, b"x" * 100_000, fin=True))
    assert decoder.feed(whole[:1000]) == [spdy.Data(5, b"x" * 992)]
    assert merged(decoder.feed(whole[1000:])) == [spdy.Data(5, b"x" * 99_008, fin=True)]
