"""`make bench`: the same pods on the same engine, once with the Go kubelet and once with ours, round after round.

One engine and one control plane for the whole run; the agents take turns and the order changes each round, so that a
machine that slows down does so for both. With RUNTIME=docker each agent brings its shim: cri-dockerd and dockershim.
Before them, each round makes as many pods by bare CRI calls, without any agent: less than the runtime's own time nobody
can take. Writes bench/out/table.md, results.json and pods.png.
"""

import argparse
import asyncio
import sys
from pathlib import Path

from tests.bench import cri_load
from tests.bench.cri_load import Load
from tests.bench.pods import AGENT, ENGINE, SHIM, Batch, Meter, PodBench
from tests.bench.report import Compared, write
from tests.bench.stacks import NODE, OURS, PEER, RUNTIMES, Comparison, Stack
from tests.lab.cluster import Cluster
from tests.lab.lab import PAUSE, Lab

ONE_IN_TURN = 20
BARE_AT_ONCE = 16
"""Pods in the hands of the runtime at any time when no agent is there."""


def main() -> int:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m tests.bench", description=__doc__)
    parser.add_argument("runtime", nargs="?", choices=RUNTIMES, default="containerd", help="(default %(default)s)")
    parser.add_argument("--sizes", default="1,30,100", help="pods at once, comma-separated (default %(default)s)")
    parser.add_argument("--rounds", type=int, default=3, help="rounds of both agents (default %(default)s)")
    parser.add_argument("--idle", type=float, default=10.0, help="seconds of idle CPU measured (default %(default)s)")
    parser.add_argument("--out", type=Path, default=Path("bench/out"))
    parser.add_argument("--only", choices=(OURS, PEER), help="measure one agent alone, for tuning")
    options = parser.parse_args()
    sizes = [int(text) for text in options.sizes.split(",")]
    what: Comparison = RUNTIMES[options.runtime]
    stacks = {None: [what.peer, what.ours], OURS: [what.ours], PEER: [what.peer]}[options.only]
    results: dict[str, dict[int, list[Batch]]] = {stack.name: {size: [] for size in sizes} for stack in stacks}
    bare: dict[int, list[Load]] = {size: [] for size in sizes if size > 1}
    _say(what.headline())
    with what.start_lab() as lab, Cluster.start(lab) as cluster:
        for number in range(options.rounds):
            if not options.only:
                _say(f"round {number + 1} of {options.rounds}: CRI calls without an agent ({what.bare})")
                _measure_bare(lab, what, bare)
            for stack in stacks if number % 2 == 0 else list(reversed(stacks)):
                _say(f"round {number + 1} of {options.rounds}: {stack.name}")
                _measure(lab, cluster, what, stack, results[stack.name], options.idle)
    if options.only:
        return 0
    compared = Compared(what.headline(), what.ours.name, what.peer.name, what.bare)
    _say("\n" + write(results, bare, compared, options.out))
    _say(f"written to {options.out}: table.md, results.json, pods.png")
    return 0


def _measure_bare(lab: Lab, what: Comparison, into: dict[int, list[Load]]) -> None:
    with what.ours.serving(lab) as served:
        runtime = cri_load.Runtime(served.socket, lab.root / "bare-logs", image=PAUSE, command=(), as_kubelet=True)
        try:
            for size, loads in into.items():
                loads.append(cri_load.many(runtime, size, BARE_AT_ONCE))
                _say(f"  {size:4} pods: up {loads[-1].up_seconds:.2f} s, down {loads[-1].down_seconds:.2f} s")
        finally:
            runtime.close()


def _measure(
    lab: Lab, cluster: Cluster, what: Comparison, stack: Stack, into: dict[int, list[Batch]], idle_seconds: float
) -> None:
    """One turn of one stack, which finds an engine without pods and leaves it so."""
    with stack.serving(lab) as served:
        agent = stack.start_agent(cluster, served.socket)
        try:
            lab.wait_until("the service account", lambda: cluster.exists(_SERVICE_ACCOUNT))
            parts = {AGENT: [agent], SHIM: [served.shim] if served.shim else [], ENGINE: what.engine_processes(lab)}
            meter = Meter({part: [each.pid for each in processes] for part, processes in parts.items() if processes})
            asyncio.run(_batches(cluster, meter, into, idle_seconds))
        finally:
            agent.stop()
        cri_load.clear(served.socket)


async def _batches(cluster: Cluster, meter: Meter, into: dict[int, list[Batch]], idle_seconds: float) -> None:
    bench = PodBench(await asyncio.to_thread(cluster.outside_kubeconfig), NODE, PAUSE)
    try:
        # One that does not count: the node is called Ready since the agent before, while this one may still start.
        await bench.run(1, 1, meter, 0.0)
        for size, batches in into.items():
            turns = ONE_IN_TURN if size == 1 else 1
            batch = await bench.run(size, turns, meter, idle_seconds)
            batches.append(batch)
            starts = sorted(batch.starts)
            _say(
                f"  {size:4} at once: start p50 {starts[len(starts) // 2]:.2f} s, "
                f"all Ready {batch.all_ready_seconds:.2f} s, all gone {batch.all_gone_seconds:.2f} s"
            )
            for part, usage in batch.usage.items():
                _say(
                    f"       {part}: CPU {usage.cpu_seconds:.2f} s, idle {usage.idle_cpu_percent:.1f} %, "
                    f"RSS {usage.resident_mib:.0f} MiB"
                )
    finally:
        await bench.close()


_SERVICE_ACCOUNT = "/api/v1/namespaces/default/serviceaccounts/default"


def _say(text: str) -> None:
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main())
