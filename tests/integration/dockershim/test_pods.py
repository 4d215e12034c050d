"""Sandboxes and containers on real Docker: life, idempotence, codes, and how many calls Docker gets."""

from __future__ import annotations

import itertools
import json
import queue
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import grpc
import pytest

from cri_proto import runtime_v1 as cri
from tests.integration.dockershim.counting_proxy import CountingProxy
from tests.integration.dockershim.harness import Shim, code_of, eventually
from tests.lab.lab import BUSYBOX

pytestmark = pytest.mark.lab

UNKNOWN_ID = "f" * 64
RUNNING = cri.ContainerState.CONTAINER_RUNNING
EXITED = cri.ContainerState.CONTAINER_EXITED
POD_PID = cri.LinuxContainerConfig(
    security_context=cri.LinuxContainerSecurityContext(
        namespace_options=cri.NamespaceOption(pid=cri.NamespaceMode.CONTAINER)
    )
)


def test_a_pod_lives_from_run_to_remove(shim: Shim) -> None:
    """Every field that the kubelet needs is there at each step, and nothing is left at the end."""
    sandbox = shim.run_sandbox()
    status = shim.sandbox_status(sandbox[0])
    assert status.state == cri.PodSandboxState.SANDBOX_READY
    assert status.metadata == sandbox[1].metadata
    assert status.network.ip
    assert dict(status.labels) == dict(sandbox[1].labels)
    assert dict(status.annotations) == {"example.com/note": "kept"}
    container_id = shim.create(sandbox, "echo one; exec sleep 1000", linux=POD_PID)
    created = shim.status(container_id)
    assert created.state == cri.ContainerState.CONTAINER_CREATED
    assert created.created_at > 10**18
    shim.start_container(container_id)
    running = shim.status(container_id)
    assert running.state == RUNNING
    assert running.started_at >= running.created_at
    assert running.image_id == running.image_ref
    assert running.image.image == BUSYBOX
    log = Path(running.log_path)
    eventually(lambda: log.read_text().endswith(" stdout F one\n"))
    shim.runtime.StopContainer(cri.StopContainerRequest(container_id=container_id, timeout=0))
    stopped = shim.status(container_id)
    assert (stopped.state, stopped.exit_code, stopped.reason) == (EXITED, 137, "Error")
    shim.remove_sandbox(sandbox[0])
    assert shim.docker_ids() == []
    assert list((shim.root / "sandbox").iterdir()) == []


def test_a_finished_container_shows_its_code_and_its_whole_log(shim: Shim) -> None:
    """Who sees the exit finds every line of the log."""
    sandbox = shim.run_sandbox()
    container_id = shim.run(sandbox, "for i in $(seq 500); do echo line $i; done; exit 7")
    status = shim.wait_state(container_id, EXITED)
    assert (status.exit_code, status.reason) == (7, "Error")
    assert status.finished_at >= status.started_at > 0
    with open(status.log_path) as log:
        assert log.read().splitlines()[-1].endswith(" stdout F line 500")


def test_a_command_that_does_not_exist_cannot_run(shim: Shim) -> None:
    """The start fails with Docker's words, and the container is exited with the reason that the kubelet knows."""
    sandbox = shim.run_sandbox()
    container_id = shim.create(sandbox, "")
    shim.runtime.RemoveContainer(cri.RemoveContainerRequest(container_id=container_id))
    config = cri.ContainerConfig(
        metadata=cri.ContainerMetadata(name="bad"), image=cri.ImageSpec(image=BUSYBOX), command=["/no/such/program"]
    )
    request = cri.CreateContainerRequest(pod_sandbox_id=sandbox[0], config=config, sandbox_config=sandbox[1])
    bad = shim.runtime.CreateContainer(request).container_id
    code, message = code_of(lambda: shim.start_container(bad))
    assert code is not grpc.StatusCode.OK
    assert "/no/such/program" in message
    status = shim.status(bad)
    assert (status.state, status.reason) == (EXITED, "ContainerCannotRun")
    assert code_of(lambda: shim.start_container(bad))[0] is grpc.StatusCode.FAILED_PRECONDITION


def test_mutations_can_be_repeated(shim: Shim) -> None:
    """Stopping and removing twice succeed, starting twice is harmless, and an ended container stays ended."""
    sandbox = shim.run_sandbox()
    container_id = shim.create(sandbox, "exec sleep 1000")
    for _ in range(2):
        shim.start_container(container_id)
    for _ in range(2):
        shim.runtime.StopContainer(cri.StopContainerRequest(container_id=container_id, timeout=0))
    assert code_of(lambda: shim.start_container(container_id))[0] is grpc.StatusCode.FAILED_PRECONDITION
    for _ in range(2):
        shim.runtime.RemoveContainer(cri.RemoveContainerRequest(container_id=container_id))
    for _ in range(2):
        shim.runtime.StopPodSandbox(cri.StopPodSandboxRequest(pod_sandbox_id=sandbox[0]))
    for _ in range(2):
        shim.runtime.RemovePodSandbox(cri.RemovePodSandboxRequest(pod_sandbox_id=sandbox[0]))
    assert shim.docker_ids() == []


def test_unknown_ids(shim: Shim) -> None:
    """Stop and remove succeed, status says NotFound, and the rest says so too."""
    runtime = shim.runtime
    runtime.StopContainer(cri.StopContainerRequest(container_id=UNKNOWN_ID))
    runtime.RemoveContainer(cri.RemoveContainerRequest(container_id=UNKNOWN_ID))
    runtime.StopPodSandbox(cri.StopPodSandboxRequest(pod_sandbox_id=UNKNOWN_ID))
    runtime.RemovePodSandbox(cri.RemovePodSandboxRequest(pod_sandbox_id=UNKNOWN_ID))
    for call in (
        lambda: runtime.ContainerStatus(cri.ContainerStatusRequest(container_id=UNKNOWN_ID)),
        lambda: runtime.PodSandboxStatus(cri.PodSandboxStatusRequest(pod_sandbox_id=UNKNOWN_ID)),
        lambda: runtime.StartContainer(cri.StartContainerRequest(container_id=UNKNOWN_ID)),
        lambda: runtime.ExecSync(cri.ExecSyncRequest(container_id=UNKNOWN_ID, cmd=["true"])),
        lambda: runtime.ReopenContainerLog(cri.ReopenContainerLogRequest(container_id=UNKNOWN_ID)),
    ):
        assert code_of(call)[0] is grpc.StatusCode.NOT_FOUND


def test_a_pods_new_resources_are_kept_with_its_sandbox(shim: Shim) -> None:
    """A verbose status shows them, also after kill -9; what the call leaves out stays. Nothing is asked of Docker."""
    config = shim.sandbox_config()
    config.linux.resources.cpu_shares = 100
    config.linux.overhead.memory_limit_in_bytes = 4096
    sandbox_id, _ = shim.run_sandbox(config)
    request = cri.UpdatePodSandboxResourcesRequest(
        pod_sandbox_id=sandbox_id, resources=cri.LinuxContainerResources(cpu_shares=200)
    )
    before = shim.sandbox_status(sandbox_id)
    shim.runtime.UpdatePodSandboxResources(request)

    def kept() -> tuple[str, str]:
        verbose = cri.PodSandboxStatusRequest(pod_sandbox_id=sandbox_id, verbose=True)
        info = json.loads(shim.runtime.PodSandboxStatus(verbose).info["info"])
        return info["resources"]["cpuShares"], info["overhead"]["memoryLimitInBytes"]

    assert kept() == ("200", "4096")
    shim.kill()
    shim.start()
    assert kept() == ("200", "4096")
    assert shim.sandbox_status(sandbox_id) == before
    shim.runtime.StopPodSandbox(cri.StopPodSandboxRequest(pod_sandbox_id=sandbox_id))
    assert code_of(lambda: shim.runtime.UpdatePodSandboxResources(request))[0] is grpc.StatusCode.FAILED_PRECONDITION
    request.pod_sandbox_id = UNKNOWN_ID
    assert code_of(lambda: shim.runtime.UpdatePodSandboxResources(request))[0] is grpc.StatusCode.NOT_FOUND


def test_streamed_lists_say_the_same_as_the_lists(shim: Shim) -> None:
    """With and without a filter; a stream of nothing ends at once."""
    sandboxes = [shim.run_sandbox() for _ in range(2)]
    for sandbox in sandboxes:
        shim.create(sandbox, "true")
    chosen = cri.PodSandboxFilter(id=sandboxes[0][0])
    inside = cri.ContainerFilter(pod_sandbox_id=sandboxes[0][0])
    none = cri.PodSandboxFilter(id=UNKNOWN_ID)
    for wanted, count in ((None, 2), (chosen, 1), (none, 0)):
        listed = shim.runtime.ListPodSandbox(cri.ListPodSandboxRequest(filter=wanted)).items
        parts = shim.runtime.StreamPodSandboxes(cri.StreamPodSandboxesRequest(filter=wanted), timeout=10)
        assert [item for part in parts for item in part.pod_sandboxes] == list(listed)
        assert len(listed) == count
    for members, count in ((None, 2), (inside, 1)):
        containers = shim.runtime.ListContainers(cri.ListContainersRequest(filter=members)).containers
        pieces = shim.runtime.StreamContainers(cri.StreamContainersRequest(filter=members), timeout=10)
        assert [item for part in pieces for item in part.containers] == list(containers)
        assert len(containers) == count
    images = shim.images.ListImages(cri.ListImagesRequest()).images
    streamed = shim.images.StreamImages(cri.StreamImagesRequest(), timeout=10)
    assert [image for part in streamed for image in part.images] == list(images)
    assert len(images) == 2


def test_checkpoints_are_refused_with_dockers_reason(shim: Shim) -> None:
    """Found in what Docker says of itself."""
    container_id = shim.run(shim.run_sandbox(), "exec sleep 1000")
    request = cri.CheckpointContainerRequest(container_id=container_id, location="/tmp/checkpoint.tar")
    code, message = code_of(lambda: shim.runtime.CheckpointContainer(request))
    assert code is grpc.StatusCode.UNIMPLEMENTED
    assert "experimental" in message
    for call in (
        lambda: shim.runtime.CheckpointPod(cri.CheckpointPodRequest()),
        lambda: shim.runtime.RestorePod(cri.RestorePodRequest()),
    ):
        assert code_of(call)[0] is grpc.StatusCode.UNIMPLEMENTED


def test_requests_with_nothing_in_them_are_refused_by_name(shim: Shim) -> None:
    """A missing part is InvalidArgument with its name, and the process goes on."""
    sandbox = shim.run_sandbox()
    cases = {
        "config": lambda: shim.runtime.RunPodSandbox(cri.RunPodSandboxRequest()),
        "config.metadata.name": lambda: shim.runtime.RunPodSandbox(
            cri.RunPodSandboxRequest(config=cri.PodSandboxConfig())
        ),
        "config.image.image": lambda: shim.runtime.CreateContainer(
            cri.CreateContainerRequest(
                pod_sandbox_id=sandbox[0], config=cri.ContainerConfig(), sandbox_config=sandbox[1]
            )
        ),
        "sandbox_config": lambda: shim.runtime.CreateContainer(
            cri.CreateContainerRequest(pod_sandbox_id=sandbox[0], config=cri.ContainerConfig())
        ),
        "image.image": lambda: shim.images.PullImage(cri.PullImageRequest()),
    }
    for field, call in cases.items():
        code, message = code_of(call)
        assert (code, message.split(":")[0]) == (grpc.StatusCode.INVALID_ARGUMENT, field)
    assert shim.runtime.Version(cri.VersionRequest()).runtime_name == "docker"


def test_what_cannot_be_is_refused_by_name(shim: Shim) -> None:
    """A log outside of the pod's directory, an image that is not there. See also test_without_oci_program."""
    sandbox = shim.run_sandbox()
    assert code_of(lambda: shim.create(sandbox, "true", log_path="../../etc/cron.d/x"))[0] is (
        grpc.StatusCode.INVALID_ARGUMENT
    )
    missing = cri.ImageSpec(image="registry.k8s.io/none:1")
    assert code_of(lambda: shim.create(sandbox, "true", image=missing))[0] is grpc.StatusCode.NOT_FOUND


def test_stopping_a_sandbox_ends_its_containers(shim: Shim) -> None:
    """The containers exit with the sandbox and stay visible until they are removed."""
    sandbox = shim.run_sandbox()
    first = shim.run(sandbox, "exec sleep 1000")
    second = shim.run(sandbox, "exec sleep 1000", metadata=cri.ContainerMetadata(name="second"))
    shim.runtime.StopPodSandbox(cri.StopPodSandboxRequest(pod_sandbox_id=sandbox[0]))
    assert shim.sandbox_status(sandbox[0]).state == cri.PodSandboxState.SANDBOX_NOTREADY
    assert {shim.status(first).state, shim.status(second).state} == {EXITED}


def test_the_same_sandbox_twice(shim: Shim) -> None:
    """A living sandbox keeps its name; a dead one makes room for its successor."""
    sandbox_id, config = shim.run_sandbox()
    assert code_of(lambda: shim.run_sandbox(config))[0] is grpc.StatusCode.ALREADY_EXISTS
    shim.runtime.StopPodSandbox(cri.StopPodSandboxRequest(pod_sandbox_id=sandbox_id))
    successor, _ = shim.run_sandbox(config)
    assert shim.docker_ids() == [successor]


def test_a_foreign_container_under_our_name_is_removed(shim: Shim) -> None:
    """A running container that holds the name and that nobody knows does not block the pod."""
    config = shim.sandbox_config()
    name = f"k8s_POD_{config.metadata.name}_test_{config.metadata.uid}_0"
    shim.lab.docker.client("run", "-d", "--name", name, BUSYBOX, "sleep", "1000")
    sandbox_id, _ = shim.run_sandbox(config)
    assert shim.docker_ids() == [sandbox_id]


def test_resolv_conf_and_hostname_reach_the_container(shim: Shim) -> None:
    """The pod's DNS configuration is what the container reads."""
    dns = cri.DNSConfig(servers=["10.9.8.7"], searches=["a.example", "b.example"], options=["ndots:5"])
    sandbox = shim.run_sandbox(shim.sandbox_config(dns_config=dns))
    container_id = shim.run(sandbox, "exec sleep 1000")
    text = shim.exec(container_id, "cat", "/etc/resolv.conf").stdout.decode()
    assert text == "nameserver 10.9.8.7\nsearch a.example b.example\noptions ndots:5\n"
    assert shim.exec(container_id, "hostname").stdout.decode().strip() == sandbox[1].hostname


def test_host_network(shim: Shim) -> None:
    """A host-network pod has no address of its own and sees the node's interfaces."""
    node = cri.NamespaceOption(network=cri.NamespaceMode.NODE)
    linux = cri.LinuxPodSandboxConfig(security_context=cri.LinuxSandboxSecurityContext(namespace_options=node))
    sandbox = shim.run_sandbox(shim.sandbox_config(linux=linux))
    assert shim.sandbox_status(sandbox[0]).network.ip == ""
    assert shim.sandbox_status(sandbox[0]).linux.namespaces.options.network == cri.NamespaceMode.NODE
    secure = cri.LinuxContainerSecurityContext(namespace_options=node)
    container_id = shim.run(sandbox, "exec sleep 1000", linux=cri.LinuxContainerConfig(security_context=secure))
    assert "lab0" in shim.exec(container_id, "ls", "/sys/class/net").stdout.decode()


def test_mounts_come_back_in_status(shim: Shim) -> None:
    """A host path that does not exist is made; read-only is read-only; status tells both."""
    sandbox = shim.run_sandbox()
    directory = shim.lab.root / "made-by-mount"
    mount = cri.Mount(container_path="/data", host_path=str(directory), readonly=True)
    container_id = shim.run(sandbox, "exec sleep 1000", mounts=[mount])
    assert directory.is_dir()
    assert list(shim.status(container_id).mounts) == [mount]
    assert shim.exec(container_id, "touch", "/data/x").exit_code != 0


def test_a_negative_oom_score_is_raised_to_what_the_host_permits(shim: Shim) -> None:
    """The container starts all the same, with the lowest value that is allowed."""
    sandbox = shim.run_sandbox()
    resources = cri.LinuxContainerResources(oom_score_adj=-997)
    container_id = shim.run(sandbox, "exec sleep 1000", linux=cri.LinuxContainerConfig(resources=resources))
    own = int(Path("/proc/self/oom_score_adj").read_text())
    assert int(shim.exec(container_id, "cat", "/proc/1/oom_score_adj").stdout) in (-997, 0, own)


def test_resources_change_while_running(shim: Shim) -> None:
    """UpdateContainerResources shows in status and in the cgroup."""
    sandbox = shim.run_sandbox()
    resources = cri.LinuxContainerResources(memory_limit_in_bytes=64 << 20, cpu_shares=100)
    container_id = shim.run(sandbox, "exec sleep 1000", linux=cri.LinuxContainerConfig(resources=resources))
    assert shim.status(container_id).resources.linux.memory_limit_in_bytes == 64 << 20
    change = cri.LinuxContainerResources(memory_limit_in_bytes=128 << 20, cpu_quota=50000, cpu_period=100000)
    shim.runtime.UpdateContainerResources(cri.UpdateContainerResourcesRequest(container_id=container_id, linux=change))
    after = shim.status(container_id).resources.linux
    assert (after.memory_limit_in_bytes, after.cpu_quota, after.cpu_shares) == (128 << 20, 50000, 100)


def test_exec_sync(shim: Shim) -> None:
    """Both streams apart, and the exit code."""
    container_id = shim.run(shim.run_sandbox(), "exec sleep 1000")
    response = shim.exec(container_id, "sh", "-c", "echo out; echo err >&2; exit 3")
    assert (response.stdout, response.stderr, response.exit_code) == (b"out\n", b"err\n", 3)


def test_exec_sync_kills_what_outlives_its_time(shim: Shim) -> None:
    """DeadlineExceeded, and neither the shell nor its child is left in the container."""
    container_id = shim.run(shim.run_sandbox(), "exec sleep 1000", linux=POD_PID)
    code, _ = code_of(lambda: shim.exec(container_id, "sh", "-c", "sleep 777; echo never", timeout=1))
    assert code is grpc.StatusCode.DEADLINE_EXCEEDED

    def processes() -> str:
        return shim.exec(container_id, "ps").stdout.decode()

    eventually(lambda: "777" not in processes())
    assert "sleep 1000" in processes()


def test_exec_sync_cuts_endless_output(shim: Shim) -> None:
    """More output than a message holds is cut and not an error."""
    container_id = shim.run(shim.run_sandbox(), "exec sleep 1000")
    response = shim.exec(container_id, "sh", "-c", "head -c 20000000 /dev/zero; exit 4", timeout=60)
    assert response.exit_code == 4
    assert 15 * 1024 * 1024 < len(response.stdout) < 16 * 1024 * 1024


def test_exec_sync_wants_a_running_container(shim: Shim) -> None:
    """A container that does not run is FailedPrecondition."""
    container_id = shim.create(shim.run_sandbox(), "true")
    assert code_of(lambda: shim.exec(container_id, "true"))[0] is grpc.StatusCode.FAILED_PRECONDITION


def test_every_subscriber_hears_of_every_change(shim: Shim) -> None:
    """Two subscribers get created, started, stopped and deleted of a container, with the pod's statuses."""
    heard: list[queue.Queue[cri.ContainerEventResponse]] = [queue.Queue(), queue.Queue()]
    streams = [shim.runtime.GetContainerEvents(cri.GetEventsRequest()) for _ in heard]

    def listen(index: int) -> None:
        try:
            for event in streams[index]:
                heard[index].put(event)
        except grpc.RpcError:
            return

    for index in range(2):
        threading.Thread(target=listen, args=(index,), daemon=True).start()
    calling, numbers = shim.run_sandbox(), itertools.count()

    def all_hear() -> bool:  # a subscription has no answer of its own to wait for
        shim.create(calling, "true", metadata=cri.ContainerMetadata(name=f"call-{next(numbers)}"))
        return not any(received.empty() for received in heard)

    eventually(all_hear)
    sandbox = shim.run_sandbox()
    container_id = shim.run(sandbox, "true")
    shim.wait_state(container_id, EXITED)
    shim.runtime.RemoveContainer(cri.RemoveContainerRequest(container_id=container_id))
    wanted = [0, 1, 2, 3]
    for received in heard:
        kinds: list[int] = []
        while kinds != wanted:
            event = received.get(timeout=10)
            if event.container_id == container_id:
                kinds.append(event.container_event_type)
                assert event.pod_sandbox_status.id == sandbox[0]
                if event.container_event_type == cri.ContainerEventType.CONTAINER_STOPPED_EVENT:
                    assert [status.state for status in event.containers_statuses] == [EXITED]
    for stream in streams:
        stream.cancel()


def test_lists_filter(shim: Shim) -> None:
    """By id, state, sandbox and label; streams say the same."""
    sandbox = shim.run_sandbox()
    other = shim.run_sandbox()
    shim.runtime.StopPodSandbox(cri.StopPodSandboxRequest(pod_sandbox_id=other[0]))
    container_id = shim.run(sandbox, "exec sleep 1000", labels={"app": "web"})
    ready = cri.PodSandboxFilter(state=cri.PodSandboxStateValue(state=cri.PodSandboxState.SANDBOX_READY))
    listed = shim.runtime.ListPodSandbox(cri.ListPodSandboxRequest(filter=ready)).items
    assert [item.id for item in listed] == [sandbox[0]]
    for wanted, expected in (
        (cri.ContainerFilter(pod_sandbox_id=other[0]), []),
        (cri.ContainerFilter(pod_sandbox_id=sandbox[0]), [container_id]),
        (cri.ContainerFilter(label_selector={"app": "web"}), [container_id]),
        (cri.ContainerFilter(label_selector={"app": "db"}), []),
        (cri.ContainerFilter(id=container_id), [container_id]),
        (cri.ContainerFilter(state=cri.ContainerStateValue(state=EXITED)), []),
    ):
        found = shim.runtime.ListContainers(cri.ListContainersRequest(filter=wanted)).containers
        assert [item.id for item in found] == expected
        streamed = shim.runtime.StreamContainers(cri.StreamContainersRequest(filter=wanted))
        assert [item.id for chunk in streamed for item in chunk.containers] == expected


def test_reads_make_no_call_to_docker(shim: Shim, proxy: CountingProxy) -> None:
    """Lists and statuses come from memory, and an idle dockershim leaves Docker alone but for the ping."""
    sandbox = shim.run_sandbox()
    container_id = shim.run(sandbox, "exec sleep 1000")
    proxy.settle()  # let the events of the starts come in
    proxy.reset()
    for _ in range(20):
        shim.runtime.ListPodSandbox(cri.ListPodSandboxRequest())
        shim.runtime.ListContainers(cri.ListContainersRequest())
        shim.status(container_id)
        shim.sandbox_status(sandbox[0])
        shim.runtime.Status(cri.StatusRequest(verbose=True))
        shim.runtime.Version(cri.VersionRequest())
        shim.images.ListImages(cri.ListImagesRequest())
        shim.images.ImageStatus(cri.ImageStatusRequest(image=cri.ImageSpec(image=BUSYBOX)))
        shim.images.ImageFsInfo(cri.ImageFsInfoRequest())
    proxy.counts.pop("GET /_ping", None)
    # what comes each minute may fall into the test: the reconciliation, and the deeper look at Docker's health
    per_minute = {"GET /containers/json": 1, "GET /images/json": 1, "GET /version": 1}
    assert {call: count for call, count in proxy.counts.items() if count > per_minute.get(call, 0)} == {}


def test_idle_with_a_hundred_containers(shim: Shim, proxy: CountingProxy) -> None:
    """No call to Docker for any of them, whatever the kubelet asks; open files may be many, memory is bounded."""
    shim.kill()
    shim.start()  # what earlier tests have taken, such as 20 MB of output, is not measured here
    sandboxes = [shim.run_sandbox() for _ in range(5)]

    def run(number: int) -> str:
        name = cri.ContainerMetadata(name=f"c{number}")
        return shim.run(sandboxes[number % 5], "exec sleep 1000", metadata=name, log_path=f"c{number}/0.log")

    with ThreadPoolExecutor(8) as pool:
        ids = list(pool.map(run, range(100)))
    proxy.settle()  # let the events of the starts come in
    proxy.reset()
    deadline = time.monotonic() + 5
    while time.monotonic() < deadline:
        shim.runtime.ListPodSandbox(cri.ListPodSandboxRequest())
        shim.runtime.ListContainers(cri.ListContainersRequest())
        for container_id in ids:
            shim.status(container_id)
        time.sleep(0.5)
    assert {call: count for call, count in proxy.counts.items() if "/ID/" in call} == {}
    assert shim.process is not None
    files = Path(f"/proc/{shim.process.pid}")
    limits = next(line for line in (files / "limits").read_text().splitlines() if line.startswith("Max open files"))
    assert limits.split()[3] == limits.split()[4]
    status = dict(line.split(":", 1) for line in (files / "status").read_text().splitlines())
    resident_mib = int(status["VmRSS"].split()[0]) / 1024
    open_files = len(list((files / "fd").iterdir()))
    print(f"dockershim with {len(ids)} containers: {resident_mib:.0f} MiB resident, {open_files} open files")
    assert resident_mib < 90


def test_users_by_name_show_as_numbers(shim: Shim) -> None:
    """A name and the groups that list it mean what the image's own files say."""
    secure = cri.LinuxContainerSecurityContext(run_as_username="nobody", supplemental_groups=[1234])
    container_id = shim.run(
        shim.run_sandbox(), "exec sleep 1000", linux=cri.LinuxContainerConfig(security_context=secure)
    )
    shown = shim.status(container_id).user.linux
    said = [int(shim.exec(container_id, "id", flag).stdout) for flag in ("-u", "-g")]
    groups = {int(text) for text in shim.exec(container_id, "id", "-G").stdout.split()}
    assert ([shown.uid, shown.gid], set(shown.supplemental_groups)) == (said, groups)
    assert 1234 in groups


def test_the_oom_score_follows_a_resize(shim: Shim) -> None:
    """Also of the processes that the first one has started."""
    container_id = shim.run(shim.run_sandbox(), "sleep 1000 & exec sleep 1000", linux=POD_PID)
    eventually(lambda: len(shim.exec(container_id, "pidof", "sleep").stdout.split()) == 2)
    change = cri.LinuxContainerResources(oom_score_adj=700)
    shim.runtime.UpdateContainerResources(cri.UpdateContainerResourcesRequest(container_id=container_id, linux=change))
    scores = shim.exec(container_id, "sh", "-c", "for p in $(pidof sleep); do cat /proc/$p/oom_score_adj; done").stdout
    assert scores.split() == [b"700", b"700"]


def test_names_and_labels_are_those_of_cri_dockerd(shim: Shim) -> None:
    """A node can change hands: Docker shows what cri-dockerd would have written."""
    sandbox_id, config = shim.run_sandbox()
    container_id = shim.create((sandbox_id, config), "true", annotations={"hash": "abc"})
    inspected = json.loads(shim.lab.docker.client("inspect", sandbox_id, container_id))
    uid, name = config.metadata.uid, config.metadata.name
    assert [one["Name"] for one in inspected] == [f"/k8s_POD_{name}_test_{uid}_0", f"/k8s_main_{name}_test_{uid}_0"]
    pause, main = (one["Config"]["Labels"] for one in inspected)
    assert pause["io.kubernetes.docker.type"] == "podsandbox"
    assert pause["io.kubernetes.container.name"] == "POD"
    assert pause["annotation.example.com/note"] == "kept"
    assert main["io.kubernetes.docker.type"] == "container"
    assert main["io.kubernetes.sandbox.id"] == sandbox_id
    assert main["annotation.hash"] == "abc"
    assert main["io.kubernetes.container.logpath"] == f"{config.log_directory}/main/0.log"
    assert inspected[1]["HostConfig"]["LogConfig"]["Type"] == "json-file"


def test_a_container_removed_behind_our_back_vanishes(shim: Shim) -> None:
    """Docker's event takes it out of the lists, and the kubelet's status call gets NotFound."""
    sandbox = shim.run_sandbox()
    container_id = shim.run(sandbox, "exec sleep 1000")
    shim.lab.docker.client("rm", "-f", container_id)
    eventually(lambda: code_of(lambda: shim.status(container_id))[0] is grpc.StatusCode.NOT_FOUND)


def test_a_sandbox_removed_behind_our_back_stays_until_it_is_removed(shim: Shim) -> None:
    """It is shown as not ready, so that what it holds of the network is given back."""
    sandbox_id, _ = shim.run_sandbox()
    shim.lab.docker.client("rm", "-f", sandbox_id)
    eventually(lambda: shim.sandbox_status(sandbox_id).state == cri.PodSandboxState.SANDBOX_NOTREADY)
    shim.remove_sandbox(sandbox_id)
    assert code_of(lambda: shim.sandbox_status(sandbox_id))[0] is grpc.StatusCode.NOT_FOUND
    assert list((shim.root / "sandbox").iterdir()) == []
