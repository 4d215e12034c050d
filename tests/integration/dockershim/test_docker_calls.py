"""How often each RPC calls Docker, counted on the wire: what it must, and not more.

`MUST` are the calls that change something; a call more or less is a failure. `LOOKS` is how often it may look at a
container at the most, events that follow included: cri-dockerd looks before the change, to learn what dockershim knows,
and dockershim after it, so that every read that follows costs nothing.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from cri_proto import runtime_v1 as cri
from tests.integration.dockershim.counting_proxy import CountingProxy
from tests.integration.dockershim.harness import Shim
from tests.lab.engines.docker import DEFAULT_VERSION
from tests.lab.images.catalog import CRI_TOOLS
from tests.lab.lab import BUSYBOX, Lab

pytestmark = pytest.mark.lab

PULLED = f"{CRI_TOOLS}/test-image-1:latest"
CREATE, START, STOP = "POST /containers/create", "POST /containers/ID/start", "POST /containers/ID/stop"
KILL, REMOVE, LOOK = "POST /containers/ID/kill", "DELETE /containers/ID", "GET /containers/ID/json"
EXEC_CREATE, EXEC_START, EXEC_LOOK = "POST /containers/ID/exec", "POST /exec/ID/start", "GET /exec/ID/json"
LIST_IMAGES, IMAGE_LOOK = "GET /images/json", "GET /images/ID/json"
IN_BACKGROUND = ("GET /_ping", "GET /containers/json")  # health and the reconciliation of each minute
READS = [
    "Version",
    "Status",
    "ListPodSandbox",
    "PodSandboxStatus",
    "ListContainers",
    "ContainerStatus",
    "ListImages",
    "ImageStatus",
    "ImageFsInfo",
    "Exec",
    "Attach",
    "PortForward",
    "StopContainer(again)",
    "StopPodSandbox(again)",
    "RemoveContainer(again)",
    "RemovePodSandbox(again)",
]

MUST: dict[str, dict[str, int]] = {
    "RunPodSandbox": {CREATE: 1, START: 1},
    "CreateContainer": {CREATE: 1},
    "StartContainer": {START: 1},
    "ExecSync": {EXEC_CREATE: 1, EXEC_START: 1},
    "UpdateContainerResources": {"POST /containers/ID/update": 1},
    "StopContainer": {STOP: 1},
    "RemoveContainer": {REMOVE: 1},
    "StopPodSandbox with two running containers": {KILL: 1, STOP: 2},
    "RemovePodSandbox with two containers": {REMOVE: 3},
    "PullImage": {"POST /images/create": 1},
    "RemoveImage": {"DELETE /images/ID": 3},  # its tag, its digest, itself
    **{name: {} for name in READS},
}
LOOKS: dict[str, dict[str, int]] = {
    "RunPodSandbox": {LOOK: 1},
    "CreateContainer": {LOOK: 1},
    "StartContainer": {LOOK: 1},
    "ExecSync": {EXEC_LOOK: 2},  # Docker may know the exit code a moment after the end of the output
    "UpdateContainerResources": {LOOK: 2},
    "StopContainer": {LOOK: 2},
    "StopPodSandbox with two running containers": {LOOK: 6},
    "PullImage": {LIST_IMAGES: 2, IMAGE_LOOK: 1},
    "RemoveImage": {LIST_IMAGES: 2},
}


@pytest.fixture(scope="module")
def lab() -> Iterator[Lab]:
    with Lab.start(docker=DEFAULT_VERSION, registry=[PULLED]) as started:
        yield started


class Ledger:
    """The calls of each RPC."""

    def __init__(self, proxy: CountingProxy) -> None:
        self.calls: dict[str, Counter[str]] = {}
        self._proxy = proxy

    @contextmanager
    def entry(self, rpc: str) -> Iterator[None]:
        """Count what Docker is asked while this runs and shortly after: the events it causes must cost no more."""
        self._proxy.reset()
        yield
        self.settle(0.5 if MUST[rpc] else 0.1)
        self.calls[rpc] = Counter(
            {call: count for call, count in self._proxy.counts.items() if call not in IN_BACKGROUND}
        )

    def settle(self, quiet_seconds: float) -> None:
        """Until Docker has not been asked anything for so long."""
        seen, since = self._proxy.counts.total(), time.monotonic()
        while time.monotonic() - since < quiet_seconds:
            time.sleep(0.02)
            if self._proxy.counts.total() != seen:
                seen, since = self._proxy.counts.total(), time.monotonic()


def _mutations(shim: Shim, ledger: Ledger) -> None:
    with ledger.entry("RunPodSandbox"):
        sandbox = shim.run_sandbox()
    with ledger.entry("CreateContainer"):
        container_id = shim.create(sandbox, "exec sleep 1000")
    with ledger.entry("StartContainer"):
        shim.start_container(container_id)
    with ledger.entry("ExecSync"):
        assert shim.exec(container_id, "sh", "-c", "exit 3").exit_code == 3
    change = cri.LinuxContainerResources(cpu_shares=512)
    with ledger.entry("UpdateContainerResources"):
        shim.runtime.UpdateContainerResources(
            cri.UpdateContainerResourcesRequest(container_id=container_id, linux=change)
        )
    _reads(shim, ledger, sandbox[0], container_id)
    for again in ("", "(again)"):
        with ledger.entry(f"StopContainer{again}"):
            shim.runtime.StopContainer(cri.StopContainerRequest(container_id=container_id, timeout=0))
    for again in ("", "(again)"):
        with ledger.entry(f"RemoveContainer{again}"):
            shim.runtime.RemoveContainer(cri.RemoveContainerRequest(container_id=container_id))
    for name in ("one", "two"):
        shim.run(sandbox, "exec sleep 1000", metadata=cri.ContainerMetadata(name=name), log_path=f"{name}/0.log")
    ledger.settle(0.5)  # what their starts cause is no part of the stop
    for what in (" with two running containers", "(again)"):
        with ledger.entry(f"StopPodSandbox{what}"):
            shim.runtime.StopPodSandbox(cri.StopPodSandboxRequest(pod_sandbox_id=sandbox[0]))
    for what in (" with two containers", "(again)"):
        with ledger.entry(f"RemovePodSandbox{what}"):
            shim.runtime.RemovePodSandbox(cri.RemovePodSandboxRequest(pod_sandbox_id=sandbox[0]))


def _reads(shim: Shim, ledger: Ledger, sandbox_id: str, container_id: str) -> None:
    runtime, images = shim.runtime, shim.images
    exec_request = cri.ExecRequest(container_id=container_id, cmd=["true"], stdout=True)
    calls: dict[str, Callable[[], Any]] = {
        "Version": lambda: runtime.Version(cri.VersionRequest()),
        "Status": lambda: runtime.Status(cri.StatusRequest(verbose=True)),
        "ListPodSandbox": lambda: runtime.ListPodSandbox(cri.ListPodSandboxRequest()),
        "PodSandboxStatus": lambda: shim.sandbox_status(sandbox_id),
        "ListContainers": lambda: runtime.ListContainers(cri.ListContainersRequest()),
        "ContainerStatus": lambda: shim.status(container_id),
        "ListImages": lambda: images.ListImages(cri.ListImagesRequest()),
        "ImageStatus": lambda: images.ImageStatus(cri.ImageStatusRequest(image=cri.ImageSpec(image=BUSYBOX))),
        "ImageFsInfo": lambda: images.ImageFsInfo(cri.ImageFsInfoRequest()),
        "Exec": lambda: runtime.Exec(exec_request),
        "Attach": lambda: runtime.Attach(cri.AttachRequest(container_id=container_id, stdout=True)),
        "PortForward": lambda: runtime.PortForward(cri.PortForwardRequest(pod_sandbox_id=sandbox_id)),
    }
    for rpc, call in calls.items():
        with ledger.entry(rpc):
            call()


def _images(shim: Shim, ledger: Ledger) -> None:
    spec = cri.ImageSpec(image=PULLED)
    with ledger.entry("PullImage"):
        shim.images.PullImage(cri.PullImageRequest(image=spec), timeout=60)
    with ledger.entry("RemoveImage"):
        shim.images.RemoveImage(cri.RemoveImageRequest(image=spec), timeout=60)


def test_every_rpc_calls_docker_as_often_as_it_must(shim: Shim, proxy: CountingProxy) -> None:
    ledger = Ledger(proxy)
    ledger.settle(0.5)  # what the start of dockershim causes
    _mutations(shim, ledger)
    _images(shim, ledger)
    assert ledger.calls.keys() == MUST.keys()
    for rpc, calls in ledger.calls.items():
        looks = LOOKS.get(rpc, {})
        assert {call: count for call, count in calls.items() if call not in looks} == MUST[rpc], rpc
        assert all(calls[call] <= most for call, most in looks.items()), (rpc, calls)
