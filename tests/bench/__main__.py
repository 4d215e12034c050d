"""`make bench`: the same pods on the same runtime, once with the Go kubelet and once with ours, round after round.

One containerd and one control plane for the whole run; the agents take turns and the order changes each round, so that
a machine that slows down does so for both. Before them, each round makes as many pods by bare CRI calls, without any
agent: less than the runtime's own time nobody can take. Writes bench/out/table.md, results.json and pods.png.
"""

import argparse
import asyncio
import sys
from collections.abc import Callable
from pathlib import Path

from tests.bench import cri_load
from tests.bench.cri_load import Load
from tests.bench.pods import AgentMeter, Batch, PodBench
from tests.bench.report import write
from tests.lab import gokubelet, node
from tests.lab.cluster import Cluster
from tests.lab.lab import PAUSE, Lab
from tests.lab.process import LabProcess

OURS, PEER = "kubelet-py", "Go kubelet"
NODE = "node-1"
ONE_IN_TURN = 20
BARE_AT_ONCE = 16
"""Pods in the hands of the runtime at any time when no agent is there."""


def main() -> int:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m tests.bench", description=__doc__)
    parser.add_argument("--sizes", default="1,30,100", help="pods at once, comma-separated (default %(default)s)")
    parser.add_argument("--rounds", type=int, default=3, help="rounds of both agents (default %(default)s)")
    parser.add_argument("--idle", type=float, default=10.0, help="seconds of idle CPU measured (default %(default)s)")
    parser.add_argument("--out", type=Path, default=Path("bench/out"))
    parser.add_argument("--only", choices=(OURS, PEER), help="measure one agent alone, for tuning")
    options = parser.parse_args()
    sizes = [int(text) for text in options.sizes.split(",")]
    agents = [options.only] if options.only else [PEER, OURS]
    results: dict[str, dict[int, list[Batch]]] = {agent: {size: [] for size in sizes} for agent in agents}
    bare: dict[int, list[Load]] = {size: [] for size in sizes if size > 1}
    with Lab.start(containerd="1.6") as lab, Cluster.start(lab) as cluster:
        for number in range(options.rounds):
            if not options.only:
                _say(f"round {number + 1} of {options.rounds}: CRI calls without an agent")
                _measure_bare(lab, bare)
            for agent in agents if number % 2 == 0 else list(reversed(agents)):
                _say(f"round {number + 1} of {options.rounds}: {agent}")
                _measure(lab, cluster, agent, results[agent], options.idle)
    if options.only:
        return 0
    _say("\n" + write(results, bare, OURS, PEER, options.out))
    _say(f"written to {options.out}: table.md, results.json, pods.png")
    return 0


def _measure_bare(lab: Lab, into: dict[int, list[Load]]) -> None:
    logs = lab.root / "bare-logs"
    runtime = cri_load.Runtime(lab.containerd_socket, logs, image=PAUSE, command=(), as_kubelet=True)
    try:
        for size, loads in into.items():
            loads.append(cri_load.many(runtime, size, BARE_AT_ONCE))
            _say(f"  {size:4} pods: up {loads[-1].up_seconds:.2f} s, down {loads[-1].down_seconds:.2f} s")
    finally:
        runtime.close()


def _measure(lab: Lab, cluster: Cluster, agent: str, into: dict[int, list[Batch]], idle_seconds: float) -> None:
    start: Callable[[], LabProcess] = {
        PEER: lambda: gokubelet.start(cluster, lab.containerd_socket, node=NODE),
        OURS: lambda: node.start_kubelet_py(cluster, lab.containerd_socket, node=NODE),
    }[agent]
    process = start()
    try:
        lab.wait_until("the service account", lambda: cluster.exists(_SERVICE_ACCOUNT))
        asyncio.run(_batches(cluster, AgentMeter(process.pid), into, idle_seconds))
    finally:
        process.stop()


async def _batches(cluster: Cluster, meter: AgentMeter, into: dict[int, list[Batch]], idle_seconds: float) -> None:
    bench = PodBench(await asyncio.to_thread(cluster.outside_kubeconfig), NODE, PAUSE)
    try:
        for size, batches in into.items():
            turns = ONE_IN_TURN if size == 1 else 1
            batch = await bench.run(size, turns, meter, idle_seconds)
            batches.append(batch)
            starts = sorted(batch.starts)
            _say(
                f"  {size:4} at once: start p50 {starts[len(starts) // 2]:.2f} s, "
                f"all Ready {batch.all_ready_seconds:.2f} s, all gone {batch.all_gone_seconds:.2f} s, "
                f"CPU {batch.cpu_seconds:.2f} s, idle {batch.idle_cpu_percent:.1f} %, RSS {batch.resident_mib:.0f} MiB"
            )
    finally:
        await bench.close()


_SERVICE_ACCOUNT = "/api/v1/namespaces/default/serviceaccounts/default"


def _say(text: str) -> None:
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main())
