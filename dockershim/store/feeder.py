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
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from typing import Any

import structlog

from cri_proto import runtime_v1 as cri
from dockershim.engine import DockerEngine, EngineEvent, EngineInfo
from dockershim.errors import DeadlineExceeded, NotFound, ShimError, Unavailable
from dockershim.store import Store
from dockershim.store.exec_exits import ExecExits
from dockershim.store.image_feed import IMAGE_ACTIONS, ImageFeed
from dockershim.tasks import Tasks
from dockershim.translate import names
from dockershim.translate.clocks import monotonic_time
from dockershim.translate.listed import UNKNOWN_EXIT_CODE, listed_as_inspected, listed_exit_code, not_inspected
from dockershim.translate.users import ContainerUser, container_user
from dockershim.translate.views import (
    ContainerView,
    SandboxRecord,
    SandboxView,
    container_view,
    ended_container_view,
    ended_sandbox_view,
    foreign_record,
    ghost_sandbox_view,
    kind_of,
    sandbox_view,
    started_container_view,
)

_log = structlog.get_logger()

CONTAINER_ACTIONS = ("create", "start", "die", "destroy", "oom", "update", "pause", "unpause", "rename", "exec_die")
OVERLAP_SECONDS = 10.0
"""How far back a subscription begins. Docker tells of an end before its list shows it, and takes down the network and
the mounts in between: an end just before the subscription would be neither in the stream nor in the list."""
RUNNING_STATES = ("running", "paused", "restarting")
RECONCILE_SECONDS = 60.0
PING_SECONDS = 5.0
FIRST_RETRY_SECONDS = 0.2
LONGEST_RETRY_SECONDS = 5.0
PARALLEL_INSPECTS = 12
FIRST_ANSWER_SECONDS = 3.0
"""How long the first answer waits for the logs of containers that ended while nobody looked."""


@dataclass(frozen=True, slots=True)
class FeederHooks:
    """What others do when the feeder sees something.

    `settle_log` is awaited before an exit becomes visible, `forget` when Docker has lost a container; `filled` is
    told once which sandboxes and containers there are; `compared` puts the host right after each comparison with Docker
    (a restarted engine may have written a pod's resolv.conf anew, a container may have gone without us);
    `read_addresses` looks into the network namespace of a process; `resolve_user` says who the first process is;
    `changed_limits` has what an earlier dockershim wrote to a container's cgroup last, unless that was at its start;
    `event_read` hears how long an event was under way.
    """

    load_records: Callable[[], Awaitable[dict[str, SandboxRecord]]]
    follow_log: Callable[[ContainerView], None]
    settle_log: Callable[[str], Awaitable[None]]
    forget: Callable[[str], Awaitable[None]]
    sandbox_started: Callable[[str, SandboxRecord], Awaitable[None]]
    connected: Callable[[], Awaitable[None]]
    filled: Callable[[set[str], set[str]], Coroutine[Any, Any, None]]
    compared: Callable[[], Coroutine[Any, Any, None]]
    read_addresses: Callable[[int], Awaitable[tuple[str, ...]]]
    resolve_user: Callable[[int, ContainerUser], Awaitable[cri.LinuxContainerUser | None]]
    changed_limits: Callable[[str], str | None]
    event_read: Callable[[float], None] | None = None


@dataclass(slots=True)
class _Look:
    """A look that is under way, and the events that came meanwhile."""

    events: list[EngineEvent] = field(default_factory=list)
    over: asyncio.Event = field(default_factory=asyncio.Event)


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
        self._engine = engine
        self._store = store
        self._tasks = tasks
        self._hooks = hooks
        self._clock_ns = clock_ns
        self._monotonic_ns = monotonic_ns
        self._records: dict[str, SandboxRecord] = {}
        self._ended_unseen: list[str] = []
        self._claims: dict[str, list[EngineEvent]] = {}
        self._locks: dict[str, tuple[asyncio.Lock, int]] = {}
        self._following = False
        self._looks: dict[str, _Look] = {}
        self._inspects = asyncio.Semaphore(PARALLEL_INSPECTS)
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

    async def observe_container(self, container_id: str) -> ContainerView | None:
        """Look at a container now and take what is seen into the store; None (and forgotten) when it is gone."""
        async with self._look(container_id) as observed_at_ns:
            try:
                async with self._inspects:
                    inspect = await self._engine.inspect_container(container_id)
            except NotFound:
                await self._forget(container_id)
                return None
            return await self._take_container(inspect, observed_at_ns)

    async def observe_end(self, container_id: str) -> ContainerView | None:
        """The same after a stop, which is an event as well: its look, begun or over, does for both."""
        look = self._looks.get(container_id)
        if look is not None:
            await look.over.wait()
        view = self._store.containers.get(container_id)
        return await self.observe_container(container_id) if view is not None and view.running else view

    async def container_ended(self, container_id: str, trouble: str) -> None:
        """A container does not run any more, and Docker cannot tell how it ended. `trouble` is why."""
        view = self._store.containers.get(container_id)
        if view is not None and view.running:
            await self._take_end(view, UNKNOWN_EXIT_CODE, trouble, self._monotonic_ns())

    async def observe_sandbox(self, sandbox_id: str) -> None:
        """The same as for a container."""
        async with self._look(sandbox_id) as observed_at_ns:
            try:
                async with self._inspects:
                    inspect = await self._engine.inspect_container(sandbox_id)
            except NotFound:
                await self._forget(sandbox_id)
                return
            await self._take_sandbox(inspect, observed_at_ns)

    def sandbox_ended(self, sandbox_id: str, observed_at_ns: int) -> None:
        """Pause does not run any more, which is all there is to know of its end: no look is needed."""
        view = self._store.sandboxes.get(sandbox_id)
        if view is not None and view.running:
            self._store.put_sandbox(ended_sandbox_view(view, observed_at_ns))

    @asynccontextmanager
    async def _look(self, identifier: str) -> AsyncIterator[int]:
        """One look at a time; when it began. Events that come meanwhile are judged by what it saw."""
        while (other := self._looks.get(identifier)) is not None:
            await other.over.wait()
        look = self._looks[identifier] = _Look()
        try:
            yield self._monotonic_ns()
        finally:
            del self._looks[identifier]
            look.over.set()
            for event in look.events:
                self._handle_container_event(event)

    # ---- the loops

    async def run(self) -> None:
        """Follow Docker for ever."""
        self._records = await self._hooks.load_records()
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
        ended, self._ended_unseen = self._ended_unseen, []
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
        listed = [line for line in labelled if _kind_of_listed(line)]
        if not self.filled:
            self._store.begin_quiet_fill()
        try:
            idle = [line for line in listed if not self._leave_to_who_is_at_it(line, listed_at_ns)]
            changed = [line for line in idle if self._differs(line, listed_at_ns)]
            await asyncio.gather(*(self._observe_listed(line, listed_at_ns) for line in changed))
            present = {str(line["Id"]) for line in listed}
            for identifier in self._missing(present, listed_at_ns):
                await self._forget(identifier)
            for identifier, record in list(self._records.items()):
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
        look = self._looks.get(str(line["Id"]))
        if look is not None:
            look.events.append(_listed_event(line, "", listed_at_ns))
        return look is not None

    def _differs(self, line: dict[str, Any], listed_at_ns: int) -> bool:
        identifier, running = str(line["Id"]), line.get("State") in RUNNING_STATES
        sandbox = self._store.sandboxes.get(identifier)
        if sandbox is not None:
            return _unlike(sandbox, running)
        container = self._store.containers.get(identifier)
        if container is None or _unlike(container, running):
            return True
        if _has_run_unseen(container, line):
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

    async def _observe_listed(self, line: dict[str, Any], listed_at_ns: int) -> None:
        """Look at one of a list. What Docker cannot tell of it keeps nobody from the others: what the list tells is
        shown, so that it can be stopped and removed, and the next comparison looks again. What is known already stays:
        it may be this one answer that failed."""
        identifier, kind = str(line["Id"]), _kind_of_listed(line)
        try:
            await self._observe(identifier, kind)
        except (Unavailable, DeadlineExceeded):  # Docker itself: what it lists may be in the best order
            raise
        except ShimError as error:
            _log.warning("container_shown_as_listed", id=identifier, state=line.get("State"), error=str(error))
            if kind == names.TYPE_SANDBOX:
                await self._take_listed_sandbox(line, listed_at_ns, str(error))
            else:
                await self._take_unseen(line, listed_at_ns, str(error))

    async def _take_listed_sandbox(self, line: dict[str, Any], listed_at_ns: int, trouble: str) -> None:
        old = self._store.sandboxes.get(str(line["Id"]))
        running = line.get("State") in RUNNING_STATES
        if old is None or old.ghost or (running and not old.running):
            await self._take_sandbox(listed_as_inspected(line, running, trouble), listed_at_ns)
        elif not running:
            self.sandbox_ended(old.id, listed_at_ns)

    async def _take_unseen(self, line: dict[str, Any], listed_at_ns: int, trouble: str) -> None:
        identifier, running = str(line["Id"]), line.get("State") in RUNNING_STATES
        old = self._store.containers.get(identifier)
        if old is None:
            inspect, after_start = listed_as_inspected(line, running, trouble), self._hooks.changed_limits(identifier)
            view = container_view(inspect, self._store.image_name, listed_at_ns, None, after_start)
            self._store.put_container(replace(view, unseen=True))
        elif old.observed_at_ns > listed_at_ns:
            return  # somebody has seen it since
        elif running and not old.running:
            self._store.put_container(started_container_view(old, self._clock_ns(), listed_at_ns))
        elif not running and (old.running or _has_run_unseen(old, line)):
            await self._take_end(old, listed_exit_code(line), trouble, listed_at_ns)

    async def _take_end(self, view: ContainerView, exit_code: int, trouble: str, observed_at_ns: int) -> None:
        """Show an end that nobody could look at, with what was known before."""
        ended = ended_container_view(view, exit_code, not_inspected(trouble), self._clock_ns(), observed_at_ns)
        await self._hooks.settle_log(view.id)
        self._store.put_container(ended)

    async def _observe(self, identifier: str, kind: str) -> None:
        """Look at one of many. What is in one that cannot be read keeps nobody from the others."""
        try:
            if kind == names.TYPE_SANDBOX:
                await self.observe_sandbox(identifier)
            elif kind == names.TYPE_CONTAINER:
                await self.observe_container(identifier)
        except ShimError:  # Docker's answer, which is about more than this one
            raise
        except Exception:
            _log.exception("container_unreadable", id=identifier, consequence="it is not shown as it is now")

    async def _take_container(self, inspect: dict[str, Any], observed_at_ns: int) -> ContainerView:
        old = self._store.containers.get(str(inspect["Id"]))
        user = await self._user_of(inspect, old)
        after_start = old.after_start if old is not None else self._hooks.changed_limits(str(inspect["Id"]))
        view = container_view(inspect, self._store.image_name, observed_at_ns, user, after_start)
        has_run = view.status.started_at > 0
        if has_run and (old is None or old.unseen or old.status.started_at == 0):
            self._hooks.follow_log(view)
        if has_run and not view.running and (old is None or old.unseen or old.status.finished_at == 0):
            if self.filled:
                await self._hooks.settle_log(view.id)  # a reader who sees the exit finds the whole log
            else:
                self._ended_unseen.append(view.id)
        self._store.put_container(view)
        return self._store.containers.get(view.id, view)

    async def _user_of(self, inspect: dict[str, Any], old: ContainerView | None) -> cri.LinuxContainerUser | None:
        if old is not None and old.status.HasField("user"):
            return old.status.user.linux
        pid = int(inspect["State"].get("Pid") or 0)
        if not inspect["State"].get("Running") or not pid:
            return None
        return await self._hooks.resolve_user(pid, container_user(inspect))

    async def _take_sandbox(self, inspect: dict[str, Any], observed_at_ns: int) -> None:
        identifier = str(inspect["Id"])
        record = await self._record_of(inspect)
        old = self._store.sandboxes.get(identifier)
        default_runtime = self.info.default_runtime if self.info is not None else ""
        view = sandbox_view(inspect, record, observed_at_ns, default_runtime)
        if self._store.put_sandbox(view) and view.running and record is not None and not (old and old.running):
            self._tasks.spawn_logged(
                _awaited(self._hooks.sandbox_started(view.resolv_conf_path, record)), f"resolv.conf {identifier[:12]}"
            )

    async def _record_of(self, inspect: dict[str, Any]) -> SandboxRecord | None:
        """Ours, or for a sandbox of cri-dockerd's one with its addresses: the kubelet remakes a pod that has none."""
        identifier = str(inspect["Id"])
        old = self._store.sandboxes.get(identifier)
        record = old.record if old is not None and old.record is not None else self._records.get(identifier)
        pid = int(inspect["State"].get("Pid") or 0)
        known = record is not None and (not record.foreign or record.ips or record.network_torn_down)
        if known or not pid or inspect["HostConfig"].get("NetworkMode") == "host":
            return record
        if record is None and names.KEYS_LABEL in (inspect["Config"].get("Labels") or {}):
            return None  # one of ours that a crash left half made: it shall be remade
        ips = await self._hooks.read_addresses(pid)
        if record is None and not ips:
            return None
        record = self._records[identifier] = replace(foreign_record(inspect, record), ips=ips)
        _log.info("foreign_sandbox_taken_over", id=identifier, ips=ips)
        return record

    async def _forget(self, identifier: str) -> None:
        """Docker does not have it any more. A sandbox with a record stays visible until it is removed through us."""
        sandbox = self._store.sandboxes.get(identifier)
        record = sandbox.record if sandbox is not None else None
        if sandbox is not None and record is not None:
            if not sandbox.ghost:
                self._store.put_sandbox(ghost_sandbox_view(record, self._monotonic_ns()))
        elif sandbox is not None:
            self._store.remove_sandbox(identifier)
        else:
            self._store.remove_container(identifier)
            await self._hooks.forget(identifier)

    def record_removed(self, sandbox_id: str) -> None:
        """The checkpoint of a sandbox has gone with it."""
        self._records.pop(sandbox_id, None)

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
                self._tasks.spawn_logged(self._forget(event.id), f"forget {event.id[:12]}")
            return
        if self._is_looked_into(event) or (known is not None and _is_known(event, known)):
            return
        if event.action == "die" and event.id in self._store.sandboxes:
            self.sandbox_ended(event.id, event.time_ns)
            return
        _log.debug("event_observed", id=event.id, action=event.action)
        self._tasks.spawn_logged(self._observe_for(event, kind), f"observe {event.id[:12]}")

    def _is_looked_into(self, event: EngineEvent) -> bool:
        """Whether somebody looks right now. What comes of it tells whether the event was news."""
        look = self._looks.get(event.id)
        if look is not None:
            look.events.append(event)
        return look is not None

    async def _observe_for(self, event: EngineEvent, kind: str) -> None:
        if self._is_looked_into(event):  # a stop began its own look before this one's turn came
            return
        if not kind:
            kind = names.TYPE_SANDBOX if event.id in self._store.sandboxes else names.TYPE_CONTAINER
        try:
            await self._observe(event.id, kind)
        except ShimError as error:  # the next resync looks again
            _log.debug("observation_failed", id=event.id, error=str(error))


def _kind_of_listed(line: dict[str, Any]) -> str:
    return kind_of(line.get("Names") or (), line["Labels"])


def _listed_event(line: dict[str, Any], name: str, listed_at_ns: int) -> EngineEvent:
    """A line of the list as the event that would have told of it."""
    state = line.get("State")
    action = "start" if state in RUNNING_STATES else "create" if state == "created" else "die"
    return EngineEvent("container", action, str(line["Id"]), name, listed_at_ns, line["Labels"])


def _unlike(view: SandboxView | ContainerView, running: bool) -> bool:
    """Whether a view is not what a list says. One that runs without a process is what an earlier list said."""
    return view.running != running or (running and not view.pid)


def _has_run_unseen(view: ContainerView, line: dict[str, Any]) -> bool:
    """Whether one that was created only has run since, by what a list says."""
    return view.status.state == cri.ContainerState.CONTAINER_CREATED and line.get("State") != "created"


def _is_known(event: EngineEvent, view: SandboxView | ContainerView) -> bool:
    """Whether an event tells nothing new; it may do so though it is newer than what we saw, when it is told late."""
    if view.observed_at_ns >= event.time_ns or event.action == "create":
        return True
    if event.action != "die" or view.running:
        return False
    return isinstance(view, SandboxView) or view.status.state == cri.ContainerState.CONTAINER_EXITED


async def _awaited(work: Awaitable[None]) -> None:
    await work
