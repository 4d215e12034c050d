"""Stopping and removing, as several RPCs need it, and creating under a name that may be taken.

Owns the order of things: containers before the network, the network before pause, the store and the records last. All
of it can be repeated and all of it accepts that things are gone already. Must not know gRPC. Upstream counterpart:
cri-dockerd's core/sandbox_stop.go, sandbox_remove.go, container_stop.go and recoverFromCreationConflictIfNeeded.
Deliberate differences: a sandbox takes its containers along; a conflicting container is removed whatever its state
unless it is one that we know to be current.
"""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
from collections.abc import Iterable
from typing import Any

import structlog

from dockershim.engine import NewContainer
from dockershim.errors import (
    AlreadyExists,
    DeadlineExceeded,
    EngineFailed,
    NameConflict,
    NotFound,
    NotRunning,
    ResourceExhausted,
    ShimError,
    Unavailable,
)
from dockershim.network import NetworkFailed, NetworkRequest
from dockershim.node import Node
from dockershim.translate.views import ContainerView, SandboxRecord, SandboxView

_log = structlog.get_logger()
CREATE_PAUSES_SECONDS = (0.0, 0.1, 0.3, 1.0)
"""Before each attempt. Docker gives a name away a moment before there is anything to find and remove under it."""


class Lifecycle:
    """The shared steps."""

    def __init__(self, node: Node) -> None:
        self._node = node

    # ---- create

    async def create_replacing(self, name: str, body: dict[str, Any]) -> NewContainer:
        """Create a container; what else has the name is removed, unless it is alive and known."""
        for pause_seconds in CREATE_PAUSES_SECONDS:
            await asyncio.sleep(pause_seconds)
            try:
                return await self._node.engine.create_container(name, body)
            except NameConflict as conflict:
                await self._clear_name(name, conflict)
        raise AlreadyExists(f"the name {name} is taken again and again by somebody else")

    async def _clear_name(self, name: str, conflict: NameConflict) -> None:
        store = self._node.store
        holder = conflict.holder or store.id_of_name(name) or name
        sandbox, container = store.sandboxes.get(holder), store.containers.get(holder)
        if (sandbox is not None and sandbox.ready) or (container is not None and container.running):
            raise AlreadyExists(f"{name} exists and runs, with id {holder}")
        _log.info("name_conflict_cleared", name=name, holder=holder, known=bool(sandbox or container))
        if sandbox is not None:
            await self.remove_sandbox(sandbox)
        elif container is not None:
            await self.remove_container(container)
        else:
            await self.remove_quietly(holder)

    async def remove_quietly(self, reference: str) -> None:
        """Remove a Docker container by force; one that is gone is fine."""
        try:
            await self._node.engine.remove_container(reference, force=True)
        except NotFound:
            return

    # ---- containers

    async def stop_container(self, view: ContainerView, timeout_seconds: int) -> None:
        """Stop a container and wait until the store shows it. That Docker cannot tell how it ended is no failure:
        it has stopped, as was asked for."""
        if not view.running:
            return
        with contextlib.suppress(NotFound, NotRunning):
            await self._node.engine.stop_container(view.id, timeout_seconds)
        try:
            after = await self._node.feeder.observer.observe_end(view.id)
        except (Unavailable, DeadlineExceeded):  # Docker itself: it can tell when it is asked again
            raise
        except ShimError as error:
            _log.warning("container_end_unseen", id=view.id, error=str(error))
            await self._node.feeder.observer.container_ended(view.id, str(error))
            return
        if after is not None and after.running:
            raise EngineFailed(f"container {view.id} still runs after Docker said it stopped")

    async def remove_container(self, view: ContainerView) -> None:
        """Remove a container, whatever its state."""
        if view.running:
            await self.stop_container(view, 0)
        await self.remove_quietly(view.id)
        await self._node.logs.remove(view.id)
        await self._node.changed_limits.delete(view.id)
        self._node.store.remove_container(view.id)
        if view.image_volumes:
            await self._node.image_volumes.collect({volume.image_id for volume in view.image_volumes})

    async def _all(self, works: Iterable[Any]) -> None:
        """Run side by side to the end of all; the first failure is raised then."""
        results = await asyncio.gather(*works, return_exceptions=True)
        for result in results:
            if isinstance(result, BaseException):
                raise result

    # ---- sandboxes

    async def stop_sandbox(self, view: SandboxView) -> None:
        """End all containers, disconnect, end pause. Done before: nothing happens."""
        store = self._node.store
        await self._all(self.stop_container(member, 0) for member in store.members(view.id))
        await self.disconnect(view)
        view = store.sandboxes.get(view.id, view)
        if view.running:
            await self._end_pause(view.id)

    async def _end_pause(self, sandbox_id: str) -> None:
        feeder = self._node.feeder
        try:
            with contextlib.suppress(NotRunning):
                await self._node.engine.kill_container(sandbox_id, "SIGKILL")  # pause has nothing to finish
        except NotFound:
            await feeder.observer.observe_sandbox(sandbox_id)
        else:
            feeder.observer.sandbox_ended(sandbox_id, self._node.monotonic_ns())

    async def disconnect(self, view: SandboxView) -> None:
        """Tear the network down once."""
        record = view.record
        if view.host_network or record is None or record.network_torn_down:
            return
        await self.tear_down_network(record, view.pid if view.running else 0)
        await self.save_record(dataclasses.replace(record, network_torn_down=True, network_ready=False))

    async def tear_down_network(self, record: SandboxRecord, pid: int) -> None:
        """Ask the network to forget the sandbox."""
        try:
            await self._node.network.tear_down(network_request(record, pid), record.raw)
        except NetworkFailed as error:
            raise EngineFailed(str(error)) from error

    async def save_record(self, record: SandboxRecord) -> None:
        """Keep a changed record in the store and, where there is room, on disk: a full one must not keep pods alive."""
        try:
            await self._node.checkpoints.save(record, durable=False)
        except ResourceExhausted as error:
            _log.warning("record_not_updated", id=record.id, error=str(error), hint="a restart asks the network again")
        view = self._node.store.sandboxes.get(record.id)
        if view is not None:
            self._node.store.put_sandbox(dataclasses.replace(view, record=record))

    async def remove_sandbox(self, view: SandboxView) -> None:
        """Stop it if need be, remove its containers, pause, and every trace."""
        await self.stop_sandbox(view)
        await self._all(self.remove_container(member) for member in self._node.store.members(view.id))
        await self.remove_quietly(view.id)
        await self._node.sandbox_files.delete(view.id)
        await self._node.checkpoints.delete(view.id)
        self._node.feeder.observer.record_removed(view.id)
        self._node.store.remove_sandbox(view.id)


def network_request(record: SandboxRecord, pid: int) -> NetworkRequest:
    """A sandbox as its network sees it."""
    config = record.config
    return NetworkRequest(
        sandbox_id=record.id,
        name=config.metadata.name,
        namespace=config.metadata.namespace,
        uid=config.metadata.uid,
        netns_path=f"/proc/{pid}/ns/net" if pid else "",
        port_mappings=tuple(config.port_mappings),
        annotations=dict(config.annotations),
        dns=config.dns_config if config.HasField("dns_config") else None,
        cgroup_parent=config.linux.cgroup_parent,
    )
