"""The whole server over the fake engine: every RPC is bound, codes, and the socket."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import grpc
import grpc.aio
import pytest
from google.protobuf.descriptor import Descriptor
from google.protobuf.message import Message

from cri_proto import runtime_v1 as cri
from cri_proto.runtime_v1 import api_pb2, api_pb2_grpc
from dockershim import app, errors
from dockershim.config import Config
from dockershim.interceptor import CODES, code_of
from dockershim.node import NodeSettings
from tests.fakes.docker_engine import FakeDockerEngine
from tests.fakes.docker_node import PAUSE, FakeLogs, FakePodNetwork, stocked_engine

SERVICES = {name: api_pb2.DESCRIPTOR.services_by_name[name] for name in ("RuntimeService", "ImageService")}
RPCS = [(service, method.name) for service, found in SERVICES.items() for method in found.methods]
CALL_SECONDS = 30.0
NEED_CHECKPOINTS = {"CheckpointContainer", "CheckpointPod", "RestorePod"}
"""Of a Docker with experimental features, which this one is not."""


class Client:
    """Both stubs over one socket."""

    def __init__(self, socket: Path) -> None:
        self.channel = grpc.aio.insecure_channel(f"unix://{socket}")
        self.stubs = {
            "RuntimeService": api_pb2_grpc.RuntimeServiceStub(self.channel),
            "ImageService": api_pb2_grpc.ImageServiceStub(self.channel),
        }

    async def code(self, service: str, rpc: str, request: Message) -> grpc.StatusCode:
        """The code that a call ends with."""
        return (await self.outcome(service, rpc, request))[0]

    async def outcome(self, service: str, rpc: str, request: Message) -> tuple[grpc.StatusCode, str]:
        """Code and message; endless streams end with the deadline."""
        call: Any = getattr(self.stubs[service], rpc)(request, timeout=0.3 if rpc == "GetContainerEvents" else 10)
        try:
            if hasattr(call, "__aiter__"):
                async for _ in call:
                    pass
            else:
                await call
        except grpc.aio.AioRpcError as error:
            return error.code(), error.details() or ""
        return grpc.StatusCode.OK, ""


@asynccontextmanager
async def serving(root: Path, engine: FakeDockerEngine) -> AsyncIterator[Client]:
    """A server that has caught up, and a client."""
    socket = root / "cri.sock"
    parts = app.Parts(engine, FakePodNetwork(), FakeLogs(), NodeSettings(pause_image=PAUSE))
    stop = asyncio.Event()
    async with asyncio.TaskGroup() as group:
        group.create_task(
            app.serve(Config(socket_path=socket, root_directory=root / "state"), parts, stop), name="serve"
        )
        client = Client(socket)
        try:
            async with asyncio.timeout(CALL_SECONDS):
                await client.channel.channel_ready()
            yield client
        finally:
            await client.channel.close(None)
            stop.set()


@pytest.fixture
def engine() -> FakeDockerEngine:
    return stocked_engine()


async def ready(client: Client) -> None:
    """Until reads are answered."""
    async with asyncio.timeout(CALL_SECONDS):
        while await client.code("RuntimeService", "ListContainers", cri.ListContainersRequest()) != grpc.StatusCode.OK:  # noqa: ASYNC110 - a client can only ask again
            await asyncio.sleep(0.01)


def request_of(service: str, rpc: str) -> Descriptor:
    return SERVICES[service].methods_by_name[rpc].input_type


async def test_every_rpc_is_bound(tmp_path: Path, engine: FakeDockerEngine) -> None:
    """What is not there says so with its own name and a reason."""
    async with serving(tmp_path, engine) as client:
        await ready(client)
        for service, rpc in RPCS:
            request = getattr(cri, request_of(service, rpc).name)()
            code, message = await client.outcome(service, rpc, request)
            assert (code is grpc.StatusCode.UNIMPLEMENTED) == (rpc in NEED_CHECKPOINTS)
            assert code is not grpc.StatusCode.UNIMPLEMENTED or message.startswith(f"{rpc}: ")


async def test_before_docker_answers(tmp_path: Path, engine: FakeDockerEngine) -> None:
    """Status and Version are answered, the rest is Unavailable with the reason."""
    engine.away = True
    async with serving(tmp_path, engine) as client:
        stub: Any = client.stubs["RuntimeService"]
        status = await stub.Status(cri.StatusRequest())
        assert [condition.type for condition in status.status.conditions] == ["RuntimeReady", "NetworkReady"]
        assert not status.status.conditions[0].status
        assert (await stub.Version(cri.VersionRequest())).runtime_version
        for service, rpc in (("RuntimeService", "ListPodSandbox"), ("ImageService", "ListImages")):
            request = getattr(cri, f"{rpc}Request")()
            assert await client.code(service, rpc, request) is grpc.StatusCode.UNAVAILABLE
        engine.away = False
        await ready(client)


async def test_a_live_socket_is_not_taken(tmp_path: Path, engine: FakeDockerEngine) -> None:
    """A second server on the same socket or root is refused; a stale socket is replaced; anything else is kept."""
    async with serving(tmp_path, engine):
        with pytest.raises(errors.ConfigError, match="already"):
            app.claim_socket(tmp_path / "cri.sock")
        with pytest.raises(errors.ConfigError, match="another dockershim"):
            app.lock_root(tmp_path / "state")
    (tmp_path / "file.sock").write_text("not a socket")
    with pytest.raises(errors.ConfigError, match="no socket"):
        app.claim_socket(tmp_path / "file.sock")


def test_every_error_has_a_code() -> None:
    """The table covers the tree, and the nearest class counts."""
    kinds = [errors.ShimError]
    for kind in kinds:
        kinds += kind.__subclasses__()
    for kind in kinds:
        assert any(base in CODES for base in kind.__mro__)
    assert code_of(errors.InUse("x")) is grpc.StatusCode.FAILED_PRECONDITION
    assert code_of(errors.EngineFailed("x")) is grpc.StatusCode.UNKNOWN
