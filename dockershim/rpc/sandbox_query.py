"""PodSandboxStatus, ListPodSandbox and StreamPodSandboxes: from memory, without a call to Docker.

A verbose status also asks the CNI plugins whether the pod's network is as they made it (CHECK).

Upstream counterpart: cri-dockerd's core/sandbox_status.go and sandbox_list.go.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Any

from google.protobuf.json_format import MessageToDict

from cri_proto import runtime_v1 as cri
from dockershim.lifecycle import network_request
from dockershim.node import Node
from dockershim.translate.views import SandboxRecord, SandboxView

CHUNK_ITEMS = 200
CHECK_SECONDS = 1.5  # below the two seconds that crictl waits


class SandboxQuery:
    """The handlers."""

    def __init__(self, node: Node) -> None:
        self._node = node

    async def pod_sandbox_status(self, request: cri.PodSandboxStatusRequest) -> cri.PodSandboxStatusResponse:
        """See CRI."""
        view = self._node.store.require_sandbox(request.pod_sandbox_id)
        response = cri.PodSandboxStatusResponse(
            status=view.status,
            containers_statuses=self._node.store.statuses(view.id),
            timestamp=self._node.clock_ns(),
        )
        if request.verbose:
            record = view.record
            details = {
                "pid": view.pid,
                "dockerName": view.name,
                "runtime": view.docker_runtime,
                "network": dict(record.raw) if record else {},
                "networkTornDown": bool(record and record.network_torn_down),
                "networkTrouble": await self._network_trouble(view),
                "resources": _as_json(record, "resources"),
                "overhead": _as_json(record, "overhead"),
            }
            response.info["info"] = json.dumps(details, sort_keys=True)
        return response

    async def _network_trouble(self, view: SandboxView) -> str:
        """What the network's plugins find wrong with a pod, for the person who asks about this one.

        It changes nothing else: plugins complain without cause (portmap 1.1 about all dual-stack pods with host ports).
        """
        record = view.record
        if view.host_network or record is None or record.network_torn_down:
            return ""
        try:
            async with asyncio.timeout(CHECK_SECONDS):
                return await self._node.network.check(network_request(record, view.pid), record.raw)
        except TimeoutError:
            return f"the network's plugins gave no answer within {CHECK_SECONDS:g} s"

    async def list_pod_sandbox(self, request: cri.ListPodSandboxRequest) -> cri.ListPodSandboxResponse:
        """See CRI."""
        return cri.ListPodSandboxResponse(items=self._node.store.select_sandboxes(request.filter))

    async def stream_pod_sandboxes(
        self, request: cri.StreamPodSandboxesRequest
    ) -> AsyncIterator[cri.StreamPodSandboxesResponse]:
        """See CRI."""
        items = list(self._node.store.select_sandboxes(request.filter))
        for start in range(0, len(items), CHUNK_ITEMS):
            yield cri.StreamPodSandboxesResponse(pod_sandboxes=items[start : start + CHUNK_ITEMS])


def _as_json(record: SandboxRecord | None, part: str) -> dict[str, Any]:
    return MessageToDict(getattr(record.config.linux, part)) if record else {}
