"""The table of a bench: what it says was compared, and which figures count for the ratio."""

from __future__ import annotations

import pytest

from tests.bench.cri_load import Load
from tests.bench.pods import AGENT, ENGINE, SHIM, Batch, Usage
from tests.bench.report import Compared, merged, table
from tests.bench.stacks import OURS, RUNTIMES
from tests.lab.gotools import CRI_DOCKERD_VERSION, DOCKER_VERSION, KUBERNETES_VERSION

GO_KUBELET = f"Go kubelet {KUBERNETES_VERSION.removeprefix('v')}"
CRI_DOCKERD = f"cri-dockerd {CRI_DOCKERD_VERSION.removeprefix('v')}"
ON_DOCKER = Compared("ours + shim against theirs + shim, in turns on Docker", "ours", "theirs", "shim")


def batch(seconds: float, *, shim: bool = True) -> Batch:
    """Every figure is the same number; half of it for the shim, ten times as much for the engine."""
    usage = {AGENT: Usage(seconds, seconds, seconds), ENGINE: Usage(seconds * 10, seconds * 10, seconds * 10)}
    if shim:
        usage[SHIM] = Usage(seconds / 2, seconds / 2, seconds / 2)
    return Batch([seconds] * 3, [seconds] * 3, seconds, seconds, usage)


def rows(text: str) -> list[list[str]]:
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in text.splitlines() if line[:1] == "|"]


def test_what_was_compared_is_said_first() -> None:
    text = table({"ours": {1: [batch(1)]}, "theirs": {1: [batch(2)]}}, {}, ON_DOCKER)
    first = text.splitlines()[0]
    assert first == f"{ON_DOCKER.headline}. In brackets: the agent + its shim."
    alone = {stack: {1: [batch(1, shim=False)]} for stack in ("ours", "theirs")}
    assert table(alone, {}, ON_DOCKER).splitlines()[0] == f"{ON_DOCKER.headline}."


def test_an_agent_and_its_shim_count_together_and_are_shown_each() -> None:
    text = table({"ours": {1: [batch(1)]}, "theirs": {1: [batch(2)]}}, {}, ON_DOCKER)
    header, _, theirs, ours, ratio = rows(text)
    for name in ("CPU s", "idle CPU %", "RSS MiB"):
        column = header.index(name)
        assert (theirs[column], ours[column]) == ("3.00 (2.00 + 1.00)", "1.50 (1.00 + 0.50)")
        assert ratio[column] == "**0.50**"
    assert ours[header.index("engine's CPU s")] == "10.00"


def test_an_agent_without_a_shim_has_one_number() -> None:
    assert str(merged([batch(1, shim=False)])["CPU s"]) == "1.00"


def test_rounds_are_merged_by_their_median_and_memory_by_its_largest() -> None:
    figures = merged([batch(1), batch(4), batch(2)])
    assert str(figures["CPU s"]) == "3.00 (2.00 + 1.00)"
    assert str(figures["RSS MiB"]) == "6.00 (4.00 + 2.00)"


def test_calls_without_an_agent_have_a_row_that_names_what_served_them() -> None:
    results = {stack: {30: [batch(1)]} for stack in ("ours", "theirs")}
    header, _, bare, *_ = rows(table(results, {30: [Load(3, 4), Load(5, 6)]}, ON_DOCKER))
    assert bare[1] == "CRI calls alone (shim)"
    filled = {name: cell for name, cell in zip(header, bare, strict=True) if cell}
    assert filled == {"pods at once": "30", "stack": bare[1], "all Ready s": "4.00", "all gone s": "5.00"}


@pytest.mark.parametrize(
    ("runtime", "headline", "bare"),
    [
        ("containerd", f"kubelet-py against {GO_KUBELET}, in turns on containerd 1.6", "containerd 1.6"),
        (
            "docker",
            f"kubelet-py + dockershim against {GO_KUBELET} + {CRI_DOCKERD}, in turns on Docker {DOCKER_VERSION}",
            "dockershim",
        ),
    ],
)
def test_both_runtimes_say_what_stands_against_what(runtime: str, headline: str, bare: str) -> None:
    compared = RUNTIMES[runtime]
    assert (compared.headline(), compared.bare) == (headline, bare)
    assert compared.ours.agent == OURS
