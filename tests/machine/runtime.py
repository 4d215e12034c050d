"""dockershim alone on a kernel with AppArmor, huge pages, CRIU and pure cgroup v2, with Docker's systemd cgroups.

For a machine of its own only (`make boot`): it loads an AppArmor profile, reserves huge pages and restarts Docker. It
is no test_*.py, so that nobody runs it elsewhere. What is asserted is what the kernel says of the container's process.
"""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import tarfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import IO, Any

import grpc
import pytest

from cri_proto import runtime_v1 as cri
from deploy.standalone import images
from tests.machine.dockershim import PARENT, STATE, Runtime, docker, pid_of, running, systemctl
from tests.machine.waiting import CALL_SECONDS, until

CGROUPS = Path("/sys/fs/cgroup")
HUGE_PAGES = Path("/proc/sys/vm/nr_hugepages")
MI = 1024 * 1024
PROFILE_NAME = "runtime-test"
PROFILE = f"""
profile {PROFILE_NAME} flags=(attach_disconnected,mediate_deleted) {{
  file,
  capability,
  network,
  signal,
  ptrace,
  mount,
  umount,
  deny /refused/** w,
}}
"""
ProfileType = cri.SecurityProfile.ProfileType


@pytest.fixture(scope="module")
def shim() -> Iterator[Runtime]:
    """Docker as Debian has it, with its experimental features."""
    assert Path("/proc/1/comm").read_text().strip() == "systemd"
    with running({"experimental": True}) as started:
        yield started


@pytest.fixture(scope="module")
def pod(shim: Runtime) -> tuple[str, cri.PodSandboxConfig]:
    """One for all containers that do not mind."""
    return shim.pod()


@pytest.fixture(scope="module")
def profile() -> str:
    """The name of a profile that the kernel knows; it forbids to write below /refused."""
    subprocess.run(["apparmor_parser", "--replace"], input=PROFILE, text=True, check=True)
    return PROFILE_NAME


# AppArmor


@pytest.mark.parametrize(
    ("secure", "confinement"),
    [
        ({}, "docker-default (enforce)"),
        ({"apparmor": cri.SecurityProfile(profile_type=ProfileType.RuntimeDefault)}, "docker-default (enforce)"),
        ({"apparmor_profile": "runtime/default"}, "docker-default (enforce)"),
        ({"apparmor": cri.SecurityProfile(profile_type=ProfileType.Unconfined)}, "unconfined"),
        ({"apparmor_profile": "unconfined"}, "unconfined"),
        (
            {"apparmor": cri.SecurityProfile(profile_type=ProfileType.Localhost, localhost_ref=PROFILE_NAME)},
            f"{PROFILE_NAME} (enforce)",
        ),
        ({"apparmor_profile": f"localhost/{PROFILE_NAME}"}, f"{PROFILE_NAME} (enforce)"),
    ],
    ids=["nothing", "RuntimeDefault", "runtime/default", "Unconfined", "unconfined", "Localhost", "localhost/"],
)
def test_a_container_is_confined_by_the_profile_that_was_asked_for(
    shim: Runtime, pod: tuple[str, cri.PodSandboxConfig], profile: str, secure: dict[str, Any], confinement: str
) -> None:
    """By the field and by the older string, as the kernel says it of the process; and the profile does what it says."""
    container_id = shim.run(pod, security_context=cri.LinuxContainerSecurityContext(**secure))
    assert Path(f"/proc/{pid_of(container_id)}/attr/current").read_text().strip() == confinement
    made = "mkdir -p /refused /allowed && echo x >/allowed/file && echo x >/refused/file"
    answer = shim.exec(container_id, made)
    assert (answer.exit_code != 0) == (profile in confinement), answer.stderr
    assert (b"/refused/file" in answer.stderr) == (profile in confinement)


def test_a_sandbox_is_confined_too(shim: Runtime, profile: str) -> None:
    wanted = cri.SecurityProfile(profile_type=ProfileType.Localhost, localhost_ref=profile)
    sandbox_id, _ = shim.pod(apparmor=wanted)
    assert Path(f"/proc/{pid_of(sandbox_id)}/attr/current").read_text().strip() == f"{profile} (enforce)"


@pytest.mark.parametrize("secure", ["field", "string"])
def test_a_profile_that_is_not_loaded_is_refused_by_name(
    shim: Runtime, pod: tuple[str, cri.PodSandboxConfig], secure: str
) -> None:
    """Before anything is made."""
    context = cri.LinuxContainerSecurityContext(apparmor_profile="localhost/absent")
    if secure == "field":
        wanted = cri.SecurityProfile(profile_type=ProfileType.Localhost, localhost_ref="absent")
        context = cri.LinuxContainerSecurityContext(apparmor=wanted)
    before = docker("ps", "--all", "--quiet")
    with pytest.raises(grpc.RpcError) as refusal:
        shim.create(pod, "true", security_context=context)
    assert refusal.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert "'absent' is not loaded" in (refusal.value.details() or "")
    assert docker("ps", "--all", "--quiet") == before


def test_a_privileged_container_with_a_profile_is_refused(
    shim: Runtime, pod: tuple[str, cri.PodSandboxConfig], profile: str
) -> None:
    """Though it is loaded: Docker would leave the container unconfined."""
    context = cri.LinuxContainerSecurityContext(privileged=True, apparmor_profile=f"localhost/{profile}")
    with pytest.raises(grpc.RpcError, match="confines no privileged container") as refusal:
        shim.create(pod, "true", security_context=context)
    assert refusal.value.code() is grpc.StatusCode.INVALID_ARGUMENT


def test_a_sandbox_with_a_profile_that_is_not_loaded_is_refused(shim: Runtime) -> None:
    wanted = cri.SecurityProfile(profile_type=ProfileType.Localhost, localhost_ref="absent")
    with pytest.raises(grpc.RpcError, match="'absent' is not loaded") as refusal:
        shim.pod(apparmor=wanted)
    assert refusal.value.code() is grpc.StatusCode.INVALID_ARGUMENT


# Resources


def test_limits_are_in_the_containers_cgroup(shim: Runtime, pod: tuple[str, cri.PodSandboxConfig]) -> None:
    """Memory, swap, CPU, huge pages, and keys of cgroup v2 that no other field has; also when systemd is reloaded."""
    HUGE_PAGES.write_text("8")
    assert int(HUGE_PAGES.read_text()) == 8, "the kernel has not reserved them"
    resources = cri.LinuxContainerResources(
        cpu_period=100_000,
        cpu_quota=20_000,
        cpu_shares=512,
        memory_limit_in_bytes=64 * MI,
        memory_swap_limit_in_bytes=96 * MI,
        hugepage_limits=[cri.HugepageLimit(page_size="2MB", limit=4 * MI)],
        unified={"pids.max": "33", "memory.high": str(48 * MI), "memory.low": str(8 * MI)},
    )
    container_id = shim.run(pod, resources=resources)
    directory = cgroup_of(container_id)
    assert PARENT in str(directory)
    wanted = {
        "memory.max": str(64 * MI),
        "memory.swap.max": str(32 * MI),
        "memory.high": str(48 * MI),
        "memory.low": str(8 * MI),
        "cpu.max": "20000 100000",
        "pids.max": "33",
        "hugetlb.2MB.max": str(4 * MI),
        "hugetlb.2MB.rsvd.max": str(4 * MI),
    }
    assert_holds(directory, wanted)
    assert int((directory / "cpu.weight").read_text()) == 1 + (512 - 2) * 9999 // 262142
    status = shim.cri.ContainerStatus(
        cri.ContainerStatusRequest(container_id=container_id), timeout=CALL_SECONDS
    ).status
    shown = status.resources.linux
    assert shown.memory_swap_limit_in_bytes == 96 * MI
    assert [(limit.page_size, limit.limit) for limit in shown.hugepage_limits] == [("2MB", 4 * MI)]
    assert dict(shown.unified) == dict(resources.unified)


def test_no_swap_is_the_rule(shim: Runtime, pod: tuple[str, cri.PodSandboxConfig]) -> None:
    """A memory limit alone is one of memory and swap together."""
    container_id = shim.run(pod, resources=cri.LinuxContainerResources(memory_limit_in_bytes=32 * MI))
    assert_holds(cgroup_of(container_id), {"memory.swap.max": "0", "memory.max": str(32 * MI)})


def test_pids_max_is_a_limit(shim: Runtime, pod: tuple[str, cri.PodSandboxConfig]) -> None:
    """The kernel refuses the process too many, and counts that it did."""
    container_id = shim.run(pod, resources=cri.LinuxContainerResources(unified={"pids.max": "8"}))
    answer = shim.exec(container_id, "for i in 1 2 3 4 5 6 7 8 9; do sleep 30 & done")
    assert b"fork" in answer.stderr, answer
    assert int((cgroup_of(container_id) / "pids.events").read_text().split()[1]) > 0


def test_limits_change_while_it_runs(shim: Runtime, pod: tuple[str, cri.PodSandboxConfig]) -> None:
    container_id = shim.run(pod, resources=cri.LinuxContainerResources(memory_limit_in_bytes=64 * MI))
    resources = cri.LinuxContainerResources(
        memory_limit_in_bytes=128 * MI,
        cpu_period=100_000,
        cpu_quota=50_000,
        hugepage_limits=[cri.HugepageLimit(page_size="2MB", limit=2 * MI)],
        unified={"memory.high": str(100 * MI)},
    )
    request = cri.UpdateContainerResourcesRequest(container_id=container_id, linux=resources)
    shim.cri.UpdateContainerResources(request, timeout=CALL_SECONDS)
    wanted = {
        "memory.max": str(128 * MI),
        "memory.swap.max": "0",
        "cpu.max": "50000 100000",
        "memory.high": str(100 * MI),
        "hugetlb.2MB.max": str(2 * MI),
        "hugetlb.2MB.rsvd.max": str(2 * MI),
    }
    assert_holds(cgroup_of(container_id), wanted)


# Statistics


def test_statistics_are_those_of_cgroup_v2(shim: Runtime) -> None:
    """A container that holds 20 MiB, has written 3 MiB, and uses its processor: each number in its range."""
    pod = shim.pod()
    script = "busybox dd if=/dev/zero of=/held bs=1M count=3; busybox dd if=/dev/zero of=/dev/shm/held bs=1M count=20; "
    limits = cri.LinuxContainerResources(
        memory_limit_in_bytes=256 * MI, cpu_period=100_000, cpu_quota=20_000, unified={"pids.max": "50"}
    )
    container_id = shim.run(pod, script + "while :; do :; done", resources=limits)
    directory = cgroup_of(container_id)
    until(lambda: shim.exec(container_id, "[ $(stat -c %s /dev/shm/held 2>/dev/null || echo 0) = 20971520 ]"), holds)
    readings: list[cri.ContainerStats] = []

    def look() -> int:
        readings.append(shim.stats(container_id))
        return readings[-1].writable_layer.used_bytes.value

    until(look, lambda found: found >= 3 * MI)
    second = measured(shim, container_id, readings)
    memory = second.memory
    assert 20 * MI <= memory.working_set_bytes.value <= memory.usage_bytes.value < 256 * MI
    assert abs(memory.usage_bytes.value - int((directory / "memory.current").read_text())) < 4 * MI
    assert 0 < memory.available_bytes.value < 256 * MI - 20 * MI
    assert memory.page_faults.value > 0
    assert second.swap.swap_usage_bytes.value == 0
    assert second.writable_layer.used_bytes.value < 8 * MI
    assert second.writable_layer.inodes_used.value > 0
    listed = shim.cri.ListContainerStats(cri.ListContainerStatsRequest(), timeout=CALL_SECONDS).stats
    assert container_id in {stats.attributes.id for stats in listed}

    request = cri.PodSandboxStatsRequest(pod_sandbox_id=pod[0])
    whole = shim.cri.PodSandboxStats(request, timeout=CALL_SECONDS).stats.linux
    assert whole.cpu.usage_core_nano_seconds.value >= second.cpu.usage_core_nano_seconds.value
    assert whole.memory.working_set_bytes.value >= 20 * MI
    assert whole.process.process_count.value >= 2, "pause and the loop"
    assert whole.network.default_interface.name == "eth0"
    assert [stats.attributes.id for stats in whole.containers] == [container_id]

    metrics = shim.cri.ListPodSandboxMetrics(cri.ListPodSandboxMetricsRequest(), timeout=CALL_SECONDS).pod_metrics
    (mine,) = (each for each in metrics if each.pod_sandbox_id == pod[0])
    (container,) = mine.container_metrics
    values = {metric.name: metric.value.value for metric in container.metrics}
    assert values["container_spec_memory_limit_bytes"] == 256 * MI
    assert values["container_spec_cpu_quota"] == 20_000
    assert values["container_threads_max"] == 50
    assert values["container_processes"] == 1
    assert 20 * MI <= values["container_memory_working_set_bytes"] < 256 * MI
    assert values["container_cpu_usage_seconds_total"] >= second.cpu.usage_core_nano_seconds.value // 10**9
    assert "container_pressure_cpu_waiting_seconds_total" in values


def measured(shim: Runtime, container_id: str, before: Sequence[cri.ContainerStats]) -> cri.ContainerStats:
    """Statistics, after two seconds of processor time that the kernel knows of; they say just that time.

    And their rate is exactly that since one of the readings before. No share of the machine is asked for: how much a
    container gets is the kernel's to see to, and a machine that stands still charges the time to whoever runs then.
    """
    directory = cgroup_of(container_id)
    usage_ns = cpu_ns(directory)
    until(lambda: cpu_ns(directory), lambda ns: ns > usage_ns + 2 * 10**9)
    least_ns = cpu_ns(directory)
    stats = shim.stats(container_id)
    assert least_ns <= stats.cpu.usage_core_nano_seconds.value <= cpu_ns(directory)
    rates = {rate_nano_cores(each.cpu, stats.cpu) for each in before}
    assert stats.cpu.usage_nano_cores.value in rates
    return stats


def rate_nano_cores(first: cri.CpuUsage, second: cri.CpuUsage) -> int:
    """Of the time between two readings."""
    used_ns = second.usage_core_nano_seconds.value - first.usage_core_nano_seconds.value
    return used_ns * 10**9 // (second.timestamp - first.timestamp)


# Checkpoints

COUNT = """
echo kept >/kept; rm /www/index.html; i=0
while :; do i=$((i + 1)); echo "count $i"; echo $i >/counted; sleep 0.5; done
"""
"""The number is in the shell's memory alone; the files are in the container's writable layer."""
MADE_OR_LATER = (grpc.StatusCode.OK, grpc.StatusCode.ABORTED)


def test_a_checkpoint_is_written_and_the_container_runs_on(
    shim: Runtime, pod: tuple[str, cri.PodSandboxConfig], tmp_path: Path
) -> None:
    """With CRIU's images of its processes, who it was, and what it wrote and deleted."""
    secure = cri.LinuxContainerSecurityContext(
        seccomp=cri.SecurityProfile(profile_type=ProfileType.RuntimeDefault),
        no_new_privs=True,
        namespace_options=cri.NamespaceOption(pid=cri.NamespaceMode.CONTAINER),
    )
    container_id = shim.run(pod, COUNT, security_context=secure)
    pid, before = pid_of(container_id), until_counted(shim, container_id, 0)
    location = tmp_path / "checkpoint.tar"
    request = cri.CheckpointContainerRequest(
        container_id=container_id, location=str(location), timeout=int(CALL_SECONDS)
    )
    shim.cri.CheckpointContainer(request, timeout=CALL_SECONDS)
    with tarfile.open(location) as archive:
        names = set(archive.getnames())
        config, spec, status = (json.load(member(archive, f"{part}.dump")) for part in ("config", "spec", "status"))
        with tarfile.open(fileobj=member(archive, "rootfs-diff.tar")) as layer:
            changes = set(layer.getnames())
    assert names >= {f"checkpoint/{image}" for image in ("inventory.img", "core-1.img", "pages-1.img", "cgroup.img")}
    assert (config["id"], status["id"], status["state"]) == (container_id, container_id, 1)
    assert config["rootfsImageName"] == images.HELLO
    assert spec["process"]["args"][-1] == COUNT
    assert spec["annotations"]["io.kubernetes.cri.sandbox-name"] == pod[1].metadata.name
    assert {"kept", "counted", "www/.wh.index.html"} <= changes
    assert pid_of(container_id) == pid
    until_counted(shim, container_id, until_counted(shim, container_id, before))
    after = counted(shim, container_id)
    again = cri.CheckpointContainerRequest(container_id=container_id, location=str(location))
    # until containerd has collected what the first one left there
    assert code_of(lambda: shim.cri.CheckpointContainer(again, timeout=CALL_SECONDS)) in MADE_OR_LATER
    until_counted(shim, container_id, after)
    assert list((STATE / "root" / "dumps").iterdir()) == []


def test_a_pod_is_restored_with_what_its_processes_knew(shim: Runtime, tmp_path: Path) -> None:
    """In a new sandbox, in cgroups of its own with their limits, with its files, its logs and all that can be done.

    One container has processes of its own, the other shares the pod's.
    """
    pod = shim.pod()
    limits = cri.LinuxContainerResources(memory_limit_in_bytes=64 * MI, unified={"pids.max": "40"})
    former = []
    for mode in (cri.NamespaceMode.CONTAINER, cri.NamespaceMode.POD):
        secure = cri.LinuxContainerSecurityContext(namespace_options=cri.NamespaceOption(pid=mode))
        former.append(shim.run(pod, COUNT, resources=limits, security_context=secure))
    least = {shim.name_of(container_id): until_counted(shim, container_id, 3) for container_id in former}
    path = tmp_path / "pod"
    request = cri.CheckpointPodRequest(pod_sandbox_id=pod[0], output_path=str(path))
    shim.cri.CheckpointPod(request, timeout=CALL_SECONDS)
    shim.remove(pod[0])
    config = cri.PodSandboxConfig()
    config.CopyFrom(pod[1])
    config.metadata.uid = "restored"
    config.log_directory += "-restored"
    restore = cri.RestorePodRequest(
        checkpoint_path=str(path), config=config, container_configs=[shim.configs[each] for each in former]
    )
    answer = shim.cri.RestorePod(restore, timeout=CALL_SECONDS)
    assert {restored.name for restored in answer.restored_containers} == set(least)
    for restored in answer.restored_containers:
        container_id, known = restored.container_id, least[restored.name]
        assert first_number(Path(config.log_directory, f"{restored.name}.log")) > known, "it began anew"
        until_counted(shim, container_id, counted(shim, container_id))
        assert shim.exec(container_id, "cat /kept; test -e /www/index.html").exit_code == 1
        directory = cgroup_of(container_id)
        assert container_id in directory.name
        assert (directory / "memory.max").read_text().strip() == str(64 * MI)
        assert (directory / "pids.max").read_text().strip() == "40"
        assert shim.stats(container_id).memory.usage_bytes.value > 0
    again = cri.CheckpointPodRequest(pod_sandbox_id=answer.pod_sandbox_id, output_path=str(tmp_path / "again"))
    shim.cri.CheckpointPod(again, timeout=CALL_SECONDS)
    shim.remove(answer.pod_sandbox_id)
    assert not directory.exists()
    assert docker("ps", "--all", "--quiet", "--filter", f"name={config.metadata.name}") == ""


def test_without_criu_the_reason_is_said(shim: Runtime, pod: tuple[str, cri.PodSandboxConfig], tmp_path: Path) -> None:
    """As Docker's runtime finds out; the container runs on."""
    container_id = shim.run(pod)
    criu = Path(shutil.which("criu") or "")
    hidden = criu.with_name("criu.hidden")
    criu.rename(hidden)
    try:
        request = cri.CheckpointContainerRequest(container_id=container_id, location=str(tmp_path / "x.tar"))
        with pytest.raises(grpc.RpcError, match="finds no criu") as refusal:
            shim.cri.CheckpointContainer(request, timeout=CALL_SECONDS)
    finally:
        hidden.rename(criu)
    assert refusal.value.code() is grpc.StatusCode.UNIMPLEMENTED
    assert list(tmp_path.iterdir()) == []
    assert shim.exec(container_id, "true").exit_code == 0


def code_of(call: Callable[[], Any]) -> grpc.StatusCode:
    try:
        call()
    except grpc.RpcError as error:
        return error.code()
    return grpc.StatusCode.OK


def counted(shim: Runtime, container_id: str) -> int:
    """How far it has come, by the file that it writes."""
    return int(shim.exec(container_id, "cat /counted").stdout or 0)


def until_counted(shim: Runtime, container_id: str, beyond: int) -> int:
    return until(lambda: counted(shim, container_id), lambda found: found > beyond)


def first_number(log: Path) -> int:
    """In what a container has said first."""
    numbers = until(lambda: re.findall(r"count ([0-9]+)\n", log.read_text()))
    return int(numbers[0])


def member(archive: tarfile.TarFile, name: str) -> IO[bytes]:
    found = archive.extractfile(name)
    assert found is not None, name
    return found


# What the kernel says


def cgroup_of(container_id: str) -> Path:
    (line,) = Path(f"/proc/{pid_of(container_id)}/cgroup").read_text().splitlines()
    found = re.fullmatch(r"0::/(.+)", line)
    assert found, line
    return CGROUPS / found[1]


def assert_holds(directory: Path, wanted: dict[str, str]) -> None:
    """The files of a cgroup say so, and still do when systemd has written what it knows of its units."""
    for moment in ("now", "after a reload"):
        assert {name: (directory / name).read_text().strip() for name in wanted} == wanted, moment
        if moment == "now":
            systemctl("daemon-reload")


def cpu_ns(directory: Path) -> int:
    return int((directory / "cpu.stat").read_text().split()[1]) * 1000


def holds(answer: cri.ExecSyncResponse) -> bool:
    return answer.exit_code == 0
