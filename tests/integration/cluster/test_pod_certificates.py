"""Certificates in projected volumes: what a signer is asked, and what the container finds when it has answered."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import serialization

from tests.integration.cluster.objects import SLEEP, container, pod
from tests.integration.cluster.signer import Signer
from tests.integration.cluster.stage import NODE, PLAYS_GO, Stage
from tests.integration.cluster.waiting import holds

pytestmark = pytest.mark.lab

FILES = "/var/lib/kubelet/pods/{uid}/volumes/kubernetes.io~projected/tls"
KEY_TYPES = ("RSA3072", "RSA4096", "ECDSAP256", "ECDSAP384", "ECDSAP521", "ED25519")


def certified_pod(name: str, signer: Signer, *sources: dict[str, Any], **spec: Any) -> dict[str, Any]:
    """A pod that mounts one volume with these certificates and says what is in all.pem."""
    projections = [
        {"podCertificate": {"signerName": signer.name, "keyType": "ECDSAP256", **source}}
        for source in sources or ({"credentialBundlePath": "all.pem"},)
    ]
    script = f"stat -L -c 'mode %a of %u' /tls/all.pem; cat /tls/all.pem; echo @end; {SLEEP}"
    main = container(script, volumeMounts=[{"name": "tls", "mountPath": "/tls"}])
    return pod(name, main, volumes=[{"name": "tls", "projected": {"sources": projections}}], **spec)


def directory_of(stage: Stage, created: dict[str, Any]) -> Path:
    """Where the pod's volume is on the node."""
    return stage.inside(FILES.format(uid=created["metadata"]["uid"]))


def assert_belongs(key: bytes, certificate: str) -> None:
    """The certificate is for this key, which is written as PKCS#8."""
    assert key.startswith(b"-----BEGIN PRIVATE KEY-----\n")
    owner = serialization.load_pem_private_key(key, None)
    assert x509.load_pem_x509_certificate(certificate.encode()).public_key() == owner.public_key()


def test_a_certificate_for_a_key_of_each_type(stage: Stage) -> None:
    """The API server checks that each request is signed by the key that it is for."""
    signer, name = Signer(stage), stage.unique("certified")
    annotations = {"example.com/path": "/a b"}
    first = {"credentialBundlePath": "all.pem", "maxExpirationSeconds": 7200, "userAnnotations": annotations}
    others = [
        {"keyType": key_type, "keyPath": f"{key_type}.key", "certificateChainPath": f"chains/{key_type}.pem"}
        for key_type in KEY_TYPES
    ]
    created = stage.create_pod(certified_pod(name, signer, first, *others))
    requests = signer.requests(1 + len(KEY_TYPES))
    account = stage.cluster.request("GET", "/api/v1/namespaces/default/serviceaccounts/default")[1]
    whose = {
        "signerName": signer.name,
        "podName": name,
        "podUID": created["metadata"]["uid"],
        "serviceAccountName": "default",
        "serviceAccountUID": account["metadata"]["uid"],
        "nodeName": NODE,
        "nodeUID": stage.node()["metadata"]["uid"],
    }
    for request in requests:
        assert request["spec"].items() >= whose.items()
        owner = {"apiVersion": "v1", "kind": "Pod", "name": name, "uid": created["metadata"]["uid"]}
        assert request["metadata"]["ownerReferences"] == [owner]
        assert request["metadata"]["generateName"] == "req-"
    asked = [(r["spec"]["maxExpirationSeconds"], r["spec"].get("unverifiedUserAnnotations")) for r in requests]
    assert sorted(asked, key=str) == sorted([(7200, annotations), *((86400, None) for _ in KEY_TYPES)], key=str)
    issued = {signer.issue(request) for request in requests}
    stage.wait_ready(name)
    shown = stage.wait_logs(name, "@end").partition("@end")[0]
    first_line, _, bundle = shown.partition("\n")
    assert first_line == "mode 644 of 0"
    key, begin, certificate = bundle.partition("-----BEGIN CERTIFICATE-----\n")
    found = {begin + certificate}
    assert_belongs(key.encode(), begin + certificate)
    directory = directory_of(stage, created)
    for key_type in KEY_TYPES:
        certificate = (directory / "chains" / f"{key_type}.pem").read_text()
        assert_belongs((directory / f"{key_type}.key").read_bytes(), certificate)
        found.add(certificate)
    assert found == issued


def test_the_key_is_for_the_pods_user_alone(stage: Stage) -> None:
    signer, name = Signer(stage), stage.unique("owned")
    stage.create_pod(certified_pod(name, signer, securityContext={"runAsUser": 1001}))
    signer.issue(signer.requests(1)[0])
    assert stage.wait_logs(name, "@end").startswith("mode 600 of 1001\n")


def test_a_pod_waits_for_its_certificate_and_starts_with_it(stage: Stage) -> None:
    signer, name = Signer(stage), stage.unique("awaited")
    stage.create_pod(certified_pod(name, signer))
    event = stage.wait_event(name, "FailedMount")
    text = 'MountVolume.SetUp failed for volume "tls" : credential bundle is not issued yet'
    assert event["message"] == text
    assert stage.pod(name)["status"]["phase"] == "Pending"
    signer.issue(signer.requests(1)[0])
    stage.wait_ready(name, within_seconds=20)


def test_what_is_issued_at_once_leaves_no_trace_of_waiting(stage: Stage) -> None:
    signer, name = Signer(stage), stage.unique("prompt")
    stage.create_pod(certified_pod(name, signer))
    signer.issue(signer.requests(1)[0])
    stage.wait_ready(name, within_seconds=20)
    assert PLAYS_GO or not [event for event in stage.events(name) if event["type"] == "Warning"]


@pytest.mark.parametrize(("kind", "said"), [("Denied", "was denied"), ("Failed", "failed")])
def test_a_refusal_is_told_and_the_pod_waits_without_another_request(stage: Stage, kind: str, said: str) -> None:
    signer, name = Signer(stage), stage.unique("refused")
    stage.create_pod(certified_pod(name, signer))
    request = signer.requests(1)[0]
    signer.refuse(request, kind, "UnsupportedKeyType", "only ED25519")
    reason_and_message = 'reason="UnsupportedKeyType" message="only ED25519"'
    text = f"PodCertificateRequest was permanently {kind.lower()}: {reason_and_message}"
    stage.wait_event(name, "FailedMount", text)
    event = stage.wait_event(name, kind)
    which = f"PodCertificateRequest default/{request['metadata']['name']} {said}"
    assert which in event["message"]
    assert PLAYS_GO or event["message"] == f"{which}, {reason_and_message.replace(' ', ', ', 1)}"
    assert stage.pod(name)["status"]["phase"] == "Pending"
    signer.requests(1)


def test_an_agent_that_starts_anew_gives_running_pods_new_certificates(stage: Stage) -> None:
    """It keeps no keys. The files stay until the new ones are there, and no container restarts."""
    signer, name = Signer(stage), stage.unique("renewed")
    paths = {"credentialBundlePath": "all.pem", "keyPath": "key", "certificateChainPath": "chain"}
    created = stage.create_pod(certified_pod(name, signer, paths))
    before = signer.issue(signer.requests(1)[0])
    stage.wait_ready(name)
    directory = directory_of(stage, created)
    key = (directory / "key").read_bytes()
    stage.restart_kubelet()
    newest = signer.requests(2)[-1]
    assert (directory / "chain").read_text() == before
    after = signer.issue(newest)

    def renewed() -> None:
        assert (directory / "chain").read_text() == after

    holds(renewed, within_seconds=20)
    new_key = (directory / "key").read_bytes()
    assert new_key != key
    assert_belongs(new_key, after)
    assert (directory / "all.pem").read_bytes() == new_key + after.encode()
    assert stage.wait_ready(name)["status"]["containerStatuses"][0]["restartCount"] == 0
