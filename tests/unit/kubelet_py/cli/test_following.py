"""`kubelet-py logs -f`: real files, and what the agent says of the run."""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from kubelet_py.cli.local_node import find_local_node
from kubelet_py.cli.log_reader import follow_log
from tests.unit.kubelet_py.cli.conftest import Agent

LINE = "2026-01-01T12:00:00.000000000Z stdout F %s\n"


def append(path: Path, text: str) -> int:
    """What a runtime does; gives what `write` does."""
    with path.open("a") as log:
        return log.write(text)


def followed(path: Path, steps: list[Callable[[], Any]], tail_lines: int | None = None) -> bytes:
    """All that is shown while one step after the other happens, each between two looks; then the run is over."""
    left = iter(steps)
    done = False

    def wait() -> None:
        nonlocal done
        step = next(left, None)
        done = step is None
        if step is not None:
            step()

    return b"".join(follow_log(path, is_over=lambda: done, tail_lines=tail_lines, wait=wait))


def target_of(descriptor: str) -> str:
    """The file behind one of this process's descriptors; "" when another thread has closed it meanwhile."""
    try:
        return os.readlink(f"/proc/self/fd/{descriptor}")
    except FileNotFoundError:
        return ""


@pytest.fixture
def log(tmp_path: Path) -> Path:
    """A log of one line."""
    path = tmp_path / "0.log"
    path.write_text(LINE % "first")
    return path


def test_whole_lines_are_shown_as_they_come(log: Path) -> None:
    """A line that is not whole yet waits."""
    begin = "2026-01-01T12:00:01Z stdout P par"
    steps = [
        lambda: append(log, LINE % "second" + begin),
        lambda: append(log, "t\n2026-01-01T12:00:01Z stdout F ial\n"),
    ]
    assert followed(log, steps) == b"first\nsecond\npartial\n"
    assert followed(log, [lambda: append(log, LINE % "more")], tail_lines=0) == b"more\n"


def test_rotation_loses_nothing_and_ends_nothing(log: Path) -> None:
    """The old file is written to until the new one is there, and read to its end."""
    rotated = log.with_name("0.log.20260101-120000")
    steps = [
        lambda: log.rename(rotated),
        lambda: append(rotated, LINE % "after the renaming"),
        lambda: (append(rotated, LINE % "last of the old"), log.write_text(LINE % "new")),
        lambda: append(log, LINE % "newer"),
    ]
    assert followed(log, steps) == b"first\nafter the renaming\nlast of the old\nnew\nnewer\n"


def test_a_line_cut_short_by_the_end_is_shown(log: Path) -> None:
    """Nothing comes that could make it whole."""
    assert followed(log, [lambda: append(log, "no end")]) == b"first\nno end"


def test_following_closes_what_it_opened(log: Path) -> None:
    """Over rotations too."""
    followed(log, [lambda: (log.rename(f"{log}.1"), log.write_text(LINE % "new"))])
    assert not [target for target in map(target_of, os.listdir("/proc/self/fd")) if str(log.parent) in target]


RUNNING: dict[str, Any] = {"running": {}}
ENDED: dict[str, Any] = {"terminated": {"exitCode": 0}}
WAITING: dict[str, Any] = {"waiting": {"reason": "x"}}


@pytest.mark.parametrize(
    ("entry", "is_over"),
    [
        ({"restartCount": 1, "state": RUNNING}, False),
        ({"restartCount": 1, "state": ENDED}, True),
        ({"restartCount": 2, "state": RUNNING}, True),
        ({"restartCount": 1, "state": WAITING, "lastState": ENDED}, True),
        # the status is older than the log
        ({"restartCount": 0, "state": ENDED}, False),
        ({"restartCount": 0, "state": WAITING, "lastState": ENDED}, False),
        ({"restartCount": 1, "state": WAITING}, False),
    ],
)
def test_a_run_is_over_when_the_status_says_so(agent: Agent, entry: dict[str, Any], is_over: bool) -> None:
    """Of the run with the log's number, 1."""
    agent.pods[0]["status"]["containerStatuses"] = [{"name": "main", **entry}]
    assert find_local_node(str(agent.config)).is_run_over("u1", "main", 1) is is_over


def test_a_pod_that_is_gone_runs_nothing(agent: Agent) -> None:
    """But an agent that does not answer, or has no status yet, has said nothing."""
    node = find_local_node(str(agent.config))
    assert node.is_run_over("other", "main", 0)
    del agent.pods[0]["status"]
    assert not node.is_run_over("u1", "main", 0)


def test_an_agent_that_does_not_answer_ends_nothing(agent: Agent) -> None:
    """It may be on its way back; the container runs on."""
    agent.config.write_text(
        agent.config.read_text().replace(f'"readOnlyPort": {agent.server.server_port}', '"readOnlyPort": 1')
    )
    assert not find_local_node(str(agent.config)).is_run_over("u1", "main", 0)


def test_the_logs_of_a_run_that_is_over_end(agent: Agent, capfdbinary: Any) -> None:
    """The command as a whole."""
    (agent.logs / "0.log").write_text(LINE % "all")
    agent.pods[0]["status"]["containerStatuses"] = [{"name": "main", "restartCount": 0, "state": ENDED}]
    assert agent.run("logs", "hello", "-f") == 0
    assert capfdbinary.readouterr().out == b"all\n"
