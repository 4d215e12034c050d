"""A container's bytes become the same lines however they are cut, and each line tells which bytes it stands for."""

from __future__ import annotations

from itertools import pairwise

from hypothesis import example, given
from hypothesis import strategies as st

from cri_proto.wire.log_line import parse_line
from dockershim.logs.spool_text import PART_BYTES, source_bytes, timestamp, translate

STAMP = b"2026-11-26T13:00:00.000000001Z"
PIECES = st.sampled_from([b"a", b"\n", b"\r", b"\r\n", b"\xff\xfe", b"x" * (PART_BYTES - 1), b"y" * PART_BYTES])
OUTPUTS = st.lists(PIECES, max_size=12).map(b"".join)


def lines_of(data: bytes, cuts: list[int]) -> bytes:
    """The log of an output that comes in pieces, the rest of each waiting for the next."""
    written, waiting = b"", b""
    edges = [0, *sorted(min(cut, len(data)) for cut in cuts), len(data)]
    for start, end in pairwise(edges):
        waiting += data[start:end]
        lines, count = translate(waiting, b"stdout", STAMP, at_end=end == len(data))
        written, waiting = written + lines, waiting[count:]
    assert waiting == b""
    return written


def test_a_line_an_empty_line_and_an_unfinished_one() -> None:
    lines = translate(b"one\n\ntwo", b"stderr", STAMP, at_end=True)
    assert lines == (b"%b stderr F one\n%b stderr F \n%b stderr P two\n" % (STAMP, STAMP, STAMP), 8)


def test_an_unfinished_line_waits() -> None:
    assert translate(b"one\ntwo", b"stdout", STAMP, at_end=False) == (STAMP + b" stdout F one\n", 4)
    assert translate(b"two", b"stdout", STAMP, at_end=False) == (b"", 0)
    assert translate(b"", b"stdout", STAMP, at_end=True) == (b"", 0)


def test_a_long_line_comes_in_parts() -> None:
    lines = [parse_line(line) for line in lines_of(b"x" * 40_000 + b"\r\nz\n", []).splitlines()]
    assert [(line.partial, len(line.text)) for line in lines] == [
        (True, 16384),
        (True, 16384),
        (False, 7232),
        (False, 1),
    ]


@given(OUTPUTS, st.lists(st.integers(0, 200_000), max_size=5))
@example(b"y" * PART_BYTES + b"\r\n", [PART_BYTES + 1])
@example(b"y" * PART_BYTES + b"\r\r\n", [PART_BYTES + 1, PART_BYTES + 2])
@example(b"y" * PART_BYTES + b"\rz\n", [PART_BYTES, PART_BYTES + 1])
@example(b"y" * PART_BYTES + b"\n", [PART_BYTES])
def test_it_does_not_matter_how_it_is_cut(data: bytes, cuts: list[int]) -> None:
    assert lines_of(data, cuts) == lines_of(data, [])


@given(OUTPUTS)
def test_each_line_stands_for_its_bytes(data: bytes) -> None:
    rest = data
    for raw in lines_of(data, []).split(b"\n")[:-1]:
        line = parse_line(raw)
        count = source_bytes(line, rest[: len(line.text) + 2])
        assert count > 0 or (line.text == b"" and line.partial)
        rest = rest[count:]
    assert rest == b""


def test_a_line_of_somewhere_else_stands_for_nothing() -> None:
    line = parse_line(STAMP + b" stdout F one")
    assert source_bytes(line, b"onc\n") == 0
    assert source_bytes(line, b"ones") == 0
    assert source_bytes(line, b"one") == 0


def test_times_have_nine_digits() -> None:
    assert timestamp(1_795_699_185_000_000_042) == b"2026-11-26T13:19:45.000000042Z"
