"""What the RPC handlers share: the parts of this process, and the few facts of the node that requests need.

Made once by `app`. Upstream counterpart: the dockerService struct of cri-dockerd. Deliberate difference: it holds the
parts and does nothing itself.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from dockershim.changed_limits import ChangedLimits
from dockershim.checkpoint import Checkpoints
from dockershim.checkpoint_files import CheckpointFiles
from dockershim.engine import DockerEngine
from dockershim.image_volumes import ImageVolumes
from dockershim.logs import ContainerLogs
from dockershim.network import PodNetwork
from dockershim.sandbox_files import SandboxFiles
from dockershim.stats import Statistics
from dockershim.store import Store
from dockershim.store.feeder import Feeder
from dockershim.streaming.certificate import Certificate
from dockershim.tasks import Tasks
from dockershim.translate.sandbox_spec import SandboxContext
from dockershim.translate.security import HostSecurity
from dockershim.translate.wrapping import Wrapping


@dataclass(frozen=True, slots=True)
class NodeSettings:
    """What the operator and the host decide."""

    pause_image: str = "registry.k8s.io/pause:3.10"
    lowest_oom_score: int = -1000
    pull_progress_deadline_seconds: float = 300.0
    missing_capabilities: tuple[str, ...] = ()
    cgroup_root: str = "/sys/fs/cgroup"
    verbose_config: str = "{}"
    streaming_certificate: Certificate | None = None


@dataclass(frozen=True, slots=True)
class Node:
    """The parts."""

    engine: DockerEngine
    store: Store
    feeder: Feeder
    network: PodNetwork
    logs: ContainerLogs
    checkpoints: Checkpoints
    checkpoint_files: CheckpointFiles
    sandbox_files: SandboxFiles
    changed_limits: ChangedLimits
    image_volumes: ImageVolumes
    stats: Statistics
    tasks: Tasks
    settings: NodeSettings
    clock_ns: Callable[[], int]
    """For what is shown and kept."""
    monotonic_ns: Callable[[], int]
    """For what orders observations: it is never set."""
    docker_addresses: dict[str, tuple[str, ...]] = field(default_factory=dict)
    """What Docker's own network gave sandboxes that are being set up, so that the network need not ask again."""

    def host_security(self, seccomp_profile: str | None) -> HostSecurity:
        """What the engine's host can do, with the profile that was read for a request."""
        info = self.feeder.require_info()
        # newer engines leave out by themselves what the host cannot give, and refuse to be told
        missing = self.settings.missing_capabilities if info.api_version <= (1, 41) else ()
        return HostSecurity(info.has_security("apparmor"), seccomp_profile, missing, info.has_security("selinux"))

    def sandbox_context(
        self, image_id: str, seccomp_profile: str | None, user_namespaces_problem: str
    ) -> SandboxContext:
        """What the node adds to a sandbox."""
        info = self.feeder.require_info()
        return SandboxContext(
            image=image_id,
            network_mode=self.network.docker_network_mode,
            publishes_ports=self.network.publishes_ports,
            lowest_oom_score=self.settings.lowest_oom_score,
            systemd_cgroups=info.cgroup_driver == "systemd",
            runtimes=info.runtimes,
            host=self.host_security(seccomp_profile),
            wrapping=Wrapping(info.wrapped_runtimes, user_namespaces_problem),
            api_version=info.api_version,
        )
