"""Users, verbs and subresources of the node's HTTP API."""

import pytest

from kubelet_py.core import authz_rules as authz
from kubelet_py.core.authz_rules import ANONYMOUS, Access


@pytest.mark.parametrize(
    ("route", "subresources"),
    [
        ("/pods", ("pods", "proxy")),
        ("/pods/", ("pods", "proxy")),
        ("/runningpods/", ("pods", "proxy")),
        ("/healthz", ("healthz", "proxy")),
        ("/healthz/{check}", ("healthz", "proxy")),
        ("/configz", ("configz", "proxy")),
        ("/stats/{tail}", ("stats",)),
        ("/metrics", ("metrics",)),
        ("/metrics/cadvisor", ("metrics",)),
        ("/logs/{tail}", ("log",)),
        ("/checkpoint/{tail}", ("checkpoint",)),
        ("/statusz", ("statusz",)),
        ("/flagz", ("configz",)),
        ("/containerLogs/{namespace}/{pod}/{container}", ("proxy",)),
        ("/exec/{tail}", ("proxy",)),
        ("/metricsX", ("proxy",)),
        ("", ("proxy",)),
    ],
)
def test_what_guards_a_route(route: str, subresources: tuple[str, ...]) -> None:
    assert authz.subresources_of(route) == subresources


def test_verbs() -> None:
    methods = ("POST", "GET", "HEAD", "PUT", "PATCH", "DELETE", "TRACE")
    assert [authz.verb_of(method) for method in methods] == ["create", "get", "get", "update", "patch", "delete", ""]


def test_a_certificate_names_user_and_groups() -> None:
    certificate = {
        "subject": ((("organizationName", "b"),), (("organizationName", "a"), ("commonName", "alice")), (("x", "y"),))
    }
    user = authz.user_of_certificate(certificate)
    assert user is not None
    assert (user.name, user.groups) == ("alice", ("b", "a", "system:authenticated"))
    assert (user.uid, user.extra) == ("", ())
    for nobody in ({"issuer": ()}, None, {}, {"subject": ()}, {"subject": ((("commonName", ""),),)}):
        assert authz.user_of_certificate(nobody) is None


@pytest.mark.parametrize(
    ("header", "token"),
    [("Bearer abc", "abc"), ("bearer  abc ", "abc"), ("Basic abc", ""), ("", ""), ("Bearer", ""), ("Bearerabc", "")],
)
def test_bearer_tokens(header: str, token: str) -> None:
    assert authz.bearer_token(header) == token


def test_refusals_say_who_wanted_what() -> None:
    access = Access(ANONYMOUS, "get", ("pods", "proxy"))
    assert authz.forbidden_text(access) == (
        "Forbidden (user=system:anonymous, verb=get, resource=nodes, subresource(s)=[pods proxy])\n"
    )
    assert authz.authorization_error_text(access, "pods") == (
        "Authorization error (user=system:anonymous, verb=get, resource=nodes, subresource=pods)"
    )


def test_an_authenticated_user_is_in_the_group_of_all_of_them_once() -> None:
    user = authz.authenticated("sa", ["x", "system:authenticated"], "uid", {"k": ["v"]})
    assert user.groups == ("x", "system:authenticated")
    assert user.extra == (("k", ("v",)),)
    assert hash(user) == hash(authz.authenticated("sa", ["x"], "uid", {"k": ["v"]}))
