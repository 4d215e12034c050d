"""Starts one container: image, files, configuration, create, start, postStart hook. And the sandbox around it.

Upstream counterparts: startContainer in kuberuntime_container.go, createPodSandbox in kuberuntime_sandbox.go.
"""

import asyncio
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NoReturn

import structlog

from cri_proto import runtime_v1 as cri
from kubelet_py.api import core_v1
from kubelet_py.api import pod as pods
from kubelet_py.core import labels
from kubelet_py.core.container_config import ContainerContext, compute_container_config
from kubelet_py.core.env import compute_env
from kubelet_py.core.expansion import expand_strictly
from kubelet_py.core.hostname import compute_hostname
from kubelet_py.core.hosts_file import compute_host_network_hosts_file, compute_hosts_file
from kubelet_py.core.image_rules import default_pull_policy
from kubelet_py.core.lifecycle_hooks import POST_START_ERROR, POST_START_KILL_MESSAGE
from kubelet_py.core.observed import ObservedSandbox
from kubelet_py.core.pod_resources import AnyContainer
from kubelet_py.core.pod_status import pod_ips_in_order
from kubelet_py.core.sandbox_config import SandboxContext, compute_sandbox_plan
from kubelet_py.core.security import ImageUser
from kubelet_py.core.termination import container_grace_period_seconds
from kubelet_py.core.volume_plan import MountContext, MountedVolume, image_volumes_of
from kubelet_py.cri import RuntimeClient
from kubelet_py.errors import KubeletError, RuntimeCallError, SyncError
from kubelet_py.managers.allocations import PodAllocations
from kubelet_py.managers.images import ImageRequest, Images
from kubelet_py.managers.user_namespaces import UserNamespaces
from kubelet_py.managers.volumes import VolumeManager
from kubelet_py.sync.env_files import names_env_files, read_env_files
from kubelet_py.sync.lifecycle_hooks import HookError, LifecycleHooks
from kubelet_py.sync.observer import PodObserver
from kubelet_py.sync.pod_kill import PodKiller
from kubelet_py.sync.ports import EventSink, NodeView, PodObjects
from kubelet_py.sync.start_gate import Rank, StartGate
from kubelet_py.sync.unbroken import unbroken

log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class LogPlaces:
    """Where logs go on the node."""

    pods_root: str = "/var/log/pods"
    links: str = "/var/log/containers"


@dataclass(frozen=True, slots=True)
class ContainerOrder:
    """One container to start, and what it starts in."""

    pod: core_v1.Pod
    container: AnyContainer
    restart_count: int
    sandbox: ObservedSandbox
    mounted: Mapping[str, MountedVolume]
    target_container_id: str = ""


class ContainerStarter:
    """Runs sandboxes and starts containers in them. Every failure is an event and a SyncError with the wire reason."""

    def __init__(
        self,
        client: RuntimeClient,
        observer: PodObserver,
        images: Images,
        volumes: VolumeManager,
        node: NodeView,
        objects: PodObjects,
        events: EventSink,
        node_warning: Callable[[str, str], None],
        logs: LogPlaces,
        hooks: LifecycleHooks,
        killer: PodKiller,
        allocations: PodAllocations,
        user_namespaces: UserNamespaces,
        gate: StartGate | None = None,
    ) -> None:
        self._client = client
        self._observer = observer
        self._images = images
        self._volumes = volumes
        self._node = node
        self._objects = objects
        self._events = events
        self._node_warning = node_warning
        self._logs = logs
        self._hooks = hooks
        self._killer = killer
        self._allocations = allocations
        self._user_namespaces = user_namespaces
        self._gate = gate or StartGate()

    async def run_sandbox(self, pod: core_v1.Pod, attempt: int) -> ObservedSandbox:
        """A new sandbox, ready and with its addresses."""
        try:
            handler = await self._objects.runtime_handler(pod)
            context = self._sandbox_context(await self._user_namespaces.of_pod(pod, handler))
            plan = compute_sandbox_plan(pod, attempt, context)
            await asyncio.to_thread(_make_directories, plan.config.log_directory)
            async with self._gate.place(Rank.SANDBOX):
                sandbox_id = await unbroken(self._client.run_pod_sandbox(plan.config, handler))
        except (SyncError, RuntimeCallError, OSError, ValueError) as error:
            message = f"Failed to create pod sandbox: {_detail(error)}"
            self._events(pod, "Warning", "FailedCreatePodSandBox", message)
            raise SyncError("CreatePodSandboxError", message) from error
        for warning in plan.warnings:
            if warning.on_node:
                self._node_warning(warning.reason, warning.message)
            else:
                self._events(pod, "Warning", warning.reason, warning.message)
        try:
            return await self._observer.observe_sandbox(pods.uid_of(pod), sandbox_id)
        except RuntimeCallError as error:
            message = f"Unable to get pod sandbox status: {_detail(error)}"
            self._events(pod, "Warning", "FailedPodSandBoxStatus", message)
            raise SyncError("CreatePodSandboxError", message) from error

    async def start(self, order: ContainerOrder) -> str:
        """Starts the container; gives its id."""
        pod, container = order.pod, order.container
        handler = order.sandbox.runtime_handler
        user_namespace = await self._user_namespaces.of_pod(pod, handler)
        context = self._sandbox_context(user_namespace)
        sandbox_config = compute_sandbox_plan(pod, order.sandbox.attempt, context).config
        try:
            volumes = await self._pull_image_volumes(order, sandbox_config)
            image = await self._images.ensure(
                ImageRequest(
                    pod,
                    container.name,
                    container.image or "",
                    container.imagePullPolicy or default_pull_policy(container.image or ""),
                    handler,
                    sandbox_config,
                )
            )
        except SyncError as error:
            self._events(pod, "Warning", "Failed", f"Error: {error.reason}", container.name)
            raise
        config = await self._configure(order, image, volumes, user_namespace)
        self._allocations.note_container(pod, container.name, container.resources)
        async with self._gate.place(Rank.CONTAINER):
            container_id = await self._create_and_start(order, config, sandbox_config)
        await asyncio.to_thread(
            self._link_log, order, container_id, f"{sandbox_config.log_directory}/{config.log_path}"
        )
        await self._run_post_start(order, container_id)
        return container_id

    async def _pull_image_volumes(
        self, order: ContainerOrder, sandbox_config: cri.PodSandboxConfig
    ) -> dict[str, cri.ImageSpec]:
        """The images that the container mounts as volumes, present; their events are the pod's, not the container's."""
        pod, handler = order.pod, order.sandbox.runtime_handler
        specs = {}
        for name, source in image_volumes_of(pod, order.container).items():
            reference = source.reference or ""
            policy = source.pullPolicy or default_pull_policy(reference)
            image = await self._images.ensure(ImageRequest(pod, "", reference, policy, handler, sandbox_config))
            specs[name] = cri.ImageSpec(
                image=image.id,
                user_specified_image=reference,
                runtime_handler=handler,
                annotations=pods.annotations_of(pod),
            )
        return specs

    async def _run_post_start(self, order: ContainerOrder, container_id: str) -> None:
        """A container whose hook fails is stopped. Broken off, it is left running: the next pass decides."""
        pod, container = order.pod, order.container
        try:
            await self._hooks.post_start(pod, container, container_id)
        except HookError as error:
            grace_seconds = container_grace_period_seconds(pod)
            await self._killer.kill_container(pod, container_id, container.name, POST_START_KILL_MESSAGE, grace_seconds)
            raise SyncError(POST_START_ERROR, str(error), container.name) from error

    async def _create_and_start(
        self, order: ContainerOrder, config: cri.ContainerConfig, sandbox_config: cri.PodSandboxConfig
    ) -> str:
        pod, container = order.pod, order.container
        try:
            container_id = await self._client.create_container(order.sandbox.id, config, sandbox_config)
        except RuntimeCallError as error:
            self._fail(order, "CreateContainerError", _detail(error), error)
        self._events(pod, "Normal", "Created", "Container created", container.name)
        try:
            await self._client.start_container(container_id)
        except RuntimeCallError as error:
            self._fail(order, "RunContainerError", _detail(error), error)
        self._events(pod, "Normal", "Started", "Container started", container.name)
        return container_id

    async def forget_pod(self, pod_uid: str) -> None:
        """The pod starts nothing any more."""
        self._images.forget_pod(pod_uid)
        await self._user_namespaces.release(pod_uid)

    def _sandbox_context(self, user_namespace: cri.UserNamespace | None) -> SandboxContext:
        return SandboxContext(
            dns=self._node.dns(),
            cgroups=self._node.cgroups(),
            pod_logs_root=self._logs.pods_root,
            user_namespace=user_namespace,
            default_sysctls=self._node.default_sysctls(),
        )

    async def _configure(
        self,
        order: ContainerOrder,
        image: cri.Image,
        image_volumes: Mapping[str, cri.ImageSpec],
        user_namespace: cri.UserNamespace | None,
    ) -> cri.ContainerConfig:
        pod, container = order.pod, order.container
        host_ips = self._node.host_ips()
        pod_ips = host_ips if pods.is_host_network(pod) else order.sandbox.ips
        try:
            env = await self._objects.env_sources(pod, container, pod_ips_in_order(pod_ips, host_ips))
            if names_env_files(container):
                env = replace(env, env_files=await asyncio.to_thread(read_env_files, container, order.mounted))
            mount_context = MountContext(
                expand=lambda text: expand_strictly(text, compute_env(pod, container, env)),
                recursive_read_only_supported=self._node.supports_recursive_read_only(order.sandbox.runtime_handler),
                images=image_volumes,
            )
            mounts = await self._volumes.to_cri_mounts(pod, container, order.mounted, mount_context)
            termination_log, hosts_file = await asyncio.to_thread(self._prepare_files, order, pod_ips)
            context = ContainerContext(
                image_ref=image.id,
                restart_count=order.restart_count,
                image_user=ImageUser.of(image),
                env=env,
                mounts=tuple(mounts),
                hosts_file_host_path=hosts_file,
                termination_message_host_path=termination_log,
                cgroups=self._node.cgroups(),
                security=self._node.security(),
                user_namespace=user_namespace,
                target_container_id=order.target_container_id,
            )
            return compute_container_config(pod, container, context)
        except (KubeletError, OSError, ValueError) as error:  # what protobuf cannot hold is a ValueError
            reason = error.reason if isinstance(error, SyncError) else "CreateContainerConfigError"
            self._fail(order, reason, str(error), error)

    def _prepare_files(self, order: ContainerOrder, pod_ips: tuple[str, ...]) -> tuple[str, str]:
        """Log directory, termination log and hosts file; the paths of the last two. Blocking."""
        pod, container = order.pod, order.container
        metadata = pods.metadata_of(pod)
        uid = pods.uid_of(pod)
        directory = labels.pod_log_directory(self._logs.pods_root, metadata.namespace or "", metadata.name or "", uid)
        _make_directories(f"{directory}/{container.name}")
        dirs = self._volumes.dirs
        termination_log = (
            str(dirs.make_termination_log(uid, container.name)) if container.terminationMessagePath else ""
        )
        if pods.is_host_network(pod):
            text = compute_host_network_hosts_file(pod, self._node.hosts_file())
        else:
            text = compute_hosts_file(pod, pod_ips, compute_hostname(pod, self._node.dns().cluster_domain))
        return termination_log, str(dirs.write_etc_hosts(uid, text))

    def _link_log(self, order: ContainerOrder, container_id: str, log_path: str) -> None:
        """The link below /var/log/containers that log collectors look for. Blocking. Losing it harms nobody here."""
        metadata = pods.metadata_of(order.pod)
        name = labels.legacy_log_link_name(
            metadata.name or "", metadata.namespace or "", order.container.name, container_id
        )
        link = Path(self._logs.links, name)
        try:
            link.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
            link.unlink(missing_ok=True)
            link.symlink_to(log_path)
        except OSError as error:
            log.warning("container_log_link_failed", link=str(link), target=log_path, error=str(error))

    def _fail(self, order: ContainerOrder, reason: str, message: str, cause: Exception) -> NoReturn:
        self._events(order.pod, "Warning", "Failed", f"Error: {message}", order.container.name)
        raise SyncError(reason, message, order.container.name) from cause


def _make_directories(path: str) -> None:
    os.makedirs(path, mode=0o755, exist_ok=True)


def _detail(error: Exception) -> str:
    """What the runtime said, without our own wrapping."""
    return error.detail or str(error) if isinstance(error, RuntimeCallError) else str(error)
