"""The cgroups of pods: made with their limits before the sandbox, removed after the last container.

Owns when; what the limits are says `core.cgroup_rules`, how they are written `host.cgroups`. With the systemd driver
the runtime asks systemd for the slices and this agent writes nothing.
Upstream counterpart: pkg/kubelet/cm/pod_container_manager_linux.go and qos_container_manager_linux.go.
"""

import asyncio
from collections.abc import Callable

import structlog

from kubelet_py.api import core_v1
from kubelet_py.api import pod as pods
from kubelet_py.core.cgroup_rules import (
    CgroupDriver,
    CgroupLimits,
    CgroupName,
    CgroupSettings,
    cgroup_path,
    compute_pod_limits,
    node_cgroup_name,
    pod_cgroup_name,
    qos_cgroup_name,
)
from kubelet_py.core.qos import QosClass
from kubelet_py.errors import SyncError
from kubelet_py.host.cgroups import CgroupTree

log = structlog.get_logger()

SMALLEST_CPU_SHARES = 2


class PodCgroups:
    """The CgroupKeeper of the real node. Without cgroups per QoS there is nothing to keep."""

    def __init__(self, tree: CgroupTree, settings: Callable[[], CgroupSettings]) -> None:
        self._tree = tree
        self._settings = settings
        self._made: set[str] = set()
        self._has_classes = False

    async def ensure_pod(self, pod: core_v1.Pod) -> None:
        """The pod's cgroup; SyncError("FailedCreatePodContainer") when the kernel refuses."""
        settings, uid = self._settings(), pods.uid_of(pod)
        if not self._is_ours(settings) or uid in self._made:
            return
        try:
            if not self._has_classes:
                await asyncio.to_thread(self._make_classes, settings)
                self._has_classes = True
            path = _path(pod_cgroup_name(pod, settings))
            await asyncio.to_thread(self._tree.ensure, path, compute_pod_limits(pod, settings))
        except OSError as error:
            raise SyncError("FailedCreatePodContainer", f"unable to ensure pod container exists: {error}") from error
        self._made.add(uid)

    async def remove_pod(self, pod: core_v1.Pod) -> None:
        """Removes the pod's cgroup with what is below it; again is fine."""
        settings = self._settings()
        self._made.discard(pods.uid_of(pod))
        if not self._is_ours(settings):
            return
        try:
            await asyncio.to_thread(self._tree.remove, _path(pod_cgroup_name(pod, settings)))
        except OSError as error:
            raise SyncError("FailedKillPod", f"the pod's cgroup cannot be removed: {error}") from error

    @staticmethod
    def _is_ours(settings: CgroupSettings) -> bool:
        return settings.cgroups_per_qos and settings.driver is CgroupDriver.CGROUPFS

    def _make_classes(self, settings: CgroupSettings) -> None:
        """The cgroup of all pods and those of the two lower classes. Blocking."""
        self._tree.ensure(_path(node_cgroup_name(settings)))
        for qos_class in (QosClass.BURSTABLE, QosClass.BEST_EFFORT):
            self._tree.ensure(_path(qos_cgroup_name(qos_class, settings)), CgroupLimits(cpu_shares=SMALLEST_CPU_SHARES))
        log.debug("qos_cgroups_made", root=_path(node_cgroup_name(settings)))


def _path(name: CgroupName) -> str:
    return cgroup_path(name, CgroupDriver.CGROUPFS)
