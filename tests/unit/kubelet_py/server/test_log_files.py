"""Reading logs from disk: the right lines, whatever the sizes and the cuts."""

import gzip
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kubelet_py.core.log_query import LogQuery, rfc3339_ns
from kubelet_py.server.log_files import LogReader, find_tail, list_log_files


def entry(second: int, text: str, stream: str = "stdout", tag: str = "F") -> bytes:
    return f"2026-03-01T10:00:{second:02d}.5Z {stream} {tag} {text}\n".encode()


def read_all(path: Path, query: LogQuery) -> bytes:
    reader = LogReader(path, query)
    try:
        pieces = []
        while not reader.done:
            pieces.append(reader.read_batch())
        return b"".join(pieces)
    finally:
        reader.close()


@pytest.fixture
def log(tmp_path: Path) -> Path:
    path = tmp_path / "0.log"
    path.write_bytes(b"".join(entry(i, f"line {i}", "stderr" if i % 3 == 2 else "stdout") for i in range(10)))
    return path


def test_the_whole_log_is_the_texts_of_its_entries(log: Path) -> None:
    assert read_all(log, LogQuery()) == b"".join(b"line %d\n" % i for i in range(10))


def test_tail_since_stream_timestamps_and_limit(log: Path) -> None:
    assert read_all(log, LogQuery(tail_lines=2)) == b"line 8\nline 9\n"
    assert read_all(log, LogQuery(tail_lines=0)) == b""
    assert read_all(log, LogQuery(tail_lines=99)).count(b"\n") == 10
    since = rfc3339_ns(b"2026-03-01T11:00:07.5+01:00")
    assert read_all(log, LogQuery(since_ns=since)) == b"line 7\nline 8\nline 9\n"
    assert read_all(log, LogQuery(since_ns=since, tail_lines=1)) == b"line 9\n"
    assert read_all(log, LogQuery(stream=b"stderr")) == b"line 2\nline 5\nline 8\n"
    assert read_all(log, LogQuery(timestamps=True, tail_lines=1)) == b"2026-03-01T10:00:09.500000000Z line 9\n"
    assert read_all(log, LogQuery(limit_bytes=10)) == b"line 0\nlin"


def test_a_tail_is_of_the_whole_log_and_what_is_recent_of_it_is_shown(tmp_path: Path) -> None:
    path = tmp_path / "0.log"
    path.with_name("0.log.20260301-090000.gz").write_bytes(gzip.compress(b"".join(entry(i, f"{i}") for i in range(20))))
    path.write_bytes(b"".join(entry(i, f"{i}") for i in range(20, 25)))
    since = rfc3339_ns(b"2026-03-01T10:00:12.5Z")
    shown = read_all(path, LogQuery(since_ns=since, tail_lines=10))
    assert shown.split() == [b"%d" % i for i in range(15, 25)]


def test_partial_entries_are_one_line_with_one_time_stamp(tmp_path: Path) -> None:
    path = tmp_path / "0.log"
    path.write_bytes(
        entry(1, "a") + entry(2, "long ", tag="P") + entry(3, "longer ", tag="P") + entry(4, "end") + entry(5, "z")
    )
    assert read_all(path, LogQuery(tail_lines=2)) == b"long longer end\nz\n"
    stamped = read_all(path, LogQuery(tail_lines=2, timestamps=True))
    assert stamped == b"2026-03-01T10:00:02.500000000Z long longer end\n2026-03-01T10:00:05.500000000Z z\n"


def test_rotated_files_come_first_and_a_half_compressed_one_is_read_once(tmp_path: Path) -> None:
    path = tmp_path / "0.log"
    (tmp_path / "0.log.20260301-090000.gz").write_bytes(gzip.compress(entry(1, "oldest") + entry(2, "older")))
    (tmp_path / "0.log.20260301-093000").write_bytes(entry(3, "old") + entry(4, "older than new"))
    (tmp_path / "0.log.20260301-093000.gz").write_bytes(gzip.compress(b"not finished"))
    (tmp_path / "0.log.20260301-093000.tmp").write_bytes(b"x")
    (tmp_path / "1.log").write_bytes(entry(9, "another attempt"))
    path.write_bytes(entry(5, "new"))
    assert [p.name for p in list_log_files(path)] == [
        "0.log.20260301-090000.gz",
        "0.log.20260301-093000",
        "0.log",
    ]
    everything = [b"oldest", b"older", b"old", b"older than new", b"new"]
    assert read_all(path, LogQuery()).splitlines() == everything
    for lines in range(6):
        assert read_all(path, LogQuery(tail_lines=lines)).splitlines() == everything[5 - lines :]


def test_what_is_no_entry_is_left_out_and_an_unfinished_last_one_is_shown(tmp_path: Path) -> None:
    path = tmp_path / "0.log"
    path.write_bytes(
        b"garbage\n\n" + entry(1, "good") + b'{"log":"json\\n","stream":"stdout","time":"2026-03-01T10:00:02Z"}\n'
    )
    with path.open("ab") as file:
        file.write(entry(3, "no newline")[:-1])
    assert read_all(path, LogQuery()) == b"good\njson\nno newline\n"
    assert read_all(path, LogQuery(tail_lines=2)) == b"json\nno newline\n"


def test_a_log_that_is_being_written_is_read_up_to_its_size_at_the_start(log: Path) -> None:
    reader = LogReader(log, LogQuery())
    with log.open("ab") as file:
        file.write(entry(50, "later"))
    assert b"later" not in reader.read_batch()
    assert reader.done
    reader.close()


def test_a_follower_goes_on_in_the_file_that_took_the_name(log: Path) -> None:
    reader = LogReader(log, LogQuery(follow=True, tail_lines=1))
    assert reader.read_batch() == b"line 9\n"
    assert not reader.reopen_if_rotated()
    old = log.rename(log.with_name("0.log.20260301-100000"))
    assert not reader.reopen_if_rotated()
    with old.open("ab") as file:
        file.write(entry(20, "last words"))
    log.write_bytes(entry(21, "first words"))
    assert reader.reopen_if_rotated()
    assert reader.read_batch() == b"last words\n"
    assert reader.reopen_if_rotated()
    assert reader.read_batch() == b"first words\n"
    log.write_bytes(b"")
    assert reader.reopen_if_rotated()
    log.write_bytes(entry(22, "x"))
    assert reader.read_batch() == b"x\n"
    reader.close()


@pytest.mark.parametrize(("query", "expected"), [(LogQuery(), range(12)), (LogQuery(tail_lines=3), range(7, 12))])
def test_a_rotation_while_the_files_are_looked_for_shows_no_line_twice(
    log: Path, monkeypatch: pytest.MonkeyPatch, query: LogQuery, expected: range
) -> None:
    """The file that was opened has another name by then; a follower goes on in the one after it."""

    def list_late(path: Path) -> list[Path]:
        log.rename(f"{log}.20260301-100000")
        log.write_bytes(entry(10, "line 10") + entry(11, "line 11"))
        return list_log_files(path)

    monkeypatch.setattr("kubelet_py.server.log_files.list_log_files", list_late)
    reader = LogReader(log, replace(query, follow=True))
    try:
        shown = reader.read_batch()
        while reader.reopen_if_rotated():
            shown += reader.read_batch()
    finally:
        reader.close()
    assert shown == b"".join(b"line %d\n" % number for number in expected)


@given(st.lists(st.tuples(st.integers(0, 300), st.booleans()), max_size=60), st.integers(1, 70), st.integers(16, 400))
def test_the_tail_begins_after_the_line_before_it_for_any_block_size(
    tmp_path_factory: pytest.TempPathFactory, shapes: list[tuple[int, bool]], lines: int, block: int
) -> None:
    path = tmp_path_factory.mktemp("logs") / "0.log"
    entries = [entry(i % 60, "x" * length, tag="P" if part else "F") for i, (length, part) in enumerate(shapes)]
    path.write_bytes(b"".join(entries))
    # A line ends with a full entry; the last one counts although its end is not written yet.
    ends = [i for i, (_, partial) in enumerate(shapes) if not partial or i == len(shapes) - 1]
    if len(ends) > lines:
        expected: tuple[int | None, int] = (sum(map(len, entries[: ends[-lines - 1] + 1])), lines)
    else:
        expected = (0, lines) if len(ends) == lines else (None, len(ends))
    assert find_tail(path, lines, block) == expected


def test_the_tail_of_a_large_log_reads_only_its_end(tmp_path: Path) -> None:
    path = tmp_path / "0.log"
    line = entry(1, "y" * 200)
    with path.open("wb") as file:
        file.write(line)
        file.seek(1 << 33)  # 8 GiB that nobody could read in the time of a test
        file.write(b"\n" + line * 5000)
    reader = LogReader(path, LogQuery(tail_lines=3))
    assert reader.read_batch().count(b"\n") == 3
    reader.close()


def test_find_tail_says_how_many_lines_there_are_when_they_are_too_few(log: Path) -> None:
    assert find_tail(log, 11) == (None, 10)
    assert find_tail(log, 10) == (0, 10)
