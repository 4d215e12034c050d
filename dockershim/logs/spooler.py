"""Keeps the spooler of this node running: the process that holds containers' output while dockershim is away.

Owns the connection that tells each of the two that the other is there. The spooler is not a part of this process: it is
found again after a restart, and it outlives both dockershim and dockerd. Upstream counterpart: none.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import subprocess
import sys
from pathlib import Path

import structlog

from dockershim import oci
from dockershim.oci import instructions as words
from dockershim.oci import spool

PROGRAM = Path(oci.__file__).with_name("__main__.py")
START_SECONDS = 10.0
BETWEEN_TRIES_SECONDS = 0.02
RETRY_SECONDS = 5.0

_log = structlog.get_logger()


class SpoolerKeeper:
    """`run` it. While `is_there`, new containers may spool their output."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.is_there = False

    async def run(self) -> None:
        """Connect, start what is not there, and notice when it dies; without end."""
        while True:
            try:
                await self._hold()
                _log.warning("log_spooler_died", hint="it is started again; no container notices")
            except (OSError, subprocess.TimeoutExpired) as error:
                _log.error("log_spooler_not_started", directory=str(self.directory), error=str(error) or repr(error))
                await asyncio.sleep(RETRY_SECONDS)

    async def _hold(self) -> None:
        with await self._connected() as connection:
            self.is_there = True
            try:
                with contextlib.suppress(ConnectionError):
                    await asyncio.get_running_loop().sock_recv(connection, 1)
            finally:
                self.is_there = False

    async def _connected(self) -> socket.socket:
        with contextlib.suppress(FileNotFoundError, ConnectionRefusedError):
            return await self._connect()
        await asyncio.to_thread(self._start)
        async with asyncio.timeout(START_SECONDS):
            while True:
                with contextlib.suppress(FileNotFoundError, ConnectionRefusedError):
                    return await self._connect()
                await asyncio.sleep(BETWEEN_TRIES_SECONDS)

    async def _connect(self) -> socket.socket:
        connection = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        connection.setblocking(False)
        try:
            descriptor, path = await asyncio.to_thread(spool.reachable, str(self.directory))
            try:
                await asyncio.get_running_loop().sock_connect(connection, path)
            finally:
                os.close(descriptor)
        except BaseException:
            connection.close()
            raise
        return connection

    def _start(self) -> None:
        """It makes itself nobody's child, so that no end of this process and no signal to its group reaches it."""
        self.directory.mkdir(parents=True, exist_ok=True, mode=0o700)
        command = [sys.executable, "-I", "-S", str(PROGRAM), words.SPOOLER_VERB, str(self.directory)]
        quiet = subprocess.DEVNULL
        ended = subprocess.run(command, stdin=quiet, stdout=quiet, cwd="/", check=False, timeout=START_SECONDS)
        if ended.returncode:
            raise OSError(f"{' '.join(command)} ended with {ended.returncode}")
