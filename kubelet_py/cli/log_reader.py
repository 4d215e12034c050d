"""Container logs from the files that the runtime writes, as `kubelet-py logs` prints them.

Owns reading, tailing and following one log file in CRI format; knows no pods. The HTTP API has its own reader, which
serves many clients at once without blocking; this one may wait.
"""

import time
from collections import deque
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from cri_proto.wire.log_line import LogLineError, parse_line

_LOOK_AGAIN_SECONDS = 0.2


def read_log(path: Path, *, tail_lines: int | None = None, follow: bool = False) -> Iterator[bytes]:
    """The text of the lines, without their tags; the last `tail_lines` of them, and with `follow` all that come."""
    with path.open("rb") as log:
        texts = (_text(line) for line in log)
        yield from texts if tail_lines is None else deque(texts, tail_lines)
        while follow:
            yield from _new_lines(log, path)


def _new_lines(log: BinaryIO, path: Path) -> Iterator[bytes]:
    """What was written meanwhile; a line that is not whole yet is left for the next look."""
    position = log.tell()
    for line in iter(log.readline, b""):
        if not line.endswith(b"\n"):
            log.seek(position)
            break
        position = log.tell()
        yield _text(line)
    else:
        if not path.exists():
            raise FileNotFoundError(path)
    time.sleep(_LOOK_AGAIN_SECONDS)


def _text(line: bytes) -> bytes:
    """A line's own text; a line that is none of the runtime's is shown as it stands."""
    try:
        parsed = parse_line(line)
    except LogLineError:
        return line
    return parsed.text if parsed.partial else parsed.text + b"\n"
