"""Looks at one pod in the runtime: two lists, then the status of each sandbox and container that may have changed.

The status of a container that ended is kept until the list shows it running, so that a pod with a long history costs
no more calls than a young one. That of a sandbox changes with its state, which the list tells, and is kept as long.
Upstream counterpart: kubeGenericRuntimeManager.GetPodStatus, which asks for every status each time.
"""

import asyncio
import time
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from typing import Any

from cri_proto import runtime_v1 as cri
from kubelet_py.core.cri_observation import observe_pod, observe_sandbox
from kubelet_py.core.observed import ObservedPod, ObservedSandbox
from kubelet_py.core.pleg_diff import PodRecord, pod_records, record_of
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
        self._sandboxes: dict[str, dict[str, cri.PodSandboxStatus]] = {}

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
        sandboxes = await asyncio.gather(*(self._sandbox_status(pod_uid, item) for item in sandbox_list))
        containers = await asyncio.gather(*(self._container_status(pod_uid, item) for item in container_list))
        # As the lists have it and not the statuses: a state that a runtime shows in two ways would be news for ever.
        self._learn(pod_records(sandbox_list, container_list).get(pod_uid, PodRecord(pod_uid)))
        sandbox_ids = {item.id: item.pod_sandbox_id for item in container_list}
        return self._observed(pod_uid, sandboxes, containers, sandbox_ids, now_ns)

    def _observed(
        self,
        pod_uid: str,
        sandboxes: Iterable[cri.PodSandboxStatus | None],
        containers: Iterable[cri.ContainerStatus | None],
        sandbox_ids: Mapping[str, str],
        now_ns: int,
    ) -> ObservedPod:
        """The answers as one; None is gone."""
        observed = observe_pod(
            pod_uid,
            [status for status in sandboxes if status is not None],
            [status for status in containers if status is not None],
            now_ns,
            sandbox_ids,
        )
        _keep_only(self._ended, pod_uid, {container.id for container in observed.containers})
        _keep_only(self._sandboxes, pod_uid, {sandbox.id for sandbox in observed.sandboxes})
        return observed

    async def observe_again(self, before: ObservedPod) -> ObservedPod:
        """What there was of a pod, now; for when nothing can have come since. Spares the runtime two lists."""
        sandboxes = asyncio.gather(*(self._ask_for_sandbox(before.uid, sandbox.id) for sandbox in before.sandboxes))
        return await self._observe_known(before.uid, sandboxes, _sandbox_ids(before))

    async def observe_started(self, before: ObservedPod, sandbox_id: str, started: Iterable[str]) -> ObservedPod:
        """What there was of a pod, and the containers that were just started in a sandbox. Spares the runtime the list
        of containers; that of sandboxes tells for one call whether all of them are as they were."""
        sandbox_ids = _sandbox_ids(before) | dict.fromkeys(started, sandbox_id)
        return await self._observe_known(before.uid, self._list_sandboxes(before.uid), sandbox_ids)

    async def _observe_known(
        self,
        pod_uid: str,
        sandboxes: Awaitable[Sequence[cri.PodSandboxStatus | None]],
        sandbox_ids: Mapping[str, str],
    ) -> ObservedPod:
        """`sandbox_ids`: of each container that is known."""
        now_ns = self._clock_ns()
        answers, containers = await asyncio.gather(
            sandboxes,
            asyncio.gather(*(self._last_container_status(pod_uid, container_id) for container_id in sandbox_ids)),
        )
        observed = self._observed(pod_uid, answers, containers, sandbox_ids, now_ns)
        self._learn(record_of(observed))
        return observed

    async def _list_sandboxes(self, pod_uid: str) -> Sequence[cri.PodSandboxStatus | None]:
        listed = await self._client.list_pod_sandboxes(pod_uid)
        return await asyncio.gather(*(self._sandbox_status(pod_uid, item) for item in listed))

    async def observe_sandbox(self, pod_uid: str, sandbox_id: str) -> ObservedSandbox:
        """A sandbox that was just made; raises RuntimeCallError."""
        return observe_sandbox(await self._status_of_sandbox(pod_uid, sandbox_id))

    def forget(self, pod_uid: str) -> None:
        """Drops what is kept of a pod that is gone."""
        self._ended.pop(pod_uid, None)
        self._sandboxes.pop(pod_uid, None)

    async def _sandbox_status(self, pod_uid: str, item: cri.PodSandbox) -> cri.PodSandboxStatus | None:
        kept = self._sandboxes.get(pod_uid, {}).get(item.id)
        if kept is not None and kept.state == item.state:
            return kept
        return await self._ask_for_sandbox(pod_uid, item.id)

    async def _ask_for_sandbox(self, pod_uid: str, sandbox_id: str) -> cri.PodSandboxStatus | None:
        try:
            return await self._status_of_sandbox(pod_uid, sandbox_id)
        except RuntimeNotFound:
            return None

    async def _status_of_sandbox(self, pod_uid: str, sandbox_id: str) -> cri.PodSandboxStatus:
        status = (await self._client.pod_sandbox_status(sandbox_id)).status
        # A runtime that could not tell the address this time may know it the next.
        is_whole = status.network.ip or status.linux.namespaces.options.network == cri.NODE
        if is_whole or status.state != cri.SANDBOX_READY:
            self._sandboxes.setdefault(pod_uid, {})[sandbox_id] = status
        return status

    async def _container_status(self, pod_uid: str, item: cri.Container) -> cri.ContainerStatus | None:
        if item.state == cri.CONTAINER_RUNNING:  # somebody may have started it again: `docker restart`
            self._ended.get(pod_uid, {}).pop(item.id, None)
        return await self._last_container_status(pod_uid, item.id)

    async def _last_container_status(self, pod_uid: str, container_id: str) -> cri.ContainerStatus | None:
        ended = self._ended.setdefault(pod_uid, {})
        kept = ended.get(container_id)
        if kept is not None:
            return kept
        try:
            status = await self._client.container_status(container_id)
        except RuntimeNotFound:
            return None
        if status.state == cri.CONTAINER_EXITED:
            ended[container_id] = status
        return status


def _sandbox_ids(observed: ObservedPod) -> dict[str, str]:
    """Of each container the sandbox."""
    return {container.id: container.sandbox_id for container in observed.containers}


def _keep_only(kept: Mapping[str, dict[str, Any]], pod_uid: str, present: set[str]) -> None:
    """Drops what the runtime has no more of one pod."""
    of_pod = kept.get(pod_uid, {})
    for gone in of_pod.keys() - present:
        del of_pod[gone]
