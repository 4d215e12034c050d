"""What systemd and a service tell each other: readiness, the watchdog, and sockets that were opened beforehand.

Owns the sd_notify datagram, WATCHDOG_USEC and LISTEN_FDS. Knows nothing of the agent: the environment is an argument,
so that a program that was not started by systemd runs the same lines and nothing happens.

Upstream counterpart: github.com/coreos/go-systemd and pkg/kubelet/watchdog. The protocol is sd_notify(3),
sd_watchdog_enabled(3) and sd_listen_fds(3).
"""

import os
import socket
from collections.abc import Mapping
from dataclasses import dataclass

from kubelet_py.errors import ConfigError

READY = "READY=1"
STOPPING = "STOPPING=1"
WATCHDOG = "WATCHDOG=1"
_FIRST_LISTEN_FD = 3
_SHORTEST_WATCHDOG_SECONDS = 1.0


@dataclass(frozen=True, slots=True)
class Notifier:
    """The service manager's end of NOTIFY_SOCKET; with no address, every notification is dropped."""

    address: str = ""

    def notify(self, *assignments: str) -> bool:
        """Tell the service manager, such as `READY=1` and `STATUS=...`; whether it took the message. Never blocks."""
        if not self.address:
            return False
        # a leading @ stands for the NUL byte of an abstract socket
        address = f"\0{self.address[1:]}" if self.address.startswith("@") else self.address
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as channel:
            channel.setblocking(False)
            try:
                channel.sendto("\n".join(assignments).encode(), address)
            except OSError:
                return False  # a service manager that is away must not stop the pods
        return True


def notifier_from(environment: Mapping[str, str]) -> Notifier:
    """The notifier of this process."""
    return Notifier(environment.get("NOTIFY_SOCKET", ""))


def watchdog_interval_seconds(environment: Mapping[str, str], pid: int) -> float | None:
    """How often to send WATCHDOG=1: half of what systemd allows; None when it does not watch this process.

    Raises ConfigError for a value that is no number, as the unit's author wants to know.
    """
    text = environment.get("WATCHDOG_USEC", "")
    if not text or environment.get("WATCHDOG_PID", str(pid)) != str(pid):
        return None
    if not text.isascii() or not text.isdigit() or int(text) == 0:
        raise ConfigError(f"WATCHDOG_USEC is {text!r}: microseconds as a positive whole number are expected")
    allowed_seconds = int(text) / 1_000_000
    if allowed_seconds <= _SHORTEST_WATCHDOG_SECONDS:
        raise ConfigError(f"WATCHDOG_USEC is {text}: more than one second is expected (WatchdogSec= in the unit)")
    return allowed_seconds / 2


def listen_fds(environment: Mapping[str, str], pid: int) -> dict[str, int]:
    """The descriptors that systemd opened for this process, by name (or by number where it gave no names).

    They are made close-on-exec, so that no child inherits a listening socket.
    """
    count = environment.get("LISTEN_FDS", "")
    if environment.get("LISTEN_PID", "") != str(pid) or not count.isdigit():
        return {}
    numbers = range(_FIRST_LISTEN_FD, _FIRST_LISTEN_FD + int(count))
    names = [name for name in environment.get("LISTEN_FDNAMES", "").split(":") if name]
    for number in numbers:
        os.set_inheritable(number, False)
    if len(names) != len(numbers):
        names = [str(number) for number in numbers]
    return dict(zip(names, numbers, strict=True))
