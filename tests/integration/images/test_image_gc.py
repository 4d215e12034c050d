"""Image garbage collection on containerd and on Docker: what a container uses stays, the rest goes."""

from __future__ import annotations

import json
import sys

import pytest

from tests.lab.lab import PAUSE, Lab
from tests.lab.node import ENVIRONMENT, start_dockershim

pytestmark = pytest.mark.lab

USED, UNUSED = (f"gcr.io/k8s-staging-cri-tools/{name}" for name in ("test-image-1:latest", "test-image-2:latest"))


@pytest.mark.parametrize("runtime", ["containerd", "docker"])
def test_unused_images_go_and_used_ones_stay(runtime: str) -> None:
    """Not at the first look, when nothing is old enough; that it was not enough is an event of the node."""
    docker, containerd = ("20.10", None) if runtime == "docker" else (None, "1.6")
    with Lab.start(docker=docker, containerd=containerd, registry=[USED, UNUSED], images=(PAUSE,)) as lab:
        socket = start_dockershim(lab).socket if docker else lab.containerd_socket
        program = [sys.executable, "-m", "tests.integration.images.collector", f"unix://{socket}", USED, UNUSED]
        told = json.loads(lab.run(program, environment=ENVIRONMENT).stdout.splitlines()[-1])
    before, young, after = told["looks"]
    assert {USED, UNUSED} <= set(before)
    assert young == before
    assert USED in after
    assert UNUSED not in after
    assert [reason for reason, _ in told["events"]] == ["FreeDiskSpaceFailed", "FreeDiskSpaceFailed"]
    assert told["problem"].startswith("Insufficient free disk space on the node's image filesystem (")
