"""Hooks around the start and the stop of containers, in virtual time."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from structlog.testing import capture_logs

from kubelet_py.api import core_v1
from kubelet_py.core.observed import ProbeResult, ProbeVerdict
from kubelet_py.errors import RuntimeCallError, SyncError
from kubelet_py.sync.lifecycle_hooks import HookError, LifecycleHooks
from tests.unit.kubelet_py.sync.rig import UID, InlineExecutor, LoopClock, Rig, a_container, a_pod

in_virtual_time = pytest.mark.looptime

HOOK = ("hook",)


def exec_hook(moment: str, **fields: Any) -> dict[str, Any]:
    return {"lifecycle": {moment: {"exec": {"command": list(HOOK)}, **fields}}}


def sleep_hook(seconds: int) -> dict[str, Any]:
    return {"lifecycle": {"preStop": {"sleep": {"seconds": seconds}}}}


@pytest.fixture
async def rig(tmp_path: Path) -> AsyncIterator[Rig]:
    asyncio.get_running_loop().set_default_executor(InlineExecutor())
    made = Rig(tmp_path, LoopClock())
    made.volumes._threads = InlineExecutor()
    with capture_logs():
        yield made


async def start(rig: Rig, pod: core_v1.Pod) -> None:
    await rig.sync.sync_pod(pod, rig.memory, "test")


async def stop(rig: Rig, pod: core_v1.Pod, grace_seconds: int) -> float:
    """Ends the pod; gives the time that it took."""
    began = asyncio.get_running_loop().time()
    await rig.sync.terminate_pod(pod, UID, rig.memory, grace_seconds, "test")
    return asyncio.get_running_loop().time() - began


def stop_timeouts(rig: Rig) -> list[int]:
    """The grace periods that the runtime was given."""
    return [seconds for container in rig.fake.containers.values() for seconds in container.grace_periods]


@in_virtual_time
async def test_post_start_runs_in_the_new_container(rig: Rig) -> None:
    """After its start, and a success leaves no trace."""
    await start(rig, a_pod(a_container(**exec_hook("postStart"))))
    assert rig.fake.running() == ["main"]
    assert "FailedPostStartHook" not in rig.reasons


@in_virtual_time
async def test_a_post_start_hook_holds_up_the_containers_after_it(rig: Rig) -> None:
    """As proxies do until they serve: the application starts when the hook is through, also when it fails."""
    pod = a_pod(a_container(name="proxy", lifecycle={"postStart": {"sleep": {"seconds": 20}}}), a_container(name="app"))
    async with asyncio.TaskGroup() as group:
        starting = group.create_task(start(rig, pod))
        await asyncio.sleep(19)
        assert rig.fake.running() == ["proxy"]
        await starting
        assert asyncio.get_running_loop().time() == pytest.approx(20, abs=0.5)
    assert sorted(rig.fake.running()) == ["app", "proxy"]


@in_virtual_time
async def test_a_failing_post_start_hook_stops_the_container(rig: Rig) -> None:
    """With both events; the status says why, in detail."""
    rig.fake.exec_results[HOOK] = (b"", b"no way", 3)
    await start(rig, a_pod(a_container(**exec_hook("postStart"))))
    assert rig.fake.running() == []
    assert ("Warning", "FailedPostStartHook", "PostStartHook failed") in rig.events
    assert ("Normal", "Killing", "FailedPostStartHook") in rig.events
    reason, message = rig.waiting()
    assert reason == "PostStartHookError"
    assert message is not None
    assert message.endswith("command 'hook' exited with 3: no way, message: \"no way\"")


@in_virtual_time
async def test_a_deletion_breaks_off_a_post_start_hook(rig: Rig) -> None:
    """The pass ends at once; the container is left to the stop."""
    rig.fake.exec_hangs.add(HOOK)
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(5):
            await start(rig, a_pod(a_container(**exec_hook("postStart"))))
    assert rig.fake.running() == ["main"]


@in_virtual_time
async def test_a_readiness_verdict_does_not_wait_for_a_hook(rig: Rig) -> None:
    """While a pass hangs in a hook, the status of what already runs follows its probes."""
    rig.fake.exec_hangs.add(HOOK)
    pod = a_pod(a_container(readinessProbe={"exec": {"command": ["x"]}}), terminationGracePeriodSeconds=30)
    await start(rig, pod)
    rig.memory.observed = await rig.observer.observe(UID)
    rig.prober.found[rig.memory.observed.containers[0].id] = ProbeVerdict(readiness=ProbeResult.SUCCESS)
    rig.sync.reports.refresh_status(pod, rig.memory)
    assert [status.ready for status in rig.status.containerStatuses or ()] == [True]
    rig.memory.observed = None
    before = len(rig.statuses.history)
    rig.sync.reports.refresh_status(pod, rig.memory)
    assert len(rig.statuses.history) == before


@in_virtual_time
async def test_pre_stop_eats_of_the_grace_period(rig: Rig) -> None:
    """A sleep of ten leaves twenty of thirty seconds to the signal."""
    pod = a_pod(a_container(**sleep_hook(10)))
    await start(rig, pod)
    assert await stop(rig, pod, 30) == pytest.approx(10, abs=0.5)
    assert stop_timeouts(rig) == [20]


@in_virtual_time
async def test_a_pre_stop_hook_that_outlives_the_grace_period_goes_on_with_its_container(rig: Rig) -> None:
    """The container has two seconds more, and so has the command in it; its end is a failure that is told."""
    rig.fake.exec_hangs.add(HOOK)
    rig.fake.stubborn.add("main")
    pod = a_pod(a_container(**exec_hook("preStop")))
    await start(rig, pod)
    began = asyncio.get_running_loop().time()
    async with asyncio.TaskGroup() as group:
        stopping = group.create_task(stop(rig, pod, 30))
        await asyncio.sleep(31.5)
        assert "FailedPreStopHook" not in rig.reasons
        assert await stopping == pytest.approx(32, abs=0.5)
    assert asyncio.get_running_loop().time() - began == pytest.approx(32, abs=0.5)
    assert stop_timeouts(rig) == [2]
    assert ("Warning", "FailedPreStopHook", "PreStopHook failed") in rig.events


@in_virtual_time
async def test_sidecars_whose_hooks_take_all_of_the_time_are_stopped_side_by_side(rig: Rig) -> None:
    """There is none left to wait for each other."""
    rig.fake.exec_hangs.add(HOOK)
    sidecars = [
        a_container(name=name, restartPolicy="Always", **exec_hook("preStop")) for name in ("one", "two", "three")
    ]
    pod = a_pod(a_container(), initContainers=sidecars)
    for _ in sidecars:
        await start(rig, pod)
    rig.fake.stubborn |= {"one", "two", "three"}
    assert await stop(rig, pod, 30) == pytest.approx(32, abs=0.5)


@in_virtual_time
async def test_a_sleep_that_outlives_the_grace_period_holds_nothing_up(rig: Rig) -> None:
    """The container has two seconds and needs none of them."""
    pod = a_pod(a_container(**sleep_hook(50)))
    await start(rig, pod)
    assert await stop(rig, pod, 30) == pytest.approx(30, abs=0.5)
    assert "FailedPreStopHook" not in rig.reasons


@in_virtual_time
async def test_a_container_that_would_not_stop_is_told_of_with_its_hook_under_way(rig: Rig) -> None:
    """The runtime's word comes out as it is, and the next stop does not run the hook again."""
    rig.fake.exec_hangs.add(HOOK)
    pod = a_pod(a_container(**exec_hook("preStop")))
    await start(rig, pod)
    rig.fake.fail("StopContainer", RuntimeCallError("StopContainer", "UNKNOWN", "device or resource busy"))
    with pytest.raises(SyncError, match="device or resource busy"):
        await stop(rig, pod, 30)
    assert await stop(rig, pod, 30) == pytest.approx(0, abs=0.5)


@in_virtual_time
async def test_a_failing_pre_stop_hook_is_told_and_holds_nothing_up(rig: Rig) -> None:
    """The container stops all the same."""
    rig.fake.exec_results[HOOK] = (b"", b"", 1)
    pod = a_pod(a_container(**exec_hook("preStop")))
    await start(rig, pod)
    await stop(rig, pod, 30)
    assert ("Warning", "FailedPreStopHook", "PreStopHook failed") in rig.events
    assert rig.fake.running() == []


@in_virtual_time
async def test_a_shorter_grace_period_breaks_a_sleep_off(rig: Rig) -> None:
    """The second stop does not begin the sleep anew, and ends when its own time is over."""
    pod = a_pod(a_container(**sleep_hook(50)))
    await start(rig, pod)
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(10):
            await stop(rig, pod, 60)
    assert await stop(rig, pod, 3) == pytest.approx(3, abs=0.5)
    assert stop_timeouts(rig) == [2]


@in_virtual_time
async def test_a_sleep_goes_on_where_it_was_broken_off(rig: Rig) -> None:
    """Ten of fourteen seconds are over: four are left."""
    pod = a_pod(a_container(**sleep_hook(14)))
    await start(rig, pod)
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(10):
            await stop(rig, pod, 60)
    assert await stop(rig, pod, 30) == pytest.approx(4, abs=0.5)


@in_virtual_time
async def test_without_grace_there_is_no_hook(rig: Rig) -> None:
    """Only the two seconds that every container has for its signal."""
    rig.fake.exec_hangs.add(HOOK)
    pod = a_pod(a_container(**exec_hook("preStop")))
    await start(rig, pod)
    observed = await rig.observer.observe(UID)
    killer = rig.sync._services.killer
    await killer.kill_pod(pod, observed, 0)
    assert stop_timeouts(rig)[0] == 2


@in_virtual_time
async def test_the_hook_of_a_pod_that_only_the_runtime_knows_is_run(rig: Rig) -> None:
    """It stands in the container's annotations; the pod's one second is all the time it has."""
    rig.fake.exec_hangs.add(HOOK)
    await start(rig, a_pod(a_container(**exec_hook("preStop"))))
    rig.boot()
    began = asyncio.get_running_loop().time()
    await rig.sync.terminate_pod(None, UID, rig.memory, 1, "nobody knows the pod")
    assert asyncio.get_running_loop().time() - began == pytest.approx(1, abs=0.1)
    assert rig.fake.called("ExecSync") == ["ExecSync"]
    assert ("Normal", "Killing", "Stopping container main") in rig.events
    assert rig.fake.running() == []


class Hooks:
    """LifecycleHooks alone, with a server of its own on the loopback."""

    def __init__(self, rig: Rig) -> None:
        self.rig = rig
        self.hooks = LifecycleHooks(rig.fake, rig.event, lambda pod: ("127.0.0.1",))
        self.requests: list[bytes] = []

    async def post_start(self, handler: dict[str, Any]) -> None:
        pod = a_pod(a_container(lifecycle={"postStart": handler}))
        spec = pod.spec
        assert spec is not None
        await self.hooks.post_start(pod, spec.containers[0], "c1")

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.read(1000)
        self.requests.append(head)
        writer.write(b"HTTP/1.1 500 Internal\r\nContent-Length: 0\r\n\r\n")
        writer.close()


async def test_an_http_hook_is_content_with_any_answer(tmp_path: Path) -> None:
    """Even with a 500, and HTTPS where plain HTTP answers is tried again, without the password and with an event."""
    made = Hooks(Rig(tmp_path))
    listener = await asyncio.start_server(made.serve, "127.0.0.1", 0)
    async with listener:
        port = listener.sockets[0].getsockname()[1]
        await made.post_start({"httpGet": {"port": port, "path": "/hello"}})
        assert made.requests[0].startswith(b"GET /hello HTTP/1.1\r\n")
        assert b"User-Agent: kube-lifecycle/1.37\r\n" in made.requests[0]
        secret = [{"name": "Authorization", "value": "Bearer secret"}]
        await made.post_start({"httpGet": {"port": port, "scheme": "HTTPS", "httpHeaders": secret}})
    assert b"GET / HTTP/1.1" in made.requests[-1]
    assert b"secret" not in made.requests[-1]
    message = f"request to HTTPS lifecycle hook 127.0.0.1:{port} got HTTP response, retry with HTTP succeeded"
    assert made.rig.events == [("Warning", "LifecycleHTTPFallback", message)]


@pytest.mark.parametrize(
    ("handler", "words"),
    [
        ({"tcpSocket": {"port": 80}}, "invalid handler"),
        ({"httpGet": {"port": "nowhere"}}, "couldn't find port"),
        ({"httpGet": {"port": 1}}, "connection refused"),
        ({"exec": {"command": ["x"]}}, "ExecSync"),
    ],
)
async def test_what_makes_a_hook_fail(tmp_path: Path, handler: dict[str, Any], words: str) -> None:
    """No handler, a bad one, nobody there, a container that the runtime does not know."""
    with capture_logs(), pytest.raises(HookError, match=words):
        await Hooks(Rig(tmp_path)).post_start(handler)
