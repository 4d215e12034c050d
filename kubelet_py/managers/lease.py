"""The node's lease: renewed every quarter of its duration, so that the control plane knows the node lives.

Owns one Lease object in kube-node-lease. Goes on during a shutdown of the node. Must not know the node's state: a sick
node has a lease too.

Upstream counterpart: component-helpers apimachinery/lease. Difference: none that others see.
"""

import asyncio
import random
from collections.abc import Callable
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Final

import msgspec
import structlog

from kubelet_py.api import core_v1, meta_v1
from kubelet_py.core.node_rules import NodeSettings
from kubelet_py.errors import ApiAlreadyExists, ApiConflict, ApiError, ApiNotFound
from kubelet_py.kube.backoff import Backoff
from kubelet_py.kube.client import ApiClient
from kubelet_py.kube.resources import leases

if TYPE_CHECKING:
    from kubelet_py.api import coordination_v1

log = structlog.get_logger()

LEASE_NAMESPACE: Final = "kube-node-lease"
RENEW_FRACTION: Final = 0.25
JITTER: Final = 0.04
FAILURES_BEFORE_RECONNECT: Final = 2


class LeaseManager:
    """Runs until cancelled. `client` is the heartbeat client."""

    def __init__(
        self,
        client: ApiClient,
        settings: NodeSettings,
        node: Callable[[], core_v1.Node | None],
        *,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
        random_fraction: Callable[[], float] = random.random,
    ) -> None:
        self._client = client
        self._name = settings.name
        self._duration_seconds = settings.lease_duration_seconds
        self._node = node
        self._now = now
        self._random = random_fraction
        self._latest: coordination_v1.Lease | None = None
        self._failures = 0

    async def run(self) -> None:
        """Renew for ever."""
        backoff = Backoff(0.2, 7.0, jitter=0.0, random=self._random)
        while True:
            try:
                await self._renew()
            except ApiError as error:
                await self._failed(error)
                interval = self._duration_seconds * RENEW_FRACTION
                await asyncio.sleep(min(interval, backoff.next_seconds(asyncio.get_running_loop().time())))
            else:
                self._failures = 0
                backoff.reset()
                await asyncio.sleep(self._duration_seconds * RENEW_FRACTION * (1 + JITTER * self._random()))

    async def _failed(self, error: ApiError) -> None:
        self._failures += 1
        if isinstance(error, ApiConflict | ApiNotFound):
            self._latest = None
        log.debug("lease_not_renewed", lease=self._name, error=str(error), failures=self._failures)
        if self._failures == FAILURES_BEFORE_RECONNECT:
            await self._client.close()  # a connection may be dead without a word; the next try opens a new one

    async def _renew(self) -> None:
        if self._latest is None:
            self._latest = await self._get_or_create()
        resource = leases()
        self._latest = await self._client.update(resource, self._name, self._renewed(self._latest), LEASE_NAMESPACE)

    async def _get_or_create(self) -> "coordination_v1.Lease":
        resource = leases()
        try:
            return await self._client.get(resource, self._name, LEASE_NAMESPACE)
        except ApiNotFound:
            empty = resource.kind(metadata=meta_v1.ObjectMeta(name=self._name, namespace=LEASE_NAMESPACE))
            try:
                return await self._client.create(resource, self._renewed(empty), LEASE_NAMESPACE)
            except ApiAlreadyExists:
                return await self._client.get(resource, self._name, LEASE_NAMESPACE)

    def _renewed(self, lease: "coordination_v1.Lease") -> "coordination_v1.Lease":
        from kubelet_py.api import coordination_v1

        metadata = lease.metadata or meta_v1.ObjectMeta(name=self._name)
        owner = self._owner()
        if owner is not None and not metadata.ownerReferences:
            metadata = msgspec.structs.replace(metadata, ownerReferences=[owner])
        spec = msgspec.structs.replace(
            lease.spec or coordination_v1.LeaseSpec(),
            holderIdentity=self._name,
            leaseDurationSeconds=self._duration_seconds,
            renewTime=_micro_time(self._now()),
        )
        return msgspec.structs.replace(lease, metadata=metadata, spec=spec)

    def _owner(self) -> meta_v1.OwnerReference | None:
        node = self._node()
        if node is None or node.metadata is None or not node.metadata.uid:
            return None
        return meta_v1.OwnerReference(apiVersion="v1", kind="Node", name=self._name, uid=node.metadata.uid)


def _micro_time(moment: datetime) -> datetime:
    """As metav1.MicroTime wants it: six digits always, which the encoder writes unless they are all zero."""
    moment = moment.astimezone(UTC)
    return moment if moment.microsecond else moment.replace(microsecond=1)
