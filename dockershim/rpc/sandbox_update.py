"""UpdatePodSandboxResources: what the kubelet has given the pod becomes part of what is known of its sandbox.

The kubelet has changed the pod's cgroup already when it calls, and every container is in that cgroup; pause needs and
gets nothing of it. So there is nothing to ask of Docker: the call keeps the sandbox's own configuration true, which a
verbose status shows. Upstream counterpart: CRI-O's server/sandbox_update_resources.go; cri-dockerd has none.
"""

from __future__ import annotations

import dataclasses

from cri_proto import runtime_v1 as cri
from dockershim.errors import FailedPrecondition
from dockershim.lifecycle import Lifecycle
from dockershim.node import Node
from dockershim.translate.views import SandboxView


class SandboxUpdate:
    """The handler."""

    def __init__(self, node: Node, lifecycle: Lifecycle) -> None:
        self._node = node
        self._lifecycle = lifecycle

    async def update_pod_sandbox_resources(
        self, request: cri.UpdatePodSandboxResourcesRequest
    ) -> cri.UpdatePodSandboxResourcesResponse:
        """See CRI."""
        view = self._node.store.require_sandbox(request.pod_sandbox_id)
        await self._node.tasks.complete(self._update(view, request), f"update sandbox {view.name}")
        return cri.UpdatePodSandboxResourcesResponse()

    async def _update(self, view: SandboxView, request: cri.UpdatePodSandboxResourcesRequest) -> None:
        async with self._node.feeder.claim(view.name):
            current = self._node.store.require_sandbox(view.id)
            if not current.ready:
                raise FailedPrecondition(f"sandbox {current.id} is not ready")
            if current.record is None:
                return  # of cri-dockerd, on the node's network: nothing was kept of it, and nothing is shown
            config = cri.PodSandboxConfig()
            config.CopyFrom(current.record.config)
            for part in ("overhead", "resources"):
                if request.HasField(part):
                    getattr(config.linux, part).CopyFrom(getattr(request, part))
            await self._lifecycle.save_record(dataclasses.replace(current.record, config=config))
