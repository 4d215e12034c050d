"""Resizes in place on the fake runtime: accepted, put off, carried out in steps, and taken up after a crash."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from structlog.testing import capture_logs

from kubelet_py.api import core_v1
from kubelet_py.core.admission import Rejection
from kubelet_py.core.cgroup_rules import CgroupLimits, CgroupSettings, MemoryUsage, SwapBehavior
from kubelet_py.errors import RuntimeCallError, SyncError
from kubelet_py.sync.pending_resizes import PendingResizes
from tests.unit.kubelet_py.sync.rig import UID, InlineExecutor, Rig, a_container, a_pod

MI = 1024 * 1024


def sized(cpu: str = "100m", memory: str = "64Mi", **fields: Any) -> core_v1.Pod:
    amounts = {"cpu": cpu, "memory": memory}
    return a_pod(a_container(resources={"requests": amounts, "limits": amounts}, **fields))


@pytest.fixture
async def rig(tmp_path: Path) -> AsyncIterator[Rig]:
    asyncio.get_running_loop().set_default_executor(InlineExecutor())
    made = Rig(tmp_path)
    with capture_logs():
        yield made


async def run(rig: Rig, pod: core_v1.Pod) -> str:
    """The pod is allocated what its spec says and brought there; what went wrong."""
    rig.allocations.accept(pod)
    return await sync(rig, pod)


async def sync(rig: Rig, pod: core_v1.Pod) -> str:
    return (await rig.sync.sync_pod(rig.sync.allocated(pod), rig.memory, "test")).error


def limits(rig: Rig) -> tuple[int, int, int]:
    """Memory limit, quota and shares of the running container."""
    resources = rig.fake.container("main").config.linux.resources
    return resources.memory_limit_in_bytes, resources.cpu_quota, resources.cpu_shares


def conditions(rig: Rig) -> list[tuple[str, str | None]]:
    listed = rig.status.conditions or ()
    return [(c.type, c.reason) for c in listed if c.type.startswith("PodResize")]


async def test_a_container_grows_in_its_pod(rig: Rig) -> None:
    """The pod first, memory before CPU, and the limit before the request."""
    await run(rig, sized())
    began = rig.fake.container("main").id
    assert await run(rig, sized("200m", "128Mi")) == ""
    assert limits(rig) == (128 * MI, 20_000, 204)
    assert rig.fake.container("main").id == began
    assert [call.name for call in rig.fake.calls if call.name.startswith("Update")] == [
        "UpdatePodSandboxResources",
        "UpdateContainerResources",
        "UpdatePodSandboxResources",
        "UpdatePodSandboxResources",
        "UpdateContainerResources",
    ]
    assert [step.memory_bytes or step.cpu_quota_microseconds or step.cpu_shares for step in rig.cgroups.steps] == [
        128 * MI,
        20_000,
        204,
    ]
    assert conditions(rig) == []
    told = [reason for reason in rig.reasons if reason.startswith("Resize")]
    assert told[-2:] == ["ResizeStarted", "ResizeCompleted"]


async def test_a_pod_shrinks_after_its_container(rig: Rig) -> None:
    await run(rig, sized("200m", "128Mi"))
    assert await run(rig, sized("100m", "64Mi")) == ""
    assert limits(rig) == (64 * MI, 10_000, 102)
    assert next(call.name for call in rig.fake.calls if call.name.startswith("Update")) == "UpdateContainerResources"
    assert rig.cgroups.limits_of(UID).memory_bytes == 64 * MI


async def test_a_container_whose_policy_says_so_starts_anew(rig: Rig) -> None:
    policy = [{"resourceName": "memory", "restartPolicy": "RestartContainer"}]
    await run(rig, sized(resizePolicy=policy))
    assert await run(rig, sized(memory="128Mi", resizePolicy=policy)) == ""
    assert limits(rig)[0] == 128 * MI
    assert rig.fake.container("main").config.metadata.attempt == 1
    assert rig.cgroups.limits_of(UID).memory_bytes == 128 * MI
    assert ("Normal", "Killing", "Container main resize requires restart") in rig.events
    assert conditions(rig) == []


async def test_memory_in_use_stays(rig: Rig) -> None:
    await run(rig, sized(memory="128Mi"))
    container_id = rig.fake.container("main").id
    rig.cgroups.usage = MemoryUsage(100 * MI, {container_id: 100 * MI})
    error = await run(rig, sized(memory="64Mi"))
    assert "below current usage" in error
    assert limits(rig)[0] == 128 * MI
    assert conditions(rig) == [("PodResizeInProgress", "Error")]
    rig.cgroups.usage = MemoryUsage(100 * MI, {container_id: 10 * MI})
    assert (await sync(rig, sized(memory="64Mi"))).startswith("cannot decrease memory limits: attempting to set pod")
    rig.cgroups.usage = MemoryUsage(10 * MI, {container_id: 10 * MI})
    assert await sync(rig, sized(memory="64Mi")) == ""
    assert limits(rig)[0] == 64 * MI
    assert conditions(rig) == []


async def test_the_runtime_hears_of_the_overhead_beside_the_resources(rig: Rig) -> None:
    """As when the sandbox was made; the pod's cgroup holds both."""
    rig.fake.sandbox_updates = []

    def costly(cpu: str, memory: str) -> core_v1.Pod:
        amounts = {"cpu": cpu, "memory": memory}
        container = a_container(resources={"requests": amounts, "limits": amounts})
        return a_pod(container, overhead={"cpu": "100m", "memory": "32Mi"})

    await run(rig, costly("100m", "64Mi"))
    assert await run(rig, costly("200m", "128Mi")) == ""
    assert rig.cgroups.steps[0].memory_bytes == (128 + 32) * MI
    assert {(each.memory_limit_in_bytes, each.cpu_quota) for each, _ in rig.fake.sandbox_updates} == {(32 * MI, 10_000)}
    last = rig.fake.sandbox_updates[-1][1]
    assert (last.memory_limit_in_bytes, last.cpu_quota, last.cpu_shares) == (128 * MI, 20_000, 204)


@pytest.mark.parametrize("call", ["UpdateContainerResources", "UpdatePodSandboxResources"])
async def test_a_runtime_that_refuses_is_asked_again(rig: Rig, call: str) -> None:
    await run(rig, sized())
    rig.fake.fail(call, RuntimeCallError(call, "UNKNOWN", "device or resource busy"))
    assert await run(rig, sized("200m")) == "device or resource busy"
    assert conditions(rig) == [("PodResizeInProgress", "Error")]
    assert "ResizeError" in rig.reasons
    assert await sync(rig, sized("200m")) == ""
    assert limits(rig)[1] == 20_000
    assert conditions(rig) == []


async def test_a_kernel_that_refuses_is_asked_again(rig: Rig) -> None:
    await run(rig, sized())
    rig.cgroups.refusal = SyncError("ResizeError", "the pod's cgroup cannot be changed: busy")
    assert "cannot be changed" in await run(rig, sized("200m"))
    rig.cgroups.refusal = None
    assert await sync(rig, sized("200m")) == ""
    assert rig.cgroups.limits_of(UID) == CgroupLimits(
        cpu_shares=204,
        cpu_quota_microseconds=20_000,
        cpu_period_microseconds=100_000,
        memory_bytes=64 * MI,
    )


async def test_a_runtime_that_agreed_hears_that_the_kernel_refused(rig: Rig) -> None:
    """It is told the size of before; that it cannot be told changes nothing of what is reported."""
    rig.fake.sandbox_updates = []
    await run(rig, sized())
    rig.cgroups.refusal = SyncError("ResizeError", "the pod's cgroup cannot be changed: busy")
    assert "cannot be changed" in await run(rig, sized("200m"))
    assert [resources.cpu_quota for _, resources in rig.fake.sandbox_updates] == [20_000, 10_000]
    refusal = RuntimeCallError("UpdatePodSandboxResources", "UNKNOWN", "gone")
    rig.fake.fail("UpdatePodSandboxResources", refusal, after=True, skip=1)
    assert "cannot be changed" in await sync(rig, sized("200m"))


@pytest.mark.parametrize("after", [False, True], ids=["before-the-call", "after-the-call"])
@pytest.mark.parametrize("skip", range(2))
async def test_an_agent_that_dies_in_the_middle_comes_to_the_same_end(rig: Rig, after: bool, skip: int) -> None:
    """What was written of it by then or not."""

    class AgentDied(Exception):
        """Not an error that the agent knows."""

    await run(rig, sized("200m", "128Mi"))
    rig.allocations.accept(sized("100m", "256Mi"))
    await rig.allocations.flush()
    rig.fake.fail("UpdateContainerResources", AgentDied(), skip=skip, after=after)
    with pytest.raises(AgentDied):
        await sync(rig, sized("100m", "256Mi"))
    if after:
        await rig.allocations.flush()
    rig.boot()
    assert await sync(rig, sized("100m", "256Mi")) == ""
    assert limits(rig) == (256 * MI, 10_000, 102)
    assert rig.fake.container("main").config.metadata.attempt == 0
    assert conditions(rig) == []


@pytest.mark.parametrize("dies", [False, True], ids=["goes-on", "dies"])
async def test_the_pod_keeps_what_it_got_of_a_resize_that_failed(rig: Rig, dies: bool) -> None:
    """Its containers may have their part of it by then: the old limit would kill them."""

    def pod(cpu: str, memory: str) -> core_v1.Pod:
        amounts = {"cpu": cpu, "memory": memory}
        return a_pod(a_container(), resources={"requests": amounts, "limits": amounts})

    await run(rig, pod("100m", "64Mi"))
    rig.fake.fail("UpdateContainerResources", RuntimeCallError("UpdateContainerResources", "UNKNOWN", "busy"), skip=1)
    assert await run(rig, pod("200m", "128Mi")) == "busy"
    assert limits(rig)[0] == rig.cgroups.limits_of(UID).memory_bytes == 128 * MI
    if dies:
        await rig.allocations.flush()
        rig.boot()
    rig.cgroups.steps.clear()
    rig.fake.fail("UpdateContainerResources", RuntimeCallError("UpdateContainerResources", "UNKNOWN", "busy"))
    assert await sync(rig, pod("200m", "128Mi")) == "busy"
    assert rig.cgroups.limits_of(UID).memory_bytes == 128 * MI
    assert await sync(rig, pod("200m", "128Mi")) == ""
    assert all(step.memory_bytes is None for step in rig.cgroups.steps), "and it is not written again"
    assert limits(rig) == (128 * MI, 20_000, rig.fake.container("main").config.linux.resources.cpu_shares)
    assert conditions(rig) == []


class Queue:
    """PendingResizes of a node that has room for so many pods of any size."""

    def __init__(self, rig: Rig) -> None:
        self.rig = rig
        self.rejection: Rejection | None = None
        self.woken: list[str] = []
        self.settings = CgroupSettings()
        self.queue = PendingResizes(
            rig.allocations, lambda: self.settings, lambda pod: self.rejection, lambda uid, why: self.woken.append(why)
        )

    def asks(self, pod: core_v1.Pod) -> list[tuple[str, str | None]]:
        self.queue.consider(pod)
        self.queue.retry()
        return [(c.type, c.reason) for c in self.rig.allocations.conditions(UID)]


async def test_a_resize_that_fits_is_accepted(rig: Rig) -> None:
    queue = Queue(rig)
    assert queue.asks(sized("9")) == [], "not admitted yet: its size is no resize"
    rig.allocations.allocate(sized())
    assert queue.asks(sized()) == []
    assert queue.asks(sized("200m")) == [("PodResizeInProgress", None)]
    assert rig.allocations.allocated(sized()) == sized("200m")
    assert queue.woken == ["the resize was accepted"]


async def test_one_that_does_not_fit_waits_and_wakes_nobody_twice(rig: Rig) -> None:
    queue = Queue(rig)
    rig.allocations.allocate(sized())
    queue.rejection = Rejection("OutOfcpu", "no room")
    assert queue.asks(sized("9")) == [("PodResizePending", "Deferred")]
    queue.queue.retry()
    assert queue.woken == ["the resize is pending"]
    queue.rejection = None
    queue.queue.retry()
    assert rig.allocations.allocated(sized("9")) == sized("9")


async def test_one_that_is_taken_back_or_gone_waits_no_more(rig: Rig) -> None:
    queue = Queue(rig)
    rig.allocations.allocate(sized())
    queue.rejection = Rejection("OutOfcpu", "no room")
    queue.asks(sized("9"))
    assert queue.asks(sized()) == []
    queue.asks(sized("9"))
    queue.queue.drop(UID)
    queue.rejection = None
    queue.queue.retry()
    assert rig.allocations.allocated(sized()) == sized()


async def test_one_of_a_pod_that_has_ended_waits_no_more(rig: Rig) -> None:
    queue = Queue(rig)
    rig.allocations.allocate(sized())
    queue.rejection = Rejection("OutOfcpu", "no room")
    queue.asks(sized("9"))
    queue.woken.clear()
    rig.allocations.forget(UID)
    queue.rejection = None
    queue.queue.retry()
    assert (queue.woken, rig.allocations.is_allocated(UID)) == ([], False)
    queue.rejection = Rejection("OutOfcpu", "no room")
    assert queue.asks(sized("9")) == []


async def test_one_that_can_never_be_is_not_tried_again(rig: Rig) -> None:
    def burstable(memory: str) -> core_v1.Pod:
        return a_pod(a_container(resources={"requests": {"memory": memory}}))

    queue = Queue(rig)
    queue.settings = CgroupSettings(
        unified=True, swap_controller=True, swap_behavior=SwapBehavior.LIMITED_SWAP, node_memory_bytes=2**32
    )
    rig.allocations.allocate(burstable("1Mi"))
    assert queue.asks(burstable("2Mi")) == [("PodResizePending", "Infeasible")]
    queue.queue.retry()
    assert queue.woken == ["the resize is pending"]
    queue.settings = CgroupSettings()
    queue.queue.retry()
    assert rig.allocations.allocated(burstable("1Mi")) == burstable("1Mi")
