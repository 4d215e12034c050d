"""The whole agent in one process, without an API server: a manifest becomes a Running pod on the fake runtime."""

import asyncio
import json
import os
import signal
import socket
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from structlog.testing import capture_logs

from kubelet_py import log
from kubelet_py.__main__ import run_agent
from kubelet_py.app.run import run
from kubelet_py.config import load
from kubelet_py.errors import ConfigError, RuntimeUnimplemented
from kubelet_py.managers.volumes import manager
from tests.fakes.runtime import FakeRuntimeClient
from tests.fakes.runtime_server import serving
from tests.fakes.waiting import eventually

IMAGE = "registry.example/app:1"


@pytest.fixture(autouse=True)
def unmounted(monkeypatch: pytest.MonkeyPatch) -> None:
    """The machine's mounts and this process's logging stay as they are."""
    monkeypatch.setattr(manager, "ensure_shared", lambda path: None)
    monkeypatch.setattr(log, "setup", lambda *_: None)


def a_config(tmp_path: Path, **fields: Any) -> list[str]:
    """The command line of a node that keeps to `tmp_path`."""
    (tmp_path / "manifests").mkdir(exist_ok=True)
    settings = {
        "apiVersion": "kubelet.config.k8s.io/v1beta1",
        "kind": "KubeletConfiguration",
        "containerRuntimeEndpoint": f"unix://{tmp_path}/cri.sock",
        "staticPodPath": str(tmp_path / "manifests"),
        "podLogsDir": str(tmp_path / "logs" / "pods"),
        "authentication": {"webhook": {"enabled": False}, "anonymous": {"enabled": False}},
        "authorization": {"mode": "AlwaysAllow"},
        "enableServer": False,
        "failCgroupV1": False,
        "healthzPort": 0,
        "cgroupsPerQOS": False,
        "enforceNodeAllocatable": [],
        "fileCheckFrequency": "1s",
        "oomScoreAdj": int(Path("/proc/self/oom_score_adj").read_text()),
        "maxOpenFiles": 64,
        **fields,
    }
    path = tmp_path / "config.json"
    path.write_text(json.dumps(settings))
    root, certs = tmp_path / "kubelet", tmp_path / "pki"
    return [f"--config={path}", f"--root-dir={root}", f"--cert-dir={certs}", "--hostname-override=node-1"]


def write_manifest(tmp_path: Path) -> None:
    pod = {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": "web", "namespace": "shop"},
        "spec": {"containers": [{"name": "main", "image": IMAGE}]},
    }
    (tmp_path / "manifests" / "web.json").write_text(json.dumps(pod))


def leaves(group: BaseExceptionGroup[Exception]) -> list[Exception]:
    """The errors themselves."""
    return [e for each in group.exceptions for e in (leaves(each) if isinstance(each, BaseExceptionGroup) else [each])]


@asynccontextmanager
async def agent(arguments: list[str]) -> AsyncIterator["asyncio.Task[None]"]:
    with capture_logs():
        async with asyncio.TaskGroup() as tasks:
            task = tasks.create_task(run(load(arguments)))
            yield task
            if not task.done():
                os.kill(os.getpid(), signal.SIGTERM)


async def test_a_manifest_becomes_a_running_pod_that_outlives_the_agent(tmp_path: Path) -> None:
    fake = FakeRuntimeClient()
    fake.add_image(IMAGE)
    arguments = a_config(tmp_path)
    async with serving(fake, tmp_path / "cri.sock"):
        async with agent(arguments):
            write_manifest(tmp_path)
            await eventually(fake.running, "the pod runs")
        assert fake.running() == ["main"]
        (sandbox,) = fake.ready_sandboxes()
        assert sandbox.config.metadata.name == "web-node-1"
        before = fake.called()
        async with agent(arguments):
            looks = len(fake.called("ContainerStatus"))
            await eventually(lambda: len(fake.called("ContainerStatus")) > looks)
            assert fake.called() == before, "an agent that comes back finds its pods as they are"
            (tmp_path / "manifests" / "web.json").unlink()
            await eventually(lambda: not fake.sandboxes, "the pod is gone")


async def test_a_machine_without_any_address_runs_its_pods(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A link that comes up late, or never: nothing that a static pod needs."""
    monkeypatch.setattr("psutil.net_if_addrs", dict)
    fake = FakeRuntimeClient()
    fake.add_image(IMAGE)
    arguments = [*a_config(tmp_path), "--node-ip=192.0.2.1"]
    write_manifest(tmp_path)
    async with serving(fake, tmp_path / "cri.sock"), agent(arguments):
        await eventually(fake.running, "the pod runs")


async def test_an_agent_waits_for_its_runtime(tmp_path: Path) -> None:
    fake = FakeRuntimeClient()
    fake.add_image(IMAGE)
    fake.cgroup_driver = None
    arguments = a_config(tmp_path)
    write_manifest(tmp_path)
    async with agent(arguments):
        await asyncio.sleep(0.2)
        async with serving(fake, tmp_path / "cri.sock"):
            await eventually(fake.running, "the pod runs")


async def test_an_agent_can_be_stopped_while_it_waits_for_its_runtime(tmp_path: Path) -> None:
    async with agent(a_config(tmp_path)) as task:
        await asyncio.sleep(0.2)
        assert not task.done()


async def test_what_speaks_no_cri_ends_the_start_with_a_configuration_error(tmp_path: Path) -> None:
    fake = FakeRuntimeClient()
    fake.fail("Version", RuntimeUnimplemented("Version", "UNIMPLEMENTED", "unknown service"), times=None)
    async with serving(fake, tmp_path / "cri.sock"):
        with pytest.raises(ExceptionGroup) as caught:
            await asyncio.wait_for(run(load(a_config(tmp_path))), 60)
    (problem,) = leaves(caught.value)
    assert isinstance(problem, ConfigError)
    assert "no CRI v1 runtime" in str(problem)


PROGRAM = """
import os, signal, socket, sys, threading

from kubelet_py.__main__ import main
from kubelet_py.managers.volumes import manager

def ask(host, *_, **__):
    if host != "nobody.invalid":
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")
    for name in os.environ["SIGNALS"].split():
        signal.pthread_kill(threading.main_thread().ident, signal.Signals[name])
    threading.Event().wait()

socket.getaddrinfo = ask
manager.ensure_shared = lambda path: None
sys.exit(main())
"""
"""The program; mounts stay as they are. Its name server is away, and it is told to stop when it asks."""


@pytest.mark.parametrize(("signals", "code"), [("SIGTERM", 0), ("SIGINT", 0), ("SIGTERM SIGINT", 1)])
async def test_a_stop_waits_for_no_name_server_and_a_second_signal_for_nothing(
    tmp_path: Path, signals: str, code: int
) -> None:
    """The thread that asks for a name cannot be interrupted."""
    arguments = a_config(tmp_path, healthzPort=1, healthzBindAddress="nobody.invalid")
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-c",
        PROGRAM,
        *arguments,
        stderr=asyncio.subprocess.PIPE,
        env={**os.environ, "SIGNALS": signals},
    )
    try:
        async with asyncio.timeout(60):
            _, said = await process.communicate()
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    assert process.returncode == code
    assert b"Traceback" not in said


def test_a_port_that_is_taken_is_one_line_and_exit_code_1(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with capture_logs():
            assert run_agent(a_config(tmp_path, healthzPort=port, healthzBindAddress="127.0.0.1")) == 1
    printed = capsys.readouterr().err
    assert printed.startswith("kubelet-py: ")
    assert str(port) in printed
    assert len(printed.splitlines()) == 1


@pytest.mark.parametrize(
    ("file", "setting", "problem"),
    [
        ("kubelet", "--root-dir {0}/kubelet", "{0}/kubelet: File exists"),
        ("kubelet/pods", "--root-dir {0}/kubelet", "{0}/kubelet/pods: File exists"),
        ("logs", "podLogsDir {0}/logs/pods", "{0}/logs/pods: Not a directory"),
    ],
)
def test_a_directory_that_cannot_be_used_is_one_line_with_its_setting(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], file: str, setting: str, problem: str
) -> None:
    """The root of the pods and that of their logs; a full disk comes the same way."""
    (tmp_path / file).parent.mkdir(exist_ok=True)
    (tmp_path / file).write_text("a file")
    with capture_logs():
        assert run_agent(a_config(tmp_path)) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"kubelet-py: {setting.format(tmp_path)}: cannot use {problem.format(tmp_path)}; ")


async def test_health_checks_are_answered_under_a_name(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]

    def is_served() -> bool:
        with socket.socket() as caller:
            caller.bind(("127.0.0.2", 0))  # from the same address it could meet itself, and take the port away
            return caller.connect_ex(("127.0.0.1", port)) == 0

    async with agent(a_config(tmp_path, healthzPort=port, healthzBindAddress="localhost")):
        await eventually(is_served, "the name's address is listened on")


@pytest.mark.parametrize(
    ("fields", "text"),
    [
        ({"containerRuntimeEndpoint": "tcp://127.0.0.1:1"}, "containerRuntimeEndpoint"),
        ({"allowedUnsafeSysctls": ["vm.swappiness"]}, "vm.swappiness"),
        ({"noSuchField": 1}, "noSuchField"),
    ],
)
def test_a_configuration_that_cannot_be_is_one_line_and_exit_code_1(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], fields: dict[str, Any], text: str
) -> None:
    with capture_logs():
        assert run_agent(a_config(tmp_path, **fields)) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("kubelet-py: ")
    assert text in line


def test_the_version_is_an_answer_and_no_start(capsys: pytest.CaptureFixture[str]) -> None:
    assert run_agent(["--version"]) == 0
    assert "v1.37" in capsys.readouterr().out
