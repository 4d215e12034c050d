"""What pods get of the node's own files."""

import asyncio
from pathlib import Path

import pytest

from kubelet_py.app.node_view import CachedFile, HostView
from kubelet_py.config import load
from kubelet_py.core.cgroup_rules import CgroupDriver
from kubelet_py.core.node_rules import NodeSettings
from kubelet_py.errors import SyncError
from kubelet_py.managers.runtime_health import RuntimeHealth
from tests.fakes.runtime import FakeRuntimeClient
from tests.unit.kubelet_py.app.test_run import a_config
from tests.unit.kubelet_py.managers.kube_objects import MACHINE, NODE


async def test_a_resolv_conf_that_is_not_there_holds_pods_up(tmp_path: Path) -> None:
    """A pod would otherwise start without any name server and say nothing."""
    path = tmp_path / "resolv.conf"
    settings = await asyncio.to_thread(load, a_config(tmp_path, resolvConf=str(path)))
    health = RuntimeHealth(FakeRuntimeClient(), "unix:///run/fake.sock", lambda well: None)
    view = HostView(
        settings, NodeSettings(name=NODE), MACHINE, tuple, health, lambda: CgroupDriver.CGROUPFS, True, False, False
    )
    words = f"{path}: No such file or directory; resolvConf must name a file such as /etc/resolv.conf, or be empty"
    with pytest.raises(SyncError) as caught:
        view.dns()
    assert caught.value.message == words == view.dns_problem()
    for address in ("192.0.2.1", "192.0.2.22"):
        await asyncio.to_thread(path.write_text, f"nameserver {address}\n")
        assert view.dns().host.nameservers == (address,)
    await asyncio.to_thread(path.unlink)
    assert view.dns_problem() == words


async def test_the_loopbacks_of_pods_follow_the_families_that_the_node_has_now(tmp_path: Path) -> None:
    """What a pod without the host's resolv.conf asks: the node may have got its address after the start."""
    settings = await asyncio.to_thread(load, a_config(tmp_path, resolvConf=""))
    health = RuntimeHealth(FakeRuntimeClient(), "unix:///run/fake.sock", lambda well: None)
    ips: list[str] = []
    view = HostView(
        settings,
        NodeSettings(name=NODE),
        MACHINE,
        lambda: tuple(ips),
        health,
        lambda: CgroupDriver.CGROUPFS,
        cgroup_unified=True,
        counts_swap=False,
        selinux_enabled=False,
    )
    assert (view.host_ips(), view.dns().loopbacks) == ((), ("127.0.0.1",))
    ips += ["fd00::1", "192.0.2.1", "192.0.2.2"]
    assert (view.host_ips(), view.dns().loopbacks) == (tuple(ips), ("::1", "127.0.0.1"))


async def test_a_file_of_the_node_is_read_anew_when_it_has_changed_and_never_made_up(tmp_path: Path) -> None:
    """A pod on the node's network without the node's hosts file is an error of its container, not an empty file."""
    path = tmp_path / "hosts"
    file = CachedFile(str(path))
    with pytest.raises(FileNotFoundError):
        file.text()
    for text in ("192.0.2.1 one\n", "192.0.2.22 two\n"):
        await asyncio.to_thread(path.write_text, text)
        assert file.text() == file.text() == text
    await asyncio.to_thread(path.unlink)
    with pytest.raises(FileNotFoundError):
        file.text()
