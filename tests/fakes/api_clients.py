"""API clients for tests, made without a kubeconfig file."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from kubelet_py.kube.client import ApiClient, ClientSettings
from kubelet_py.kube.connection import Connection
from kubelet_py.kube.kubeconfig import Kubeconfig, load_kubeconfig

USER_AGENT = "kubelet-py-test"


@asynccontextmanager
async def client_for(url: str, *, qps: float = 0.0, timeout_seconds: float = 5.0) -> AsyncIterator[ApiClient]:
    """A client of a server that asks for no credentials."""
    connection = Connection(Kubeconfig(path=Path("/nowhere"), server=url))
    async with ApiClient(connection, ClientSettings(USER_AGENT, qps=qps, timeout_seconds=timeout_seconds)) as client:
        yield client


@asynccontextmanager
async def client_from(kubeconfig: Path, *, timeout_seconds: float = 10.0) -> AsyncIterator[ApiClient]:
    """A client as the agent makes it from a kubeconfig."""
    connection = Connection(load_kubeconfig(kubeconfig))
    async with ApiClient(connection, ClientSettings(USER_AGENT, qps=0, timeout_seconds=timeout_seconds)) as client:
        yield client
