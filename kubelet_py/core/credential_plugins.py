"""Credential provider plugins: their configuration, what they are asked, what they answer, how long that is kept.

Running them and reading files is the shell's. An answer is never shown in an error: it holds passwords.

Upstream counterparts: pkg/credentialprovider/plugin (config.go, plugin.go), kubelet.config.k8s.io/v1
(CredentialProviderConfig), credentialprovider.kubelet.k8s.io/v1.
"""

import hashlib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, Final, NamedTuple

from kubelet_py.api import codec
from kubelet_py.api.durations import parse_duration
from kubelet_py.core.keyring import Login, Logins, matches
from kubelet_py.core.name_rules import check_qualified_name

CONFIG_KIND: Final = "CredentialProviderConfig"
_CONFIG_VERSIONS: Final = tuple(f"kubelet.config.k8s.io/{version}" for version in ("v1", "v1beta1", "v1alpha1"))
_PLUGIN_VERSIONS: Final = tuple(
    f"credentialprovider.kubelet.k8s.io/{version}" for version in ("v1", "v1beta1", "v1alpha1")
)
_TOKEN_VERSION: Final = _PLUGIN_VERSIONS[0]
PURGE_INTERVAL_SECONDS: Final = 900.0


class InvalidPluginConfig(ValueError):
    """The configuration cannot be used; one line for each thing that is wrong."""

    def __init__(self, problems: Iterable[str]) -> None:
        self.problems = tuple(problems)
        super().__init__("\n".join(self.problems))


class InvalidAnswer(ValueError):
    """What the plugin printed is no answer; the message says why and shows nothing of it."""


class TokenCache(StrEnum):
    """How long an answer is good that was got with a service account's token."""

    SERVICE_ACCOUNT = "ServiceAccount"
    TOKEN = "Token"


@dataclass(frozen=True, slots=True)
class TokenAttributes:
    """The plugin gets a token of the pod's service account."""

    serviceAccountTokenAudience: str = ""
    cacheType: str = ""
    requireServiceAccount: bool | None = None
    requiredServiceAccountAnnotationKeys: tuple[str, ...] = ()
    optionalServiceAccountAnnotationKeys: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class EnvVar:
    """A variable that the plugin gets."""

    name: str
    value: str = ""


@dataclass(frozen=True, slots=True)
class Plugin:
    """One plugin of the configuration."""

    name: str = ""
    matchImages: tuple[str, ...] = ()
    defaultCacheDuration: str | None = None
    apiVersion: str = ""
    args: tuple[str, ...] = ()
    env: tuple[EnvVar, ...] = ()
    tokenAttributes: TokenAttributes | None = None

    @property
    def default_cache_seconds(self) -> float:
        """How long an answer is kept that does not say so itself."""
        return parse_duration(self.defaultCacheDuration or "0")

    def serves(self, image_name: str) -> bool:
        """Whether the plugin is to be asked for this image."""
        return any(matches(pattern, image_name) for pattern in self.matchImages)


@dataclass(frozen=True, slots=True)
class _Config:
    kind: str = ""
    apiVersion: str = ""
    providers: tuple[Plugin, ...] = ()


def parse_plugins(documents: Mapping[str, Any], with_tokens: bool = True) -> tuple[Plugin, ...]:
    """The plugins of these files, in order. Raises InvalidPluginConfig with all that is wrong.

    `with_tokens`: the feature gate KubeletServiceAccountTokenForCredentialProviders.
    """
    problems: list[str] = []
    plugins: list[Plugin] = []
    seen: set[str] = set()
    for file, document in documents.items():
        try:
            config = codec.from_builtins(_Config, document)
        except codec.InvalidObject as error:
            problems.append(f"{file}: {error}")
            continue
        found = [*_unknown_fields(document), *_config_problems(config)]
        for index, plugin in enumerate(config.providers):
            if plugin.name in seen:
                found.append(f"providers[{index}].name: {plugin.name!r} stands twice")
            seen.add(plugin.name)
            found.extend(f"providers[{index}].{problem}" for problem in _plugin_problems(plugin, with_tokens))
        problems.extend(f"{file}: {problem}" for problem in found)
        plugins.extend(config.providers)
    if problems:
        raise InvalidPluginConfig(problems)
    return tuple(plugins)


def _config_problems(config: _Config) -> Iterator[str]:
    if config.kind != CONFIG_KIND or config.apiVersion not in _CONFIG_VERSIONS:
        yield f"it is a {config.kind!r} of {config.apiVersion!r}: write a {CONFIG_KIND} of {_CONFIG_VERSIONS[0]}"
    if not config.providers:
        yield "providers: at least one plugin is expected"


def _plugin_problems(plugin: Plugin, with_tokens: bool) -> Iterator[str]:
    if not plugin.name or any(character in plugin.name for character in "/ ") or plugin.name in (".", ".."):
        yield f"name: {plugin.name!r} is no file name without spaces"
    if plugin.apiVersion not in _PLUGIN_VERSIONS:
        yield f"apiVersion: {plugin.apiVersion!r} is none of {', '.join(_PLUGIN_VERSIONS)}"
    if not plugin.matchImages:
        yield "matchImages: at least one is expected, such as registry.example or *.registry.example/team"
    for pattern in plugin.matchImages:
        if not pattern or "://" in pattern or any(character.isspace() for character in pattern):
            yield f"matchImages: {pattern!r} is no registry with an optional path"
    if plugin.defaultCacheDuration is None:
        yield "defaultCacheDuration: is missing; 0s keeps nothing"
    else:
        try:
            if plugin.default_cache_seconds < 0:
                yield f"defaultCacheDuration: {plugin.defaultCacheDuration} is negative"
        except ValueError as error:
            yield f"defaultCacheDuration: {plugin.defaultCacheDuration!r} is {error}"
    if plugin.tokenAttributes is not None:
        if not with_tokens:
            yield "tokenAttributes: needs the feature gate KubeletServiceAccountTokenForCredentialProviders"
        if plugin.apiVersion != _TOKEN_VERSION:
            yield f"tokenAttributes: needs apiVersion {_TOKEN_VERSION}"
        yield from (f"tokenAttributes.{problem}" for problem in _token_problems(plugin.tokenAttributes))


def _token_problems(attributes: TokenAttributes) -> Iterator[str]:
    if not attributes.serviceAccountTokenAudience:
        yield "serviceAccountTokenAudience: is missing"
    if attributes.cacheType not in tuple(TokenCache):
        yield f"cacheType: {attributes.cacheType!r} is none of {', '.join(TokenCache)}"
    if attributes.requireServiceAccount is None:
        yield "requireServiceAccount: is missing"
    required, optional = (
        attributes.requiredServiceAccountAnnotationKeys,
        attributes.optionalServiceAccountAnnotationKeys,
    )
    if required and attributes.requireServiceAccount is False:
        yield "requiredServiceAccountAnnotationKeys: needs requireServiceAccount: true"
    for key in dict.fromkeys((*required, *optional)):
        if wrong := check_qualified_name(key.lower()):
            yield f"annotation key {key!r}: {wrong}"
        if (*required, *optional).count(key) > 1:
            yield f"annotation key {key!r} stands twice"


def _unknown_fields(document: Mapping[str, Any]) -> Iterator[str]:
    """Of each object, what it must not have: a misspelt setting would silently do nothing."""
    yield from _fields_beside(document, _Config, "")
    for index, provider in enumerate(document.get("providers") or ()):
        yield from _fields_beside(provider, Plugin, f"providers[{index}].")
        yield from _fields_beside(
            provider.get("tokenAttributes") or {}, TokenAttributes, f"providers[{index}].tokenAttributes."
        )


def _fields_beside(document: Mapping[str, Any], kind: type, prefix: str) -> Iterator[str]:
    known = kind.__dataclass_fields__  # type: ignore[attr-defined]  # a dataclass, which type does not say
    yield from (f"{prefix}{name}: is no field of this object" for name in document if name not in known)


# What is said to a plugin and what it says


@dataclass(frozen=True, slots=True)
class Account:
    """The pod's service account as one plugin gets to know it."""

    namespace: str
    name: str
    uid: str
    annotations: Mapping[str, str] = field(default_factory=dict)
    token: str = field(default="", repr=False)

    def scope(self, cache: TokenCache) -> "Scope":
        """For whom an answer is good."""
        digest = hashlib.sha256(self.token.encode()).hexdigest() if cache is TokenCache.TOKEN else ""
        return Scope(self.namespace, self.name, self.uid, tuple(sorted(self.annotations.items())), digest)


class Scope(NamedTuple):
    """For whom an answer is good; the empty one: every pod."""

    namespace: str = ""
    name: str = ""
    uid: str = ""
    annotations: tuple[tuple[str, str], ...] = ()
    token_digest: str = ""


def account_annotations(attributes: TokenAttributes, annotations: Mapping[str, str]) -> dict[str, str] | None:
    """What of a service account's annotations the plugin gets; None when one is missing that it requires."""
    if any(key not in annotations for key in attributes.requiredServiceAccountAnnotationKeys):
        return None
    keys = (*attributes.requiredServiceAccountAnnotationKeys, *attributes.optionalServiceAccountAnnotationKeys)
    return {key: annotations[key] for key in keys if key in annotations}


def encode_request(plugin: Plugin, image_name: str, account: Account | None) -> bytes:
    """What the plugin reads from its standard input."""
    request: dict[str, Any] = {
        "kind": "CredentialProviderRequest",
        "apiVersion": plugin.apiVersion,
        "image": image_name,
    }
    if account is not None:
        request["serviceAccountToken"] = account.token
        if account.annotations:
            request["serviceAccountAnnotations"] = dict(account.annotations)
    return codec.encode(request) + b"\n"


class CacheKeyType(StrEnum):
    """For which images an answer is good."""

    IMAGE = "Image"
    REGISTRY = "Registry"
    GLOBAL = "Global"


@dataclass(frozen=True, slots=True)
class Answer:
    """What a plugin answered; `cache_seconds` 0: not to be kept."""

    logins: Logins
    key_type: CacheKeyType
    cache_seconds: float


@dataclass(frozen=True, slots=True)
class _Auth:
    username: str = ""
    password: str = ""


@dataclass(frozen=True, slots=True)
class _Response:
    kind: str
    apiVersion: str
    cacheKeyType: CacheKeyType
    cacheDuration: str | None = None
    auth: dict[str, _Auth] | None = None


def decode_answer(plugin: Plugin, text: bytes, account: Account | None) -> Answer:
    """What the plugin printed. Raises InvalidAnswer."""
    try:
        response = codec.decode(_Response, text)
        cache_seconds = (
            plugin.default_cache_seconds if response.cacheDuration is None else parse_duration(response.cacheDuration)
        )
    except ValueError as error:
        raise InvalidAnswer(f"it printed no CredentialProviderResponse: {error}") from error
    if response.kind != "CredentialProviderResponse" or response.apiVersion != plugin.apiVersion:
        raise InvalidAnswer(f"it answered with {response.kind} of {response.apiVersion}, not of {plugin.apiVersion}")
    auth = response.auth or {}
    is_echo = account is not None and any(entry.password == account.token for entry in auth.values())
    if is_echo and _cache_of(plugin) is not TokenCache.TOKEN:
        raise InvalidAnswer("it returned the token as the password, for which cacheType must be Token")
    logins = {registry: Login(entry.username, entry.password) for registry, entry in auth.items()}
    return Answer(logins, response.cacheKeyType, max(0.0, cache_seconds))


def scope_of(plugin: Plugin, account: Account | None) -> Scope:
    """For whom the plugin's answer is good."""
    return account.scope(_cache_of(plugin)) if account is not None else Scope()


def _cache_of(plugin: Plugin) -> TokenCache:
    return TokenCache(plugin.tokenAttributes.cacheType) if plugin.tokenAttributes else TokenCache.SERVICE_ACCOUNT


class AnswerCache:
    """The answers of one plugin, while they are good. Holds memory and no clock."""

    def __init__(self) -> None:
        self._entries: dict[tuple[CacheKeyType, str, Scope], tuple[float, Logins]] = {}
        self._purged_at = float("-inf")

    def get(self, image_name: str, scope: Scope, now_seconds: float) -> Logins | None:
        """What was answered for the image, its registry, or for all."""
        self._purge(now_seconds)
        for key_type in CacheKeyType:
            entry = self._entries.get((key_type, _base_key(key_type, image_name), scope))
            if entry is not None and now_seconds <= entry[0]:
                return entry[1]
        return None

    def put(self, image_name: str, scope: Scope, answer: Answer, now_seconds: float) -> None:
        """A new answer."""
        if answer.cache_seconds > 0:
            key = answer.key_type, _base_key(answer.key_type, image_name), scope
            self._entries[key] = now_seconds + answer.cache_seconds, answer.logins

    def _purge(self, now_seconds: float) -> None:
        if now_seconds - self._purged_at > PURGE_INTERVAL_SECONDS:
            self._entries = {key: entry for key, entry in self._entries.items() if now_seconds <= entry[0]}
            self._purged_at = now_seconds


def _base_key(key_type: CacheKeyType, image_name: str) -> str:
    match key_type:
        case CacheKeyType.IMAGE:
            return image_name
        case CacheKeyType.REGISTRY:
            return image_name.partition("/")[0]
    return ""
