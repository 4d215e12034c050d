"""Network namespaces for tests: the test itself runs in a new one, and pods get theirs.

The thread that runs the test's event loop moves into the new namespace, and what it starts (plugins, iptables) is there
too. Everything in it vanishes with the thread.
"""

from __future__ import annotations

import asyncio
import ctypes
import os
import subprocess
import threading
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from dockershim import namespaces

_CLONE_NEWNET = 0x40000000
_libc = ctypes.CDLL(None, use_errno=True)


def run_in_new_network(body: Callable[[], Awaitable[None]]) -> None:
    """Run a coroutine function in an event loop of its own, in an empty network namespace with `lo` up."""
    trouble: list[BaseException] = []

    async def main() -> None:
        await body()

    def run() -> None:
        try:
            if _libc.unshare(_CLONE_NEWNET):
                raise OSError(ctypes.get_errno(), "unshare of the network namespace: this test needs root")
            namespaces.bring_loopback_up("/proc/thread-self/ns/net")
            asyncio.run(main())
        except BaseException as error:
            trouble.append(error)

    thread = threading.Thread(target=run, name="test-network")
    thread.start()
    thread.join()
    if trouble:
        raise trouble[0]


@contextmanager
def pod_network() -> Iterator[Path]:
    """An empty network namespace, as that of a pause process."""
    with subprocess.Popen(
        ["unshare", "--net", "sh", "-c", "echo ready; exec sleep 600"], stdout=subprocess.PIPE
    ) as process:
        try:
            assert process.stdout is not None
            process.stdout.readline()
            yield Path(f"/proc/{process.pid}/ns/net")
        finally:
            process.kill()


def run_in_pod(netns: Path, *command: str) -> str:
    """What a command prints in a pod's namespace."""
    return subprocess.run(
        ["nsenter", f"--net={os.fspath(netns)}", *command], check=True, capture_output=True, text=True
    ).stdout
