"""What counts as a good run, and that the lists in the tree can be read."""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Any

import pytest

from tests.conformance import critest, e2e
from tests.conformance.verdict import (
    Exemption,
    Result,
    counts,
    explain,
    judge,
    read_exemptions,
    read_report,
    summary,
)

HOPELESS = Exemption("fixed digest", "failed", ("docker-*",), "nobody has that image")


def test_a_listed_failure_is_good_and_an_unlisted_one_is_not() -> None:
    results = [Result("pulls a fixed digest", "failed"), Result("runs", "passed")]
    assert judge(results, [HOPELESS], "docker-29").good
    verdict = judge([*results, Result("stops", "failed", "it did not")], [HOPELESS], "docker-29")
    assert verdict.unexpected == (Result("stops", "failed", "it did not"),)
    assert explain(verdict) == "failed: stops\n    it did not"


def test_a_skip_that_nobody_listed_is_not_good() -> None:
    assert not judge([Result("runs", "skipped")], [], "docker-29").good


def test_a_listed_failure_that_passes_is_not_good() -> None:
    verdict = judge([Result("pulls a fixed digest", "passed")], [HOPELESS], "docker-29")
    assert explain(verdict) == "passed, and the list says it does not: pulls a fixed digest"


def test_a_line_that_means_nothing_is_not_good() -> None:
    assert judge([], [HOPELESS], "docker-29").stale == (HOPELESS,)


def test_a_line_is_for_its_runtimes_only() -> None:
    assert judge([Result("runs", "passed")], [HOPELESS], "containerd-2.4").good
    assert not judge([Result("pulls a fixed digest", "failed")], [HOPELESS], "containerd-2.4").good


def test_ginkgos_report_is_read() -> None:
    def spec(state: str, kind: str = "It", **more: Any) -> dict[str, Any]:
        return {
            "ContainerHierarchyTexts": ["[k8s.io] Container"], "LeafNodeText": state, "LeafNodeType": kind,
            "State": state, **more,
        }  # fmt: skip

    report = [
        {
            "SpecReports": [
                spec("passed", RunTime=2_000_000_000),
                spec(
                    "panicked",
                    Failure={"Message": "failed\n  <*status.Error>:\n  rpc error: code = Unknown desc = no\n"},
                ),
                spec("skipped"),
                spec("passed", "BeforeSuite"),
            ]
        }
    ]
    results = read_report(report)
    assert results == [
        Result("[k8s.io] Container passed", "passed", seconds=2.0),
        Result("[k8s.io] Container panicked", "failed", "rpc error: code = Unknown desc = no"),
        Result("[k8s.io] Container skipped", "skipped"),
    ]
    assert counts(results) == {"ran": 2, "passed": 1, "failed": 1, "skipped": 1}
    assert summary({"docker-29": counts(results)}).splitlines()[-1] == "| docker-29 | 2 | 1 | 1 | 1 |"


@pytest.mark.parametrize("file", [critest.LIST, e2e.LIST, e2e.NODE_LIST], ids=lambda file: file.name)
def test_the_lists_can_be_read(file: Path) -> None:
    exemptions = read_exemptions(tomllib.loads(file.read_text()))
    assert len(exemptions) == len({(exemption.spec, exemption.runtimes) for exemption in exemptions})


def test_an_entry_without_a_reason_is_refused() -> None:
    entry = {"spec": "x", "outcome": "failed", "runtimes": ["docker-29"], "reason": ""}
    with pytest.raises(ValueError, match="'x'"):
        read_exemptions({"exemption": [entry]})


def test_endings_make_an_entry_of_each() -> None:
    """Of many specs with one beginning some may fail; the others of the group still have to pass."""
    entry = {"spec": "restart resizing ", "endings": ["cpu [", "mem ["], "outcome": "failed", "runtimes": ["*"]}
    exemptions = read_exemptions({"exemption": [{**entry, "reason": "the kernel refuses"}]})
    assert [exemption.spec for exemption in exemptions] == ["restart resizing cpu [", "restart resizing mem ["]
    results = [Result(f"a restart resizing {what} [Beta]", "failed") for what in ("cpu", "mem", "pod-level cpu")]
    assert judge(results, exemptions, "go/containerd-1.6").unexpected == (results[2],)
