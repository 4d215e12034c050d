"""`make mutants [MODULE=pod_actions]`: is each rule in kubelet_py/core held by a test that fails when it is changed?

mutmut changes one operator, constant or call at a time and runs the tests that reach the changed function. Owns where
that happens (a copy of the committed tree in the cache, so that a second run goes on where the first was interrupted),
the table by module, and the aim. Ends with 1 below the aim; what survived is listed, for who writes the next test.

Nothing is exempt but what mutmut itself leaves out: code outside functions, and functions under decorators it does not
know. So some of what survives cannot be caught by any test: a default that every caller gives, a text for people.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping
from pathlib import Path

from tests.lab.paths import cache_dir

REPOSITORY = Path(__file__).resolve().parents[2]
AIM_PERCENT = 85.0
CAUGHT = frozenset({"killed", "timeout", "segfault"})
MISSED = frozenset({"survived", "no tests", "suspicious"})


def main() -> int:
    """0 when enough was caught."""
    parser = argparse.ArgumentParser(prog="python -m tests.mutation", description="Mutants of kubelet_py/core.")
    parser.add_argument("module", nargs="?", default="", help="one module, such as pod_actions (all of them)")
    parser.add_argument("--workers", type=int, default=os.cpu_count() or 1)
    options = parser.parse_args()
    tree = _fresh_tree()
    pattern = f"kubelet_py.core.{options.module or ''}" + (".*" if options.module else "*")
    command = [sys.executable, "-m", "mutmut", "run", "--max-children", str(options.workers), pattern]
    environment = {**os.environ, "PYTHONPATH": str(tree)}
    done = subprocess.run(command, cwd=tree, env=environment, check=False)
    if done.returncode:
        return done.returncode
    listed = subprocess.run(
        [sys.executable, "-m", "mutmut", "results", "--all", "true"],
        cwd=tree, env=environment, text=True, capture_output=True, check=True,
    )  # fmt: skip
    outcomes = read_outcomes(listed.stdout.splitlines())
    chosen = {
        name: outcome for name, outcome in outcomes.items() if not options.module or _module(name) == options.module
    }
    print("\n".join(survivors(chosen)))
    lines, percent = table(chosen)
    print("\n".join(lines))
    return 0 if percent >= AIM_PERCENT else 1


def _fresh_tree() -> Path:
    """The committed tree, with what earlier runs of the same commit found."""
    commit = subprocess.run(
        ["git", "-C", str(REPOSITORY), "rev-parse", "HEAD"], text=True, capture_output=True, check=True
    ).stdout.strip()
    tree = cache_dir() / "mutants" / commit[:12]
    if not tree.exists():
        tree.parent.mkdir(parents=True, exist_ok=True)
        subprocess.run(["git", "clone", "--quiet", str(REPOSITORY), str(tree)], check=True)
    return tree


def read_outcomes(lines: Iterable[str]) -> dict[str, str]:
    """By mutant, from the lines `    name: outcome` of `mutmut results`; those that were not tried are left out."""
    pairs = (line.strip().rpartition(": ") for line in lines)
    return {name: outcome for name, _, outcome in pairs if outcome in CAUGHT | MISSED}


def survivors(outcomes: Mapping[str, str]) -> list[str]:
    """The functions whose mutants live, most of them first."""
    alive = Counter(name.partition("__mutmut_")[0] for name, outcome in outcomes.items() if outcome in MISSED)
    return [f"{count:4} alive in {name}" for name, count in alive.most_common()]


def table(outcomes: Mapping[str, str]) -> tuple[list[str], float]:
    """A line for each module and one for all; and the share that was caught, in percent."""
    modules: dict[str, Counter[bool]] = defaultdict(Counter)
    for name, outcome in outcomes.items():
        modules[_module(name)][outcome in CAUGHT] += 1
    everything = sum(modules.values(), Counter[bool]())
    lines = ["| module | mutants | caught | score |", "|---|---|---|---|"]
    for module, counts in [*sorted(modules.items(), key=lambda item: _percent(item[1])), ("all", everything)]:
        lines.append(f"| {module} | {counts.total()} | {counts[True]} | {_percent(counts):.1f} % |")
    return lines, _percent(everything)


def _percent(counts: Counter[bool]) -> float:
    return 100.0 * counts[True] / counts.total() if counts else 0.0


def _module(mutant: str) -> str:
    """`kubelet_py.core.dns.x_parse__mutmut_1` -> `dns`."""
    return mutant.split(".")[2]


if __name__ == "__main__":
    sys.exit(main())
