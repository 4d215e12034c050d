"""The command line of dockershim.

Owns the flags and their checks; everything wrong is told in one go. Flags that mean the same have cri-dockerd's names.
Upstream counterpart: cri-dockerd's config/options.go and cmd/cri/options.
"""

from __future__ import annotations

import argparse
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from dockershim.errors import ConfigError, InvalidArgument
from dockershim.translate.image_refs import parse_image_ref

LOG_LEVELS = ("debug", "info", "warning", "error")
LOG_FORMATS = ("text", "json")
CGROUP_DRIVERS = ("", "cgroupfs", "systemd")
NETWORK_PLUGINS = ("auto", "cni", "bridge")
_OLD_NETWORK_PLUGINS = {"": "bridge", "no-op": "bridge"}  # cri-dockerd's words for Docker's own network
_DURATION_PART = re.compile(r"(\d+(?:\.\d+)?)(ms|h|m|s)")
_UNIT_SECONDS = {"h": 3600.0, "m": 60.0, "s": 1.0, "ms": 0.001}
_LONGEST_SOCKET_PATH = 107


@dataclass(frozen=True, slots=True)
class Config:
    """What the operator decided."""

    socket_path: Path = Path("/run/dockershim.sock")
    docker_endpoint: str = "unix:///var/run/docker.sock"
    root_directory: Path = Path("/var/lib/dockershim")
    pause_image: str = "registry.k8s.io/pause:3.10"
    pull_progress_deadline_seconds: float = 300.0
    network_plugin: str = "auto"
    cni_conf_dir: Path = Path("/etc/cni/net.d")
    cni_bin_dirs: tuple[Path, ...] = (Path("/opt/cni/bin"), Path("/usr/lib/cni"))
    cni_cache_dir: Path = Path("/var/lib/cni/cache")
    cgroup_driver: str = ""
    log_level: str = "info"
    log_format: str = "text"


def parse_arguments(arguments: Sequence[str]) -> Config:
    """Flags to Config; ConfigError lists everything that is wrong."""
    given = _parser().parse_args(arguments)
    problems: list[str] = []
    for flag, value, allowed in (
        ("--log-level", given.log_level, LOG_LEVELS),
        ("--log-format", given.log_format, LOG_FORMATS),
        ("--cgroup-driver", given.cgroup_driver, CGROUP_DRIVERS),
    ):
        if value not in allowed:
            problems.append(f"{flag} {value!r}: want one of {', '.join(word for word in allowed if word)}")
    plugin = _OLD_NETWORK_PLUGINS.get(given.network_plugin, given.network_plugin)
    if plugin not in NETWORK_PLUGINS:
        problems.append(f"--network-plugin {given.network_plugin!r}: want one of {', '.join(NETWORK_PLUGINS)}")
    socket_path = _socket_path("--container-runtime-endpoint", given.container_runtime_endpoint, problems)
    _socket_path("--docker-endpoint", given.docker_endpoint, problems)
    root = _absolute("--root-directory", given.root_directory, problems)
    try:
        parse_image_ref(given.pod_infra_container_image)
    except InvalidArgument as error:
        problems.append(f"--pod-infra-container-image: {error}")
    deadline = _duration("--image-pull-progress-deadline", given.image_pull_progress_deadline, problems)
    conf_dir = _absolute("--cni-conf-dir", given.cni_conf_dir, problems)
    bin_dirs = tuple(_absolute("--cni-bin-dir", part, problems) for part in given.cni_bin_dir.split(",") if part)
    cache_dir = _absolute("--cni-cache-dir", given.cni_cache_dir, problems)
    if problems:
        raise ConfigError(*problems)
    return Config(
        socket_path=socket_path,
        docker_endpoint=given.docker_endpoint,
        root_directory=root,
        pause_image=given.pod_infra_container_image,
        pull_progress_deadline_seconds=deadline,
        network_plugin=plugin,
        cni_conf_dir=conf_dir,
        cni_bin_dirs=bin_dirs,
        cni_cache_dir=cache_dir,
        cgroup_driver=given.cgroup_driver,
        log_level=given.log_level,
        log_format=given.log_format,
    )


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="dockershim", description="A CRI v1 runtime on the Docker Engine.", allow_abbrev=False
    )
    add = parser.add_argument
    add("--container-runtime-endpoint", default="unix:///run/dockershim.sock", help="the socket to serve CRI on")
    add("--docker-endpoint", default="unix:///var/run/docker.sock", help="the socket of the Docker Engine")
    add(
        "--root-directory",
        "--cri-dockerd-root-directory",
        default="/var/lib/dockershim",
        help="where the records of sandboxes and logs are kept",
    )
    add("--pod-infra-container-image", default="registry.k8s.io/pause:3.10", help="the image that holds a sandbox")
    add("--image-pull-progress-deadline", default="5m", help="how long a pull may stand still before it is given up")
    add("--network-plugin", default="auto", help="auto, cni, or bridge (Docker's own network)")
    add("--cni-conf-dir", default="/etc/cni/net.d", help="where CNI configurations are")
    add("--cni-bin-dir", default="/opt/cni/bin,/usr/lib/cni", help="where CNI plugins are; several with commas")
    add("--cni-cache-dir", default="/var/lib/cni/cache", help="where CNI results are kept")
    add("--cgroup-driver", default="", help="cgroupfs or systemd: warn when Docker uses the other one")
    add("--log-level", default="info", help=", ".join(LOG_LEVELS))
    add("--log-format", default="text", help=", ".join(LOG_FORMATS))
    return parser


def _socket_path(flag: str, endpoint: str, problems: list[str]) -> Path:
    path = endpoint.removeprefix("unix://")
    if not path.startswith("/"):
        problems.append(f"{flag} {endpoint!r}: want unix:///path/to/a.sock")
    elif len(path) > _LONGEST_SOCKET_PATH:
        problems.append(
            f"{flag}: the path is longer than {_LONGEST_SOCKET_PATH} characters, more than a socket can have"
        )
    return Path(path)


def _absolute(flag: str, text: str, problems: list[str]) -> Path:
    if not text.startswith("/"):
        problems.append(f"{flag} {text!r}: want an absolute path")
    return Path(text)


def _duration(flag: str, text: str, problems: list[str]) -> float:
    parts = _DURATION_PART.findall(text)
    seconds = sum(float(number) * _UNIT_SECONDS[unit] for number, unit in parts)
    if "".join(number + unit for number, unit in parts) != text or seconds <= 0:
        problems.append(f"{flag} {text!r}: want a duration such as 5m, 90s or 1h30m")
    return seconds
