"""One pytest that tries many mutants: it collects and runs the tests once, then forks a child for each mutant.

Runs in the directory of mutated modules, reads names of mutants from standard input and appends `name: outcome` to a
file as each is known, so that an interrupted run loses nothing. Owns which tests a mutant gets (those that reach its
function, the fastest first), when a child ends (at the first failure), and how long it may take.

A child that started pytest anew, as mutmut's own runner does, spends two thirds of its time on that. Time is the
child's own processor time: a machine that is busy, or a run that is stopped for a while, catches no mutant.
"""

from __future__ import annotations

import os
import resource
import signal
import sys
import time
from collections import Counter, defaultdict
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from typing import TextIO

import pytest
from mutmut.mutation.trampoline import set_mutant_under_test
from mutmut.state import state
from mutmut.utils.format_utils import mangled_name_from_mutant_name

CORE_TESTS = "tests/unit/kubelet_py/core"
PYTEST_ARGUMENTS = [
    "-q", "-s", "--tb=no", "--assert=plain", "-W", "ignore", "-p", "no:cacheprovider", "-p", "no:faulthandler",
    "-p", "no:xdist",
    "--hypothesis-profile=mutation", CORE_TESTS,
]  # fmt: skip
OUTCOME_BY_EXIT_CODE = {0: "survived", 1: "killed", -signal.SIGPROF: "timeout", -signal.SIGSEGV: "segfault"}
LEAST_LIMIT_SECONDS = 2.0
LIMIT_PER_SECOND_OF_TESTS = 5.0
MEMORY_LIMIT_BYTES = 4 << 30
_CACHED_FUNCTION = type(lru_cache(int))


class MutantLoop:
    """Takes the place of pytest's loop over the tests."""

    def __init__(self, names: Sequence[str], results: TextIO, workers: int) -> None:
        self._names = names
        self._results = results
        self._workers = workers
        self._tests: dict[str, list[pytest.Item]] = defaultdict(list)  # by function
        self._seconds: dict[pytest.Item, float] = {}
        self._running: dict[int, str] = {}  # the mutant by process id
        self._is_child = False
        self._left = Counter(module_of(name) for name in names)
        self._outcomes: dict[str, Counter[str]] = defaultdict(Counter)

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtestloop(self, session: pytest.Session) -> bool:
        self._learn(session.items)
        if session.testsfailed:
            raise session.Failed("tests fail without any mutant")
        set_mutant_under_test("")
        for name in self._names:
            tests = self._tests[mangled_name_from_mutant_name(name)]
            if not tests:
                self._note(name, "no tests")
                continue
            if len(self._running) == self._workers:
                self._reap()
            self._start(name, tests)
        while self._running:
            self._reap()
        return True

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtest_makereport(self, call: pytest.CallInfo[None]) -> None:
        """The first failure ends a child: what pytest would say about it is for nobody."""
        if self._is_child and call.excinfo is not None and not call.excinfo.errisinstance(pytest.skip.Exception):
            os._exit(1)

    def _learn(self, tests: Sequence[pytest.Item]) -> None:
        """Which functions each test reaches, and what it costs; and nothing computed here is remembered for later."""
        set_mutant_under_test("stats")
        for test in tests:
            start = time.process_time()
            test.config.hook.pytest_runtest_protocol(item=test, nextitem=None)
            self._seconds[test] = time.process_time() - start
            for function in state()._stats:
                self._tests[function].append(test)
            state()._stats.clear()
        for found in self._tests.values():
            found.sort(key=self._seconds.__getitem__)
        for module in [module for name, module in sys.modules.items() if name.startswith("kubelet_py.")]:
            for thing in vars(module).values():
                if isinstance(thing, _CACHED_FUNCTION):
                    thing.cache_clear()

    def _start(self, name: str, tests: Sequence[pytest.Item]) -> None:
        pid = os.fork()
        if pid:
            self._running[pid] = name
            return
        self._is_child = True
        try:
            nowhere = os.open(os.devnull, os.O_WRONLY)
            os.dup2(nowhere, 1)
            os.dup2(nowhere, 2)
            limit_seconds = LEAST_LIMIT_SECONDS + LIMIT_PER_SECOND_OF_TESTS * sum(map(self._seconds.__getitem__, tests))
            signal.setitimer(signal.ITIMER_PROF, limit_seconds)
            resource.setrlimit(resource.RLIMIT_AS, (MEMORY_LIMIT_BYTES, MEMORY_LIMIT_BYTES))
            set_mutant_under_test(name)
            for test, following in zip(tests, [*tests[1:], None], strict=True):
                test.config.hook.pytest_runtest_protocol(item=test, nextitem=following)
            os._exit(0)
        except BaseException:  # a mutant may raise SystemExit
            os._exit(1)

    def _reap(self) -> None:
        pid, status = os.wait()
        code = os.waitstatus_to_exitcode(status)
        self._note(self._running.pop(pid), OUTCOME_BY_EXIT_CODE.get(code, "suspicious"))

    def _note(self, name: str, outcome: str) -> None:
        self._results.write(f"{name}: {outcome}\n")
        self._results.flush()
        module = module_of(name)
        self._outcomes[module][outcome] += 1
        self._left[module] -= 1
        if not self._left[module]:
            told = ", ".join(f"{count} {outcome}" for outcome, count in self._outcomes[module].most_common())
            print(f"{time.strftime('%H:%M:%S')} {module}: {told}", flush=True)


def module_of(mutant: str) -> str:
    """`kubelet_py.core.dns.x_parse__mutmut_1` -> `dns`."""
    return mutant.split(".")[2]


def main() -> int:
    """`python -m tests.mutation.session RESULTS WORKERS` with names on standard input."""
    results_path, workers = sys.argv[1:]
    names = sys.stdin.read().split()
    sys.stdin = open(os.devnull)  # noqa: SIM115 # open as long as the process is
    with Path(results_path).open("a") as results:
        return int(pytest.main(PYTEST_ARGUMENTS, plugins=[MutantLoop(names, results, int(workers))]))


if __name__ == "__main__":
    sys.exit(main())
