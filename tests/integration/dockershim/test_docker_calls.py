"""How often each RPC calls Docker, counted on the wire of both engines: as often as can be reached, and not more.

`ROWS` has the number that a shim on Docker can reach for each RPC, and the calls it is made of. The end of a container
is an event with one look of its own, whoever ends it: what ends by itself shows that, and what an RPC ends costs its
calls and those looks. cri-dockerd's numbers are in docs/dockershim.md.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import pytest

from cri_proto import runtime_v1 as cri
from tests.integration.dockershim.counting_proxy import CountingProxy
from tests.integration.dockershim.harness import Shim, eventually
from tests.integration.dockershim.test_streaming import crictl, echo, forwarding
from tests.lab.engines.docker import VERSIONS
from tests.lab.images.catalog import CRI_TOOLS
from tests.lab.lab import BUSYBOX, Lab

pytestmark = pytest.mark.lab

PULLED = f"{CRI_TOOLS}/test-image-1:latest"
CREATE, START, STOP = "POST /containers/create", "POST /containers/ID/start", "POST /containers/ID/stop"
KILL, REMOVE, LOOK = "POST /containers/ID/kill", "DELETE /containers/ID", "GET /containers/ID/json"
EXEC_CREATE, EXEC_START, EXEC_LOOK = "POST /containers/ID/exec", "POST /exec/ID/start", "GET /exec/ID/json"
PULL, LIST_IMAGES, IMAGE_LOOK = "POST /images/create", "GET /images/json", "GET /images/ID/json"
PING, VERSION = "GET /_ping", "GET /version"  # health, each minute a deeper look
LIST_CONTAINERS = "GET /containers/json"  # mostly the comparison of each minute
PORT = 18180


@dataclass(frozen=True)
class Row:
    """`reachable` is how many calls one of this RPC may make, and `calls` which it must."""

    reachable: int
    calls: Mapping[str, int] = field(default_factory=dict)
    rather_not: str = ""
    """The call that makes up the difference between the two, for when an event comes late."""
    ends: int = 0
    """So many containers end, each with a look that belongs to its event."""

    def __post_init__(self) -> None:
        assert self.reachable == sum(self.calls.values()) + bool(self.rather_not)


ROWS: dict[str, Row] = {
    "RunPodSandbox": Row(3, {CREATE: 1, START: 1, LOOK: 1}),
    "StopPodSandbox with 2 running containers": Row(1 + 2, {KILL: 1, STOP: 2}, ends=2),
    "StopPodSandbox again": Row(0),
    "RemovePodSandbox with 2 containers": Row(1 + 2, {REMOVE: 3}),
    "RemovePodSandbox again": Row(0),
    "PodSandboxStatus": Row(0),
    "CreateContainer": Row(1, {CREATE: 1}),
    "StartContainer": Row(1 + 1, {START: 1, LOOK: 1}),
    "StopContainer": Row(1, {STOP: 1}, ends=1),
    "StopContainer of one that has ended": Row(0),
    "a container ends by itself": Row(0, ends=1),
    "RemoveContainer": Row(1, {REMOVE: 1}),
    "RemoveContainer again": Row(0),
    "ContainerStatus": Row(0),
    "ListContainers": Row(0),
    "ListPodSandbox": Row(0),
    "ContainerStats": Row(0),
    "ListContainerStats": Row(0),
    "PodSandboxStats": Row(0),
    "ListImages": Row(0),
    "ImageStatus": Row(0),
    "PullImage": Row(2, {PULL: 1, IMAGE_LOOK: 1}),
    "PullImage again": Row(2, {PULL: 1, IMAGE_LOOK: 1}),
    "ImageFsInfo": Row(0),  # one for an image event would do as well
    "ExecSync": Row(3, {EXEC_CREATE: 1, EXEC_START: 1}, rather_not=EXEC_LOOK),
    "Exec": Row(0),
    "Exec with its streams": Row(3, {EXEC_CREATE: 1, EXEC_START: 1}, rather_not=EXEC_LOOK),
    "Attach": Row(0),
    "Attach with its streams": Row(1, {"POST /containers/ID/attach": 1}, ends=1),
    "PortForward": Row(0),
    "PortForward with a connection": Row(0),
    # of these nobody says what can be reached
    "Version": Row(0),
    "Status": Row(0),
    "UpdateContainerResources": Row(2, {"POST /containers/ID/update": 1, LOOK: 1}),
    # its tag, its digest, itself; before them the containers, after them the images
    "RemoveImage": Row(5, {LIST_CONTAINERS: 1, "DELETE /images/ID": 3, LIST_IMAGES: 1}),
}


@pytest.fixture(scope="module", params=VERSIONS)
def lab(request: pytest.FixtureRequest) -> Iterator[Lab]:
    with Lab.start(docker=request.param, registry=[PULLED]) as started:
        yield started


class Ledger:
    """The calls of each RPC."""

    def __init__(self, proxy: CountingProxy) -> None:
        self.calls: dict[str, Counter[str]] = {}
        self.proxy = proxy
        self._compared = 0

    @contextmanager
    def entry(self, rpc: str) -> Iterator[None]:
        """Count what Docker is asked while this runs and shortly after: the events it causes must cost no more."""
        self.proxy.reset()
        yield
        self.proxy.settle(0.5 if ROWS[rpc].calls or ROWS[rpc].ends else 0.1)
        calls = Counter(self.proxy.counts)
        own = min(ROWS[rpc].calls.get(LIST_CONTAINERS, 0), calls[LIST_CONTAINERS])
        self._compared += calls[LIST_CONTAINERS] - own
        calls[LIST_CONTAINERS] = own
        for of_the_node in (PING, VERSION):
            calls.pop(of_the_node, None)
        both = min(self._compared, calls[LIST_IMAGES])  # the comparison of each minute lists the images, too
        self._compared -= both
        calls[LIST_IMAGES] -= both
        self.calls[rpc] = +calls


def _mutations(lab: Lab, shim: Shim, ledger: Ledger) -> None:
    runtime, exited = shim.runtime, cri.ContainerState.CONTAINER_EXITED
    with ledger.entry("RunPodSandbox"):
        sandbox = shim.run_sandbox()
    with ledger.entry("CreateContainer"):
        container_id = shim.create(sandbox, "exec sleep 1000")
    assert shim.status(container_id).state == cri.ContainerState.CONTAINER_CREATED
    with ledger.entry("StartContainer"):
        shim.start_container(container_id)
    with ledger.entry("ExecSync"):
        assert shim.exec(container_id, "sh", "-c", "exit 3").exit_code == 3
    change = cri.LinuxContainerResources(cpu_shares=512)
    with ledger.entry("UpdateContainerResources"):
        runtime.UpdateContainerResources(cri.UpdateContainerResourcesRequest(container_id=container_id, linux=change))
    _reads(shim, ledger, sandbox[0], container_id)
    _streams(lab, shim, ledger, sandbox, container_id)
    for rpc in ("StopContainer", "StopContainer of one that has ended"):
        with ledger.entry(rpc):
            runtime.StopContainer(cri.StopContainerRequest(container_id=container_id, timeout=0))
            status = shim.status(container_id)
            assert (status.state, status.exit_code, status.reason) in [(exited, code, "Error") for code in (137, 143)]
    for rpc in ("RemoveContainer", "RemoveContainer again"):
        with ledger.entry(rpc):
            runtime.RemoveContainer(cri.RemoveContainerRequest(container_id=container_id))
    short = shim.run(sandbox, "read line", stdin=True, stdin_once=True, metadata=cri.ContainerMetadata(name="short"))
    ledger.proxy.settle()
    with ledger.entry("a container ends by itself"):
        lab.docker.client("kill", short)  # nobody told dockershim
        shim.wait_state(short, exited)
    runtime.RemoveContainer(cri.RemoveContainerRequest(container_id=short))
    for name in ("one", "two"):
        shim.run(sandbox, "exec sleep 1000", metadata=cri.ContainerMetadata(name=name), log_path=f"{name}/0.log")
    ledger.proxy.settle()  # what their starts cause is no part of the stop
    for rpc in ("StopPodSandbox with 2 running containers", "StopPodSandbox again"):
        with ledger.entry(rpc):
            runtime.StopPodSandbox(cri.StopPodSandboxRequest(pod_sandbox_id=sandbox[0]))
            assert shim.sandbox_status(sandbox[0]).state == cri.PodSandboxState.SANDBOX_NOTREADY
    for rpc in ("RemovePodSandbox with 2 containers", "RemovePodSandbox again"):
        with ledger.entry(rpc):
            runtime.RemovePodSandbox(cri.RemovePodSandboxRequest(pod_sandbox_id=sandbox[0]))


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
        "ContainerStats": lambda: runtime.ContainerStats(cri.ContainerStatsRequest(container_id=container_id)),
        "ListContainerStats": lambda: runtime.ListContainerStats(cri.ListContainerStatsRequest()),
        "PodSandboxStats": lambda: runtime.PodSandboxStats(cri.PodSandboxStatsRequest(pod_sandbox_id=sandbox_id)),
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


def _streams(
    lab: Lab, shim: Shim, ledger: Ledger, sandbox: tuple[str, cri.PodSandboxConfig], container_id: str
) -> None:
    with ledger.entry("Exec with its streams"):
        assert crictl(lab, shim, "exec", container_id, "echo", "said").stdout == b"said\n"
    name = cri.ContainerMetadata(name="asks")
    asks = shim.run(sandbox, "read line; echo got $line", stdin=True, stdin_once=True, metadata=name)
    serves = shim.run(sandbox, "nc -ll -p 8080 -e cat", metadata=cri.ContainerMetadata(name="serves"))
    eventually(lambda: b":8080 " in shim.exec(serves, "netstat", "-ltn").stdout)
    ledger.proxy.settle()
    with ledger.entry("Attach with its streams"):
        assert b"got it" in crictl(lab, shim, "attach", "-i", asks, data=b"it\n").stdout
        shim.wait_state(asks, cri.ContainerState.CONTAINER_EXITED)  # the look at its end belongs here
    with ledger.entry("PortForward with a connection"), forwarding(lab, shim, "spdy", sandbox[0], f"{PORT}:8080"):
        assert echo(lab, PORT, b"there and back") == b"there and back"
    for each in (asks, serves):
        shim.runtime.StopContainer(cri.StopContainerRequest(container_id=each, timeout=0))
        shim.runtime.RemoveContainer(cri.RemoveContainerRequest(container_id=each))
    ledger.proxy.settle()


def _images(shim: Shim, ledger: Ledger) -> None:
    spec = cri.ImageSpec(image=PULLED)
    for rpc in ("PullImage", "PullImage again"):
        with ledger.entry(rpc):
            pulled = shim.images.PullImage(cri.PullImageRequest(image=spec), timeout=60)
            found = shim.images.ImageStatus(cri.ImageStatusRequest(image=spec)).image
            assert (found.id, list(found.repo_tags)) == (pulled.image_ref, [PULLED])
    with ledger.entry("RemoveImage"):
        shim.images.RemoveImage(cri.RemoveImageRequest(image=spec), timeout=60)


def test_every_rpc_calls_docker_as_often_as_it_must(lab: Lab, shim: Shim, proxy: CountingProxy) -> None:
    ledger = Ledger(proxy)
    ledger.proxy.settle()  # what the start of dockershim causes
    _mutations(lab, shim, ledger)
    _images(shim, ledger)
    assert ledger.calls.keys() == ROWS.keys()
    wrong = {}
    for rpc, row in ROWS.items():
        calls = ledger.calls[rpc]
        must = Counter(row.calls) + Counter({LOOK: row.ends})
        more = Counter({row.rather_not: 1}) if row.rather_not else Counter[str]()
        print(f"{rpc}: {calls.total() - row.ends} of {row.reachable}, {row.ends} of ends; {dict(calls)}")
        if not must <= calls <= must + more:
            wrong[rpc] = dict(calls)
    assert wrong == {}
