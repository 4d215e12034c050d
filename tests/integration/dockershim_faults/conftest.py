"""One lab for the tests that leave Docker as it is; those that break it start one of their own."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.integration.dockershim_faults.stage import Stage
from tests.lab.engines.docker import DEFAULT_VERSION
from tests.lab.lab import Lab


@pytest.fixture(scope="package")
def lab() -> Iterator[Lab]:
    with Lab.start(docker=DEFAULT_VERSION) as started:
        yield started


@pytest.fixture(scope="module")
def stage(lab: Lab, request: pytest.FixtureRequest) -> Iterator[Stage]:
    made = Stage(lab, name=request.module.__name__.rpartition("test_")[2])
    yield made
    made.close()
