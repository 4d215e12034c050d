"""The content of file volumes, fetched.

Owns which object is asked for which volume, and what its absence means. The files themselves are
`core.volume_payload`; caches and watches are behind `VolumeSources`.

Upstream counterparts: the SetUp halves of pkg/volume/{configmap,secret,downwardapi,projected}.
"""

from collections.abc import Callable, Coroutine, Iterable, Mapping
from functools import partial
from typing import Protocol, TypeVar

from kubelet_py.api import core_v1
from kubelet_py.api.pod import metadata_of, spec_of, uid_of
from kubelet_py.core import volume_payload as payloads
from kubelet_py.core import volume_plan as plan
from kubelet_py.core.pod_certificates import Credentials, SourceKey, certificate_files
from kubelet_py.core.trust_bundles import TrustBundle, trust_anchors
from kubelet_py.core.volume_payload import NodeFacts, Payload, PayloadError, TokenAsk
from kubelet_py.core.volume_plan import PlanError
from kubelet_py.errors import ApiError, ApiNotFound

_T = TypeVar("_T")


class VolumeSources(Protocol):
    """Where objects of the API server come from; None means that there is no such object."""

    async def config_map(self, namespace: str, name: str) -> core_v1.ConfigMap | None:
        """One ConfigMap, from a cache when there is one."""

    async def secret(self, namespace: str, name: str) -> core_v1.Secret | None:
        """One Secret, from a cache when there is one."""

    async def service_account_token(self, ask: TokenAsk) -> str:
        """A token that is good for some time still."""

    async def trust_bundles(self) -> Mapping[str, TrustBundle]:
        """All ClusterTrustBundles, by name."""

    async def pod_certificate(self, pod_uid: str, key: SourceKey) -> Credentials:
        """What was issued for one source of a pod."""


class PayloadCollector:
    """Asks for what volumes hold."""

    def __init__(self, sources: VolumeSources | None, node_facts: Callable[[], NodeFacts]) -> None:
        self._sources = sources
        self._node_facts = node_facts

    async def collect(self, pod: core_v1.Pod, volume: core_v1.Volume) -> Payload:
        """The files of one volume; PayloadError says what is missing."""
        if volume.configMap is not None:
            mode = payloads.default_mode_of(volume.configMap.defaultMode)
            source = core_v1.ConfigMapProjection(
                name=volume.configMap.name, items=volume.configMap.items, optional=volume.configMap.optional
            )
            return await self._config_map_files(pod, source, mode)
        if volume.secret is not None:
            mode = payloads.default_mode_of(volume.secret.defaultMode)
            projection = core_v1.SecretProjection(
                name=volume.secret.secretName, items=volume.secret.items, optional=volume.secret.optional
            )
            return await self._secret_files(pod, projection, mode)
        if volume.downwardAPI is not None:
            mode = payloads.default_mode_of(volume.downwardAPI.defaultMode)
            return self._downward_files(pod, volume.downwardAPI.items, mode)
        if volume.projected is not None:
            return await self._projected_files(pod, volume.name, volume.projected)
        raise PlanError("the volume has no source")

    async def _projected_files(
        self, pod: core_v1.Pod, volume_name: str, source: core_v1.ProjectedVolumeSource
    ) -> Payload:
        mode = payloads.default_mode_of(source.defaultMode)
        owner = plan.common_run_as_user(pod)
        bundles = _Once(self._trust_bundles)
        files: dict[str, payloads.ProjectedFile] = {}
        problems: dict[str, None] = {}  # equal ones are said once
        for index, projection in enumerate(source.sources or ()):
            try:
                if projection.configMap is not None:
                    files |= await self._config_map_files(pod, projection.configMap, mode)
                elif projection.secret is not None:
                    files |= await self._secret_files(pod, projection.secret, mode)
                elif projection.downwardAPI is not None:
                    files |= self._downward_files(pod, projection.downwardAPI.items, mode)
                elif projection.serviceAccountToken is not None:
                    path = payloads.checked_path(projection.serviceAccountToken.path)
                    token = await self._token(pod, projection.serviceAccountToken)
                    files[path] = payloads.owned_file(token.encode(), mode, owner, plan.fs_group_of(pod))
                elif projection.clusterTrustBundle is not None:
                    path = payloads.checked_path(projection.clusterTrustBundle.path)
                    anchors = trust_anchors(projection.clusterTrustBundle, await bundles.get(), uid_of(pod))
                    files[path] = payloads.owned_file(anchors, mode, owner, plan.fs_group_of(pod))
                elif projection.podCertificate is not None:
                    issued = await self._certificate(pod, SourceKey(volume_name, index), projection.podCertificate)
                    files |= certificate_files(projection.podCertificate, issued, mode, owner, plan.fs_group_of(pod))
                else:
                    raise PayloadError("a projected source of a type that this agent does not serve")
            except PayloadError as error:
                problems[str(error)] = None
        if problems:
            raise PayloadError(", ".join(problems) if len(problems) == 1 else f"[{', '.join(problems)}]")
        return files

    async def _config_map_files(
        self, pod: core_v1.Pod, source: core_v1.ConfigMapProjection, mode: int
    ) -> dict[str, payloads.ProjectedFile]:
        name, optional = source.name or "", bool(source.optional)
        ask = partial(self._need_sources(f'configmap "{name}"').config_map, _namespace(pod), name)
        found = await _found(ask(), f"configmap {_namespace(pod)}/{name}")
        if found is None:
            if optional:
                return {}
            raise PayloadError(f'configmap "{name}" not found')
        return payloads.config_map_files(found, source.items, mode, optional=optional)

    async def _secret_files(
        self, pod: core_v1.Pod, source: core_v1.SecretProjection, mode: int
    ) -> dict[str, payloads.ProjectedFile]:
        name, optional = source.name or "", bool(source.optional)
        ask = partial(self._need_sources(f'secret "{name}"').secret, _namespace(pod), name)
        found = await _found(ask(), f"secret {_namespace(pod)}/{name}")
        if found is None:
            if optional:
                return {}
            raise PayloadError(f'secret "{name}" not found')
        return payloads.secret_files(found, source.items, mode, optional=optional)

    def _downward_files(
        self, pod: core_v1.Pod, items: Iterable[core_v1.DownwardAPIVolumeFile] | None, mode: int
    ) -> dict[str, payloads.ProjectedFile]:
        return payloads.downward_api_files(pod, items or (), mode, self._node_facts())

    async def _token(self, pod: core_v1.Pod, source: core_v1.ServiceAccountTokenProjection) -> str:
        account = spec_of(pod).serviceAccountName or spec_of(pod).serviceAccount or "default"
        ask = TokenAsk(
            namespace=_namespace(pod),
            service_account=account,
            pod_name=metadata_of(pod).name or "",
            pod_uid=uid_of(pod),
            audience=source.audience or "",
            expiration_seconds=source.expirationSeconds or payloads.DEFAULT_TOKEN_SECONDS,
        )
        sources = self._need_sources(f"a token of service account {account}")
        try:
            return await sources.service_account_token(ask)
        except ApiError as error:
            raise PayloadError(f"failed to fetch token: {error}") from error

    async def _trust_bundles(self) -> Mapping[str, TrustBundle]:
        try:
            return await self._need_sources("a ClusterTrustBundle").trust_bundles()
        except ApiError as error:
            raise PayloadError(f"failed to fetch ClusterTrustBundles: {error}") from error

    async def _certificate(
        self, pod: core_v1.Pod, key: SourceKey, source: core_v1.PodCertificateProjection
    ) -> Credentials:
        sources = self._need_sources(f"a certificate of signer {source.signerName}")
        return await sources.pod_certificate(uid_of(pod), key)

    def _need_sources(self, what: str) -> VolumeSources:
        if self._sources is None:
            raise PayloadError(f"{what} is needed, but this agent runs without an API server")
        return self._sources


class _Once:
    """One answer, or one failure, for all who ask within a volume: each would wait as long for the API server again."""

    def __init__(self, ask: Callable[[], Coroutine[object, object, Mapping[str, TrustBundle]]]) -> None:
        self._ask = ask
        self._answer: Mapping[str, TrustBundle] | PayloadError | None = None

    async def get(self) -> Mapping[str, TrustBundle]:
        if self._answer is None:
            try:
                self._answer = await self._ask()
            except PayloadError as error:
                self._answer = error
        if isinstance(self._answer, PayloadError):
            raise self._answer
        return self._answer


async def _found(asking: Coroutine[object, object, _T | None], what: str) -> _T | None:
    try:
        return await asking
    except ApiNotFound:
        return None
    except ApiError as error:
        raise PayloadError(f"failed to fetch {what}: {error}") from error


def _namespace(pod: core_v1.Pod) -> str:
    return metadata_of(pod).namespace or "default"
