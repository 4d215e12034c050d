"""Start, life and end of the agent.

Order: who the node is, the runtime's socket (waited for), the API clients, managers, sources, servers. One TaskGroup
owns every task; an endless task that ends is an error and ends the agent. A stop ends the tasks and touches no
container: pods outlive their agent.

Upstream counterpart: cmd/kubelet/app/server.go (run, RunKubelet) and NewMainKubelet.
"""

import asyncio
import os
import signal
import time
from collections.abc import Callable, Coroutine
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import structlog

from cri_proto import runtime_v1 as cri
from kubelet_py.api import core_v1
from kubelet_py.api import pod as pods
from kubelet_py.app.backend import NodeBackend
from kubelet_py.app.node_parts import ApiClients, NodeIdentity, is_unified_cgroup, make_clients, read_identity
from kubelet_py.app.node_view import HostView
from kubelet_py.app.pod_objects import ApiObjects, StandaloneObjects
from kubelet_py.app.serving import api_reviews, server_config
from kubelet_py.config import Settings
from kubelet_py.core.admission import NodeState, SysctlAllowlist, compute_sysctl_allowlist, node_state_of
from kubelet_py.core.backoff import crash_policy
from kubelet_py.core.cgroup_rules import CgroupDriver
from kubelet_py.core.event_rules import pod_reference
from kubelet_py.core.gc_rules import GcPolicy
from kubelet_py.core.node_rules import default_labels, node_reference
from kubelet_py.core.pod_story import PodStories
from kubelet_py.core.pod_worker import WorkerState, is_content_removable, is_runtime_removable
from kubelet_py.core.source_merge import PodSet, SourceProblem
from kubelet_py.core.volume_payload import NodeFacts
from kubelet_py.cri import RuntimeClient, connect
from kubelet_py.cri.client import wait_until_ready
from kubelet_py.errors import ConfigError, RuntimeCallError, RuntimeUnimplemented
from kubelet_py.host.cgroups import CgroupTree
from kubelet_py.host.process import raise_open_files, set_oom_score_adj
from kubelet_py.host.systemd import READY, STOPPING, WATCHDOG, notifier_from, watchdog_interval_seconds
from kubelet_py.kube.objects import ServiceStore, Strategy, config_maps, secrets
from kubelet_py.kube.pods import ApiPodSource
from kubelet_py.kube.rate_limit import TokenBucket
from kubelet_py.managers.container_gc import ContainerGc, GcSettings, PodKnowledge
from kubelet_py.managers.events import EventRecorder
from kubelet_py.managers.images import Images
from kubelet_py.managers.lease import LeaseManager
from kubelet_py.managers.mirror_pods import MirrorPodManager
from kubelet_py.managers.node import NodeClients, NodeInputs, NodeManager
from kubelet_py.managers.pleg import Pleg
from kubelet_py.managers.pod_cgroups import PodCgroups
from kubelet_py.managers.prober import NetworkProbes, ProbeHooks, ProbeManager
from kubelet_py.managers.runtime_health import RuntimeHealth
from kubelet_py.managers.service_account_tokens import ServiceAccountTokens
from kubelet_py.managers.status import StatusManager
from kubelet_py.managers.volumes import VolumeManager, VolumeSettings
from kubelet_py.server.listener import KubeletServer
from kubelet_py.sync.container_start import ContainerStarter, LogPlaces
from kubelet_py.sync.lifecycle_hooks import LifecycleHooks
from kubelet_py.sync.loop import Admission, LoopServices, SyncLoop
from kubelet_py.sync.observer import PodObserver
from kubelet_py.sync.pod_kill import PodKiller
from kubelet_py.sync.pod_services import PodServices
from kubelet_py.sync.pod_sync import PodSync
from kubelet_py.sync.pod_workers import PodWorkers
from kubelet_py.sync.sources.file import FileSource
from kubelet_py.sync.sources.merge import SourceMerge
from kubelet_py.sync.sources.url import UrlSource
from kubelet_py.sync.start_gate import StartGate

log = structlog.get_logger()


async def run(settings: Settings) -> None:
    """The whole life. Returns after SIGTERM or SIGINT; raises ConfigError when it cannot start."""
    for warning in settings.warnings:
        log.warning("configuration", warning=warning)
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    identity = await asyncio.to_thread(read_identity, settings)
    log.info("starting", node=identity.settings.name, addresses=identity.ips, standalone=settings.standalone)
    async with AsyncExitStack() as stack:
        client = connect(settings.config.containerRuntimeEndpoint, settings.config.runtimeRequestTimeout)
        stack.push_async_callback(client.close)
        clients = None if settings.standalone else make_clients(settings)
        if clients is not None:
            stack.push_async_callback(clients.close)
        await _until_stopped(_Agent(settings, identity, client, clients).live(stack), stop)
    log.info("stopped", consequence="containers keep running")


async def _until_stopped(life: Coroutine[Any, Any, None], stop: asyncio.Event) -> None:
    """Runs the agent until it is told to stop; an error of the agent comes out as it is."""
    async with asyncio.TaskGroup() as tasks:
        living = tasks.create_task(life, name="agent")
        stopping = tasks.create_task(stop.wait(), name="stop")
        await asyncio.wait((living, stopping), return_when=asyncio.FIRST_COMPLETED)
        notifier_from(os.environ).notify(STOPPING)
        living.cancel()
        stopping.cancel()


class _Agent:
    """The agent while it is put together."""

    def __init__(
        self, settings: Settings, identity: NodeIdentity, client: RuntimeClient, clients: ApiClients | None
    ) -> None:
        self.settings = settings
        self.identity = identity
        self.client = client
        self.clients = clients
        self._cgroup_driver = CgroupDriver(settings.config.cgroupDriver)
        self._started_at_ns = time.time_ns()
        self._latest_api_pods: tuple[core_v1.Pod, ...] = ()
        self._api_pods_arrived = asyncio.Event()
        self._add_managers()

    def _add_managers(self) -> None:
        """Objects only: nothing is dialled, opened or written here."""
        settings, config = self.settings, self.settings.config
        self.health = RuntimeHealth(self.client, config.containerRuntimeEndpoint, self._runtime_changed)
        self.node = HostView(
            settings,
            self.identity.settings,
            self.identity.machine,
            self.identity.ips,
            self.health,
            lambda: self._cgroup_driver,
            is_unified_cgroup(),
        )
        api = self.clients
        self.events = EventRecorder(api.events if api is not None else None, self.identity.settings.name)
        self.statuses = StatusManager(api.main if api is not None else None)
        self.node_manager = self._make_node_manager()
        self.stories = PodStories()
        self.pleg = Pleg(self.client, lambda uid, stimulus: self.workers.wake(uid, stimulus))
        self.objects = self._make_objects()
        self.volumes = VolumeManager(
            Path(settings.flags.root_dir),
            self.objects if isinstance(self.objects, ApiObjects) else None,
            VolumeSettings(
                node_allocatable_memory_bytes=lambda: self.node.cgroups().node_allocatable_memory_bytes,
                node_facts=lambda: NodeFacts(
                    self.identity.settings.name, self.node.host_ips(), dict(self.node.allocatable())
                ),
            ),
        )
        self.cgroups = PodCgroups(CgroupTree(), self.node.cgroups, self.node.pods_limits)
        self.prober = self._make_prober()
        self.sync = PodSync(self._pod_services())
        self.workers = PodWorkers(self.sync, self.statuses, config.syncFrequency)
        self.merge = SourceMerge(self._source_names())
        self.mirrors = self._make_mirrors()
        self.loop = SyncLoop(
            LoopServices(
                self.workers,
                self.merge,
                self.pleg,
                self.volumes,
                self.cgroups,
                self.statuses,
                self._pod_event,
                self.node,
                Admission(self._node_state, self._sysctls()),
                self._on_pods,
                self._source_problem,
                time.time_ns,
            )
        )

    def _pod_services(self) -> PodServices:
        settings, config = self.settings, self.settings.config
        max_parallel = 1 if config.serializeImagePulls else config.maxParallelImagePulls
        rate = TokenBucket(float(config.registryPullQPS), config.registryBurst)
        images = Images(self.client, self._pod_event, max_parallel, pull_rate=rate)
        gate = StartGate()
        hooks = LifecycleHooks(self.client, self._pod_event, self._pod_ips)
        killer = PodKiller(self.client, self._pod_event, hooks, gate=gate)
        starter = ContainerStarter(
            self.client,
            images,
            self.volumes,
            self.node,
            self.objects,
            self._pod_event,
            LogPlaces(config.podLogsDir, f"{Path(config.podLogsDir).parent}/containers"),
            hooks,
            killer,
            gate,
        )
        return PodServices(
            client=self.client,
            observer=PodObserver(self.client, self.pleg.learn),
            starter=starter,
            killer=killer,
            volumes=self.volumes,
            node=self.node,
            objects=self.objects,
            statuses=self.statuses,
            events=self._pod_event,
            cgroups=self.cgroups,
            prober=self.prober,
            stories=self.stories,
            pod_logs_root=config.podLogsDir,
            log_links_root=f"{Path(config.podLogsDir).parent}/containers",
            crash_policy=crash_policy(settings.config.crashLoopBackOff.maxContainerRestartPeriod),
            agent_started_at_ns=self._started_at_ns,
        )

    def _make_prober(self) -> ProbeManager:
        return ProbeManager(
            NetworkProbes(self.client),
            ProbeHooks(
                changed=lambda uid, stimulus: self.workers.note_verdict(uid, stimulus),
                events=self._pod_event,
                reported=self.statuses.status_of,
                agent_started_at_ns=self._started_at_ns,
            ),
        )

    def _pod_ips(self, pod: core_v1.Pod) -> tuple[str, ...]:
        status = self.statuses.status_of(pods.uid_of(pod)) or pod.status
        return tuple(known.ip for known in (status.podIPs if status is not None else None) or ())

    def _make_objects(self) -> ApiObjects | StandaloneObjects:
        if self.clients is None:
            return StandaloneObjects(self.node)
        strategy = Strategy(self.settings.config.configMapAndSecretChangeDetectionStrategy)
        main = self.clients.main
        return ApiObjects(
            main,
            self.node,
            config_maps(main, strategy=strategy),
            secrets(main, strategy=strategy),
            ServiceStore(main),
            ServiceAccountTokens(main),
        )

    def _make_node_manager(self) -> NodeManager | None:
        if self.clients is None:
            return None
        inputs = NodeInputs(
            machine=lambda: self.identity.machine,
            addresses=lambda: self.identity.addresses,
            runtime=lambda: self.health.state,
            problems=self._node_problems,
            images=lambda: self.health.images,
        )
        return NodeManager(
            NodeClients(self.clients.main, self.clients.heartbeat), self.identity.settings, inputs, self.events
        )

    def _make_mirrors(self) -> MirrorPodManager | None:
        if self.clients is None or self.node_manager is None:
            return None
        return MirrorPodManager(self.clients.main, self._node, self.node_manager.registered)

    # What managers ask each other through here

    def _source_names(self) -> list[str]:
        config = self.settings.config
        names = [pods.SOURCE_FILE] if config.staticPodPath else []
        if config.staticPodURL:
            names.append(pods.SOURCE_URL)
        if self.clients is not None:
            names.append(pods.SOURCE_API)
        return names

    def _make_gc(self) -> ContainerGc:
        config, flags = self.settings.config, self.settings.flags
        policy = GcPolicy(
            flags.minimum_container_ttl_duration,
            flags.maximum_dead_containers_per_container,
            flags.maximum_dead_containers,
        )

        def asks(predicate: Callable[[WorkerState | None, bool], bool]) -> Callable[[str], bool]:
            return lambda uid: predicate(self.workers.state(uid), self.merge.ready)

        knowledge = PodKnowledge(asks(is_runtime_removable), asks(is_content_removable), lambda: self.merge.ready)
        logs = Path(config.podLogsDir)
        return ContainerGc(
            self.client, knowledge, GcSettings(logs, logs.parent / "containers", policy), self._gc_failed
        )

    def _gc_failed(self, message: str) -> None:
        self.events.record(node_reference(self.identity.settings.name), "Warning", "ContainerGCFailed", message)

    def _node(self) -> core_v1.Node | None:
        return self.node_manager.node if self.node_manager is not None else None

    def _node_problems(self) -> tuple[str, ...]:
        problem = self.pleg.problem()
        return (f"PLEG is not healthy: {problem}",) if problem is not None else ()

    def _node_state(self) -> NodeState | None:
        """The node for admission: the API object, or what a standalone node knows of itself."""
        node = self._node()
        if node is not None:
            return node_state_of(node)
        if self.clients is not None:
            return None
        settings = self.identity.settings
        return NodeState(
            settings.name,
            default_labels(settings, self.identity.machine),
            dict(self.node.allocatable()),
            settings.taints,
        )

    def _sysctls(self) -> SysctlAllowlist:
        try:
            version = tuple(int(part) for part in os.uname().release.split("-")[0].split(".")[:2])
            return compute_sysctl_allowlist(self.settings.config.allowedUnsafeSysctls, (version[0], version[1]))
        except ValueError as error:
            raise ConfigError(f"allowedUnsafeSysctls: {error}") from error

    def _pod_event(
        self, pod: core_v1.Pod, event_type: str, reason: str, message: str, container_name: str = "", /
    ) -> None:
        self.events.record(pod_reference(pod, _field_path(pod, container_name)), event_type, reason, message)

    def _runtime_changed(self, well: bool) -> None:
        if self.node_manager is not None:
            self.node_manager.look_now()
        if well:
            self.pleg.relist_soon()
            self.workers.wake_all("the runtime is ready")

    def _on_pods(self, all_pods: list[core_v1.Pod], complete: bool) -> None:
        if self.mirrors is not None:
            self.mirrors.on_static_pods(all_pods, complete=complete)

    def _source_problem(self, problem: SourceProblem) -> None:
        """The source has logged it; the API server's users see it as an event of the node."""
        message = f"Manifest {problem.location}: {problem.message}"
        self.events.record(node_reference(self.identity.settings.name), "Warning", "FailedValidation", message)

    def _on_api_pods(self, source: str, api_pods: tuple[core_v1.Pod, ...]) -> None:
        """A set from the API server. The first may come before the runtime was listed: the loop then takes the last."""
        self.statuses.on_api_pods(api_pods)
        if self.mirrors is not None:
            self.mirrors.on_api_pods(api_pods)
        self._latest_api_pods = api_pods
        self._api_pods_arrived.set()

    async def _take_api_pods(self) -> None:
        while True:
            await self._api_pods_arrived.wait()
            self._api_pods_arrived.clear()
            await self.loop.accept(PodSet(pods.SOURCE_API, self._latest_api_pods))

    # Life

    async def live(self, stack: AsyncExitStack) -> None:
        """Runs until cancelled."""
        await asyncio.to_thread(self._prepare_directories)
        stack.callback(self.volumes.close)
        backend = NodeBackend(self.settings, self.client, self.pleg, self.statuses, self.stories, self.merge.pods)
        config = server_config(self.settings, self.identity.settings.name, self.identity.ips)
        reviews = api_reviews(self.clients) if self.clients is not None else None
        await stack.enter_async_context(KubeletServer(config, backend, reviews))
        async with asyncio.TaskGroup() as tasks:
            for name, work in self._runtime_tasks():
                tasks.create_task(work, name=name)
            if self.clients is not None:
                for name, work in self._api_tasks(self.clients):
                    tasks.create_task(work, name=name)
            await self._follow_cgroup_driver()
            for name, work in self._source_tasks():
                tasks.create_task(work, name=name)
            tasks.create_task(_watchdog(), name="watchdog")
            notifier_from(os.environ).notify(READY, f"STATUS=node {self.identity.settings.name}")

    def _prepare_directories(self) -> None:
        self.volumes.prepare()
        config = self.settings.config
        raise_open_files(config.maxOpenFiles)
        set_oom_score_adj(config.oomScoreAdj)
        for path, mode in ((config.podLogsDir, 0o750), (f"{Path(config.podLogsDir).parent}/containers", 0o755)):
            os.makedirs(path, mode=mode, exist_ok=True)

    def _runtime_tasks(self) -> list[tuple[str, Coroutine[Any, Any, None]]]:
        return [
            ("runtime-health", self.health.run()),
            ("pleg", self.pleg.run()),
            ("pod-workers", self.workers.run()),
            ("prober", self.prober.run()),
            ("sync-loop", self.loop.run()),
            ("pod-statuses", self.statuses.run()),
            ("events", self.events.run()),
            ("container-gc", self._make_gc().run()),
        ]

    def _api_tasks(self, clients: ApiClients) -> list[tuple[str, Coroutine[Any, Any, None]]]:
        if self.node_manager is None or self.mirrors is None or not isinstance(self.objects, ApiObjects):
            raise RuntimeError("an agent with an API server has a node manager, mirrors and objects")
        settings = self.identity.settings
        source = ApiPodSource(clients.main, settings.name, self.node_manager.registered, self._on_api_pods)
        return [
            ("node", self.node_manager.run()),
            ("lease", LeaseManager(clients.heartbeat, settings, self._node).run()),
            ("mirror-pods", self.mirrors.run()),
            ("pod-objects", self.objects.run()),
            ("api-pods", source.run()),
            ("take-api-pods", self._take_api_pods()),
        ]

    def _source_tasks(self) -> list[tuple[str, Coroutine[Any, Any, None]]]:
        config, name = self.settings.config, self.identity.settings.name
        tasks: list[tuple[str, Coroutine[Any, Any, None]]] = []
        if config.staticPodPath:
            files = FileSource(config.staticPodPath, name, config.fileCheckFrequency, self.loop.accept)
            tasks.append(("file-source", files.run()))
        if config.staticPodURL:
            url = UrlSource(
                config.staticPodURL, config.staticPodURLHeader, name, config.httpCheckFrequency, self.loop.accept
            )
            tasks.append(("url-source", url.run()))
        return tasks

    async def _follow_cgroup_driver(self) -> None:
        """The runtime says which cgroup driver holds; one that cannot say leaves it to the configuration."""
        await wait_until_ready(self.client)
        try:
            answer = await self.client.runtime_config()
        except RuntimeUnimplemented:
            log.info("runtime_names_no_cgroup_driver", used=str(self._cgroup_driver))
            return
        except RuntimeCallError as error:
            log.warning("runtime_config_failed", error=str(error), used=str(self._cgroup_driver))
            return
        driver = CgroupDriver.CGROUPFS if answer.linux.cgroup_driver == cri.CGROUPFS else CgroupDriver.SYSTEMD
        if driver != self._cgroup_driver:
            log.info("cgroup_driver_of_the_runtime", configured=str(self._cgroup_driver), used=str(driver))
        self._cgroup_driver = driver


def _field_path(pod: core_v1.Pod, container_name: str) -> str:
    """Which part of the pod an event is about, such as `spec.initContainers{setup}`."""
    if not container_name:
        return ""
    if any(c.name == container_name for c in pods.init_containers_of(pod)):
        return f"spec.initContainers{{{container_name}}}"
    if any(c.name == container_name for c in pods.ephemeral_containers_of(pod)):
        return f"spec.ephemeralContainers{{{container_name}}}"
    return f"spec.containers{{{container_name}}}"


async def _watchdog() -> None:
    """Tells systemd that the loop still turns."""
    interval_seconds = watchdog_interval_seconds(os.environ, os.getpid())
    if interval_seconds is None:
        await asyncio.Event().wait()
    notifier = notifier_from(os.environ)
    while True:
        notifier.notify(WATCHDOG)
        await asyncio.sleep(interval_seconds or 1.0)
