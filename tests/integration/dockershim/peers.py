"""The shims that made what nodes on Docker carry today, spoken to like ours: cri-dockerd, and what it was made from.

That is the dockershim that the kubelet had until Kubernetes 1.23: its CRI is v1alpha2, whose messages are those of v1
under another package name. cri-dockerd has kept its names, labels and checkpoints.
"""

from __future__ import annotations

from abc import abstractmethod
from pathlib import Path
from typing import Any, ClassVar

import grpc

from cri_proto.runtime_v1 import api_pb2_grpc
from tests.integration.dockershim.harness import Shim
from tests.lab import cridockerd, gotools
from tests.lab.lab import Lab


class Peer(Shim):
    """One process of such a shim, with CNI or on Docker's bridge."""

    cni_version: ClassVar[str]
    """The newest version of a CNI configuration that it reads."""
    handlers: ClassVar[bool]
    """Whether it knows runtime handlers."""

    def __init__(self, lab: Lab, name: str, root: Path, *flags: str) -> None:
        self._root = root
        super().__init__(lab, name, None, *flags)

    @abstractmethod
    def command(self) -> list[str]:
        """What is started."""


class CriDockerd(Peer):
    """The real one, which needs Docker 29."""

    cni_version = "1.0.0"
    handlers = True

    def command(self) -> list[str]:
        """What is started."""
        root = f"--cri-dockerd-root-directory={self._root}"
        return cridockerd.command(self.socket, self.docker_socket, root, *self.flags)


class KubeletDockershim(Peer):
    """The kubelet's own."""

    cni_version = "0.4.0"
    handlers = False

    def command(self) -> list[str]:
        """What is started."""
        return [
            str(gotools.ensure("kubelet-dockershim")),
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
