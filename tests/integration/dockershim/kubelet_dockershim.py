"""The dockershim that the kubelet had until Kubernetes 1.23, as the peer that made what a node carries.

cri-dockerd is made from it and has kept its names, labels and checkpoints. Spoken to like ours: its CRI is v1alpha2,
whose messages are those of v1 under another package name.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import grpc

from cri_proto.runtime_v1 import api_pb2_grpc
from tests.integration.dockershim.harness import Shim
from tests.lab import gotools
from tests.lab.lab import Lab
from tests.lab.sandbox import REPOSITORY

OOM_FLOOR = REPOSITORY / "tests" / "lab" / "engines" / "oom-floor"
DOCKER_SETTINGS = {"runtimes": {"oom-floor": {"path": str(OOM_FLOOR)}}, "default-runtime": "oom-floor"}
"""Of a Docker for it: it gives pause a negative OOM score, which needs a right that tests may not have."""


class KubeletDockershim(Shim):
    """One process of it, with CNI or on Docker's bridge."""

    def __init__(self, lab: Lab, name: str, root: Path, *flags: str) -> None:
        self._program = gotools.ensure("kubelet-dockershim")
        self._root = root
        super().__init__(lab, name, None, *flags)

    def command(self) -> list[str]:
        """What is started."""
        return [
            str(self._program),
            f"--container-runtime-endpoint=unix://{self.socket}",
            f"--docker-endpoint=unix://{self.docker_socket}",
            f"--root-directory={self._root}",
            "--cni-bin-dir=/usr/lib/cni",
            *self.flags,
        ]

    def connect(self) -> None:
        """New stubs."""
        if self._channel is not None:
            self._channel.close()
        self._channel = grpc.insecure_channel(f"unix://{self.socket}")
        channel: Any = _V1Alpha2(self._channel)
        self.runtime = api_pb2_grpc.RuntimeServiceStub(channel)
        self.images = api_pb2_grpc.ImageServiceStub(channel)


class _V1Alpha2:
    """A channel on which calls of v1 become calls of v1alpha2."""

    def __init__(self, channel: grpc.Channel) -> None:
        self._channel = channel

    def unary_unary(self, method: str, *arguments: Any, **options: Any) -> Any:
        return self._channel.unary_unary(_older(method), *arguments, **options)

    def unary_stream(self, method: str, *arguments: Any, **options: Any) -> Any:
        return self._channel.unary_stream(_older(method), *arguments, **options)


def _older(method: str) -> str:
    return method.replace("/runtime.v1.", "/runtime.v1alpha2.")
