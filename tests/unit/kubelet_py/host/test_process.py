"""The process limits are set as far as the node allows, and what it refuses is said."""

import resource
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from kubelet_py.host.process import raise_open_files, set_oom_score_adj


def test_the_oom_score_is_written(tmp_path: Path) -> None:
    """The value goes to the file as the kernel reads it."""
    path = tmp_path / "oom_score_adj"
    set_oom_score_adj(-999, path)
    assert path.read_text() == "-999"


def test_a_refused_oom_score_is_a_warning_and_no_end(tmp_path: Path) -> None:
    """Where the kernel refuses, the agent says what was wanted and goes on."""
    with capture_logs() as lines:
        set_oom_score_adj(-999, tmp_path / "missing" / "oom_score_adj")
    assert [(line["event"], line["wanted"]) for line in lines] == [("oom_score_adj_not_set", -999)]


def test_the_limit_of_open_files_is_raised_up_to_the_hard_one(monkeypatch: pytest.MonkeyPatch) -> None:
    """A process that may not lift the hard limit still gets all of it, and is told that it wanted more."""
    limits = [256, 4096]

    def setrlimit(_kind: int, wanted: tuple[int, int]) -> None:
        if wanted[1] > limits[1]:
            raise ValueError("not allowed to raise maximum limit")
        limits[:] = wanted

    monkeypatch.setattr(resource, "getrlimit", lambda _kind: tuple(limits))
    monkeypatch.setattr(resource, "setrlimit", setrlimit)
    with capture_logs() as lines:
        raise_open_files(1_000_000)
    assert limits == [4096, 4096]
    assert [(line["event"], line["reached"]) for line in lines] == [("open_files_limit_is_low", 4096)]


def test_a_limit_that_is_high_enough_is_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is written where nothing is missing."""
    monkeypatch.setattr(resource, "getrlimit", lambda _kind: (2_000_000, 2_000_000))
    monkeypatch.setattr(resource, "setrlimit", lambda *_: pytest.fail("nothing to set"))
    raise_open_files(1_000_000)
