"""The program: a start that cannot succeed says why in one line for each thing, and the exit code is 1."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from pathlib import Path

import pytest
import structlog

from dockershim.__main__ import run


@pytest.fixture(autouse=True)
def logging_as_it_was() -> Iterator[None]:
    """The process-wide state of the log is put back."""
    before = structlog.get_config()
    yield
    structlog.configure(**before)


def refused(tmp_path: Path, capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    """What a start says besides its log; there is no Docker."""
    places = [
        f"--root-directory={tmp_path / 'state'}",
        f"--container-runtime-endpoint=unix://{tmp_path / 'cri.sock'}",
        f"--docker-endpoint=unix://{tmp_path / 'docker.sock'}",
        f"--cni-conf-dir={tmp_path / 'cni'}",
        f"--cni-cache-dir={tmp_path / 'cache'}",
        "--log-level=error",
    ]
    assert run([*places, *arguments]) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("dockershim: ")
    return line


def test_a_port_that_is_taken_is_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        line = refused(tmp_path, capsys, f"--metrics-bind-addr={address}")
    assert f"--metrics-bind-addr {address}: Address already in use" in line


@pytest.mark.parametrize("name", ["sandbox", "dumps"])
def test_a_directory_that_cannot_be_made_is_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], name: str
) -> None:
    (tmp_path / "state").mkdir()
    (tmp_path / "state" / name).write_text("a file")
    assert f"cannot make {tmp_path / 'state' / name}: File exists" in refused(tmp_path, capsys)


def test_what_the_flags_get_wrong_is_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert "--log-level" in refused(tmp_path, capsys, "--log-level=loud")
