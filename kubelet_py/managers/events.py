"""Events: recorded at once from anywhere in the loop, sent in the background, never in anyone's way.

Owns a bounded queue, its sender and the count of what was dropped. Must not know who records. Without an API client
(standalone) an event is a log line and nothing else.

Upstream counterpart: client-go tools/record. Differences: one sender, in order, instead of one watcher per sink; a
failed event is tried again until the server answers or the queue needs the room, instead of twelve times; while pods
wait for their turn at the runtime, ordinary events wait as well, up to `GIVE_WAY_SECONDS`: sending them costs the node
and the API server the time that the pods need. A warning takes all that is queued along.
"""

import asyncio
import time
from collections import deque
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Final

import structlog

from kubelet_py.api import core_v1
from kubelet_py.core.event_rules import Correlator, Occurrence, SentEvent, count_patch, event_object
from kubelet_py.errors import ApiError, ApiNotFound, ApiUnavailable
from kubelet_py.kube.client import ApiClient
from kubelet_py.kube.resources import EVENTS

log = structlog.get_logger()

QUEUE_LIMIT: Final = 1000
RETRY_SECONDS: Final = 5.0
GIVE_WAY_SECONDS: Final = 30.0


class EventRecorder:
    """The agent's `core.event_rules.Recorder`."""

    def __init__(
        self,
        client: ApiClient | None,
        node_name: str,
        *,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
        unique: Callable[[], int] = time.time_ns,
        queue_limit: int = QUEUE_LIMIT,
        quiet: asyncio.Event | None = None,
    ) -> None:
        """`client` is the event client, which has its own rate limit; None means standalone.

        `quiet` is set while the node has nothing more urgent to do.
        """
        self._client = client
        self._node_name = node_name
        self._now = now
        self._unique = unique
        self._correlator = Correlator()
        self._queue: deque[Occurrence] = deque()
        self._queue_limit = queue_limit
        self._arrived = asyncio.Event()
        self._quiet = quiet
        self._giving_way: asyncio.Timeout | None = None
        self._presses = False
        self.dropped = 0
        """How many events were lost because the queue was full or an object flooded."""

    def record(self, about: core_v1.ObjectReference, type_: str, reason: str, message: str) -> None:
        """Log and queue an event; drops the oldest one when the queue is full."""
        log.info(
            "event",
            type=type_,
            reason=reason,
            message=message,
            kind=about.kind,
            object=f"{about.namespace}/{about.name}" if about.namespace else about.name,
            field=about.fieldPath,
        )
        if self._client is None:
            return
        if len(self._queue) >= self._queue_limit:
            self._queue.popleft()
            self._drop("the queue is full", reason)
        self._queue.append(Occurrence(about, type_, reason, message, self._now()))
        if type_ != "Normal" or len(self._queue) > self._queue_limit // 2:
            self._presses = True  # a warning, or a long queue
            if self._giving_way is not None and not self._giving_way.expired():
                self._giving_way.reschedule(asyncio.get_running_loop().time())
        self._arrived.set()

    async def run(self) -> None:
        """Send until cancelled."""
        while self._client is not None:
            await self._arrived.wait()
            self._arrived.clear()
            while self._queue:
                await self._give_way(self._queue[0])
                await self._send(self._client, self._queue.popleft())
            self._presses = False

    async def _give_way(self, first: Occurrence) -> None:
        """Returns when it is quiet, when something presses, or when `first` has waited for long enough."""
        if self._quiet is None or self._quiet.is_set() or self._presses:
            return
        left_seconds = GIVE_WAY_SECONDS - (self._now() - first.at).total_seconds()
        try:
            async with asyncio.timeout(min(left_seconds, GIVE_WAY_SECONDS)) as self._giving_way:
                await self._quiet.wait()
        except TimeoutError:
            pass
        finally:
            self._giving_way = None

    async def flush(self, deadline_seconds: float) -> None:
        """Send what is queued, for a stop; `run` must have ended. What the deadline leaves is dropped."""
        if self._client is None:
            return
        try:
            async with asyncio.timeout(deadline_seconds):
                while self._queue:
                    await self._send(self._client, self._queue.popleft())
        except TimeoutError:
            self.dropped += len(self._queue)
            self._queue.clear()

    async def _send(self, client: ApiClient, occurrence: Occurrence) -> None:
        sent = self._correlator.correlate(occurrence)
        if sent is None:
            self._drop("its object floods", occurrence.reason)
            return
        while True:
            try:
                await self._create_or_count_up(client, occurrence, sent)
            except ApiUnavailable as error:
                if len(self._queue) >= self._queue_limit:
                    self._drop(str(error), occurrence.reason)
                    return
                await client.rest(error.retry_after_seconds or RETRY_SECONDS)
            except ApiError as error:
                log.warning("event_refused", reason=occurrence.reason, error=str(error))
                return
            else:
                return

    async def _create_or_count_up(self, client: ApiClient, occurrence: Occurrence, sent: SentEvent) -> None:
        if sent.name:
            try:
                await client.patch(EVENTS, sent.name, count_patch(sent), sent.namespace)
            except ApiNotFound:  # it lived its hour
                sent.count, sent.first_at = 1, occurrence.at
            else:
                return
        created = event_object(occurrence, sent, self._node_name, self._unique())
        await client.create(EVENTS, created, sent.namespace)
        sent.name = created.metadata.name or ""

    def _drop(self, why: str, reason: str) -> None:
        self.dropped += 1
        log.debug("event_dropped", why=why, reason=reason, dropped=self.dropped)
