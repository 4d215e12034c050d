"""Passes over one pod: stopped, cleaned up, purged; cancelled passes and agents that die."""

import asyncio
from pathlib import Path

import msgspec
import pytest

from kubelet_py.api import core_v1
from kubelet_py.errors import (
    RuntimeCallError,
    RuntimeNotFound,
    RuntimeTimeout,
    SyncError,
)
from kubelet_py.sync.pod_services import PassResult, PodMemory
from kubelet_py.sync.start_gate import Rank, StartGate
from tests.fakes.runtime import ANY_MUTATION
from tests.fakes.waiting import background, eventually
from tests.unit.kubelet_py.sync.rig import UID, Rig, a_container, a_pod, settle, sync

# Stop


async def test_a_pod_is_stopped_cleaned_up_and_purged(rig: Rig) -> None:
    pod = a_pod()
    await sync(rig, pod)
    await asyncio.to_thread(rig.write_logs, pod)
    container = rig.fake.container("main")
    await rig.sync.terminate_pod(pod, UID, rig.memory, 30, "deleted")
    assert container.grace_periods == [30]
    assert rig.fake.running() == []
    assert rig.fake.ready_sandboxes() == []
    assert rig.prober.stopping == [UID]
    assert rig.prober.probed == {}
    await rig.sync.clean_up_pod(pod, rig.memory)
    assert rig.cgroups.made == rig.objects.watched == set()
    assert rig.status.phase == "Failed", "the container was killed"
    state = (rig.status.containerStatuses or [])[0].state
    assert state is not None
    assert state.terminated is not None
    assert state.terminated.exitCode == 143
    await rig.sync.purge_pod(UID, pod)
    assert rig.fake.containers == {}
    assert rig.fake.sandboxes == {}
    left = await asyncio.to_thread(
        lambda: [p.name for r in (rig.logs, rig.links, rig.volumes.dirs.pods) for p in r.iterdir()]
    )
    assert left == []
    await rig.sync.purge_pod(UID, pod)


async def test_a_pod_that_succeeded_stays_succeeded(rig: Rig) -> None:
    rig.fake.exits = {"main": 0}
    pod = a_pod(restartPolicy="Never")
    await sync(rig, pod)
    await rig.sync.terminate_pod(pod, UID, rig.memory, 30, "through")
    await rig.sync.clean_up_pod(pod, rig.memory)
    assert rig.status.phase == "Succeeded"
    assert rig.statuses.phases[-1] == "Succeeded"
    assert "Failed" not in rig.statuses.phases


async def test_sidecars_stop_after_the_main_containers_in_reverse_order(rig: Rig) -> None:
    sidecars = [a_container(name, restartPolicy="Always") for name in ("first", "second")]
    pod = a_pod(initContainers=sidecars)
    await settle(rig, pod)
    assert rig.fake.running() == ["first", "main", "second"]
    await rig.sync.terminate_pod(pod, UID, rig.memory, 30, "deleted")
    ids = {c.id: c.name for c in rig.fake.containers.values()}
    order = [ids[call.about] for call in rig.fake.calls if call.name == "StopContainer"]
    assert order == ["main", "second", "first"]


async def test_a_sidecar_waits_no_longer_than_the_grace_period(rig: Rig) -> None:
    pod = a_pod(initContainers=[a_container("proxy", restartPolicy="Always")])
    await settle(rig, pod)
    gate = rig.fake.hang("StopContainer")
    async with background(rig.sync.terminate_pod(pod, UID, rig.memory, 1, "deleted")):
        await eventually(lambda: rig.fake.running() == ["main"], seconds=5)
        gate.release()
        await eventually(lambda: not rig.fake.running())


async def test_what_will_not_stop_is_an_error_and_is_tried_again(rig: Rig) -> None:
    pod = a_pod(a_container("one"), a_container("two"))
    await sync(rig, pod)
    rig.fake.fail("StopContainer", RuntimeTimeout("StopContainer", "DEADLINE_EXCEEDED", "hangs"), times=1)
    with pytest.raises(SyncError, match="KillContainerError"):
        await rig.sync.terminate_pod(pod, UID, rig.memory, 30, "deleted")
    assert len(rig.fake.running()) == 1, "the other one was stopped all the same"
    assert "hangs" in rig.stories.tell(UID)[-1].result
    rig.fake.fail("StopPodSandbox")
    with pytest.raises(SyncError, match="KillPodSandbox"):
        await rig.sync.terminate_pod(pod, UID, rig.memory, 30, "deleted")
    await rig.sync.terminate_pod(pod, UID, rig.memory, 30, "deleted")
    assert rig.fake.running() == []


async def test_a_sidecar_outlives_a_main_container_that_will_not_stop(rig: Rig) -> None:
    """It serves the other as long as that one lives: both are tried again, in their order."""
    pod = a_pod(initContainers=[a_container("proxy", restartPolicy="Always")])
    await settle(rig, pod)
    rig.fake.fail("StopContainer", RuntimeTimeout("StopContainer", "DEADLINE_EXCEEDED", "hangs"), times=1)
    with pytest.raises(SyncError, match="proxy is not stopped before main"):
        await rig.sync.terminate_pod(pod, UID, rig.memory, 30, "deleted")
    assert rig.fake.running() == ["main", "proxy"]
    assert "FailedKillPod" in rig.reasons
    await rig.sync.terminate_pod(pod, UID, rig.memory, 30, "deleted")
    assert rig.fake.running() == []


@pytest.mark.parametrize("restarts", [False, True], ids=["same-agent", "next-agent"])
async def test_a_sandbox_whose_stop_failed_half_way_is_stopped_again(rig: Rig, restarts: bool) -> None:
    """It is not ready any more and still has its address: the pod has not ended before it is given back."""
    pod = a_pod()
    await sync(rig, pod)
    rig.fake.fail("StopPodSandbox", RuntimeCallError("StopPodSandbox", "UNKNOWN", "cni: plugin failed"), after=True)
    with pytest.raises(SyncError, match="plugin failed"):
        await rig.sync.terminate_pod(pod, UID, rig.memory, 30, "deleted")
    assert rig.fake.ready_sandboxes() == []
    if restarts:
        rig.boot()
    rig.fake.fail("StopPodSandbox", RuntimeCallError("StopPodSandbox", "UNKNOWN", "cni: plugin failed"))
    with pytest.raises(SyncError, match="plugin failed"):
        await rig.sync.terminate_pod(pod, UID, rig.memory, 30, "deleted")
    await rig.sync.terminate_pod(pod, UID, rig.memory, 30, "deleted")


async def test_a_container_that_survives_its_stop_is_an_error(rig: Rig) -> None:
    pod = a_pod()
    await sync(rig, pod)
    rig.fake.fail("StopContainer", RuntimeNotFound("StopContainer", "NOT_FOUND", "no such task"))
    rig.fake.fail("StopPodSandbox", RuntimeNotFound("StopPodSandbox", "NOT_FOUND", "no such sandbox"))
    with pytest.raises(SyncError, match="still run after they were stopped: main"):
        await rig.sync.terminate_pod(pod, UID, rig.memory, 30, "deleted")


async def test_a_pod_that_only_the_runtime_knows_is_stopped_and_purged(rig: Rig) -> None:
    await sync(rig, a_pod())
    rig.boot()
    await rig.sync.terminate_pod(None, UID, PodMemory(), 1, "nobody knows the pod")
    assert rig.fake.container("main").grace_periods == [2]
    assert rig.statuses.history == []
    await rig.sync.purge_pod(UID, None)
    assert rig.fake.sandboxes == {}


async def test_what_a_start_without_an_answer_brings_alive_after_the_stop_is_stopped_in_the_clean_up(rig: Rig) -> None:
    pod = a_pod()
    rig.fake.fail("StartContainer", RuntimeTimeout("StartContainer", "DEADLINE_EXCEEDED", "too slow"))
    await sync(rig, pod)
    await rig.sync.terminate_pod(pod, UID, rig.memory, 30, "deleted")
    await rig.fake.run_pod_sandbox(rig.fake.sandboxes.popitem()[1].config, "")
    await rig.sync.clean_up_pod(pod, rig.memory)
    assert rig.fake.ready_sandboxes() == []


async def test_a_pod_that_was_seen_in_peace_is_stopped_without_another_look(rig: Rig) -> None:
    """And when it is stopped, only what there was is looked at. A stop that failed begins with a new look."""
    pod = a_pod()
    await sync(rig, pod)
    rig.fake.calls.clear()
    rig.fake.fail("StopContainer", RuntimeTimeout("StopContainer", "DEADLINE_EXCEEDED", "too slow"), times=1)
    with pytest.raises(SyncError):
        await rig.sync.terminate_pod(pod, UID, rig.memory, 30, "deleted")
    assert rig.fake.called("ListContainers", "ContainerStatus") == []
    await rig.sync.terminate_pod(pod, UID, rig.memory, 30, "deleted")
    await rig.sync.clean_up_pod(pod, rig.memory)
    assert rig.fake.called("ListContainers", "ContainerStatus") == ["ListContainers", *["ContainerStatus"] * 2]
    assert rig.statuses.history[-1].phase == "Failed"


async def test_a_purge_that_fails_half_way_can_be_made_again(rig: Rig) -> None:
    pod = a_pod()
    await sync(rig, pod)
    await rig.sync.terminate_pod(pod, UID, rig.memory, 1, "deleted")
    rig.fake.fail("RemovePodSandbox")
    with pytest.raises(RuntimeCallError):
        await rig.sync.purge_pod(UID, pod)
    rig.fake.fail("RemovePodSandbox", RuntimeNotFound("RemovePodSandbox", "NOT_FOUND", "gone"), after=True)
    await rig.sync.purge_pod(UID, pod)
    assert rig.fake.sandboxes == {}


# Cancellation and crashes of the agent


async def test_a_cancelled_pass_sees_the_creation_of_a_sandbox_through(rig: Rig) -> None:
    """However often it is cancelled: an abandoned sandbox would turn up later with nobody to expect it."""
    gate = rig.fake.hang("RunPodSandbox")
    async with asyncio.TaskGroup() as tasks:
        task = tasks.create_task(sync(rig, a_pod()))
        await gate.reached.wait()
        for _ in range(2):
            task.cancel()
            await asyncio.sleep(0)
        assert not task.done()
        gate.release()
        await asyncio.wait((task,))
    assert task.cancelled()
    assert len(rig.fake.ready_sandboxes(UID)) == 1
    assert rig.fake.running() == []


async def test_a_pod_that_is_deleted_while_it_waits_for_its_turn_is_never_made(rig: Rig) -> None:
    starter, places = rig.sync._services.starter, StartGate(places=1)
    starter._gate = places
    async with asyncio.TaskGroup() as tasks, places.place(Rank.CONTAINER):
        task = tasks.create_task(sync(rig, a_pod()))
        while not places._waiting:  # noqa: ASYNC110 # nobody tells who waits
            await asyncio.sleep(0)
        task.cancel()
        await asyncio.wait((task,), timeout=5)
        assert task.cancelled()
    assert rig.fake.called() == []


async def test_a_cancelled_pass_does_not_mind_that_the_sandbox_failed(rig: Rig) -> None:
    gate = rig.fake.hang("RunPodSandbox")
    rig.fake.fail("PodSandboxStatus")
    async with asyncio.TaskGroup() as tasks:
        task = tasks.create_task(sync(rig, a_pod()))
        await gate.reached.wait()
        task.cancel()
        gate.release()
        await asyncio.wait((task,))
    assert task.cancelled()


async def test_a_stop_in_a_pass_can_be_cut_short(rig: Rig) -> None:
    """So that a deletion with less time need not wait for the old time."""
    pod = a_pod()
    await sync(rig, pod)
    rig.fake.ready_sandboxes()[0].ready = False
    gate = rig.fake.hang("StopContainer")
    async with asyncio.TaskGroup() as tasks:
        task = tasks.create_task(sync(rig, pod))
        await gate.reached.wait()
        task.cancel()
        await asyncio.wait((task,), timeout=5)
        assert task.cancelled()
    await rig.sync.terminate_pod(pod, UID, rig.memory, 1, "deleted")
    assert rig.fake.container("main").grace_periods == [2]


class AgentDied(Exception):
    """Not an error that the agent knows: it tears the pass down, as a crash would."""


async def up_and_down(rig: Rig, pod: core_v1.Pod) -> None:
    await settle(rig, pod)
    assert rig.fake.running() == ["main", "proxy"]
    await rig.sync.terminate_pod(pod, UID, rig.memory, 5, "deleted")
    await rig.sync.clean_up_pod(pod, rig.memory)
    await rig.sync.purge_pod(UID, pod)


@pytest.mark.parametrize("after", [False, True], ids=["before-the-call", "after-the-call"])
async def test_an_agent_that_dies_at_any_step_comes_to_the_same_end(tmp_path: Path, after: bool) -> None:
    """All memory is dropped in the middle of each changing call; a new agent goes on from what it sees."""
    pod = a_pod(initContainers=[a_container("setup"), a_container("proxy", restartPolicy="Always")])
    steps = 1
    while steps < 40:
        rig = Rig(tmp_path / f"{after}-{steps}")
        rig.fake.exits = {"setup": 0}
        rig.fake.fail(ANY_MUTATION, AgentDied(), skip=steps - 1, after=after)
        died = False
        try:
            await up_and_down(rig, pod)
        except* AgentDied:
            died = True
        rig.fake.heal()
        rig.boot()
        if died and rig.fake.running():
            await settle(rig, pod)
            assert rig.fake.running() == ["main", "proxy"]
            assert len(rig.fake.ready_sandboxes()) == 1
        await up_and_down(rig, pod)
        assert (rig.fake.sandboxes, rig.fake.containers) == ({}, {})
        assert rig.status.phase == "Failed"
        if not died:
            break
        steps += 1
    assert 10 < steps < 40


async def test_a_new_agent_finds_a_running_pod_and_changes_nothing(rig: Rig) -> None:
    pod = a_pod(initContainers=[a_container("setup")])
    rig.fake.exits = {"setup": 0}
    await settle(rig, pod)
    before = rig.fake.called()
    rig.boot()
    assert await sync(rig, pod) == PassResult()
    assert rig.fake.called() == before
    assert rig.statuses.phases == ["Running"]


async def test_a_new_agent_reports_with_the_status_that_the_api_server_has(rig: Rig) -> None:
    pod = a_pod()
    await sync(rig, pod)
    known = msgspec.structs.replace(pod, status=rig.status)
    rig.boot()
    await sync(rig, known)
    assert rig.status.startTime == known.status.startTime if known.status else None
