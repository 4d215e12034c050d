"""From sources to workers: what is taken, refused, ignored, and found by the housekeeping. In virtual time."""

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import msgspec
import pytest
from structlog.testing import capture_logs

from kubelet_py.api import core_v1
from kubelet_py.api import pod as pods
from kubelet_py.core.admission import NodeState
from kubelet_py.core.pod_resources import compute_pod_requests
from kubelet_py.core.pod_worker import Phase
from kubelet_py.core.source_merge import PodSet, SourceProblem
from kubelet_py.sync.loop import HOUSEKEEPING_SECONDS, ORPHANS_SECONDS
from kubelet_py.sync.pod_services import PodMemory
from tests.unit.kubelet_py.sync.agent import Agent
from tests.unit.kubelet_py.sync.rig import UID, InlineExecutor, LoopClock, Rig, a_container, a_pod

pytestmark = pytest.mark.looptime

OTHER_UID = "0a1b2c3d-0000-4000-8000-000000000002"
THIRD_UID = "0a1b2c3d-0000-4000-8000-000000000003"
FOURTH_UID = "0a1b2c3d-0000-4000-8000-000000000004"
CRITICAL = 2_000_000_000
MIRROR = {"annotations": {"kubernetes.io/config.mirror": "hash"}}


@pytest.fixture
async def agent(tmp_path: Path, request: pytest.FixtureRequest) -> AsyncIterator[Agent]:
    """With one source, the API server, or those that a test names."""
    asyncio.get_running_loop().set_default_executor(InlineExecutor())
    rig = Rig(tmp_path, LoopClock())
    rig.volumes._threads = InlineExecutor()
    made = Agent(rig, getattr(request, "param", ("api",)))
    with capture_logs():
        async with asyncio.TaskGroup() as tasks:
            task = tasks.create_task(made.run())
            yield made
            task.cancel()


def other(*containers: dict[str, Any], **metadata: Any) -> core_v1.Pod:
    return a_pod(*containers, metadata={"name": "other", "uid": OTHER_UID, **metadata})


async def test_a_pod_that_appears_runs_and_one_that_vanishes_leaves_nothing(agent: Agent) -> None:
    await agent.has(a_pod())
    assert agent.rig.fake.running() == ["main"]
    assert agent.heard == [(1, True)]
    await agent.has()
    await asyncio.sleep(HOUSEKEEPING_SECONDS * 2)
    assert agent.rig.fake.sandboxes == {}
    assert agent.workers.states() == {}


async def test_a_changed_pod_is_brought_up_to_its_new_spec(agent: Agent) -> None:
    await agent.has(a_pod())
    agent.rig.fake.add_image("registry.example/app:2")
    await agent.has(a_pod(a_container(image="registry.example/app:2")))
    await asyncio.sleep(15)
    assert agent.rig.fake.container("main").config.image.user_specified_image == "registry.example/app:2"


async def test_a_deletion_stops_the_pod(agent: Agent) -> None:
    await agent.has(a_pod())
    deleted = {"deletionTimestamp": datetime(2024, 1, 1, tzinfo=UTC), "deletionGracePeriodSeconds": 5}
    await agent.has(a_pod(metadata=deleted))
    assert agent.rig.fake.running() == []
    assert agent.rig.statuses.finished == [UID]


async def test_a_pod_that_does_not_fit_is_refused_for_good(agent: Agent) -> None:
    sized: dict[str, Any] = {"resources": {"requests": {"cpu": "3"}}}
    await agent.has(a_pod(a_container(**sized)), other(a_container("late", **sized)))
    assert agent.rig.fake.running() == ["main"]
    refused = agent.rig.statuses.newest[OTHER_UID]
    assert (refused.phase, refused.reason) == ("Failed", "OutOfcpu")
    assert (refused.containerStatuses, refused.conditions) == (None, None), "nothing of it ever was"
    assert ("Warning", "OutOfcpu") in {(kind, reason) for kind, reason, _ in agent.rig.events}
    assert agent.phase(OTHER_UID) is Phase.FINISHED
    assert agent.rig.fake.called("RunPodSandbox") == ["RunPodSandbox"]
    assert [pods.uid_of(pod) for pod in agent.loop.active_pods()] == [UID]


async def test_what_has_ended_holds_no_more_than_it_was_given(agent: Agent) -> None:
    """A resize down is through for whoever does not run; who runs holds what it has until it is changed."""

    def asking(cpu: str) -> core_v1.Pod:
        return a_pod(a_container(resources={"requests": {"cpu": cpu}}), restartPolicy="Never")

    def held() -> str:
        (pod,) = agent.loop.active_pods()
        return str(compute_pod_requests(pod)["cpu"])

    await agent.has(asking("3"))
    agent.rig.allocations.allocate(asking("1"))
    assert held() == "3"
    status = agent.rig.statuses.newest[UID]
    ended = core_v1.ContainerState(terminated=core_v1.ContainerStateTerminated(exitCode=0))
    entries = [msgspec.structs.replace(entry, state=ended) for entry in status.containerStatuses or ()]
    agent.rig.statuses.newest[UID] = msgspec.structs.replace(status, containerStatuses=entries)
    assert held() == "1"
    del agent.rig.statuses.newest[UID]
    assert held() == "3", "after a restart, before the first look"


async def test_a_critical_pod_takes_the_place_of_another(agent: Agent) -> None:
    """Who gives way has failed, and says why."""
    sized: dict[str, Any] = {"resources": {"requests": {"cpu": "3"}}}
    await agent.has(a_pod(a_container(**sized)))
    critical = a_pod(a_container("late", **sized), metadata={"name": "other", "uid": OTHER_UID}, priority=2_000_000_000)
    await agent.has(a_pod(a_container(**sized)), critical)
    assert agent.rig.fake.running() == ["late"]
    status = agent.rig.statuses.newest[UID]
    assert (status.phase, status.reason, status.message) == (
        "Failed",
        "Preempting",
        "Preempted in order to admit critical pod",
    )
    disruption = next(c for c in status.conditions or () if c.type == "DisruptionTarget")
    assert (disruption.status, disruption.reason) == ("True", "TerminationByKubelet")
    assert ("Warning", "Preempting", "Preempted in order to admit critical pod") in agent.rig.events


def sized(name: str, uid: str, cpu: str, **spec: Any) -> core_v1.Pod:
    container = a_container(name, resources={"requests": {"cpu": cpu}})
    return a_pod(container, metadata={"name": name, "uid": uid}, **spec)


async def test_a_critical_pod_waits_until_the_others_have_stopped(agent: Agent) -> None:
    """They stop side by side; a pod that fits beside all of them does not wait."""
    agent.node = NodeState("node-1", allocatable={"pods": "10", "cpu": "4", "memory": "4Gi"})
    agent.rig.fake.stubborn = {"slow", "slower"}
    slow = sized("slow", UID, "1", terminationGracePeriodSeconds=20)
    slower = sized("slower", OTHER_UID, "1", terminationGracePeriodSeconds=30)
    critical = sized("critical", THIRD_UID, "3500m", priority=CRITICAL)
    await agent.has(slow, slower)
    await agent.has(slow, slower, critical, sized("small", FOURTH_UID, "0"))
    assert sorted(agent.rig.fake.running()) == ["slow", "slower", "small"]
    assert agent.rig.fake.container("slow").grace_periods == [20]
    await asyncio.sleep(25)
    assert sorted(agent.rig.fake.running()) == ["slower", "small"]
    await asyncio.sleep(5)
    assert sorted(agent.rig.fake.running()) == ["critical", "small"]
    assert "ExceededGracePeriod" not in agent.rig.reasons


async def test_a_critical_pod_waits_for_a_stuck_one_no_longer_than_half_as_long_again(agent: Agent) -> None:
    stuck = sized("stuck", UID, "3", terminationGracePeriodSeconds=30)
    critical = sized("critical", THIRD_UID, "3", priority=CRITICAL)
    await agent.has(stuck)
    agent.rig.fake.fail("StopContainer", times=None)
    await agent.has(stuck, critical)
    await asyncio.sleep(44)
    assert agent.rig.fake.running() == ["stuck"]
    await asyncio.sleep(2)
    assert sorted(agent.rig.fake.running()) == ["critical", "stuck"]
    overdue = "Container runtime did not kill the pod within specified grace period."
    assert agent.rig.events.count(("Warning", "ExceededGracePeriod", overdue)) == 1


async def test_a_critical_pod_that_is_deleted_while_it_waits_never_starts(agent: Agent) -> None:
    agent.rig.fake.stubborn = {"slow"}
    slow, critical = sized("slow", UID, "3"), sized("critical", THIRD_UID, "3", priority=CRITICAL)
    await agent.has(slow)
    await agent.has(slow, critical)
    await agent.has(slow)
    await asyncio.sleep(60)
    assert agent.rig.fake.running() == []
    assert len(agent.rig.fake.called("RunPodSandbox")) == 1
    assert THIRD_UID not in agent.workers.states()


async def test_a_critical_pod_that_grows_takes_the_place_of_another(agent: Agent) -> None:
    """The other is told once, however often the resize is tried meanwhile."""
    agent.rig.fake.stubborn = {"slow"}
    slow, critical = sized("slow", UID, "2"), sized("critical", THIRD_UID, "1", priority=CRITICAL)
    await agent.has(slow, critical)
    grown = sized("critical", THIRD_UID, "3", priority=CRITICAL)
    await agent.has(slow, grown)
    await asyncio.sleep(20)
    assert sorted(agent.rig.fake.running()) == ["critical", "slow"]
    assert [c.reason for c in agent.rig.allocations.conditions(THIRD_UID)] == ["Deferred"]
    await asyncio.sleep(15)
    assert agent.rig.allocations.allocated(critical) == grown
    assert agent.rig.statuses.newest[UID].reason == "Preempting"
    assert agent.rig.reasons.count("Preempting") == 1


async def test_what_runs_already_is_not_refused(agent: Agent) -> None:
    """The agent was restarted, and the node has shrunk meanwhile."""
    await agent.rig.sync.sync_pod(a_pod(), agent.rig.memory, "an agent of earlier")
    await asyncio.sleep(1.1)
    agent.node = NodeState("node-1", allocatable={"pods": "0"})
    await agent.has(a_pod())
    assert agent.rig.fake.running() == ["main"]
    assert agent.phase() is Phase.SYNCING


PICKY: dict[str, Any] = {"nodeSelector": {"disk": "ssd"}}


async def test_a_label_that_the_node_got_a_moment_ago_is_looked_for_at_the_server(agent: Agent) -> None:
    """The pod was sent here for it, and came first."""
    agent.node_at_server = replace(agent.node, labels={"disk": "ssd"})
    await agent.has(a_pod(**PICKY), other(**PICKY))
    assert agent.looks_at_server == 1
    assert agent.rig.fake.running() == ["main", "main"]


@pytest.mark.parametrize("is_reachable", [True, False])
async def test_a_pod_for_other_nodes_is_refused_after_one_more_look(agent: Agent, is_reachable: bool) -> None:
    agent.node_at_server = agent.node if is_reachable else None
    await agent.has(a_pod(**PICKY))
    assert (agent.looks_at_server, agent.rig.status.phase, agent.rig.status.reason) == (1, "Failed", "NodeAffinity")
    await asyncio.sleep(HOUSEKEEPING_SECONDS * 3)
    assert agent.looks_at_server == 1
    assert agent.rig.fake.called() == []


async def test_a_pod_that_changes_during_the_look_counts_as_it_is_then(agent: Agent) -> None:
    await agent.loop.accept(PodSet("api", (a_pod(**PICKY),)))
    assert agent.phase() is None
    await agent.has(a_pod())
    assert agent.rig.fake.running() == ["main"]


async def test_a_pod_that_goes_during_the_look_is_forgotten(agent: Agent) -> None:
    await agent.loop.accept(PodSet("api", (a_pod(**PICKY),)))
    await agent.has()
    await asyncio.sleep(HOUSEKEEPING_SECONDS * 3)
    assert (agent.workers.states(), agent.rig.fake.called(), agent.rig.statuses.newest) == ({}, [], {})


async def test_what_a_resize_has_not_yet_taken_from_a_pod_is_no_room_for_others(agent: Agent) -> None:
    """It was accepted, and the runtime cannot do it yet."""
    await agent.has(a_pod(a_container(resources={"requests": {"cpu": "3"}})))
    agent.rig.fake.fail("UpdateContainerResources", times=None)
    smaller = a_pod(a_container(resources={"requests": {"cpu": "1"}}))
    await agent.has(smaller)
    late = other(a_container("late", resources={"requests": {"cpu": "2"}}))
    await agent.has(smaller, late)
    assert agent.rig.statuses.newest[OTHER_UID].reason == "OutOfcpu"


async def test_a_final_pod_is_neither_refused_nor_started(agent: Agent) -> None:
    agent.node = NodeState("node-1", allocatable={"pods": "0"})
    final = a_pod()
    final.status = core_v1.PodStatus(phase="Succeeded")
    await agent.has(final)
    assert agent.phase() is Phase.FINISHED
    assert agent.rig.fake.called() == []
    assert agent.rig.status.phase == "Succeeded"


async def test_mirror_pods_get_no_worker(agent: Agent) -> None:
    await agent.has(a_pod(metadata=MIRROR))
    await asyncio.sleep(HOUSEKEEPING_SECONDS * 3)
    assert agent.workers.states() == {}
    assert agent.rig.fake.called() == []
    await agent.has()
    assert agent.heard == [(1, True)]  # no static pod changed since


async def test_our_own_words_that_come_back_wake_nobody(agent: Agent) -> None:
    await agent.has(a_pod())
    looks = len(agent.rig.fake.called("ContainerStatus"))
    echoed = a_pod()
    echoed.status = agent.rig.status
    await agent.has(echoed)
    assert len(agent.rig.fake.called("ContainerStatus")) == looks
    assert (agent.workers.pod(UID) or a_pod()).status == agent.rig.status


async def test_a_readiness_gate_that_somebody_set_is_looked_at(agent: Agent) -> None:
    pod = a_pod(readinessGates=[{"conditionType": "example.com/balanced"}])
    await agent.has(pod)
    gate = core_v1.PodCondition(type="example.com/balanced", status="True")
    echoed = a_pod(readinessGates=[{"conditionType": "example.com/balanced"}])
    echoed.status = core_v1.PodStatus(conditions=[gate])
    looks = len(agent.rig.fake.called("ContainerStatus"))
    await agent.has(echoed)
    assert len(agent.rig.fake.called("ContainerStatus")) > looks


async def test_a_pod_that_no_source_knows_is_stopped(agent: Agent) -> None:
    await agent.rig.sync.sync_pod(a_pod(), agent.rig.memory, "an agent of earlier")
    await asyncio.sleep(HOUSEKEEPING_SECONDS * 2)
    assert agent.rig.fake.running() == ["main"], "not before every source has spoken"
    await agent.has()
    await asyncio.sleep(HOUSEKEEPING_SECONDS * 2)
    assert agent.rig.fake.running() == []
    assert agent.rig.fake.sandboxes == {}


async def test_a_pod_that_comes_while_orphans_are_looked_for_loses_nothing(agent: Agent) -> None:
    """Its cgroup, its directory and what it was given; those of a pod that nobody knows go."""
    orphan = other()
    agent.rig.cgroups.made.add(OTHER_UID)
    agent.rig.allocations.allocate(orphan)
    ids = agent.rig.user_namespaces
    for uid in (OTHER_UID, THIRD_UID):  # there are ids for two
        await ids.of_pod(a_pod(hostUsers=False, metadata={"uid": uid}), "")
    await agent.has()
    agent.rig.cgroups.while_orphans_are_looked_for = lambda: agent.has(a_pod())
    await asyncio.sleep(ORPHANS_SECONDS + HOUSEKEEPING_SECONDS)
    assert agent.rig.fake.running() == ["main"]
    assert agent.rig.cgroups.made == {UID}
    assert agent.rig.volumes.dirs.list_pod_uids() == [UID]
    await ids.of_pod(a_pod(hostUsers=False, metadata={"uid": FOURTH_UID}), "")
    assert agent.rig.allocations.is_allocated(UID)
    assert not agent.rig.allocations.is_allocated(OTHER_UID)


async def test_a_pod_that_turns_up_after_it_was_stopped_as_unknown_runs_again(agent: Agent) -> None:
    await agent.rig.sync.sync_pod(a_pod(), agent.rig.memory, "an agent of earlier")
    await agent.has()
    agent.rig.fake.stubborn = {"main"}
    await asyncio.sleep(HOUSEKEEPING_SECONDS)
    await agent.has(a_pod())
    await asyncio.sleep(HOUSEKEEPING_SECONDS * 3)
    assert agent.phase() is Phase.SYNCING
    assert agent.rig.fake.running() == ["main"]


def static(uid: str) -> core_v1.Pod:
    return a_pod(metadata={"uid": uid, "annotations": {"kubernetes.io/config.source": "file"}})


async def has_manifests(agent: Agent, *uids: str) -> None:
    await agent.loop.accept(PodSet("file", tuple(static(uid) for uid in uids)))
    await asyncio.sleep(0.5)


@pytest.mark.parametrize("agent", [("file", "api")], indirect=True)
async def test_a_static_pod_waits_for_no_other_source(agent: Agent) -> None:
    """It may be the API server. Its manifest changed while no agent ran, and its sandbox of before is there."""
    await agent.rig.sync.sync_pod(static(UID), agent.rig.memory, "an agent of earlier")
    await agent.rig.sync.sync_pod(other(uid=THIRD_UID), PodMemory(), "an agent of earlier")
    agent.rig.fake.exit(agent.rig.fake.container("main", UID), 1)
    await has_manifests(agent, OTHER_UID)
    await asyncio.sleep(HOUSEKEEPING_SECONDS * 4)
    assert agent.rig.fake.running(OTHER_UID) == ["main"]
    assert agent.rig.fake.ready_sandboxes(UID) == []
    assert agent.rig.fake.running(THIRD_UID) == ["main"], "a pod that the silent source may know"


@pytest.mark.parametrize("agent", [("file", "api")], indirect=True)
async def test_a_manifest_that_is_moved_away_and_back_waits_for_no_other_source(agent: Agent) -> None:
    """As people restart their API server."""
    await has_manifests(agent, UID)
    await has_manifests(agent)
    await asyncio.sleep(HOUSEKEEPING_SECONDS * 4)
    assert agent.rig.fake.running(UID) == []
    await has_manifests(agent, UID)
    await asyncio.sleep(HOUSEKEEPING_SECONDS * 4)
    assert agent.rig.fake.running(UID) == ["main"]


async def test_a_pod_that_comes_back_under_its_uid_is_admitted_like_any_other(agent: Agent) -> None:
    """Its file was removed and written again, and meanwhile the node has no room for it."""
    agent.rig.fake.stubborn = {"main"}
    await agent.has(a_pod())
    await agent.has()
    await agent.has(a_pod())
    agent.node = NodeState("node-1", allocatable={"pods": "0"})
    await asyncio.sleep(40)
    assert agent.rig.statuses.newest[UID].reason == "OutOfpods"
    assert agent.rig.fake.running() == []


async def test_what_a_life_before_left_is_removed(agent: Agent) -> None:
    (agent.rig.volumes.dirs.pods / OTHER_UID / "volumes").mkdir(parents=True)
    agent.rig.cgroups.made.add(OTHER_UID)
    await agent.has(a_pod())
    await asyncio.sleep(30)
    assert [path.name for path in agent.rig.volumes.dirs.pods.iterdir()] == [UID]
    assert agent.rig.cgroups.made == {UID}


async def test_an_unusable_manifest_is_reported_once(agent: Agent) -> None:
    problem = SourceProblem("/etc/manifests/a.yaml", "no pod")
    for _ in range(2):
        await agent.has(problems=(problem,))
    assert agent.problems == [problem]
    await agent.has()
    await agent.has(problems=(problem,))
    assert agent.problems == [problem, problem]


async def test_pods_wait_until_the_runtime_was_listed(agent: Agent) -> None:
    agent.rig.fake.down = True
    async with asyncio.TaskGroup() as tasks:
        accepting = tasks.create_task(agent.has(a_pod()))
        await asyncio.sleep(5)
        assert not accepting.done()
        agent.rig.fake.heal()
    assert agent.rig.fake.running() == ["main"]
