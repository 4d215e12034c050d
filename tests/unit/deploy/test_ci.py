"""`.ci/run` ends with pytest's closing line and with make's exit code, whatever happened in between."""

import os
import subprocess
from pathlib import Path

import pytest

CI = Path(__file__).resolve().parents[3] / ".ci" / "run"


def run_with_make(tmp_path: Path, said: str, code: int) -> subprocess.CompletedProcess[str]:
    """.ci/run where `make` says that and ends so."""
    make = tmp_path / "make"
    make.write_text(f"#!/bin/sh\ncat <<'END'\n{said}\nEND\nexit {code}\n")
    make.chmod(0o755)
    environment = {**os.environ, "PATH": f"{tmp_path}:{os.environ['PATH']}"}
    return subprocess.run([str(CI)], env=environment, text=True, capture_output=True, check=False)


@pytest.mark.parametrize(
    ("said", "code", "last"),
    [
        ("....\n5 passed in 3.25s", 0, "5 passed in 3.25s"),
        (
            "..F.\n1 failed, 4 passed in 75.30s (0:01:15)\nmake: *** [Makefile:44: tests] Error 1",
            2,
            "1 failed, 4 passed",
        ),
        ("== 2 errors, 4 passed, 1 warning in 0.30s ==\nmake: *** Error 1\nmake: Target", 2, "== 2 errors, 4 passed"),
        (
            "ruff: 1 error\nmake: *** [lint] Error 1\n9 passed in 1.00s\nmake: Target 'test' not remade",
            2,
            "9 passed in",
        ),
        ("make: *** [lint] Error 1", 2, "make: *** [lint] Error 1"),
    ],
)
def test_the_last_line_and_the_code(tmp_path: Path, said: str, code: int, last: str) -> None:
    """Also when a check failed before the tests, or make adds words of its own."""
    done = run_with_make(tmp_path, said, code)
    assert done.returncode == code
    assert done.stdout.splitlines()[-1].startswith(last)


def test_everything_that_was_said_is_there(tmp_path: Path) -> None:
    """While it happens; the closing line is not said twice when it was the last anyway."""
    done = run_with_make(tmp_path, "one\ntwo\n5 passed in 3.25s", 0)
    assert done.stdout.splitlines() == ["one", "two", "5 passed in 3.25s"]
