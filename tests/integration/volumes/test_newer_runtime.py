"""What volumes can be on a runtime newer than Debian's, in a real cluster: images, read-only all the way down."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from tests.integration.cluster.waiting import eventually
from tests.lab.cluster import Cluster
from tests.lab.lab import BUSYBOX, Lab
from tests.lab.node import start_kubelet_py

pytestmark = pytest.mark.lab

# One stream for all: the order of two streams in a log is not theirs, it is that in which the runtime read them.
ONE_STREAM = "exec 2>&1; "
IMAGE_SCRIPT = "grep -c ^root: /image/etc/passwd /etc-of-image/passwd; touch /image/x; sleep 1000"


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    with Lab.start(containerd="2.4") as lab, Cluster.start(lab) as cluster:
        start_kubelet_py(cluster, lab.containerd_socket, flags=("-v=4",))
        yield cluster


def pod_with_image(name: str, reference: str) -> dict[str, Any]:
    container = {
        "name": "main",
        "image": BUSYBOX,
        "command": ["sh", "-c", ONE_STREAM + IMAGE_SCRIPT],
        "volumeMounts": [
            {"name": "image", "mountPath": "/image"},
            {"name": "image", "mountPath": "/etc-of-image", "subPath": "etc"},
        ],
    }
    volume = {"name": "image", "image": {"reference": reference, "pullPolicy": "IfNotPresent"}}
    spec = {"containers": [container], "volumes": [volume], "terminationGracePeriodSeconds": 1}
    return {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name}, "spec": spec}


def test_a_container_sees_the_files_of_the_image_and_cannot_change_them(cluster: Cluster) -> None:
    cluster.apply(pod_with_image("present", BUSYBOX))
    eventually(
        "the output of the script",
        lambda: "Read-only" in cluster.kubectl("logs", "present", check=False),
        within_seconds=60,
    )
    assert cluster.kubectl("logs", "present").splitlines()[:2] == ["/image/etc/passwd:1", "/etc-of-image/passwd:1"]


def test_an_image_that_nobody_has_holds_the_container_up(cluster: Cluster) -> None:
    cluster.apply(pod_with_image("absent", "registry.k8s.io/none:1"))

    def reason() -> str | None:
        statuses = cluster.get("pod", "absent")["status"].get("containerStatuses") or [{}]
        waiting: dict[str, str] = statuses[0].get("state", {}).get("waiting", {})
        return waiting.get("reason")

    eventually("the reason", lambda: reason() in ("ErrImagePull", "ImagePullBackOff"), within_seconds=60)


def test_what_is_mounted_below_a_read_only_volume_is_read_only_too_if_the_pod_wants_it(cluster: Cluster) -> None:
    cluster.lab.run(["sh", "-c", "mkdir -p /srv/outer/inner && mount -t tmpfs tmpfs /srv/outer/inner"])
    mounts = [
        {"name": "outer", "mountPath": "/shallow", "readOnly": True},
        {"name": "outer", "mountPath": "/deep", "readOnly": True, "recursiveReadOnly": "Enabled"},
    ]
    script = "touch /shallow/inner/x && echo shallow; touch /deep/inner/x; sleep 1000"
    container = {"name": "main", "image": BUSYBOX, "command": ["sh", "-c", ONE_STREAM + script], "volumeMounts": mounts}
    volumes = [{"name": "outer", "hostPath": {"path": "/srv/outer", "type": "Directory"}}]
    spec = {"containers": [container], "volumes": volumes, "terminationGracePeriodSeconds": 1}
    cluster.apply({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "deep"}, "spec": spec})
    eventually(
        "the output of the script",
        lambda: "Read-only" in cluster.kubectl("logs", "deep", check=False),
        within_seconds=60,
    )
    assert cluster.kubectl("logs", "deep").splitlines()[0] == "shallow"
    (status,) = cluster.get("pod", "deep")["status"]["containerStatuses"]
    reported = {mount["mountPath"]: mount.get("recursiveReadOnly") for mount in status["volumeMounts"]}
    assert (reported["/shallow"], reported["/deep"]) == ("Disabled", "Enabled")
