"""The parts of `make up` that need no engine: images, processes, packet filter rules, the record."""

import io
import json
import os
import subprocess
import sys
import tarfile
from pathlib import Path

import pytest

from deploy.standalone import daemons, engines, images, machine, node
from deploy.standalone.console import StandaloneError


@pytest.fixture
def state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A node that keeps its things below the test's directory."""
    monkeypatch.setattr(node, "DATA", tmp_path)
    monkeypatch.setattr(node, "_RECORD", tmp_path / "record.json")
    monkeypatch.setattr(daemons, "LOGS", tmp_path / "logs")
    return tmp_path


@pytest.mark.parametrize("reference", [images.PAUSE, images.HELLO])
def test_an_image_is_a_docker_archive_and_the_same_each_time(
    reference: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Manifest, configuration and layer belong together; nothing of the time of making is in it."""
    busybox = tmp_path / "busybox"
    busybox.write_bytes(b"program")
    monkeypatch.setattr(images, "BUSYBOX", busybox)
    made = images.archive(reference)
    assert made == images.archive(reference)
    with tarfile.open(fileobj=io.BytesIO(made)) as tar:
        manifest = json.loads(tar.extractfile("manifest.json").read())[0]  # type: ignore[union-attr]  # it is a file
        assert manifest["RepoTags"] == [reference]
        layer = tar.extractfile(manifest["Layers"][0])
        configuration = json.loads(tar.extractfile(manifest["Config"]).read())  # type: ignore[union-attr]  # as above
    assert configuration["config"]["Entrypoint"][0].startswith("/bin/")
    assert layer is not None
    with tarfile.open(fileobj=layer) as tar:
        names = tar.getnames()
        assert tar.getmember("bin/busybox").mode == 0o755
    assert names.index("bin") < names.index("bin/busybox")


def test_a_daemon_is_started_once_found_again_and_stopped(state: Path) -> None:
    """By the number and start time in the record, also from a record that was read back."""
    record = node.Record("docker")
    command = [sys.executable, "-c", "import time; time.sleep(1000)"]
    daemons.start(record, "sleeper", command)
    daemons.start(record, "sleeper", command)
    assert len(record.daemons) == 1
    again = node.load_record()
    assert again == record
    found = daemons.find(record, "sleeper")
    assert found is not None
    daemons.stop(record, "sleeper")
    assert not daemons.is_running(found)
    assert record.daemons == []


def test_a_number_that_belongs_to_another_process_now_is_not_ours(state: Path) -> None:
    """The start time differs."""
    stranger = node.Daemon("x", os.getpid(), started_ticks=1)
    assert not daemons.is_running(stranger)
    assert daemons.started_ticks(os.getpid()) > 1


def test_a_daemon_that_ended_before_it_was_looked_at_does_not_run() -> None:
    """Its start time is unknown, as that of any dead process is."""
    process = subprocess.Popen(["true"])
    process.wait()
    assert not daemons.is_running(node.Daemon("x", process.pid, daemons.started_ticks(process.pid)))


def test_a_daemon_that_ends_at_once_is_told_with_its_last_words(state: Path) -> None:
    """Not after the whole waiting time."""
    record = node.Record("docker")
    daemons.start(record, "failing", ["sh", "-c", "echo port is taken; exit 1"])
    os.waitpid(record.daemons[0].pid, 0)
    with pytest.raises(StandaloneError, match="port is taken"):
        daemons.wait_for(record, "failing", "an answer", lambda: False)


def test_rules_are_saved_with_their_table_and_without_counters(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """So that two looks can be compared."""
    program = tmp_path / "fake-save"
    program.write_text(
        "#!/bin/sh\nprintf '*nat\\n:DOCKER - [0:0]\\n-A POSTROUTING -s 10.0.0.0/8 -j MASQUERADE\\nCOMMIT\\n'\n"
    )
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    assert machine._rules("fake") == ["nat :DOCKER -", "nat -A POSTROUTING -s 10.0.0.0/8 -j MASQUERADE"]


@pytest.mark.parametrize(
    ("rule", "ours"),
    [
        ("-A FORWARD -o docker0 -j ACCEPT", True),
        ("-A FORWARD -i br-0123456789ab -j ACCEPT", True),
        ("-A POSTROUTING -s 10.244.210.5/32 -j CNI-0123", True),
        ("-A INPUT -p tcp --dport 22 -j ACCEPT", False),
        ("-A FORWARD -i br-lan -j ACCEPT", False),
    ],
)
def test_only_rules_with_engines_names_are_taken_out(rule: str, ours: bool) -> None:
    """What an administrator added meanwhile stays."""
    assert bool(machine._OURS.search(rule)) is ours


def test_the_engines_get_directories_and_names_of_their_own() -> None:
    """No default place of Docker, containerd or CNI is used."""
    text = json.dumps(engines._dockerd_settings()) + engines._containerd_configuration(node.Record("containerd"))
    assert "/var/lib/docker" not in text.replace(str(node.DATA), "")
    assert "/run/containerd/" not in text.replace(str(node.RUN), "")


@pytest.mark.parametrize(("parameter", "needed"), [("Y\n", True), ("N\n", False), (None, False)])
def test_where_apparmor_is_enforced_its_tool_is_needed(
    parameter: str | None, needed: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Docker 20.10 on Debian's own kernel starts nothing without apparmor_parser, which is only recommended there."""
    monkeypatch.setattr(engines, "APPARMOR", tmp_path / "enabled")
    if parameter is not None:
        (tmp_path / "enabled").write_text(parameter)
    assert ("apparmor" in engines.packages("docker")) is needed
    assert set(engines.PACKAGES["docker"]) <= set(engines.packages("docker"))


def test_the_command_line_says_what_it_can_do() -> None:
    """Without root and without doing anything."""
    command = [sys.executable, "-m", "deploy.standalone", "--help"]
    done = subprocess.run(command, text=True, capture_output=True, check=True)
    assert "down" in done.stdout
