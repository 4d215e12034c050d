"""Notices that something happened to a pod in the runtime, and says which pod to look at.

Two ears: the runtime's event stream where it has one, and a list of everything (relist) always. Without events the
relist runs every second; while events flow it is only the safety net and runs every ten. A pod worker that has just
looked at its pod says so (`learn`), so that its own doings do not wake it again.

Must not know: what a pod should be, how statuses are made. Upstream counterpart: pkg/kubelet/pleg/generic.go and
evented.go. Differences: it holds records (ids and states), never statuses; events wake pods without a list in between.
"""

import asyncio
import time
from collections.abc import Callable, Iterable, Mapping

import structlog

from kubelet_py.core.pleg_diff import PodRecord, diff_pods, is_known, pod_records
from kubelet_py.cri import RuntimeClient
from kubelet_py.errors import RuntimeCallError, RuntimeUnavailable, RuntimeUnimplemented

log = structlog.get_logger()

RELIST_SECONDS = 1.0
RELIST_SECONDS_WITH_EVENTS = 10.0
UNHEALTHY_AFTER_SECONDS = 180.0
_EVENT_STREAM_RETRY_SECONDS = 5.0


Wake = Callable[[str, str, Callable[[], bool]], None]
"""Hears the UID of a pod, what happened to it, and how to ask whether that is still news: a look may come first."""


class Pleg:
    """The generator of pod life-cycle events. `wake` must not block."""

    def __init__(
        self,
        client: RuntimeClient,
        wake: Wake,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._client = client
        self._wake = wake
        self._clock = clock
        self._records: dict[str, PodRecord] = {}
        self._learned: set[str] = set()
        self._last_relist: float | None = None
        self._listed = asyncio.Event()
        self._poke = asyncio.Event()
        self._has_events = False
        self._failing = False

    @property
    def records(self) -> Mapping[str, PodRecord]:
        """What is known of every pod in the runtime."""
        return self._records

    def alive_uids_named(self, full_name: str) -> set[str]:
        """The UIDs of all pods `<name>_<namespace>` of which something lives."""
        return {uid for uid, r in self._records.items() if r.is_alive and f"{r.name}_{r.namespace}" == full_name}

    async def wait_listed(self) -> None:
        """Returns once the runtime has been listed for the first time."""
        await self._listed.wait()

    def problem(self) -> str | None:
        """Why the node should not be Ready, or None."""
        if self._last_relist is None:
            return "pleg has yet to be successful"
        elapsed = self._clock() - self._last_relist
        if elapsed > UNHEALTHY_AFTER_SECONDS:
            return f"pleg was last seen active {elapsed:.0f}s ago; threshold is {UNHEALTHY_AFTER_SECONDS:.0f}s"
        return None

    def learn(self, record: PodRecord) -> None:
        """A worker looked at its pod: what it saw is no news any more."""
        if record.sandboxes or record.containers:
            self._records[record.uid] = record
        else:
            self._records.pop(record.uid, None)
        self._learned.add(record.uid)

    def relist_soon(self) -> None:
        """Does the next relist at once."""
        self._poke.set()

    async def run(self) -> None:
        """Endless."""
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._relist_loop(), name="pleg-relist")
            tasks.create_task(self._event_loop(), name="pleg-events")

    async def _relist_loop(self) -> None:
        while True:
            self._poke.clear()
            try:
                await self._relist()
            except RuntimeUnavailable as error:
                log.debug("runtime_list_waits", error=str(error))  # RuntimeHealth says that nobody answers
            except RuntimeCallError as error:
                if not self._failing:
                    self._failing = True
                    log.warning("runtime_list_failed", error=str(error), consequence="pods are not watched meanwhile")
            else:
                if self._failing:
                    self._failing = False
                    log.info("runtime_list_works_again")
            period = RELIST_SECONDS_WITH_EVENTS if self._has_events else RELIST_SECONDS
            try:
                async with asyncio.timeout(period):  # wait_for of Python 3.11 can lose the end of the agent
                    await self._poke.wait()
            except TimeoutError:
                continue

    async def _relist(self) -> None:
        self._learned.clear()
        sandboxes, containers = await asyncio.gather(self._client.list_pod_sandboxes(), self._client.list_containers())
        fresh = pod_records(sandboxes, containers)
        # What a worker saw while the lists were on their way is newer than the lists.
        for uid in self._learned:
            if uid in self._records:
                fresh[uid] = self._records[uid]
            else:
                fresh.pop(uid, None)
        changes = diff_pods(self._records, fresh)
        self._records = fresh
        self._last_relist = self._clock()
        self._listed.set()
        for uid, events in changes.items():
            self._wake(uid, f"pleg: {_summary(event.kind for event in events)}", _always)

    async def _event_loop(self) -> None:
        while True:
            try:
                async for event in self._client.container_events():
                    self._has_events = True
                    self._hear(event.pod_sandbox_status.metadata.uid, event.container_id, event.container_event_type)
            except RuntimeUnimplemented:
                log.info("runtime_has_no_events", consequence=f"pods are listed every {RELIST_SECONDS:g} s")
                return
            except RuntimeCallError as error:
                log.debug("runtime_event_stream_lost", error=str(error))
            self._has_events = False
            self._poke.set()
            await asyncio.sleep(_EVENT_STREAM_RETRY_SECONDS)

    def _hear(self, pod_uid: str, container_id: str, kind: int) -> None:
        def is_news() -> bool:
            return not is_known(self._records.get(pod_uid), container_id, kind)

        if not pod_uid:
            self._poke.set()
        elif is_news():
            self._wake(pod_uid, "runtime event", is_news)


def _always() -> bool:
    return True


def _summary(kinds: Iterable[str]) -> str:
    """The kinds, each once, in order."""
    return ", ".join(dict.fromkeys(kinds))
