"""The node object: registered once, its status computed every 10 s and posted when it changed or after 5 min.

Owns registration, the watch on our own node and the status posts. What the status says comes from `core.node_rules`;
what it is made of comes from callables that other managers provide. While the node is not Ready it looks ten times a
second, so that a node that becomes Ready says so at once. The annotation for the cloud that names --node-ip goes with
a status post, and is no reason for one.

Upstream counterparts: kubelet_node_status.go, the fast status path of kubelet.go. Differences: the status patch is made
from the watched node object, without a GET; a node object that somebody deletes is registered again.
"""

import asyncio
import random
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final

import structlog

from kubelet_py.api import codec, core_v1
from kubelet_py.core import node_rules as rules
from kubelet_py.core.event_rules import NORMAL, Recorder
from kubelet_py.core.node_rules import MachineInfo, NodeObservation, NodeSettings, Pressure, RuntimeState
from kubelet_py.errors import ApiAlreadyExists, ApiConflict, ApiError, ApiForbidden, ApiNotFound
from kubelet_py.kube.backoff import Backoff
from kubelet_py.kube.client import ApiClient, EventKind, Query
from kubelet_py.kube.resources import NODES
from kubelet_py.kube.strategic_patch import strategic_patch
from kubelet_py.kube.watch import Reflector

log = structlog.get_logger()

REGISTER_FIRST_PAUSE_SECONDS: Final = 0.1
REGISTER_LONGEST_PAUSE_SECONDS: Final = 7.0
STATUS_JITTER: Final = 0.04
STATUS_TRIES: Final = 5
FAST_POLL_SECONDS: Final = 0.1
FAST_POLL_FOR_SECONDS: Final = 120.0


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeInputs:
    """Where the status comes from. All are called in the loop, often, and must answer from memory."""

    machine: Callable[[], MachineInfo]
    addresses: Callable[[], tuple[core_v1.NodeAddress, ...]]
    runtime: Callable[[], RuntimeState]
    pressure: Callable[[], Pressure] = Pressure
    problems: Callable[[], tuple[str, ...]] = tuple
    images: Callable[[], "list[core_v1.ContainerImage]"] = list
    extended_capacity: Callable[[], dict[str, str]] = dict
    extended_allocatable: Callable[[], dict[str, str]] = dict
    volumes_in_use: Callable[[], tuple[str, ...]] = tuple

    def observe(self) -> NodeObservation:
        """All of it, now."""
        return NodeObservation(
            machine=self.machine(),
            addresses=self.addresses(),
            runtime=self.runtime(),
            pressure=self.pressure(),
            problems=self.problems(),
            images=self.images(),
            extended_capacity=self.extended_capacity(),
            extended_allocatable=self.extended_allocatable(),
            volumes_in_use=self.volumes_in_use(),
        )


@dataclass(frozen=True, slots=True)
class NodeClients:
    """The main client registers and watches, the heartbeat client posts."""

    main: ApiClient
    heartbeat: ApiClient


class NodeManager:
    """Runs until cancelled."""

    def __init__(
        self,
        clients: NodeClients,
        settings: NodeSettings,
        inputs: NodeInputs,
        recorder: Recorder,
        *,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
        random_fraction: Callable[[], float] = random.random,
    ) -> None:
        self._clients = clients
        self._settings = settings
        self._inputs = inputs
        self._recorder = recorder
        self._now = now
        self._random = random_fraction
        self._node: core_v1.Node | None = None
        self.last_seen: core_v1.Node | None = None
        """The node object as it was last, also after somebody has deleted it."""
        self._report_due_seconds = 0.0
        self._unschedulable: bool | None = None
        self._look_now = asyncio.Event()
        self._missing = False
        self._reboot_checked = False
        self.registered = asyncio.Event()
        """Set while the node object is known to exist: the API pod source and mirror pods wait for it."""

    @property
    def node(self) -> core_v1.Node | None:
        """The node object as last seen: labels, pod CIDRs, taints, allocatable."""
        return self._node

    def look_now(self) -> None:
        """Something that the status shows has changed: compute it soon instead of at the next tick."""
        self._look_now.set()

    async def look_at_server(self) -> None:
        """Reads the node object now, where the watch may be late. Raises ApiError."""
        self._saw(await self._clients.main.get(NODES, self._settings.name))

    async def run(self) -> None:
        """Register, then watch and report."""
        self._event(rules.NodeEvent("Starting", "Starting kubelet."))
        query = Query(field_selector=f"metadata.name={self._settings.name}")
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._watch(Reflector(self._clients.main, NODES, self, query)), name="node-watch")
            tasks.create_task(self._status_loop(), name="node-status")

    async def _watch(self, reflector: Reflector[core_v1.Node]) -> None:
        if self._settings.register:
            await self.registered.wait()
        await reflector.run()

    def on_replace(self, objects: list[core_v1.Node]) -> None:
        """Sink of the watch. An empty list may be older than our registration: a post, made at once, finds out."""
        for node in objects:
            self._saw(node)
        if not objects and self.registered.is_set():
            self._missing = True
            self._look_now.set()

    def on_event(self, kind: EventKind, changed: core_v1.Node) -> None:
        """Sink of the watch."""
        if kind is EventKind.DELETED:
            self._lost()
        else:
            self._saw(changed)

    def _saw(self, node: core_v1.Node) -> None:
        if _version_of(node) < _version_of(self._node):
            return  # the answer to our own patch came first
        self._node = self.last_seen = node
        unschedulable = bool(node.spec is not None and node.spec.unschedulable)
        event = rules.schedulable_event(self._settings.name, self._unschedulable, unschedulable)
        if event is not None:
            self._event(event)
        self._unschedulable = unschedulable
        if not self._settings.register:
            self.registered.set()

    def _lost(self) -> None:
        if self.registered.is_set():
            log.warning("node_object_deleted", node=self._settings.name, action="registering again; pods keep running")
        self._node = None
        self.registered.clear()
        self._look_now.set()

    async def _status_loop(self) -> None:
        loop = asyncio.get_running_loop()
        fast_until_seconds = 0.0
        while True:
            if not self.registered.is_set():
                await self._register()
                fast_until_seconds = loop.time() + FAST_POLL_FOR_SECONDS
                await self._post(force=True)
            else:
                await self._post(force=False)
            tick = loop.time() + self._settings.status_update_seconds * (1 + STATUS_JITTER * self._random())
            if not rules.is_ready(self._status_at_server()):
                await self._until_ready(min(tick, fast_until_seconds))
            await self._pause(tick - loop.time())

    async def _pause(self, seconds: float) -> None:
        try:
            async with asyncio.timeout(seconds):
                await self._look_now.wait()
        except TimeoutError:
            pass
        self._look_now.clear()

    async def _register(self) -> None:
        if not self._settings.register:
            await self.registered.wait()
            return
        backoff = Backoff(REGISTER_FIRST_PAUSE_SECONDS, REGISTER_LONGEST_PAUSE_SECONDS, jitter=0.0, random=self._random)
        said = False
        while True:
            try:
                self._saw(await self._create_or_adopt())
            except ApiError as error:
                if not said:
                    log.warning(
                        "node_not_registered", node=self._settings.name, error=str(error), action="trying again"
                    )
                    said = True
                await asyncio.sleep(backoff.next_seconds(asyncio.get_running_loop().time()))
            else:
                log.info("node_registered", node=self._settings.name)
                self.registered.set()
                return

    async def _create_or_adopt(self) -> core_v1.Node:
        client, settings = self._clients.main, self._settings
        observed = self._inputs.observe()
        node = rules.initial_node(settings, observed.machine)
        node.status = rules.compute_node_status(settings, observed, None, self._now())
        try:
            created = await client.create(NODES, node)
        except (ApiAlreadyExists, ApiForbidden) as refusal:
            try:
                existing = await client.get(NODES, settings.name)
            except ApiNotFound:
                raise refusal from None
            patch = rules.registration_patch(existing, settings, observed.machine)
            if patch is None:
                return existing
            return await client.patch(NODES, settings.name, patch)
        for event in rules.condition_events(settings.name, None, node.status):
            self._event(event)
        return created

    async def _until_ready(self, until_seconds: float) -> None:
        """The fast path: look often; when the node could be Ready, let the next post come at once."""
        loop = asyncio.get_running_loop()
        while loop.time() < until_seconds and self.registered.is_set() and not self._look_now.is_set():
            if rules.is_ready(self._compute()):
                self._look_now.set()
                return
            await asyncio.sleep(FAST_POLL_SECONDS)

    def _status_at_server(self) -> core_v1.NodeStatus | None:
        return self._node.status if self._node is not None else None

    def _compute(self) -> core_v1.NodeStatus:
        return rules.compute_node_status(self._settings, self._inputs.observe(), self._status_at_server(), self._now())

    async def _post(self, *, force: bool) -> None:
        """Post the status if it changed or the report is due. A failure is left for the next look."""
        loop = asyncio.get_running_loop()
        force, self._missing = force or self._missing, False
        status = self._compute()
        before = self._status_at_server()
        changed = before is None or not rules.same_apart_from_heartbeats(before, status)
        labels = self._platform_label_changes()
        if not (changed or labels or force or loop.time() >= self._report_due_seconds):
            return
        if await self._patch_status(labels):
            for event in rules.condition_events(self._settings.name, before, status):
                self._event(event)
            self._check_reboot(before, status)
            # A change moves the next plain report by up to half either way, so that a fleet spreads out.
            report = self._settings.status_report_seconds
            self._report_due_seconds = loop.time() + (report * (0.5 + self._random()) if changed else report)

    async def _patch_status(self, labels: dict[str, Any]) -> bool:
        client, name = self._clients.heartbeat, self._settings.name
        for attempt in range(STATUS_TRIES):
            try:
                if attempt > 0 or self._node is None:
                    self._node = self.last_seen = await client.get(NODES, name, cached=attempt == 0)
                status = self._compute()
                patch = _status_patch(self._node.status, status)
                if annotations := rules.address_annotation_changes(self._node, self._settings):
                    patch["metadata"] = {"annotations": annotations}
                if labels:
                    await self._clients.main.patch(NODES, name, {"metadata": {"labels": labels}})
                self._node = self.last_seen = await client.patch(NODES, name, patch, subresource="status")
            except ApiConflict:
                continue
            except ApiNotFound:
                self._lost()
                return False
            except ApiError as error:
                log.debug("node_status_not_posted", attempt=attempt + 1, error=str(error))
                if attempt == 1:
                    await client.close()  # a connection may be dead without a word; the next try opens a new one
            else:
                return True
        return False

    def _platform_label_changes(self) -> dict[str, Any]:
        if self._node is None or self._node.metadata is None:
            return {}
        labels = self._node.metadata.labels or {}
        wanted = rules.platform_labels(self._inputs.machine())
        return {name: value for name, value in wanted.items() if labels.get(name) != value}

    def _check_reboot(self, before: core_v1.NodeStatus | None, after: core_v1.NodeStatus) -> None:
        if not self._reboot_checked and after.nodeInfo is not None:
            self._reboot_checked = True
            event = rules.reboot_event(self._settings.name, before, after.nodeInfo.bootID)
            if event is not None:
                self._event(event)

    def _event(self, event: rules.NodeEvent) -> None:
        about = rules.node_reference(self._settings.name)
        self._recorder.record(about, event.type or NORMAL, event.reason, event.message)


def _version_of(node: core_v1.Node | None) -> int:
    version = (node.metadata.resourceVersion if node is not None and node.metadata is not None else None) or ""
    return int(version) if version.isdigit() else 0


def _status_patch(before: core_v1.NodeStatus | None, after: core_v1.NodeStatus) -> dict[str, Any]:
    old: dict[str, Any] = codec.to_builtins(before) if before is not None else {}
    return {"status": strategic_patch(old, codec.to_builtins(after))}
