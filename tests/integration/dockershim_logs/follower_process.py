"""A process that follows one log, to be killed: `python -m ... STATE_DIRECTORY DOCKER_LOG CRI_LOG`.

Commands come in as lines and are answered with a line each: `reopen`, `finish`, `usage` (resident KiB, CPU seconds).
"""

from __future__ import annotations

import asyncio
import os
import resource
import sys
from pathlib import Path

import structlog

from dockershim.logs import LogSource
from dockershim.logs.json_file import JsonFileLogs

ID = "c" * 64


async def main(state: str, docker_log: str, cri_log: str) -> None:
    """Follow until the commands end."""
    logs = JsonFileLogs(Path(state))
    commands = asyncio.StreamReader()
    loop = asyncio.get_running_loop()
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(commands), sys.stdin)
    async with asyncio.TaskGroup() as group:
        running = group.create_task(logs.run(), name="container-logs")
        logs.follow(LogSource(ID, docker_log, cri_log))
        print("following", flush=True)
        async for command in commands:
            match command.strip():
                case b"reopen":
                    await logs.reopen(ID)
                    print("reopened", flush=True)
                case b"finish":
                    await logs.finish(ID)
                    print("finished", flush=True)
                case b"usage":
                    pages = int(Path("/proc/self/statm").read_text().split()[1])
                    usage = resource.getrusage(resource.RUSAGE_SELF)
                    resident_kib = pages * os.sysconf("SC_PAGESIZE") // 1024
                    print(resident_kib, usage.ru_utime + usage.ru_stime, flush=True)
        running.cancel()


if __name__ == "__main__":
    structlog.configure(logger_factory=structlog.PrintLoggerFactory(sys.stderr))
    asyncio.run(main(*sys.argv[1:]))
