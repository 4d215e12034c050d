"""The runtimes that every test of the contract runs against."""

import asyncio
import contextlib
import itertools
import os
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from cri_proto import runtime_v1 as cri
from kubelet_py.api.pod import CONTAINER_NAME_LABEL, POD_NAME_LABEL, POD_NAMESPACE_LABEL, POD_UID_LABEL
from kubelet_py.cri import RuntimeClient, connect
from kubelet_py.errors import RuntimeNotFound
from tests.fakes.runtime import FakeRuntimeClient
from tests.fakes.runtime_server import serving
from tests.integration.dockershim.harness import Shim
from tests.lab.lab import BUSYBOX, PAUSE, Lab

SLEEP = ("sleep", "1000")
FAILS = ("sh", "-c", "exit 3")
SUCCEEDS = ("true",)
STUBBORN = ("sh", "-c", "trap '' TERM; echo deaf; while true; do sleep 0.1; done")
REAL = ("containerd", "dockershim")

_numbers = itertools.count()


@dataclass
class Runtime:
    """A runtime, and pods in it."""

    client: RuntimeClient
    kind: str
    logs: Path
    made: list[str] = field(default_factory=list)

    def sandbox_config(self, attempt: int = 0) -> cri.PodSandboxConfig:
        """A pod that nobody has seen before."""
        number = next(_numbers)
        uid, name = f"contract-{os.getpid()}-{number}", f"pod-{number}"
        return cri.PodSandboxConfig(
            metadata=cri.PodSandboxMetadata(name=name, namespace="contract", uid=uid, attempt=attempt),
            hostname=name,
            log_directory=str(self.logs / uid),
            labels={POD_NAME_LABEL: name, POD_NAMESPACE_LABEL: "contract", POD_UID_LABEL: uid},
            annotations={"example.com/note": "kept"},
        )

    async def run_sandbox(self, config: cri.PodSandboxConfig | None = None) -> tuple[str, cri.PodSandboxConfig]:
        """A ready sandbox."""
        config = config or self.sandbox_config()
        os.makedirs(config.log_directory, exist_ok=True)
        sandbox_id = await self.client.run_pod_sandbox(config, "")
        self.made.append(sandbox_id)
        return sandbox_id, config

    def container_config(
        self, sandbox: tuple[str, cri.PodSandboxConfig], command: tuple[str, ...] = SLEEP, name: str = "main"
    ) -> cri.ContainerConfig:
        """A container of the pod."""
        labels = {**sandbox[1].labels, CONTAINER_NAME_LABEL: name}
        return cri.ContainerConfig(
            metadata=cri.ContainerMetadata(name=name),
            image=cri.ImageSpec(image=BUSYBOX),
            command=list(command),
            labels=labels,
            annotations={"example.com/restart": "7"},
            log_path=f"{name}.log",
        )

    async def create(
        self, sandbox: tuple[str, cri.PodSandboxConfig], command: tuple[str, ...] = SLEEP, name: str = "main"
    ) -> str:
        """A container that was not started."""
        return await self.client.create_container(sandbox[0], self.container_config(sandbox, command, name), sandbox[1])

    async def run(
        self, sandbox: tuple[str, cri.PodSandboxConfig], command: tuple[str, ...] = SLEEP, name: str = "main"
    ) -> str:
        """A started container."""
        container_id = await self.create(sandbox, command, name)
        await self.client.start_container(container_id)
        return container_id

    async def run_stubborn(self) -> str:
        """A started container that does not hear SIGTERM any more."""
        sandbox = await self.run_sandbox()
        container_id = await self.run(sandbox, STUBBORN)
        log = Path(sandbox[1].log_directory) / "main.log"
        async with asyncio.timeout(30):
            while self.kind in REAL and not (  # noqa: ASYNC110 # nobody tells of a container's lines
                log.exists() and b"deaf" in log.read_bytes()
            ):
                await asyncio.sleep(0.01)
        return container_id

    async def ended(self, container_id: str) -> cri.ContainerStatus:
        """Its status as soon as it is over."""
        async with asyncio.timeout(30):
            while (  # noqa: ASYNC110 # a runtime without events can only be asked
                status := await self.client.container_status(container_id)
            ).state != cri.CONTAINER_EXITED:
                await asyncio.sleep(0.05)
        return status

    async def remove_all(self) -> None:
        """Nothing for the next test."""
        for sandbox_id in self.made:
            for call in (self.client.stop_pod_sandbox, self.client.remove_pod_sandbox):
                with contextlib.suppress(RuntimeNotFound):  # the test removed it; containerd says so, others do not
                    await call(sandbox_id)


Open = Callable[[AsyncExitStack], Awaitable[RuntimeClient]]


@pytest.fixture(scope="package")
def containerd() -> Iterator[Lab]:
    with Lab.start(containerd="1.6", registry=[PAUSE, BUSYBOX]) as lab:
        yield lab


@pytest.fixture(scope="package")
def shim() -> Iterator[Shim]:
    with Lab.start(docker="20.10", registry=[PAUSE, BUSYBOX]) as lab:
        started = Shim(lab)
        yield started
        started.stop()


def fake_runtime() -> FakeRuntimeClient:
    """The fake with what the tests' commands do."""
    fake = FakeRuntimeClient()
    fake.add_image(PAUSE)
    fake.add_image(BUSYBOX)
    fake.programs = {FAILS: 3, SUCCEEDS: 0}
    fake.stubborn_commands = {STUBBORN}
    fake.exec_hangs = {SLEEP}
    fake.exec_results = {("sh", "-c", "echo out; echo err >&2; exit 4"): (b"out\n", b"err\n", 4)}
    return fake


@pytest.fixture(params=["fake", "grpc", *(pytest.param(k, marks=pytest.mark.lab) for k in REAL)])
async def runtime(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Runtime]:
    """The runtime under test."""
    kind = request.param
    async with AsyncExitStack() as stack:
        client: RuntimeClient = fake_runtime()
        logs = tmp_path
        if kind == "grpc":
            client = connect(await stack.enter_async_context(serving(fake_runtime(), tmp_path / "cri.sock")))
        elif kind == "containerd":
            lab: Lab = request.getfixturevalue("containerd")
            client, logs = connect(f"unix://{lab.containerd_socket}"), lab.root / "pod-logs"
        elif kind == "dockershim":
            shim: Shim = request.getfixturevalue("shim")
            client, logs = connect(f"unix://{shim.socket}"), shim.lab.root / "pod-logs"
        stack.push_async_callback(client.close)
        subject = Runtime(client, kind, logs)
        yield subject
        await subject.remove_all()
