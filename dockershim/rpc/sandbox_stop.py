"""StopPodSandbox and RemovePodSandbox: each can be repeated, and a sandbox nobody knows is a success.

Both go to their end when the caller goes away: half of a stop helps nobody. Upstream counterpart: cri-dockerd's
core/sandbox_stop.go and sandbox_remove.go.
"""

from __future__ import annotations

from cri_proto import runtime_v1 as cri
from dockershim.lifecycle import Lifecycle
from dockershim.node import Node
from dockershim.translate.views import SandboxView


class SandboxStop:
    """The handlers."""

    def __init__(self, node: Node, lifecycle: Lifecycle) -> None:
        self._node = node
        self._lifecycle = lifecycle

    async def stop_pod_sandbox(self, request: cri.StopPodSandboxRequest) -> cri.StopPodSandboxResponse:
        """See CRI."""
        view = self._node.store.sandbox(request.pod_sandbox_id)
        if view is not None and self._has_work(view):
            await self._node.tasks.complete(self._stop(view), f"stop sandbox {view.name}")
        return cri.StopPodSandboxResponse()

    def _has_work(self, view: SandboxView) -> bool:
        record = view.record
        connected = not view.host_network and record is not None and not record.network_torn_down
        return view.running or connected or any(member.running for member in self._node.store.members(view.id))

    async def _stop(self, view: SandboxView) -> None:
        async with self._node.feeder.claim(view.name):
            current = self._node.store.sandboxes.get(view.id)
            if current is not None:
                await self._lifecycle.stop_sandbox(current)

    async def remove_pod_sandbox(self, request: cri.RemovePodSandboxRequest) -> cri.RemovePodSandboxResponse:
        """See CRI."""
        view = self._node.store.sandbox(request.pod_sandbox_id)
        if view is not None:
            await self._node.tasks.complete(self._remove(view), f"remove sandbox {view.name}")
        return cri.RemovePodSandboxResponse()

    async def _remove(self, view: SandboxView) -> None:
        async with self._node.feeder.claim(view.name):
            current = self._node.store.sandboxes.get(view.id)
            if current is not None:
                await self._lifecycle.remove_sandbox(current)
