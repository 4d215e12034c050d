"""All probes of the node: one heap of due times, one task for each question that is being asked.

Owns which probes there are and when they run; what answers come to is decided by `core.probe_state`, how a container
is asked by `transport`. A pod worker hears of it only when a verdict changes. Upstream counterpart:
pkg/kubelet/prober/prober_manager.go and worker.go. Deliberate difference: nothing runs for a probe that is not due,
where the Go kubelet keeps a goroutine and a ticker for each.
"""

import asyncio
import functools
import heapq
import itertools
import random
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

import structlog

from kubelet_py.api import core_v1
from kubelet_py.api import pod as pods
from kubelet_py.core import probe_state
from kubelet_py.core.observed import NS_PER_SECOND, ObservedContainer, ProbeResult, ProbeVerdict
from kubelet_py.core.probe_state import ProbeKind, ProbeState, ProbeTiming, RunFacts
from kubelet_py.managers.prober.transport import ProbeAnswer, ProbeError, ProbeTarget, ProbeTransport

log = structlog.get_logger()

# Probes that come due within this time are started together, so that many of them cost few wake-ups of the loop.
TICK_SECONDS = 0.02
# So many questions are under way at once; further ones wait for their turn. A container that hangs holds one place
# for its timeout, so this is far more than a full node needs.
MAX_PARALLEL = 512


class PodEvents(Protocol):
    """Where events about a container go: (pod, type, reason, message, container name)."""

    def __call__(
        self, pod: core_v1.Pod, event_type: str, reason: str, message: str, container_name: str = "", /
    ) -> None: ...


@dataclass(frozen=True, slots=True)
class ProbeHooks:
    """What the manager says, and what tells it the time.

    `changed(pod_uid, stimulus)` must not block. `reported` gives the newest status of a pod, an earlier agent's too.
    """

    changed: Callable[[str, str], None]
    events: PodEvents
    reported: Callable[[core_v1.Pod], core_v1.PodStatus | None]
    agent_started_at_ns: int = 0
    clock_ns: Callable[[], int] = time.time_ns
    jitter: Callable[[], float] = random.random


@dataclass(slots=True, eq=False)
class _Probe:
    """One probe of one run of a container."""

    kind: ProbeKind
    spec: core_v1.Probe
    timing: ProbeTiming
    state: ProbeState
    run: "_Run"
    due_seconds: float = 0.0
    target: ProbeTarget | None = None
    task: "asyncio.Task[None] | None" = None


@dataclass(slots=True, eq=False)
class _Run:
    """One run of a container."""

    pod: "_Pod"
    container: core_v1.Container
    id: str
    probes: dict[ProbeKind, _Probe] = field(default_factory=dict)
    verdict: ProbeVerdict = field(default_factory=ProbeVerdict)

    @property
    def startup(self) -> ProbeState | None:
        probe = self.probes.get(ProbeKind.STARTUP)
        return probe.state if probe is not None else None

    def judge(self) -> bool:
        """Whether the verdict is another one now."""
        before = self.verdict
        self.verdict = probe_state.verdict_of({kind: probe.state for kind, probe in self.probes.items()})
        self.pod.verdicts[self.id] = self.verdict
        return self.verdict != before


@dataclass(slots=True, eq=False)
class _Pod:
    """What is probed of one pod."""

    pod: core_v1.Pod
    ip: str
    runs: dict[str, _Run] = field(default_factory=dict)
    verdicts: dict[str, ProbeVerdict] = field(default_factory=dict)


class ProbeManager:
    """The Prober of the pod workers. `run` owns the tasks; the other methods may be called before."""

    def __init__(self, transport: ProbeTransport, hooks: ProbeHooks, max_parallel: int = MAX_PARALLEL) -> None:
        self._transport = transport
        self._hooks = hooks
        self._max_parallel = max_parallel
        self._pods: dict[str, _Pod] = {}
        self._terminating: set[str] = set()
        self._heap: list[tuple[float, int, _Probe]] = []
        self._numbers = itertools.count()
        self._waiting: deque[_Probe] = deque()
        self._running = 0
        self._poke = asyncio.Event()

    # What pod workers say and ask

    def verdicts(self, pod_uid: str) -> Mapping[str, ProbeVerdict]:
        """By container id."""
        known = self._pods.get(pod_uid)
        return known.verdicts if known is not None else {}

    def sync_pod(self, pod: core_v1.Pod, running: Sequence[ObservedContainer], pod_ips: tuple[str, ...]) -> None:
        """Probes what runs and stops probing what does not."""
        uid = pods.uid_of(pod)
        known = self._pods.get(uid)
        living = {container.id: container for container in running}
        if known is not None:
            known.pod, known.ip = pod, pod_ips[0] if pod_ips else known.ip
            for container_id in known.runs.keys() - living.keys():
                self._drop(known, container_id)
        for spec, container in _probed(pod, running):
            if known is None:
                known = self._pods[uid] = _Pod(pod, pod_ips[0] if pod_ips else "")
            if container.id not in known.runs:
                self._add(known, spec, container)
        if known is not None and not known.runs:
            del self._pods[uid]

    def stop_for_termination(self, pod_uid: str) -> None:
        """Liveness and startup probes end; readiness goes on."""
        self._terminating.add(pod_uid)
        known = self._pods.get(pod_uid)
        for run in known.runs.values() if known is not None else ():
            for probe in run.probes.values():
                probe.state = probe_state.when_terminating(probe.kind, probe.state)
            run.judge()
            self._start_those_that_waited(run)

    def forget_pod(self, pod_uid: str) -> None:
        """All probes of the pod end."""
        self._terminating.discard(pod_uid)
        known = self._pods.pop(pod_uid, None)
        if known is not None:
            for container_id in list(known.runs):
                self._drop(known, container_id)

    # The schedule

    async def run(self) -> None:
        """Endless."""
        loop = asyncio.get_running_loop()
        async with asyncio.TaskGroup() as tasks:
            while True:
                self._poke.clear()
                now = loop.time()
                self._take_due(now)
                self._start_waiting(tasks, now)
                due = max(self._heap[0][0], now + TICK_SECONDS) if self._heap else None
                try:
                    async with asyncio.timeout_at(due):
                        await self._poke.wait()
                except TimeoutError:
                    continue

    def _take_due(self, now: float) -> None:
        while self._heap and self._heap[0][0] <= now:
            due, _, probe = heapq.heappop(self._heap)
            is_stale = due != probe.due_seconds or not _is_known(probe)
            if is_stale or not probe_state.is_due_now(probe.kind, probe.state, probe.run.startup):
                continue  # what waits for the startup probe, or for a new container, is scheduled by that
            self._waiting.append(probe)

    def _start_waiting(self, tasks: asyncio.TaskGroup, now: float) -> None:
        while self._waiting and self._running < self._max_parallel:
            probe = self._waiting.popleft()
            if not _is_known(probe) or probe.task is not None:
                continue
            self._running += 1
            name = f"probe-{probe.kind.lower()}-{pods.display_name(probe.run.pod.pod)}-{probe.run.container.name}"
            probe.task = tasks.create_task(self._ask(probe), name=name)
            probe.task.add_done_callback(functools.partial(self._asked, probe))

    def _asked(self, probe: _Probe, _: object) -> None:
        """The question is through, in whatever way."""
        self._running -= 1
        probe.task = None
        if _is_known(probe) and not probe.state.is_on_hold:
            now = asyncio.get_running_loop().time()
            self._schedule(probe, probe_state.next_due_seconds(probe.timing, probe.due_seconds, now))
        elif self._waiting:
            self._poke.set()

    def _schedule(self, probe: _Probe, due_seconds: float) -> None:
        probe.due_seconds = due_seconds
        entry = (due_seconds, next(self._numbers), probe)
        heapq.heappush(self._heap, entry)
        if self._heap[0] is entry or self._waiting:
            self._poke.set()

    # One question

    async def _ask(self, probe: _Probe) -> None:
        run = probe.run
        target = probe.target
        if target is None or target.pod_ip != run.pod.ip:
            target = ProbeTarget(run.container, run.id, probe.spec, run.pod.ip, probe.timing.timeout_seconds)
            probe.target = target
        for attempt in range(1, probe_state.MAX_ATTEMPTS + 1):
            try:
                answer = await self._transport.ask(target)
            except ProbeError as error:
                if attempt == probe_state.MAX_ATTEMPTS and _is_known(probe):
                    text = f"{probe.kind} probe errored and resulted in unknown state: {error}"
                    self._hooks.events(run.pod.pod, "Warning", "Unhealthy", text, run.container.name)
            except Exception as error:
                log.error("probe_broke", kind=str(probe.kind), container_id=run.id, exc_info=error)
                return
            else:
                if _is_known(probe):
                    self._take(probe, answer)
                return

    def _take(self, probe: _Probe, answer: ProbeAnswer) -> None:
        run, pod = probe.run, probe.run.pod
        if answer.result is ProbeResult.FAILURE:
            text = f"{probe.kind} probe failed: {answer.output}"
            self._hooks.events(pod.pod, "Warning", "Unhealthy", text, run.container.name)
        elif answer.is_warning:
            text = f"{probe.kind} probe warning: {answer.output}"
            self._hooks.events(pod.pod, "Warning", "ProbeWarning", text, run.container.name)
        if probe.state.is_on_hold:
            return  # the pod was told to end while the container was asked
        before = probe.state.result
        probe.state = probe_state.after_answer(probe.kind, probe.timing, probe.state, answer.result)
        if probe.state.result is before or not run.judge():
            return
        word = probe.state.result.value
        log.info(
            "probe_result_changed",
            pod=pods.display_name(pod.pod),
            container=run.container.name,
            kind=str(probe.kind),
            result=word,
            output=answer.output[:200] if answer.result is ProbeResult.FAILURE else "",
        )
        if probe.kind is ProbeKind.STARTUP and probe.state.result is ProbeResult.SUCCESS:
            self._start_those_that_waited(run)
        stimulus = f"{probe.kind.lower()} probe of {run.container.name}: {word}"
        self._hooks.changed(pods.uid_of(pod.pod), stimulus)

    # Runs

    def _add(self, known: _Pod, spec: core_v1.Container, container: ObservedContainer) -> None:
        hooks, uid = self._hooks, pods.uid_of(known.pod)
        run = known.runs[container.id] = _Run(known, spec, container.id)
        reported = _reported(hooks.reported(known.pod), spec.name)
        facts = RunFacts(container.id, container.started_at_ns, hooks.agent_started_at_ns, reported)
        for kind, probe_spec in probe_state.probes_of(spec).items():
            state = probe_state.initial_state(kind, facts)
            if uid in self._terminating:
                state = probe_state.when_terminating(kind, state)
            run.probes[kind] = _Probe(kind, probe_spec, probe_state.timing_of(probe_spec), state, run)
        run.judge()
        now = asyncio.get_running_loop().time()
        now_ns = hooks.clock_ns()
        age_seconds = (now_ns - container.started_at_ns) / NS_PER_SECOND if container.started_at_ns else 0.0
        agent_age_seconds = (now_ns - hooks.agent_started_at_ns) / NS_PER_SECOND
        for probe in run.probes.values():
            if not probe.state.is_on_hold:
                due = probe_state.first_due_seconds(probe.timing, now, age_seconds, agent_age_seconds, hooks.jitter())
                self._schedule(probe, due)

    def _start_those_that_waited(self, run: _Run) -> None:
        """The container has started: its other probes are due, unless their initial delay is not over yet."""
        now = asyncio.get_running_loop().time()
        for probe in run.probes.values():
            if not probe.state.is_on_hold and probe.task is None and probe.due_seconds <= now:
                self._schedule(probe, now)

    def _drop(self, known: _Pod, container_id: str) -> None:
        run = known.runs.pop(container_id)
        known.verdicts.pop(container_id, None)
        for probe in run.probes.values():
            if probe.task is not None:
                probe.task.cancel()


def _is_known(probe: _Probe) -> bool:
    return probe.run.pod.runs.get(probe.run.id) is probe.run


def _probed(
    pod: core_v1.Pod, running: Sequence[ObservedContainer]
) -> Iterator[tuple[core_v1.Container, ObservedContainer]]:
    """The running containers that have probes: sidecars and main containers; of each name the newest."""
    sidecars = (container for container in pods.init_containers_of(pod) if pods.is_sidecar(container))
    for spec in (*sidecars, *pods.containers_of(pod)):
        if probe_state.probes_of(spec):
            newest = next((container for container in running if container.name == spec.name), None)
            if newest is not None:
                yield spec, newest


def _reported(status: core_v1.PodStatus | None, name: str) -> core_v1.ContainerStatus | None:
    if status is None:
        return None
    statuses = (*(status.containerStatuses or ()), *(status.initContainerStatuses or ()))
    return next((entry for entry in statuses if entry.name == name), None)
