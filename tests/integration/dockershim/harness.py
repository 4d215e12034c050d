"""dockershim as a process inside a lab, and a CRI client outside."""

from __future__ import annotations

import itertools
import json
import os
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import grpc

from cri_proto import runtime_v1 as cri
from cri_proto.runtime_v1 import api_pb2_grpc
from tests.lab import gotools
from tests.lab.lab import BUSYBOX, Lab
from tests.lab.process import LabProcess
from tests.lab.sandbox import REPOSITORY

_numbers = itertools.count()


class Shim:
    """One dockershim and its stubs."""

    def __init__(
        self,
        lab: Lab,
        name: str = "dockershim",
        docker_socket: Path | None = None,
        *flags: str,
        wait_ready: bool = True,
        environment: Mapping[str, str] | None = None,
        wrapper: Sequence[str] = (),
    ) -> None:
        self.wrapper = tuple(wrapper)
        self.lab = lab
        self.environment = dict(environment or {})
        self.name = name
        self.root = lab.root / name
        self.socket = lab.root / "run" / f"{name}.sock"
        self.docker_socket = docker_socket or lab.docker_socket
        self.flags = flags
        self.process: LabProcess | None = None
        self._channel: grpc.Channel | None = None
        self.start(wait_ready=wait_ready)

    def command(self) -> list[str]:
        """What is started."""
        return [
            *self.wrapper,
            sys.executable,
            "-m",
            "dockershim",
            "--container-runtime-endpoint",
            f"unix://{self.socket}",
            "--docker-endpoint",
            f"unix://{self.docker_socket}",
            "--root-directory",
            str(self.root),
            "--network-plugin",
            "bridge",
            "--log-level",
            "debug",
            *self.flags,
        ]

    def start(self, *, wait_ready: bool = True) -> None:
        """Start it and, if wanted, wait until it has caught up with Docker."""
        self.process = self.lab.popen(
            self.command(),
            log=self.name,
            environment={"PYTHONPATH": str(REPOSITORY), "PYTHONDONTWRITEBYTECODE": "1", **self.environment},
        )
        self.lab.wait_until(
            "dockershim's socket", lambda: self.lab.accepts(self.socket), process=self.process, timeout_seconds=30
        )
        self.connect()
        if wait_ready:
            self.wait_ready()

    def connect(self) -> None:
        """New stubs, without the back-off of an old connection."""
        if self._channel is not None:
            self._channel.close()
        limit = 16 * 1024 * 1024
        self._channel = grpc.insecure_channel(
            f"unix://{self.socket}", options=[("grpc.max_receive_message_length", limit)]
        )
        self.runtime: Any = api_pb2_grpc.RuntimeServiceStub(self._channel)
        self.images: Any = api_pb2_grpc.ImageServiceStub(self._channel)

    def wait_ready(self) -> None:
        """Until Status says RuntimeReady and NetworkReady."""
        eventually(lambda: all(c.status for c in self.runtime.Status(cri.StatusRequest()).status.conditions))

    def kill(self) -> None:
        """kill -9."""
        assert self.process is not None
        self.process.kill()
        self.process.wait(10)

    def stop(self) -> None:
        """End it in order."""
        if self._channel is not None:
            self._channel.close()
        if self.process is not None:
            self.process.stop()

    # ---- objects

    def sandbox_config(self, **fields: Any) -> cri.PodSandboxConfig:
        """The configuration of a pod of its own."""
        number = next(_numbers)
        uid = f"{os.getpid()}-{number}"
        name = f"pod-{number}"
        config = cri.PodSandboxConfig(
            metadata=cri.PodSandboxMetadata(name=name, namespace="test", uid=uid),
            hostname=name,
            log_directory=str(self.lab.root / "pod-logs" / uid),
            labels={
                "io.kubernetes.pod.name": name,
                "io.kubernetes.pod.namespace": "test",
                "io.kubernetes.pod.uid": uid,
            },
            annotations={"example.com/note": "kept"},
        )
        config.MergeFrom(cri.PodSandboxConfig(**fields))
        return config

    def run_sandbox(self, config: cri.PodSandboxConfig | None = None) -> tuple[str, cri.PodSandboxConfig]:
        """A running sandbox."""
        config = config or self.sandbox_config()
        request = cri.RunPodSandboxRequest(config=config)
        return self.runtime.RunPodSandbox(request, timeout=60).pod_sandbox_id, config

    def create(self, sandbox: tuple[str, cri.PodSandboxConfig], script: str, **fields: Any) -> str:
        """A container that runs a script with busybox."""
        config = cri.ContainerConfig(
            metadata=cri.ContainerMetadata(name="main"),
            image=cri.ImageSpec(image=BUSYBOX),
            command=["sh", "-c", script],
            log_path="main/0.log",
        )
        config.MergeFrom(cri.ContainerConfig(**fields))
        request = cri.CreateContainerRequest(pod_sandbox_id=sandbox[0], config=config, sandbox_config=sandbox[1])
        return str(self.runtime.CreateContainer(request, timeout=60).container_id)

    def start_container(self, container_id: str) -> None:
        """StartContainer."""
        self.runtime.StartContainer(cri.StartContainerRequest(container_id=container_id), timeout=60)

    def run(self, sandbox: tuple[str, cri.PodSandboxConfig], script: str, **fields: Any) -> str:
        """A started container."""
        container_id = self.create(sandbox, script, **fields)
        self.start_container(container_id)
        return container_id

    def status(self, container_id: str) -> cri.ContainerStatus:
        """ContainerStatus."""
        response: cri.ContainerStatusResponse = self.runtime.ContainerStatus(
            cri.ContainerStatusRequest(container_id=container_id), timeout=10
        )
        return response.status

    def sandbox_status(self, sandbox_id: str) -> cri.PodSandboxStatus:
        """PodSandboxStatus."""
        response: cri.PodSandboxStatusResponse = self.runtime.PodSandboxStatus(
            cri.PodSandboxStatusRequest(pod_sandbox_id=sandbox_id), timeout=10
        )
        return response.status

    def wait_state(self, container_id: str, state: cri.ContainerState) -> cri.ContainerStatus:
        """Until the container is in a state."""
        eventually(lambda: self.status(container_id).state == state)
        return self.status(container_id)

    def crictl(self, *arguments: str) -> list[str]:
        """A command of crictl's on this dockershim; its own two seconds are little for a busy machine."""
        endpoint = f"unix://{self.socket}"
        return [str(gotools.ensure("crictl")), "--runtime-endpoint", endpoint, "--timeout", "60s", *arguments]

    def has_whole_log(self, container_id: str) -> bool:
        """A dockershim that finds a container dead shows it before it has read all; it records when it has."""
        record = self.root / "logs" / container_id
        return record.exists() and json.loads(record.read_bytes())["ended"] is True

    def exec(self, container_id: str, *command: str, timeout: int = 10) -> cri.ExecSyncResponse:
        """ExecSync."""
        request = cri.ExecSyncRequest(container_id=container_id, cmd=command, timeout=timeout)
        response: cri.ExecSyncResponse = self.runtime.ExecSync(request, timeout=60)
        return response

    def remove_sandbox(self, sandbox_id: str) -> None:
        """Stop and remove it."""
        self.runtime.StopPodSandbox(cri.StopPodSandboxRequest(pod_sandbox_id=sandbox_id), timeout=60)
        self.runtime.RemovePodSandbox(cri.RemovePodSandboxRequest(pod_sandbox_id=sandbox_id), timeout=60)

    def remove_all(self) -> None:
        """No pods, for the next test."""
        for item in self.runtime.ListPodSandbox(cri.ListPodSandboxRequest()).items:
            self.remove_sandbox(item.id)

    def docker_ids(self) -> list[str]:
        """What Docker itself has, ours or not."""
        return self.lab.docker.client("ps", "-aq", "--no-trunc").split()


def eventually(condition: Callable[[], bool], timeout_seconds: float = 30.0) -> None:
    """Poll until true; the last error or an AssertionError after the time."""
    deadline = time.monotonic() + timeout_seconds
    while True:
        trouble: grpc.RpcError | None = None
        try:
            if condition():
                return
        except grpc.RpcError as error:
            trouble = error
        if time.monotonic() > deadline:
            raise trouble or AssertionError(f"still not so after {timeout_seconds} s")
        time.sleep(0.05)


def code_of(call: Callable[[], Any]) -> tuple[grpc.StatusCode, str]:
    """The gRPC code and message with which a call fails; OK when it does not."""
    try:
        call()
    except grpc.RpcError as error:
        return error.code(), error.details() or ""
    return grpc.StatusCode.OK, ""
