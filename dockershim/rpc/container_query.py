"""ContainerStatus, ListContainers and StreamContainers: from memory, without a call to Docker.

Upstream counterpart: cri-dockerd's core/container_status.go and container_list.go.
"""

from __future__ import annotations

import json
from collections.abc import AsyncIterator

from cri_proto import runtime_v1 as cri
from dockershim.node import Node

CHUNK_ITEMS = 200


class ContainerQuery:
    """The handlers."""

    def __init__(self, node: Node) -> None:
        self._node = node

    async def container_status(self, request: cri.ContainerStatusRequest) -> cri.ContainerStatusResponse:
        """See CRI."""
        view = self._node.store.require_container(request.container_id)
        response = cri.ContainerStatusResponse(status=view.status)
        if request.verbose:
            details = {
                "pid": view.pid,
                "sandboxID": view.sandbox_id,
                "dockerName": view.name,
                "dockerLogPath": view.docker_log_path,
            }
            response.info["info"] = json.dumps(details, sort_keys=True)
        return response

    async def list_containers(self, request: cri.ListContainersRequest) -> cri.ListContainersResponse:
        """See CRI."""
        return cri.ListContainersResponse(containers=self._node.store.select_containers(request.filter))

    async def stream_containers(
        self, request: cri.StreamContainersRequest
    ) -> AsyncIterator[cri.StreamContainersResponse]:
        """See CRI."""
        items = list(self._node.store.select_containers(request.filter))
        for start in range(0, len(items), CHUNK_ITEMS):
            yield cri.StreamContainersResponse(containers=items[start : start + CHUNK_ITEMS])
