"""Gives each pod with hostUsers: false ids of its own, the same ones over restarts of the agent.

A pod's ids stand in the file `userns` of its directory; they are free again when the pod has been cleaned up.

Upstream counterpart: pkg/kubelet/userns. Deliberate difference: where a file cannot be read nobody gets new ids, since
they may be those of that pod, until its directory is gone; the Go kubelet does not start. Ids that were given before
the node's range or the size of its blocks changed stay their pod's.
"""

import asyncio
from collections.abc import Callable
from pathlib import Path

import structlog

from cri_proto import runtime_v1 as cri
from kubelet_py.api import core_v1
from kubelet_py.api import pod as pods
from kubelet_py.core.user_namespaces import (
    IdRange,
    decode_mapping,
    encode_mapping,
    to_cri_user_namespace,
)
from kubelet_py.errors import SyncError
from kubelet_py.host.files import write_atomic
from kubelet_py.host.pod_dirs import PodDirs

log = structlog.get_logger()

FILE_MODE = 0o600
REASON = "CreatePodSandboxError"


class UserNamespaces:
    """`supports` says of a runtime handler whether it can make user namespaces. `load` comes first."""

    def __init__(self, dirs: PodDirs, ids: IdRange, supports: Callable[[str], bool]) -> None:
        self._dirs = dirs
        self._ids = ids
        self._supports = supports
        self._first_ids: dict[str, int] = {}
        self._of_other_ranges: dict[str, tuple[int, int]] = {}
        self._unreadable: set[str] = set()

    def load(self) -> None:
        """The ids of all pods that have a directory. Blocking."""
        for uid in self._dirs.list_pod_uids():
            try:
                first, length = decode_mapping(self._dirs.user_namespace(uid).read_bytes())
            except FileNotFoundError:
                continue
            except (OSError, ValueError) as error:
                consequence = "pods wait that need a user namespace and have none yet"
                log.error("user_namespace_unreadable", pod_uid=uid, error=str(error), consequence=consequence)
                self._unreadable.add(uid)
                continue
            if self._ids.holds(first, length) and first not in self._first_ids.values():
                self._first_ids[uid] = first
            else:
                self._of_other_ranges[uid] = first, length

    async def of_pod(self, pod: core_v1.Pod, runtime_handler: str) -> cri.UserNamespace | None:
        """The pod's namespace, None for one that shares the host's users; SyncError where it cannot have its own."""
        if pods.spec_of(pod).hostUsers is not False:
            return None
        if not self._supports(runtime_handler):
            who = f'RuntimeClass handler "{runtime_handler}"' if runtime_handler else "runtime"
            raise SyncError(REASON, f"can't set `spec.hostUsers: false`, {who} does not support user namespaces")
        uid = pods.uid_of(pod)
        first = self._first_ids.get(uid)
        if first is None:
            first = await self._allocate(uid)
        return to_cri_user_namespace(first, self._ids.block)

    async def _allocate(self, uid: str) -> int:
        path = self._dirs.user_namespace(uid)
        if await asyncio.to_thread(path.exists):
            raise SyncError(REASON, f"user namespace: {path} names ids that are not the pod's to have")
        if unreadable := await asyncio.to_thread(self._still_unreadable):
            message = f"create user namespace: {unreadable} cannot be read, and new ids could be those of its pod"
            raise SyncError(REASON, f"{message}; delete that pod, or the file once nothing of the pod runs")
        used = [(known, self._ids.block) for known in self._first_ids.values()]
        first = self._ids.free_block([*used, *self._of_other_ranges.values()])
        if first is None:
            raise SyncError(REASON, "create user namespace: could not find an empty slot to allocate a user namespace")
        self._first_ids[uid] = first
        try:
            await asyncio.to_thread(self._write, uid, first)
        except BaseException as error:
            del self._first_ids[uid]
            if isinstance(error, OSError):
                raise SyncError(REASON, f"create user namespace: {error}") from error
            raise
        return first

    def _still_unreadable(self) -> Path | None:
        paths = (self._dirs.user_namespace(uid) for uid in sorted(self._unreadable))
        return next((path for path in paths if path.exists()), None)

    def _write(self, uid: str, first: int) -> None:
        self._dirs.ensure_pod(uid)
        write_atomic(self._dirs.user_namespace(uid), encode_mapping(first, self._ids.block), FILE_MODE)

    async def release(self, pod_uid: str) -> None:
        """The pod starts nothing any more: its ids are free, once the file that names them is gone."""
        if pod_uid in self._first_ids or pod_uid in self._of_other_ranges or pod_uid in self._unreadable:
            await asyncio.to_thread(self._dirs.user_namespace(pod_uid).unlink, missing_ok=True)
            self._forget(pod_uid)

    async def release_orphans(self, is_known: Callable[[str], bool]) -> None:
        """Frees the ids of pods that went while no agent ran, once their directories are gone."""
        for uid in (*self._first_ids, *self._of_other_ranges, *self._unreadable):
            if is_known(uid) or await asyncio.to_thread(self._dirs.pod(uid).exists):
                continue
            if not is_known(uid):  # it may have come back meanwhile
                self._forget(uid)

    def _forget(self, pod_uid: str) -> None:
        self._first_ids.pop(pod_uid, None)
        self._of_other_ranges.pop(pod_uid, None)
        self._unreadable.discard(pod_uid)
