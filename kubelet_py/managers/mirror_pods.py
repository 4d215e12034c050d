"""Mirror pods: the API server's copies of the static pods, so that people and the scheduler see them.

Level-triggered: what the sources say should run against what the API server shows. A mirror pod that is missing is
created, one of an older static pod (other hash) or being deleted is removed and created again, one without a static pod
is removed; all of it once the static pod of before has stopped. A pod that the API server refuses is tried again after
a pause of its own, which holds no other up. Must not know statuses.

Upstream counterpart: pkg/kubelet/pod/mirror_client.go and the mirror parts of kubelet.go.
"""

import asyncio
import contextlib
import random
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Final

import msgspec
import structlog

from kubelet_py.api import core_v1, meta_v1
from kubelet_py.api.pod import (
    CONFIG_HASH_ANNOTATION,
    CONFIG_MIRROR_ANNOTATION,
    annotations_of,
    display_name,
    full_name,
    is_static,
    metadata_of,
)
from kubelet_py.errors import ApiAlreadyExists, ApiConflict, ApiError, ApiNotFound
from kubelet_py.kube.backoff import Backoff
from kubelet_py.kube.client import ApiClient
from kubelet_py.kube.resources import PODS

log = structlog.get_logger()

FIRST_PAUSE_SECONDS: Final = 1.0
LONGEST_PAUSE_SECONDS: Final = 30.0
NAME_TAKEN_SECONDS: Final = 30.0
"""A pod that is no mirror has the name of one: when it goes is not seen here."""


@dataclass(slots=True)
class _Refused:
    """A mirror that could not be made or removed, for which static pod ("" for none), and when that is tried again."""

    pauses: Backoff
    static_hash: str = ""
    again_at: float = 0.0

    def note(self, static_hash: str, now_seconds: float) -> float:
        """It failed (again); how long to wait now."""
        if static_hash != self.static_hash:
            self.pauses.reset()
        pause = self.pauses.next_seconds(now_seconds)
        self.static_hash, self.again_at = static_hash, now_seconds + pause
        return pause


class MirrorPodManager:
    """The `on_` methods are called in the loop; `run` works until cancelled."""

    def __init__(
        self,
        client: ApiClient,
        node: Callable[[], core_v1.Node | None],
        node_registered: asyncio.Event,
        *,
        is_stopping: Callable[[str], bool] = lambda full_name: False,
        random_fraction: Callable[[], float] = random.random,
        taken_seconds: float = NAME_TAKEN_SECONDS,
    ) -> None:
        """`is_stopping`: whether a pod with this full name is being stopped. `look_again` once it has."""
        self._client = client
        self._is_stopping = is_stopping
        self._node = node
        self._node_registered = node_registered
        self._random_fraction = random_fraction
        self._refused: dict[str, _Refused] = {}
        self._wanted: dict[str, core_v1.Pod] = {}
        self._seen: dict[str, core_v1.Pod] = {}
        self._complete = False
        self._listed = False
        self._taken = False
        self._taken_seconds = taken_seconds
        self._changed = asyncio.Event()

    def on_static_pods(self, pods: Iterable[core_v1.Pod], *, complete: bool) -> None:
        """The static pods that should run. Orphans are removed only when this is `complete` (every source is ready)."""
        self._wanted = {full_name(pod): pod for pod in pods if is_static(pod)}
        self._complete = complete
        self._changed.set()

    def on_mirror_pods(self, pods: Iterable[core_v1.Pod]) -> None:
        """All mirror pods that the API server has for this node."""
        seen = {full_name(pod): pod for pod in pods}
        if seen != self._seen or not self._listed:
            self._seen, self._listed = seen, True
            self._changed.set()

    def look_again(self) -> None:
        """A pod has stopped."""
        self._changed.set()

    async def run(self) -> None:
        """Bring the API server's mirror pods to the static pods, for ever."""
        await self._node_registered.wait()
        while True:
            await self._news()
            if not self._listed:
                continue  # what is there is not known yet
            await self._reconcile()

    async def _news(self) -> None:
        """Returns when something has changed, a name that was taken may be free, or a pod is to be tried again."""
        ends = [refused.again_at for refused in self._refused.values()]
        if self._taken:
            ends.append(asyncio.get_running_loop().time() + self._taken_seconds)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout_at(min(ends, default=None)):
                await self._changed.wait()
        self._changed.clear()

    async def _reconcile(self) -> None:
        self._taken = False
        names = (*self._seen, *(name for name in self._wanted if name not in self._seen))
        self._refused = {name: self._refused[name] for name in names if name in self._refused}
        clock = asyncio.get_running_loop().time
        for name in names:
            static, refused = self._wanted.get(name), self._refused.get(name)
            static_hash = _hash(static) if static is not None else ""
            if refused is not None and refused.static_hash == static_hash and clock() < refused.again_at:
                continue
            try:
                await self._reconcile_one(name)
            except ApiError as error:
                if refused is None:
                    pauses = Backoff(
                        FIRST_PAUSE_SECONDS, LONGEST_PAUSE_SECONDS, jitter=0.2, random=self._random_fraction
                    )
                    refused = self._refused[name] = _Refused(pauses)
                pause = refused.note(static_hash, clock())
                log.warning("mirror_pod_not_updated", pod=name, error=str(error), again_in_seconds=round(pause, 1))
            else:
                self._refused.pop(name, None)

    async def _reconcile_one(self, name: str) -> None:
        if self._is_stopping(name):
            return  # while something of it runs, people see it, and its successor's comes after it
        mirror, static = self._seen.get(name), self._wanted.get(name)
        if mirror is not None:
            if static is None:
                if self._complete:
                    await self._delete(mirror, "no static pod has this name")
            elif _mirrored_hash(mirror) != _hash(static):
                await self._delete(mirror, "the static pod changed")
            elif metadata_of(mirror).deletionTimestamp is not None:
                await self._delete(mirror, "somebody is deleting it")
        if static is not None and name not in self._seen:
            await self._create(name, static)

    async def _delete(self, mirror: core_v1.Pod, cause: str) -> None:
        metadata = metadata_of(mirror)
        try:
            await self._client.delete(
                PODS, metadata.name or "", metadata.namespace or "", grace_period_seconds=0, uid=metadata.uid
            )
            log.info("mirror_pod_deleted", pod=display_name(mirror), cause=cause)
        except (ApiNotFound, ApiConflict):  # gone, or another one has its name: the watch will show it
            pass
        if self._seen.get(full_name(mirror)) is mirror:
            del self._seen[full_name(mirror)]

    async def _create(self, name: str, static: core_v1.Pod) -> None:
        mirror = mirror_of(static, self._node())
        try:
            created = await self._client.create(PODS, mirror, metadata_of(static).namespace or "default")
        except ApiAlreadyExists:
            # Of our making, and the watch lags; or somebody else's pod, which the status of no pod of ours must touch.
            log.debug("mirror_pod_exists", pod=display_name(static))
            self._taken = True
            return
        self._seen.setdefault(name, created)
        log.info("mirror_pod_created", pod=display_name(static))


def mirror_of(static: core_v1.Pod, node: core_v1.Node | None) -> core_v1.Pod:
    """The pod to create for a static pod; owned by the node, so that it goes with it."""
    metadata = metadata_of(static)
    owners = metadata.ownerReferences
    if node is not None and node.metadata is not None and node.metadata.uid:
        owners = [
            meta_v1.OwnerReference(
                apiVersion="v1", kind="Node", name=node.metadata.name or "", uid=node.metadata.uid, controller=True
            )
        ]
    annotations = annotations_of(static) | {CONFIG_MIRROR_ANNOTATION: _hash(static)}
    return msgspec.structs.replace(
        static,
        metadata=msgspec.structs.replace(
            metadata, annotations=annotations, ownerReferences=owners, resourceVersion=None, creationTimestamp=None
        ),
    )


def _hash(static: core_v1.Pod) -> str:
    return annotations_of(static).get(CONFIG_HASH_ANNOTATION, "")


def _mirrored_hash(mirror: core_v1.Pod) -> str:
    return annotations_of(mirror).get(CONFIG_MIRROR_ANNOTATION, "")
