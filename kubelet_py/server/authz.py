"""Whether they may: SubjectAccessReviews on `nodes/<subresource>`, cached.

Upstream counterpart: apiserver's webhook authorizer as the kubelet uses it. What may not be asked is denied.
"""

import time
from collections import OrderedDict
from collections.abc import Callable
from typing import Final

import structlog

from kubelet_py.core.authz_rules import Access, User
from kubelet_py.errors import ApiError
from kubelet_py.server.settings import ApiReviews, AuthSettings

_MAX_CACHED: Final = 4096
_log = structlog.get_logger()


class AuthorizationUnknown(Exception):
    """The API server could not be asked; `subresource` is what was asked about."""

    def __init__(self, subresource: str) -> None:
        super().__init__(subresource)
        self.subresource = subresource


class Authorizer:
    """Decides on requests; without the webhook everything is allowed (mode AlwaysAllow)."""

    def __init__(
        self,
        settings: AuthSettings,
        node_name: str,
        reviews: ApiReviews | None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._settings = settings
        self._node_name = node_name
        self._reviews = reviews
        self._clock = clock
        self._decisions: OrderedDict[tuple[User, str, str], tuple[float, bool]] = OrderedDict()

    async def is_allowed(self, access: Access) -> bool:
        """One of the subresources is allowed; raises AuthorizationUnknown."""
        if not self._settings.authorize_by_webhook:
            return True
        for subresource in access.subresources:
            if await self._is_allowed(access.user, access.verb, subresource):
                return True
        return False

    async def _is_allowed(self, user: User, verb: str, subresource: str) -> bool:
        key = (user, verb, subresource)
        cached = self._decisions.get(key)
        if cached is not None and cached[0] > self._clock():
            return cached[1]
        if self._reviews is None:
            return False
        try:
            allowed = await _review(user, verb, subresource, self._node_name, self._reviews)
        except ApiError as error:
            _log.warning("access_review_failed", user=user.name, verb=verb, subresource=subresource, error=str(error))
            raise AuthorizationUnknown(subresource) from error
        seconds = self._settings.allowed_cache_seconds if allowed else self._settings.denied_cache_seconds
        self._decisions[key] = (self._clock() + seconds, allowed)
        self._decisions.move_to_end(key)
        while len(self._decisions) > _MAX_CACHED:
            self._decisions.popitem(last=False)
        return allowed


async def _review(user: User, verb: str, subresource: str, node_name: str, reviews: ApiReviews) -> bool:
    from kubelet_py.api import authorization_v1 as authz

    attributes = authz.ResourceAttributes(
        verb=verb, group="", version="v1", resource="nodes", subresource=subresource, name=node_name
    )
    spec = authz.SubjectAccessReviewSpec(
        user=user.name,
        groups=list(user.groups),
        uid=user.uid or None,
        extra={key: list(values) for key, values in user.extra} or None,
        resourceAttributes=attributes,
    )
    answer = await reviews.review_access(authz.SubjectAccessReview(spec=spec))
    return bool(answer.status is not None and answer.status.allowed and not answer.status.denied)
