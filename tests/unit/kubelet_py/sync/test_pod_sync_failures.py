"""Passes over one pod when something cannot be had: what is told, and what is tried again."""

import asyncio
from dataclasses import replace

import pytest

from kubelet_py.api import codec, core_v1
from kubelet_py.core.observed import ObservedSandbox
from kubelet_py.core.volume_plan import VolumeKind
from kubelet_py.errors import (
    ApiForbidden,
    RuntimeCallError,
    RuntimeNotFound,
    RuntimeTimeout,
    SyncError,
)
from kubelet_py.sync.pod_services import PassResult
from kubelet_py.sync.pod_sync import NETWORK_RETRY_SECONDS, RETRY_SECONDS
from tests.unit.kubelet_py.sync.rig import UID, Rig, Sources, a_container, a_pod, settle, started, sync, touch_file


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
    await asyncio.to_thread(touch_file, rig.log_directory(pod) / "main")  # a file where a directory must be
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
    assert rig.events == [], "the node says it once, not each pod"


async def test_a_look_that_the_runtime_refuses_is_told_of_and_tried_again(rig: Rig) -> None:
    pod = a_pod()
    await settle(rig, pod)
    rig.events.clear()
    rig.fake.fail("ContainerStatus", RuntimeCallError("ContainerStatus", "INTERNAL", "bad metadata"))
    assert (await sync(rig, pod)).retry_seconds == RETRY_SECONDS
    told = "error determining status: ContainerStatus: bad metadata (INTERNAL)"
    assert rig.events == [("Warning", "FailedSync", told)]
    assert await sync(rig, pod) == PassResult()


async def test_what_cannot_be_said_to_the_runtime_is_told_of_and_tried_again(rig: Rig) -> None:
    """Bytes of a Secret that are no text, in a command; the other container runs."""
    rig.objects.secrets = {"s": core_v1.Secret(data={"k": "/w=="})}
    bad = a_container(
        "bad",
        command=["echo", "$(V)"],
        env=[{"name": "V", "valueFrom": {"secretKeyRef": {"name": "s", "key": "k"}}}],
    )
    result = await sync(rig, a_pod(bad, a_container("good")))
    assert result.retry_seconds == RETRY_SECONDS
    reason, message = rig.waiting("bad")
    assert reason == "CreateContainerConfigError"
    assert "surrogates not allowed" in (message or "")
    assert "Failed" in rig.reasons
    assert rig.fake.running() == ["good"]


async def test_a_sandbox_that_cannot_be_said_to_the_runtime_is_told_of(
    rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise ValueError("Value out of range: 10000000000000000000")

    monkeypatch.setattr("kubelet_py.sync.container_start.compute_sandbox_plan", refuse)
    assert (await sync(rig, a_pod())).retry_seconds == RETRY_SECONDS
    told = "Failed to create pod sandbox: Value out of range: 10000000000000000000"
    assert ("Warning", "FailedCreatePodSandBox", told) in rig.events


async def test_addresses_in_the_environment_are_in_the_order_of_the_status(
    rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The node's family first, one of each; whatever order and number the runtime gives."""
    monkeypatch.setattr(rig.node, "host_ips", lambda: ("fd00::99", "192.0.2.1"))
    observe = rig.observer.observe_sandbox

    async def with_addresses(pod_uid: str, sandbox_id: str) -> ObservedSandbox:
        return replace(await observe(pod_uid, sandbox_id), ips=("10.0.0.5", "fd00::5", "10.0.0.6"))

    monkeypatch.setattr(rig.observer, "observe_sandbox", with_addresses)
    await sync(rig, a_pod())
    assert rig.objects.asked_pod_ips == [("fd00::5", "10.0.0.5")]


async def test_a_cgroup_that_cannot_be_made_holds_the_pod_up(rig: Rig) -> None:
    rig.cgroups.error = SyncError("FailedCreatePodContainer", "cgroups are read-only")
    assert (await sync(rig, a_pod())).error == "cgroups are read-only"
    assert rig.fake.called() == []


async def test_a_volume_that_cannot_be_mounted_holds_the_pod_up(rig: Rig) -> None:
    volume = {"name": "data", "hostPath": {"path": str(rig.root / "none"), "type": "Directory"}}
    pod = a_pod(a_container(volumeMounts=[{"name": "data", "mountPath": "/data"}]), volumes=[volume])
    waits = [(await sync(rig, pod)).retry_seconds for _ in range(7)]
    assert waits == [0.5, 1.0, 2.0, 4.0, 8.0, 10.0, 10.0], "soon at first, as what it is made of may just be coming"
    assert "FailedMount" in rig.reasons
    assert rig.fake.called() == []
    (rig.root / "none").mkdir()
    await settle(rig, pod)
    assert rig.fake.running() == ["main"]


async def test_a_volume_that_cannot_be_refreshed_holds_nothing_up(rig: Rig) -> None:
    """The ConfigMap of an earlier release is often deleted while pods of it still run."""
    rig.sources = sources = Sources()
    sources.config_maps["v1"] = release = core_v1.ConfigMap(data={"key": "1"})
    rig.boot()
    mounts = [{"name": "release", "mountPath": "/release"}]
    pod = a_pod(a_container(volumeMounts=mounts), volumes=[{"name": "release", "configMap": {"name": "v1"}}])
    await settle(rig, pod)
    del sources.config_maps["v1"]
    rig.fake.exit(rig.fake.container("main"), 1)
    assert (await sync(rig, pod)).retry_seconds == 0.5, "and it is tried again"
    assert rig.fake.running() == ["main"]
    text = 'MountVolume.SetUp failed for volume "release" : configmap "v1" not found'
    await sync(rig, pod)
    assert [event for event in rig.events if event[1] == "FailedMount"] == [("Warning", "FailedMount", text)]
    rig.clock.advance(0.5)
    sources.config_maps["v1"] = release
    assert (await sync(rig, pod)).retry_seconds is None


async def test_a_name_that_a_container_made_of_other_bytes_can_be_told(rig: Rig) -> None:
    """Whoever may write to a volume may name a link in it as it likes; the status has to be written all the same."""
    mounts = [{"name": "data", "mountPath": "/data"}, {"name": "data", "mountPath": "/part", "subPath": "part"}]
    pod = a_pod(a_container(volumeMounts=mounts), volumes=[{"name": "data", "emptyDir": {}}])
    (volume := rig.volumes.dirs.volume(UID, VolumeKind.EMPTY_DIR, "data")).mkdir(parents=True)
    (volume / "part").symlink_to("/etc/\udcff")
    await sync(rig, pod)
    reason, message = rig.waiting()
    assert reason == "CreateContainerConfigError"
    assert message is not None
    assert message.endswith("a symbolic link leads to /etc/\ufffd")
    assert codec.encode(rig.status)


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
