"""The node's addresses: looked at again with each period of the node's status, so that they follow the machine.

Owns what was last seen. That there is none, or not the one that was asked for, ends nothing: what was seen before
stays, and pods run. Upstream counterpart: the NodeAddress setter of pkg/kubelet/nodestatus, which each status runs.
"""

import asyncio
import threading
from collections.abc import Callable
from contextlib import suppress
from typing import Final

import structlog

from kubelet_py.api import core_v1
from kubelet_py.core.node_addresses import compute_host_ips
from kubelet_py.errors import NodeAddressUnknown

log = structlog.get_logger()

Addresses = tuple[core_v1.NodeAddress, ...]

FIRST_LOOK_SECONDS: Final = 3.0
"""How long the start waits for a look: as a rule it takes milliseconds, but a name server that is away takes longer."""

WITHOUT_SECONDS: Final = 2.0
"""How soon it is looked again while there is no address: nobody reaches the node, and pods wait for it."""


class NodeAddresses:
    """What the machine has. `find` may block; `on_change` is told when it has found something else than before."""

    def __init__(self, find: Callable[[], Addresses], period_seconds: float, on_change: Callable[[], None]) -> None:
        self._find = find
        self._period_seconds = period_seconds
        self._on_change = on_change
        self._first: asyncio.Future[Addresses] | None = None
        self._trouble = ""
        self._host_ips: tuple[core_v1.Node | None, tuple[str, ...]] | None = None
        self.current: Addresses = ()
        """As they were last seen; () before they ever were."""

    def host_ips(self, node: core_v1.Node | None) -> tuple[str, ...]:
        """What pods see as the node's IPs, by its object as last seen. Asked with each pass of a pod."""
        if self._host_ips is None or self._host_ips[0] is not node:
            self._host_ips = (node, compute_host_ips(node, self.current))
        return self._host_ips[1]

    async def look_first(self) -> None:
        """One look for the start, which goes on without an answer; `run` takes one that comes later."""
        first = _in_a_thread_of_its_own(self._find)
        await asyncio.wait({first}, timeout=FIRST_LOOK_SECONDS)
        if first.done():
            await self._take(first)
        else:
            self._first = first
            self._note_trouble("the name of the node is not resolved yet")

    async def run(self) -> None:
        """Endless."""
        if self._first is not None:
            await self._take(self._first)
        while True:
            await asyncio.sleep(self._period_seconds if self.current else min(self._period_seconds, WITHOUT_SECONDS))
            await self.look()

    async def look(self) -> None:
        """Looks once."""
        await self._take(_in_a_thread_of_its_own(self._find))

    async def _take(self, looking: asyncio.Future[Addresses]) -> None:
        try:
            found = await looking
        except NodeAddressUnknown as error:
            self._note_trouble(str(error))
            return
        if found == self.current and not self._trouble:
            return
        log.info("node_addresses", addresses=[f"{each.type} {each.address}" for each in found])
        self._trouble = ""
        if found != self.current:
            self.current, self._host_ips = found, None
            self._on_change()

    def _note_trouble(self, why: str) -> None:
        if why != self._trouble:
            kept = [each.address for each in self.current]
            log.warning("node_addresses_not_found", error=why, kept=kept, action="looking again")
        self._trouble = why


def _in_a_thread_of_its_own(find: Callable[[], Addresses]) -> asyncio.Future[Addresses]:
    """Not one of the few that the pods' work shares, and none that a stop waits for: DNS can take half a minute."""
    loop = asyncio.get_running_loop()
    answer: asyncio.Future[Addresses] = loop.create_future()

    def settle(found: Addresses | None, error: Exception | None) -> None:
        if answer.done():
            return
        if error is not None:
            answer.set_exception(error)
        else:
            answer.set_result(found or ())

    def ask() -> None:
        found: Addresses | None = None
        trouble: Exception | None = None
        try:
            found = find()
        except Exception as error:  # whatever it is, it is the asker's to handle
            trouble = error
        with suppress(RuntimeError):  # the loop has ended meanwhile
            loop.call_soon_threadsafe(settle, found, trouble)

    threading.Thread(target=ask, name="node-addresses", daemon=True).start()
    return answer
