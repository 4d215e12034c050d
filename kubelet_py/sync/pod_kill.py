"""Stops containers and sandboxes: one container, or all of a pod in the order that the pod is promised.

Upstream counterpart: killContainer, killContainersWithSyncResult and killPodWithSyncResult in kuberuntime.
"""

import asyncio
import time
from collections.abc import Callable, Coroutine, Iterable, Mapping
from dataclasses import dataclass, field
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
        async with self._hooks.pre_stop(pod, container_name, container_id, grace_seconds):
            await self._stop(container_id, container_name, stop_timeout_seconds(grace_seconds, self._clock() - began))

    async def kill_pod(self, pod: core_v1.Pod, observed: ObservedPod, grace_override: int | None = None) -> None:
        """Every container, then every sandbox."""
        steps = compute_kill_steps(pod, observed.alive)
        ends = {step.container_name: _End() for step in steps}
        await _all("KillContainer", [self._kill_in_order(pod, step, ends, grace_override) for step in steps])
        await _all("KillPodSandbox", [self._stop_sandbox(sandbox.id) for sandbox in observed.sandboxes])

    async def _kill_in_order(
        self, pod: core_v1.Pod, step: KillStep, ends: Mapping[str, "_End"], grace_override: int | None
    ) -> None:
        began = self._clock()
        end = ends[step.container_name]
        grace_seconds = container_grace_period_seconds(pod, grace_override)
        self._events(pod, "Normal", "Killing", f"Stopping container {step.container_name}", step.container_name)
        try:
            async with self._hooks.pre_stop(pod, step.container_name, step.container_id, grace_seconds):
                await _wait_for(step, ends, grace_seconds - int(self._clock() - began))
                timeout = stop_timeout_seconds(grace_seconds, self._clock() - began)
                await self._stop(step.container_id, step.container_name, timeout)
                end.is_good = True
                end.came.set()
        finally:
            end.came.set()

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


@dataclass(slots=True)
class _End:
    """How the stop of one container went, once it has gone one way or the other."""

    came: asyncio.Event = field(default_factory=asyncio.Event)
    is_good: bool = False


async def _wait_for(step: KillStep, ends: Mapping[str, _End], seconds: int) -> None:
    """Until it is this container's turn, or time is over; SyncError where one before it would not stop.

    Whole seconds as upstream: containers whose hooks took all of the time are stopped side by side.
    """
    try:
        async with asyncio.timeout(seconds):
            for name in step.after:
                await ends[name].came.wait()
                if not ends[name].is_good:
                    message = f"{step.container_name} is not stopped before {name}, which would not stop"
                    raise SyncError("KillContainer", message, step.container_name)
    except TimeoutError:
        log.info("sidecar_stops_with_others_alive", container=step.container_name, waited_for=step.after)


async def _all(reason: str, work: Iterable[Coroutine[Any, Any, None]]) -> None:
    """Does everything, whatever fails of it; then SyncError with all failures."""
    failures = [f for f in await asyncio.gather(*work, return_exceptions=True) if f is not None]
    for failure in failures:
        if not isinstance(failure, SyncError):
            raise failure
    if failures:
        raise SyncError(reason, "; ".join(str(failure) for failure in failures))
