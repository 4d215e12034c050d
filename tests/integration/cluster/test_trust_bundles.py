"""ClusterTrustBundles in projected volumes: which certificates a container finds, before and after they change."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.integration.cluster.objects import SLEEP, container, pod
from tests.integration.cluster.stage import Stage
from tests.integration.cluster.waiting import eventually, holds
from tests.lab import pki

pytestmark = pytest.mark.lab

BUNDLES = "/apis/certificates.k8s.io/v1/clustertrustbundles"
FILES = "/var/lib/kubelet/pods/{uid}/volumes/kubernetes.io~projected/trust/ca.pem"

CreateRoot = Callable[[], str]


@pytest.fixture
def new_root(tmp_path: Path) -> CreateRoot:
    """Makes certificates of authorities, as PEM."""

    def create() -> str:
        number = len(list(tmp_path.iterdir()))
        return pki.Authority(tmp_path, f"root-{number}").credentials.certificate.read_text()

    return create


def put_bundle(stage: Stage, name: str, text: str, signer: str = "", **labels: str) -> None:
    """Creates a bundle, or gives it this content."""
    spec = {"trustBundle": text, **({"signerName": signer} if signer else {})}
    body = {"metadata": {"name": name, "labels": labels}, "spec": spec}
    if stage.cluster.exists(f"{BUNDLES}/{name}"):
        code, answer = stage.cluster.request("PATCH", f"{BUNDLES}/{name}", body)
        assert code == 200, answer
    else:
        stage.cluster.create(BUNDLES, body)


def signer_of(stage: Stage) -> tuple[str, str]:
    """A signer that no other test uses, and how names of its bundles begin."""
    name = stage.unique("signer")
    return f"example.com/{name}", f"example.com:{name}:"


def trusting_pod(name: str, *sources: dict[str, Any], **fields: Any) -> dict[str, Any]:
    """A pod that mounts one volume with ca.pem, of these sources, and says what is in it."""
    projections = [{"clusterTrustBundle": {"path": "ca.pem", **source}} for source in sources]
    script = f"stat -L -c 'mode %a of %u size %s' /trust/ca.pem; cat /trust/ca.pem; echo @end; {SLEEP}"
    main = container(script, volumeMounts=[{"name": "trust", "mountPath": "/trust"}])
    volume = {"name": "trust", "projected": {"sources": projections, **fields}}
    return pod(name, main, volumes=[volume])


def shown(stage: Stage, name: str) -> tuple[str, list[str]]:
    """What the container printed: the line about the file, and the certificates in it."""
    first, _, text = stage.wait_logs(name, "@end").partition("@end")[0].partition("\n")
    return first, certificates(text)


def certificates(text: str) -> list[str]:
    """The certificates of a file that has nothing else in it, in order of their text."""
    end = "-----END CERTIFICATE-----\n"
    *blocks, rest = text.split(end)
    assert not rest.strip(), text
    assert all(block.startswith("-----BEGIN CERTIFICATE-----\n") for block in blocks), text
    return sorted(block + end for block in blocks)


def wait_written(stage: Stage, created: dict[str, Any], *wanted: str) -> None:
    """Until the file of the pod's volume holds these certificates: sooner than pods are looked at without a reason."""
    file = stage.inside(FILES.format(uid=created["metadata"]["uid"]))

    def written() -> None:
        assert certificates(file.read_text()) == sorted(wanted)

    holds(written, within_seconds=20)


def test_one_bundle_by_its_name(stage: Stage, new_root: CreateRoot) -> None:
    """Certificates only, whatever else the bundle says."""
    one, two, name = new_root(), new_root(), stage.unique("named")
    put_bundle(stage, name, f"The first:\n{one}and the second:\n{two}")
    stage.create_pod(trusting_pod(name, {"name": name}))
    size = len(one) + len(two)
    assert shown(stage, name) == (f"mode 644 of 0 size {size}", sorted((one, two)))


def test_bundles_of_a_signer_by_labels(stage: Stage, new_root: CreateRoot) -> None:
    """Each certificate is there once; an empty selector means all of the signer's."""
    signer, prefix = signer_of(stage)
    other, others_prefix = signer_of(stage)
    one, two, three, four = new_root(), new_root(), new_root(), new_root()
    put_bundle(stage, f"{prefix}1", one + two, signer, live="yes")
    put_bundle(stage, f"{prefix}2", two, signer, live="yes")
    put_bundle(stage, f"{prefix}3", three, signer, live="no")
    put_bundle(stage, f"{others_prefix}1", four, other, live="yes")
    some, every = stage.unique("some"), stage.unique("every")
    live = {"matchExpressions": [{"key": "live", "operator": "In", "values": ["yes", "maybe"]}]}
    stage.create_pod(trusting_pod(some, {"signerName": signer, "labelSelector": live}, defaultMode=0o440))
    stage.create_pod(trusting_pod(every, {"signerName": signer, "labelSelector": {}}))
    first, found = shown(stage, some)
    assert first.startswith("mode 440 of 0 ")
    assert found == sorted((one, two))
    assert shown(stage, every)[1] == sorted((one, two, three))


@pytest.mark.parametrize(
    "source",
    [
        {"name": "there.is.none"},
        {"signerName": "example.com/nobody", "labelSelector": {}},
        {"signerName": "example.com/nobody"},
    ],
    ids=["name", "signer", "no-selector"],
)
def test_an_optional_bundle_that_is_missing_is_an_empty_file(stage: Stage, source: dict[str, Any]) -> None:
    name = stage.unique("optional")
    stage.create_pod(trusting_pod(name, {**source, "optional": True}))
    assert shown(stage, name) == ("mode 644 of 0 size 0", [])


def test_a_pod_waits_for_the_bundle_of_its_name_and_starts_with_it(stage: Stage, new_root: CreateRoot) -> None:
    name = stage.unique("awaited")
    stage.create_pod(trusting_pod(name, {"name": name}))
    event = stage.wait_event(name, "FailedMount")
    assert event["message"] == (
        f'MountVolume.SetUp failed for volume "trust" : clustertrustbundle.certificates.k8s.io "{name}" not found'
    )
    assert stage.pod(name)["status"]["phase"] == "Pending"
    put_bundle(stage, name, new_root())
    stage.wait_ready(name, within_seconds=20)


def test_a_pod_waits_for_a_bundle_of_its_signer_and_starts_with_it(stage: Stage, new_root: CreateRoot) -> None:
    """One with other labels is none. A bundle that gets the right ones starts the pod."""
    signer, prefix = signer_of(stage)
    name, root = stage.unique("awaited"), new_root()
    put_bundle(stage, f"{prefix}1", root, signer, live="no")
    live = {"matchLabels": {"live": "yes"}}
    stage.create_pod(trusting_pod(name, {"signerName": signer, "labelSelector": live}))
    text = "combination of signerName and labelSelector matched zero ClusterTrustBundles"
    stage.wait_event(name, "FailedMount", text)
    put_bundle(stage, f"{prefix}1", root, signer, live="yes")
    stage.wait_ready(name, within_seconds=20)
    assert shown(stage, name)[1] == [root]


def test_changes_reach_running_pods(stage: Stage, new_root: CreateRoot) -> None:
    """A bundle that changes, one that comes, one that gets other labels and one that goes; no container restarts."""
    signer, prefix = signer_of(stage)
    named, signed = stage.unique("named"), stage.unique("signed")
    old, new, joined = new_root(), new_root(), new_root()
    put_bundle(stage, f"{prefix}1", old, signer, live="yes")
    by_name = stage.create_pod(trusting_pod(named, {"name": f"{prefix}1"}))
    live = {"matchLabels": {"live": "yes"}}
    by_signer = stage.create_pod(trusting_pod(signed, {"signerName": signer, "labelSelector": live}))
    stage.wait_ready(named)
    stage.wait_ready(signed)
    wait_written(stage, by_name, old)
    put_bundle(stage, f"{prefix}2", joined, signer, live="yes")
    wait_written(stage, by_signer, old, joined)
    put_bundle(stage, f"{prefix}1", new, signer, live="yes")
    wait_written(stage, by_name, new)
    wait_written(stage, by_signer, new, joined)
    put_bundle(stage, f"{prefix}1", new, signer, live="no")
    wait_written(stage, by_signer, joined)
    # The last one goes: the pod runs on with what it has, says so, and takes the next one.
    code, answer = stage.cluster.request("DELETE", f"{BUNDLES}/{prefix}2")
    assert code == 200, answer
    stage.wait_event(signed, "FailedMount", "matched zero ClusterTrustBundles")
    wait_written(stage, by_signer, joined)
    put_bundle(stage, f"{prefix}3", old, signer, live="yes")
    wait_written(stage, by_signer, old)
    for name in (named, signed):
        found = stage.wait_ready(name)
        assert found["status"]["containerStatuses"][0]["restartCount"] == 0


def test_a_restart_of_the_agent_leaves_the_files_alone(stage: Stage, new_root: CreateRoot) -> None:
    """The order of certificates is the pod's, not the agent's: who watches the file is not woken for nothing."""
    name = stage.unique("kept")
    roots = [new_root() for _ in range(6)]
    put_bundle(stage, name, "".join(roots))
    created = stage.create_pod(trusting_pod(name, {"name": name}))
    stage.wait_ready(name)
    file = stage.inside(FILES.format(uid=created["metadata"]["uid"]))
    before, where = file.read_text(), (file.parent / "..data").readlink()
    assert certificates(before) == sorted(roots)
    with stage.new_log_lines() as log:
        stage.restart_kubelet()
        log.wait(name)
        eventually("a look at the volume", lambda: log.lines("volume_files_written", name), within_seconds=30)
    assert file.read_text() == before
    assert (file.parent / "..data").readlink() == where
