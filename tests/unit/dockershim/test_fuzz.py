"""Whatever a request says, the answer is a code that means something, and the server goes on."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from cri_proto import runtime_v1 as cri
from cri_proto.runtime_v1 import api_pb2_grpc
from dockershim import app
from dockershim.config import Config
from dockershim.node import NodeSettings
from tests.fakes.docker_node import IMAGE, PAUSE, FakeLogs, FakePodNetwork, stocked_engine
from tests.fuzz import cri_requests
from tests.fuzz.cri_requests import RPCS, placed, requests

EXAMPLES = 40
MEANINGLESS = {grpc.StatusCode.UNKNOWN, grpc.StatusCode.INTERNAL, grpc.StatusCode.UNAVAILABLE}
ENDLESS = {"GetContainerEvents", "ExecSync"}
"""A stream without an end, and a command that may have none."""


class Node:
    """A server in a thread with a loop of its own, and always a sandbox and a container for requests to mean."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self._engine = stocked_engine()
        self._started = threading.Event()
        self._thread = threading.Thread(target=lambda: asyncio.run(self._serve()), name="fuzzed dockershim")
        self._thread.start()
        assert self._started.wait(10)
        self.channel = grpc.insecure_channel(f"unix://{root}/cri.sock")
        grpc.channel_ready_future(self.channel).result(10)
        self.runtime: Any = api_pb2_grpc.RuntimeServiceStub(self.channel)
        self.stubs = {"RuntimeService": self.runtime, "ImageService": api_pb2_grpc.ImageServiceStub(self.channel)}
        self._made = 0

    async def _serve(self) -> None:
        self._loop, self._stop = asyncio.get_running_loop(), asyncio.Event()
        parts = app.Parts(
            self._engine, FakePodNetwork(), FakeLogs(), NodeSettings(pause_image=PAUSE, cgroup_root=str(self.root))
        )
        self._started.set()
        await app.serve(Config(socket_path=self.root / "cri.sock", root_directory=self.root / "s"), parts, self._stop)

    def close(self) -> None:
        self.channel.close()
        self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join(20)

    def places(self) -> dict[str, str]:
        """What the placeholders mean now; what earlier requests took away is there again."""
        if not any(image.get("RepoTags") == [IMAGE] for image in self._engine.images.values()):
            self._engine.add_image(IMAGE)
        wanted = cri.ContainerFilter(state=cri.ContainerStateValue(state=cri.ContainerState.CONTAINER_RUNNING))
        for container in self.runtime.ListContainers(cri.ListContainersRequest(filter=wanted)).containers:
            if container.metadata.name == "fuzzed":
                return self._named(container.pod_sandbox_id, container.id)
        self._made += 1
        config = cri.PodSandboxConfig(
            metadata=cri.PodSandboxMetadata(name="pod", namespace="ns", uid=f"made-{self._made}")
        )
        sandbox_id = self.runtime.RunPodSandbox(cri.RunPodSandboxRequest(config=config)).pod_sandbox_id
        image = next(key for key, each in self._engine.images.items() if IMAGE in each["RepoTags"])
        made = cri.ContainerConfig(
            metadata=cri.ContainerMetadata(name="fuzzed"), image=cri.ImageSpec(image=image), command=["sleep"]
        )
        create = cri.CreateContainerRequest(pod_sandbox_id=sandbox_id, config=made, sandbox_config=config)
        container_id = self.runtime.CreateContainer(create).container_id
        self.runtime.StartContainer(cri.StartContainerRequest(container_id=container_id))
        return self._named(sandbox_id, container_id)

    def _named(self, sandbox_id: str, container_id: str) -> dict[str, str]:
        return {
            cri_requests.SANDBOX: sandbox_id,
            cri_requests.CONTAINER: container_id,
            cri_requests.IMAGE: IMAGE,
            cri_requests.DIRECTORY: str(self.root / "host"),
        }

    def outcome(self, service: str, rpc: str, request: Any) -> tuple[grpc.StatusCode, str]:
        """The code and the message of a call."""
        call = getattr(self.stubs[service], rpc)
        try:
            answer = call(request, timeout=0.05 if rpc in ENDLESS else 10)
            if rpc == "GetContainerEvents" or rpc.startswith("Stream"):
                list(answer)
        except grpc.RpcError as error:
            return error.code(), error.details() or ""
        return grpc.StatusCode.OK, ""


@pytest.fixture(scope="module")
def node(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Node]:
    made = Node(tmp_path_factory.mktemp("fuzz"))
    yield made
    made.close()


@pytest.mark.parametrize(("service", "rpc"), RPCS)
@settings(max_examples=EXAMPLES, deadline=None, suppress_health_check=list(HealthCheck))
@given(data=st.data())
def test_any_request_has_an_answer_that_means_something(
    node: Node, service: str, rpc: str, data: st.DataObject
) -> None:
    request = placed(data.draw(requests(service, rpc)), node.places())
    code, message = node.outcome(service, rpc, request)
    assert code not in MEANINGLESS, message
    assert code is grpc.StatusCode.OK or message
    assert code is not grpc.StatusCode.DEADLINE_EXCEEDED or rpc in ENDLESS


@pytest.mark.parametrize(("service", "rpc"), RPCS)
def test_an_empty_request_has_an_answer_too(node: Node, service: str, rpc: str) -> None:
    kind = getattr(cri, cri_requests.SERVICES[service].methods_by_name[rpc].input_type.name)
    code, message = node.outcome(service, rpc, kind())
    assert code not in MEANINGLESS, message


def test_nothing_was_made_outside_the_directory_of_the_fuzz(node: Node) -> None:
    """The strategy keeps paths of the host inside: else it must not be run on anybody's machine."""
    assert {entry.name for entry in node.root.iterdir()} <= {"host", "s", "cri.sock"}
