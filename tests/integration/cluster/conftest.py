"""One stage per runtime for the whole suite; each test finds it whole and leaves no pods of its own."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.integration.cluster.objects import SERVED
from tests.integration.cluster.stage import PLAYS_GO, PODS, Stage
from tests.lab.cluster import Cluster
from tests.lab.lab import Lab

RUNTIMES = ("containerd",) if PLAYS_GO else ("containerd", "docker")


class Stages:
    """The stages, each started when the first test wants it; both stay, whatever the order of the tests."""

    def __init__(self) -> None:
        self._stages: dict[str, Stage] = {}
        self._failures: dict[str, Exception] = {}

    def of(self, runtime: str) -> Stage:
        """The stage with this runtime; one that did not start is not tried again."""
        if runtime in self._failures:
            raise self._failures[runtime]
        if runtime not in self._stages:
            docker, containerd = ("20.10", None) if runtime == "docker" else (None, "1.6")
            lab = Lab.start(docker=docker, containerd=containerd, registry=SERVED)
            try:
                self._stages[runtime] = Stage(lab, Cluster.start(lab), runtime)
            except BaseException as error:
                lab.stop()
                if isinstance(error, Exception):
                    self._failures[runtime] = error
                raise
        return self._stages[runtime]

    def close(self) -> None:
        """Ends all."""
        while self._stages:
            _, stage = self._stages.popitem()
            stage.close()
            stage.lab.stop()


@pytest.fixture(scope="session")
def stages() -> Iterator[Stages]:
    """All stages of this process."""
    started = Stages()
    yield started
    started.close()


@pytest.fixture(params=RUNTIMES)
def stage(request: pytest.FixtureRequest, stages: Stages) -> Iterator[Stage]:
    """A stage, whole; pods and manifests that the test leaves are deleted, which nobody waits for."""
    found = stages.of(request.param)
    found.heal()
    yield found
    found.remove_manifests()
    found.heal()
    found.cluster.request("DELETE", f"{PODS}?gracePeriodSeconds=1")
