"""A pod may use a pulled image when the record of the pull names one of its credentials, and never otherwise."""

import json
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kubelet_py.core.keyring import Credential, Login, SecretSource, ServiceAccountSource
from kubelet_py.core.pull_records import (
    MAX_LEARNED_SECRETS,
    Access,
    InvalidRecord,
    Match,
    PulledRecord,
    RecordedCredentials,
    RecordedSecret,
    RecordedServiceAccount,
    Verification,
    VerificationPolicy,
    compute_access,
    compute_policy,
    decode_intent,
    decode_record,
    encode_intent,
    encode_record,
    file_name,
    match_credentials,
    merge_record,
    recorded,
)

NOW = datetime(2026, 11, 26, 2, 3, 4, tzinfo=UTC)
IMAGE = "r.example/app:1"
NAME = "r.example/app"
ONE = Credential(Login("u", "p"), SecretSource("uid-1", "shop", "one"))
ONE_CHANGED = Credential(Login("u", "new"), SecretSource("uid-1", "shop", "one"))
COPY_OF_ONE = Credential(Login("u", "p"), SecretSource("uid-2", "other", "copy"))
TWO = Credential(Login("v", "q"), SecretSource("uid-3", "shop", "two"))
ACCOUNT = Credential(Login("t"), ServiceAccountSource("uid-4", "shop", "builder"))
OTHER_ACCOUNT = Credential(Login("t"), ServiceAccountSource("uid-5", "shop", "builder"))
NODE = Credential(Login("n"))
ANYBODY = RecordedCredentials(nodePodsAccessible=True)


def a_record(known: RecordedCredentials | None = None) -> PulledRecord:
    return PulledRecord("sha256:abc", NOW, {} if known is None else {NAME: known})


@pytest.mark.parametrize(
    ("verification", "preloaded", "pulled"),
    [
        ("NeverVerify", False, False),
        ("NeverVerifyPreloadedImages", False, True),
        ("NeverVerifyAllowlistedImages", True, True),
        ("AlwaysVerify", True, True),
    ],
)
def test_which_images_need_a_credential(verification: str, preloaded: bool, pulled: bool) -> None:
    policy = VerificationPolicy(Verification(verification))
    assert policy.applies_to(IMAGE, pulled_by_agent=False) is preloaded
    assert policy.applies_to(IMAGE, pulled_by_agent=True) is pulled


@pytest.mark.parametrize(
    ("image", "free"),
    [
        ("r.example/app", True),
        ("r.example/app:1", True),
        ("r.example/app@sha256:" + "0a" * 32, True),
        ("r.example/application", False),
        ("r.example/team/any/thing:2", True),
        ("r.example/teams/thing", False),
        ("localhost:5000/app:3", True),
    ],
)
def test_the_allowlist_has_names_and_prefixes(image: str, free: bool) -> None:
    allowlist = ("r.example/app", "r.example/team/*", "localhost:5000/*")
    policy = compute_policy("NeverVerifyAllowlistedImages", allowlist)
    assert policy.applies_to(image, pulled_by_agent=True) is not free


@pytest.mark.parametrize(
    ("pattern", "message"),
    [
        ("r.example/app:1", "has a tag or a digest"),
        ("r.example/app@sha256:" + "0a" * 32, "has a tag or a digest"),
        ("r.example/a*", "no image name and no prefix"),
        ("*/a/*", "no image name and no prefix"),
        ("/*", "no image name and no prefix"),
        ("*", "no image name and no prefix"),
        (" r.example/app", "no image name and no prefix"),
        ("", "no image name"),
        ("UPPER", "no image name"),
    ],
)
def test_patterns_that_are_none(pattern: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        compute_policy("NeverVerifyAllowlistedImages", (pattern,))


def test_a_policy_that_is_none() -> None:
    with pytest.raises(ValueError, match="Sometimes"):
        compute_policy("Sometimes", ())


@pytest.mark.parametrize(
    ("record", "pulled", "access"),
    [
        (None, False, Access.GRANTED),
        (None, True, Access.DENIED),
        (a_record(), True, Access.DENIED),
        (a_record(RecordedCredentials()), True, Access.DENIED),
        (a_record(ANYBODY), True, Access.GRANTED),
        (a_record(recorded(ONE)), True, Access.BY_CREDENTIAL),
        (a_record(recorded(ACCOUNT)), True, Access.BY_CREDENTIAL),
    ],
)
def test_what_can_be_said_without_the_pods_credentials(
    record: PulledRecord | None, pulled: bool, access: Access
) -> None:
    assert compute_access(IMAGE, record, pulled, VerificationPolicy()) is access


def test_what_another_name_of_the_image_was_pulled_with_says_nothing() -> None:
    access = compute_access("other.example/app:1", a_record(ANYBODY), True, VerificationPolicy())
    assert access is Access.DENIED


@pytest.mark.parametrize(
    ("own", "match"),
    [
        ((ONE,), Match(True)),
        ((TWO, ONE), Match(True)),
        ((COPY_OF_ONE,), Match(True, COPY_OF_ONE)),
        ((ONE_CHANGED,), Match(True, ONE_CHANGED)),
        ((TWO,), Match(False)),
        ((NODE,), Match(False)),
        ((ACCOUNT,), Match(False)),
        ((), Match(False)),
    ],
)
def test_secrets_open_by_their_login_or_their_name(own: tuple[Credential, ...], match: Match) -> None:
    assert match_credentials(recorded(ONE), own) == match


@pytest.mark.parametrize(("own", "found"), [((ACCOUNT,), True), ((OTHER_ACCOUNT,), False), ((NODE, ACCOUNT), True)])
def test_service_accounts_open_by_their_uid(own: tuple[Credential, ...], found: bool) -> None:
    assert match_credentials(recorded(ACCOUNT), own) == Match(found)


def test_a_credential_of_the_node_or_an_account_hides_no_secret_after_it() -> None:
    for other in (NODE, ACCOUNT):
        assert match_credentials(recorded(ONE), (other, ONE)) == Match(True)


def test_a_full_record_opens_and_learns_no_more() -> None:
    entry = recorded(ONE).kubernetesSecrets[0]
    full = RecordedCredentials(tuple(replace(entry, uid=str(number)) for number in range(MAX_LEARNED_SECRETS)))
    assert match_credentials(full, (COPY_OF_ONE,)) == Match(True)
    room = replace(full, kubernetesSecrets=full.kubernetesSecrets[1:])
    assert match_credentials(room, (COPY_OF_ONE,)) == Match(True, COPY_OF_ONE)


def test_what_a_pull_is_recorded_as() -> None:
    assert recorded(None) == recorded(NODE) == ANYBODY
    assert recorded(ONE).kubernetesSecrets == (RecordedSecret("uid-1", "shop", "one", ONE.digest),)
    assert recorded(ACCOUNT).kubernetesServiceAccounts == (RecordedServiceAccount("uid-4", "shop", "builder"),)


LATER = NOW + timedelta(hours=1)


def test_a_first_record() -> None:
    assert merge_record(None, "sha256:abc", NAME, None, NOW) == a_record()
    assert merge_record(None, "sha256:abc", NAME, recorded(ONE), NOW) == a_record(recorded(ONE))


@pytest.mark.parametrize("new", [None, recorded(ONE)])
def test_what_is_known_changes_nothing(new: RecordedCredentials | None) -> None:
    record = a_record(recorded(ONE))
    assert merge_record(record, "sha256:abc", NAME, new, LATER) is record


def test_what_is_new_is_added_in_order_and_dated() -> None:
    record = merge_record(a_record(recorded(TWO)), "sha256:abc", NAME, recorded(ONE), LATER)
    assert record.lastUpdatedTime == LATER
    assert [secret.name for secret in record.credentialMapping[NAME].kubernetesSecrets] == ["one", "two"]
    record = merge_record(record, "sha256:abc", NAME, recorded(ACCOUNT), LATER)
    record = merge_record(record, "sha256:abc", NAME, recorded(OTHER_ACCOUNT), LATER)
    assert [account.uid for account in record.credentialMapping[NAME].kubernetesServiceAccounts] == ["uid-4", "uid-5"]
    record = merge_record(record, "sha256:abc", "other", recorded(ONE), LATER)
    assert list(record.credentialMapping) == [NAME, "other"]


def test_a_changed_login_replaces_the_old_one_of_its_secret() -> None:
    record = merge_record(a_record(recorded(ONE)), "sha256:abc", NAME, recorded(ONE_CHANGED), LATER)
    assert record.credentialMapping[NAME] == recorded(ONE_CHANGED)


def test_what_everybody_may_use_stays_so() -> None:
    open_to_all = merge_record(a_record(recorded(ONE)), "sha256:abc", NAME, ANYBODY, LATER)
    assert open_to_all.credentialMapping[NAME] == ANYBODY
    assert merge_record(open_to_all, "sha256:abc", NAME, recorded(ONE), LATER) is open_to_all


CREDENTIALS = st.sampled_from([ONE, ONE_CHANGED, COPY_OF_ONE, TWO, ACCOUNT, OTHER_ACCOUNT, NODE, None])


@given(st.lists(CREDENTIALS, max_size=6), st.lists(CREDENTIALS.filter(bool), max_size=3))
def test_exactly_those_who_pulled_may_use_it(pulls: list[Credential | None], own: list[Credential]) -> None:
    """Through any number of pulls and through the file, by the source of a credential or by its login."""
    record = a_record()
    for credential in pulls:
        record = merge_record(record, "sha256:abc", NAME, recorded(credential), NOW)
    record = decode_record(encode_record(record))
    access = compute_access(IMAGE, record, True, VerificationPolicy())
    known = record.credentialMapping.get(NAME, RecordedCredentials())
    opened = access is Access.GRANTED or (access is Access.BY_CREDENTIAL and match_credentials(known, own).found)
    by_all = any(credential is None or credential.source is None for credential in pulls)
    latest = {credential.source: credential.login for credential in pulls if credential is not None}
    secrets = {source: login for source, login in latest.items() if isinstance(source, SecretSource)}
    mine = [c for c in own if isinstance(c.source, SecretSource)]
    by_secret = any(c.source in secrets or c.login in secrets.values() for c in mine)
    first = next((c.source for c in own if isinstance(c.source, ServiceAccountSource)), None)
    assert opened is (by_all or by_secret or (first is not None and first in latest))


def test_the_files_are_those_of_the_go_kubelet() -> None:
    assert (
        file_name("r.example/app:1") == "sha256-" + "393f98fb7fe7bae3c05ad03b6ec8b873f94a04ccbe586899d3c319cbebc32827"
    )
    assert json.loads(encode_record(a_record(recorded(ONE)))) == {
        "kind": "ImagePulledRecord",
        "apiVersion": "kubelet.config.k8s.io/v1beta1",
        "lastUpdatedTime": "2026-11-26T02:03:04Z",
        "imageRef": "sha256:abc",
        "credentialMapping": {
            NAME: {
                "kubernetesSecrets": [
                    {"uid": "uid-1", "namespace": "shop", "name": "one", "credentialHash": ONE.digest}
                ]
            }
        },
    }
    assert json.loads(encode_record(a_record(ANYBODY)))["credentialMapping"] == {NAME: {"nodePodsAccessible": True}}
    assert "credentialMapping" not in json.loads(encode_record(a_record()))
    assert json.loads(encode_intent(IMAGE)) == {
        "kind": "ImagePullIntent",
        "apiVersion": "kubelet.config.k8s.io/v1beta1",
        "image": IMAGE,
    }
    assert decode_intent(encode_intent(IMAGE)) == IMAGE


def test_the_older_version_is_read() -> None:
    text = encode_record(a_record(recorded(ONE))).replace(b"v1beta1", b"v1alpha1")
    assert decode_record(text) == a_record(recorded(ONE))


@pytest.mark.parametrize(
    "text",
    [
        b"",
        b"{}",
        encode_intent(IMAGE),
        encode_record(a_record()).replace(b"v1beta1", b"v7"),
        encode_record(a_record()).replace(b"2026", b"when"),
    ],
)
def test_what_is_no_record_is_refused(text: bytes) -> None:
    with pytest.raises(InvalidRecord):
        decode_record(text)
