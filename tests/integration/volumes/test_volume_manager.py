"""VolumeManager against the real file system and real mounts."""

import os
import socket
import stat
from collections.abc import Callable
from pathlib import Path

import pytest

from cri_proto import runtime_v1 as cri
from kubelet_py.core.volume_payload import NodeFacts
from kubelet_py.core.volume_plan import MountContext, MountedVolume
from kubelet_py.errors import SyncError
from kubelet_py.host.mounts import bind_mount, is_mount_point, list_mounts_beneath, mount_tmpfs, unmount
from kubelet_py.managers.volumes import VolumeManager, VolumeSettings
from tests.integration.volumes.conftest import run
from tests.integration.volumes.rig import UID, make_pod, mode_of, run_with_manager


def test_an_empty_dir_on_disk_is_world_writable_and_keeps_its_content_over_a_restart(root: Path) -> None:
    pod = make_pod([{"name": "scratch", "emptyDir": {}}])

    async def first(manager: VolumeManager) -> None:
        mounted = await manager.ensure_volumes(pod)
        path = Path(mounted["scratch"].host_path)
        assert path == root / "pods" / UID / "volumes" / "kubernetes.io~empty-dir" / "scratch"
        assert mode_of(path) == 0o777
        (path / "kept").write_text("data")

    async def second(manager: VolumeManager) -> None:
        mounted = await manager.ensure_volumes(pod)
        assert (Path(mounted["scratch"].host_path) / "kept").read_text() == "data"
        assert await manager.ensure_volumes(pod) == mounted
        await manager.teardown_volumes(UID)
        assert not Path(mounted["scratch"].host_path).exists()
        await manager.teardown_volumes(UID)

    run_with_manager(root, first)
    run_with_manager(root, second)


def test_an_empty_dir_in_memory_is_a_tmpfs_of_the_smallest_bound(root: Path) -> None:
    volume = {"name": "ram", "emptyDir": {"medium": "Memory", "sizeLimit": "8Mi"}}
    pod = make_pod([volume], securityContext={"fsGroup": 1234})

    async def scenario(manager: VolumeManager) -> None:
        path = Path((await manager.ensure_volumes(pod))["ram"].host_path)
        assert is_mount_point(path)
        state = os.statvfs(path)
        assert state.f_blocks * state.f_frsize == 8 * 1024**2
        assert mode_of(path) == 0o3777  # the kernel's own sticky bit stays
        assert path.stat().st_gid == 1234
        with pytest.raises(OSError, match="No space"):
            (path / "big").write_bytes(b"x" * (9 * 1024**2))
        await manager.teardown_volumes(UID)
        assert list_mounts_beneath(root / "pods") == []
        assert not path.exists()

    settings = VolumeSettings(node_allocatable_memory_bytes=lambda: 64 * 1024**2)
    run_with_manager(root, scenario, settings=settings)


def test_an_empty_dir_on_huge_pages_has_those_that_the_pod_requests(root: Path) -> None:
    resources = {"requests": {"hugepages-2Mi": "4Mi"}, "limits": {"hugepages-2Mi": "4Mi"}}
    containers = [
        {"name": "main", "image": "x", "resources": resources, "volumeMounts": [{"name": "huge", "mountPath": "/huge"}]}
    ]
    pod = make_pod([{"name": "huge", "emptyDir": {"medium": "HugePages"}}], containers=containers)
    nothing_asked = make_pod([{"name": "huge", "emptyDir": {"medium": "HugePages-1Gi"}}], containers=containers)

    async def scenario(manager: VolumeManager) -> None:
        with pytest.raises(SyncError, match="there is no resource request for huge pages"):
            await manager.ensure_volumes(nothing_asked)
        path = Path((await manager.ensure_volumes(pod))["huge"].host_path)
        assert is_mount_point(path)
        assert os.statvfs(path).f_bsize == 2 << 20
        await manager.teardown_volumes(UID)
        assert not path.exists()

    run_with_manager(root, scenario)


@pytest.mark.parametrize(
    ("wanted", "make", "complaint"),
    [
        ("", "nothing", ""),
        ("Directory", "directory", ""),
        ("Directory", "nothing", "hostPath type check failed: {path} is not a directory"),
        ("Directory", "file", "hostPath type check failed: {path} is not a directory"),
        ("DirectoryOrCreate", "nothing", ""),
        ("File", "file", ""),
        ("File", "directory", "hostPath type check failed: {path} is not a file"),
        ("FileOrCreate", "nothing", ""),
        ("Socket", "socket", ""),
        ("Socket", "file", "hostPath type check failed: {path} is not a socket file"),
        ("CharDevice", "char", ""),
        ("CharDevice", "file", "hostPath type check failed: {path} is not a character device"),
        ("BlockDevice", "char", "hostPath type check failed: {path} is not a block device"),
        ("Folder", "nothing", "hostPath.type 'Folder' is unknown; it may be Directory, "),
    ],
)
def test_host_path_types_are_checked_with_the_texts_people_search_for(
    root: Path, tmp_path: Path, wanted: str, make: str, complaint: str
) -> None:
    path = tmp_path / "host"
    made: dict[str, Callable[[], object]] = {
        "nothing": lambda: None,
        "directory": path.mkdir,
        "file": path.touch,
        "socket": lambda: socket.socket(socket.AF_UNIX).bind(str(path)),
        "char": lambda: os.mknod(path, stat.S_IFCHR | 0o600, os.makedev(1, 3)),
    }
    if make == "socket":
        with socket.socket(socket.AF_UNIX) as listener:
            listener.bind(str(path))
    else:
        made[make]()
    pod = make_pod([{"name": "host", "hostPath": {"path": str(path), "type": wanted}}])

    async def scenario(manager: VolumeManager) -> None:
        if complaint:
            with pytest.raises(SyncError) as caught:
                await manager.ensure_volumes(pod)
            assert caught.value.reason == "FailedMount"
            prefix = 'MountVolume.SetUp failed for volume "host" : '
            assert caught.value.message.startswith(prefix + complaint.format(path=path))
            return
        mounted = await manager.ensure_volumes(pod)
        assert mounted["host"].host_path == str(path)
        if wanted.endswith("OrCreate"):
            assert mode_of(path) == (0o755 if wanted.startswith("Dir") else 0o644)
        await manager.teardown_volumes(UID)
        assert path.exists() == (make != "nothing" or wanted.endswith("OrCreate"))

    run_with_manager(root, scenario)


def test_mounts_for_the_runtime_carry_propagation_read_only_and_bound_sub_paths(root: Path, tmp_path: Path) -> None:
    host = tmp_path / "host"
    host.mkdir()
    pod = make_pod(
        [{"name": "e", "emptyDir": {}}, {"name": "h", "hostPath": {"path": str(host)}}],
        [
            {"name": "e", "mountPath": "/plain"},
            {"name": "e", "mountPath": "/sub", "subPathExpr": "logs/$(POD)", "readOnly": True},
            {"name": "h", "mountPath": "/h", "mountPropagation": "Bidirectional"},
            {"name": "h", "mountPath": "/r", "readOnly": True, "recursiveReadOnly": "IfPossible"},
        ],
        securityContext={"fsGroup": 777},
    )
    container = pod.spec.containers[0] if pod.spec else None
    assert container is not None

    async def scenario(manager: VolumeManager) -> None:
        mounted = await manager.ensure_volumes(pod)
        context = MountContext(lambda text: text.replace("$(POD)", "web"), recursive_read_only_supported=True)
        mounts = await manager.to_cri_mounts(pod, container, mounted, context)
        again = await manager.to_cri_mounts(pod, container, mounted, context)
        assert mounts == again, "a restarted container finds the same"
        bound = root / "pods" / UID / "volume-subpaths" / "e" / "main" / "1"
        assert [(m.container_path, m.host_path, m.readonly) for m in mounts] == [
            ("/plain", mounted["e"].host_path, False),
            ("/sub", str(bound), True),
            ("/h", str(host), False),
            ("/r", str(host), True),
        ]
        assert mounts[2].propagation == cri.PROPAGATION_BIDIRECTIONAL
        assert mounts[3].recursive_read_only
        made = Path(mounted["e"].host_path) / "logs" / "web"
        assert mode_of(made) == 0o2777
        assert made.stat().st_gid == 777
        (made / "file").write_text("seen")
        assert (bound / "file").read_text() == "seen"
        assert len(list_mounts_beneath(bound)) == 1

        await manager.teardown_volumes(UID)
        assert list_mounts_beneath(root / "pods") == []
        assert not bound.exists()
        assert host.is_dir()

    run_with_manager(root, scenario)


def test_the_table_of_all_mounts_is_read_when_something_is_in_the_way(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What this agent mounts is where it mounts it, even when twice; a container may mount inside a volume."""
    read: list[Path] = []

    def list_them(directory: Path) -> list[str]:
        read.append(directory)
        return list_mounts_beneath(directory)

    monkeypatch.setattr("kubelet_py.managers.volumes.teardown.list_mounts_beneath", list_them)
    volumes = [{"name": "ram", "emptyDir": {"medium": "Memory"}}, {"name": "e", "emptyDir": {}}]
    mounts = [{"name": "ram", "mountPath": "/m", "subPath": "in"}, {"name": "e", "mountPath": "/e"}]
    pod = make_pod(volumes, mounts)
    assert pod.spec is not None
    container = pod.spec.containers[0]

    async def scenario(manager: VolumeManager) -> None:
        for inside, tables in ((False, 0), (True, 1)):
            mounted = await manager.ensure_volumes(pod)
            await manager.to_cri_mounts(pod, container, mounted)
            mount_tmpfs(Path(mounted["ram"].host_path))
            deep = Path(mounted["e"].host_path) / "deep"
            deep.mkdir()
            if inside:
                mount_tmpfs(deep)
            assert len(list_mounts_beneath(root / "pods")) == 3 + inside
            await manager.teardown_volumes(UID)
            assert len(read) == tables
            assert list_mounts_beneath(root / "pods") == []
            assert not deep.exists()

    run_with_manager(root, scenario)


def test_a_sub_path_cannot_leave_its_volume(root: Path, tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.mkdir()

    async def scenario(manager: VolumeManager) -> None:
        pod = make_pod([{"name": "e", "emptyDir": {}}])
        mounted = await manager.ensure_volumes(pod)
        volume = Path(mounted["e"].host_path)
        (volume / "out").symlink_to(secret)
        (volume / "real").mkdir()
        (volume / "in").symlink_to("real")
        (volume / "file").write_text("x")

        async def mount(sub_path: str) -> str:
            mounts = [{"name": "e", "mountPath": "/m", "subPath": sub_path}]
            other = make_pod([], mounts)
            assert other.spec is not None
            return (await manager.to_cri_mounts(other, other.spec.containers[0], mounted))[0].host_path

        for bad in ("out", "out/deeper", "../x", "/etc", "file/below"):
            with pytest.raises(SyncError) as caught:
                await mount(bad)
            assert caught.value.reason == "CreateContainerConfigError"
            assert caught.value.container_name == "main"
        assert list(secret.iterdir()) == []
        assert os.path.samefile(await mount("in"), volume / "real")
        assert os.path.samefile(await mount("file"), volume / "file")
        assert os.path.samefile(await mount("real"), volume / "real")

    run_with_manager(root, scenario)


def test_leftovers_of_an_earlier_process_go_and_foreign_mounts_keep_their_data(root: Path, tmp_path: Path) -> None:
    pod = make_pod([{"name": "ram", "emptyDir": {"medium": "Memory"}}, {"name": "e", "emptyDir": {}}])
    data = tmp_path / "data"
    data.mkdir()
    (data / "precious").write_text("!")

    async def first(manager: VolumeManager) -> None:
        mounted = await manager.ensure_volumes(pod)
        manager.dirs.make_termination_log(UID, "main")
        manager.dirs.write_etc_hosts(UID, "127.0.0.1 localhost\n")
        inside = Path(mounted["e"].host_path) / "deep"
        inside.mkdir()

    async def second(manager: VolumeManager) -> None:
        foreign = root / "pods" / UID / "volumes" / "kubernetes.io~csi" / "pv" / "mount"
        foreign.mkdir(parents=True)
        bind_mount(data, foreign)
        await manager.cleanup_orphans({"other"}.__contains__)
        assert (data / "precious").read_text() == "!"
        assert (root / "pods" / UID).is_dir()
        await manager.cleanup_orphans({UID}.__contains__)
        unmount(foreign)
        await manager.cleanup_orphans(lambda uid: False)
        assert not (root / "pods" / UID).exists()
        assert (data / "precious").read_text() == "!"

    run_with_manager(root, first)
    run_with_manager(root, second)


def test_a_pod_that_comes_while_orphans_are_looked_for_keeps_its_volumes(root: Path) -> None:
    """Also one that comes back with the UID of an orphan, when the answer has changed by the time of its removal."""
    pod = make_pod([{"name": "e", "emptyDir": {}}])

    async def scenario(manager: VolumeManager) -> None:
        manager.dirs.write_etc_hosts("gone", "")
        answers = iter([False, True])
        await manager.ensure_volumes(pod)
        await manager.cleanup_orphans(lambda uid: next(answers) if uid == UID else False)
        assert [path.name for path in (root / "pods").iterdir()] == [UID]
        assert next(answers, None) is None

    run_with_manager(root, scenario)


def test_data_behind_a_mount_in_a_volume_survives_removal(root: Path, tmp_path: Path) -> None:
    """A bind mount of the same file system inside an emptyDir, as Bidirectional propagation leaves it."""
    data = tmp_path / "data"
    data.mkdir()
    (data / "precious").write_text("!")
    pod = make_pod([{"name": "e", "emptyDir": {}}])

    async def scenario(manager: VolumeManager) -> None:
        volume = Path((await manager.ensure_volumes(pod))["e"].host_path)
        (volume / "m").mkdir()
        bind_mount(data, volume / "m")
        await manager.teardown_volumes(UID)
        assert (data / "precious").read_text() == "!"
        assert not volume.exists()

    run_with_manager(root, scenario)


def test_a_volume_that_is_missing_at_the_mount_is_named() -> None:
    pod = make_pod([{"name": "e", "emptyDir": {}}])
    assert pod.spec is not None
    container = pod.spec.containers[0]
    manager = VolumeManager(Path("/nonexistent"), None)
    mounted: dict[str, MountedVolume] = {}

    async def main() -> None:
        with pytest.raises(SyncError, match='cannot find volume "e" to mount into container "main"'):
            await manager.to_cri_mounts(pod, container, mounted)

    run(main())


def test_mount_points_are_known_by_the_kernels_word(root: Path, tmp_path: Path) -> None:
    target = tmp_path / "t with space"
    target.mkdir()
    assert not is_mount_point(target)
    mount_tmpfs(target, 1024**2)
    assert is_mount_point(target)
    assert list_mounts_beneath(tmp_path) == [str(target)]
    file = tmp_path / "file"
    file.touch()
    (target / "f").touch()
    bind_mount(file, target / "f", read_only=True)
    assert is_mount_point(target / "f")
    with pytest.raises(OSError, match="Read-only"):
        (target / "f").write_text("x")
    assert list_mounts_beneath(tmp_path) == [str(target / "f"), str(target)]
    assert unmount(target / "f")
    assert not unmount(target / "f")
    assert not is_mount_point(tmp_path / "absent")
    assert NodeFacts().name == ""
