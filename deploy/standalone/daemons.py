"""Starting and stopping the node's processes, by the numbers that were written down and never by name."""

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from deploy.standalone.console import StandaloneError, wait_until
from deploy.standalone.node import LOGS, Daemon, Record

STOP_SECONDS = 20.0


def log_of(name: str) -> Path:
    """Where a daemon's output goes."""
    return LOGS / f"{name}.log"


def find(record: Record, name: str) -> Daemon | None:
    """The running daemon of that name, if `up` started one."""
    return next((daemon for daemon in record.daemons if daemon.name == name and is_running(daemon)), None)


def start(
    record: Record, name: str, command: Sequence[str | Path], environment: Mapping[str, str] | None = None
) -> None:
    """Start a daemon detached from this terminal, unless it runs already, and write it down."""
    if find(record, name):
        return
    LOGS.mkdir(parents=True, exist_ok=True)
    with log_of(name).open("ab") as sink:
        process = subprocess.Popen(
            [str(word) for word in command],
            stdin=subprocess.DEVNULL,
            stdout=sink,
            stderr=sink,
            env={**os.environ, **(environment or {})},
            start_new_session=True,
            cwd="/",
        )
    process.returncode = 0  # it outlives this program, which therefore does not wait for it
    record.daemons.append(Daemon(name, process.pid, started_ticks(process.pid)))
    record.save()


def wait_for(record: Record, name: str, what: str, happens: Callable[[], bool], timeout_seconds: float = 60.0) -> None:
    """Wait until the daemon serves; an early end is told with the last lines of its log."""

    def served_or_dead() -> bool:
        if happens():
            return True
        if find(record, name) is None:
            raise StandaloneError(f"{name} ended instead of serving. The end of {log_of(name)}:\n{tail(name)}")
        return False

    wait_until(what, served_or_dead, timeout_seconds=timeout_seconds, hint=f"see {log_of(name)}:\n{tail(name)}")


def stop(record: Record, name: str) -> None:
    """Ask the daemon to end, insist after a while, and strike it off."""
    daemon = find(record, name)
    if daemon is not None:
        for sign in (signal.SIGTERM, signal.SIGKILL):
            with contextlib.suppress(ProcessLookupError):
                os.kill(daemon.pid, sign)
            if _ends(daemon, STOP_SECONDS if sign is signal.SIGTERM else 5.0):
                break
    record.daemons = [other for other in record.daemons if other.name != name]
    record.save()


def is_running(daemon: Daemon) -> bool:
    """Whether that very process is alive (and no zombie)."""
    # 0 was written down for one that had ended before it could be looked at
    return daemon.started_ticks != 0 and started_ticks(daemon.pid) == daemon.started_ticks


def started_ticks(pid: int) -> int:
    """When the process started, in clock ticks since boot; 0 when there is none, or only its zombie."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return 0
    return 0 if fields[0] in "ZX" else int(fields[19])


def tail(name: str, lines: int = 12) -> str:
    """The last lines a daemon wrote, indented."""
    try:
        text = log_of(name).read_text(errors="replace")
    except FileNotFoundError:
        return ""
    return "\n".join(f"    {line}" for line in text.splitlines()[-lines:])


def python(*words: str) -> list[str]:
    """A command that runs a module of this checkout."""
    return [sys.executable, "-m", *words]


def _ends(daemon: Daemon, timeout_seconds: float) -> bool:
    deadline = time.monotonic() + timeout_seconds
    while is_running(daemon):
        if time.monotonic() > deadline:
            return False
        with contextlib.suppress(ChildProcessError):
            os.waitpid(daemon.pid, os.WNOHANG)
        time.sleep(0.05)
    return True
