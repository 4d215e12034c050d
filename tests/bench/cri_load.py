"""Many pods on one CRI runtime: how long they take together, what reads cost among them, and what is left of them.

Knows CRI and nothing else, so that dockershim and containerd are measured by the same code.
"""

from __future__ import annotations

import itertools
import statistics
import time
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc

from cri_proto import runtime_v1 as cri
from cri_proto.runtime_v1 import api_pb2_grpc
from tests.lab.lab import BUSYBOX

CALL_SECONDS = 180.0
REPEATS = 200
_numbers = itertools.count()
Times = dict[str, list[float]]
"""Seconds by what took them."""


@dataclass(frozen=True)
class Pod:
    """A pod that runs."""

    sandbox_id: str
    config: cri.PodSandboxConfig
    containers: tuple[str, ...]


class Runtime:
    """A client of one runtime, and what its pods run.

    It does what every kubelet does and cri-dockerd counts on: there is a directory for each log, and each request has
    its part on Linux, without which the pod is on Docker's network and its containers are not in it.

    With `as_kubelet` a pod has what every kubelet asks for and what costs the runtime time: the default seccomp profile
    on its sandbox, a cgroup of its own, a share of the CPU and an oom_score_adj.
    """

    def __init__(
        self,
        socket: Path,
        logs: Path,
        *,
        image: str = BUSYBOX,
        command: tuple[str, ...] = ("sleep", "100000"),
        as_kubelet: bool = False,
    ) -> None:
        self._channel = grpc.insecure_channel(
            f"unix://{socket}", options=[("grpc.max_receive_message_length", 16 * 1024 * 1024)]
        )
        self.runtime: Any = api_pb2_grpc.RuntimeServiceStub(self._channel)
        self.images: Any = api_pb2_grpc.ImageServiceStub(self._channel)
        self._logs = logs
        self._image = image
        self._command = command
        self._as_kubelet = as_kubelet

    def close(self) -> None:
        """End the connection."""
        self._channel.close()

    def pod_config(self) -> cri.PodSandboxConfig:
        """The configuration of a pod of its own."""
        number = next(_numbers)
        metadata = cri.PodSandboxMetadata(name=f"bench-{number}", namespace="bench", uid=f"uid-{number}")
        config = cri.PodSandboxConfig(
            metadata=metadata, hostname=metadata.name, log_directory=str(self._logs / metadata.uid)
        )
        config.linux.SetInParent()
        if self._as_kubelet:
            config.linux.cgroup_parent = f"/kubepods/besteffort/pod{metadata.uid}"
            config.linux.security_context.seccomp.profile_type = cri.SecurityProfile.RuntimeDefault
        return config

    def run_pod(self, containers: int = 1) -> Pod:
        """A sandbox with some running containers."""
        config = self.pod_config()
        request = cri.RunPodSandboxRequest(config=config)
        sandbox_id = self.runtime.RunPodSandbox(request, timeout=CALL_SECONDS).pod_sandbox_id
        ids = [self.create(sandbox_id, config, f"c{index}") for index in range(containers)]
        for container_id in ids:
            self.runtime.StartContainer(cri.StartContainerRequest(container_id=container_id), timeout=CALL_SECONDS)
        return Pod(sandbox_id, config, tuple(ids))

    def create(self, sandbox_id: str, sandbox_config: cri.PodSandboxConfig, name: str) -> str:
        """A container that is not started."""
        Path(sandbox_config.log_directory, name).mkdir(parents=True, exist_ok=True)
        config = cri.ContainerConfig(
            metadata=cri.ContainerMetadata(name=name),
            image=cri.ImageSpec(image=self._image),
            command=self._command,
            log_path=f"{name}/0.log",
        )
        config.linux.SetInParent()
        if self._as_kubelet:
            config.linux.resources.cpu_shares = 2
            config.linux.resources.oom_score_adj = 1000
        request = cri.CreateContainerRequest(pod_sandbox_id=sandbox_id, config=config, sandbox_config=sandbox_config)
        return str(self.runtime.CreateContainer(request, timeout=CALL_SECONDS).container_id)

    def remove_pod(self, pod: Pod) -> None:
        """As the kubelet does it: containers first."""
        runtime = self.runtime
        for container_id in pod.containers:
            stop = cri.StopContainerRequest(container_id=container_id, timeout=0)
            runtime.StopContainer(stop, timeout=CALL_SECONDS)
        runtime.StopPodSandbox(cri.StopPodSandboxRequest(pod_sandbox_id=pod.sandbox_id), timeout=CALL_SECONDS)
        for container_id in pod.containers:
            runtime.RemoveContainer(cri.RemoveContainerRequest(container_id=container_id), timeout=CALL_SECONDS)
        runtime.RemovePodSandbox(cri.RemovePodSandboxRequest(pod_sandbox_id=pod.sandbox_id), timeout=CALL_SECONDS)


def clear(socket: Path) -> None:
    """Remove every pod there is: what an agent has left for later, or the next one would do it."""
    with grpc.insecure_channel(f"unix://{socket}") as channel:
        runtime: Any = api_pb2_grpc.RuntimeServiceStub(channel)
        for sandbox in runtime.ListPodSandbox(cri.ListPodSandboxRequest(), timeout=CALL_SECONDS).items:
            runtime.StopPodSandbox(cri.StopPodSandboxRequest(pod_sandbox_id=sandbox.id), timeout=CALL_SECONDS)
            runtime.RemovePodSandbox(cri.RemovePodSandboxRequest(pod_sandbox_id=sandbox.id), timeout=CALL_SECONDS)


@dataclass(frozen=True)
class Load:
    """Pods that came and went, some at a time."""

    up_seconds: float
    down_seconds: float


def many(runtime: Runtime, count: int, at_once: int, while_up: Callable[[list[Pod]], None] = lambda _: None) -> Load:
    """Run this many pods, look at them, remove them."""
    with ThreadPoolExecutor(at_once) as pool:
        begun = time.perf_counter()
        pods = list(pool.map(lambda _: runtime.run_pod(), range(count)))
        up = time.perf_counter() - begun
        while_up(pods)
        begun = time.perf_counter()
        list(pool.map(runtime.remove_pod, pods))
        return Load(up, time.perf_counter() - begun)


def read_calls(runtime: Runtime, pod: Pod) -> dict[str, Callable[[], object]]:
    """Every call that a kubelet makes again and again."""
    return {
        "ListPodSandbox": lambda: runtime.runtime.ListPodSandbox(cri.ListPodSandboxRequest()),
        "ListContainers": lambda: runtime.runtime.ListContainers(cri.ListContainersRequest()),
        "PodSandboxStatus": lambda: runtime.runtime.PodSandboxStatus(
            cri.PodSandboxStatusRequest(pod_sandbox_id=pod.sandbox_id)
        ),
        "ContainerStatus": lambda: runtime.runtime.ContainerStatus(
            cri.ContainerStatusRequest(container_id=pod.containers[0])
        ),
        "ImageStatus": lambda: runtime.images.ImageStatus(cri.ImageStatusRequest(image=cri.ImageSpec(image=BUSYBOX))),
    }


def reads(runtime: Runtime, pod: Pod) -> dict[str, float]:
    """The median of each read call, in milliseconds, one call at a time."""
    return {name: median_ms(call, REPEATS) for name, call in read_calls(runtime, pod).items()}


def list_stats(runtime: Runtime) -> object:
    """ListContainerStats."""
    return runtime.runtime.ListContainerStats(cri.ListContainerStatsRequest())


def list_stats_ms(runtime: Runtime) -> float:
    """The median of ListContainerStats, in milliseconds."""
    return median_ms(lambda: list_stats(runtime), 20)


def median_ms(call: Callable[[], object], repeats: int) -> float:
    """One after the other, the first left out."""
    call()
    times = []
    for _ in range(repeats):
        begun = time.perf_counter()
        call()
        times.append(time.perf_counter() - begun)
    return statistics.median(times) * 1000


class Clock:
    """Adds the time of its block to a list."""

    def __init__(self, times: Times, step: str) -> None:
        self._into = times[step]

    def __enter__(self) -> None:
        self._begun = time.perf_counter()

    def __exit__(self, *_: object) -> None:
        self._into.append(time.perf_counter() - self._begun)


@dataclass(frozen=True)
class Soak:
    """Pods that came and went for a while, and what the process has kept of them."""

    cycles: tuple[int, int]
    """In the first and in the second half of the time."""
    kib: tuple[int, int, int]
    """Resident memory before, in the middle and after."""

    @property
    def kib_per_cycle(self) -> float:
        """The growth of resident memory: a leak grows in both halves, what fills up to a bound more in the first."""
        before, middle, after = self.kib
        return min((middle - before) / self.cycles[0], (after - middle) / self.cycles[1])


def soak(runtime: Runtime, pid: int, seconds: float, at_once: int) -> Soak:
    """Run and remove pods for so long; the first round is not counted, since it fills caches."""

    def cycle(_: int) -> None:
        runtime.remove_pod(runtime.run_pod())

    with ThreadPoolExecutor(at_once) as pool:

        def half() -> int:
            cycles, deadline = 0, time.monotonic() + seconds / 2
            while not cycles or time.monotonic() < deadline:
                list(pool.map(cycle, range(at_once)))
                cycles += at_once
            return cycles

        list(pool.map(cycle, range(8 * at_once)))
        before = resident_kib(pid)
        first, middle = half(), resident_kib(pid)
        return Soak((first, half()), (before, middle, resident_kib(pid)))


def fill(runtime: Runtime, pods: int, running_each: int, at_once: int) -> list[Pod]:
    """Pods with several running containers."""
    with ThreadPoolExecutor(at_once) as pool:
        return list(pool.map(lambda _: runtime.run_pod(running_each), range(pods)))


def create_more(runtime: Runtime, pods: Iterable[Pod], each: int, at_once: int) -> None:
    """Containers that are created and not started; they go with their pods."""

    def create(pod: Pod) -> None:
        for index in range(each):
            runtime.create(pod.sandbox_id, pod.config, f"more{index}")

    with ThreadPoolExecutor(at_once) as pool:
        list(pool.map(create, pods))


def resident_kib(pid: int) -> int:
    """Resident memory of a process."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1])
    raise ProcessLookupError(pid)
