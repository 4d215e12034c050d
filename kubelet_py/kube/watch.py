"""Keeps a sink equal to what the server has: list, then watch, resume, list again when it must.

Owns the resource version and the pauses between tries; the sink owns the objects (none are kept here, memory counts).
An endless `run` per reflector. Bookmarks move the version along, 410 Gone lists again from a consistent read.

Upstream counterpart: client-go tools/cache Reflector. Differences: the outage is said once per server and not once per
reflector (health.py); a watch that breaks off resumes from the last version before it lists again; managedFields are
dropped on arrival, nobody here reads them.
"""

import asyncio
import random
from collections.abc import Callable
from typing import Any, Final, Generic, Protocol, TypeVar

import structlog

from kubelet_py.errors import ApiError, ApiGone, ApiUnavailable
from kubelet_py.kube.backoff import Backoff
from kubelet_py.kube.client import EVERYTHING, ApiClient, EventKind, Query
from kubelet_py.kube.resources import Resource

log = structlog.get_logger()

T = TypeVar("T")

PAGE_SIZE: Final = 500
SHORTEST_WATCH_SECONDS: Final = 300.0
FIRST_PAUSE_SECONDS: Final = 0.8
LONGEST_PAUSE_SECONDS: Final = 30.0
REFUSALS_BEFORE_WARNING: Final = 3


class Sink(Protocol[T]):
    """Who holds the objects. Both calls are made in the loop and must not block."""

    def on_replace(self, objects: list[T], /) -> None:
        """These are all; what was there before and is not among them is gone."""

    def on_event(self, kind: EventKind, changed: T, /) -> None:
        """One object was added, modified or deleted; never a bookmark."""


class Reflector(Generic[T]):
    """Feeds one sink."""

    def __init__(
        self,
        client: ApiClient,
        resource: Resource[T],
        sink: Sink[T],
        query: Query = EVERYTHING,
        *,
        random_fraction: Callable[[], float] = random.random,
        backoff: Backoff | None = None,
    ) -> None:
        self._client = client
        self._resource = resource
        self._sink = sink
        self._query = query
        self._random = random_fraction
        self._backoff = backoff or Backoff(FIRST_PAUSE_SECONDS, LONGEST_PAUSE_SECONDS, random=random_fraction)
        self._version = ""
        self.synced = asyncio.Event()
        """Set once the first list was delivered."""
        self.problem: ApiError | None = None
        """Why the last list or watch failed, until one succeeds."""

    async def run(self) -> None:
        """Until cancelled."""
        listed = False
        first_list_version: str | None = "0"
        refusals = 0
        while True:
            try:
                if not listed:
                    await self._list(first_list_version)
                    listed = True
                refusals, self.problem = 0, None
                await self._watch_once()
                continue
            except ApiGone:
                log.debug("watch_too_old", resource=self._resource.plural, resource_version=self._version)
                listed, first_list_version = False, None  # the server's cache may be as old: read consistently
            except ApiUnavailable as error:
                self.problem = error
                log.debug("watch_interrupted", resource=self._resource.plural, error=str(error))
            except ApiError as error:
                # The first refusals may be those of an authorizer that has not seen the pod which refers to the object.
                refusals += 1
                self.problem = error
                say = log.warning if refusals == REFUSALS_BEFORE_WARNING else log.debug
                say("watch_refused", resource=self._resource.plural, query=self._query.field_selector, error=str(error))
                listed = False
                # A server whose cache is behind what was seen would take pods away and give them back.
                first_list_version = first_list_version and (self._version or "0")
            await self._client.rest(self._backoff.next_seconds(asyncio.get_running_loop().time()))

    async def _list(self, version: str | None) -> None:
        page = await self._client.list(
            self._resource, self._query, resource_version=version, limit=0 if version else PAGE_SIZE
        )
        objects = page.items or []
        while page.metadata.continue_:
            page = await self._client.list(
                self._resource, self._query, limit=PAGE_SIZE, continue_token=page.metadata.continue_
            )
            objects += page.items or []
        for each in objects:
            _drop_managed_fields(each)
        self._version = page.metadata.resourceVersion or ""
        self._sink.on_replace(objects)
        self.synced.set()

    async def _watch_once(self) -> None:
        seconds = SHORTEST_WATCH_SECONDS * (1 + self._random())
        started = asyncio.get_running_loop().time()
        delivered = False
        async with self._client.watch(
            self._resource, self._query, resource_version=self._version, timeout_seconds=seconds
        ) as events:
            async for kind, changed in events:
                delivered = True
                metadata = _metadata_of(changed)
                if metadata is not None and metadata.resourceVersion:
                    self._version = metadata.resourceVersion
                if kind is not EventKind.BOOKMARK:
                    _drop_managed_fields(changed)
                    self._sink.on_event(kind, changed)
        if not delivered and asyncio.get_running_loop().time() - started < 1.0:
            raise ApiUnavailable(0, "ShortWatch", "the server ended a watch at once")
        self._backoff.reset()


def _metadata_of(changed: Any) -> Any:
    return getattr(changed, "metadata", None)


def _drop_managed_fields(changed: Any) -> None:
    metadata = _metadata_of(changed)
    if metadata is not None:
        metadata.managedFields = None
