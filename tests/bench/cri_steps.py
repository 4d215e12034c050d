"""What dockershim adds to Docker's own time, step by step.

Each round makes one pod with one container twice on the same Docker: by the Docker SDK with the very bodies that
dockershim sends (for sandbox and container create, start, inspect), and by CRI calls to dockershim. They take turns,
and who begins changes, so that a machine that slows down does so for both.
"""

from __future__ import annotations

import statistics
from collections import defaultdict
from collections.abc import Callable
from typing import Any

from docker.api import APIClient

from cri_proto import runtime_v1 as cri
from dockershim.host import lowest_oom_score
from dockershim.network.bridge import BridgeSettings
from dockershim.translate.container_spec import ContainerContext, to_docker_container
from dockershim.translate.names import container_name, sandbox_name
from dockershim.translate.sandbox_spec import SandboxContext, to_docker_sandbox
from tests.bench.cri_load import Clock, Times
from tests.integration.dockershim.harness import Shim
from tests.lab.lab import BUSYBOX, PAUSE

STEPS = ("RunPodSandbox", "CreateContainer", "StartContainer")


def measure(shim: Shim, rounds: int) -> tuple[Times, Times]:
    """The times of Docker alone and of dockershim; the latter must use Docker's own network."""
    bare: Times = defaultdict(list)
    ours: Times = defaultdict(list)
    docker = APIClient(base_url=f"unix://{shim.lab.docker_socket}", version="1.41", timeout=120)
    docker.trust_env = False
    try:
        for number in range(rounds + 1):
            turns: list[Callable[[], None]] = [
                lambda: _bare_pod(docker, shim, bare),
                lambda: _cri_pod(shim, ours),
            ]
            for turn in turns if number % 2 else reversed(turns):
                turn()
            if number == 0:  # the first of each warms caches
                bare.clear()
                ours.clear()
    finally:
        docker.close()
    return bare, ours


def _configs(shim: Shim) -> tuple[cri.PodSandboxConfig, cri.ContainerConfig]:
    container = cri.ContainerConfig(
        metadata=cri.ContainerMetadata(name="main"),
        image=cri.ImageSpec(image=BUSYBOX),
        command=["sleep", "1000"],
        log_path="main/0.log",
    )
    return shim.sandbox_config(), container


def _cri_pod(shim: Shim, times: Times) -> None:
    config, container = _configs(shim)
    with Clock(times, "RunPodSandbox"):
        sandbox = shim.run_sandbox(config)
    request = cri.CreateContainerRequest(pod_sandbox_id=sandbox[0], config=container, sandbox_config=config)
    with Clock(times, "CreateContainer"):
        container_id = shim.runtime.CreateContainer(request, timeout=60).container_id
    with Clock(times, "StartContainer"):
        shim.start_container(container_id)
    shim.remove_sandbox(sandbox[0])


def _bare_pod(docker: APIClient, shim: Shim, times: Times) -> None:
    config, container = _configs(shim)
    lowest = lowest_oom_score()  # as dockershim finds it in the lab
    network = BridgeSettings().name
    context = SandboxContext(PAUSE, network, publishes_ports=True, lowest_oom_score=lowest)
    body = to_docker_sandbox(config, "", context)
    created: list[str] = []
    try:
        with Clock(times, "RunPodSandbox"):
            created.append(_create(docker, sandbox_name(config.metadata), body))
            docker.start(created[0])
            docker.inspect_container(created[0])
        in_sandbox = ContainerContext(created[0], config.metadata, BUSYBOX, (1, 41), lowest_oom_score=lowest)
        body = to_docker_container(container, config, in_sandbox)
        with Clock(times, "CreateContainer"):
            created.append(_create(docker, container_name(config.metadata, container.metadata), body))
        with Clock(times, "StartContainer"):
            docker.start(created[1])
            docker.inspect_container(created[1])
    finally:
        for identifier in reversed(created):
            docker.remove_container(identifier, force=True, v=True)


def _create(docker: APIClient, name: str, body: dict[str, Any]) -> str:
    create: Any = docker.create_container_from_config  # untyped in the stubs
    return str(create(body, name)["Id"])


def table(bare: Times, ours: Times) -> str:
    """One line for each step and one for all, in milliseconds."""
    lines = ["| step | Docker alone p50 | dockershim p50 | ratio | added |", "|---|---|---|---|---|"]
    rows = {step: (bare[step], ours[step]) for step in STEPS}
    rows["all three"] = (_sums(bare), _sums(ours))
    for name, (theirs, mine) in rows.items():
        base, own = (statistics.median(times) * 1000 for times in (theirs, mine))
        lines.append(f"| {name} | {base:.1f} ms | {own:.1f} ms | {own / base:.2f} | {own - base:+.1f} ms |")
    return "\n".join(lines)


def _sums(times: Times) -> list[float]:
    return [sum(one) for one in zip(*(times[step] for step in STEPS), strict=True)]
