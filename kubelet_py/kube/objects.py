"""ConfigMaps, Secrets and Services that pods of this node refer to, kept by watches.

One watch per referenced ConfigMap or Secret, shared by all pods that refer to it and ended with the last of them (the
node may not list them all). A watch that nobody asked for longer than pods are re-synced sleeps until somebody does; an
immutable object is watched no longer. Services are one list for the node.

Upstream counterpart: pkg/kubelet/util/manager, configmap and secret managers. Differences: the pods that refer to an
object are told when it changes, and do not find out at their next re-sync; at most `MAX_WATCHES` at a time (each is a
TLS connection of its own over HTTP/1.1), beyond that an object is read again when it is older than `CACHE_SECONDS`; an
object that no registered pod refers to is simply read.
"""

import asyncio
import random
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, Final, Generic, NamedTuple, TypeVar

import structlog

from kubelet_py.api import core_v1
from kubelet_py.errors import ApiError, ApiNotFound, ApiUnavailable
from kubelet_py.kube.backoff import Backoff
from kubelet_py.kube.client import ApiClient, EventKind, Query
from kubelet_py.kube.resources import CONFIG_MAPS, SECRETS, SERVICES, Resource
from kubelet_py.kube.watch import LONGEST_PAUSE_SECONDS, Reflector

log = structlog.get_logger()

T = TypeVar("T")

MAX_WATCHES: Final = 64
CACHE_SECONDS: Final = 60.0
IDLE_SECONDS: Final = 150.0  # a pod asks at each re-sync, 60 to 90 s apart
IDLE_CHECK_SECONDS: Final = 30.0
FIRST_LIST_SECONDS: Final = 10.0
FIRST_PAUSE_SECONDS: Final = 0.05


class Strategy(StrEnum):
    """configMapAndSecretChangeDetectionStrategy."""

    WATCH = "Watch"
    CACHE = "Cache"
    GET = "Get"


class ObjectKey(NamedTuple):
    """Which object."""

    namespace: str
    name: str


@dataclass(slots=True, eq=False)
class _Item(Generic[T]):
    """One referenced object. Also the sink of its watch."""

    key: ObjectKey
    changed: Callable[[ObjectKey], None]
    references: int = 0
    value: T | None = None
    fetched_at: float = float("-inf")
    asked_at: float = 0.0
    watch: "asyncio.Task[None] | None" = None
    synced: asyncio.Event = field(default_factory=asyncio.Event)
    failure: ApiError | None = None

    def on_replace(self, objects: list[T]) -> None:
        self._set(objects[0] if objects else None)
        self.synced.set()

    def on_event(self, kind: EventKind, changed: T) -> None:
        self._set(None if kind is EventKind.DELETED else changed)

    def _set(self, value: T | None) -> None:
        before, self.value = self.value, value
        if self.synced.is_set() and _version(before) != _version(value):
            self.changed(self.key)

    @property
    def must_be_new(self) -> bool:
        """A pod came since the object was read; until the server answers, only pods of before could make do."""
        return self.fetched_at == float("-inf")

    @property
    def is_immutable(self) -> bool:
        return bool(getattr(self.value, "immutable", False))

    def stop(self) -> None:
        if self.watch is not None:
            self.watch.cancel()
            self.watch = None


class ObjectStore(Generic[T]):
    """The objects of one kind. `run` owns the watches; `get` works with or without it."""

    def __init__(
        self,
        client: ApiClient,
        resource: Resource[T],
        *,
        strategy: Strategy = Strategy.WATCH,
        on_change: Callable[[str, str], None] = lambda pod_uid, stimulus: None,
        max_watches: int = MAX_WATCHES,
    ) -> None:
        """`on_change` is told of each pod that refers to a watched object when it changed, came or went."""
        self._client = client
        self._resource = resource
        self._strategy = strategy
        self._on_change = on_change
        self._max_watches = max_watches
        self._items: dict[ObjectKey, _Item[T]] = {}
        self._pods: dict[str, frozenset[ObjectKey]] = {}
        self._tasks: asyncio.TaskGroup | None = None

    def register(self, pod_uid: str, keys: Iterable[ObjectKey]) -> None:
        """This pod refers to these, and to no others from now on."""
        now, before = frozenset(keys), self._pods.get(pod_uid, frozenset())
        self._pods[pod_uid] = now
        for key in now - before:
            item = self._items.get(key)
            if item is None:
                item = self._items[key] = _Item(key, self._tell_pods, asked_at=_now())
            item.references += 1
            item.fetched_at = float("-inf")  # a pod begins with what is there now
        self._release(before - now)

    def unregister(self, pod_uid: str) -> None:
        """The pod is gone."""
        self._release(self._pods.pop(pod_uid, frozenset()))

    async def get(self, namespace: str, name: str) -> T:
        """The object; ApiNotFound when there is none, ApiUnavailable when the server does not say in time."""
        item = self._items.get(ObjectKey(namespace, name))
        if item is None or self._strategy is Strategy.GET:
            return await self._client.get(self._resource, name, namespace, cached=True)
        item.asked_at = _now()
        if item.is_immutable and item.value is not None:
            return item.value
        if self._strategy is Strategy.WATCH and self._ensure_watch(item):
            return await self._watched(item)
        return await self._read(item)

    async def run(self) -> None:
        """Hold the watches until cancelled."""
        async with asyncio.TaskGroup() as tasks:
            self._tasks = tasks
            try:
                while True:
                    await asyncio.sleep(IDLE_CHECK_SECONDS)
                    self._rest_idle()
            finally:
                self._tasks = None

    @property
    def watches(self) -> int:
        """How many watches are open."""
        return sum(item.watch is not None for item in self._items.values())

    def _ensure_watch(self, item: _Item[T]) -> bool:
        if item.watch is not None and not item.watch.done():
            return True
        if self._tasks is None or self.watches >= self._max_watches:
            return False
        item.synced.clear()
        query = Query(item.key.namespace, field_selector=f"metadata.name={item.key.name}")
        # The node authorizer may learn of a pod a moment after we do: the first tries follow each other quickly.
        backoff = Backoff(FIRST_PAUSE_SECONDS, LONGEST_PAUSE_SECONDS, random=random.random)
        reflector = Reflector(self._client, self._resource, item, query, backoff=backoff)
        name = f"watch-{self._resource.plural}-{item.key.namespace}-{item.key.name}"
        item.watch = self._tasks.create_task(reflector.run(), name=name)
        return True

    async def _read(self, item: _Item[T]) -> T:
        if item.value is not None and _now() - item.fetched_at <= CACHE_SECONDS:
            return item.value
        try:
            item.value = await self._client.get(self._resource, item.key.name, item.key.namespace, cached=True)
        except ApiNotFound:
            item.value = None
            raise
        except ApiError as error:
            if item.value is None or item.must_be_new:
                raise
            log.debug("object_not_read_again", object=f"{item.key.namespace}/{item.key.name}", error=str(error))
            return item.value
        item.fetched_at = _now()
        return item.value

    async def _watched(self, item: _Item[T]) -> T:
        try:
            async with asyncio.timeout(FIRST_LIST_SECONDS):
                await item.synced.wait()
        except TimeoutError:
            if item.value is not None:
                return item.value  # from before the watch slept
            raise ApiUnavailable(
                0,
                "Timeout",
                f"{self._singular} {item.key.name!r} in {item.key.namespace!r}: the API server did not say",
            ) from None
        if item.value is None:
            raise ApiNotFound(404, "NotFound", f'{self._singular} "{item.key.name}" not found')
        if item.is_immutable:
            item.stop()
        return item.value

    @property
    def _singular(self) -> str:
        return self._resource.plural.removesuffix("s")

    def _tell_pods(self, key: ObjectKey) -> None:
        stimulus = f"{self._singular} {key.name} changed"
        for pod_uid in [uid for uid, keys in self._pods.items() if key in keys]:
            self._on_change(pod_uid, stimulus)

    def _release(self, keys: Iterable[ObjectKey]) -> None:
        for key in keys:
            item = self._items[key]
            item.references -= 1
            if item.references == 0:
                item.stop()
                del self._items[key]

    def _rest_idle(self) -> None:
        for item in self._items.values():
            if item.watch is not None and _now() - item.asked_at > IDLE_SECONDS:
                item.stop()


def config_maps(client: ApiClient, **options: Any) -> ObjectStore[core_v1.ConfigMap]:
    """The store of ConfigMaps."""
    return ObjectStore(client, CONFIG_MAPS, **options)


def secrets(client: ApiClient, **options: Any) -> ObjectStore[core_v1.Secret]:
    """The store of Secrets."""
    return ObjectStore(client, SECRETS, **options)


class ServiceStore:
    """All services with a cluster IP, for the environment of containers."""

    def __init__(self, client: ApiClient) -> None:
        self._services: dict[ObjectKey, core_v1.Service] = {}
        self._reflector = Reflector(client, SERVICES, self, Query(field_selector="spec.clusterIP!=None"))

    @property
    def synced(self) -> asyncio.Event:
        """Set once the first list is there; pods that are not static wait for it."""
        return self._reflector.synced

    async def run(self) -> None:
        """Watch until cancelled."""
        await self._reflector.run()

    def services(self, *namespaces: str) -> list[core_v1.Service]:
        """The services of these namespaces, by namespace and name."""
        chosen = [(key, service) for key, service in self._services.items() if key.namespace in namespaces]
        return [service for _, service in sorted(chosen, key=lambda pair: pair[0])]

    def on_replace(self, objects: list[core_v1.Service]) -> None:
        """Sink of the watch."""
        self._services = {_key(service): _trimmed(service) for service in objects}

    def on_event(self, kind: EventKind, changed: core_v1.Service) -> None:
        """Sink of the watch."""
        if kind is EventKind.DELETED:
            self._services.pop(_key(changed), None)
        else:
            self._services[_key(changed)] = _trimmed(changed)


def _key(service: core_v1.Service) -> ObjectKey:
    metadata = service.metadata
    return ObjectKey((metadata and metadata.namespace) or "", (metadata and metadata.name) or "")


def _trimmed(service: core_v1.Service) -> core_v1.Service:
    """Without what no environment variable is made of: a cluster may have thousands."""
    if service.metadata is not None:
        service.metadata.annotations = service.metadata.labels = None
    service.status = None
    return service


def _version(value: Any) -> str | None:
    metadata = getattr(value, "metadata", None)
    return metadata.resourceVersion if metadata is not None else None


def _now() -> float:
    return asyncio.get_running_loop().time()
