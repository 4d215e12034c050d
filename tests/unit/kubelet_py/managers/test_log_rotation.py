"""Long logs of running containers are rotated; nothing else is touched, and the runtime is asked about little."""

import errno
import gzip
import os
import shutil
from pathlib import Path
from typing import Any

import pytest
from structlog.testing import capture_logs

from cri_proto import runtime_v1 as cri
from kubelet_py.core.labels import pod_log_directory
from kubelet_py.errors import RuntimeCallError, RuntimeNotFound, RuntimeUnavailable
from kubelet_py.managers.log_rotation import LogRotator, RotationSettings

NOW = 1767225600.0
ASIDE = "0.log.20260101-000000"


class Runtime:
    """Running containers that write one file each; asked to reopen, they make it anew."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.logs: dict[str, Path] = {}
        self.containers: dict[str, cri.Container] = {}
        self.calls: list[str] = []
        self.fails: Exception | None = None

    def add(self, pod_uid: str, name: str, size: int, count: int = 0, state: int = cri.CONTAINER_RUNNING) -> Path:
        path = Path(pod_log_directory(str(self.root), "ns", "pod", pod_uid), name, f"{count}.log")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"x" * size)
        container_id = f"{pod_uid}-{name}-{count}"
        self.logs[container_id] = path
        self.containers[container_id] = cri.Container(
            id=container_id,
            state=cri.CONTAINER_RUNNING if state == cri.CONTAINER_RUNNING else cri.CONTAINER_EXITED,
            labels={"io.kubernetes.pod.uid": pod_uid, "io.kubernetes.container.name": name},
            annotations={"io.kubernetes.container.restartCount": str(count)},
        )
        return path

    async def list_containers(self, pod_uid: str | None = None) -> list[cri.Container]:
        self.calls.append("ListContainers")
        if isinstance(self.fails, RuntimeUnavailable):
            raise self.fails
        return [c for c in self.containers.values() if pod_uid in (None, c.labels["io.kubernetes.pod.uid"])]

    async def container_status(self, container_id: str) -> cri.ContainerStatus:
        self.calls.append("ContainerStatus")
        if container_id not in self.logs:
            raise RuntimeNotFound("ContainerStatus", "NOT_FOUND", container_id)
        return cri.ContainerStatus(id=container_id, log_path=str(self.logs[container_id]))

    async def reopen_container_log(self, container_id: str) -> None:
        self.calls.append("ReopenContainerLog")
        if self.fails is not None:
            raise self.fails
        self.logs[container_id].touch()


@pytest.fixture
def runtime(tmp_path: Path) -> Runtime:
    return Runtime(tmp_path)


def rotator(runtime: Runtime, max_size: int = 100, max_files: int = 4, now: float = NOW) -> LogRotator:
    return LogRotator(runtime, RotationSettings(runtime.root, max_size, max_files), lambda: now)


def files(path: Path) -> list[str]:
    return sorted(entry.name for entry in path.parent.iterdir())


async def test_a_log_that_is_too_long_is_moved_aside_and_reopened(runtime: Runtime) -> None:
    path = runtime.add("u1", "main", 100)
    await rotator(runtime).rotate_long_logs()
    assert files(path) == ["0.log", ASIDE]
    assert (path.read_bytes(), path.with_name(ASIDE).read_bytes()) == (b"", b"x" * 100)
    assert runtime.calls == ["ListContainers", "ContainerStatus", "ReopenContainerLog"]


async def test_short_logs_cost_the_runtime_nothing(runtime: Runtime) -> None:
    path = runtime.add("u1", "main", 99)
    await rotator(runtime).rotate_long_logs()
    assert (files(path), runtime.calls) == (["0.log"], [])


async def test_what_was_rotated_before_is_compressed_and_the_oldest_goes(runtime: Runtime) -> None:
    path = runtime.add("u1", "main", 0)
    for second in range(4):
        path.write_bytes(b"%d" % second * 200)
        path.chmod(0o640)
        await rotator(runtime, now=NOW + second).rotate_long_logs()
    assert files(path) == ["0.log", "0.log.20260101-000001.gz", "0.log.20260101-000002.gz", "0.log.20260101-000003"]
    packed = path.with_name("0.log.20260101-000002.gz")
    assert gzip.decompress(packed.read_bytes()) == b"2" * 200
    assert packed.stat().st_mode & 0o777 == 0o640


async def test_each_container_has_its_own_log(runtime: Runtime) -> None:
    """The run before, other containers and other pods are not mistaken for the one that writes."""
    old = runtime.add("u1", "main", 500, count=0, state=cri.CONTAINER_EXITED)
    path = runtime.add("u1", "main", 500, count=1)
    side = runtime.add("u1", "side", 10)
    other = runtime.add("u2", "main", 500)
    await rotator(runtime).rotate_long_logs()
    assert files(path) == ["0.log", "1.log", "1.log.20260101-000000"]
    assert old.stat().st_size == 500
    assert files(side) == ["0.log"]
    assert files(other) == ["0.log", ASIDE]


async def test_a_log_that_nobody_writes_stays(runtime: Runtime) -> None:
    """A file in a pod's directory that is no running container's, and one of a container that is just gone."""
    path = runtime.add("u1", "main", 500)
    del runtime.logs["u1-main-0"]
    stray = path.parent.parent / "stray" / "0.log"
    stray.parent.mkdir()
    stray.write_bytes(b"x" * 500)
    with capture_logs() as lines:
        await rotator(runtime).rotate_long_logs()
    assert (files(path), files(stray), lines) == (["0.log"], ["0.log"], [])


async def test_a_failed_reopen_gives_the_log_its_name_back_and_is_told_once(runtime: Runtime) -> None:
    """The runtime still writes into the file."""
    path = runtime.add("u1", "main", 500)
    runtime.fails = RuntimeCallError("ReopenContainerLog", "UNKNOWN", "no such thing")
    one = rotator(runtime)
    with capture_logs() as lines:
        await one.rotate_long_logs()
        await one.rotate_long_logs()
    assert (files(path), path.stat().st_size) == (["0.log"], 500)
    assert [line["event"] for line in lines] == ["container_log_not_rotated"]
    assert "no such thing" in lines[0]["error"]
    runtime.fails = None
    await one.rotate_long_logs()
    assert files(path) == ["0.log", ASIDE]


async def test_a_runtime_that_is_away_is_no_news(runtime: Runtime) -> None:
    path = runtime.add("u1", "main", 500)
    runtime.fails = RuntimeUnavailable("ListContainers", "UNAVAILABLE", "connection refused")
    with capture_logs() as lines:
        await rotator(runtime).rotate_long_logs()
    assert files(path) == ["0.log"]
    assert [line["log_level"] for line in lines] == ["debug"]


async def test_a_full_disk_keeps_no_log_from_being_rotated(runtime: Runtime, monkeypatch: pytest.MonkeyPatch) -> None:
    """What cannot be compressed stays as it is and is told once; nothing half is left."""

    def full(source: object, target: object, length: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(shutil, "copyfileobj", full)
    path = runtime.add("u1", "main", 500)
    one = rotator(runtime)
    plain = path.with_name("0.log.20250101-000000")
    plain.write_bytes(b"old")
    with capture_logs() as lines:
        await one.rotate_long_logs()
    assert files(path) == ["0.log", plain.name, ASIDE]
    assert [line["event"] for line in lines] == ["rotated_log_not_compressed", "container_log_rotated"]


@pytest.mark.parametrize("depth", ["container", "pod"])
async def test_a_directory_that_cannot_be_read_keeps_no_other_log_from_being_rotated(
    runtime: Runtime, monkeypatch: pytest.MonkeyPatch, depth: str
) -> None:
    """It is told of once, and what was known of it is not forgotten: its log is missed when it can be read again."""
    broken, other = runtime.add("u1", "broken", 1), runtime.add("u2", "other", 100)
    made = rotator(runtime)
    directory, scandir = broken.parent if depth == "container" else broken.parent.parent, os.scandir

    def refuse(path: Path) -> Any:
        if path == directory:
            raise OSError(errno.EIO, "Input/output error", str(path))
        return scandir(path)

    monkeypatch.setattr("kubelet_py.managers.log_rotation._size_bytes", lambda file: 1)
    await made.rotate_long_logs()
    monkeypatch.undo()
    monkeypatch.setattr(os, "scandir", refuse)
    with capture_logs() as logs:
        for _ in range(2):
            await made.rotate_long_logs()
    assert [entry["path"] for entry in logs if entry["event"] == "container_logs_not_looked_at"] == [str(directory)]
    assert files(other) == ["0.log", ASIDE]
    broken.unlink()
    monkeypatch.undo()
    await made.rotate_long_logs()
    assert files(broken) == ["0.log"]


async def test_logs_that_cannot_be_listed_end_nothing(runtime: Runtime) -> None:
    runtime.root.rmdir()
    runtime.root.touch()
    with capture_logs() as logs:
        await rotator(runtime).rotate_long_logs()
    assert [(entry["event"], entry["path"]) for entry in logs] == [("container_logs_not_looked_at", str(runtime.root))]


async def test_no_logs_yet(tmp_path: Path) -> None:
    """The directory is made with the first pod."""
    runtime = Runtime(tmp_path / "none")
    await rotator(runtime).rotate_long_logs()
    assert runtime.calls == []


async def test_a_size_below_zero_switches_it_off(runtime: Runtime) -> None:
    runtime.add("u1", "main", 500)
    await rotator(runtime, max_size=-1).run()
    assert runtime.calls == []


async def test_a_log_that_somebody_removed_is_begun_anew(runtime: Runtime) -> None:
    """Else the container would go on writing into a file that nobody sees; that of a run before is missed by nobody."""
    before = runtime.add("u1", "main", 10, count=0, state=cri.CONTAINER_EXITED)
    path = runtime.add("u1", "main", 10, count=1)
    one = rotator(runtime)
    await one.rotate_long_logs()
    before.unlink()
    await one.rotate_long_logs()
    assert runtime.calls == []
    path.unlink()
    runtime.fails = RuntimeUnavailable("ListContainers", "UNAVAILABLE", "away")
    await one.rotate_long_logs()
    runtime.fails = None
    with capture_logs() as lines:
        await one.rotate_long_logs()
    assert path.exists()
    assert [line["event"] for line in lines] == ["container_log_was_gone"]
    runtime.calls.clear()
    await one.rotate_long_logs()
    assert runtime.calls == []


async def test_a_log_that_was_left_moved_aside_is_begun_anew(runtime: Runtime) -> None:
    """By an agent that was killed before the runtime was told."""
    path = runtime.add("u1", "main", 500)
    path.rename(path.with_name(ASIDE))
    await rotator(runtime).rotate_long_logs()
    assert files(path) == ["0.log", ASIDE]


async def test_a_log_that_went_with_its_container_is_asked_for_once(runtime: Runtime) -> None:
    path = runtime.add("u1", "main", 10)
    path.with_name(ASIDE).touch()  # stays
    one = rotator(runtime)
    await one.rotate_long_logs()
    path.unlink()
    runtime.containers.clear()
    await one.rotate_long_logs()
    await one.rotate_long_logs()
    assert runtime.calls == ["ListContainers"]
