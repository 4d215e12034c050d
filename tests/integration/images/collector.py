"""Runs inside a lab: image garbage collection on a real runtime and its real disk, and tells what came of it.

`python -m tests.integration.images.collector ENDPOINT USED UNUSED` pulls both images, starts a container of the first,
and collects twice as if the disk were too full. Prints JSON: the images after each look, the events, the last error.
"""

from __future__ import annotations

import asyncio
import json
import sys

from cri_proto import runtime_v1 as cri
from kubelet_py.core.image_gc_rules import ImageGcPolicy
from kubelet_py.cri import RuntimeClient, connect
from kubelet_py.managers.images.gc import ImageGc, ImageGcError

ALWAYS_TOO_FULL = ImageGcPolicy(high_percent=1, low_percent=0, min_age_seconds=60.0)


async def main(endpoint: str, used: str, unused: str) -> None:
    client = connect(endpoint)
    for name in (used, unused):
        await client.pull_image(cri.ImageSpec(image=name), None, None)
    await start_container(client, used)
    now = 1000.0
    events: list[tuple[str, str]] = []
    collector = ImageGc(client, ALWAYS_TOO_FULL, lambda *event: events.append(event), clock=lambda: now)
    looks, problem = [await names(client)], ""
    for later in (0.0, 300.0):
        now += later
        try:
            await collector.collect()
        except ImageGcError as error:
            problem = str(error)
        looks.append(await names(client))
    await client.close()
    print(json.dumps({"looks": looks, "events": events, "problem": problem}))


async def names(client: RuntimeClient) -> list[str]:
    return sorted(name for image in await client.list_images() for name in image.repo_tags)


async def start_container(client: RuntimeClient, image: str) -> None:
    metadata = cri.PodSandboxMetadata(name="gc", namespace="default", uid="gc")
    sandbox_config = cri.PodSandboxConfig(metadata=metadata, linux=cri.LinuxPodSandboxConfig())
    sandbox_id = await client.run_pod_sandbox(sandbox_config, "")
    config = cri.ContainerConfig(
        metadata=cri.ContainerMetadata(name="main"), image=cri.ImageSpec(image=image), command=["sleep", "1000"]
    )
    await client.start_container(await client.create_container(sandbox_id, config, sandbox_config))


asyncio.run(main(*sys.argv[1:]))
