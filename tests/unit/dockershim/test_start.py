"""The program: a start that cannot succeed says why in one line for each thing, and the exit code is 1."""

from __future__ import annotations

import asyncio
import os
import socket
import sys
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


def a_place(tmp_path: Path) -> list[str]:
    """Flags for a process beside all others; there is no Docker."""
    return [
        f"--root-directory={tmp_path / 'state'}",
        f"--container-runtime-endpoint=unix://{tmp_path / 'cri.sock'}",
        f"--docker-endpoint=unix://{tmp_path / 'docker.sock'}",
        f"--cni-conf-dir={tmp_path / 'cni'}",
        f"--cni-cache-dir={tmp_path / 'cache'}",
        "--log-level=error",
    ]


def refused(tmp_path: Path, capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    """What a start says besides its log."""
    assert run([*a_place(tmp_path), *arguments]) == 1
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


PROGRAM = """
import asyncio, os, signal, sys, threading

from dockershim import app
from dockershim.__main__ import main

def hang():
    for name in os.environ["SIGNALS"].split():
        signal.pthread_kill(threading.main_thread().ident, signal.Signals[name])
    threading.Event().wait()

async def check(*_):
    await asyncio.to_thread(hang)

app._check_engine = check
main()
"""
"""The program with a thread that never comes back, as one that looks at a file server that is away."""


@pytest.mark.parametrize(("signals", "code"), [("SIGTERM", 0), ("SIGINT", 0), ("SIGTERM SIGINT", 1)])
async def test_a_stop_waits_for_no_thread_and_a_second_signal_for_nothing(
    tmp_path: Path, signals: str, code: int
) -> None:
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-c",
        PROGRAM,
        *a_place(tmp_path),
        stderr=asyncio.subprocess.PIPE,
        env={**os.environ, "SIGNALS": signals},
    )
    try:
        async with asyncio.timeout(60):
            _, said = await process.communicate()
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    assert process.returncode == code
    assert b"Traceback" not in said
