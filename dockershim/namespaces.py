"""Work inside another network namespace, in a thread that ends with it.

Owns setns and the loopback interface. Must not know sandboxes. (os.setns comes with Python 3.12.)
"""

from __future__ import annotations

import ctypes
import fcntl
import os
import socket
import struct
import threading
from collections.abc import Callable
from typing import TypeVar

_CLONE_NEWNET = 0x40000000
_SIOCGIFFLAGS = 0x8913
_SIOCSIFFLAGS = 0x8914
_IFF_UP = 0x1
_INTERFACE_REQUEST = struct.Struct("16sH22x")

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
