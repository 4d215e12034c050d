"""What the runtime shows of one pod, frozen at one moment.

`sync/runtime.py` makes these from CRI answers (`core.cri_observation` translates); all decisions about a pod read this
and never the runtime. Times are nanoseconds since the epoch, 0 when it has not come to that.

Upstream counterpart: pkg/kubelet/container/runtime.go (PodStatus, Status).
"""

from dataclasses import dataclass, field
from enum import StrEnum

from cri_proto import runtime_v1 as cri

NS_PER_SECOND = 1_000_000_000


class ContainerState(StrEnum):
    """The states of CRI, under short names."""

    CREATED = "created"
    RUNNING = "running"
    EXITED = "exited"
    UNKNOWN = "unknown"


class ProbeResult(StrEnum):
    """What the last probes of one kind came to, after thresholds."""

    SUCCESS = "success"
    FAILURE = "failure"
    UNKNOWN = "unknown"


@dataclass(frozen=True, slots=True)
class ProbeVerdict:
    """The results that hold for one container id; None where no probe of that kind has a result yet."""

    startup: ProbeResult | None = None
    liveness: ProbeResult | None = None
    readiness: ProbeResult | None = None


NO_VERDICT = ProbeVerdict()


@dataclass(frozen=True, slots=True)
class ObservedSandbox:
    """One sandbox of a pod."""

    id: str
    attempt: int
    ready: bool
    created_at_ns: int
    ips: tuple[str, ...] = ()
    host_network: bool = False
    runtime_handler: str = ""


@dataclass(frozen=True, slots=True)
class ObservedContainer:
    """One container of a pod, running or dead.

    `hash`, `restart_count`, `termination_message_path`, `termination_message_policy`, `grace_period_seconds` and the
    JSON of the preStop hook and the ports come from the annotations that this agent (or the Go kubelet) wrote at
    creation.
    """

    id: str
    name: str
    sandbox_id: str
    state: ContainerState
    attempt: int = 0
    created_at_ns: int = 0
    started_at_ns: int = 0
    finished_at_ns: int = 0
    exit_code: int = 0
    reason: str = ""
    message: str = ""
    image: str = ""
    image_ref: str = ""
    image_id: str = ""
    hash: str = ""
    restart_count: int = 0
    log_path: str = ""
    termination_message_path: str = ""
    termination_message_policy: str = ""
    grace_period_seconds: int | None = None
    pre_stop_json: str = ""
    ports_json: str = ""
    resources: cri.LinuxContainerResources | None = field(default=None, compare=False)
    user: cri.LinuxContainerUser | None = field(default=None, compare=False)
    mounts: tuple[cri.Mount, ...] = field(default=(), compare=False)


@dataclass(frozen=True, slots=True)
class ObservedPod:
    """All sandboxes and containers of one pod UID, newest first."""

    uid: str
    name: str = ""
    namespace: str = ""
    sandboxes: tuple[ObservedSandbox, ...] = ()
    containers: tuple[ObservedContainer, ...] = ()
    observed_at_ns: int = 0

    def newest(self, container_name: str) -> ObservedContainer | None:
        """The newest container of that name."""
        return next((c for c in self.containers if c.name == container_name), None)

    def named(self, container_name: str) -> tuple[ObservedContainer, ...]:
        """All containers of that name, newest first."""
        return tuple(c for c in self.containers if c.name == container_name)

    def has_exits_since(self, before: "ObservedPod") -> bool:
        """Whether a container has ended by now of which it was not seen before."""
        known = {c.id for c in before.containers if c.state is ContainerState.EXITED}
        return any(c.state is ContainerState.EXITED and c.id not in known for c in self.containers)

    @property
    def running(self) -> tuple[ObservedContainer, ...]:
        """The containers that run."""
        return tuple(c for c in self.containers if c.state is ContainerState.RUNNING)

    @property
    def alive(self) -> tuple[ObservedContainer, ...]:
        """The containers that run or may run: a stop must reach these."""
        return tuple(c for c in self.containers if c.state in (ContainerState.RUNNING, ContainerState.UNKNOWN))

    @property
    def newest_sandbox(self) -> ObservedSandbox | None:
        """The newest sandbox, ready or not."""
        return self.sandboxes[0] if self.sandboxes else None

    @property
    def ready_sandboxes(self) -> tuple[ObservedSandbox, ...]:
        """The sandboxes that are ready."""
        return tuple(s for s in self.sandboxes if s.ready)
