"""API objects that a pod refers to: for its environment, its volumes, its pull credentials, its runtime class.

With an API server they come from watched stores; without one (`StandaloneObjects`) there are none, and what a static
pod could ask for was refused at its source.
"""

import asyncio
from collections.abc import Awaitable, Callable, Iterator, Mapping
from typing import Protocol, TypeVar

import structlog

from kubelet_py.api import core_v1
from kubelet_py.api import pod as pods
from kubelet_py.core.env import EnvSources
from kubelet_py.core.pod_certificates import Credentials, SourceKey
from kubelet_py.core.pod_resources import AnyContainer
from kubelet_py.core.trust_bundles import TrustBundle
from kubelet_py.core.volume_payload import PayloadError, TokenAsk
from kubelet_py.errors import ApiError, ApiNotFound, SyncError
from kubelet_py.kube.client import ApiClient
from kubelet_py.kube.objects import ObjectKey, ObjectStore, ServiceStore
from kubelet_py.kube.resources import SERVICE_ACCOUNTS, runtime_classes
from kubelet_py.kube.trust_bundles import TrustBundleStore
from kubelet_py.managers.images import PodSecrets
from kubelet_py.managers.pod_certificates import PodCertificates
from kubelet_py.sync.ports import NodeView

log = structlog.get_logger()

_DEFAULT_NAMESPACE = "default"

T = TypeVar("T")


class TokenSource(Protocol):
    """Service account tokens, cached and refreshed."""

    async def get(self, ask: TokenAsk) -> str:
        """A token that is good for some time still."""

    def forget_pod(self, pod_uid: str) -> None:
        """No token of this pod is asked for again."""


class StandaloneObjects:
    """The PodObjects of a node without an API server."""

    def __init__(self, node: NodeView) -> None:
        self._node = node

    async def env_sources(self, pod: core_v1.Pod, container: AnyContainer, pod_ips: tuple[str, ...]) -> EnvSources:
        """Only what the node itself knows."""
        return EnvSources(
            has_api=False,
            pod_ips=pod_ips,
            host_ips=self._node.host_ips(),
            node_allocatable=dict(self._node.allocatable()),
        )

    async def pull_secrets(self, pod: core_v1.Pod) -> PodSecrets:
        """None; secrets are API objects."""
        return PodSecrets(missing=tuple(_pull_secrets(pod)))

    async def runtime_handler(self, pod: core_v1.Pod) -> str:
        """The default; classes are API objects."""
        name = pods.spec_of(pod).runtimeClassName
        if name:
            raise SyncError("CreatePodSandboxError", f'RuntimeClass "{name}" needs an API server, and there is none')
        return ""

    def watch_pod(self, pod: core_v1.Pod) -> None:
        """Nothing to watch."""

    def forget_pod(self, pod_uid: str) -> None:
        """Nothing to forget."""


class ApiObjects:
    """The PodObjects, and the volumes' sources, of a node with an API server."""

    def __init__(
        self,
        client: ApiClient,
        node: NodeView,
        config_maps: ObjectStore[core_v1.ConfigMap],
        secrets: ObjectStore[core_v1.Secret],
        services: ServiceStore,
        tokens: TokenSource,
        trust_bundles: TrustBundleStore | None = None,
        certificates: PodCertificates | None = None,
    ) -> None:
        """`trust_bundles` and `certificates` are None where the feature is switched off."""
        self._client = client
        self._node = node
        self._config_maps = config_maps
        self._secrets = secrets
        self._services = services
        self._tokens = tokens
        self._trust_bundles = trust_bundles
        self._certificates = certificates
        self._handlers: dict[str, str] = {}

    async def env_sources(self, pod: core_v1.Pod, container: AnyContainer, pod_ips: tuple[str, ...]) -> EnvSources:
        """The ConfigMaps and Secrets that the container names, and the services of its namespace."""
        namespace = pods.metadata_of(pod).namespace or ""
        maps = {name: await self.config_map(namespace, name) for name in sorted(_env_config_maps(container))}
        secrets = {name: await self.secret(namespace, name) for name in sorted(_env_secrets(container))}
        namespaces = dict.fromkeys((_DEFAULT_NAMESPACE, namespace))
        return EnvSources(
            config_maps={name: value for name, value in maps.items() if value is not None},
            secrets={name: value for name, value in secrets.items() if value is not None},
            services=self._services.services(*namespaces),
            services_known=self._services.synced.is_set(),
            pod_ips=pod_ips,
            host_ips=self._node.host_ips(),
            node_allocatable=dict(self._node.allocatable()),
        )

    async def config_map(self, namespace: str, name: str) -> core_v1.ConfigMap | None:
        """One ConfigMap, None when there is none."""
        return await _found(self._config_maps.get, namespace, name)

    async def secret(self, namespace: str, name: str) -> core_v1.Secret | None:
        """One Secret, None when there is none."""
        return await _found(self._secrets.get, namespace, name)

    async def service_account_token(self, ask: TokenAsk) -> str:
        """A token for a projected volume."""
        return await self._tokens.get(ask)

    async def trust_bundles(self) -> Mapping[str, TrustBundle]:
        """All ClusterTrustBundles, by name."""
        if self._trust_bundles is None:
            raise PayloadError("the feature gate ClusterTrustBundleProjection is off")
        return await self._trust_bundles.bundles()

    async def pod_certificate(self, pod_uid: str, key: SourceKey) -> Credentials:
        """What was issued for one source of a pod."""
        if self._certificates is None:
            raise PayloadError("the feature gate PodCertificateRequest is off")
        return await self._certificates.get(pod_uid, key)

    async def service_account(self, namespace: str, name: str) -> core_v1.ServiceAccount:
        """One service account, for a credential plugin."""
        return await self._client.get(SERVICE_ACCOUNTS, name, namespace)

    async def pull_secrets(self, pod: core_v1.Pod) -> PodSecrets:
        """What `imagePullSecrets` names. One that cannot be read is missing: the pull may work without it."""
        found: list[core_v1.Secret] = []
        missing: list[str] = []
        for name in _pull_secrets(pod):
            try:
                found.append(await self._secrets.get(pods.metadata_of(pod).namespace or "", name))
            except ApiError as error:
                log.info("pull_secret_unreadable", pod=pods.display_name(pod), secret=name, error=str(error))
                missing.append(name)
        return PodSecrets(found, tuple(missing))

    async def runtime_handler(self, pod: core_v1.Pod) -> str:
        """The handler of the pod's RuntimeClass; the last that was seen while the API server is away."""
        name = pods.spec_of(pod).runtimeClassName
        if not name:
            return ""
        try:
            self._handlers[name] = (await self._client.get(runtime_classes(), name)).handler
        except ApiNotFound as error:
            message = f'failed to get sandbox runtime: no runtime class for "{name}" is known to the API server'
            raise SyncError("CreatePodSandboxError", message) from error
        except ApiError as error:
            if name not in self._handlers:
                raise SyncError("CreatePodSandboxError", f'failed to get runtime class "{name}": {error}') from error
        return self._handlers[name]

    def watch_pod(self, pod: core_v1.Pod) -> None:
        """Keeps what the pod refers to fresh."""
        uid, namespace = pods.uid_of(pod), pods.metadata_of(pod).namespace or ""
        maps, secrets = set(_volume_config_maps(pod)), {*_volume_secrets(pod), *_pull_secrets(pod)}
        for container in pods.all_containers_of(pod):
            maps.update(_env_config_maps(container))
            secrets.update(_env_secrets(container))
        self._config_maps.register(uid, (ObjectKey(namespace, name) for name in maps))
        self._secrets.register(uid, (ObjectKey(namespace, name) for name in secrets))
        if self._trust_bundles is not None:
            self._trust_bundles.register(uid, _volume_trust_bundles(pod))
        if self._certificates is not None:
            self._certificates.register(pod)

    def forget_pod(self, pod_uid: str) -> None:
        """The pod is gone: its references end."""
        self._config_maps.unregister(pod_uid)
        self._secrets.unregister(pod_uid)
        if self._trust_bundles is not None:
            self._trust_bundles.unregister(pod_uid)
        if self._certificates is not None:
            self._certificates.unregister(pod_uid)
        self._tokens.forget_pod(pod_uid)

    async def run(self) -> None:
        """Holds the watches."""
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._config_maps.run(), name="config-maps")
            tasks.create_task(self._secrets.run(), name="secrets")
            tasks.create_task(self._services.run(), name="services")
            if self._trust_bundles is not None:
                tasks.create_task(self._trust_bundles.run(), name="trust-bundles")
            if self._certificates is not None:
                tasks.create_task(self._certificates.run(), name="pod-certificates")


async def _found(get: Callable[[str, str], Awaitable[T]], namespace: str, name: str) -> T | None:
    try:
        return await get(namespace, name)
    except ApiNotFound:
        return None


def _env_config_maps(container: AnyContainer) -> Iterator[str]:
    for source in container.envFrom or ():
        if source.configMapRef is not None and source.configMapRef.name:
            yield source.configMapRef.name
    for entry in container.env or ():
        if entry.valueFrom is not None and entry.valueFrom.configMapKeyRef is not None:
            yield entry.valueFrom.configMapKeyRef.name or ""


def _env_secrets(container: AnyContainer) -> Iterator[str]:
    for source in container.envFrom or ():
        if source.secretRef is not None and source.secretRef.name:
            yield source.secretRef.name
    for entry in container.env or ():
        if entry.valueFrom is not None and entry.valueFrom.secretKeyRef is not None:
            yield entry.valueFrom.secretKeyRef.name or ""


def _pull_secrets(pod: core_v1.Pod) -> Iterator[str]:
    """The API takes references without a name, which mean nothing."""
    for reference in pods.spec_of(pod).imagePullSecrets or ():
        if reference.name:
            yield reference.name


def _volume_config_maps(pod: core_v1.Pod) -> Iterator[str]:
    for volume in pods.spec_of(pod).volumes or ():
        if volume.configMap is not None:
            yield volume.configMap.name or ""
        for source in (volume.projected.sources or ()) if volume.projected is not None else ():
            if source.configMap is not None:
                yield source.configMap.name or ""


def _volume_secrets(pod: core_v1.Pod) -> Iterator[str]:
    for volume in pods.spec_of(pod).volumes or ():
        if volume.secret is not None:
            yield volume.secret.secretName or ""
        for source in (volume.projected.sources or ()) if volume.projected is not None else ():
            if source.secret is not None:
                yield source.secret.name or ""


def _volume_trust_bundles(pod: core_v1.Pod) -> Iterator[core_v1.ClusterTrustBundleProjection]:
    for volume in pods.spec_of(pod).volumes or ():
        for source in (volume.projected.sources or ()) if volume.projected is not None else ():
            if source.clusterTrustBundle is not None:
                yield source.clusterTrustBundle
