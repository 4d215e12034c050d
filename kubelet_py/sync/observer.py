"""Looks at one pod in the runtime: two lists, then the status of each sandbox and container that may have changed.

The status of a container that ended never changes again and is kept, so that a pod with a long history costs no more
calls than a young one. Upstream counterpart: kubeGenericRuntimeManager.GetPodStatus.
"""

import asyncio
import time
from collections.abc import Callable

from cri_proto import runtime_v1 as cri
from kubelet_py.core.cri_observation import observe_pod
from kubelet_py.core.observed import ObservedPod
from kubelet_py.core.pleg_diff import PodRecord, pod_records
from kubelet_py.cri import RuntimeClient
from kubelet_py.errors import RuntimeNotFound


class PodObserver:
    """Makes ObservedPods. `learn` hears of every record seen, so that the PLEG does not report it again.

    `knows` says whether the last list of everything, or a look since, has shown anything of a pod.
    """

    def __init__(
        self,
        client: RuntimeClient,
        learn: Callable[[PodRecord], None],
        clock_ns: Callable[[], int] = time.time_ns,
        knows: Callable[[str], bool] = lambda pod_uid: True,
    ) -> None:
        self._client = client
        self._learn = learn
        self._clock_ns = clock_ns
        self._knows = knows
        self._ended: dict[str, dict[str, cri.ContainerStatus]] = {}

    async def observe_new(self, pod_uid: str) -> ObservedPod:
        """A pod for which this agent has done nothing yet: the runtime is asked only when it has something of it."""
        if self._knows(pod_uid):
            return await self.observe(pod_uid)
        return ObservedPod(pod_uid, observed_at_ns=self._clock_ns())

    async def observe(self, pod_uid: str) -> ObservedPod:
        """The pod now; raises RuntimeCallError. What vanishes between list and status is left out."""
        now_ns = self._clock_ns()
        sandbox_list, container_list = await asyncio.gather(
            self._client.list_pod_sandboxes(pod_uid), self._client.list_containers(pod_uid)
        )
        sandboxes = await asyncio.gather(*(self._sandbox_status(sandbox.id) for sandbox in sandbox_list))
        containers = await asyncio.gather(*(self._container_status(pod_uid, item) for item in container_list))
        record = pod_records(sandbox_list, container_list).get(pod_uid, PodRecord(pod_uid))
        self._learn(record)
        present = {item.id for item in container_list}
        ended = self._ended.get(pod_uid)
        if ended is not None:
            for container_id in ended.keys() - present:
                del ended[container_id]
        return observe_pod(
            pod_uid,
            [status for status in sandboxes if status is not None],
            [status for status in containers if status is not None],
            now_ns,
            record.sandbox_ids,
        )

    def forget(self, pod_uid: str) -> None:
        """Drops what is kept of a pod that is gone."""
        self._ended.pop(pod_uid, None)

    async def _sandbox_status(self, sandbox_id: str) -> cri.PodSandboxStatus | None:
        try:
            return (await self._client.pod_sandbox_status(sandbox_id)).status
        except RuntimeNotFound:
            return None

    async def _container_status(self, pod_uid: str, item: cri.Container) -> cri.ContainerStatus | None:
        ended = self._ended.setdefault(pod_uid, {})
        kept = ended.get(item.id)
        if kept is not None:
            return kept
        try:
            status = await self._client.container_status(item.id)
        except RuntimeNotFound:
            return None
        if status.state == cri.CONTAINER_EXITED:
            ended[item.id] = status
        return status
