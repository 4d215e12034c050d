"""What the agent relies on in a CRI runtime: the same for the fake, containerd and dockershim."""

import asyncio
import contextlib
import time
from pathlib import Path

import pytest

from cri_proto import runtime_v1 as cri
from kubelet_py.errors import RuntimeCallError, RuntimeNotFound, RuntimeTimeout, RuntimeUnimplemented
from tests.contract.cri.conftest import FAILS, SLEEP, SUCCEEDS, Runtime
from tests.lab.lab import BUSYBOX

UNKNOWN = "f" * 64
NO_IMAGE = "registry.k8s.io/there-is-no-such-image:1"


async def test_the_runtime_says_who_it_is_and_that_it_is_ready(runtime: Runtime) -> None:
    version = await runtime.client.version()
    assert version.runtime_name
    assert version.runtime_api_version == "v1"
    conditions = {c.type: c.status for c in (await runtime.client.status()).status.conditions}
    assert conditions == {"RuntimeReady": True, "NetworkReady": True} | conditions


async def test_a_sandbox_is_ready_has_an_address_and_keeps_its_labels(runtime: Runtime) -> None:
    sandbox_id, config = await runtime.run_sandbox()
    status = (await runtime.client.pod_sandbox_status(sandbox_id)).status
    assert status.state == cri.SANDBOX_READY
    assert status.metadata == config.metadata
    assert dict(status.labels) == dict(config.labels)
    assert status.annotations["example.com/note"] == "kept"
    assert status.network.ip
    assert abs(status.created_at - time.time_ns()) < 60e9


async def test_two_sandboxes_of_the_same_attempt_cannot_be(runtime: Runtime) -> None:
    """So a sandbox whose creation was lost is found by its name, and the next attempt has another number."""
    _, config = await runtime.run_sandbox()
    with pytest.raises(RuntimeCallError):
        await runtime.client.run_pod_sandbox(config, "")
    again = cri.PodSandboxConfig()
    again.CopyFrom(config)
    again.metadata.attempt = 1
    await runtime.run_sandbox(again)
    listed = await runtime.client.list_pod_sandboxes(config.metadata.uid)
    assert sorted(sandbox.metadata.attempt for sandbox in listed) == [0, 1]


async def test_lists_are_filtered_by_pod(runtime: Runtime) -> None:
    one, other = await runtime.run_sandbox(), await runtime.run_sandbox()
    mine, theirs = await runtime.create(one), await runtime.create(other)
    uid = one[1].metadata.uid
    assert [sandbox.id for sandbox in await runtime.client.list_pod_sandboxes(uid)] == [one[0]]
    assert [container.id for container in await runtime.client.list_containers(uid)] == [mine]
    assert await runtime.client.list_containers("nobody") == []
    assert {one[0], other[0]} <= {sandbox.id for sandbox in await runtime.client.list_pod_sandboxes()}
    everything = {container.id: container for container in await runtime.client.list_containers()}
    assert {mine, theirs} <= everything.keys()
    assert everything[mine].pod_sandbox_id == one[0]


async def test_a_container_is_created_then_runs_then_has_ended(runtime: Runtime) -> None:
    sandbox = await runtime.run_sandbox()
    container_id = await runtime.create(sandbox)
    created = await runtime.client.container_status(container_id)
    assert (created.state, created.started_at, created.finished_at) == (cri.CONTAINER_CREATED, 0, 0)
    assert created.annotations["example.com/restart"] == "7"
    await runtime.client.start_container(container_id)
    running = await runtime.client.container_status(container_id)
    assert (running.state, running.finished_at) == (cri.CONTAINER_RUNNING, 0)
    assert running.started_at >= running.created_at > 0
    await runtime.client.stop_container(container_id, 1)
    ended = await runtime.ended(container_id)
    assert ended.exit_code in (137, 143)
    assert ended.reason == "Error"
    assert ended.finished_at >= ended.started_at
    assert ended.log_path == f"{sandbox[1].log_directory}/main.log"


@pytest.mark.parametrize(("command", "exit_code", "reason"), [(SUCCEEDS, 0, "Completed"), (FAILS, 3, "Error")])
async def test_an_exit_code_is_kept(runtime: Runtime, command: tuple[str, ...], exit_code: int, reason: str) -> None:
    container_id = await runtime.run(await runtime.run_sandbox(), command)
    status = await runtime.ended(container_id)
    assert (status.exit_code, status.reason) == (exit_code, reason)


async def test_a_container_starts_once(runtime: Runtime) -> None:
    """A second start is refused, or does nothing (Docker)."""
    container_id = await runtime.run(await runtime.run_sandbox())
    before = await runtime.client.container_status(container_id)
    with contextlib.suppress(RuntimeCallError):
        await runtime.client.start_container(container_id)
    assert await runtime.client.container_status(container_id) == before


async def test_a_container_that_ignores_the_signal_is_killed_after_its_time(runtime: Runtime) -> None:
    container_id = await runtime.run_stubborn()
    began = time.monotonic()
    await runtime.client.stop_container(container_id, 1)
    assert 0.9 <= time.monotonic() - began < 8
    assert (await runtime.ended(container_id)).exit_code == 137


async def test_a_stop_that_the_caller_gives_up_can_be_made_again_with_less_time(runtime: Runtime) -> None:
    """How a grace period shrinks."""
    container_id = await runtime.run_stubborn()
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.3):
            await runtime.client.stop_container(container_id, 100)
    began = time.monotonic()
    await runtime.client.stop_container(container_id, 1)
    assert time.monotonic() - began < 8
    assert (await runtime.ended(container_id)).exit_code == 137


async def test_stopping_and_removing_again_is_fine(runtime: Runtime) -> None:
    sandbox_id, config = sandbox = await runtime.run_sandbox()
    container_id = await runtime.run(sandbox)
    for _ in range(2):
        await runtime.client.stop_container(container_id, 0)
    for _ in range(2):
        await runtime.client.remove_container(container_id)
    for _ in range(2):
        await runtime.client.stop_pod_sandbox(sandbox_id)
    for _ in range(2):
        await runtime.client.remove_pod_sandbox(sandbox_id)
    assert await runtime.client.list_pod_sandboxes(config.metadata.uid) == []


async def test_what_is_not_there_is_not_found(runtime: Runtime) -> None:
    with pytest.raises(RuntimeNotFound):
        await runtime.client.container_status(UNKNOWN)
    with pytest.raises(RuntimeNotFound):
        await runtime.client.pod_sandbox_status(UNKNOWN)
    with pytest.raises(RuntimeCallError):
        await runtime.client.start_container(UNKNOWN)
    with pytest.raises(RuntimeCallError):
        await runtime.client.exec_sync(UNKNOWN, ["true"], 1)
    with pytest.raises(RuntimeCallError):
        await runtime.create((UNKNOWN, runtime.sandbox_config()))


async def test_a_running_container_is_removed_by_force(runtime: Runtime) -> None:
    container_id = await runtime.run(await runtime.run_sandbox())
    await runtime.client.remove_container(container_id)
    with pytest.raises(RuntimeNotFound):
        await runtime.client.container_status(container_id)


async def test_a_stopped_sandbox_takes_its_containers_along(runtime: Runtime) -> None:
    sandbox_id, config = sandbox = await runtime.run_sandbox()
    container_id = await runtime.run(sandbox)
    await runtime.client.stop_pod_sandbox(sandbox_id)
    assert (await runtime.client.pod_sandbox_status(sandbox_id)).status.state == cri.SANDBOX_NOTREADY
    assert (await runtime.ended(container_id)).exit_code != 0
    with pytest.raises(RuntimeCallError):
        await runtime.run(sandbox, name="late")
    await runtime.client.remove_pod_sandbox(sandbox_id)
    assert await runtime.client.list_containers(config.metadata.uid) == []


async def test_a_command_gives_its_output_and_exit_code(runtime: Runtime) -> None:
    container_id = await runtime.run(await runtime.run_sandbox())
    answer = await runtime.client.exec_sync(container_id, ["sh", "-c", "echo out; echo err >&2; exit 4"], 10)
    assert (answer.stdout, answer.stderr, answer.exit_code) == (b"out\n", b"err\n", 4)


async def test_a_command_that_takes_too_long_is_a_timeout(runtime: Runtime) -> None:
    container_id = await runtime.run(await runtime.run_sandbox())
    with pytest.raises(RuntimeTimeout):
        await runtime.client.exec_sync(container_id, list(SLEEP), 1)


async def test_a_command_without_a_timeout_ends_with_its_container(runtime: Runtime) -> None:
    """A preStop hook that is not through has until then."""
    container_id = await runtime.run(await runtime.run_sandbox())
    async with asyncio.TaskGroup() as group:
        running = group.create_task(runtime.client.exec_sync(container_id, list(SLEEP), 0))
        await asyncio.wait((running,), timeout=1)
        assert not running.done()
        await runtime.client.stop_container(container_id, 0)
        assert (await running).exit_code  # 137, or 127 where Docker does not see the end


async def test_a_command_needs_a_running_container(runtime: Runtime) -> None:
    container_id = await runtime.run(await runtime.run_sandbox(), SUCCEEDS)
    await runtime.ended(container_id)
    with pytest.raises(RuntimeCallError):
        await runtime.client.exec_sync(container_id, ["true"], 1)


async def test_a_checkpoint_without_criu_is_unimplemented(runtime: Runtime, tmp_path: Path) -> None:
    container_id, archive = await runtime.run(await runtime.run_sandbox()), tmp_path / "archive.tar"
    with pytest.raises(RuntimeUnimplemented) as caught:
        await runtime.client.checkpoint_container(container_id, str(archive), 10)
    assert caught.value.call == "CheckpointContainer"
    assert not archive.exists()


async def test_an_image_that_is_not_there_has_no_status(runtime: Runtime) -> None:
    assert await runtime.client.image_status(cri.ImageSpec(image=NO_IMAGE)) is None


async def test_an_image_that_the_registry_does_not_have_cannot_be_pulled(runtime: Runtime) -> None:
    with pytest.raises(RuntimeCallError) as caught:
        await runtime.client.pull_image(cri.ImageSpec(image=NO_IMAGE), None, None)
    assert caught.value.detail


async def test_the_answer_of_a_pull_is_a_name_of_the_image(runtime: Runtime) -> None:
    reference = await runtime.client.pull_image(cri.ImageSpec(image=BUSYBOX), None, None)
    by_name = await runtime.client.image_status(cri.ImageSpec(image=BUSYBOX))
    by_answer = await runtime.client.image_status(cri.ImageSpec(image=reference))
    assert by_name is not None
    assert by_answer is not None
    assert by_name.id == by_answer.id
    assert by_name.size > 0
    assert by_name.id in {image.id for image in await runtime.client.list_images()}


async def test_removing_an_image_that_is_not_there_is_fine(runtime: Runtime) -> None:
    await runtime.client.remove_image(cri.ImageSpec(image=NO_IMAGE))


async def test_a_container_needs_an_image_that_is_there(runtime: Runtime) -> None:
    sandbox_id, config = sandbox = await runtime.run_sandbox()
    wanted = runtime.container_config(sandbox)
    wanted.image.image = NO_IMAGE
    with pytest.raises(RuntimeCallError):
        await runtime.client.create_container(sandbox_id, wanted, config)
    assert await runtime.client.list_containers(config.metadata.uid) == []


async def test_the_image_file_system_is_measured(runtime: Runtime) -> None:
    info = await runtime.client.image_fs_info()
    assert info.image_filesystems[0].fs_id.mountpoint


async def test_a_log_is_opened_again_only_while_its_container_runs(runtime: Runtime) -> None:
    sandbox = await runtime.run_sandbox()
    container_id = await runtime.run(sandbox)
    await runtime.client.reopen_container_log(container_id)
    await runtime.client.stop_container(container_id, 0)
    await runtime.ended(container_id)
    with pytest.raises(RuntimeCallError):
        await runtime.client.reopen_container_log(container_id)
