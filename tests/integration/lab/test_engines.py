"""Every engine of the lab starts, runs a container that has a network, survives the loss of a part, leaves nothing."""

from __future__ import annotations

import json
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest

from tests.integration.lab.leftovers import Traces
from tests.lab import cridockerd, gotools
from tests.lab.engines import containerd, docker
from tests.lab.lab import BUSYBOX, PAUSE, Lab
from tests.lab.process import LabError
from tests.lab.registry import PASSWORD, PRIVATE_NAME, USER

pytestmark = pytest.mark.lab


@pytest.fixture(scope="module", params=docker.VERSIONS)
def docker_lab(request: pytest.FixtureRequest) -> Iterator[Lab]:
    with Lab.start(docker=request.param) as lab:
        yield lab
        traces = Traces.of(lab.root)
    assert traces.left() == []


@pytest.fixture(scope="module", params=containerd.VERSIONS)
def containerd_lab(request: pytest.FixtureRequest) -> Iterator[Lab]:
    with Lab.start(containerd=request.param, registry=[BUSYBOX]) as lab:
        yield lab
        traces = Traces.of(lab.root)
    assert traces.left() == []


def test_docker_runs_a_container_on_its_bridge(docker_lab: Lab) -> None:
    printed = docker_lab.docker.client("run", "--rm", BUSYBOX, "ping", "-c", "1", "-W", "5", "10.200.0.1")
    assert "1 packets received" in printed


def test_docker_says_the_version_that_was_asked_for(docker_lab: Lab) -> None:
    version = json.loads(docker_lab.docker.client("version", "--format", "{{json .Server}}"))
    assert version["Version"].startswith(docker_lab.docker.version)


def test_docker_comes_back_after_a_kill_with_its_containers(docker_lab: Lab) -> None:
    docker_lab.docker.client("create", "--name", "kept", BUSYBOX, "true")
    assert docker_lab.docker.dockerd is not None
    docker_lab.docker.dockerd.kill()
    docker_lab.docker.dockerd.wait(10)
    docker_lab.docker.start()
    assert "kept" in docker_lab.docker.client("ps", "--all", "--format", "{{.Names}}").split()
    docker_lab.docker.client("rm", "kept")


def crictl(lab: Lab, socket: Path, *arguments: str) -> str:
    return lab.run(
        [gotools.ensure("crictl"), f"--runtime-endpoint=unix://{socket}", "--timeout=60s", *arguments]
    ).stdout


def runs_a_pod_on_the_cni_network(lab: Lab, socket: Path) -> None:
    pod = {"metadata": {"name": "p", "namespace": "default", "uid": "u", "attempt": 0}, "linux": {}}
    container = {
        "metadata": {"name": "c", "attempt": 0},
        "image": {"image": BUSYBOX},
        "command": ["sh", "-c", "while ! ping -c 1 -W 1 10.200.0.1; do :; done; exec sleep 1000"],
        "linux": {},
    }
    files = lab.root / "pod.json", lab.root / "container.json"
    for file, described in zip(files, (pod, container), strict=True):
        file.write_text(json.dumps(described))
    sandbox_id = crictl(lab, socket, "runp", str(files[0])).strip()
    container_id = crictl(lab, socket, "create", sandbox_id, str(files[1]), str(files[0])).strip()
    crictl(lab, socket, "start", container_id)
    printed = crictl(lab, socket, "exec", "--sync", container_id, "ping", "-c", "1", "10.200.0.1")
    assert "1 packets received" in printed
    status = json.loads(crictl(lab, socket, "inspectp", sandbox_id))
    assert status["status"]["network"]["ip"].startswith("10.201.")
    crictl(lab, socket, "rmp", "--force", sandbox_id)


def test_containerd_runs_a_pod_on_the_cni_network(containerd_lab: Lab) -> None:
    runs_a_pod_on_the_cni_network(containerd_lab, containerd_lab.containerd_socket)


def test_cri_dockerd_runs_a_pod_on_the_cni_network() -> None:
    with Lab.start(docker=cridockerd.DOCKER_VERSION, docker_settings=docker.SETTINGS_FOR_PEERS) as lab:
        started = cridockerd.start(lab)
        version = crictl(lab, started.socket, "version")
        assert "RuntimeName:  docker" in version
        assert f"RuntimeVersion:  {gotools.DOCKER_VERSION}" in version
        runs_a_pod_on_the_cni_network(lab, started.socket)
        assert started.process.stop() == 0
        traces = Traces.of(lab.root)
    assert traces.left() == []


def test_containerd_pulls_from_the_registry(containerd_lab: Lab) -> None:
    call = partial(crictl, containerd_lab, containerd_lab.containerd_socket)
    call("rmi", BUSYBOX)
    call("pull", BUSYBOX)
    assert BUSYBOX in call("images", "--output=json")


def test_containerd_pulls_from_the_private_registry_with_a_password_only(containerd_lab: Lab) -> None:
    call = partial(crictl, containerd_lab, containerd_lab.containerd_socket)
    private = BUSYBOX.replace("registry.k8s.io", PRIVATE_NAME)
    with pytest.raises(LabError, match=r"401|authorization|credentials"):
        call("pull", private)
    call("pull", "--creds", f"{USER}:{PASSWORD}", private)


def test_docker_pulls_from_the_registry() -> None:
    with Lab.start(docker="20.10", registry=[PAUSE], images=()) as lab:
        lab.docker.client("pull", PAUSE)
        with pytest.raises(LabError, match="manifest unknown"):
            lab.docker.client("pull", "registry.k8s.io/pause:0.1")
        assert lab.docker.client("images", "--format", "{{.Repository}}:{{.Tag}}").split() == [PAUSE]


def test_two_labs_do_not_see_each_other() -> None:
    with Lab.start(docker="20.10", images=[PAUSE]) as one, Lab.start(docker="20.10", images=()) as other:
        assert one.docker.client("images", "--quiet").split()
        assert other.docker.client("images", "--quiet").split() == []


def test_what_was_not_started_is_said() -> None:
    with Lab.start() as lab:
        with pytest.raises(LabError, match="without docker="):
            _ = lab.docker
        with pytest.raises(LabError, match="without containerd="):
            _ = lab.containerd_socket
        with pytest.raises(LabError, match="without registry="):
            _ = lab.registry


def test_an_unknown_version_is_named_with_the_known_ones() -> None:
    with pytest.raises(LabError, match=r"no Docker '19.03' in the lab; there are 20.10, 29"):
        Lab.start(docker="19.03")
