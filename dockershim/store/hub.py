"""Who wants to hear of changes, and a bounded queue for each.

A subscriber that does not read fast enough is dropped with an error rather than served with gaps it cannot see: it
subscribes again and lists. Upstream counterpart: containerd's container event channel, which is one for all.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager

from cri_proto import runtime_v1 as cri
from dockershim.errors import ResourceExhausted

QUEUE_LENGTH = 2000


class Subscription:
    """One reader."""

    def __init__(self) -> None:
        self._queue: asyncio.Queue[cri.ContainerEventResponse] = asyncio.Queue(QUEUE_LENGTH)
        self._overrun = False

    def offer(self, event: cri.ContainerEventResponse) -> None:
        """Queue an event, or remember that the reader was too slow."""
        try:
            self._queue.put_nowait(event)
        except asyncio.QueueFull:
            self._overrun = True

    async def next(self) -> cri.ContainerEventResponse:
        """The next event; ResourceExhausted once events have been lost."""
        if self._overrun:
            raise ResourceExhausted(f"the reader fell {QUEUE_LENGTH} events behind; subscribe again and list")
        return await self._queue.get()


class EventHub:
    """All readers."""

    def __init__(self) -> None:
        self._subscriptions: set[Subscription] = set()

    @property
    def has_subscribers(self) -> bool:
        """Whether anybody listens; making an event nobody hears costs time."""
        return bool(self._subscriptions)

    @contextmanager
    def subscribe(self) -> Iterator[Subscription]:
        """A subscription for the time of the block."""
        subscription = Subscription()
        self._subscriptions.add(subscription)
        try:
            yield subscription
        finally:
            self._subscriptions.discard(subscription)

    def publish(self, event: cri.ContainerEventResponse) -> None:
        """Give an event to every reader."""
        for subscription in self._subscriptions:
            subscription.offer(event)
