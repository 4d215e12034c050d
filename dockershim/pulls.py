"""Pulling images: one pull for all who want the same, watched by its progress.

Owns single flight per reference and credentials, and the deadline that counts only while nothing moves. Must not know
gRPC. Upstream counterpart: the progress reporter of cri-dockerd's libdocker. Deliberate difference: any byte or step
counts as progress, the first one included, and nobody's pull is ended because another waiter went away.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field

import structlog

from dockershim.engine import RegistryAuth
from dockershim.errors import DeadlineExceeded, EngineFailed, NotFound
from dockershim.node import Node
from dockershim.translate.image_refs import parse_image_ref
from dockershim.translate.pull_progress import PullProgress

_log = structlog.get_logger()
_Key = tuple[str, RegistryAuth | None]


@dataclass(slots=True)
class _Flight:
    outcome: asyncio.Future[str]
    task: asyncio.Task[None] | None = None
    waiters: int = 0
    layers: int = field(default=0)


class Puller:
    """All pulls of the process."""

    def __init__(self, node: Node) -> None:
        self._node = node
        self._flights: dict[_Key, _Flight] = {}

    async def pull_for_host(self, reference: str) -> str:
        """Pull with the credentials that the host's own Docker configuration has."""
        return await self.pull(reference, RegistryAuth(from_host=True))

    async def pull(self, reference: str, auth: RegistryAuth | None) -> str:
        """Pull and return the image's id. The last waiter who goes away ends the pull."""
        key = (parse_image_ref(reference).canonical, auth)
        flight = self._flights.get(key)
        if flight is None or flight.outcome.done():
            flight = self._flights[key] = _Flight(asyncio.get_running_loop().create_future())
            self._node.tasks.spawn_logged(self._fly(key, flight, reference, auth), f"pull {reference}")
        flight.waiters += 1
        try:
            return await asyncio.shield(flight.outcome)
        finally:
            flight.waiters -= 1
            if not flight.waiters and not flight.outcome.done():
                self._flights.pop(key, None)
                if flight.task is not None:
                    flight.task.cancel()

    async def _fly(self, key: _Key, flight: _Flight, reference: str, auth: RegistryAuth | None) -> None:
        flight.outcome.add_done_callback(_retrieve)
        if not flight.waiters:
            flight.outcome.cancel()  # whoever wanted it went away before it began
            return
        try:
            async with asyncio.TaskGroup() as group:
                flight.task = group.create_task(self._pull(flight, reference, auth), name=f"pull of {reference}")
        finally:
            if self._flights.get(key) is flight:
                del self._flights[key]
            if not flight.outcome.done():
                flight.outcome.cancel()

    async def _pull(self, flight: _Flight, reference: str, auth: RegistryAuth | None) -> None:
        try:
            flight.outcome.set_result(await self._pull_watched(reference, auth))
        except Exception as error:
            if not flight.outcome.done():
                flight.outcome.set_exception(error)

    async def _pull_watched(self, reference: str, auth: RegistryAuth | None) -> str:
        with self._node.feeder.images.pulling(reference):
            await self._pull_to_the_end(reference, auth)
            try:
                return (await self._node.feeder.images.look(reference)).id
            except NotFound as error:
                raise EngineFailed(f"Docker pulled {reference} and does not have it: {error}") from error

    async def _pull_to_the_end(self, reference: str, auth: RegistryAuth | None) -> None:
        parsed = parse_image_ref(reference)
        name = parsed.familiar if parsed.registry == "docker.io" else parsed.repository
        limit = self._node.settings.pull_progress_deadline_seconds
        loop = asyncio.get_running_loop()
        last: list[PullProgress] = []
        try:
            async with asyncio.timeout(limit) as deadline:

                def report(progress: PullProgress) -> None:
                    last[:] = [progress]
                    if not deadline.expired():
                        # nobody waits for the registry while this machine checks or extracts what has come
                        deadline.reschedule(None if progress.local else loop.time() + limit)

                await self._node.engine.pull_image(name, parsed.pull_tag, auth, report)
        except TimeoutError:
            at = f" (last: {last[0].text})" if last else ""
            raise DeadlineExceeded(f"pull of {reference} made no progress for {limit:.0f} s{at}") from None


def _retrieve(outcome: asyncio.Future[str]) -> None:
    if not outcome.cancelled():
        outcome.exception()
