"""A runtime in memory for one pod: it obeys actions, changes by itself, and minds the promises of Kubernetes.

`World` is both shell and runtime of a kubelet: it keeps what survives the agent (sandboxes, containers, log files) and
what does not (`Memory`). A broken promise raises BrokenPromise at the action that breaks it.
"""

from collections.abc import Iterable
from dataclasses import dataclass, field, replace

from kubelet_py.api import core_v1
from kubelet_py.api.pod import containers_of, init_containers_of, is_sidecar, spec_of
from kubelet_py.core.actions import (
    Action,
    BackOff,
    ContainerKind,
    CreateSandbox,
    KillContainer,
    KillPod,
    RemoveContainer,
    ResizePod,
    StartContainer,
)
from kubelet_py.core.backoff import CRASH_BACKOFF, BackoffEntry, next_entry
from kubelet_py.core.container_hash import compute_container_hash
from kubelet_py.core.gc_rules import GcContainer, GcPolicy, GcSandbox, dead_containers, dead_sandboxes
from kubelet_py.core.observed import (
    NO_VERDICT,
    ContainerState,
    ObservedContainer,
    ObservedPod,
    ObservedSandbox,
    ProbeResult,
    ProbeVerdict,
)
from kubelet_py.core.pod_actions import PodContext, compute_pod_actions
from kubelet_py.core.pod_allocation import Amounts, PodResources, amounts_of, requirements_of
from tests.sim.pods import CREATED, EXITED, NOW_NS, RUNNING, SECOND, UNKNOWN

KILLED = 137


class BrokenPromise(AssertionError):
    """The plan asked for something that may never happen."""


@dataclass
class Memory:
    """What dies with the agent."""

    backoff: dict[str, BackoffEntry] = field(default_factory=dict)


@dataclass
class World:
    """The runtime and the node around one pod."""

    pod: core_v1.Pod
    now_ns: int = NOW_NS
    sandboxes: list[ObservedSandbox] = field(default_factory=list)
    containers: list[ObservedContainer] = field(default_factory=list)
    log_counts: dict[str, int] = field(default_factory=dict)
    memory: Memory = field(default_factory=Memory)
    verdicts: dict[str, ProbeVerdict] = field(default_factory=dict)  # what probes find, and would find again
    actuated: PodResources = field(default_factory=PodResources)  # a file: it outlives the agent
    sizes: dict[str, Amounts] = field(default_factory=dict)  # what the runtime limits each container to
    fail_next_start: bool = False
    starts: dict[str, int] = field(default_factory=dict)
    _through: set[tuple[str, str]] = field(default_factory=set)
    _ids: int = 0

    # What the agent sees

    def observe(self) -> ObservedPod:
        """The pod, newest first."""
        return ObservedPod(
            uid="u-1",
            sandboxes=tuple(reversed(self.sandboxes)),
            containers=tuple(reversed(self.containers)),
            observed_at_ns=self.now_ns,
        )

    def context(self) -> PodContext:
        """The agent's memory as the decision wants it."""
        return PodContext(
            now_ns=self.now_ns,
            crash_backoff=dict(self.memory.backoff),
            probe_results=dict(self.verdicts),
            logged_restart_counts=dict(self.log_counts),
            actuated=self.actuated,
        )

    def plan(self) -> tuple[Action, ...]:
        """The decision; made twice, it must be the same."""
        actions = compute_pod_actions(self.pod, self.observe(), self.context())
        if actions != compute_pod_actions(self.pod, self.observe(), self.context()):
            raise BrokenPromise("the same input gave another plan")
        return actions

    def forget(self) -> None:
        """The agent is killed and starts again."""
        self.memory = Memory()

    # What actions do

    def run(self, actions: Iterable[Action]) -> None:
        """Runs a plan in order, as the shell does: a failure stops it where it says so."""
        for action in actions:
            if not self.execute(action) and action.stops_plan:
                return

    def execute(self, action: Action) -> bool:
        """Obeys one action; False when it failed."""
        self.now_ns += SECOND // 100
        match action:
            case KillPod():
                for container in self.containers:
                    if container.state in (RUNNING, UNKNOWN):
                        self._change(container, self._ended(container, KILLED))
                self.sandboxes = [replace(s, ready=False) for s in self.sandboxes]
            case KillContainer():
                container = self._find(action.container_id)
                if container.state in (RUNNING, UNKNOWN):
                    self._change(container, self._ended(container, KILLED))
            case RemoveContainer():
                container = self._find(action.container_id)
                self._promise(container.state is not RUNNING, f"{container.name} is removed while it runs")
                self.containers.remove(container)
                if not action.keep_log and self.log_counts.get(container.name) == container.restart_count + 1:
                    self.log_counts.pop(container.name, None)
            case CreateSandbox():
                self._create_sandbox(action)
            case ResizePod():
                for update in action.updates:
                    self._promise(self._find(update.container_id).state is RUNNING, "a resize of what does not run")
                    self._promise(update.current != update.wanted, "a resize to the same size")
                    self._set_size(update.container_id, update.container_name, update.wanted)
                self.actuated = replace(self.actuated, pod_level=spec_of(self.pod).resources)
            case StartContainer():
                return self._start(action)
            case BackOff():
                self._promise(action.remaining_seconds > 0, "a wait of no time")
        return True

    def _create_sandbox(self, action: CreateSandbox) -> None:
        self._promise(not any(s.ready for s in self.sandboxes), "a second ready sandbox")
        self._promise(all(action.attempt > s.attempt for s in self.sandboxes), "an attempt number twice")
        self._ids += 1
        ips = () if spec_of(self.pod).hostNetwork else ("10.0.0.9",)
        self.sandboxes.append(
            ObservedSandbox(
                f"s{self._ids}", action.attempt, True, self.now_ns, ips, bool(spec_of(self.pod).hostNetwork)
            )
        )

    def _start(self, action: StartContainer) -> bool:
        name = action.container_name
        ready = [s for s in self.sandboxes if s.ready]
        self._promise(len(ready) == 1, f"{name} starts without exactly one ready sandbox")
        sandbox_id = ready[0].id
        self.containers = [c for c in self.containers if c.id not in action.leftovers]
        self._promise(
            not any(c.name == name and c.state is CREATED for c in self.containers),
            f"a copy of {name} that was never started is left",
        )
        self._promise(
            not any(c.name == name and c.state in (RUNNING, UNKNOWN) for c in self.containers),
            f"a second live copy of {name}",
        )
        self._mind_order(action, sandbox_id)
        spec = next(c for c in (*init_containers_of(self.pod), *containers_of(self.pod)) if c.name == name)
        counts = [c.restart_count for c in self.containers if c.name == name]
        self._promise(all(action.restart_count > count for count in counts), f"a restart count of {name} twice")
        if action.after_exit_at_ns is not None:
            seconds = self.now_ns / SECOND
            self.memory.backoff[action.backoff_key] = next_entry(
                self.memory.backoff.get(action.backoff_key),
                CRASH_BACKOFF,
                seconds,
                since_seconds=action.after_exit_at_ns / SECOND,
            )
        self._ids += 1
        failed, self.fail_next_start = self.fail_next_start, False
        self.containers.append(
            ObservedContainer(
                id=f"c{self._ids}",
                name=name,
                sandbox_id=sandbox_id,
                state=CREATED if failed else RUNNING,
                created_at_ns=self.now_ns,
                started_at_ns=0 if failed else self.now_ns,
                image=spec.image or "",
                hash=compute_container_hash(spec),
                restart_count=action.restart_count,
            )
        )
        self._set_size(f"c{self._ids}", name, amounts_of(spec.resources))
        self.log_counts[name] = action.restart_count + 1
        if not failed:
            self.starts[name] = self.starts.get(name, 0) + 1
            if is_sidecar(spec) and spec.startupProbe is None:
                self._through.add((sandbox_id, name))
        return not failed

    def _set_size(self, container_id: str, name: str, amounts: Amounts) -> None:
        self.sizes[container_id] = amounts
        self.actuated = replace(self.actuated, containers={**self.actuated.containers, name: requirements_of(amounts)})

    def _mind_order(self, action: StartContainer, sandbox_id: str) -> None:
        for container in init_containers_of(self.pod):
            if action.kind is ContainerKind.INIT and container.name == action.container_name:
                return
            self._promise(
                (sandbox_id, container.name) in self._through,
                f"{action.container_name} starts before {container.name} is through",
            )

    def _promise(self, holds: bool, complaint: str) -> None:
        if not holds:
            raise BrokenPromise(f"{complaint}; the pod: {self.observe()}")

    # What happens by itself

    def exit(self, container: ObservedContainer, exit_code: int) -> None:
        """A running container ends."""
        if container.state is RUNNING:
            spec = next((c for c in init_containers_of(self.pod) if c.name == container.name), None)
            if spec is not None and not is_sidecar(spec) and exit_code == 0:
                self._through.add((container.sandbox_id, container.name))
            self._change(container, self._ended(container, exit_code))

    def lose(self, container: ObservedContainer) -> None:
        """The runtime cannot say any more what became of a running container."""
        if container.state is RUNNING:
            self._change(container, replace(container, state=UNKNOWN))

    def kill_sandbox(self, takes_containers: bool) -> None:
        """The pause process dies, with or without the containers."""
        self.sandboxes = [replace(s, ready=False) for s in self.sandboxes]
        if takes_containers:
            for container in self.containers:
                self.exit(container, KILLED)

    def judge(self, container: ObservedContainer, verdict: ProbeVerdict) -> None:
        """A prober says what it found; what others found holds, and a start that went well is probed no more."""
        if container.state is not RUNNING:
            return
        old = self.verdicts.get(container.id, NO_VERDICT)
        self.verdicts[container.id] = ProbeVerdict(
            startup=old.startup if old.startup is ProbeResult.SUCCESS else verdict.startup or old.startup,
            liveness=verdict.liveness or old.liveness,
            readiness=verdict.readiness or old.readiness,
        )
        if verdict.startup is ProbeResult.SUCCESS:
            self._through.add((container.sandbox_id, container.name))

    def collect_garbage(self) -> None:
        """What the garbage collector would take, goes."""
        seen = [
            GcContainer(c.id, "u-1", c.name, c.sandbox_id, c.state, c.created_at_ns)
            for c in self.containers
            if c.state is not UNKNOWN
        ]
        dead = set(dead_containers(seen, GcPolicy(), self.now_ns, lambda _: False))
        self.containers = [c for c in self.containers if c.id not in dead]
        occupied = [GcContainer(c.id, "u-1", c.name, c.sandbox_id, c.state, 0) for c in self.containers]
        sandboxes = [GcSandbox(s.id, "u-1", s.ready, s.created_at_ns) for s in self.sandboxes]
        gone = set(dead_sandboxes(sandboxes, occupied, lambda _: False))
        self.sandboxes = [s for s in self.sandboxes if s.id not in gone]

    def settle(self, max_passes: int = 80) -> None:
        """Time goes by and nothing bad happens, until the agent has nothing more to do."""
        for _ in range(max_passes):
            actions = self.plan()
            self.run(actions)
            self._go_well()
            waits = [action.remaining_seconds for action in actions if isinstance(action, BackOff)]
            self.now_ns += int(max(waits, default=1.0) * SECOND) + SECOND
            if not actions and not self.plan():
                return
        raise BrokenPromise(f"no rest after {max_passes} passes; next: {self.plan()}; the pod: {self.observe()}")

    def _go_well(self) -> None:
        for spec in init_containers_of(self.pod):
            for container in self.containers:
                if container.name != spec.name or container.state is not RUNNING:
                    continue
                if not is_sidecar(spec):
                    self.exit(container, 0)
                elif spec.startupProbe is not None:
                    self.judge(container, ProbeVerdict(startup=ProbeResult.SUCCESS))

    # Small change

    def _find(self, container_id: str) -> ObservedContainer:
        return next(c for c in self.containers if c.id == container_id)

    def _change(self, old: ObservedContainer, new: ObservedContainer) -> None:
        self.containers[self.containers.index(old)] = new

    def _ended(self, container: ObservedContainer, exit_code: int) -> ObservedContainer:
        return replace(container, state=EXITED, exit_code=exit_code, finished_at_ns=self.now_ns)

    @property
    def running_names(self) -> list[str]:
        """What runs."""
        return sorted(c.name for c in self.containers if c.state is ContainerState.RUNNING)
