"""An agent's read-only port, its directories and its runtime, for the commands."""

import json
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from copy import deepcopy
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import grpc
import pytest

from cri_proto import runtime_v1 as cri
from kubelet_py import cli

POD = {
    "metadata": {"name": "hello-node", "namespace": "default", "uid": "u1"},
    "spec": {"nodeName": "Node", "containers": [{"name": "main", "image": "img"}, {"name": "side", "image": "img"}]},
    "status": {"phase": "Running"},
}


class _Server(HTTPServer):
    """A server to which a client that was interrupted is nothing special."""

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Nothing on the test's terminal."""


class Agent:
    """The read-only half of an agent, with its directories."""

    def __init__(self, root: Path) -> None:
        self.pods: list[dict[str, Any]] = [deepcopy(POD)]
        self.pods_page: str | None = None
        """What /pods says instead of the pods."""
        self.missing_bytes = 0
        self.story = "12:00 started main\n"
        self.before_reply: Callable[[], None] = lambda: None

        class Handler(BaseHTTPRequestHandler):
            def do_GET(handler) -> None:  # noqa: N805 # `self` is the agent's here
                self.before_reply()
                listed = self.pods_page or json.dumps({"kind": "PodList", "items": self.pods})
                replies = {"/pods": listed, "/why/default/hello-node": self.story}
                handler.send_response(200 if handler.path in replies else 404)
                reply = replies.get(handler.path, "").encode()
                handler.send_header("Content-Length", str(len(reply) + self.missing_bytes))
                handler.end_headers()
                handler.wfile.write(reply)

            def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 # the name is the base class's
                """Nothing on the test's terminal."""

        self.server = _Server(("127.0.0.1", 0), Handler)
        self.manifests = root / "manifests"
        self.manifests.mkdir()
        self.logs = root / "logs" / "default_hello-node_u1" / "main"
        self.logs.mkdir(parents=True)
        self.config = root / "kubelet.json"
        settings = {
            "apiVersion": "kubelet.config.k8s.io/v1beta1",
            "kind": "KubeletConfiguration",
            "readOnlyPort": self.server.server_port,
            "podLogsDir": str(root / "logs"),
            "staticPodPath": str(self.manifests),
            "containerRuntimeEndpoint": f"unix://{root}/cri.sock",
        }
        self.config.write_text(json.dumps(settings))

    def run(self, *words: str) -> int:
        """One command line."""
        return cli.main([words[0], f"--config={self.config}", *words[1:]])


@pytest.fixture
def agent(tmp_path: Path) -> Iterator[Agent]:
    """An agent with one pod."""
    agent = Agent(tmp_path)
    thread = threading.Thread(target=agent.server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield agent
    agent.server.shutdown()
    thread.join()
    agent.server.server_close()


@pytest.fixture
def commands_run(agent: Agent, tmp_path: Path) -> Iterator[list[tuple[str, list[str]]]]:
    """A runtime whose every command prints `out` and ends with 3, and each container and command it was asked for."""
    asked: list[tuple[str, list[str]]] = []

    def exec_sync(request: cri.ExecSyncRequest, _: Any) -> cri.ExecSyncResponse:
        asked.append((request.container_id, list(request.cmd)))
        return cri.ExecSyncResponse(stdout=b"out\n", stderr=b"err\n", exit_code=3)

    agent.pods[0]["status"]["containerStatuses"] = [{"name": "main", "containerID": "docker://c1"}]
    handler = grpc.unary_unary_rpc_method_handler(
        exec_sync, cri.ExecSyncRequest.FromString, cri.ExecSyncResponse.SerializeToString
    )
    with ThreadPoolExecutor(1) as pool:
        server = grpc.server(pool)
        server.add_generic_rpc_handlers(
            (grpc.method_handlers_generic_handler("runtime.v1.RuntimeService", {"ExecSync": handler}),)
        )
        server.add_insecure_port(f"unix:{tmp_path}/cri.sock")
        server.start()
        yield asked
        server.stop(None).wait()
