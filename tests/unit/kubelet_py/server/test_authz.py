"""How long decisions are kept; time is a number here."""

import pytest

from kubelet_py.api import authentication_v1, authorization_v1
from kubelet_py.core.authz_rules import Access, User
from kubelet_py.errors import ApiUnavailable
from kubelet_py.server.authz import AuthorizationUnknown, Authorizer
from kubelet_py.server.settings import ApiReviews, AuthSettings

ALICE = User("alice", ("dev",), "u", (("scope", ("a", "b")),))


class Judge:
    """Allows one subresource; counts."""

    def __init__(self, allowed: str) -> None:
        self.allowed = allowed
        self.asked: list[authorization_v1.SubjectAccessReviewSpec] = []
        self.away = False

    async def review_token(self, review: authentication_v1.TokenReview) -> authentication_v1.TokenReview:
        return review

    async def review_access(self, review: authorization_v1.SubjectAccessReview) -> authorization_v1.SubjectAccessReview:
        if self.away:
            raise ApiUnavailable(0, "", "connection refused")
        self.asked.append(review.spec)
        attributes = review.spec.resourceAttributes
        allowed = attributes is not None and attributes.subresource == self.allowed
        status = authorization_v1.SubjectAccessReviewStatus(allowed=allowed)
        return authorization_v1.SubjectAccessReview(spec=review.spec, status=status)


async def test_allowed_is_kept_five_minutes_and_denied_thirty_seconds() -> None:
    judge, now = Judge("proxy"), [0.0]
    authorizer = Authorizer(
        AuthSettings(), "node-1", ApiReviews(judge.review_token, judge.review_access), lambda: now[0]
    )
    access = Access(ALICE, "get", ("pods", "proxy"))
    for at, questions in ((0.0, 2), (29.0, 2), (31.0, 3), (299.0, 4), (301.0, 5)):
        now[0] = at
        assert await authorizer.is_allowed(access)
        assert len(judge.asked) == questions, at
    spec = judge.asked[0]
    assert (spec.user, spec.groups, spec.uid, spec.extra) == ("alice", ["dev"], "u", {"scope": ["a", "b"]})
    attributes = spec.resourceAttributes
    assert attributes is not None
    assert (attributes.verb, attributes.version, attributes.resource, attributes.name, attributes.subresource) == (
        "get",
        "v1",
        "nodes",
        "node-1",
        "pods",
    )


async def test_what_cannot_be_asked_is_not_allowed() -> None:
    judge = Judge("proxy")
    judge.away = True
    access = Access(ALICE, "get", ("proxy",))
    with pytest.raises(AuthorizationUnknown):
        await Authorizer(AuthSettings(), "node-1", ApiReviews(judge.review_token, judge.review_access)).is_allowed(
            access
        )
    assert not await Authorizer(AuthSettings(), "node-1", None).is_allowed(access)
    assert await Authorizer(AuthSettings(authorize_by_webhook=False), "node-1", None).is_allowed(access)
