"""The spool of containers' output: what lies where, and how dockershim-oci puts a container's output into it.

Below the spool's directory each container has one of its own: for each stream a FIFO that the container writes into,
and numbered segments that the spooler fills from it. The container's own end of the FIFO is open for reading too, so
nobody else's death breaks it: without a reader the container waits at a full pipe and goes on later. Must not know what
the output means. `terminal` does the same for a container with one. docs/adr/0007 has the reasons.
"""

from __future__ import annotations

import os
import sys

STREAMS = ("stdout", "stderr")
SEGMENT_BYTES = 4 << 20
"""All segments but the last one are as long as this, so that a place in the stream is a segment and a place in it."""
PIPE_BYTES = 1 << 20
"""So much may wait in a FIFO; an unprivileged process may ask for as much."""
SOCKET = "spooler.sock"
LOCK = "spooler.lock"
ID_BYTES = 128
"""No container's id is longer."""


def fifo(directory: str, stream: str) -> str:
    """What the container writes into. It goes when nobody can write any more and all is in the segments."""
    return f"{directory}/{stream}.fifo"


def segment(directory: str, stream: str, number: int) -> str:
    """One part of a stream."""
    return f"{directory}/{stream}.{number:06d}"


def segment_numbers(directory: str, stream: str) -> list[int]:
    """The parts there are, in order. OSError where the directory is not."""
    found = (name.rpartition(".") for name in os.listdir(directory))
    return sorted(int(number) for name, _, number in found if name == stream and number.isdigit())


def reachable(directory: str) -> tuple[int, str]:
    """A descriptor to close, and the socket's path by it: however long the directory's own path is."""
    descriptor = os.open(directory, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    return descriptor, f"/proc/self/fd/{descriptor}/{SOCKET}"


def make_fifo(directory: str, stream: str, flags: int) -> tuple[str, int]:
    """One stream's FIFO, which may be there from a try in which the runtime failed: its path, and it opened."""
    import contextlib
    import fcntl

    os.makedirs(directory, 0o700, exist_ok=True)
    path = fifo(directory, stream)
    with contextlib.suppress(FileExistsError):
        os.mkfifo(path, 0o600)
    descriptor = os.open(path, flags | os.O_CLOEXEC)
    with contextlib.suppress(OSError):  # the user's share of pipe memory is used up: the usual size does as well
        fcntl.fcntl(descriptor, fcntl.F_SETPIPE_SZ, PIPE_BYTES)
    return path, descriptor


def hand_over(spool: str, container_id: str, ends: list[int]) -> None:
    """Give the spooler for each stream the reading end and the engine's end, to write a copy to.

    It need not take them at once: they wait in the socket with all that a short container wrote. There is a pair for
    each stream, however many a container has: an older spooler that still runs knows no other message. OSError when it
    does not run.
    """
    import _socket  # `socket` takes several times as long to import
    import contextlib

    descriptor, path = reachable(spool)
    with contextlib.closing(_socket.socket(_socket.AF_UNIX, _socket.SOCK_SEQPACKET)) as connection:
        connection.connect(path)
        rights = b"".join(end.to_bytes(4, sys.byteorder) for end in ends)
        connection.sendmsg([container_id.encode()], [(_socket.SOL_SOCKET, _socket.SCM_RIGHTS, rights)])
    os.close(descriptor)


def take_output(spool: str, container_id: str) -> None:
    """Put this process's stdout and stderr into the spool, for the container that it becomes."""
    directory = f"{spool}/{container_id}"
    ends, writing = [], []
    for number, stream in enumerate(STREAMS, start=1):
        path, end = make_fifo(directory, stream, os.O_RDWR)
        writing.append(end)
        ends += [os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC), number]
    hand_over(spool, container_id, ends)
    for number, end in enumerate(writing, start=1):
        os.dup2(end, number)
