"""The command line of dockershim.

Owns the flags and their checks; everything wrong is told in one go. Flags that mean the same have cri-dockerd's names,
and its other flags are taken with a warning that says what becomes of them, so that its unit starts dockershim as well.
Upstream counterpart: cri-dockerd's config/options.go and cmd/cri/options.
"""

from __future__ import annotations

import argparse
import ipaddress
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from dockershim.errors import ConfigError, InvalidArgument
from dockershim.translate.image_refs import parse_image_ref

LOG_LEVELS = ("debug", "info", "warning", "error")
_OLD_LOG_LEVELS = {"trace": "debug", "warn": "warning", "fatal": "error", "panic": "error"}
LOG_FORMATS = ("text", "json")
CGROUP_DRIVERS = ("", "cgroupfs", "systemd")
NETWORK_PLUGINS = ("auto", "cni", "bridge")
_OLD_NETWORK_PLUGINS = {"": "bridge", "no-op": "bridge"}  # cri-dockerd's words for Docker's own network
WITHOUT_EFFECT = {
    "--hairpin-mode": "a CNI bridge has hairpinMode in its own configuration",
    "--ipv6-dual-stack": "a pod always has all addresses that its network gave it",
    "--runtime-cgroups": "the service manager puts dockershim into a cgroup",
    "--runtime-request-timeout": "each call to Docker has the deadline that suits it",
    "--streaming-bind-addr": "streams are served to the kubelet on this host only, on a loopback address",
}
"""Flags of cri-dockerd that mean nothing here, and why."""
STREAMING_TLS = ("--streaming-tls-cert-file", "--streaming-tls-private-key-file")
PASSED_SOCKET = "fd://"
_DURATION_PART = re.compile(r"(\d+(?:\.\d+)?)(ms|h|m|s)")
_UNIT_SECONDS = {"h": 3600.0, "m": 60.0, "s": 1.0, "ms": 0.001}
_LONGEST_SOCKET_PATH = 107
DEFAULT_ENDPOINT = "unix:///run/dockershim.sock"
_LEAST_MTU, _MOST_MTU = 1280, 65535  # IPv6 wants as much
LOOPBACK = "127.0.0.1"


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
    pod_cidrs: tuple[str, ...] = ()
    network_mtu: int = 0
    needs_passed_socket: bool = False
    ignored: tuple[str, ...] = ()
    cgroup_driver: str = ""
    metrics_address: tuple[str, int] | None = None
    streaming_certificate: tuple[Path, Path] | None = None
    """The certificate's file and that of its key."""
    log_level: str = "info"
    log_format: str = "text"
    spools_logs: bool = False


def parse_arguments(arguments: Sequence[str]) -> Config:
    """Flags to Config; ConfigError lists everything that is wrong."""
    given = _parser().parse_args(arguments)
    problems: list[str] = []
    log_level = _OLD_LOG_LEVELS.get(given.log_level, given.log_level)
    for flag, value, allowed in (
        ("--log-level", log_level, LOG_LEVELS),
        ("--log-format", given.log_format, LOG_FORMATS),
        ("--cgroup-driver", given.cgroup_driver, CGROUP_DRIVERS),
    ):
        if value not in allowed:
            problems.append(f"{flag} {value!r}: want one of {', '.join(word for word in allowed if word)}")
    plugin = _OLD_NETWORK_PLUGINS.get(given.network_plugin, given.network_plugin)
    if plugin not in NETWORK_PLUGINS:
        problems.append(f"--network-plugin {given.network_plugin!r}: want one of {', '.join(NETWORK_PLUGINS)}")
    endpoint = given.container_runtime_endpoint
    passed = endpoint == PASSED_SOCKET
    socket_path = _socket_path("--container-runtime-endpoint", DEFAULT_ENDPOINT if passed else endpoint, problems)
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
    cidrs = _pod_cidrs(given.pod_cidr, problems)
    mtu = _mtu(given.network_plugin_mtu, problems)
    metrics_address = _address("--metrics-bind-addr", given.metrics_bind_addr, problems)
    streaming_certificate = _certificate(given, problems)
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
        pod_cidrs=cidrs,
        network_mtu=mtu,
        needs_passed_socket=passed,
        ignored=tuple(flag for flag in WITHOUT_EFFECT if getattr(given, _attribute(flag)) is not None),
        cgroup_driver=given.cgroup_driver,
        metrics_address=metrics_address,
        streaming_certificate=streaming_certificate,
        log_level=log_level,
        log_format=given.log_format,
        spools_logs=given.spool_logs,
    )


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="dockershim", description="A CRI v1 runtime on the Docker Engine.", allow_abbrev=False
    )
    add = parser.add_argument
    help_text = "the socket to serve CRI on; fd:// for the one that systemd passes"
    add("--container-runtime-endpoint", default=DEFAULT_ENDPOINT, help=help_text)
    add("--docker-endpoint", default="unix:///var/run/docker.sock", help="the socket of the Docker Engine")
    add(
        "--root-directory",
        "--cri-dockerd-root-directory",
        default="/var/lib/dockershim",
        help="where the records of sandboxes and logs are kept",
    )
    add("--pod-infra-container-image", default="registry.k8s.io/pause:3.10", help="the image that holds a sandbox")
    add("--image-pull-progress-deadline", default="5m", help="how long a pull may stand still before it is given up")
    add(
        "--spool-logs",
        action="store_true",
        help="take containers' output before Docker does, so that killing dockerd loses no line; needs dockershim-oci",
    )
    add("--network-plugin", default="auto", help="auto, cni, or bridge (Docker's own network)")
    add("--cni-conf-dir", default="/etc/cni/net.d", help="where CNI configurations are")
    add("--cni-bin-dir", default="/opt/cni/bin,/usr/lib/cni", help="where CNI plugins are; several with commas")
    add("--cni-cache-dir", default="/var/lib/cni/cache", help="where CNI results are kept")
    add(
        "--pod-cidr",
        default="",
        help="pod ranges, at most one of each family: for Docker's network, and CNI's ipRanges",
    )
    add("--network-plugin-mtu", default="0", help="the MTU of Docker's network; 0 for Docker's own choice")
    add("--cgroup-driver", default="", help="cgroupfs or systemd: warn when Docker uses the other one")
    add(
        "--metrics-bind-addr",
        default="",
        help="serve Prometheus metrics of dockershim itself here, such as :9324 (on loopback); none by default",
    )
    certificate, key = STREAMING_TLS
    add(certificate, default="", help="serve exec, attach and port-forward with TLS, with this certificate (PEM)")
    add(key, default="", help="the key of that certificate")
    add("--log-level", default="info", help=", ".join(LOG_LEVELS))
    add("--log-format", default="text", help=", ".join(LOG_FORMATS))
    for flag, reason in WITHOUT_EFFECT.items():
        add(flag, nargs="?", const="", help=f"of cri-dockerd, without effect: {reason}")
    return parser


def _attribute(flag: str) -> str:
    return flag.removeprefix("--").replace("-", "_")


def _pod_cidrs(text: str, problems: list[str]) -> tuple[str, ...]:
    try:
        networks = [ipaddress.ip_network(part.strip()) for part in text.split(",") if part.strip()]
    except ValueError as error:
        problems.append(f"--pod-cidr {text!r}: {error}; want ranges such as 10.1.0.0/16,fd01::/64")
        return ()
    if len({network.version for network in networks}) != len(networks):
        problems.append(f"--pod-cidr {text!r}: want at most one range of IPv4 and one of IPv6")
    return tuple(str(network) for network in networks)


def _mtu(text: str, problems: list[str]) -> int:
    if not text.isdigit() or not (text == "0" or _LEAST_MTU <= int(text) <= _MOST_MTU):
        problems.append(f"--network-plugin-mtu {text!r}: want 0 or {_LEAST_MTU}..{_MOST_MTU}")
        return 0
    return int(text)


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


def _address(flag: str, text: str, problems: list[str]) -> tuple[str, int] | None:
    """HOST:PORT or [V6]:PORT; loopback when there is no host, none when there is nothing."""
    if not text:
        return None
    host, separator, port = text.rpartition(":")
    host = host[1:-1] if host.startswith("[") and host.endswith("]") else host
    if not separator or not port.isdecimal() or not 0 < int(port) < 65536:
        problems.append(f"{flag} {text!r}: want an address and a port such as 127.0.0.1:9324, or :9324 for loopback")
        return None
    return host or LOOPBACK, int(port)


def _certificate(given: argparse.Namespace, problems: list[str]) -> tuple[Path, Path] | None:
    files = {flag: str(getattr(given, _attribute(flag))) for flag in STREAMING_TLS}
    if not any(files.values()):
        return None
    if not all(files.values()):
        problems.append(f"{' and '.join(STREAMING_TLS)}: want both or none")
        return None
    certificate, key = (_absolute(flag, text, problems) for flag, text in files.items())
    return certificate, key


def _duration(flag: str, text: str, problems: list[str]) -> float:
    parts = _DURATION_PART.findall(text)
    seconds = sum(float(number) * _UNIT_SECONDS[unit] for number, unit in parts)
    if "".join(number + unit for number, unit in parts) != text or seconds <= 0:
        problems.append(f"{flag} {text!r}: want a duration such as 5m, 90s or 1h30m")
    return seconds
