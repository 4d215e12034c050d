"""What the passes over pods work with, and what they remember and answer.

Holds no behaviour: `pod_sync` orders the passes, `plan_runner` acts, `pod_reports` tells.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass, field

from kubelet_py.core.backoff import CRASH_BACKOFF, BackoffEntry, BackoffPolicy
from kubelet_py.core.observed import ObservedPod
from kubelet_py.core.pod_story import PodStories
from kubelet_py.managers.allocations import PodAllocations
from kubelet_py.managers.volumes import VolumeManager
from kubelet_py.sync.container_start import ContainerStarter
from kubelet_py.sync.observer import PodObserver
from kubelet_py.sync.pod_kill import PodKiller
from kubelet_py.sync.pod_resize import PodResizer
from kubelet_py.sync.ports import CgroupKeeper, EventSink, NodeView, PodObjects, Prober, StatusSink
from kubelet_py.sync.remains import Remains


@dataclass(slots=True)
class PodMemory:
    """What a worker knows of its pod that cannot be observed. Losing it costs at most a shorter wait."""

    waiting: dict[str, tuple[str, str]] = field(default_factory=dict)
    crash_backoff: dict[str, BackoffEntry] = field(default_factory=dict)
    termination_messages: dict[str, str] = field(default_factory=dict)
    observed: ObservedPod | None = None  # as the pass that runs has reported it
    seen: ObservedPod | None = None  # as the last look showed it; None while something of it is being stopped
    has_loose_ends: bool = True  # a call was cut off or failed, maybe an earlier agent's: it may still come true
    is_new: bool = True  # nothing was done for the pod yet
    looks: int = 0  # how many observations have begun
    weighed: int = 0  # the newest of them after which it was decided what to do
    mount_backoff: BackoffEntry | None = None  # while its volumes are not there
    failure: tuple[str, str] | None = None
    disruption: tuple[str, str] | None = None


@dataclass(frozen=True, slots=True)
class PassResult:
    """How a syncing pass ended, and when to look again besides the usual re-sync.

    `retry_seconds` follows a failure and may be spread out; `due_seconds` is known: a back-off's end, a deadline.
    """

    is_terminal: bool = False
    retry_seconds: float | None = None
    due_seconds: float | None = None
    error: str = ""


@dataclass(frozen=True, slots=True)
class PodServices:
    """Everything that a pass works with."""

    observer: PodObserver
    starter: ContainerStarter
    killer: PodKiller
    resizer: PodResizer
    remains: Remains
    volumes: VolumeManager
    node: NodeView
    objects: PodObjects
    statuses: StatusSink
    events: EventSink
    cgroups: CgroupKeeper
    allocations: PodAllocations
    prober: Prober
    stories: PodStories
    pod_logs_root: str = "/var/log/pods"
    log_links_root: str = "/var/log/containers"
    crash_policy: BackoffPolicy = CRASH_BACKOFF
    agent_started_at_ns: int = 0
    clock_ns: Callable[[], int] = time.time_ns
    steady_seconds: Callable[[], float] = time.monotonic
    """A clock that nobody sets."""
