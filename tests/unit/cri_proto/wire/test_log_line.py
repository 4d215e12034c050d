"""Lines of CRI logs: what is written is read back, and what is not a line is refused with a reason."""

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cri_proto.wire.log_line import STDERR, STDOUT, LogLine, LogLineError, format_line, parse_line

texts = st.binary(max_size=200).map(lambda data: data.replace(b"\n", b""))
times = st.just(b"2026-11-22T20:02:45.123456789Z") | st.just(b"2016-10-06T00:17:09.669794202+02:00")
lines = st.builds(LogLine, times, st.sampled_from([STDOUT, STDERR]), st.booleans(), texts)


@given(lines)
def test_what_is_formatted_is_parsed_back(line: LogLine) -> None:
    formatted = format_line(line.timestamp, line.stream, line.partial, line.text)
    assert parse_line(formatted) == line
    assert parse_line(formatted.removesuffix(b"\n")) == line


@given(st.lists(lines, max_size=5))
def test_each_entry_is_one_line(entries: list[LogLine]) -> None:
    log = b"".join(format_line(each.timestamp, each.stream, each.partial, each.text) for each in entries)
    assert [parse_line(line) for line in log.split(b"\n")[:-1]] == entries


def test_further_tags_are_left_aside() -> None:
    assert parse_line(b"T stdout P:x:y a b\n") == LogLine(b"T", STDOUT, True, b"a b")


def test_text_of_strings_and_bytes_is_the_same_line() -> None:
    assert format_line("T", "stderr", False, b"x") == format_line(b"T", b"stderr", False, b"x") == b"T stderr F x\n"


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        (b"", "no time"),
        (b"nonsense", "no time"),
        (b"T stdin F x", "stdout or stderr"),
        (b"T stdout X x", "P (partial) or F (full)"),
        (b"T stdout F", "no space after the tags"),
        (b'{"log":"docker\\n","stream":"stdout"}', "no time"),
    ],
)
def test_what_is_no_line_is_refused_with_a_reason(line: bytes, reason: str) -> None:
    with pytest.raises(LogLineError) as refused:
        parse_line(line)
    assert reason in str(refused.value)


def test_a_newline_in_the_text_is_refused() -> None:
    with pytest.raises(LogLineError):
        format_line("T", "stdout", False, b"a\nb")


@given(st.binary(max_size=80))
def test_no_bytes_make_the_parser_fail_otherwise(line: bytes) -> None:
    with contextlib.suppress(LogLineError):
        parse_line(line)
