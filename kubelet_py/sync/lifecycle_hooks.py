"""Runs postStart and preStop hooks.

Owns exec, HTTP and sleep as hooks mean them, and the events about failures. Must not know when a hook is due: the
start and the stop of containers do. postStart hooks have no deadline of their own; the caller cancels.

Upstream counterpart: pkg/kubelet/lifecycle/handlers.go.
"""

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace

import structlog

from kubelet_py.api import core_v1
from kubelet_py.api import pod as pods
from kubelet_py.core.lifecycle_hooks import (
    HTTP_FALLBACK,
    Hook,
    describe_failure,
    exec_failure,
    handler_of,
    http_fallback_message,
    sleep_left_seconds,
)
from kubelet_py.core.pod_resources import AnyContainer
from kubelet_py.core.probe_target import HOOK_USER_AGENT, HttpTarget, http_target, join_host_port
from kubelet_py.cri import RuntimeClient
from kubelet_py.errors import KubeletError, RuntimeCallError
from kubelet_py.host import http_get
from kubelet_py.sync.ports import EventSink

log = structlog.get_logger()

HOOK_ENDS_WITHIN_SECONDS = 1.0
"""How long the end of a command is waited for once its container is gone, to tell of it."""


class HookError(KubeletError):
    """The hook failed."""


@dataclass(slots=True)
class _PreStop:
    """A preStop hook that has begun; kept until its container is gone, since a stop can be broken off and repeated."""

    began: float
    is_done: bool = False


class LifecycleHooks:
    """The hooks of all pods. `pod_ips` gives a pod's addresses, the primary one first."""

    def __init__(
        self,
        client: RuntimeClient,
        events: EventSink,
        pod_ips: Callable[[core_v1.Pod], tuple[str, ...]],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._client = client
        self._events = events
        self._pod_ips = pod_ips
        self._clock = clock
        self._pre_stops: dict[str, _PreStop] = {}

    async def post_start(self, pod: core_v1.Pod, container: AnyContainer, container_id: str) -> None:
        """The container's postStart hook, if it has one. HookError after its event when it fails."""
        handler = handler_of(container, Hook.POST_START)
        if handler is not None:
            await self._run_told(Hook.POST_START, pod, container, container_id, handler)

    @asynccontextmanager
    async def pre_stop(
        self, pod: core_v1.Pod, container_name: str, container_id: str, grace_seconds: int
    ) -> AsyncIterator[None]:
        """Runs the container's preStop hook, if it has one. The body stops the container, after a failure too.

        It begins when the hook is through or the grace period over. A hook that is not through then goes on beside it:
        it ends with the container. Entered again for the same container, a hook that was through is not repeated, and a
        sleep goes on.
        """
        container = next((c for c in pods.all_containers_of(pod) if c.name == container_name), None)
        handler = handler_of(container, Hook.PRE_STOP) if container is not None else None
        if container is None or handler is None or grace_seconds <= 0:
            yield
            return
        hook = self._pre_stops.setdefault(container_id, _PreStop(self._clock()))
        if hook.is_done:
            yield
            return
        failure: Exception | None = None
        async with asyncio.TaskGroup() as group:
            slept = self._clock() - hook.began
            running = group.create_task(self._run_pre_stop(pod, container, container_id, handler, slept))
            await asyncio.wait((running,), timeout=grace_seconds)
            hook.is_done = True
            if not running.done():
                log.info("pre_stop_hook_outlived_grace_period", container=container_name, grace_seconds=grace_seconds)
            try:
                yield
            except Exception as error:  # the group would wrap it
                failure = error
            if not running.done() and handler.exec is not None and failure is None:
                await asyncio.wait((running,), timeout=HOOK_ENDS_WITHIN_SECONDS)
            running.cancel()
        if failure is not None:
            raise failure

    async def _run_pre_stop(
        self,
        pod: core_v1.Pod,
        container: AnyContainer,
        container_id: str,
        handler: core_v1.LifecycleHandler,
        slept_seconds: float,
    ) -> None:
        with contextlib.suppress(HookError):  # its event is recorded; the container stops all the same
            await self._run_told(Hook.PRE_STOP, pod, container, container_id, handler, slept_seconds)

    def forget(self, container_id: str) -> None:
        """The container is stopped."""
        self._pre_stops.pop(container_id, None)

    async def _run_told(
        self,
        hook: Hook,
        pod: core_v1.Pod,
        container: AnyContainer,
        container_id: str,
        handler: core_v1.LifecycleHandler,
        slept_seconds: float = 0.0,
    ) -> None:
        try:
            await self._run(pod, container, container_id, handler, slept_seconds)
        except (RuntimeCallError, http_get.HttpError, ValueError) as error:
            text = describe_failure(pod, container.name, handler, str(error))
            log.warning("hook_failed", hook=str(hook), pod=pods.display_name(pod), error=text)
            self._events(pod, "Warning", hook.failure_reason, hook.failure_message, container.name)
            raise HookError(text) from error

    async def _run(
        self,
        pod: core_v1.Pod,
        container: AnyContainer,
        container_id: str,
        handler: core_v1.LifecycleHandler,
        slept_seconds: float,
    ) -> None:
        if handler.exec is not None:
            command = handler.exec.command or []
            answer = await self._client.exec_sync(container_id, command, 0)
            if answer.exit_code:
                raise ValueError(exec_failure(command, answer.exit_code, answer.stdout, answer.stderr))
        elif handler.httpGet is not None:
            await self._get(pod, container, handler.httpGet)
        elif handler.sleep is not None:
            await asyncio.sleep(sleep_left_seconds(handler.sleep.seconds, slept_seconds))
        else:
            raise ValueError("invalid handler: a hook is one of exec, httpGet and sleep")

    async def _get(self, pod: core_v1.Pod, container: AnyContainer, action: core_v1.HTTPGetAction) -> None:
        """Any answer will do, whatever its status; plain HTTP where HTTPS was meant is forgiven with an event."""
        pod_ip = next(iter(self._pod_ips(pod)), "")
        target = http_target(action, container, pod_ip, HOOK_USER_AGENT)
        try:
            await http_get.get(target)
        except http_get.HttpNotTls:
            await http_get.get(_without_tls(target))
            message = http_fallback_message(join_host_port(target.host, target.port))
            self._events(pod, "Warning", HTTP_FALLBACK, message)


def _without_tls(target: HttpTarget) -> HttpTarget:
    """The same in plain HTTP, without what must not go over the wire in the clear."""
    lines = [line for line in target.headers.split("\r\n") if not line.lower().startswith("authorization:")]
    return replace(target, scheme="http", headers="\r\n".join(lines))
