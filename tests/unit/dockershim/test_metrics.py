"""dockershim's own numbers: what is counted, where it is served, and that it costs nothing when it is off."""

from __future__ import annotations

import asyncio
import socket
import subprocess
import sys
import urllib.error
import urllib.request
from pathlib import Path

import pytest

from cri_proto import runtime_v1 as cri
from dockershim import app
from dockershim.config import Config, parse_arguments
from dockershim.errors import ConfigError
from dockershim.metrics import Metrics
from dockershim.node import NodeSettings
from tests.fakes.docker_node import PAUSE, FakeLogs, FakePodNetwork, sandbox_config, stocked_engine
from tests.unit.dockershim.test_service import Client, ready


def free_port() -> int:
    """A port that was free a moment ago."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port: int = taken.getsockname()[1]
    return port


def scrape(port: int) -> dict[str, float]:
    """Series and values."""
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=10) as answer:
        lines = answer.read().decode().splitlines()
    return {line.rpartition(" ")[0]: float(line.rpartition(" ")[2]) for line in lines if not line.startswith("#")}


async def test_what_is_counted(tmp_path: Path) -> None:
    """Calls by code, events, and what the store has at the moment; nothing is left listening at the end."""
    engine = stocked_engine()
    port = free_port()
    metrics = Metrics()
    parts = app.Parts(engine, FakePodNetwork(), FakeLogs(), NodeSettings(pause_image=PAUSE), metrics=metrics)
    address = tmp_path / "cri.sock"
    config = Config(socket_path=address, root_directory=tmp_path / "state", metrics_address=("127.0.0.1", port))
    stop = asyncio.Event()
    async with asyncio.TaskGroup() as group:
        group.create_task(app.serve(config, parts, stop), name="serve")
        client = Client(address)
        await ready(client)
        run = cri.RunPodSandboxRequest(config=sandbox_config())
        await client.code("RuntimeService", "RunPodSandbox", run)
        await client.code("RuntimeService", "ContainerStatus", cri.ContainerStatusRequest(container_id="no-such"))
        await client.code("RuntimeService", "StreamContainers", cri.StreamContainersRequest())
        found = await asyncio.to_thread(scrape, port)
        await client.channel.close(None)
        stop.set()
    count = "dockershim_rpc_duration_seconds_count"
    assert found[f'{count}{{code="OK",method="RunPodSandbox"}}'] == 1
    assert found[f'{count}{{code="NOT_FOUND",method="ContainerStatus"}}'] == 1
    assert found[f'{count}{{code="OK",method="StreamContainers"}}'] == 1
    assert found['dockershim_sandboxes{state="ready"}'] == 1
    assert found['dockershim_containers{state="running"}'] == 0
    assert found["dockershim_images"] == 2
    assert found["dockershim_docker_ready"] == 1
    assert found["dockershim_event_lag_seconds_count"] > 0
    assert found["process_resident_memory_bytes"] > 0
    with pytest.raises(urllib.error.URLError):
        await asyncio.to_thread(scrape, port)


def test_calls_to_docker_are_told_apart() -> None:
    """By kind and outcome; a clock that was set back is no negative lag."""
    metrics = Metrics()
    metrics.docker_called("inspect", False, 0.02)
    metrics.docker_called("inspect", True, 0.5)
    metrics.event_read(-3.0)
    value = metrics.registry.get_sample_value
    name = "dockershim_docker_call_duration_seconds"
    assert value(f"{name}_count", {"call": "inspect", "outcome": "ok"}) == 1
    assert value(f"{name}_sum", {"call": "inspect", "outcome": "error"}) == 0.5
    assert value("dockershim_event_lag_seconds_sum") == 0


def test_a_taken_address_is_said_to_be_taken() -> None:
    """With the flag's name."""
    with (
        socket.create_server(("127.0.0.1", 0)) as taken,
        pytest.raises(ConfigError, match=r"--metrics-bind-addr 127\.0\.0\.1:.*in use"),
    ):
        Metrics().serve("127.0.0.1", taken.getsockname()[1])


@pytest.mark.parametrize(
    ("text", "address"),
    [
        ("", None),
        (":9324", ("127.0.0.1", 9324)),
        ("10.0.0.1:80", ("10.0.0.1", 80)),
        ("[::1]:9324", ("::1", 9324)),
    ],
)
def test_the_flag(text: str, address: tuple[str, int] | None) -> None:
    """Nothing is nowhere; no host is loopback."""
    assert parse_arguments([f"--metrics-bind-addr={text}"]).metrics_address == address


@pytest.mark.parametrize("text", ["9324", "localhost", "127.0.0.1:", ":0", ":65536", "a:b"])
def test_a_flag_that_is_wrong(text: str) -> None:
    """What would be right is said."""
    with pytest.raises(ConfigError, match="want an address and a port such as"):
        parse_arguments([f"--metrics-bind-addr={text}"])


def test_it_costs_nothing_when_it_is_off(tmp_path: Path) -> None:
    """Neither the module nor prometheus_client is loaded."""
    program = (
        "import sys\n"
        "from dockershim import app\n"
        "from dockershim.config import parse_arguments\n"
        f"app.make_parts(parse_arguments(['--root-directory={tmp_path}', '--network-plugin=bridge']))\n"
        "print([name for name in ('prometheus_client', 'dockershim.metrics') if name in sys.modules])\n"
    )
    said = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout
    assert said.splitlines()[-1] == "[]"
