"""The cluster's ClusterTrustBundles, while a pod of this node has a volume of any.

One list and one watch for the node: which bundles a signer and labels mean only all of them tell. Both begin with the
first pod that needs a bundle and end with the last, and their types are loaded no earlier. Of each bundle is kept what
volumes are made of, read once.

Upstream counterpart: pkg/kubelet/clustertrustbundle. Differences: pods are told when a bundle of theirs changes, comes
or goes; the watch ends; only certificates.k8s.io/v1 is asked for, which every API server has that may have such a node.
"""

import asyncio
from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING, Final

from kubelet_py.api import core_v1
from kubelet_py.core.trust_bundles import TrustBundle, is_selected, trust_bundle_of
from kubelet_py.errors import ApiUnavailable
from kubelet_py.kube.client import ApiClient, EventKind
from kubelet_py.kube.resources import cluster_trust_bundles
from kubelet_py.kube.watch import Reflector

if TYPE_CHECKING:
    from kubelet_py.api import certificates_v1

FIRST_LIST_SECONDS: Final = 10.0

Sources = tuple[core_v1.ClusterTrustBundleProjection, ...]


class TrustBundleStore:
    """All bundles, for the pods that are registered. `run` owns the watch."""

    def __init__(
        self, client: ApiClient, *, on_change: Callable[[str, str], None] = lambda pod_uid, stimulus: None
    ) -> None:
        """`on_change` is told of each pod that has a volume of a bundle that changed, came or went."""
        self._client = client
        self._on_change = on_change
        self._pods: dict[str, Sources] = {}
        self._bundles: dict[str, TrustBundle] = {}
        self._reflector: Reflector[certificates_v1.ClusterTrustBundle] | None = None
        self._synced = asyncio.Event()
        self._wanted = asyncio.Event()
        self._unwanted = asyncio.Event()

    def register(self, pod_uid: str, sources: Iterable[core_v1.ClusterTrustBundleProjection]) -> None:
        """This pod's volumes are made of these, and of no others from now on."""
        if now := tuple(sources):
            self._pods[pod_uid] = now
        else:
            self._pods.pop(pod_uid, None)
        has_pods = bool(self._pods)
        (self._wanted if has_pods else self._unwanted).set()
        (self._unwanted if has_pods else self._wanted).clear()

    def unregister(self, pod_uid: str) -> None:
        """The pod is gone."""
        self.register(pod_uid, ())

    async def bundles(self) -> Mapping[str, TrustBundle]:
        """All there are, by name; ApiUnavailable when the server does not list them in time."""
        try:
            async with asyncio.timeout(FIRST_LIST_SECONDS):
                await self._synced.wait()
        except TimeoutError:
            problem = self._reflector.problem if self._reflector is not None else None
            why = str(problem) if problem is not None else "the API server did not say in time"
            raise ApiUnavailable(0, "Timeout", why) from None
        return self._bundles

    async def run(self) -> None:
        """Watch whenever a pod needs it, until cancelled."""
        while True:
            await self._wanted.wait()
            self._reflector = Reflector(self._client, cluster_trust_bundles(), self)
            async with asyncio.TaskGroup() as tasks:
                watch = tasks.create_task(self._reflector.run(), name="watch-clustertrustbundles")
                await self._unwanted.wait()
                watch.cancel()
            self._reflector = None
            self._synced.clear()
            self._bundles = {}

    @property
    def is_watching(self) -> bool:
        """Whether a pod keeps the watch open."""
        return self._reflector is not None

    def on_replace(self, objects: "list[certificates_v1.ClusterTrustBundle]") -> None:
        """Sink of the watch."""
        before, self._bundles = self._bundles, {_name(each): trust_bundle_of(each) for each in objects}
        if self._synced.is_set():
            for name in before | self._bundles:
                self._tell_pods(name, before.get(name))
            return
        self._synced.set()
        for pod_uid in list(self._pods):  # who waited too long tries again now
            self._on_change(pod_uid, "the ClusterTrustBundles are known")

    def on_event(self, kind: EventKind, changed: "certificates_v1.ClusterTrustBundle") -> None:
        """Sink of the watch."""
        name = _name(changed)
        before = self._bundles.pop(name, None)
        if kind is not EventKind.DELETED:
            self._bundles[name] = trust_bundle_of(changed)
        self._tell_pods(name, before)

    def _tell_pods(self, name: str, before: TrustBundle | None) -> None:
        now = self._bundles.get(name)
        if before == now:
            return
        versions = [bundle for bundle in (before, now) if bundle is not None]
        for pod_uid, sources in list(self._pods.items()):
            if any(is_selected(source, name, bundle) for source in sources for bundle in versions):
                self._on_change(pod_uid, f"clustertrustbundle {name} changed")


def _name(described: "certificates_v1.ClusterTrustBundle") -> str:
    return (described.metadata and described.metadata.name) or ""
