"""The scheduler of probes, in virtual time, with a transport whose answers the test writes."""

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
from blockbuster import blockbuster_ctx
from structlog.testing import capture_logs

from kubelet_py.api import core_v1
from kubelet_py.core.observed import ContainerState, ObservedContainer, ProbeResult, ProbeVerdict
from kubelet_py.managers.prober import ProbeAnswer, ProbeError, ProbeHooks, ProbeManager, ProbeTarget
from tests.unit.kubelet_py.core.pod_builder import UID, a_container, a_pod

pytestmark = pytest.mark.looptime(start=1000)

NS = 1_000_000_000
SUCCESS, FAILURE, UNKNOWN = ProbeResult.SUCCESS, ProbeResult.FAILURE, ProbeResult.UNKNOWN
EVERY_SECOND = {"exec": {"command": ["check"]}, "periodSeconds": 1, "failureThreshold": 1}


@pytest.fixture(autouse=True)
def _unblocked() -> Iterator[None]:
    with blockbuster_ctx("kubelet_py"), capture_logs():
        yield


def seconds() -> float:
    """The virtual time since the test began, in steps of the scheduler."""
    return round(asyncio.get_running_loop().time() - 1000, 1)


class Stage:
    """A ProbeManager and what it asks, says and hears. `answer` is what every probe gets, or raises."""

    def __init__(self, agent_age_seconds: float = 3600, max_parallel: int = 100) -> None:
        self.asked: list[tuple[float, str]] = []
        self.changes: list[tuple[float, str]] = []
        self.events: list[tuple[str, str]] = []
        self.answers: dict[str, ProbeAnswer | Exception] = {}
        self.takes_seconds = 0.0
        self.under_way = self.most_under_way = 0
        self.status: core_v1.PodStatus | None = None
        self.manager = ProbeManager(
            self,
            ProbeHooks(
                changed=lambda uid, stimulus: self.changes.append((seconds(), stimulus)),
                events=self._event,
                reported=lambda pod: self.status,
                agent_started_at_ns=int((1000 - agent_age_seconds) * NS),
                clock_ns=lambda: int(asyncio.get_running_loop().time() * NS),
                jitter=lambda: 0.5,
            ),
            max_parallel,
        )

    def _event(self, pod: core_v1.Pod, event_type: str, reason: str, message: str, name: str = "", /) -> None:
        assert event_type == "Warning"
        self.events.append((reason, message))

    async def ask(self, target: ProbeTarget) -> ProbeAnswer:
        """The transport: probes are told apart by the first word of their command."""
        assert target.probe.exec is not None
        word = (target.probe.exec.command or [""])[0]
        self.asked.append((seconds(), word))
        self.under_way += 1
        self.most_under_way = max(self.most_under_way, self.under_way)
        try:
            await asyncio.sleep(self.takes_seconds)
        finally:
            self.under_way -= 1
        answer = self.answers.get(word, ProbeAnswer(SUCCESS))
        if isinstance(answer, Exception):
            raise answer
        return answer

    def times(self, word: str) -> list[float]:
        """When the probe was asked."""
        return [when for when, asked in self.asked if asked == word]

    def verdict(self, container_id: str = "c1") -> ProbeVerdict:
        """What holds for a container."""
        return self.manager.verdicts(UID).get(container_id, ProbeVerdict())


@asynccontextmanager
async def running(stage: Stage) -> AsyncIterator[None]:
    async with asyncio.TaskGroup() as tasks:
        task = tasks.create_task(stage.manager.run())
        yield
        task.cancel()


def probe(word: str, **fields: Any) -> dict[str, Any]:
    """An exec probe at a period of one second."""
    return {**EVERY_SECOND, "exec": {"command": [word]}, **fields}


def run_of(container_id: str = "c1", name: str = "main", age_seconds: float = 0) -> ObservedContainer:
    """A running container that started so long ago."""
    started_ns = int((asyncio.get_running_loop().time() - age_seconds) * NS)
    return ObservedContainer(container_id, name, "s1", ContainerState.RUNNING, started_at_ns=started_ns)


def sync(stage: Stage, pod: core_v1.Pod, *running_containers: ObservedContainer) -> None:
    """What a pass of the pod's worker says."""
    stage.manager.sync_pod(pod, running_containers, ("10.0.0.7",))


async def test_a_probe_is_asked_at_its_period() -> None:
    """From the first moment on, and only a change of its verdict is told."""
    stage, pod = Stage(), a_pod(a_container(readinessProbe=probe("ready")))
    async with running(stage):
        sync(stage, pod, run_of())
        assert stage.verdict() == ProbeVerdict(readiness=FAILURE)
        await asyncio.sleep(3.5)
        assert stage.times("ready") == [0.0, 1.0, 2.0, 3.0]
        assert stage.changes == [(0.0, "readiness probe of main: success")]
        assert stage.verdict() == ProbeVerdict(readiness=SUCCESS)
        sync(stage, pod, run_of())  # the next pass changes nothing
        await asyncio.sleep(1)
        assert stage.times("ready") == [0.0, 1.0, 2.0, 3.0, 4.0]


async def test_slow_answers_do_not_pile_up() -> None:
    """One question at a time; the next comes at once when its time is over already."""
    stage = Stage()
    stage.takes_seconds = 2.5
    async with running(stage):
        sync(stage, a_pod(a_container(readinessProbe=probe("ready"))), run_of())
        await asyncio.sleep(6)
        assert stage.times("ready") == [0.0, 2.5, 5.0]
        assert stage.most_under_way == 1


async def test_the_initial_delay_counts_from_the_start_of_the_container() -> None:
    """A container that has run for four seconds waits six of ten."""
    stage = Stage()
    async with running(stage):
        sync(stage, a_pod(a_container(livenessProbe=probe("alive", initialDelaySeconds=10))), run_of(age_seconds=4))
        await asyncio.sleep(7.5)
        assert stage.times("alive") == [6.0, 7.0]


async def test_a_fresh_agent_spreads_its_probes() -> None:
    """By the jitter over one period."""
    stage = Stage(agent_age_seconds=1)
    async with running(stage):
        sync(stage, a_pod(a_container(livenessProbe=probe("alive", periodSeconds=8))), run_of(age_seconds=500))
        await asyncio.sleep(13)
        assert stage.times("alive") == [4.0, 12.0]


async def test_a_liveness_failure_is_told_once_and_waits_for_the_next_container() -> None:
    """Each failure is an event; after the threshold the container is asked no more, its successor is."""
    stage, pod = Stage(), a_pod(a_container(livenessProbe=probe("alive", failureThreshold=2)))
    stage.answers["alive"] = ProbeAnswer(FAILURE, "no pulse")
    async with running(stage):
        sync(stage, pod, run_of())
        assert stage.verdict() == ProbeVerdict(liveness=SUCCESS)
        await asyncio.sleep(5)
        assert stage.times("alive") == [0.0, 1.0]
        assert stage.events == [("Unhealthy", "Liveness probe failed: no pulse")] * 2
        assert stage.changes == [(1.0, "liveness probe of main: failure")]
        assert stage.verdict() == ProbeVerdict(liveness=FAILURE)
        sync(stage, pod, run_of("c2"))
        assert dict(stage.manager.verdicts(UID)) == {"c2": ProbeVerdict(liveness=SUCCESS)}
        await asyncio.sleep(0.5)
        assert stage.times("alive") == [0.0, 1.0, 5.0]


async def test_others_wait_for_the_startup_probe_and_follow_it_at_once() -> None:
    """Nobody asks whether a container is ready that has not started, and nobody asks again whether it has."""
    container = a_container(
        startupProbe=probe("started", failureThreshold=9),
        readinessProbe=probe("ready", periodSeconds=10),
        livenessProbe=probe("alive", initialDelaySeconds=5),
    )
    stage = Stage()
    stage.answers["started"] = ProbeAnswer(FAILURE)
    async with running(stage):
        sync(stage, a_pod(container), run_of())
        assert stage.verdict() == ProbeVerdict(UNKNOWN, SUCCESS, FAILURE)
        await asyncio.sleep(2.5)
        stage.answers["started"] = ProbeAnswer(SUCCESS)
        await asyncio.sleep(4)
        assert stage.times("started") == [0.0, 1.0, 2.0, 3.0]
        assert stage.times("ready") == [3.0]
        assert stage.times("alive") == [5.0, 6.0]
        assert stage.verdict() == ProbeVerdict(SUCCESS, SUCCESS, SUCCESS)


async def test_an_error_is_tried_three_times_and_changes_nothing() -> None:
    """What cannot be asked is neither well nor ill; one event says so."""
    stage = Stage()
    stage.answers["alive"] = ProbeError("no such container")
    async with running(stage):
        sync(stage, a_pod(a_container(livenessProbe=probe("alive"))), run_of())
        await asyncio.sleep(0.5)
        assert stage.times("alive") == [0.0] * 3
        text = "Liveness probe errored and resulted in unknown state: no such container"
        assert stage.events == [("Unhealthy", text)]
        assert stage.verdict() == ProbeVerdict(liveness=SUCCESS)
        await asyncio.sleep(1)
        assert len(stage.asked) == 6


async def test_a_fault_in_one_probe_ends_no_other() -> None:
    """An exception that nobody foresaw is logged; the schedule goes on."""
    stage = Stage()
    stage.answers["alive"] = RuntimeError("bug")
    async with running(stage):
        sync(stage, a_pod(a_container(livenessProbe=probe("alive"), readinessProbe=probe("ready"))), run_of())
        await asyncio.sleep(1.5)
        assert stage.times("ready") == stage.times("alive") == [0.0, 1.0]


async def test_a_warning_is_a_success_with_an_event() -> None:
    """Such as a redirect to another host."""
    stage = Stage()
    stage.answers["ready"] = ProbeAnswer(SUCCESS, "redirected", is_warning=True)
    async with running(stage):
        sync(stage, a_pod(a_container(readinessProbe=probe("ready"))), run_of())
        await asyncio.sleep(0.5)
        assert stage.events == [("ProbeWarning", "Readiness probe warning: redirected")]
        assert stage.verdict() == ProbeVerdict(readiness=SUCCESS)


async def test_in_a_pod_that_ends_only_readiness_is_asked() -> None:
    """Liveness and startup count as a success, also when the pod is seen again, or for the first time, by then."""
    container = a_container(
        startupProbe=probe("started", failureThreshold=99), livenessProbe=probe("alive"), readinessProbe=probe("ready")
    )
    stage, pod = Stage(), a_pod(container)
    stage.answers["started"] = ProbeAnswer(FAILURE)
    async with running(stage):
        sync(stage, pod, run_of())
        await asyncio.sleep(0.5)
        stage.manager.stop_for_termination(UID)
        sync(stage, pod, run_of(), run_of("c2", "other"))
        await asyncio.sleep(1.2)
        assert stage.times("alive") == []
        assert stage.times("started") == [0.0]
        assert len(stage.times("ready")) == 2
        assert stage.verdict() == ProbeVerdict(SUCCESS, SUCCESS, SUCCESS)
        sync(stage, pod, run_of("c3"))
        assert stage.verdict("c3") == ProbeVerdict(SUCCESS, SUCCESS, FAILURE)


async def test_an_answer_that_comes_after_the_end_began_restarts_nothing() -> None:
    """A liveness probe was under way when the pod was told to end."""
    stage = Stage()
    stage.takes_seconds = 1.0
    stage.answers["alive"] = ProbeAnswer(FAILURE)
    async with running(stage):
        sync(stage, a_pod(a_container(livenessProbe=probe("alive"))), run_of())
        await asyncio.sleep(0.5)
        stage.manager.stop_for_termination(UID)
        await asyncio.sleep(1)
        assert stage.verdict() == ProbeVerdict(liveness=SUCCESS)
        assert stage.changes == []


@pytest.mark.parametrize("forget", [lambda stage, pod: stage.manager.forget_pod(UID), sync])
async def test_what_is_gone_is_asked_no_more(forget: Callable[[Stage, core_v1.Pod], None]) -> None:
    """A pod that is forgotten, a container that stopped: a question under way is broken off, verdicts are gone."""
    stage, pod = Stage(), a_pod(a_container(readinessProbe=probe("ready")))
    stage.takes_seconds = 0.4
    async with running(stage):
        sync(stage, pod, run_of())
        await asyncio.sleep(0.2)
        forget(stage, pod)
        await asyncio.sleep(3)
        assert stage.times("ready") == [0.0]
        assert (stage.under_way, dict(stage.manager.verdicts(UID)), stage.changes) == (0, {}, [])
        stage.manager.forget_pod("nobody")
        stage.manager.stop_for_termination("nobody")


async def test_after_a_restart_of_the_agent_what_was_ready_stays_so() -> None:
    """Until a probe fails; what had started is not asked again."""
    reported = core_v1.ContainerStatus(
        name="main", image="", imageID="", ready=True, started=True, restartCount=0, containerID="containerd://c1"
    )
    stage = Stage(agent_age_seconds=1)
    stage.status = core_v1.PodStatus(containerStatuses=[reported])
    stage.answers["ready"] = ProbeAnswer(FAILURE)
    async with running(stage):
        container = a_container(startupProbe=probe("started"), readinessProbe=probe("ready", periodSeconds=4))
        sync(stage, a_pod(container), run_of(age_seconds=60))
        assert stage.verdict() == ProbeVerdict(startup=SUCCESS, readiness=SUCCESS)
        await asyncio.sleep(3)
        assert stage.times("started") == []
        assert stage.changes == [(2.0, "readiness probe of main: failure")]


async def test_sidecars_are_probed_and_other_init_containers_are_not() -> None:
    """Only the newest run of a name counts."""
    sidecar = a_container("side", restartPolicy="Always", startupProbe=probe("started"))
    plain = a_container("setup", startupProbe=probe("never"))
    stage = Stage()
    async with running(stage):
        pod = a_pod(a_container(), initContainers=[sidecar, plain])
        sync(stage, pod, run_of("i2", "side"), run_of("i1", "side"), run_of("i3", "setup"), run_of())
        await asyncio.sleep(0.5)
        assert list(stage.manager.verdicts(UID)) == ["i2"]
        assert stage.asked == [(0.0, "started")]


async def test_so_many_questions_at_once_and_the_others_in_turn() -> None:
    """Nobody is forgotten when all places are taken."""
    stage = Stage(max_parallel=2)
    stage.takes_seconds = 0.1
    async with running(stage):
        names = [f"c{number}" for number in range(6)]
        pod = a_pod(*(a_container(name, readinessProbe=probe(name)) for name in names))
        sync(stage, pod, *(run_of(name, name) for name in names))
        await asyncio.sleep(0.9)
        assert stage.most_under_way == 2
        assert sorted(word for _, word in stage.asked) == names
        assert all(verdict.readiness is SUCCESS for verdict in stage.manager.verdicts(UID).values())
