"""The cgroup files that were written in running containers since their start: `<root>/limits/<container id>`.

Owns the directory. What is written at the start stands in a label of the container, which Docker never changes; without
these files a restarted dockershim would take the values of the creation for those in force, and the next change would
bring them back. Must not know Docker or what the values mean. Upstream counterpart: the specification that containerd
keeps of a container and writes anew when it changes.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Collection
from pathlib import Path

import structlog

from dockershim.errors import not_written

_log = structlog.get_logger()
_UNFINISHED = ".tmp"


class ChangedLimits:
    """All of them, as texts that `names.cgroup_writes_of` reads."""

    def __init__(self, root: Path) -> None:
        self._directory = root / "limits"
        self._texts: dict[str, str] = {}
        self._of_before: frozenset[str] = frozenset()

    async def load(self) -> None:
        """Read what an earlier process left."""
        self._texts = await asyncio.to_thread(self._load)
        self._of_before = frozenset(self._texts)

    def _load(self) -> dict[str, str]:
        texts: dict[str, str] = {}
        if not self._directory.is_dir():
            return texts
        for path in self._directory.iterdir():
            try:
                if path.suffix == _UNFINISHED:
                    path.unlink()
                else:
                    texts[path.name] = path.read_text()
            except (OSError, ValueError) as error:
                _log.warning("changed_limits_unreadable", path=str(path), error=str(error))
        return texts

    def find(self, container_id: str) -> str | None:
        """What a container's limits were changed to; None where they are those of its creation."""
        return self._texts.get(container_id)

    async def save(self, container_id: str, text: str) -> None:
        """Keep them over our own end; the processes do not outlive the machine either."""
        await asyncio.to_thread(self._save, container_id, text)
        self._texts[container_id] = text

    def _save(self, container_id: str, text: str) -> None:
        path = self._directory / container_id
        temporary = path.with_suffix(_UNFINISHED)
        try:
            self._directory.mkdir(mode=0o750, parents=True, exist_ok=True)
            temporary.write_text(text)
            temporary.rename(path)
        except OSError as error:
            with contextlib.suppress(OSError):
                temporary.unlink()
            raise not_written(str(path), error) from error

    async def delete(self, container_id: str) -> None:
        """Forget a container; most have nothing here."""
        if self._texts.pop(container_id, None) is not None:
            await asyncio.to_thread((self._directory / container_id).unlink, missing_ok=True)

    async def retain(self, container_ids: Collection[str]) -> None:
        """Forget what an earlier process left, but these."""
        for container_id in self._of_before.difference(container_ids):
            await self.delete(container_id)
