"""Docker's stream framing."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dockershim.engine.stdcopy import STDERR, STDOUT, BrokenFraming, StdcopyDecoder, encode_frame

frames = st.lists(st.tuples(st.sampled_from([STDOUT, STDERR]), st.binary(max_size=300)), max_size=20)


@given(frames, st.lists(st.integers(1, 50), min_size=1))
def test_every_cut_gives_the_same_streams(sent: list[tuple[int, bytes]], cuts: list[int]) -> None:
    """However the bytes are cut, each stream has its bytes in order."""
    data = b"".join(encode_frame(stream, piece) for stream, piece in sent)
    decoder = StdcopyDecoder()
    got: dict[int, bytes] = {STDOUT: b"", STDERR: b""}
    position = index = 0
    while position < len(data):
        step = cuts[index % len(cuts)]
        for stream, piece in decoder.feed(data[position : position + step]):
            got[stream] += piece
        position, index = position + step, index + 1
    for stream in got:
        assert got[stream] == b"".join(piece for sent_stream, piece in sent if sent_stream == stream)
    assert decoder.at_boundary


def test_a_cut_frame_is_seen() -> None:
    """The end of the stream in the middle of a frame is not at a boundary."""
    decoder = StdcopyDecoder()
    decoder.feed(encode_frame(STDOUT, b"hello")[:-1])
    assert not decoder.at_boundary


def test_raw_bytes_are_no_frames() -> None:
    """Output of a tty is refused instead of being read as a huge frame."""
    with pytest.raises(BrokenFraming):
        StdcopyDecoder().feed(b"/ # ls -l\r\n")
