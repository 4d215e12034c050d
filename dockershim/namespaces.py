"""Work inside another network namespace, in a thread that ends with it.

Owns setns, the loopback interface and reading the addresses of an interface. Must not know sandboxes. (os.setns comes
with Python 3.12.) Upstream counterpart: cri-dockerd runs nsenter and ip for each status; here it is a few system calls.
"""

from __future__ import annotations

import contextlib
import ctypes
import fcntl
import ipaddress
import os
import socket
import struct
import threading
from collections.abc import Callable
from typing import TypeVar

_CLONE_NEWNET = 0x40000000
_SIOCGIFFLAGS = 0x8913
_SIOCGIFADDR = 0x8915
_SIOCSIFFLAGS = 0x8914
_IFF_UP = 0x1
_INTERFACE_REQUEST = struct.Struct("16sH22x")
_INTERFACE_ADDRESS = struct.Struct("16sHH4s16x")
_GLOBAL_SCOPE = "00"

_libc = ctypes.CDLL(None, use_errno=True)

T = TypeVar("T")


def in_network_namespace(path: str, work: Callable[[], T]) -> T:
    """Do blocking work in the namespace at a path, in a thread of its own, and wait. The caller stays where it is."""
    outcome: list[T] = []
    trouble: list[BaseException] = []

    def run() -> None:
        try:
            descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
            try:
                if _libc.setns(descriptor, _CLONE_NEWNET):
                    number = ctypes.get_errno()
                    raise OSError(number, os.strerror(number), path)
            finally:
                os.close(descriptor)
            outcome.append(work())
        except BaseException as error:
            trouble.append(error)

    thread = threading.Thread(target=run, name="network-namespace")
    thread.start()
    thread.join()
    if trouble:
        raise trouble[0]
    return outcome[0]


def bring_loopback_up(netns_path: str) -> None:
    """`lo` up, as the loopback plugin of CNI does it, without a process."""

    def bring_up() -> None:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as control:
            answer = fcntl.ioctl(control, _SIOCGIFFLAGS, _INTERFACE_REQUEST.pack(b"lo", 0))
            _, flags = _INTERFACE_REQUEST.unpack(answer)
            fcntl.ioctl(control, _SIOCSIFFLAGS, _INTERFACE_REQUEST.pack(b"lo", flags | _IFF_UP))

    in_network_namespace(netns_path, bring_up)


def read_addresses(netns_path: str, interface: str) -> tuple[str, ...]:
    """The addresses of an interface that others can reach, IPv4 before IPv6; none where there is no such interface."""

    def read() -> tuple[str, ...]:
        found = []
        with (
            socket.socket(socket.AF_INET, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as control,
            contextlib.suppress(OSError),  # no such interface, or no IPv4 on it
        ):
            request = _INTERFACE_ADDRESS.pack(interface.encode(), socket.AF_INET, 0, bytes(4))
            _, _, _, address = _INTERFACE_ADDRESS.unpack(fcntl.ioctl(control, _SIOCGIFADDR, request))
            found.append(socket.inet_ntoa(address))
        with contextlib.suppress(FileNotFoundError), open("/proc/thread-self/net/if_inet6") as table:
            return (*found, *ipv6_addresses(table.read(), interface))
        return tuple(found)

    return in_network_namespace(netns_path, read)


def ipv6_addresses(table: str, interface: str) -> list[str]:
    """The global addresses of an interface in the kernel's table (address, index, prefix, scope, flags, name)."""
    rows = [line.split() for line in table.splitlines()]
    return [
        str(ipaddress.IPv6Address(bytes.fromhex(row[0])))
        for row in rows
        if len(row) == 6 and row[5] == interface and row[3] == _GLOBAL_SCOPE
    ]
