"""Checkpoints by the node's own API: kubelet-py on Docker with dockershim and on containerd 2.4, with CRIU.

For a machine of its own only (`make boot`): it restarts Docker and starts a containerd beside Debian's, whose 1.6
has no CheckpointContainer. It is no test_*.py, so that nobody runs it elsewhere.
"""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import shutil
import ssl
import subprocess
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from deploy.standalone import images
from tests.machine import dockershim, kubelet
from tests.machine.waiting import CALL_SECONDS, until

CONTAINERD = Path("/opt/newest-containerd/bin")
STATE = Path("/var/lib/containerd-test")
SOCKET = STATE / "containerd.sock"
CONTAINERD_CONFIG = f"""version = 3
root = "{STATE}/root"
state = "{STATE}/state"
[grpc]
  address = "{SOCKET}"
[ttrpc]
  address = "{SOCKET}.ttrpc"
[plugins."io.containerd.cri.v1.images".pinned_images]
  sandbox = "{images.PAUSE}"
[plugins."io.containerd.cri.v1.runtime".containerd.runtimes.runc]
  runtime_type = "io.containerd.runc.v2"
  [plugins."io.containerd.cri.v1.runtime".containerd.runtimes.runc.options]
    SystemdCgroup = true
"""
COUNT = """
echo kept >/kept; rm /www/index.html; echo started >>/v/starts; i=0
while :; do i=$((i + 1)); echo $i >/v/new; mv /v/new /v/counted; sleep 0.5; done
"""
"""The number is in the shell's memory alone."""
SPEC = {
    "hostNetwork": True,
    "terminationGracePeriodSeconds": 1,
    "volumes": [{"name": "v", "emptyDir": {}}],
    "containers": [
        {
            "name": "c", "image": images.HELLO, "imagePullPolicy": "Never",
            "command": ["/bin/busybox", "sh", "-c", COUNT], "volumeMounts": [{"name": "v", "mountPath": "/v"}],
        }
    ],
}  # fmt: skip


@pytest.mark.parametrize("runtime", ["docker", "containerd"])
def test_a_container_is_checkpointed_and_runs_on(runtime: str) -> None:
    """Its processes, memory and files are in an archive below the agent's root, which is for root alone."""
    with RUNTIMES[runtime]() as socket, kubelet.running(socket):
        kubelet.write_pod("counts", SPEC)
        volume = until(find_volume)
        assert volume
        counted = volume / "counted"
        until(counted.exists)
        before = int(counted.read_text())
        status, answer = post("/checkpoint/default/counts-machine/c?timeout=1200")
        assert status == 200, answer
        (path,) = json.loads(answer)["items"]
        archive = Path(path)
        assert archive.parent == kubelet.ROOT / "checkpoints"
        assert archive.name.startswith("checkpoint-counts-machine_default-c-")
        assert archive.parent.stat().st_mode & 0o777 == 0o700
        assert_is_a_checkpoint(archive)
        after = int(counted.read_text())
        assert after >= before
        until(lambda: int(counted.read_text()) > after)
        assert (volume / "starts").read_text() == "started\n"
        assert post("/checkpoint/default/counts-machine/none")[0] == 404
        assert list(archive.parent.iterdir()) == [archive]
        (kubelet.MANIFESTS / "counts.yaml").unlink()
        until(lambda: find_volume() is None)


def assert_is_a_checkpoint(file: Path) -> None:
    with tarfile.open(file) as archive:
        names = set(archive.getnames())
        assert names >= {f"checkpoint/{image}" for image in ("inventory.img", "core-1.img", "pages-1.img")}, names
        config, spec = (json.load(member(archive, f"{part}.dump")) for part in ("config", "spec"))
        with tarfile.open(fileobj=member(archive, "rootfs-diff.tar")) as layer:
            changes = set(layer.getnames())
    assert config["rootfsImageName"] == images.HELLO
    assert spec["process"]["args"][-1] == COUNT
    assert {"kept", "www/.wh.index.html"} <= changes


def member(archive: tarfile.TarFile, name: str) -> Any:
    found = archive.extractfile(name)
    assert found is not None, name
    return found


def find_volume() -> Path | None:
    """The pod's emptyDir; None when there is no pod."""
    return next(kubelet.ROOT.glob("pods/*/volumes/kubernetes.io~empty-dir/v"), None)


def post(path: str) -> tuple[int, str]:
    """Status and body."""
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE  # it has signed its own certificate
    connection = http.client.HTTPSConnection("127.0.0.1", kubelet.PORT, context=context, timeout=CALL_SECONDS)
    with contextlib.closing(connection):
        connection.request("POST", path)
        answer = connection.getresponse()
        return answer.status, answer.read().decode()


# The runtimes


@contextlib.contextmanager
def docker_with_dockershim() -> Iterator[Path]:
    """Docker with its experimental features; dockershim's socket."""
    with dockershim.running({"experimental": True}):
        yield dockershim.SOCKET


@contextlib.contextmanager
def new_containerd() -> Iterator[Path]:
    """Its socket."""
    STATE.mkdir()
    config = STATE / "config.toml"
    config.write_text(CONTAINERD_CONFIG)
    environment = {**os.environ, "PATH": f"{CONTAINERD}:{os.environ['PATH']}"}
    ctr = [str(CONTAINERD / "ctr"), f"--address={SOCKET}", "--namespace=k8s.io"]
    with (STATE / "log").open("wb") as log:
        command = [str(CONTAINERD / "containerd"), f"--config={config}"]
        process = subprocess.Popen(command, env=environment, stdout=log, stderr=log)
    try:
        until(lambda: subprocess.run([*ctr, "version"], check=False, capture_output=True).returncode == 0)
        for reference in (images.PAUSE, images.HELLO):
            imported = [*ctr, "images", "import", "-"]
            subprocess.run(imported, input=images.archive(reference), check=True, capture_output=True)
        yield SOCKET
        until(lambda: subprocess.run([*ctr, "tasks", "ls", "-q"], check=True, capture_output=True).stdout == b"")
    finally:
        process.terminate()
        process.wait(CALL_SECONDS)
        print("\n".join((STATE / "log").read_text().splitlines()[-60:]))
        shutil.rmtree(STATE)


RUNTIMES = {"docker": docker_with_dockershim, "containerd": new_containerd}
