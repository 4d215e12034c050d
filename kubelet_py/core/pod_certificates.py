"""Certificates of pods: what is asked of a signer, what its answer means, when to ask anew, and the files made of it.

Owns the states that a podCertificate source goes through, as values: nothing yet; a request under way; issued; issued
with a request for the next certificate under way; refused, which stays. Keys, requests and answers are arguments;
`managers.pod_certificates` makes and fetches them.

Upstream counterparts: pkg/kubelet/podcertificate/podcertificatemanager.go, the podCertificate half of
pkg/volume/projected. Differences: the event about a refusal has the refusal as its message (upstream's has the reason
with a formatting error behind it); an answer that says Issued and lacks a part is waited on and not taken; a request's
age counts on the node's clock, and a certificate is kept for a minute at least, so that clocks that differ do no harm.
"""

import base64
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from math import inf
from typing import TYPE_CHECKING, Final, NamedTuple

from kubelet_py.api import core_v1, meta_v1
from kubelet_py.api.pod import metadata_of, spec_of, uid_of
from kubelet_py.core.pem import certificates_file, pem_blocks
from kubelet_py.core.volume_payload import ProjectedFile, checked_path, go_quoted, owned_file

if TYPE_CHECKING:
    from kubelet_py.api import certificates_v1

KEY_TYPES: Final = ("RSA3072", "RSA4096", "ECDSAP256", "ECDSAP384", "ECDSAP521", "ED25519")
JITTER_SECONDS: Final = 300.0
"""Requests of many pods that began together are spread over so long."""
ABANDON_SECONDS: Final = 600.0
"""A request that is this old (and as much older as its jitter says) and that the watch does not show was deleted."""
SOONEST_REFRESH_SECONDS: Final = 60.0
"""A node whose clock is ahead of the signer's would ask without end."""
OVERDUE_SECONDS: Final = 600.0
"""So long after the time to ask anew a certificate is overdue."""

OVERDUE_EVENT: Final = "CertificateOverdueForRefresh"
EXPIRED_EVENT: Final = "CertificateExpired"
NOT_ISSUED: Final = "credential bundle is not issued yet"

_REFUSALS: Final = {"Denied": "denied", "Failed": "failed"}
_ISSUED: Final = "Issued"


class SourceKey(NamedTuple):
    """Which source of a pod: its volume, and its place among that volume's sources."""

    volume: str
    source_index: int


@dataclass(frozen=True, slots=True)
class Issue:
    """A request was granted. Times are seconds since the epoch."""

    chain: bytes
    begin_refresh_at_seconds: float
    not_after_seconds: float


@dataclass(frozen=True, slots=True)
class Refusal:
    """A request was refused for good; `condition` is Denied or Failed."""

    condition: str
    reason: str
    message: str


Answer = Issue | Refusal | None
"""None: the signer has not decided yet."""


@dataclass(frozen=True, slots=True)
class Credentials:
    """What the pod has. The refresh time has its jitter added."""

    key: bytes = field(repr=False)
    chain: bytes
    begin_refresh_at_seconds: float
    not_after_seconds: float


@dataclass(frozen=True, slots=True)
class Request:
    """A request under way, by namespace/name, and the key that it is for."""

    name: str
    key: bytes = field(repr=False)
    abandon_at_seconds: float


@dataclass(frozen=True, slots=True)
class CertificateState:
    """How far one source is. `complaints` are the events about these credentials that were sent."""

    credentials: Credentials | None = None
    request: Request | None = None
    refusal: Refusal | None = None
    complaints: frozenset[str] = frozenset()

    @property
    def is_decided(self) -> bool:
        """The volume can be made, or never will be."""
        return self.credentials is not None or self.refusal is not None


class PodWarning(NamedTuple):
    """An event of type Warning about the pod."""

    reason: str
    message: str


@dataclass(frozen=True, slots=True)
class Step:
    """What follows now, and when to look again if no answer comes before."""

    state: CertificateState
    asks: bool = False
    """A request is to be made; `requested` is the state after that."""
    warnings: tuple[PodWarning, ...] = ()
    look_at_seconds: float = inf


def certificate_sources(pod: core_v1.Pod) -> Iterator[tuple[SourceKey, core_v1.PodCertificateProjection]]:
    """All of the pod."""
    for volume in spec_of(pod).volumes or ():
        for index, source in enumerate((volume.projected.sources or ()) if volume.projected is not None else ()):
            if source.podCertificate is not None:
                yield SourceKey(volume.name, index), source.podCertificate


def answer_of(request: "certificates_v1.PodCertificateRequest") -> Answer:
    """What the request's status says; the first condition that decides holds."""
    status = request.status
    for condition in (status.conditions if status is not None else None) or ():
        if condition.type in _REFUSALS:
            return Refusal(condition.type, condition.reason, condition.message)
        if condition.type == _ISSUED and status is not None:
            begin, end, chain = status.beginRefreshAt, status.notAfter, status.certificateChain
            if begin is None or end is None or not chain:
                return None
            return Issue(certificates_file(pem_blocks(chain.encode())), begin.timestamp(), end.timestamp())
    return None


def compute_step(
    state: CertificateState, answers: Mapping[str, Answer], now_seconds: float, jitter_seconds: float
) -> Step:
    """What to do about one source. `answers` has every request of the pod's that there is."""
    if state.refusal is not None:
        return Step(state)
    request = state.request
    if request is not None:
        answer = answers.get(request.name)
        if isinstance(answer, Refusal):
            return Step(CertificateState(refusal=answer), warnings=(_refused(request.name, answer),))
        if isinstance(answer, Issue):
            begin = max(answer.begin_refresh_at_seconds + jitter_seconds, now_seconds + SOONEST_REFRESH_SECONDS)
            issued = CertificateState(Credentials(request.key, answer.chain, begin, answer.not_after_seconds))
            return Step(issued, look_at_seconds=begin)
        is_there = request.name in answers
        if is_there or now_seconds < request.abandon_at_seconds:
            waiting, warnings = _with_complaints(state, now_seconds)
            look_at = min(_next_complaint(waiting), inf if is_there else request.abandon_at_seconds)
            return Step(waiting, warnings=warnings, look_at_seconds=look_at)
        state = replace(state, request=None)
    if state.credentials is not None and now_seconds < state.credentials.begin_refresh_at_seconds:
        return Step(state, look_at_seconds=state.credentials.begin_refresh_at_seconds)
    state, warnings = _with_complaints(state, now_seconds)
    return Step(state, asks=True, warnings=warnings, look_at_seconds=now_seconds)


def requested(
    state: CertificateState, name: str, key: bytes, now_seconds: float, jitter_seconds: float
) -> CertificateState:
    """The state when the request was made."""
    return replace(state, request=Request(name, key, now_seconds + ABANDON_SECONDS + jitter_seconds))


def request_object(
    pod: core_v1.Pod,
    source: core_v1.PodCertificateProjection,
    node: core_v1.Node,
    service_account_uid: str,
    stub_request: bytes,
) -> "certificates_v1.PodCertificateRequest":
    """What the API server is sent: who the pod is, for how long, and a signature by the key that it is for."""
    from kubelet_py.api import certificates_v1

    pod_metadata = metadata_of(pod)
    name, uid = pod_metadata.name or "", uid_of(pod)
    node_metadata = node.metadata if node.metadata is not None else meta_v1.ObjectMeta()
    return certificates_v1.PodCertificateRequest(
        metadata=meta_v1.ObjectMeta(
            namespace=pod_metadata.namespace,
            generateName="req-",
            ownerReferences=[meta_v1.OwnerReference(apiVersion="v1", kind="Pod", name=name, uid=uid)],
        ),
        spec=certificates_v1.PodCertificateRequestSpec(
            signerName=source.signerName,
            podName=name,
            podUID=uid,
            serviceAccountName=spec_of(pod).serviceAccountName or "",
            serviceAccountUID=service_account_uid,
            nodeName=node_metadata.name or "",
            nodeUID=node_metadata.uid or "",
            maxExpirationSeconds=source.maxExpirationSeconds,
            stubPKCS10Request=base64.b64encode(stub_request).decode(),
            unverifiedUserAnnotations=source.userAnnotations,
        ),
    )


def certificate_files(
    source: core_v1.PodCertificateProjection,
    credentials: Credentials,
    default_mode: int,
    owner: int | None,
    fs_group: int | None,
) -> dict[str, ProjectedFile]:
    """The files that the source wants; PayloadError when a path is none."""
    contents = (
        (source.credentialBundlePath, credentials.key + credentials.chain),
        (source.keyPath, credentials.key),
        (source.certificateChainPath, credentials.chain),
    )
    return {checked_path(path): owned_file(data, default_mode, owner, fs_group) for path, data in contents if path}


def missing_text(state: CertificateState, problem: str = "") -> str:
    """Why there are no credentials. `problem` is what stands in the way of a request."""
    if state.refusal is not None:
        refusal = state.refusal
        return (
            f"PodCertificateRequest was permanently {_REFUSALS[refusal.condition]}: {_reason_and_message(refusal, ' ')}"
        )
    return f"{NOT_ISSUED}: {problem}" if problem else NOT_ISSUED


def _refused(name: str, refusal: Refusal) -> PodWarning:
    was = "was denied" if refusal.condition == "Denied" else "failed"
    return PodWarning(refusal.condition, f"PodCertificateRequest {name} {was}, {_reason_and_message(refusal, ', ')}")


def _reason_and_message(refusal: Refusal, between: str) -> str:
    return f"reason={go_quoted(refusal.reason)}{between}message={go_quoted(refusal.message)}"


def _complaints_due(credentials: Credentials) -> tuple[tuple[float, PodWarning], ...]:
    overdue_at = credentials.begin_refresh_at_seconds + OVERDUE_SECONDS
    return (
        (overdue_at, PodWarning(OVERDUE_EVENT, "PodCertificate refresh overdue")),
        (credentials.not_after_seconds, PodWarning(EXPIRED_EVENT, "PodCertificate expired")),
    )


def _with_complaints(state: CertificateState, now_seconds: float) -> tuple[CertificateState, tuple[PodWarning, ...]]:
    """Each is said once for each certificate."""
    if state.credentials is None:
        return state, ()
    new = tuple(
        warning
        for at, warning in _complaints_due(state.credentials)
        if at <= now_seconds and warning.reason not in state.complaints
    )
    return replace(state, complaints=state.complaints | {warning.reason for warning in new}), new


def _next_complaint(state: CertificateState) -> float:
    if state.credentials is None:
        return inf
    due = _complaints_due(state.credentials)
    return min((at for at, warning in due if warning.reason not in state.complaints), default=inf)
