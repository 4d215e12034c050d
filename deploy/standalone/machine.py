"""What the machine was like before, and putting it back: mounts, cgroups, links, packet filter rules, directories.

Owns everything that engines leave behind when they stop. Only what is new since the snapshot and carries a name that
engines give is removed; what somebody else added meanwhile stays.
"""

import contextlib
import os
import re
import shlex
import shutil
import subprocess
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import psutil

from deploy.standalone.engines import BRIDGE
from deploy.standalone.node import DATA, RUN

_END_SECONDS = 10.0
_TABLES = ("iptables", "ip6tables")
_OURS = re.compile(
    rf"\b(DOCKER[\w-]*|docker0|dockershim0|br-[0-9a-f]{{12}}|CNI-[\w-]+|{BRIDGE}|KUBE-[\w-]+|10\.244\.21[01]\.\d+)\b"
)
_COUNTERS = re.compile(r" ?\[\d+:\d+\] ?")
_CGROUPS = ("docker", "kubepods", "k8s.io", "kubepods.slice")
_SYSCTLS = ("net/ipv4/ip_forward", "net/bridge/bridge-nf-call-iptables", "net/bridge/bridge-nf-call-ip6tables")
_FIXED_PLACES = (
    "/etc/docker",
    "/etc/docker/key.json",
    "/etc/cni",
    "/opt/cni",
    "/opt/containerd",
    "/run/containerd",
    "/run/docker",
    "/run/mount",
    "/run/netns",
    "/run/runc",
    "/run/xtables.lock",
    "/var/lib/cni",
    "/var/lib/containerd",
    "/var/lib/docker",
    "/var/lib/dockershim",
    "/var/lib/kubelet",
    "/var/log/containers",
    "/var/log/pods",
)
"""Directories that engines and the agent make at places of their own choice."""


def snapshot() -> dict[str, Any]:
    """What must be known to put the machine back."""
    return {
        "rules": {program: _rules(program) for program in _TABLES},
        "links": sorted(os.listdir("/sys/class/net")),
        "cgroups": [str(path) for path in _engine_cgroups()],
        "sysctls": {name: value for name in _SYSCTLS if (value := _read_sysctl(name)) is not None},
        "places": [place for place in _FIXED_PLACES if os.path.lexists(place)],
    }


def restore(before: Mapping[str, Any]) -> None:
    """Remove what engines left since the snapshot; may be called again."""
    _kill_leftovers(before)
    _unmount_below(RUN, DATA, *(Path(place) for place in _new_places(before)))
    for program in _TABLES:
        _restore_rules(program, before.get("rules", {}).get(program, []))
    for link in sorted(set(os.listdir("/sys/class/net")) - set(before.get("links", []))):
        if _OURS.search(link):
            subprocess.run(["ip", "link", "delete", link], capture_output=True, check=False)
    for path in _new_cgroups(before):
        _remove_cgroup(path)
    for name, value in before.get("sysctls", {}).items():
        if _read_sysctl(name) != value:
            with contextlib.suppress(OSError):
                Path("/proc/sys", name).write_text(value)
    for place in _new_places(before):
        _remove(Path(place))
    for directory in (RUN, DATA):
        _remove(directory)


def _kill_leftovers(before: Mapping[str, Any]) -> None:
    """End what an engine that died left running: its shims, and all that is in cgroups that engines made."""
    inside = {
        int(pid)
        for top in _new_cgroups(before)
        for listing in top.rglob("cgroup.procs")
        for pid in listing.read_text().split()
    }
    found = [process for process in psutil.process_iter() if process.pid in inside or _is_our_shim(process)]
    for process in found:
        with contextlib.suppress(psutil.NoSuchProcess):
            process.kill()
    psutil.wait_procs(found, timeout=_END_SECONDS)


def _is_our_shim(process: psutil.Process) -> bool:
    """A containerd shim whose command line names a socket of ours."""
    try:
        words = process.cmdline()
    except psutil.Error:
        return False
    return bool(words) and "containerd-shim" in words[0] and any(word.startswith(f"{RUN}/") for word in words)


def _new_places(before: Mapping[str, Any]) -> list[str]:
    if "places" not in before:
        return []  # no snapshot was taken: nothing is known to be new
    return [place for place in _FIXED_PLACES if place not in before["places"] and os.path.lexists(place)]


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def _unmount_below(*roots: Path) -> None:
    """Detach every mount below these directories, the innermost first."""
    points = [line.split()[4].encode().decode("unicode_escape") for line in _mount_table()]
    for point in sorted(points, key=len, reverse=True):
        if any(Path(point).is_relative_to(root) for root in roots):
            subprocess.run(["umount", "--lazy", "--", point], capture_output=True, check=False)


def _mount_table() -> list[str]:
    return Path("/proc/self/mountinfo").read_text().splitlines()


def _rules(program: str) -> list[str]:
    """The packet filter as `iptables-save` prints it, each line with its table and without counters."""
    try:
        done = subprocess.run([f"{program}-save"], text=True, capture_output=True, check=False)
    except FileNotFoundError:
        return []
    table, lines = "", []
    for line in done.stdout.splitlines():
        if line.startswith("*"):
            table = line[1:]
        elif line.startswith((":", "-")):
            lines.append(f"{table} {_COUNTERS.sub('', line)}")
    return lines


def _restore_rules(program: str, before: list[str]) -> None:
    """Delete engine rules and chains that were not there, and put chain policies back."""
    known = set(before)
    added = [line for line in _rules(program) if line not in known]
    for line in added:
        table, _, rule = line.partition(" ")
        if rule.startswith("-A ") and _OURS.search(rule):
            _iptables(program, table, "--delete", *shlex.split(rule)[1:])
    chains = [
        (table, rule[1:].split()[0]) for table, _, rule in (line.partition(" ") for line in added) if rule[0] == ":"
    ]
    for action in ("--flush", "--delete-chain"):
        for table, chain in chains:
            if _OURS.search(chain):
                _iptables(program, table, action, chain)
    for line in before or [f"filter :{chain} ACCEPT" for chain in ("INPUT", "FORWARD", "OUTPUT")]:
        table, _, rule = line.partition(" ")
        if rule.startswith(":") and line not in set(_rules(program)):
            chain, policy = rule[1:].split()[:2]
            if policy != "-":
                _iptables(program, table, "--policy", chain, policy)


def _iptables(program: str, table: str, *arguments: str) -> None:
    subprocess.run([program, "--wait", "--table", table, *arguments], capture_output=True, check=False)


def _engine_cgroups() -> Iterator[Path]:
    """The top-level cgroups that engines and the agent make, in every hierarchy."""
    for line in _mount_table():
        fields, _, kind = line.partition(" - ")
        if kind.split()[0] in ("cgroup", "cgroup2"):
            mount = Path(fields.split()[4])
            yield from (mount / name for name in _CGROUPS if (mount / name).is_dir())


def _new_cgroups(before: Mapping[str, Any]) -> list[Path]:
    if "cgroups" not in before:
        return []
    return [path for path in _engine_cgroups() if str(path) not in before["cgroups"]]


def _remove_cgroup(path: Path) -> None:
    for directory, _, _ in os.walk(path, topdown=False):
        with contextlib.suppress(OSError):
            os.rmdir(directory)


def _read_sysctl(name: str) -> str | None:
    try:
        return Path("/proc/sys", name).read_text().strip()
    except OSError:
        return None
