"""kubectl exec, attach, cp and port-forward through the API server and this node, on both runtimes."""

from __future__ import annotations

import concurrent.futures
import functools
import hashlib
import os
import re
import signal
import subprocess
from pathlib import Path

import pytest

from cri_proto.wire import channel_messages, portforward, remotecommand
from cri_proto.wire.spdy_session import DataReceived, SpdySession
from tests.integration.cluster.objects import SLEEP, container, echo_server, pod
from tests.integration.cluster.stage import PLAYS_GO, Stage
from tests.integration.cluster.waiting import eventually
from tests.integration.cluster.websocket_client import WebSocketClient

pytestmark = pytest.mark.lab

BLOCK_BYTES = 10 * 1024 * 1024
LARGE_BYTES = 100 * 1024 * 1024
ANSWER_PORTS = {"docker": 28080, "containerd": 28081}


def test_kubectl_exec_and_cp(stage: Stage, tmp_path: Path) -> None:
    """Output, exit code, stdin with its end, and ten megabytes copied in and out again."""
    name, kubectl = stage.unique("exec"), stage.cluster.kubectl
    stage.create_pod(pod(name, container(SLEEP)))
    stage.wait_ready(name)
    assert kubectl("exec", name, "--", "sh", "-c", "echo out") == "out\n"
    assert kubectl("exec", "-i", name, "--", "cat", text_input="typed\n") == "typed\n"
    assert kubectl("exec", name, "--", "sh", "-c", "echo seen; exit 5", check=False) == "seen\n"
    data = os.urandom(BLOCK_BYTES)
    (tmp_path / "in").write_bytes(data)
    kubectl("cp", str(tmp_path / "in"), f"{name}:/tmp/copied")
    kubectl("cp", f"{name}:/tmp/copied", str(tmp_path / "out"))
    assert hashlib.sha256((tmp_path / "out").read_bytes()).digest() == hashlib.sha256(data).digest()


def test_an_exec_does_not_wait_for_a_hook(stage: Stage) -> None:
    """The container runs, and its status is told when the hook has ended, here not before the exec."""
    name = stage.unique("hook")
    hook = {"postStart": {"exec": {"command": ["sh", "-c", "while [ ! -e /tmp/on ]; do sleep 0.1; done"]}}}
    uid = stage.create_pod(pod(name, container(SLEEP, lifecycle=hook)))["metadata"]["uid"]
    eventually("a running container", lambda: any(c.state == 1 for c in stage.containers(uid)), within_seconds=30)
    assert stage.cluster.kubectl("exec", name, "--", "sh", "-c", "echo in; touch /tmp/on") == "in\n"
    stage.wait_ready(name)


def test_kubectl_attach(stage: Stage) -> None:
    """What is typed reaches the container's own process."""
    name = stage.unique("attach")
    stage.create_pod(pod(name, container("read line; echo got $line; sleep 1000", stdin=True, stdinOnce=True)))
    stage.wait_ready(name)
    kubectl = f"{stage.cluster.programs['kubectl']} --kubeconfig={stage.cluster.kubeconfig}"
    typed = f"(echo hello; sleep 2) | {kubectl} attach -i {name}"
    client = stage.lab.popen(["sh", "-c", typed], log=f"attach-{name}")
    eventually("the answer", lambda: "got hello" in client.log_tail(), within_seconds=30)
    client.kill()


def test_kubectl_port_forward(stage: Stage) -> None:
    """A connection through the forwarded port reaches the pod, and comes back."""
    name = stage.unique("forward")
    stage.create_pod(pod(name, echo_server()))
    stage.wait_ready(name)
    port = ANSWER_PORTS[stage.runtime]
    programs, config = stage.cluster.programs, stage.cluster.kubeconfig
    client = stage.lab.popen(
        [programs["kubectl"], f"--kubeconfig={config}", "port-forward", name, f"{port}:8080"], log=f"forward-{name}"
    )
    try:
        eventually("a forwarded port", lambda: "Forwarding from" in client.log_tail(), within_seconds=30)
        with stage.lab.connect("127.0.0.1", port) as connection:
            connection.settimeout(20)
            connection.sendall(b"hello")
            assert connection.recv(100) == b"hello"
    finally:
        client.send_signal(signal.SIGTERM)
        client.wait(10)


def test_the_api_server_hands_its_websocket_clients_on(stage: Stage) -> None:
    """It translates nothing for a node that declares that it can: exec, attach and port-forward are the node's."""
    assert "ExtendWebSocketsToKubelet" in stage.node()["status"]["declaredFeatures"]
    name, kubectl = stage.unique("handed-on"), stage.cluster.kubectl
    script = "(while true; do nc -ll -p 8080 -e cat; sleep 0.1; done) & read line; echo got $line"
    stage.create_pod(pod(name, echo_server(script, stdin=True, stdinOnce=True), restart="Never"))
    stage.wait_ready(name)
    before = handed_on(stage)
    assert kubectl("exec", "-i", name, "--", "cat", text_input="typed\n") == "typed\n"
    config, program = f"--kubeconfig={stage.cluster.kubeconfig}", stage.cluster.programs["kubectl"]
    forward = stage.lab.popen([program, config, "port-forward", name, "28082:8080"], log=f"handed-on-{name}")
    eventually("a forwarded port", lambda: "Forwarding from" in forward.log_tail(), within_seconds=30)
    forward.send_signal(signal.SIGTERM)
    forward.wait(10)
    assert "got hello" in kubectl("attach", "-i", name, text_input="hello\n")
    after = handed_on(stage)
    assert {kind: after[kind] - before.get(kind, 0) for kind in after} == {"exec": 1, "attach": 1, "portforward": 1}


def handed_on(stage: Stage) -> dict[str, int]:
    """How many WebSocket clients of each kind the API server has handed on to nodes."""
    code, text = stage.cluster.request("GET", "/metrics")
    assert code == 200
    lines = re.findall(r"^apiserver_websocket_streaming_requests_total\{(.*)\} (\d+)$", str(text), re.MULTILINE)
    assert not any("translated_at_apiserver" in labels for labels, _ in lines), lines
    return {re.findall('subresource="(.*?)"', labels)[0]: int(count) for labels, count in lines}


def test_a_websocket_client_of_the_node_itself(stage: Stage) -> None:
    """Without the API server between: stdin and its end, both outputs, the exit code."""
    name = stage.unique("websocket")
    stage.create_pod(pod(name, container(SLEEP)))
    stage.wait_ready(name)
    script = "command=sh&command=-c&command=cat;echo+bad+%3E%262;exit+5"
    path = f"/exec/default/{name}/main?input=1&output=1&error=1&{script}"
    with WebSocketClient(stage.kubelet_connection(stage.cluster.kubelet_client), path, remotecommand.V5) as client:
        client.send(b"\0typed")
        client.send(remotecommand.encode_channel_close(remotecommand.STDIN))
        channels = dict.fromkeys(remotecommand.CHANNELS, b"")
        for message in client.messages():
            part = remotecommand.decode_channel(message, remotecommand.V5)
            assert isinstance(part, remotecommand.ChannelData)
            channels[part.name] += part.data
    assert (channels["stdout"], channels["stderr"]) == (b"typed", b"bad\n")
    assert remotecommand.parse_status(channels["error"]) == remotecommand.Outcome(exit_code=5)


def test_a_port_forward_through_messages_of_the_node_itself(stage: Stage) -> None:
    name = stage.unique("messages")
    stage.create_pod(pod(name, echo_server()))
    stage.wait_ready(name)
    session = SpdySession(client=True)
    connection = stage.kubelet_connection(stage.cluster.kubelet_client)
    with WebSocketClient(connection, f"/portForward/default/{name}", portforward.TUNNEL_PROTOCOL) as client:
        session.open({"streamtype": "error", "port": "8080", "requestid": "0"})
        data_id = session.open({"streamtype": "data", "port": "8080", "requestid": "0"})
        session.send(data_id, b"hello")
        client.send(session.take_output())
        events = (event for message in client.messages() for event in session.receive(message))
        echoed = next(event for event in events if isinstance(event, DataReceived))
    assert echoed == DataReceived(data_id, b"hello")


@pytest.mark.parametrize("protocol", [portforward.CHANNEL_PROTOCOL, portforward.TEXT_CHANNEL_PROTOCOL])
def test_a_port_forward_as_clients_without_spdy_ask_for_it(stage: Stage, protocol: str) -> None:
    """Its ports in the query, two channels for each; without ports there is nothing to forward."""
    name, is_text = stage.unique("channels"), protocol == portforward.TEXT_CHANNEL_PROTOCOL
    stage.create_pod(pod(name, echo_server()))
    stage.wait_ready(name)
    connect = functools.partial(stage.kubelet_connection, stage.cluster.kubelet_client)
    with connect() as refused, pytest.raises(AssertionError, match='query parameter "port" is required'):
        WebSocketClient(refused, f"/portForward/default/{name}", protocol)
    path = f"/portForward/default/{name}?port=8080&port=9"
    with WebSocketClient(connect(), path, protocol) as client:
        said: dict[int, bytes] = {0: b"", 1: b"", 2: b"", 3: b""}
        messages = client.messages()
        while len(said[3]) <= 2:
            number, data = channel_messages.decode(next(messages), text=is_text)
            said[number] += data
        client.send(channel_messages.encode(0, b"hello", text=is_text), is_text=is_text)
        while not said[0].endswith(b"hello"):
            number, data = channel_messages.decode(next(messages), text=is_text)
            said[number] += data
    assert (said[0], said[1]) == (b"\x90\x1fhello", b"\x90\x1f")
    assert (said[2], said[3][:2], b"9" in said[3][2:]) == (b"\x09\x00", b"\x09\x00", True), said


def test_a_command_without_streams(stage: Stage) -> None:
    name, user = stage.unique("run"), stage.cluster.kubelet_client
    stage.create_pod(pod(name, container(SLEEP)))
    stage.wait_ready(name)
    path = f"/run/default/{name}/main?cmd="
    assert stage.kubelet_request(f"{path}echo%20there", user=user, method="POST") == (200, "there\n")
    code, text = stage.kubelet_request(f"{path}ls%20/nothing", user=user, method="POST")
    assert (code, "No such file" in text) == (500, True), text


def test_a_checkpoint_says_what_the_runtime_lacks(stage: Stage) -> None:
    """Neither runtime of the lab has CRIU; `tests/machine/checkpoints.py` has both with it."""
    name = stage.unique("checkpoint")
    stage.create_pod(pod(name, container(SLEEP)))
    stage.wait_ready(name)
    admin, other = stage.cluster.admin, stage.cluster.kubelet_client
    path = f"/checkpoint/default/{name}/main"
    code, text = stage.kubelet_request(path, user=admin, method="POST")
    assert (code, text.startswith(f"checkpointing of default/{name}/main failed (")) == (500, True), text
    assert PLAYS_GO or "UNIMPLEMENTED" in text
    assert stage.kubelet_request("/checkpoint/default/none/main", user=admin, method="POST")[0] == 404
    assert stage.kubelet_request(path, user=other, method="POST")[0] == 403, "a right of its own"


def test_a_hundred_megabytes_in_both_directions(stage: Stage, tmp_path: Path) -> None:
    name = stage.unique("large")
    stage.create_pod(pod(name, container(SLEEP)))
    stage.wait_ready(name)
    data = os.urandom(1024 * 1024) * (LARGE_BYTES // (1024 * 1024))
    (tmp_path / "in").write_bytes(data)
    programs, config = stage.cluster.programs, stage.cluster.kubeconfig
    command = [programs["kubectl"], f"--kubeconfig={config}", "exec", "-i", name, "--", "cat"]
    with (tmp_path / "in").open("rb") as typed:
        echoed = subprocess.run(stage.lab.inside(command), stdin=typed, capture_output=True, timeout=240, check=True)
    assert hashlib.sha256(echoed.stdout).digest() == hashlib.sha256(data).digest()


def test_fifty_at_once_and_those_who_leave(stage: Stage) -> None:
    """Each of fifty clients gets its own bytes back; then all leave in the middle, and no process stays."""
    name = stage.unique("fifty")
    stage.create_pod(pod(name, container(SLEEP)))
    uid = stage.wait_ready(name)["metadata"]["uid"]
    path = f"/exec/default/{name}/main?input=1&output=1&command=cat"

    def connect(number: int) -> WebSocketClient:
        client = WebSocketClient(stage.kubelet_connection(stage.cluster.kubelet_client), path, remotecommand.V5)
        client.send(b"\0%d" % number)
        messages = client.messages()
        assert next(message for message in messages if len(message) > 1) == b"\1%d" % number
        return client

    with concurrent.futures.ThreadPoolExecutor(50) as pool:
        clients = list(pool.map(connect, range(50)))
    assert len(processes_of(stage, uid, "cat")) == 50
    for client in clients:
        client.abandon()
    eventually("no process", lambda: not processes_of(stage, uid, "cat"), within_seconds=30)


def processes_of(stage: Stage, uid: str, program: str) -> list[str]:
    """The ids of processes of this program in the pod's cgroup."""
    found = []
    for directory in Path("/proc").iterdir():
        try:
            is_ours = uid in (directory / "cgroup").read_text()
            if is_ours and (directory / "comm").read_text().strip() == program:
                found.append(directory.name)
        except OSError:
            continue
    return found
