"""The files of pods whose network Docker knows nothing of."""

from __future__ import annotations

import asyncio
import errno
from pathlib import Path

import pytest

from cri_proto import runtime_v1 as cri
from dockershim import sandbox_files
from dockershim.errors import EngineFailed, ResourceExhausted
from dockershim.sandbox_files import SandboxFiles
from dockershim.translate.views import SandboxRecord, SandboxView, sandbox_view

ID = "abc" * 16


def view(config: cri.PodSandboxConfig | None = None, *, disabled: bool = True) -> SandboxView:
    inspect = {
        "Id": ID,
        "Name": "/k8s_POD_web_default_uid_0",
        "Created": "2026-01-01T00:00:00Z",
        "Config": {"Labels": {}, "NetworkDisabled": disabled},
        "HostConfig": {"NetworkMode": "none"},
        "State": {"Running": True, "Pid": 7},
    }
    record = SandboxRecord(ID, config, ips=("10.1.2.3",)) if config is not None else None
    return sandbox_view(inspect, record, 0)


@pytest.fixture
def files(tmp_path: Path) -> SandboxFiles:
    (tmp_path / "node-resolv.conf").write_text("nameserver 192.0.2.1\n")
    return SandboxFiles(tmp_path, tmp_path / "node-resolv.conf")


def directory(tmp_path: Path) -> Path:
    return tmp_path / "etc" / ID


async def test_the_request_says_what_is_in_them(files: SandboxFiles, tmp_path: Path) -> None:
    """Readable for any user of the container."""
    config = cri.PodSandboxConfig(hostname="web-0", dns_config=cri.DNSConfig(servers=["10.0.0.10"]))
    mounts = await files.mounts(view(config), cri.ContainerConfig())
    assert {mount.container_path: mount.host_path for mount in mounts} == {
        "/etc/hosts": str(directory(tmp_path) / "hosts"),
        "/etc/resolv.conf": str(directory(tmp_path) / "resolv.conf"),
    }
    assert (directory(tmp_path) / "resolv.conf").read_text() == "nameserver 10.0.0.10\n"
    assert (directory(tmp_path) / "hosts").read_text().endswith("10.1.2.3\tweb-0\n")
    assert {path.name: path.stat().st_mode & 0o777 for path in directory(tmp_path).iterdir()} == {
        "hosts": 0o644,
        "resolv.conf": 0o644,
    }


async def test_without_a_wish_the_pod_has_the_node_s_name_servers(files: SandboxFiles, tmp_path: Path) -> None:
    """And none where the node has none. Without a host name it is the container's own, a part of its id."""
    await files.mounts(view(cri.PodSandboxConfig()), cri.ContainerConfig())
    assert (directory(tmp_path) / "resolv.conf").read_text() == "nameserver 192.0.2.1\n"
    assert (directory(tmp_path) / "hosts").read_text().endswith(f"10.1.2.3\t{ID[:12]}\n")
    await files.delete(ID)
    assert not directory(tmp_path).exists()
    (tmp_path / "node-resolv.conf").unlink()
    await files.mounts(view(), cri.ContainerConfig())
    assert (directory(tmp_path) / "resolv.conf").read_text() == ""


async def test_what_a_container_wrote_stays_and_the_first_of_many_makes_them(
    files: SandboxFiles, tmp_path: Path
) -> None:
    """All containers of a pod mount one file, whichever of them came first."""
    await asyncio.gather(*(files.mounts(view(), cri.ContainerConfig()) for _ in range(8)))
    path = directory(tmp_path) / "hosts"
    before = path.stat().st_ino
    path.write_text("mine\n")
    await files.mounts(view(), cri.ContainerConfig())
    assert (path.read_text(), path.stat().st_ino) == ("mine\n", before)
    assert sorted(each.name for each in directory(tmp_path).iterdir()) == ["hosts", "resolv.conf"]


async def test_where_docker_makes_them_there_are_none(files: SandboxFiles, tmp_path: Path) -> None:
    """Its bridge network, the node's network, and pods that cri-dockerd made."""
    assert await files.mounts(view(disabled=False), cri.ContainerConfig()) == []
    assert not (tmp_path / "etc").exists()


async def test_files_of_sandboxes_that_are_gone_go(files: SandboxFiles, tmp_path: Path) -> None:
    """Those that were made since the list was read stay."""
    await SandboxFiles(tmp_path).mounts(view(), cri.ContainerConfig())
    (tmp_path / "etc" / "old").mkdir()
    await files.retain({ID})
    assert [path.name for path in (tmp_path / "etc").iterdir()] == [ID]
    await files.mounts(view(), cri.ContainerConfig())
    await files.retain(set())
    assert directory(tmp_path).exists()
    await SandboxFiles(tmp_path).retain(set())
    assert not directory(tmp_path).exists()
    await SandboxFiles(tmp_path / "nowhere").retain(set())


@pytest.mark.parametrize(("number", "kind"), [(errno.ENOSPC, ResourceExhausted), (errno.EROFS, EngineFailed)])
async def test_a_disk_that_takes_nothing(
    files: SandboxFiles, monkeypatch: pytest.MonkeyPatch, number: int, kind: type[Exception]
) -> None:
    """The error says where."""

    def fail(path: Path, content: bytes) -> None:
        raise OSError(number, "no")

    monkeypatch.setattr(sandbox_files, "_create", fail)
    with pytest.raises(kind, match=f"etc/{ID}"):
        await files.mounts(view(), cri.ContainerConfig())
