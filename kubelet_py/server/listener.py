"""The three listeners: 10250 with TLS, 10255 read-only when asked for, 10248 for health checks of this machine.

Owns sockets and the order of things: nothing behind 10250 is reached without a user and a decision.

Upstream counterpart: pkg/kubelet/server/server.go (ListenAndServeKubeletServer and its siblings).
"""

import asyncio
import errno
import socket
import ssl
from typing import Final, Self

import structlog
from aiohttp import web

from kubelet_py.core.authz_rules import (
    Access,
    authorization_error_text,
    forbidden_text,
    subresources_of,
    verb_of,
)
from kubelet_py.errors import ConfigError
from kubelet_py.host.shared_inotify import SharedInotify
from kubelet_py.server.authn import Authenticator
from kubelet_py.server.authz import AuthorizationUnknown, Authorizer
from kubelet_py.server.routes import Handler, Routes
from kubelet_py.server.settings import ApiReviews, ServerBackend, ServerConfig
from kubelet_py.server.tls import ServingContext, ensure_self_signed
from kubelet_py.server.zpages import ZPages

_IDLE_SECONDS: Final = 90.0
_MAX_HEADER_BYTES: Final = 1 << 20
_SHUTDOWN_SECONDS: Final = 1.0
_log = structlog.get_logger()


class KubeletServer:
    """The node's HTTP API; `start` it, `stop` it, or use it as an async context manager."""

    def __init__(self, config: ServerConfig, backend: ServerBackend, reviews: ApiReviews | None = None) -> None:
        """ConfigError when requests are to be judged by an API server and there is none."""
        auth = config.auth
        if reviews is None and config.port and (auth.token_webhook or auth.authorize_by_webhook):
            raise ConfigError(
                "authentication.webhook.enabled and authorization.mode Webhook need an API server (--kubeconfig); "
                "without one set the first to false and the second to AlwaysAllow"
            )
        self._config = config
        self._backend = backend
        self._authenticator = Authenticator(auth, reviews)
        self._authorizer = Authorizer(auth, config.node_name, reviews)
        self._inotify = SharedInotify()
        self._routes = Routes(
            backend, self._inotify, speaks_websocket=config.speaks_websocket, checkpoints=config.checkpoints
        )
        self._runners: list[web.AppRunner] = []

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.stop()

    async def start(self) -> None:
        """Listen on all ports; ConfigError names the port or the file that is in the way, and nothing is left open."""
        config = self._config
        try:
            if config.port:
                tls = ensure_self_signed(config.tls, config.node_name, config.addresses)
                context = ServingContext(tls, config.auth.client_ca_file).listener
                app = web.Application(middlewares=[self._guard])
                self._routes.install(app, debugging=config.debugging_handlers)
                if config.debugging_handlers:
                    ZPages(self._backend, statusz=config.statusz, flagz=config.flagz, cbor=config.cbor).install(app)
                await self._listen(app, config.bind_address, config.port, "port", context)
            if config.read_only_port:
                app = web.Application()
                self._routes.install(app, debugging=False)
                await self._listen(app, config.bind_address, config.read_only_port, "readOnlyPort")
            if config.healthz_port:
                app = web.Application()
                for method, path, handler in self._routes.ping_routes():
                    app.router.add_route(method, path, handler)
                await self._listen(app, config.healthz_bind_address, config.healthz_port, "healthzPort")
        except BaseException:
            await self.stop()
            raise

    async def stop(self) -> None:
        """Close the ports; streams that do not end by themselves are cut."""
        while self._runners:
            await self._runners.pop().cleanup()
        self._inotify.close()

    async def _listen(
        self, app: web.Application, address: str, port: int, field: str, context: ssl.SSLContext | None = None
    ) -> None:
        runner = web.AppRunner(
            app,
            handle_signals=False,
            handler_cancellation=True,
            access_log=None,
            keepalive_timeout=_IDLE_SECONDS,
            max_line_size=_MAX_HEADER_BYTES,  # `kubectl exec` puts the command into the address
            max_field_size=_MAX_HEADER_BYTES,
            shutdown_timeout=_SHUTDOWN_SECONDS,
        )
        await runner.setup()
        self._runners.append(runner)
        try:
            await web.SockSite(runner, await _bound(address, port), ssl_context=context).start()
        except OSError as error:
            reason = error.strerror or str(error)
            hint = "; does another kubelet run here?" if error.errno == errno.EADDRINUSE else ""
            raise ConfigError(f"{field}: cannot listen on {_spelled(address, port)}: {reason}{hint}") from error
        _log.info("listening", address=_spelled(address, port), tls=context is not None)

    @web.middleware
    async def _guard(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        user = await self._authenticator.authenticate(request)
        if user is None:
            return web.Response(status=401, text="Unauthorized")
        resource = request.match_info.route.resource
        route = resource.canonical if resource is not None else ""
        access = Access(user, verb_of(request.method), subresources_of(route))
        try:
            if not await self._authorizer.is_allowed(access):
                _log.info("forbidden", user=user.name, verb=access.verb, route=route or request.path)
                return web.Response(status=403, text=forbidden_text(access))
        except AuthorizationUnknown as error:
            return web.Response(status=500, text=authorization_error_text(access, error.subresource))
        _log.debug("request", user=user.name, method=request.method, path=request.path)
        return await handler(request)


async def _bound(address: str, port: int) -> socket.socket:
    """Listens at an IP address, or at the first one of a name, IPv4 before IPv6."""
    found = await asyncio.get_running_loop().getaddrinfo(address, port, type=socket.SOCK_STREAM)
    family, _, _, _, place = min(found, key=lambda each: each[0] != socket.AF_INET)
    listener = socket.socket(family, socket.SOCK_STREAM)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6:
            # `::` serves both families, as it does upstream.
            listener.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
        listener.bind(place)
        listener.listen(128)
        listener.setblocking(False)
    except BaseException:
        listener.close()
        raise
    return listener


def _spelled(address: str, port: int) -> str:
    return f"[{address}]:{port}" if ":" in address else f"{address}:{port}"
