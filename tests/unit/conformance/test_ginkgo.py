"""Ginkgo's formats, from excerpts of what it prints and writes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from tests.conformance import ginkgo
from tests.conformance.ginkgo import Choice
from tests.conformance.verdict import FAILED, PASSED, SKIPPED, Exemption, Result

LOG = """\
Running Suite: Kubernetes e2e suite - /work
Will run 2 of 7312 specs
Running in parallel across 2 processes
SSSSSSSSSS
------------------------------
• [4.069 seconds]
[sig-node] Pods should run [NodeConformance]
k8s.io/kubernetes@v1.37.2/test/e2e/common/node/pods.go:226

  Timeline >>
  << Timeline
------------------------------
SSS• [FAILED] [300.100 seconds]
[sig-node] Pods [It] should walk
------------------------------
S [SKIPPED] [0.500 seconds]

[sig-node] Pods [It] should fly
"""


def test_progress_is_a_line_for_each_spec_that_ended() -> None:
    assert list(ginkgo.progress(LOG.splitlines())) == [
        2,
        Result("[sig-node] Pods should run [NodeConformance]", PASSED, seconds=4.069),
        Result("[sig-node] Pods [It] should walk", FAILED, seconds=300.1),
        Result("[sig-node] Pods [It] should fly", SKIPPED, seconds=0.5),
    ]


def _spec(text: str, state: str, kind: str = "It", message: str = "") -> dict[str, Any]:
    return {
        "ContainerHierarchyTexts": ["Pods"] if kind == "It" else None,
        "LeafNodeText": text,
        "LeafNodeType": kind,
        "State": state,
        "RunTime": 2_500_000_000,
        "Failure": {"Message": message},
    }


REPORT = [
    {
        "SpecReports": [
            _spec("", "passed", "SynchronizedBeforeSuite"),
            _spec("run", "passed"),
            _spec("walk", "skipped"),
            _spec("fly", "skipped", message="no wings"),
        ]
    }
]


def test_what_was_not_chosen_has_no_result() -> None:
    assert ginkgo.results_of_chosen(REPORT) == [
        Result("Pods run", PASSED, seconds=2.5),
        Result("Pods fly", SKIPPED, "no wings", 2.5),
    ]


def test_a_suite_that_could_not_begin_has_failed() -> None:
    report = [{"SpecReports": [_spec("", "failed", "SynchronizedBeforeSuite", "no node"), _spec("run", "skipped")]}]
    assert ginkgo.results_of_chosen(report) == [Result("SynchronizedBeforeSuite", FAILED, "no node")]


def test_exemptions_of_specs_that_were_not_chosen_are_none_of_this_run() -> None:
    run, walk, gone = (Exemption(spec, FAILED, ("*",), "why") for spec in ("Pods run", "Pods walk", "Pods swim"))
    results = ginkgo.results_of_chosen(REPORT)
    assert ginkgo.exemptions_of_chosen([run, walk, gone], REPORT, results) == [run, gone]


def test_what_is_not_chosen_is_not_on_the_command_line() -> None:
    suite_flags = ["--provider=skeleton"]
    command = ginkgo.command(
        Path("/ginkgo"), Path("/e2e.test"), Choice("Slow"), Path("/out"), suite_flags, processes=3, timeout="1h"
    )
    assert "--label-filter=Slow" in command
    assert not [word for word in command if word.startswith(("--focus", "--skip"))]
    assert command[-3:] == ["/e2e.test", "--", "--provider=skeleton"]
