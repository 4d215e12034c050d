"""`make bench-cri`: dockershim against Docker itself, containerd and cri-dockerd, in one run on one machine.

Steps of one pod against the bare calls of Docker's API; 100 pods, 16 at a time, and single calls on each runtime, which
take turns (see `cri_runtimes`); reads among many containers; memory with 300 of them; and what pods leave behind that
came and went for a while. Writes bench/out/cri.md.
"""

from __future__ import annotations

import argparse
import statistics
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from tests.bench import cri_calls, cri_load, cri_runtimes, cri_steps
from tests.bench.cri_load import Load, Pod, Runtime
from tests.bench.cri_runtimes import BASE, OURS, Runtimes, in_turns
from tests.integration.dockershim.harness import Shim
from tests.lab.engines.containerd import write_cni_configuration
from tests.lab.lab import Lab
from tests.lab.progress import step

BUSY_LOAD = 4.0
AT_ONCE = 16
FEW_PODS, RUNNING_EACH, CREATED_EACH = 30, 10, 7
PARTS = ("steps", "pods", "calls", "reads", "soak")
COMPARISONS = frozenset(("pods", "calls"))


def main() -> int:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m tests.bench.cri", description=__doc__)
    parser.add_argument("--rounds", type=int, default=20, help="pods of the comparisons by call (default %(default)s)")
    parser.add_argument("--pods", type=int, default=100, help="pods of the comparison by load (default %(default)s)")
    parser.add_argument("--soak-seconds", type=float, default=60.0, help="(default %(default)s)")
    parser.add_argument("--only", choices=PARTS, action="append", help="one part; may be repeated")
    parser.add_argument("--flags", default="--log-level=info", help="flags of dockershim (default %(default)s)")
    parser.add_argument("--out", type=Path, default=Path("bench/out"))
    options = parser.parse_args()
    load = float(Path("/proc/loadavg").read_text().split()[0])
    if load > BUSY_LOAD:
        print(f"the machine is loaded ({load}); figures will be blurred", file=sys.stderr)
    parts = options.only or PARTS
    sections: list[str] = []

    def tell(section: str) -> None:
        sections.append(section)
        print(f"{section}\n", flush=True)

    compares = COMPARISONS.intersection(parts)
    with Lab.start(docker="20.10", containerd="1.6" if compares else None) as lab:
        if "steps" in parts:
            with step("the steps of one pod, against Docker's own calls"):
                tell(_steps(lab, options.rounds, options.flags))
        if compares:
            with cri_runtimes.all_of_them(lab, tuple(options.flags.split())) as runtimes:
                if "pods" in parts:
                    with step(f"{options.pods} pods, {AT_ONCE} at a time, on {' and '.join(runtimes)} in turn"):
                        tell(_pods(runtimes, options.pods))
                if "calls" in parts:
                    with step("single calls on each of them"):
                        tell(cri_calls.table(runtimes, FEW_PODS, options.rounds, AT_ONCE))
        shim = Shim(lab, "dockershim-cni", None, "--network-plugin=cni", *options.flags.split(), wait_ready=False)
        write_cni_configuration(lab)
        shim.wait_ready()
        runtime = Runtime(shim.socket, lab.root / "pod-logs")
        assert shim.process is not None
        if "reads" in parts:
            with step("reads among many containers"):
                tell(_reads(runtime, shim.process.pid))
        if "soak" in parts:
            with step(f"pods coming and going for {options.soak_seconds:.0f} s"):
                soak = cri_load.soak(runtime, shim.process.pid, options.soak_seconds, 4)
            points = " -> ".join(f"{kib / 1024:.1f}" for kib in soak.kib)
            tell(
                f"{sum(soak.cycles)} pods came and went: resident memory {points} MiB before, in the middle and after, "
                f"{soak.kib_per_cycle:+.2f} KiB kept of each."
            )
        runtime.close()
        shim.stop()
    options.out.mkdir(parents=True, exist_ok=True)
    (options.out / "cri.md").write_text("\n\n".join(sections) + "\n")
    return 0


def _steps(lab: Lab, rounds: int, flags: str) -> str:
    shim = Shim(lab, "dockershim-bridge", None, *flags.split())
    try:
        return cri_steps.table(*cri_steps.measure(shim, rounds))
    finally:
        shim.stop()


def _pods(runtimes: Runtimes, count: int) -> str:
    loads: dict[str, list[Load]] = {name: [] for name in runtimes}
    stats: list[float] = []
    for name, runtime in in_turns(runtimes, AT_ONCE):

        def look(_: list[Pod], name: str = name, runtime: Runtime = runtime) -> None:
            if name == OURS:  # elsewhere it may set going what then slows the pods' end
                stats.append(cri_load.list_stats_ms(runtime))

        loads[name].append(cri_load.many(runtime, count, AT_ONCE, look))
    means = {
        name: [statistics.mean(getattr(load, part) for load in each) for part in ("up_seconds", "down_seconds")]
        for name, each in loads.items()
    }
    lines = [
        f"| {count} pods, {AT_ONCE} at a time | up | down | up / {BASE} | down / {BASE} |",
        "|---|---|---|---|---|",
    ]
    for name, (up, down) in means.items():
        ratios = f"{up / means[BASE][0]:.2f} | {down / means[BASE][1]:.2f}" if name != BASE else " | "
        lines.append(f"| {name} | {up:.1f} s | {down:.1f} s | {ratios} |")
    lines.append(f"\nListContainerStats of {OURS}, with {count} containers: {statistics.median(stats):.1f} ms (p50).")
    return "\n".join(lines)


def _reads(runtime: Runtime, pid: int) -> str:
    pods = cri_load.fill(runtime, FEW_PODS, 1, AT_ONCE)
    columns = {f"{FEW_PODS} pods": cri_load.reads(runtime, pods[0])}
    _remove(runtime, pods)
    pods = cri_load.fill(runtime, FEW_PODS, RUNNING_EACH, AT_ONCE)
    running = FEW_PODS * RUNNING_EACH
    resident_mib = cri_load.resident_kib(pid) / 1024
    cri_load.create_more(runtime, pods, CREATED_EACH, AT_ONCE)
    total = FEW_PODS * (RUNNING_EACH + CREATED_EACH)
    columns[f"{total} containers"] = cri_load.reads(runtime, pods[0])
    _remove(runtime, pods)
    lines = ["| call, p50 | " + " | ".join(columns) + " |", "|---" * (len(columns) + 1) + "|"]
    first = next(iter(columns.values()))
    lines += [f"| {name} | " + " | ".join(f"{each[name]:.2f} ms" for each in columns.values()) + " |" for name in first]
    lines.append(f"\nResident memory with {running} running containers: {resident_mib:.1f} MiB.")
    return "\n".join(lines)


def _remove(runtime: Runtime, pods: list[Pod]) -> None:
    with ThreadPoolExecutor(AT_ONCE) as pool:
        list(pool.map(runtime.remove_pod, pods))


if __name__ == "__main__":
    sys.exit(main())
