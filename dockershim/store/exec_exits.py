"""The exit codes of execs, for those who wait: Docker tells each in an event, so nobody has to ask for it.

Owns who waits for which exec. Must not know how an exec runs. Upstream counterpart: none in cri-dockerd, which asks
again every two seconds. Docker does not notice the end of an exec whose container ends before it where both are in the
process namespace of another (shareProcessNamespace, hostPID): its output never ends, and no event comes.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Iterator, Mapping
from contextlib import contextmanager

LATE_SECONDS = 1.0
"""How long after its container an exec may still be told of."""
KILLED = 137


class ExecExit:
    """The end of one exec. `told` has its exit code, once Docker has told; it may never come: events can be lost."""

    def __init__(self, container_id: str) -> None:
        self.container_id = container_id
        self.told: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        self._limit: asyncio.Timeout | None = None
        self._ends_at: float | None = None

    async def follow(self, output: Awaitable[None]) -> None:
        """Awaits the end of the output, or of the container: what is in it does not outlive it for long."""
        try:
            async with asyncio.timeout_at(self._ends_at) as self._limit:
                await output
        except TimeoutError:
            if self._limit is None or not self._limit.expired():
                raise
            if not self.told.done():
                self.told.set_result(KILLED)
        finally:
            self._limit = None

    def container_ended(self) -> None:
        """Told once."""
        if self._ends_at is None:
            self._ends_at = asyncio.get_running_loop().time() + LATE_SECONDS
            if self._limit is not None:
                self._limit.reschedule(self._ends_at)


class ExecExits:
    """Those that somebody waits for; the others are not kept."""

    def __init__(self) -> None:
        self._waiting: dict[str, ExecExit] = {}

    @contextmanager
    def expect(self, exec_id: str, container_id: str) -> Iterator[ExecExit]:
        """Its end. Begin before the exec does."""
        exit_ = self._waiting[exec_id] = ExecExit(container_id)
        try:
            yield exit_
        finally:
            del self._waiting[exec_id]

    def tell(self, attributes: Mapping[str, str]) -> None:
        """Take note of an `exec_die` event."""
        exit_ = self._waiting.get(attributes.get("execID", ""))
        code = attributes.get("exitCode", "")
        if exit_ is not None and not exit_.told.done() and code.isdigit():
            exit_.told.set_result(int(code))

    def container_ended(self, container_id: str) -> None:
        """Take note of the end of a container."""
        for exit_ in self._waiting.values():
            if exit_.container_id == container_id:
                exit_.container_ended()
