"""Who is asking: a client certificate, else a bearer token, else nobody.

Owns the order and the cache of token reviews. Tokens are kept as hashes only.

Upstream counterpart: apiserver's authenticatorfactory as the kubelet uses it. Difference: a client certificate that the
CA did not sign ends the TLS handshake (the ssl module verifies there or not at all), where upstream answers 401.
"""

import hashlib
import time
from collections import OrderedDict
from collections.abc import Callable
from typing import Final

import structlog
from aiohttp import web

from kubelet_py.core.authz_rules import ANONYMOUS, User, authenticated, bearer_token, user_of_certificate
from kubelet_py.errors import ApiError
from kubelet_py.server.settings import ApiReviews, AuthSettings

_MAX_CACHED: Final = 4096
_log = structlog.get_logger()


class Authenticator:
    """Names the user of a request."""

    def __init__(
        self, settings: AuthSettings, reviews: ApiReviews | None, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._settings = settings
        self._reviews = reviews if settings.token_webhook else None
        self._clock = clock
        self._tokens: OrderedDict[bytes, tuple[float, User | None]] = OrderedDict()

    async def authenticate(self, request: web.Request) -> User | None:
        """The user; None is 401. Bad credentials are never answered as an anonymous user's request."""
        transport = request.transport
        certificate = transport.get_extra_info("peercert") if transport is not None else None
        user = user_of_certificate(certificate)
        if user is not None:
            return user
        token = bearer_token(request.headers.get("Authorization", ""))
        if token and self._reviews is not None:
            return await self._user_of_token(token, self._reviews)
        return ANONYMOUS if self._settings.anonymous else None

    async def _user_of_token(self, token: str, reviews: ApiReviews) -> User | None:
        key = hashlib.sha256(token.encode()).digest()
        cached = self._tokens.get(key)
        if cached is not None and cached[0] > self._clock():
            return cached[1]
        try:
            user = await _review(token, reviews)
        except ApiError as error:
            # Not cached: the next request may find the API server well again.
            _log.warning("token_review_failed", error=str(error), effect="answered 401")
            return None
        self._tokens[key] = (self._clock() + self._settings.token_cache_seconds, user)
        self._tokens.move_to_end(key)
        while len(self._tokens) > _MAX_CACHED:
            self._tokens.popitem(last=False)
        return user


async def _review(token: str, reviews: ApiReviews) -> User | None:
    from kubelet_py.api import authentication_v1 as authn

    answer = await reviews.review_token(authn.TokenReview(spec=authn.TokenReviewSpec(token=token)))
    status = answer.status
    if status is None or not status.authenticated or status.user is None:
        return None
    user = status.user
    return authenticated(user.username or "", user.groups or (), user.uid or "", user.extra or {})
