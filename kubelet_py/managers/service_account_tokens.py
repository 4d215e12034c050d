"""Service account tokens for pods: asked for once, kept while they are good, renewed before they end.

Owns the cache and the rule of renewal. Tokens stay in memory; `managers.volumes` writes them where the pod reads them.
The pods' workers ask on every pass, which is what renews them: no loop of its own.

Upstream counterpart: pkg/kubelet/token/token_manager.go. Difference: two that ask for the same token at the same time
make one request.
"""

import asyncio
import random
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any, Final, Protocol, TypeVar

import structlog

from kubelet_py.core.volume_payload import TokenAsk
from kubelet_py.errors import ApiError, ApiForbidden, ApiNotFound, ApiUnavailable
from kubelet_py.kube.resources import SERVICE_ACCOUNTS, Resource

MAX_LIFE_SECONDS: Final = 24 * 3600.0
RENEW_AT_FRACTION: Final = 0.8
MAX_JITTER_SECONDS: Final = 10.0
PURGE_INTERVAL_SECONDS: Final = 60.0
PAUSES_AFTER_REFUSAL_SECONDS: Final = (0.05, 0.1, 0.2, 0.4)
"""The API server's parts see a pod one after the other, and the node may be first: the authorizer refuses a token for a
pod that it has not seen, and the issuer does not find it."""

_log = structlog.get_logger()
_T = TypeVar("_T")


@dataclass(frozen=True, slots=True)
class IssuedToken:
    """A token, its end in seconds since the epoch, and how long it lives: the API server may give less than asked."""

    token: str = field(repr=False)
    expires_at_seconds: float
    life_seconds: float


@dataclass(slots=True)
class _Entry:
    lock: asyncio.Lock = field(default_factory=asyncio.Lock)
    issued: IssuedToken | None = None


class TokenIssuer(Protocol):
    """The part of the API client that is needed."""

    async def create_subresource(
        self, resource: Resource[Any], name: str, subresource: str, body: _T, namespace: str = ""
    ) -> _T:
        """POST to a subresource that answers with what it was given."""


class ServiceAccountTokens:
    """The tokens of this node's pods."""

    def __init__(
        self,
        issuer: TokenIssuer,
        clock: Callable[[], float] = time.time,
        jitter: Callable[[], float] = lambda: random.uniform(0, MAX_JITTER_SECONDS),
        rest: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        self._issuer = issuer
        self._rest = rest
        self._clock = clock
        self._jitter = jitter
        self._entries: dict[TokenAsk, _Entry] = {}
        self._next_purge = 0.0

    async def get(self, ask: TokenAsk) -> str:
        """A token that is good for some time still; raises ApiError when none can be had."""
        self._purge()
        entry = self._entries.setdefault(ask, _Entry())
        async with entry.lock:
            old = entry.issued
            if old is not None and not self._is_due(old, ask):
                return old.token
            try:
                entry.issued = await self._request(ask)
            except ApiError as error:
                if old is None or old.expires_at_seconds <= self._clock():
                    raise
                _log.warning(
                    "token_not_renewed",
                    service_account=f"{ask.namespace}/{ask.service_account}",
                    pod=ask.pod_name,
                    error=str(error),
                    effect="the old token is used while it is good",
                )
                return old.token
            return entry.issued.token

    async def _request(self, ask: TokenAsk) -> IssuedToken:
        for pause_seconds in PAUSES_AFTER_REFUSAL_SECONDS:
            try:
                return await _request(self._issuer, ask)
            except (ApiForbidden, ApiNotFound):
                await self._rest(pause_seconds)
        return await _request(self._issuer, ask)

    def forget_pod(self, pod_uid: str) -> None:
        """No token of this pod is asked for again."""
        for ask in [ask for ask in self._entries if ask.pod_uid == pod_uid]:
            del self._entries[ask]

    def _is_due(self, issued: IssuedToken, ask: TokenAsk) -> bool:
        """Past 80 % of its life or a day of age, a few seconds early so that a node's tokens do not all fall due."""
        now = self._clock() + self._jitter()
        life = issued.life_seconds
        begun = issued.expires_at_seconds - life
        return now > min(begun + life * RENEW_AT_FRACTION, begun + MAX_LIFE_SECONDS)

    def _purge(self) -> None:
        now = self._clock()
        if now < self._next_purge:
            return
        self._next_purge = now + PURGE_INTERVAL_SECONDS
        for ask, entry in list(self._entries.items()):
            if entry.issued is not None and entry.issued.expires_at_seconds <= now and not entry.lock.locked():
                del self._entries[ask]


async def _request(issuer: TokenIssuer, ask: TokenAsk) -> IssuedToken:
    """A TokenRequest, bound to the pod: the token ends with it. ApiConflict when the account is another one by now."""
    from kubelet_py.api import authentication_v1 as authn
    from kubelet_py.api import meta_v1

    body = authn.TokenRequest(
        metadata=meta_v1.ObjectMeta(uid=ask.service_account_uid or None),
        spec=authn.TokenRequestSpec(
            audiences=[ask.audience] if ask.audience else [],
            expirationSeconds=ask.expiration_seconds,
            boundObjectRef=authn.BoundObjectReference(apiVersion="v1", kind="Pod", name=ask.pod_name, uid=ask.pod_uid),
        ),
    )
    answer = await issuer.create_subresource(SERVICE_ACCOUNTS, ask.service_account, "token", body, ask.namespace)
    status = answer.status
    if status is None or not status.token or status.expirationTimestamp is None:
        raise ApiUnavailable(0, "", "the API server answered a TokenRequest without a token")
    granted = answer.spec.expirationSeconds if answer.spec is not None else None
    return IssuedToken(status.token, status.expirationTimestamp.timestamp(), float(granted or ask.expiration_seconds))
