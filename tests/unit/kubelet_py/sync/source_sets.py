"""What a source of pods gives, collected, and a manifest to give it."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

from kubelet_py.api import pod as podlib
from kubelet_py.core.source_merge import PodSet


def manifest_text(name: str = "web", image: str = "app") -> str:
    return (
        f"apiVersion: v1\nkind: Pod\nmetadata: {{name: {name}}}\nspec: {{containers: [{{name: c, image: {image}}}]}}\n"
    )


class Sets:
    """Collects what a source gives; waits for what a test expects."""

    def __init__(self) -> None:
        self.queue: asyncio.Queue[PodSet] = asyncio.Queue()

    async def __call__(self, pods: PodSet) -> None:
        """The source's callback."""
        await self.queue.put(pods)

    async def next(self) -> PodSet:
        """The next set."""
        async with asyncio.timeout(20):
            return await self.queue.get()

    async def names(self) -> list[str]:
        """The names of the next set's pods."""
        return [podlib.metadata_of(pod).name or "" for pod in (await self.next()).pods]


@asynccontextmanager
async def running(loop: Callable[[], Awaitable[None]]) -> AsyncIterator[None]:
    """A source's endless loop, for as long as the test needs it."""

    async def run() -> None:
        await loop()

    async with asyncio.TaskGroup() as group:
        task = group.create_task(run(), name="source")
        try:
            yield
        finally:
            task.cancel()
