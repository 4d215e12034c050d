"""A dockershim of its own on the machine's Docker, and its client: pods and containers in a call each.

Owns the directory, the socket and Docker's settings while it runs. For a machine of its own only (`make boot`).
"""

from __future__ import annotations

import contextlib
import itertools
import json
import shutil
import subprocess
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import grpc

from cri_proto import runtime_v1 as cri
from cri_proto.runtime_v1.api_pb2_grpc import RuntimeServiceStub
from deploy.standalone import images
from tests.machine.waiting import CALL_SECONDS, until

PROGRAMS = Path("/opt/kubelet-py/bin")
STATE = Path("/var/lib/runtime-test")
SOCKET = Path("/run/runtime-test.sock")
PARENT = "kubepods-podruntimetest.slice"
DAEMON_JSON = Path("/etc/docker/daemon.json")


class Runtime:
    """A dockershim of its own, and its client."""

    def __init__(self) -> None:
        self.log = (STATE / "log").open("wb")
        flags = [
            f"--container-runtime-endpoint=unix://{SOCKET}", f"--root-directory={STATE}/root", "--log-level=debug",
            f"--pod-infra-container-image={images.PAUSE}", "--network-plugin=bridge",
        ]  # fmt: skip
        self.process = subprocess.Popen([PROGRAMS / "dockershim", *flags], stderr=self.log)
        self.channel = grpc.insecure_channel(f"unix://{SOCKET}")
        self.cri = RuntimeServiceStub(self.channel)
        self.configs: dict[str, cri.ContainerConfig] = {}
        self._numbers = itertools.count()

    def is_ready(self) -> bool:
        """Whether it serves, and has reached Docker."""
        status = self.cri.Status(cri.StatusRequest(), timeout=CALL_SECONDS, wait_for_ready=True).status
        return all(condition.status for condition in status.conditions)

    def close(self) -> None:
        """Stop it and wait."""
        self.channel.close()
        self.process.terminate()
        self.process.wait(CALL_SECONDS)
        self.log.close()

    def pod(self, **security: Any) -> tuple[str, cri.PodSandboxConfig]:
        """A sandbox that runs; its id and configuration."""
        name = f"pod-{next(self._numbers)}"
        config = cri.PodSandboxConfig(
            metadata=cri.PodSandboxMetadata(name=name, namespace="default", uid=f"uid-{name}"),
            log_directory=f"/var/log/pods/{name}",
            linux=cri.LinuxPodSandboxConfig(
                cgroup_parent=PARENT, security_context=cri.LinuxSandboxSecurityContext(**security)
            ),
        )
        answer = self.cri.RunPodSandbox(cri.RunPodSandboxRequest(config=config), timeout=CALL_SECONDS)
        return answer.pod_sandbox_id, config

    def create(
        self, pod: tuple[str, cri.PodSandboxConfig], script: str, mounts: Iterable[cri.Mount] = (), **linux: Any
    ) -> str:
        """A container of a pod, by its shell script; its id."""
        name = f"c{next(self._numbers)}"
        config = cri.ContainerConfig(
            metadata=cri.ContainerMetadata(name=name),
            image=cri.ImageSpec(image=images.HELLO),
            command=["/bin/busybox", "sh", "-c", script],
            log_path=f"{name}.log",
            mounts=mounts,
            linux=cri.LinuxContainerConfig(**linux),
        )
        request = cri.CreateContainerRequest(pod_sandbox_id=pod[0], config=config, sandbox_config=pod[1])
        answer: cri.CreateContainerResponse = self.cri.CreateContainer(request, timeout=CALL_SECONDS)
        self.configs[answer.container_id] = config
        return answer.container_id

    def name_of(self, container_id: str) -> str:
        """What its configuration calls it."""
        return self.configs[container_id].metadata.name

    def run(
        self,
        pod: tuple[str, cri.PodSandboxConfig],
        script: str = "sleep 100000",
        mounts: Iterable[cri.Mount] = (),
        **linux: Any,
    ) -> str:
        """One that is started."""
        container_id = self.create(pod, script, mounts, **linux)
        self.cri.StartContainer(cri.StartContainerRequest(container_id=container_id), timeout=CALL_SECONDS)
        return container_id

    def exec(self, container_id: str, script: str) -> cri.ExecSyncResponse:
        """What a script in a running container says."""
        request = cri.ExecSyncRequest(container_id=container_id, cmd=["/bin/busybox", "sh", "-c", script])
        answer: cri.ExecSyncResponse = self.cri.ExecSync(request, timeout=CALL_SECONDS)
        return answer

    def stats(self, container_id: str) -> cri.ContainerStats:
        """Its statistics."""
        request = cri.ContainerStatsRequest(container_id=container_id)
        answer: cri.ContainerStatsResponse = self.cri.ContainerStats(request, timeout=CALL_SECONDS)
        return answer.stats

    def remove_all(self) -> None:
        """Every pod with its containers."""
        for pod in self.cri.ListPodSandbox(cri.ListPodSandboxRequest(), timeout=CALL_SECONDS).items:
            self.remove(pod.id)

    def remove(self, sandbox_id: str) -> None:
        """A pod with its containers."""
        self.cri.StopPodSandbox(cri.StopPodSandboxRequest(pod_sandbox_id=sandbox_id), timeout=CALL_SECONDS)
        self.cri.RemovePodSandbox(cri.RemovePodSandboxRequest(pod_sandbox_id=sandbox_id), timeout=CALL_SECONDS)


@contextlib.contextmanager
def running(daemon: Mapping[str, Any]) -> Iterator[Runtime]:
    """On a Docker with these settings; it goes with its pods, the settings too."""
    STATE.mkdir()
    DAEMON_JSON.parent.mkdir(exist_ok=True)
    DAEMON_JSON.write_text(json.dumps(daemon))
    systemctl("restart", "docker")
    load_images()
    started = Runtime()
    try:
        until(started.is_ready)
        yield started
    finally:
        print("\n".join((STATE / "log").read_text().splitlines()[-80:]))
        started.remove_all()
        started.close()
        DAEMON_JSON.unlink()
        systemctl("restart", "docker")
        shutil.rmtree(STATE)


def load_images() -> None:
    """Into Docker, since no registry is asked."""
    for reference in (images.PAUSE, images.HELLO):
        subprocess.run(["docker", "load"], input=images.archive(reference), check=True, capture_output=True)


def systemctl(*words: str) -> None:
    subprocess.run(["systemctl", *words], check=True)


def docker(*words: str) -> str:
    return subprocess.run(["docker", *words], check=True, text=True, capture_output=True).stdout.strip()


def pid_of(container_id: str) -> int:
    return int(docker("inspect", "--format", "{{.State.Pid}}", container_id))
