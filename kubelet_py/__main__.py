"""`kubelet-py`: starts the agent, or carries out one of the commands for people (`kubelet-py get pods`).

Exit code 0 after a stop that was asked for, 1 with one clear line for each thing that is wrong.
"""

import contextlib
import os
import sys
from collections.abc import Sequence

# structlog loads rich for its developer console whenever it happens to be installed: 6 MiB that nobody looks at here.
sys.modules.setdefault("rich", None)  # type: ignore[arg-type] # None is how the import system spells "not to be had"


def main() -> int:
    """The console script. Threads of an agent that still wait for a name server must not hold up its end."""
    arguments = sys.argv[1:]
    from kubelet_py import cli

    if cli.is_command(arguments):
        return cli.main(arguments)
    code = run_agent(arguments)
    with contextlib.suppress(OSError):
        sys.stderr.flush()
    os._exit(code)


def run_agent(arguments: Sequence[str]) -> int:
    """Run until told to stop; the exit code."""
    import asyncio

    from kubelet_py.config import Answer, load
    from kubelet_py.errors import ConfigError

    try:
        settings = load(arguments)
    except Answer as answer:
        sys.stdout.write(f"{answer.text}\n")
        sys.stdout.flush()
        return 0
    except ConfigError as error:
        return _complain(error)
    from kubelet_py import log
    from kubelet_py.app.run import run

    log.setup(settings.config.logging.format, settings.config.logging.verbosity)
    problems: list[Exception] = []
    try:
        asyncio.run(run(settings))
    except* ConfigError as group:
        problems.extend(_leaves(group))
    return max((_complain(problem) for problem in problems), default=0)


def _leaves(group: BaseExceptionGroup[Exception]) -> list[Exception]:
    found: list[Exception] = []
    for error in group.exceptions:
        found.extend(_leaves(error) if isinstance(error, BaseExceptionGroup) else [error])
    return found


def _complain(error: Exception) -> int:
    with contextlib.suppress(OSError):  # a full disk: the exit code is all that is left to say
        for line in str(error).splitlines():
            sys.stderr.write(f"kubelet-py: {line}\n")
    return 1


if __name__ == "__main__":
    sys.exit(main())
