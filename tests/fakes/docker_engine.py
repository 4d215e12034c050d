"""Docker as a stateful object in memory, held to the real one by tests/contract/dockershim.

It keeps containers, images, networks and execs, and sends events. Commands are not run: `sh -c "exit N"` ends at once
with that code, everything else runs until it is stopped; what an exec prints is looked up in `exec_results`. Faults are
put in with `fail_next`, and `hold` makes a call wait.
"""

from __future__ import annotations

import asyncio
import copy
import hashlib
import re
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from dockershim.engine import EngineEvent, EngineInfo, EventStream, Json, NewContainer, ProcessStream, RegistryAuth
from dockershim.engine.stdcopy import STDERR, STDOUT
from dockershim.errors import (
    EngineFailed,
    InUse,
    InvalidArgument,
    NameConflict,
    NotFound,
    NotRunning,
    Unavailable,
    Unimplemented,
)
from dockershim.translate.image_refs import canonical_or_none
from dockershim.translate.pull_progress import PullProgress

_EXIT = re.compile(r"exit (\d+)$")
_FILES = {"/etc/passwd": b"root:x:0:0:root:/root:/bin/sh\n", "/etc/group": b"root:x:0:\n"}
_DIRECTORIES = ("/", "/bin", "/etc", "/usr/lib")
_NEVER = "0001-01-01T00:00:00Z"


def _stamp() -> str:
    now = time.time_ns()
    return datetime.fromtimestamp(now // 10**9, UTC).strftime("%Y-%m-%dT%H:%M:%S") + f".{now % 10**9:09d}Z"


def _described(state: Json) -> str:
    """A state as the list has it for people."""
    if state["Running"]:
        return "Up 1 second"
    return "Created" if state["Status"] == "created" else f"Exited ({state['ExitCode']}) 1 second ago"


def _contents(directory: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in directory.iterdir()}


def fake_id(seed: str) -> str:
    """64 hex digits."""
    return hashlib.sha256(seed.encode()).hexdigest()


EVENTS_KEPT = 256
"""As Docker does, for those who subscribe into the past."""


class FakeEventStream:
    """One subscriber."""

    def __init__(self, types: Sequence[str], actions: Sequence[str], closed: Callable[[FakeEventStream], None]) -> None:
        self.types, self.actions = frozenset(types), frozenset(actions)
        self.queue: asyncio.Queue[EngineEvent | None] = asyncio.Queue()
        self._closed = closed

    def tell(self, event: EngineEvent) -> None:
        """To whom it may concern."""
        if event.type in self.types and event.action in self.actions:
            self.queue.put_nowait(event)

    async def next(self) -> EngineEvent | None:
        """See EventStream."""
        return await self.queue.get()

    def close(self) -> None:
        """See EventStream."""
        self._closed(self)


class FakeExecStream:
    """Output that is there already; stdin is kept."""

    def __init__(self, pieces: list[tuple[int, bytes]], ended: asyncio.Event) -> None:
        self._pieces = pieces
        self._ended = ended
        self.stdin = b""
        self.stdin_ended = False

    async def write(self, data: bytes) -> None:
        """See ProcessStream."""
        self.stdin += data

    async def write_eof(self) -> None:
        """See ProcessStream."""
        self.stdin_ended = True

    async def __aiter__(self) -> AsyncIterator[tuple[int, bytes]]:
        for piece in self._pieces:
            yield piece
        await self._ended.wait()

    async def close(self) -> None:
        """See ExecStream."""


class FakeDockerEngine:
    """See DockerEngine."""

    def __init__(self) -> None:
        self.containers: dict[str, Json] = {}
        self.images: dict[str, Json] = {}
        self.image_files: dict[str, dict[str, bytes]] = {}
        self.registry: dict[str, Json] = {}
        self.networks: dict[str, Json] = {}
        self.execs: dict[str, Json] = {}
        self._exec_owners: dict[str, Json] = {}
        self.sizes: dict[str, tuple[int, int]] = {}
        self.exec_results: dict[tuple[str, ...], tuple[bytes, bytes, int]] = {}
        self.calls: Counter[str] = Counter()
        self.warnings: list[str] = []
        self.away = False
        self.experimental = False
        self.root_directory = "/var/lib/docker"
        self.cgroup_version = "1"
        self.layers: Path | None = None
        self.restored: dict[str, dict[str, bytes]] = {}
        self.pull_steps: list[float] = []
        self.pulls_extract = False
        self.listed_as: dict[str, str] = {}
        self.broken: set[str] = set()
        """Ids of what the lists show and an inspect call fails on, as after a power cut."""
        self._told: list[EngineEvent] = []
        self._streams: list[FakeEventStream] = []
        self._failures: dict[str, list[Exception | None]] = {}
        self._holds: dict[str, asyncio.Event] = {}
        self._serial = 0

    # ---- what tests do to it

    def add_image(self, *tags: str, user: str = "", size: int = 1000, layers: Sequence[str] = ()) -> str:
        """Put an image in; its id."""
        body = self.make_image(*tags, user=user, size=size, layers=layers)
        self.images[body["Id"]] = body
        return str(body["Id"])

    def make_image(self, *tags: str, user: str = "", size: int = 1000, layers: Sequence[str] = ()) -> Json:
        """An image that is nowhere yet."""
        return {
            "Id": "sha256:" + fake_id(" ".join(tags)),
            "RepoTags": list(tags),
            "RepoDigests": [],
            "Size": size,
            "Config": {"User": user, "Labels": {}},
            "RootFS": {"Type": "layers", "Layers": list(layers) or ["sha256:" + fake_id("layer " + " ".join(tags))]},
        }

    def fail_next(self, call: str, error: Exception, after: int = 0) -> None:
        """The next call of this name fails, or the one after so many that do not."""
        self._failures.setdefault(call, []).extend([*[None] * after, error])

    def hold(self, call: str) -> asyncio.Event:
        """Calls of this name wait until the event is set."""
        self._holds[call] = asyncio.Event()
        return self._holds[call]

    def end(self, reference: str, exit_code: int, *, oom: bool = False) -> None:
        """A container's process ends by itself."""
        container = self._find(reference)
        self._end(container, exit_code, oom=oom)

    @contextmanager
    def unheard(self) -> Iterator[None]:
        """What happens meanwhile is in no event, not even for those who subscribe into the past."""
        told, streams = self._told, self._streams
        self._streams = []
        try:
            yield
        finally:
            self._told, self._streams = told, streams

    def cut_events(self) -> None:
        """Every subscription ends."""
        for stream in list(self._streams):
            stream.queue.put_nowait(None)

    def go_away(self) -> None:
        """Nobody answers any more."""
        self.away = True
        self.cut_events()

    # ---- plumbing

    async def _enter(self, call: str) -> None:
        self.calls[call] += 1
        await asyncio.sleep(0)
        if self.away:
            raise Unavailable("Docker does not answer (fake)")
        waiting = self._failures.get(call)
        failure = waiting.pop(0) if waiting else None
        if failure is not None:
            raise failure
        if call in self._holds:
            await self._holds[call].wait()

    def _find(self, reference: str) -> Json:
        for identifier, container in self.containers.items():
            if identifier == reference or container["Name"] == f"/{reference}":
                return container
        raise NotFound("container", reference)

    def _unbroken(self, found: Json) -> Json:
        if found["Id"] in self.broken:
            raise EngineFailed(f"RWLayer of container {found['Id']} is unexpectedly nil", 500)
        return found

    def _find_image(self, reference: str) -> Json:
        key = canonical_or_none(reference)
        for identifier, image in self.images.items():
            names = {canonical_or_none(name) for name in (*image["RepoTags"], *image["RepoDigests"])}
            if reference in (identifier, identifier.removeprefix("sha256:")) or (key and key in names):
                return image
        raise NotFound("image", reference)

    def _emit(self, kind: str, action: str, identifier: str, name: str, attributes: dict[str, str]) -> None:
        event = EngineEvent(kind, action, identifier, name, time.time_ns(), {**attributes, "name": name})
        self._told = [*self._told, event][-EVENTS_KEPT:]
        for stream in self._streams:
            stream.tell(event)

    def _emit_container(self, action: str, container: Json, **extra: str) -> None:
        labels = container["Config"].get("Labels") or {}
        self._emit("container", action, container["Id"], container["Name"].removeprefix("/"), {**labels, **extra})

    def _end(self, container: Json, exit_code: int, *, oom: bool = False) -> None:
        if oom:
            container["State"]["OOMKilled"] = True
            self._emit_container("oom", container)
        container["State"] |= {
            "Status": "exited",
            "Running": False,
            "Pid": 0,
            "ExitCode": exit_code,
            "FinishedAt": _stamp(),
        }
        self._emit_container("die", container, exitCode=str(exit_code))

    # ---- DockerEngine

    async def connect(self) -> EngineInfo:
        """See DockerEngine."""
        await self._enter("connect")
        return EngineInfo(
            api_version=(1, 41),
            engine_version="20.10.24",
            root_directory=self.root_directory,
            cgroup_driver="cgroupfs",
            cgroup_version=self.cgroup_version,
            runtimes=("runc",),
            default_runtime="runc",
            security_options=("name=seccomp,profile=default",),
            experimental=self.experimental,
        )

    async def ping(self) -> None:
        """See DockerEngine."""
        await self._enter("ping")

    async def list_containers(self, label: str = "") -> list[Json]:
        """See DockerEngine."""
        await self._enter("list_containers")
        return [
            {
                "Id": identifier,
                "Names": [container["Name"]],
                "Image": container["Config"]["Image"],
                "ImageID": container["Image"],
                "Created": int(datetime.fromisoformat(container["Created"][:19] + "+00:00").timestamp()),
                "Status": _described(container["State"]),
                "HostConfig": {"NetworkMode": container["HostConfig"].get("NetworkMode", "default")},
                "State": self.listed_as.get(identifier, container["State"]["Status"]),
                "Labels": dict(container["Config"]["Labels"]),
            }
            for identifier, container in self.containers.items()
            if not label or label in container["Config"]["Labels"]
        ]

    async def inspect_container(self, reference: str) -> Json:
        """See DockerEngine."""
        await self._enter("inspect_container")
        return copy.deepcopy(self._unbroken(self._find(reference)))

    async def create_container(self, name: str, body: Json) -> NewContainer:
        """See DockerEngine."""
        await self._enter("create_container")
        image = self._find_image(body["Image"])
        for identifier, container in self.containers.items():
            if container["Name"] == f"/{name}":
                raise NameConflict(f"the name {name} is taken by {identifier}", identifier)
        self._serial += 1
        identifier = fake_id(f"{name} {self._serial}")
        config = {key: value for key, value in body.items() if key != "HostConfig"}
        config["Labels"] = {**image["Config"]["Labels"], **(body.get("Labels") or {})}
        host_config = copy.deepcopy(body.get("HostConfig") or {})
        host_config.setdefault("Runtime", "runc")
        self.containers[identifier] = {
            "Id": identifier,
            "Name": f"/{name}",
            "Created": _stamp(),
            "Image": image["Id"],
            "Config": config,
            "HostConfig": host_config,
            "State": {
                "Status": "created",
                "Running": False,
                "Pid": 0,
                "ExitCode": 0,
                "Error": "",
                "OOMKilled": False,
                "StartedAt": _NEVER,
                "FinishedAt": _NEVER,
            },
            "LogPath": "",
            "ResolvConfPath": "",
            "Mounts": [
                {
                    "Type": "bind",
                    "Source": mount["Source"],
                    "Destination": mount["Target"],
                    "RW": not mount.get("ReadOnly"),
                    "Propagation": (mount.get("BindOptions") or {}).get("Propagation", "rprivate"),
                }
                for mount in host_config.get("Mounts") or ()
            ],
            "NetworkSettings": {"Networks": {}},
        }
        if self.layers is not None:
            upper = self.layers / identifier
            await asyncio.to_thread(upper.mkdir, parents=True)
            self.containers[identifier]["GraphDriver"] = {"Name": "overlay2", "Data": {"UpperDir": str(upper)}}
        self._emit_container("create", self.containers[identifier])
        return NewContainer(identifier, tuple(self.warnings))

    def _require_experimental(self) -> None:
        if not self.experimental:
            raise Unimplemented("Docker: This experimental feature is disabled by default.")

    async def create_checkpoint(self, reference: str, name: str, directory: str, timeout_seconds: float) -> None:
        """See DockerEngine. One image, which says whose it is."""
        await self._enter("create_checkpoint")
        container = self._find(reference)
        self._require_experimental()
        if not container["State"]["Running"]:
            raise NotRunning(f"Container {reference} not running")

        def write() -> None:
            images = Path(directory, name)
            images.mkdir(parents=True)
            (images / "pages-1.img").write_text(container["Name"])

        await asyncio.to_thread(write)

    async def start_container(self, reference: str, checkpoint: str = "") -> None:
        """See DockerEngine. What a container was restored from is kept in `restored`."""
        await self._enter("start_container")
        container = self._find(reference)
        if container["State"]["Running"]:
            return
        if checkpoint:
            self._require_experimental()
            images = Path(self.root_directory, "containers", container["Id"], "checkpoints", checkpoint)
            self.restored[container["Id"]] = await asyncio.to_thread(_contents, images)
        self._serial += 1
        mode = container["HostConfig"].get("NetworkMode", "default")
        if mode in self.networks or mode == "default":
            address = f"172.30.{self._serial // 250}.{self._serial % 250 + 2}"
            container["NetworkSettings"]["Networks"][mode] = {"IPAddress": address, "GlobalIPv6Address": ""}
        container["State"] |= {
            "Status": "running",
            "Running": True,
            "Pid": 4_000_000 + self._serial,
            "StartedAt": _stamp(),
            "FinishedAt": _NEVER,
            "ExitCode": 0,
        }
        self._emit_container("start", container)
        command = [*(container["Config"].get("Entrypoint") or ()), *(container["Config"].get("Cmd") or ())]
        ends = _EXIT.search(" ".join(command))
        if ends:
            self._end(container, int(ends[1]))

    async def stop_container(self, reference: str, timeout_seconds: int) -> None:
        """See DockerEngine."""
        await self._enter("stop_container")
        container = self._find(reference)
        if container["State"]["Running"]:
            self._end(container, 137)

    async def kill_container(self, reference: str, signal: str) -> None:
        """See DockerEngine."""
        await self._enter("kill_container")
        container = self._find(reference)
        if not container["State"]["Running"]:
            raise NotRunning(f"container {reference} is not running")
        self._end(container, 137)

    async def remove_container(self, reference: str, *, force: bool) -> None:
        """See DockerEngine."""
        await self._enter("remove_container")
        container = self._find(reference)
        if container["State"]["Running"]:
            if not force:
                raise EngineFailed("You cannot remove a running container", 409)
            self._end(container, 137)
        del self.containers[container["Id"]]
        self._emit_container("destroy", container)

    async def update_container(self, reference: str, body: Json) -> None:
        """See DockerEngine."""
        await self._enter("update_container")
        self._find(reference)["HostConfig"] |= body
        self._emit_container("update", self._find(reference))

    async def stat_path(self, reference: str, path: str) -> None:
        """See DockerEngine. Every image has the same directories."""
        await self._enter("stat_path")
        mounts = self._find(reference)["HostConfig"].get("Mounts") or ()
        sub_paths = {mount["Target"]: (mount.get("ImageOptions") or {}).get("Subpath", "") for mount in mounts}
        if f"/{sub_paths.get(path, path).strip('/')}" not in _DIRECTORIES:
            raise NotFound("object", path)

    async def read_file(self, reference: str, path: str, limit_bytes: int) -> bytes | None:
        """See DockerEngine. `image_files` has what an image has, by its id, where it is not as every other."""
        await self._enter("read_file")
        data = self.image_files.get(self._find(reference)["Image"], _FILES).get(path)
        return data if data is not None and len(data) <= limit_bytes else None

    async def exec_create(self, reference: str, body: Json) -> str:
        """See DockerEngine."""
        await self._enter("exec_create")
        container = self._find(reference)
        if not container["State"]["Running"]:
            raise NotRunning(f"container {reference} is not running")
        self._serial += 1
        identifier = fake_id(f"exec {self._serial}")
        self.execs[identifier] = {"ID": identifier, "Running": False, "ExitCode": None, "Pid": 0, "Cmd": body["Cmd"]}
        self._exec_owners[identifier] = container
        return identifier

    async def exec_resize(self, exec_id: str, width: int, height: int) -> None:
        """See DockerEngine."""
        await self._enter("exec_resize")
        if exec_id not in self.execs:
            raise NotFound("exec", exec_id)
        self.sizes[exec_id] = (width, height)

    async def attach(self, reference: str, *, stdin: bool, tty: bool) -> ProcessStream:
        """See DockerEngine. It ends with the container's stop, which nobody here waits for."""
        await self._enter("attach")
        self._find(reference)
        return FakeExecStream([], asyncio.Event())

    async def resize_container(self, reference: str, width: int, height: int) -> None:
        """See DockerEngine."""
        await self._enter("resize_container")
        self.sizes[str(self._find(reference)["Id"])] = (width, height)

    async def exec_start(self, exec_id: str, *, tty: bool) -> ProcessStream:
        """See DockerEngine."""
        await self._enter("exec_start")
        if exec_id not in self.execs:
            raise NotFound("exec", exec_id)
        state = self.execs[exec_id]
        result = self.exec_results.get(tuple(state["Cmd"]))
        ended = asyncio.Event()
        if result is None:  # runs for ever
            state |= {"Running": True, "Pid": 5_000_000 + self._serial}
            return FakeExecStream([], ended)
        ended.set()
        out, err, code = result
        state |= {"Running": False, "ExitCode": code}
        self._emit_container("exec_die", self._exec_owners[exec_id], execID=exec_id, exitCode=str(code))
        pieces = [(STDOUT, out), (STDERR, err)]
        return FakeExecStream([piece for piece in pieces if piece[1]], ended)

    async def exec_inspect(self, exec_id: str) -> Json:
        """See DockerEngine."""
        await self._enter("exec_inspect")
        if exec_id not in self.execs:
            raise NotFound("exec", exec_id)
        return dict(self.execs[exec_id])

    async def list_images(self) -> list[Json]:
        """See DockerEngine."""
        await self._enter("list_images")
        return [
            {key: copy.deepcopy(image[key]) for key in ("Id", "RepoTags", "RepoDigests", "Size")}
            for image in self.images.values()
        ]

    async def inspect_image(self, reference: str) -> Json:
        """See DockerEngine."""
        await self._enter("inspect_image")
        return copy.deepcopy(self._unbroken(self._find_image(reference)))

    async def pull_image(
        self, name: str, tag: str, auth: RegistryAuth | None, report: Callable[[PullProgress], None]
    ) -> None:
        """See DockerEngine."""
        await self._enter("pull_image")
        for mark, pause_seconds in enumerate(self.pull_steps):
            await asyncio.sleep(pause_seconds)
            report(PullProgress(mark, 1, "Extracting" if self.pulls_extract else "Downloading", self.pulls_extract))
        reference = f"{name}@{tag}" if tag.startswith("sha256:") else f"{name}:{tag}"
        image = self.registry.get(reference)
        if image is None:
            raise NotFound("image", f"{reference}: manifest unknown")
        for former in self.images.values():
            former["RepoTags"] = [each for each in former["RepoTags"] if each not in image["RepoTags"]]
        self.images[image["Id"]] = copy.deepcopy(image)
        self._emit("image", "pull", reference, reference, {})

    async def remove_image(self, reference: str, *, force: bool) -> None:
        """See DockerEngine."""
        await self._enter("remove_image")
        image = self._find_image(reference)
        key = canonical_or_none(reference)
        named = [tag for tag in image["RepoTags"] if canonical_or_none(tag) == key]
        by_id = reference.removeprefix("sha256:") == image["Id"].removeprefix("sha256:")
        if by_id and len(image["RepoTags"]) > 1 and not force:
            raise InUse(f"image {reference} is referenced in multiple repositories (must be forced)")
        remaining = [tag for tag in image["RepoTags"] if tag not in named]
        if not by_id and remaining:
            image["RepoTags"] = remaining
            self._emit("image", "untag", image["Id"], image["Id"], {})
            return
        users = [container for container in self.containers.values() if container["Image"] == image["Id"]]
        if users and not (force and not any(user["State"]["Running"] for user in users)):
            raise InUse(f"unable to remove {reference}: container {users[0]['Id'][:12]} is using it")
        del self.images[image["Id"]]
        self._emit("image", "delete", image["Id"], image["Id"], {})

    async def inspect_network(self, reference: str) -> Json:
        """See DockerEngine."""
        await self._enter("inspect_network")
        for identifier, network in self.networks.items():
            if reference in (identifier, network["Id"]):
                return dict(network)
        raise NotFound("network", reference)

    async def create_network(self, body: Json) -> str:
        """See DockerEngine."""
        await self._enter("create_network")
        name = body.get("Name")
        if not name:
            raise InvalidArgument("", "a network needs a name")
        if name in self.networks:
            raise NameConflict(f"network with name {name} already exists", "")
        self.networks[name] = {"Id": fake_id(f"network {name}"), "Name": name}
        return str(self.networks[name]["Id"])

    async def events(self, since_ns: int, types: Sequence[str], actions: Sequence[str]) -> EventStream:
        """See DockerEngine."""
        await self._enter("events")
        stream = FakeEventStream(types, actions, self._drop)
        for event in self._told:
            if 0 < since_ns <= event.time_ns:
                stream.tell(event)
        self._streams.append(stream)
        return stream

    def _drop(self, stream: FakeEventStream) -> None:
        if stream in self._streams:
            self._streams.remove(stream)
            stream.queue.put_nowait(None)

    async def close(self) -> None:
        """See DockerEngine."""
        self.cut_events()


def as_engine(fake: FakeDockerEngine) -> Any:
    """For places that want the protocol; mypy checks the fit here."""
    from dockershim.engine import DockerEngine

    engine: DockerEngine = fake
    return engine
