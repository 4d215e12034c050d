"""The HTTP server's settings, from the agent's."""

from collections.abc import Sequence
from pathlib import Path

from kubelet_py.app.node_parts import ApiClients
from kubelet_py.config import Settings
from kubelet_py.core.declared_features import WEBSOCKETS
from kubelet_py.kube.resources import subject_access_reviews, token_reviews
from kubelet_py.server.settings import ApiReviews, AuthSettings, ServerConfig, TlsSettings


def server_config(settings: Settings, node_name: str, addresses: Sequence[str]) -> ServerConfig:
    """What the three servers are told."""
    config, flags = settings.config, settings.flags
    authentication, authorization = config.authentication, config.authorization
    return ServerConfig(
        node_name=node_name,
        addresses=tuple(addresses),
        bind_address=config.address,
        port=config.port if config.enableServer else 0,
        read_only_port=config.readOnlyPort,
        healthz_bind_address=config.healthzBindAddress,
        healthz_port=config.healthzPort,
        auth=AuthSettings(
            anonymous=authentication.anonymous.enabled,
            client_ca_file=authentication.x509.clientCAFile,
            token_webhook=authentication.webhook.enabled,
            token_cache_seconds=authentication.webhook.cacheTTL,
            authorize_by_webhook=authorization.mode == "Webhook",
            allowed_cache_seconds=authorization.webhook.cacheAuthorizedTTL,
            denied_cache_seconds=authorization.webhook.cacheUnauthorizedTTL,
        ),
        tls=TlsSettings(
            cert_file=config.tlsCertFile,
            key_file=config.tlsPrivateKeyFile,
            cert_dir=Path(flags.cert_dir),
            min_version=config.tlsMinVersion,
            cipher_suites=config.tlsCipherSuites,
        ),
        debugging_handlers=config.enableDebuggingHandlers,
        checkpoints=settings.gates.enabled("ContainerCheckpoint"),
        statusz=settings.gates.enabled("ComponentStatusz"),
        flagz=settings.gates.enabled("ComponentFlagz"),
        cbor=settings.gates.enabled("CBORServingAndStorage"),
        speaks_websocket=settings.gates.enabled(WEBSOCKETS),
    )


def api_reviews(clients: ApiClients) -> ApiReviews:
    """How the API server judges a token or an access."""
    tokens, accesses = token_reviews(), subject_access_reviews()
    return ApiReviews(
        review_token=lambda review: clients.main.create(tokens, review),
        review_access=lambda review: clients.main.create(accesses, review),
    )
