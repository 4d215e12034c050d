"""One worker for each UID: what wakes it, what it does next, and when, in virtual time."""

import asyncio
import itertools
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from structlog.testing import capture_logs

from kubelet_py.api import core_v1
from kubelet_py.core.pod_worker import KillRequested, Phase
from kubelet_py.errors import RuntimeCallError
from kubelet_py.sync.pod_workers import RESYNC_SECONDS, STOP_RETRY_SECONDS, PodWorkers
from kubelet_py.sync.preemptions import Preemptions
from tests.unit.kubelet_py.sync.rig import UID, InlineExecutor, LoopClock, Rig, a_container, a_pod

pytestmark = pytest.mark.looptime

OTHER_UID = "0a1b2c3d-0000-4000-8000-000000000002"
DELETED = {"deletionTimestamp": datetime(2024, 1, 1, tzinfo=UTC), "deletionGracePeriodSeconds": 30}


class Stage:
    """The workers of a node."""

    def __init__(self, root: Path) -> None:
        self.rig = Rig(root, LoopClock())
        self.rig.volumes._threads = InlineExecutor()
        self.preemptions = Preemptions(self.rig.event, asyncio.get_running_loop().time)
        self.workers = PodWorkers(
            self.rig.sync,
            self.rig.statuses,
            jitter=lambda: 0.0,
            preemptions=self.preemptions,
            alive_namesakes=self.alive_namesakes,
            on_stopped=lambda: self.stopped.append(self.workers.is_stopping("web_shop")),
        )
        self.stopped: list[bool] = []

    def alive_namesakes(self, full_name: str) -> set[str]:
        """As the PLEG tells them."""
        records = {record.uid: record for record in self.rig.learned}
        return {r.uid for r in records.values() if r.is_alive and f"{r.name}_{r.namespace}" == full_name}

    def phase(self, uid: str = UID) -> Phase | None:
        state = self.workers.state(uid)
        return state.phase if state is not None else None

    def keep_house(self, *desired: str) -> None:
        """What the sync loop does now and then."""
        for pod in self.workers.forget_finished(lambda uid: uid in desired):
            self.workers.update(pod)

    async def until(self, condition: Callable[[], Any], seconds: float = 1000.0) -> float:
        """The virtual time that it took."""
        began = asyncio.get_running_loop().time()
        async with asyncio.timeout(seconds):
            while not condition():  # noqa: ASYNC110 # any condition, in virtual time
                await asyncio.sleep(0.04)
        return asyncio.get_running_loop().time() - began


@pytest.fixture
async def stage(tmp_path: Path) -> AsyncIterator[Stage]:
    loop = asyncio.get_running_loop()
    loop.set_default_executor(InlineExecutor())
    made = Stage(tmp_path)
    with capture_logs():  # printing tracebacks takes seconds
        async with running(made.workers):
            yield made


@asynccontextmanager
async def running(workers: PodWorkers) -> AsyncIterator[None]:
    async with asyncio.TaskGroup() as tasks:
        task = tasks.create_task(workers.run())
        await workers.wait_started()
        yield
        task.cancel()


def stories(stage: Stage, uid: str = UID) -> list[tuple[str, str]]:
    return [(entry.stimulus, entry.result) for entry in stage.rig.stories.tell(uid)]


async def settled(stage: Stage) -> None:
    await stage.until(lambda: stage.rig.fake.running() == ["main"], 5)
    await asyncio.sleep(0.1)


# Passes and timers


async def test_a_new_pod_is_brought_up_and_looked_at_again_each_minute(stage: Stage) -> None:
    stage.workers.update(a_pod())
    await settled(stage)
    assert stage.phase() is Phase.SYNCING
    passes = len(stage.rig.learned)
    await asyncio.sleep(3 * RESYNC_SECONDS)
    assert len(stage.rig.learned) == passes + 3
    assert stories(stage)[-1][0] == "timer"


async def test_the_newest_word_wins(stage: Stage) -> None:
    """Many changes during a slow pass cost one pass, with the last of them."""
    gate = stage.rig.fake.hang("RunPodSandbox")
    stage.workers.update(a_pod())
    await gate.reached.wait()
    for number in range(5):
        image = f"registry.example/app:{number}"
        stage.rig.fake.add_image(image)
        stage.workers.update(a_pod(a_container(image=image)))
    gate.release()
    await asyncio.sleep(50)
    newest = stage.rig.fake.container("main")
    assert newest.config.image.user_specified_image == "registry.example/app:4"
    assert len([c for c in stage.rig.fake.containers.values() if c.name == "main"]) == 2
    assert stage.rig.fake.running() == ["main"]


async def test_a_crash_loop_restarts_exactly_when_its_wait_is_over(stage: Stage) -> None:
    stage.rig.fake.exits = {"main": 1}
    stage.workers.update(a_pod())
    await asyncio.sleep(400)
    starts = sorted(c.started_at for c in stage.rig.fake.containers.values())
    gaps = [round((later - earlier) / 1e9, 1) for earlier, later in itertools.pairwise(starts)]
    assert gaps == [0.0, 10.0, 20.0, 40.0, 80.0, 160.0]


async def test_a_failed_pass_is_made_again_after_ten_seconds(stage: Stage) -> None:
    stage.rig.fake.fail("RunPodSandbox")
    stage.workers.update(a_pod())
    assert await stage.until(lambda: stage.rig.fake.running()) == pytest.approx(10, abs=0.1)


def always() -> bool:
    return True


def never() -> bool:
    return False


async def test_a_wake_is_a_pass_at_once(stage: Stage) -> None:
    stage.rig.fake.fail("RunPodSandbox")
    stage.workers.update(a_pod())
    await asyncio.sleep(1)
    stage.workers.wake_all("the runtime is ready")
    await stage.until(lambda: stage.rig.fake.running(), 1)
    assert stories(stage)[-1][0] == "the runtime is ready"
    stage.workers.wake("nobody", "nothing")


async def test_what_the_runtime_tells_in_the_middle_of_a_pass_is_seen_by_its_next_look(stage: Stage) -> None:
    """The sandbox that the pass makes itself is no reason for another pass after it."""
    gate = stage.rig.fake.hang("StartContainer")
    stage.workers.update(a_pod())
    await gate.reached.wait()
    stage.workers.wake_to_look(UID, "pleg: a sandbox started", always)
    gate.release()
    await settled(stage)
    assert "pleg: a sandbox started" not in [stimulus for stimulus, *_ in stories(stage)]


async def test_what_the_runtime_tells_after_the_last_look_of_a_pass_is_looked_at(stage: Stage) -> None:
    stage.workers.update(a_pod())
    await settled(stage)
    gate = stage.rig.fake.hang("ContainerStatus")
    stage.workers.wake(UID, "somebody asked")
    await gate.reached.wait()
    stage.workers.wake_to_look(UID, "pleg: a container died", always)
    gate.release()
    await settled(stage)
    assert stories(stage)[-1][0] == "pleg: a container died"


async def test_what_the_last_look_of_a_pass_has_shown_is_no_news_after_it(stage: Stage) -> None:
    """The event of a start comes while the pass looks at what it has started. What else was told meanwhile counts."""
    stage.workers.update(a_pod())
    await settled(stage)
    for died in (False, True):
        gate = stage.rig.fake.hang("ContainerStatus")
        stage.workers.wake(UID, "somebody asked")
        await gate.reached.wait()
        stage.workers.wake_to_look(UID, "pleg: a container died", [never, always][died])
        stage.workers.wake_to_look(UID, "runtime event", never)
        gate.release()
        await settled(stage)
        assert stories(stage)[-1][0] == ("pleg: a container died" if died else "somebody asked")


async def test_what_the_runtime_tells_in_the_middle_of_a_pass_that_fails_is_not_lost(stage: Stage) -> None:
    """One container dies while another takes long and does not start in the end: the first waits for no retry."""
    gate = stage.rig.fake.hang("CreateContainer")
    stage.rig.fake.fail("StartContainer")
    stage.workers.update(a_pod())
    await gate.reached.wait()
    stage.workers.wake_to_look(UID, "pleg: a container died", always)
    gate.release()
    await stage.until(lambda: "pleg: a container died" in [stimulus for stimulus, _ in stories(stage)], 1)


async def test_what_the_runtime_tells_of_an_idle_pod_is_looked_at_once(stage: Stage) -> None:
    stage.workers.update(a_pod())
    await settled(stage)
    stage.workers.wake_to_look(UID, "pleg: a container died", always)
    stage.workers.wake_to_look("nobody", "nothing", always)
    await settled(stage)
    assert stories(stage)[-1][0] == "pleg: a container died"


async def test_only_a_status_in_the_object_wakes_nobody(stage: Stage) -> None:
    stage.workers.update(a_pod())
    await settled(stage)
    passes = len(stage.rig.learned)
    newer = a_pod(metadata={"resourceVersion": "7"})
    stage.workers.note(newer)
    stage.workers.note(a_pod(metadata={"uid": OTHER_UID}))
    await asyncio.sleep(1)
    assert len(stage.rig.learned) == passes
    assert stage.workers.pod(UID) is newer
    assert stage.workers.pod(OTHER_UID) is None


async def test_a_fault_in_one_pods_pass_costs_no_other_pod_anything(stage: Stage) -> None:
    """The agent lives on, the fault is in the story, and the pod is tried again."""
    stage.rig.fake.fail("CreateContainer", ZeroDivisionError("by nothing"))
    stage.workers.update(a_pod())
    stage.workers.update(a_pod(a_container("other"), metadata={"uid": OTHER_UID, "name": "other"}))
    await stage.until(lambda: stage.rig.fake.running(OTHER_UID) or stage.rig.fake.running(UID), 1)
    assert len(stage.rig.fake.running()) == 1
    assert await stage.until(lambda: len(stage.rig.fake.running()) == 2) == pytest.approx(10, abs=0.1)
    faults = [text for uid in (UID, OTHER_UID) for _, text in stories(stage, uid) if "fault of the agent" in text]
    assert faults == ["fault of the agent: ZeroDivisionError: by nothing"]


@pytest.mark.parametrize("call", ["StopContainer", "RemovePodSandbox"])
async def test_a_fault_while_a_pod_ends_is_tried_again(stage: Stage, call: str) -> None:
    stage.workers.update(a_pod())
    await settled(stage)
    stage.rig.fake.fail(call, ZeroDivisionError("by nothing"))
    stage.workers.remove(UID)
    await stage.until(lambda: not stage.rig.fake.sandboxes, 30)
    assert "fault of the agent" in "".join(text for _, text in stories(stage))


# The end of a pod


async def test_a_deleted_pod_is_stopped_cleaned_up_purged_and_forgotten(stage: Stage) -> None:
    stage.workers.update(a_pod())
    await settled(stage)
    container = stage.rig.fake.container("main")
    stage.workers.update(a_pod(metadata=DELETED))
    await stage.until(lambda: stage.rig.statuses.finished)
    assert container.grace_periods == [30]
    assert stage.phase() is Phase.FINISHED
    await stage.until(lambda: not stage.rig.fake.sandboxes, 1)
    assert stage.rig.status.phase == "Failed"
    stage.keep_house(UID)
    assert stage.phase() is Phase.FINISHED, "its source has it still"
    stage.workers.remove(UID)
    await asyncio.sleep(0.1)
    stage.keep_house()
    assert stage.phase() is None
    assert stage.rig.statuses.forgotten == [UID]
    stage.workers.remove(UID)


async def test_a_pod_that_is_done_keeps_its_containers_until_it_is_deleted(stage: Stage) -> None:
    stage.rig.fake.exits = {"main": 0}
    pod = a_pod(restartPolicy="Never")
    stage.workers.update(pod)
    await stage.until(lambda: stage.phase() is Phase.FINISHED, 5)
    assert stage.rig.status.phase == "Succeeded"
    await asyncio.sleep(200)
    stage.keep_house(UID)
    assert len(stage.rig.fake.containers) == 1
    assert stage.rig.statuses.finished == []
    stage.workers.update(a_pod(restartPolicy="Never", metadata=DELETED))
    await stage.until(lambda: not stage.rig.fake.containers, 5)
    assert stage.rig.statuses.finished == [UID]


async def test_a_grace_period_can_shrink_but_not_grow(stage: Stage) -> None:
    stage.rig.fake.stubborn = {"main"}
    stage.workers.update(a_pod())
    await settled(stage)
    container = stage.rig.fake.container("main")
    began = asyncio.get_running_loop().time()
    stage.workers.update(a_pod(metadata=DELETED | {"deletionGracePeriodSeconds": 100}))
    await asyncio.sleep(5)
    stage.workers.update(a_pod(metadata=DELETED | {"deletionGracePeriodSeconds": 200}))
    await asyncio.sleep(5)
    stage.workers.update(a_pod(metadata=DELETED | {"deletionGracePeriodSeconds": 3}))
    await stage.until(lambda: not stage.rig.fake.running())
    assert asyncio.get_running_loop().time() - began == pytest.approx(13, abs=0.5)
    assert container.grace_periods == [100, 3]


async def test_a_stop_that_fails_is_tried_again_soon(stage: Stage) -> None:
    stage.workers.update(a_pod())
    await settled(stage)
    stage.rig.fake.fail("StopContainer", times=2)
    stage.workers.remove(UID)
    took = await stage.until(lambda: not stage.rig.fake.running())
    assert took == pytest.approx(2 * STOP_RETRY_SECONDS, abs=0.2)


async def test_a_clean_up_that_fails_is_tried_again(stage: Stage) -> None:
    stage.workers.update(a_pod())
    await settled(stage)
    stage.rig.cgroups.error = OSError("device or resource busy")
    stage.workers.remove(UID)
    await asyncio.sleep(10)
    assert stage.phase() is Phase.TERMINATED
    stage.rig.cgroups.error = None
    await stage.until(lambda: stage.phase() is Phase.FINISHED, 5)


async def test_a_purge_that_fails_is_tried_again(stage: Stage) -> None:
    stage.workers.update(a_pod())
    await settled(stage)
    stage.rig.fake.fail("RemovePodSandbox")
    stage.workers.remove(UID)
    await asyncio.sleep(1)
    stage.keep_house()
    assert stage.phase() is Phase.FINISHED, "not forgotten before nothing is left"
    await stage.until(lambda: not stage.rig.fake.sandboxes, 20)
    stage.keep_house()
    assert stage.phase() is None


async def test_a_deletion_in_the_middle_of_a_pass_interrupts_it(stage: Stage) -> None:
    stage.rig.fake.images.clear()
    gate = stage.rig.fake.hang("PullImage")
    stage.workers.update(a_pod())
    await gate.reached.wait()
    stage.workers.update(a_pod(metadata=DELETED))
    await stage.until(lambda: stage.rig.statuses.finished, 5)
    assert stage.rig.fake.ready_sandboxes() == []


async def test_a_kill_by_the_agent_fails_the_pod_with_its_reason(stage: Stage) -> None:
    stage.workers.update(a_pod())
    await settled(stage)
    request = KillRequested("memory is short", is_eviction=True, grace_override_seconds=4)
    stage.workers.kill(UID, request, ("Evicted", "The node was low on resource: memory."))
    stage.workers.kill("nobody", request)
    await stage.until(lambda: stage.phase() is Phase.FINISHED)
    assert stage.rig.fake.container("main").grace_periods == [4]
    assert (stage.rig.status.phase, stage.rig.status.reason) == ("Failed", "Evicted")
    state = stage.workers.state(UID)
    assert state is not None
    assert state.is_evicted


async def test_a_pod_that_came_back_while_it_was_stopped_begins_again(stage: Stage) -> None:
    """A static pod whose file was removed and written again has the same UID; its restarts are counted on."""
    stage.rig.fake.stubborn = {"main"}
    stage.workers.update(a_pod())
    await settled(stage)
    stage.workers.remove(UID)
    await asyncio.sleep(1)
    stage.workers.update(a_pod(metadata={"resourceVersion": "2"}))
    again = a_pod(metadata={"resourceVersion": "3"})
    stage.workers.note(again)
    await stage.until(lambda: stage.phase() is Phase.FINISHED)
    await asyncio.sleep(0.1)
    stage.keep_house(UID)
    assert stage.phase() is Phase.SYNCING
    assert stage.workers.pod(UID) is again, "the newest that is known of it"
    await stage.until(lambda: stage.rig.fake.running() == ["main"], 5)
    statuses = stage.rig.status.containerStatuses or ()
    assert [status.restartCount for status in statuses] == [1]


@pytest.mark.parametrize("went_after_seconds", [0, 1])
async def test_a_pod_that_came_back_and_went_again_does_not_begin(stage: Stage, went_after_seconds: float) -> None:
    """And leaves nothing, whether it was stopped by then or not."""
    stage.workers.update(a_pod())
    await settled(stage)
    stage.workers.remove(UID)
    stage.workers.update(a_pod())
    await asyncio.sleep(went_after_seconds)
    stage.workers.remove(UID)
    await stage.until(lambda: not stage.rig.fake.sandboxes)
    stage.keep_house()
    assert stage.workers.states() == {}


async def test_what_only_the_runtime_knows_is_stopped_and_forgotten(stage: Stage) -> None:
    await stage.rig.sync.sync_pod(a_pod(), stage.rig.memory, "an agent of earlier")
    stage.workers.stop_orphan(UID, "web_shop")
    stage.workers.stop_orphan(UID, "web_shop")
    await stage.until(lambda: not stage.rig.fake.sandboxes, 5)
    stage.workers.remove(UID)
    stage.keep_house()
    assert stage.workers.states() == {}


async def test_an_orphan_that_a_source_knows_after_all_begins_again(stage: Stage) -> None:
    await stage.rig.sync.sync_pod(a_pod(), stage.rig.memory, "an agent of earlier")
    stage.workers.stop_orphan(UID, "web_shop")
    stage.workers.update(a_pod())
    await stage.until(lambda: not stage.rig.fake.sandboxes, 5)
    stage.keep_house(UID)
    await settled(stage)


@pytest.mark.parametrize("was_alive", [False, True])
async def test_an_orphan_that_turns_up_deleted_goes_at_the_api_server_too(stage: Stage, was_alive: bool) -> None:
    """The first list may be older than the pod; whether somebody deleted it before it was seen here or after."""
    await stage.rig.sync.sync_pod(a_pod(), stage.rig.memory, "an agent of earlier")
    stage.workers.stop_orphan(UID, "web_shop")
    if was_alive:
        stage.workers.update(a_pod())
    stage.workers.update(a_pod(metadata=DELETED))
    await stage.until(lambda: not stage.rig.fake.sandboxes, 5)
    stage.keep_house(UID)
    await stage.until(lambda: stage.rig.status.phase in ("Succeeded", "Failed"), 50)
    await stage.until(lambda: stage.rig.statuses.finished == [UID, UID], 5)  # the first said nothing of any status
    assert stage.rig.fake.running() == []


async def test_a_final_pod_of_which_nothing_lives_is_only_cleaned_up(stage: Stage) -> None:
    final = a_pod()
    final.status = core_v1.PodStatus(phase="Failed", reason="OutOfcpu", message="Pod was rejected: no cpu")
    stage.workers.update(final, is_runtime_alive=False)
    await stage.until(lambda: stage.phase() is Phase.FINISHED, 5)
    assert stage.rig.fake.called() == []
    assert (stage.rig.status.phase, stage.rig.status.reason) == ("Failed", "OutOfcpu")


# Static pods


def static(uid: str, **fields: Any) -> core_v1.Pod:
    return a_pod(metadata={"uid": uid, "annotations": {"kubernetes.io/config.source": "file"}}, **fields)


async def test_static_pods_of_one_name_run_one_after_the_other(stage: Stage) -> None:
    """A changed manifest is another UID with the same name."""
    stage.rig.fake.stubborn = {"main"}
    stage.workers.update(static(UID))
    await settled(stage)
    stage.workers.update(static(OTHER_UID))
    await asyncio.sleep(20)
    assert stage.rig.fake.running(OTHER_UID) == []
    stage.workers.remove(UID)
    assert stage.workers.is_stopping("web_shop")
    assert not stage.workers.is_stopping("other_shop")
    took = await stage.until(lambda: stage.rig.fake.running(OTHER_UID))
    assert stage.stopped == [False], "whoever waits for it is told, and it is true by then"
    assert took == pytest.approx(30, abs=0.5), "as soon as the first one is gone"
    assert stage.rig.fake.running(UID) == []


async def test_a_static_pod_that_never_began_lets_the_next_one_go(stage: Stage) -> None:
    stage.workers.update(static(UID))
    await settled(stage)
    third = "0a1b2c3d-0000-4000-8000-000000000003"
    stage.workers.update(static(OTHER_UID))
    await asyncio.sleep(1)
    stage.workers.update(static(third))
    await asyncio.sleep(1)
    stage.workers.remove(OTHER_UID)
    stage.workers.remove(UID)
    await stage.until(lambda: stage.rig.fake.running(third), 10)


async def test_a_static_pod_waits_for_one_of_its_name_that_only_the_runtime_knows(stage: Stage) -> None:
    """The manifest changed while no agent ran."""
    await stage.rig.sync.sync_pod(static(UID), stage.rig.memory, "an agent of earlier")
    stage.workers.update(static(OTHER_UID))
    await asyncio.sleep(30)
    assert stage.rig.fake.running(OTHER_UID) == []
    stage.workers.stop_orphan(UID, "web_shop")
    took = await stage.until(lambda: stage.rig.fake.running(OTHER_UID))
    assert took < 1, "as soon as the first one is gone"
    assert stage.rig.fake.running(UID) == []


# The agent


async def test_a_stop_of_the_agent_touches_no_container(tmp_path: Path) -> None:
    asyncio.get_running_loop().set_default_executor(InlineExecutor())
    stage = Stage(tmp_path)
    async with running(stage.workers):
        stage.workers.update(a_pod())
        await settled(stage)
        before = stage.rig.fake.called()
    assert stage.rig.fake.called() == before
    assert stage.rig.fake.running() == ["main"]


async def test_nothing_is_taken_before_the_workers_run(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError, match="not running"):
        Stage(tmp_path).workers.update(a_pod())


async def test_a_runtime_error_in_a_stop_is_no_fault_of_the_agent(stage: Stage) -> None:
    stage.workers.update(a_pod())
    await settled(stage)
    stage.rig.fake.fail("ListContainers", RuntimeCallError("ListContainers", "UNKNOWN", "busy"))
    stage.workers.remove(UID)
    await stage.until(lambda: not stage.rig.fake.running(), 10)
    assert "fault" not in "".join(text for _, text in stories(stage))
