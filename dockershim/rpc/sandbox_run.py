"""RunPodSandbox: create, start, look once, connect. Three Docker calls.

Upstream counterpart: cri-dockerd's core/sandbox_run.go. Deliberate differences: the record is on disk before the
network is asked, and a failure at any step leaves nothing behind.
"""

from __future__ import annotations

import asyncio
import dataclasses
from typing import Any

import structlog

from cri_proto import runtime_v1 as cri
from dockershim import host
from dockershim.errors import (
    AlreadyExists,
    DeadlineExceeded,
    EngineFailed,
    InvalidArgument,
    NotFound,
    ShimError,
    Unavailable,
)
from dockershim.lifecycle import Lifecycle, network_request
from dockershim.network import NetworkFailed, NetworkResult
from dockershim.node import Node
from dockershim.pulls import Puller
from dockershim.tasks import Mutation
from dockershim.translate import names, sandbox_spec, security
from dockershim.translate.views import SandboxRecord, docker_addresses, ghost_sandbox_view, sandbox_view

_log = structlog.get_logger()


class SandboxRun:
    """The handler."""

    def __init__(self, node: Node, lifecycle: Lifecycle, puller: Puller) -> None:
        self._node = node
        self._lifecycle = lifecycle
        self._puller = puller

    async def run_pod_sandbox(self, request: cri.RunPodSandboxRequest) -> cri.RunPodSandboxResponse:
        """See CRI."""
        if not request.HasField("config"):
            raise InvalidArgument("config", "is missing")
        config = request.config
        sandbox_spec.check_metadata(config)
        for index, mapping in enumerate(config.port_mappings):
            sandbox_spec.check_port_mapping(mapping, index)
        self._check_annotations(config)
        name = names.sandbox_name(config.metadata)
        try:
            return await self._run_claimed(name, config, request.runtime_handler)
        except NotFound as error:  # of something that the caller did not ask for: a network, an image of ours
            raise EngineFailed(f"sandbox {name}: {error}") from error

    def _check_annotations(self, config: cri.PodSandboxConfig) -> None:
        if sandbox_spec.is_host_network(config):
            return
        try:
            self._node.network.check_annotations(config.annotations)
        except NetworkFailed as error:
            raise InvalidArgument("config.annotations", str(error)) from error

    async def _run_claimed(self, name: str, config: cri.PodSandboxConfig, handler: str) -> cri.RunPodSandboxResponse:
        async with self._node.feeder.claim(name):
            known = self._node.store.sandboxes.get(self._node.store.id_of_name(name))
            if known is not None and known.ready:
                raise AlreadyExists(f"sandbox {name} exists and is ready, with id {known.id}")
            return await self._run(name, config, handler)

    async def _run(self, name: str, config: cri.PodSandboxConfig, handler: str) -> cri.RunPodSandboxResponse:
        secure = config.linux.security_context
        secure_field = "config.linux.security_context"
        profile = await host.read_seccomp_profile(security.optional(secure, "seccomp"), secure_field)
        if self._node.feeder.require_info().has_security("apparmor"):
            await host.require_apparmor_profile(security.local_apparmor_profile(secure, secure_field), secure_field)
        image_id = await self._pause_image()
        context = self._node.sandbox_context(image_id, profile, await self._user_namespaces_problem(config))
        body = sandbox_spec.to_docker_sandbox(config, handler, context)
        engine = self._node.engine
        async with Mutation(self._node.tasks, f"run sandbox {name}") as mutation:
            created: list[str] = []
            mutation.on_failure("remove pause", lambda: self._undo_create(created))
            sandbox_id = await mutation.step(self._create(name, body, created))
            record = SandboxRecord(
                id=sandbox_id, config=config, runtime_handler=handler, created_at_ns=self._node.clock_ns()
            )
            held: list[SandboxRecord] = []
            mutation.on_failure("delete the record", lambda: self._drop_record(sandbox_id, held))
            await mutation.step(self._save_and_start(record))
            observed_at_ns = self._node.monotonic_ns()
            inspect = await engine.inspect_container(sandbox_id)
            pid = int(inspect["State"].get("Pid") or 0)
            if not inspect["State"].get("Running") or not pid:
                raise EngineFailed(f"pause ended at once: {inspect['State'].get('Error') or inspect['State']}")
            if config.HasField("dns_config") and inspect.get("ResolvConfPath"):
                await host.write_resolv_conf(str(inspect["ResolvConfPath"]), config.dns_config)
            if not record.host_network:
                mutation.on_failure("disconnect", lambda: self._disconnect(record, pid, held))
                self._node.docker_addresses[sandbox_id] = docker_addresses(inspect)
                try:
                    # no step that is seen to its end: a plugin that hangs is ended when the caller goes away
                    result = await self._connect(record, pid)
                finally:
                    del self._node.docker_addresses[sandbox_id]
                record = dataclasses.replace(record, ips=result.ips, raw=result.raw)
            created_at_ns = sandbox_view(inspect, record, observed_at_ns).created_at_ns
            record = dataclasses.replace(record, network_ready=True, created_at_ns=created_at_ns)
            await mutation.step(self._node.checkpoints.save(record, durable=False))
            self._node.store.put_sandbox(sandbox_view(inspect, record, observed_at_ns))
        return cri.RunPodSandboxResponse(pod_sandbox_id=sandbox_id)

    async def _create(self, name: str, body: dict[str, Any], created: list[str]) -> str:
        try:
            created.append((await self._lifecycle.create_replacing(name, body)).id)
        except (Unavailable, DeadlineExceeded):
            created += await self._made_unheard(name)
            raise
        return created[0]

    async def _made_unheard(self, name: str) -> list[str]:
        """What Docker made without our hearing so: it has the name, never ran, and nobody knows it."""
        try:
            inspect = await self._node.engine.inspect_container(name)
        except ShimError:
            return []
        sandbox_id = str(inspect["Id"])
        is_new = inspect["State"].get("Status") == "created" and sandbox_id not in self._node.store.sandboxes
        return [sandbox_id] if is_new else []

    async def _undo_create(self, created: list[str]) -> None:
        """By id: where nothing was made, the name is another's, who may be alive."""
        for sandbox_id in created:
            await self._lifecycle.remove_quietly(sandbox_id)

    async def _user_namespaces_problem(self, config: cri.PodSandboxConfig) -> str:
        if not config.linux.security_context.namespace_options.HasField("userns_options"):
            return ""
        return await host.user_namespaces_problem(self._node.feeder.require_info().root_directory)

    async def _save_and_start(self, record: SandboxRecord) -> None:
        """Side by side: neither needs the other, and both come before the network."""
        results = await asyncio.gather(
            self._node.checkpoints.save(record), self._node.engine.start_container(record.id), return_exceptions=True
        )
        for result in results:
            if result is not None:
                raise result

    async def _connect(self, record: SandboxRecord, pid: int) -> NetworkResult:
        try:
            result = await self._node.network.set_up(network_request(record, pid))
        except NetworkFailed as error:
            raise EngineFailed(str(error)) from error
        if not result.ips:
            raise EngineFailed("the pod network gave the sandbox no address")
        return result

    async def _disconnect(self, record: SandboxRecord, pid: int, held: list[SandboxRecord]) -> None:
        try:
            await self._lifecycle.tear_down_network(record, pid)
        except EngineFailed:
            held.append(record)
            raise

    async def _drop_record(self, sandbox_id: str, held: list[SandboxRecord]) -> None:
        """A sandbox whose network would not let go of it stays, not ready, so that the kubelet asks again."""
        if not held:
            await self._node.checkpoints.delete(sandbox_id)
        for record in held:
            self._node.store.put_sandbox(ghost_sandbox_view(record, self._node.monotonic_ns()))

    async def _pause_image(self) -> str:
        wanted = self._node.settings.pause_image
        view = self._node.store.find_image(wanted)
        if view is not None:
            return view.id
        _log.info("pause_image_pull", image=wanted)
        try:
            return await self._puller.pull_for_host(wanted)
        except NotFound as error:
            raise EngineFailed(f"the pause image {wanted} is not there and cannot be pulled: {error}") from error
