"""Checkpoints over the fake engine: the archives, a pod that comes back from them, and what is left after a failure."""

from __future__ import annotations

import asyncio
import dataclasses
import io
import json
import shutil
import tarfile
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from cri_proto import runtime_v1 as cri
from dockershim.checkpoint_files import CheckpointFiles
from dockershim.errors import (
    DeadlineExceeded,
    EngineFailed,
    FailedPrecondition,
    InvalidArgument,
    NotFound,
    NotRunning,
    ResourceExhausted,
    Unimplemented,
)
from dockershim.lifecycle import Lifecycle
from dockershim.pulls import Puller
from dockershim.rpc.checkpoints import CheckpointAndRestore
from dockershim.rpc.container_create import ContainerCreate
from dockershim.rpc.container_lifecycle import ContainerLifecycle
from dockershim.rpc.sandbox_run import SandboxRun
from tests.fakes.docker_engine import FakeDockerEngine
from tests.fakes.docker_node import IMAGE, PAUSE, World, container_config, running_node, sandbox_config
from tests.unit.dockershim.translate.test_criu_cgroups import OLD, RECORDED

SHIM_PID = 77
OTHER = "registry.k8s.io/test:2"


class Engine(FakeDockerEngine):
    """What it starts is in a /proc of its own, in a cgroup named after it, with a bundle and a file that it wrote."""

    def __init__(self, root: Path) -> None:
        super().__init__()
        self.root = root
        for image in (PAUSE, IMAGE, OTHER):
            self.add_image(image)
        self.experimental = True
        self.root_directory = str(root / "docker")
        self.layers = root / "layers"
        self.misplaced = ""

    async def start_container(self, reference: str, checkpoint: str = "") -> None:
        """See DockerEngine."""
        await super().start_container(reference, checkpoint)
        await asyncio.to_thread(self._add_process, self._find(reference), checkpoint)

    def _add_process(self, container: dict[str, Any], checkpoint: str) -> None:
        pid, identifier = container["State"]["Pid"], container["Id"]
        process, shim = self.root / "proc" / str(pid), self.root / "proc" / f"{SHIM_PID}{pid}"
        bundle = self.root / "bundles" / identifier
        for directory in (process, shim, bundle):
            directory.mkdir(parents=True)
        (process / "stat").write_text(f"{pid} (a ) name) S {shim.name} 1 1 0")
        (process / "cgroup").write_text((checkpoint and self.misplaced) or f"0::/pods/{identifier}")
        (shim / "cwd").symlink_to(bundle)
        (bundle / "config.json").write_text(json.dumps({"ociVersion": "1.0.2", "hostname": "web"}))
        if not checkpoint and self.layers is not None:
            (self.layers / identifier / "written").write_text(identifier)


class Api:
    """The handlers of one world."""

    def __init__(self, world: World, root: Path) -> None:
        self.engine, self.logs, self.root = world.engine, world.logs, root
        files = CheckpointFiles(root, root / "proc")
        self.node = dataclasses.replace(world.node, checkpoint_files=files)
        lifecycle = Lifecycle(self.node)
        self.sandboxes = SandboxRun(self.node, lifecycle, Puller(self.node))
        self.create = ContainerCreate(self.node, lifecycle)
        self.life = ContainerLifecycle(self.node, lifecycle)
        self.checkpoints = CheckpointAndRestore(
            self.node, lifecycle, self.sandboxes.run_pod_sandbox, self.create.create_for_restore, self.life.start_from
        )

    async def pod(self, *names: str) -> tuple[str, list[str]]:
        """A sandbox with running containers."""
        run = cri.RunPodSandboxRequest(config=sandbox_config())
        sandbox_id = (await self.sandboxes.run_pod_sandbox(run)).pod_sandbox_id
        return sandbox_id, [await self.container(sandbox_id, name) for name in names]

    async def container(self, sandbox_id: str, name: str) -> str:
        config = container_config(name=name)
        config.log_path = f"{name}.log"
        create = cri.CreateContainerRequest(pod_sandbox_id=sandbox_id, config=config, sandbox_config=sandbox_config())
        container_id = (await self.create.create_container(create)).container_id
        await self.life.start_container(cri.StartContainerRequest(container_id=container_id))
        return container_id

    async def checkpoint(self, container_id: str, location: Path | str, timeout: int = 0) -> None:
        request = cri.CheckpointContainerRequest(container_id=container_id, location=str(location), timeout=timeout)
        await self.checkpoints.checkpoint_container(request)

    async def checkpoint_pod(self, sandbox_id: str, path: Path | str, **fields: Any) -> None:
        request = cri.CheckpointPodRequest(pod_sandbox_id=sandbox_id, output_path=str(path), **fields)
        await self.checkpoints.checkpoint_pod(request)

    async def restore(self, path: Path, *names: str, uid: str = "new", **fields: Any) -> cri.RestorePodResponse:
        config = sandbox_config()
        config.metadata.uid = uid
        request = cri.RestorePodRequest(
            checkpoint_path=str(path),
            config=config,
            container_configs=[container_config(name=name) for name in names],
            **fields,
        )
        return await self.checkpoints.restore_pod(request)

    def spool(self, directory: str) -> None:
        """From now on new containers spool their output."""
        assert self.node.feeder.info is not None
        self.node.feeder.info = dataclasses.replace(
            self.node.feeder.info, wrapped_runtimes={"": "dockershim", "runc": "dockershim"}
        )
        self.logs.spool_directory = directory

    def leftovers(self) -> list[str]:
        return [path.name for path in (self.root / "dumps").iterdir()]


@asynccontextmanager
async def started(root: Path, engine: Engine) -> AsyncIterator[Api]:
    async with running_node(root, engine) as world:
        made = Api(world, root)
        await asyncio.to_thread(made.node.checkpoint_files.prepare)
        yield made


@pytest.fixture
async def api(tmp_path: Path) -> AsyncIterator[Api]:
    async with started(tmp_path, Engine(tmp_path)) as made:
        yield made


def members(archive: Path) -> dict[str, bytes]:
    found = {}
    with tarfile.open(archive) as tar:
        for entry in tar:
            content = tar.extractfile(entry)
            found[entry.name] = content.read() if content is not None else b""
    return found


async def test_an_archive_has_what_its_readers_look_for(api: Api, tmp_path: Path) -> None:
    """The files of containerd's, and who the container was in each of them."""
    sandbox_id, (container_id,) = await api.pod("main")
    location = tmp_path / "checkpoint.tar"
    location.write_text("an older one")
    await api.checkpoint(container_id, location)
    found = members(location)
    assert set(found) == {
        "checkpoint", "checkpoint/pages-1.img", "config.dump", "spec.dump", "status.dump", "rootfs-diff.tar",
    }  # fmt: skip
    config = json.loads(found["config.dump"])
    image = next(iter(body["Id"] for body in api.engine.images.values() if body["RepoTags"] == [IMAGE]))
    assert (config["id"], config["name"], config["rootfsImageRef"]) == (container_id, "main", image)
    assert (config["runtime"], config["restored"]) == ("runc", False)
    assert config["createdTime"][:4] == config["checkpointedTime"][:4] > "2000"
    spec = json.loads(found["spec.dump"])
    assert spec["hostname"] == "web"
    assert spec["annotations"]["io.kubernetes.cri.container-name"] == "main"
    assert spec["annotations"]["io.kubernetes.cri.sandbox-id"] == sandbox_id
    assert spec["annotations"]["io.kubernetes.cri.sandbox-namespace"] == "default"
    status = json.loads(found["status.dump"])
    assert (status["id"], status["metadata"]["name"], status["state"]) == (container_id, "main", 1)
    assert isinstance(status["created_at"], int)
    (tmp_path / "layer.tar").write_bytes(found["rootfs-diff.tar"])
    assert members(tmp_path / "layer.tar") == {"written": container_id.encode()}
    assert location.stat().st_mode & 0o777 == 0o600
    assert api.node.store.containers[container_id].running
    assert api.leftovers() == []


async def test_what_cannot_be_checkpointed_is_said(api: Api, tmp_path: Path) -> None:
    sandbox_id, (container_id,) = await api.pod("main")
    location = tmp_path / "checkpoint.tar"
    with pytest.raises(NotFound):
        await api.checkpoint("f" * 64, location)
    for bad in ("", "relative.tar", f"{tmp_path}/../x.tar", f"{tmp_path}/none/x.tar", tmp_path, f"{tmp_path}/\0"):
        with pytest.raises(InvalidArgument, match=r"^location: "):
            await api.checkpoint(container_id, bad)
    with pytest.raises(InvalidArgument, match=r"^timeout: "):
        await api.checkpoint(container_id, location, timeout=-1)
    api.engine.end(container_id, 0)
    await api.node.feeder.observer.observe_container(container_id)
    with pytest.raises(NotRunning, match="does not run"):
        await api.checkpoint(container_id, location)
    with pytest.raises(FailedPrecondition, match="no container of sandbox"):
        await api.checkpoint_pod(sandbox_id, tmp_path / "pod")
    assert not location.exists()


async def test_without_experimental_features_all_three_say_what_to_switch_on(tmp_path: Path) -> None:
    engine = Engine(tmp_path)
    engine.experimental = False
    async with started(tmp_path, engine) as api:
        calls: dict[str, Callable[[], Awaitable[Any]]] = {
            "CheckpointContainer": lambda: api.checkpoint("f" * 64, tmp_path / "x.tar"),
            "CheckpointPod": lambda: api.checkpoint_pod("f" * 64, tmp_path / "x"),
            "RestorePod": lambda: api.restore(tmp_path),
        }
        for rpc, call in calls.items():
            with pytest.raises(Unimplemented, match=rf'^{rpc}: .*"experimental": true in daemon.json'):
                await call()


async def test_a_container_with_spooled_output_is_refused_before_anything_is_done(api: Api, tmp_path: Path) -> None:
    """Alone and in a pod; and what is restored does not spool, also where new containers do."""
    sandbox_id, (container_id,) = await api.pod("main")
    await api.checkpoint_pod(sandbox_id, tmp_path / "pod")
    spooled = dataclasses.replace(api.node.store.containers[container_id], log_spool="/spool")
    api.node.store.put_container(spooled)
    api.engine.calls.clear()
    with pytest.raises(FailedPrecondition, match="made without --spool-logs"):
        await api.checkpoint(container_id, tmp_path / "x.tar")
    with pytest.raises(FailedPrecondition, match="made without --spool-logs"):
        await api.checkpoint_pod(sandbox_id, tmp_path / "y")
    assert api.engine.calls["create_checkpoint"] == 0
    assert not (tmp_path / "x.tar").exists()
    assert not (tmp_path / "y").exists()
    api.spool("/spool")
    (restored,) = (await api.restore(tmp_path / "pod", "main")).restored_containers
    assert api.node.store.containers[restored.container_id].log_spool == ""
    other_id = await api.container(sandbox_id, "other")
    assert api.node.store.containers[other_id].log_spool == "/spool"


FAILURES = {
    "no criu": (Unimplemented("Docker's runtime finds no criu"), Unimplemented, "^CheckpointContainer: .*criu"),
    "a TCP connection": (EngineFailed("Connected TCP socket, consider --tcp-established"), EngineFailed, "TCP"),
    "a full disk": (ResourceExhausted("Docker's disk is full"), ResourceExhausted, "full"),
}


@pytest.mark.parametrize("failure", FAILURES)
async def test_a_failed_dump_leaves_nothing(api: Api, tmp_path: Path, failure: str) -> None:
    error, kind, text = FAILURES[failure]
    _, (container_id,) = await api.pod("main")
    api.engine.fail_next("create_checkpoint", error)
    (tmp_path / "out").mkdir()
    with pytest.raises(kind, match=text):
        await api.checkpoint(container_id, tmp_path / "out" / "x.tar")
    assert list((tmp_path / "out").iterdir()) == []
    assert api.leftovers() == []
    await api.checkpoint(container_id, tmp_path / "out" / "x.tar")


@pytest.mark.looptime
async def test_a_dump_that_takes_too_long_is_given_up(api: Api, tmp_path: Path) -> None:
    _, (container_id,) = await api.pod("main")
    gate = api.engine.hold("create_checkpoint")
    with pytest.raises(DeadlineExceeded, match="within 30 s"):
        await api.checkpoint(container_id, tmp_path / "x.tar", timeout=30)
    assert not (tmp_path / "x.tar").exists()
    assert api.leftovers() == []
    gate.set()
    await api.checkpoint(container_id, tmp_path / "x.tar", timeout=60)


async def test_a_container_whose_bundle_is_not_found(api: Api, tmp_path: Path) -> None:
    """Nothing is dumped then."""
    _, (container_id,) = await api.pod("main")
    shutil.rmtree(tmp_path / "bundles" / container_id)
    with pytest.raises(EngineFailed, match="cannot read the OCI configuration"):
        await api.checkpoint(container_id, tmp_path / "x.tar")
    assert api.engine.calls["create_checkpoint"] == 0


async def test_a_pod_comes_back(api: Api, tmp_path: Path) -> None:
    """Its running containers, each from its own images and with its own files; others are the caller's to create."""
    sandbox_id, (first, second, ended) = await api.pod("first", "second", "ended")
    api.engine.end(ended, 0)
    await api.node.feeder.observer.observe_container(ended)
    path = tmp_path / "pod"
    await api.checkpoint_pod(sandbox_id, path)
    assert sorted(each.name for each in path.iterdir()) == ["first.tar", "pod.dump", "pod.options", "second.tar"]
    assert json.loads((path / "pod.options").read_bytes())["containers"] == ["first", "second"]
    assert json.loads((path / "pod.dump").read_bytes())["metadata"]["name"] == "web"
    answer = await api.restore(path, "second", "first", "ended")
    assert answer.pod_sandbox_id != sandbox_id
    assert [restored.name for restored in answer.restored_containers] == ["first", "second"]
    for restored, former in zip(answer.restored_containers, (first, second), strict=True):
        view = api.node.store.containers[restored.container_id]
        assert view.running
        assert view.sandbox_id == answer.pod_sandbox_id
        assert Path(view.writable_directory, "written").read_text() == former
        assert api.engine.restored[view.id] == {"pages-1.img": api.engine.containers[former]["Name"].encode()}
    assert list((tmp_path / "docker").rglob("*.img")) == []
    assert api.leftovers() == []


async def test_some_containers_of_a_pod(api: Api, tmp_path: Path) -> None:
    sandbox_id, (first, second) = await api.pod("first", "second")
    other_id = await api.container(sandbox_id, "third")
    (tmp_path / "pod").mkdir()
    await api.checkpoint_pod(sandbox_id, tmp_path / "pod", container_ids=[second, first])
    assert json.loads((tmp_path / "pod" / "pod.options").read_bytes())["containers"] == ["first", "second"]
    api.engine.end(other_id, 0)
    await api.node.feeder.observer.observe_container(other_id)
    with pytest.raises(NotRunning):
        await api.checkpoint_pod(sandbox_id, tmp_path / "again", container_ids=[other_id])


@pytest.mark.parametrize(
    ("path", "fields", "field"),
    [
        ("relative", {}, "output_path"),
        ("{root}/none/pod", {}, "output_path"),
        ("{root}", {}, "output_path"),
        ("{root}/../pod", {}, "output_path"),
        ("{root}/pod", {"options": {"leave": "x"}}, "options"),
        ("{root}/pod", {"container_ids": ["f" * 64]}, r"container_ids\[0\]"),
    ],
)
async def test_a_pods_checkpoint_is_refused_by_the_fields_name(
    api: Api, tmp_path: Path, path: str, fields: dict[str, Any], field: str
) -> None:
    sandbox_id, _ = await api.pod("main")
    with pytest.raises(InvalidArgument, match=f"^{field}"):
        await api.checkpoint_pod(sandbox_id, path.format(root=tmp_path), **fields)
    assert not (tmp_path / "pod").exists()


async def test_a_pods_checkpoint_that_fails_half_way_leaves_nothing(api: Api, tmp_path: Path) -> None:
    """A directory that was there before stays, empty."""
    sandbox_id, _ = await api.pod("first", "second")
    (tmp_path / "there").mkdir()
    for path in (tmp_path / "new", tmp_path / "there"):
        api.engine.fail_next("create_checkpoint", EngineFailed("the second"), after=1)
        with pytest.raises(EngineFailed, match="the second"):
            await api.checkpoint_pod(sandbox_id, path)
    assert not (tmp_path / "new").exists()
    assert list((tmp_path / "there").iterdir()) == []


@pytest.fixture
async def pod_checkpoint(api: Api, tmp_path: Path) -> Path:
    """Of two containers."""
    sandbox_id, _ = await api.pod("first", "second")
    await api.checkpoint_pod(sandbox_id, tmp_path / "pod")
    return tmp_path / "pod"


SPOILED: dict[str, tuple[Callable[[Path], object], str]] = {
    "no directory": (shutil.rmtree, "pod.dump"),
    "no options": (lambda path: (path / "pod.options").unlink(), "pod.options"),
    "no JSON": (lambda path: (path / "pod.options").write_text("{"), "no JSON"),
    "no object": (lambda path: (path / "pod.options").write_text("[]"), "no JSON object"),
    "another version": (
        lambda path: (path / "pod.options").write_text('{"version": 9, "containers": ["a"]}'), "version",
    ),
    "names that leave it": (
        lambda path: (path / "pod.options").write_text('{"version": 1, "containers": ["../x"]}'), "no name",
    ),
    "no pod": (lambda path: (path / "pod.dump").write_text('{"nothing": 1}'), "pod.dump"),
    "no archive": (lambda path: (path / "second.tar").unlink(), "second.tar"),
    "no tar": (lambda path: (path / "second.tar").write_text("x"), "no tar archive"),
    "an empty tar": (lambda path: tarfile.open(path / "second.tar", "w").close(), "no images"),
}  # fmt: skip


@pytest.mark.parametrize("what", SPOILED)
async def test_a_spoiled_checkpoint_is_refused_and_leaves_no_pod(api: Api, pod_checkpoint: Path, what: str) -> None:
    spoil, text = SPOILED[what]
    await asyncio.to_thread(spoil, pod_checkpoint)
    before = set(api.engine.containers)
    with pytest.raises(InvalidArgument, match=f"^checkpoint_path: .*{text}"):
        await api.restore(pod_checkpoint, "first", "second")
    assert set(api.engine.containers) == before
    assert api.leftovers() == []


async def test_a_restore_that_fails_half_way_leaves_no_pod(api: Api, pod_checkpoint: Path) -> None:
    before = set(api.engine.containers)
    api.engine.fail_next("start_container", EngineFailed("pause"))
    with pytest.raises(EngineFailed, match="pause"):
        await api.restore(pod_checkpoint, "first", "second")
    configs = [container_config(name="first"), container_config(name="second")]
    configs[1].image.image = OTHER
    request = cri.RestorePodRequest(checkpoint_path=str(pod_checkpoint), container_configs=configs)
    request.config.CopyFrom(sandbox_config("other"))
    with pytest.raises(FailedPrecondition, match="is of image"):
        await api.checkpoints.restore_pod(request)
    configs[1].image.image = "registry.k8s.io/none:1"
    request = cri.RestorePodRequest(checkpoint_path=str(pod_checkpoint), container_configs=configs)
    request.config.CopyFrom(sandbox_config("other"))
    with pytest.raises(NotFound):
        await api.checkpoints.restore_pod(request)
    assert set(api.engine.containers) == before
    assert api.leftovers() == []


async def test_a_restore_is_refused_by_the_fields_name(api: Api, pod_checkpoint: Path) -> None:
    with pytest.raises(InvalidArgument, match=r"^options"):
        await api.restore(pod_checkpoint, "first", "second", options={"a": "b"})
    with pytest.raises(InvalidArgument, match=r"^container_configs: has none of second, which"):
        await api.restore(pod_checkpoint, "first")


async def test_without_a_configuration_the_pod_is_the_former_one(api: Api, pod_checkpoint: Path) -> None:
    """Which must be gone then: names are taken once."""
    await asyncio.gather(
        *(Lifecycle(api.node).remove_sandbox(view) for view in list(api.node.store.sandboxes.values()))
    )
    configs = [container_config(name=name) for name in ("first", "second")]
    request = cri.RestorePodRequest(checkpoint_path=str(pod_checkpoint), container_configs=configs)
    answer = await api.checkpoints.restore_pod(request)
    assert api.node.store.sandboxes[answer.pod_sandbox_id].status.metadata.uid == sandbox_config().metadata.uid


async def test_an_engine_that_hides_its_layers(api: Api, pod_checkpoint: Path) -> None:
    """It cannot put files back, and says so; without any there is nothing to put back."""
    api.engine.layers = None
    with pytest.raises(Unimplemented, match=r"^RestorePod: .*writable layers"):
        await api.restore(pod_checkpoint, "first", "second")


async def test_on_cgroup_v2_a_container_comes_back_in_a_cgroup_of_its_own(tmp_path: Path) -> None:
    """CRIU's image says the former one's, and runc does not tell CRIU otherwise."""
    engine = Engine(tmp_path)
    engine.cgroup_version = "2"
    async with started(tmp_path, engine) as api:
        sandbox_id, (former,) = await api.pod("first")
        await api.checkpoint_pod(sandbox_id, tmp_path / "pod")
        with pytest.raises(InvalidArgument, match=r"^checkpoint_path: .*cgroup\.img"):
            await api.restore(tmp_path / "pod", "first")
        await asyncio.to_thread(add_cgroup_image, tmp_path / "pod" / "first.tar", former)
        (restored,) = (await api.restore(tmp_path / "pod", "first")).restored_containers
        image = engine.restored[restored.container_id]["cgroup.img"]
        assert former.encode() not in image
        assert f"/pods/{restored.container_id}".encode() in image
        engine.misplaced = "0::/pods/elsewhere"
        before = set(engine.containers)
        with pytest.raises(EngineFailed, match="has put container"):
            await api.restore(tmp_path / "pod", "first", uid="newer")
        assert set(engine.containers) == before


def add_cgroup_image(archive: Path, container_id: str) -> None:
    image = RECORDED.replace(OLD.encode(), container_id.encode())
    with tarfile.open(archive, "a") as tar:
        entry = tarfile.TarInfo("checkpoint/cgroup.img")
        entry.size = len(image)
        tar.addfile(entry, io.BytesIO(image))
