"""The same suite for the fake and for kube-apiserver."""

from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from kubelet_py.kube.client import ApiClient
from tests.fakes.api_clients import client_for, client_from
from tests.fakes.api_server import FakeApiServer


@pytest.fixture(scope="module")
def kubeconfig(request: pytest.FixtureRequest) -> Iterator[Path | None]:
    """Of a real control plane, or None for the fake."""
    if request.param == "fake":
        yield None
        return
    from tests.lab.cluster import Cluster
    from tests.lab.lab import Lab

    with Lab.start() as lab, Cluster.start(lab) as cluster:
        yield cluster.outside_kubeconfig()


@pytest.fixture
async def api(kubeconfig: Path | None) -> AsyncIterator[ApiClient]:
    """A client with all rights."""
    if kubeconfig is not None:
        async with client_from(kubeconfig) as client:
            yield client
        return
    async with FakeApiServer.running() as server, client_for(server.url) as client:
        yield client


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Run each test against both servers."""
    if "kubeconfig" in metafunc.fixturenames:
        both = ["fake", pytest.param("real", marks=pytest.mark.lab)]
        metafunc.parametrize("kubeconfig", both, indirect=True, scope="module")
