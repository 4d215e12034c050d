"""`python -m tests.bench.cycles`: what dockershim keeps of ten thousand pods that came and went; fails if it grows.

The whole of dockershim behind its socket but for Docker, the network and the log files, which are fakes that forget: a
real Docker needs hours for as many pods. `make bench-cri` has a short soak with everything real.
"""

from __future__ import annotations

import argparse
import asyncio
import ctypes
import gc
import os
import sys
import tempfile
import threading
from collections.abc import Callable
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import grpc
import structlog

from cri_proto import runtime_v1 as cri
from cri_proto.runtime_v1 import api_pb2_grpc
from dockershim import app
from dockershim.config import Config
from dockershim.node import NodeSettings
from tests.fakes.docker_node import IMAGE, PAUSE, FakeLogs, FakePodNetwork, stocked_engine

WARM_UP_CYCLES = 5_000
"""Until all is full that has a bound: the removed sandboxes and containers it remembers, and the allocator's own."""
PAGE_KIB = os.sysconf("SC_PAGE_SIZE") // 1024


@dataclass(frozen=True, slots=True)
class Growth:
    """Resident memory before, in the middle and after, each time when all pods are gone."""

    cycles: int
    kib: tuple[int, int, int]

    @property
    def kib_per_cycle(self) -> float:
        """What is kept of a pod: a leak grows in both halves, a step of the allocator's in one."""
        before, middle, after = self.kib
        return min(middle - before, after - middle) / (self.cycles / 2)


def main() -> int:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m tests.bench.cycles", description=__doc__)
    parser.add_argument("--cycles", type=int, default=10_000, help="(default %(default)s)")
    parser.add_argument("--most", type=float, default=0.1, help="KiB for each pod that are no failure (%(default)s)")
    options = parser.parse_args()
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(50))
    with tempfile.TemporaryDirectory() as directory:
        growth = measure(Path(directory), options.cycles)
    points = " -> ".join(f"{kib / 1024:.1f}" for kib in growth.kib)
    print(f"{growth.cycles} pods came and went: {points} MiB, {growth.kib_per_cycle:+.3f} KiB kept of each")
    return int(growth.kib_per_cycle > options.most)


def measure(root: Path, cycles: int) -> Growth:
    """Run and remove pods, one after the other; the client is a process of its own, which is not counted."""
    logs, loop, stop, thread = _serve(root)
    try:
        points = []
        for name, count in (("warm", WARM_UP_CYCLES), ("first", cycles // 2), ("second", cycles // 2)):
            _drive(root, name, count)
            points.append(_resident_kib(logs))
        before, middle, after = points
        return Growth(cycles, (before, middle, after))
    finally:
        loop.call_soon_threadsafe(stop)
        thread.join()


def _drive(root: Path, name: str, cycles: int) -> None:
    client = get_context("spawn").Process(target=_run_pods, args=(f"unix://{root}/cri.sock", name, cycles))
    client.start()
    client.join()
    if client.exitcode:
        raise RuntimeError(f"the client ended with {client.exitcode}")


def _run_pods(target: str, name: str, cycles: int) -> None:
    with grpc.insecure_channel(target) as channel:
        grpc.channel_ready_future(channel).result(10)
        runtime: Any = api_pb2_grpc.RuntimeServiceStub(channel)
        for number in range(cycles):
            _cycle(runtime, f"{name}-{number}")
        assert not runtime.ListPodSandbox(cri.ListPodSandboxRequest()).items
        assert not runtime.ListContainers(cri.ListContainersRequest()).containers


def _cycle(runtime: Any, uid: str) -> None:
    """What the kubelet does with a pod of one container that ends with the pod."""
    config = cri.PodSandboxConfig(
        metadata=cri.PodSandboxMetadata(name=uid, namespace="bench", uid=uid),
        labels={"app": "bench"},
        annotations={"note": uid},
    )
    sandbox_id = runtime.RunPodSandbox(cri.RunPodSandboxRequest(config=config)).pod_sandbox_id
    container = cri.ContainerConfig(
        metadata=cri.ContainerMetadata(name="main"), image=cri.ImageSpec(image=IMAGE), command=["sleep"]
    )
    create = cri.CreateContainerRequest(pod_sandbox_id=sandbox_id, config=container, sandbox_config=config)
    container_id = runtime.CreateContainer(create).container_id
    runtime.StartContainer(cri.StartContainerRequest(container_id=container_id))
    runtime.ContainerStatus(cri.ContainerStatusRequest(container_id=container_id))
    runtime.PodSandboxStatus(cri.PodSandboxStatusRequest(pod_sandbox_id=sandbox_id))
    runtime.ListContainers(cri.ListContainersRequest())
    runtime.StopContainer(cri.StopContainerRequest(container_id=container_id))
    runtime.StopPodSandbox(cri.StopPodSandboxRequest(pod_sandbox_id=sandbox_id))
    runtime.RemovePodSandbox(cri.RemovePodSandboxRequest(pod_sandbox_id=sandbox_id))


def _serve(root: Path) -> tuple[FakeLogs, asyncio.AbstractEventLoop, Callable[[], None], threading.Thread]:
    engine, logs, started = stocked_engine(), FakeLogs(), threading.Event()
    settings = NodeSettings(pause_image=PAUSE, cgroup_root=str(root))
    running: list[tuple[asyncio.AbstractEventLoop, asyncio.Event]] = []

    async def serve() -> None:
        stop = asyncio.Event()
        running.append((asyncio.get_running_loop(), stop))
        started.set()
        parts = app.Parts(engine, FakePodNetwork(), logs, settings)
        await app.serve(Config(socket_path=root / "cri.sock", root_directory=root / "s"), parts, stop)

    thread = threading.Thread(target=lambda: asyncio.run(serve()), name="dockershim")
    thread.start()
    started.wait()
    [(loop, event)] = running
    return logs, loop, event.set, thread


def _resident_kib(logs: FakeLogs) -> int:
    """Of this process, when the fakes have forgotten and the allocator has given back what is free."""
    logs.followed.clear()
    logs.finished.clear()
    logs.removed.clear()
    gc.collect()
    ctypes.CDLL(None).malloc_trim(0)
    return int(Path("/proc/self/statm").read_text().split()[1]) * PAGE_KIB


if __name__ == "__main__":
    sys.exit(main())
