"""Stops containers and sandboxes: one container, or all of a pod in the order that the pod is promised.

Upstream counterpart: killContainer, killContainersWithSyncResult and killPodWithSyncResult in kuberuntime.
"""

import asyncio
import time
from collections.abc import Callable, Coroutine, Iterable
from typing import Any

import structlog

from kubelet_py.api import core_v1
from kubelet_py.core.observed import ObservedPod
from kubelet_py.core.termination import (
    KillStep,
    compute_kill_steps,
    container_grace_period_seconds,
    stop_timeout_seconds,
)
from kubelet_py.cri import RuntimeClient
from kubelet_py.errors import RuntimeCallError, RuntimeNotFound, SyncError
from kubelet_py.sync.lifecycle_hooks import LifecycleHooks
from kubelet_py.sync.ports import EventSink
from kubelet_py.sync.start_gate import Rank, StartGate

log = structlog.get_logger()


class PodKiller:
    """Stops what runs. Raises SyncError("KillContainer" or "KillPodSandbox") when something would not stop."""

    def __init__(
        self,
        client: RuntimeClient,
        events: EventSink,
        hooks: LifecycleHooks,
        clock: Callable[[], float] = time.monotonic,
        gate: StartGate | None = None,
    ) -> None:
        self._client = client
        self._events = events
        self._hooks = hooks
        self._clock = clock
        self._gate = gate or StartGate()

    async def kill_container(
        self, pod: core_v1.Pod, container_id: str, container_name: str, message: str, grace_seconds: int
    ) -> None:
        """One container, its Killing event first."""
        self._events(pod, "Normal", "Killing", message or f"Stopping container {container_name}", container_name)
        began = self._clock()
        await self._hooks.pre_stop(pod, container_name, container_id, grace_seconds)
        timeout = stop_timeout_seconds(grace_seconds, self._clock() - began) if grace_seconds else 0
        await self._stop(container_id, container_name, timeout)

    async def kill_pod(self, pod: core_v1.Pod, observed: ObservedPod, grace_override: int | None = None) -> None:
        """Every container, then every sandbox."""
        steps = compute_kill_steps(pod, observed.alive)
        gone = {step.container_name: asyncio.Event() for step in steps}
        await _all("KillContainer", [self._kill_in_order(pod, step, gone, grace_override) for step in steps])
        await _all("KillPodSandbox", [self._stop_sandbox(sandbox.id) for sandbox in observed.sandboxes])

    async def _kill_in_order(
        self, pod: core_v1.Pod, step: KillStep, gone: dict[str, asyncio.Event], grace_override: int | None
    ) -> None:
        began = self._clock()
        grace_seconds = container_grace_period_seconds(pod, grace_override)
        self._events(pod, "Normal", "Killing", f"Stopping container {step.container_name}", step.container_name)
        try:
            await self._hooks.pre_stop(pod, step.container_name, step.container_id, grace_seconds)
            if step.after:
                try:
                    async with asyncio.timeout(max(grace_seconds - (self._clock() - began), 1)):
                        for name in step.after:
                            await gone[name].wait()
                except TimeoutError:
                    log.info("sidecar_stops_with_others_alive", container=step.container_name, waited_for=step.after)
            timeout = stop_timeout_seconds(grace_seconds, self._clock() - began) if grace_seconds else 0
            await self._stop(step.container_id, step.container_name, timeout)
        finally:
            gone[step.container_name].set()

    async def _stop(self, container_id: str, container_name: str, timeout_seconds: int) -> None:
        try:
            async with self._gate.place(Rank.KILL):
                await self._client.stop_container(container_id, timeout_seconds)
        except RuntimeNotFound:
            pass
        except RuntimeCallError as error:
            message = f'failed to "KillContainer" for "{container_name}" with KillContainerError: {error}'
            raise SyncError("KillContainer", message, container_name) from error
        self._hooks.forget(container_id)

    async def _stop_sandbox(self, sandbox_id: str) -> None:
        try:
            async with self._gate.place(Rank.STOP):
                await self._client.stop_pod_sandbox(sandbox_id)
        except RuntimeNotFound:
            return
        except RuntimeCallError as error:
            message = f'failed to "KillPodSandbox" for "{sandbox_id}" with KillPodSandboxError: {error}'
            raise SyncError("KillPodSandbox", message) from error


async def _all(reason: str, work: Iterable[Coroutine[Any, Any, None]]) -> None:
    """Does everything, whatever fails of it; then SyncError with all failures."""
    failures = [f for f in await asyncio.gather(*work, return_exceptions=True) if f is not None]
    for failure in failures:
        if not isinstance(failure, SyncError):
            raise failure
    if failures:
        raise SyncError(reason, "; ".join(str(failure) for failure in failures))
