"""Pods from the manifest directory of a node in a cluster, and their mirrors."""

from __future__ import annotations

from typing import Any

import pytest
import yaml

from tests.integration.cluster.objects import SLEEP, container, pod
from tests.integration.cluster.stage import MANIFESTS, NODE, PLAYS_GO, Stage
from tests.integration.cluster.waiting import eventually, holds

pytestmark = pytest.mark.lab

MIRROR = "kubernetes.io/config.mirror"


def manifest(name: str, word: str = "first") -> dict[str, Any]:
    """A static pod that says a word and sleeps."""
    return pod(name, container(f"echo {word}; {SLEEP}"))


def running(stage: Stage, name: str) -> list[Any]:
    """The running containers of a static pod, by its name in the runtime."""
    labelled = stage.containers()
    return [c for c in labelled if c.labels["io.kubernetes.pod.name"] == name and c.state == 1]


def test_a_manifest_becomes_a_pod_and_a_mirror(stage: Stage) -> None:
    """The mirror shows the pod; deleted it comes back and the pod runs on; a changed file replaces the pod; a removed
    file removes both.
    """
    stem = stage.unique("static")
    name = f"{stem}-{NODE}"
    stage.write_manifest(f"{stem}.yaml", yaml.safe_dump(manifest(stem)))
    mirror = stage.wait_ready(name)
    assert MIRROR in mirror["metadata"]["annotations"]
    assert mirror["metadata"]["ownerReferences"][0]["name"] == NODE
    assert stage.wait_logs(name, "first\n") == "first\n"
    (first,) = running(stage, name)

    stage.delete_pod(name, grace_seconds=0)

    def came_back() -> None:
        assert stage.pod(name)["metadata"]["uid"] != mirror["metadata"]["uid"]

    holds(came_back, within_seconds=100 if PLAYS_GO else 20)  # the Go kubelet waits for its next sync
    stage.wait_ready(name)
    assert [c.id for c in running(stage, name)] == [first.id]

    stage.write_manifest(f"{stem}.yaml", yaml.safe_dump(manifest(stem, "second")))
    stage.wait_logs(name, "second\n")
    (second,) = running(stage, name)
    assert second.id != first.id

    stage.remove_manifest(f"{stem}.yaml")
    stage.wait_gone(name)
    eventually("the end of the containers", lambda: not running(stage, name), within_seconds=20)


@pytest.mark.parametrize("change", ["removed", "changed"])
def test_the_mirror_stays_while_its_pod_stops(stage: Stage, change: str) -> None:
    """What somebody sees of a static pod is there as long as anything of it runs, and its successor comes after it."""
    stem = stage.unique("static")
    name = f"{stem}-{NODE}"
    slow = container('trap "sleep 5; exit 0" TERM; while :; do sleep 0.1; done')
    stage.write_manifest(f"{stem}.yaml", yaml.safe_dump(pod(stem, slow, terminationGracePeriodSeconds=20)))
    mirror_uid = stage.wait_ready(name)["metadata"]["uid"]
    if change == "changed":
        stage.write_manifest(f"{stem}.yaml", yaml.safe_dump(manifest(stem, "second")))
    else:
        stage.remove_manifest(f"{stem}.yaml")
    stage.wait_event(name, "Killing")
    seen = stage.pod(name)  # the container has seconds to run
    assert (seen["metadata"]["uid"], seen["status"]["phase"]) == (mirror_uid, "Running")
    (old,) = running(stage, name)
    if change == "changed":
        stage.wait_logs(name, "second\n")
        assert stage.wait_ready(name)["metadata"]["uid"] != mirror_uid
        (new,) = running(stage, name)
        assert new.id != old.id
    else:
        stage.wait_gone(name)
        assert running(stage, name) == []


@pytest.mark.skipif(PLAYS_GO, reason="the words are ours")
def test_unusable_manifests_are_said_and_leave_others_alone(stage: Stage) -> None:
    """Malformed, duplicate, unreadable, oversized and half-written files each get a line that names file and fault;
    the good pod beside them keeps its container, and a mended file is taken.
    """
    good, bad = stage.unique("good"), stage.unique("bad")
    stage.write_manifest(f"{good}.yaml", yaml.safe_dump(manifest(good)))
    stage.wait_ready(f"{good}-{NODE}")
    (before,) = running(stage, f"{good}-{NODE}")
    with stage.new_log_lines() as log:
        stage.write_manifest(f"{bad}.yaml", "kind: Pod\nspec: [unclosed")
        stage.write_manifest(f"{bad}-twice.yaml", yaml.safe_dump(manifest(good, "impostor")))
        stage.write_manifest(f"{bad}-large.yaml", b"#" * (11 << 20))
        stage.link_manifest(f"{bad}-link.yaml", "/nowhere")
        log.wait(f"{bad}.yaml")
        log.wait(f"{bad}-twice.yaml", f"is in {MANIFESTS}/{good}.yaml already")
        log.wait(f"{bad}-large.yaml")
        log.wait(f"{bad}-link.yaml", "the link leads nowhere")
        stage.wait_event(NODE, "FailedValidation", f"{bad}.yaml")
        stage.wait_event(NODE, "FailedValidation", f"{bad}-twice.yaml")
    text = yaml.safe_dump(manifest(bad))
    with stage.new_log_lines() as log:
        stage.write_manifest(f"{bad}.yaml", text[: len(text) // 2])
        log.wait(f"{bad}.yaml")
        stage.write_manifest(f"{bad}.yaml", text)
        stage.wait_ready(f"{bad}-{NODE}")
    assert [c.id for c in running(stage, f"{good}-{NODE}")] == [before.id]
