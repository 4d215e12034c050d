"""Keeps the store equal to Docker: fills it at the start, follows events, and compares once a minute.

Owns the connection's life (dial, subscribe, list, follow, dial again) and the judgement whether Docker answers.
Records of sandboxes and what to do with logs come in as callables. Must not know CRI's calls. Upstream counterpart:
containerd's recover and event loops. Each time the order is subscribe, a little into the past, then list: what the list
does not show yet is in the stream, and an observation carries the time it was made, so an event that it already covers
costs nothing. Such times are the monotonic clock's, and an event's is put on it when it is read: the node's time may be
set at any moment.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any

import structlog

from cri_proto import runtime_v1 as cri
from dockershim.engine import DockerEngine, EngineEvent, EngineInfo
from dockershim.errors import ShimError, Unavailable
from dockershim.store import Store
from dockershim.store.exec_exits import ExecExits
from dockershim.store.image_feed import IMAGE_ACTIONS, ImageFeed
from dockershim.store.observer import FeederHooks, Observer
from dockershim.tasks import Tasks
from dockershim.translate import names
from dockershim.translate.clocks import monotonic_time
from dockershim.translate.listed import has_run_unseen, is_running, kind_of_listed
from dockershim.translate.views import (
    ContainerView,
    SandboxView,
    ghost_sandbox_view,
    kind_of,
)

_log = structlog.get_logger()

CONTAINER_ACTIONS = ("create", "start", "die", "destroy", "oom", "update", "pause", "unpause", "rename", "exec_die")
OVERLAP_SECONDS = 10.0
"""How far back a subscription begins. Docker tells of an end before its list shows it, and takes down the network and
the mounts in between: an end just before the subscription would be neither in the stream nor in the list."""
RECONCILE_SECONDS = 60.0
PING_SECONDS = 5.0
FIRST_RETRY_SECONDS = 0.2
LONGEST_RETRY_SECONDS = 5.0
FIRST_ANSWER_SECONDS = 3.0
"""How long the first answer waits for the logs of containers that ended while nobody looked."""


class Feeder:
    """The loop and the observations it makes."""

    def __init__(
        self,
        engine: DockerEngine,
        store: Store,
        tasks: Tasks,
        hooks: FeederHooks,
        clock_ns: Callable[[], int],
        monotonic_ns: Callable[[], int],
        pinned_images: tuple[str, ...] = (),
    ) -> None:
        self.info: EngineInfo | None = None
        self.trouble = "dockershim has not reached Docker yet"
        self.images = ImageFeed(engine, store, monotonic_ns, pinned_images)
        self.exec_exits = ExecExits()
        self.observer = Observer(
            engine, store, tasks, hooks, clock_ns, monotonic_ns,
            self._handle_container_event, self.exec_exits.container_ended,
        )  # fmt: skip
        self._engine = engine
        self._store = store
        self._tasks = tasks
        self._hooks = hooks
        self._clock_ns = clock_ns
        self._monotonic_ns = monotonic_ns
        self._claims: dict[str, list[EngineEvent]] = {}
        self._locks: dict[str, tuple[asyncio.Lock, int]] = {}
        self._following = False
        self._connected = asyncio.Event()
        self._filled = asyncio.Event()
        self._tried = asyncio.Event()

    # ---- what others ask

    @property
    def filled(self) -> bool:
        """Whether the store has been filled once; from then on it answers, also while Docker is away."""
        return self._filled.is_set()

    async def wait_filled(self) -> None:
        """Until then."""
        await self._filled.wait()

    async def wait_tried(self, longest_seconds: float) -> None:
        """Until the store was filled or Docker could not be reached: for a call that comes while dockershim starts."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(longest_seconds):
                await self._tried.wait()

    async def wait_info(self) -> EngineInfo:
        """What the engine said of itself, as soon as it did."""
        await self._connected.wait()
        return self.require_info()

    def require_info(self) -> EngineInfo:
        """What the engine said of itself, or Unavailable."""
        if self.info is None:
            raise Unavailable(self.trouble)
        return self.info

    @asynccontextmanager
    async def claim(self, name: str) -> AsyncIterator[None]:
        """One call at a time works on a name; the others wait. Events about it wait too, until the work is done."""
        lock, waiting = self._locks.get(name) or (asyncio.Lock(), 0)
        self._locks[name] = (lock, waiting + 1)
        try:
            async with lock:
                self._claims[name] = []
                try:
                    yield
                finally:
                    for event in self._claims.pop(name):
                        self._handle_container_event(event)
        finally:
            lock, waiting = self._locks[name]
            if waiting == 1:
                del self._locks[name]
            else:
                self._locks[name] = (lock, waiting - 1)

    # ---- the loops

    async def run(self) -> None:
        """Follow Docker for ever."""
        self.observer.records = await self._hooks.load_records()
        self._tasks.spawn_logged(self.images.run(), "image feed")
        self._tasks.spawn_logged(self._health_loop(), "engine health")
        self._tasks.spawn_logged(self._reconcile_loop(), "reconcile")
        pause_seconds = FIRST_RETRY_SECONDS
        while True:
            try:
                await self._follow_once()
                pause_seconds = FIRST_RETRY_SECONDS
                self._set_trouble("Docker closed the event stream")
            except ShimError as error:
                self._set_trouble(str(error))
            except Exception as error:  # whatever it is, without this loop no call is ever answered again
                _log.exception("docker_feed_failed")
                self._set_trouble(f"cannot follow Docker: {error!r}")
            await asyncio.sleep(pause_seconds)
            pause_seconds = min(pause_seconds * 2, LONGEST_RETRY_SECONDS)

    async def _follow_once(self) -> None:
        info = await self._engine.connect()
        connected_at_ns = self._clock_ns()
        since_ns = connected_at_ns - int(OVERLAP_SECONDS * 10**9)
        stream = await self._engine.events(since_ns, ("container", "image"), CONTAINER_ACTIONS + IMAGE_ACTIONS)
        try:
            await self._hooks.connected()
            await self.images.refresh()  # before the containers, which are shown with names of images
            self.info = info
            self.observer.default_runtime = info.default_runtime
            self._connected.set()
            await self._resync()
            await self._settle_ended_unseen()
            self._announce_fill()
            self._following = True
            self._clear_trouble()
            while (event := await stream.next()) is not None:
                now_ns, monotonic_now_ns = self._clock_ns(), self._monotonic_ns()  # at once: in between is an error
                if self._hooks.event_read is not None and event.time_ns >= connected_at_ns:
                    self._hooks.event_read((now_ns - event.time_ns) / 10**9)
                happened_ns = monotonic_time(event.time_ns, wall_now_ns=now_ns, monotonic_now_ns=monotonic_now_ns)
                event = replace(event, time_ns=happened_ns)
                if event.type == "image":
                    self.images.handle(event)
                elif event.type == "container":
                    self._handle_container_event(event)
        finally:
            self._following = False
            stream.close()

    async def _settle_ended_unseen(self) -> None:
        """Has the logs of who ended unseen written, so that who is shown the exits finds them whole: a termination
        message may be the log's end. One that takes long is written to its end while calls are answered.
        """
        ended = self.observer.take_ended_unseen()
        if not ended:
            return
        done = asyncio.Event()

        async def settle_all() -> None:
            try:
                await asyncio.gather(*map(self._hooks.settle_log, ended))
            finally:
                done.set()

        self._tasks.spawn_logged(settle_all(), "settle logs of who ended unseen")
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(FIRST_ANSWER_SECONDS):
                await done.wait()

    def _announce_fill(self) -> None:
        if self.filled:
            return
        self._filled.set()
        self.observer.settles_ends = True
        self._tried.set()
        known = self._hooks.filled(set(self._store.sandboxes), set(self._store.containers))
        self._tasks.spawn_logged(known, "give back what the vanished held")

    async def _health_loop(self) -> None:
        while True:
            await asyncio.sleep(PING_SECONDS)
            if not self._following:
                continue  # the one who dials knows better
            try:
                await self._engine.ping()
            except ShimError as error:
                self._set_trouble(str(error))
            else:
                self._clear_trouble()

    async def _reconcile_loop(self) -> None:
        while True:
            await asyncio.sleep(RECONCILE_SECONDS)
            if self.trouble:
                continue
            try:
                await self._resync()
                await self.images.refresh()
            except ShimError as error:
                _log.warning("reconcile_failed", error=str(error))
            except Exception:
                _log.exception("reconcile_failed")

    def _set_trouble(self, reason: str) -> None:
        if reason != self.trouble:
            _log.warning("docker_away", reason=reason)
        self.trouble = reason
        self._tried.set()

    def _clear_trouble(self) -> None:
        if self.trouble:
            _log.info(
                "docker_ready",
                engine=self.info.engine_version if self.info else "",
                sandboxes=len(self._store.sandboxes),
                containers=len(self._store.containers),
                images=len(self._store.images),
            )
        self.trouble = ""

    # ---- comparing and taking

    async def _resync(self) -> None:
        """Make the store equal to Docker's list; inspects only what is new or has another state."""
        listed_at_ns = self._monotonic_ns()
        labelled = await self._engine.list_containers(names.TYPE_LABEL)
        listed = [line for line in labelled if kind_of_listed(line)]
        if not self.filled:
            self._store.begin_quiet_fill()
        try:
            idle = [line for line in listed if not self._leave_to_who_is_at_it(line, listed_at_ns)]
            changed = [line for line in idle if self._differs(line, listed_at_ns)]
            await asyncio.gather(*(self.observer.observe_listed(line, listed_at_ns) for line in changed))
            present = {str(line["Id"]) for line in listed}
            for identifier in self._missing(present, listed_at_ns):
                await self.observer.forget(identifier)
            for identifier, record in list(self.observer.records.items()):
                if identifier not in present and identifier not in self._store.sandboxes:
                    self._store.put_sandbox(ghost_sandbox_view(record, listed_at_ns))
        finally:
            self._store.end_quiet_fill()
        self._tasks.spawn_logged(self._hooks.compared(), "put the host right")

    def _leave_to_who_is_at_it(self, line: dict[str, Any], listed_at_ns: int) -> bool:
        """Whether somebody works on the container or looks at it. When they are done they judge what the list said.

        They may have seen it before the list did, and the event between may be lost.
        """
        for name in {str(name).removeprefix("/") for name in line.get("Names") or ()} & self._claims.keys():
            self._claims[name].append(_listed_event(line, name, listed_at_ns))
            return True
        return self.observer.defer(_listed_event(line, "", listed_at_ns))

    def _differs(self, line: dict[str, Any], listed_at_ns: int) -> bool:
        identifier, running = str(line["Id"]), is_running(line)
        sandbox = self._store.sandboxes.get(identifier)
        if sandbox is not None:
            return _unlike(sandbox, running)
        container = self._store.containers.get(identifier)
        if container is None or _unlike(container, running):
            return True
        if has_run_unseen(container, line):
            return True
        if container.status.state != cri.ContainerState.CONTAINER_CREATED:
            return container.unseen  # how it is was told by others than Docker's look at it
        # nobody has looked at it yet, and nobody has started it for a while
        return container.unseen and listed_at_ns - container.observed_at_ns > RECONCILE_SECONDS * 10**9

    def _missing(self, present: set[str], listed_at_ns: int) -> list[str]:
        views: list[SandboxView | ContainerView] = [
            *self._store.sandboxes.values(),
            *self._store.containers.values(),
        ]
        return [
            view.id
            for view in views
            if view.id not in present and view.observed_at_ns < listed_at_ns and view.name not in self._claims
        ]

    # ---- events

    def _handle_container_event(self, event: EngineEvent) -> None:
        if event.action == "exec_die":
            self.exec_exits.tell(event.attributes)
            return
        kind = kind_of((event.name,), event.attributes)
        known: Any = self._store.sandboxes.get(event.id) or self._store.containers.get(event.id)
        if known is None and (kind not in (names.TYPE_SANDBOX, names.TYPE_CONTAINER) or self._store.is_gone(event.id)):
            return
        if event.name in self._claims:
            self._claims[event.name].append(event)
            return
        if event.action == "destroy":
            if known is not None:
                self._tasks.spawn_logged(self.observer.forget(event.id), f"forget {event.id[:12]}")
            return
        if self.observer.defer(event) or (known is not None and _is_known(event, known)):
            return
        if event.action == "die" and event.id in self._store.sandboxes:
            self.observer.sandbox_ended(event.id, event.time_ns)
            return
        _log.debug("event_observed", id=event.id, action=event.action)
        self._tasks.spawn_logged(self._observe_for(event, kind), f"observe {event.id[:12]}")

    async def _observe_for(self, event: EngineEvent, kind: str) -> None:
        if self.observer.defer(event):  # a stop began its own look before this one's turn came
            return
        if not kind:
            kind = names.TYPE_SANDBOX if event.id in self._store.sandboxes else names.TYPE_CONTAINER
        try:
            await self.observer.observe(event.id, kind)
        except ShimError as error:  # the next resync looks again
            _log.debug("observation_failed", id=event.id, error=str(error))


def _listed_event(line: dict[str, Any], name: str, listed_at_ns: int) -> EngineEvent:
    """A line of the list as the event that would have told of it."""
    action = "start" if is_running(line) else "create" if line.get("State") == "created" else "die"
    return EngineEvent("container", action, str(line["Id"]), name, listed_at_ns, line["Labels"])


def _unlike(view: SandboxView | ContainerView, running: bool) -> bool:
    """Whether a view is not what a list says. One that runs without a process is what an earlier list said."""
    return view.running != running or (running and not view.pid)


def _is_known(event: EngineEvent, view: SandboxView | ContainerView) -> bool:
    """Whether an event tells nothing new; it may do so though it is newer than what we saw, when it is told late."""
    if view.observed_at_ns >= event.time_ns or event.action == "create":
        return True
    if event.action != "die" or view.running:
        return False
    return isinstance(view, SandboxView) or view.status.state == cri.ContainerState.CONTAINER_EXITED
