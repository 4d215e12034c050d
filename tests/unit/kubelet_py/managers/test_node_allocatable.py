"""The cgroups of pods and daemons are held to their limits at the start, and until it works."""

from typing import Any

import pytest
from structlog.testing import capture_logs

from kubelet_py.core.cgroup_rules import CgroupDriver, CgroupLimits, CgroupSettings
from kubelet_py.core.node_allocatable import ReservedCgroup
from kubelet_py.errors import ConfigError
from kubelet_py.managers.node_allocatable import RETRY_SECONDS, NodeAllocatable

LIMITS = CgroupLimits(cpu_shares=7)


class Tree:
    """What NodeAllocatable asks of a CgroupTree."""

    def __init__(self) -> None:
        self.written: list[tuple[str, CgroupLimits]] = []
        self.errors: list[OSError] = []

    def exists(self, path: str) -> bool:
        return path in ("/system", "/daemons.slice/daemons-kube.slice")

    def ensure(self, path: str, limits: CgroupLimits) -> None:
        if self.errors:
            raise self.errors.pop()
        self.written.append((path, limits))

    update = ensure


class Node:
    def __init__(self, *reserved: ReservedCgroup, **settings: Any) -> None:
        self.tree = Tree()
        self.events: list[tuple[str, str, str]] = []
        # The tree has just these methods in use; the real one is tested in tests/integration/host.
        tree: Any = self.tree
        self.manager = NodeAllocatable(
            tree,
            dict.fromkeys(CgroupDriver, tree),
            lambda: CgroupSettings(**settings),
            LIMITS,
            reserved,
            lambda *event: self.events.append(event),
        )


@pytest.mark.looptime
async def test_the_limits_of_all_pods_are_written_again_until_the_kernel_takes_them() -> None:
    """Pods of an earlier life may use more than they allow."""
    node = Node(root="/lab")
    node.tree.errors = [OSError("busy"), OSError("busy")]
    with capture_logs() as logs:
        await node.manager.enforce_pods()
    assert node.tree.written == [("/lab/kubepods", LIMITS)]
    failed = (
        "Warning",
        "FailedNodeAllocatableEnforcement",
        'Failed to update Node Allocatable Limits "/lab/kubepods": busy',
    )
    assert node.events[:2] == [failed, failed]
    assert node.events[2] == ("Normal", "NodeAllocatableEnforced", "Updated Node Allocatable limit across pods")
    assert len(logs) == 1
    assert RETRY_SECONDS == 60


async def test_what_is_not_ours_is_left_alone() -> None:
    node = Node(cgroups_per_qos=False)
    await node.manager.enforce_pods()
    assert (node.tree.written, node.events) == ([], [])


async def test_with_the_systemd_driver_it_is_a_slice() -> None:
    node = Node(driver=CgroupDriver.SYSTEMD)
    await node.manager.enforce_pods()
    assert node.tree.written == [("/kubepods.slice", LIMITS)]


async def test_daemons_are_held_to_their_limits() -> None:
    node = Node(ReservedCgroup("System", "/system", LIMITS))
    await node.manager.enforce_reserved()
    assert node.tree.written == [("/system", LIMITS)]
    assert node.events == [("Normal", "NodeAllocatableEnforced", "Updated limits on system reserved cgroup /system")]


@pytest.mark.parametrize("setting", ["/daemons-kube", "daemons-kube.slice", "/daemons.slice/daemons-kube.slice"])
async def test_with_the_systemd_driver_the_setting_names_a_slice(setting: str) -> None:
    node = Node(ReservedCgroup("Kube", setting, LIMITS), driver=CgroupDriver.SYSTEMD)
    await node.manager.enforce_reserved()
    assert node.tree.written == [("/daemons.slice/daemons-kube.slice", LIMITS)]
    assert node.events == [("Normal", "NodeAllocatableEnforced", f"Updated limits on kube reserved cgroup {setting}")]


@pytest.mark.parametrize(("path", "why"), [("/kube", "there is no cgroup /kube"), ("", "there is no cgroup named")])
async def test_a_reserved_cgroup_that_is_not_there_ends_the_start(path: str, why: str) -> None:
    node = Node(ReservedCgroup("Kube", path, LIMITS))
    with pytest.raises(ConfigError, match=why):
        await node.manager.enforce_reserved()
    ((kind, reason, message),) = node.events
    assert (kind, reason) == ("Warning", "FailedNodeAllocatableEnforcement")
    assert message.startswith(f'Failed to enforce Kube Reserved Cgroup Limits on "{path}": there is no cgroup')


async def test_a_kernel_that_refuses_ends_the_start() -> None:
    node = Node(ReservedCgroup("System", "/system", LIMITS))
    node.tree.errors = [OSError("busy")]
    with pytest.raises(ConfigError, match="busy"):
        await node.manager.enforce_reserved()
