"""What a pod needs next: the whole decision, made from scratch each time.

Level-triggered: an agent that restarted, an event that was missed and a reply that was lost look alike, because nothing
is remembered between two calls; the same arguments give the same plan. Knows nothing of how actions are run, of images
and volumes, and of pods that are being stopped (`core.termination`, `core.pod_worker`).

Upstream counterpart: computePodActions and computeInitContainerActions in pkg/kubelet/kuberuntime. Deliberate
differences: back-off and the order of removal are part of the plan; init containers of an earlier sandbox do not count
even when nobody removed them; a main container that ended in the present sandbox proves that initialization was done;
whether a pod gets a new sandbox under Never is decided for each container, so that one which never ran (or has a policy
of its own) does not stay Pending for ever because its neighbour has had its run.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field

from kubelet_py.api import core_v1
from kubelet_py.api.durations import format_duration
from kubelet_py.api.pod import (
    containers_of,
    ephemeral_containers_of,
    init_containers_of,
    is_sidecar,
    metadata_of,
    uid_of,
)
from kubelet_py.core.actions import (
    Action,
    BackOff,
    ContainerKind,
    ContainerResize,
    CreateSandbox,
    KillContainer,
    KillPod,
    RemoveContainer,
    ResizePod,
    StartContainer,
)
from kubelet_py.core.backoff import BackoffEntry, crash_backoff_key, remaining_seconds
from kubelet_py.core.container_hash import compute_container_hash
from kubelet_py.core.lifecycle_hooks import Hook, handler_of
from kubelet_py.core.observed import (
    NO_VERDICT,
    NS_PER_SECOND,
    ContainerState,
    ObservedContainer,
    ObservedPod,
    ObservedSandbox,
    ProbeResult,
    ProbeVerdict,
)
from kubelet_py.core.pod_allocation import PodResources, pod_level_changes
from kubelet_py.core.resize_plan import judge_container, starts_with_new_size
from kubelet_py.core.restart_rules import (
    AnyContainer,
    is_being_deleted,
    is_init_failed,
    restarts_after_exit,
    restarts_after_kill,
    restarts_all,
    should_be_restarted,
    triggers_restart_all,
)
from kubelet_py.core.sandbox_rules import judge_sandbox
from kubelet_py.core.termination import probe_grace_period_seconds

POD_DONE = "no container is left to run"


@dataclass(frozen=True, slots=True)
class PodContext:
    """What the decision needs beside the pod and the observation.

    `crash_backoff` is keyed by `backoff.crash_backoff_key`, `probe_results` by container id. `logged_restart_counts`
    says for a container name which restart count its next run has by its log files, for containers that the runtime no
    longer knows. `actuated`: the resources that runtime and cgroups have; None leaves sizes alone.
    """

    now_ns: int
    crash_backoff: Mapping[str, BackoffEntry] = field(default_factory=dict)
    probe_results: Mapping[str, ProbeVerdict] = field(default_factory=dict)
    logged_restart_counts: Mapping[str, int] = field(default_factory=dict)
    actuated: PodResources | None = None
    expected_hash: Callable[[AnyContainer], str] = compute_container_hash


def compute_pod_actions(pod: core_v1.Pod, observed: ObservedPod, context: PodContext) -> tuple[Action, ...]:
    """The plan for a pod that should run; empty when it is as it should be, or done, or being deleted."""
    if is_being_deleted(pod):
        return ()
    return tuple(_Planner(pod, observed, context).plan())


@dataclass(slots=True)
class _InitPlan:
    """What the walk over the init containers collected. `done`: main containers may be looked at."""

    done: bool = False
    failed_for_good: str = ""
    kills: list[KillContainer] = field(default_factory=list)
    starts: dict[int, str] = field(default_factory=dict)
    resizes: list[ContainerResize] = field(default_factory=list)


@dataclass(slots=True)
class _MainPlan:
    keeps_any: bool = False
    kills: list[KillContainer] = field(default_factory=list)
    starts: list[tuple[core_v1.Container, str]] = field(default_factory=list)
    resizes: list[ContainerResize] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class _Planner:
    pod: core_v1.Pod
    observed: ObservedPod
    context: PodContext

    def plan(self) -> Iterator[Action]:
        if restarts_all(self.pod, self.observed):
            yield from self._reset_all()
            return
        verdict = judge_sandbox(self.pod, self.observed)
        if verdict.current is None:
            yield from self._renew_sandbox(verdict.next_attempt, verdict.reason)
            return
        ephemeral = [
            self._start(container, ContainerKind.EPHEMERAL, "the container is new")
            for container in ephemeral_containers_of(self.pod)
            if self.observed.newest(container.name) is None
        ]
        init = self._plan_init_containers(verdict.current)
        if init.failed_for_good:
            yield from self._kill_pod(init.failed_for_good)
            return
        main = self._plan_main_containers() if init.done else _MainPlan()
        if init.done and not main.keeps_any and not main.starts:
            yield from self._kill_pod(POD_DONE)
            return
        yield from init.kills
        yield from main.kills
        yield from self._prune_init_containers()
        yield from self._resize(init, main)
        yield from ephemeral
        for index in sorted(init.starts):
            yield self._start(init_containers_of(self.pod)[index], ContainerKind.INIT, init.starts[index])
        for container, cause in main.starts:
            yield self._start(container, ContainerKind.MAIN, cause)

    # The sandbox

    def _renew_sandbox(self, attempt: int, reason: str) -> Iterator[Action]:
        """A new sandbox and the first containers in it, unless nothing would run there."""
        mains = containers_of(self.pod)
        to_start = [c for c in mains if self._runs_in_new_sandbox(c)]
        if any(self._has_failed_for_good(c) for c in init_containers_of(self.pod)):
            yield from self._kill_pod(f"{reason}, and an init container may not run again")
            return
        if not to_start and any(self.observed.newest(c.name) is not None for c in mains):
            yield from self._kill_pod(POD_DONE)
            return
        if self.observed.sandboxes or self.observed.alive:
            yield KillPod(reason)
        init_containers = init_containers_of(self.pod)
        for container in init_containers:
            # They run again in the new sandbox. The newest log stays: its name carries the restart count on.
            for index, old in enumerate(self.observed.named(container.name)):
                yield RemoveContainer(old.id, old.name, reason, keep_log=index == 0)
        yield CreateSandbox(attempt, reason)
        if init_containers:
            yield self._start(init_containers[0], ContainerKind.INIT, "the pod has a new sandbox")
            return
        for main in to_start:
            yield self._start(main, ContainerKind.MAIN, "the pod has a new sandbox")

    def _has_failed_for_good(self, container: core_v1.Container) -> bool:
        """An init container that ended badly, or will end with the old sandbox, and whose policy is Never."""
        newest = self.observed.newest(container.name)
        if is_sidecar(container) or newest is None or newest.state is ContainerState.CREATED:
            return False
        if newest.state is not ContainerState.EXITED:
            return not restarts_after_kill(self.pod, container)
        return is_init_failed(newest) and not self._init_restarts(container, newest)

    def _init_restarts(self, container: core_v1.Container, newest: ObservedContainer) -> bool:
        if newest.exit_code == 0:  # killed for memory, and yet exit code 0
            return restarts_after_kill(self.pod, container)
        return restarts_after_exit(self.pod, container, newest.exit_code)

    def _runs_in_new_sandbox(self, container: core_v1.Container) -> bool:
        newest = self.observed.newest(container.name)
        if newest is None or newest.state is ContainerState.CREATED:
            return True
        if newest.state is ContainerState.EXITED:
            return restarts_after_exit(self.pod, container, newest.exit_code)
        return restarts_after_kill(self.pod, container)  # it dies with the old sandbox

    def _kill_pod(self, cause: str) -> Iterator[Action]:
        """Nothing to do where nothing lives: a pod that is done stays as it is."""
        if self.observed.alive or self.observed.ready_sandboxes:
            yield KillPod(cause)

    def _reset_all(self) -> Iterator[Action]:
        """Kills and removes every container, those that asked for it last: as long as one is there, it goes on."""
        containers = (*init_containers_of(self.pod), *containers_of(self.pod))
        cause = "a container's exit restarts all containers of the pod"
        targets: list[ObservedContainer] = []
        sources: list[ObservedContainer] = []
        for container in containers:
            history = self.observed.named(container.name)
            is_source = triggers_restart_all(container, self.observed.newest(container.name))
            sources.extend(history[:1] if is_source else ())
            targets.extend(history[1:] if is_source else history)
        for target in targets:
            if target.state is not ContainerState.EXITED:
                yield KillContainer(target.id, target.name, cause, f"Stopping container {target.name}", 0)
        # Newest first would leave an older run as the newest one if the agent dies in between.
        for old in (*reversed(targets), *sources):
            yield RemoveContainer(old.id, old.name, cause, required=True)

    # Init containers

    def _plan_init_containers(self, sandbox: ObservedSandbox) -> _InitPlan:
        """Looks from the last init container to the first: the last that is known tells how far the pod has come.

        Finished ones may be gone from the runtime; a later one, or a main container, proves that they did their work.
        """
        containers = init_containers_of(self.pod)
        plan = _InitPlan()
        plan.done = not containers or self._is_initialized(sandbox)
        is_later_known = plan.done
        for index in range(len(containers) - 1, -1, -1):
            container = containers[index]
            newest = self._newest_in(sandbox, container.name)
            if newest is None:
                if is_later_known and is_sidecar(container):
                    plan.starts[index] = "the sidecar is missing"
                continue
            if is_sidecar(container):
                self._judge_sidecar(plan, index, newest, is_later_known)
            elif not is_later_known:
                self._judge_init_container(plan, index, newest)
            if plan.failed_for_good:
                return plan
            is_later_known = True
        if not is_later_known:
            plan.starts[0] = "the pod has a sandbox"
        return plan

    def _is_initialized(self, sandbox: ObservedSandbox) -> bool:
        for container in containers_of(self.pod):
            newest = self._newest_in(sandbox, container.name)
            if newest is None:
                continue
            if newest.state in (ContainerState.CREATED, ContainerState.RUNNING):
                return True
            if newest.state is ContainerState.EXITED and newest.sandbox_id:
                return True
        return False

    def _newest_in(self, sandbox: ObservedSandbox, name: str) -> ObservedContainer | None:
        """The newest run in this sandbox; where the sandbox of a container is not known, it is taken to be this one."""
        newest = self.observed.newest(name)
        return newest if newest is not None and newest.sandbox_id in ("", sandbox.id) else None

    def _finish_init_container(self, plan: _InitPlan, index: int) -> None:
        if index == len(init_containers_of(self.pod)) - 1:
            plan.done = True
        else:
            plan.starts.setdefault(index + 1, "the init container before it is through")

    def _judge_init_container(self, plan: _InitPlan, index: int, newest: ObservedContainer) -> None:
        container = init_containers_of(self.pod)[index]
        match newest.state:
            case ContainerState.RUNNING:
                self._judge_size(plan, container, newest)
            case ContainerState.CREATED:
                plan.starts[index] = "the container was created and never started"
            case ContainerState.EXITED if not is_init_failed(newest):
                self._finish_init_container(plan, index)
            case ContainerState.EXITED:
                cause = f"init container {container.name} failed with exit code {newest.exit_code}"
                if self._init_restarts(container, newest):
                    plan.starts[index] = cause
                else:
                    plan.failed_for_good = cause
            case _:
                if restarts_after_kill(self.pod, container):
                    plan.kills.append(self._kill_unknown(newest, "Init container"))
                    plan.starts[index] = "the state of the container is unknown"
                else:
                    plan.failed_for_good = f"the state of init container {container.name} is unknown"

    def _judge_sidecar(self, plan: _InitPlan, index: int, newest: ObservedContainer, is_later_known: bool) -> None:
        container = init_containers_of(self.pod)[index]
        match newest.state:
            case ContainerState.RUNNING:
                self._judge_running_sidecar(plan, index, newest, is_later_known)
            case ContainerState.CREATED:
                plan.starts[index] = "the container was created and never started"
            case ContainerState.EXITED:
                plan.starts[index] = f"sidecar {container.name} ended with exit code {newest.exit_code}"
            case _:
                plan.kills.append(self._kill_unknown(newest, "Init container"))
                plan.starts[index] = "the state of the container is unknown"

    def _judge_running_sidecar(
        self, plan: _InitPlan, index: int, newest: ObservedContainer, is_later_known: bool
    ) -> None:
        container = init_containers_of(self.pod)[index]
        verdict = self.context.probe_results.get(newest.id, NO_VERDICT)
        if container.startupProbe is not None and verdict.startup is not ProbeResult.SUCCESS:
            if verdict.startup is ProbeResult.FAILURE:
                grace_seconds = probe_grace_period_seconds(container.startupProbe)
                cause = f"Init container {container.name} failed startup probe"
                plan.kills.append(self._kill(newest, cause, cause, grace_seconds))
                plan.starts[index] = cause
            return
        if not is_later_known:
            self._finish_init_container(plan, index)
        if newest.hash != self.context.expected_hash(container):
            cause = f"Init container {container.name} definition changed"
            plan.kills.append(self._kill(newest, cause, cause))
            plan.starts[index] = cause
        elif container.livenessProbe is not None and verdict.liveness is ProbeResult.FAILURE:
            grace_seconds = probe_grace_period_seconds(container.livenessProbe)
            cause = f"Init container {container.name} failed liveness probe"
            plan.kills.append(self._kill(newest, cause, cause, grace_seconds))
            plan.starts[index] = cause
        elif restart := self._judge_size(plan, container, newest):
            plan.starts[index] = restart

    def _prune_init_containers(self) -> Iterator[Action]:
        """One dead run of each init container is enough; they never pile up waiting for garbage collection."""
        for container in init_containers_of(self.pod):
            for old in self.observed.named(container.name)[1:]:
                if old.state in (ContainerState.EXITED, ContainerState.UNKNOWN):
                    yield RemoveContainer(old.id, old.name, "a newer run of the init container is known", False)

    # Main containers

    def _plan_main_containers(self) -> _MainPlan:
        plan = _MainPlan()
        for container in containers_of(self.pod):
            newest = self.observed.newest(container.name)
            if newest is not None and newest.state is ContainerState.RUNNING:
                self._judge_running_main(plan, container, newest)
                continue
            if newest is not None and newest.state is ContainerState.UNKNOWN:
                plan.kills.append(self._kill_unknown(newest, "Container"))
            if should_be_restarted(self.pod, container, newest):
                plan.starts.append((container, self._cause_of_start(newest)))
        return plan

    def _judge_running_main(self, plan: _MainPlan, container: core_v1.Container, newest: ObservedContainer) -> None:
        verdict = self.context.probe_results.get(newest.id, NO_VERDICT)
        restart = restarts_after_kill(self.pod, container)
        grace_seconds = None
        if newest.hash != self.context.expected_hash(container):
            cause = f"Container {container.name} definition changed"
            restart = True  # the definition asks for another container, whatever the policy says
        elif verdict.liveness is ProbeResult.FAILURE:
            cause = f"Container {container.name} failed liveness probe"
            grace_seconds = probe_grace_period_seconds(container.livenessProbe)
        elif verdict.startup is ProbeResult.FAILURE:
            cause = f"Container {container.name} failed startup probe"
            grace_seconds = probe_grace_period_seconds(container.startupProbe)
        elif restart_cause := self._judge_size(plan, container, newest):
            plan.starts.append((container, restart_cause))
            return
        else:
            plan.keeps_any = True
            return
        message = f"{cause}, will be restarted" if restart else cause
        plan.kills.append(self._kill(newest, cause, message, grace_seconds))
        if restart:
            plan.starts.append((container, cause))

    # Sizes

    def _judge_size(self, plan: _InitPlan | _MainPlan, container: core_v1.Container, newest: ObservedContainer) -> str:
        """Notes what a running container needs to get its allocated size; the cause where that is another start."""
        if self.context.actuated is None:
            return ""
        need = judge_container(self.pod, container, newest, self.context.actuated)
        if need.update is not None:
            plan.resizes.append(need.update)
        if not need.restarts:
            return ""
        cause = f"Container {container.name} resize requires restart"
        plan.kills.append(self._kill(newest, cause, cause))
        return cause

    def _resize(self, init: _InitPlan, main: _MainPlan) -> Iterator[ResizePod]:
        actuated = self.context.actuated
        if actuated is None:
            return
        updates = (*init.resizes, *main.resizes)
        starting = [init_containers_of(self.pod)[index] for index in init.starts] + [c for c, _ in main.starts]
        starts_follow = any(starts_with_new_size(self.pod, container, actuated) for container in starting)
        if updates or starts_follow or pod_level_changes(self.pod, actuated):
            yield ResizePod("the allocated resources changed", updates, starts_follow)

    @staticmethod
    def _cause_of_start(newest: ObservedContainer | None) -> str:
        if newest is None:
            return "the container does not exist"
        match newest.state:
            case ContainerState.EXITED:
                return f"the last run ended with exit code {newest.exit_code}"
            case ContainerState.CREATED:
                return "the container was created and never started"
            case _:
                return "the state of the container is unknown"

    # Single actions

    @staticmethod
    def _kill(
        container: ObservedContainer, cause: str, message: str, grace_seconds: int | None = None
    ) -> KillContainer:
        return KillContainer(container.id, container.name, cause, message, grace_seconds)

    @staticmethod
    def _kill_unknown(container: ObservedContainer, word: str) -> KillContainer:
        message = f'{word} is in "{container.state}" state, try killing it before restart'
        return KillContainer(container.id, container.name, "the state of the container is unknown", message)

    def _start(self, container: AnyContainer, kind: ContainerKind, cause: str) -> StartContainer | BackOff:
        """The start, or the wait before it when the container keeps crashing."""
        history = self.observed.named(container.name)
        last_exit = next((c for c in history if c.state is ContainerState.EXITED), None)
        key = crash_backoff_key(container)
        entry = self.context.crash_backoff.get(key)
        if last_exit is not None and entry is not None:
            now_seconds = self.context.now_ns / NS_PER_SECOND
            left_seconds = remaining_seconds(entry, now_seconds, last_exit.finished_at_ns / NS_PER_SECOND)
            if left_seconds > 0:
                message = (
                    f"back-off {format_duration(entry.delay_seconds)} restarting failed container={container.name} "
                    f"pod={metadata_of(self.pod).name}_{metadata_of(self.pod).namespace}({uid_of(self.pod)})"
                )
                return BackOff(container.name, kind, left_seconds, cause, message)
        return StartContainer(
            container_name=container.name,
            kind=kind,
            restart_count=(
                history[0].restart_count + 1 if history else self.context.logged_restart_counts.get(container.name, 0)
            ),
            cause=cause,
            after_exit_at_ns=last_exit.finished_at_ns if last_exit else None,
            backoff_key=key,
            required=kind is ContainerKind.INIT and container.restartPolicy != "Always",
            has_hook=handler_of(container, Hook.POST_START) is not None,
            leftovers=tuple(old.id for old in history if old.state is ContainerState.CREATED),
        )
