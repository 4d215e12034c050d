"""One wrapper around every RPC: readiness, errors to codes, one log line, one observation.

Owns the table from our errors to gRPC codes and the level of the log line, which follows the consequence: reads and
what a healthy caller provokes are quiet, what a person should look at is not. No error leaves as a crash. Upstream
counterpart: containerd's internal/cri/instrument.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import TYPE_CHECKING, Any, NoReturn

import grpc
import grpc.aio
import structlog

from dockershim import errors
from dockershim.store.feeder import Feeder

if TYPE_CHECKING:
    _ServerInterceptor = grpc.aio.ServerInterceptor[Any, Any]  # generic in its stubs alone
else:
    _ServerInterceptor = grpc.aio.ServerInterceptor

_log = structlog.get_logger()

CODES: dict[type[errors.ShimError], grpc.StatusCode] = {
    errors.NotFound: grpc.StatusCode.NOT_FOUND,
    errors.InvalidArgument: grpc.StatusCode.INVALID_ARGUMENT,
    errors.AlreadyExists: grpc.StatusCode.ALREADY_EXISTS,
    errors.FailedPrecondition: grpc.StatusCode.FAILED_PRECONDITION,
    errors.Aborted: grpc.StatusCode.ABORTED,
    errors.ResourceExhausted: grpc.StatusCode.RESOURCE_EXHAUSTED,
    errors.DeadlineExceeded: grpc.StatusCode.DEADLINE_EXCEEDED,
    errors.Unimplemented: grpc.StatusCode.UNIMPLEMENTED,
    errors.Unavailable: grpc.StatusCode.UNAVAILABLE,
    errors.ShimError: grpc.StatusCode.UNKNOWN,
}
LONGEST_START_SECONDS = 10.0
_ALWAYS_ANSWERED = frozenset({"Version", "Status", "RuntimeConfig", "UpdateRuntimeConfig"})
_QUIET_PREFIXES = ("List", "Stream")
_QUIET = frozenset(
    {
        *_ALWAYS_ANSWERED,
        "PodSandboxStatus",
        "ContainerStatus",
        "ImageStatus",
        "ImageFsInfo",
        "GetContainerEvents",
        "ContainerStats",
        "PodSandboxStats",
        "ExecSync",
    }
)
_EXPECTED = frozenset(
    {
        grpc.StatusCode.NOT_FOUND,
        grpc.StatusCode.UNIMPLEMENTED,
        grpc.StatusCode.DEADLINE_EXCEEDED,
        grpc.StatusCode.CANCELLED,
    }
)
_SUBJECTS = ("pod_sandbox_id", "container_id")


def code_of(error: errors.ShimError) -> grpc.StatusCode:
    """The code of the nearest class in the table."""
    return next(CODES[kind] for kind in type(error).__mro__ if kind in CODES)


class CallInterceptor(_ServerInterceptor):
    """The wrapper."""

    def __init__(self, feeder: Feeder, observe: Callable[[str, str, float], None] | None = None) -> None:
        """`observe` is told of each call that ends: its method, its code, and its seconds."""
        self._feeder = feeder
        self._observe = observe

    async def intercept_service(
        self,
        continuation: Callable[[grpc.HandlerCallDetails], Awaitable[grpc.RpcMethodHandler[Any, Any]]],
        handler_call_details: grpc.HandlerCallDetails,
    ) -> Any:
        """Put the wrapper around the method's handler."""
        handler: Any = await continuation(handler_call_details)
        if handler is None:
            return handler
        method = str(handler_call_details.method).rpartition("/")[2]
        codec = {
            "request_deserializer": handler.request_deserializer,
            "response_serializer": handler.response_serializer,
        }
        if handler.unary_unary is not None:
            return grpc.unary_unary_rpc_method_handler(self._unary(method, handler.unary_unary), **codec)
        return grpc.unary_stream_rpc_method_handler(self._stream(method, handler.unary_stream), **codec)

    def _unary(self, method: str, behavior: Callable[[Any, Any], Awaitable[Any]]) -> Callable[[Any, Any], Any]:
        async def call(request: Any, context: grpc.aio.ServicerContext[Any, Any]) -> Any:
            begun = time.monotonic()
            try:
                await self._check_ready(method)
                response = await behavior(request, context)
            except (Exception, asyncio.CancelledError) as error:
                await self._fail(method, request, context, error, begun)
            self._end(method, request, grpc.StatusCode.OK, "", begun)
            return response

        return call

    def _stream(
        self, method: str, behavior: Callable[[Any, Any], AsyncIterator[Any]]
    ) -> Callable[[Any, Any], AsyncIterator[Any]]:
        async def call(request: Any, context: grpc.aio.ServicerContext[Any, Any]) -> AsyncIterator[Any]:
            begun = time.monotonic()
            try:
                await self._check_ready(method)
                async for response in behavior(request, context):
                    yield response
            except (Exception, asyncio.CancelledError) as error:
                await self._fail(method, request, context, error, begun)
            self._end(method, request, grpc.StatusCode.OK, "", begun)

        return call

    async def _check_ready(self, method: str) -> None:
        """A call that comes while dockershim starts waits a little; one that comes while Docker is away does not."""
        if self._feeder.filled or method in _ALWAYS_ANSWERED:
            return
        await self._feeder.wait_tried(LONGEST_START_SECONDS)
        if not self._feeder.filled:
            raise errors.Unavailable(self._feeder.trouble or "dockershim is reading Docker's state")

    async def _fail(
        self,
        method: str,
        request: Any,
        context: grpc.aio.ServicerContext[Any, Any],
        error: BaseException,
        begun: float,
    ) -> NoReturn:
        if isinstance(error, asyncio.CancelledError):
            self._end(method, request, grpc.StatusCode.CANCELLED, "the caller went away", begun)
            raise error
        if isinstance(error, grpc.aio.AbortError):
            raise error
        if isinstance(error, errors.ShimError):
            code, detail = code_of(error), str(error)
        else:
            _log.exception("rpc_crashed", method=method, error=repr(error))
            code, detail = grpc.StatusCode.INTERNAL, f"dockershim failed in {method}: {error!r}"
        self._end(method, request, code, detail, begun)
        await context.abort(code, detail)

    def _end(self, method: str, request: Any, code: grpc.StatusCode, detail: str, begun: float) -> None:
        seconds = time.monotonic() - begun
        if self._observe is not None:
            self._observe(method, code.name, seconds)
        fields: dict[str, Any] = {"method": method, "code": code.name, "seconds": round(seconds, 4)}
        for subject in _SUBJECTS:
            value = getattr(request, subject, "")
            if value:
                fields[subject] = value
        if detail:
            fields["error"] = detail
        quiet = method in _QUIET or method.startswith(_QUIET_PREFIXES)
        if code is grpc.StatusCode.OK:
            (_log.debug if quiet else _log.info)("rpc", **fields)
        elif code in _EXPECTED:
            _log.debug("rpc", **fields)
        else:
            _log.warning("rpc", **fields)
