"""The table and the plot of a run. Pure but for the writing of files."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median

from tests.bench.cri_load import Load
from tests.bench.pods import AGENT, ENGINE, SHIM, Batch

Results = Mapping[str, Mapping[int, Sequence[Batch]]]
"""Stack, number of pods at once, one batch for each round."""
Bare = Mapping[int, Sequence[Load]]
"""What CRI calls alone took: number of pods, one load for each round."""
ALL_READY, ALL_GONE = "all Ready s", "all gone s"


@dataclass(frozen=True)
class Compared:
    """Whose figures they are."""

    headline: str
    ours: str
    peer: str
    bare: str
    """What served the CRI calls alone."""


@dataclass(frozen=True)
class Figure:
    """One cell: a number, or the sum of those of the agent and its shim, each shown too."""

    parts: tuple[float, ...]

    @property
    def total(self) -> float:
        """What counts."""
        return sum(self.parts)

    def __str__(self) -> str:
        each = " + ".join(f"{part:.2f}" for part in self.parts)
        return f"{self.total:.2f} ({each})" if len(self.parts) > 1 else each


def percentile(values: Sequence[float], fraction: float) -> float:
    """The value that `fraction` of the sorted values do not exceed."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(len(ordered) * fraction))]


def merged(batches: Sequence[Batch]) -> dict[str, Figure]:
    """The figures of some rounds as one: percentiles over all pods, medians over rounds, the largest memory."""
    starts = [value for batch in batches for value in batch.starts]
    deletions = [value for batch in batches for value in batch.deletions]
    node = [part for part in (AGENT, SHIM) if part in batches[0].usage]

    def cpu(*parts: str) -> Figure:
        return Figure(tuple(median(batch.usage[part].cpu_seconds for batch in batches) for part in parts))

    def idle(*parts: str) -> Figure:
        return Figure(tuple(median(batch.usage[part].idle_cpu_percent for batch in batches) for part in parts))

    return {
        "start p50 s": Figure((percentile(starts, 0.5),)),
        "start p99 s": Figure((percentile(starts, 0.99),)),
        ALL_READY: Figure((median(batch.all_ready_seconds for batch in batches),)),
        "delete p50 s": Figure((percentile(deletions, 0.5),)),
        "delete p99 s": Figure((percentile(deletions, 0.99),)),
        ALL_GONE: Figure((median(batch.all_gone_seconds for batch in batches),)),
        "CPU s": cpu(*node),
        "idle CPU %": idle(*node),
        "RSS MiB": Figure(tuple(max(batch.usage[part].resident_mib for batch in batches) for part in node)),
        "engine's CPU s": cpu(ENGINE),
        "engine's idle CPU %": idle(ENGINE),
    }


def table(results: Results, bare: Bare, compared: Compared) -> str:
    """Markdown: for each number of pods a row for CRI calls alone, one for each stack, then the ratio ours / peer."""
    ours, peer = compared.ours, compared.peer
    first = merged(next(iter(results[ours].values())))
    columns = list(first)
    brackets = " In brackets: the agent + its shim." if len(first["CPU s"].parts) > 1 else ""
    lines = [f"{compared.headline}.{brackets}", ""]
    lines += ["| pods at once | stack | " + " | ".join(columns) + " |", "|---" * (len(columns) + 2) + "|"]
    for at_once in results[ours]:
        if loads := bare.get(at_once):
            alone = {
                ALL_READY: median(load.up_seconds for load in loads),
                ALL_GONE: median(load.down_seconds for load in loads),
            }
            cells = [f"{alone[name]:.2f}" if name in alone else "" for name in columns]
            lines.append(f"| {at_once} | CRI calls alone ({compared.bare}) | " + " | ".join(cells) + " |")
        figures = {stack: merged(results[stack][at_once]) for stack in (peer, ours)}
        for stack, row in figures.items():
            lines.append(f"| {at_once} | {stack} | " + " | ".join(str(row[name]) for name in columns) + " |")
        ratios = [_ratio(figures[ours][name], figures[peer][name]) for name in columns]
        lines.append(f"| {at_once} | ratio | " + " | ".join(ratios) + " |")
    return "\n".join(lines) + "\n"


def _ratio(ours: Figure, peer: Figure) -> str:
    return f"**{ours.total / peer.total:.2f}**" if peer.total else ""


def write(results: Results, bare: Bare, compared: Compared, directory: Path) -> str:
    """Writes table.md, results.json and pods.png; gives the table."""
    directory.mkdir(parents=True, exist_ok=True)
    text = table(results, bare, compared)
    (directory / "table.md").write_text(text)
    raw: dict[str, object] = {
        stack: {str(n): [asdict(batch) for batch in batches] for n, batches in by_size.items()}
        for stack, by_size in results.items()
    }
    raw["compared"] = asdict(compared)
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
            for stack, by_size in results.items():
                values = sorted(value for batch in by_size[size] for value in getattr(batch, what))
                share = [(index + 1) / len(values) * 100 for index in range(len(values))]
                axis.step(values, share, where="post", label=stack)
            title = "create -> Ready" if what == "starts" else "delete -> gone"
            axis.set(title=f"{title}, {size} at once", xlabel="seconds", ylabel="% of pods", xlim=(0, None))
            axis.legend()
    figure.tight_layout()
    figure.savefig(path, dpi=110)
    pyplot.close(figure)
