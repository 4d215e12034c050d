"""What systemd and a service say to each other: readiness, the watchdog, and sockets handed over.

Owns the notify datagrams and taking the passed socket. Must not know what the service does. Upstream counterpart:
coreos/go-systemd in cri-dockerd.
"""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import Mapping

_FIRST_FD = 3


class Notifier:
    """Speaks to systemd when it listens, and to nobody otherwise."""

    def __init__(self, environment: Mapping[str, str]) -> None:
        address = environment.get("NOTIFY_SOCKET", "")
        self._address = "\0" + address[1:] if address.startswith("@") else address
        own = environment.get("WATCHDOG_PID", str(os.getpid())) == str(os.getpid())
        self._watchdog_seconds = int(environment.get("WATCHDOG_USEC", "0") or 0) / 1e6 if own else 0.0

    def notify(self, *lines: str) -> None:
        """Send assignments such as READY=1."""
        if not self._address:
            return
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC | socket.SOCK_NONBLOCK) as sender:
            try:
                sender.sendto("\n".join(lines).encode(), self._address)
            except OSError:
                return  # a service must not fail because its manager is busy

    async def watchdog_loop(self) -> None:
        """Tell systemd that the loop turns, twice as often as it asks."""
        while self._watchdog_seconds > 0:
            self.notify("WATCHDOG=1")
            await asyncio.sleep(self._watchdog_seconds / 2)


def take_passed_socket(environment: Mapping[str, str]) -> socket.socket | None:
    """The listening socket that systemd passed, if it passed one to this process."""
    if environment.get("LISTEN_PID") != str(os.getpid()) or environment.get("LISTEN_FDS") != "1":
        return None
    passed = socket.socket(fileno=_FIRST_FD)
    os.set_inheritable(_FIRST_FD, False)
    passed.setblocking(False)
    return passed
