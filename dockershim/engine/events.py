"""Docker's event stream, read by a thread of its own that only queues.

Docker drops events for a subscriber that does not read for a tenth of a second, so nothing is done in the thread but
decoding. Must not know what the events mean. Upstream counterpart: none in cri-dockerd, which polls.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import threading
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from dockershim.engine import EngineEvent

if TYPE_CHECKING:
    from requests import Response


def decode_event(line: Mapping[str, Any]) -> EngineEvent | None:
    """One line of the stream; None when it is not one that we understand."""
    actor = line.get("Actor") or {}
    attributes = actor.get("Attributes") or {}
    kind, action, identifier = line.get("Type"), line.get("Action"), actor.get("ID")
    if not kind or not action or not identifier:
        return None
    time_ns = int(line.get("timeNano") or int(line.get("time") or 0) * 10**9)
    return EngineEvent(str(kind), str(action), str(identifier), str(attributes.get("name", "")), time_ns, attributes)


class ThreadedEventStream:
    """A running subscription."""

    def __init__(self, response: Response, loop: asyncio.AbstractEventLoop) -> None:
        self._response = response
        self._loop = loop
        self._queue: asyncio.Queue[EngineEvent | None] = asyncio.Queue()
        self._closed = False
        self._thread = threading.Thread(target=self._read, name="docker-events", daemon=True)
        self._thread.start()

    def _read(self) -> None:
        rest = b""
        # whatever ends the connection ends the subscription; the reader of the queue dials again
        with contextlib.suppress(Exception):
            for chunk in self._response.iter_content(chunk_size=None):
                *lines, rest = (rest + chunk).split(b"\n")
                for line in lines:
                    event = decode_event(json.loads(line)) if line.strip() else None
                    if event is not None:
                        self._put(event)
        self._put(None)

    def _put(self, event: EngineEvent | None) -> None:
        with contextlib.suppress(RuntimeError):  # the loop has ended before us
            self._loop.call_soon_threadsafe(self._queue.put_nowait, event)

    async def next(self) -> EngineEvent | None:
        """The next event, None when the stream has ended."""
        return await self._queue.get()

    def close(self) -> None:
        """End the subscription."""
        if self._closed:
            return
        self._closed = True
        from docker.types.daemon import CancellableStream

        with contextlib.suppress(Exception):  # it may have ended by itself at any point
            CancellableStream(iter(()), self._response).close()
