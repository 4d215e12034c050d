"""The gRPC client: codes become our errors, deadlines hold, big answers pass, bad endpoints are refused."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import pytest
from blockbuster import blockbuster_ctx

from cri_proto import runtime_v1 as cri
from kubelet_py.cri import RuntimeClient, connect
from kubelet_py.cri.client import MAX_MESSAGE_BYTES, target_of, wait_until_ready
from kubelet_py.errors import (
    ConfigError,
    RuntimeCallError,
    RuntimeNotFound,
    RuntimeTimeout,
    RuntimeUnavailable,
    RuntimeUnimplemented,
)
from tests.fakes.runtime import FakeRuntimeClient
from tests.fakes.runtime_server import serving
from tests.fakes.waiting import background, eventually


@pytest.fixture
def fake() -> FakeRuntimeClient:
    return FakeRuntimeClient()


@pytest.fixture
async def client(fake: FakeRuntimeClient, tmp_path: Path) -> AsyncIterator[RuntimeClient]:
    async with serving(fake, tmp_path / "cri.sock") as endpoint:
        made = connect(endpoint, timeout_seconds=5)
        with blockbuster_ctx("kubelet_py"):
            yield made
        await made.close()


async def test_images_may_have_an_endpoint_of_their_own(fake: FakeRuntimeClient, tmp_path: Path) -> None:
    other = FakeRuntimeClient()
    other.add_image("there")
    async with serving(fake, tmp_path / "a.sock") as first, serving(other, tmp_path / "b.sock") as second:
        for endpoint, images in ((second, 1), (first, 0), ("", 0)):
            made = connect(first, 5, endpoint)
            assert len(await made.list_images()) == images
            await made.version()
            await made.close()
    assert [call.name for call in other.calls] == ["ListImages"]
    with pytest.raises(ConfigError, match="imageServiceEndpoint"):
        connect("/run/a.sock", 5, "tcp://b")


@pytest.mark.parametrize(
    ("code", "kind"),
    [
        ("NOT_FOUND", RuntimeNotFound),
        ("UNAVAILABLE", RuntimeUnavailable),
        ("DEADLINE_EXCEEDED", RuntimeTimeout),
        ("UNIMPLEMENTED", RuntimeUnimplemented),
        ("INTERNAL", RuntimeCallError),
    ],
)
async def test_a_code_becomes_an_error_that_names_the_call(
    fake: FakeRuntimeClient, client: RuntimeClient, code: str, kind: type[RuntimeCallError]
) -> None:
    fake.fail("Version", RuntimeCallError("Version", code, "for this reason"))
    with pytest.raises(RuntimeCallError) as caught:
        await client.version()
    assert type(caught.value) is kind
    assert (caught.value.call, caught.value.code, caught.value.detail) == ("Version", code, "for this reason")
    assert str(caught.value) == f"Version: for this reason ({code})"


@pytest.mark.parametrize(
    ("detail", "kind"), [("not implemented yet", RuntimeUnimplemented), ("no such cgroup", RuntimeCallError)]
)
async def test_a_runtime_may_say_in_words_that_it_has_no_resize_of_sandboxes(
    fake: FakeRuntimeClient, client: RuntimeClient, detail: str, kind: type[RuntimeCallError]
) -> None:
    fake.sandbox_updates = []
    fake.fail("UpdatePodSandboxResources", RuntimeCallError("UpdatePodSandboxResources", "UNKNOWN", detail))
    with pytest.raises(RuntimeCallError) as caught:
        await client.update_pod_sandbox_resources("a", cri.LinuxContainerResources(), cri.LinuxContainerResources())
    assert type(caught.value) is kind


async def test_a_call_that_takes_too_long_is_a_timeout(fake: FakeRuntimeClient, tmp_path: Path) -> None:
    async with serving(fake, tmp_path / "cri.sock") as endpoint:
        client = connect(endpoint, timeout_seconds=0.05)
        fake.hang("Status")
        with pytest.raises(RuntimeTimeout):
            await client.status()
        await client.close()


async def test_a_pull_and_a_command_without_a_limit_have_no_deadline(fake: FakeRuntimeClient, tmp_path: Path) -> None:
    fake.add_image("registry.example/big:1")
    async with serving(fake, tmp_path / "cri.sock") as endpoint:
        client = connect(endpoint, timeout_seconds=0.05)
        gates = [fake.hang("PullImage"), fake.hang("ExecSync")]
        calls: list[Awaitable[object]] = [
            client.pull_image(cri.ImageSpec(image="registry.example/big:1"), None, None),
            client.exec_sync("c", ["true"], 0),
        ]
        async with asyncio.TaskGroup() as tasks:
            waiting = [tasks.create_task(_outcome(call)) for call in calls]
            for gate in gates:
                await gate.reached.wait()
            await asyncio.sleep(0.15)
            assert not any(task.done() for task in waiting)
            for gate in gates:
                gate.release()
        outcomes = [task.result() for task in waiting]
        assert outcomes[0] == fake.registry["registry.example/big:1"].id
        assert isinstance(outcomes[1], RuntimeNotFound)
        await client.close()


async def _outcome(call: Awaitable[object]) -> object:
    try:
        return await call
    except RuntimeCallError as error:
        return error


async def test_answers_up_to_sixteen_mebibytes_pass(fake: FakeRuntimeClient, client: RuntimeClient) -> None:
    fake.add_image("registry.example/" + "x" * (MAX_MESSAGE_BYTES // 2 - 2000) + ":1")
    assert len(await client.list_images()) == 1
    fake.add_image("registry.example/" + "y" * (MAX_MESSAGE_BYTES // 2) + ":1")
    with pytest.raises(RuntimeCallError) as caught:
        await client.list_images()
    assert caught.value.code == "RESOURCE_EXHAUSTED"


async def test_a_runtime_that_is_not_there_is_unavailable_and_found_when_it_comes(
    fake: FakeRuntimeClient, tmp_path: Path
) -> None:
    client = connect(str(tmp_path / "cri.sock"))
    with pytest.raises(RuntimeUnavailable):
        await client.version()
    async with background(_serve(fake, tmp_path / "cri.sock")):
        answer = await asyncio.wait_for(wait_until_ready(client, poll_seconds=0.02), 30)
        assert answer.runtime_name == "fake"
    await client.close()


async def _serve(fake: FakeRuntimeClient, socket: Path) -> None:
    await asyncio.sleep(0.1)
    async with serving(fake, socket):
        await asyncio.Event().wait()


async def test_a_runtime_that_is_starting_is_waited_for(fake: FakeRuntimeClient, client: RuntimeClient) -> None:
    """containerd refuses every call with UNKNOWN until its CRI plugin is up."""
    fake.fail("Version", RuntimeCallError("Version", "UNKNOWN", "server is not initialized yet"), times=2)
    await wait_until_ready(client, poll_seconds=0.01)
    assert fake.called("Version") == ["Version"] * 3


async def test_what_speaks_no_cri_is_a_mistake_of_the_configuration(
    fake: FakeRuntimeClient, client: RuntimeClient
) -> None:
    fake.fail("Version", RuntimeUnimplemented("Version", "UNIMPLEMENTED", "unknown service runtime.v1.RuntimeService"))
    with pytest.raises(ConfigError, match=r"containerRuntimeEndpoint: .* no CRI v1 runtime"):
        await wait_until_ready(client)


async def test_events_come_until_the_stream_breaks(fake: FakeRuntimeClient, client: RuntimeClient) -> None:
    fake.has_events = True
    fake.add_image("registry.example/app:1")
    seen: list[str] = []

    async def listen() -> None:
        async for event in client.container_events():
            seen.append(event.container_id)  # noqa: PERF401 # each must be there at once

    async with asyncio.TaskGroup() as tasks:
        task = tasks.create_task(_outcome(listen()))
        await eventually(lambda: fake._listeners)
        config = cri.PodSandboxConfig(metadata=cri.PodSandboxMetadata(uid="u"))
        sandbox_id = await fake.run_pod_sandbox(config, "")
        wanted = cri.ContainerConfig(image=cri.ImageSpec(image="registry.example/app:1"))
        container_id = await fake.create_container(sandbox_id, wanted, config)
        await eventually(lambda: seen)
        fake.drop_event_streams()
    assert seen == [container_id]
    assert isinstance(task.result(), RuntimeUnavailable)


async def test_a_runtime_without_events_says_so_at_the_first_step(client: RuntimeClient) -> None:
    events = client.container_events()
    with pytest.raises(RuntimeUnimplemented):
        await anext(events)


@pytest.mark.parametrize(
    ("call", "ask"),
    [
        ("RunPodSandbox", lambda c: c.run_pod_sandbox(cri.PodSandboxConfig(), "")),
        ("PullImage", lambda c: c.pull_image(cri.ImageSpec(image="a"), cri.AuthConfig(), cri.PodSandboxConfig())),
    ],
)
async def test_an_answer_without_an_id_is_an_error(
    fake: FakeRuntimeClient,
    client: RuntimeClient,
    call: str,
    ask: Callable[[RuntimeClient], Awaitable[object]],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """containerd has answered so when a call was cancelled half-way."""

    async def nothing(*_: object) -> str:
        return ""

    monkeypatch.setattr(fake, "run_pod_sandbox" if call == "RunPodSandbox" else "pull_image", nothing)
    with pytest.raises(RuntimeCallError, match=f"{call}: the runtime answered with an empty"):
        await ask(client)


async def test_settings_of_the_node_are_handed_over(fake: FakeRuntimeClient, client: RuntimeClient) -> None:
    await client.update_runtime_config("10.1.0.0/24")
    assert fake.calls[-1].about == "10.1.0.0/24"
    assert (await client.runtime_config()).linux.cgroup_driver == cri.CGROUPFS
    assert (await client.status(verbose=True)).info
    with pytest.raises(RuntimeNotFound):
        await client.update_container_resources("none", cri.LinuxContainerResources())


@pytest.mark.parametrize(
    ("endpoint", "target"),
    [
        ("unix:///run/a.sock", "unix:/run/a.sock"),
        ("unix:/run/a.sock", "unix:/run/a.sock"),
        ("/run/a.sock", "unix:/run/a.sock"),
    ],
)
def test_endpoints_on_this_machine_are_taken(endpoint: str, target: str) -> None:
    assert target_of(endpoint) == target


@pytest.mark.parametrize("endpoint", ["tcp://127.0.0.1:1", "npipe:////./pipe/x", "run/a.sock", "", "unix://run/a.sock"])
def test_other_endpoints_are_refused_with_what_would_be_right(endpoint: str) -> None:
    with pytest.raises(ConfigError, match=r"containerRuntimeEndpoint: .*unix:///"):
        target_of(endpoint)


async def test_a_checkpoint_has_the_usual_time_at_least(
    fake: FakeRuntimeClient, client: RuntimeClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = []

    async def checkpoint(container_id: str, location: str, timeout_seconds: int) -> None:
        asked.append((container_id, location, timeout_seconds))

    monkeypatch.setattr(fake, "checkpoint_container", checkpoint)
    for seconds in (0, 4, 500):
        await client.checkpoint_container("c", "/archive.tar", seconds)
    assert asked == [("c", "/archive.tar", seconds) for seconds in (5, 5, 500)]
    with pytest.raises(RuntimeCallError, match="must not be below 0"):
        await client.checkpoint_container("c", "/archive.tar", -1)
