"""The network is ready when a usable configuration and its plugins are there, and says what is missing when not."""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path

import pytest

from dockershim import inotify
from dockershim.network.cni import CniNetwork


class Node:
    """A configuration directory, a plugin directory, a network on them."""

    def __init__(self, root: Path) -> None:
        self.configuration = root / "etc" / "net.d"
        self.plugins = root / "bin"
        self.plugins.mkdir()
        self.network = CniNetwork(self.configuration, [self.plugins], root / "state", root / "netns")

    def configure(self, name: str, content: str) -> None:
        """As a network's installer does it: written beside, then renamed."""
        self.configuration.mkdir(parents=True, exist_ok=True)
        temporary = self.configuration / f"{name}.tmp"
        temporary.write_text(content)
        temporary.rename(self.configuration / name)

    def install(self, name: str) -> None:
        """An executable."""
        (self.plugins / name).write_text("#!/bin/sh\n")
        (self.plugins / name).chmod(0o755)

    async def becomes(self, ready: bool) -> str:
        """The condition's message once readiness is so: the loop gets to see the kernel's event."""
        async with asyncio.timeout(20):
            while self.network.condition().ready is not ready:  # noqa: ASYNC110 # it is read, not announced: let the loop turn
                await asyncio.sleep(0)
        return self.network.condition().message


@asynccontextmanager
async def watched(root: Path) -> AsyncIterator[Node]:
    """A node whose network has started."""
    node = Node(root)
    await node.network.start()
    try:
        yield node
    finally:
        await node.network.close()


GOOD = json.dumps({"cniVersion": "1.0.0", "name": "pods", "plugins": [{"type": "bridge"}, {"type": "portmap"}]})


async def test_readiness_follows_the_files(tmp_path: Path) -> None:
    async with watched(tmp_path) as node:
        condition = node.network.condition()
        assert (condition.ready, condition.reason) == (False, "NetworkPluginNotReady")
        assert "no .conflist, .conf or .json file" in condition.message
        node.install("bridge")
        node.install("portmap")
        node.configure("10-pods.conflist", GOOD)
        assert await node.becomes(True) == ""
        (node.configuration / "10-pods.conflist").unlink()
        assert "cni config uninitialized" in await node.becomes(False)
        (node.configuration / "10-pods.conflist").write_text(GOOD)
        await node.becomes(True)


async def test_a_directory_that_is_replaced_is_watched_again(tmp_path: Path) -> None:
    async with watched(tmp_path) as node:
        for name in ("bridge", "portmap"):
            node.install(name)
        for turn in range(3):
            node.configure("10-pods.conflist", GOOD)
            await node.becomes(True)
            node.configuration.rename(tmp_path / f"old-{turn}")
            await node.becomes(False)


async def test_a_directory_that_is_made_while_its_parent_gets_watched(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An installer may be faster than we climb: nobody tells of what it made before the watch was there."""
    node, add = Node(tmp_path), inotify.Inotify.add
    node.configuration = tmp_path / "etc" / "cni" / "net.d"
    node.network = CniNetwork(node.configuration, [node.plugins], tmp_path / "state", tmp_path / "netns")

    def add_late(watcher: inotify.Inotify, path: Path, mask: int) -> int:
        try:
            return add(watcher, path, mask)
        except FileNotFoundError:
            maker = threading.Thread(target=partial(path.mkdir, parents=True, exist_ok=True))
            maker.start()
            maker.join()
            raise

    monkeypatch.setattr(inotify.Inotify, "add", add_late)
    await node.network.start()
    for name in ("bridge", "portmap"):
        node.install(name)
    (node.configuration / "10-pods.conflist").write_text(GOOD)
    await node.becomes(True)
    await node.network.close()


async def test_a_broken_file_is_named_and_hides_nothing(tmp_path: Path) -> None:
    async with watched(tmp_path) as node:
        for name in ("bridge", "portmap"):
            node.install(name)
        node.configure("00-broken.conflist", "{")
        node.configure("10-pods.conflist", GOOD)
        assert "00-broken.conflist: not JSON" in await node.becomes(True)


async def test_only_broken_files_make_it_not_ready_with_their_names(tmp_path: Path) -> None:
    node = Node(tmp_path)
    node.configure("00-broken.conflist", "{")
    await node.network.start()
    assert "00-broken.conflist: not JSON" in node.network.condition().message
    assert not node.network.has_configuration
    await node.network.close()


async def test_a_plugin_that_is_not_installed_is_named(tmp_path: Path) -> None:
    node = Node(tmp_path)
    node.configure("10-pods.conflist", GOOD)
    node.install("bridge")
    await node.network.start()
    assert node.network.condition().message == "network pods: plugins not installed: portmap"
    node.install("portmap")
    assert node.network.condition().ready
    await node.network.close()
