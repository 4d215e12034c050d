"""What a pass of garbage collection removes, from the runtime and from disk."""

import asyncio
import os
import threading
from pathlib import Path
from typing import Any

import pytest
from structlog.testing import capture_logs

from cri_proto import runtime_v1 as cri
from kubelet_py.core.gc_rules import GcPolicy
from kubelet_py.errors import RuntimeCallError, RuntimeNotFound, RuntimeUnavailable
from kubelet_py.managers.container_gc import INTERVAL_SECONDS, ContainerGc, GcSettings, PodKnowledge
from tests.fakes.waiting import background, eventually


class Runtime:
    """Containers and sandboxes in dictionaries."""

    def __init__(self, logs: Path) -> None:
        self.logs = logs
        self.containers: dict[str, cri.Container] = {}
        self.sandboxes: dict[str, cri.PodSandbox] = {}
        self.stubborn: set[str] = set()
        self.stopped: dict[str, int] = {}
        self.away = False

    def add(self, container_id: str, uid: str, state: cri.ContainerState, created_at: int) -> Path:
        sandbox = f"sandbox-{uid}"
        self.sandboxes[sandbox] = cri.PodSandbox(
            id=sandbox, metadata=cri.PodSandboxMetadata(uid=uid), state=cri.SANDBOX_NOTREADY, created_at=1
        )
        self.containers[container_id] = cri.Container(
            id=container_id,
            pod_sandbox_id=sandbox,
            state=state,
            created_at=created_at,
            labels={"io.kubernetes.pod.uid": uid, "io.kubernetes.container.name": "main"},
        )
        log = self.logs / f"ns_pod_{uid}" / "main" / f"{container_id}.log"
        log.parent.mkdir(parents=True, exist_ok=True)
        log.touch()
        log.with_name(log.name + ".20260101-000000.gz").touch()
        return log

    async def list_containers(self) -> list[cri.Container]:
        if self.away:
            raise RuntimeUnavailable("ListContainers", "UNAVAILABLE", "connection refused")
        return list(self.containers.values())

    async def list_pod_sandboxes(self) -> list[cri.PodSandbox]:
        return list(self.sandboxes.values())

    async def container_status(self, container_id: str) -> cri.ContainerStatus:
        if container_id not in self.containers:
            raise RuntimeNotFound("ContainerStatus", "NOT_FOUND", container_id)
        uid = self.containers[container_id].labels["io.kubernetes.pod.uid"]
        path = self.logs / f"ns_pod_{uid}" / "main" / f"{container_id}.log"
        return cri.ContainerStatus(id=container_id, log_path=str(path))

    async def stop_pod_sandbox(self, sandbox_id: str) -> None:
        pass

    async def stop_container(self, container_id: str, grace_period_seconds: int) -> None:
        self.stopped[container_id] = grace_period_seconds

    async def remove_pod_sandbox(self, sandbox_id: str) -> None:
        self.sandboxes.pop(sandbox_id, None)

    async def remove_container(self, container_id: str) -> None:
        if container_id in self.stubborn:
            raise RuntimeCallError("RemoveContainer", "UNKNOWN", "not now")
        self.containers.pop(container_id, None)


def make(
    tmp_path: Path, gone: set[str], *, ready: bool = True, quiet: asyncio.Event | None = None
) -> tuple[Runtime, ContainerGc]:
    runtime = Runtime(tmp_path / "pods")
    (tmp_path / "links").mkdir()
    knowledge = PodKnowledge(gone.__contains__, lambda: ready)
    settings = GcSettings(tmp_path / "pods", tmp_path / "links", GcPolicy())
    return runtime, ContainerGc(runtime, knowledge, settings, quiet=quiet)


async def test_one_dead_container_of_each_name_stays_and_its_elders_go_with_their_logs(tmp_path: Path) -> None:
    runtime, gc = make(tmp_path, set())
    old = runtime.add("old", "live", cri.CONTAINER_EXITED, 1)
    newer = runtime.add("newer", "live", cri.CONTAINER_EXITED, 2)
    runtime.add("running", "live", cri.CONTAINER_RUNNING, 3)
    (tmp_path / "links" / "dead.log").symlink_to(old)
    (tmp_path / "links" / "good.log").symlink_to(newer)
    await gc.collect()
    assert sorted(runtime.containers) == ["newer", "running"]
    assert sorted(path.name for path in old.parent.iterdir()) == [
        "newer.log",
        "newer.log.20260101-000000.gz",
        "running.log",
        "running.log.20260101-000000.gz",
    ]
    assert [path.name for path in (tmp_path / "links").iterdir()] == ["good.log"]
    assert list(runtime.sandboxes) == ["sandbox-live"]


async def test_a_link_to_a_log_that_is_being_rotated_stays(tmp_path: Path) -> None:
    """For a moment there is no log of its name; and what is none of our links is nobody's business here."""
    runtime, gc = make(tmp_path, set())
    log = runtime.add("running", "live", cri.CONTAINER_RUNNING, 1)
    (tmp_path / "links" / "web_shop_main-running.log").symlink_to(log)
    (tmp_path / "links" / "theirs").symlink_to(tmp_path / "nowhere")
    (tmp_path / "links" / "web_shop_main-of-before.log").symlink_to(tmp_path / "pods" / "no-pod" / "main" / "0.log")
    log.unlink()
    await gc.collect()
    assert sorted(path.name for path in (tmp_path / "links").iterdir()) == ["theirs", "web_shop_main-running.log"]


async def test_what_cannot_be_looked_at_is_not_taken_for_dead(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A disk that fails for a moment: the container and the link stay for the next time."""
    runtime, gc = make(tmp_path, set())
    runtime.add("old", "live", cri.CONTAINER_EXITED, 1)
    log = runtime.add("newer", "live", cri.CONTAINER_EXITED, 2)
    (tmp_path / "links" / "web_shop_main-newer.log").symlink_to(log)
    log.unlink()
    scandir = os.scandir

    def failing(path: Path) -> Any:
        if path == log.parent:
            raise OSError(5, "Input/output error")
        return scandir(path)

    monkeypatch.setattr(os, "scandir", failing)
    with capture_logs() as said:
        await gc.collect()
    assert sorted(runtime.containers) == ["newer", "old"]
    assert [path.name for path in (tmp_path / "links").iterdir()] == ["web_shop_main-newer.log"]
    assert [entry["event"] for entry in said] == ["dead_container_stays"]


async def test_everything_of_a_pod_that_is_gone_goes(tmp_path: Path) -> None:
    runtime, gc = make(tmp_path, {"gone"})
    runtime.add("a", "gone", cri.CONTAINER_EXITED, 1)
    kept = runtime.add("b", "live", cri.CONTAINER_EXITED, 1)
    await gc.collect()
    assert list(runtime.containers) == ["b"]
    assert list(runtime.sandboxes) == ["sandbox-live"]
    assert [path.name for path in runtime.logs.iterdir()] == ["ns_pod_live"]
    assert kept.exists()


async def test_what_may_run_after_all_is_stopped_with_the_time_it_was_promised(tmp_path: Path) -> None:
    runtime, gc = make(tmp_path, {"gone"})
    runtime.add("ended", "gone", cri.CONTAINER_EXITED, 1)
    runtime.add("short", "gone", cri.CONTAINER_UNKNOWN, 2)
    runtime.add("long", "gone", cri.CONTAINER_UNKNOWN, 3)
    runtime.containers["long"].annotations["io.kubernetes.pod.terminationGracePeriod"] = "40"
    await gc.collect()
    assert runtime.stopped == {"short": 2, "long": 40}
    assert runtime.containers == {}


async def test_what_the_agent_knows_is_asked_where_it_changes(tmp_path: Path) -> None:
    """In a thread the pods of a source that was just read would seem to be gone, until the last of them is taken in."""
    runtime, _ = make(tmp_path, set())
    runtime.add("a", "live", cri.CONTAINER_EXITED, 1)
    asked_in = set()

    def is_gone(uid: str) -> bool:
        asked_in.add(threading.current_thread())
        return False

    settings = GcSettings(tmp_path / "pods", tmp_path / "links", GcPolicy())
    await ContainerGc(runtime, PodKnowledge(is_gone, lambda: True), settings).collect()
    assert asked_in == {threading.current_thread()}
    assert [path.name for path in runtime.logs.iterdir()] == ["ns_pod_live"]


async def test_nothing_of_an_unknown_pod_goes_before_all_sources_are_read(tmp_path: Path) -> None:
    runtime, gc = make(tmp_path, {"gone"}, ready=False)
    runtime.add("a", "gone", cri.CONTAINER_EXITED, 1)
    await gc.collect()
    assert list(runtime.containers) == ["a"]
    assert list(runtime.sandboxes) == ["sandbox-gone"]
    assert [path.name for path in runtime.logs.iterdir()] == ["ns_pod_gone"]


async def test_one_that_cannot_be_removed_holds_up_nothing_and_goes_the_next_time(tmp_path: Path) -> None:
    runtime, gc = make(tmp_path, {"gone"})
    runtime.add("a", "gone", cri.CONTAINER_EXITED, 1)
    runtime.add("b", "gone", cri.CONTAINER_EXITED, 2)
    runtime.stubborn = {"a"}
    await gc.collect()
    assert list(runtime.containers) == ["a"]
    assert list(runtime.sandboxes) == ["sandbox-gone"], "its sandbox waits for it"
    runtime.stubborn = set()
    await gc.collect()
    assert not runtime.containers
    assert not runtime.sandboxes


@pytest.mark.looptime
async def test_a_runtime_that_is_away_is_not_told_of_here_too(tmp_path: Path) -> None:
    runtime, gc = make(tmp_path, {"gone"})
    runtime.add("a", "gone", cri.CONTAINER_EXITED, 1)
    runtime.away = True
    with capture_logs() as logs:
        async with asyncio.TaskGroup() as tasks:
            collecting = tasks.create_task(gc.run())
            await asyncio.sleep(INTERVAL_SECONDS * 3.5)
            collecting.cancel()
    assert [entry["log_level"] for entry in logs] == ["debug"] * 3
    runtime.away = False
    await gc.collect()
    assert not runtime.containers


@pytest.mark.looptime
async def test_logs_that_cannot_be_listed_are_told_of_and_looked_at_again(tmp_path: Path) -> None:
    runtime, told = Runtime(tmp_path / "pods"), list[str]()
    runtime.logs.touch()
    knowledge = PodKnowledge(lambda uid: True, lambda: True)
    gc = ContainerGc(runtime, knowledge, GcSettings(runtime.logs, tmp_path / "links"), told.append)
    with capture_logs():
        async with asyncio.TaskGroup() as tasks:
            collecting = tasks.create_task(gc.run())
            await asyncio.sleep(INTERVAL_SECONDS * 2.5)
            collecting.cancel()
    assert told == [f"[Errno 20] Not a directory: '{runtime.logs}'"] * 2


async def test_a_pass_gives_way_to_pods_that_wait_for_the_runtime(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("kubelet_py.managers.container_gc.INTERVAL_SECONDS", 0)
    runtime, gc = make(tmp_path, {"gone"}, quiet=(quiet := asyncio.Event()))
    runtime.add("dead", "gone", cri.CONTAINER_EXITED, 1)
    async with background(gc.run()):
        for _ in range(20):
            await asyncio.sleep(0)
        assert list(runtime.containers) == ["dead"]
        quiet.set()
        await eventually(lambda: not runtime.containers)


async def test_a_pass_gives_way_for_a_while_only(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A node that is never quiet is tidied all the same."""
    monkeypatch.setattr("kubelet_py.managers.container_gc.INTERVAL_SECONDS", 0)
    monkeypatch.setattr("kubelet_py.managers.container_gc.GIVE_WAY_SECONDS", 0.01)
    runtime, gc = make(tmp_path, {"gone"}, quiet=asyncio.Event())
    runtime.add("dead", "gone", cri.CONTAINER_EXITED, 1)
    async with background(gc.run()):
        await eventually(lambda: not runtime.containers)
