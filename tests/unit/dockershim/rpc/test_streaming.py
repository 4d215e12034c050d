"""Exec, Attach, PortForward before a client comes: codes, URLs, tokens; and a client that is no good."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from cri_proto import runtime_v1 as cri
from dockershim.errors import InvalidArgument, NotFound
from dockershim.rpc.streaming import Streaming
from tests.fakes.docker_node import running_node


@pytest.mark.parametrize(
    "request_",
    [
        cri.ExecRequest(container_id="x", stdout=True),
        cri.ExecRequest(container_id="x", cmd=["ls"]),
        cri.ExecRequest(container_id="x", cmd=["ls"], tty=True, stdout=True, stderr=True),
        cri.AttachRequest(container_id="x"),
        cri.PortForwardRequest(pod_sandbox_id="x", port=[0]),
        cri.PortForwardRequest(pod_sandbox_id="x", port=[65536]),
    ],
)
async def test_what_cannot_be_streamed_is_refused(tmp_path: Path, request_: Any) -> None:
    """With the field's name, before anybody is looked for."""
    async with running_node(tmp_path) as world:
        with pytest.raises(InvalidArgument):
            await call(Streaming(world.node), request_)


@pytest.mark.parametrize(
    "request_",
    [
        cri.ExecRequest(container_id="x", cmd=["ls"], stdout=True),
        cri.AttachRequest(container_id="x", stdout=True),
        cri.PortForwardRequest(pod_sandbox_id="x"),
    ],
)
async def test_unknown_ids(tmp_path: Path, request_: Any) -> None:
    """NotFound."""
    async with running_node(tmp_path) as world:
        with pytest.raises(NotFound):
            await call(Streaming(world.node), request_)


async def call(streaming: Streaming, request: Any) -> Any:
    """The handler of a request."""
    if isinstance(request, cri.ExecRequest):
        return await streaming.exec(request)
    if isinstance(request, cri.AttachRequest):
        return await streaming.attach(request)
    return await streaming.port_forward(request)
