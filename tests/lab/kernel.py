"""The few system calls that Python 3.11 does not offer: mount, unshare, setns, prctl.

Standard library only: the lab's first process imports it before anything else is there.
"""

from __future__ import annotations

import ctypes
import os
import signal

CLONE_NEWNS = 0x00020000
CLONE_NEWCGROUP = 0x02000000
CLONE_NEWUTS = 0x04000000
CLONE_NEWIPC = 0x08000000
CLONE_NEWPID = 0x20000000
CLONE_NEWNET = 0x40000000

MS_NOSUID = 0x2
MS_NODEV = 0x4
MS_NOEXEC = 0x8
MS_BIND = 0x1000
MS_REC = 0x4000
MS_PRIVATE = 1 << 18
MS_SHARED = 1 << 20

_PR_SET_PDEATHSIG = 1
_libc = ctypes.CDLL(None, use_errno=True)


def _check(result: int, what: str) -> None:
    if result != 0:
        number = ctypes.get_errno()
        raise OSError(number, f"{what}: {os.strerror(number)}")


def mount(source: str, target: str, kind: str = "", flags: int = 0, data: str = "") -> None:
    """mount(2)."""
    result = _libc.mount(source.encode(), target.encode(), kind.encode(), ctypes.c_ulong(flags), data.encode())
    _check(result, f"mount {kind or 'bind'} {source} on {target}")


def detach(target: str) -> None:
    """umount2(2) with MNT_DETACH: the mount and all below it are gone from this namespace."""
    _check(_libc.umount2(target.encode(), 2), f"umount {target}")


def unshare(flags: int) -> None:
    """unshare(2); a new PID namespace holds the children made afterwards."""
    _check(_libc.unshare(flags), f"unshare {flags:#x}")


def set_namespace(descriptor: int, kind: int) -> None:
    """setns(2), for the calling thread."""
    _check(_libc.setns(descriptor, kind), "setns")


def die_with_parent(number: int = signal.SIGKILL) -> None:
    """Have the kernel send this signal when the thread that made this process ends."""
    _check(_libc.prctl(_PR_SET_PDEATHSIG, ctypes.c_ulong(number), 0, 0, 0), "prctl PR_SET_PDEATHSIG")


def sethostname(name: str) -> None:
    """sethostname(2)."""
    encoded = name.encode()
    _check(_libc.sethostname(encoded, len(encoded)), "sethostname")
