"""A process that writes a container's log as dockerd does: `python -m ... DOCKER_LOG LINES SEED MAX_BYTES`.

Entries are numbered. Writes end anywhere inside an entry, and the file is rotated when it has grown to MAX_BYTES, with
all generations kept.
"""

from __future__ import annotations

import os
import random
import sys
from pathlib import Path


def entry(number: int) -> bytes:
    """One line of Docker's file; every tenth has no end, as a long line cut by Docker."""
    stream = "stderr" if number % 3 == 0 else "stdout"
    end = "" if number % 10 == 9 else "\\n"
    return (
        f'{{"log":"line {number} of a container that has much to say about \\"itself\\"{end}","stream":"{stream}",'
        f'"time":"2026-11-22T20:02:45.{number:09d}Z"}}\n'
    ).encode()


def rotate(path: Path) -> None:
    """X.1 becomes X.2, X becomes X.1, a new X is made."""
    generations = 1
    while Path(f"{path}.{generations}").exists():
        generations += 1
    for index in range(generations, 1, -1):
        os.rename(f"{path}.{index - 1}", f"{path}.{index}")
    os.rename(path, f"{path}.1")


def main(path: Path, lines: int, seed: int, max_bytes: int) -> None:
    """Write them all."""
    chance = random.Random(seed)
    number = 0
    flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND
    descriptor = os.open(path, flags, 0o640)
    size = 0
    while number < lines:
        count = min(chance.choice((1, 2, 5, 50, 500)), lines - number)
        data = b"".join(map(entry, range(number, number + count)))
        number += count
        cut = chance.randrange(len(data))
        os.write(descriptor, data[:cut])
        os.write(descriptor, data[cut:])
        size += len(data)
        if size > max_bytes:
            os.close(descriptor)
            rotate(path)
            descriptor = os.open(path, flags, 0o640)
            size = 0
    os.close(descriptor)


if __name__ == "__main__":
    main(Path(sys.argv[1]), *map(int, sys.argv[2:]))
