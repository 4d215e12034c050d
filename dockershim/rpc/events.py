"""GetContainerEvents: every change, to every subscriber.

Upstream counterpart: containerd's internal/cri/server/container_events.go. Deliberate difference: each subscriber has
a queue of its own.
"""

from __future__ import annotations

from collections.abc import AsyncIterator

from cri_proto import runtime_v1 as cri
from dockershim.node import Node


class Events:
    """The handler."""

    def __init__(self, node: Node) -> None:
        self._node = node

    async def get_container_events(self, request: cri.GetEventsRequest) -> AsyncIterator[cri.ContainerEventResponse]:
        """See CRI."""
        with self._node.store.hub.subscribe() as subscription:
            while True:
                yield await subscription.next()
