"""`make mutants [MODULE=pod_actions]`: is each rule in kubelet_py/core held by a test that fails when it is changed?

mutmut changes one operator, constant or call at a time; tests.mutation.session runs the tests that reach the changed
function. Owns where that happens (a copy of the committed tree in the cache, so that a second run goes on where the
first was interrupted), the table by module, and the aim. Ends with 1 below the aim; what survived is listed, for who
writes the next test.

Nothing is exempt but what mutmut itself leaves out: code outside functions, and functions under decorators it does not
know. So some of what survives cannot be caught by any test: a default that every caller gives, a text for people.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import shutil
import subprocess
import sys
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping
from pathlib import Path

from mutmut.__main__ import create_mutants
from mutmut.configuration import config
from mutmut.utils.file_utils import copy_also_copy_files, copy_src_dir

from tests.lab.paths import cache_dir
from tests.mutation.session import module_of

CORE = "kubelet_py/core"
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
    tree = _mutated_tree(options.module)
    results = tree / "results.txt"
    results.touch()
    names = _mutants(tree)
    known = read_outcomes(results.read_text().splitlines())
    session = [sys.executable, "-m", "tests.mutation.session", str(results), str(options.workers)]
    done = subprocess.run(
        session,
        cwd=tree / "mutants",
        env={**os.environ, "PYTHONPATH": str(tree / "mutants"), "PYTHONHASHSEED": "0"},
        input="\n".join(name for name in names if name not in known),
        text=True,
        check=False,
    )
    if done.returncode:
        return done.returncode
    outcomes = read_outcomes(results.read_text().splitlines())
    missing = set(names) - set(outcomes)
    if missing:
        print(f"not tried: {len(missing)}, such as {min(missing)}")
        return 1
    print("\n".join(survivors(outcomes)))
    lines, percent = table(outcomes)
    print("\n".join(lines))
    print(f"What a mutant changes: cd {tree} && {sys.executable} -m mutmut show NAME, with a name from results.txt")
    return 0 if percent >= AIM_PERCENT else 1


def _mutated_tree(module: str) -> Path:
    """The committed tree with its mutants in `mutants`, and with what earlier runs of the same commit found."""
    commit = subprocess.run(
        ["git", "-C", str(REPOSITORY), "rev-parse", "HEAD"], text=True, capture_output=True, check=True
    ).stdout.strip()
    tree = cache_dir() / "mutants" / "-".join(filter(None, (commit[:12], module)))
    if not tree.exists():
        unfinished = tree.with_name(tree.name + ".new")
        shutil.rmtree(unfinished, ignore_errors=True)
        unfinished.parent.mkdir(parents=True, exist_ok=True)
        subprocess.run(["git", "clone", "--quiet", str(REPOSITORY), str(unfinished)], check=True)
        _make_mutants(unfinished, module)
        unfinished.rename(tree)
    return tree


def _make_mutants(tree: Path, module: str) -> None:
    os.chdir(tree)  # mutmut reads pyproject.toml and writes ./mutants
    if module:
        config().only_mutate = [f"{CORE}/{module}.py"]
    with open(os.devnull, "w") as nowhere, contextlib.redirect_stdout(nowhere):
        copy_src_dir()
        copy_also_copy_files()
        create_mutants(os.cpu_count() or 1)


def _mutants(tree: Path) -> list[str]:
    """The names of all mutants, those of the smallest modules first: an interrupted run has whole modules to show."""
    listings = (json.loads(path.read_text()) for path in (tree / "mutants" / CORE).glob("*.py.meta"))
    by_module = [list(listing["exit_code_by_key"]) for listing in listings]
    return [name for names in sorted(by_module, key=len) for name in names]


def read_outcomes(lines: Iterable[str]) -> dict[str, str]:
    """By mutant, from lines such as `name: killed`; a line that was cut short counts as none."""
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
        modules[module_of(name)][outcome in CAUGHT] += 1
    everything = sum(modules.values(), Counter[bool]())
    lines = ["| module | mutants | caught | score |", "|---|---|---|---|"]
    for module, counts in [*sorted(modules.items(), key=lambda item: _percent(item[1])), ("all", everything)]:
        lines.append(f"| {module} | {counts.total()} | {counts[True]} | {_percent(counts):.1f} % |")
    return lines, _percent(everything)


def _percent(counts: Counter[bool]) -> float:
    return 100.0 * counts[True] / counts.total() if counts else 0.0


if __name__ == "__main__":
    sys.exit(main())
