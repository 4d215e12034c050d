"""A follower loses and doubles no line, whatever is killed, rotated, moved or cut off, and whenever."""

from __future__ import annotations

import errno
import os
import resource
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from dockershim.logs import LogSource
from dockershim.logs.follower import Follower
from dockershim.logs.position import PositionStore
from tests.unit.dockershim.logs.docker_lines import Line, cri, docker

ID = "c" * 64


class Node:
    """One container's files, and the parties that touch them: dockerd, the kubelet, the follower, and death."""

    def __init__(self, root: Path, slice_bytes: int = 128) -> None:
        self.docker_log = root / "containers" / ID / f"{ID}-json.log"
        self.docker_log.parent.mkdir(parents=True)
        self.cri_log = root / "pods" / "ns_pod_uid" / "container" / "0.log"
        self.store = PositionStore(root / "state")
        self.slice_bytes = slice_bytes
        self.lines: list[Line] = []
        self.moved = 0
        self._unwritten = b""
        self.follower = self._new_follower()

    def _new_follower(self) -> Follower:
        source = LogSource(ID, str(self.docker_log), str(self.cri_log))
        return Follower(source, self.store, self.slice_bytes)

    def write(self, count: int, text: str = "line {}\n", torn_bytes: int = 0) -> None:
        """dockerd writes entries; of the last one some bytes come only with the next write."""
        new = [
            Line(text.format(len(self.lines) + at), ("stdout", "stderr")[at % 2], len(self.lines) + at)
            for at in range(count)
        ]
        self.lines += new
        data = self._unwritten + docker(new)
        keep = len(data) - min(torn_bytes, len(data))
        with self.docker_log.open("ab") as file:
            file.write(data[:keep])
        self._unwritten = data[keep:]

    def rotate(self, keep: int = 1000) -> None:
        """dockerd rotates, once it has written its entry to the end."""
        self.write(0)
        if not self.docker_log.exists():
            return
        names = [self.docker_log, *(Path(f"{self.docker_log}.{at}") for at in range(1, keep))]
        existing = sum(1 for name in names if name.exists())
        if existing == keep:
            names[-1].unlink()
            existing -= 1
        for at in reversed(range(existing)):
            names[at].rename(f"{self.docker_log}.{at + 1}")
        self.docker_log.touch()

    def kill(self) -> None:
        """The follower's process dies; a new one starts."""
        self.follower.close()
        self.follower = self._new_follower()
        self.follower.open()

    def tear(self, share: float, *, below_record: bool) -> None:
        """The follower's process dies in a write, or the machine's power fails: the output ends somewhere earlier."""
        position = self.store.load(ID)
        if position is None or not self.cri_log.exists():
            return
        size = self.cri_log.stat().st_size
        floor = position.start.output_bytes if below_record else position.latest.output_bytes
        self.follower.close()
        if 0 <= floor <= size:
            os.truncate(self.cri_log, floor + int((size - floor) * share))
        self.kill()

    def move(self) -> None:
        """The kubelet moves the log file away."""
        if self.cri_log.exists():
            self.moved += 1
            self.cri_log.rename(f"{self.cri_log}.{self.moved:04d}")

    def move_back(self) -> None:
        """The kubelet's call failed, so it takes the move back."""
        if self.moved and Path(f"{self.cri_log}.{self.moved:04d}").exists():
            os.rename(f"{self.cri_log}.{self.moved:04d}", self.cri_log)
            self.moved -= 1

    def drain(self) -> None:
        """Everything that happened is taken note of."""
        self.follower.rescan()
        while self.follower.step():
            pass

    def written(self) -> bytes:
        """All log files in order, each of whole lines."""
        files = [path.read_bytes() for path in [*sorted(self.cri_log.parent.glob("0.log.*")), self.cri_log]]
        assert all(data.endswith(b"\n") for data in files if data), [data[-80:] for data in files]
        return b"".join(files)


@contextmanager
def new_node(slice_bytes: int = 128) -> Iterator[Node]:
    """A node in a directory of its own, its follower running."""
    with tempfile.TemporaryDirectory() as root:
        node = Node(Path(root), slice_bytes)
        try:
            node.follower.open()
            yield node
        finally:
            node.follower.close()


@contextmanager
def full_disk(size_bytes: int) -> Iterator[None]:
    """The limit on file sizes stands for the disk: a write is cut short, the next one fails."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size_bytes, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


actions = st.one_of(
    st.tuples(st.just("write"), st.integers(1, 8), st.sampled_from(["line {}\n", "part {}", "x\n", "é" * 90 + "{}\n"])),
    st.tuples(st.just("write_torn"), st.integers(1, 60)),
    st.tuples(st.just("step"), st.integers(1, 6)),
    st.tuples(st.just("save")),
    st.tuples(st.just("rotate")),
    st.tuples(st.just("kill")),
    st.tuples(st.just("tear"), st.floats(0, 1), st.booleans()),
    st.tuples(st.just("move_and_reopen")),
    st.tuples(st.just("move_kill_move_back")),
    st.tuples(st.just("move_kill_reopen")),
    st.tuples(st.just("tear_move_reopen"), st.floats(0, 1)),
    st.tuples(st.just("lose_position")),
)


@settings(max_examples=300, deadline=None)
@given(st.lists(actions, max_size=40), st.sampled_from([64, 200, 65536]))
@example([("write", 4, "line {}\n"), ("step", 2), ("tear_move_reopen", 0.7)], 64)
@example([("write_torn", 1), ("rotate",), ("step", 1), ("tear", 0.5, False), ("lose_position",)], 64)
def test_no_line_is_lost_or_doubled(story: list[tuple[object, ...]], slice_bytes: int) -> None:
    with new_node(slice_bytes) as node:
        for name, *arguments in story:
            match name, arguments:
                case "write", [int(count), str(text)]:
                    node.write(count, text)
                case "write_torn", [int(torn_bytes)]:
                    node.write(1, torn_bytes=torn_bytes)
                case "step", [int(times)]:
                    for _ in range(times):
                        node.follower.step()
                case "save", _:
                    node.follower.save()
                case "rotate", _:
                    node.rotate()
                    node.follower.rescan()
                case "kill", _:
                    node.kill()
                case "tear", [float(share), bool(below_record)]:
                    node.tear(share, below_record=below_record)
                case "move_and_reopen", _:
                    node.move()
                    node.follower.reopen()
                case "move_kill_move_back", _:
                    node.move()
                    node.kill()
                    if not node.cri_log.exists():
                        node.move_back()
                case "move_kill_reopen", _:
                    node.move()
                    node.kill()
                    node.follower.step()
                    node.follower.reopen()
                case "tear_move_reopen", [float(share)]:
                    node.tear(share, below_record=False)
                    node.move()
                    node.follower.reopen()
                case "lose_position", _ if not node.moved:
                    node.store.remove(ID)
                    node.kill()
        node.write(0)
        node.drain()
        assert node.written() == cri(node.lines)


def test_a_follower_that_keeps_up_loses_nothing_to_a_small_max_file() -> None:
    with new_node() as node:
        for _ in range(12):
            node.write(5)
            node.follower.rescan()  # the event of the file's creation has come; not a line is read yet
            node.rotate(keep=2)
        node.drain()
        assert node.written() == cri(node.lines)


def test_more_generations_than_are_held_open_are_all_read() -> None:
    with new_node() as node:
        for _ in range(40):
            node.write(5)
            node.rotate()
        node.drain()
        assert node.written() == cri(node.lines)
        node.follower.save()
        node.kill()
        node.write(5)
        node.drain()
        assert node.written() == cri(node.lines)


def test_what_docker_dropped_while_nobody_looked_is_passed_over_and_the_rest_written() -> None:
    with new_node() as node:
        node.write(5)
        node.drain()
        node.follower.save()
        for _ in range(4):
            node.write(5)
            node.rotate(keep=2)
        node.kill()
        node.drain()
        assert node.written() == cri(node.lines[:5] + node.lines[-5:])


def test_a_source_truncated_in_place_is_read_from_its_start() -> None:
    with new_node() as node:
        node.write(50)
        node.drain()
        os.truncate(node.docker_log, 0)
        node.write(3)
        node.drain()
        assert node.written() == cri(node.lines)


def test_a_reopen_without_a_move_changes_nothing() -> None:
    with new_node() as node:
        node.write(3)
        node.drain()
        inode = node.cri_log.stat().st_ino
        node.follower.reopen()
        node.write(3)
        node.drain()
        assert node.cri_log.stat().st_ino == inode
        assert node.written() == cri(node.lines)


def test_killed_in_a_reopen_whose_caller_died_too_goes_on_in_the_new_file() -> None:
    with new_node() as node:
        node.write(4)
        node.drain()
        node.move()
        node.cri_log.touch()  # made, but not recorded
        node.write(4)
        node.kill()
        node.drain()
        node.kill()
        node.write(4)
        node.drain()
        assert node.written() == cri(node.lines)
        assert node.cri_log.read_bytes() == cri(node.lines[4:])


def test_a_log_file_removed_while_nobody_looked_is_written_again() -> None:
    with new_node() as node:
        node.write(4)
        node.drain()
        node.follower.save()
        node.follower.close()
        node.cri_log.unlink()
        node.kill()
        node.drain()
        assert node.written() == cri(node.lines)


def test_a_link_to_dockers_own_file_is_replaced_by_a_file() -> None:
    with new_node() as node:
        node.follower.close()
        node.cri_log.unlink()
        node.store.remove(ID)
        node.write(4)
        node.cri_log.symlink_to(node.docker_log)
        node.kill()
        node.drain()
        assert not node.cri_log.is_symlink()
        assert node.cri_log.read_bytes() == cri(node.lines)
        assert node.docker_log.read_bytes() == docker(node.lines)


def test_files_get_the_modes_that_log_collectors_expect() -> None:
    with new_node() as node:
        assert node.cri_log.stat().st_mode & 0o777 == 0o640
        assert node.cri_log.parent.stat().st_mode & 0o777 == 0o755


def test_a_line_longer_than_any_entry_is_passed_over() -> None:
    with new_node() as node:
        node.write(2)
        with node.docker_log.open("ab") as file:
            file.write(b"x" * (3 << 20))
        node.drain()
        node.kill()
        with node.docker_log.open("ab") as file:
            file.write(b"x\n")
        node.write(2)
        node.drain()
        assert node.written() == cri(node.lines)


def test_a_full_disk_tears_no_line() -> None:
    with new_node() as node:
        node.write(20)
        with full_disk(300), pytest.raises(OSError) as full:
            node.drain()
        assert full.value.errno == errno.EFBIG
        assert node.cri_log.stat().st_size == 300
        node.drain()
        assert node.written() == cri(node.lines)


def test_a_line_torn_off_by_a_full_disk_is_whole_in_the_file_after_it() -> None:
    with new_node() as node:
        node.write(20)
        with full_disk(300), pytest.raises(OSError):
            node.drain()
        node.move()
        node.follower.reopen()
        node.drain()
        assert node.written() == cri(node.lines)


def test_a_directory_in_the_place_of_the_log_is_an_error_that_says_so() -> None:
    with new_node() as node:
        node.follower.close()
        node.cri_log.unlink()
        node.cri_log.mkdir()
        with pytest.raises(OSError):
            node.kill()
