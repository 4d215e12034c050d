"""Runs the plan of one pass: batch after batch of actions, until one fails that the others need.

Knows nothing of why an action is due (`core.pod_actions`) and reports nothing but the sandbox it has just made.

Upstream counterpart: SyncPod in pkg/kubelet/kuberuntime/kuberuntime_manager.go.
"""

import asyncio
import contextlib
import glob
import os
from collections.abc import Mapping
from dataclasses import dataclass, field

from kubelet_py.api import core_v1
from kubelet_py.api import pod as pods
from kubelet_py.core import labels
from kubelet_py.core.actions import (
    Action,
    BackOff,
    CreateSandbox,
    KillContainer,
    KillPod,
    RemoveContainer,
    ResizePod,
    StartContainer,
    batches,
)
from kubelet_py.core.backoff import next_entry
from kubelet_py.core.observed import NS_PER_SECOND, ObservedPod, ObservedSandbox
from kubelet_py.core.pod_resources import AnyContainer
from kubelet_py.core.termination import container_grace_period_seconds
from kubelet_py.core.volume_plan import MountedVolume
from kubelet_py.errors import KubeletError, SyncError
from kubelet_py.managers.images import PullBackOff
from kubelet_py.sync.container_start import ContainerOrder
from kubelet_py.sync.pod_reports import PodReports
from kubelet_py.sync.pod_services import PodMemory, PodServices
from kubelet_py.sync.unbroken import unbroken


@dataclass(slots=True)
class PlanRun:
    """One plan on its way: what it works on, and what went wrong or must wait."""

    pod: core_v1.Pod
    memory: PodMemory
    observed: ObservedPod
    mounted: Mapping[str, MountedVolume]
    sandbox: ObservedSandbox | None = None
    failures: list[KubeletError] = field(default_factory=list)
    waits: list[float] = field(default_factory=list)
    started: list[str] = field(default_factory=list)
    """The ids of the containers that were started."""
    renews_sandbox: bool = False


class PlanRunner:
    """Runs plans. Stateless but for its services."""

    def __init__(self, services: PodServices, reports: PodReports) -> None:
        self._services = services
        self._reports = reports

    async def run(self, plan: tuple[Action, ...], current: PlanRun) -> None:
        """Batch after batch; the first failure that matters ends it."""
        current.renews_sandbox = any(isinstance(action, CreateSandbox) for action in plan)
        for batch in batches(plan):
            outcomes = await asyncio.gather(*(self._act(action, current) for action in batch), return_exceptions=True)
            must_stop = False
            for action, outcome in zip(batch, outcomes, strict=True):
                if outcome is None:
                    continue
                if not isinstance(outcome, KubeletError):
                    raise outcome
                current.failures.append(outcome)
                must_stop = must_stop or action.stops_plan
            if must_stop:
                return

    async def _act(self, action: Action, current: PlanRun) -> None:
        services, pod = self._services, current.pod
        match action:
            case KillPod():
                if current.renews_sandbox and current.observed.sandboxes:
                    message = "Pod sandbox changed, it will be killed and re-created."
                    services.events(pod, "Normal", "SandboxChanged", message)
                # Not seen through: the pass that comes instead stops the same things, maybe with less time.
                await services.killer.kill_pod(pod, current.observed)
                current.sandbox = None
            case KillContainer():
                grace_seconds = container_grace_period_seconds(pod, action.grace_period_override_seconds)
                await services.killer.kill_container(
                    pod, action.container_id, action.container_name, action.message, grace_seconds
                )
            case RemoveContainer():
                await unbroken(services.remains.remove_container(action.container_id))
                if not action.keep_log:
                    await asyncio.to_thread(self._remove_logs, pod, action, current.observed)
            case CreateSandbox():
                current.sandbox = await services.starter.run_sandbox(pod, action.attempt)
                await self._reports.report_sandbox(pod, current.memory, current.observed, current.sandbox)
            case ResizePod():
                await services.resizer.resize(pod, action, current.sandbox)
            case StartContainer():
                await self._start(action, current)
            case BackOff():
                self._note_backoff(action, current)

    async def _start(self, action: StartContainer, current: PlanRun) -> None:
        services, memory = self._services, current.memory
        container = _container_named(current.pod, action.container_name)
        if current.sandbox is None:
            raise SyncError("CreatePodSandboxError", "the pod has no sandbox to start in", action.container_name)
        if action.after_exit_at_ns is not None:
            memory.crash_backoff[action.backoff_key] = next_entry(
                memory.crash_backoff.get(action.backoff_key),
                services.crash_policy,
                services.clock_ns() / NS_PER_SECOND,
                action.after_exit_at_ns / NS_PER_SECOND,
                made_at_seconds=services.steady_seconds(),
            )
        try:
            target = self._target_of(container, current)
            order = ContainerOrder(
                current.pod, container, action.restart_count, current.sandbox, current.mounted, target
            )
            for leftover in action.leftovers:
                await unbroken(services.remains.remove_container(leftover))
            current.started.append(await services.starter.start(order))
        except PullBackOff as error:
            memory.waiting[action.container_name] = (error.reason, error.message)
            current.waits.append(error.remaining_seconds)
            raise
        except SyncError as error:
            memory.waiting[action.container_name] = (error.reason, error.message)
            raise
        memory.waiting.pop(action.container_name, None)

    def _target_of(self, container: AnyContainer, current: PlanRun) -> str:
        """The container whose process namespace an ephemeral container joins; without it there is nothing to debug."""
        name = container.targetContainerName if isinstance(container, core_v1.EphemeralContainer) else None
        if not name:
            return ""
        target = current.observed.newest(name)
        if target is None:
            message = f"unable to find target container {name}"
            self._services.events(current.pod, "Warning", "Failed", f"Error: {message}", container.name)
            raise SyncError("CreateContainerConfigError", message, container.name)
        return target.id

    def _note_backoff(self, action: BackOff, current: PlanRun) -> None:
        pod = current.pod
        current.waits.append(action.remaining_seconds)
        current.memory.waiting[action.container_name] = ("CrashLoopBackOff", action.message)
        metadata = pods.metadata_of(pod)
        message = (
            f"Back-off restarting failed container {action.container_name} in pod "
            f"{metadata.name}_{metadata.namespace}({pods.uid_of(pod)})"
        )
        self._services.events(pod, "Warning", "BackOff", message, action.container_name)

    def _remove_logs(self, pod: core_v1.Pod, action: RemoveContainer, observed: ObservedPod) -> None:
        """The log files of a run that is gone; the newest stay, their names carry the restart count. Blocking."""
        removed = next((c for c in observed.containers if c.id == action.container_id), None)
        newest = observed.newest(action.container_name)
        if removed is None or newest is None or removed.restart_count == newest.restart_count:
            return
        metadata = pods.metadata_of(pod)
        directory = labels.pod_log_directory(
            self._services.pod_logs_root, metadata.namespace or "", metadata.name or "", pods.uid_of(pod)
        )
        path = f"{directory}/{labels.container_log_path(action.container_name, removed.restart_count)}"
        for file in (path, *glob.glob(f"{glob.escape(path)}.*")):
            with contextlib.suppress(FileNotFoundError):
                os.unlink(file)


def _container_named(pod: core_v1.Pod, name: str) -> AnyContainer:
    return next(container for container in pods.all_containers_of(pod) if container.name == name)
