"""A VolumeManager over dictionaries in place of the API server, and pods for it."""

import os
import stat
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path
from typing import Any

from kubelet_py.api import codec, core_v1
from kubelet_py.core.pod_certificates import Credentials, SourceKey
from kubelet_py.core.trust_bundles import TrustBundle
from kubelet_py.core.volume_payload import PayloadError, TokenAsk
from kubelet_py.errors import ApiUnavailable
from kubelet_py.managers.volumes import VolumeManager, VolumeSettings
from tests.integration.volumes.conftest import run

UID = "4f5c7d9e-0000-4000-8000-000000000001"


class ApiObjects:
    """The getters over dictionaries."""

    def __init__(self) -> None:
        self.config_maps: dict[tuple[str, str], core_v1.ConfigMap] = {}
        self.secrets: dict[tuple[str, str], core_v1.Secret] = {}
        self.bundles: dict[str, TrustBundle] = {}
        self.bundle_asks = 0
        self.certificates: dict[tuple[str, SourceKey], Credentials] = {}
        self.tokens = 0
        self.down = False

    async def config_map(self, namespace: str, name: str) -> core_v1.ConfigMap | None:
        if self.down:
            raise ApiUnavailable(0, "", "connection refused")
        return self.config_maps.get((namespace, name))

    async def secret(self, namespace: str, name: str) -> core_v1.Secret | None:
        return self.secrets.get((namespace, name))

    async def service_account_token(self, ask: TokenAsk) -> str:
        return f"token-{self.tokens}-of-{ask.service_account}-for-{ask.audience or 'the API'}"

    async def trust_bundles(self) -> Mapping[str, TrustBundle]:
        self.bundle_asks += 1
        if self.down:
            raise ApiUnavailable(0, "", "connection refused")
        return self.bundles

    async def pod_certificate(self, pod_uid: str, key: SourceKey) -> Credentials:
        issued = self.certificates.get((pod_uid, key))
        if issued is None:
            raise PayloadError("no certificate")
        return issued


def make_pod(volumes: list[dict[str, Any]], mounts: list[dict[str, Any]] | None = None, **spec: Any) -> core_v1.Pod:
    """A pod with one container that mounts every volume, or the given mounts."""
    if mounts is None:
        mounts = [{"name": volume["name"], "mountPath": f"/{volume['name']}"} for volume in volumes]
    return codec.from_builtins(
        core_v1.Pod,
        {
            "metadata": {"name": "web", "namespace": "shop", "uid": UID, "labels": {"app": "web", "a": 'quo"te'}},
            "spec": {"containers": [{"name": "main", "image": "x", "volumeMounts": mounts}], "volumes": volumes} | spec,
        },
    )


def run_with_manager(
    root: Path,
    scenario: Callable[[VolumeManager], Awaitable[None]],
    sources: ApiObjects | None = None,
    settings: VolumeSettings | None = None,
) -> None:
    """One life of an agent."""
    manager = VolumeManager(root, sources, settings)
    manager.prepare()

    async def main() -> None:
        await scenario(manager)

    run(main())


def mode_of(path: str | Path) -> int:
    return stat.S_IMODE(os.stat(path).st_mode)
