"""What pods were given, kept over restarts, and what is said of their resizes."""

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest
from structlog.testing import capture_logs

from kubelet_py.api import codec, core_v1
from kubelet_py.api import pod as pods
from kubelet_py.core.pod_allocation import decode_checkpoint, resources_of
from kubelet_py.managers.allocations import ACTUATED_FILE, ALLOCATED_FILE, REST_SECONDS, PodAllocations
from tests.sim.pods import NOW_NS, make_container, make_observed, make_pod, make_run
from tests.unit.kubelet_py.sync.rig import InlineExecutor

REQUIREMENTS = core_v1.ResourceRequirements
UID = "u-1"


def a_pod(cpu: str = "1", generation: int = 1, **fields: Any) -> core_v1.Pod:
    resources = {"requests": {"cpu": cpu}, "limits": {"cpu": cpu}}
    return make_pod(make_container("app", resources=resources), metadata={"generation": generation}, **fields)


class Node:
    def __init__(self, root: Path) -> None:
        self.root = root
        self.events: list[tuple[str, str]] = []
        self.boot()

    def boot(self) -> None:
        self.known = PodAllocations(self.root, self.event, lambda: NOW_NS)
        self.known.load()

    def event(self, pod: core_v1.Pod, kind: str, reason: str, message: str, name: str = "", /) -> None:
        self.events.append((reason, message))

    def condition(self) -> list[tuple[str, str | None, int | None]]:
        return [(c.type, c.reason, c.observedGeneration) for c in self.known.conditions(UID)]


@pytest.fixture
def node(tmp_path: Path) -> Node:
    return Node(tmp_path)


def running(*names: str) -> core_v1.PodStatus:
    about = {"image": "", "imageID": "", "ready": False, "restartCount": 0, "state": {"running": {}}}
    entries = [{"name": name, **about} for name in names]
    return codec.from_builtins(core_v1.PodStatus, {"containerStatuses": entries})


async def test_a_pod_takes_what_it_was_given_and_what_it_still_has(node: Node) -> None:
    node.known.allocate(a_pod("1"))
    assert node.known.occupied(a_pod("3"), running("app")) == a_pod("1")
    node.known.begin(a_pod("2"))
    assert resources_of(node.known.occupied(a_pod("1"), running("app"))).containers["app"].requests == {"cpu": "2"}
    assert node.known.occupied(a_pod("1"), running("other")) == a_pod("1"), "what does not run holds nothing"
    assert node.known.occupied(a_pod("1"), running()) == a_pod("1")
    unseen = resources_of(node.known.occupied(a_pod("1"), None)).containers["app"]
    assert unseen.requests == {"cpu": "2"}, "who was not looked at yet may run"
    node.known.allocate(a_pod("4"))
    assert node.known.occupied(a_pod("4"), running("app")) == a_pod("4")


async def test_what_a_pod_takes_is_worked_out_once(node: Node) -> None:
    """Each pod that comes asks for all that are there."""
    pod = a_pod("3")
    node.known.allocate(a_pod("1"))
    node.known.begin(a_pod("2"))
    first = node.known.allocated(pod)
    assert node.known.allocated(pod).spec is first.spec
    assert node.known.allocated(msgspec.structs.replace(pod, status=running())).spec is first.spec
    unseen = node.known.occupied(pod, None)
    assert node.known.occupied(pod, None).spec is unseen.spec is not first.spec
    node.known.note_container(pod, "app", REQUIREMENTS(requests={"cpu": "1"}, limits={"cpu": "1"}))
    assert node.known.occupied(pod, None) == first, "what was carried out is seen at once"
    node.known.allocate(pod)
    assert node.known.allocated(pod) is pod
    node.known.forget(UID)
    assert node.known.allocated(a_pod("7")) == a_pod("7")


async def test_what_a_pod_was_given_outlives_the_agent(node: Node) -> None:
    node.known.allocate(a_pod())
    node.known.begin(a_pod())
    await node.known.flush()
    node.boot()
    assert node.known.is_allocated(UID)
    assert node.known.allocated(a_pod("2")) == a_pod()
    assert node.known.actuated(UID) == resources_of(a_pod())
    assert (node.root / ALLOCATED_FILE).stat().st_mode & 0o777 == 0o600


async def test_nothing_known_is_what_the_spec_says(node: Node) -> None:
    pod = a_pod()
    assert node.known.allocated(pod) is pod
    assert node.known.actuated(UID) is None
    assert not node.known.is_allocated(UID)


async def test_what_does_not_change_is_not_written(node: Node) -> None:
    def stamp() -> list[int]:
        return [(node.root / file).stat().st_mtime_ns for file in (ALLOCATED_FILE, ACTUATED_FILE)]

    node.known.allocate(a_pod())
    node.known.begin(a_pod())
    await node.known.flush()
    before = stamp()
    node.known.allocate(a_pod())
    node.known.begin(a_pod("2"))
    node.known.note_container(a_pod(), "app", pods.containers_of(a_pod())[0].resources)
    node.known.note_pod_level(a_pod())
    await node.known.flush()
    assert stamp() == before


async def test_containers_and_the_pod_are_noted_one_by_one(node: Node) -> None:
    """A container without limits of its own has the pod's; nothing is noted of a pod that was never begun."""
    pod = make_pod("app", "other", resources={"limits": {"cpu": "3"}})
    node.known.note_pod_level(pod)
    assert node.known.actuated(UID) is None
    node.known.note_container(pod, "app", None)
    actuated = node.known.actuated(UID)
    assert actuated is not None
    assert actuated.containers == {"app": REQUIREMENTS(limits={"cpu": "3"}), "other": REQUIREMENTS()}
    bigger = make_pod("app", resources={"limits": {"cpu": "4"}})
    node.known.note_pod_level(bigger)
    actuated = node.known.actuated(UID)
    assert actuated is not None
    assert actuated.pod_level == REQUIREMENTS(limits={"cpu": "4"})


async def test_the_writer_takes_all_that_came_meanwhile_in_one_go(node: Node) -> None:
    async with asyncio.TaskGroup() as tasks:
        writer = tasks.create_task(node.known.run())
        for number in range(20):
            node.known.allocate(make_pod("app", metadata={"uid": f"u-{number}"}))
        file = node.root / ALLOCATED_FILE
        while not file.exists() or len(decode_checkpoint(file.read_bytes())) < 20:  # noqa: ASYNC110 # a file
            await asyncio.sleep(0.001)
        writer.cancel()


@pytest.mark.looptime
async def test_the_writer_rests_between_two_writes(node: Node) -> None:
    """A burst of pods costs a write each second, not one for each change of each pod."""
    asyncio.get_running_loop().set_default_executor(InlineExecutor())

    def on_disk() -> int:
        return len(decode_checkpoint((node.root / ALLOCATED_FILE).read_bytes()))

    async with asyncio.TaskGroup() as tasks:
        writer = tasks.create_task(node.known.run())
        for number in range(3):
            node.known.allocate(make_pod("app", metadata={"uid": f"u-{number}"}))
            await asyncio.sleep(0.1)
            assert on_disk() == 1, "the first is written at once"
        await asyncio.sleep(REST_SECONDS)
        assert on_disk() == 3
        writer.cancel()


async def test_a_disk_that_refuses_is_told_of_and_tried_again(node: Node) -> None:
    node.root.chmod(0o500)
    (node.root / ALLOCATED_FILE).mkdir()
    node.known.allocate(a_pod())
    with capture_logs() as logs:
        await node.known.flush()
    assert [entry["event"] for entry in logs] == ["resource_checkpoint_not_written"]
    (node.root / ALLOCATED_FILE).rmdir()
    node.known.allocate(a_pod("2"))
    await node.known.flush()
    assert UID in decode_checkpoint((node.root / ALLOCATED_FILE).read_bytes())


@pytest.mark.parametrize("content", [b"", b"{", b'{"data":"{}","checksum":5}', b"\xff"])
async def test_a_file_that_cannot_be_read_is_put_aside(node: Node, content: bytes) -> None:
    """The agent starts all the same, and says so."""
    file = node.root / ALLOCATED_FILE
    file.write_bytes(content)
    with capture_logs() as logs:
        node.boot()
    assert [entry["event"] for entry in logs] == ["resource_checkpoint_unreadable"]
    assert not file.exists()
    assert (node.root / f"{ALLOCATED_FILE}.unreadable").read_bytes() == content
    assert not node.known.is_allocated(UID)


async def test_a_resize_from_the_wish_to_the_end(node: Node) -> None:
    running = make_observed(make_run("app"))
    node.known.allocate(a_pod())
    node.known.begin(a_pod())
    wish = a_pod("2", generation=2)
    node.known.put_off(wish, "OutOfcpu", "no room")
    node.known.put_off(wish, "OutOfcpu", "still no room")
    assert node.condition() == [("PodResizePending", "Deferred", 2)]
    pending = node.known.pending(UID)
    assert pending is not None
    assert pending.message == "still no room"
    node.known.accept(wish)
    assert node.condition() == [("PodResizeInProgress", None, 2)]
    node.known.note_progress(a_pod(), running)  # a pass that began before it was accepted
    assert node.condition() == [("PodResizeInProgress", None, 2)]
    node.known.note_progress(wish, running)
    node.known.note_failure(wish, "it broke")
    node.known.note_failure(wish, "it broke")
    node.known.note_progress(wish, running)
    assert node.condition() == [("PodResizeInProgress", "Error", 2)]
    node.known.note_container(wish, "app", pods.containers_of(wish)[0].resources)
    node.known.note_progress(wish, running)
    node.known.note_progress(wish, running)
    assert node.condition() == []
    told = [reason for reason, _ in node.events]
    assert told == ["ResizeDeferred", "ResizeStarted", "ResizeError", "ResizeCompleted"]
    assert node.events[0][1].startswith("Pod resize OutOfcpu: ")


async def test_what_is_infeasible_is_said_once_and_can_be_taken_back(node: Node) -> None:
    node.known.allocate(a_pod())
    node.known.put_off(a_pod("2", 2), "Infeasible", "never")
    assert node.condition() == [("PodResizePending", "Infeasible", 2)]
    node.known.put_off(a_pod("3", 3), "Infeasible", "never")
    assert [reason for reason, _ in node.events] == ["ResizeInfeasible"] * 2
    node.known.clear_pending(UID)
    assert node.condition() == []


async def test_an_agent_that_was_restarted_goes_on_with_what_the_api_server_knows(node: Node) -> None:
    node.known.put_off(a_pod("2", 2), "OutOfcpu", "no room")
    status = codec.to_builtins(core_v1.PodStatus(conditions=node.known.conditions(UID)))
    node.boot()
    node.known.backfill(make_pod("app"))
    assert node.condition() == []
    node.known.backfill(make_pod("app", status=status))
    assert node.condition() == [("PodResizePending", "Deferred", 2)]
    node.known.accept(a_pod("2", 2))
    node.known.backfill(make_pod("app", status=status))
    assert node.condition() == [("PodResizeInProgress", None, 2)]


@pytest.mark.parametrize(
    "forget",
    [lambda known: known.forget(UID), lambda known: known.forget_orphans({"u-2"}.__contains__)],
    ids=["forget", "forget-orphans"],
)
async def test_a_pod_that_is_gone_leaves_nothing(node: Node, forget: Callable[[PodAllocations], None]) -> None:
    node.known.allocate(a_pod())
    node.known.begin(a_pod())
    node.known.put_off(a_pod("2"), "OutOfcpu", "no room")
    node.known.allocate(make_pod("app", metadata={"uid": "u-2"}))
    forget(node.known)
    forget(node.known)
    assert node.condition() == []
    assert node.known.actuated(UID) is None
    assert (node.known.is_allocated(UID), node.known.is_allocated("u-2")) == (False, True)


async def test_a_pod_that_ended_keeps_no_conditions(node: Node) -> None:
    node.known.put_off(a_pod("2"), "OutOfcpu", "no room")
    node.known.clear_conditions(UID)
    assert node.condition() == []
