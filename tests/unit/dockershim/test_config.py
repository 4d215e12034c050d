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


def test_the_unit_of_cri_dockerd_starts_dockershim() -> None:
    """Its own flags without a meaning here are taken, and told; each of them in the help too."""
    config = parse_arguments(
        [
            "--container-runtime-endpoint",
            "fd://",
            "--log-level=warn",
            "--pod-cidr=10.1.0.0/16, fd01::/64",
            "--network-plugin-mtu=1400",
            "--ipv6-dual-stack",
            "--hairpin-mode=promiscuous-bridge",
            "--streaming-bind-addr=127.0.0.1",
        ]
    )
    assert config.needs_passed_socket
    assert config.log_level == "warning"
    assert config.pod_cidrs == ("10.1.0.0/16", "fd01::/64")
    assert config.network_mtu == 1400
    assert config.ignored == ("--hairpin-mode", "--ipv6-dual-stack", "--streaming-bind-addr")


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
                "--pod-cidr=10.1.0.0/16,10.2.0.0/16",
                "--network-plugin-mtu=100",
                "--streaming-tls-cert-file=/a.crt",
            ]
        )
    assert len(refused.value.problems) == 12
    assert all(problem.startswith("--") for problem in refused.value.problems)


def test_tls_for_streams_wants_a_certificate_and_its_key() -> None:
    flags = ["--streaming-tls-cert-file=/a.crt", "--streaming-tls-private-key-file=/a.key"]
    assert parse_arguments(flags).streaming_certificate == (Path("/a.crt"), Path("/a.key"))
    with pytest.raises(ConfigError, match=r"a\.key.*want an absolute path"):
        parse_arguments([flags[0], "--streaming-tls-private-key-file=a.key"])
