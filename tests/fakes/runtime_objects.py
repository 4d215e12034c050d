"""Sandboxes, containers and faults of the fake runtime, and the messages that show them."""

import asyncio
from dataclasses import dataclass, field

from cri_proto import runtime_v1 as cri
from kubelet_py.api.pod import CONTAINER_NAME_LABEL


@dataclass
class Gate:
    """Where a call hangs until it is let go. `reached` is set when one has come so far."""

    reached: asyncio.Event = field(default_factory=asyncio.Event)
    opened: asyncio.Event = field(default_factory=asyncio.Event)

    def release(self) -> None:
        """Lets every call through."""
        self.opened.set()


@dataclass
class Fault:
    """What goes wrong with a call, when and how often."""

    call: str
    error: Exception | None
    skip: int
    times: int | None
    after: bool
    gate: Gate | None = None


@dataclass(frozen=True)
class Call:
    """One call that was made; `about` is the id or name that it concerned."""

    name: str
    about: str


@dataclass
class FakeSandbox:
    """One sandbox."""

    id: str
    config: cri.PodSandboxConfig
    runtime_handler: str
    created_at: int
    ip: str
    ready: bool = True

    @property
    def uid(self) -> str:
        """The pod's."""
        return self.config.metadata.uid


@dataclass
class FakeContainer:
    """One container. `stops_at` counts what stop calls were told."""

    id: str
    sandbox_id: str
    config: cri.ContainerConfig
    log_path: str
    created_at: int
    image_ref: str
    state: int = cri.CONTAINER_CREATED
    started_at: int = 0
    finished_at: int = 0
    exit_code: int = 0
    reason: str = ""
    grace_periods: list[int] = field(default_factory=list)
    ended: asyncio.Event = field(default_factory=asyncio.Event)

    @property
    def name(self) -> str:
        """Its name in the pod."""
        return self.config.labels.get(CONTAINER_NAME_LABEL) or self.config.metadata.name

    @property
    def runs(self) -> bool:
        """It runs now."""
        return self.state == cri.CONTAINER_RUNNING


async def strike(fault: Fault) -> None:
    """Lets it happen."""
    if fault.gate is not None:
        fault.gate.reached.set()
        await fault.gate.opened.wait()
    if fault.error is not None:
        raise fault.error


def sandbox_state(sandbox: FakeSandbox) -> cri.PodSandboxState:
    """The state on the wire."""
    return cri.SANDBOX_READY if sandbox.ready else cri.SANDBOX_NOTREADY


def container_state(container: FakeContainer) -> cri.ContainerState:
    """The state on the wire."""
    for state in (cri.CONTAINER_CREATED, cri.CONTAINER_RUNNING, cri.CONTAINER_EXITED):
        if container.state == state:
            return state
    return cri.CONTAINER_UNKNOWN


def container_status(container: FakeContainer) -> cri.ContainerStatus:
    """ContainerStatus of it."""
    return cri.ContainerStatus(
        id=container.id,
        metadata=container.config.metadata,
        state=container_state(container),
        created_at=container.created_at,
        started_at=container.started_at,
        finished_at=container.finished_at,
        exit_code=container.exit_code,
        image=container.config.image,
        image_ref=container.image_ref,
        reason=container.reason,
        labels=container.config.labels,
        annotations=container.config.annotations,
        mounts=container.config.mounts,
        log_path=container.log_path,
    )


def sandbox_status(sandbox: FakeSandbox) -> cri.PodSandboxStatus:
    """PodSandboxStatus of it."""
    options = sandbox.config.linux.security_context.namespace_options
    status = cri.PodSandboxStatus(
        id=sandbox.id,
        metadata=sandbox.config.metadata,
        state=sandbox_state(sandbox),
        created_at=sandbox.created_at,
        labels=sandbox.config.labels,
        annotations=sandbox.config.annotations,
        runtime_handler=sandbox.runtime_handler,
        linux=cri.LinuxPodSandboxStatus(namespaces=cri.Namespace(options=options)),
    )
    if sandbox.ready:
        status.network.ip = sandbox.ip
    return status
