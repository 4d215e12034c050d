"""Requests with anything in them, on a real Docker: a code with a reason, and nothing left of what they made.

The many examples are in unit/dockershim/test_fuzz.py; these few are the same each time.
"""

from __future__ import annotations

from typing import Any

import grpc
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from cri_proto import runtime_v1 as cri
from tests.fuzz import cri_requests
from tests.fuzz.cri_requests import RPCS, placed, requests
from tests.integration.dockershim_faults.stage import Stage
from tests.lab.lab import BUSYBOX

pytestmark = pytest.mark.lab

EXAMPLES = 6
ENDLESS = {"GetContainerEvents"}
SCRIPT = "trap 'exit 0' TERM; while :; do sleep 0.1; done"


@pytest.fixture(scope="module")
def places(stage: Stage) -> Places:
    return Places(stage)


class Places:
    """A pod for the requests to mean, made anew when one has taken it away."""

    def __init__(self, stage: Stage) -> None:
        self.stage = stage
        self.directory = stage.lab.root / "fuzz"
        self.before = stage.holdings()

    def now(self, rpc: str) -> dict[str, str]:
        """What the placeholders mean."""
        wanted = cri.ContainerFilter(state=cri.ContainerStateValue(state=cri.ContainerState.CONTAINER_RUNNING))
        listed = self.stage.shim.runtime.ListContainers(cri.ListContainersRequest(filter=wanted)).containers
        found = [container for container in listed if container.metadata.name == "fuzzed"]
        if not found:
            sandbox = self.stage.shim.run_sandbox(self.stage.config())
            self.stage.shim.run(sandbox, SCRIPT, metadata=cri.ContainerMetadata(name="fuzzed"))
            return self.now(rpc)
        return {
            cri_requests.SANDBOX: found[0].pod_sandbox_id,
            cri_requests.CONTAINER: found[0].id,
            cri_requests.IMAGE: "registry.k8s.io/no/such:1" if rpc == "RemoveImage" else BUSYBOX,
            cri_requests.DIRECTORY: str(self.directory),
        }


def outcome(stage: Stage, service: str, rpc: str, request: Any) -> tuple[grpc.StatusCode, str]:
    stub = stage.shim.runtime if service == "RuntimeService" else stage.shim.images
    try:
        answer = getattr(stub, rpc)(request, timeout=0.2 if rpc in ENDLESS else 30)
        if rpc.startswith("Stream") or rpc in ENDLESS:
            list(answer)
    except grpc.RpcError as error:
        return error.code(), error.details() or ""
    return grpc.StatusCode.OK, ""


@pytest.mark.parametrize(("service", "rpc"), RPCS)
@settings(
    max_examples=EXAMPLES, deadline=None, derandomize=True, database=None, suppress_health_check=list(HealthCheck)
)
@given(data=st.data())
def test_any_request(places: Places, service: str, rpc: str, data: st.DataObject) -> None:
    request = placed(data.draw(requests(service, rpc)), places.now(rpc))
    code, message = outcome(places.stage, service, rpc, request)
    assert code is not grpc.StatusCode.INTERNAL, message
    assert code is grpc.StatusCode.OK or message
    assert code is not grpc.StatusCode.UNAVAILABLE or rpc == "PullImage", message
    assert code is not grpc.StatusCode.DEADLINE_EXCEEDED or rpc in ENDLESS


def test_nothing_is_left_of_them(places: Places) -> None:
    """And dockershim has not met anything that it did not foresee."""
    places.stage.shim.remove_all()
    places.stage.same(places.before)
    process = places.stage.shim.process
    assert process is not None
    assert process.log is not None
    assert "Traceback" not in process.log.read_text()
