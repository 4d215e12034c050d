"""The health question of gRPC: grpc.health.v1.Health/Check.

Upstream counterpart: pkg/probe/grpc/grpc.go. Deliberate difference: a server that nobody listens for fails at once
and not when the timeout is over.
"""

import grpc
import grpc.aio

from kubelet_py.core.probe_target import PROBE_USER_AGENT, health_request, health_status

_METHOD = "/grpc.health.v1.Health/Check"
# Channels live for one question; without the first option they would share connections, which hides a dead listener.
_OPTIONS = (
    ("grpc.use_local_subchannel_pool", 1),
    ("grpc.primary_user_agent", PROBE_USER_AGENT),
    ("grpc.enable_http_proxy", 0),
)


async def check_health(where: str, service: str, timeout_seconds: float) -> str:
    """Why the service is not healthy, "" when it is."""
    async with grpc.aio.insecure_channel(f"dns:///{where}", options=_OPTIONS) as channel:
        check = channel.unary_unary(_METHOD, request_serializer=bytes, response_deserializer=bytes)
        try:
            response: bytes = await check(health_request(service), timeout=timeout_seconds)
        except grpc.aio.AioRpcError as error:
            return _describe(error, where, timeout_seconds)
    status = health_status(response)
    return "" if status == "SERVING" else f'service unhealthy (responded with "{status}")'


def _describe(error: grpc.aio.AioRpcError, where: str, timeout_seconds: float) -> str:
    detail = error.details() or error.code().name
    match error.code():
        case grpc.StatusCode.UNIMPLEMENTED:
            return f"error: this server does not implement the grpc health protocol (grpc.health.v1.Health): {detail}"
        case grpc.StatusCode.DEADLINE_EXCEEDED:
            return f"timeout: health rpc did not complete within {timeout_seconds:g}s"
        case grpc.StatusCode.UNAVAILABLE:
            return f'error: failed to connect service at "{where}": {detail}'
        case code:
            return f"error: health rpc probe failed: rpc error: code = {code.name} desc = {detail}"
