"""The PLEG wakes the pods to which something happened, by lists and by events, in virtual time."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
from structlog.testing import capture_logs

from cri_proto import runtime_v1 as cri
from kubelet_py.api.pod import CONTAINER_NAME_LABEL, POD_UID_LABEL
from kubelet_py.core.pleg_diff import PodRecord, pod_records
from kubelet_py.managers.pleg import RELIST_SECONDS, RELIST_SECONDS_WITH_EVENTS, UNHEALTHY_AFTER_SECONDS, Pleg
from tests.fakes.runtime import FakeRuntimeClient
from tests.fakes.runtime_objects import FakeContainer

pytestmark = pytest.mark.looptime

UID = "uid-1"
IMAGE = "registry.example/app:1"


class Node:
    """A runtime with a pod, and what was woken."""

    def __init__(self, has_events: bool = False) -> None:
        self.fake = FakeRuntimeClient()
        self.fake.has_events = has_events
        self.fake.add_image(IMAGE)
        self.woken: list[tuple[str, str]] = []
        self.pleg = Pleg(
            self.fake, lambda uid, stimulus, _: self.woken.append((uid, stimulus)), asyncio.get_running_loop().time
        )

    async def add_pod(self, uid: str = UID) -> FakeContainer:
        labels = {POD_UID_LABEL: uid, CONTAINER_NAME_LABEL: "main"}
        config = cri.PodSandboxConfig(metadata=cri.PodSandboxMetadata(name="web", uid=uid), labels=labels)
        sandbox_id = await self.fake.run_pod_sandbox(config, "")
        wanted = cri.ContainerConfig(image=cri.ImageSpec(image=IMAGE), labels=labels)
        await self.fake.start_container(await self.fake.create_container(sandbox_id, wanted, config))
        return self.fake.container("main", uid)

    async def record(self) -> PodRecord:
        lists = await asyncio.gather(self.fake.list_pod_sandboxes(), self.fake.list_containers())
        return pod_records(*lists)[UID]

    @asynccontextmanager
    async def running(self) -> AsyncIterator[list[Any]]:
        with capture_logs() as logs:
            async with asyncio.TaskGroup() as tasks:
                task = tasks.create_task(self.pleg.run())
                await self.pleg.wait_listed()
                yield logs
                task.cancel()


async def test_what_is_there_at_the_start_is_known_and_wakes_its_pod() -> None:
    node = Node()
    await node.add_pod()
    assert node.pleg.problem() == "pleg has yet to be successful"
    async with node.running():
        assert node.pleg.records[UID].is_alive
        assert node.woken == [(UID, "pleg: SandboxChanged, ContainerStarted")]
        assert node.pleg.problem() is None


async def test_a_container_that_dies_wakes_its_pod_within_a_second() -> None:
    node = Node()
    container = await node.add_pod()
    async with node.running():
        node.woken.clear()
        node.fake.exit(container, 1)
        await asyncio.sleep(RELIST_SECONDS + 0.1)
        assert node.woken == [(UID, "pleg: ContainerDied")]
        await asyncio.sleep(10 * RELIST_SECONDS)
        assert len(node.woken) == 1


async def test_a_relist_can_be_asked_for() -> None:
    node = Node()
    container = await node.add_pod()
    async with node.running():
        await asyncio.sleep(0.1)
        node.woken.clear()
        node.fake.exit(container, 1)
        node.pleg.relist_soon()
        await asyncio.sleep(0.01)
        assert node.woken == [(UID, "pleg: ContainerDied")]


@pytest.mark.parametrize("turns", range(6))
async def test_its_end_is_not_lost_while_a_relist_is_asked_for(turns: int) -> None:
    """Cancelled however many turns of the loop after the wish, it ends."""
    node = Node()
    async with asyncio.TaskGroup() as tasks:
        running = tasks.create_task(node.pleg.run())
        await node.pleg.wait_listed()
        await asyncio.sleep(RELIST_SECONDS / 2)
        node.pleg.relist_soon()
        for _ in range(turns):
            await asyncio.sleep(0)
        running.cancel()
        done, _ = await asyncio.wait((running,), timeout=RELIST_SECONDS / 4)
        running.cancel()
        assert done == {running}


async def test_what_a_worker_has_seen_wakes_it_not_again() -> None:
    node = Node()
    container = await node.add_pod()
    async with node.running():
        node.woken.clear()
        node.fake.exit(container, 1)
        node.pleg.learn(await node.record())
        await asyncio.sleep(3 * RELIST_SECONDS)
        assert node.woken == []
        node.fake.sandboxes.clear()
        node.fake.containers.clear()
        node.pleg.learn(PodRecord(UID))
        await asyncio.sleep(3 * RELIST_SECONDS)
        assert node.woken == []
        assert node.pleg.records == {}


async def test_what_a_worker_saw_while_the_lists_were_on_their_way_is_newer() -> None:
    node = Node()
    container = await node.add_pod()
    other = await node.add_pod("uid-2")
    async with node.running():
        gate = node.fake.hang("ListPodSandbox", after=True)
        slow = node.fake.hang("ListContainers", after=True)
        await slow.reached.wait()
        node.woken.clear()
        node.fake.exit(container, 1)
        del node.fake.containers[other.id], node.fake.sandboxes[other.sandbox_id]
        states = [
            cri.Container(id=c.id, pod_sandbox_id=c.sandbox_id, state=cri.CONTAINER_EXITED, labels=c.config.labels)
            for c in node.fake.containers.values()
        ]
        boxes = [cri.PodSandbox(id=s.id, metadata=s.config.metadata) for s in node.fake.sandboxes.values()]
        node.pleg.learn(pod_records(boxes, states)[UID])
        node.pleg.learn(PodRecord("uid-2"))
        gate.release()
        slow.release()
        await asyncio.sleep(0.01)
        assert node.woken == []
        assert "uid-2" not in node.pleg.records


async def test_a_list_that_fails_is_said_once_and_its_end_too() -> None:
    node = Node()
    container = await node.add_pod()
    async with node.running() as logs:
        node.fake.fail("ListContainers", times=None)
        await asyncio.sleep(20)
        node.fake.exit(container, 1)
        node.fake.heal()
        await asyncio.sleep(2)
        names = [entry["event"] for entry in logs if entry["log_level"] != "debug"]
        assert names.count("runtime_list_failed") == 1
        assert names.count("runtime_list_works_again") == 1
        assert node.woken[-1] == (UID, "pleg: ContainerDied")


async def test_a_runtime_that_is_away_is_not_told_of_here_too() -> None:
    node = Node()
    await node.add_pod()
    async with node.running() as logs:
        node.fake.down = True
        await asyncio.sleep(20)
        node.fake.down = False
        await asyncio.sleep(2)
        assert [entry["event"] for entry in logs if entry["log_level"] not in ("debug", "info")] == []


async def test_a_runtime_that_cannot_be_listed_for_long_makes_the_node_unwell() -> None:
    node = Node()
    async with node.running():
        node.fake.down = True
        await asyncio.sleep(UNHEALTHY_AFTER_SECONDS + 5)
        assert "pleg was last seen active" in (node.pleg.problem() or "")


async def test_a_runtime_without_events_is_said_once_and_listed_each_second() -> None:
    node = Node()
    async with node.running() as logs:
        await asyncio.sleep(10.5)
        assert [entry["event"] for entry in logs].count("runtime_has_no_events") == 1
        assert len(node.fake.called("ListPodSandbox")) == 11
        assert node.fake.called("GetContainerEvents") == ["GetContainerEvents"]


async def test_an_event_wakes_its_pod_at_once_and_lists_become_rare() -> None:
    node = Node(has_events=True)
    container = await node.add_pod()
    async with node.running():
        await asyncio.sleep(0.1)
        node.woken.clear()
        node.fake.exit(container, 1)
        await asyncio.sleep(0.01)
        assert node.woken == [(UID, "runtime event")]
        await asyncio.sleep(RELIST_SECONDS)
        lists = len(node.fake.called("ListPodSandbox"))
        await asyncio.sleep(3 * RELIST_SECONDS_WITH_EVENTS)
        assert len(node.fake.called("ListPodSandbox")) == lists + 3


async def test_a_start_that_was_seen_before_its_event_wakes_nobody() -> None:
    """The worker that started the container has looked at it meanwhile."""
    node = Node(has_events=True)
    async with node.running():
        await asyncio.sleep(0.1)
        container = await node.add_pod()
        await asyncio.sleep(0.01)
        node.woken.clear()
        node.fake.tell(container, cri.CONTAINER_STARTED_EVENT)
        await asyncio.sleep(0.01)
        assert node.woken == [(UID, "runtime event")]
        node.pleg.learn(await node.record())
        node.fake.tell(container, cri.CONTAINER_STARTED_EVENT)
        await asyncio.sleep(0.01)
        assert node.woken == [(UID, "runtime event")]


async def test_an_event_of_no_pod_is_a_reason_to_list() -> None:
    node = Node(has_events=True)
    container = await node.add_pod()
    async with node.running():
        await asyncio.sleep(0.1)
        before = len(node.fake.called("ListPodSandbox"))
        del node.fake.sandboxes[container.sandbox_id]
        node.fake.exit(container, 1)
        await asyncio.sleep(0.01)
        assert len(node.fake.called("ListPodSandbox")) == before + 1


async def test_a_stream_of_events_that_breaks_is_opened_again() -> None:
    node = Node(has_events=True)
    container = await node.add_pod()
    async with node.running():
        await asyncio.sleep(0.1)
        node.fake.drop_event_streams()
        await asyncio.sleep(6)
        node.woken.clear()
        node.fake.exit(container, 1)
        await asyncio.sleep(0.01)
        assert (UID, "runtime event") in node.woken
