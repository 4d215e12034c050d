"""The states of a pod's certificate, what is asked and what is written."""

import base64
from math import inf
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kubelet_py.api import certificates_v1, codec, core_v1, meta_v1
from kubelet_py.core import pod_certificates as rules
from kubelet_py.core.pod_certificates import (
    ABANDON_SECONDS,
    OVERDUE_SECONDS,
    CertificateState,
    Credentials,
    Issue,
    PodWarning,
    Refusal,
    Request,
    SourceKey,
    Step,
    compute_step,
)
from kubelet_py.core.volume_payload import PayloadError, ProjectedFile

BEGIN, END = 1000.0, 5000.0
ISSUED = Credentials(b"key", b"chain", BEGIN, END)
FRESH = CertificateState(ISSUED)
ASKED = Request("shop/req-1", b"new key", 700.0)
DENIED = Refusal("Denied", "UnsupportedKeyType", 'no "RSA"')
FAILED = Refusal("Failed", "Broken", "ä")
OVERDUE = PodWarning("CertificateOverdueForRefresh", "PodCertificate refresh overdue")
EXPIRED = PodWarning("CertificateExpired", "PodCertificate expired")


def step(state: CertificateState, now: float, answers: dict[str, Any] | None = None, jitter: float = 0.0) -> Step:
    return compute_step(state, answers or {}, now, jitter)


def pem(content: str) -> str:
    return f"-----BEGIN CERTIFICATE-----\n{content}\n-----END CERTIFICATE-----\n"


def test_what_has_nothing_asks_at_once() -> None:
    assert step(CertificateState(), 5) == Step(CertificateState(), asks=True, look_at_seconds=5)


@pytest.mark.parametrize(
    ("refusal", "event"),
    [
        (DENIED, 'PodCertificateRequest shop/req-1 was denied, reason="UnsupportedKeyType", message="no \\"RSA\\""'),
        (FAILED, 'PodCertificateRequest shop/req-1 failed, reason="Broken", message="ä"'),
    ],
)
@pytest.mark.parametrize("credentials", [None, ISSUED])
def test_a_refusal_is_told_once_and_stays(credentials: Credentials | None, refusal: Refusal, event: str) -> None:
    """What was issued before is no longer there to be written; upstream goes on like this too."""
    state = CertificateState(credentials, ASKED)
    after = step(state, 10, {ASKED.name: refusal})
    assert after == Step(CertificateState(refusal=refusal), warnings=(PodWarning(refusal.condition, event),))
    assert after.state.is_decided
    assert step(after.state, 10**9, {ASKED.name: refusal}) == Step(after.state)


def test_a_certificate_is_kept_until_it_is_to_be_refreshed() -> None:
    """The jitter is added to what the signer says."""
    answers = {ASKED.name: Issue(b"chain", BEGIN, END)}
    after = step(CertificateState(request=ASKED), 10, answers, jitter=7)
    wanted = CertificateState(Credentials(b"new key", b"chain", BEGIN + 7, END))
    assert after == Step(wanted, look_at_seconds=BEGIN + 7)
    assert step(wanted, BEGIN + 6.9) == Step(wanted, look_at_seconds=BEGIN + 7)
    assert step(wanted, BEGIN + 7) == Step(wanted, asks=True, look_at_seconds=BEGIN + 7)


def test_a_clock_that_is_ahead_of_the_signers_makes_no_flood_of_requests() -> None:
    after = step(CertificateState(request=ASKED), END, {ASKED.name: Issue(b"chain", BEGIN, END)}, jitter=7)
    assert not after.asks
    assert after.look_at_seconds == END + 60
    assert step(after.state, END + 60).asks


def test_the_next_certificate_replaces_the_one_before() -> None:
    state = CertificateState(ISSUED, ASKED, complaints=frozenset({OVERDUE.reason}))
    after = step(state, 2000, {ASKED.name: Issue(b"new chain", 3000, 9000)})
    assert after == Step(CertificateState(Credentials(b"new key", b"new chain", 3000, 9000)), look_at_seconds=3000)


def test_a_request_that_nobody_decides_is_waited_for_without_end() -> None:
    state = CertificateState(request=ASKED)
    assert step(state, 10**6, {ASKED.name: None}) == Step(state)
    assert not state.is_decided


def test_a_request_that_is_gone_is_made_again_when_the_watch_must_have_seen_it() -> None:
    state = CertificateState(request=ASKED)
    assert step(state, 699) == Step(state, look_at_seconds=700)
    assert step(state, 700) == Step(CertificateState(), asks=True, look_at_seconds=700)
    both = CertificateState(ISSUED, ASKED)
    assert step(both, 700) == Step(FRESH, look_at_seconds=BEGIN)
    assert step(both, 1200) == Step(FRESH, asks=True, look_at_seconds=1200)


@pytest.mark.parametrize("answers", [{}, {ASKED.name: None}])
def test_what_is_overdue_or_expired_is_said_once(answers: dict[str, Any]) -> None:
    """With a request under way, and where none can be made."""
    state = CertificateState(ISSUED, Request(ASKED.name, b"", inf) if answers else None)
    overdue_at = BEGIN + OVERDUE_SECONDS
    assert step(state, overdue_at - 1, answers).warnings == ()
    later = step(state, overdue_at, answers)
    assert later.warnings == (OVERDUE,)
    assert step(later.state, overdue_at + 1, answers).warnings == ()
    ended = step(later.state, END, answers)
    assert ended.warnings == (EXPIRED,)
    assert step(ended.state, END + 1, answers).warnings == ()
    assert step(state, END, answers).warnings == (OVERDUE, EXPIRED)
    assert ended.state.credentials == ISSUED


def test_while_a_request_is_under_way_the_next_look_is_for_the_next_complaint() -> None:
    state = CertificateState(ISSUED, Request(ASKED.name, b"", 3000))
    answers = {ASKED.name: None}
    assert step(state, BEGIN, answers).look_at_seconds == BEGIN + OVERDUE_SECONDS
    assert step(state, 2000, answers).look_at_seconds == END
    assert step(state, END, answers).look_at_seconds == inf
    assert step(state, 2000).look_at_seconds == 3000


times = st.floats(0, 10_000)
credentials = st.builds(Credentials, st.just(b"k"), st.just(b"c"), times, times)
requests = st.builds(Request, st.sampled_from(["a", "b"]), st.just(b"n"), times)
all_answers = st.none() | st.builds(Issue, st.just(b"c"), times, times) | st.just(DENIED)


@given(
    st.builds(CertificateState, st.none() | credentials, st.none() | requests, st.none() | st.just(FAILED)),
    st.dictionaries(st.sampled_from(["a", "b"]), all_answers),
    times,
    times,
)
def test_each_look_that_is_due_brings_something_about(
    state: CertificateState, answers: dict[str, Any], now: float, jitter: float
) -> None:
    """Else the agent would look without end."""
    first = step(state, now, answers, jitter)
    if first.asks or first.look_at_seconds == inf:
        return
    again = step(first.state, max(first.look_at_seconds, now), answers, jitter)
    assert again.asks or again.state != first.state
    before = step(first.state, now, answers, jitter)
    assert before == Step(first.state, look_at_seconds=first.look_at_seconds) or first.look_at_seconds <= now


def test_a_request_is_given_up_after_ten_minutes_and_its_jitter() -> None:
    after = rules.requested(FRESH, "shop/req-2", b"next", 2000, 30)
    assert after == CertificateState(ISSUED, Request("shop/req-2", b"next", 2000 + ABANDON_SECONDS + 30))


def described(status: dict[str, Any] | None) -> certificates_v1.PodCertificateRequest:
    spec = {
        "nodeName": "n",
        "nodeUID": "nu",
        "podName": "p",
        "podUID": "pu",
        "serviceAccountName": "s",
        "serviceAccountUID": "su",
        "signerName": "e/s",
        "stubPKCS10Request": "",
    }
    stated = {"metadata": {"name": "r"}, "spec": spec} | ({"status": status} if status is not None else {})
    return codec.decode(certificates_v1.PodCertificateRequest, codec.encode(stated))


def condition(kind: str, reason: str = "R", message: str = "M") -> dict[str, str]:
    at = "2026-01-01T00:00:00Z"
    return {"type": kind, "status": "True", "reason": reason, "message": message, "lastTransitionTime": at}


WHOLE = {
    "certificateChain": f"leaf:\n{pem('QQ==')}and above:\n-----BEGIN X-----\nQUI=\n-----END X-----\n",
    "beginRefreshAt": "1970-01-01T00:16:40Z",
    "notAfter": "1970-01-01T01:23:20Z",
}


@pytest.mark.parametrize(
    ("status", "answer"),
    [
        (None, None),
        ({}, None),
        ({"conditions": []}, None),
        ({"conditions": [condition("Other")]}, None),
        ({"conditions": [condition("Other"), condition("Denied", "A", "B")]}, Refusal("Denied", "A", "B")),
        ({"conditions": [condition("Failed")]} | WHOLE, Refusal("Failed", "R", "M")),
        (
            {"conditions": [condition("Issued")]} | WHOLE,
            Issue((pem("QQ==") + pem("QUI=")).encode(), BEGIN, END),
        ),
        *(
            ({"conditions": [condition("Issued")]} | {key: value for key, value in WHOLE.items() if key != left}, None)
            for left in WHOLE
        ),
    ],
)
def test_what_a_request_says(status: dict[str, Any] | None, answer: Any) -> None:
    """Of the chain only certificates are left; an answer that is not whole is none yet."""
    assert rules.answer_of(described(status)) == answer


def a_pod(*volumes: dict[str, Any], **spec: Any) -> core_v1.Pod:
    stated = {
        "metadata": {"name": "web", "namespace": "shop", "uid": "pod-uid"},
        "spec": {"containers": [], "volumes": list(volumes), **spec},
    }
    return codec.from_builtins(core_v1.Pod, stated)


def source(**fields: Any) -> core_v1.PodCertificateProjection:
    stated = {"signerName": "example.com/s", "keyType": "ED25519", **fields}
    return codec.from_builtins(core_v1.PodCertificateProjection, stated)


def test_sources_are_known_by_their_volume_and_place() -> None:
    one, two = ({"signerName": f"example.com/{n}", "keyType": "ED25519"} for n in (1, 2))
    pod = a_pod(
        {"name": "disk", "emptyDir": {}},
        {"name": "none", "projected": {}},
        {"name": "a", "projected": {"sources": [{"configMap": {"name": "c"}}, {"podCertificate": one}]}},
        {"name": "b", "projected": {"sources": [{"podCertificate": two}]}},
    )
    found = [(key, each.signerName) for key, each in rules.certificate_sources(pod)]
    assert found == [(SourceKey("a", 1), "example.com/1"), (SourceKey("b", 0), "example.com/2")]
    assert not list(rules.certificate_sources(a_pod()))


def test_the_request_says_who_the_pod_is_and_passes_on_what_its_author_wrote() -> None:
    node = core_v1.Node(metadata=meta_v1.ObjectMeta(name="node-1", uid="node-uid"))
    wanted = source(maxExpirationSeconds=7200, userAnnotations={"example.com/a": "b"})
    built = rules.request_object(a_pod(serviceAccountName="seller"), wanted, node, "account-uid", b"\0request")
    assert codec.to_builtins(built) == {
        "apiVersion": "certificates.k8s.io/v1",
        "kind": "PodCertificateRequest",
        "metadata": {
            "namespace": "shop",
            "generateName": "req-",
            "ownerReferences": [{"apiVersion": "v1", "kind": "Pod", "name": "web", "uid": "pod-uid"}],
        },
        "spec": {
            "signerName": "example.com/s",
            "podName": "web",
            "podUID": "pod-uid",
            "serviceAccountName": "seller",
            "serviceAccountUID": "account-uid",
            "nodeName": "node-1",
            "nodeUID": "node-uid",
            "maxExpirationSeconds": 7200,
            "stubPKCS10Request": base64.b64encode(b"\0request").decode(),
            "unverifiedUserAnnotations": {"example.com/a": "b"},
        },
    }


def test_what_is_not_said_is_left_to_the_api_server() -> None:
    bare = core_v1.Pod(metadata=meta_v1.ObjectMeta(uid="u"), spec=core_v1.PodSpec(containers=[]))
    for node in (core_v1.Node(), core_v1.Node(metadata=meta_v1.ObjectMeta())):
        spec = codec.to_builtins(rules.request_object(bare, source(), node, "", b""))["spec"]
        assert "maxExpirationSeconds" not in spec
        assert "unverifiedUserAnnotations" not in spec
        assert [spec[name] for name in ("podName", "serviceAccountName", "nodeName", "nodeUID")] == [""] * 4


def test_three_files_are_made_of_a_key_and_its_certificates() -> None:
    paths = {"credentialBundlePath": "./all.pem", "keyPath": "tls/key", "certificateChainPath": "tls/crt"}
    assert rules.certificate_files(source(**paths), ISSUED, 0o644, None, None) == {
        "all.pem": ProjectedFile(b"keychain", 0o644),
        "tls/key": ProjectedFile(b"key", 0o644),
        "tls/crt": ProjectedFile(b"chain", 0o644),
    }
    only = source(keyPath="key")
    assert rules.certificate_files(only, ISSUED, 0o440, 1000, None) == {"key": ProjectedFile(b"key", 0o600, 1000)}
    assert rules.certificate_files(only, ISSUED, 0o440, None, 7) == {"key": ProjectedFile(b"key", 0o600)}
    assert rules.certificate_files(source(), ISSUED, 0o644, None, None) == {}
    with pytest.raises(PayloadError, match="must not contain"):
        rules.certificate_files(source(keyPath="../key"), ISSUED, 0o644, None, None)


@pytest.mark.parametrize(
    ("state", "problem", "text"),
    [
        (CertificateState(), "", "credential bundle is not issued yet"),
        (CertificateState(request=ASKED), "no node", "credential bundle is not issued yet: no node"),
        (
            CertificateState(refusal=DENIED),
            "x",
            'PodCertificateRequest was permanently denied: reason="UnsupportedKeyType" message="no \\"RSA\\""',
        ),
        (
            CertificateState(refusal=FAILED),
            "",
            'PodCertificateRequest was permanently failed: reason="Broken" message="ä"',
        ),
    ],
)
def test_why_there_is_no_certificate(state: CertificateState, problem: str, text: str) -> None:
    assert rules.missing_text(state, problem) == text


def test_keys_are_in_no_log() -> None:
    assert "key'" not in repr(FRESH) + repr(ASKED)
