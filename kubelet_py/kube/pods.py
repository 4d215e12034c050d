"""The API source of pods: the pods bound to this node, as full sets.

Starts when the node object exists, so that admission has labels and taints to look at. Every change gives the whole
set again (references, no copies), and says what is new in it.

Upstream counterpart: pkg/kubelet/config/apiserver.go.
"""

import asyncio
from collections.abc import Callable

import structlog

from kubelet_py.api import core_v1
from kubelet_py.api.pod import SOURCE_API, PodUid, uid_of
from kubelet_py.core.source_merge import PodSet
from kubelet_py.kube.client import ApiClient, EventKind, Query
from kubelet_py.kube.resources import PODS
from kubelet_py.kube.watch import Reflector

log = structlog.get_logger()

PodSetCallback = Callable[[PodSet], None]
"""Called with all pods of the source, and what is new."""


class ApiPodSource:
    """Runs until cancelled; `deliver` gets every set."""

    def __init__(
        self, client: ApiClient, node_name: str, node_registered: asyncio.Event, deliver: PodSetCallback
    ) -> None:
        self._node_registered = node_registered
        self._deliver = deliver
        self._pods: dict[PodUid, core_v1.Pod] = {}
        self._reflector = Reflector(client, PODS, self, Query(field_selector=f"spec.nodeName={node_name}"))

    async def run(self) -> None:
        """Wait for the node, then follow its pods."""
        await self._node_registered.wait()
        await self._reflector.run()

    def on_replace(self, objects: list[core_v1.Pod]) -> None:
        """Sink of the reflector."""
        self._pods = {uid_of(pod): pod for pod in objects}
        log.info("api_pods_listed", pods=len(self._pods))
        self._emit()

    def on_event(self, kind: EventKind, changed: core_v1.Pod) -> None:
        """Sink of the reflector."""
        uid = uid_of(changed)
        if kind is EventKind.DELETED:
            self._pods.pop(uid, None)
            self._emit(changed={}, last_words=(changed,))
        else:
            self._pods[uid] = changed
            self._emit(changed={uid: changed})

    def _emit(self, changed: dict[PodUid, core_v1.Pod] | None = None, last_words: tuple[core_v1.Pod, ...] = ()) -> None:
        self._deliver(PodSet(SOURCE_API, tuple(self._pods.values()), last_words=last_words, changed=changed))
