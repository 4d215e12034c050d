"""One node in a real cluster, as the acceptance tests see it: the API server, the runtime's CRI, the node's files.

Owns starting, stopping and mending the parts (`heal` brings back what a failed test left dead) and looking at them.
KUBELET=go in the environment puts the Go kubelet on the stage (containerd only), to see how the peer behaves.
"""

from __future__ import annotations

import contextlib
import http.client
import itertools
import json
import os
import signal
import ssl
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import grpc

from cri_proto import runtime_v1 as cri
from cri_proto.runtime_v1 import api_pb2_grpc
from tests.integration.cluster.waiting import eventually, holds
from tests.lab import gokubelet
from tests.lab import node as our_node
from tests.lab.cluster import Cluster
from tests.lab.lab import Lab
from tests.lab.pki import Credentials
from tests.lab.process import CriServer, LabProcess

NODE = "node-1"
PODS = "/api/v1/namespaces/default/pods"
MANIFESTS = "/etc/kubernetes/manifests"
PLAYS_GO = os.environ.get("KUBELET") == "go"

_numbers = itertools.count(1)


class Stage:
    """A lab with one engine, a control plane and a Ready node."""

    def __init__(self, lab: Lab, cluster: Cluster, runtime: str) -> None:
        self.lab = lab
        self.cluster = cluster
        self.runtime = runtime
        self.shim: CriServer | None = None
        self.socket = lab.containerd_socket if runtime == "containerd" else lab.root / "run" / "dockershim.sock"
        self.flags: tuple[str, ...] = ("-v=4",)
        self._manifests: set[str] = set()
        self._channel = grpc.insecure_channel(
            f"unix://{self.socket}",
            options=[("grpc.max_reconnect_backoff_ms", 500), ("grpc.initial_reconnect_backoff_ms", 100)],
        )
        self.cri: Any = api_pb2_grpc.RuntimeServiceStub(self._channel)
        self.images: Any = api_pb2_grpc.ImageServiceStub(self._channel)
        self.start_shim()
        self.kubelet = self.start_kubelet()

    def close(self) -> None:
        """Ends what the lab does not own."""
        self._channel.close()

    # The parts

    def start_kubelet(self, *, wait: bool = True) -> LabProcess:
        """The node agent, until its node is Ready."""
        if PLAYS_GO:
            self.kubelet = gokubelet.start(self.cluster, self.socket, node=NODE, flags=self.flags, wait=wait)
        else:
            self.kubelet = our_node.start_kubelet_py(self.cluster, self.socket, node=NODE, flags=self.flags, wait=wait)
        return self.kubelet

    def restart_kubelet(self) -> None:
        """The node agent killed and started anew, with the flags of now."""
        self.kubelet.kill()
        self.kubelet.wait(10)  # until then it holds its ports
        self.start_kubelet()

    def start_shim(self) -> None:
        """dockershim, where Docker is the runtime."""
        if self.runtime == "docker":
            self.shim = our_node.start_dockershim(self.lab)

    def start_engine(self) -> None:
        """Docker or containerd, and what of it does not run."""
        (self.lab.docker if self.runtime == "docker" else self.lab.containerd).start()

    def engine_process(self) -> LabProcess:
        """The daemon of the engine."""
        process = self.lab.docker.dockerd if self.runtime == "docker" else self.lab.containerd.process
        assert process is not None
        return process

    def heal(self) -> None:
        """Starts what a test left dead, so that one failure stays one failure."""
        if self.engine_process().poll() is not None:
            self.start_engine()
        if self.shim is not None and self.shim.process.poll() is not None:
            self.start_shim()
        if self.cluster.processes["kube-apiserver"].poll() is not None:
            self.start_api_server()
        if self.kubelet.poll() is not None:
            self.start_kubelet()
        eventually("a Ready node", lambda: gokubelet.node_is_ready(self.cluster, NODE), within_seconds=60)

    def start_api_server(self) -> None:
        """The API server again, until it answers."""
        process = self.cluster.start_component("kube-apiserver")
        self.lab.wait_until("kube-apiserver", self.cluster.is_ready, process=process)

    def kill_containers(self) -> None:
        """Ends every container and every shim at once, as the loss of power does; the engine must not run."""
        for directory in Path("/proc").iterdir():
            if not directory.name.isdigit():
                continue
            with contextlib.suppress(OSError):
                groups = (directory / "cgroup").read_text()
                is_shim = b"containerd-shim" in (directory / "cmdline").read_bytes()
                if f"lab-{self.lab.id}" in groups and (is_shim or "/kubepods/" in groups):
                    os.kill(int(directory.name), signal.SIGKILL)

    # Objects of the API server

    @staticmethod
    def unique(stem: str) -> str:
        """A name that no other test uses."""
        return f"{stem}-{next(_numbers)}"

    def create_pod(self, pod: Mapping[str, Any]) -> dict[str, Any]:
        """Creates a pod and gives it as the API server has it."""
        created: dict[str, Any] = self.cluster.create(PODS, pod)
        return created

    def pod(self, name: str) -> dict[str, Any]:
        """The pod now; fails when there is none."""
        found = self.find_pod(name)
        assert found is not None, f"there is no pod {name}"
        return found

    def find_pod(self, name: str) -> dict[str, Any] | None:
        """The pod now, None when there is none."""
        code, answer = self.cluster.request("GET", f"{PODS}/{name}")
        return answer if code == 200 else None

    def pods(self, selector: str = "") -> list[dict[str, Any]]:
        """The pods with these labels."""
        code, answer = self.cluster.request("GET", f"{PODS}?labelSelector={selector}")
        assert code == 200, answer
        items: list[dict[str, Any]] = answer["items"]
        return items

    def delete_pod(self, name: str, grace_seconds: int | None = None) -> None:
        """Asks for the deletion; fine when there is no such pod."""
        body = None if grace_seconds is None else {"gracePeriodSeconds": grace_seconds}
        code, answer = self.cluster.request("DELETE", f"{PODS}/{name}", body)
        assert code in (200, 202, 404), answer

    def wait_gone(self, name: str, within_seconds: float = 60) -> None:
        """Until the API server has the pod no more."""
        eventually(f"the end of pod {name}", lambda: self.find_pod(name) is None, within_seconds=within_seconds)

    def wait_alone(self) -> None:
        """Until no pod of an earlier test holds anything of the node."""
        eventually("a node without pods", lambda: not self.pods(), within_seconds=60)

    def wait_phase(self, name: str, phase: str, within_seconds: float = 60) -> dict[str, Any]:
        """The pod, once it has this phase."""

        def reached() -> dict[str, Any]:
            pod = self.pod(name)
            assert pod["status"].get("phase") == phase, pod["status"]
            return pod

        return holds(reached, within_seconds=within_seconds)

    def wait_ready(self, name: str, within_seconds: float = 60) -> dict[str, Any]:
        """The pod, once it is Ready."""

        def reached() -> dict[str, Any]:
            pod = self.pod(name)
            assert condition(pod, "Ready") == "True", pod["status"]
            return pod

        return holds(reached, within_seconds=within_seconds)

    def wait_waiting(self, name: str, reason: str, within_seconds: float = 60) -> dict[str, Any]:
        """The state of the first container that waits for this reason."""

        def reached() -> dict[str, Any]:
            status = self.pod(name)["status"]
            states = (*status.get("initContainerStatuses", ()), *status.get("containerStatuses", ()))
            for state in states:
                waiting: dict[str, Any] = state["state"].get("waiting", {})
                if waiting.get("reason") == reason:
                    return waiting
            raise AssertionError(f"no container waits for {reason}: {status}")

        return holds(reached, within_seconds=within_seconds)

    def events(self, name: str) -> list[dict[str, Any]]:
        """The events about the pod of this name."""
        selector = f"involvedObject.name={name}"
        code, answer = self.cluster.request("GET", f"/api/v1/namespaces/default/events?fieldSelector={selector}")
        assert code == 200, answer
        items: list[dict[str, Any]] = answer["items"]
        return items

    def wait_event(self, name: str, reason: str, text: str = "", within_seconds: float = 60) -> dict[str, Any]:
        """The first event with this reason and this text in its message."""

        def found() -> dict[str, Any]:
            events = self.events(name)
            for event in events:
                if event["reason"] == reason and text in event["message"]:
                    return event
            raise AssertionError([(event["reason"], event["message"]) for event in events])

        return holds(found, within_seconds=within_seconds)

    def logs(self, name: str, query: str = "", check: bool = True) -> str:
        """The logs through the API server, as kubectl asks for them."""
        code, text = self.cluster.request("GET", f"{PODS}/{name}/log?{query}")
        assert code == 200 or not check, text
        return str(text)

    def wait_logs(self, name: str, text: str, query: str = "", within_seconds: float = 60) -> str:
        """The logs, once they hold this text."""

        def found() -> str:
            logs = self.logs(name, query, check=False)
            assert text in logs, logs
            return logs

        return holds(found, within_seconds=within_seconds)

    def node(self) -> dict[str, Any]:
        """The node object."""
        code, answer = self.cluster.request("GET", f"/api/v1/nodes/{NODE}")
        assert code == 200, answer
        found: dict[str, Any] = answer
        return found

    # The runtime, seen through its own socket

    def sandboxes(self, uid: str | None = None) -> list[Any]:
        """All sandboxes, or those of one pod."""
        request = cri.ListPodSandboxRequest()
        if uid is not None:
            request.filter.label_selector["io.kubernetes.pod.uid"] = uid
        return list(self.cri.ListPodSandbox(request, timeout=10, wait_for_ready=True).items)

    def containers(self, uid: str | None = None) -> list[Any]:
        """All containers, or those of one pod."""
        request = cri.ListContainersRequest()
        if uid is not None:
            request.filter.label_selector["io.kubernetes.pod.uid"] = uid
        return list(self.cri.ListContainers(request, timeout=10, wait_for_ready=True).containers)

    def container_status(self, container_id: str) -> Any:
        """One container, by its id with or without the runtime's name."""
        bare = container_id.rpartition("://")[2]
        request = cri.ContainerStatusRequest(container_id=bare)
        return self.cri.ContainerStatus(request, timeout=10, wait_for_ready=True).status

    def remove_image(self, name: str) -> None:
        """The node has the image no more under any name; waits for containers that still hold it. Again is fine."""
        request = cri.RemoveImageRequest(image=cri.ImageSpec(image=name))

        def removed() -> None:
            try:
                self.images.RemoveImage(request, timeout=10, wait_for_ready=True)
            except grpc.RpcError as error:
                raise AssertionError(f"{name} stays: {error}") from error

        holds(removed, within_seconds=30)

    # The node's files and processes

    def inside(self, path: str) -> Path:
        """A path of the lab host, as it is reached from here."""
        return Path(f"/proc/{self.lab.pid}/root{path}")

    def tell_to_end(self, uid: str) -> None:
        """Ends the container of an objects.mortal_pod."""
        self.inside(f"/var/lib/kubelet/pods/{uid}/volumes/kubernetes.io~empty-dir/v/end").touch()

    def kubelet_log(self) -> str:
        """What every kubelet of this stage has written."""
        assert self.kubelet.log is not None
        return self.kubelet.log.read_text(errors="replace")

    @contextlib.contextmanager
    def new_log_lines(self) -> Iterator[LogTail]:
        """The lines that the kubelet writes while the block runs, and after."""
        assert self.kubelet.log is not None
        yield LogTail(self.kubelet.log, self.kubelet.log.stat().st_size)

    def write_manifest(self, file: str, content: str | bytes | Mapping[str, Any]) -> Path:
        """A file in the manifest directory, replaced in one step as an editor or a deployment tool would."""
        if isinstance(content, Mapping):
            content = json.dumps(content)
        data = content if isinstance(content, bytes) else content.encode()
        directory = self.inside(MANIFESTS)
        partial = directory / f".{file}.partial"
        partial.write_bytes(data)
        self._manifests.add(file)
        return partial.rename(directory / file)

    def link_manifest(self, file: str, target: str) -> None:
        """A symbolic link in the manifest directory."""
        (self.inside(MANIFESTS) / file).symlink_to(target)
        self._manifests.add(file)

    def remove_manifest(self, file: str) -> None:
        """The file goes, if it is there."""
        (self.inside(MANIFESTS) / file).unlink(missing_ok=True)
        self._manifests.discard(file)

    def remove_manifests(self) -> None:
        """All that tests put there."""
        for file in list(self._manifests):
            self.remove_manifest(file)

    # The node's own HTTP API

    def kubelet_request(
        self,
        path: str,
        *,
        user: Credentials | None = None,
        headers: Mapping[str, str] | None = None,
        method: str = "GET",
    ) -> tuple[int, str]:
        """A request to port 10250 with this client certificate: status and text."""
        connection = http.client.HTTPSConnection(self.lab.node_address, 10250, timeout=15)
        with self.kubelet_connection(user) as connection.sock:
            connection.request(method, path, headers=dict(headers or {}))
            answer = connection.getresponse()
            return answer.status, answer.read().decode()

    def kubelet_connection(self, user: Credentials | None = None) -> ssl.SSLSocket:
        """A connection to port 10250 with this client certificate."""
        context = ssl.create_default_context()
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
        if user is not None:
            context.load_cert_chain(user.certificate, user.key)
        address = self.lab.node_address
        return context.wrap_socket(self.lab.connect(address, 10250), server_hostname=address)


class LogTail:
    """The end of a log file that grows."""

    def __init__(self, path: Path, start: int) -> None:
        self._path = path
        self._start = start

    def lines(self, *words: str) -> list[str]:
        """The new lines that hold all these words."""
        with self._path.open("rb") as file:
            file.seek(self._start)
            text = file.read().decode(errors="replace")
        return [line for line in text.splitlines() if all(word in line for word in words)]

    def wait(self, *words: str, within_seconds: float = 60) -> str:
        """The first new line with all these words."""
        return str(eventually(f"a log line with {words}", lambda: self.lines(*words), within_seconds=within_seconds)[0])


def edit_pod(
    cluster: Cluster, name: str, change: Callable[[dict[str, Any]], object], subresource: str = ""
) -> dict[str, Any]:
    """Reads, changes and writes a pod, again when the agent has written a status in between; the pod as it is then."""

    def edited() -> dict[str, Any]:
        code, found = cluster.request("GET", f"{PODS}/{name}")
        assert code == 200, found
        change(found)
        code, answer = cluster.request("PUT", f"{PODS}/{name}{subresource}", found)
        assert code == 200, answer
        result: dict[str, Any] = answer
        return result

    return holds(edited, within_seconds=10)


def condition(described: Mapping[str, Any], kind: str) -> str | None:
    """The status of one condition of a pod or a node."""
    conditions: Sequence[Mapping[str, str]] = described["status"].get("conditions", ())
    return next((entry["status"] for entry in conditions if entry["type"] == kind), None)


def container_status(pod: Mapping[str, Any], name: str = "main") -> dict[str, Any]:
    """The status of one container or init container; fails when there is none yet."""
    status = pod["status"]
    for entry in (*status.get("containerStatuses", ()), *status.get("initContainerStatuses", ())):
        if entry["name"] == name:
            found: dict[str, Any] = entry
            return found
    raise AssertionError(f"no status of container {name}: {status}")
