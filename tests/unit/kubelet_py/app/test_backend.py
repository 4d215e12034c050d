"""What the HTTP server shows of a node: pods with their newest status, what runs, logs, health, stories."""

import re
from pathlib import Path

import pytest

from kubelet_py.api import core_v1
from kubelet_py.api import pod as pods
from kubelet_py.app.backend import NodeBackend
from kubelet_py.config import load
from kubelet_py.core.pod_story import StoryEntry
from kubelet_py.errors import RuntimeUnimplemented
from kubelet_py.managers.pleg import Pleg
from tests.fakes.waiting import background
from tests.unit.kubelet_py.sync.rig import START_NS, UID, Rig, a_pod

MIRROR = {"uid": "m", "annotations": {"kubernetes.io/config.mirror": "hash"}}


class Node:
    """A node with a running pod and the mirror of a static one."""

    def __init__(self, root: Path) -> None:
        self.rig = Rig(root)
        self.pod = a_pod()
        self.pleg = Pleg(self.rig.fake, lambda uid, stimulus, is_news: None)
        flags = ["--fail-cgroupv1=false", "--container-runtime-endpoint=unix:///run/fake.sock", f"--root-dir={root}"]
        settings = load(flags)
        self.backend = NodeBackend(
            settings,
            self.rig.fake,
            self.pleg,
            self.rig.statuses,
            self.rig.stories,
            lambda: [a_pod(metadata=MIRROR), self.pod],
        )

    @property
    def container_id(self) -> str:
        status = (self.rig.status.containerStatuses or [])[0]
        assert status.containerID is not None
        return status.containerID


@pytest.fixture
async def node(tmp_path: Path) -> Node:
    made = Node(tmp_path)
    await made.rig.sync.sync_pod(made.pod, made.rig.memory, "added")
    return made


async def test_pods_are_shown_with_their_newest_status_and_without_mirrors(node: Node) -> None:
    (shown,) = node.backend.pods()
    assert shown.status == node.rig.status
    found = node.backend.find_pod("shop", "web")
    assert found is not None
    assert pods.uid_of(found) == UID
    assert node.backend.find_pod("shop", "other") is None
    node.rig.statuses.newest.clear()
    assert node.backend.find_pod("shop", "web") is node.pod


async def test_what_runs_is_shown_as_the_runtime_has_it(node: Node) -> None:
    assert node.backend.health_problems()["pleg"] == "pleg has yet to be successful"
    async with background(node.pleg.run()):
        await node.pleg.wait_listed()
        (shown,) = await node.backend.running_pods()
    assert pods.display_name(shown) == "shop/web"
    assert [container.name for container in pods.containers_of(shown)] == ["main"]
    assert node.backend.health_problems() == {"syncloop": "", "pleg": ""}


async def test_a_log_is_where_the_runtime_says_and_grows_while_its_container_runs(node: Node) -> None:
    container = node.rig.fake.container("main")
    assert await node.backend.container_log_path(node.pod, node.container_id) == container.log_path
    assert await node.backend.is_container_running(node.container_id)
    node.rig.fake.exit(container)
    assert not await node.backend.is_container_running(node.container_id)
    assert not await node.backend.is_container_running("fake://gone")


async def test_the_run_of_a_container_that_runs_now_is_the_newest(node: Node) -> None:
    """Whatever the status says, which comes later; a run that has ended is none."""
    first = node.rig.fake.container("main")
    assert await node.backend.running_container_id(node.pod, "main") == first.id
    assert await node.backend.running_container_id(node.pod, "other") is None
    node.rig.fake.exit(first)
    assert await node.backend.running_container_id(node.pod, "main") is None
    await node.rig.sync.sync_pod(node.pod, node.rig.memory, "ended")
    second = node.rig.fake.container("main")
    assert await node.backend.running_container_id(node.pod, "main") == second.id != first.id


async def test_a_command_runs_in_the_container(node: Node) -> None:
    node.rig.fake.exec_results["id",] = (b"root", b"", 0)
    assert (await node.backend.run(node.rig.fake.container("main").id, ["id"])).stdout == b"root"


async def test_a_checkpoint_is_named_after_pod_container_and_time(node: Node, tmp_path: Path) -> None:
    """In a directory that only root sees. A runtime that cannot says so, and nothing claims to be there."""
    container = node.rig.fake.container("main")
    with pytest.raises(RuntimeUnimplemented):
        await node.backend.checkpoint(node.pod, "main", container.id, 0)
    node.rig.fake.checkpoints = []
    path = await node.backend.checkpoint(node.pod, "main", container.id, 7)
    assert node.rig.fake.checkpoints == [(path, 7)]
    name = re.fullmatch(
        r"checkpoint-web_shop-main-(\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(Z|[+-]\d\d:\d\d))\.tar", Path(path).name
    )
    assert name is not None, path
    assert Path(path).parent == tmp_path / "checkpoints"
    assert Path(path).parent.stat().st_mode & 0o777 == 0o700


async def test_a_story_is_told_line_by_line(node: Node) -> None:
    for _ in range(3):
        node.rig.stories.add(UID, StoryEntry(START_NS, "timer", "sandbox#0 ready, main#0 running"))
    lines = node.backend.story(node.pod).splitlines()
    assert lines[0].startswith("2023-11-14T22:13:20.000Z  woken by: added; saw: nothing; result: done")
    assert lines[1].startswith("    CreateSandbox(attempt=0): no pod sandbox exists")
    assert lines[-1].endswith("result: done (2 more like it)")
    assert node.backend.story(a_pod(metadata={"uid": "other"})) == "nothing has happened to this pod yet\n"


async def test_the_configuration_that_holds_is_shown(node: Node) -> None:
    assert node.backend.configuration()["containerRuntimeEndpoint"] == "unix:///run/fake.sock"
    assert isinstance(node.pod, core_v1.Pod)


async def test_the_flags_of_the_start_are_shown(node: Node) -> None:
    shown = node.backend.flags()
    assert (shown["fail-cgroupv1"], shown["container-runtime-endpoint"]) == ("false", "unix:///run/fake.sock")
