"""Holds the cgroup of all pods, and those of the daemons beside them, to what the node has for each.

Pods of an earlier life may use more than a new limit allows: the kernel then refuses it, and it is tried again until
they have shrunk. A reserved cgroup that is not there is a mistake in the configuration and ends the start.

Upstream counterpart: enforceNodeAllocatableCgroups in pkg/kubelet/cm/node_container_manager_linux.go.
"""

import asyncio
from collections.abc import Callable, Sequence

import structlog

from kubelet_py.core.cgroup_rules import CgroupLimits, CgroupSettings, cgroup_path, node_cgroup_name
from kubelet_py.core.node_allocatable import ReservedCgroup, existing_cgroup_paths
from kubelet_py.errors import ConfigError
from kubelet_py.host.cgroups import CgroupTree, Trees

log = structlog.get_logger()

RETRY_SECONDS = 60.0
ENFORCED = "NodeAllocatableEnforced"
FAILED = "FailedNodeAllocatableEnforcement"

NodeEventSink = Callable[[str, str, str], None]
"""Type, reason and message of an event about the node."""


class NodeAllocatable:
    """`settings` are asked for when the runtime has named its cgroup driver."""

    def __init__(
        self,
        tree: CgroupTree,
        trees: Trees,
        settings: Callable[[], CgroupSettings],
        pods_limits: CgroupLimits,
        reserved: Sequence[ReservedCgroup],
        events: NodeEventSink,
    ) -> None:
        self._tree = tree
        self._trees = trees
        self._settings = settings
        self._pods_limits = pods_limits
        self._reserved = reserved
        self._events = events

    async def enforce_reserved(self) -> None:
        """Once, at the start; ConfigError when a cgroup is not there or refuses."""
        for cgroup in self._reserved:
            try:
                await asyncio.to_thread(self._hold, cgroup)
            except OSError as error:
                message = f'Failed to enforce {cgroup.words} Cgroup Limits on "{cgroup.path}": {error}'
                self._events("Warning", FAILED, message)
                raise ConfigError(message) from error
            name = cgroup.title.lower()
            self._events("Normal", ENFORCED, f"Updated limits on {name} reserved cgroup {cgroup.path}")

    async def enforce_pods(self) -> None:
        """Until it works."""
        settings = self._settings()
        if not settings.cgroups_per_qos:
            return
        path = cgroup_path(node_cgroup_name(settings), settings.driver)
        has_failed = False
        while True:
            try:
                await asyncio.to_thread(self._trees[settings.driver].ensure, path, self._pods_limits)
            except OSError as error:
                self._events("Warning", FAILED, f'Failed to update Node Allocatable Limits "{path}": {error}')
                if not has_failed:
                    log.warning("node_allocatable_not_enforced", cgroup=path, error=str(error))
                has_failed = True
                await asyncio.sleep(RETRY_SECONDS)
                continue
            self._events("Normal", ENFORCED, "Updated Node Allocatable limit across pods")
            return

    def _hold(self, cgroup: ReservedCgroup) -> None:
        driver = self._settings().driver
        for path in existing_cgroup_paths(cgroup.path, driver):
            if self._tree.exists(path):
                self._trees[driver].update(path, cgroup.limits)
                return
        raise FileNotFoundError(f"there is no cgroup {cgroup.path or 'named'}: make it before the kubelet starts")
