"""Pods with ids of their own: given once, kept over restarts, free when the pod has ended."""

import asyncio
import shutil
from pathlib import Path
from typing import Any

import pytest
from structlog.testing import capture_logs

from cri_proto import runtime_v1 as cri
from kubelet_py.api import core_v1
from kubelet_py.core.user_namespaces import IdRange, encode_mapping
from kubelet_py.errors import SyncError
from kubelet_py.host.pod_dirs import PodDirs
from kubelet_py.managers.user_namespaces import UserNamespaces
from tests.sim.pods import make_pod

BLOCK = 65536


def a_pod(uid: str = "u-1", host_users: bool | None = False) -> core_v1.Pod:
    return make_pod("app", metadata={"uid": uid}, hostUsers=host_users)


class Node:
    """Two blocks, and a handler `plain` without user namespaces."""

    def __init__(self, root: Path) -> None:
        self.dirs = PodDirs(root)
        self.dirs.ensure_pods()
        self.boot()

    def boot(self) -> list[Any]:
        self.known = UserNamespaces(self.dirs, IdRange(BLOCK, 2 * BLOCK), lambda handler: handler != "plain")
        with capture_logs() as logs:
            self.known.load()
        return [entry["event"] for entry in logs]

    async def first_id(self, pod: core_v1.Pod) -> int:
        given = await self.known.of_pod(pod, "")
        assert given is not None
        assert (given.mode, given.uids[0].length, given.gids[0].host_id) == (cri.POD, BLOCK, given.uids[0].host_id)
        return given.uids[0].host_id


@pytest.fixture
def node(tmp_path: Path) -> Node:
    return Node(tmp_path)


async def test_only_pods_that_ask_for_it_have_one(node: Node) -> None:
    assert await node.known.of_pod(a_pod(host_users=None), "plain") is None
    assert await node.known.of_pod(a_pod(host_users=True), "plain") is None


@pytest.mark.parametrize(("handler", "who"), [("plain", 'RuntimeClass handler "plain"')])
async def test_a_runtime_that_cannot_is_named(node: Node, handler: str, who: str) -> None:
    with pytest.raises(SyncError, match="does not support user namespaces") as caught:
        await node.known.of_pod(a_pod(), handler)
    assert who in str(caught.value)


async def test_each_pod_has_ids_of_its_own_for_good(node: Node) -> None:
    assert await node.first_id(a_pod("a")) == BLOCK
    assert await node.first_id(a_pod("b")) == 2 * BLOCK
    await asyncio.to_thread(node.boot)
    assert await node.first_id(a_pod("b")) == 2 * BLOCK
    assert await node.first_id(a_pod("a")) == BLOCK
    with pytest.raises(SyncError, match="could not find an empty slot"):
        await node.first_id(a_pod("c"))
    await node.known.release("a")
    await node.known.release("a")
    assert await node.first_id(a_pod("c")) == BLOCK


async def test_what_pods_had_that_went_while_no_agent_ran_is_free_once_their_directories_are_gone(node: Node) -> None:
    assert await node.first_id(a_pod("known")) == BLOCK
    assert await node.first_id(a_pod("gone")) == 2 * BLOCK
    await asyncio.to_thread(node.boot)
    await node.known.release_orphans({"known"}.__contains__)
    with pytest.raises(SyncError, match="could not find an empty slot"):
        await node.first_id(a_pod("new"))
    for uid in ("known", "gone"):
        await asyncio.to_thread(shutil.rmtree, node.dirs.pod(uid))
    answers = iter([False, True])  # it comes back while its directory is looked at
    await node.known.release_orphans(lambda uid: uid == "known" or next(answers))
    with pytest.raises(SyncError, match="could not find an empty slot"):
        await node.first_id(a_pod("new"))
    await node.known.release_orphans({"known"}.__contains__)
    assert await node.first_id(a_pod("new")) == 2 * BLOCK


async def test_a_disk_that_refuses_gives_no_ids(node: Node) -> None:
    await asyncio.to_thread((node.dirs.pods / "no-directory").touch)
    with pytest.raises(SyncError, match="create user namespace"):
        await node.known.of_pod(a_pod("no-directory"), "")
    assert await node.first_id(a_pod("a")) == BLOCK


@pytest.mark.parametrize(
    ("content", "next_free"), [(encode_mapping(BLOCK, 5), 2 * BLOCK), (encode_mapping(9 * BLOCK, BLOCK), BLOCK)]
)
async def test_ids_of_another_range_stay_their_pods(node: Node, content: bytes, next_free: int) -> None:
    """They were given with other settings, and its containers may still run with them."""
    await asyncio.to_thread(node.dirs.ensure_pod, "a")
    await asyncio.to_thread(node.dirs.user_namespace("a").write_bytes, content)
    assert await asyncio.to_thread(node.boot) == []
    with pytest.raises(SyncError, match="not the pod's to have"):
        await node.first_id(a_pod("a"))
    assert await node.first_id(a_pod("b")) == next_free
    await node.known.release("a")
    assert await node.first_id(a_pod("a")) == 3 * BLOCK - next_free


@pytest.mark.parametrize("is_released", [True, False])
async def test_nobody_gets_new_ids_while_those_of_a_pod_cannot_be_read(node: Node, is_released: bool) -> None:
    """They could be the same. The pod ends, or somebody removes the file."""
    assert await node.first_id(a_pod("b")) == BLOCK
    await asyncio.to_thread(node.dirs.ensure_pod, "a")
    await asyncio.to_thread(node.dirs.user_namespace("a").write_bytes, b"nonsense")
    assert await asyncio.to_thread(node.boot) == ["user_namespace_unreadable"]
    with pytest.raises(SyncError, match="not the pod's to have"):
        await node.first_id(a_pod("a"))
    with pytest.raises(SyncError, match="a/userns cannot be read"):
        await node.first_id(a_pod("c"))
    assert await node.first_id(a_pod("b")) == BLOCK
    if is_released:
        await node.known.release("a")
    else:
        await asyncio.to_thread(node.dirs.user_namespace("a").unlink)
    assert await node.first_id(a_pod("c")) == 2 * BLOCK
