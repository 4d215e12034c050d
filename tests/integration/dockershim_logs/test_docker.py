"""Logs of real containers of Docker 20.10: every line there, once, in the form that CRI promises."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from cri_proto.wire.log_line import LogLine, parse_line
from dockershim.logs.docker_json import translate
from tests.integration.dockershim_logs.stage import Stage, ask, wait_until
from tests.lab.lab import BUSYBOX, Lab

pytestmark = pytest.mark.lab


@pytest.fixture(scope="module")
def lab() -> Iterator[Lab]:
    """A Docker whose containers outlive it."""
    with Lab.start(docker="20.10", images=[BUSYBOX], docker_settings={"live-restore": True}) as lab:
        yield lab


def machine_path(lab: Lab, path: str) -> Path:
    """A path inside the lab as the test process sees it."""
    return Path(f"/proc/{lab.pid}/root{path}")


class Container(Stage):
    """A container that begins when its log is followed."""

    def __init__(self, lab: Lab, root: Path, script: str, *options: str) -> None:
        self.lab = lab
        self.id = lab.docker.client("create", *options, BUSYBOX, "sh", "-c", script).strip()
        lab.docker.client("start", self.id)
        super().__init__(root, machine_path(lab, self.inspect("{{.LogPath}}")))

    def inspect(self, what: str) -> str:
        """One field."""
        return self.lab.docker.client("inspect", "--format", what, self.id).strip()

    def count_lines(self) -> int:
        """How many the log has so far."""
        return sum(path.read_bytes().count(b"\n") for path in self.logs() if path.exists())

    def lines(self) -> list[LogLine]:
        """The whole log, once the container has ended."""
        wait_until(lambda: self.inspect("{{.State.Running}}") == "false")
        assert ask(self.follower, "finish") == "finished"
        return [parse_line(line) for path in self.logs() for line in path.read_bytes().splitlines(keepends=True)]

    def remove(self) -> None:
        """Nothing stays."""
        self.stop()
        self.lab.docker.client("rm", "--force", self.id)


def test_streams_long_lines_and_an_unfinished_end(lab: Lab, tmp_path: Path) -> None:
    long = 40_000
    script = f"echo out; echo err >&2; head -c {long} /dev/zero | tr '\\0' x; echo; printf end"
    container = Container(lab, tmp_path, script)
    try:
        lines = container.lines()
        by_stream = {
            stream: [(line.partial, line.text) for line in lines if line.stream == stream]
            for stream in (b"stdout", b"stderr")
        }
        assert by_stream[b"stderr"] == [(False, b"err")]
        out = by_stream[b"stdout"]
        assert out[0] == (False, b"out")
        assert [partial for partial, _ in out[1:-1]] == [True, True, False]
        assert b"".join(text for _, text in out[1:-1]) == b"x" * long
        assert {len(text) for _, text in out[1:3]} == {16384}
        assert out[-1] == (True, b"end")
    finally:
        container.remove()


def test_a_terminals_line_ends_are_plain(lab: Lab, tmp_path: Path) -> None:
    container = Container(lab, tmp_path, "echo one; echo two >&2", "--tty")
    try:
        assert [(line.stream, line.partial, line.text) for line in container.lines()] == [
            (b"stdout", False, b"one"),
            (b"stdout", False, b"two"),
        ]
    finally:
        container.remove()


def test_a_flood_with_kills_and_reopens_comes_out_whole(lab: Lab, tmp_path: Path) -> None:
    count = 100_000
    options = ("--log-opt", "max-size=64m", "--log-opt", "max-file=4")
    container = Container(lab, tmp_path, f"seq 1 {count}", *options)
    try:
        for share in (0.1, 0.3, 0.5):
            goal_bytes = int(count * 50 * share)
            wait_until(lambda: container.written_bytes() >= goal_bytes)  # noqa: B023 # used before it changes
            container.kill()
            container.rotate()
        assert [int(line.text) for line in container.lines()] == list(range(1, count + 1))
    finally:
        container.remove()


def test_a_flood_through_small_rotated_files_comes_out_whole(lab: Lab, tmp_path: Path) -> None:
    """Each part fills less than one of Docker's files: no more is removed than a follower that is late can lose."""
    parts, count = 6, 10_000
    wait = "while [ ! -e /tmp/go$part ]; do usleep 10000; done"
    script = f"for part in $(seq {parts}); do {wait}; seq $((part*{count}-{count - 1})) $((part*{count})); done"
    options = ("--log-opt", "max-size=1m", "--log-opt", "max-file=3")
    container = Container(lab, tmp_path, script, *options)
    try:
        for part in range(1, parts + 1):
            lab.docker.client("exec", container.id, "touch", f"/tmp/go{part}")
            wait_until(lambda: container.count_lines() == part * count)  # noqa: B023 # called at once
        assert [int(line.text) for line in container.lines()] == list(range(1, parts * count + 1))
    finally:
        container.remove()


def test_what_docker_kept_when_it_was_killed_is_in_the_log_once(lab: Lab, tmp_path: Path) -> None:
    script = "i=0; while [ $i -lt 20000 ]; do i=$((i+1)); echo line $i; done"
    container = Container(lab, tmp_path, script)
    try:
        wait_until(lambda: container.written_bytes() > 100_000)
        assert lab.docker.dockerd is not None
        lab.docker.dockerd.kill()
        lab.docker.dockerd.wait(10)
        lab.docker.start()
        lines = container.lines()
        assert b"".join(path.read_bytes() for path in container.logs()) == translate(container.docker_log.read_bytes())
        # the new dockerd may have gone on in the middle of a line
        numbers = [int(line.text.removeprefix(b"line ")) for line in lines if line.text.startswith(b"line ")]
        assert numbers == sorted(set(numbers))
        assert len(numbers) >= len(lines) - 1
        print(f"Docker itself lost {20_000 - len(numbers)} lines")
    finally:
        container.remove()
