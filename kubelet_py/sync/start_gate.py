"""Lets a few runtime operations through at a time, those first that complete a pod.

A node that gets a hundred pods at once is not faster for making a hundred sandboxes side by side: they share its cores,
and all are ready at the end. A few at a time are ready one after the other, half of them in half the time, and the
whole takes no longer. Who waits longest goes first within a rank; starting a container ranks before making another
sandbox, so that what was begun is finished. It is the same with pods that go: one is taken down to its end before the
next is touched. Removing what pods have left comes last.

An operation that hangs must not hold up the node: after its rank's patience its place is given to the next while it
goes on; the patience with a container that is asked to stop is short, since it may use its grace period to the full.
Nor is a container asked to stop much later than it should be, whatever hangs before it.
Upstream counterpart: none (the Go kubelet starts and stops everything at once).
"""

import asyncio
import contextlib
import heapq
import os
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from enum import IntEnum
from typing import Final

PLACES_PER_CORE = 5


class Rank(IntEnum):
    """What goes first."""

    CONTAINER = 0
    STOP = 1
    KILL = 2
    SANDBOX = 3
    REMOVAL = 4


PATIENCE_SECONDS: Final[Mapping[Rank, float]] = {
    Rank.CONTAINER: 5.0,
    Rank.STOP: 5.0,
    Rank.KILL: 0.25,
    Rank.SANDBOX: 5.0,
    Rank.REMOVAL: 5.0,
}
"""How long an operation holds its place at the most."""

WIDTHS: Final[Mapping[Rank, int]] = {Rank.STOP: 2, Rank.KILL: 2}
"""How many places an operation takes, where it is more than one. With half as many stops side by side half of the pods
are gone a tenth sooner, and the last of them hardly later; with a quarter nothing more is won and more lost."""

LONGEST_WAIT_SECONDS: Final[Mapping[Rank, float]] = {Rank.KILL: 30.0}
"""Who has waited for so long goes on without a place. All of a crowd come to it together and hold up those that are
half-way: with 10 s, which a hundred pods took here, half of them were gone a fifth later."""

CALM_SECONDS: Final = 2.0
"""From the last one who had to wait until the gate counts as idle again: the last of a crowd get through meanwhile."""


def default_places() -> int:
    """How many operations at a time keep this machine busy without making each wait for all."""
    return max(4, PLACES_PER_CORE * (os.cpu_count() or 1))


class StartGate:
    """A semaphore with ranks whose places come back from those who hang."""

    def __init__(
        self,
        places: int | None = None,
        patience_seconds: Mapping[Rank, float] = PATIENCE_SECONDS,
        longest_wait_seconds: Mapping[Rank, float] = LONGEST_WAIT_SECONDS,
        calm_seconds: float = CALM_SECONDS,
    ) -> None:
        self._places = places if places is not None else default_places()
        self._free = self._places
        self._patience_seconds = patience_seconds
        self._longest_wait_seconds = longest_wait_seconds
        self._calm_seconds = calm_seconds
        self._calming: asyncio.TimerHandle | None = None
        self._waiting: list[tuple[Rank, int, asyncio.Future[None]]] = []
        self._count = 0
        self.idle = asyncio.Event()
        """Set while nobody waits for a place, nor has waited a moment ago."""
        self.idle.set()

    async def wait_until_idle(self, at_most_seconds: float) -> None:
        """Returns when nobody waits for a place, nor has a moment ago, or when time is over."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(at_most_seconds):
                await self.idle.wait()

    @asynccontextmanager
    async def place(self, rank: Rank) -> AsyncIterator[None]:
        """Waits for a place and holds it, as long as the rank's patience lasts."""
        width = self._width(rank)
        try:
            async with asyncio.timeout(self._longest_wait_seconds.get(rank)):
                await self._take(rank)
        except TimeoutError:
            given_back = True  # it has none to give back
        else:
            given_back = False

        def give_back() -> None:
            nonlocal given_back
            if not given_back:
                given_back = True
                self._give_back(width)

        timer = asyncio.get_running_loop().call_later(self._patience_seconds[rank], give_back)
        try:
            yield
        finally:
            timer.cancel()
            give_back()

    def _width(self, rank: Rank) -> int:
        return min(WIDTHS.get(rank, 1), self._places)

    async def _take(self, rank: Rank) -> None:
        width = self._width(rank)
        if self._free >= width and not self._waiting:
            self._free -= width
            return
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._count += 1
        heapq.heappush(self._waiting, (rank, self._count, turn))
        if self._calming is not None:
            self._calming.cancel()
        self.idle.clear()
        try:
            await turn
        except asyncio.CancelledError:
            came = turn.done() and not turn.cancelled()
            self._give_back(width if came else 0)  # the place came together with the cancellation
            raise

    def _give_back(self, width: int) -> None:
        """Who is next gets a place once there are as many as it needs: nobody behind it goes first."""
        self._free += width
        while self._waiting:
            rank, _, turn = self._waiting[0]
            if not turn.done() and self._free < self._width(rank):
                return
            heapq.heappop(self._waiting)
            if not self._waiting:
                self._calming = asyncio.get_running_loop().call_later(self._calm_seconds, self.idle.set)
            if not turn.done():
                turn.set_result(None)
                self._free -= self._width(rank)
