"""What each pod was given and what its cgroups have of it, kept over restarts of the agent; the resize conditions.

Owns the two checkpoint files and the memory behind them. Whether a resize is accepted is decided in
`sync.pending_resizes`, how it is carried out in `sync.pod_resize`.

Changes are in memory at once and on disk soon: one writer, which rests after each write, and whatever came meanwhile
goes with the next. A crash in between costs nothing but work done twice: the resize is accepted, or carried out, again.

Upstream counterpart: pkg/kubelet/allocation and its state package, the resize conditions of pkg/kubelet/status.
Deliberate difference: a checkpoint that cannot be read is put aside with a line in the log, and pods count with what
their specs say, where the Go kubelet does not start.
"""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

import msgspec
import structlog

from kubelet_py.api import codec, core_v1
from kubelet_py.api import pod as pods
from kubelet_py.core.event_rules import EventSink
from kubelet_py.core.observed import NS_PER_SECOND, ObservedPod
from kubelet_py.core.pod_allocation import (
    NO_RESOURCES,
    PodResources,
    decode_checkpoint,
    encode_checkpoint,
    resources_of,
    running_in,
    with_larger_requests,
    with_pod_limits,
    with_resources,
)
from kubelet_py.core.resize_rules import (
    DEFERRED,
    ERROR,
    INFEASIBLE,
    NO_CONDITIONS,
    RESIZE_PENDING,
    ResizeConditions,
    condition,
    conditions_of,
    event_message,
    is_in_progress,
    progress_condition,
)
from kubelet_py.host.files import write_atomic

log = structlog.get_logger()

ALLOCATED_FILE: Final = "allocated_pods_state"
ACTUATED_FILE: Final = "actuated_pods_state"
FILE_MODE: Final = 0o600
REST_SECONDS: Final = 3.0
"""Between two writes: each is of all pods and waits for the disk, and a burst of pods brings many changes."""


class _Checkpoint:
    """One of the two maps and its file."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.pods: dict[str, PodResources] = {}

    def load(self) -> None:
        """Blocking."""
        try:
            self.pods = decode_checkpoint(self.path.read_bytes())
        except FileNotFoundError:
            return
        except (OSError, codec.InvalidObject) as error:
            aside = self.path.with_name(f"{self.path.name}.unreadable")
            log.error(
                "resource_checkpoint_unreadable",
                file=str(self.path),
                error=str(error),
                consequence=f"pods count with the resources of their specs; the file is kept as {aside}",
            )
            self.path.replace(aside)

    def write(self, content: bytes) -> None:
        """Blocking."""
        write_atomic(self.path, content, FILE_MODE)


@dataclass(frozen=True, slots=True)
class _Sizes:
    """A pod's spec with what it was given, and with what it may have beyond that. The first three tell whether it still
    holds: each is another object once it changes."""

    spec: core_v1.PodSpec
    given: PodResources | None
    had: PodResources | None
    as_given: core_v1.PodSpec
    at_most: core_v1.PodSpec


class PodAllocations:
    """The resources of all pods. `load` comes first; `run` writes until cancelled."""

    def __init__(self, directory: Path, events: EventSink, clock_ns: Callable[[], int]) -> None:
        self._allocated = _Checkpoint(directory / ALLOCATED_FILE)
        self._actuated = _Checkpoint(directory / ACTUATED_FILE)
        self._events = events
        self._clock_ns = clock_ns
        self._conditions: dict[str, ResizeConditions] = {}
        self._sizes: dict[str, _Sizes] = {}
        self._dirty: set[_Checkpoint] = set()
        self._changed = asyncio.Event()

    def load(self) -> None:
        """Reads what an agent of earlier left. Blocking."""
        self._allocated.load()
        self._actuated.load()

    async def run(self) -> None:
        """Writes changes, for ever."""
        while True:
            await self._changed.wait()
            self._changed.clear()
            await self.flush()
            await asyncio.sleep(REST_SECONDS)

    async def flush(self) -> None:
        """Writes what has changed; a disk that refuses is told of and tried again with the next change."""
        while self._dirty:
            checkpoint = self._dirty.pop()
            content = encode_checkpoint(checkpoint.pods)
            try:
                await asyncio.to_thread(checkpoint.write, content)
            except OSError as error:
                log.error("resource_checkpoint_not_written", file=str(checkpoint.path), error=str(error))

    # What a pod was given

    def is_allocated(self, pod_uid: str) -> bool:
        """The pod was admitted."""
        return pod_uid in self._allocated.pods

    def allocated(self, pod: core_v1.Pod) -> core_v1.Pod:
        """The pod with the resources that it was given, which its spec may be ahead of."""
        return _with_spec(pod, self._sizes_of(pod).as_given)

    def occupied(self, pod: core_v1.Pod, status: core_v1.PodStatus | None) -> core_v1.Pod:
        """The pod with what it takes of the node: what it was given, and what a resize has not yet taken from it.

        What has ended, by `status`, holds nothing and starts again as it was given. None: what runs is not known yet.
        """
        sizes = self._sizes_of(pod)
        if sizes.had is None or sizes.at_most is sizes.as_given or status is None:
            return _with_spec(pod, sizes.at_most)
        running = running_in(status)
        held = {name: resources for name, resources in sizes.had.containers.items() if name in running}
        level = sizes.had.pod_level if running else None
        return with_larger_requests(_with_spec(pod, sizes.as_given), PodResources(held, level))

    def _sizes_of(self, pod: core_v1.Pod) -> _Sizes:
        """Kept, since each pod that comes asks for those of all."""
        uid, spec = pods.uid_of(pod), pods.spec_of(pod)
        given, had = self._allocated.pods.get(uid), self._actuated.pods.get(uid)
        known = self._sizes.get(uid)
        if known is not None and known.spec is spec and known.given is given and known.had is had:
            return known
        as_given = pod if given is None else with_resources(pod, given)
        at_most = as_given if had is None else with_larger_requests(as_given, had)
        sizes = _Sizes(spec, given, had, pods.spec_of(as_given), pods.spec_of(at_most))
        if given is not None or had is not None:
            self._sizes[uid] = sizes
        return sizes

    def allocate(self, pod: core_v1.Pod) -> None:
        """The pod gets what its spec says."""
        uid, given = pods.uid_of(pod), resources_of(pod)
        if self._allocated.pods.get(uid) != given:
            self._allocated.pods[uid] = given
            self._mark(self._allocated)

    # What its cgroups have of it

    def actuated(self, pod_uid: str) -> PodResources | None:
        """What runtime and cgroups were told last; None for a pod of which nothing was made yet."""
        return self._actuated.pods.get(pod_uid)

    def begin(self, pod: core_v1.Pod) -> None:
        """The pod's cgroup is made, or an agent without these files made it: it has what was allocated."""
        uid = pods.uid_of(pod)
        if uid not in self._actuated.pods:
            self._actuated.pods[uid] = resources_of(pod)
            self._mark(self._actuated)

    def note_container(self, pod: core_v1.Pod, name: str, resources: core_v1.ResourceRequirements | None) -> None:
        """A container is made with these resources, or was changed to them."""
        uid = pods.uid_of(pod)
        known = self._actuated.pods.get(uid) or resources_of(pod)
        given = with_pod_limits(resources or NO_RESOURCES, pods.spec_of(pod).resources)
        if uid in self._actuated.pods and known.containers.get(name) == given:
            return
        self._actuated.pods[uid] = PodResources({**known.containers, name: given}, known.pod_level)
        self._mark(self._actuated)

    def note_pod_level(self, pod: core_v1.Pod) -> None:
        """The pod's cgroup has what was allocated to the pod as a whole."""
        uid, wanted = pods.uid_of(pod), pods.spec_of(pod).resources
        known = self._actuated.pods.get(uid)
        if known is not None and known.pod_level != wanted:
            self._actuated.pods[uid] = PodResources(known.containers, wanted)
            self._mark(self._actuated)

    # Conditions

    def conditions(self, pod_uid: str) -> list[core_v1.PodCondition]:
        """The resize conditions that hold."""
        return self._conditions.get(pod_uid, NO_CONDITIONS).listed()

    def pending(self, pod_uid: str) -> core_v1.PodCondition | None:
        """The condition of a resize that is not accepted yet."""
        return self._conditions.get(pod_uid, NO_CONDITIONS).pending

    def backfill(self, pod: core_v1.Pod) -> None:
        """What the API server knows, where this agent knows nothing."""
        uid = pods.uid_of(pod)
        known = conditions_of(pod.status)
        if uid not in self._conditions and known != NO_CONDITIONS:
            self._conditions[uid] = known

    def put_off(self, pod: core_v1.Pod, reason: str, message: str) -> None:
        """The resize cannot be had: for ever when Infeasible, else Deferred until there is room. Told of once."""
        uid, generation = pods.uid_of(pod), pods.metadata_of(pod).generation
        kind = reason if reason == INFEASIBLE else DEFERRED
        known = self._conditions.get(uid, NO_CONDITIONS)
        old = known.pending
        pending = condition(RESIZE_PENDING, old, kind, message, generation, self._now())
        self._set(uid, ResizeConditions(pending, known.in_progress))
        if old is None or (old.reason, old.observedGeneration) != (kind, generation):
            self._events(pod, "Warning", f"Resize{kind}", event_message(reason, pod, generation, message))

    def accept(self, pod: core_v1.Pod) -> None:
        """The resize is accepted: the pod is given what its spec says."""
        uid, generation = pods.uid_of(pod), pods.metadata_of(pod).generation
        self.allocate(pod)
        self._set(uid, ResizeConditions(None, progress_condition(None, "", "", generation, self._now())))
        self._events(pod, "Normal", "ResizeStarted", event_message("started", pod, generation))

    def clear_pending(self, pod_uid: str) -> None:
        """The spec asks for nothing else any more."""
        known = self._conditions.get(pod_uid, NO_CONDITIONS)
        self._set(pod_uid, ResizeConditions(None, known.in_progress))

    def clear_conditions(self, pod_uid: str) -> None:
        """The pod has ended."""
        self._conditions.pop(pod_uid, None)

    def note_progress(self, pod: core_v1.Pod, observed: ObservedPod) -> None:
        """Looks whether a resize is under way; one that is through is told of.

        A pass that began before the last resize was accepted comes here with the resources before it.
        """
        pod = self.allocated(pod)
        uid, generation = pods.uid_of(pod), pods.metadata_of(pod).generation
        known = self._conditions.get(uid, NO_CONDITIONS)
        if is_in_progress(pod, self.actuated(uid), observed):
            moved = progress_condition(known.in_progress, "", "", generation, self._now())
            self._set(uid, ResizeConditions(known.pending, moved))
        elif known.in_progress is not None:
            self._set(uid, ResizeConditions(known.pending, None))
            message = event_message("completed", pod, known.in_progress.observedGeneration)
            self._events(pod, "Normal", "ResizeCompleted", message)

    def note_failure(self, pod: core_v1.Pod, message: str) -> None:
        """A resize under way went wrong and will be tried again."""
        uid, generation = pods.uid_of(pod), pods.metadata_of(pod).generation
        known = self._conditions.get(uid, NO_CONDITIONS)
        failed = progress_condition(known.in_progress, ERROR, message, generation, self._now())
        self._set(uid, ResizeConditions(known.pending, failed))
        if failed is not known.in_progress:
            text = event_message("error", pod, failed.observedGeneration, message)
            self._events(pod, "Warning", "ResizeError", text)

    # The end

    def forget(self, pod_uid: str) -> None:
        """The pod is gone."""
        self._conditions.pop(pod_uid, None)
        self._sizes.pop(pod_uid, None)
        for checkpoint in (self._allocated, self._actuated):
            if checkpoint.pods.pop(pod_uid, None) is not None:
                self._mark(checkpoint)

    def forget_orphans(self, is_known: Callable[[str], bool]) -> None:
        """Forgets what an agent of earlier knew of pods that are gone."""
        for uid in self._known():
            if not is_known(uid):
                self.forget(uid)

    def _known(self) -> set[str]:
        return {*self._allocated.pods, *self._actuated.pods, *self._conditions}

    def _set(self, pod_uid: str, conditions: ResizeConditions) -> None:
        if conditions == NO_CONDITIONS:
            self._conditions.pop(pod_uid, None)
        else:
            self._conditions[pod_uid] = conditions

    def _mark(self, *checkpoints: _Checkpoint) -> None:
        self._dirty.update(checkpoints)
        self._changed.set()

    def _now(self) -> datetime:
        return datetime.fromtimestamp(self._clock_ns() // NS_PER_SECOND, UTC)


def _with_spec(pod: core_v1.Pod, spec: core_v1.PodSpec) -> core_v1.Pod:
    return pod if pod.spec is spec else msgspec.structs.replace(pod, spec=spec)
