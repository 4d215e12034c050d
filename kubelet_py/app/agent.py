"""The parts of the agent, made and connected; nothing runs here.

Owns the one place where managers, sources' merge, workers and the runtime's client are handed to each other, and the
callbacks by which they ask each other. Must not know flags' origin, signals or tasks (`run`). Upstream counterpart:
NewMainKubelet in pkg/kubelet/kubelet.go.
"""

import asyncio
import os
import time
from dataclasses import replace
from pathlib import Path
from typing import Final

from kubelet_py.api import core_v1
from kubelet_py.api import pod as pods
from kubelet_py.app.image_parts import make_image_parts
from kubelet_py.app.node_parts import (
    ApiClients,
    NodeIdentity,
    counts_swap,
    has_apparmor,
    has_selinux,
    is_unified_cgroup,
    local_node_state,
    read_user_ids,
)
from kubelet_py.app.node_view import HostView
from kubelet_py.app.pod_objects import ApiObjects, StandaloneObjects
from kubelet_py.config import Settings
from kubelet_py.core.admission import NodeState, node_state_of
from kubelet_py.core.backoff import crash_policy
from kubelet_py.core.cgroup_rules import CgroupDriver
from kubelet_py.core.event_rules import pod_reference
from kubelet_py.core.gc_rules import GcPolicy
from kubelet_py.core.labels import log_links_root
from kubelet_py.core.node_rules import node_reference
from kubelet_py.core.orphaned_devices import held_devices
from kubelet_py.core.pod_story import PodStories
from kubelet_py.core.pod_worker import is_content_removable
from kubelet_py.core.source_merge import PodSet, SourceProblem, newest_set
from kubelet_py.core.sysctl_rules import SysctlAllowlist, compute_sysctl_allowlist
from kubelet_py.core.volume_payload import NodeFacts
from kubelet_py.cri import RuntimeClient
from kubelet_py.errors import ConfigError
from kubelet_py.host.cgroups import CgroupTree, Trees
from kubelet_py.host.machine import node_addresses
from kubelet_py.host.systemd_slices import SliceTree, SystemdManager
from kubelet_py.kube.objects import ServiceStore, Strategy, config_maps, secrets
from kubelet_py.kube.trust_bundles import TrustBundleStore
from kubelet_py.managers.allocations import PodAllocations
from kubelet_py.managers.container_gc import ContainerGc, GcSettings, PodKnowledge
from kubelet_py.managers.events import EventRecorder
from kubelet_py.managers.mirror_pods import MirrorPodManager
from kubelet_py.managers.node import NodeClients, NodeInputs, NodeManager
from kubelet_py.managers.node_addresses import NodeAddresses
from kubelet_py.managers.node_allocatable import NodeAllocatable
from kubelet_py.managers.pleg import Pleg
from kubelet_py.managers.pod_certificates import PodCertificates
from kubelet_py.managers.pod_cgroups import PodCgroups
from kubelet_py.managers.prober import NetworkProbes, ProbeHooks, ProbeManager
from kubelet_py.managers.runtime_health import RuntimeHealth
from kubelet_py.managers.service_account_tokens import ServiceAccountTokens
from kubelet_py.managers.status import StatusManager
from kubelet_py.managers.user_namespaces import UserNamespaces
from kubelet_py.managers.volumes import VolumeManager, VolumeSettings
from kubelet_py.sync.container_start import ContainerStarter, LogPlaces
from kubelet_py.sync.lifecycle_hooks import LifecycleHooks
from kubelet_py.sync.loop import Admission, LoopServices, SyncLoop
from kubelet_py.sync.observer import PodObserver
from kubelet_py.sync.pod_kill import PodKiller
from kubelet_py.sync.pod_resize import PodResizer
from kubelet_py.sync.pod_services import PodServices
from kubelet_py.sync.pod_sync import PodSync
from kubelet_py.sync.pod_workers import PodWorkers
from kubelet_py.sync.preemptions import Preemptions
from kubelet_py.sync.remains import Remains
from kubelet_py.sync.sources.merge import SourceMerge
from kubelet_py.sync.start_gate import StartGate

TRUST_BUNDLES: Final = "ClusterTrustBundleProjection"
POD_CERTIFICATES: Final = "PodCertificateRequest"
MIRRORS_WITHIN_SECONDS: Final = 2.0


class Agent:
    """The parts. Objects only: nothing is dialled, opened or written when it is made."""

    def __init__(
        self, settings: Settings, identity: NodeIdentity, client: RuntimeClient, clients: ApiClients | None
    ) -> None:
        self.settings = settings
        self.identity = identity
        self.client = client
        self.clients = clients
        self.cgroup_driver = CgroupDriver(settings.config.cgroupDriver)
        self._started_at_ns = time.time_ns()
        self._has_apparmor = has_apparmor()
        self._api_pods = PodSet(pods.SOURCE_API, ())
        self._api_pods_arrived = asyncio.Event()
        self._static_sources: set[str] = set()
        self._add_managers()

    def _add_managers(self) -> None:
        settings, config = self.settings, self.settings.config
        tree = CgroupTree()
        node, wish = self.identity.settings, self.identity.wish
        self.addresses = NodeAddresses(
            lambda: node_addresses(wish, self.addresses.current), node.status_update_seconds, self._addresses_changed
        )
        self.health = RuntimeHealth(self.client, config.containerRuntimeEndpoint, self._runtime_changed)
        self.node = HostView(
            settings,
            self.identity.settings,
            self.identity.machine,
            self._host_ips,
            self.health,
            lambda: self.cgroup_driver,
            is_unified_cgroup(),
            counts_swap(tree),
            has_selinux(),
        )
        api = self.clients
        self.gate = StartGate()
        self.events = EventRecorder(
            api.events if api is not None else None, self.identity.settings.name, quiet=self.gate.idle
        )
        self.statuses = StatusManager(api.main if api is not None else None, quiet=self.gate.idle)
        self.node_manager = self._make_node_manager()
        self.stories = PodStories()
        self.pleg = Pleg(self.client, lambda *news: self.workers.wake_to_look(*news))
        self.objects = self._make_objects()
        self.volumes = VolumeManager(
            Path(settings.flags.root_dir),
            self.objects if isinstance(self.objects, ApiObjects) else None,
            VolumeSettings(
                selinux_enabled=self.node.selinux_enabled,
                node_allocatable_memory_bytes=lambda: self.node.cgroups().node_allocatable_memory_bytes,
                node_facts=lambda: NodeFacts(
                    self.identity.settings.name, self.node.host_ips(), dict(self.node.allocatable())
                ),
            ),
        )
        trees: Trees = {CgroupDriver.CGROUPFS: tree, CgroupDriver.SYSTEMD: SliceTree(tree, SystemdManager())}
        self.cgroups = PodCgroups(trees, self.node.cgroups)
        self.node_allocatable = NodeAllocatable(
            tree, trees, self.node.cgroups, self.node.pods_limits(), self.node.reserved_cgroups(), self._node_event
        )
        self.images = make_image_parts(settings, self.client, self._pod_event, self._node_warning, self.objects)
        self.allocations = PodAllocations(Path(settings.flags.root_dir), self._pod_event, time.time_ns)
        ids = read_user_ids(settings)
        self.user_namespaces = UserNamespaces(self.volumes.dirs, ids, self._supports_user_namespaces)
        self.prober = self._make_prober()
        self.sync = PodSync(self._pod_services())
        preemptions = Preemptions(self._pod_event, time.monotonic)
        self.workers = PodWorkers(
            self.sync,
            self.statuses,
            config.syncFrequency,
            preemptions=preemptions,
            alive_namesakes=self.pleg.alive_uids_named,
            on_stopped=self._pod_stopped,
        )
        self.merge = SourceMerge(self._source_names())
        self.mirrors = self._make_mirrors()
        self.loop = SyncLoop(
            LoopServices(
                self.workers,
                preemptions,
                self.merge,
                self.pleg,
                self.volumes,
                self.user_namespaces,
                self.cgroups,
                self.allocations,
                self.statuses,
                self._pod_event,
                self.node,
                Admission(
                    self.node_state,
                    self._sysctls(),
                    self.node_manager.look_at_server if self.node_manager is not None else None,
                ),
                self._on_static_pods,
                self._source_problem,
                time.time_ns,
            )
        )

    def _pod_services(self) -> PodServices:
        settings, config = self.settings, self.settings.config
        hooks = LifecycleHooks(self.client, self._pod_event, self._pod_ips)
        killer = PodKiller(self.client, self._pod_event, hooks, gate=self.gate)
        observer = PodObserver(self.client, self.pleg.learn, knows=lambda uid: uid in self.pleg.records)
        starter = ContainerStarter(
            self.client,
            observer,
            self.images.images,
            self.volumes,
            self.node,
            self.objects,
            self._pod_event,
            self._node_warning,
            LogPlaces(config.podLogsDir, log_links_root(config.podLogsDir)),
            hooks,
            killer,
            self.allocations,
            self.user_namespaces,
            self.gate,
        )
        return PodServices(
            observer=observer,
            starter=starter,
            killer=killer,
            resizer=PodResizer(self.client, self.cgroups, self.allocations, self.node),
            remains=Remains(self.client, self.gate),
            volumes=self.volumes,
            node=self.node,
            objects=self.objects,
            statuses=self.statuses,
            events=self._pod_event,
            cgroups=self.cgroups,
            allocations=self.allocations,
            prober=self.prober,
            stories=self.stories,
            pod_logs_root=config.podLogsDir,
            log_links_root=log_links_root(config.podLogsDir),
            crash_policy=crash_policy(
                config.crashLoopBackOff.maxContainerRestartPeriod,
                settings.gates.enabled("ReduceDefaultCrashLoopBackOffDecay"),
            ),
            agent_started_at_ns=self._started_at_ns,
        )

    def _supports_user_namespaces(self, runtime_handler: str) -> bool:
        handlers = {handler.name or "": handler.features for handler in self.health.state.handlers}
        features = handlers.get(runtime_handler)
        return features is not None and bool(features.userNamespaces)

    def _make_prober(self) -> ProbeManager:
        return ProbeManager(
            NetworkProbes(self.client),
            ProbeHooks(
                changed=lambda uid, stimulus: self.workers.note_verdict(uid, stimulus),
                events=self._pod_event,
                reported=self.statuses.last_said,
                agent_started_at_ns=self._started_at_ns,
            ),
        )

    def _pod_ips(self, pod: core_v1.Pod) -> tuple[str, ...]:
        status = self.statuses.last_said(pod)
        return tuple(known.ip for known in (status.podIPs if status is not None else None) or ())

    def _make_objects(self) -> ApiObjects | StandaloneObjects:
        if self.clients is None:
            return StandaloneObjects(self.node)
        strategy = Strategy(self.settings.config.configMapAndSecretChangeDetectionStrategy)
        main, gates = self.clients.main, self.settings.gates
        name, wake = self.identity.settings.name, self._wake_to_refresh
        certificates = PodCertificates(main, name, self.node_object, self._pod_event, on_change=wake)
        return ApiObjects(
            main,
            self.node,
            config_maps(main, strategy=strategy, on_change=wake),
            secrets(main, strategy=strategy, on_change=wake),
            ServiceStore(main),
            ServiceAccountTokens(main),
            TrustBundleStore(main, on_change=wake) if gates.enabled(TRUST_BUNDLES) else None,
            certificates if gates.enabled(POD_CERTIFICATES) else None,
        )

    def _make_node_manager(self) -> NodeManager | None:
        if self.clients is None:
            return None
        inputs = NodeInputs(
            machine=lambda: self.identity.machine,
            addresses=lambda: self.addresses.current,
            runtime=lambda: self.health.state,
            problems=self._node_problems,
            images=lambda: self.health.images,
            extended_capacity=self._orphaned_devices,
            extended_allocatable=self._orphaned_devices,
        )
        return NodeManager(
            NodeClients(self.clients.main, self.clients.heartbeat), self.identity.settings, inputs, self.events
        )

    def _make_mirrors(self) -> MirrorPodManager | None:
        if self.clients is None or self.node_manager is None:
            return None
        return MirrorPodManager(
            self.clients.main, self.node_object, self.node_manager.registered, is_stopping=self.workers.is_stopping
        )

    # What managers ask each other through here

    def _wake(self, pod_uid: str, stimulus: str) -> None:
        self.workers.wake(pod_uid, stimulus)

    def _wake_to_refresh(self, pod_uid: str, stimulus: str) -> None:
        self.volumes.note_change(pod_uid)
        self.workers.wake(pod_uid, stimulus)

    def _source_names(self) -> list[str]:
        config = self.settings.config
        names = [pods.SOURCE_FILE] if config.staticPodPath else []
        if config.staticPodURL:
            names.append(pods.SOURCE_URL)
        if self.clients is not None:
            names.append(pods.SOURCE_API)
        return names

    def make_gc(self) -> ContainerGc:
        config, flags = self.settings.config, self.settings.flags
        policy = GcPolicy(
            flags.minimum_container_ttl_duration,
            flags.maximum_dead_containers_per_container,
            flags.maximum_dead_containers,
        )

        def is_gone(uid: str) -> bool:
            return is_content_removable(self.workers.state(uid), self.merge.ready)

        knowledge = PodKnowledge(is_gone, lambda: self.merge.ready)
        logs = Path(config.podLogsDir)
        return ContainerGc(
            self.client,
            knowledge,
            GcSettings(logs, Path(log_links_root(config.podLogsDir)), policy),
            self._gc_failed,
            self.gate.idle,
        )

    def _gc_failed(self, message: str) -> None:
        self._node_warning("ContainerGCFailed", message)

    def _node_warning(self, reason: str, message: str) -> None:
        self._node_event("Warning", reason, message)

    def _node_event(self, event_type: str, reason: str, message: str) -> None:
        self.events.record(node_reference(self.identity.settings.name), event_type, reason, message)

    def warn_of_dns(self) -> None:
        """At the start, for the operator: pods will not get all of the host's resolv.conf."""
        problem = self.node.dns_problem()
        if problem is not None:
            self._node_warning("CheckLimitsForResolvConf", problem)

    def node_object(self) -> core_v1.Node | None:
        return self.node_manager.node if self.node_manager is not None else None

    def _host_ips(self) -> tuple[str, ...]:
        """By the node's object as last seen, as everybody else knows the node; by the machine before there is one."""
        return self.addresses.host_ips(self.node_manager.last_seen if self.node_manager is not None else None)

    def _addresses_changed(self) -> None:
        if self.node_manager is not None:
            self.node_manager.look_now()
        self.workers.wake_all("the node's addresses changed")

    def _node_problems(self) -> tuple[str, ...]:
        problem = self.pleg.problem()
        return (f"PLEG is not healthy: {problem}",) if problem is not None else ()

    def _orphaned_devices(self) -> dict[str, str]:
        return dict.fromkeys(self.identity.orphaned_devices, "0")

    def node_state(self) -> NodeState:
        """The node for admission: the API object as last seen, or what the node knows of itself."""
        node = self.node_manager.last_seen if self.node_manager is not None else None
        if node is not None:
            declared = self.identity.settings.declared_features
            state = node_state_of(node, apparmor=self._has_apparmor, declared_features=declared)
        else:
            state = local_node_state(self.identity, self.node.allocatable(), self.health.state, self._has_apparmor)
        orphaned = self.identity.orphaned_devices
        if not orphaned:
            return state
        # The object may still say what a kubelet of before had to give.
        return replace(state, allocatable={**state.allocatable, **held_devices(orphaned, self.loop.active_pods())})

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

    def _on_static_pods(self, all_pods: list[core_v1.Pod], complete: bool) -> None:
        if self.mirrors is not None:
            self.mirrors.on_static_pods(all_pods, complete=complete)

    def _pod_stopped(self) -> None:
        if self.mirrors is not None:
            self.mirrors.look_again()

    def _source_problem(self, problem: SourceProblem) -> None:
        """The source has logged it; the API server's users see it as an event of the node."""
        message = f"Manifest {problem.location}: {problem.message}"
        self._node_warning("FailedValidation", message)

    def on_api_pods(self, pod_set: PodSet) -> None:
        """A set from the API server. Of those that come together only the last is looked at, and what went in all."""
        self._api_pods = newest_set(self._api_pods if self._api_pods_arrived.is_set() else None, pod_set)
        self._api_pods_arrived.set()

    async def take_static_pods(self, pod_set: PodSet) -> None:
        """The set of a file or URL. Of what runs already the agent before this one said whether it has started and is
        ready, in a mirror pod: a moment is well spent on waiting for that, or it would be unready until a probe says
        otherwise."""
        if pod_set.source not in self._static_sources:
            self._static_sources.add(pod_set.source)
            await self.pleg.wait_listed()
            records = self.pleg.records
            if any(record.is_alive for pod in pod_set.pods if (record := records.get(pods.uid_of(pod))) is not None):
                await self.statuses.wait_for_mirrors(MIRRORS_WITHIN_SECONDS)
        await self.loop.accept(pod_set)

    async def take_api_pods(self) -> None:
        """Hands the newest set on; it may have to wait until the runtime was listed."""
        while True:
            await self._api_pods_arrived.wait()
            self._api_pods_arrived.clear()
            pod_set = self._api_pods
            self.statuses.on_api_pods(pod_set.fresh)
            if pod_set.mirrors_may_differ:
                mirrors = [pod for pod in pod_set.pods if pods.is_mirror(pod)]
                self.statuses.on_mirror_pods(mirrors)
                if self.mirrors is not None:
                    self.mirrors.on_mirror_pods(mirrors)
            await self.loop.accept(pod_set)


def _field_path(pod: core_v1.Pod, container_name: str) -> str:
    """Which part of the pod an event is about, such as `spec.initContainers{setup}`."""
    if not container_name:
        return ""
    if any(c.name == container_name for c in pods.init_containers_of(pod)):
        return f"spec.initContainers{{{container_name}}}"
    if any(c.name == container_name for c in pods.ephemeral_containers_of(pod)):
        return f"spec.ephemeralContainers{{{container_name}}}"
    return f"spec.containers{{{container_name}}}"
