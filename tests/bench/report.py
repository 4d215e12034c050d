"""The table and the plot of a run. Pure but for the writing of files."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from statistics import median

from tests.bench.cri_load import Load
from tests.bench.pods import Batch

Results = Mapping[str, Mapping[int, Sequence[Batch]]]
"""Agent, number of pods at once, one batch for each round."""
Bare = Mapping[int, Sequence[Load]]
"""What CRI calls alone took: number of pods, one load for each round."""
ALL_READY, ALL_GONE = "all Ready s", "all gone s"


def percentile(values: Sequence[float], fraction: float) -> float:
    """The value that `fraction` of the sorted values do not exceed."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(len(ordered) * fraction))]


def merged(batches: Sequence[Batch]) -> dict[str, float]:
    """The figures of some rounds as one: percentiles over all pods, medians over rounds, the largest memory."""
    starts = [value for batch in batches for value in batch.starts]
    deletions = [value for batch in batches for value in batch.deletions]
    return {
        "start p50 s": percentile(starts, 0.5),
        "start p99 s": percentile(starts, 0.99),
        ALL_READY: median(batch.all_ready_seconds for batch in batches),
        "delete p50 s": percentile(deletions, 0.5),
        "delete p99 s": percentile(deletions, 0.99),
        ALL_GONE: median(batch.all_gone_seconds for batch in batches),
        "CPU s": median(batch.cpu_seconds for batch in batches),
        "idle CPU %": median(batch.idle_cpu_percent for batch in batches),
        "RSS MiB": max(batch.resident_mib for batch in batches),
    }


def table(results: Results, bare: Bare, ours: str, peer: str) -> str:
    """Markdown: for each number of pods a row for CRI calls alone, one for each agent, then the ratio ours / peer."""
    columns = list(merged(next(iter(results[ours].values()))))
    lines = ["| pods at once | agent | " + " | ".join(columns) + " |", "|---" * (len(columns) + 2) + "|"]
    for at_once in results[ours]:
        if loads := bare.get(at_once):
            alone = {
                ALL_READY: median(load.up_seconds for load in loads),
                ALL_GONE: median(load.down_seconds for load in loads),
            }
            cells = [f"{alone[name]:.2f}" if name in alone else "" for name in columns]
            lines.append(f"| {at_once} | CRI calls alone | " + " | ".join(cells) + " |")
        figures = {agent: merged(results[agent][at_once]) for agent in (peer, ours)}
        for agent, row in figures.items():
            lines.append(f"| {at_once} | {agent} | " + " | ".join(f"{row[name]:.2f}" for name in columns) + " |")
        ratios = [
            f"**{figures[ours][name] / figures[peer][name]:.2f}**" if figures[peer][name] else "" for name in columns
        ]
        lines.append(f"| {at_once} | ratio | " + " | ".join(ratios) + " |")
    return "\n".join(lines) + "\n"


def write(results: Results, bare: Bare, ours: str, peer: str, directory: Path) -> str:
    """Writes table.md, results.json and pods.png; gives the table."""
    directory.mkdir(parents=True, exist_ok=True)
    text = table(results, bare, ours, peer)
    (directory / "table.md").write_text(text)
    raw: dict[str, object] = {
        agent: {str(n): [asdict(batch) for batch in batches] for n, batches in by_size.items()}
        for agent, by_size in results.items()
    }
    raw["CRI calls alone"] = {str(n): [asdict(load) for load in loads] for n, loads in bare.items()}
    (directory / "results.json").write_text(json.dumps(raw, indent=1))
    _plot(results, directory / "pods.png")
    return text


def _plot(results: Results, path: Path) -> None:
    """How many pods are Ready after how many seconds, for each size."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    sizes = list(next(iter(results.values())))
    figure, axes = pyplot.subplots(2, len(sizes), figsize=(4.5 * len(sizes), 7), squeeze=False)
    for column, size in enumerate(sizes):
        for row, what in enumerate(("starts", "deletions")):
            axis = axes[row][column]
            for agent, by_size in results.items():
                values = sorted(value for batch in by_size[size] for value in getattr(batch, what))
                share = [(index + 1) / len(values) * 100 for index in range(len(values))]
                axis.step(values, share, where="post", label=agent)
            title = "create -> Ready" if what == "starts" else "delete -> gone"
            axis.set(title=f"{title}, {size} at once", xlabel="seconds", ylabel="% of pods", xlim=(0, None))
            axis.legend()
    figure.tight_layout()
    figure.savefig(path, dpi=110)
    pyplot.close(figure)
