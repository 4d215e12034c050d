"""A container's last words: from its file, or from the end of its log where the pod asks for that."""

import json
from dataclasses import replace
from pathlib import Path

import pytest

from cri_proto import runtime_v1 as cri
from kubelet_py.core.observed import ContainerState, ObservedContainer
from kubelet_py.sync.termination_messages import (
    MAX_LOG_LINES,
    MAX_LOG_MESSAGE_BYTES,
    MAX_MESSAGE_BYTES,
    read_termination_message,
)

PATH = "/dev/termination-log"


@pytest.fixture
def container(tmp_path: Path) -> ObservedContainer:
    """Ended badly; its file is empty, its log has a line."""
    (tmp_path / "message").touch()
    (tmp_path / "0.log").write_text(line("out of luck"))
    return ObservedContainer(
        id="c",
        name="main",
        sandbox_id="s",
        state=ContainerState.EXITED,
        exit_code=1,
        log_path=str(tmp_path / "0.log"),
        termination_message_path=PATH,
        termination_message_policy="FallbackToLogsOnError",
        mounts=(cri.Mount(container_path=PATH, host_path=str(tmp_path / "message")),),
    )


def line(text: str, tag: str = "F") -> str:
    return f"2024-01-01T00:00:00.000000000Z stdout {tag} {text}\n"


def test_the_file_comes_before_the_log(container: ObservedContainer, tmp_path: Path) -> None:
    (tmp_path / "message").write_text("the disk was full")
    assert read_termination_message(container) == "the disk was full"


def test_the_end_of_a_long_message_is_kept(container: ObservedContainer, tmp_path: Path) -> None:
    (tmp_path / "message").write_text("a" * 100 + "z" * MAX_MESSAGE_BYTES)
    assert read_termination_message(container) == "z" * MAX_MESSAGE_BYTES


def test_an_empty_file_falls_back_to_the_log(container: ObservedContainer) -> None:
    assert read_termination_message(container) == "out of luck\n"


def test_a_success_says_nothing_from_its_log(container: ObservedContainer) -> None:
    assert read_termination_message(replace(container, exit_code=0)) == ""


def test_what_could_not_be_started_wrote_no_log(container: ObservedContainer) -> None:
    assert read_termination_message(replace(container, reason="ContainerCannotRun")) == ""


def test_the_log_is_read_only_where_the_pod_asks_for_it(container: ObservedContainer) -> None:
    assert read_termination_message(replace(container, termination_message_policy="File")) == ""


def test_what_runs_has_no_last_words(container: ObservedContainer) -> None:
    assert read_termination_message(replace(container, state=ContainerState.RUNNING)) == ""


def test_of_a_log_the_last_lines_are_kept(container: ObservedContainer, tmp_path: Path) -> None:
    lines = [line(f"{number:04}") for number in range(5000)]
    (tmp_path / "0.log").write_text("".join(lines) + line("half", "P") + "not a line\n" + line(" whole"))
    message = read_termination_message(container)
    assert message.endswith("4999\nhalf whole\n")
    assert len(message.splitlines()) <= MAX_LOG_LINES
    (tmp_path / "0.log").write_text(line("x" * 5000))
    assert len(read_termination_message(container)) == MAX_LOG_MESSAGE_BYTES


def test_what_cannot_be_read_is_said(container: ObservedContainer, tmp_path: Path) -> None:
    (tmp_path / "message").unlink()
    (tmp_path / "0.log").unlink()
    assert read_termination_message(container).startswith("Error on reading termination message from logs: ")
    (tmp_path / "message").symlink_to("/etc/shadow")
    assert read_termination_message(container).startswith(f"Error on reading termination log {tmp_path}/message: ")


def test_a_file_that_is_gone_is_no_message(container: ObservedContainer, tmp_path: Path) -> None:
    (tmp_path / "message").unlink()
    assert read_termination_message(replace(container, log_path="")) == ""
    assert read_termination_message(replace(container, mounts=(), log_path="")) == ""


def test_a_carriage_return_ends_no_line(container: ObservedContainer) -> None:
    Path(container.log_path).write_text(line("10%\r20%\rfatal: out of space"), newline="")
    assert read_termination_message(container) == "10%\r20%\rfatal: out of space\n"


def test_a_log_may_be_a_link_to_one_of_docker(container: ObservedContainer, tmp_path: Path) -> None:
    kept = tmp_path / "json.log"
    kept.write_text(json.dumps({"log": "out of luck\n", "stream": "stderr", "time": "2024-01-01T00:00:00Z"}) + "\n")
    Path(container.log_path).unlink()
    Path(container.log_path).symlink_to(kept)
    assert read_termination_message(container) == "out of luck\n"


def test_a_path_need_not_be_clean(container: ObservedContainer, tmp_path: Path) -> None:
    (tmp_path / "message").write_text("gone")
    for path in ("dev/termination-log", "//dev//termination-log/", "/dev/./termination-log"):
        assert read_termination_message(replace(container, termination_message_path=path)) == "gone"
