"""Statistics and metrics against what the kernel itself says inside the container, on both engines, without Docker."""

from __future__ import annotations

import functools
import time
from collections.abc import Iterator
from typing import Any

import grpc
import pytest

from cri_proto import runtime_v1 as cri
from tests.integration.dockershim.counting_proxy import CountingProxy
from tests.integration.dockershim.harness import Shim, code_of, eventually
from tests.lab.lab import Lab

pytestmark = pytest.mark.lab
MIB = 1024 * 1024
HOLD_50_MIB = "(head -c 52428800 /dev/zero; sleep 1000) | tail -c 52428800"
CGROUP = "/sys/fs/cgroup"


@pytest.fixture(scope="module", params=["20.10", "29"])
def engine(request: pytest.FixtureRequest) -> Iterator[tuple[Shim, CountingProxy]]:
    """A dockershim on each engine, and what it asks of it."""
    with Lab.start(docker=request.param) as lab:
        counted = CountingProxy(lab.root / "run" / "counted.sock", lab.docker_socket)
        shim = Shim(lab, "shim-stats", lab.root / "run" / "counted.sock", "--metrics-bind-addr=:9324")
        yield shim, counted
        shim.stop()
        counted.close()


@pytest.fixture
def shim(engine: tuple[Shim, CountingProxy]) -> Iterator[Shim]:
    yield engine[0]
    engine[0].remove_all()


@pytest.fixture
def proxy(engine: tuple[Shim, CountingProxy]) -> CountingProxy:
    return engine[1]


def stats_of(shim: Shim, container_id: str) -> cri.ContainerStats:
    response: cri.ContainerStatsResponse = shim.runtime.ContainerStats(
        cri.ContainerStatsRequest(container_id=container_id), timeout=10
    )
    return response.stats


def pod_stats_of(shim: Shim, sandbox_id: str) -> cri.LinuxPodSandboxStats:
    response: cri.PodSandboxStatsResponse = shim.runtime.PodSandboxStats(
        cri.PodSandboxStatsRequest(pod_sandbox_id=sandbox_id), timeout=10
    )
    return response.stats.linux


def kernel(shim: Shim, container_id: str, *files: str) -> str:
    """The first of some files that the container can see, as it reads there."""
    said = shim.exec(container_id, "sh", "-c", f"cat {' '.join(files)} 2>/dev/null; true")
    return said.stdout.decode()


def cpu_ns(shim: Shim, container_id: str) -> int:
    text = kernel(shim, container_id, f"{CGROUP}/cpuacct/cpuacct.usage", f"{CGROUP}/cpu.stat").split()
    return int(text[0]) if len(text) == 1 else int(text[1]) * 1000


def commands(shim: Shim, container_id: str) -> list[str]:
    """The command of each process, as Docker lists them."""
    _, *rows = shim.lab.docker.client("top", container_id).splitlines()
    return [row.split(maxsplit=7)[7] for row in rows]


def wait_until_asleep(shim: Shim, container_id: str) -> None:
    """Until the shell has become the sleep that its script ends with; before, it has the same word in its command."""
    eventually(lambda: commands(shim, container_id) == ["sleep 1000"])


def limited(**resources: Any) -> cri.LinuxContainerConfig:
    return cri.LinuxContainerConfig(resources=cri.LinuxContainerResources(**resources))


def test_memory_is_what_the_container_holds(shim: Shim) -> None:
    """50 MiB held count in full; 20 MiB of files that were written and are not used again are no working set."""
    sandbox = shim.run_sandbox()
    holder = shim.run(sandbox, HOLD_50_MIB, linux=limited(memory_limit_in_bytes=200 * MIB))
    eventually(lambda: stats_of(shim, holder).memory.rss_bytes.value >= 50 * MIB)
    memory = stats_of(shim, holder).memory
    assert memory.rss_bytes.value < 56 * MIB
    assert 50 * MIB <= memory.working_set_bytes.value <= memory.usage_bytes.value < 80 * MIB
    assert memory.available_bytes.value == 200 * MIB - memory.working_set_bytes.value
    assert memory.page_faults.value > 50 * MIB // 4096 // 512  # huge pages may take the place of many small ones
    config = cri.ContainerMetadata(name="writer")
    writer = shim.run(sandbox, "dd if=/dev/zero of=/big bs=1M count=20 conv=fsync; sleep 1000", metadata=config)
    wait_until_asleep(shim, writer)
    eventually(lambda: stats_of(shim, writer).memory.usage_bytes.value >= 20 * MIB)
    memory = stats_of(shim, writer).memory
    assert memory.working_set_bytes.value < 10 * MIB
    assert not memory.HasField("available_bytes")  # no limit
    both = pod_stats_of(shim, sandbox[0])
    assert both.memory.rss_bytes.value >= 50 * MIB
    assert both.memory.usage_bytes.value >= 70 * MIB
    count = sum(len(commands(shim, name)) for name in (sandbox[0], holder, writer))
    eventually(lambda: pod_stats_of(shim, sandbox[0]).process.process_count.value == count >= 3)


def test_processor_time_lies_between_two_looks_at_the_kernel(shim: Shim) -> None:
    """A container that would burn a whole processor and may have a fifth of one."""
    sandbox = shim.run_sandbox()
    burner = shim.run(sandbox, "while :; do :; done", linux=limited(cpu_quota=20_000, cpu_period=100_000))
    before = cpu_ns(shim, burner)
    shown = stats_of(shim, burner).cpu
    after = cpu_ns(shim, burner)
    assert 0 < before <= shown.usage_core_nano_seconds.value <= after
    time.sleep(3)  # what is measured is time
    second = stats_of(shim, burner).cpu
    elapsed = (second.timestamp - shown.timestamp) / 1e9
    used = second.usage_core_nano_seconds.value - shown.usage_core_nano_seconds.value
    assert second.usage_nano_cores.value == pytest.approx(used / elapsed, rel=0.001)
    assert 0.05e9 < second.usage_nano_cores.value < 0.25e9
    pod = pod_stats_of(shim, sandbox[0])
    assert pod.cpu.usage_core_nano_seconds.value >= second.usage_core_nano_seconds.value


def test_the_writable_layer_is_what_was_written(shim: Shim) -> None:
    """10 MiB in a hundred files, seen at once in a young container; kept after its end."""
    sandbox = shim.run_sandbox()
    script = (
        "mkdir /d; for n in $(seq 100); do head -c 104858 /dev/urandom > /d/$n; done; sync; touch /done; sleep 1000"
    )
    writer = shim.run(sandbox, script)
    eventually(lambda: shim.exec(writer, "test", "-e", "/done").exit_code == 0)
    layer = stats_of(shim, writer).writable_layer
    assert 10 * MIB <= layer.used_bytes.value < 11 * MIB
    assert 102 <= layer.inodes_used.value < 130
    assert shim.lab.run(["test", "-d", layer.fs_id.mountpoint]).returncode == 0
    shim.runtime.StopContainer(cri.StopContainerRequest(container_id=writer, timeout=0), timeout=60)
    ended = stats_of(shim, writer)
    assert ended.writable_layer.used_bytes.value >= 10 * MIB
    assert not ended.HasField("cpu")
    assert not ended.HasField("memory")


def test_the_network_is_the_pods(shim: Shim) -> None:
    """The counters of its interface, between two looks inside; none for a pod in the node's network."""
    sandbox = shim.run_sandbox()
    main = shim.run(sandbox, "sleep 1000")
    shim.exec(main, "sh", "-c", "nc -w 1 $(ip route | awk '/default/ {print $3}') 9")

    def sent() -> int:
        return int(kernel(shim, main, "/sys/class/net/eth0/statistics/tx_bytes"))

    before, shown, after = sent(), pod_stats_of(shim, sandbox[0]).network, sent()
    assert shown.default_interface.name == "eth0"
    assert [interface.name for interface in shown.interfaces] == ["eth0"]
    assert 0 < before <= shown.default_interface.tx_bytes.value <= after
    namespaces = cri.NamespaceOption(network=cri.NamespaceMode.NODE)
    security = cri.LinuxSandboxSecurityContext(namespace_options=namespaces)
    host = shim.run_sandbox(shim.sandbox_config(linux=cri.LinuxPodSandboxConfig(security_context=security)))
    assert not pod_stats_of(shim, host[0]).HasField("network")


def test_a_pod_with_a_cgroup_of_its_own_is_read_there(shim: Shim) -> None:
    """What ran and is gone still counts."""
    config = shim.sandbox_config()
    config.linux.cgroup_parent = f"/kubepods/pod{config.metadata.uid}"
    sandbox = shim.run_sandbox(config)
    first = shim.run(sandbox, "i=0; while [ $i -lt 200000 ]; do i=$((i+1)); done")
    shim.wait_state(first, cri.ContainerState.CONTAINER_EXITED)
    used = pod_stats_of(shim, sandbox[0]).cpu.usage_core_nano_seconds.value
    shim.runtime.RemoveContainer(cri.RemoveContainerRequest(container_id=first), timeout=60)
    assert pod_stats_of(shim, sandbox[0]).cpu.usage_core_nano_seconds.value >= used > 50_000_000


def test_filters_streams_and_what_is_not_there(shim: Shim) -> None:
    """The same answers in lists, streams and alone; codes for the unknown and the stopped."""
    one, two = shim.run_sandbox(), shim.run_sandbox()
    first = shim.run(one, "sleep 1000", labels={"tier": "front"})
    second = shim.run(two, "sleep 1000")
    created = shim.create(two, "sleep 1000", metadata=cri.ContainerMetadata(name="created"))

    def listed(chosen: cri.ContainerStatsFilter) -> set[str]:
        found = shim.runtime.ListContainerStats(cri.ListContainerStatsRequest(filter=chosen)).stats
        request = cri.StreamContainerStatsRequest(filter=chosen)
        streamed = [s for part in shim.runtime.StreamContainerStats(request) for s in part.container_stats]
        assert [s.attributes.id for s in streamed] == [s.attributes.id for s in found]
        return {s.attributes.id for s in found}

    wanted = cri.ContainerStatsFilter
    assert listed(wanted()) == {first, second, created}
    assert listed(wanted(id=first)) == listed(wanted(label_selector={"tier": "front"})) == {first}
    assert listed(wanted(pod_sandbox_id=two[0])) == {second, created}
    assert listed(wanted(label_selector={"tier": "back"})) == set()
    pods = shim.runtime.ListPodSandboxStats(cri.ListPodSandboxStatsRequest()).stats
    assert {pod.attributes.id: {c.attributes.id for c in pod.linux.containers} for pod in pods} == {
        one[0]: {first},
        two[0]: {second, created},
    }
    shim.runtime.StopPodSandbox(cri.StopPodSandboxRequest(pod_sandbox_id=two[0]), timeout=60)
    request = cri.StreamPodSandboxStatsRequest(filter=cri.PodSandboxStatsFilter())
    streamed = [pod for part in shim.runtime.StreamPodSandboxStats(request) for pod in part.pod_sandbox_stats]
    assert [pod.attributes.id for pod in streamed] == [one[0]]
    assert code_of(functools.partial(pod_stats_of, shim, two[0]))[0] is grpc.StatusCode.FAILED_PRECONDITION
    for unknown in ("", "no-such"):
        for look in (pod_stats_of, stats_of):
            assert code_of(functools.partial(look, shim, unknown))[0] is grpc.StatusCode.NOT_FOUND


def test_metrics_have_what_their_descriptors_promise(shim: Shim) -> None:
    """Names and labels agree, and the values are the container's."""
    sandbox = shim.run_sandbox()
    limits = limited(cpu_quota=20_000, cpu_period=100_000, cpu_shares=512, memory_limit_in_bytes=64 * MIB)
    main = shim.run(sandbox, "head -c 1000000 /dev/urandom > /data; sync; sleep 1000", linux=limits)
    wait_until_asleep(shim, main)
    descriptors = {
        d.name: list(d.label_keys)
        for d in shim.runtime.ListMetricDescriptors(cri.ListMetricDescriptorsRequest()).descriptors
    }
    (pod,) = shim.runtime.ListPodSandboxMetrics(cri.ListPodSandboxMetricsRequest()).pod_metrics
    assert pod.pod_sandbox_id == sandbox[0]
    values: dict[tuple[str, ...], int] = {}
    for metric in (*pod.metrics, *pod.container_metrics[0].metrics):
        labels = dict(zip(descriptors[metric.name], metric.label_values, strict=True))
        assert labels["pod"] == sandbox[1].metadata.name
        assert labels["namespace"] == "test"
        own = {key: label for key, label in labels.items() if key not in descriptors["container_last_seen"]}
        values[metric.name, *own.values()] = metric.value.value
    names = {key[0] for key in values}
    without_kernel = {name for name in descriptors if "hugetlb" in name or "pressure" in name}
    without_writes_to_a_device = {name for name in descriptors if "blkio" in name or name.endswith("_total")}
    assert descriptors.keys() - names - without_kernel <= without_writes_to_a_device
    assert values["container_spec_memory_limit_bytes",] == 64 * MIB
    assert values["container_spec_cpu_quota",] == 20_000
    assert values["container_spec_cpu_shares",] == 512
    assert values["container_processes",] == len(commands(shim, main)) == 1
    assert values["container_network_transmit_errors_total", "eth0"] == 0
    assert abs(values["container_start_time_seconds",] - time.time()) < 120
    streamed = [
        item.pod_sandbox_id
        for part in shim.runtime.StreamPodSandboxMetrics(cri.StreamPodSandboxMetricsRequest())
        for item in part.pod_sandbox_metrics
    ]
    assert streamed == [sandbox[0]]


def test_the_image_file_system_is_what_lies_on_disk(shim: Shim) -> None:
    """Layers of images as du counts them, and the containers' beside them."""
    sandbox = shim.run_sandbox()
    shim.run(sandbox, "head -c 10485760 /dev/urandom > /big; sync; sleep 1000")

    def info() -> cri.ImageFsInfoResponse:
        response: cri.ImageFsInfoResponse = shim.images.ImageFsInfo(cri.ImageFsInfoRequest(), timeout=30)
        return response

    shim.runtime.ListContainerStats(cri.ListContainerStatsRequest())
    eventually(lambda: info().image_filesystems[0].HasField("inodes_used"), timeout_seconds=60)
    eventually(lambda: info().container_filesystems[0].used_bytes.value >= 10 * MIB, timeout_seconds=60)
    (images,), (containers,) = info().image_filesystems, info().container_filesystems
    assert containers.used_bytes.value < 12 * MIB
    assert 2 < containers.inodes_used.value < 100
    assert images.fs_id.mountpoint == containers.fs_id.mountpoint
    layers = {"20.10": "overlay2/*/diff", "29": "*/fs"}[shim.lab.docker.version]
    script = (
        f"set -- $(ls -d {images.fs_id.mountpoint}/{layers} | grep -v -e -init/);"  # Docker's mount points
        'du -s -B1 "$@"; du -s --inodes "$@"'
    )
    said = shim.lab.run(["sh", "-c", script]).stdout.split("\n")
    numbers = [int(line.split()[0]) for line in said if line]
    used, inodes = sum(numbers[: len(numbers) // 2]), sum(numbers[len(numbers) // 2 :])
    assert images.used_bytes.value + containers.used_bytes.value == pytest.approx(used, rel=0.02)
    assert images.inodes_used.value + containers.inodes_used.value == pytest.approx(inodes, rel=0.05)


def test_docker_is_not_asked(shim: Shim, proxy: CountingProxy) -> None:
    """No call for any of these, with containers that run, have ended, and never ran."""
    sandbox = shim.run_sandbox()
    for name in ("a", "b", "c"):
        shim.run(sandbox, "sleep 1000", metadata=cri.ContainerMetadata(name=name))
    ended = shim.run(sandbox, "true", metadata=cri.ContainerMetadata(name="ended"))
    shim.create(sandbox, "true", metadata=cri.ContainerMetadata(name="created"))
    shim.wait_state(ended, cri.ContainerState.CONTAINER_EXITED)
    eventually(lambda: quiet(proxy))
    for _ in range(10):
        stats_of(shim, ended)
        pod_stats_of(shim, sandbox[0])
        assert len(shim.runtime.ListContainerStats(cri.ListContainerStatsRequest()).stats) == 5
        assert len(shim.runtime.ListPodSandboxStats(cri.ListPodSandboxStatsRequest()).stats) == 1
        assert len(shim.runtime.ListPodSandboxMetrics(cri.ListPodSandboxMetricsRequest()).pod_metrics) == 1
        shim.runtime.ListMetricDescriptors(cri.ListMetricDescriptorsRequest())
        shim.images.ImageFsInfo(cri.ImageFsInfoRequest())
    asked = {call for call in proxy.counts if "_ping" not in call}
    # what comes each minute may fall in between
    per_node = {"GET /containers/json", "GET /images/json", "GET /version"}
    assert asked <= per_node


def test_dockershims_own_metrics(shim: Shim) -> None:
    """What this very test did, in seconds and counts."""
    sandbox = shim.run_sandbox()
    with shim.lab.connect("127.0.0.1", 9324) as connection:
        connection.sendall(b"GET /metrics HTTP/1.0\r\n\r\n")
        text = b"".join(iter(lambda: connection.recv(65536), b"")).decode()
    found = {
        line.rpartition(" ")[0]: float(line.rpartition(" ")[2])
        for line in text.splitlines()
        if line.startswith("dockershim_")
    }
    assert found['dockershim_rpc_duration_seconds_count{code="OK",method="RunPodSandbox"}'] >= 1
    calls = "dockershim_docker_call_duration_seconds"
    assert found[f'{calls}_count{{call="start",outcome="ok"}}'] >= 1
    assert found[f'{calls}_sum{{call="start",outcome="ok"}}'] > 0.01
    assert found["dockershim_event_lag_seconds_count"] >= 2
    assert found["dockershim_event_lag_seconds_sum"] / found["dockershim_event_lag_seconds_count"] < 5
    assert found['dockershim_sandboxes{state="ready"}'] == 1
    shim.remove_sandbox(sandbox[0])


def quiet(proxy: CountingProxy) -> bool:
    """Whether the echo of what was done has passed; counts from zero then."""
    proxy.reset()
    time.sleep(0.3)
    return not [call for call in proxy.counts if "/ID" in call]
