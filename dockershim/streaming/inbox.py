"""Bytes of one stream on their way from the connection to whoever wants them, with a limit.

When it is full the connection is not read any further: that is all the back-pressure SPDY has among Go's programs.
"""

from __future__ import annotations

import asyncio
from collections import deque

from dockershim.streaming.wires import Gone

LIMIT_BYTES = 256 * 1024


class Inbox:
    """A bounded queue of bytes with one reader. It ends in good order, or is broken off."""

    def __init__(self, limit_bytes: int = LIMIT_BYTES) -> None:
        self._limit_bytes = limit_bytes
        self._pieces: deque[bytes] = deque()
        self._size_bytes = 0
        self._changed = asyncio.Condition()
        self._ended = False
        self._broken = False
        self._unwanted = False

    async def put(self, data: bytes) -> None:
        """Add bytes; waits while it is full. What comes after the end, or is not wanted any more, is dropped."""
        async with self._changed:
            await self._changed.wait_for(lambda: self._unwanted or self._size_bytes < self._limit_bytes)
            if not self._unwanted and not self._ended and data:
                self._pieces.append(data)
                self._size_bytes += len(data)
                self._changed.notify_all()

    async def get(self) -> bytes:
        """The next bytes; none at the end. Gone when it was broken off."""
        async with self._changed:
            await self._changed.wait_for(lambda: self._broken or self._ended or bool(self._pieces))
            if self._broken:
                raise Gone("the stream was broken off")
            if not self._pieces:
                return b""
            data = self._pieces.popleft()
            self._size_bytes -= len(data)
            self._changed.notify_all()
            return data

    async def end(self) -> None:
        """Nothing more will come."""
        async with self._changed:
            self._ended = True
            self._changed.notify_all()

    async def break_off(self) -> None:
        """The sender is gone in the middle."""
        async with self._changed:
            self._broken = not self._ended
            self._ended = True
            self._changed.notify_all()

    async def discard(self) -> None:
        """Nobody reads any more: drop what is there and what comes."""
        async with self._changed:
            self._unwanted = True
            self._pieces.clear()
            self._size_bytes = 0
            self._changed.notify_all()
