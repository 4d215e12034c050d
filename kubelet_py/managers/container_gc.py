"""Removing dead containers, sandboxes and log directories, once a minute.

Owns the loop and the order: containers, then the sandboxes that hold none, then logs of pods that are gone, then links
that lead nowhere. While pods wait for their turn at the runtime a pass waits as well, for a minute at the most.
A container of unknown state may run, and is stopped first. What may go is `core.gc_rules`. What
fails is tried again a minute later; one failure stops nothing. A runtime that is away ends the pass in silence:
RuntimeHealth has told of it.

Upstream counterpart: pkg/kubelet/kuberuntime/kuberuntime_gc.go. Difference: a container's log files (and those rotated
from them) go with it; upstream asks its log manager for the same.
"""

import asyncio
import contextlib
import os
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, Protocol

import structlog

from cri_proto import runtime_v1 as cri
from kubelet_py.api.pod import CONTAINER_NAME_LABEL, POD_UID_LABEL
from kubelet_py.core import gc_rules
from kubelet_py.core.cri_observation import grace_period_of
from kubelet_py.core.gc_rules import GcContainer, GcPolicy, GcSandbox
from kubelet_py.core.labels import pod_uid_of_log_directory
from kubelet_py.core.observed import ContainerState
from kubelet_py.core.termination import MINIMUM_GRACE_SECONDS
from kubelet_py.errors import KubeletError, RuntimeCallError, RuntimeNotFound, RuntimeUnavailable
from kubelet_py.host.files import remove_tree

INTERVAL_SECONDS: Final = 60.0
GIVE_WAY_SECONDS: Final = 60.0
"""How long a pass waits at the most for a node that has something better to do."""
_STATES: Final = {
    cri.CONTAINER_CREATED: ContainerState.CREATED,
    cri.CONTAINER_RUNNING: ContainerState.RUNNING,
    cri.CONTAINER_EXITED: ContainerState.EXITED,
}
_log = structlog.get_logger()


class GcRuntime(Protocol):
    """The part of the CRI client that is needed."""

    async def list_containers(self) -> list[cri.Container]:
        """All of them."""

    async def list_pod_sandboxes(self) -> list[cri.PodSandbox]:
        """All of them."""

    async def container_status(self, container_id: str) -> cri.ContainerStatus:
        """For the path of its log."""

    async def stop_pod_sandbox(self, sandbox_id: str) -> None:
        """Again is fine."""

    async def remove_pod_sandbox(self, sandbox_id: str) -> None:
        """Again is fine."""

    async def stop_container(self, container_id: str, grace_period_seconds: int) -> None:
        """Again is fine."""

    async def remove_container(self, container_id: str) -> None:
        """Again is fine."""


@dataclass(frozen=True, slots=True)
class GcSettings:
    """Where logs are, and the flags of garbage collection."""

    pod_logs_root: Path = Path("/var/log/pods")
    links_root: Path = Path("/var/log/containers")
    policy: GcPolicy = field(default_factory=GcPolicy)


@dataclass(frozen=True, slots=True)
class PodKnowledge:
    """What the rest of the agent knows: by UID, whether nobody can ask for anything of the pod any more.

    Of a pod that has ended and is still in the API server, people read the logs.
    """

    is_gone: Callable[[str], bool]
    sources_ready: Callable[[], bool]


class ContainerGc:
    """Collects what is dead; `run` it, or `collect` once."""

    def __init__(
        self,
        runtime: GcRuntime,
        knowledge: PodKnowledge,
        settings: GcSettings,
        on_failure: Callable[[str], None] = lambda message: None,
        quiet: asyncio.Event | None = None,
    ) -> None:
        """`on_failure` gets the message of the node's ContainerGCFailed event.

        `quiet` is set while no pod waits for its turn at the runtime.
        """
        self._runtime = runtime
        self._knowledge = knowledge
        self._settings = settings
        self._on_failure = on_failure
        self._quiet = quiet

    async def run(self) -> None:
        """Endless."""
        while True:
            await asyncio.sleep(INTERVAL_SECONDS)
            await self._give_way()
            try:
                await self.collect()
            except RuntimeUnavailable as error:
                _log.debug("container_gc_waits", error=str(error))  # RuntimeHealth has said that nobody answers
            except (RuntimeCallError, OSError) as error:
                _log.warning("container_gc_failed", error=str(error))
                self._on_failure(str(error))

    async def collect(self) -> None:
        """One pass; RuntimeCallError when the runtime cannot even list, or answers no more, OSError when the logs
        cannot be listed."""
        removed = await self._collect_containers()
        sandboxes = await self._collect_sandboxes()
        logs = await self._collect_logs()
        if removed or sandboxes or logs:
            _log.info("container_gc", containers=removed, sandboxes=sandboxes, log_directories=logs)

    async def _collect_containers(self) -> int:
        knowledge = self._knowledge
        found = {container.id: _gc_container(container) for container in await self._runtime.list_containers()}
        chosen = gc_rules.dead_containers(
            found.values(), self._settings.policy, time.time_ns(), knowledge.is_gone, knowledge.sources_ready()
        )
        return sum([await self._remove_container(found[container_id]) for container_id in chosen])

    async def _remove_container(self, container: GcContainer) -> bool:
        container_id = container.id
        try:
            if container.state is ContainerState.UNKNOWN:
                with contextlib.suppress(RuntimeNotFound):
                    await self._runtime.stop_container(container_id, container.grace_period_seconds)
            with contextlib.suppress(RuntimeNotFound):
                path = (await self._runtime.container_status(container_id)).log_path
                if path:
                    await asyncio.to_thread(_remove_log, Path(path))
            await self._runtime.remove_container(container_id)
        except RuntimeUnavailable:
            raise
        except (RuntimeCallError, OSError) as error:
            _log.warning("dead_container_stays", container_id=container_id, error=str(error))
            return False
        return True

    async def _collect_sandboxes(self) -> int:
        knowledge = self._knowledge
        containers = [_gc_container(container) for container in await self._runtime.list_containers()]
        found = [_gc_sandbox(sandbox) for sandbox in await self._runtime.list_pod_sandboxes()]
        chosen = gc_rules.dead_sandboxes(found, containers, knowledge.is_gone, knowledge.sources_ready())
        return sum([await self._remove_sandbox(sandbox_id) for sandbox_id in chosen])

    async def _remove_sandbox(self, sandbox_id: str) -> bool:
        try:
            # Stopped again, because one that died by itself may still hold its network.
            await self._runtime.stop_pod_sandbox(sandbox_id)
            await self._runtime.remove_pod_sandbox(sandbox_id)
        except RuntimeNotFound:
            return True
        except RuntimeUnavailable:
            raise
        except RuntimeCallError as error:
            _log.warning("dead_sandbox_stays", sandbox_id=sandbox_id, error=str(error))
            return False
        return True

    async def _give_way(self) -> None:
        if self._quiet is not None:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(GIVE_WAY_SECONDS):
                    await self._quiet.wait()

    async def _collect_logs(self) -> int:
        root, knowledge = self._settings.pod_logs_root, self._knowledge
        names = await asyncio.to_thread(_directories_in, root)
        # Decided here and not in a thread: there, the pods of a source could be heard of and not be taken in yet.
        dead = gc_rules.dead_log_directories(names, knowledge.is_gone, knowledge.sources_ready())
        removed = await asyncio.to_thread(_remove_directories, root, dead)
        await asyncio.to_thread(_remove_dead_links, self._settings.links_root)
        return removed


def _directories_in(root: Path) -> list[str]:
    try:
        return [entry.name for entry in os.scandir(root) if entry.is_dir(follow_symlinks=False)]
    except FileNotFoundError:
        return []


def _remove_directories(root: Path, names: Iterable[str]) -> int:
    removed = 0
    for name in names:
        try:
            remove_tree(root / name)
            removed += 1
        except (OSError, KubeletError) as error:
            _log.warning("log_directory_stays", pod_uid=pod_uid_of_log_directory(name), error=str(error))
    return removed


def _gc_container(container: cri.Container) -> GcContainer:
    return GcContainer(
        id=container.id,
        pod_uid=container.labels.get(POD_UID_LABEL, ""),
        name=container.labels.get(CONTAINER_NAME_LABEL, ""),
        sandbox_id=container.pod_sandbox_id,
        state=_STATES.get(container.state, ContainerState.UNKNOWN),
        created_at_ns=container.created_at,
        grace_period_seconds=grace_period_of(container.annotations) or MINIMUM_GRACE_SECONDS,
    )


def _gc_sandbox(sandbox: cri.PodSandbox) -> GcSandbox:
    return GcSandbox(
        id=sandbox.id,
        pod_uid=sandbox.metadata.uid,
        ready=sandbox.state == cri.SANDBOX_READY,
        created_at_ns=sandbox.created_at,
    )


def _remove_log(path: Path) -> None:
    """The log and what was rotated from it."""
    for file in _log_files(path):
        with contextlib.suppress(FileNotFoundError):
            os.unlink(file)


def _log_files(path: Path) -> list[str]:
    """A log and what was rotated from it: `0.log`, `0.log.20260101-000000`, `0.log.20260101-000000.gz`."""
    try:
        entries = list(os.scandir(path.parent))
    except (FileNotFoundError, NotADirectoryError):
        return []
    return [entry.path for entry in entries if entry.name == path.name or entry.name.startswith(path.name + ".")]


def _remove_dead_links(root: Path) -> None:
    """Links to logs of which nothing is left. A log that is just being rotated is away for a moment."""
    try:
        entries = [entry for entry in os.scandir(root) if entry.is_symlink() and entry.name.endswith(".log")]
    except FileNotFoundError:
        return
    for entry in entries:
        with contextlib.suppress(OSError):  # what cannot be looked at is not known to be dead
            if not os.path.exists(entry.path) and not _log_files(Path(os.path.realpath(entry.path))):
                os.unlink(entry.path)
