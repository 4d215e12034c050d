"""StartContainer, StopContainer, RemoveContainer, UpdateContainerResources and ReopenContainerLog.

Upstream counterpart: cri-dockerd's core/container_{start,stop,remove,update}.go and logs.go. Deliberate differences: a
container that has ended is never started again, and what is gone counts as stopped and removed.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping

from cri_proto import runtime_v1 as cri
from dockershim import host
from dockershim.errors import FailedPrecondition, InvalidArgument, NotFound, NotRunning, ShimError
from dockershim.lifecycle import Lifecycle
from dockershim.node import Node
from dockershim.translate import names, resources
from dockershim.translate.image_volumes import NATIVE_API
from dockershim.translate.scope_properties import scope_properties
from dockershim.translate.views import ContainerView

LONGEST_GRACE_SECONDS = 10 * 365 * 86400


class ContainerLifecycle:
    """The handlers."""

    def __init__(self, node: Node, lifecycle: Lifecycle) -> None:
        self._node = node
        self._lifecycle = lifecycle

    # ---- start

    async def start_container(self, request: cri.StartContainerRequest) -> cri.StartContainerResponse:
        """See CRI."""
        view = self._node.store.require_container(request.container_id)
        await self._node.tasks.complete(self._start(view), f"start container {view.name}")
        return cri.StartContainerResponse()

    async def start_from(self, view: ContainerView, checkpoint: str) -> None:
        """Start a created container where a checkpoint was made."""
        await self._node.tasks.complete(self._start(view, checkpoint), f"restore container {view.name}")

    async def _start(self, view: ContainerView, checkpoint: str = "") -> None:
        async with self._node.feeder.claim(view.name):
            current = self._node.store.require_container(view.id)
            state = current.status.state
            if state == cri.ContainerState.CONTAINER_RUNNING:
                return  # the answer to an earlier call got lost
            if state != cri.ContainerState.CONTAINER_CREATED:
                raise FailedPrecondition(f"container {view.id} is {cri.ContainerState.Name(state)}, not created")
            if current.image_volumes and self._node.feeder.require_info().api_version < NATIVE_API:
                await self._node.image_volumes.ensure(current.image_volumes)
            await host.ensure_log_file(current.log_path)  # who sees it running may open its log
            try:
                await self._node.engine.start_container(view.id, checkpoint)
            except ShimError:
                await self._node.feeder.observer.observe_container(view.id)
                raise
            started = await self._node.feeder.observer.observe_container(view.id)
            if started is None:
                raise NotFound("container", view.id)
            if started.running:
                await self._limit(started)

    async def _limit(self, view: ContainerView) -> None:
        writes = names.cgroup_writes_of(view.after_start)
        try:
            await self._set_cgroup_files(view, writes, resources.swap_file({}, view.status.resources.linux))
        except ShimError:
            await self._lifecycle.stop_container(view, 0)  # it must not run without its limits
            raise

    async def _set_cgroup_files(
        self, view: ContainerView, writes: Mapping[str, str], swap_file: Mapping[str, str]
    ) -> None:
        """systemd is told first: it rounds, and the files have the last word until it is reloaded."""
        info = self._node.feeder.require_info()
        if info.cgroup_driver == "systemd" and info.cgroup_version == "2":
            await host.tell_systemd(view.pid, scope_properties({**swap_file, **writes}))
        reservations = resources.reservation_writes(writes)
        await host.write_cgroup_files(view.pid, writes, self._node.settings.cgroup_root, reservations)

    # ---- stop and remove

    async def stop_container(self, request: cri.StopContainerRequest) -> cri.StopContainerResponse:
        """See CRI. Not under the name's claim: a second call with a shorter time must get through."""
        view = self._node.store.container(request.container_id)
        if view is not None:
            seconds = min(max(request.timeout, 0), LONGEST_GRACE_SECONDS)
            await self._node.tasks.complete(
                self._lifecycle.stop_container(view, seconds), f"stop container {view.name}"
            )
        return cri.StopContainerResponse()

    async def remove_container(self, request: cri.RemoveContainerRequest) -> cri.RemoveContainerResponse:
        """See CRI."""
        view = self._node.store.container(request.container_id)
        if view is not None:
            await self._node.tasks.complete(self._remove(view), f"remove container {view.name}")
        return cri.RemoveContainerResponse()

    async def _remove(self, view: ContainerView) -> None:
        async with self._node.feeder.claim(view.name):
            current = self._node.store.containers.get(view.id)
            if current is not None:
                await self._lifecycle.remove_container(current)

    # ---- change

    async def update_container_resources(
        self, request: cri.UpdateContainerResourcesRequest
    ) -> cri.UpdateContainerResourcesResponse:
        """See CRI."""
        view = self._node.store.require_container(request.container_id)
        if request.HasField("windows"):
            raise InvalidArgument("windows", "this node runs Linux")
        if view.status.state == cri.ContainerState.CONTAINER_EXITED:
            raise FailedPrecondition(f"container {view.id} has ended")
        if request.annotations:
            raise InvalidArgument("annotations", "have no meaning to Docker in a change of resources")
        info = self._node.feeder.require_info()
        # huge pages and unified keys have no place in Docker's update; they go straight to the cgroup
        writes = resources.cgroup_writes(request.linux, cgroup_version=info.cgroup_version, field="linux")
        update = {key: value for key, value in resources.to_docker_update(request.linux, "linux").items() if value}
        if writes and not view.running:
            raise FailedPrecondition(f"container {view.id} does not run: huge pages and unified keys were set for good")
        async with self._node.feeder.claim(view.name):  # what Docker tells of the change needs no look of its own
            view = self._node.store.require_container(view.id)  # who came before may have changed it
            await self._change_oom_score(view, request.linux.oom_score_adj)
            if update:
                await self._node.engine.update_container(view.id, update)
            if view.running and (update or writes):
                # all of them: Docker's change may have written over those of before
                files = {**names.cgroup_writes_of(view.after_start), **writes}
                await self._set_cgroup_files(view, files, resources.swap_file(update, view.status.resources.linux))
                current = self._node.store.require_container(view.id)
                now = json.dumps(files, sort_keys=True) if files else current.after_start
                if now != current.after_start:
                    await self._node.changed_limits.save(view.id, now)
                    current = self._node.store.require_container(view.id)
                self._node.store.put_container(dataclasses.replace(current, after_start=now))
            await self._node.feeder.observer.observe_container(view.id)
        return cri.UpdateContainerResourcesResponse()

    async def _change_oom_score(self, view: ContainerView, wanted: int) -> None:
        """Docker's update does not know the score; the kernel does. Zero is CRI's word for "not said"."""
        field = "linux.oom_score_adj"
        if not -1000 <= wanted <= 1000:
            raise InvalidArgument(field, f"{wanted} is not in -1000..1000")
        value = resources.clamp_oom_score(wanted, self._node.settings.lowest_oom_score)
        if wanted == 0:
            return
        if view.running:
            await host.set_oom_score(view.id, view.pid, value, self._node.settings.cgroup_root, field)
        elif value != view.status.resources.linux.oom_score_adj:
            raise InvalidArgument(field, "Docker cannot change it before the container runs")

    async def reopen_container_log(self, request: cri.ReopenContainerLogRequest) -> cri.ReopenContainerLogResponse:
        """See CRI."""
        view = self._node.store.require_container(request.container_id)
        if not view.running:
            raise NotRunning(f"container {view.id} does not run; its log is closed")
        await self._node.logs.reopen(view.id)
        return cri.ReopenContainerLogResponse()
