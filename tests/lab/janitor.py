"""The process that outlives the owner of a lab host: makes it, waits for its end, and removes what it leaves.

Started as `python -m tests.lab.janitor REQUEST` with a pipe on standard input that the owner holds open. When the
pipe closes, however the owner ended (kill -9 included), the lab's first process is killed, the kernel kills the rest
of the PID namespace, and the janitor removes the lab's cgroup directories, its /run and its root directory. Should
the janitor itself be killed, the lab's first process dies with it, and the next sweep removes the rest. Standard
library only.
"""

from __future__ import annotations

import fcntl
import json
import os
import select
import shutil
import signal
import sys
import time
import traceback
from dataclasses import asdict
from pathlib import Path

from tests.lab import cgroups, hostinit, kernel

STATE_NAME = "lab.json"
LOCK_NAME = "lock"
REMOVE_WITHIN_SECONDS = 20.0


def main() -> None:
    """Run one lab host from its making to its removal."""
    request = json.loads(sys.argv[1])
    root = Path(request["root"])
    (root / "run").mkdir(parents=True)
    lock = os.open(root / LOCK_NAME, os.O_RDWR | os.O_CREAT, 0o600)
    fcntl.flock(lock, fcntl.LOCK_EX)
    hierarchies = cgroups.plan(
        request["cgroup"], Path("/proc/self/mounts").read_text(), Path("/proc/self/cgroup").read_text()
    )
    state = {"owner": request["owner"], "cgroups": [entry.directory for entry in hierarchies]}
    _write_state(root, state)
    # The machine's own mount, not the lab's: sockets below it are reached from outside.
    kernel.mount("tmpfs", str(root / "run"), "tmpfs", kernel.MS_NOSUID | kernel.MS_NODEV, "mode=755")
    cgroups.create(hierarchies)
    kernel.unshare(kernel.CLONE_NEWPID)
    ready, ready_writer = os.pipe()
    janitor = os.getpid()
    first = os.fork()
    if first == 0:
        os.close(ready)
        _first_process(root, request["name"], hierarchies, ready_writer)
    os.close(ready_writer)
    trouble = os.read(ready, 1 << 16).decode()
    if trouble != "ready":
        sys.stdout.write(json.dumps({"error": trouble or "the first process of the lab died"}) + "\n")
    else:
        state |= {"first": first, "janitor": janitor, "hierarchies": [asdict(entry) for entry in hierarchies]}
        _write_state(root, state)
        sys.stdout.write(json.dumps({"pid": first}) + "\n")
        sys.stdout.flush()
        _wait_for_the_end(first)
    sys.stdout.flush()
    os.kill(first, signal.SIGKILL)
    os.waitpid(first, 0)
    left = remove(root, state["cgroups"])
    if left:
        sys.stderr.write(f"lab: could not remove {', '.join(left)}\n")
        sys.exit(1)


def _write_state(root: Path, state: dict[str, object]) -> None:
    """Note what others need to know of this lab, whole at any time. Written first when the lock is held: see sweep."""
    partial = root / f".{STATE_NAME}"
    partial.write_text(json.dumps(state))
    partial.rename(root / STATE_NAME)


def _first_process(root: Path, name: str, hierarchies: tuple[cgroups.Hierarchy, ...], ready: int) -> None:
    """The child's side; does not return."""
    try:
        kernel.die_with_parent()
        silent = os.open("/dev/null", os.O_RDWR)
        os.dup2(silent, 0)
        os.dup2(silent, 1)
        os.chdir("/")
        hostinit.prepare(root, name, hierarchies)
        service = hostinit.Service(root)
        os.write(ready, b"ready")
        os.close(ready)
        service.serve()
    except BaseException:
        os.write(ready, traceback.format_exc().encode())
        os._exit(1)


def _wait_for_the_end(first: int) -> None:
    """Return when the owner closed its end of the pipe, or the lab's first process died."""
    poll = select.poll()
    pidfd = os.pidfd_open(first)
    poll.register(pidfd, select.POLLIN)
    poll.register(0, select.POLLIN | select.POLLHUP)
    while True:
        for descriptor, _ in poll.poll():
            if descriptor == pidfd or not os.read(0, 4096):
                return


def remove(root: Path, directories: list[str]) -> list[str]:
    """Remove what a dead lab left: cgroup directories, its /run, the root directory. Returns what is still there."""
    left = cgroups.remove(directories)
    if (root / "run").is_mount():
        kernel.detach(str(root / "run"))
    mounted = [line.split()[4] for line in Path("/proc/self/mountinfo").read_text().splitlines()]
    if any(point.startswith(f"{root}/") for point in mounted):
        return [*left, f"{root} (something is mounted in it)"]
    deadline = time.monotonic() + REMOVE_WITHIN_SECONDS
    while root.exists():
        try:
            shutil.rmtree(root)
        except OSError as error:
            if time.monotonic() > deadline:
                return [*left, f"{root} ({error})"]
            time.sleep(0.05)
    return left


if __name__ == "__main__":
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    main()
