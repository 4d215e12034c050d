"""The one writer of pod statuses to the API server.

Pod workers say what is so, at once and as often as they like; the newest word per UID wins, and writers bring it to
the API server, several pods at a time, one request per pod. Nothing is lost while the server is away: what is not
there yet is tried again. A pod whose UID is no longer the server's is dropped. Static pods report through their mirror
pods. What another writer changed is set right by a full pass each 10 s.

Must not know how a status is computed. Upstream counterpart: pkg/kubelet/status. Differences: the patch is made from
the last known object instead of a GET before each (half the requests); pods are written in parallel.
"""

import asyncio
import contextlib
import random
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

import msgspec
import structlog

from kubelet_py.api import core_v1, meta_v1
from kubelet_py.api.pod import (
    CONFIG_HASH_ANNOTATION,
    CONFIG_MIRROR_ANNOTATION,
    PodUid,
    annotations_of,
    display_name,
    full_name,
    init_containers_of,
    is_mirror,
    is_sidecar,
    is_static,
    metadata_of,
    uid_of,
)
from kubelet_py.errors import ApiError, ApiForbidden, ApiNotFound, ApiUnavailable
from kubelet_py.kube.backoff import Backoff
from kubelet_py.kube.client import ApiClient
from kubelet_py.kube.resources import PODS, Resource
from kubelet_py.managers.status.merge import is_progress_only, status_changes

log = structlog.get_logger()

PARALLEL_WRITERS: Final = 16
FULL_PASS_SECONDS: Final = 10.0
PATIENCE_SECONDS: Final = 1.0
"""How long what may wait does wait."""
GIVE_WAY_SECONDS: Final = 30.0
"""How long it waits at the most while pods wait for their turn at the runtime: of a hundred most have more to say by
then, and each request less is time for the pods."""


class PodView(msgspec.Struct):
    """The part of an answer that is kept."""

    metadata: meta_v1.ObjectMeta
    status: core_v1.PodStatus | None = None


_VIEWS: Final = Resource(PodView, "pods")


@dataclass(slots=True)
class _AtServer:
    """A pod as the API server last showed it."""

    uid: str
    version: int
    status: core_v1.PodStatus | None
    mirrored_hash: str = ""
    """Of a mirror pod: which static pod it is the copy of. One of its name that was replaced has no word here."""


@dataclass(slots=True)
class _Entry:
    pod: core_v1.Pod
    status: core_v1.PodStatus
    at_server: _AtServer | None
    written: bool = False
    written_version: int = 0
    """The version that our last write made: what the server keeps in other words must not be written again."""
    finished: bool = False


class StatusManager:
    """`run` writes until cancelled; what sets, finishes, forgets or tells of pods is called in its loop."""

    def __init__(
        self,
        client: ApiClient | None,
        *,
        parallel_writers: int = PARALLEL_WRITERS,
        full_pass_seconds: float = FULL_PASS_SECONDS,
        patience_seconds: float = PATIENCE_SECONDS,
        give_way_seconds: float = GIVE_WAY_SECONDS,
        quiet: asyncio.Event | None = None,
        backoff: Backoff | None = None,
    ) -> None:
        """Without a client (standalone) statuses are kept and shown, and written nowhere.

        `quiet` is set while the node has nothing more urgent to do.
        """
        self._client = client
        self._parallel_writers = parallel_writers
        self._entries: dict[PodUid, _Entry] = {}
        self._mirrors: dict[str, _AtServer] = {}
        self._mirrors_known = asyncio.Event()
        self._dirty: dict[PodUid, None] = {}
        self._patient: dict[PodUid, asyncio.TimerHandle] = {}
        self._patience_seconds = patience_seconds
        self._give_way_seconds = give_way_seconds
        self._quiet = quiet
        self._failed: set[PodUid] = set()
        self._in_flight: set[PodUid] = set()
        self._wake = asyncio.Event()
        self._failure = asyncio.Event()
        self._settled = asyncio.Event()
        self._settled.set()
        self._full_pass_seconds = full_pass_seconds
        self._backoff = backoff or Backoff(
            0.5, FULL_PASS_SECONDS, jitter=0.5, reset_after_seconds=60.0, random=random.random
        )

    def status_of(self, uid: PodUid) -> core_v1.PodStatus | None:
        """The newest status that somebody set."""
        entry = self._entries.get(uid)
        return entry.status if entry is not None else None

    def last_said(self, pod: core_v1.Pod) -> core_v1.PodStatus | None:
        """The same, or before that what the API server has of the pod: what the agent before this one wrote.

        Of a static pod that is in its mirror; see `wait_for_mirrors`. How an init container ended there is not taken
        from it: the runtime knows, or nobody does, and then it is said in the words that are for that.
        """
        said = self.status_of(uid_of(pod))
        if said is None and is_static(pod):
            mirror = self._mirror_of(pod)
            if mirror is not None and mirror.status is not None:
                said = _without_ended_inits(pod, mirror.status)
        return said or pod.status

    async def wait_for_mirrors(self, seconds: float) -> None:
        """Returns once the mirror pods of this node are known, or time is over."""
        if self._client is not None:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(seconds):
                    await self._mirrors_known.wait()

    @property
    def pending(self) -> int:
        """How many pods have something that is not at the API server yet."""
        return len(self._patient) + len(self._dirty) + len(self._failed) + len(self._in_flight)

    def set_status(self, pod: core_v1.Pod, status: core_v1.PodStatus) -> None:
        """This is the pod's status now."""
        uid = uid_of(pod)
        entry = self._entries.get(uid)
        if entry is None:
            entry = self._entries[uid] = _Entry(pod, status, None if is_static(pod) else _at_server(pod))
        elif entry.status == status and entry.written:
            entry.pod = pod
            return
        else:
            entry.pod, entry.status, entry.written = pod, status, False
        if not is_static(pod):
            self._update_base(entry, pod)
        base = self._base_of(entry)
        if base is not None and not entry.finished and is_progress_only(pod, base.status, status):
            self._mark_patient(uid)
        else:
            self._mark(uid)

    def finish(self, uid: PodUid) -> None:
        """Nothing of the pod is left on the node: once its status is written, delete the API object."""
        entry = self._entries.get(uid)
        if entry is not None and not entry.finished and not is_static(entry.pod):
            entry.finished = True
            entry.written = False
            self._mark(uid)

    def forget(self, uid: PodUid) -> None:
        """The pod is gone from every source; its status interests nobody."""
        self._entries.pop(uid, None)
        self._dirty.pop(uid, None)
        self._failed.discard(uid)
        self._stop_waiting(uid)
        self._settle()

    def on_api_pods(self, pods: Iterable[core_v1.Pod]) -> None:
        """Pods as the API server has them now: fresher bases for patches."""
        for pod in pods:
            entry = self._entries.get(uid_of(pod))
            if entry is not None and not is_mirror(pod):
                self._update_base(entry, pod)

    def on_mirror_pods(self, pods: Iterable[core_v1.Pod]) -> None:
        """All mirror pods that the API server has for this node: the bases for static pods."""
        mirrors = {full_name(pod): _at_server(pod) for pod in pods}
        for uid, entry in self._entries.items():
            if is_static(entry.pod):
                name = full_name(entry.pod)
                seen, known = mirrors.get(name), self._mirrors.get(name)
                if seen is not None and (known is None or known.uid != seen.uid):
                    entry.written = False
                    self._mark(uid)
        for name, seen in mirrors.items():
            known = self._mirrors.get(name)
            if known is not None and known.uid == seen.uid and known.version > seen.version:
                mirrors[name] = known
        self._mirrors = mirrors
        self._mirrors_known.set()

    async def run(self) -> None:
        """Write until cancelled."""
        if self._client is None:
            return
        async with asyncio.TaskGroup() as tasks:
            for number in range(self._parallel_writers):
                tasks.create_task(self._writer(self._client), name=f"pod-status-writer-{number}")
            tasks.create_task(self._retry_loop(self._client), name="pod-status-retry")
            tasks.create_task(self._full_pass_loop(), name="pod-status-full-pass")

    async def flush(self, deadline_seconds: float) -> bool:
        """Wait until everything is at the API server; False when the deadline came first. `run` must be running."""
        if self._client is None:
            return True
        for uid in tuple(self._patient):
            self._mark(uid)
        try:
            async with asyncio.timeout(deadline_seconds):
                await self._settled.wait()
        except TimeoutError:
            return False
        return True

    def _mark(self, uid: PodUid) -> None:
        if self._client is None:
            return
        self._stop_waiting(uid)
        self._failed.discard(uid)
        self._dirty[uid] = None
        self._settled.clear()
        self._wake.set()

    def _mark_patient(self, uid: PodUid) -> None:
        """To be written when its patience ends, if nothing more urgent comes before."""
        if self._client is None or uid in self._patient or uid in self._dirty:
            return
        self._settled.clear()
        self._wait_on(uid, asyncio.get_running_loop().time() + self._give_way_seconds)

    def _wait_on(self, uid: PodUid, latest: float) -> None:
        loop = asyncio.get_running_loop()
        self._patient[uid] = loop.call_later(self._patience_seconds, self._patience_ended, uid, latest)

    def _patience_ended(self, uid: PodUid, latest: float) -> None:
        gives_way = self._quiet is not None and not self._quiet.is_set()
        if gives_way and asyncio.get_running_loop().time() < latest:
            self._wait_on(uid, latest)
        else:
            self._mark(uid)

    def _stop_waiting(self, uid: PodUid) -> None:
        timer = self._patient.pop(uid, None)
        if timer is not None:
            timer.cancel()

    def _settle(self) -> None:
        if not self.pending:
            self._settled.set()

    def _take(self) -> PodUid | None:
        """The next pod to write that no other writer is at."""
        for uid in self._dirty:
            if uid not in self._in_flight:
                del self._dirty[uid]
                self._in_flight.add(uid)
                return uid
        return None

    async def _writer(self, client: ApiClient) -> None:
        while True:
            uid = self._take()
            if uid is None:
                self._wake.clear()
                await self._wake.wait()
                continue
            try:
                await self._write(client, uid)
            finally:
                self._in_flight.discard(uid)
                if uid in self._dirty:  # came in meanwhile
                    self._wake.set()
                self._settle()

    async def _write(self, client: ApiClient, uid: PodUid) -> None:
        entry = self._entries.get(uid)
        if entry is None:
            return
        try:
            await self._write_entry(client, uid, entry)
        except ApiUnavailable as error:
            log.debug("pod_status_not_written", pod=display_name(entry.pod), error=str(error))
            self._fail(uid)
        except ApiError as error:
            log.warning("pod_status_refused", pod=display_name(entry.pod), uid=uid, error=str(error))
            self._fail(uid)
        except Exception as error:  # a fault of ours costs this pod its status, and no other
            log.error("pod_status_broke", pod=display_name(entry.pod), uid=uid, exc_info=error)
            self._fail(uid)
        else:
            self._backoff.reset()

    def _fail(self, uid: PodUid) -> None:
        if uid in self._entries and uid not in self._dirty:
            self._failed.add(uid)
            self._failure.set()

    async def _write_entry(self, client: ApiClient, uid: PodUid, entry: _Entry) -> None:
        base = self._base_of(entry)
        if base is None:  # its arrival marks the pod again
            entry.written = True
            return
        metadata = metadata_of(entry.pod)
        name, namespace = metadata.name or "", metadata.namespace or ""
        status, finished = entry.status, entry.finished
        changes = status_changes(base.status, status)
        try:
            if changes:
                patch = {"metadata": {"uid": base.uid}, "status": changes}
                answer = await client.patch(_VIEWS, name, patch, namespace, subresource="status")
                entry.written_version = self._learn(entry, answer).version
                log.debug("pod_status_written", pod=f"{namespace}/{name}", uid=uid, phase=status.phase)
            if finished:
                await client.delete(PODS, name, namespace, grace_period_seconds=0, uid=base.uid)
                log.info("pod_deleted_at_api_server", pod=f"{namespace}/{name}", uid=uid)
        except ApiNotFound:
            self._gone(entry, base.uid, "it was deleted")
        except ApiError as error:
            # A patch that names another UID is refused as invalid, a delete as a conflict: who has the name now?
            if error.status not in (409, 422) or not await self._replaced(client, name, namespace, entry, base.uid):
                raise
            self._gone(entry, base.uid, "another pod has its name")
        if entry.status is status and entry.finished == finished:
            entry.written = True

    async def _replaced(self, client: ApiClient, name: str, namespace: str, entry: _Entry, uid: str) -> bool:
        try:
            current = await client.get(_VIEWS, name, namespace)
        except (ApiNotFound, ApiForbidden):  # a node may not even ask for pods that are not its own
            return True
        if current.metadata.uid != uid:
            return True
        self._learn(entry, current)  # the next try starts from what is there
        return False

    def _learn(self, entry: _Entry, answer: PodView) -> _AtServer:
        seen = _at_server(answer)
        if is_static(entry.pod):
            name = full_name(entry.pod)
            current = self._mirrors.get(name)
            # An answer about a mirror pod that was replaced while it was on its way must not hide the new one.
            if current is None or current.uid == seen.uid:
                self._mirrors[name] = seen
        else:
            entry.at_server = seen
        return seen

    def _gone(self, entry: _Entry, uid: str, why: str) -> None:
        log.debug("pod_status_dropped", pod=display_name(entry.pod), why=why)
        entry.written = True
        if is_static(entry.pod):
            name = full_name(entry.pod)
            if (current := self._mirrors.get(name)) is not None and current.uid == uid:
                del self._mirrors[name]
        else:
            entry.at_server = None

    def _base_of(self, entry: _Entry) -> _AtServer | None:
        """What a patch starts from; None for a static pod whose own mirror is not there yet, or no more."""
        return self._mirror_of(entry.pod) if is_static(entry.pod) else entry.at_server

    def _mirror_of(self, static: core_v1.Pod) -> _AtServer | None:
        mirror = self._mirrors.get(full_name(static))
        own_hash = annotations_of(static).get(CONFIG_HASH_ANNOTATION, "")
        return mirror if mirror is not None and mirror.mirrored_hash == own_hash else None

    def _update_base(self, entry: _Entry, pod: core_v1.Pod) -> None:
        seen = _at_server(pod)
        known = entry.at_server
        # The source's object replaces our copy of the same version: one object less in memory.
        if known is None or seen.version >= known.version:
            entry.at_server = seen

    async def _retry_loop(self, client: ApiClient) -> None:
        while True:
            await self._failure.wait()
            self._failure.clear()
            await client.rest(self._backoff.next_seconds(asyncio.get_running_loop().time()))
            for uid in tuple(self._failed):
                self._mark(uid)

    async def _full_pass_loop(self) -> None:
        while True:
            await asyncio.sleep(self._full_pass_seconds)
            for uid, entry in self._entries.items():
                base = self._base_of(entry)
                if base is None or not entry.written or base.version == entry.written_version:
                    continue
                if status_changes(base.status, entry.status):
                    self._mark(uid)


def _version(metadata: meta_v1.ObjectMeta) -> int:
    version = metadata.resourceVersion or ""
    return int(version) if version.isdigit() else 0


def _at_server(pod: core_v1.Pod | PodView) -> _AtServer:
    metadata = pod.metadata or meta_v1.ObjectMeta()
    mirrored_hash = (metadata.annotations or {}).get(CONFIG_MIRROR_ANNOTATION, "")
    return _AtServer(metadata.uid or "", _version(metadata), pod.status, mirrored_hash)


def _without_ended_inits(pod: core_v1.Pod, status: core_v1.PodStatus) -> core_v1.PodStatus:
    sidecars = {container.name for container in init_containers_of(pod) if is_sidecar(container)}
    kept = [each for each in status.initContainerStatuses or () if each.name in sidecars]
    return msgspec.structs.replace(status, initContainerStatuses=kept or None)
