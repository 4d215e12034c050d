"""The status manager: the newest word reaches the server, once, whatever the server does."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from typing import Any

import pytest
from structlog.testing import capture_logs

from kubelet_py.api import core_v1, meta_v1
from kubelet_py.api.codec import from_builtins
from kubelet_py.api.pod import CONFIG_MIRROR_ANNOTATION, uid_of
from kubelet_py.kube.backoff import Backoff
from kubelet_py.managers.status import StatusManager
from kubelet_py.managers.status.manager import PARALLEL_WRITERS
from kubelet_py.managers.status.merge import is_progress_only, status_changes
from tests.fakes.api_clients import client_for
from tests.fakes.api_server import FakeApiServer
from tests.fakes.waiting import background, eventually
from tests.unit.kubelet_py.managers.kube_objects import put_pod, static_pod, status, stored_pod


@pytest.fixture
async def server() -> AsyncIterator[FakeApiServer]:
    async with FakeApiServer.running() as running:
        yield running


@asynccontextmanager
async def managing(
    server: FakeApiServer,
    *,
    full_pass_seconds: float = 60.0,
    patience_seconds: float = 0.05,
    give_way_seconds: float = 30.0,
    quiet: asyncio.Event | None = None,
) -> AsyncIterator[StatusManager]:
    async with client_for(server.url) as client:
        backoff = Backoff(0.01, 0.02, random=lambda: 0.0)
        manager = StatusManager(
            client,
            full_pass_seconds=full_pass_seconds,
            patience_seconds=patience_seconds,
            give_way_seconds=give_way_seconds,
            quiet=quiet,
            backoff=backoff,
        )
        async with background(manager.run()):
            yield manager


def phase_at(server: FakeApiServer, name: str) -> str | None:
    found = stored_pod(server, name).status
    return found.phase if found is not None else None


async def test_a_status_is_written_with_one_request(server: FakeApiServer) -> None:
    pod = put_pod(server, "a")
    async with managing(server) as manager:
        manager.set_status(pod, status("Running", Ready="True"))
        assert await manager.flush(30)
    assert phase_at(server, "a") == "Running"
    assert [(r.method, r.path) for r in server.requests] == [("PATCH", "/api/v1/namespaces/default/pods/a/status")]
    assert server.requests[0].body["metadata"] == {"uid": uid_of(pod)}


async def test_the_same_status_again_is_no_request(server: FakeApiServer) -> None:
    pod = put_pod(server, "a")
    async with managing(server) as manager:
        for _ in range(3):
            manager.set_status(pod, status("Running"))
            assert await manager.flush(30)
    assert len(server.requests) == 1


async def test_words_that_come_during_a_write_become_one(server: FakeApiServer) -> None:
    pod = put_pod(server, "a")
    server.delay_seconds = 0.05
    async with managing(server) as manager:
        manager.set_status(pod, status("Pending", Ready="False"))
        await eventually(lambda: len(server.requests) == 1)
        for number in range(20):
            manager.set_status(pod, core_v1.PodStatus(phase="Running", message=str(number)))
        assert await manager.flush(30)
    assert [r.body["status"].get("message") for r in server.requests] == [None, "19"]


async def test_progress_waits_for_what_follows_it(server: FakeApiServer) -> None:
    pod = put_pod(server, "a")
    async with managing(server, patience_seconds=30) as manager:
        manager.set_status(pod, core_v1.PodStatus(phase="Pending", hostIP="10.0.0.1"))
        manager.set_status(pod, core_v1.PodStatus(phase="Pending", hostIP="10.0.0.1", podIP="10.1.0.1"))
        assert manager.pending == 1
        manager.set_status(pod, status("Running", Ready="True"))
        assert await manager.flush(30)
    assert [r.body["status"]["phase"] for r in server.requests] == ["Running"]


async def test_progress_that_nothing_follows_is_written_in_the_end(server: FakeApiServer) -> None:
    pod = put_pod(server, "a")
    async with managing(server) as manager:
        manager.set_status(pod, core_v1.PodStatus(phase="Pending", hostIP="10.0.0.1"))
        await eventually(lambda: (stored_pod(server, "a").status or core_v1.PodStatus()).hostIP == "10.0.0.1")
        assert await manager.flush(30)
    assert len(server.requests) == 1


async def test_progress_gives_way_until_the_node_is_quiet(server: FakeApiServer) -> None:
    pod, other, quiet = put_pod(server, "a"), put_pod(server, "b"), asyncio.Event()
    async with managing(server, patience_seconds=0.001, quiet=quiet) as manager:
        manager.set_status(pod, core_v1.PodStatus(phase="Pending", hostIP="10.0.0.1"))
        manager.set_status(other, status("Running", Ready="True"))
        await eventually(lambda: phase_at(server, "b") == "Running" and manager.pending == 1)
        assert [r.path for r in server.requests] == ["/api/v1/namespaces/default/pods/b/status"]
        quiet.set()
        await eventually(lambda: len(server.requests) == 2)


async def test_progress_does_not_give_way_for_ever(server: FakeApiServer) -> None:
    pod = put_pod(server, "a")
    async with managing(server, patience_seconds=0.001, give_way_seconds=0.01, quiet=asyncio.Event()) as manager:
        manager.set_status(pod, core_v1.PodStatus(phase="Pending", hostIP="10.0.0.1"))
        await eventually(lambda: len(server.requests) == 1)


async def test_a_pod_on_its_way_down_tells_its_end_and_not_each_step(server: FakeApiServer) -> None:
    deleted = {"deletionTimestamp": "2026-01-01T00:00:00Z", "deletionGracePeriodSeconds": 30}
    pod = put_pod(server, "a", "Running", **deleted)
    async with managing(server, patience_seconds=30) as manager:
        manager.set_status(pod, core_v1.PodStatus(phase="Running", observedGeneration=2))
        await asyncio.sleep(0)
        assert server.requests == []
        manager.set_status(pod, core_v1.PodStatus(phase="Failed", observedGeneration=2))
        manager.finish(uid_of(pod))
        assert await manager.flush(30)
    assert [r.method for r in server.requests] == ["PATCH", "DELETE"]


async def test_a_forgotten_pod_waits_for_nothing(server: FakeApiServer) -> None:
    pod = put_pod(server, "a")
    async with managing(server, patience_seconds=30) as manager:
        manager.set_status(pod, core_v1.PodStatus(phase="Pending", hostIP="10.0.0.1"))
        manager.forget(uid_of(pod))
        assert manager.pending == 0
        assert await manager.flush(30)
    assert server.requests == []


@pytest.mark.parametrize(
    ("before", "wanted", "is_deleted", "waits"),
    [
        (status("Pending"), status("Pending", Ready="False"), False, True),
        (None, status("Pending"), False, False),
        (status("Pending"), status("Running"), False, False),
        (status("Running", Ready="True"), status("Running", Ready="False"), False, False),
        (status("Running", Ready="True"), status("Running", Ready="False"), True, False),
        (status("Running", Ready="False"), status("Running"), True, True),
        (status("Running"), status("Running", ContainersReady="True"), False, False),
        (status("Running"), status("Failed"), True, False),
    ],
)
def test_only_progress_may_wait(
    before: core_v1.PodStatus | None, wanted: core_v1.PodStatus, is_deleted: bool, waits: bool
) -> None:
    deleted_at = datetime(2026, 1, 1, tzinfo=UTC) if is_deleted else None
    pod = core_v1.Pod(metadata=meta_v1.ObjectMeta(deletionTimestamp=deleted_at))
    assert is_progress_only(pod, before, wanted) is waits


async def test_many_pods_are_written_side_by_side(server: FakeApiServer) -> None:
    pods = [put_pod(server, f"p{number}") for number in range(32)]
    server.delay_seconds = 0.1
    async with managing(server) as manager:
        for pod in pods:
            manager.set_status(pod, status("Running"))
        assert await manager.flush(60)
    assert server.most_in_flight == PARALLEL_WRITERS
    assert all(phase_at(server, f"p{number}") == "Running" for number in range(32))


async def test_nothing_is_lost_while_the_server_is_away(server: FakeApiServer) -> None:
    pods = [put_pod(server, f"p{number}") for number in range(3)]
    async with managing(server) as manager:
        await server.stop()
        for pod in pods:
            manager.set_status(pod, status("Running"))
        assert not await manager.flush(0.1)
        assert manager.pending == 3
        manager.set_status(pods[0], status("Failed"))
        await server.start()
        assert await manager.flush(30)
    assert [phase_at(server, f"p{number}") for number in range(3)] == ["Failed", "Running", "Running"]


async def test_a_pod_replaced_under_its_name_is_left_alone(server: FakeApiServer) -> None:
    old = put_pod(server, "a")
    server.remove("pods", "a", "default")
    put_pod(server, "a")
    async with managing(server) as manager:
        manager.set_status(old, status("Failed"))
        manager.finish(uid_of(old))
        assert await manager.flush(30)
    assert phase_at(server, "a") == "Pending"


async def test_a_pod_that_is_gone_is_no_trouble(server: FakeApiServer) -> None:
    pod = put_pod(server, "a")
    server.remove("pods", "a", "default")
    async with managing(server) as manager:
        manager.set_status(pod, status("Running"))
        assert await manager.flush(30)


async def test_a_finished_pod_is_deleted_after_its_last_status(server: FakeApiServer) -> None:
    pod = put_pod(server, "a", deletionTimestamp="2026-01-01T00:00:00Z", deletionGracePeriodSeconds=30)
    async with managing(server) as manager:
        manager.set_status(pod, status("Succeeded"))
        manager.finish(uid_of(pod))
        assert await manager.flush(30)
    assert server.find("pods", "a", "default") is None
    assert [r.method for r in server.requests] == ["PATCH", "DELETE"]
    assert server.requests[1].body["gracePeriodSeconds"] == 0
    assert server.requests[1].body["preconditions"] == {"uid": uid_of(pod)}


async def test_a_delete_is_tried_until_the_server_is_back(server: FakeApiServer) -> None:
    pod = put_pod(server, "a")
    async with managing(server) as manager:
        manager.set_status(pod, status("Failed"))
        assert await manager.flush(30)
        server.fail_next(503, count=3)
        manager.finish(uid_of(pod))
        assert await manager.flush(30)
    assert server.find("pods", "a", "default") is None


async def test_a_static_pod_reports_through_its_mirror_pod(server: FakeApiServer) -> None:
    static = static_pod("web")
    async with managing(server) as manager:
        manager.set_status(static, status("Running"))
        assert await manager.flush(30)
        assert server.requests == []
        mirror = put_pod(server, "web", annotations={CONFIG_MIRROR_ANNOTATION: "h1"})
        manager.on_mirror_pods([mirror])
        await eventually(lambda: phase_at(server, "web") == "Running")
        assert server.requests[0].body["metadata"] == {"uid": uid_of(mirror)}
        server.remove("pods", "web", "default")
        manager.on_mirror_pods([])
        manager.on_mirror_pods([put_pod(server, "web", annotations={CONFIG_MIRROR_ANNOTATION: "h1"})])
        await eventually(lambda: phase_at(server, "web") == "Running")
        manager.finish(uid_of(static))
        assert await manager.flush(30)
    assert server.find("pods", "web", "default") is not None


async def test_what_an_earlier_agent_said_of_a_static_pod_is_in_its_mirror(server: FakeApiServer) -> None:
    """Until this one has said something; a mirror of another static pod of that name says nothing of it."""
    static, mirror = static_pod("web"), put_pod(server, "web", annotations={CONFIG_MIRROR_ANNOTATION: "h1"})
    mirror.status = status("Running", Ready="True")
    async with managing(server) as manager:
        assert manager.last_said(static) is None
        await manager.wait_for_mirrors(0.01)
        manager.on_mirror_pods([mirror])
        await manager.wait_for_mirrors(30)
        assert manager.last_said(static) == mirror.status
        assert manager.last_said(static_pod("web", "h2")) is None
        manager.set_status(static, status("Pending"))
        said = manager.last_said(static)
        assert said is not None
        assert said.phase == "Pending"


async def test_the_end_of_an_init_container_is_not_taken_from_a_mirror(server: FakeApiServer) -> None:
    """Of one that the runtime does not have any more a status is made as of a pod that nobody reported."""
    static, mirror = static_pod("web"), put_pod(server, "web", annotations={CONFIG_MIRROR_ANNOTATION: "h1"})
    static.spec = core_v1.PodSpec(
        containers=[core_v1.Container(name="main")],
        initContainers=[core_v1.Container(name="init"), core_v1.Container(name="proxy", restartPolicy="Always")],
    )
    ended = core_v1.ContainerState(terminated=core_v1.ContainerStateTerminated(exitCode=0, reason="Completed"))
    runs = core_v1.ContainerState(running=core_v1.ContainerStateRunning())
    init, proxy, main = (
        core_v1.ContainerStatus(name=name, image="i", imageID="", ready=True, restartCount=0, state=state)
        for name, state in (("init", ended), ("proxy", runs), ("main", runs))
    )
    mirror.status = core_v1.PodStatus(phase="Running", initContainerStatuses=[init, proxy], containerStatuses=[main])
    async with managing(server) as manager:
        manager.on_mirror_pods([mirror])
        said = manager.last_said(static)
    assert said == core_v1.PodStatus(phase="Running", initContainerStatuses=[proxy], containerStatuses=[main])


async def test_a_static_pod_that_was_replaced_has_no_word_at_its_successors_mirror(server: FakeApiServer) -> None:
    """The last of one may come when the mirror of the next is there."""
    old, new = static_pod("web"), static_pod("web", "h2")
    async with managing(server, full_pass_seconds=0.02) as manager:
        manager.on_mirror_pods([put_pod(server, "web", annotations={CONFIG_MIRROR_ANNOTATION: "h1"})])
        manager.set_status(old, status("Running"))
        await eventually(lambda: phase_at(server, "web") == "Running")
        server.remove("pods", "web", "default")
        manager.on_mirror_pods([put_pod(server, "web", annotations={CONFIG_MIRROR_ANNOTATION: "h2"})])
        manager.set_status(old, status("Failed"))
        assert await manager.flush(30)
        assert phase_at(server, "web") == "Pending"
        manager.set_status(new, status("Running"))
        await eventually(lambda: phase_at(server, "web") == "Running")
        writes = len(server.asked("PATCH", "pods"))
        manager.set_status(old, status("Failed", Ready="False"))
        assert await manager.flush(30)
        assert len(server.asked("PATCH", "pods")) == writes


async def test_what_another_writer_broke_is_set_right(server: FakeApiServer) -> None:
    pod = put_pod(server, "a")
    async with managing(server, full_pass_seconds=0.02) as manager:
        manager.set_status(pod, status("Running", Ready="True"))
        assert await manager.flush(30)
        broken = stored_pod(server, "a")
        server.put("pods", _with_phase(server, "Failed"))
        manager.on_api_pods([stored_pod(server, "a")])
        await eventually(lambda: phase_at(server, "a") == "Running")
        writes = len(server.asked("PATCH", "pods"))
        await asyncio.sleep(0.1)
        assert len(server.asked("PATCH", "pods")) == writes
    assert uid_of(broken) == uid_of(pod)


def _with_phase(server: FakeApiServer, phase: str) -> dict[str, Any]:
    body = dict(server.find("pods", "a", "default") or {})
    return body | {"status": body["status"] | {"phase": phase}}


async def test_a_status_the_server_refuses_does_not_stop_the_others(server: FakeApiServer) -> None:
    bad, good = put_pod(server, "a"), put_pod(server, "b")
    async with managing(server) as manager:
        server.fail_next(422, reason="Invalid")
        manager.set_status(bad, status("Running"))
        await eventually(lambda: len(server.requests) >= 2)
        manager.set_status(good, status("Running"))
        assert await manager.flush(30)
    assert (phase_at(server, "a"), phase_at(server, "b")) == ("Running", "Running")


async def test_a_status_that_cannot_be_written_down_does_not_stop_the_others(server: FakeApiServer) -> None:
    bad, good = put_pod(server, "bad"), put_pod(server, "good")
    with capture_logs() as logged:
        async with managing(server) as manager:
            manager.set_status(bad, core_v1.PodStatus(phase="Running", message="\udcff"))
            await eventually(lambda: [line for line in logged if line["event"] == "pod_status_broke"])
            manager.set_status(good, status("Running"))
            await eventually(lambda: phase_at(server, "good") == "Running")
            manager.set_status(bad, status("Running"))
            assert await manager.flush(30)
    assert phase_at(server, "bad") == "Running"


async def test_standalone_keeps_statuses_and_writes_none() -> None:
    manager = StatusManager(None)
    pod = static_pod("web")
    manager.set_status(pod, status("Running"))
    kept = manager.status_of(uid_of(pod))
    assert kept is not None
    assert kept.phase == "Running"
    assert await manager.flush(0.1)
    manager.forget(uid_of(pod))
    assert manager.status_of(uid_of(pod)) is None


def test_what_others_own_is_neither_changed_nor_taken_away() -> None:
    at_server = status("Pending", **{"example.com/gate": "True", "Ready": "False", "DisruptionTarget": "True"})
    at_server.nominatedNodeName = "n2"
    at_server.qosClass = "Burstable"
    wanted = status("Running", **{"example.com/gate": "False", "Ready": "True"})
    assert status_changes(at_server, wanted) == {
        "phase": "Running",
        "conditions": [{"type": "Ready", "status": "True"}],
    }


def test_a_disruption_is_ours_to_write_when_the_node_has_ended_the_pod() -> None:
    """Others set it too, and take it back: what we saw of theirs is not written over what they say now."""

    def disrupted(phase: str, of: str, reason: str) -> core_v1.PodStatus:
        made = status(phase, DisruptionTarget=of)
        assert made.conditions is not None
        made.conditions[0].reason = reason
        return made

    at_server = disrupted("Running", "False", "")
    assert status_changes(at_server, disrupted("Running", "True", "EvictionByEvictionAPI")) == {}
    assert status_changes(at_server, disrupted("Running", "True", "TerminationByKubelet")) == {}
    written = status_changes(at_server, disrupted("Failed", "True", "TerminationByKubelet"))
    assert [(each["type"], each["status"]) for each in written["conditions"]] == [("DisruptionTarget", "True")]


def test_a_condition_of_ours_that_went_is_deleted_and_a_field_becomes_null() -> None:
    at_server = status("Running", PodResizePending="True")
    at_server.message = "old"
    assert status_changes(at_server, status("Running")) == {
        "message": None,
        "conditions": [{"$patch": "delete", "type": "PodResizePending"}],
    }


def test_an_empty_state_that_the_server_shows_is_no_change() -> None:
    """It fills in what nobody gave; writing that again would cost a request for each step of each pod."""
    container: dict[str, Any] = {"name": "app", "image": "i", "imageID": "", "ready": True, "restartCount": 0}
    wanted = from_builtins(core_v1.PodStatus, {"phase": "Running", "containerStatuses": [container]})
    shown = container | {"state": {}, "lastState": {}}
    at_server = from_builtins(core_v1.PodStatus, {"phase": "Running", "containerStatuses": [shown]})
    assert status_changes(at_server, wanted) == {}
    ended = container | {"lastState": {"terminated": {"exitCode": 1}}}
    at_server = from_builtins(core_v1.PodStatus, {"phase": "Running", "containerStatuses": [ended]})
    assert status_changes(at_server, wanted) == {"containerStatuses": [container]}
