"""One lab with Docker and one dockershim per module; each test leaves no pods."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.integration.dockershim.counting_proxy import CountingProxy
from tests.integration.dockershim.harness import Shim
from tests.lab.engines.docker import DEFAULT_VERSION
from tests.lab.lab import Lab


@pytest.fixture(scope="package")
def lab() -> Iterator[Lab]:
    with Lab.start(docker=DEFAULT_VERSION) as started:
        yield started


@pytest.fixture(scope="module")
def proxy(lab: Lab, request: pytest.FixtureRequest) -> Iterator[CountingProxy]:
    path = lab.root / "run" / f"counted-{request.module.__name__.rpartition('.')[2]}.sock"
    counted = CountingProxy(path, lab.docker_socket)
    yield counted
    counted.close()


@pytest.fixture(scope="module")
def shim_process(lab: Lab, proxy: CountingProxy, request: pytest.FixtureRequest) -> Iterator[Shim]:
    name = request.module.__name__.rpartition(".")[2].removeprefix("test_")
    started = Shim(lab, f"shim-{name}", lab.root / "run" / f"counted-test_{name}.sock")
    yield started
    started.stop()


@pytest.fixture
def shim(shim_process: Shim) -> Iterator[Shim]:
    yield shim_process
    shim_process.remove_all()
