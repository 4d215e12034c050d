"""The one port to Docker: what the rest of dockershim may ask of an engine, and nothing of how.

Owns the `DockerEngine` protocol and its values. Docker's answers pass as the JSON that Docker sent; `translate` reads
them. Must not import the docker SDK: `engine.client` does, when it connects. Upstream counterpart: cri-dockerd's
libdocker. Deliberate differences: every call has a deadline, errors arrive as `dockershim.errors`, and pulls report
bytes so that the caller can judge progress.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from dockershim.translate.pull_progress import PullProgress

Json = dict[str, Any]


DETACH_KEYS = "ctrl-^,ctrl-@,ctrl-^,ctrl-@"
"""Docker looks for keys in what is typed; its default makes a terminal swallow ctrl-p. Nobody types these."""


@dataclass(frozen=True, slots=True)
class EngineInfo:
    """What an engine says of itself when we connect."""

    api_version: tuple[int, int]
    engine_version: str
    root_directory: str
    cgroup_driver: str
    cgroup_version: str
    runtimes: tuple[str, ...]
    default_runtime: str
    security_options: tuple[str, ...]
    live_restore: bool = False
    experimental: bool = False
    wrapped_runtimes: Mapping[str, str] = field(default_factory=dict)
    """By handler ("" is the default), the runtime that has dockershim-oci in front of it."""

    def has_security(self, name: str) -> bool:
        """Whether Docker runs with this security module (apparmor, seccomp, selinux)."""
        return any(option == f"name={name}" or option.startswith(f"name={name},") for option in self.security_options)


@dataclass(frozen=True, slots=True)
class NewContainer:
    """A container that was just made, and what Docker will not do of what it was asked."""

    id: str
    warnings: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class EngineEvent:
    """One line of Docker's event stream. `type` is container or image.

    `time_ns` is the engine's wall clock, until the one who reads the stream puts it on the clock of its observations.
    """

    type: str
    action: str
    id: str
    name: str
    time_ns: int
    attributes: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class RegistryAuth:
    """Credentials of one pull. `from_host` asks for those in the host's Docker configuration instead."""

    username: str = ""
    password: str = ""
    server_address: str = ""
    identity_token: str = ""
    registry_token: str = ""
    from_host: bool = False


class ExecStream(Protocol):
    """The output of a started exec: pairs of the stream's number (1 stdout, 2 stderr) and bytes."""

    def __aiter__(self) -> AsyncIterator[tuple[int, bytes]]:
        """The chunks until the end of both streams."""
        ...

    async def close(self) -> None:
        """Let go of the connection; the process goes on."""
        ...


class ProcessStream(ExecStream, Protocol):
    """The streams of a process, its stdin included."""

    async def write(self, data: bytes) -> None:
        """Bytes for stdin; waits while the process does not read. OSError when it is gone."""
        ...

    async def write_eof(self) -> None:
        """End of stdin; the output goes on."""
        ...


class EventStream(Protocol):
    """A subscription that is in effect: everything that happens from now on (or since the asked time) will come."""

    async def next(self) -> EngineEvent | None:
        """The next event, None when the stream has ended."""
        ...

    def close(self) -> None:
        """End the subscription."""
        ...


class DockerEngine(Protocol):
    """Docker, as far as dockershim needs it. References are ids or names; errors are those of `dockershim.errors`."""

    async def connect(self) -> EngineInfo:
        """Negotiate the API version and read what the engine says of itself. May be called again after an outage."""
        ...

    async def ping(self) -> None:
        """Raise Unavailable when the engine does not answer soon."""
        ...

    async def list_containers(self, label: str = "") -> list[Json]:
        """All containers, or all that have this label, running or not, as the list API shows them."""
        ...

    async def inspect_container(self, reference: str) -> Json:
        """One container in full."""
        ...

    async def create_container(self, name: str, body: Json) -> NewContainer:
        """Create. NameConflict when the name is taken, NotFound when the image is missing."""
        ...

    async def start_container(self, reference: str, checkpoint: str = "") -> None:
        """Start; a running container is fine. With a checkpoint it goes on where that was made.

        The checkpoint is a directory of that name in `checkpoints` below the container's own directory.
        """
        ...

    async def create_checkpoint(self, reference: str, name: str, directory: str, timeout_seconds: float) -> None:
        """Write CRIU's images of a running container to `directory/name`; it stops for that long and runs on.

        Unimplemented when the engine or its runtime cannot do that at all.
        """
        ...

    async def stop_container(self, reference: str, timeout_seconds: int) -> None:
        """Stop signal, then SIGKILL after the time; returns when it has ended. A stopped container is fine."""
        ...

    async def kill_container(self, reference: str, signal: str) -> None:
        """Send a signal; SIGKILL returns when it has ended. NotRunning when it does not run."""
        ...

    async def remove_container(self, reference: str, *, force: bool) -> None:
        """Remove it and its anonymous volumes. NotFound when it is gone; waits for a removal that is under way."""
        ...

    async def update_container(self, reference: str, body: Json) -> None:
        """Change the resources of a container."""
        ...

    async def stat_path(self, reference: str, path: str) -> None:
        """Look for a path in a container, its mounts included. NotFound (or EngineFailed) when it is not there."""
        ...

    async def read_file(self, reference: str, path: str, limit_bytes: int) -> bytes | None:
        """A file of a container, running or not. None where there is none, or another thing: a link, more bytes."""
        ...

    async def exec_create(self, reference: str, body: Json) -> str:
        """Prepare a process in a running container; returns the exec's id."""
        ...

    async def exec_start(self, exec_id: str, *, tty: bool) -> ProcessStream:
        """Start it with the streams attached that were asked for when it was prepared."""
        ...

    async def exec_resize(self, exec_id: str, width: int, height: int) -> None:
        """Set the size of its terminal. ShimError when it does not run (yet)."""
        ...

    async def attach(self, reference: str, *, stdin: bool, tty: bool) -> ProcessStream:
        """The streams of a container's own process, from now on. `tty` as the container was made."""
        ...

    async def resize_container(self, reference: str, width: int, height: int) -> None:
        """Set the size of a container's terminal."""
        ...

    async def exec_inspect(self, exec_id: str) -> Json:
        """Running, ExitCode and Pid of an exec."""
        ...

    async def list_images(self) -> list[Json]:
        """All images but the intermediate ones."""
        ...

    async def inspect_image(self, reference: str) -> Json:
        """One image in full."""
        ...

    async def pull_image(
        self, name: str, tag: str, auth: RegistryAuth | None, report: Callable[[PullProgress], None]
    ) -> None:
        """Pull `name` at a tag or digest. `report` is called in the loop as the pull advances. No overall deadline."""
        ...

    async def remove_image(self, reference: str, *, force: bool) -> None:
        """Remove an image (by id) or one name of it (by tag or digest). InUse when a container needs it."""
        ...

    async def inspect_network(self, reference: str) -> Json:
        """One Docker network."""
        ...

    async def create_network(self, body: Json) -> str:
        """Create a Docker network; returns its id. AlreadyExists when the name is taken."""
        ...

    async def events(self, since_ns: int, types: Sequence[str], actions: Sequence[str]) -> EventStream:
        """Subscribe. Returns once the subscription is in effect; `since_ns` of 0 means from now on."""
        ...

    async def close(self) -> None:
        """Let go of every connection and thread."""
        ...
