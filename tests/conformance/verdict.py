"""What a run of a Ginkgo suite means: its results against the list of specs that may end otherwise. Pure.

A spec passes, or stands in the list with the outcome it has and the reason for it. A listed spec that ends differently,
and a line of the list that means no spec, are as wrong as a failure: the list would lie.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Any

PASSED, FAILED, SKIPPED = "passed", "failed", "skipped"
_LONGEST_GIST = 400
_OUTCOMES = {"passed": PASSED, "skipped": SKIPPED, "pending": SKIPPED}  # every other state is a failure


@dataclass(frozen=True, slots=True)
class Result:
    """One spec of a run."""

    name: str
    outcome: str
    detail: str = ""
    seconds: float = 0.0


@dataclass(frozen=True, slots=True)
class Exemption:
    """Specs whose name holds `spec` end with `outcome` on these runtimes (patterns), for a reason."""

    spec: str
    outcome: str
    runtimes: tuple[str, ...]
    reason: str

    def is_for(self, runtime: str) -> bool:
        """Whether it speaks of this runtime."""
        return any(fnmatchcase(runtime, pattern) for pattern in self.runtimes)


@dataclass(frozen=True, slots=True)
class Verdict:
    """The specs that ended as nobody said, and the lines of the list that meant none."""

    unexpected: tuple[Result, ...]
    stale: tuple[Exemption, ...]

    @property
    def good(self) -> bool:
        """Whether everything ended as it should."""
        return not self.unexpected and not self.stale


def read_report(report: Sequence[Mapping[str, Any]]) -> list[Result]:
    """The specs of Ginkgo's JSON report, in the order in which they ran."""
    results = []
    for suite in report:
        for spec in suite["SpecReports"] or ():
            if spec["LeafNodeType"] != "It":
                continue
            name = " ".join([*(spec["ContainerHierarchyTexts"] or ()), spec["LeafNodeText"]])
            failure = spec.get("Failure") or {}
            outcome = _OUTCOMES.get(spec["State"], FAILED)
            results.append(Result(name, outcome, _gist(failure.get("Message", "")), spec.get("RunTime", 0) / 1e9))
    return results


def _gist(message: str) -> str:
    """The line that says most: the runtime's own answer where there is one, else the first."""
    lines = [line.strip() for line in message.splitlines() if line.strip()]
    said = [line for line in lines if "desc = " in line] or lines
    return said[0][:_LONGEST_GIST] if said else ""


def read_exemptions(table: Mapping[str, Any]) -> list[Exemption]:
    """The list, as it is in TOML; `endings` make one entry of each. ValueError says which entry is wrong."""
    exemptions = []
    for entry in table["exemption"]:
        if entry["outcome"] not in (FAILED, SKIPPED) or not entry["reason"] or not entry["runtimes"]:
            raise ValueError(f"exemption {entry['spec']!r}: wants an outcome (failed or skipped), runtimes, a reason")
        exemptions += [
            Exemption(f"{entry['spec']}{ending}", entry["outcome"], tuple(entry["runtimes"]), entry["reason"])
            for ending in entry.get("endings", ("",))
        ]
    return exemptions


def judge(results: Sequence[Result], exemptions: Sequence[Exemption], runtime: str) -> Verdict:
    """Hold the results of a runtime against the list."""
    applying = [exemption for exemption in exemptions if exemption.is_for(runtime)]
    used: set[Exemption] = set()
    unexpected = []
    for result in results:
        meant = [exemption for exemption in applying if exemption.spec in result.name]
        used.update(meant)
        allowed = {exemption.outcome for exemption in meant} or {PASSED}
        if result.outcome not in allowed:
            unexpected.append(result)
    return Verdict(tuple(unexpected), tuple(exemption for exemption in applying if exemption not in used))


def counts(results: Sequence[Result]) -> dict[str, int]:
    """How many ran, passed, failed and were skipped."""
    by_outcome = Counter(result.outcome for result in results)
    passed, failed = by_outcome[PASSED], by_outcome[FAILED]
    return {"ran": passed + failed, PASSED: passed, FAILED: failed, SKIPPED: by_outcome[SKIPPED]}


def summary(rows: Mapping[str, Mapping[str, int]]) -> str:
    """A Markdown table of counts, a row for each runtime."""
    columns = ("ran", PASSED, FAILED, SKIPPED)
    lines = [f"| runtime | {' | '.join(columns)} |", "|---" * (len(columns) + 1) + "|"]
    lines += [f"| {name} | {' | '.join(str(row[column]) for column in columns)} |" for name, row in rows.items()]
    return "\n".join(lines)


def explain(verdict: Verdict) -> str:
    """What a person should look at, a line for each thing; empty when everything ended as it should."""
    lines = []
    for result in verdict.unexpected:
        what = "passed, and the list says it does not" if result.outcome == PASSED else result.outcome
        lines.append(f"{what}: {result.name}" + (f"\n    {result.detail}" if result.detail else ""))
    lines += [f"the list means no spec of this run: {exemption.spec}" for exemption in verdict.stale]
    return "\n".join(lines)
