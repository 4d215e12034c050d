"""Flags."""

from __future__ import annotations

from pathlib import Path

import pytest

from dockershim.config import Config, parse_arguments
from dockershim.errors import ConfigError


def test_no_flags() -> None:
    """The defaults are those of the dataclass."""
    assert parse_arguments([]) == Config()


def test_flags_of_cri_dockerd() -> None:
    """Those with the same meaning have the same names and values."""
    config = parse_arguments(
        [
            "--container-runtime-endpoint=unix:///run/x.sock",
            "--cri-dockerd-root-directory=/var/lib/x",
            "--image-pull-progress-deadline=1m30s",
            "--network-plugin=",
            "--cni-bin-dir=/a,/b",
            "--pod-infra-container-image=r.io/pause:1",
        ]
    )
    assert config.socket_path == Path("/run/x.sock")
    assert config.root_directory == Path("/var/lib/x")
    assert config.pull_progress_deadline_seconds == 90
    assert config.network_plugin == "bridge"
    assert config.cni_bin_dirs == (Path("/a"), Path("/b"))


def test_everything_wrong_is_told_at_once() -> None:
    """One line for each, with what would be right."""
    with pytest.raises(ConfigError) as refused:
        parse_arguments(
            [
                "--log-level=loud",
                "--log-format=xml",
                "--cgroup-driver=x",
                "--network-plugin=kubenet",
                "--container-runtime-endpoint=tcp://0.0.0.0:1",
                "--docker-endpoint=ssh://x",
                "--root-directory=relative",
                "--pod-infra-container-image=Not A Name",
                "--image-pull-progress-deadline=soon",
                f"--container-runtime-endpoint=unix:///{'x' * 200}",
            ]
        )
    assert len(refused.value.problems) == 9
    assert all(problem.startswith("--") for problem in refused.value.problems)
