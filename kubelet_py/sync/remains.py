"""Removes what has ended from the runtime: a container that a new one follows, or all that a pod has left.

Upstream counterpart: removeContainer and evictSandboxes in kuberuntime_gc.go. Difference: a pod that was deleted leaves
soon and not with the next collection of garbage, but only when the runtime has nothing better to do: where many
pods are replaced at once, the new ones need not wait for what the old ones have left.
"""

import asyncio
import contextlib
from typing import Final

from kubelet_py.cri import RuntimeClient
from kubelet_py.errors import RuntimeNotFound
from kubelet_py.sync.start_gate import Rank, StartGate

GIVE_WAY_SECONDS: Final = 30.0
"""How long what a pod has left lies at the most while others wait for the runtime."""


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
        await self._gate.wait_until_idle(GIVE_WAY_SECONDS)
        async with self._gate.place(Rank.REMOVAL):
            sandboxes, containers = await asyncio.gather(
                self._client.list_pod_sandboxes(pod_uid), self._client.list_containers(pod_uid)
            )
            for container in containers:
                await self.remove_container(container.id)
            for sandbox in sandboxes:
                with contextlib.suppress(RuntimeNotFound):
                    await self._client.remove_pod_sandbox(sandbox.id)
