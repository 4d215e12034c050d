"""One suite for the fake engine and for Docker 20.10 and 29: what the rest of dockershim relies on."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest

from dockershim.engine import DockerEngine, EventStream
from dockershim.engine.client import DockerClient
from dockershim.engine.stdcopy import STDERR, STDOUT
from dockershim.errors import AlreadyExists, InUse, NameConflict, NotFound, NotRunning, Unimplemented
from dockershim.translate.image_views import image_facts, image_view
from dockershim.translate.listed import listed_as_inspected
from dockershim.translate.views import parse_time_ns
from tests.fakes.docker_engine import FakeDockerEngine
from tests.lab.lab import BUSYBOX, PAUSE, Lab

LABEL = "contract.test"
UNKNOWN = "f" * 64
SCRIPT = ("sh", "-c", "echo out; echo err >&2; exit 3")


@pytest.fixture(scope="module")
def lab(request: pytest.FixtureRequest) -> Iterator[Lab | None]:
    if request.param == "fake":
        yield None
        return
    with Lab.start(docker=request.param, registry=[PAUSE, BUSYBOX]) as started:
        yield started


@pytest.fixture
async def engine(lab: Lab | None) -> AsyncIterator[DockerEngine]:
    if lab is None:
        fake = FakeDockerEngine()
        fake.add_image(BUSYBOX)
        fake.exec_results[SCRIPT] = (b"out\n", b"err\n", 3)
        fake.registry[PAUSE] = fake.make_image(PAUSE)
        await fake.connect()
        yield fake
        return
    client = DockerClient(f"unix://{lab.docker_socket}")
    await client.connect()
    yield client
    for container in await client.list_containers(LABEL):
        await client.remove_container(container["Id"], force=True)
    await client.close()


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Run each test against all."""
    if "lab" in metafunc.fixturenames:
        real = [pytest.param(version, marks=pytest.mark.lab) for version in ("20.10", "29")]
        metafunc.parametrize("lab", ["fake", *real], indirect=True, scope="module")


def body(*command: str, **fields: Any) -> dict[str, Any]:
    """A create body."""
    return {
        "Image": BUSYBOX,
        "Entrypoint": list(command),
        "Labels": {LABEL: "yes"},
        "HostConfig": {"NetworkMode": "none"},
        **fields,
    }


SLEEP = ("sleep", "1000")


async def actions(stream: EventStream, identifier: str, last: str) -> list[str]:
    """What happened to a container, up to an action."""
    seen: list[str] = []
    async with asyncio.timeout(10):
        while last not in seen:
            event = await stream.next()
            assert event is not None
            if event.id == identifier:
                seen.append(event.action)
                assert event.attributes[LABEL] == "yes"
                assert event.time_ns > 10**18
    return seen


async def test_it_says_what_it_is(engine: DockerEngine) -> None:
    """Version, driver and runtimes are known after connecting, also for the second time."""
    first = await engine.connect()
    assert first == await engine.connect()
    assert first.api_version >= (1, 41)
    assert "runc" in first.runtimes
    assert first.cgroup_driver in ("cgroupfs", "systemd")
    await engine.ping()


async def test_the_life_of_a_container(engine: DockerEngine) -> None:
    """Created, running, exited, gone: states, times and events."""
    stream = await engine.events(0, ("container",), ("create", "start", "die", "destroy"))
    made = await engine.create_container("life", body(*SLEEP))
    identifier = made.id
    assert made.warnings == ()
    created = await engine.inspect_container(identifier)
    assert (created["Id"], created["Name"], created["State"]["Status"]) == (identifier, "/life", "created")
    assert parse_time_ns(created["Created"]) > 10**18
    assert parse_time_ns(created["State"]["StartedAt"]) == 0
    await engine.start_container(identifier)
    await engine.start_container(identifier)
    running = await engine.inspect_container("life")
    assert running["State"]["Running"]
    assert running["State"]["Pid"] > 0
    await engine.stop_container(identifier, 0)
    await engine.stop_container(identifier, 0)
    stopped = await engine.inspect_container(identifier)
    assert not stopped["State"]["Running"]
    assert stopped["State"]["ExitCode"] == 137
    assert parse_time_ns(stopped["State"]["FinishedAt"]) >= parse_time_ns(stopped["State"]["StartedAt"]) > 0
    await engine.remove_container(identifier, force=False)
    assert await actions(stream, identifier, "destroy") == ["create", "start", "die", "destroy"]
    with pytest.raises(NotFound):
        await engine.inspect_container(identifier)
    stream.close()


async def test_events_from_a_moment_on_are_told_again(engine: DockerEngine) -> None:
    """Who subscribes into the past hears what has happened since, once and in order, and nothing from before."""
    live = await engine.events(0, ("container",), ("create", "start", "die"))
    identifier = (await engine.create_container("again", body(*SLEEP))).id
    await engine.start_container(identifier)
    await engine.kill_container(identifier, "SIGKILL")
    times: dict[str, int] = {}
    async with asyncio.timeout(10):
        while "die" not in times:
            event = await live.next()
            assert event is not None
            if event.id == identifier:
                times[event.action] = event.time_ns
    live.close()
    # Between the two: Docker 29 does not always tell what happened at the very moment that is asked for.
    since_ns = (times["create"] + times["start"]) // 2
    again = await engine.events(since_ns, ("container",), ("create", "start", "die", "destroy"))
    await engine.remove_container(identifier, force=False)
    assert await actions(again, identifier, "destroy") == ["start", "die", "destroy"]
    again.close()


async def test_checkpoints_are_for_engines_with_experimental_features(engine: DockerEngine) -> None:
    """Which none of these is; tests/machine has one."""
    identifier = (await engine.create_container("no-checkpoint", body(*SLEEP))).id
    with pytest.raises(Unimplemented, match="experimental"):
        await engine.start_container(identifier, "some")
    await engine.start_container(identifier)
    with pytest.raises(Unimplemented, match="experimental"):
        await engine.create_checkpoint(identifier, "some", "/nowhere", 10)
    await engine.remove_container(identifier, force=True)


async def test_the_exit_code_is_the_commands(engine: DockerEngine) -> None:
    """A command that ends by itself."""
    identifier = (await engine.create_container("ends", body("sh", "-c", "exit 5"))).id
    stream = await engine.events(0, ("container",), ("die",))
    await engine.start_container(identifier)
    await actions(stream, identifier, "die")
    assert (await engine.inspect_container(identifier))["State"]["ExitCode"] == 5
    with pytest.raises(NotRunning):
        await engine.kill_container(identifier, "SIGKILL")
    stream.close()


async def test_a_taken_name(engine: DockerEngine) -> None:
    """The conflict names the holder."""
    holder = (await engine.create_container("taken", body(*SLEEP))).id
    with pytest.raises(NameConflict) as conflict:
        await engine.create_container("taken", body(*SLEEP))
    assert conflict.value.holder == holder


async def test_a_missing_image(engine: DockerEngine) -> None:
    """NotFound, and of an image."""
    with pytest.raises(NotFound) as missing:
        await engine.create_container("none", body(*SLEEP, Image="registry.k8s.io/none:1"))
    assert missing.value.kind == "image"


async def test_what_is_unknown(engine: DockerEngine) -> None:
    """Every call about something that does not exist is NotFound."""
    for call in (
        lambda: engine.inspect_container(UNKNOWN),
        lambda: engine.start_container(UNKNOWN),
        lambda: engine.stop_container(UNKNOWN, 0),
        lambda: engine.kill_container(UNKNOWN, "SIGKILL"),
        lambda: engine.remove_container(UNKNOWN, force=True),
        lambda: engine.update_container(UNKNOWN, {"CpuShares": 10}),
        lambda: engine.exec_create(UNKNOWN, {"Cmd": ["true"], "AttachStdout": True}),
        lambda: engine.exec_start(UNKNOWN, tty=False),
        lambda: engine.exec_inspect(UNKNOWN),
        lambda: engine.exec_resize(UNKNOWN, 80, 24),
        lambda: engine.attach(UNKNOWN, stdin=True, tty=False),
        lambda: engine.resize_container(UNKNOWN, 80, 24),
        lambda: engine.inspect_image("registry.k8s.io/none:1"),
        lambda: engine.remove_image("registry.k8s.io/none:1", force=False),
        lambda: engine.inspect_network("no-such-network"),
    ):
        with pytest.raises(NotFound):
            await call()


async def test_a_file_of_a_container(engine: DockerEngine) -> None:
    """Before it is started. Directories and large files are none; a container that is not there is an error."""
    identifier = (await engine.create_container("files", body(*SLEEP))).id
    passwd = await engine.read_file(identifier, "/etc/passwd", 4096)
    assert passwd is not None
    assert passwd.startswith(b"root:")
    assert await engine.read_file(identifier, "/etc/passwd", 3) is None
    assert await engine.read_file(identifier, "/etc", 4096) is None
    assert await engine.read_file(identifier, "/no/such/file", 4096) is None
    with pytest.raises(NotFound):
        await engine.read_file(UNKNOWN, "/etc/passwd", 4096)


async def test_the_list_shows_what_has_the_label(engine: DockerEngine) -> None:
    """Running or not, with state, names and labels; without a label everything, with the images' ids."""
    first = (await engine.create_container("listed", body(*SLEEP))).id
    second = (await engine.create_container("unlabelled", body(*SLEEP, Labels={"other": "x"}))).id
    await engine.start_container(first)
    listed = {line["Id"]: line for line in await engine.list_containers(LABEL)}
    assert set(listed) == {first}
    assert listed[first]["State"] == "running"
    assert listed[first]["Names"] == ["/listed"]
    assert listed[first]["Labels"][LABEL] == "yes"
    images = {line["Id"]: line["ImageID"] for line in await engine.list_containers()}
    assert {images[first], images[second]} == {(await engine.inspect_image(BUSYBOX))["Id"]}
    await engine.remove_container(second, force=True)


async def test_the_list_tells_what_can_be_shown_without_a_look(engine: DockerEngine) -> None:
    """Of a container that has ended: what of it is read as if it had been inspected."""
    ended = (await engine.create_container("listed-alone", body("sh", "-c", "exit 3"))).id
    stream = await engine.events(0, ("container",), ("die",))
    await engine.start_container(ended)
    await actions(stream, ended, "die")
    stream.close()
    line: dict[str, Any] = {}
    async with asyncio.timeout(10):
        while line.get("State") != "exited":  # the list is a little behind the events
            await asyncio.sleep(0.01)
            line = next(line for line in await engine.list_containers(LABEL) if line["Id"] == ended)
    seen = await engine.inspect_container(ended)
    told = listed_as_inspected(line, False, "why")
    assert {key: told[key] for key in ("Id", "Name", "Image")} == {key: seen[key] for key in ("Id", "Name", "Image")}
    assert told["Config"] == {key: seen["Config"][key] for key in ("Image", "Labels")}
    assert told["HostConfig"]["NetworkMode"] == seen["HostConfig"]["NetworkMode"]
    assert told["State"]["ExitCode"] == seen["State"]["ExitCode"] == 3
    assert parse_time_ns(told["Created"]) == parse_time_ns(seen["Created"]) // 10**9 * 10**9


async def test_removing_by_force_ends_it(engine: DockerEngine) -> None:
    """A running container goes, and is gone when the call returns."""
    identifier = (await engine.create_container("forced", body(*SLEEP))).id
    await engine.start_container(identifier)
    await engine.remove_container(identifier, force=True)
    with pytest.raises(NotFound):
        await engine.remove_container(identifier, force=True)


async def test_resources_change(engine: DockerEngine) -> None:
    """What is updated is what inspect shows."""
    identifier = (await engine.create_container("updated", body(*SLEEP))).id
    await engine.start_container(identifier)
    await engine.update_container(identifier, {"CpuShares": 333})
    assert (await engine.inspect_container(identifier))["HostConfig"]["CpuShares"] == 333


async def test_exec(engine: DockerEngine) -> None:
    """Both streams apart, then the exit code, which is told and can be asked; not in a container that does not run."""
    identifier = (await engine.create_container("exec", body(*SLEEP))).id
    request = {"AttachStdout": True, "AttachStderr": True, "Cmd": list(SCRIPT)}
    with pytest.raises(NotRunning):
        await engine.exec_create(identifier, request)
    await engine.start_container(identifier)
    events = await engine.events(0, ("container",), ("exec_die",))
    exec_id = await engine.exec_create(identifier, request)
    stream = await engine.exec_start(exec_id, tty=False)
    output = {STDOUT: b"", STDERR: b""}
    async for number, data in stream:
        output[number] += data
    await stream.close()
    assert output == {STDOUT: b"out\n", STDERR: b"err\n"}
    async with asyncio.timeout(10):
        told = await events.next()
        assert told is not None
        assert (told.id, told.attributes["execID"], told.attributes["exitCode"]) == (identifier, exec_id, "3")
        events.close()
        while (state := await engine.exec_inspect(exec_id))["Running"]:  # noqa: ASYNC110 - Docker has no other way
            await asyncio.sleep(0.01)
    assert state["ExitCode"] == 3


async def test_a_running_exec_has_a_pid(engine: DockerEngine) -> None:
    """By which it can be killed; Docker answers the start a moment before there is one."""
    identifier = (await engine.create_container("exec-pid", body(*SLEEP))).id
    await engine.start_container(identifier)
    exec_id = await engine.exec_create(identifier, {"AttachStdout": True, "Cmd": ["sleep", "100"]})
    stream = await engine.exec_start(exec_id, tty=False)
    async with asyncio.timeout(10):
        while not (await engine.exec_inspect(exec_id))["Pid"]:  # noqa: ASYNC110 - Docker has no other way
            await asyncio.sleep(0.01)
    assert (await engine.exec_inspect(exec_id))["Running"]
    await stream.close()


async def test_images(engine: DockerEngine) -> None:
    """Listed, found by name and id, and not removed while a container needs them."""
    listed = {tag: line for line in await engine.list_images() for tag in line["RepoTags"] or ()}
    image_id = listed[BUSYBOX]["Id"]
    assert listed[BUSYBOX]["Size"] > 0
    assert (await engine.inspect_image(BUSYBOX))["Id"] == image_id
    assert (await engine.inspect_image(image_id))["RootFS"]["Layers"]
    identifier = (await engine.create_container("user", body(*SLEEP, Image=image_id))).id
    assert (await engine.inspect_container(identifier))["Image"] == image_id
    with pytest.raises(InUse):
        await engine.remove_image(image_id, force=False)


async def test_pull_and_remove(engine: DockerEngine) -> None:
    """A pull brings the image and is told before its answer, a look at it tells as much as the list does; removing the
    only name removes the image."""
    if any(PAUSE in (line["RepoTags"] or ()) for line in await engine.list_images()):
        await engine.remove_image(PAUSE, force=False)
    stream = await engine.events(0, ("image",), ("pull", "delete"))
    name, _, tag = PAUSE.rpartition(":")
    await engine.pull_image(name, tag, None, lambda progress: None)
    seen_at_ns = time.time_ns()
    inspect = await engine.inspect_image(PAUSE)
    image_id = inspect["Id"]
    (line,) = (line for line in await engine.list_images() if line["Id"] == image_id)
    assert image_view(inspect, image_facts(inspect), ()) == (shown := image_view(line, image_facts(inspect), ()))
    assert image_view(inspect, image_facts(inspect), ()).message == shown.message
    await engine.remove_image(PAUSE, force=False)
    with pytest.raises(NotFound):
        await engine.inspect_image(image_id)
    async with asyncio.timeout(10):
        kinds = []
        while "delete" not in kinds:
            event = await stream.next()
            assert event is not None
            kinds.append(event.action)
            if event.action == "pull":
                assert (event.id, event.time_ns < seen_at_ns) == (PAUSE, True)
    assert kinds == ["pull", "delete"]
    stream.close()


async def test_pull_of_what_is_not_there(engine: DockerEngine) -> None:
    """NotFound, of an image."""
    with pytest.raises(NotFound) as missing:
        await engine.pull_image("registry.k8s.io/no-such-image", "1", None, lambda progress: None)
    assert missing.value.kind == "image"


async def test_networks(engine: DockerEngine) -> None:
    """Made once; the second time the name is taken."""
    request = {"Name": "contract", "Driver": "bridge", "CheckDuplicate": True}
    identifier = await engine.create_network(request)
    assert (await engine.inspect_network("contract"))["Id"] == identifier
    with pytest.raises(AlreadyExists):
        await engine.create_network(request)


async def test_a_closed_stream_ends(engine: DockerEngine) -> None:
    """Who waits for the next event gets None."""
    stream = await engine.events(0, ("container",), ("create",))
    stream.close()
    async with asyncio.timeout(10):
        assert await stream.next() is None
