"""Keeps the store's images equal to Docker's: lists them when an event says that they changed, looks once after a pull.

Owns which events are news: what a list or a look already covers costs nothing, whether the event comes before the look
or after it. Must not know CRI's calls or containers. Upstream counterpart: cri-dockerd lists at each call.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from typing import Any

import structlog

from dockershim.engine import DockerEngine, EngineEvent
from dockershim.errors import DeadlineExceeded, NotFound, ShimError, Unavailable
from dockershim.store import Store
from dockershim.translate.image_refs import canonical_or_none
from dockershim.translate.image_views import ImageView, image_facts, image_view

_log = structlog.get_logger()

IMAGE_ACTIONS = ("pull", "tag", "untag", "delete", "load", "import")
SETTLE_SECONDS = 0.05
PARALLEL_INSPECTS = 12


@dataclass(slots=True)
class _Pull:
    """What is known of a name while somebody pulls it."""

    pulls: int = 0
    events: list[EngineEvent] = field(default_factory=list)


class ImageFeed:
    """The looks at images, and the loop that makes them."""

    def __init__(
        self, engine: DockerEngine, store: Store, monotonic_ns: Callable[[], int], pinned_images: tuple[str, ...] = ()
    ) -> None:
        self._engine = engine
        self._store = store
        self._monotonic_ns = monotonic_ns
        self._pinned = frozenset(key for name in pinned_images if (key := canonical_or_none(name)))
        self._listed_at_ns = 0
        self._pulls: dict[str, _Pull] = {}
        self._pulled_at_ns: dict[str, int] = {}
        self._removals = 0
        self._events_of_removals: list[EngineEvent] = []
        self._unread: frozenset[str] = frozenset()
        self._changed = asyncio.Event()
        self._lock = asyncio.Lock()
        self._inspects = asyncio.Semaphore(PARALLEL_INSPECTS)

    async def refresh(self) -> None:
        """Look at all images now; inspects only those not seen before, or not that Docker could have told of."""
        async with self._lock:
            listed_at_ns = self._monotonic_ns()
            listed = await self._engine.list_images()
            known = self._store.images
            views = {}
            unknown = [line for line in listed if str(line["Id"]) not in known or str(line["Id"]) in self._unread]
            inspected = dict(await asyncio.gather(*(self._inspect(str(line["Id"])) for line in unknown)))
            for line in listed:
                image_id = str(line["Id"])
                old = known.get(image_id)
                inspect = inspected.get(image_id)
                try:
                    facts = image_facts(inspect or {}) if old is None or inspect else old.facts
                    views[image_id] = image_view(line, facts, self._pinned)
                except Exception:  # what is in one that cannot be read keeps nobody from the others
                    _log.exception("image_unreadable", id=image_id)
            self._unread = frozenset(image_id for image_id, inspect in inspected.items() if inspect is None)
            self._store.replace_images(views)
            self._listed_at_ns = listed_at_ns
            self._pulled_at_ns.clear()  # a list covers all that was looked at before it

    async def _inspect(self, image_id: str) -> tuple[str, dict[str, Any] | None]:
        """What Docker tells of an image; None where it cannot: what the list tells of it is shown."""
        try:
            async with self._inspects:
                return image_id, await self._engine.inspect_image(image_id)
        except NotFound:
            return image_id, {}
        except (Unavailable, DeadlineExceeded):  # Docker itself
            raise
        except ShimError as error:
            if image_id not in self._unread:
                _log.warning("image_shown_as_listed", id=image_id, error=str(error))
            return image_id, None

    # ---- pulls

    @contextmanager
    def pulling(self, reference: str) -> Iterator[None]:
        """While somebody pulls a name, what is told of it waits for the look that follows."""
        key = canonical_or_none(reference) or reference
        pull = self._pulls.setdefault(key, _Pull())
        pull.pulls += 1
        try:
            yield
        finally:
            pull.pulls -= 1
            if not pull.pulls:
                del self._pulls[key]
                for event in pull.events:
                    self.handle(event)

    async def look(self, reference: str) -> ImageView:
        """Look at one name, which was just pulled, and take what is seen into the store. NotFound where it is not."""
        async with self._lock:  # a list made before it must not come after it
            looked_at_ns = self._monotonic_ns()
            inspect = await self._engine.inspect_image(reference)
            view = image_view(inspect, image_facts(inspect), self._pinned)
            self._store.put_image(view)
            self._pulled_at_ns[canonical_or_none(reference) or reference] = looked_at_ns
        return view

    @asynccontextmanager
    async def removing(self) -> AsyncIterator[None]:
        """For a removal, which is several calls and events: one list at its end does for all of them."""
        self._removals += 1
        try:
            yield
        finally:
            self._removals -= 1
            try:
                await self.refresh()
            finally:
                if not self._removals:
                    events, self._events_of_removals = self._events_of_removals, []
                    for event in events:
                        self.handle(event)

    # ---- events

    def handle(self, event: EngineEvent) -> None:
        """Take note of what Docker says of an image."""
        if event.time_ns <= self._listed_at_ns:
            return
        if self._removals:
            self._events_of_removals.append(event)
            return
        key = canonical_or_none(event.id) if event.action == "pull" else None
        if key is not None:
            pull = self._pulls.get(key)
            if pull is not None:
                pull.events.append(event)
                return
            if event.time_ns <= self._pulled_at_ns.get(key, 0):
                return
        self._changed.set()

    async def run(self) -> None:
        """List after changes, for ever."""
        while True:
            await self._changed.wait()
            await asyncio.sleep(SETTLE_SECONDS)  # one removal is several events
            self._changed.clear()
            try:
                await self.refresh()
            except ShimError as error:
                _log.debug("image_refresh_failed", error=str(error))
            except Exception:
                _log.exception("image_refresh_failed")
