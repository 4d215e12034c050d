"""`kubelet-py exec` against a runtime on a socket."""

from typing import Any

import pytest

from kubelet_py import cli
from tests.unit.kubelet_py.cli.conftest import Agent

Asked = list[tuple[str, list[str]]]


@pytest.mark.parametrize(
    ("words", "command"),
    [
        (["hello", "--", "git", "checkout", "--", "f"], ["git", "checkout", "--", "f"]),
        (["hello", "-c", "main", "--", "ls", "-l", "-c", "x"], ["ls", "-l", "-c", "x"]),
        (["hello", "--", "--", "x"], ["--", "x"]),
        (["hello", "ls", "--", "-l"], ["ls", "-l"]),
        (["hello", "ls"], ["ls"]),
    ],
)
def test_a_command_reaches_the_container_word_by_word(
    agent: Agent, commands_run: Asked, words: list[str], command: list[str], capfdbinary: Any
) -> None:
    """Only the first -- is ours; the command's exit code and output are what one gets."""
    assert agent.run("exec", *words) == 3
    assert commands_run == [("c1", command)]
    assert capfdbinary.readouterr() == (b"out\n", b"err\n")


def test_without_a_command_the_usage_is_shown(capsys: pytest.CaptureFixture[str]) -> None:
    """An empty tail is none."""
    with pytest.raises(SystemExit) as ended:
        cli.main(["exec", "hello", "--"])
    assert ended.value.code == 2
    assert "no command after --" in capsys.readouterr().err


def test_a_pod_without_a_status_has_started_nothing(agent: Agent, capsys: pytest.CaptureFixture[str]) -> None:
    """The agent has not looked at it yet."""
    del agent.pods[0]["status"]
    assert agent.run("exec", "hello", "--", "x") == 1
    assert "has not been started yet" in capsys.readouterr().err


def test_ephemeral_containers_run_commands_too(agent: Agent, commands_run: Asked) -> None:
    """They have statuses of their own kind."""
    agent.pods[0]["spec"]["ephemeralContainers"] = [{"name": "debug", "image": "img"}]
    agent.pods[0]["status"]["ephemeralContainerStatuses"] = [{"name": "debug", "containerID": "docker://e1"}]
    assert agent.run("exec", "hello", "-c", "debug", "--", "x") == 3
    assert commands_run == [("e1", ["x"])]
