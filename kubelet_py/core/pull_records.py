"""Who may use an image that lies on the node: what is recorded of each pull, and what a pod must show.

A record says with which credentials an image was pulled; a pod that has one of them may use the image without asking
the registry again, every other pod must pull. An intent says that a pull was begun, so that an image whose record was
lost in a crash is not taken for one that was there before.

Upstream counterparts: pkg/kubelet/images/pullmanager, kubelet.config.k8s.io/v1beta1 (ImagePulledRecord,
ImagePullIntent). Difference: a pod whose secret was recorded under its name may use the image also when the record is
full; there only the first hundred secrets are told apart so.
"""

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from enum import Enum, StrEnum
from typing import Any, Final, TypeVar

from kubelet_py.api import codec
from kubelet_py.core.image_rules import InvalidImageReference, parse_image, without_tag
from kubelet_py.core.keyring import Credential, SecretSource, ServiceAccountSource

API_GROUP: Final = "kubelet.config.k8s.io"
API_VERSION: Final = f"{API_GROUP}/v1beta1"
_READABLE_VERSIONS: Final = (API_VERSION, f"{API_GROUP}/v1alpha1")
_RECORD_KIND: Final = "ImagePulledRecord"
_INTENT_KIND: Final = "ImagePullIntent"
MAX_LEARNED_SECRETS: Final = 100

T = TypeVar("T")


class InvalidRecord(ValueError):
    """The file is no record of this kind; the message says why."""


@dataclass(frozen=True, slots=True)
class RecordedSecret:
    """A secret that an image was pulled with, and the digest of the login in it."""

    uid: str
    namespace: str
    name: str
    credentialHash: str = ""

    @property
    def source(self) -> SecretSource:
        """Which secret."""
        return SecretSource(self.uid, self.namespace, self.name)


@dataclass(frozen=True, slots=True)
class RecordedServiceAccount:
    """A service account whose token got the login of a pull."""

    uid: str
    namespace: str
    name: str


@dataclass(frozen=True, slots=True)
class RecordedCredentials:
    """What an image was pulled with under one name."""

    kubernetesSecrets: tuple[RecordedSecret, ...] = ()
    kubernetesServiceAccounts: tuple[RecordedServiceAccount, ...] = ()
    nodePodsAccessible: bool = False
    """Every pod of the node may use it: the login was the node's, or none was needed."""


@dataclass(frozen=True, slots=True)
class PulledRecord:
    """An image that this node's agent pulled. A name that is missing: nothing is known, ask the registry."""

    imageRef: str
    lastUpdatedTime: datetime
    credentialMapping: Mapping[str, RecordedCredentials] = field(default_factory=dict)


class Verification(StrEnum):
    """imagePullCredentialsVerificationPolicy."""

    NEVER = "NeverVerify"
    NOT_PRELOADED = "NeverVerifyPreloadedImages"
    NOT_ALLOWLISTED = "NeverVerifyAllowlistedImages"
    ALWAYS = "AlwaysVerify"


@dataclass(frozen=True, slots=True)
class VerificationPolicy:
    """Which images need a credential although they are there."""

    verification: Verification = Verification.NOT_PRELOADED
    allowed_names: frozenset[str] = frozenset()
    allowed_prefixes: tuple[str, ...] = ()

    def applies_to(self, image: str, pulled_by_agent: bool) -> bool:
        """Whether a pod must show a credential for the image, as the pod spells it."""
        match self.verification:
            case Verification.NEVER:
                return False
            case Verification.NOT_PRELOADED:
                return pulled_by_agent
            case Verification.NOT_ALLOWLISTED:
                name = without_tag(image)
                return name not in self.allowed_names and not name.startswith(self.allowed_prefixes)
        return True


def compute_policy(verification: str, allowlist: Iterable[str]) -> VerificationPolicy:
    """The policy of a configuration. Raises ValueError naming the pattern that is none."""
    names, prefixes = set(), []
    for pattern in allowlist:
        prefix = pattern.removesuffix("*") if pattern.endswith("/*") else ""
        if "*" in (prefix or pattern) or prefix == "/" or pattern != pattern.strip():
            raise ValueError(f"{pattern!r} is no image name and no prefix such as registry.example/team/*")
        if prefix:
            prefixes.append(prefix)
            continue
        try:
            parse_image(pattern)
        except InvalidImageReference as error:
            raise ValueError(f"{pattern!r} is no image name: {error}") from error
        if without_tag(pattern) != pattern:
            raise ValueError(f"{pattern!r} has a tag or a digest: write the name alone")
        names.add(pattern)
    return VerificationPolicy(Verification(verification), frozenset(names), tuple(prefixes))


class Access(Enum):
    """Whether a pod may use an image that is there."""

    GRANTED = "granted"
    BY_CREDENTIAL = "by credential"
    """If one of its credentials is among those that the record names."""
    DENIED = "denied"
    """It must pull, which asks the registry."""


def compute_access(
    image: str, record: PulledRecord | None, pulled_by_agent: bool, policy: VerificationPolicy
) -> Access:
    """The first half of the answer, for which nobody has to look up credentials."""
    if not policy.applies_to(image, pulled_by_agent):
        return Access.GRANTED
    known = record.credentialMapping.get(without_tag(image)) if record is not None else None
    if known is None:
        return Access.DENIED
    if known.nodePodsAccessible:
        return Access.GRANTED
    return Access.BY_CREDENTIAL if known.kubernetesSecrets or known.kubernetesServiceAccounts else Access.DENIED


@dataclass(frozen=True, slots=True)
class Match:
    """Whether a pod's credentials open an image, and one of them that the record should learn."""

    found: bool
    learned: Credential | None = None


def match_credentials(known: RecordedCredentials, own: Sequence[Credential]) -> Match:
    """The second half: the same login, or the same secret with another login, or the same service account."""
    has_room = len(known.kubernetesSecrets) < MAX_LEARNED_SECRETS
    for credential in own:
        if not isinstance(credential.source, SecretSource):
            continue
        for secret in known.kubernetesSecrets:
            same_login = secret.credentialHash == credential.digest
            same_secret = secret.source == credential.source
            if same_login or same_secret:
                return Match(True, credential if has_room and not (same_login and same_secret) else None)
    account = next((c.source for c in own if isinstance(c.source, ServiceAccountSource)), None)
    return Match(account is not None and RecordedServiceAccount(*account) in known.kubernetesServiceAccounts)


def recorded(credential: Credential | None) -> RecordedCredentials:
    """What a pull with this credential, or with none, is recorded as."""
    source = credential.source if credential is not None else None
    if credential is None or source is None:
        return RecordedCredentials(nodePodsAccessible=True)
    if isinstance(source, SecretSource):
        return RecordedCredentials(kubernetesSecrets=(RecordedSecret(*source, credential.digest),))
    return RecordedCredentials(kubernetesServiceAccounts=(RecordedServiceAccount(*source),))


def merge_record(
    record: PulledRecord | None, image_ref: str, name: str, new: RecordedCredentials | None, now: datetime
) -> PulledRecord:
    """The record with one more pull; the same object when it says so already. `new` None: nobody knows how."""
    if record is None:
        return PulledRecord(image_ref, now, {} if new is None else {name: new})
    if new is None:
        return record
    known = record.credentialMapping.get(name)
    merged = new if known is None else _merge_credentials(known, new)
    if merged == known:
        return record
    return replace(record, lastUpdatedTime=now, credentialMapping={**record.credentialMapping, name: merged})


def _merge_credentials(known: RecordedCredentials, new: RecordedCredentials) -> RecordedCredentials:
    if known.nodePodsAccessible or new.nodePodsAccessible:
        return RecordedCredentials(nodePodsAccessible=True)
    secrets = {secret.source: secret for secret in (*known.kubernetesSecrets, *new.kubernetesSecrets)}
    accounts = {*known.kubernetesServiceAccounts, *new.kubernetesServiceAccounts}
    return RecordedCredentials(
        tuple(sorted(secrets.values(), key=_order)), tuple(sorted(accounts, key=_order)), nodePodsAccessible=False
    )


def _order(entry: RecordedSecret | RecordedServiceAccount) -> tuple[str, str, str]:
    return entry.namespace, entry.name, entry.uid


def file_name(text: str) -> str:
    """The file of an image reference (a record) or of an image as pods spell it (an intent)."""
    return f"sha256-{hashlib.sha256(text.encode()).hexdigest()}"


def encode_record(record: PulledRecord) -> bytes:
    """The file of a record."""
    described: dict[str, Any] = {
        "kind": _RECORD_KIND,
        "apiVersion": API_VERSION,
        "lastUpdatedTime": record.lastUpdatedTime.strftime("%Y-%m-%dT%H:%M:%SZ"),
        "imageRef": record.imageRef,
    }
    if record.credentialMapping:
        described["credentialMapping"] = {
            name: {key: value for key in known.__dataclass_fields__ if (value := getattr(known, key))}
            for name, known in record.credentialMapping.items()
        }
    return codec.encode(described) + b"\n"


def decode_record(text: bytes) -> PulledRecord:
    """The record of a file. Raises InvalidRecord."""
    _check_kind(text, _RECORD_KIND)
    return _decoded(PulledRecord, text)


def encode_intent(image: str) -> bytes:
    """The file of an intent."""
    return codec.encode({"kind": _INTENT_KIND, "apiVersion": API_VERSION, "image": image}) + b"\n"


def decode_intent(text: bytes) -> str:
    """The image of an intent. Raises InvalidRecord."""
    _check_kind(text, _INTENT_KIND)
    return _decoded(_Intent, text).image


@dataclass(frozen=True, slots=True)
class _Head:
    kind: str
    apiVersion: str


@dataclass(frozen=True, slots=True)
class _Intent:
    image: str


def _check_kind(text: bytes, kind: str) -> None:
    head = _decoded(_Head, text)
    if head.kind != kind or head.apiVersion not in _READABLE_VERSIONS:
        raise InvalidRecord(f"it is a {head.kind} of {head.apiVersion}, and not a {kind} of {API_VERSION}")


def _decoded(kind: type[T], text: bytes) -> T:
    try:
        return codec.decode(kind, text)
    except codec.InvalidObject as error:
        raise InvalidRecord(str(error)) from error
