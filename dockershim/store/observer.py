"""Looks at one sandbox or container of Docker's and takes what is seen into the store.

Owns which looks are under way, one at a time for each, and what is shown of those that Docker lists and cannot inspect.
Must not know connections and loops: who looks when is the feeder's. Upstream counterpart: loadContainer and
loadSandbox in containerd's internal/cri/server/restart.go. Times of observations are the monotonic clock's.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from typing import Any

import structlog

from cri_proto import runtime_v1 as cri
from dockershim.engine import DockerEngine, EngineEvent
from dockershim.errors import DeadlineExceeded, NotFound, ShimError, Unavailable
from dockershim.store import Store
from dockershim.tasks import Tasks
from dockershim.translate import names
from dockershim.translate.listed import (
    UNKNOWN_EXIT_CODE,
    has_run_unseen,
    is_running,
    kind_of_listed,
    listed_as_inspected,
    listed_exit_code,
    not_inspected,
)
from dockershim.translate.users import ContainerUser, container_user
from dockershim.translate.views import (
    ContainerView,
    SandboxRecord,
    container_view,
    ended_container_view,
    ended_sandbox_view,
    foreign_record,
    ghost_sandbox_view,
    sandbox_view,
    started_container_view,
)

_log = structlog.get_logger()

PARALLEL_INSPECTS = 12


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


class Observer:
    """The looks and what they saw."""

    def __init__(
        self,
        engine: DockerEngine,
        store: Store,
        tasks: Tasks,
        hooks: FeederHooks,
        clock_ns: Callable[[], int],
        monotonic_ns: Callable[[], int],
        judge: Callable[[EngineEvent], None],
        container_ended: Callable[[str], None],
    ) -> None:
        """`judge` is given the events that came while somebody looked, once the look is over; `container_ended` each
        container that is seen not to run (any more).

        While `settles_ends` is false, ends are shown without waiting for their logs: `take_ended_unseen` has them.
        """
        self.records: dict[str, SandboxRecord] = {}
        self.default_runtime = ""
        self.settles_ends = False
        self._engine = engine
        self._store = store
        self._tasks = tasks
        self._hooks = hooks
        self._clock_ns = clock_ns
        self._monotonic_ns = monotonic_ns
        self._judge = judge
        self._container_ended = container_ended
        self._ended_unseen: list[str] = []
        self._looks: dict[str, _Look] = {}
        self._inspects = asyncio.Semaphore(PARALLEL_INSPECTS)

    async def observe_container(self, container_id: str) -> ContainerView | None:
        """Look at a container now and take what is seen into the store; None (and forgotten) when it is gone."""
        async with self._look(container_id) as observed_at_ns:
            try:
                async with self._inspects:
                    inspect = await self._engine.inspect_container(container_id)
            except NotFound:
                await self.forget(container_id)
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
                await self.forget(sandbox_id)
                return
            await self._take_sandbox(inspect, observed_at_ns)

    def sandbox_ended(self, sandbox_id: str, observed_at_ns: int) -> None:
        """Pause does not run any more, which is all there is to know of its end: no look is needed."""
        view = self._store.sandboxes.get(sandbox_id)
        if view is not None and view.running:
            self._store.put_sandbox(ended_sandbox_view(view, observed_at_ns))

    def defer(self, event: EngineEvent) -> bool:
        """Whether somebody looks right now. What comes of it tells whether the event was news."""
        look = self._looks.get(event.id)
        if look is not None:
            look.events.append(event)
        return look is not None

    def take_ended_unseen(self) -> list[str]:
        """Who was shown as ended before its log was written, once."""
        ended, self._ended_unseen = self._ended_unseen, []
        return ended

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
                self._judge(event)

    async def observe_listed(self, line: dict[str, Any], listed_at_ns: int) -> None:
        """Look at one of a list. What Docker cannot tell of it keeps nobody from the others: what the list tells is
        shown, so that it can be stopped and removed, and the next comparison looks again. What is known already stays:
        it may be this one answer that failed."""
        identifier, kind = str(line["Id"]), kind_of_listed(line)
        try:
            await self.observe(identifier, kind)
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
        running = is_running(line)
        if old is None or old.ghost or (running and not old.running):
            await self._take_sandbox(listed_as_inspected(line, running, trouble), listed_at_ns)
        elif not running:
            self.sandbox_ended(old.id, listed_at_ns)

    async def _take_unseen(self, line: dict[str, Any], listed_at_ns: int, trouble: str) -> None:
        identifier, running = str(line["Id"]), is_running(line)
        old = self._store.containers.get(identifier)
        if old is None:
            inspect, after_start = listed_as_inspected(line, running, trouble), self._hooks.changed_limits(identifier)
            view = container_view(inspect, self._store.image_name, listed_at_ns, None, after_start)
            self._store.put_container(replace(view, unseen=True))
        elif old.observed_at_ns > listed_at_ns:
            return  # somebody has seen it since
        elif running and not old.running:
            self._store.put_container(started_container_view(old, self._clock_ns(), listed_at_ns))
        elif not running and (old.running or has_run_unseen(old, line)):
            await self._take_end(old, listed_exit_code(line), trouble, listed_at_ns)

    async def _take_end(self, view: ContainerView, exit_code: int, trouble: str, observed_at_ns: int) -> None:
        """Show an end that nobody could look at, with what was known before."""
        ended = ended_container_view(view, exit_code, not_inspected(trouble), self._clock_ns(), observed_at_ns)
        await self._hooks.settle_log(view.id)
        self._store.put_container(ended)
        self._container_ended(view.id)

    async def observe(self, identifier: str, kind: str) -> None:
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
        if not view.running:
            self._container_ended(view.id)
        has_run = view.status.started_at > 0
        if has_run and (old is None or old.unseen or old.status.started_at == 0):
            self._hooks.follow_log(view)
        if has_run and not view.running and (old is None or old.unseen or old.status.finished_at == 0):
            if self.settles_ends:
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
        view = sandbox_view(inspect, record, observed_at_ns, self.default_runtime)
        if self._store.put_sandbox(view) and view.running and record is not None and not (old and old.running):
            self._tasks.spawn_logged(
                _awaited(self._hooks.sandbox_started(view.resolv_conf_path, record)), f"resolv.conf {identifier[:12]}"
            )

    async def _record_of(self, inspect: dict[str, Any]) -> SandboxRecord | None:
        """Ours, or for a sandbox of cri-dockerd's one with its addresses: the kubelet remakes a pod that has none."""
        identifier = str(inspect["Id"])
        old = self._store.sandboxes.get(identifier)
        record = old.record if old is not None and old.record is not None else self.records.get(identifier)
        pid = int(inspect["State"].get("Pid") or 0)
        known = record is not None and (not record.foreign or record.ips or record.network_torn_down)
        if known or not pid or inspect["HostConfig"].get("NetworkMode") == "host":
            return record
        if record is None and names.KEYS_LABEL in (inspect["Config"].get("Labels") or {}):
            return None  # one of ours that a crash left half made: it shall be remade
        ips = await self._hooks.read_addresses(pid)
        if record is None and not ips:
            return None
        record = self.records[identifier] = replace(foreign_record(inspect, record), ips=ips)
        _log.info("foreign_sandbox_taken_over", id=identifier, ips=ips)
        return record

    async def forget(self, identifier: str) -> None:
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
            self._container_ended(identifier)
            await self._hooks.forget(identifier)

    def record_removed(self, sandbox_id: str) -> None:
        """The checkpoint of a sandbox has gone with it."""
        self.records.pop(sandbox_id, None)


async def _awaited(work: Awaitable[None]) -> None:
    await work
