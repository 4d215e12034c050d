"""Standard output that cannot take everything: an encoding with few characters, a reader that has gone.

Owns what becomes of the rest. What nobody reads goes to /dev/null, so that the interpreter's last flush does not fail
over it.
"""

import io
import os
import sys


def accept_any_text() -> None:
    """Characters that the terminal's encoding does not have are spelled out, instead of ending the command."""
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")


def write_both(stdout: bytes, stderr: bytes) -> None:
    """What a command printed, to the same two streams; a reader that has gone is no fault of the command's."""
    try:
        sys.stdout.buffer.write(stdout)
        sys.stdout.buffer.flush()
    except BrokenPipeError:
        discard_stdout()
    sys.stderr.buffer.write(stderr)
    sys.stderr.buffer.flush()


def discard_stdout() -> None:
    """Standard output leads to /dev/null from now on, and so does what it still holds."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, sys.stdout.fileno())
    os.close(nowhere)
