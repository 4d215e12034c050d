"""An agent's pod machinery around the fake runtime, without an API server: what the tests of passes stand on."""

import asyncio
import itertools
from collections.abc import Awaitable, Callable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from kubelet_py.api import codec, core_v1
from kubelet_py.api import pod as pods
from kubelet_py.api.pod import PodUid
from kubelet_py.api.quantity import Quantity
from kubelet_py.core.cgroup_rules import CgroupLimits, CgroupSettings, MemoryUsage, compute_pod_limits
from kubelet_py.core.dns import NodeDns
from kubelet_py.core.env import EnvSources
from kubelet_py.core.observed import ObservedContainer, ProbeVerdict
from kubelet_py.core.pleg_diff import PodRecord
from kubelet_py.core.pod_certificates import Credentials, SourceKey
from kubelet_py.core.pod_resources import AnyContainer
from kubelet_py.core.pod_story import PodStories
from kubelet_py.core.security import SecuritySettings
from kubelet_py.core.trust_bundles import TrustBundle
from kubelet_py.core.user_namespaces import IdRange
from kubelet_py.core.volume_payload import TokenAsk
from kubelet_py.errors import ApiUnavailable, SyncError
from kubelet_py.managers.allocations import PodAllocations
from kubelet_py.managers.images import Images, NodeLogins, PodSecrets, PullCredentials
from kubelet_py.managers.user_namespaces import UserNamespaces
from kubelet_py.managers.volumes import VolumeManager, VolumeSettings, VolumeSources
from kubelet_py.sync.container_start import ContainerStarter, LogPlaces
from kubelet_py.sync.lifecycle_hooks import LifecycleHooks
from kubelet_py.sync.observer import PodObserver
from kubelet_py.sync.pod_kill import PodKiller
from kubelet_py.sync.pod_resize import PodResizer
from kubelet_py.sync.pod_services import PassResult, PodMemory, PodServices
from kubelet_py.sync.pod_sync import PodSync
from kubelet_py.sync.remains import Remains
from kubelet_py.sync.start_gate import StartGate
from tests.fakes.runtime import FakeRuntimeClient

START_NS = 1_700_000_000_000_000_000
NS_PER_SECOND = 1_000_000_000
UID = "0a1b2c3d-0000-4000-8000-000000000001"
IMAGE = "registry.example/app:1"


def a_container(name: str = "main", **fields: Any) -> dict[str, Any]:
    """A container as the API server gives it."""
    return {"name": name, "image": IMAGE, "terminationMessagePath": "/dev/termination-log", **fields}


def a_pod(*containers: dict[str, Any], metadata: dict[str, Any] | None = None, **spec: Any) -> core_v1.Pod:
    """The pod web of the namespace shop, with one container unless others are given."""
    return codec.from_builtins(
        core_v1.Pod,
        {
            "metadata": {"name": "web", "namespace": "shop", "uid": UID, **(metadata or {})},
            "spec": {
                "containers": list(containers) or [a_container()],
                "restartPolicy": "Always",
                "terminationGracePeriodSeconds": 30,
                **spec,
            },
        },
    )


class InlineExecutor(ThreadPoolExecutor):
    """Does the work at once: in virtual time a thread would be overtaken by every timer."""

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> "Future[Any]":
        """Done when it returns."""
        done: Future[Any] = Future()
        try:
            done.set_result(fn(*args, **kwargs))
        except BaseException as error:
            done.set_exception(error)
        return done


class Clock:
    """A clock that stands still until it is moved."""

    def __init__(self) -> None:
        self.now_ns = START_NS
        self.set_back_ns = 0

    def __call__(self) -> int:
        return self.now_ns

    def seconds(self) -> float:
        """For what counts in seconds."""
        return self.now_ns / NS_PER_SECOND

    def advance(self, seconds: float) -> None:
        """Time goes by."""
        self.now_ns += int(seconds * NS_PER_SECOND)

    def set_back(self, seconds: float) -> None:
        """Somebody sets it."""
        self.set_back_ns += int(seconds * NS_PER_SECOND)
        self.now_ns -= int(seconds * NS_PER_SECOND)

    def steady_seconds(self) -> float:
        """As if nobody had ever set it."""
        return (self() + self.set_back_ns) / NS_PER_SECOND


class Statuses:
    """A StatusSink that forgets nothing."""

    def __init__(self) -> None:
        self.newest: dict[str, core_v1.PodStatus] = {}
        self.history: list[core_v1.PodStatus] = []
        self.finished: list[str] = []
        self.forgotten: list[str] = []

    def status_of(self, uid: PodUid) -> core_v1.PodStatus | None:
        return self.newest.get(uid)

    def last_said(self, pod: core_v1.Pod) -> core_v1.PodStatus | None:
        return self.newest.get(pods.uid_of(pod)) or pod.status

    def set_status(self, pod: core_v1.Pod, status: core_v1.PodStatus) -> None:
        self.newest[pods.uid_of(pod)] = status
        self.history.append(status)

    def finish(self, uid: PodUid) -> None:
        self.finished.append(uid)

    def forget(self, uid: PodUid) -> None:
        self.forgotten.append(uid)
        self.newest.pop(uid, None)

    @property
    def phases(self) -> list[str | None]:
        """The phases that were reported, each once in a row."""
        return [phase for phase, _ in itertools.groupby(status.phase for status in self.history)]


@dataclass
class Node:
    """A NodeView."""

    problem: str | None = None
    recursive_read_only: bool = False
    dns_error: SyncError | None = None

    def dns(self) -> NodeDns:
        if self.dns_error is not None:
            raise self.dns_error
        return NodeDns()

    def cgroups(self) -> CgroupSettings:
        return CgroupSettings()

    def security(self) -> SecuritySettings:
        return SecuritySettings()

    def default_sysctls(self) -> Mapping[str, str]:
        return {}

    def host_ips(self) -> tuple[str, ...]:
        return ("192.0.2.1",)

    def allocatable(self) -> Mapping[str, Quantity]:
        return {}

    def hosts_file(self) -> str:
        return "127.0.0.1 localhost\n"

    def network_problem(self) -> str | None:
        return self.problem

    def runtime_type(self) -> str:
        return "fake"

    def supports_recursive_read_only(self, runtime_handler: str) -> bool:
        return self.recursive_read_only


@dataclass
class Objects:
    """PodObjects; `error` is what asking for environment sources raises."""

    error: Exception | None = None
    secrets: dict[str, core_v1.Secret] = field(default_factory=dict)
    asked_pod_ips: list[tuple[str, ...]] = field(default_factory=list)
    handler_error: SyncError | None = None
    watched: set[str] = field(default_factory=set)

    async def env_sources(self, pod: core_v1.Pod, container: AnyContainer, pod_ips: tuple[str, ...]) -> EnvSources:
        if self.error is not None:
            raise self.error
        self.asked_pod_ips.append(pod_ips)
        return EnvSources(has_api=bool(self.secrets), pod_ips=pod_ips, secrets=self.secrets)

    async def pull_secrets(self, pod: core_v1.Pod) -> PodSecrets:
        return PodSecrets()

    async def runtime_handler(self, pod: core_v1.Pod) -> str:
        if self.handler_error is not None:
            raise self.handler_error
        return pods.spec_of(pod).runtimeClassName or ""

    def watch_pod(self, pod: core_v1.Pod) -> None:
        self.watched.add(pods.uid_of(pod))

    def forget_pod(self, pod_uid: str) -> None:
        self.watched.discard(pod_uid)


class Sources:
    """VolumeSources: ConfigMaps, of an API server that can be away."""

    def __init__(self) -> None:
        self.config_maps: dict[str, core_v1.ConfigMap] = {}
        self.is_away = False
        self.asked = 0

    async def config_map(self, namespace: str, name: str) -> core_v1.ConfigMap | None:
        self.asked += 1
        if self.is_away:
            raise ApiUnavailable(0, "", "connection refused")
        return self.config_maps.get(name)

    async def secret(self, namespace: str, name: str) -> core_v1.Secret | None:
        raise NotImplementedError

    async def service_account_token(self, ask: TokenAsk) -> str:
        raise NotImplementedError

    async def trust_bundles(self) -> Mapping[str, TrustBundle]:
        raise NotImplementedError

    async def pod_certificate(self, pod_uid: str, key: SourceKey) -> Credentials:
        raise NotImplementedError


@dataclass
class Cgroups:
    """A CgroupKeeper."""

    made: set[str] = field(default_factory=set)
    limits: dict[str, CgroupLimits] = field(default_factory=dict)
    steps: list[CgroupLimits] = field(default_factory=list)
    usage: MemoryUsage | None = None
    refusal: SyncError | None = None
    error: Exception | None = None
    while_orphans_are_looked_for: Callable[[], Awaitable[None]] | None = None

    async def ensure_pod(self, pod: core_v1.Pod, *, keeps_limits: bool = False) -> None:
        if self.error is not None:
            raise self.error
        if not (keeps_limits and pods.uid_of(pod) in self.made):
            self.limits[pods.uid_of(pod)] = compute_pod_limits(pod, CgroupSettings())
        self.made.add(pods.uid_of(pod))

    def limits_of(self, pod_uid: str) -> CgroupLimits:
        return self.limits.get(pod_uid, CgroupLimits())

    async def update_pod(self, pod: core_v1.Pod, step: CgroupLimits, after: CgroupLimits) -> None:
        if self.refusal is not None:
            raise self.refusal
        self.steps.append(step)
        self.limits[pods.uid_of(pod)] = after

    async def memory_usage(self, pod: core_v1.Pod, container_ids: Sequence[str]) -> MemoryUsage | None:
        return self.usage

    async def remove_pod(self, pod: core_v1.Pod) -> None:
        if self.error is not None:
            raise self.error
        self.made.discard(pods.uid_of(pod))

    async def remove_orphans(self, is_known: Callable[[str], bool]) -> None:
        if self.while_orphans_are_looked_for is not None:
            await self.while_orphans_are_looked_for()
        self.made = {uid for uid in self.made if is_known(uid)}


@dataclass
class Prober:
    """A Prober whose verdicts the test writes."""

    found: dict[str, ProbeVerdict] = field(default_factory=dict)
    probed: dict[str, list[str]] = field(default_factory=dict)
    stopping: list[str] = field(default_factory=list)

    def verdicts(self, pod_uid: str) -> Mapping[str, ProbeVerdict]:
        return self.found

    def sync_pod(self, pod: core_v1.Pod, running: Sequence[ObservedContainer], pod_ips: tuple[str, ...]) -> None:
        self.probed[pods.uid_of(pod)] = sorted(container.name for container in running)

    def stop_for_termination(self, pod_uid: str) -> None:
        self.stopping.append(pod_uid)

    def forget_pod(self, pod_uid: str) -> None:
        self.probed.pop(pod_uid, None)


class Rig:
    """The parts, and the agent that `boot` makes anew of what survives it: the runtime and the files."""

    def __init__(
        self, root: Path, clock: Clock | None = None, runtime: type[FakeRuntimeClient] = FakeRuntimeClient
    ) -> None:
        self.root = root
        self.clock = clock or Clock()
        self.fake = runtime(self.clock)
        self.fake.add_image(IMAGE)
        self.logs = root / "logs"
        self.links = root / "links"
        self.node, self.objects, self.cgroups, self.prober = Node(), Objects(), Cgroups(), Prober()
        self.events: list[tuple[str, str, str]] = []
        self.learned: list[PodRecord] = []
        self.statuses = Statuses()
        self.user_namespace_handlers = {""}
        self.sources: VolumeSources | None = None
        self.boot()
        self.volumes.prepare()

    def boot(self) -> None:
        """The agent starts and knows nothing."""
        self.statuses = Statuses()
        self.stories = PodStories()
        self.memory = PodMemory()
        self.volumes = VolumeManager(
            self.root / "kubelet", self.sources, VolumeSettings(make_root_shared=False), self.clock.seconds
        )
        credentials = PullCredentials(self.objects, NodeLogins(self.root, self.root, self.root))
        self.images = Images(self.fake, self.event, credentials, clock=self.clock.seconds)
        self.allocations = PodAllocations(self.root, self.event, self.clock)
        self.allocations.load()
        self.user_namespaces = UserNamespaces(
            self.volumes.dirs, IdRange(65536, 2 * 65536), lambda handler: handler in self.user_namespace_handlers
        )
        self.observer = PodObserver(self.fake, self.learned.append, self.clock)
        hooks = LifecycleHooks(self.fake, self.event, self.pod_ips, self.clock.seconds)
        killer = PodKiller(self.fake, self.event, hooks, self.clock.seconds)
        starter = ContainerStarter(
            self.fake,
            self.observer,
            self.images,
            self.volumes,
            self.node,
            self.objects,
            self.event,
            lambda reason, message: self.events.append(("Node", reason, message)),
            LogPlaces(str(self.logs), str(self.links)),
            hooks,
            killer,
            self.allocations,
            self.user_namespaces,
        )
        self.services = PodServices(
            observer=self.observer,
            starter=starter,
            killer=killer,
            resizer=PodResizer(self.fake, self.cgroups, self.allocations, self.node),
            remains=Remains(self.fake, StartGate()),
            volumes=self.volumes,
            node=self.node,
            objects=self.objects,
            statuses=self.statuses,
            events=self.event,
            cgroups=self.cgroups,
            allocations=self.allocations,
            prober=self.prober,
            stories=self.stories,
            pod_logs_root=str(self.logs),
            log_links_root=str(self.links),
            clock_ns=self.clock,
            steady_seconds=self.clock.steady_seconds,
        )
        self.sync = PodSync(self.services)

    def event(self, pod: core_v1.Pod, event_type: str, reason: str, message: str, container_name: str = "", /) -> None:
        """The EventSink."""
        self.events.append((event_type, reason, message))

    def pod_ips(self, pod: core_v1.Pod) -> tuple[str, ...]:
        """The addresses that were reported last."""
        status = self.statuses.status_of(pods.uid_of(pod))
        return tuple(known.ip for known in (status.podIPs if status is not None else None) or ())

    @property
    def reasons(self) -> list[str]:
        """The reasons of the events so far."""
        return [reason for _, reason, _ in self.events]

    @property
    def status(self) -> core_v1.PodStatus:
        """What was reported last."""
        return self.statuses.history[-1]

    def waiting(self, name: str = "main") -> tuple[str | None, str | None]:
        """Reason and message of a container that waits."""
        status = self.status
        for known in (*(status.initContainerStatuses or ()), *(status.containerStatuses or ())):
            if known.name == name and known.state is not None and known.state.waiting is not None:
                return known.state.waiting.reason, known.state.waiting.message
        return None, None

    def log_directory(self, pod: core_v1.Pod) -> Path:
        """Where the pod's logs are."""
        metadata = pods.metadata_of(pod)
        return self.logs / f"{metadata.namespace}_{metadata.name}_{metadata.uid}"

    def write_logs(self, pod: core_v1.Pod) -> None:
        """What a real runtime leaves: a log file for each run."""
        for container in self.fake.containers.values():
            path = Path(container.log_path)
            if path.is_relative_to(self.log_directory(pod)) and path.parent.is_dir():
                path.touch()


class LoopClock(Clock):
    """The time of the running loop, for tests in virtual time."""

    def __call__(self) -> int:
        return START_NS + int(asyncio.get_running_loop().time() * NS_PER_SECOND)

    def seconds(self) -> float:
        return self() / NS_PER_SECOND


async def sync(rig: Rig, pod: core_v1.Pod, stimulus: str = "test") -> PassResult:
    return await rig.sync.sync_pod(pod, rig.memory, stimulus)


async def settle(rig: Rig, pod: core_v1.Pod, passes: int = 20) -> PassResult:
    """Passes, and the waits between them, until nothing is to be done."""
    for _ in range(passes):
        result = await sync(rig, pod)
        waits = [s for s in (result.retry_seconds, result.due_seconds) if s is not None]
        if not waits or result.is_terminal:
            return result
        rig.clock.advance(min(waits))
    raise AssertionError(f"no rest after {passes} passes: {result}")


def started(rig: Rig, name: str = "main") -> list[int]:
    """Restart counts of the runs of a container, in the order of their creation."""
    runs = sorted((c for c in rig.fake.containers.values() if c.name == name), key=lambda c: c.created_at)
    return [int(c.config.annotations["io.kubernetes.container.restartCount"]) for c in runs]


def touch_file(path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.touch()
