"""One task for each pod UID, with a mailbox in which the newest word wins.

Owns the tasks, their timers and the memory of each pod; what an input means is decided by the table in
`core.pod_worker`, what a pass does by `pod_sync`. Upstream counterpart: pkg/kubelet/pod_workers.go. Difference: a
worker's task lives as long as the pod, since a waiting coroutine costs next to nothing.
"""

import asyncio
import random
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field

import structlog

from kubelet_py.api import core_v1
from kubelet_py.api import pod as pods
from kubelet_py.core import pod_worker as table
from kubelet_py.core.pod_worker import Phase, StaticPodGate, WorkerState
from kubelet_py.errors import KubeletError, RuntimeCallError
from kubelet_py.sync.pod_services import PodMemory
from kubelet_py.sync.pod_sync import RETRY_SECONDS, PodSync
from kubelet_py.sync.ports import StatusSink
from kubelet_py.sync.preemptions import Preemptions

log = structlog.get_logger()

RESYNC_SECONDS = 60.0
JITTER = 0.5
# An idle worker looks again after this long even when nothing failed and the stop of a pod is stuck.
STOP_RETRY_SECONDS = 2.0


@dataclass(frozen=True, slots=True)
class _News:
    """Something happened to the pod in the runtime when so many looks at it had begun."""

    looks: int
    stimulus: str
    is_news: Callable[[], bool]


@dataclass(slots=True)
class _Worker:
    """One UID."""

    state: WorkerState
    pod: core_v1.Pod | None
    memory: PodMemory = field(default_factory=PodMemory)
    news: asyncio.Event = field(default_factory=asyncio.Event)
    stimulus: str = "new"
    current: "asyncio.Task[float | None] | None" = None
    unseen: "list[_News]" = field(default_factory=list)
    """What the runtime told while a pass ran."""
    grace_seconds: int = 0
    is_purged: bool = False
    restart_pod: core_v1.Pod | None = None


class PodWorkers:
    """All workers of the node. `run` owns their tasks; the other methods may be called once it runs."""

    def __init__(
        self,
        sync: PodSync,
        statuses: StatusSink,
        resync_seconds: float = RESYNC_SECONDS,
        jitter: Callable[[], float] = random.random,
        *,
        preemptions: Preemptions,
        alive_namesakes: Callable[[str], Collection[str]] = lambda full_name: (),
        on_stopped: Callable[[], None] = lambda: None,
    ) -> None:
        """`alive_namesakes`: the UIDs of all pods with this full name of which something lives in the runtime.

        `on_stopped` is called when a pod's containers have stopped for good, so that `is_stopping` may say otherwise.
        """
        self._on_stopped = on_stopped
        self._sync = sync
        self._preemptions = preemptions
        self._alive_namesakes = alive_namesakes
        self._statuses = statuses
        self._resync_seconds = resync_seconds
        self._jitter = jitter
        self._workers: dict[str, _Worker] = {}
        self._gate = StaticPodGate()
        self._tasks: asyncio.TaskGroup | None = None
        self._stopping = asyncio.Event()
        self._started = asyncio.Event()

    async def run(self) -> None:
        """Endless. Cancelled, it ends every pass where it is and touches no container."""
        async with asyncio.TaskGroup() as tasks:
            self._tasks = tasks
            self._started.set()
            await self._stopping.wait()

    async def wait_started(self) -> None:
        """Returns once pods may be handed over."""
        await self._started.wait()

    # What is told to the workers

    def update(self, pod: core_v1.Pod, is_runtime_alive: bool = True) -> None:
        """The configuration of a pod, new or changed."""
        uid = pods.uid_of(pod)
        worker = self._workers.get(uid)
        if worker is None:
            transition = table.open_worker(pod, is_runtime_alive)
            self._open(transition, pod, "added")
            return
        is_back = worker.state.phase is not Phase.SYNCING and worker.state.is_deleted and not _is_deleting(pod)
        # A worker that never had a configuration stops what it found; whoever turns up under its UID begins after it.
        is_new = is_back or worker.state.is_runtime_only or worker.restart_pod is not None
        if is_new:
            worker.restart_pod = pod
        else:
            worker.pod = pod
        self._apply(worker, table.update_of(pod, is_new), "configuration changed")
        if worker.state.phase is Phase.FINISHED:
            worker.news.set()  # a pod that was done is deleted now: what it left goes too

    def note(self, pod: core_v1.Pod) -> None:
        """Only the status in the object changed: our own words come back this way, so nobody is woken."""
        worker = self._workers.get(pods.uid_of(pod))
        if worker is None:
            return
        if worker.restart_pod is not None:
            worker.restart_pod = pod
        elif worker.pod is not None:
            worker.pod = pod

    def remove(self, pod_uid: str) -> None:
        """The source has the pod no more."""
        worker = self._workers.get(pod_uid)
        if worker is None:
            return
        worker.restart_pod = None
        spec = pods.spec_of(worker.pod) if worker.pod is not None else None
        grace_seconds = spec.terminationGracePeriodSeconds if spec is not None else None
        self._apply(worker, table.PodRemoved(grace_seconds), "removed")
        if worker.state.phase is Phase.FINISHED:
            worker.news.set()

    def kill(
        self,
        pod_uid: str,
        request: table.KillRequested,
        failure: tuple[str, str] | None = None,
        disruption: tuple[str, str] | None = None,
    ) -> None:
        """The agent wants the pod gone; both are a reason and a message: of its status, of its DisruptionTarget."""
        worker = self._workers.get(pod_uid)
        if worker is None:
            return
        worker.memory.failure = worker.memory.failure or failure
        worker.memory.disruption = worker.memory.disruption or disruption
        self._apply(worker, request, request.cause)

    def stop_orphan(self, pod_uid: str, full_name: str) -> None:
        """Something lives in the runtime that no source knows."""
        if pod_uid not in self._workers:
            self._open(table.open_orphan(pod_uid, full_name), None, "nobody knows the pod")

    def wake(self, pod_uid: str, stimulus: str) -> None:
        """Something happened to the pod; look at it."""
        worker = self._workers.get(pod_uid)
        if worker is not None:
            worker.stimulus = stimulus
            worker.news.set()

    def wake_to_look(self, pod_uid: str, stimulus: str, is_news: Callable[[], bool]) -> None:
        """The runtime changed something of the pod. A pass on its way that looks again anyway needs no other after it,
        nor does one whose last look has shown it: `is_news` is asked at its end.

        Most such news is of the pass's own doing. A pass that fails ends with a look from which nothing follows.
        """
        worker = self._workers.get(pod_uid)
        if worker is not None and worker.current is not None:
            worker.unseen.append(_News(worker.memory.looks, stimulus, is_news))
        else:
            self.wake(pod_uid, stimulus)

    def note_verdict(self, pod_uid: str, stimulus: str) -> None:
        """A probe changed its mind. A pass that waits long (a hook, a pull, a stop) does not hold the status up."""
        worker = self._workers.get(pod_uid)
        if worker is None:
            return
        if worker.current is not None and worker.pod is not None:
            self._sync.reports.refresh_status(self._sync.allocated(worker.pod), worker.memory)
        self.wake(pod_uid, stimulus)

    def wake_all(self, stimulus: str) -> None:
        """Look at every pod, such as when the network became ready."""
        for uid in self._workers:
            self.wake(uid, stimulus)

    def forget_finished(self, desired: Callable[[str], bool]) -> list[core_v1.Pod]:
        """Housekeeping: drops the workers that are through and whose pods no source knows any more.

        Gives the pods that came back meanwhile under the same UID: they begin like any new pod.
        """
        again = []
        for uid, worker in list(self._workers.items()):
            if worker.state.phase is Phase.FINISHED and (worker.restart_pod is not None or not desired(uid)):
                if not worker.is_purged and worker.state.is_deleted and not _begins_anew(worker.state):
                    continue  # its own task still removes what is left
                if worker.restart_pod is not None and worker.state.restart_requested:
                    again.append(worker.restart_pod)
                self._apply(worker, table.Purged(), "purged")
        return again

    # What others ask

    def state(self, pod_uid: str) -> WorkerState | None:
        """The state of one UID."""
        worker = self._workers.get(pod_uid)
        return worker.state if worker is not None else None

    def pod(self, pod_uid: str) -> core_v1.Pod | None:
        """The configuration that the worker of one UID has."""
        worker = self._workers.get(pod_uid)
        return worker.pod if worker is not None else None

    def is_stopping(self, full_name: str) -> bool:
        """Whether a pod of this name is being stopped."""
        return any(
            worker.state.full_name == full_name and worker.state.phase is Phase.TERMINATING
            for worker in self._workers.values()
        )

    def states(self) -> Mapping[str, WorkerState]:
        """All states by UID."""
        return {uid: worker.state for uid, worker in self._workers.items()}

    # Inside

    def _open(self, transition: table.Transition, pod: core_v1.Pod | None, stimulus: str) -> None:
        if self._tasks is None:
            raise RuntimeError("PodWorkers.run() is not running")
        state = transition.state
        worker = _Worker(state, pod, stimulus=stimulus)
        self._workers[state.uid] = worker
        self._do(worker, transition.outputs)
        self._tasks.create_task(self._live(worker), name=f"pod-{state.full_name}-{state.uid}")

    def _apply(self, worker: _Worker, input_: table.Input, stimulus: str) -> None:
        transition = table.transition(worker.state, input_)
        worker.state = transition.state
        if transition.outputs:
            worker.stimulus = stimulus
        self._do(worker, transition.outputs)

    def _do(self, worker: _Worker, outputs: tuple[table.Output, ...]) -> None:
        for output in outputs:
            match output:
                case table.CancelSync():
                    if worker.current is not None:
                        worker.current.cancel()
                case table.RunSync() | table.RunTerminated():
                    worker.news.set()
                case table.RunTerminating(grace_seconds):
                    worker.grace_seconds = grace_seconds
                    worker.news.set()
                case table.Finish():
                    worker.news.set()
                case table.Forget():
                    self._forget(worker)

    def _forget(self, worker: _Worker) -> None:
        uid = worker.state.uid
        del self._workers[uid]
        self._preemptions.forget(uid)
        self._statuses.forget(pods.PodUid(uid))
        worker.news.set()

    async def _live(self, worker: _Worker) -> None:
        """The life of one worker: wait for news or the timer, make a pass, until nothing is left to do."""
        wait_seconds: float | None = 0.0
        while self._workers.get(worker.state.uid) is worker:
            try:
                async with asyncio.timeout(wait_seconds):
                    await worker.news.wait()
            except TimeoutError:
                worker.stimulus = "timer"
            worker.news.clear()
            if self._workers.get(worker.state.uid) is not worker:
                return
            wait_seconds = await self._one_pass(worker)

    async def _one_pass(self, worker: _Worker) -> float | None:
        """Makes the pass that the phase asks for, cancellable on its own; gives the time until the next one."""
        async with asyncio.TaskGroup() as tasks:
            worker.current = tasks.create_task(self._pass_of(worker), name=f"pass-{worker.state.uid}")
        task, worker.current = worker.current, None
        worker.memory.observed = None
        heard, worker.unseen = worker.unseen, []
        unseen = (news for news in heard if news.looks >= worker.memory.weighed and news.is_news())
        for news in unseen:
            self.wake(worker.state.uid, news.stimulus)
            break
        if task.cancelled():
            return 0.0
        return task.result()

    async def _pass_of(self, worker: _Worker) -> float | None:
        """The pass. A fault of ours in it costs this pod a wait and no other pod anything."""
        try:
            match worker.state.phase:
                case Phase.SYNCING:
                    return await self._sync_pass(worker)
                case Phase.TERMINATING:
                    return await self._stop_pass(worker)
                case Phase.TERMINATED:
                    return await self._clean_pass(worker)
                case Phase.FINISHED:
                    return await self._purge_pass(worker)
        except Exception as error:
            self._sync.reports.note_fault(worker.state.uid, worker.state.full_name, worker.stimulus, error)
            return self._spread(RETRY_SECONDS)

    async def _sync_pass(self, worker: _Worker) -> float | None:
        pod = worker.pod
        if pod is None:
            raise RuntimeError("a syncing worker has a pod")
        if pods.is_static(pod) and not self._may_start(worker.state):
            return RETRY_SECONDS
        held_seconds = self._preemptions.seconds_left(worker.state.uid)
        if held_seconds:
            return held_seconds
        result = await self._sync.sync_pod(self._sync.allocated(pod), worker.memory, worker.stimulus)
        grace_seconds = pods.spec_of(pod).terminationGracePeriodSeconds
        self._apply(worker, table.SyncDone(result.is_terminal, grace_seconds), "the pod is through")
        if worker.state.phase is not Phase.SYNCING:
            return 0.0
        waits = [self._spread(self._resync_seconds)]
        if result.retry_seconds is not None:
            waits.append(self._spread(result.retry_seconds))
        if result.due_seconds is not None:
            waits.append(result.due_seconds)
        return min(waits)

    async def _stop_pass(self, worker: _Worker) -> float | None:
        try:
            pod = self._sync.allocated(worker.pod) if worker.pod is not None else None
            await self._sync.terminate_pod(
                pod, worker.state.uid, worker.memory, worker.grace_seconds, worker.state.cause
            )
        except KubeletError as error:
            log.warning("pod_stop_failed", pod=worker.state.full_name, pod_uid=worker.state.uid, error=str(error))
            return self._spread(STOP_RETRY_SECONDS)
        self._apply(worker, table.ContainersStopped(), "the containers are stopped")
        self._on_stopped()
        for uid in self._preemptions.stopped(worker.state.uid):
            self.wake(uid, "the pods that gave way have stopped")
        return 0.0

    async def _clean_pass(self, worker: _Worker) -> float | None:
        pod = worker.pod
        if pod is None:
            raise RuntimeError("a worker that cleans up has a pod")
        try:
            await self._sync.clean_up_pod(self._sync.allocated(pod), worker.memory)
        except (KubeletError, OSError) as error:
            log.warning("pod_clean_up_failed", pod=worker.state.full_name, pod_uid=worker.state.uid, error=str(error))
            return self._spread(STOP_RETRY_SECONDS)
        self._apply(worker, table.CleanedUp(), "cleaned up")
        self._release_name(worker)
        return 0.0

    async def _purge_pass(self, worker: _Worker) -> float | None:
        """After the end: a pod that was deleted leaves nothing; one that is done keeps its logs until it is deleted.

        One that is back under the same UID keeps what has ended, and counts its restarts on.
        """
        self._release_name(worker)
        if not worker.state.is_deleted:
            return None
        self._statuses.finish(pods.PodUid(worker.state.uid))
        if worker.is_purged:
            return None
        if _begins_anew(worker.state):
            return None
        try:
            await self._sync.purge_pod(worker.state.uid, worker.pod)
        except (KubeletError, OSError) as error:
            level = log.debug if isinstance(error, RuntimeCallError) else log.warning
            level("pod_purge_failed", pod=worker.state.full_name, pod_uid=worker.state.uid, error=str(error))
            return self._spread(RETRY_SECONDS)
        worker.is_purged = True
        return None

    def _may_start(self, state: WorkerState) -> bool:
        """Static pods of one name run one after the other, also after one that only the runtime knows any more."""
        has_begun = self._gate.started.get(state.full_name) == state.uid
        if not has_begun and any(uid != state.uid for uid in self._alive_namesakes(state.full_name)):
            return False
        self._gate, may_start = self._gate.request(state.full_name, state.uid)
        return may_start

    def _release_name(self, worker: _Worker) -> None:
        """Lets the next static pod of the same name begin."""
        name = worker.state.full_name
        self._gate = self._gate.release(name, worker.state.uid)
        for uid, other in self._workers.items():
            if other.state.full_name == name and other.state.phase is Phase.SYNCING:
                self.wake(uid, "the pod of the same name is gone")

    def _spread(self, seconds: float) -> float:
        return seconds * (1 + JITTER * self._jitter())


def _begins_anew(state: WorkerState) -> bool:
    """Whether a pod that was stopped is to run again with what it has left."""
    return state.restart_requested and not state.is_runtime_only


def _is_deleting(pod: core_v1.Pod) -> bool:
    return pods.metadata_of(pod).deletionTimestamp is not None
