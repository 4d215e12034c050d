"""Asks a container once, in the way that its probe says.

Owns what the answers of the four kinds mean and how they read. Must not know thresholds and schedules. No deadline
for the caller to keep: every way ends within the probe's timeout.

Upstream counterpart: runProbe in pkg/kubelet/prober/prober.go and the packages below pkg/probe.
"""

import asyncio
from dataclasses import dataclass
from typing import Protocol

from kubelet_py.api import core_v1
from kubelet_py.core.expansion import expand_all
from kubelet_py.core.observed import ProbeResult
from kubelet_py.core.probe_target import (
    MAX_OUTPUT_BYTES,
    PROBE_USER_AGENT,
    HttpTarget,
    http_target,
    join_host_port,
    resolve_port,
)
from kubelet_py.cri import RuntimeClient
from kubelet_py.errors import RuntimeCallError, RuntimeTimeout
from kubelet_py.host import http_get
from kubelet_py.managers.prober.grpc_health import check_health


class ProbeError(Exception):
    """The container could not be asked, so nothing is known of it."""


@dataclass(slots=True, eq=False)
class ProbeTarget:
    """Whom to ask, and how. Kept from one question to the next, and with it the request that is always the same."""

    container: core_v1.Container
    container_id: str
    probe: core_v1.Probe
    pod_ip: str
    timeout_seconds: int
    request: HttpTarget | None = None


@dataclass(frozen=True, slots=True)
class ProbeAnswer:
    """SUCCESS or FAILURE with what the container said; a warning is a success that deserves an event."""

    result: ProbeResult
    output: str = ""
    is_warning: bool = False


class ProbeTransport(Protocol):
    """One question to one container. Raises ProbeError when it could not be asked."""

    async def ask(self, target: ProbeTarget) -> ProbeAnswer:
        """The answer, within the timeout of the target."""


class NetworkProbes:
    """Asks through the runtime (exec) and the network (HTTP, TCP, gRPC)."""

    def __init__(self, client: RuntimeClient) -> None:
        self._client = client

    async def ask(self, target: ProbeTarget) -> ProbeAnswer:
        """The answer, within the timeout of the target."""
        probe = target.probe
        try:
            if probe.exec is not None:
                return await self._exec(probe.exec, target)
            if probe.httpGet is not None:
                return await _http(probe.httpGet, target)
            if probe.tcpSocket is not None:
                return await _tcp(probe.tcpSocket, target)
            if probe.grpc is not None:
                return await _grpc(probe.grpc, target)
        except ValueError as error:
            raise ProbeError(str(error)) from error
        raise ProbeError(f"missing probe handler for container {target.container.name!r}")

    async def _exec(self, action: core_v1.ExecAction, target: ProbeTarget) -> ProbeAnswer:
        env = {variable.name: variable.value or "" for variable in target.container.env or ()}
        command = expand_all(action.command, env)
        try:
            answer = await self._client.exec_sync(target.container_id, command, target.timeout_seconds)
        except RuntimeTimeout:
            words = " ".join(command)
            text = f'command timed out: "{words}" timed out after {target.timeout_seconds}s'
            return ProbeAnswer(ProbeResult.FAILURE, text)
        except RuntimeCallError as error:
            raise ProbeError(str(error)) from error
        output = (answer.stdout[:MAX_OUTPUT_BYTES] + answer.stderr)[:MAX_OUTPUT_BYTES].decode("utf-8", "replace")
        return ProbeAnswer(ProbeResult.FAILURE if answer.exit_code else ProbeResult.SUCCESS, output)


async def _http(action: core_v1.HTTPGetAction, target: ProbeTarget) -> ProbeAnswer:
    if target.request is None:
        target.request = http_target(action, target.container, target.pod_ip, PROBE_USER_AGENT)
    request = target.request
    try:
        async with asyncio.timeout(target.timeout_seconds):
            answer = await http_get.get(request)
    except TimeoutError:
        text = "context deadline exceeded (Client.Timeout exceeded while awaiting headers)"
        return ProbeAnswer(ProbeResult.FAILURE, f'Get "{request.url}": {text}')
    except http_get.HttpError as error:
        return ProbeAnswer(ProbeResult.FAILURE, f'Get "{request.url}": {error}')
    if not 200 <= answer.status < 400:
        return ProbeAnswer(ProbeResult.FAILURE, f"HTTP probe failed with statuscode: {answer.status}")
    body = answer.body.decode("utf-8", "replace")
    if answer.status >= 300:
        return ProbeAnswer(ProbeResult.SUCCESS, f"Probe terminated redirects, Response body: {body}", True)
    return ProbeAnswer(ProbeResult.SUCCESS, body)


async def _tcp(action: core_v1.TCPSocketAction, target: ProbeTarget) -> ProbeAnswer:
    host, port = _host(action.host, target), resolve_port(action.port, target.container)
    try:
        async with asyncio.timeout(target.timeout_seconds):
            connection = await http_get.connect(host, port)
    except TimeoutError:
        return ProbeAnswer(ProbeResult.FAILURE, f"dial tcp {join_host_port(host, port)}: i/o timeout")
    except http_get.HttpError as error:
        return ProbeAnswer(ProbeResult.FAILURE, str(error))
    connection.close()
    return ProbeAnswer(ProbeResult.SUCCESS)


async def _grpc(action: core_v1.GRPCAction, target: ProbeTarget) -> ProbeAnswer:
    host = _host(None, target)
    where = join_host_port(host, resolve_port(action.port, target.container))
    failure = await check_health(where, action.service or "", target.timeout_seconds)
    return ProbeAnswer(ProbeResult.FAILURE if failure else ProbeResult.SUCCESS, failure or "service healthy")


def _host(named: str | None, target: ProbeTarget) -> str:
    host = named or target.pod_ip
    if not host:
        raise ValueError("the pod has no IP address yet, and the probe names no host")
    return host
