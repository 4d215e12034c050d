"""The CRI runtimes that `make bench-cri` compares, each started for its turn and stopped after it.

dockershim is there twice: on Docker 20.10, and on the Docker 29 that cri-dockerd needs. Two shims on one Docker would
both follow what either does, so only the one whose turn it is runs.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from functools import partial

from tests.bench import cri_load
from tests.bench.cri_load import Runtime
from tests.integration.dockershim.harness import Shim
from tests.lab import cridockerd, gotools
from tests.lab.engines.containerd import write_cni_configuration
from tests.lab.engines.docker import SETTINGS_FOR_PEERS
from tests.lab.lab import Lab

BASE = "containerd 1.6"
"""What the others are measured by."""
OURS = "dockershim, Docker 20.10"
Runtimes = Mapping[str, Callable[[], AbstractContextManager[Runtime]]]


@contextmanager
def all_of_them(lab: Lab, flags: tuple[str, ...]) -> Iterator[Runtimes]:
    """Those of this lab, with Docker 20.10 and containerd, and those on the Docker 29 of a lab that is started here."""
    with Lab.start(docker=cridockerd.DOCKER_VERSION, docker_settings=SETTINGS_FOR_PEERS) as newer:
        yield {
            BASE: partial(_containerd, lab),
            OURS: partial(_dockershim, lab, flags),
            "dockershim, Docker 29": partial(_dockershim, newer, flags),
            f"cri-dockerd {gotools.CRI_DOCKERD_VERSION.lstrip('v')}, Docker 29": partial(_cri_dockerd, newer),
        }


def in_turns(runtimes: Runtimes, warm_up: int) -> Iterator[tuple[str, Runtime]]:
    """Each twice, the second time in the opposite order, so that a machine that slows down does so for all."""
    for name in (*runtimes, *reversed(list(runtimes))):
        with runtimes[name]() as runtime:
            cri_load.many(runtime, warm_up, warm_up)
            yield name, runtime


@contextmanager
def _containerd(lab: Lab) -> Iterator[Runtime]:
    runtime = Runtime(lab.containerd_socket, lab.root / "pod-logs-containerd")
    yield runtime
    runtime.close()


@contextmanager
def _dockershim(lab: Lab, flags: tuple[str, ...]) -> Iterator[Runtime]:
    write_cni_configuration(lab)
    shim = Shim(lab, "dockershim-in-turn", None, "--network-plugin=cni", *flags)
    runtime = Runtime(shim.socket, lab.root / "pod-logs-dockershim")
    yield runtime
    runtime.close()
    shim.stop()


@contextmanager
def _cri_dockerd(lab: Lab) -> Iterator[Runtime]:
    server = cridockerd.start(lab)
    runtime = Runtime(server.socket, lab.root / "pod-logs-cri-dockerd")
    yield runtime
    runtime.close()
    server.process.stop()
