"""Passes over one pod: brought up, kept up, stopped, cleaned up; whatever fails in between."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import msgspec
import pytest
from blockbuster import blockbuster_ctx
from structlog.testing import capture_logs

from cri_proto import runtime_v1 as cri
from kubelet_py.api import core_v1, meta_v1
from kubelet_py.api import pod as pods
from kubelet_py.api.codec import from_builtins
from kubelet_py.core.observed import ProbeResult, ProbeVerdict
from kubelet_py.errors import (
    ApiForbidden,
    RuntimeCallError,
    RuntimeNotFound,
    RuntimeTimeout,
    RuntimeUnavailable,
    SyncError,
)
from kubelet_py.sync.pod_services import PassResult, PodMemory
from kubelet_py.sync.pod_sync import MORE_ROUNDS_SECONDS, NETWORK_RETRY_SECONDS, RETRY_SECONDS
from kubelet_py.sync.start_gate import Rank, StartGate
from tests.fakes.runtime import ANY_MUTATION
from tests.fakes.waiting import background, eventually
from tests.unit.kubelet_py.sync.rig import IMAGE, UID, Rig, a_container, a_pod


@pytest.fixture
async def rig(tmp_path: Path) -> AsyncIterator[Rig]:
    made = Rig(tmp_path)
    with blockbuster_ctx("kubelet_py"), capture_logs():
        yield made
    made.volumes.close()


async def sync(rig: Rig, pod: core_v1.Pod, stimulus: str = "test") -> PassResult:
    return await rig.sync.sync_pod(pod, rig.memory, stimulus)


async def settle(rig: Rig, pod: core_v1.Pod, passes: int = 20) -> PassResult:
    """Passes, and the waits between them, until nothing is to be done."""
    for _ in range(passes):
        result = await sync(rig, pod)
        waits = [s for s in (result.retry_seconds, result.due_seconds) if s is not None]
        if not waits or result.is_terminal:
            return result
        rig.clock.advance(min(waits))
    raise AssertionError(f"no rest after {passes} passes: {result}")


def started(rig: Rig, name: str = "main") -> list[int]:
    """Restart counts of the runs of a container, in the order of their creation."""
    runs = sorted((c for c in rig.fake.containers.values() if c.name == name), key=lambda c: c.created_at)
    return [int(c.config.annotations["io.kubernetes.container.restartCount"]) for c in runs]


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
        await asyncio.to_thread(_touch, directory / name)
    await sync(rig, pod)
    assert started(rig) == [5]


def _touch(path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.touch()


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


# Failures


async def test_an_image_that_cannot_be_pulled_backs_off_and_comes_at_last(rig: Rig) -> None:
    rig.fake.images.clear()
    rig.fake.fail("PullImage", RuntimeNotFound("PullImage", "NOT_FOUND", "no such manifest"), times=2)
    pod = a_pod()
    first = await sync(rig, pod)
    assert first.retry_seconds == RETRY_SECONDS
    assert rig.waiting()[0] == "ErrImagePull"
    backing_off = await sync(rig, pod)
    assert backing_off.retry_seconds is None
    assert backing_off.due_seconds == pytest.approx(10)
    assert rig.waiting()[0] == "ImagePullBackOff"
    assert "no such manifest" in (rig.waiting()[1] or "")
    rig.clock.advance(10)
    await sync(rig, pod)
    assert (await sync(rig, pod)).due_seconds == pytest.approx(20)
    rig.clock.advance(20)
    assert await sync(rig, pod) == PassResult()
    assert rig.fake.running() == ["main"]
    assert len(rig.fake.pulls) == 3
    assert {"Failed", "BackOff", "Pulling", "Pulled"} <= set(rig.reasons)


async def test_an_image_volume_is_pulled_and_left_to_the_runtime(rig: Rig) -> None:
    volume = {"name": "data", "image": {"reference": "registry.example/data:1", "pullPolicy": "IfNotPresent"}}
    mount = {"name": "data", "mountPath": "/data", "subPath": "inner"}
    rig.fake.add_image("registry.example/data:1", present=False)
    await sync(rig, a_pod(a_container(volumeMounts=[mount]), volumes=[volume]))
    (made,) = [mount for mount in rig.fake.container("main").config.mounts if mount.container_path == "/data"]
    assert made.image.user_specified_image == "registry.example/data:1"
    assert (made.host_path, made.image_sub_path, made.readonly) == ("", "inner", True)


async def test_an_image_volume_that_cannot_be_pulled_holds_up_the_containers_that_mount_it(rig: Rig) -> None:
    volume = {"name": "data", "image": {"reference": "registry.example/none:1", "pullPolicy": "Always"}}
    with_volume = a_container("with", volumeMounts=[{"name": "data", "mountPath": "/data"}])
    await sync(rig, a_pod(with_volume, a_container("without"), volumes=[volume]))
    assert rig.fake.running() == ["without"]
    assert rig.waiting("with")[0] == "ErrImagePull"


async def test_one_bad_image_holds_up_no_other_container(rig: Rig) -> None:
    result = await sync(rig, a_pod(a_container("bad", image="registry.example/none:1"), a_container("good")))
    assert rig.fake.running() == ["good"]
    assert result.error
    assert rig.waiting("bad")[0] == "ErrImagePull"


@pytest.mark.parametrize(
    ("call", "reason"), [("CreateContainer", "CreateContainerError"), ("StartContainer", "RunContainerError")]
)
async def test_a_container_that_cannot_be_made_waits_and_is_tried_again(rig: Rig, call: str, reason: str) -> None:
    rig.fake.fail(call, RuntimeCallError(call, "UNKNOWN", "no space left on device"))
    pod = a_pod()
    result = await sync(rig, pod)
    assert result.retry_seconds == RETRY_SECONDS
    assert rig.waiting() == (reason, "no space left on device")
    assert ("Warning", "Failed", "Error: no space left on device") in rig.events
    rig.clock.advance(RETRY_SECONDS)
    await sync(rig, pod)
    assert rig.fake.running() == ["main"]
    assert rig.waiting() == (None, None)
    assert len(rig.fake.containers) == 1, "what was created and never started is gone"


async def test_no_second_copy_starts_beside_one_whose_start_may_come_true(rig: Rig) -> None:
    """The reply to StartContainer was lost; while the first copy cannot be removed, there is no other."""
    rig.fake.fail("StartContainer")
    pod = a_pod()
    await sync(rig, pod)
    rig.fake.fail("RemoveContainer")
    await sync(rig, pod)
    assert len(rig.fake.containers) == 1
    await sync(rig, pod)
    assert [c.name for c in rig.fake.containers.values()] == rig.fake.running() == ["main"]


async def test_an_api_server_that_refuses_the_environment_is_a_configuration_error_of_the_container(rig: Rig) -> None:
    rig.objects.error = ApiForbidden(403, "Forbidden", "configmaps are not for you")
    await sync(rig, a_pod())
    assert rig.waiting()[0] == "CreateContainerConfigError"
    assert "configmaps are not for you" in (rig.waiting()[1] or "")


async def test_files_that_cannot_be_written_are_a_configuration_error_of_the_container(rig: Rig) -> None:
    pod = a_pod()
    await asyncio.to_thread(_touch, rig.log_directory(pod) / "main")  # a file where a directory must be
    await sync(rig, pod)
    assert rig.waiting()[0] == "CreateContainerConfigError"


async def test_a_sub_path_of_an_unset_variable_is_a_configuration_error_of_the_container(rig: Rig) -> None:
    mount = {"name": "data", "mountPath": "/data", "subPathExpr": "of/$(POD)"}
    await sync(rig, a_pod(a_container(volumeMounts=[mount]), volumes=[{"name": "data", "emptyDir": {}}]))
    assert rig.waiting()[0] == "CreateContainerConfigError"
    assert "missing value for POD" in (rig.waiting()[1] or "")


@pytest.mark.parametrize("is_supported", [True, False])
async def test_read_only_mounts_reach_as_deep_as_the_runtime_can(rig: Rig, is_supported: bool) -> None:
    rig.node.recursive_read_only = is_supported
    mount = {"name": "data", "mountPath": "/data", "readOnly": True, "recursiveReadOnly": "Enabled"}
    volume = {"name": "data", "hostPath": {"path": str(rig.root)}}
    await sync(rig, a_pod(a_container(volumeMounts=[mount]), volumes=[volume]))
    if is_supported:
        (made,) = [mount for mount in rig.fake.container("main").config.mounts if mount.container_path == "/data"]
        assert made.recursive_read_only
        statuses = rig.status.containerStatuses or []
        assert [mount.recursiveReadOnly for status in statuses for mount in status.volumeMounts or ()] == ["Enabled"]
    else:
        assert rig.waiting()[0] == "CreateContainerConfigError"
        assert "not supported by the runtime" in (rig.waiting()[1] or "")


def with_env_file(path: str, optional: bool = False, volume: str = "files") -> core_v1.Pod:
    reference = {"volumeName": volume, "path": path, "key": "COLOUR", "optional": optional}
    env = [{"name": "COLOUR", "valueFrom": {"fileKeyRef": reference}}]
    mounts = [{"name": "files", "mountPath": "/files"}]
    return a_pod(a_container("main", env=env, volumeMounts=mounts), volumes=[{"name": "files", "emptyDir": {}}])


async def test_a_variable_comes_from_a_file_in_a_volume(rig: Rig) -> None:
    pod = with_env_file("deep/env")
    result = await sync(rig, pod)
    assert "couldn't parse env file" in result.error
    directory = rig.root / f"kubelet/pods/{UID}/volumes/kubernetes.io~empty-dir/files/deep"
    directory.mkdir()
    (directory / "env").write_text("COLOUR='blue'\n")
    await settle(rig, pod)
    (made,) = rig.fake.containers.values()
    assert {entry.key: entry.value for entry in made.config.envs}["COLOUR"] == b"blue"


@pytest.mark.parametrize(
    ("path", "volume", "message"),
    [
        ("link", "files", "couldn't parse env file: link of volume files: a link leads out of the directory"),
        ("env", "other", 'cannot find the volume "other" referenced by FileKeyRef'),
    ],
)
async def test_an_env_file_that_cannot_be_read_is_a_configuration_error(
    rig: Rig, path: str, volume: str, message: str
) -> None:
    await sync(rig, with_env_file("env", optional=True))
    pod = with_env_file(path, volume=volume)
    (rig.root / f"kubelet/pods/{UID}/volumes/kubernetes.io~empty-dir/files/link").symlink_to("/etc/passwd")
    rig.fake.containers.clear()
    await sync(rig, pod)
    assert rig.memory.waiting["main"] == ("CreateContainerConfigError", message)


async def test_an_optional_env_file_that_is_not_there_sets_nothing(rig: Rig) -> None:
    await settle(rig, with_env_file("env", optional=True))
    (made,) = rig.fake.containers.values()
    assert "COLOUR" not in {entry.key for entry in made.config.envs}


async def test_what_is_missing_for_dns_is_told_to_the_pod_and_the_node(rig: Rig) -> None:
    await settle(rig, a_pod(dnsPolicy="ClusterFirst"))
    told = [(kind, message[:4]) for kind, reason, message in rig.events if reason == "MissingClusterDNS"]
    assert sorted(told) == [("Node", "kube"), ("Warning", "pod:")]


async def test_a_resolv_conf_that_cannot_be_understood_holds_the_pod_up(rig: Rig) -> None:
    rig.node.dns_error = SyncError("CreatePodSandboxError", "/etc/resolv.conf: a nameserver line names no address")
    result = await sync(rig, a_pod())
    assert "a nameserver line names no address" in result.error
    assert rig.events[-1][1] == "FailedCreatePodSandBox"
    rig.node.dns_error = None
    await settle(rig, a_pod())
    assert started(rig) == [0]


async def test_a_sandbox_that_cannot_be_made_is_an_event_and_another_try(rig: Rig) -> None:
    rig.fake.fail("RunPodSandbox", RuntimeCallError("RunPodSandbox", "UNKNOWN", "no addresses left"))
    pod = a_pod()
    result = await sync(rig, pod)
    assert result == PassResult(retry_seconds=RETRY_SECONDS, error="Failed to create pod sandbox: no addresses left")
    assert ("Warning", "FailedCreatePodSandBox", "Failed to create pod sandbox: no addresses left") in rig.events
    assert rig.fake.running() == []
    await sync(rig, pod)
    assert rig.fake.running() == ["main"]


async def test_a_sandbox_whose_status_cannot_be_had_is_used_by_the_next_pass(rig: Rig) -> None:
    rig.fake.fail("PodSandboxStatus")
    pod = a_pod()
    assert (await sync(rig, pod)).error
    assert "FailedPodSandBoxStatus" in rig.reasons
    await sync(rig, pod)
    assert len(rig.fake.sandboxes) == 1
    assert rig.fake.running() == ["main"]


async def test_a_runtime_class_that_nobody_knows_makes_no_sandbox(rig: Rig) -> None:
    rig.objects.handler_error = SyncError("CreatePodSandboxError", 'no runtime class "fast"')
    assert 'no runtime class "fast"' in (await sync(rig, a_pod(runtimeClassName="fast"))).error
    assert rig.fake.called() == []


async def test_a_sandbox_whose_reply_was_lost_is_found_again(rig: Rig) -> None:
    rig.fake.fail("RunPodSandbox", RuntimeTimeout("RunPodSandbox", "DEADLINE_EXCEEDED", "too slow"), after=True)
    pod = a_pod()
    await settle(rig, pod)
    assert len(rig.fake.sandboxes) == 1
    assert rig.fake.running() == ["main"]


async def test_a_runtime_that_does_not_answer_is_asked_again_later(rig: Rig) -> None:
    rig.fake.down = True
    result = await sync(rig, a_pod())
    assert result.retry_seconds == RETRY_SECONDS
    assert "UNAVAILABLE" in result.error
    assert rig.statuses.history == [], "nothing was seen, so nothing is said"


async def test_a_cgroup_that_cannot_be_made_holds_the_pod_up(rig: Rig) -> None:
    rig.cgroups.error = SyncError("FailedCreatePodContainer", "cgroups are read-only")
    assert (await sync(rig, a_pod())).error == "cgroups are read-only"
    assert rig.fake.called() == []


async def test_a_volume_that_cannot_be_mounted_holds_the_pod_up(rig: Rig) -> None:
    volume = {"name": "data", "hostPath": {"path": str(rig.root / "none"), "type": "Directory"}}
    pod = a_pod(a_container(volumeMounts=[{"name": "data", "mountPath": "/data"}]), volumes=[volume])
    assert (await sync(rig, pod)).error
    assert "FailedMount" in rig.reasons
    assert rig.fake.called() == []


async def test_without_a_network_only_pods_of_the_host_start(rig: Rig) -> None:
    rig.node.problem = "cni plugin not initialized"
    result = await sync(rig, a_pod())
    assert result.retry_seconds == NETWORK_RETRY_SECONDS
    assert ("Warning", "NetworkNotReady", "network is not ready: cni plugin not initialized") in rig.events
    assert rig.fake.called() == []
    await sync(rig, a_pod(hostNetwork=True))
    assert rig.fake.running() == ["main"]
    assert rig.status.podIP == "192.0.2.1"


async def test_a_pod_that_runs_does_not_mind_a_network_that_fails_later(rig: Rig) -> None:
    pod = a_pod()
    await sync(rig, pod)
    rig.node.problem = "cni plugin not initialized"
    assert await sync(rig, pod) == PassResult()


async def test_a_dead_sandbox_is_replaced_with_all_that_was_in_it(rig: Rig) -> None:
    pod = a_pod()
    await sync(rig, pod)
    rig.fake.kill_sandbox(rig.fake.ready_sandboxes()[0])
    await settle(rig, pod)
    assert sorted(s.config.metadata.attempt for s in rig.fake.sandboxes.values()) == [0, 1]
    assert [s.config.metadata.attempt for s in rig.fake.ready_sandboxes()] == [1]
    assert started(rig) == [0, 1]
    assert "SandboxChanged" in rig.reasons
    assert rig.status.phase == "Running"


async def test_a_container_that_will_not_stop_keeps_the_next_sandbox_away(rig: Rig) -> None:
    pod = a_pod()
    await sync(rig, pod)
    rig.fake.ready_sandboxes()[0].ready = False
    rig.fake.fail("StopContainer")
    result = await sync(rig, pod)
    assert "KillContainer" in result.error
    assert len(rig.fake.sandboxes) == 1
    await settle(rig, pod)
    assert rig.fake.running() == ["main"]
    assert len(rig.fake.sandboxes) == 2


async def test_removed_init_containers_leave_their_newest_log(rig: Rig) -> None:
    rig.fake.exits = {"setup": 0}
    pod = a_pod(initContainers=[a_container("setup")])
    for _ in range(3):
        await settle(rig, pod)
        await asyncio.to_thread(rig.write_logs, pod)
        rig.fake.kill_sandbox(rig.fake.ready_sandboxes()[0])
    await settle(rig, pod)
    names = await asyncio.to_thread(lambda: sorted(p.name for p in (rig.log_directory(pod) / "setup").iterdir()))
    assert "2.log" in names
    assert started(rig, "setup")[-1] == 3


async def test_a_pod_that_was_active_for_too_long_fails(rig: Rig) -> None:
    pod = a_pod(activeDeadlineSeconds=60)
    assert (await sync(rig, pod)).due_seconds == pytest.approx(60, abs=1)
    rig.clock.advance(61)
    assert (await sync(rig, pod)).is_terminal
    assert "DeadlineExceeded" in rig.reasons
    await rig.sync.terminate_pod(pod, UID, rig.memory, 1, "deadline")
    await rig.sync.clean_up_pod(pod, rig.memory)
    assert (rig.status.phase, rig.status.reason) == ("Failed", "DeadlineExceeded")


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


async def test_what_comes_alive_after_the_stop_is_stopped_in_the_clean_up(rig: Rig) -> None:
    """A start whose reply was lost, or a runtime that restored something."""
    pod = a_pod()
    await sync(rig, pod)
    await rig.sync.terminate_pod(pod, UID, rig.memory, 30, "deleted")
    await rig.fake.run_pod_sandbox(rig.fake.sandboxes.popitem()[1].config, "")
    await rig.sync.clean_up_pod(pod, rig.memory)
    assert rig.fake.ready_sandboxes() == []


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
        rig.volumes.close()
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


async def test_what_vanishes_between_list_and_status_is_left_out(rig: Rig) -> None:
    await sync(rig, a_pod())
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
