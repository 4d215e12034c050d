"""The lab as tests use it: a lab host with any of Docker, containerd and an image registry, ready to work.

    with Lab.start(docker="20.10", containerd="1.6") as lab:
        lab.docker.client("run", "--rm", BUSYBOX, "true")

Owns the order in which the parts start and the choice of images; each part owns itself.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Self

from tests.lab.engines.containerd import Containerd
from tests.lab.engines.docker import Docker, runtimes
from tests.lab.images import catalog
from tests.lab.process import LabError
from tests.lab.registry import Registry
from tests.lab.sandbox import Sandbox

PAUSE = "registry.k8s.io/pause:3.10"
BUSYBOX = "registry.k8s.io/e2e-test-images/busybox:1.29-2"


class Lab(Sandbox):
    """A lab host with engines. `lab.run` and `lab.popen` run things inside; see Sandbox."""

    def __init__(self, name: str | None = None, number: int = 1) -> None:
        super().__init__(name, number)
        self._docker: Docker | None = None
        self._containerd: Containerd | None = None
        self._registry: Registry | None = None

    @classmethod
    def start(
        cls,
        *,
        docker: str | None = None,
        containerd: str | None = None,
        images: Iterable[str] = (PAUSE, BUSYBOX),
        registry: bool | Iterable[str] = False,
        docker_settings: Mapping[str, Any] | None = None,
        handlers: Iterable[str] = (),
        before_engines: Sequence[str] = (),
        name: str | None = None,
        number: int = 1,
    ) -> Self:
        """Start a lab host with these engines; every engine has `images` loaded when this returns.

        `registry=True` serves every image of the catalog; a list of references serves those. `handlers` are names that
        the engines have for runc beside their own, unless `docker_settings` name their runtimes. `before_engines` is a
        command that prepares the host (mounts, for one) before anything else starts.
        """
        archives = [catalog.archive(image) for image in images] if docker or containerd else []
        served = catalog.IMAGES if registry is True else registry or ()
        built = {reference: catalog.manifest(reference) for reference in served}
        lab = cls(name, number)
        try:
            if before_engines:
                lab.run(before_engines)
            if built:
                lab._registry = Registry(lab, built)
            if docker:
                lab._docker = Docker(lab, docker, {"runtimes": runtimes(handlers), **(docker_settings or {})})
                lab._docker.load(archives)
            if containerd:
                lab._containerd = Containerd(lab, containerd, handlers)
                lab._containerd.load(archives)
        except BaseException:
            lab.stop()
            raise
        return lab

    @property
    def docker(self) -> Docker:
        """The lab's Docker."""
        if self._docker is None:
            raise LabError("this lab was started without docker=")
        return self._docker

    @property
    def containerd(self) -> Containerd:
        """The lab's containerd."""
        if self._containerd is None:
            raise LabError("this lab was started without containerd=")
        return self._containerd

    @property
    def registry(self) -> Registry:
        """The lab's image registry."""
        if self._registry is None:
            raise LabError("this lab was started without registry=")
        return self._registry

    @property
    def docker_socket(self) -> Path:
        """Docker's socket, usable from outside too."""
        return self.docker.socket

    @property
    def containerd_socket(self) -> Path:
        """containerd's socket, usable from outside too (gRPC: unix:<path>)."""
        return self.containerd.socket
