"""A Ginkgo suite that runs in several processes: its command line, what it prints while it runs, what it reports.

Owns Ginkgo's formats, as far as `verdict` does not. Knows nothing of nodes and runtimes.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.conformance.verdict import FAILED, PASSED, SKIPPED, Exemption, Result, read_report

REPORT = "report.json"
JUNIT = "junit.xml"
_ENDED = re.compile(r"^(?P<mark>\S+) (?:\[(?P<state>[A-Z ]+)\] )*\[(?P<seconds>\d+\.\d+) seconds\]$")
_CHOSEN = re.compile(r"Will run (\d+) of (\d+) specs")


@dataclass(frozen=True, slots=True)
class Choice:
    """Which specs run: a label filter, a pattern of source files, patterns of names."""

    labels: str = ""
    files: str = ""
    focus: str = ""
    skip: str = ""

    def flags(self) -> list[str]:
        """The choice on Ginkgo's command line."""
        named = {"label-filter": self.labels, "focus-file": self.files, "focus": self.focus, "skip": self.skip}
        return [f"--{name}={value}" for name, value in named.items() if value]


def command(
    ginkgo: Path, suite: Path, choice: Choice, out: Path, suite_flags: Sequence[str], *, processes: int, timeout: str
) -> list[str]:
    """The command that runs the chosen specs of a compiled suite, so many at a time."""
    return [
        str(ginkgo), "-v", "--no-color", f"--procs={processes}", f"--timeout={timeout}",
        f"--output-dir={out}", f"--json-report={REPORT}", f"--junit-report={JUNIT}",
        *choice.flags(), str(suite), "--", *suite_flags,
    ]  # fmt: skip


def progress(lines: Iterable[str]) -> Iterator[int | Result]:
    """What a person wants to see of the output while it grows: how many specs will run, then each that ended."""
    ended: re.Match[str] | None = None
    for line in lines:
        if ended is not None and line.strip():
            outcome = {None: PASSED, "SKIPPED": SKIPPED}.get(ended["state"], FAILED)
            yield Result(line.strip(), outcome, seconds=float(ended["seconds"]))
            ended = None
        elif found := _CHOSEN.search(line):
            yield int(found[1])
        else:
            ended = _ENDED.match(line.strip()) or ended


def results_of_chosen(report: Sequence[Mapping[str, Any]]) -> list[Result]:
    """The results of the specs that were chosen, and of what had to go well before any of them could run."""
    chosen = [{"SpecReports": [spec for spec in suite["SpecReports"] or () if _was_chosen(spec)]} for suite in report]
    return [*_broken_preparations(report), *read_report(chosen)]


def exemptions_of_chosen(
    exemptions: Iterable[Exemption], report: Sequence[Mapping[str, Any]], results: Sequence[Result]
) -> list[Exemption]:
    """Without those that mean specs which there are, but were not chosen: this run says nothing of them."""
    every = [result.name for result in read_report(report)]
    chosen = [result.name for result in results]
    return [
        exemption
        for exemption in exemptions
        if any(exemption.spec in name for name in chosen) or not any(exemption.spec in name for name in every)
    ]


def _was_chosen(spec: Mapping[str, Any]) -> bool:
    """A spec that the choice left out is skipped like one that skips itself, but does not say why."""
    return spec["State"] != "skipped" or bool((spec.get("Failure") or {}).get("Message"))


def _broken_preparations(report: Sequence[Mapping[str, Any]]) -> list[Result]:
    return [
        Result(spec["LeafNodeType"], FAILED, (spec.get("Failure") or {}).get("Message", ""))
        for suite in report
        for spec in suite["SpecReports"] or ()
        if spec["LeafNodeType"] != "It" and spec["State"] not in ("passed", "skipped")
    ]
