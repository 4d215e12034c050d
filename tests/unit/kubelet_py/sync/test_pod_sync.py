"""Passes over one pod: brought up, kept up, told of."""

import asyncio
from dataclasses import replace
from pathlib import Path

import pytest

from cri_proto import runtime_v1 as cri
from kubelet_py.api import meta_v1
from kubelet_py.api import pod as pods
from kubelet_py.api.codec import from_builtins
from kubelet_py.core.observed import ProbeResult, ProbeVerdict
from kubelet_py.errors import (
    RuntimeNotFound,
    RuntimeUnavailable,
)
from kubelet_py.sync.observer import PodObserver
from kubelet_py.sync.pod_services import PassResult
from kubelet_py.sync.pod_sync import MORE_ROUNDS_SECONDS, PodSync
from tests.fakes.waiting import background, eventually
from tests.unit.kubelet_py.sync.rig import IMAGE, UID, Rig, a_container, a_pod, settle, started, sync, touch_file

# Bring up


async def test_a_new_pod_gets_a_sandbox_and_its_containers(rig: Rig) -> None:
    pod = a_pod(a_container("one"), a_container("two"))
    assert await sync(rig, pod) == PassResult()
    assert rig.fake.called()[:1] == ["RunPodSandbox"]
    assert rig.fake.running(UID) == ["one", "two"]
    assert rig.statuses.phases == ["Pending", "Running"]
    sandbox = rig.fake.ready_sandboxes(UID)[0]
    assert rig.status.podIP == sandbox.ip
    assert sandbox.config.log_directory == str(rig.log_directory(pod))
    assert rig.reasons.count("Created") == rig.reasons.count("Started") == 2
    assert rig.reasons.index("Pulled") < rig.reasons.index("Created") < rig.reasons.index("Started")
    assert rig.cgroups.made == rig.objects.watched == {UID}
    assert rig.prober.probed == {UID: ["one", "two"]}


async def test_a_container_has_its_files_before_it_is_created(rig: Rig) -> None:
    pod = a_pod()
    await sync(rig, pod)
    container = rig.fake.container("main")
    mounts = {mount.container_path: Path(mount.host_path) for mount in container.config.mounts}
    assert mounts["/dev/termination-log"].is_file()
    assert "web" in mounts["/etc/hosts"].read_text()
    assert Path(container.log_path).parent.is_dir()
    assert [link.readlink() for link in rig.links.iterdir()] == [Path(container.log_path)]


async def test_a_pod_that_is_as_it_should_be_costs_no_change(rig: Rig) -> None:
    pod = a_pod()
    await sync(rig, pod)
    before = rig.fake.called()
    assert await sync(rig, pod) == PassResult()
    assert rig.fake.called() == before


async def test_the_runtime_is_not_asked_for_a_pod_that_it_cannot_have(rig: Rig) -> None:
    """The list of everything has shown nothing of it. From the second pass on it is asked, whatever the list says."""
    known: set[str] = set()
    rig.observer = PodObserver(rig.fake, rig.learned.append, rig.clock, knows=known.__contains__)
    rig.sync = PodSync(replace(rig.services, observer=rig.observer))
    pod = a_pod()
    await sync(rig, pod)
    assert rig.fake.calls[0].name == "RunPodSandbox"
    rig.fake.calls.clear()
    assert await sync(rig, pod) == PassResult()
    assert rig.fake.called("ListPodSandbox", "RunPodSandbox") == ["ListPodSandbox"]


async def test_what_was_just_made_is_looked_at_without_a_list(rig: Rig) -> None:
    """The ids are known. After a failure nobody knows what there is, and after a kill what is left."""
    pod = a_pod()
    await sync(rig, pod)
    assert rig.fake.called("ListContainers", "StartContainer", "ContainerStatus") == [
        "ListContainers", "StartContainer", "ContainerStatus",
    ]  # fmt: skip
    first = rig.fake.container("main")
    rig.fake.exit(first, 1)
    rig.fake.calls.clear()
    await sync(rig, pod)
    assert rig.fake.called("ListContainers", "StartContainer") == ["ListContainers", "StartContainer"]
    assert rig.memory.seen is not None
    assert {container.id for container in rig.memory.seen.containers} == rig.fake.containers.keys()
    rig.fake.exit(rig.fake.container("main"), 1)
    rig.clock.advance(60)
    rig.fake.calls.clear()
    rig.fake.fail("StartContainer")
    await sync(rig, pod)
    assert rig.fake.called("ListContainers", "StartContainer") == ["ListContainers", "StartContainer", "ListContainers"]


async def test_a_sandbox_that_dies_while_its_container_starts_is_seen_by_the_pass(rig: Rig) -> None:
    """Its event came before the pass looked, and is taken to be what the pass then sees."""
    gate = rig.fake.hang("StartContainer", after=True)
    async with background(sync(rig, a_pod())):
        await gate.reached.wait()
        rig.fake.kill_sandbox(rig.fake.ready_sandboxes()[0])
        gate.release()
        await eventually(lambda: len(rig.fake.called("RunPodSandbox")) == 2)


async def test_a_container_that_ends_at_once_is_seen_to_have_ended(rig: Rig) -> None:
    rig.fake.exits["main"] = 3
    await sync(rig, a_pod(restartPolicy="Never"))
    assert rig.fake.called("ListContainers") == ["ListContainers"]
    states = [entry.state for entry in rig.status.containerStatuses or ()]
    assert [state.terminated.exitCode for state in states if state and state.terminated] == [3]


async def test_a_new_agent_looks_at_a_pod_that_runs(rig: Rig) -> None:
    """It has done nothing for it, the list shows it."""
    pod = a_pod()
    await sync(rig, pod)
    rig.boot()
    rig.fake.calls.clear()
    await sync(rig, pod)
    assert rig.fake.called("ListPodSandbox", "RunPodSandbox", "StartContainer") == ["ListPodSandbox"]


async def test_the_address_is_reported_before_images_are_pulled(rig: Rig) -> None:
    """PodReadyToStartContainers is true while a slow pull goes on."""
    rig.fake.images.clear()
    gate = rig.fake.hang("PullImage")
    async with background(sync(rig, a_pod())):
        await gate.reached.wait()
        conditions = {c.type: c.status for c in rig.status.conditions or ()}
        assert conditions["PodReadyToStartContainers"] == "True"
        assert rig.status.podIP


async def test_init_containers_run_one_after_the_other_before_the_main_ones(rig: Rig) -> None:
    pod = a_pod(initContainers=[a_container("first"), a_container("second")])
    await sync(rig, pod)
    assert rig.fake.running() == ["first"]
    assert rig.status.phase == "Pending"
    rig.fake.exit(rig.fake.container("first"))
    await sync(rig, pod)
    assert rig.fake.running() == ["second"]
    rig.fake.exit(rig.fake.container("second"))
    await sync(rig, pod)
    assert rig.fake.running() == ["main"]
    assert rig.status.phase == "Running"


async def test_init_containers_that_end_at_once_need_one_pass(rig: Rig) -> None:
    rig.fake.exits = {"first": 0, "second": 0}
    await sync(rig, a_pod(initContainers=[a_container("first"), a_container("second")]))
    assert rig.fake.running() == ["main"]


async def test_a_long_chain_of_init_containers_goes_on_soon(rig: Rig) -> None:
    """What a pass has seen is no news to the PLEG, so the pass itself asks for the next one."""
    names = [f"step-{index}" for index in range(12)]
    rig.fake.exits = dict.fromkeys(names, 0)
    pod = a_pod(initContainers=[a_container(name) for name in names])
    assert (await sync(rig, pod)).retry_seconds == MORE_ROUNDS_SECONDS
    assert await sync(rig, pod) == PassResult()
    assert rig.fake.running() == ["main"]


async def test_a_pod_whose_containers_are_through_is_terminal(rig: Rig) -> None:
    rig.fake.exits = {"main": 0}
    pod = a_pod(restartPolicy="Never")
    assert await sync(rig, pod) == PassResult(is_terminal=True)
    assert rig.status.phase != "Succeeded", "not before nothing can run any more"
    assert (await sync(rig, pod)).is_terminal
    assert started(rig) == [0]


async def test_a_sidecar_starts_before_the_main_containers_and_stays(rig: Rig) -> None:
    pod = a_pod(initContainers=[a_container("proxy", restartPolicy="Always")])
    await sync(rig, pod)
    assert rig.fake.running() == ["main", "proxy"]
    rig.fake.exit(rig.fake.container("proxy"), 1)
    await settle(rig, pod)
    assert rig.fake.running() == ["main", "proxy"]


async def test_an_ephemeral_container_joins_its_target(rig: Rig) -> None:
    pod = a_pod()
    await sync(rig, pod)
    ephemeral = [{"name": "debug", "image": IMAGE, "targetContainerName": "main"}]
    await sync(rig, a_pod(ephemeralContainers=ephemeral))
    options = rig.fake.container("debug").config.linux.security_context.namespace_options
    assert options.target_id == rig.fake.container("main").id


async def test_an_ephemeral_container_waits_for_its_target(rig: Rig) -> None:
    """It is started once only, and would never see the processes that it was made for."""
    rig.fake.fail("CreateContainer", times=2)
    await sync(rig, a_pod())
    pod = a_pod(ephemeralContainers=[{"name": "debug", "image": IMAGE, "targetContainerName": "main"}])
    result = await sync(rig, pod)
    assert "unable to find target container main" in result.error
    assert ("Warning", "Failed", "Error: unable to find target container main") in rig.events
    (status,) = rig.status.ephemeralContainerStatuses or []
    waiting = status.state.waiting if status.state is not None else None
    assert waiting is not None
    assert (waiting.reason, waiting.message) == ("CreateContainerConfigError", "unable to find target container main")
    await sync(rig, pod)
    await sync(rig, pod)
    options = rig.fake.container("debug").config.linux.security_context.namespace_options
    assert options.target_id == rig.fake.container("main").id


# Crashes


async def test_a_crash_loop_waits_longer_each_time(rig: Rig) -> None:
    """10, 20, 40 ... 300 seconds after the end of the last run; the first restart comes at once."""
    rig.fake.exits = {"main": 1}
    pod = a_pod()
    waits = []
    for _ in range(7):
        result = await sync(rig, pod)
        assert result.retry_seconds is None
        assert result.due_seconds is not None
        assert rig.waiting()[0] == "CrashLoopBackOff"
        waits.append(round(result.due_seconds))
        rig.clock.advance(result.due_seconds)
    assert waits == [10, 20, 40, 80, 160, 300, 300]
    assert started(rig) == list(range(8))
    assert ("Warning", "BackOff") in {(kind, reason) for kind, reason, _ in rig.events}


async def test_a_clock_that_was_set_back_lengthens_no_wait_beyond_ten_minutes(rig: Rig) -> None:
    """By the wall clock the crash is of the time to come."""
    rig.fake.exits = {"main": 1}
    pod = a_pod()
    await sync(rig, pod)
    rig.clock.set_back(8 * 3600)
    rig.fake.exits = {}
    rig.clock.advance(600)
    await sync(rig, pod)
    assert rig.fake.running() == []
    rig.clock.advance(1)
    await sync(rig, pod)
    assert rig.fake.running() == ["main"]


async def test_a_crash_beside_another_containers_long_wait_is_acted_on_soon(rig: Rig) -> None:
    """The pass sees it in its last look, so the PLEG has nothing to tell."""
    pod = a_pod(a_container("a"), a_container("b"))
    rig.fake.exits = {"a": 1}
    for _ in range(3):
        result = await sync(rig, pod)
        rig.clock.advance(result.due_seconds or 0)
    assert round((await sync(rig, pod)).due_seconds or 0) == 80
    rig.fake.exits = {"a": 1, "b": 1}
    rig.fake.exit(rig.fake.container("b"), 1)
    assert (await sync(rig, pod)).due_seconds == MORE_ROUNDS_SECONDS
    assert started(rig, "b") == [0, 1]
    assert round((await sync(rig, pod)).due_seconds or 0) == 10
    assert rig.waiting("b")[0] == "CrashLoopBackOff"


async def test_waiting_for_a_crash_loop_makes_no_calls_that_change_anything(rig: Rig) -> None:
    rig.fake.exits = {"main": 1}
    pod = a_pod()
    await sync(rig, pod)
    before = rig.fake.called()
    rig.clock.advance(5)
    result = await sync(rig, pod)
    assert result.due_seconds == pytest.approx(5, abs=0.1)
    assert rig.fake.called() == before


async def test_a_container_that_ran_long_enough_starts_at_once_again(rig: Rig) -> None:
    rig.fake.exits = {"main": 1}
    pod = a_pod()
    await sync(rig, pod)
    rig.fake.exits = {}
    rig.clock.advance(10)
    await sync(rig, pod)
    rig.clock.advance(3600)
    rig.fake.exit(rig.fake.container("main"), 1)
    assert await sync(rig, pod) == PassResult()
    assert rig.fake.running() == ["main"]


async def test_last_words_are_in_the_status(rig: Rig) -> None:
    pod = a_pod(restartPolicy="Never")
    await sync(rig, pod)
    container = rig.fake.container("main")
    path = next(m.host_path for m in container.config.mounts if m.container_path == "/dev/termination-log")
    await asyncio.to_thread(Path(path).write_text, "the disk was full")
    rig.fake.exit(container, 3)
    await sync(rig, pod)
    state = (rig.status.containerStatuses or [])[0].state
    assert state is not None
    assert state.terminated is not None
    assert (state.terminated.exitCode, state.terminated.message) == (3, "the disk was full")


async def test_a_restart_count_goes_on_from_the_logs(rig: Rig) -> None:
    """The runtime lost every container; the file names of the logs still know."""
    pod = a_pod()
    directory = rig.log_directory(pod) / "main"
    for name in ("0.log", "4.log.20240101-000000", "other"):
        await asyncio.to_thread(touch_file, directory / name)
    await sync(rig, pod)
    assert started(rig) == [5]


async def test_a_failed_liveness_probe_restarts_the_container(rig: Rig) -> None:
    probe = {"exec": {"command": ["true"]}, "terminationGracePeriodSeconds": 7}
    pod = a_pod(a_container(livenessProbe=probe))
    await sync(rig, pod)
    old = rig.fake.container("main")
    rig.prober.found[old.id] = ProbeVerdict(liveness=ProbeResult.FAILURE)
    await settle(rig, pod)
    assert old.grace_periods == [7]
    assert started(rig) == [0, 1]
    assert "Killing" in rig.reasons


async def test_a_changed_container_is_restarted(rig: Rig) -> None:
    await sync(rig, a_pod())
    rig.fake.add_image("registry.example/app:2")
    await settle(rig, a_pod(a_container(image="registry.example/app:2")))
    assert started(rig) == [0, 1]
    assert rig.fake.container("main").config.image.user_specified_image == "registry.example/app:2"


# What is told


async def test_each_pass_leaves_a_story_entry_and_repeats_are_counted(rig: Rig) -> None:
    pod = a_pod()
    await sync(rig, pod, "added")
    await sync(rig, pod, "timer")
    await sync(rig, pod, "timer")
    first, last = rig.stories.tell(UID)
    assert (first.stimulus, first.observation, first.result) == ("added", "nothing", "done")
    assert any("StartContainer" in action for action in first.actions)
    assert (last.actions, last.repeats) == ((), 1)
    await rig.sync.terminate_pod(pod, UID, rig.memory, 9, "the pod was deleted")
    assert rig.stories.tell(UID)[-1].stimulus == "stop with 9 s: the pod was deleted"


async def test_a_fault_of_the_agent_is_in_the_story(rig: Rig) -> None:
    rig.sync.reports.note_fault(UID, "shop/web", "timer", ZeroDivisionError("by nothing"))
    assert rig.stories.tell(UID)[-1].result == "fault of the agent: ZeroDivisionError: by nothing"


async def test_an_unexpected_error_comes_out_as_it_is(rig: Rig) -> None:
    """The worker turns it into a story and a retry; the pass must not swallow it."""
    rig.fake.fail("CreateContainer", ZeroDivisionError("by nothing"))
    with pytest.raises(ZeroDivisionError):
        await sync(rig, a_pod())


async def test_what_the_pod_worker_saw_is_no_news_to_the_pleg(rig: Rig) -> None:
    await sync(rig, a_pod())
    record = rig.learned[-1]
    assert (record.uid, record.name, record.is_alive) == (UID, "web", True)
    assert [c.state for c in record.containers] == ["running"]


async def test_the_pleg_learns_a_state_as_the_list_shows_it(rig: Rig) -> None:
    """Where list and status differ and stay so, the next list would be news again, and the one after it."""
    await sync(rig, a_pod())
    container = rig.fake.container("main")
    rig.fake.exit(container, 1)
    await rig.observer.observe(UID)
    container.state = cri.CONTAINER_UNKNOWN  # its status is kept: it had ended
    seen = await rig.observer.observe(UID)
    assert [c.state for c in seen.containers] == ["exited"]
    assert [c.state for c in rig.learned[-1].containers] == ["unknown"]


async def test_the_status_of_an_ended_container_is_asked_for_once(rig: Rig) -> None:
    rig.fake.exits = {"main": 1}
    pod = a_pod()
    await sync(rig, pod)
    asked = rig.fake.called("ContainerStatus")
    await sync(rig, pod)
    assert rig.fake.called("ContainerStatus") == asked
    rig.observer.forget(UID)
    await sync(rig, pod)
    assert len(rig.fake.called("ContainerStatus")) > len(asked)


async def test_a_container_that_somebody_started_again_is_seen_to_run(rig: Rig) -> None:
    """As `docker restart` does, which keeps its id."""
    await sync(rig, a_pod())
    container = rig.fake.container("main")
    rig.fake.exit(container, 1)
    assert [each.name for each in (await rig.observer.observe(UID)).running] == []
    container.state, container.exit_code, container.finished_at = cri.CONTAINER_RUNNING, 0, 0
    assert [each.id for each in (await rig.observer.observe(UID)).running] == [container.id]
    rig.memory.termination_messages[container.id] = "of the end before"
    await sync(rig, a_pod())
    assert container.id not in rig.memory.termination_messages


async def test_the_status_of_a_sandbox_is_asked_for_once_in_each_state(rig: Rig) -> None:
    pod = a_pod()
    await sync(rig, pod)
    await sync(rig, pod)
    assert len(rig.fake.called("PodSandboxStatus")) == 1
    (sandbox,) = rig.fake.ready_sandboxes()
    await rig.fake.stop_pod_sandbox(sandbox.id)
    for _ in range(2):
        seen = await rig.observer.observe(UID)
        assert [(each.ready, each.id) for each in seen.sandboxes] == [(False, sandbox.id)]
        assert len(rig.fake.called("PodSandboxStatus")) == 2


async def test_a_sandbox_without_an_address_is_asked_for_again(rig: Rig) -> None:
    """A runtime may not know it at once; on the node's network there is none to know."""
    await sync(rig, a_pod())
    (sandbox,) = rig.fake.ready_sandboxes()
    address, sandbox.ip = sandbox.ip, ""
    rig.observer.forget(UID)
    assert (await rig.observer.observe(UID)).sandboxes[0].ips == ()
    sandbox.ip = address
    assert (await rig.observer.observe(UID)).sandboxes[0].ips == (address,)


async def test_what_vanishes_between_list_and_status_is_left_out(rig: Rig) -> None:
    await sync(rig, a_pod())
    rig.observer.forget(UID)
    rig.fake.fail("ContainerStatus", RuntimeNotFound("ContainerStatus", "NOT_FOUND", "gone"))
    rig.fake.fail("PodSandboxStatus", RuntimeNotFound("PodSandboxStatus", "NOT_FOUND", "gone"))
    seen = await rig.observer.observe(UID)
    assert (seen.sandboxes, seen.containers) == ((), ())
    rig.fake.exit(rig.fake.container("main"))
    await rig.observer.observe(UID)
    rig.fake.containers.clear()
    assert (await rig.observer.observe(UID)).containers == ()


async def test_a_runtime_that_fails_in_the_middle_of_a_look_is_an_error(rig: Rig) -> None:
    await sync(rig, a_pod())
    rig.fake.fail("ContainerStatus", RuntimeUnavailable("ContainerStatus", "UNAVAILABLE", "gone away"))
    with pytest.raises(RuntimeUnavailable):
        await rig.observer.observe(UID)


def test_pods_of_these_tests_are_what_the_api_server_gives() -> None:
    pod = a_pod()
    assert pods.display_name(pod) == "shop/web"
    assert isinstance(from_builtins(meta_v1.ObjectMeta, {"name": "x"}), meta_v1.ObjectMeta)


# User namespaces


async def test_a_pod_has_a_user_namespace_of_its_own_and_its_mounts_follow(rig: Rig) -> None:
    pod = a_pod(hostUsers=False)
    assert (await sync(rig, pod)).error == ""
    options = rig.fake.ready_sandboxes()[0].config.linux.security_context.namespace_options.userns_options
    assert (options.mode, options.uids[0].host_id) == (cri.POD, 65536)
    container = rig.fake.container("main").config
    assert container.linux.security_context.namespace_options.userns_options == options
    assert {mount.uidMappings[0].host_id for mount in container.mounts} == {65536}
    await rig.sync.terminate_pod(pod, UID, rig.memory, 1, "deleted")
    await rig.sync.clean_up_pod(pod, rig.memory)
    assert not await asyncio.to_thread(rig.volumes.dirs.user_namespace(UID).exists)


async def test_a_runtime_without_user_namespaces_makes_no_such_pod(rig: Rig) -> None:
    rig.user_namespace_handlers = set()
    result = await sync(rig, a_pod(hostUsers=False))
    assert "runtime does not support user namespaces" in result.error
    assert "FailedCreatePodSandBox" in rig.reasons
    assert rig.fake.called("RunPodSandbox") == []
