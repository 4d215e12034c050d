"""dockershim and Docker going away and coming back: pods live on, and nothing is lost or left."""

from __future__ import annotations

import itertools
import json
import subprocess
import sys
import threading
from collections.abc import Iterator
from functools import partial

import grpc
import pytest

from cri_proto import runtime_v1 as cri
from dockershim.translate.views import parse_time_ns
from tests.integration.dockershim.harness import Shim, code_of, eventually
from tests.lab.engines.docker import DEFAULT_VERSION
from tests.lab.lab import BUSYBOX, Lab
from tests.lab.sandbox import REPOSITORY

pytestmark = pytest.mark.lab

READY = cri.PodSandboxState.SANDBOX_READY
EXITED = cri.ContainerState.CONTAINER_EXITED


def test_a_pod_survives_kill_9_untouched(shim: Shim) -> None:
    """Everything that was shown before is shown after, and the container has not been touched."""
    dns = cri.DNSConfig(servers=["10.9.8.7"])
    sandbox = shim.run_sandbox(shim.sandbox_config(dns_config=dns))
    running = shim.run(sandbox, "exec sleep 1000", annotations={"hash": "abc"})
    created = shim.create(sandbox, "true", metadata=cri.ContainerMetadata(name="later"))
    before = [shim.sandbox_status(sandbox[0]), shim.status(running), shim.status(created)]
    shim.kill()
    shim.start()
    assert [shim.sandbox_status(sandbox[0]), shim.status(running), shim.status(created)] == before
    shim.start_container(created)
    shim.wait_state(created, EXITED)


def test_a_new_container_is_shown_as_docker_has_it(shim: Shim) -> None:
    """What is shown without a look is what a restarted dockershim sees: of a container that asks for much, of an
    image's own stop signal and labels, and of a container that asks for nothing."""
    host = shim.lab.root / "mounted"
    host.mkdir(exist_ok=True)
    recipe = f"FROM {BUSYBOX}\nSTOPSIGNAL SIGUSR1\nUSER 7:8\nLABEL of=image\nVOLUME /data\nENV A=b\n"
    (host / "Dockerfile").write_text(recipe)
    shim.lab.docker.client("build", "--quiet", "--tag", "registry.k8s.io/signalled:1", str(host))
    signalled = cri.ImageSpec(image="registry.k8s.io/signalled:1")
    eventually(lambda: bool(shim.images.ImageStatus(cri.ImageStatusRequest(image=signalled)).image.id))
    sandbox = shim.run_sandbox()
    propagation_of = cri.MountPropagation  # bidirectional wants a shared mount
    propagations = (propagation_of.PROPAGATION_PRIVATE, propagation_of.PROPAGATION_HOST_TO_CONTAINER)
    mounts = [
        cri.Mount(container_path=f"/mnt//{number}/", host_path=f"{host}/", readonly=readonly, propagation=propagation)
        for number, (readonly, propagation) in enumerate(itertools.product((False, True), propagations))
    ]
    resources = cri.LinuxContainerResources(
        cpu_period=100000,
        cpu_quota=50000,
        cpu_shares=512,
        cpuset_cpus="0",
        memory_limit_in_bytes=1 << 26,
        memory_swap_limit_in_bytes=1 << 27,
        oom_score_adj=500,
    )
    secure = cri.LinuxContainerSecurityContext(run_as_user=cri.Int64Value(value=1000), supplemental_groups=[5])
    much = shim.create(
        sandbox,
        "exec sleep 1000",
        labels={"app": "web"},
        annotations={"hash": "abc"},
        mounts=mounts,
        tty=True,
        stop_signal=cri.Signal.SIGNAL_SIGRTMINPLUS3,
        linux=cri.LinuxContainerConfig(resources=resources, security_context=secure),
    )
    own = shim.create(sandbox, "true", metadata=cri.ContainerMetadata(name="own", attempt=3), image=signalled)
    nothing = shim.create(sandbox, "true", metadata=cri.ContainerMetadata(name="nothing"))
    created = (much, own, nothing)

    def shown() -> list[cri.ContainerStatus | cri.Container]:
        found = [shim.status(container_id) for container_id in created]
        for status in found:
            status.mounts.sort(key=lambda mount: mount.container_path)  # Docker has them in no order
        items = shim.runtime.ListContainers(cri.ListContainersRequest()).containers
        return [*found, *(item for container_id in created for item in items if item.id == container_id)]

    before = shown()
    shim.kill()
    shim.start()
    assert shown() == before
    assert [len(shim.status(container_id).mounts) for container_id in created] == [4, 0, 0]
    assert shim.status(own).stop_signal == cri.Signal.SIGNAL_SIGUSR1
    for container_id in created:
        at_ns = shim.status(container_id).created_at
        shim.start_container(container_id)
        assert shim.status(container_id).created_at == at_ns
        docker_ns = parse_time_ns(json.loads(shim.lab.docker.client("inspect", container_id))[0]["Created"])
        assert 0 <= docker_ns - at_ns < 10 * 10**9


def test_what_happened_while_it_was_away_is_known_after(shim: Shim) -> None:
    """A container that ended meanwhile is exited with its code, and its log is whole."""
    sandbox = shim.run_sandbox()
    container_id = shim.run(sandbox, "echo before; sleep 1; echo after; exit 5")
    gone = shim.run(sandbox, "exec sleep 1000", metadata=cri.ContainerMetadata(name="gone"))
    shim.kill()
    shim.lab.docker.client("wait", container_id)
    shim.lab.docker.client("rm", "-f", gone)
    shim.start()
    status = shim.status(container_id)
    assert (status.state, status.exit_code) == (EXITED, 5)
    assert code_of(lambda: shim.status(gone))[0] is grpc.StatusCode.NOT_FOUND

    def lines() -> list[str]:
        with open(status.log_path) as log:
            return [line.split(" ", 3)[3].strip() for line in log]

    eventually(lambda: lines() == ["before", "after"])


@pytest.mark.parametrize("checkpoint", [True, False])
def test_a_node_of_cri_dockerd_changes_hands(shim: Shim, checkpoint: bool) -> None:
    """A pod that cri-dockerd made stays as it is: ready, with its address and its container, and it can be removed."""
    uid = f"foreign-{checkpoint}"
    labels = {
        "io.kubernetes.pod.name": "old",
        "io.kubernetes.pod.namespace": "test",
        "io.kubernetes.pod.uid": uid,
    }
    docker = shim.lab.docker.client
    shim.kill()
    pause = [f"--label={key}={value}" for key, value in labels.items()]
    pause += ["--label=io.kubernetes.docker.type=podsandbox", "--label=io.kubernetes.container.name=POD"]
    pause += ["--label=annotation.example.com/note=kept", f"--name=k8s_POD_old_test_{uid}_0", "--ipc=shareable"]
    pause += ["--security-opt=no-new-privileges", "--oom-score-adj=500", "--cpu-shares=2"]
    sandbox_id = docker("run", "-d", *pause, BUSYBOX, "sleep", "1000").strip()
    main = [f"--label={key}={value}" for key, value in labels.items()]
    main += ["--label=io.kubernetes.docker.type=container", "--label=io.kubernetes.container.name=main"]
    main += [f"--label=io.kubernetes.sandbox.id={sandbox_id}", f"--name=k8s_main_old_test_{uid}_2"]
    container_id = docker("run", "-d", *main, f"--net=container:{sandbox_id}", BUSYBOX, "sleep", "1000").strip()
    if checkpoint:
        data = {"version": "v1", "name": "old", "namespace": "test", "data": {"host_network": False}, "checksum": 1}
        (shim.root / "sandbox" / sandbox_id).write_text(json.dumps(data))
    [inspected] = json.loads(docker("inspect", sandbox_id))
    shim.start()
    status = shim.sandbox_status(sandbox_id)
    assert (status.state, status.network.ip) == (READY, inspected["NetworkSettings"]["IPAddress"])
    assert status.metadata == cri.PodSandboxMetadata(name="old", namespace="test", uid=uid)
    assert (dict(status.labels), dict(status.annotations)) == (labels, {"example.com/note": "kept"})
    main_status = shim.status(container_id)
    assert main_status.state == cri.ContainerState.CONTAINER_RUNNING
    assert main_status.metadata == cri.ContainerMetadata(name="main", attempt=2)
    shim.remove_sandbox(sandbox_id)
    assert shim.docker_ids() == []
    assert list((shim.root / "sandbox").iterdir()) == []


def _try_to_run(shim: Shim, config: cri.PodSandboxConfig) -> None:
    code_of(lambda: shim.run_sandbox(config))


def test_kill_9_in_the_middle_of_mutations_leaves_nothing_behind(shim: Shim) -> None:
    """Whatever step each sandbox was at, after the restart it can be stopped and removed, or run again."""
    configs = [shim.sandbox_config() for _ in range(6)]
    threads = [threading.Thread(target=_try_to_run, args=(shim, config)) for config in configs]
    for thread in threads:
        thread.start()
    threads[0].join(0.45)
    shim.kill()
    for thread in threads:
        thread.join()
    shim.start()
    for config in configs:
        listed = shim.runtime.ListPodSandbox(cri.ListPodSandboxRequest()).items
        mine = [item for item in listed if item.metadata.uid == config.metadata.uid]
        if not (mine and mine[0].state == READY):
            shim.run_sandbox(config)
    items = shim.runtime.ListPodSandbox(cri.ListPodSandboxRequest()).items
    assert sorted(item.metadata.uid for item in items) == sorted(config.metadata.uid for config in configs)
    assert {item.state for item in items} == {READY}
    shim.remove_all()
    assert shim.docker_ids() == []
    assert list((shim.root / "sandbox").iterdir()) == []


def test_a_client_that_goes_away_leaves_no_sandbox(shim: Shim) -> None:
    """RunPodSandbox with a deadline that passes in the middle is undone."""
    for deadline_seconds in (0.02, 0.1, 0.3):
        request = cri.RunPodSandboxRequest(config=shim.sandbox_config())
        code, _ = code_of(partial(shim.runtime.RunPodSandbox, request, timeout=deadline_seconds))
        assert code in (grpc.StatusCode.DEADLINE_EXCEEDED, grpc.StatusCode.OK)

    def nothing_but_whole_pods() -> bool:
        """One that was made before its deadline passed stays, though its caller never heard of it."""
        assert {item.state for item in shim.runtime.ListPodSandbox(cri.ListPodSandboxRequest()).items} <= {READY}
        shim.remove_all()
        return shim.docker_ids() == []

    eventually(nothing_but_whole_pods)
    assert list((shim.root / "sandbox").iterdir()) == []


def test_a_second_instance_is_refused(shim: Shim) -> None:
    """One clear line and exit code 1; the first goes on."""
    for extra in ([], ["--root-directory", str(shim.lab.root / "other-root")]):
        ended = subprocess.run(
            shim.lab.inside(["env", f"PYTHONPATH={REPOSITORY}", *shim.command(), *extra]),
            capture_output=True,
            text=True,
            timeout=30,
            check=False,
        )
        assert ended.returncode == 1
        complaints = [line for line in ended.stderr.splitlines() if line.startswith("dockershim: ")]
        assert len(complaints) == 1
    assert shim.runtime.Version(cri.VersionRequest()).runtime_name == "docker"


def test_the_socket_is_for_root_and_its_group(shim: Shim) -> None:
    """Mode 0660."""
    assert shim.socket.stat().st_mode & 0o777 == 0o660


def test_sigterm_ends_it_cleanly_and_removes_the_socket(lab: Lab) -> None:
    """Exit code 0, the socket is gone, pods stay."""
    other = Shim(lab, "shim-ended")
    process = other.process
    assert process is not None
    process.terminate()
    assert process.wait(15) == 0
    assert not other.socket.exists()


@pytest.fixture
def own_lab() -> Iterator[Lab]:
    with Lab.start(docker=DEFAULT_VERSION) as started:
        yield started


def test_docker_dies_and_comes_back(own_lab: Lab) -> None:
    """Status says so with a reason while it lasts; after the restart the containers are seen to have ended."""
    shim = Shim(own_lab)
    sandbox = shim.run_sandbox()
    container_id = shim.run(sandbox, "exec sleep 1000")
    dockerd, containerd = own_lab.docker.dockerd, own_lab.docker.containerd
    assert dockerd is not None
    assert containerd is not None
    dockerd.stop()

    def condition() -> cri.RuntimeCondition:
        found: cri.RuntimeCondition = shim.runtime.Status(cri.StatusRequest()).status.conditions[0]
        return found

    eventually(lambda: not condition().status)
    assert condition().type == "RuntimeReady"
    assert condition().reason == "DockerDaemonNotReady"
    assert "Docker" in condition().message
    assert code_of(lambda: shim.run_sandbox())[0] is grpc.StatusCode.UNAVAILABLE
    own_lab.docker.start()
    eventually(lambda: condition().status)
    eventually(lambda: shim.status(container_id).state == EXITED)
    eventually(lambda: shim.sandbox_status(sandbox[0]).state != READY)
    shim.remove_sandbox(sandbox[0])
    shim.run_sandbox()
    shim.stop()


def test_it_starts_without_docker_and_catches_up(own_lab: Lab) -> None:
    """Status answers with a reason, other calls say Unavailable, and the first connection makes it ready."""
    dockerd = own_lab.docker.dockerd
    assert dockerd is not None
    dockerd.stop()
    shim = Shim(own_lab, "shim-early", wait_ready=False)
    status = shim.runtime.Status(cri.StatusRequest()).status
    assert not status.conditions[0].status
    assert status.conditions[0].message
    assert code_of(lambda: shim.runtime.ListPodSandbox(cri.ListPodSandboxRequest()))[0] is grpc.StatusCode.UNAVAILABLE
    own_lab.docker.start()
    shim.wait_ready()
    assert list(shim.runtime.ListPodSandbox(cri.ListPodSandboxRequest()).items) == []
    shim.run_sandbox()
    shim.stop()


def test_bad_flags_are_told_all_at_once() -> None:
    """Every problem has its line with what would be right; the exit code is 1."""
    ended = subprocess.run(
        [sys.executable, "-m", "dockershim", "--log-level=loud", "--docker-endpoint=tcp://x", "--cgroup-driver=z"],
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
        cwd=REPOSITORY,
    )
    assert ended.returncode == 1
    assert len(ended.stderr.splitlines()) == 3
    assert all("want" in line for line in ended.stderr.splitlines())
