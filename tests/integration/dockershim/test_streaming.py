"""Exec, attach and port-forward on real Docker, with Go's own client (crictl) at the other end."""

from __future__ import annotations

import concurrent.futures
import contextlib
import fcntl
import hashlib
import os
import select
import signal
import struct
import subprocess
import sys
import termios
import time
from collections.abc import Iterator

import pytest

from cri_proto import runtime_v1 as cri
from tests.integration.dockershim.harness import Shim, eventually
from tests.lab.lab import Lab
from tests.lab.pki import Authority
from tests.lab.process import LabProcess

pytestmark = pytest.mark.lab

BLOCK_BYTES = 10 * 1024 * 1024
TRANSPORTS = ("spdy", "websocket")
ECHO = """
import socket, sys
server = socket.create_server(("::1", int(sys.argv[1])), family=socket.AF_INET6)
while True:
    connection, _ = server.accept()
    while data := connection.recv(1024):
        connection.sendall(data)
"""
SERVE = "while true; do nc -ll -p 8080 -e cat; sleep 0.1; done"


def crictl(lab: Lab, shim: Shim, *arguments: str, data: bytes = b"") -> subprocess.CompletedProcess[bytes]:
    """crictl against dockershim, to its end."""
    command = lab.inside(shim.crictl(*arguments))
    return subprocess.run(command, input=data, capture_output=True, timeout=120, check=False)


@pytest.fixture
def container(shim: Shim) -> str:
    """A pod with a container that sleeps."""
    return shim.run(shim.run_sandbox(), "exec sleep 1000")


@pytest.mark.parametrize("transport", TRANSPORTS)
def test_exec_gives_output_and_exit_code(lab: Lab, shim: Shim, container: str, transport: str) -> None:
    """stdout, stderr and the code come apart, for good and bad ends, and for a program that does not exist."""
    exec_ = ("exec", "--transport", transport, container)
    done = crictl(lab, shim, *exec_, "sh", "-c", "echo out; echo err >&2")
    assert (done.returncode, done.stdout) == (0, b"out\n")
    assert done.stderr.endswith(b"\nerr\n")  # after crictl's own warning
    assert b"out" not in done.stderr
    done = crictl(lab, shim, *exec_, "sh", "-c", "exit 7")
    assert done.returncode != 0
    assert b"exit code 7" in done.stderr or b"exit status 7" in done.stderr or done.returncode == 7, done.stderr
    done = crictl(lab, shim, *exec_, "/no/such/program")
    assert done.returncode != 0


@pytest.mark.parametrize("transport", TRANSPORTS)
def test_stdin_ends_and_ten_megabytes_come_back(lab: Lab, shim: Shim, container: str, transport: str) -> None:
    """The end of stdin reaches the program, and every byte passes in both directions."""
    data = os.urandom(BLOCK_BYTES)
    done = crictl(lab, shim, "exec", "-i", "--transport", transport, container, "cat", data=data)
    assert done.returncode == 0, done.stderr
    assert hashlib.sha256(done.stdout).digest() == hashlib.sha256(data).digest()


def test_ten_at_once(lab: Lab, shim: Shim, container: str) -> None:
    """Each gets its own bytes back."""
    blocks = [os.urandom(256 * 1024) for _ in range(10)]

    def echo(number: int) -> bytes:
        transport = TRANSPORTS[number % 2]
        return crictl(lab, shim, "exec", "-i", "--transport", transport, container, "cat", data=blocks[number]).stdout

    with concurrent.futures.ThreadPoolExecutor(10) as pool:
        assert list(pool.map(echo, range(10))) == blocks


@pytest.mark.parametrize("transport", TRANSPORTS)
def test_a_terminal_has_the_clients_size_and_ctrl_p(lab: Lab, shim: Shim, container: str, transport: str) -> None:
    """The program has a terminal of the client's size, and sees what is typed at once."""
    master, slave = os.openpty()
    with _terminal(lab, shim, slave, "exec", "-i", "-t", "--transport", transport, container, "sh") as process:
        _read_until(master, b"# ")
        eventually(lambda: b"\n41 97" in _ask(master, b"stty size\n"))
        os.write(master, b"test -t 0 && echo is-a-$((6*7))\n")
        _read_until(master, b"is-a-42")
        os.write(master, b"exit 3\n")
        assert process.wait(20) != 0
    os.close(master)


@contextlib.contextmanager
def _terminal(lab: Lab, shim: Shim, slave: int, *arguments: str) -> Iterator[subprocess.Popen[bytes]]:
    fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", 41, 97, 0, 0))
    command = lab.inside(shim.crictl(*arguments))
    process = subprocess.Popen(command, stdin=slave, stdout=slave, stderr=slave, start_new_session=True)
    os.close(slave)
    try:
        yield process
    finally:
        process.kill()
        process.wait(10)


def _read_until(master: int, text: bytes, timeout_seconds: float = 20.0) -> bytes:
    seen = b""
    deadline = time.monotonic() + timeout_seconds
    while text not in seen:
        ready, _, _ = select.select([master], [], [], max(0.0, deadline - time.monotonic()))
        assert ready, f"{text!r} did not come: {seen!r}"
        seen += os.read(master, 65536)
    return seen


def _ask(master: int, question: bytes) -> bytes:
    os.write(master, question)
    answer = _read_until(master, b"# ")
    return answer if b"# " in answer[len(question) :] else answer + _read_until(master, b"# ")


def test_a_client_that_goes_away_leaves_no_process(lab: Lab, shim: Shim, container: str) -> None:
    """kill -9 of the client ends the program and its children."""
    client = lab.popen(shim.crictl("exec", container, "sh", "-c", "sleep 4321 & sleep 4322; wait"), log="gone")
    eventually(lambda: _sleeps(shim, container) == 2)
    client.send_signal(signal.SIGKILL)
    eventually(lambda: _sleeps(shim, container) == 0)


def _sleeps(shim: Shim, container: str) -> int:
    listed = shim.exec(container, "ps", "-o", "args").stdout
    return listed.count(b"\nsleep 432")


@pytest.mark.parametrize("transport", TRANSPORTS)
def test_attach_joins_the_container(lab: Lab, shim: Shim, transport: str) -> None:
    """What is typed reaches the container's own process, whose answer comes back; its end ends the attach."""
    container = shim.run(shim.run_sandbox(), "read line; echo got $line", stdin=True, stdin_once=True)
    done = crictl(lab, shim, "attach", "-i", "--transport", transport, container, data=b"hello\n")
    assert b"got hello" in done.stdout, done


@pytest.fixture
def forwarded(lab: Lab, shim: Shim, request: pytest.FixtureRequest) -> Iterator[int]:
    """A port of the lab that crictl forwards to a pod's server, which sends everything back."""
    sandbox = shim.run_sandbox()
    container = shim.run(sandbox, SERVE)
    eventually(lambda: b":8080 " in shim.exec(container, "netstat", "-ltn").stdout)
    port = 18080 + TRANSPORTS.index(request.param)
    with forwarding(lab, shim, request.param, sandbox[0], f"{port}:8080", f"{port + 10}:9"):
        yield port


@contextlib.contextmanager
def forwarding(lab: Lab, shim: Shim, transport: str, sandbox_id: str, *ports: str) -> Iterator[None]:
    command = shim.crictl("port-forward", "--transport", transport, sandbox_id, *ports)
    client: LabProcess = lab.popen(command, log=f"forward-{transport}-{ports[0].replace(':', '-')}")
    eventually(lambda: "Forwarding from" in client.log_tail())
    try:
        yield
    finally:
        client.kill()
        client.wait(10)


def echo(lab: Lab, port: int, data: bytes) -> bytes:
    with lab.connect("127.0.0.1", port) as connection, concurrent.futures.ThreadPoolExecutor(1) as pool:
        connection.settimeout(60)
        sending = pool.submit(connection.sendall, data)
        received = bytearray()
        while len(received) < len(data) and (piece := connection.recv(1 << 16)):
            received += piece
        sending.result()
        return bytes(received)


@pytest.mark.parametrize("forwarded", TRANSPORTS, indirect=True)
def test_port_forward(lab: Lab, forwarded: int) -> None:
    """Ten connections at once, ten megabytes there and back, and a port where nobody listens ends at once."""
    data = os.urandom(BLOCK_BYTES)
    assert echo(lab, forwarded, data) == data
    blocks = [os.urandom(128 * 1024) for _ in range(10)]
    with concurrent.futures.ThreadPoolExecutor(10) as pool:
        assert list(pool.map(lambda block: echo(lab, forwarded, block), blocks)) == blocks
    with lab.connect("127.0.0.1", forwarded + 10) as connection:
        connection.settimeout(20)
        with contextlib.suppress(ConnectionResetError):
            assert connection.recv(10) == b""


@pytest.mark.parametrize("transport", TRANSPORTS)
def test_port_forward_to_a_server_that_listens_on_ipv6_alone(lab: Lab, shim: Shim, transport: str) -> None:
    """And in a pod that shares the host's network."""
    options = cri.NamespaceOption(network=cri.NamespaceMode.NODE)
    linux = cri.LinuxPodSandboxConfig(security_context=cri.LinuxSandboxSecurityContext(namespace_options=options))
    sandbox = shim.run_sandbox(shim.sandbox_config(linux=linux))
    served, port = 8090 + TRANSPORTS.index(transport), 18090 + TRANSPORTS.index(transport)
    server = lab.popen([sys.executable, "-c", ECHO, str(served)], log=f"echo-{transport}")
    try:
        eventually(lambda: f"[::1]:{served} " in lab.run(["ss", "-ltnH"]).stdout)
        with forwarding(lab, shim, transport, sandbox[0], f"{port}:{served}"):
            assert echo(lab, port, b"hello") == b"hello"
    finally:
        server.kill()
        server.wait(10)


@pytest.fixture(scope="module")
def encrypted(lab: Lab) -> Iterator[tuple[Shim, Authority]]:
    """A dockershim that streams over TLS, and the authority of its certificate."""
    authority = Authority(lab.root / "streaming-pki", "streaming")
    issued = authority.issue("streams", "streams", server_names=["127.0.0.1", "localhost"])  # what crictl asks for
    flags = (f"--streaming-tls-cert-file={issued.certificate}", f"--streaming-tls-private-key-file={issued.key}")
    started = Shim(lab, "shim-tls", None, *flags)
    yield started, authority
    started.remove_all()
    started.stop()


@pytest.mark.parametrize("transport", TRANSPORTS)
def test_streams_over_tls(lab: Lab, encrypted: tuple[Shim, Authority], transport: str) -> None:
    """For a client that trusts the authority, and for no other."""
    shim, authority = encrypted
    container = shim.run(shim.run_sandbox(), "exec sleep 1000")
    client = authority.issue(f"client-{transport}", "client")
    other = Authority(lab.root / f"other-pki-{transport}", "other")

    def exec_(trusted: Authority) -> subprocess.CompletedProcess[bytes]:
        files = (trusted.credentials.certificate, client.certificate, client.key)
        flags = ("--tls-ca", "--tls-cert", "--tls-key")  # crictl wants all of them, or believes anybody
        told = [part for flag, file in zip(flags, files, strict=True) for part in (flag, str(file))]
        command = (container, "sh", "-c", "cat; exit 3")
        return crictl(lab, shim, "exec", "-i", "--transport", transport, *told, *command, data=b"hello")

    done = exec_(authority)
    assert done.stdout == b"hello", done
    assert b"exit code 3" in done.stderr, done
    refused = exec_(other)
    assert (refused.returncode, refused.stdout) == (1, b"")
    assert b"certificate signed by unknown authority" in refused.stderr
