"""A kubeconfig file made into what a connection needs; a wrong one refused with file, field and what would be right.

Reads the file and nothing that it points to (`connection.py` does that, again and again). Only the current context is
looked at, as the Go agent does.

Upstream counterpart: client-go tools/clientcmd. Differences: exec plugins, auth providers, impersonation and SOCKS
proxies are refused with a clear message instead of being used; an unknown field is ignored as there.
"""

import base64
import binascii
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import urlsplit

import msgspec
import yaml

from kubelet_py.core.proxy_rules import proxy_problem
from kubelet_py.errors import ConfigError

_Loader: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


class _Cluster(msgspec.Struct, rename="kebab"):
    server: str = ""
    certificate_authority: str | None = None
    certificate_authority_data: str | None = None
    insecure_skip_tls_verify: bool = False
    tls_server_name: str | None = None
    proxy_url: str | None = None


class _User(msgspec.Struct, rename="kebab"):
    token: str | None = None
    token_file: str | None = msgspec.field(name="tokenFile", default=None)
    client_certificate: str | None = None
    client_certificate_data: str | None = None
    client_key: str | None = None
    client_key_data: str | None = None
    username: str | None = None
    password: str | None = None
    exec: Any = None
    auth_provider: Any = None
    impersonate: Any = msgspec.field(name="as", default=None)
    impersonate_uid: Any = msgspec.field(name="as-uid", default=None)
    impersonate_groups: Any = msgspec.field(name="as-groups", default=None)
    impersonate_extra: Any = msgspec.field(name="as-user-extra", default=None)


class _Context(msgspec.Struct):
    cluster: str
    user: str | None = None


class _NamedCluster(msgspec.Struct):
    name: str
    cluster: _Cluster


class _NamedUser(msgspec.Struct):
    name: str
    user: _User | None = None


class _NamedContext(msgspec.Struct):
    name: str
    context: _Context


class _File(msgspec.Struct, rename="kebab"):
    clusters: list[_NamedCluster] | None = None
    users: list[_NamedUser] | None = None
    contexts: list[_NamedContext] | None = None
    current_context: str | None = None


class Credentials(NamedTuple):
    """PEM or a secret either as bytes (embedded) or as the path of a file that is read again when it changes."""

    data: bytes | None = None
    file: Path | None = None

    def __bool__(self) -> bool:
        return self.data is not None or self.file is not None

    def __repr__(self) -> str:
        return f"Credentials(file={self.file})" if self.file else "Credentials(embedded)"


class Kubeconfig(NamedTuple):
    """The current context of a kubeconfig."""

    path: Path
    server: str
    authority: Credentials = Credentials()
    certificate: Credentials = Credentials()
    key: Credentials = Credentials()
    token: Credentials = Credentials()
    basic_auth: tuple[str, str] | None = None
    insecure: bool = False
    tls_server_name: str | None = None
    proxy_url: str | None = None

    def __repr__(self) -> str:
        return f"Kubeconfig({self.path}, {self.server})"


def load_kubeconfig(path: Path) -> Kubeconfig:
    """The connection that the file's current context describes; raises ConfigError with everything that is wrong."""
    content = _parse(path)
    cluster_at, cluster, user_at, user = _current(path, content)
    problems: list[str] = []
    server = _server(f"{path}: {cluster_at}.server", cluster.server, problems)
    result = Kubeconfig(
        path=path,
        server=server,
        authority=_credentials(
            path,
            f"{cluster_at}.certificate-authority",
            cluster.certificate_authority,
            cluster.certificate_authority_data,
            problems,
        ),
        certificate=_credentials(
            path, f"{user_at}.client-certificate", user.client_certificate, user.client_certificate_data, problems
        ),
        key=_credentials(path, f"{user_at}.client-key", user.client_key, user.client_key_data, problems),
        token=_token(path, user_at, user, problems),
        basic_auth=(user.username, user.password or "") if user.username else None,
        insecure=cluster.insecure_skip_tls_verify,
        tls_server_name=cluster.tls_server_name,
        proxy_url=cluster.proxy_url or None,
    )
    if result.proxy_url and (problem := proxy_problem(result.proxy_url)):
        problems.append(f"{path}: {cluster_at}.proxy-url: {problem}")
    if result.certificate and not result.key:
        problems.append(f"{path}: {user_at}.client-key: missing: a client certificate needs its key")
    if result.key and not result.certificate:
        problems.append(f"{path}: {user_at}.client-certificate: missing: a client key needs its certificate")
    if result.insecure and result.authority:
        problems.append(f"{path}: {cluster_at}.insecure-skip-tls-verify: not together with certificate-authority")
    for name, value in (("exec", user.exec), ("auth-provider", user.auth_provider)):
        if value is not None:
            problems.append(
                f"{path}: {user_at}.{name}: not supported: use client-certificate and client-key, token or tokenFile"
            )
    impersonation = {
        "as": user.impersonate,
        "as-uid": user.impersonate_uid,
        "as-groups": user.impersonate_groups,
        "as-user-extra": user.impersonate_extra,
    }
    for name, value in impersonation.items():
        if value:
            problems.append(f"{path}: {user_at}.{name}: not supported: use the credentials of the node itself")
    if problems:
        raise ConfigError(*problems)
    return result


def _parse(path: Path) -> _File:
    try:
        text = path.read_bytes()
    except OSError as error:
        raise ConfigError(
            f"{path}: cannot be read: {error.strerror}; --kubeconfig must name a kubeconfig file"
        ) from error
    try:
        value = yaml.load(text, Loader=_Loader)
    except yaml.YAMLError as error:
        raise ConfigError(f"{path}: neither YAML nor JSON: {' '.join(str(error).split())}") from error
    if not isinstance(value, dict):
        raise ConfigError(f"{path}: a kubeconfig is a mapping with clusters, users, contexts and current-context")
    try:
        return msgspec.convert(value, _File)
    except msgspec.ValidationError as error:
        raise ConfigError(f"{path}: {error}") from error


def _current(path: Path, content: _File) -> tuple[str, _Cluster, str, _User]:
    if not content.current_context:
        raise ConfigError(f"{path}: current-context: missing: name one of the contexts {_names(content.contexts)}")
    context = next((c.context for c in content.contexts or [] if c.name == content.current_context), None)
    if context is None:
        raise ConfigError(
            f"{path}: current-context: no context is called {content.current_context!r}; "
            f"there are {_names(content.contexts)}"
        )
    at = f"contexts[{content.current_context}].context"
    cluster = next((c.cluster for c in content.clusters or [] if c.name == context.cluster), None)
    if cluster is None:
        raise ConfigError(
            f"{path}: {at}.cluster: no cluster is called {context.cluster!r}; there are {_names(content.clusters)}"
        )
    user: _User | None = _User()
    if context.user:
        named = next((u for u in content.users or [] if u.name == context.user), None)
        if named is None:
            raise ConfigError(
                f"{path}: {at}.user: no user is called {context.user!r}; there are {_names(content.users)}"
            )
        user = named.user or _User()
    return f"clusters[{context.cluster}].cluster", cluster, f"users[{context.user or ''}].user", user or _User()


def _names(entries: Any) -> str:
    return ", ".join(repr(entry.name) for entry in entries or []) or "none"


def _server(where: str, value: str, problems: list[str]) -> str:
    address = value if "://" in value or not value else f"https://{value}"
    try:
        parts = urlsplit(address)
        valid = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:
        valid = False
    if not valid:
        problems.append(f"{where}: {value!r} is not the address of a server; right would be https://HOST:PORT")
    return address.rstrip("/")


def _credentials(path: Path, field: str, file: str | None, data: str | None, problems: list[str]) -> Credentials:
    if data:  # embedded data wins over a file, as upstream
        try:
            return Credentials(data=base64.b64decode(data, validate=True))
        except (binascii.Error, ValueError):
            problems.append(f"{path}: {field}-data: not base64; right would be the base64 form of a PEM file")
            return Credentials()
    if file:
        resolved = path.parent / file  # an absolute path stays what it is
        if not resolved.is_file():
            problems.append(f"{path}: {field}: {resolved} is not a file that can be read")
        return Credentials(file=resolved)
    return Credentials()


def _token(path: Path, user_at: str, user: _User, problems: list[str]) -> Credentials:
    if user.token_file:  # the file wins over the token, as upstream
        return _credentials(path, f"{user_at}.tokenFile", user.token_file, None, problems)
    return Credentials(data=user.token.encode()) if user.token else Credentials()
