"""Carries out a resize in place: the pod's cgroup, its sandbox and its containers, in the order of `core.resize_plan`.

Raises SyncError("ResizeError") at the first step that fails; what was done stays, and the next pass goes on from there.

Upstream counterpart: doPodResizeAction and updatePodContainerResources in kuberuntime_manager.go.
"""

import contextlib

import msgspec
import structlog

from kubelet_py.api import core_v1
from kubelet_py.api import pod as pods
from kubelet_py.core.actions import ContainerResize, ResizePod
from kubelet_py.core.cgroup_rules import (
    CgroupLimits,
    compute_overhead_resources,
    compute_pod_limits,
    to_cri_linux_resources,
)
from kubelet_py.core.observed import ObservedSandbox
from kubelet_py.core.pod_allocation import requirements_of, resizable_containers_of
from kubelet_py.core.pod_resources import CPU, MEMORY
from kubelet_py.core.resize_plan import (
    RESOURCES,
    in_order,
    merged,
    pod_steps,
    to_cri_pod_resources,
    usage_problems,
    without_overhead,
)
from kubelet_py.cri import RuntimeClient
from kubelet_py.errors import RuntimeCallError, RuntimeUnimplemented, SyncError
from kubelet_py.managers.allocations import PodAllocations
from kubelet_py.sync.ports import CgroupKeeper, NodeView

log = structlog.get_logger()


class PodResizer:
    """Resizes pods. Stateless but for its services."""

    def __init__(
        self, client: RuntimeClient, cgroups: CgroupKeeper, allocations: PodAllocations, node: NodeView
    ) -> None:
        self._client = client
        self._cgroups = cgroups
        self._allocations = allocations
        self._node = node

    async def resize(self, pod: core_v1.Pod, action: ResizePod, sandbox: ObservedSandbox | None) -> None:
        """`pod` has its allocated resources. A failure is in the pod's condition and events before it is raised."""
        try:
            await self._resize(pod, action, sandbox)
        except (RuntimeCallError, OSError, SyncError) as error:
            message = error.detail or str(error) if isinstance(error, RuntimeCallError) else str(error)
            self._allocations.note_failure(pod, message)
            raise SyncError("ResizeError", message) from error

    async def _resize(self, pod: core_v1.Pod, action: ResizePod, sandbox: ObservedSandbox | None) -> None:
        target = compute_pod_limits(pod, self._node.cgroups())
        await self._check_usage(pod, action, target)
        for resource in RESOURCES:
            steps = pod_steps(resource, self._cgroups.limits_of(pods.uid_of(pod)), target)
            for limits in steps.before:
                await self._write(pod, sandbox, limits)
            for update in in_order(action.updates, resource):
                await self._update(pod, update, resource)
            for limits in steps.after:
                await self._write(pod, sandbox, limits)
        self._allocations.note_pod_level(pod)

    async def _check_usage(self, pod: core_v1.Pod, action: ResizePod, target: CgroupLimits) -> None:
        """Looks before the first step whether memory that is in use would be taken away."""
        steps = pod_steps(MEMORY, self._cgroups.limits_of(pods.uid_of(pod)), target)
        shrunk = target.memory_bytes if steps.after else None
        if shrunk is None and not in_order(action.updates, MEMORY):
            return
        usage = await self._cgroups.memory_usage(pod, [update.container_id for update in action.updates])
        if usage is None:
            return
        problems = usage_problems(action.updates, shrunk, usage.pod_bytes, usage.container_bytes)
        if problems:
            text = problems[0] if len(problems) == 1 else f"[{', '.join(problems)}]"
            raise SyncError("ResizeError", f"cannot decrease memory limits: {text}")

    async def _write(self, pod: core_v1.Pod, sandbox: ObservedSandbox | None, step: CgroupLimits) -> None:
        """The runtime hears of it first and may refuse; then the pod's cgroup. If that fails, the runtime hears so."""
        before = self._cgroups.limits_of(pods.uid_of(pod))
        after = merged(before, step)
        await self._announce(pod, sandbox, after)
        try:
            await self._cgroups.update_pod(pod, step, after)
        except SyncError:
            try:
                await self._announce(pod, sandbox, before)
            except RuntimeCallError as error:
                log.warning("runtime_believes_in_failed_resize", pod=pods.display_name(pod), error=str(error))
            raise

    async def _announce(self, pod: core_v1.Pod, sandbox: ObservedSandbox | None, limits: CgroupLimits) -> None:
        if sandbox is None:
            return
        overhead = compute_overhead_resources(pod, self._node.cgroups())
        resources = to_cri_pod_resources(without_overhead(limits, pods.spec_of(pod).overhead))
        with contextlib.suppress(RuntimeUnimplemented):  # such a runtime leaves the pod's cgroup to us alone
            await self._client.update_pod_sandbox_resources(sandbox.id, overhead, resources)

    async def _update(self, pod: core_v1.Pod, update: ContainerResize, resource: str) -> None:
        amounts = update.wanted if resource == CPU else update.current.with_memory_of(update.wanted)
        container = next(c for c in resizable_containers_of(pod) if c.name == update.container_name)
        resources = requirements_of(amounts, container.resources)
        resized = msgspec.structs.replace(container, resources=resources)
        await self._client.update_container_resources(
            update.container_id, to_cri_linux_resources(pod, resized, self._node.cgroups())
        )
        self._allocations.note_container(pod, update.container_name, resources)
