"""RemoveImage over the fake engine: all of an image's names go, or none."""

from __future__ import annotations

from pathlib import Path

import pytest

from cri_proto import runtime_v1 as cri
from dockershim.errors import InUse
from dockershim.pulls import Puller
from dockershim.rpc.images import Images
from tests.fakes.docker_node import World, running_node

NAMES = ("registry.k8s.io/many:1", "registry.k8s.io/many:2", "registry.k8s.io/other:1")


async def remove(world: World, name: str) -> None:
    """RemoveImage."""
    request = cri.RemoveImageRequest(image=cri.ImageSpec(image=name))
    await Images(world.node, Puller(world.node)).remove_image(request)


@pytest.mark.parametrize("state", ["created", "running", "exited"])
async def test_an_image_that_somebody_elses_container_has_keeps_its_names(tmp_path: Path, state: str) -> None:
    """Docker refuses only the last of them. Without the container the image goes."""
    async with running_node(tmp_path) as world:
        engine = world.engine
        image_id = engine.add_image(*NAMES)
        await world.node.feeder.images.refresh()
        container = (await engine.create_container("not-ours", {"Image": NAMES[0], "HostConfig": {}})).id
        if state != "created":
            await engine.start_container(container)
        if state == "exited":
            engine.end(container, 0)
        with pytest.raises(InUse, match=container):
            await remove(world, NAMES[1])
        assert engine.images[image_id]["RepoTags"] == [*NAMES]
        await engine.remove_container(container, force=True)
        await remove(world, NAMES[1])
        assert image_id not in engine.images
