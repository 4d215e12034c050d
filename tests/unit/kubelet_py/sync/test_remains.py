"""What a pod has left goes when the runtime has nothing better to do."""

import asyncio

import pytest

from cri_proto import runtime_v1 as cri
from kubelet_py.api.pod import POD_UID_LABEL
from kubelet_py.sync.remains import GIVE_WAY_SECONDS, Remains
from kubelet_py.sync.start_gate import CALM_SECONDS, Rank, StartGate
from tests.fakes.runtime import FakeRuntimeClient

pytestmark = pytest.mark.looptime

UID = "u-1"


async def a_stopped_pod() -> FakeRuntimeClient:
    fake = FakeRuntimeClient()
    config = cri.PodSandboxConfig(metadata=cri.PodSandboxMetadata(uid=UID), labels={POD_UID_LABEL: UID})
    await fake.stop_pod_sandbox(await fake.run_pod_sandbox(config, ""))
    return fake


async def seconds_until_gone(fake: FakeRuntimeClient, gate: StartGate) -> float:
    began = asyncio.get_running_loop().time()
    await Remains(fake, gate).remove_all(UID)
    assert not fake.sandboxes
    return asyncio.get_running_loop().time() - began


async def start_one(gate: StartGate, seconds: float) -> None:
    async with gate.place(Rank.SANDBOX):
        await asyncio.sleep(seconds)


async def test_on_an_idle_node_it_goes_at_once() -> None:
    assert await seconds_until_gone(await a_stopped_pod(), StartGate()) == 0


async def test_a_crowd_goes_first() -> None:
    """Also those of it that come when the removal has been asked for."""
    fake, gate = await a_stopped_pod(), StartGate(1)
    async with asyncio.TaskGroup() as tasks:
        for _ in range(3):
            tasks.create_task(start_one(gate, 1))
        await asyncio.sleep(0)
        removal = tasks.create_task(seconds_until_gone(fake, gate))
        await asyncio.sleep(2.5)
        for _ in range(3):
            tasks.create_task(start_one(gate, 1))
    assert removal.result() == pytest.approx(5 + CALM_SECONDS)  # the last one has its place after five seconds


async def test_a_crowd_without_end_keeps_nothing_for_ever() -> None:
    fake, gate = await a_stopped_pod(), StartGate(2, dict.fromkeys(Rank, 1_000.0))
    async with asyncio.TaskGroup() as tasks:
        crowd = [tasks.create_task(start_one(gate, seconds)) for seconds in (GIVE_WAY_SECONDS + 1, 500, 500)]
        await asyncio.sleep(0)
        removal = tasks.create_task(seconds_until_gone(fake, gate))
        await asyncio.sleep(GIVE_WAY_SECONDS - 1)
        assert fake.sandboxes
        crowd[-1].cancel()
    assert GIVE_WAY_SECONDS <= removal.result() <= GIVE_WAY_SECONDS + 2
