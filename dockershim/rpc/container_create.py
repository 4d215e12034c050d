"""CreateContainer.

Upstream counterpart: cri-dockerd's core/container_create.go. Deliberate difference: a request that leaves out a part
is refused, where a missing part ends cri-dockerd's process; groups that the image has for the user are added where the
request has a group of its own, too.
"""

from __future__ import annotations

import dataclasses
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any

import structlog

from cri_proto import runtime_v1 as cri
from dockershim import cdi, host
from dockershim.engine import NewContainer
from dockershim.errors import EngineFailed, FailedPrecondition, InvalidArgument, NotFound
from dockershim.image_groups import ImageGroups
from dockershim.lifecycle import Lifecycle
from dockershim.node import Node
from dockershim.tasks import Mutation
from dockershim.translate import container_spec, image_volumes, names, new_containers, security, users
from dockershim.translate.cdi import wanted_devices
from dockershim.translate.image_views import ImageView
from dockershim.translate.image_volumes import ImageVolume
from dockershim.translate.views import ContainerView, SandboxView, container_view
from dockershim.translate.wrapping import Wrapping

_log = structlog.get_logger()


class ContainerCreate:
    """The handler."""

    def __init__(self, node: Node, lifecycle: Lifecycle) -> None:
        self._node = node
        self._lifecycle = lifecycle
        self._image_groups = ImageGroups(node.engine)

    async def create_container(self, request: cri.CreateContainerRequest) -> cri.CreateContainerResponse:
        """See CRI."""
        return await self._create_container(request, self._node.logs.spool_directory)

    async def create_for_restore(self, request: cri.CreateContainerRequest) -> cri.CreateContainerResponse:
        """The same for a container that CRIU will fill, which writes where the checkpointed one wrote: to Docker."""
        return await self._create_container(request, "")

    async def _create_container(
        self, request: cri.CreateContainerRequest, log_spool: str
    ) -> cri.CreateContainerResponse:
        for part in ("config", "sandbox_config"):
            if not request.HasField(part):
                raise InvalidArgument(part, "is missing")
        sandbox = self._node.store.require_sandbox(request.pod_sandbox_id)
        if not sandbox.ready:
            raise FailedPrecondition(f"sandbox {sandbox.id} is not ready")
        config, sandbox_config = request.config, request.sandbox_config
        self._check_target(config, sandbox)
        if not config.image.image:
            raise InvalidArgument("config.image.image", "is empty")
        image = self._node.store.find_image(config.image.image)
        if image is None:
            raise NotFound("image", config.image.image)
        secure, secure_field = config.linux.security_context, "config.linux.security_context"
        profile = await host.read_seccomp_profile(security.optional(secure, "seccomp"), secure_field)
        if self._node.feeder.require_info().has_security("apparmor"):
            await host.require_apparmor_profile(security.local_apparmor_profile(secure, secure_field), secure_field)
        volumes = image_volumes.wanted_volumes(config.mounts, self._id_of_image)
        sources = [
            (f"config.mounts[{index}].host_path", mount.host_path)
            for index, mount in enumerate(config.mounts)
            if not image_volumes.is_image_volume(mount)
        ]
        devices = wanted_devices(config)
        name = names.container_name(sandbox.status.metadata, config.metadata)
        async with (
            self._image_sources(volumes) as trees,
            self._node.feeder.claim(name),
            Mutation(self._node.tasks, f"create container {name}") as mutation,
        ):
            etc_mounts = await self._node.sandbox_files.mounts(sandbox, config)
            context = self._context(sandbox, image.id, profile, volumes, trees, etc_mounts)
            context = dataclasses.replace(context, log_spool=log_spool)
            if devices and context.api_version < container_spec.CDI_API:
                edits = await cdi.container_edits(devices)
                context = dataclasses.replace(context, cdi_edits=edits)
            body = container_spec.to_docker_container(config, sandbox_config, context)
            await host.ensure_mount_sources(sources)
            self._log_raised_oom_score(config)
            before_ns = self._node.monotonic_ns()
            created: list[str] = []
            mutation.on_failure("remove the container", lambda: self._undo(created))
            made = await mutation.step(self._create(name, body, created, config))
            await self._check_volumes(made.id, volumes, trees)
            if made.warnings:  # Docker has left something out, and the store shall not say otherwise
                if await mutation.step(self._node.feeder.observer.observe_container(made.id)) is None:
                    raise EngineFailed(f"container {made.id} vanished right after its creation")
            else:
                self._node.store.put_container(self._view(name, made.id, body, image, before_ns))
        return cri.CreateContainerResponse(container_id=made.id)

    def _view(
        self,
        name: str,
        container_id: str,
        body: dict[str, Any],
        image: ImageView,
        before_ns: int,
    ) -> ContainerView:
        """The container as it was asked for; who starts it looks at what Docker made of it.

        `before_ns` is the time before the creation, so that whatever happens to the container is newer.
        """
        inspect = new_containers.as_inspected(container_id, name, body, image.facts)
        view = container_view(inspect, self._node.store.image_name, before_ns)
        return dataclasses.replace(view, unseen=True)

    async def _create(
        self, name: str, body: dict[str, Any], created: list[str], config: cri.ContainerConfig
    ) -> NewContainer:
        """Create it; once more when the image turns out to have groups for its user that Docker would leave out."""
        user, image_id = users.merged_user(config.linux.security_context), str(body["Image"])
        groups = self._image_groups.known(image_id, user) if user else ()
        made = await self._lifecycle.create_replacing(name, users.with_groups(body, groups or ()))
        created.append(made.id)
        if groups is not None or not (groups := await self._image_groups.read(image_id, made.id, user)):
            return made
        await self._lifecycle.remove_quietly(made.id)
        again = await self._lifecycle.create_replacing(name, users.with_groups(body, groups))
        created.append(again.id)
        return again

    async def _undo(self, created: list[str]) -> None:
        for container_id in created:
            await self._lifecycle.remove_quietly(container_id)
            self._node.store.remove_container(container_id)

    # ---- image volumes

    def _id_of_image(self, reference: str) -> str:
        view = self._node.store.find_image(reference)
        return view.id if view else ""

    @asynccontextmanager
    async def _image_sources(self, volumes: tuple[ImageVolume, ...]) -> AsyncIterator[Mapping[ImageVolume, str]]:
        """Where the trees of images are on the host; nothing where Docker mounts images by itself."""
        if not volumes or self._node.feeder.require_info().api_version >= image_volumes.NATIVE_API:
            yield {}
            return
        async with self._node.image_volumes.sources(volumes) as trees:
            yield trees

    async def _check_volumes(
        self, container_id: str, volumes: tuple[ImageVolume, ...], trees: Mapping[ImageVolume, str]
    ) -> None:
        """Docker looks for a sub path only when it mounts; what is not there shall fail now, as the kubelet expects."""
        for volume in volumes:
            if volume in trees:
                await self._node.image_volumes.check_seen(container_id, volume, trees[volume])
                continue
            if not volume.sub_path:
                continue
            try:
                await self._node.engine.stat_path(container_id, volume.container_path)
            except (NotFound, InvalidArgument, EngineFailed) as error:
                raise image_volumes.no_such_path(volume) from error

    def _check_target(self, config: cri.ContainerConfig, sandbox: SandboxView) -> None:
        """A container may join the processes of one that runs in its own pod, and of no other."""
        options = config.linux.security_context.namespace_options
        if options.pid != cri.NamespaceMode.TARGET or not options.target_id:
            return
        target = self._node.store.container(options.target_id)
        if target is None or target.sandbox_id != sandbox.id or not target.running:
            field = "config.linux.security_context.namespace_options.target_id"
            raise InvalidArgument(field, f"{options.target_id} is no running container of sandbox {sandbox.id}")

    def _context(
        self,
        sandbox: SandboxView,
        image_id: str,
        profile: str | None,
        volumes: tuple[ImageVolume, ...],
        trees: Mapping[ImageVolume, str],
        etc_mounts: list[cri.Mount],
    ) -> container_spec.ContainerContext:
        info = self._node.feeder.require_info()
        wrapping = Wrapping(info.wrapped_runtimes)
        return container_spec.ContainerContext(
            sandbox_id=sandbox.id,
            sandbox_metadata=sandbox.status.metadata,
            image_id=image_id,
            api_version=info.api_version,
            docker_runtime=wrapping.bare(sandbox.docker_runtime),
            # one of cri-dockerd's told its runtime nothing of a pod, so none of its containers may claim to be in one
            runtime_handler=sandbox.record.runtime_handler if sandbox.record is not None else "",
            host_network=sandbox.host_network,
            host_ipc=sandbox.status.linux.namespaces.options.ipc == cri.NamespaceMode.NODE,
            cgroup_version=info.cgroup_version,
            lowest_oom_score=self._node.settings.lowest_oom_score,
            systemd_cgroups=info.cgroup_driver == "systemd",
            host=self._node.host_security(profile),
            image_volumes=volumes,
            image_sources=trees,
            etc_mounts=tuple(etc_mounts),
            sandbox_namespaces=sandbox.status.linux.namespaces.options,
            wrapping=wrapping,
            created_at_ns=self._node.clock_ns(),
        )

    def _log_raised_oom_score(self, config: cri.ContainerConfig) -> None:
        wanted, lowest = config.linux.resources.oom_score_adj, self._node.settings.lowest_oom_score
        if wanted < lowest:
            _log.debug("oom_score_raised", container=config.metadata.name, wanted=wanted, set=lowest)
