"""Commands that are interrupted, and commands whose reader has gone."""

import io
import os
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from tests.unit.kubelet_py.cli.conftest import Agent


@contextmanager
def stdout_without_reader() -> Iterator[None]:
    """A pipe that nobody reads; closing it at the end flushes, as the interpreter's exit does.

    No fixture: pytest puts its own streams back between a test's setup and its call.
    """
    reader, writer = os.pipe()
    os.close(reader)
    with pytest.MonkeyPatch.context() as patch, open(writer, "w") as stdout:
        patch.setattr(sys, "stdout", stdout)
        yield


@pytest.fixture
def interrupts_heard() -> Iterator[None]:
    """What a shell starts in the background begins with Ctrl-C ignored, and so do its tests."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.usefixtures("interrupts_heard")
@pytest.mark.parametrize("words", [["get", "pods"], ["logs", "hello", "-f"], ["exec", "hello", "--", "sleep", "9"]])
def test_a_command_that_is_interrupted_says_so(agent: Agent, words: list[str]) -> None:
    """Ctrl-C is no success: a script that goes on with && must not."""
    agent.before_reply = lambda: os.kill(os.getpid(), signal.SIGINT)
    assert agent.run(*words) == 130


def test_a_reader_that_has_gone_is_no_failure(agent: Agent) -> None:
    """`kubelet-py get pods | head -0`; nothing fails at the interpreter's end either."""
    with stdout_without_reader():
        assert agent.run("get", "pods") == 0


@pytest.mark.usefixtures("commands_run")
def test_exec_keeps_its_commands_code_without_a_reader(agent: Agent, capfdbinary: Any) -> None:
    """What it wrote to the other stream is still shown."""
    with stdout_without_reader():
        assert agent.run("exec", "hello", "--", "x") == 3
    assert capfdbinary.readouterr().err == b"err\n"


def test_characters_that_the_terminal_does_not_have_are_spelled_out(agent: Agent) -> None:
    """LANG=C: the command still works."""
    agent.pods[0]["metadata"]["labels"] = {"who": "zo\xe9"}
    with pytest.MonkeyPatch.context() as patch, io.TextIOWrapper(io.BytesIO(), encoding="ascii") as stdout:
        patch.setattr(sys, "stdout", stdout)
        assert agent.run("describe", "hello") == 0
        stdout.seek(0)
        assert "who=zo\\xe9" in stdout.read()
