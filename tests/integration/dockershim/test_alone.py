"""dockershim without kubelet-py, as the README tells it: with crictl, and under the Go kubelet."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from cri_proto import runtime_v1 as cri
from tests.integration.dockershim.harness import Shim, eventually
from tests.lab import gotools
from tests.lab.engines.docker import DEFAULT_VERSION
from tests.lab.lab import BUSYBOX, PAUSE, Lab
from tests.lab.sandbox import BASE_PATH, REPOSITORY

pytestmark = pytest.mark.lab


@pytest.fixture(scope="module")
def lab() -> Iterator[Lab]:
    with Lab.start(docker=DEFAULT_VERSION, registry=[PAUSE, BUSYBOX], images=()) as started:
        yield started


@pytest.fixture(scope="module")
def alone(lab: Lab) -> Iterator[Shim]:
    """On the socket that the README names: /run is the lab's own."""
    started = Shim(lab, "dockershim")
    yield started
    started.remove_all()
    started.stop()


def blocks() -> list[str]:
    """What stands in the README's section for a person to copy."""
    _, _, rest = (REPOSITORY / "README.md").read_text().partition("### dockershim alone\n")
    section, _, _ = rest.partition("\n### ")
    found: list[str] = re.findall(r"```\w*\n(.*?)```", section, re.DOTALL)
    return found


def test_with_crictl(alone: Shim, tmp_path: Path) -> None:
    """The commands of the README, as they are, but for the name of the image."""
    commands = blocks()[0].replace('"busybox"', f'"{BUSYBOX}"')
    first, _, rest = commands.partition("\n")
    assert first.startswith("dockershim &")  # that one runs already
    path = f"{gotools.ensure('crictl').parent}:{BASE_PATH}"
    script = ["sh", "-exc", f"cd $(mktemp -d)\n{rest}"]
    patient = tmp_path / "crictl.yaml"
    patient.write_text("timeout: 60\n")  # crictl's own two seconds are little for a busy machine
    done = alone.lab.run(script, environment={"PATH": path, "CRI_CONFIG_FILE": str(patient)})
    assert re.search(r'"type": "RuntimeReady"', done.stdout)
    assert re.search(r"\bRunning\b", done.stdout)
    assert "load average" in done.stdout
    assert alone.docker_ids() == []


def test_under_the_go_kubelet(alone: Shim, tmp_path: Path) -> None:
    """Its configuration names the socket; a manifest becomes a pod that runs, and goes with the manifest."""
    lab = alone.lab
    endpoint = re.search(r"containerRuntimeEndpoint: (\S+)", "".join(blocks()))
    assert endpoint is not None
    manifests = lab.root / "manifests"
    manifests.mkdir()
    settings = {
        "apiVersion": "kubelet.config.k8s.io/v1beta1",
        "kind": "KubeletConfiguration",
        "containerRuntimeEndpoint": endpoint[1],
        "staticPodPath": str(manifests),
        "authentication": {"webhook": {"enabled": False}, "anonymous": {"enabled": True}},
        "authorization": {"mode": "AlwaysAllow"},
        "failCgroupV1": False,
        "failSwapOn": False,
        "oomScoreAdj": 0,
        "fileCheckFrequency": "1s",
        "volumePluginDir": "/var/lib/kubelet/volumeplugins",
        "evictionHard": {"memory.available": "1Mi", "nodefs.available": "0%", "imagefs.available": "0%"},
    }
    file = lab.root / "kubelet.json"
    file.write_text(json.dumps(settings))
    kubelet = lab.popen([gotools.ensure("kubelet"), f"--config={file}", "--root-dir=/var/lib/kubelet"], log="kubelet")
    spec = {"containers": [{"name": "main", "image": BUSYBOX, "command": ["sleep", "1000"]}]}
    pod = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "static"}, "spec": spec}
    manifest = manifests / "pod.json"

    def running() -> list[str]:
        wanted = cri.ContainerFilter(state=cri.ContainerStateValue(state=cri.ContainerState.CONTAINER_RUNNING))
        listed = alone.runtime.ListContainers(cri.ListContainersRequest(filter=wanted), timeout=10).containers
        return [container.labels["io.kubernetes.pod.name"].partition("-")[0] for container in listed]

    try:
        manifest.write_text(json.dumps(pod))
        eventually(lambda: running() == ["static"], 90)
        manifest.unlink()
        eventually(lambda: running() == [], 90)
    finally:
        kubelet.stop()
