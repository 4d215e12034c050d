"""Single CRI calls, one at a time, on a runtime that has some pods: what each costs.

Knows CRI and nothing else. A round is the life of one more pod, call by call; reads are made among the others.
"""

from __future__ import annotations

import statistics
from collections import defaultdict
from concurrent.futures import ThreadPoolExecutor

from cri_proto import runtime_v1 as cri
from tests.bench import cri_load
from tests.bench.cri_load import CALL_SECONDS, Clock, Pod, Runtime, Times
from tests.bench.cri_runtimes import Runtimes, in_turns

START = ("RunPodSandbox", "CreateContainer", "StartContainer")
READ_REPEATS, STATS_REPEATS = 50, 10


def table(runtimes: Runtimes, pods: int, rounds: int, at_once: int) -> str:
    """The median of each call on each runtime."""
    times: dict[str, Times] = {name: defaultdict(list) for name in runtimes}
    for name, runtime in in_turns(runtimes, at_once):
        with ThreadPoolExecutor(at_once) as pool:
            there = list(pool.map(lambda _, runtime=runtime: runtime.run_pod(), range(pods)))
            _measure(runtime, there[0], rounds, times[name])
            list(pool.map(runtime.remove_pod, there))
    lines = [f"| p50 in ms, with {pods} pods | {' | '.join(runtimes)} |", "|---" * (len(runtimes) + 1) + "|"]
    for call in next(iter(times.values())):
        cells = (f"{statistics.median(each[call]) * 1000:.1f}" for each in times.values())
        lines.append(f"| {call} | {' | '.join(cells)} |")
    return "\n".join(lines)


def _measure(runtime: Runtime, pod: Pod, rounds: int, times: Times) -> None:
    _life_of_a_pod(runtime, defaultdict(list))  # the first is slower
    for _ in range(rounds):
        _life_of_a_pod(runtime, times)
    reads = {name: (call, READ_REPEATS) for name, call in cri_load.read_calls(runtime, pod).items()}
    reads["ListContainerStats"] = lambda: cri_load.list_stats(runtime), STATS_REPEATS
    for name, (read, repeats) in reads.items():
        read()
        for _ in range(repeats):
            with Clock(times, name):
                read()


def _life_of_a_pod(runtime: Runtime, times: Times) -> None:
    service, config = runtime.runtime, runtime.pod_config()
    with Clock(times, "RunPodSandbox"):
        run = cri.RunPodSandboxRequest(config=config)
        sandbox_id = service.RunPodSandbox(run, timeout=CALL_SECONDS).pod_sandbox_id
    with Clock(times, "CreateContainer"):
        main = runtime.create(sandbox_id, config, "main")
    with Clock(times, "StartContainer"):
        service.StartContainer(cri.StartContainerRequest(container_id=main), timeout=CALL_SECONDS)
    times["the three together"].append(sum(times[name][-1] for name in START))
    end = {
        "StopContainer": cri.StopContainerRequest(container_id=main, timeout=0),
        "RemoveContainer": cri.RemoveContainerRequest(container_id=main),
        "StopPodSandbox": cri.StopPodSandboxRequest(pod_sandbox_id=sandbox_id),
        "RemovePodSandbox": cri.RemovePodSandboxRequest(pod_sandbox_id=sandbox_id),
    }
    for name, request in end.items():
        with Clock(times, name):
            getattr(service, name)(request, timeout=CALL_SECONDS)
