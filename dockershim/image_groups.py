"""Groups that images list for their users, for containers that say their own group beside them (policy Merge).

Owns what was read of which image; an image never changes, so each is read once, from the first container that is made
of it. Must not know requests. Upstream counterpart: none in cri-dockerd, which leaves such groups out, as Docker does;
containerd's is WithAdditionalGIDs.
"""

from __future__ import annotations

from collections.abc import Mapping

from dockershim.engine import DockerEngine
from dockershim.translate.users import groups_of_users

FILE_LIMIT_BYTES = 1024 * 1024
KEPT_IMAGES = 512


class ImageGroups:
    """Those of one engine's images."""

    def __init__(self, engine: DockerEngine) -> None:
        self._engine = engine
        self._known: dict[str, Mapping[str, tuple[int, ...]]] = {}

    def known(self, image_id: str, user: str) -> tuple[int, ...] | None:
        """The groups of a user, by name or number; None while nobody has looked into the image."""
        found = self._known.get(image_id)
        return None if found is None else found.get(user, ())

    async def read(self, image_id: str, container_id: str, user: str) -> tuple[int, ...]:
        """The same, from the files of a container that has not been started."""
        texts = []
        for name in ("passwd", "group"):
            data = await self._engine.read_file(container_id, f"/etc/{name}", FILE_LIMIT_BYTES)
            texts.append((data or b"").decode(errors="replace"))
        if len(self._known) >= KEPT_IMAGES:
            del self._known[next(iter(self._known))]
        self._known[image_id] = groups_of_users(*texts)
        return self._known[image_id].get(user, ())
