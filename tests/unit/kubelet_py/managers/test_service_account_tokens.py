"""When tokens are asked for, kept and renewed; time is a number here."""

import asyncio
import re
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any, cast

import msgspec
import pytest

from kubelet_py.api import authentication_v1
from kubelet_py.core.volume_payload import TokenAsk
from kubelet_py.errors import ApiError, ApiForbidden, ApiNotFound, ApiUnavailable
from kubelet_py.kube.resources import Resource
from kubelet_py.managers.service_account_tokens import (
    PAUSES_AFTER_REFUSAL_SECONDS,
    ServiceAccountTokens,
    TokenIssuer,
)

ASK = TokenAsk("shop", "default", "web", "uid-1", expiration_seconds=3600)


class Issuer:
    """Counts, and answers with tokens that last as long as was asked for, or as long as they may."""

    def __init__(self) -> None:
        self.longest_seconds = 2**31
        self.now = 1_000_000.0
        self.asked: list[authentication_v1.TokenRequest] = []
        self.away = False
        self.refusals: list[ApiError] = []
        self.rests: list[float] = []
        self.path = ("", "", "")

    async def create_subresource(
        self, resource: Resource[Any], name: str, subresource: str, body: Any, namespace: str = ""
    ) -> Any:
        await asyncio.sleep(0)
        if self.away:
            raise ApiUnavailable(0, "", "connection refused")
        if self.refusals:
            raise self.refusals.pop()
        self.asked.append(body)
        self.path = (namespace, name, subresource)
        granted = min(body.spec.expirationSeconds or 0, self.longest_seconds)
        spec = msgspec.structs.replace(body.spec, expirationSeconds=granted)
        end = datetime.fromtimestamp(self.now + granted, UTC)
        status = authentication_v1.TokenRequestStatus(token=f"token-{len(self.asked)}", expirationTimestamp=end)
        return authentication_v1.TokenRequest(spec=spec, status=status)

    def tokens(self, jitter: float = 0.0) -> ServiceAccountTokens:
        return ServiceAccountTokens(cast(TokenIssuer, self), lambda: self.now, lambda: jitter, self.rest)

    async def rest(self, seconds: float) -> None:
        self.rests.append(seconds)


async def test_a_token_is_bound_to_the_pod_and_kept() -> None:
    issuer = Issuer()
    tokens = issuer.tokens()
    assert await tokens.get(ASK) == "token-1"
    assert await tokens.get(ASK) == "token-1"
    assert issuer.path == ("shop", "default", "token")
    spec = issuer.asked[0].spec
    assert spec is not None
    assert spec.boundObjectRef is not None
    assert (spec.boundObjectRef.kind, spec.boundObjectRef.name, spec.boundObjectRef.uid) == ("Pod", "web", "uid-1")
    assert spec.audiences == []
    assert await tokens.get(replace(ASK, audience="vault")) == "token-2"
    second = issuer.asked[1].spec
    assert second is not None
    assert second.audiences == ["vault"]


@pytest.mark.parametrize(
    "refusal",
    [
        ApiForbidden(403, "Forbidden", "no relationship found between node 'n1' and this object"),
        ApiNotFound(404, "NotFound", 'pod "web" not found'),
    ],
    ids=["authorizer", "issuer"],
)
async def test_an_api_server_that_has_not_seen_the_pod_in_all_its_parts_is_asked_again(refusal: ApiError) -> None:
    """It takes a moment, and a pod must not start later for that; who is refused for good hears of it all the same."""
    issuer = Issuer()
    tokens = issuer.tokens()
    issuer.refusals = [refusal] * len(PAUSES_AFTER_REFUSAL_SECONDS)
    assert await tokens.get(ASK) == "token-1"
    assert issuer.rests == list(PAUSES_AFTER_REFUSAL_SECONDS)
    issuer.refusals = [refusal] * (len(PAUSES_AFTER_REFUSAL_SECONDS) + 1)
    with pytest.raises(type(refusal), match=re.escape(refusal.message)):
        await tokens.get(replace(ASK, audience="vault"))


async def test_an_account_that_is_known_is_named_with_its_uid() -> None:
    issuer = Issuer()
    tokens = issuer.tokens()
    for ask in (ASK, replace(ASK, service_account_uid="account-1"), replace(ASK, service_account_uid="account-2")):
        await tokens.get(ask)
    named = [request.metadata.uid if request.metadata else None for request in issuer.asked]
    assert named == [None, "account-1", "account-2"]


@pytest.mark.parametrize(
    ("life", "age", "jitter", "renewed"),
    [
        (3600, 2879, 0.0, False),
        (3600, 2881, 0.0, True),
        (3600, 2875, 9.0, True),
        (7 * 86400, 86399, 0.0, False),
        (7 * 86400, 86401, 0.0, True),
    ],
)
async def test_it_is_renewed_at_four_fifths_of_its_life_or_after_a_day(
    life: int, age: float, jitter: float, renewed: bool
) -> None:
    issuer = Issuer()
    tokens = issuer.tokens(jitter)
    ask = replace(ASK, expiration_seconds=life)
    await tokens.get(ask)
    issuer.now += age
    assert await tokens.get(ask) == ("token-2" if renewed else "token-1")


async def test_one_that_the_api_server_shortens_is_renewed_by_the_life_that_it_has() -> None:
    """With --service-account-max-token-expiration; else each pass would ask for another."""
    issuer = Issuer()
    issuer.longest_seconds = 3600
    tokens = issuer.tokens()
    ask = replace(ASK, expiration_seconds=86400)
    assert [await tokens.get(ask) for _ in range(3)] == ["token-1"] * 3
    issuer.now += 2881
    assert await tokens.get(ask) == "token-2"


async def test_the_old_one_is_used_while_it_is_good_and_the_api_server_is_away() -> None:
    issuer = Issuer()
    tokens = issuer.tokens()
    await tokens.get(ASK)
    issuer.now += 3000
    issuer.away = True
    assert await tokens.get(ASK) == "token-1"
    issuer.now += 601
    with pytest.raises(ApiUnavailable):
        await tokens.get(ASK)
    issuer.away = False
    assert await tokens.get(ASK) == "token-2"


async def test_many_at_once_make_one_request_and_a_forgotten_pod_starts_anew() -> None:
    issuer = Issuer()
    tokens = issuer.tokens()
    assert set(await asyncio.gather(*(tokens.get(ASK) for _ in range(10)))) == {"token-1"}
    tokens.forget_pod("another")
    assert await tokens.get(ASK) == "token-1"
    tokens.forget_pod("uid-1")
    assert await tokens.get(ASK) == "token-2"
