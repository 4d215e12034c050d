"""Container logs: Docker's json-file, followed and written again as the log file that CRI promises.

Owns the seam between the container RPCs and the follower (`ContainerLogs`). Must not know Docker's client or the
store: a container is an id and two paths here. Upstream counterpart: none in cri-dockerd, which links Docker's file
to the CRI path and so cannot rotate; containerd writes the CRI file itself (internal/cri/io). Deliberate difference:
Docker's file stays the durable source, so what is written here can always be written again.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from typing import Protocol


@dataclass(frozen=True, slots=True)
class LogSource:
    """Where a container's log comes from and where it goes."""

    container_id: str
    docker_log_path: str
    cri_log_path: str
    tty: bool = False
    spool_directory: str = ""
    """Of a container whose output was told to go into the spool; Docker's file then has a copy that may lack some.
    With a terminal that may have turned out to be impossible, and Docker alone has it."""


class ContainerLogs(Protocol):
    """Follows the logs of all containers of the node."""

    @property
    def spool_directory(self) -> str:
        """Where new containers can spool their output; empty where they cannot."""

    def follow(self, source: LogSource) -> None:
        """Begin, or go on after a restart. Idempotent; neither file needs to exist yet."""

    async def finish(self, container_id: str) -> None:
        """Write what Docker has to the end, then stop following: for a container that has died. Bounded in time."""

    async def reopen(self, container_id: str) -> None:
        """Go on in a new file at the CRI path, after somebody moved the old one away."""

    async def remove(self, container_id: str) -> None:
        """Forget the container; its CRI log file stays."""

    async def retain(self, container_ids: Collection[str]) -> None:
        """Forget all containers but these: at the start, for what was removed while nobody looked."""

    async def run(self) -> None:
        """The endless task behind all of it."""
