"""cri-dockerd in a lab: the CRI runtime on Docker that dockershim takes the place of.

It wants Docker's API 1.42, so it runs on the lab's Docker 29 and not on 20.10, and that Docker needs
`SETTINGS_FOR_PEERS`. Owns its command line and when it is ready.
"""

from __future__ import annotations

from pathlib import Path

from tests.lab import gotools
from tests.lab.engines.containerd import write_cni_configuration
from tests.lab.lab import Lab
from tests.lab.process import CriServer

DOCKER_VERSION = "29"


def command(socket: Path, docker_socket: Path, *flags: str) -> list[str]:
    """What is started; it finds the CNI plugins where Debian puts them."""
    return [
        str(gotools.ensure("cri-dockerd")),
        f"--container-runtime-endpoint=unix://{socket}",
        f"--docker-endpoint=unix://{docker_socket}",
        "--cni-bin-dir=/usr/lib/cni",
        "--streaming-bind-addr=127.0.0.1",
        *flags,
    ]


def start(lab: Lab, *flags: str) -> CriServer:
    """Start it on the lab's Docker with the lab's CNI network and wait until it listens."""
    write_cni_configuration(lab)
    socket = lab.root / "run" / "cri-dockerd.sock"
    process = lab.popen(command(socket, lab.docker_socket, *flags), log="cri-dockerd")
    lab.wait_until("cri-dockerd", lambda: lab.accepts(socket), process=process)
    return CriServer(process, socket)
