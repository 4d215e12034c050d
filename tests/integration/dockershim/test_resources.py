"""Limits on real Docker of both kinds: in the container's cgroup, after changes, and in status."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
import pytest

from cri_proto import runtime_v1 as cri
from tests.integration.dockershim.harness import Shim, code_of, eventually
from tests.lab.engines.docker import VERSIONS
from tests.lab.lab import Lab

pytestmark = pytest.mark.lab

MIB = 1 << 20


@pytest.fixture(scope="module", params=VERSIONS)
def lab(request: pytest.FixtureRequest) -> Iterator[Lab]:
    with Lab.start(docker=request.param) as started:
        yield started


def run(shim: Shim, **resources: Any) -> str:
    linux = cri.LinuxContainerConfig(
        resources=cri.LinuxContainerResources(**resources),
        security_context=cri.LinuxContainerSecurityContext(
            namespace_options=cri.NamespaceOption(pid=cri.NamespaceMode.CONTAINER)
        ),
    )
    return shim.run(shim.run_sandbox(), "exec sleep 1000", linux=linux)


def update(shim: Shim, container_id: str, **resources: Any) -> None:
    wanted = cri.LinuxContainerResources(**resources)
    request = cri.UpdateContainerResourcesRequest(container_id=container_id, linux=wanted)
    shim.runtime.UpdateContainerResources(request, timeout=30)


def cgroup(shim: Shim, container_id: str, *files: str) -> list[int]:
    """Files of the container's own cgroup (v1), as it sees them itself."""
    read = shim.exec(container_id, "cat", *(f"/sys/fs/cgroup/{file}" for file in files))
    assert read.exit_code == 0, read
    return [int(line) for line in read.stdout.split()]


MEMORY = ("memory/memory.limit_in_bytes", "memory/memory.memsw.limit_in_bytes")
CPU = ("cpu/cpu.shares", "cpu/cpu.cfs_quota_us", "cpu/cpu.cfs_period_us")


def test_memory_without_and_with_swap(shim: Shim) -> None:
    """No swap unless the request gives some; both change while it runs, also below what was the limit."""
    for asked, both in ((0, 64 * MIB), (96 * MIB, 96 * MIB)):
        container_id = run(shim, memory_limit_in_bytes=64 * MIB, memory_swap_limit_in_bytes=asked)
        assert cgroup(shim, container_id, *MEMORY) == [64 * MIB, both]
        update(shim, container_id, memory_limit_in_bytes=128 * MIB)
        assert cgroup(shim, container_id, *MEMORY) == [128 * MIB] * 2
        update(shim, container_id, memory_limit_in_bytes=32 * MIB, memory_swap_limit_in_bytes=48 * MIB)
        assert cgroup(shim, container_id, *MEMORY) == [32 * MIB, 48 * MIB]
        shown = shim.status(container_id).resources.linux
        assert (shown.memory_limit_in_bytes, shown.memory_swap_limit_in_bytes) == (32 * MIB, 48 * MIB)


def test_who_takes_more_memory_than_there_is_ends_as_oom_killed(shim: Shim) -> None:
    """The reason that kubectl shows, and the code of the signal."""
    linux = cri.LinuxContainerConfig(resources=cri.LinuxContainerResources(memory_limit_in_bytes=16 * MIB))
    container_id = shim.run(shim.run_sandbox(), "exec tail /dev/zero", linux=linux)
    shim.wait_state(container_id, cri.ContainerState.CONTAINER_EXITED)
    eventually(lambda: shim.status(container_id).reason == "OOMKilled")  # Docker 29 tells of it apart from the end
    assert shim.status(container_id).exit_code == 137


def test_cpu_and_cpusets(shim: Shim) -> None:
    container_id = run(shim, cpu_shares=512, cpu_quota=50000, cpu_period=100000, cpuset_cpus="0", cpuset_mems="0")
    assert cgroup(shim, container_id, *CPU) == [512, 50000, 100000]
    assert cgroup(shim, container_id, "cpuset/cpuset.cpus") == [0]
    update(shim, container_id, cpu_shares=1024, cpu_quota=20000, cpuset_cpus="1")
    assert cgroup(shim, container_id, *CPU) == [1024, 20000, 100000]
    assert cgroup(shim, container_id, "cpuset/cpuset.cpus") == [1]
    shown = shim.status(container_id).resources.linux
    assert (shown.cpu_shares, shown.cpu_quota, shown.cpu_period) == (1024, 20000, 100000)
    assert (shown.cpuset_cpus, shown.cpuset_mems) == ("1", "0")


def test_huge_pages(shim: Shim) -> None:
    """The kubelet forbids every size to containers that ask for none: fine, and shown. A limit that this kernel cannot
    keep is an error, and the container does not run without it."""
    limits = [cri.HugepageLimit(page_size=size, limit=0) for size in ("1GB", "2MB")]
    container_id = run(shim, hugepage_limits=limits)
    assert list(shim.status(container_id).resources.linux.hugepage_limits) == limits
    sandbox = shim.run_sandbox()
    some = cri.LinuxContainerResources(hugepage_limits=[cri.HugepageLimit(page_size="2MB", limit=4 * MIB)])
    limited = shim.create(sandbox, "exec sleep 1000", linux=cri.LinuxContainerConfig(resources=some))
    code, message = code_of(lambda: shim.start_container(limited))
    assert code is not grpc.StatusCode.OK
    assert "hugetlb.2MB.limit_in_bytes" in message
    assert shim.status(limited).state == cri.ContainerState.CONTAINER_EXITED


def test_unified_keys_need_cgroup_v2(shim: Shim) -> None:
    sandbox = shim.run_sandbox()
    unified = cri.LinuxContainerResources(unified={"memory.high": "1000000"})
    code, message = code_of(lambda: shim.create(sandbox, "true", linux=cri.LinuxContainerConfig(resources=unified)))
    assert (code, message.split(":")[0]) == (grpc.StatusCode.INVALID_ARGUMENT, "config.linux.resources.unified")


def test_the_oom_score(shim: Shim) -> None:
    """At the start and after a change; what the host does not permit is raised to what it does."""
    container_id = run(shim, oom_score_adj=500)
    read = ("cat", "/proc/1/oom_score_adj")
    assert int(shim.exec(container_id, *read).stdout) == 500
    update(shim, container_id, oom_score_adj=700)
    assert int(shim.exec(container_id, *read).stdout) == 700
    assert shim.status(run(shim, oom_score_adj=-900)).state == cri.ContainerState.CONTAINER_RUNNING


def test_the_stop_signal(shim: Shim) -> None:
    """The request's, which the process gets and status shows."""
    script = "trap 'echo got it; exit 9' USR1; echo ready; while :; do sleep 0.1; done"
    container_id = shim.run(shim.run_sandbox(), script, stop_signal=cri.Signal.SIGNAL_SIGUSR1)
    eventually(lambda: "ready" in Path(shim.status(container_id).log_path).read_text())
    assert shim.status(container_id).stop_signal == cri.Signal.SIGNAL_SIGUSR1
    shim.runtime.StopContainer(cri.StopContainerRequest(container_id=container_id, timeout=20), timeout=30)
    assert shim.status(container_id).exit_code == 9
