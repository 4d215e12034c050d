"""Removes what has ended from the runtime: a container that a new one follows, or all that a pod has left.

Upstream counterpart: removeContainer and evictSandboxes in kuberuntime_gc.go. Difference: a pod that was deleted leaves
at once and not with the next collection of garbage, but only when the runtime has nothing better to do.
"""

import asyncio
import contextlib

from kubelet_py.cri import RuntimeClient
from kubelet_py.errors import RuntimeNotFound
from kubelet_py.sync.start_gate import Rank, StartGate


class Remains:
    """Raises RuntimeCallError; what is gone already counts as removed."""

    def __init__(self, client: RuntimeClient, gate: StartGate) -> None:
        self._client = client
        self._gate = gate

    async def remove_container(self, container_id: str) -> None:
        """One that does not run."""
        with contextlib.suppress(RuntimeNotFound):
            await self._client.remove_container(container_id)

    async def remove_all(self, pod_uid: str) -> None:
        """Every container and every sandbox of a pod."""
        async with self._gate.place(Rank.REMOVAL):
            sandboxes, containers = await asyncio.gather(
                self._client.list_pod_sandboxes(pod_uid), self._client.list_containers(pod_uid)
            )
            for container in containers:
                await self.remove_container(container.id)
            for sandbox in sandboxes:
                with contextlib.suppress(RuntimeNotFound):
                    await self._client.remove_pod_sandbox(sandbox.id)
