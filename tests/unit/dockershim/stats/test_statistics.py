"""Containers and pods read from scratch trees of files, as cgroup v1 and as cgroup v2 lay them out."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from cri_proto import runtime_v1 as cri
from dockershim.stats import RETAIN_SLACK, Statistics
from dockershim.stats.layers import LayerUsage
from dockershim.translate.views import ContainerView, SandboxView, container_view, sandbox_view
from tests.unit.dockershim.stats.test_layers import SECOND, Clock, make_tree
from tests.unit.dockershim.translate.test_cgroup_files import V1, V2
from tests.unit.dockershim.translate.test_proc_files import LIMITS, NET_DEV

APP, PAUSE = "a" * 64, "b" * 64
UID = "0f-1e"
STARTED = "2026-11-22T20:16:18Z"


class Host:
    """/proc and /sys/fs/cgroup of one kind."""

    def __init__(self, root: Path, version: int, pod: str) -> None:
        self.proc, self.cgroups, self.version, self.pod = root / "proc", root / "cgroup", version, pod
        self.clock = Clock()
        self.cgroups.mkdir()
        if version == 2:
            (self.cgroups / "cgroup.controllers").write_text("cpu memory\n")
        self.statistics = Statistics(self.clock, LayerUsage(self.clock), "eth0", self.cgroups, self.proc)
        self.root = str(root)

    def write(self, directory: str, files: dict[str, str]) -> None:
        """The files of a cgroup, each where its controller is."""
        for name, text in files.items():
            controller = name.partition(".")[0] if self.version == 1 else ""
            place = self.cgroups / controller / directory
            place.mkdir(parents=True, exist_ok=True)
            (place / name).write_text(text)

    def add(self, identifier: str, pid: int, processes: str = "") -> None:
        """A process in a cgroup of its own."""
        files = V1 if self.version == 1 else V2
        directory = f"{self.pod}/{identifier}"
        self.write(directory, files)
        for place in self.cgroups.glob(f"**/{identifier}"):
            (place / "cgroup.procs").write_text(processes or f"{pid}\n")
        (self.proc / str(pid) / "net").mkdir(parents=True)
        (self.proc / str(pid) / "net/dev").write_text(NET_DEV)
        (self.proc / str(pid) / "limits").write_text(LIMITS)
        (self.proc / str(pid) / "fd").mkdir()
        (self.proc / str(pid) / "fd/0").symlink_to("/dev/null")
        (self.proc / str(pid) / "fd/1").symlink_to("socket:[123]")
        controllers = sorted({name.partition(".")[0] for name in files}) if self.version == 1 else [""]
        lines = [f"{number}:{name}:/{directory}\n" for number, name in enumerate(controllers)]
        (self.proc / str(pid) / "cgroup").write_text("".join(lines) + "9:name=systemd:/elsewhere\n")


@pytest.fixture(params=[(1, "kubepods/pod0f-1e"), (2, "kubepods-pod0f_1e.slice"), (1, "docker"), (2, "docker")])
def host(tmp_path: Path, request: pytest.FixtureRequest) -> Host:
    """Both versions, with a cgroup for the pod and without."""
    version, pod = request.param
    made = Host(tmp_path, version, pod)
    made.add(PAUSE, 10)
    made.add(APP, 11, "11\n12\n")
    return made


def inspect(identifier: str, name: str, pid: int, **labels: str) -> dict[str, Any]:
    return {
        "Id": identifier,
        "Name": f"/{name}",
        "Created": STARTED,
        "Image": "sha256:1",
        "Config": {"Labels": {"io.kubernetes.sandbox.id": PAUSE, **labels}, "Image": "app:1"},
        "HostConfig": {"NetworkMode": "none"},
        "State": {"Running": pid > 0, "Pid": pid, "StartedAt": STARTED, "FinishedAt": "0001-01-01T00:00:00Z"},
    }


def app(pid: int = 11, layer: Path | None = None) -> ContainerView:
    body = inspect(APP, f"k8s_app_web_default_{UID}_0", pid, tier="front")
    if layer is not None:
        body["GraphDriver"] = {"Name": "overlay2", "Data": {"UpperDir": str(layer)}}
    return container_view(body, lambda _: "", 1)


def pause(network: str = "none") -> SandboxView:
    body = inspect(PAUSE, f"k8s_POD_web_default_{UID}_0", 10)
    body["HostConfig"] = {"NetworkMode": network}
    return sandbox_view(body, None, 1)


def test_a_container(host: Host, tmp_path: Path) -> None:
    """Every field that the kernel has a number for, with whose it is."""
    make_tree(tmp_path / "upper")
    (stats,) = host.statistics.containers([app(layer=tmp_path / "upper")], host.root)
    assert stats.attributes.id == APP
    assert stats.attributes.metadata.name == "app"
    assert stats.attributes.labels["tier"] == "front"
    assert stats.cpu.usage_core_nano_seconds.value == 1_500_000_000
    assert not stats.cpu.HasField("usage_nano_cores")
    assert stats.memory.working_set_bytes.value == 700
    assert stats.memory.available_bytes.value == 1300
    assert stats.swap.swap_available_bytes.value == 480
    assert stats.writable_layer.inodes_used.value == 6
    assert stats.writable_layer.fs_id.mountpoint == host.root
    assert stats.cpu.HasField("psi") == stats.HasField("io") == (host.version == 2)
    if host.version == 2:
        assert stats.cpu.psi.Some.Avg10 == 1.5
        assert stats.io.psi.Some.Total == 1000


def test_the_second_look_has_a_rate(host: Host) -> None:
    """Half a second of processor time in two seconds."""
    host.statistics.containers([app()], host.root)
    host.write(
        f"{host.pod}/{APP}",
        {"cpuacct.usage": "2000000000"} if host.version == 1 else {"cpu.stat": "usage_usec 2000000"},
    )
    host.clock.now += 2 * SECOND
    (stats,) = host.statistics.containers([app()], host.root)
    assert stats.cpu.usage_nano_cores.value == SECOND // 4


def test_a_pod(host: Host) -> None:
    """By its own cgroup, or else by the sum; processes of all; its interfaces without loopback."""
    if "0f" in host.pod:
        usage = {"memory.usage_in_bytes": "9000"} if host.version == 1 else {"memory.current": "9000"}
        host.write(host.pod, usage)
    (stats,) = host.statistics.sandboxes([(pause(), [app()])], host.root)
    assert stats.attributes.metadata.name == "web"
    assert stats.linux.memory.usage_bytes.value == (9000 if "0f" in host.pod else 2000)
    assert stats.linux.process.process_count.value == 3
    assert stats.linux.network.default_interface.name == "eth0"
    assert [interface.name for interface in stats.linux.network.interfaces] == ["eth0", "net1"]
    assert stats.linux.network.default_interface.rx_bytes.value == 1100
    assert [member.attributes.id for member in stats.linux.containers] == [APP]


def test_processes_in_cgroups_below_are_the_containers_own(host: Host) -> None:
    """With cgroup v2 an init system leaves none in the cgroup that the runtime made."""
    for place in host.cgroups.glob(f"**/{APP}"):
        (place / "cgroup.procs").write_text("" if host.version == 2 else "11\n")
        for name, processes in (("init.scope", "11\n12\n"), ("system.slice/web.service", "12\n13\n14\n")):
            (place / name).mkdir(parents=True)
            (place / name / "cgroup.procs").write_text(processes)
    (stats,) = host.statistics.sandboxes([(pause(), [app()])], host.root)
    assert stats.linux.process.process_count.value == 1 + 4
    (pod,) = host.statistics.metrics([(pause(), [app()])], host.root)
    assert {metric.name: metric.value.value for metric in pod.container_metrics[0].metrics}["container_processes"] == 4


def test_the_nodes_network_is_no_pods(host: Host) -> None:
    """A pod in the host's network has no interfaces of its own."""
    (stats,) = host.statistics.sandboxes([(pause("host"), [])], host.root)
    assert not stats.linux.HasField("network")


def test_a_process_id_that_was_given_out_again_lends_nothing(host: Host) -> None:
    """Another's cgroup is not read, and neither is another's network."""
    (host.proc / "11/cgroup").write_text("3:memory:/other\n0::/other\n")
    (host.proc / "10/cgroup").write_text("")
    (stats,) = host.statistics.sandboxes([(pause(), [app()])], host.root)
    assert not stats.linux.HasField("cpu")
    assert not stats.linux.HasField("network")
    assert not stats.linux.containers[0].HasField("memory")


def test_what_does_not_run_has_its_layer_alone(host: Host, tmp_path: Path) -> None:
    """Also when its number is somebody else's by now."""
    make_tree(tmp_path / "upper")
    (stats,) = host.statistics.containers([app(pid=0, layer=tmp_path / "upper")], host.root)
    assert not stats.HasField("cpu")
    assert not stats.HasField("memory")
    assert stats.writable_layer.inodes_used.value == 6
    assert host.statistics.metrics([(pause(), [app(pid=0)])], host.root)[0].container_metrics == []


def test_the_layer_that_docker_does_not_name(host: Host, tmp_path: Path) -> None:
    """The containerd image store says nothing: the mount does, also after the end; its siblings are images'."""
    make_tree(tmp_path / "snapshots/7/fs")
    make_tree(tmp_path / "snapshots/8/fs", files=1)
    mount = f"1 2 0:5 / / rw - overlay overlay rw,lowerdir=/l,upperdir={tmp_path}/snapshots/7/fs,workdir=/w\n"
    (host.proc / "11/mountinfo").write_text(mount)
    (stats,) = host.statistics.containers([app()], "/docker")
    assert stats.writable_layer.fs_id.mountpoint == str(tmp_path / "snapshots")
    assert stats.writable_layer.inodes_used.value == 6
    (ended,) = host.statistics.containers([app(pid=0)], "/docker")
    assert ended.writable_layer.inodes_used.value == 6
    place, images, containers = host.statistics.disk([app()], (), "/docker")
    assert place == str(tmp_path / "snapshots")
    assert images is None  # asked for, and not counted yet
    assert containers.inodes == 6
    assert list(host.statistics.layers._wanted) == [str(tmp_path / "snapshots/8/fs")]


def test_the_file_system_of_metrics_is_that_of_the_layers(host: Host, tmp_path: Path) -> None:
    """Docker's own directory may be on another, or away."""
    make_tree(tmp_path / "snapshots/7/fs")
    mount = f"1 2 0:5 / / rw - overlay overlay rw,lowerdir=/l,upperdir={tmp_path}/snapshots/7/fs,workdir=/w\n"
    (host.proc / "11/mountinfo").write_text(mount)
    (pod,) = host.statistics.metrics([(pause(), [app()])], "/nothing/there")
    found = {metric.name: metric.value.value for metric in pod.container_metrics[0].metrics}
    assert found["container_fs_limit_bytes"] == os.statvfs(tmp_path).f_blocks * os.statvfs(tmp_path).f_frsize


def test_metrics(host: Host) -> None:
    """Of the pod its network, of the container the rest."""
    (pod,) = host.statistics.metrics([(pause(), [app()])], host.root)
    assert pod.pod_sandbox_id == PAUSE
    received = [metric for metric in pod.metrics if metric.name == "container_network_receive_bytes_total"]
    assert [(list(m.label_values), m.value.value) for m in received] == [
        (["POD", PAUSE, "", f"k8s_POD_web_default_{UID}_0", "default", "web", name], value)
        for name, value in (("eth0", 1100), ("net1", 5))
    ]
    found = {metric.name: metric.value.value for metric in pod.container_metrics[0].metrics}
    assert found["container_processes"] == 2
    assert found["container_file_descriptors"] == 2
    assert found["container_sockets"] == 1
    assert found["container_ulimits_soft"] == 1024
    assert found["container_memory_max_usage_bytes"] == 1500
    assert found["container_hugetlb_usage_bytes"] == 2097152
    assert found["container_fs_limit_bytes"] > 0


def test_the_past_is_forgotten(host: Host) -> None:
    """Ten thousand pods later nothing is left of the first."""
    statistics = host.statistics
    statistics.containers([app()], host.root)
    for number in range(2 * RETAIN_SLACK):
        statistics._rates[str(number)] = statistics._rates[APP]
    statistics.retain({APP}, ())
    assert set(statistics._rates) == {APP}
    (stats,) = statistics.containers([app()], host.root)
    assert stats.HasField("cpu")
    assert isinstance(stats, cri.ContainerStats)
