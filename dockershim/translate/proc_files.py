"""What /proc says of a process: its cgroups, network interfaces, root mount and limits. Texts in, values out.

Pure: the texts are arguments; lines that do not look as they should are left out, because what a container did to its
namespaces must not end a look at all the others. Upstream counterpart: cAdvisor's handlers for networks and processes.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

LOOPBACK = "lo"
_OCTAL = re.compile(r"\\([0-7]{3})")


@dataclass(frozen=True, slots=True)
class InterfaceUse:
    """The counters of one network interface."""

    name: str
    rx_bytes: int
    rx_packets: int
    rx_errors: int
    rx_dropped: int
    tx_bytes: int
    tx_packets: int
    tx_errors: int
    tx_dropped: int


def parse_cgroup_paths(text: str) -> dict[str, str]:
    """/proc/PID/cgroup: controller to directory; the unified hierarchy is under the empty name."""
    paths = {}
    for line in text.splitlines():
        parts = line.split(":", 2)
        if len(parts) == 3:
            for controller in parts[1].split(","):
                paths[controller] = parts[2]
    return paths


def parse_interfaces(text: str) -> tuple[InterfaceUse, ...]:
    """/proc/PID/net/dev without the loopback interface."""
    found = []
    for line in text.splitlines():
        name, separator, rest = line.partition(":")
        numbers = rest.split()
        if not separator or len(numbers) < 12 or not all(number.isdecimal() for number in numbers):
            continue
        if name.strip() != LOOPBACK:
            received, sent = (map(int, numbers[start : start + 4]) for start in (0, 8))
            rx_bytes, rx_packets, rx_errors, rx_dropped = received
            tx_bytes, tx_packets, tx_errors, tx_dropped = sent
            found.append(
                InterfaceUse(
                    name.strip(),
                    *(rx_bytes, rx_packets, rx_errors, rx_dropped),
                    *(tx_bytes, tx_packets, tx_errors, tx_dropped),
                )
            )
    return tuple(found)


def upper_directory(text: str) -> str:
    """The writable layer of a process's root in /proc/PID/mountinfo; empty when its root is no overlay.

    A path that is not absolute is worth nothing: it counts from wherever the runtime stood when it mounted.
    """
    for line in text.splitlines():
        before, _, after = line.partition(" - ")
        fields, kind = before.split(" "), after.split(" ", 2)
        if len(fields) > 4 and fields[4] == "/" and len(kind) == 3 and kind[0] == "overlay":
            for option in kind[2].split(","):
                if option.startswith("upperdir="):
                    path = _OCTAL.sub(lambda found: chr(int(found[1], 8)), option.removeprefix("upperdir="))
                    return path if path.startswith("/") else ""
    return ""


def soft_open_files_limit(text: str) -> int | None:
    """The soft limit of open files in /proc/PID/limits; None when there is none."""
    for line in text.splitlines():
        if line.startswith("Max open files"):
            soft = line.removeprefix("Max open files").split()[:1]
            return int(soft[0]) if soft and soft[0].isdecimal() else None
    return None
