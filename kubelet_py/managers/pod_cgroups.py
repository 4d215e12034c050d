"""The cgroups of pods: made with their limits before the sandbox, removed after the last container.

Owns when, and what the classes have for the sum of their pods' requests. What the limits are says
`core.cgroup_rules`; how they are made is the business of the tree that the driver has: `host.cgroups` writes files,
`host.systemd_slices` asks systemd.

Upstream counterpart: pkg/kubelet/cm/pod_container_manager_linux.go and qos_container_manager_linux.go. Difference:
what a class has follows each pod at once and not each minute.
"""

import asyncio
import threading
from collections.abc import Callable, Sequence

import structlog

from kubelet_py.api import core_v1
from kubelet_py.api import pod as pods
from kubelet_py.core.cgroup_rules import (
    CgroupLimits,
    CgroupName,
    CgroupSettings,
    MemoryUsage,
    QosRequests,
    adopted_limits,
    cgroup_path,
    compute_class_limits,
    compute_pod_limits,
    pod_cgroup_name,
    pod_uid_of_cgroup,
    qos_cgroup_name,
    qos_requests_of,
)
from kubelet_py.core.qos import QosClass
from kubelet_py.errors import SyncError
from kubelet_py.host.cgroups import Tree, Trees

log = structlog.get_logger()


class PodCgroups:
    """The CgroupKeeper of the real node. Without cgroups per QoS there is nothing to keep."""

    def __init__(
        self,
        trees: Trees,
        settings: Callable[[], CgroupSettings],
    ) -> None:
        """`settings` name the driver when the runtime has said which."""
        self._trees = trees
        self._settings = settings
        self._made: dict[str, CgroupLimits] = {}
        self._requests: dict[str, QosRequests] = {}
        self._class_limits: dict[QosClass, CgroupLimits] = {}
        self._classes = threading.Lock()
        self._removals: dict[str, asyncio.Event] = {}
        """Of orphans, by UID, with their end."""

    async def ensure_pod(self, pod: core_v1.Pod, *, keeps_limits: bool = False) -> None:
        """The pod's cgroup with its present limits; SyncError("FailedCreatePodContainer") when the kernel refuses.

        `keeps_limits`: one that exists keeps those it has. The limits of a pod that runs move step by step, each after
        what it has in use was looked at (`update_pod`), and what was done of a resize must not be undone.
        """
        settings, uid = self._settings(), pods.uid_of(pod)
        if not settings.cgroups_per_qos:
            return
        limits = compute_pod_limits(pod, settings)
        if uid in self._made and (keeps_limits or self._made[uid] == limits):
            return
        if uid in self._removals:  # the pod has come back
            await self._removals[uid].wait()
        self._count(pod)
        try:
            path = _path(pod_cgroup_name(pod, settings), settings)
            self._made[uid] = await asyncio.to_thread(self._ensure_pod, settings, path, limits, keeps_limits)
        except OSError as error:
            raise SyncError("FailedCreatePodContainer", f"unable to ensure pod container exists: {error}") from error

    def limits_of(self, pod_uid: str) -> CgroupLimits:
        """The limits that the pod's cgroup has, as far as they are known here."""
        return self._made.get(pod_uid, CgroupLimits())

    async def update_pod(self, pod: core_v1.Pod, step: CgroupLimits, after: CgroupLimits) -> None:
        """Writes `step`; from then on the cgroup has the limits `after`."""
        settings, uid = self._settings(), pods.uid_of(pod)
        if settings.cgroups_per_qos:
            self._count(pod)
            path = _path(pod_cgroup_name(pod, settings), settings)
            try:
                await asyncio.to_thread(self._ensure, settings, path, step)
            except OSError as error:
                raise SyncError("ResizeError", f"the pod's cgroup cannot be changed: {error}") from error
        self._made[uid] = after

    async def memory_usage(self, pod: core_v1.Pod, container_ids: Sequence[str]) -> MemoryUsage | None:
        """How much memory the pod and its containers use now; None where the cgroups are not kept here."""
        settings = self._settings()
        if not settings.cgroups_per_qos:
            return None
        path = _path(pod_cgroup_name(pod, settings), settings)
        return await asyncio.to_thread(self._memory_usage, self._trees[settings.driver], path, container_ids)

    async def remove_pod(self, pod: core_v1.Pod) -> None:
        """Removes the pod's cgroup with what is below it; again is fine."""
        settings, uid = self._settings(), pods.uid_of(pod)
        self._made.pop(uid, None)
        self._requests.pop(uid, None)
        if not settings.cgroups_per_qos:
            return
        try:
            await asyncio.to_thread(self._remove, settings, _path(pod_cgroup_name(pod, settings), settings))
        except OSError as error:
            raise SyncError("FailedKillPod", f"the pod's cgroup cannot be removed: {error}") from error

    async def remove_orphans(self, is_known: Callable[[str], bool]) -> None:
        """Removes the cgroups of pods that nobody knows, such as those of a life before this one.

        `is_known` is asked of each when its cgroup has been seen, just before the removal.
        """
        settings = self._settings()
        if not settings.cgroups_per_qos:
            return
        for uid, path in await asyncio.to_thread(self._find_pods, settings):
            if is_known(uid):
                continue
            log.info("orphaned_pod_cgroup_removed", pod_uid=uid, cgroup=path)
            over = self._removals[uid] = asyncio.Event()
            try:
                await asyncio.to_thread(self._trees[settings.driver].remove, path)
            except OSError as error:  # a process that cannot end keeps its cgroup, and no other's
                log.warning("orphaned_pod_cgroup_stays", pod_uid=uid, cgroup=path, error=str(error))
            finally:
                del self._removals[uid]
                over.set()

    def _count(self, pod: core_v1.Pod) -> None:
        """The class has the sum of its pods' requests."""
        self._requests[pods.uid_of(pod)] = qos_requests_of(pod)

    # Blocking, run in threads

    def _ensure_pod(
        self, settings: CgroupSettings, path: str, limits: CgroupLimits, keeps_limits: bool
    ) -> CgroupLimits:
        found = self._trees[settings.driver].limits(path) if keeps_limits else None
        self._ensure(settings, path, limits if found is None else None)
        return limits if found is None else adopted_limits(found, limits, unified=settings.unified)

    def _ensure(self, settings: CgroupSettings, path: str, limits: CgroupLimits | None) -> None:
        self._sync_classes(settings)
        self._trees[settings.driver].ensure(path, limits)

    @staticmethod
    def _memory_usage(tree: Tree, path: str, container_ids: Sequence[str]) -> MemoryUsage:
        found: dict[str, int | None] = {}
        for child in tree.children(path):
            for container_id in container_ids:
                if container_id in child:  # runtimes put words around the id
                    found[container_id] = tree.memory_usage_bytes(f"{path}/{child}")
        return MemoryUsage(tree.memory_usage_bytes(path), found)

    def _remove(self, settings: CgroupSettings, path: str) -> None:
        self._trees[settings.driver].remove(path)
        if self._class_limits:
            self._sync_classes(settings)

    def _sync_classes(self, settings: CgroupSettings) -> None:
        """The cgroup of all pods and those of the two lower classes, as they should be now."""
        with self._classes:  # what is computed last is written last
            # what all pods together may use is set by managers.node_allocatable
            for qos_class, limits in compute_class_limits(dict(self._requests), settings).items():
                if self._class_limits.get(qos_class) != limits:
                    self._trees[settings.driver].ensure(_path(qos_cgroup_name(qos_class, settings), settings), limits)
                    self._class_limits[qos_class] = limits

    def _find_pods(self, settings: CgroupSettings) -> list[tuple[str, str]]:
        """UID and path of each pod's cgroup that there is."""
        found = []
        for qos_class in QosClass:
            parent = _path(qos_cgroup_name(qos_class, settings), settings)
            for name in self._trees[settings.driver].children(parent):
                uid = pod_uid_of_cgroup(name, settings.driver)
                if uid is not None:
                    found.append((uid, f"{parent}/{name}"))
        return found


def _path(name: CgroupName, settings: CgroupSettings) -> str:
    return cgroup_path(name, settings.driver)
