"""CheckpointContainer, CheckpointPod and RestorePod: on Docker's experimental checkpoints, which CRIU makes.

A container stops for as long as CRIU writes its memory, and runs on. Its writable layer is read right after, when it
runs again: what it writes in that moment may be in the archive already. The containers of a pod are checkpointed one
after the other; pause has nothing to keep, and a restored pod has a sandbox of its own. Without `dockerd
--experimental`, or without CRIU where Docker's runtime looks for it, the calls are Unimplemented and say which of the
two is missing. Upstream counterpart: containerd's container_checkpoint_linux.go. Deliberate difference: a container is
restored by RestorePod alone, and not by an image whose name is a path.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import structlog

from cri_proto import runtime_v1 as cri
from dockershim import checkpoint_files
from dockershim.errors import (
    DeadlineExceeded,
    EngineFailed,
    FailedPrecondition,
    InvalidArgument,
    NotFound,
    NotRunning,
    Unimplemented,
)
from dockershim.lifecycle import Lifecycle
from dockershim.node import Node
from dockershim.tasks import Mutation
from dockershim.translate import checkpoint_archive as archive
from dockershim.translate import criu_cgroups
from dockershim.translate.criu_cgroups import move_cgroups, sibling_cgroup
from dockershim.translate.views import ContainerView

_log = structlog.get_logger()
NAME = "cri"
"""Docker's name of a checkpoint: each has a directory of its own, so one name does for all."""
DUMP_SECONDS = 600
"""When the caller says none."""
LONGEST_DUMP_SECONDS = 86400
RunPodSandbox = Callable[[cri.RunPodSandboxRequest], Awaitable[cri.RunPodSandboxResponse]]
CreateContainer = Callable[[cri.CreateContainerRequest], Awaitable[cri.CreateContainerResponse]]
Start = Callable[[ContainerView, str], Awaitable[None]]


class CheckpointAndRestore:
    """The handlers. A pod is restored by what other handlers do: run its sandbox, create and start its containers."""

    def __init__(
        self, node: Node, lifecycle: Lifecycle, run_sandbox: RunPodSandbox, create: CreateContainer, start: Start
    ) -> None:
        self._node = node
        self._lifecycle = lifecycle
        self._run_sandbox = run_sandbox
        self._create = create
        self._start = start

    def _require_experimental(self, rpc: str) -> None:
        if not self._node.feeder.require_info().experimental:
            raise Unimplemented(
                f"{rpc}: Docker has checkpoints only among its experimental features, and this one runs without them "
                '(want "experimental": true in daemon.json, and criu beside its runtime)'
            )

    # ---- checkpoint

    async def checkpoint_container(self, request: cri.CheckpointContainerRequest) -> cri.CheckpointContainerResponse:
        """See CRI."""
        self._require_experimental("CheckpointContainer")
        view = self._running(request.container_id)
        if request.timeout < 0:
            raise InvalidArgument("timeout", f"{request.timeout} is negative; 0 leaves it to dockershim")
        await asyncio.to_thread(checkpoint_files.check_location, request.location, "location")
        seconds = min(request.timeout or DUMP_SECONDS, LONGEST_DUMP_SECONDS)
        try:
            async with asyncio.timeout(seconds):
                await self._checkpoint("CheckpointContainer", view, request.location, "location", seconds)
        except TimeoutError as error:
            raise DeadlineExceeded(f"no checkpoint of container {view.id} within {seconds} s") from error
        return cri.CheckpointContainerResponse()

    async def checkpoint_pod(self, request: cri.CheckpointPodRequest) -> cri.CheckpointPodResponse:
        """See CRI."""
        self._require_experimental("CheckpointPod")
        sandbox = self._node.store.require_sandbox(request.pod_sandbox_id)
        _refuse_options(request.options)
        if not sandbox.ready or sandbox.record is None:
            raise FailedPrecondition(f"sandbox {sandbox.id} is not ready")
        views = self._wanted_of(sandbox.id, list(request.container_ids))
        names = [view.item.metadata.name for view in views]
        async with checkpoint_files.new_directory(request.output_path, "output_path") as directory:
            for view in views:
                location = str(directory / archive.container_archive(view.item.metadata.name))
                await self._checkpoint("CheckpointPod", view, location, "output_path", DUMP_SECONDS)
            texts = {
                archive.POD_DUMP: archive.pod_dump(sandbox.record.config),
                archive.POD_OPTIONS: archive.pod_options(names),
            }
            await self._node.checkpoint_files.write_texts(directory, texts, "output_path")
        return cri.CheckpointPodResponse()

    def _running(self, container_id: str) -> ContainerView:
        view = self._node.store.require_container(container_id)
        if not view.running:
            raise NotRunning(f"container {view.id} does not run; only what runs has a state to keep")
        if view.log_spool:
            raise FailedPrecondition(
                f"container {view.id} writes into the log spool, whose FIFOs no restored container would find; "
                "want one that was made without --spool-logs"
            )
        return view

    def _wanted_of(self, sandbox_id: str, container_ids: list[str]) -> list[ContainerView]:
        members = {view.id: view for view in self._node.store.members(sandbox_id)}
        for index, container_id in enumerate(container_ids):
            if container_id not in members:
                raise InvalidArgument(f"container_ids[{index}]", f"{container_id} is no container of {sandbox_id}")
        found = [self._running(each) for each in dict.fromkeys(container_ids)]
        found = found or [view for view in members.values() if view.running]
        if not found:
            raise FailedPrecondition(f"no container of sandbox {sandbox_id} runs")
        return sorted(found, key=lambda view: view.status.created_at)

    async def _checkpoint(self, rpc: str, view: ContainerView, location: str, field: str, seconds: int) -> None:
        sandbox = self._node.store.require_sandbox(view.sandbox_id)
        files, engine = self._node.checkpoint_files, self._node.engine
        runtime = sandbox.docker_runtime or self._node.feeder.require_info().default_runtime
        async with self._node.feeder.claim(view.name), files.dump_directory() as directory:
            spec = await files.oci_configuration(self._running(view.id).pid, view.id)
            at_ns = self._node.clock_ns()
            try:
                await engine.create_checkpoint(view.id, NAME, str(directory), seconds)
            except Unimplemented as error:
                raise Unimplemented(f"{rpc}: {error}") from error
            layer = await self._node.stats.in_turn(lambda: self._node.stats.writable_directory(view))
            texts = {
                archive.CONFIG_DUMP: archive.config_dump(view, runtime, at_ns),
                archive.SPEC_DUMP: archive.spec_dump(spec, view, sandbox),
                archive.STATUS_DUMP: archive.status_dump(view.status),
            }
            await files.write_container(location, field, texts, directory / NAME, layer)
        _log.info("checkpoint_written", container=view.id, location=location, layer=bool(layer))

    # ---- restore

    async def restore_pod(self, request: cri.RestorePodRequest) -> cri.RestorePodResponse:
        """See CRI. Containers that the checkpoint does not have are left for the caller to create."""
        self._require_experimental("RestorePod")
        _refuse_options(request.options)
        path, field = request.checkpoint_path, "checkpoint_path"
        dump, options = await self._node.checkpoint_files.read_texts(
            path, (archive.POD_DUMP, archive.POD_OPTIONS), field
        )
        try:
            pod = archive.parse_pod(options, dump)
        except archive.Unreadable as error:
            raise InvalidArgument(field, f"{path}: {error}") from error
        configs = {config.metadata.name: config for config in request.container_configs}
        missing = [name for name in pod.containers if name not in configs]
        if missing:
            raise InvalidArgument("container_configs", f"has none of {', '.join(missing)}, which {path} has")
        config = request.config if request.HasField("config") else pod.config
        async with Mutation(self._node.tasks, "restore a pod") as mutation:
            run = cri.RunPodSandboxRequest(config=config, runtime_handler=request.runtime_handler)
            sandbox_id = (await self._run_sandbox(run)).pod_sandbox_id
            mutation.on_failure("remove the sandbox", lambda: self._remove(sandbox_id))
            restored = []
            for name in pod.containers:
                source = Path(path, archive.container_archive(name))
                create = cri.CreateContainerRequest(
                    pod_sandbox_id=sandbox_id, config=configs[name], sandbox_config=config
                )
                container_id = await self._restore(source, create)
                restored.append(cri.RestoredContainer(name=name, container_id=container_id))
        return cri.RestorePodResponse(pod_sandbox_id=sandbox_id, restored_containers=restored)

    async def _remove(self, sandbox_id: str) -> None:
        view = self._node.store.sandboxes.get(sandbox_id)
        if view is not None:
            await self._lifecycle.remove_sandbox(view)

    async def _restore(self, source: Path, create: cri.CreateContainerRequest) -> str:
        field, files = "checkpoint_path", self._node.checkpoint_files
        async with files.dump_directory() as directory:
            found = await files.read_container(source, field, directory)
            former_id = self._check_image(found, source, create.config.image.image)
            container_id = (await self._create(create)).container_id
            view = await self._node.feeder.observer.observe_container(container_id)  # only Docker knows its layer
            if view is None:
                raise NotFound("container", container_id)
            if found.layer is not None:
                if not view.writable_directory:
                    raise Unimplemented(
                        "RestorePod: this engine does not say where it keeps writable layers, and "
                        f"{source} has one to be restored (engines with the overlay2 image store do)"
                    )
                await files.apply_layer(found.layer, view.writable_directory, field)
            info = self._node.feeder.require_info()
            cgroup = ""
            if info.cgroup_version == "2":
                cgroup = await self._move_cgroup(found.images, former_id, view)
            place = Path(info.root_directory, "containers", view.id, "checkpoints", NAME)
            async with checkpoint_files.placed(found.images, place, field):
                await self._start(view, NAME)
            if cgroup:
                await self._check_cgroup(view.id, cgroup)
        return view.id

    async def _move_cgroup(self, images: Path, former_id: str, view: ContainerView) -> str:
        """Tell CRIU the cgroup that the new container will have, beside its sandbox; the path."""
        sandbox = self._node.store.require_sandbox(view.sandbox_id)
        files = self._node.checkpoint_files
        path = sibling_cgroup(await files.cgroup_of(sandbox.pid), sandbox.id, view.id)
        image = images / criu_cgroups.IMAGE
        await files.change_image(image, lambda content: move_cgroups(content, former_id, path), "checkpoint_path")
        return path

    async def _check_cgroup(self, container_id: str, wanted: str) -> None:
        """Outside of its own cgroup it would have another one's limits, and nobody could tell what it uses."""
        current = self._running(container_id)
        found = await self._node.checkpoint_files.cgroup_of(current.pid)
        if found != wanted:
            raise EngineFailed(f"CRIU has put container {container_id} into cgroup {found}, where {wanted} was meant")

    def _check_image(self, found: checkpoint_files.ContainerArchive, source: Path, image: str) -> str:
        """CRIU maps the files of the image again, so they must be the same. The id that the container had."""
        try:
            former_id, wanted = archive.parse_config_dump(found.texts.get(archive.CONFIG_DUMP, b""))
        except archive.Unreadable as error:
            raise InvalidArgument("checkpoint_path", f"{source}: {error}") from error
        known = self._node.store.find_image(image)
        if known is None:
            raise NotFound("image", image)
        if known.id != wanted:
            raise FailedPrecondition(f"{source} is of image {wanted}, and {image} is {known.id} here")
        return former_id


def _refuse_options(options: Any) -> None:
    for name in options:
        raise InvalidArgument(f"options[{name!r}]", "is no option of dockershim, which has none")
