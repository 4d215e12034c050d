"""The exit codes of execs, for those who wait: Docker tells each in an event, so nobody has to ask for it.

Owns who waits for which exec. Must not know how an exec runs. Upstream counterpart: none in cri-dockerd, which asks
again every two seconds.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Mapping
from contextlib import contextmanager


class ExecExits:
    """Those that somebody waits for; the others are not kept."""

    def __init__(self) -> None:
        self._waiting: dict[str, asyncio.Future[int]] = {}

    @contextmanager
    def expect(self, exec_id: str) -> Iterator[asyncio.Future[int]]:
        """Its exit code, once Docker has told. Begin before the exec does. It may never come: events can be lost."""
        told = self._waiting[exec_id] = asyncio.get_running_loop().create_future()
        try:
            yield told
        finally:
            del self._waiting[exec_id]

    def tell(self, attributes: Mapping[str, str]) -> None:
        """Take note of an `exec_die` event."""
        told = self._waiting.get(attributes.get("execID", ""))
        code = attributes.get("exitCode", "")
        if told is not None and not told.done() and code.isdigit():
            told.set_result(int(code))
