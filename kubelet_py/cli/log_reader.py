"""Container logs from the files that the runtime writes, as `kubelet-py logs` prints them.

Owns reading, tailing and following the log of one run of a container in CRI format, over rotations; knows no pods. The
HTTP API has its own reader, which serves many clients at once without blocking; this one may wait.
"""

import os
import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import BinaryIO

from cri_proto.wire.log_line import LogLineError, parse_line

_LOOK_AGAIN_SECONDS = 0.2
# whether the run is over costs a call to the agent, a look at the file next to nothing
_LOOKS_PER_QUESTION = 5


def read_log(path: Path, *, tail_lines: int | None = None) -> Iterator[bytes]:
    """The text of the lines, without their tags, or of the last `tail_lines` of them."""
    with path.open("rb") as log:
        yield from _texts(log, tail_lines)


def follow_log(
    path: Path,
    *,
    is_over: Callable[[], bool],
    tail_lines: int | None = None,
    wait: Callable[[], None] = lambda: time.sleep(_LOOK_AGAIN_SECONDS),
) -> Iterator[bytes]:
    """As read_log, and then all that comes until `is_over` says that nothing does any more.

    Rotation renames the file, the runtime goes on writing to it, and makes the new one a moment later: until that one
    is there, the old one is read on.
    """
    with ExitStack() as files:
        log = files.enter_context(path.open("rb"))
        yield from _texts(log, tail_lines, whole_only=True)
        over, quiet_looks = False, 0
        while True:
            # asked before the look: what was written until then is still read
            if not over and quiet_looks % _LOOKS_PER_QUESTION == 0:
                over = is_over()
            begin = log.tell()
            replaced = _is_replaced(log, path)
            yield from _texts(log, whole_only=not replaced and not over)
            if replaced:
                with suppress(FileNotFoundError):  # rotated once more meanwhile
                    successor = path.open("rb")
                    files.close()
                    log, quiet_looks = files.enter_context(successor), 0
            elif over:
                return
            else:
                quiet_looks = quiet_looks + 1 if log.tell() == begin else 1
                wait()


def _is_replaced(log: BinaryIO, path: Path) -> bool:
    """Whether another file has that name now; while none has it, the open one is still written to."""
    try:
        return not os.path.samestat(os.stat(path), os.fstat(log.fileno()))
    except FileNotFoundError:
        return False


def _texts(log: BinaryIO, tail_lines: int | None = None, *, whole_only: bool = False) -> Iterator[bytes]:
    """Lines from here on; `whole_only` leaves one that is not whole yet for the next look."""
    lines = _lines(log, whole_only=whole_only)
    yield from map(_text, lines if tail_lines is None else deque(lines, tail_lines))


def _lines(log: BinaryIO, *, whole_only: bool) -> Iterator[bytes]:
    position = log.tell()
    for line in iter(log.readline, b""):
        if whole_only and not line.endswith(b"\n"):
            log.seek(position)
            return
        position = log.tell()
        yield line


def _text(line: bytes) -> bytes:
    """A line's own text; a line that is none of the runtime's is shown as it stands."""
    try:
        parsed = parse_line(line)
    except LogLineError:
        return line
    return parsed.text if parsed.partial else parsed.text + b"\n"
