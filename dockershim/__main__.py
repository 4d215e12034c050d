"""The dockershim program: flags in, exit code out; 1 with one line for each thing that is wrong."""

from __future__ import annotations

import asyncio
import contextlib
import os
import sys
from collections.abc import Sequence

from dockershim.config import parse_arguments
from dockershim.errors import ConfigError
from dockershim.log import configure_logging


def run(arguments: Sequence[str]) -> int:
    """Run until told to stop; the exit code."""
    problems: list[str] = []
    try:
        config = parse_arguments(arguments)
        configure_logging(config.log_level, config.log_format)
        from dockershim import app  # after the flags are known to be good: it brings gRPC

        asyncio.run(app.run(config))
    except* ConfigError as group:  # alone from the flags, in groups from the tasks of a start
        problems.extend(problem for error in _leaves(group) for problem in error.problems)
    with contextlib.suppress(OSError):  # a full disk: the exit code is all that is left to say
        for problem in problems:
            sys.stderr.write(f"dockershim: {problem}\n")
    return 1 if problems else 0


def _leaves(group: BaseExceptionGroup[ConfigError]) -> list[ConfigError]:
    found: list[ConfigError] = []
    for error in group.exceptions:
        found.extend(_leaves(error) if isinstance(error, BaseExceptionGroup) else [error])
    return found


def main() -> None:
    """The end of the process. Threads that still wait for Docker must not hold it up."""
    code = run(sys.argv[1:])
    with contextlib.suppress(OSError):
        sys.stderr.flush()
    os._exit(code)


if __name__ == "__main__":
    main()
