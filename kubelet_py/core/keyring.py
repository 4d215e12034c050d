"""Registry logins: what a docker configuration holds, and which of them fit an image.

Entries are kept under a host with an optional port and path; a `*` in one label of the host stands for any text there.
The longest entries come first, and all that fit are tried. Reading files and secrets is the shell's.

Upstream counterparts: pkg/credentialprovider/keyring.go, config.go, secrets/secrets.go. Difference: a login that is no
text is refused where it is read, as no runtime would take it.
"""

import base64
import hashlib
import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final, NamedTuple, TypeVar

from kubelet_py.api import codec, core_v1, meta_v1

T = TypeVar("T")

DOCKER_CONFIG_JSON: Final = "kubernetes.io/dockerconfigjson"
DOCKER_CFG: Final = "kubernetes.io/dockercfg"
_DATA_KEYS: Final = {DOCKER_CONFIG_JSON: ".dockerconfigjson", DOCKER_CFG: ".dockercfg"}
_DEFAULT_HOSTS: Final = ("docker.io", "index.docker.io")
_API_PATHS: Final = ("/v1/", "/v2/")


class InvalidLogins(ValueError):
    """The text is no docker configuration; the message names the place and none of the content."""


@dataclass(frozen=True, slots=True)
class Login:
    """What a registry is told."""

    username: str = ""
    password: str = field(default="", repr=False)
    email: str = ""


class SecretSource(NamedTuple):
    """The login came from a secret of the pod."""

    uid: str
    namespace: str
    name: str


class ServiceAccountSource(NamedTuple):
    """The login was made by a plugin for the pod's service account."""

    uid: str
    namespace: str
    name: str


Source = SecretSource | ServiceAccountSource


@dataclass(frozen=True, slots=True)
class Credential:
    """A login and whose it is; without a source every pod of the node may use it."""

    login: Login
    source: Source | None = None

    @property
    def digest(self) -> str:
        """What stands for the login in records on disk: the same that the Go kubelet writes."""
        pairs = {key: getattr(self.login, key) for key in ("username", "password", "email")}
        text = json.dumps(
            {key: value for key, value in pairs.items() if value}, separators=(",", ":"), ensure_ascii=False
        )
        for character in "<>&\u2028\u2029":
            text = text.replace(character, f"\\u{ord(character):04x}")
        return hashlib.sha256(text.encode()).hexdigest()


Logins = Mapping[str, Login]
"""By registry, as the configuration spells it."""


@dataclass(frozen=True, slots=True)
class _Entry:
    username: str | None = None
    password: str | None = None
    email: str | None = None
    auth: str | None = None


@dataclass(frozen=True, slots=True)
class _ConfigJson:
    auths: dict[str, _Entry] | None = None


def parse_config_json(text: bytes) -> Logins:
    """The logins of a config.json. Raises InvalidLogins."""
    return _logins(_decode(_ConfigJson, text).auths or {})


def parse_docker_cfg(text: bytes) -> Logins:
    """The logins of a .dockercfg, the older form. Raises InvalidLogins."""
    return _logins(_decode(dict[str, _Entry], text))


def logins_of_secret(secret: core_v1.Secret) -> Logins | None:
    """The logins of a pull secret, None for one of another type or without content. Raises InvalidLogins."""
    key = _DATA_KEYS.get(secret.type or "", "")
    content = (secret.data or {}).get(key)
    if not content:
        return None
    parse = parse_config_json if secret.type == DOCKER_CONFIG_JSON else parse_docker_cfg
    try:
        return parse(base64.b64decode(content))
    except InvalidLogins as error:
        source = _source_of(secret)
        raise InvalidLogins(f"secret {source.namespace}/{source.name}, {key}: {error}") from error


class Keyring:
    """Credentials by the registries that they are for."""

    def __init__(self) -> None:
        self._by_pattern: dict[str, list[Credential]] = {}

    def add(self, logins: Logins, source: Source | None = None) -> None:
        """More logins of one source."""
        for registry, login in logins.items():
            self._by_pattern.setdefault(_pattern_of(registry), []).append(Credential(login, source))

    def lookup(self, name: str) -> tuple[Credential, ...]:
        """All that fit an image name with its registry and without tag, the most specific first."""
        patterns = sorted(self._by_pattern, reverse=True)
        found = [
            credential for pattern in patterns if matches(pattern, name) for credential in self._by_pattern[pattern]
        ]
        if not found and name.partition("/")[0] in _DEFAULT_HOSTS:
            found = self._by_pattern.get("index.docker.io", [])
        return tuple(found)


def keyring_of_secrets(secrets: Iterable[core_v1.Secret]) -> Keyring:
    """The logins of a pod's pull secrets. Raises InvalidLogins."""
    keyring = Keyring()
    for secret in secrets:
        logins = logins_of_secret(secret)
        if logins is not None:
            keyring.add(logins, _source_of(secret))
    return keyring


def matches(pattern: str, name: str) -> bool:
    """Whether `*.example.com:5000/team` fits `eu.example.com:5000/team/app`: labels, port, path's beginning."""
    wanted, given = _split(pattern), _split(name)
    return (
        wanted.port == given.port
        and len(wanted.labels) == len(given.labels)
        and given.path.startswith(wanted.path)
        and all(_label_matches(glob, label) for glob, label in zip(wanted.labels, given.labels, strict=True))
    )


class _Place(NamedTuple):
    labels: Sequence[str]
    port: str
    path: str


def _split(text: str) -> _Place:
    authority, slash, path = text.partition("/")
    host, colon, port = authority.rpartition(":")
    # [::1] has colons of its own; in [::1]:5000 the last one starts the port.
    if not colon or port.endswith("]"):
        host, port = authority, ""
    return _Place(host.split("."), port, slash + path)


def _label_matches(glob: str, label: str) -> bool:
    if "*" not in glob:
        return glob == label
    return re.fullmatch(".*".join(map(re.escape, glob.split("*"))), label) is not None


def _pattern_of(registry: str) -> str:
    """Without scheme, without the API's path: `https://index.docker.io/v1/` is `index.docker.io`."""
    host, slash, rest = registry.removeprefix("https://").removeprefix("http://").partition("/")
    path = slash + rest
    if path.startswith(_API_PATHS):
        path = path[len("/v1") :]
    return host if path == "/" else host + path


def _source_of(secret: core_v1.Secret) -> SecretSource:
    metadata = secret.metadata or meta_v1.ObjectMeta()
    return SecretSource(metadata.uid or "", metadata.namespace or "", metadata.name or "")


def _decode(kind: type[T], text: bytes) -> T:
    try:
        return codec.decode(kind, text)
    except codec.InvalidObject as error:
        raise InvalidLogins(str(error)) from error


def _logins(entries: Mapping[str, _Entry]) -> Logins:
    return {registry: _login_of(registry, entry) for registry, entry in entries.items()}


def _login_of(registry: str, entry: _Entry) -> Login:
    if not entry.auth:
        return Login(entry.username or "", entry.password or "", entry.email or "")
    try:
        bare = "".join(entry.auth.split()).rstrip("=")
        decoded = base64.b64decode(bare + "=" * (-len(bare) % 4), validate=True).decode()
        username, colon, password = decoded.partition(":")
    except ValueError:  # no base64, no text
        colon = ""
    if not colon:
        raise InvalidLogins(f"auth of {registry!r} is not base64 of username:password")
    return Login(username, password, entry.email or "")
