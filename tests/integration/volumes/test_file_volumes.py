"""ConfigMaps, Secrets, tokens, trust bundles, certificates and the pod itself as files, on the real file system."""

import base64
import os
import stat
from pathlib import Path
from typing import Any

import pytest

from kubelet_py.api import core_v1
from kubelet_py.core.pod_certificates import Credentials, SourceKey
from kubelet_py.core.trust_bundles import TrustBundle
from kubelet_py.errors import SyncError
from kubelet_py.host.mounts import is_mount_point, list_mounts_beneath
from kubelet_py.managers.volumes import VolumeManager
from tests.integration.volumes.rig import UID, ApiObjects, make_pod, mode_of, run_with_manager

KUBE_API_ACCESS = {
    "name": "kube-api-access-abcde",
    "projected": {
        "defaultMode": 420,
        "sources": [
            {"serviceAccountToken": {"path": "token", "expirationSeconds": 3607}},
            {"configMap": {"name": "kube-root-ca.crt", "items": [{"key": "ca.crt", "path": "ca.crt"}]}},
            {"downwardAPI": {"items": [{"path": "namespace", "fieldRef": {"fieldPath": "metadata.namespace"}}]}},
        ],
    },
}


def test_the_projected_volume_that_every_real_pod_carries(root: Path) -> None:
    api = ApiObjects()
    api.config_maps["shop", "kube-root-ca.crt"] = core_v1.ConfigMap(data={"ca.crt": "PEM"})
    pod = make_pod([KUBE_API_ACCESS])

    async def scenario(manager: VolumeManager) -> None:
        mounted = (await manager.ensure_volumes(pod))["kube-api-access-abcde"]
        path = Path(mounted.host_path)
        assert mounted.read_only
        assert is_mount_point(path), "tokens never reach a disk"
        assert {entry for entry in os.listdir(path) if not entry.startswith("..")} == {"token", "ca.crt", "namespace"}
        assert (path / "namespace").read_text() == "shop"
        assert (path / "ca.crt").read_text() == "PEM"
        assert mode_of(path / "token") == 0o644
        assert os.readlink(path / "token") == "..data/token"
        before = os.readlink(path / "..data")

        await manager.ensure_volumes(pod)
        assert os.readlink(path / "..data") == before, "nothing is written when nothing changed"

        api.tokens += 1
        await manager.ensure_volumes(pod)
        assert os.readlink(path / "..data") != before
        assert not (path / before).exists()
        assert (path / "token").read_text() == "token-1-of-default-for-the API"

    async def restarted(manager: VolumeManager) -> None:
        path = root / "pods" / UID / "volumes" / "kubernetes.io~projected" / "kube-api-access-abcde"
        before = os.readlink(path / "..data")
        await manager.ensure_volumes(pod)
        assert os.readlink(path / "..data") == before, "the files of the earlier process are kept"
        assert len(list_mounts_beneath(path)) == 1
        await manager.teardown_volumes(UID)
        assert list_mounts_beneath(root / "pods") == []

    run_with_manager(root, scenario, api)
    run_with_manager(root, restarted, api)


@pytest.mark.parametrize(
    ("spec", "mode", "owner", "group"),
    [
        ({"securityContext": {"fsGroup": 2000}}, 0o640, 0, 2000),
        ({"securityContext": {"runAsUser": 1001}}, 0o600, 1001, 0),
        ({"securityContext": {"runAsUser": 1001, "fsGroup": 2000}}, 0o640, 1001, 2000),
    ],
)
def test_a_token_and_a_trust_bundle_are_readable_by_the_pod_and_nobody_else(
    root: Path, spec: dict[str, Any], mode: int, owner: int, group: int
) -> None:
    sources = [
        {"serviceAccountToken": {"path": "token"}},
        {"clusterTrustBundle": {"path": "bundle", "name": "none", "optional": True}},
    ]
    pod = make_pod([{"name": "t", "projected": {"sources": sources}}], **spec)

    async def scenario(manager: VolumeManager) -> None:
        for name in ("token", "bundle"):
            state = (Path((await manager.ensure_volumes(pod))["t"].host_path) / name).stat()
            assert (stat.S_IMODE(state.st_mode), state.st_uid, state.st_gid) == (mode, owner, group)

    run_with_manager(root, scenario, ApiObjects())


def test_trust_bundles_are_named_when_missing_and_their_files_follow_changes(root: Path) -> None:
    api = ApiObjects()
    sources = [
        {"clusterTrustBundle": {"path": "by/name.pem", "name": "roots"}},
        {"clusterTrustBundle": {"path": "all.pem", "signerName": "s/t", "labelSelector": {}}},
    ]
    pod = make_pod([{"name": "t", "projected": {"sources": sources, "defaultMode": 0o400}}])

    async def scenario(manager: VolumeManager) -> None:
        with pytest.raises(SyncError) as caught:
            await manager.ensure_volumes(pod)
        assert caught.value.message == (
            'MountVolume.SetUp failed for volume "t" : '
            '[clustertrustbundle.certificates.k8s.io "roots" not found, '
            "combination of signerName and labelSelector matched zero ClusterTrustBundles (signerName s/t)]"
        )
        api.bundles = {"roots": TrustBundle("s/t", {}, (b"A",))}
        path = Path((await manager.ensure_volumes(pod))["t"].host_path)
        text = "-----BEGIN CERTIFICATE-----\nQQ==\n-----END CERTIFICATE-----\n"
        assert ((path / "by/name.pem").read_text(), (path / "all.pem").read_text()) == (text, text)
        assert mode_of(path / "by/name.pem") == 0o400
        api.bundles = {"roots": TrustBundle("s/t", {}, ())}
        await manager.ensure_volumes(pod)
        assert (path / "all.pem").read_text() == ""
        asked, api.down = api.bundle_asks, True
        complaints: list[str] = []
        await manager.ensure_volumes(pod, complaints.append)
        away = "failed to fetch ClusterTrustBundles: connection refused"
        assert complaints == [f'MountVolume.SetUp failed for volume "t" : {away}']
        assert api.bundle_asks == asked + 1

    run_with_manager(root, scenario, api)

    async def standalone(manager: VolumeManager) -> None:
        with pytest.raises(SyncError, match="a ClusterTrustBundle is needed, but this agent runs without an API"):
            await manager.ensure_volumes(pod)

    run_with_manager(root, standalone)


@pytest.mark.parametrize(
    ("spec", "mode", "owner"), [({}, 0o444, 0), ({"securityContext": {"runAsUser": 1001}}, 0o600, 1001)]
)
def test_a_certificate_and_its_key_are_written_together(
    root: Path, spec: dict[str, Any], mode: int, owner: int
) -> None:
    """Each source has its own; a new certificate replaces all files of its source at once."""
    api = ApiObjects()
    paths = {"credentialBundlePath": "all.pem", "keyPath": "tls/key", "certificateChainPath": "tls/crt"}
    sources = [
        {"podCertificate": {"signerName": "s/t", "keyType": "ED25519", **paths}},
        {"podCertificate": {"signerName": "s/t", "keyType": "ED25519", "keyPath": "other"}},
    ]
    pod = make_pod([{"name": "t", "projected": {"sources": sources, "defaultMode": 0o444}}], **spec)
    first, second = (UID, SourceKey("t", 0)), (UID, SourceKey("t", 1))

    async def scenario(manager: VolumeManager) -> None:
        with pytest.raises(SyncError) as caught:
            await manager.ensure_volumes(pod)
        assert caught.value.message == 'MountVolume.SetUp failed for volume "t" : no certificate'
        api.certificates = {first: Credentials(b"K1", b"C1", 0, 0), second: Credentials(b"K2", b"C2", 0, 0)}
        path = Path((await manager.ensure_volumes(pod))["t"].host_path)
        names = ("all.pem", "tls/key", "tls/crt", "other")
        assert [(path / name).read_text() for name in names] == ["K1C1", "K1", "C1", "K2"]
        for name in names:
            state = (path / name).stat()
            assert (stat.S_IMODE(state.st_mode), state.st_uid) == (mode, owner)
        api.certificates[first] = Credentials(b"K3", b"C3", 0, 0)
        await manager.ensure_volumes(pod)
        assert [(path / name).read_text() for name in names] == ["K3C3", "K3", "C3", "K2"]

    run_with_manager(root, scenario, api)

    async def standalone(manager: VolumeManager) -> None:
        with pytest.raises(SyncError, match="a certificate of signer s/t is needed, but this agent runs without an"):
            await manager.ensure_volumes(pod)

    run_with_manager(root, standalone)


def test_config_map_secret_and_downward_api_files_have_their_modes_and_follow_changes(root: Path) -> None:
    api = ApiObjects()
    api.config_maps["shop", "cfg"] = core_v1.ConfigMap(data={"a": "1", "b": "2"}, binaryData={"bin": "AAE="})
    api.secrets["shop", "sec"] = core_v1.Secret(data={"pw": base64.b64encode(b"geheim").decode()})
    pod = make_pod(
        [
            {"name": "cfg", "configMap": {"name": "cfg", "defaultMode": 0o640}},
            {"name": "one", "configMap": {"name": "cfg", "items": [{"key": "a", "path": "x/y", "mode": 0o400}]}},
            {"name": "sec", "secret": {"secretName": "sec"}},
            {"name": "down", "downwardAPI": {"items": [{"path": "l", "fieldRef": {"fieldPath": "metadata.labels"}}]}},
            {"name": "opt", "configMap": {"name": "none", "optional": True}},
        ]
    )

    async def scenario(manager: VolumeManager) -> None:
        mounted = await manager.ensure_volumes(pod)
        paths = {name: Path(volume.host_path) for name, volume in mounted.items()}
        assert mode_of(paths["cfg"] / "a") == 0o640
        assert (paths["cfg"] / "bin").read_bytes() == b"\x00\x01"
        assert mode_of(paths["one"] / "x" / "y") == 0o400
        assert (paths["sec"] / "pw").read_text() == "geheim"
        assert is_mount_point(paths["sec"])
        assert not is_mount_point(paths["cfg"])
        assert (paths["down"] / "l").read_text() == 'a="quo\\"te"\napp="web"'
        assert [entry for entry in os.listdir(paths["opt"]) if not entry.startswith("..")] == []

        api.config_maps["shop", "cfg"] = core_v1.ConfigMap(data={"a": "9", "new": "3"})
        api.config_maps["shop", "none"] = core_v1.ConfigMap(data={"late": "!"})
        await manager.ensure_volumes(pod)
        assert sorted(e for e in os.listdir(paths["cfg"]) if not e.startswith("..")) == ["a", "new"]
        assert (paths["cfg"] / "a").read_text() == "9"
        assert (paths["opt"] / "late").read_text() == "!"

    run_with_manager(root, scenario, api)


def test_what_is_missing_is_named_and_the_rest_is_set_up(root: Path) -> None:
    api = ApiObjects()
    api.config_maps["shop", "cfg"] = core_v1.ConfigMap(data={"a": "1"})
    pod = make_pod(
        [
            {"name": "ok", "emptyDir": {}},
            {"name": "gone", "configMap": {"name": "nope"}},
            {"name": "key", "configMap": {"name": "cfg", "items": [{"key": "zz", "path": "p"}]}},
            {"name": "sec", "secret": {"secretName": "nope"}},
            {"name": "disk", "nfs": {"server": "s", "path": "/"}},
            {"name": "unused", "secret": {"secretName": "never-asked-for"}},
        ],
        [{"name": name, "mountPath": f"/{name}"} for name in ("ok", "gone", "key", "sec", "disk")],
    )

    async def scenario(manager: VolumeManager) -> None:
        with pytest.raises(SyncError) as caught:
            await manager.ensure_volumes(pod)
        text = caught.value.message
        assert 'MountVolume.SetUp failed for volume "gone" : configmap "nope" not found' in text
        assert 'for volume "key" : configmap references non-existent config key: zz' in text
        assert 'for volume "sec" : secret "nope" not found' in text
        assert "volumes of type nfs are not served" in text
        assert "unused" not in text
        assert (root / "pods" / UID / "volumes" / "kubernetes.io~empty-dir" / "ok").is_dir()
        api.down = True
        with pytest.raises(SyncError, match="failed to fetch configmap shop/nope: connection refused"):
            await manager.ensure_volumes(pod)

    run_with_manager(root, scenario, api)


def test_a_standalone_agent_says_that_it_has_no_api_server(root: Path) -> None:
    pod = make_pod([{"name": "c", "configMap": {"name": "x"}}, {"name": "e", "emptyDir": {}}])

    async def scenario(manager: VolumeManager) -> None:
        with pytest.raises(SyncError, match='configmap "x" is needed, but this agent runs without an API server'):
            await manager.ensure_volumes(pod)

    run_with_manager(root, scenario)
