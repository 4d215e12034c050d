"""Who is asking the node's HTTP API, and what that takes: users, verbs, subresources of nodes, the texts of refusals.

Owns the rules; `server.authn` and `server.authz` ask the API server. Reads no clock.

Upstream counterpart: pkg/kubelet/server/auth.go. Difference: the subresources belong to the route that was matched and
not to the text of the path, so that no spelling of a path can be judged as another one.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

_VERBS: Final = {"POST": "create", "GET": "get", "HEAD": "get", "PUT": "update", "PATCH": "patch", "DELETE": "delete"}
AUTHENTICATED_GROUP: Final = "system:authenticated"
PROXY: Final = ("proxy",)

_ONE_SUBRESOURCE: Final = {
    "/stats": ("stats",),
    "/metrics": ("metrics",),
    "/logs": ("log",),
    "/checkpoint": ("checkpoint",),
    "/statusz": ("statusz",),
    "/flagz": ("configz",),
}
_FINE_THEN_PROXY: Final = {
    "/healthz": ("healthz", "proxy"),
    "/pods": ("pods", "proxy"),
    "/runningpods": ("pods", "proxy"),
    "/allocatedPods": ("pods", "proxy"),
    "/configz": ("configz", "proxy"),
}


@dataclass(frozen=True, slots=True)
class User:
    """Somebody who proved who they are, or the anonymous user."""

    name: str
    groups: tuple[str, ...] = ()
    uid: str = ""
    extra: tuple[tuple[str, tuple[str, ...]], ...] = ()


ANONYMOUS: Final = User("system:anonymous", ("system:unauthenticated",))


@dataclass(frozen=True, slots=True)
class Access:
    """What is asked for: any one of the subresources is enough, tried in this order."""

    user: User
    verb: str
    subresources: tuple[str, ...]


def authenticated(name: str, groups: Iterable[str], uid: str = "", extra: Mapping[str, Sequence[str]] = {}) -> User:
    """A user whose credentials were good; all of them share one more group."""
    all_groups = dict.fromkeys(groups)
    all_groups[AUTHENTICATED_GROUP] = None
    frozen_extra = tuple((key, tuple(values)) for key, values in sorted(extra.items()))
    return User(name, tuple(all_groups), uid, frozen_extra)


def user_of_certificate(certificate: Mapping[str, Any] | None) -> User | None:
    """The user that a verified client certificate names (CN, and O for the groups), as the ssl module has it."""
    if not certificate:
        return None
    pairs = [pair for relative_name in certificate.get("subject", ()) for pair in relative_name]
    names = [value for key, value in pairs if key == "commonName"]
    if not names or not names[0]:
        return None
    return authenticated(names[0], [value for key, value in pairs if key == "organizationName"])


def bearer_token(header: str) -> str:
    """The token of an Authorization header; "" when it holds none."""
    scheme, _, token = header.strip().partition(" ")
    return token.strip() if scheme.lower() == "bearer" else ""


def verb_of(method: str) -> str:
    """The verb of an HTTP method; "" for one that no rule can allow but a wildcard."""
    return _VERBS.get(method, "")


def subresources_of(route: str) -> tuple[str, ...]:
    """The subresources of nodes that guard a route, such as `/pods` or `/containerLogs/{namespace}/{pod}`."""
    path = route.rstrip("/")
    for prefix, subresources in (_FINE_THEN_PROXY | _ONE_SUBRESOURCE).items():
        if path == prefix or path.startswith(prefix + "/"):
            return subresources
    return PROXY


def forbidden_text(access: Access) -> str:
    """The body of a 403."""
    names = " ".join(access.subresources)
    return f"Forbidden (user={access.user.name}, verb={access.verb}, resource=nodes, subresource(s)=[{names}])\n"


def authorization_error_text(access: Access, subresource: str) -> str:
    """The body of a 500 when the API server could not be asked."""
    return (
        f"Authorization error (user={access.user.name}, verb={access.verb}, resource=nodes, subresource={subresource})"
    )
