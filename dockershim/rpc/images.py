"""ListImages, ImageStatus, PullImage, RemoveImage, ImageFsInfo and StreamImages.

Upstream counterpart: cri-dockerd's core/image.go and imagefs_linux.go. Deliberate differences: the answer of a pull is
the id under which every other call knows the image; removing by any name removes the image with all its names.
"""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Iterable, Iterator

import structlog

from cri_proto import runtime_v1 as cri
from dockershim.engine import RegistryAuth
from dockershim.errors import EngineFailed, InUse, InvalidArgument, NotFound
from dockershim.node import Node
from dockershim.pulls import Puller
from dockershim.translate.image_refs import decode_auth, is_image_id, parse_image_ref
from dockershim.translate.image_views import ImageView
from dockershim.translate.stats import to_cri_filesystem
from dockershim.translate.views import ContainerView, SandboxView

_log = structlog.get_logger()
CHUNK_ITEMS = 200


class Images:
    """The handlers."""

    def __init__(self, node: Node, puller: Puller) -> None:
        self._node = node
        self._puller = puller

    # ---- reads

    async def list_images(self, request: cri.ListImagesRequest) -> cri.ListImagesResponse:
        """See CRI."""
        return cri.ListImagesResponse(images=self._select(request.filter))

    async def stream_images(self, request: cri.StreamImagesRequest) -> AsyncIterator[cri.StreamImagesResponse]:
        """See CRI."""
        items = list(self._select(request.filter))
        for start in range(0, len(items), CHUNK_ITEMS):
            yield cri.StreamImagesResponse(images=items[start : start + CHUNK_ITEMS])

    def _select(self, wanted: cri.ImageFilter) -> Iterator[cri.Image]:
        if wanted.image.image:
            view = self._node.store.find_image(wanted.image.image)
            return iter((view.message,) if view else ())
        return (view.message for view in self._node.store.images.values())

    async def image_status(self, request: cri.ImageStatusRequest) -> cri.ImageStatusResponse:
        """See CRI. A missing image is an empty answer."""
        if not request.image.image:
            raise InvalidArgument("image.image", "is empty")
        view = self._node.store.find_image(request.image.image)
        if view is None:
            return cri.ImageStatusResponse()
        response = cri.ImageStatusResponse(image=view.message)
        if request.verbose:
            details = {"id": view.id, "layers": list(view.layers), "names": sorted(view.keys)}
            response.info["info"] = json.dumps(details, sort_keys=True)
        return response

    async def image_fs_info(self, request: cri.ImageFsInfoRequest) -> cri.ImageFsInfoResponse:
        """See CRI. Counted on disk; until all layers have been, Docker's sizes stand for them and inodes are unset."""
        store, stats, root = self._node.store, self._node.stats, self._node.feeder.require_info().root_directory
        views: list[ContainerView | SandboxView] = [*store.containers.values(), *store.sandboxes.values()]
        mountpoint, images, containers = await stats.in_turn(lambda: stats.disk(views, store.image_directories, root))
        now = self._node.clock_ns()
        if images is not None:
            used = to_cri_filesystem(mountpoint, images.used_bytes, images.inodes, images.counted_at_ns)
        else:
            used = to_cri_filesystem(mountpoint, used_bytes(store.images.values()), None, now)
        written = to_cri_filesystem(mountpoint, containers.used_bytes, containers.inodes, containers.counted_at_ns)
        return cri.ImageFsInfoResponse(image_filesystems=[used], container_filesystems=[written])

    # ---- pull

    async def pull_image(self, request: cri.PullImageRequest) -> cri.PullImageResponse:
        """See CRI."""
        reference = request.image.image
        if not reference:
            raise InvalidArgument("image.image", "is empty")
        if is_image_id(reference):
            raise InvalidArgument("image.image", f"{reference!r} is an image id, which no registry knows")
        auth = to_registry_auth(request.auth, parse_image_ref(reference).registry) if request.HasField("auth") else None
        return cri.PullImageResponse(image_ref=await self._puller.pull(reference, auth))

    # ---- remove

    async def remove_image(self, request: cri.RemoveImageRequest) -> cri.RemoveImageResponse:
        """See CRI. Whatever name is given, the image goes with all its names; one that is gone is a success."""
        if not request.image.image:
            raise InvalidArgument("image.image", "is empty")
        view = self._node.store.find_image(request.image.image)
        if view is not None:
            await self._node.tasks.complete(self._remove_in_turn(view.id), f"remove image {view.id}")
        return cri.RemoveImageResponse()

    async def _remove_in_turn(self, image_id: str) -> None:
        async with self._node.feeder.claim(image_id):
            view = self._node.store.images.get(image_id)
            if view is not None:  # else somebody before us in the queue has removed it
                await self._remove(view)

    async def _remove(self, view: ImageView) -> None:
        # Docker refuses only the last of several names, also for others' containers: ask before the first is gone
        if (user := await self._user_of(view.id)) is not None:
            raise InUse(f"image {view.id} is used by container {user}")
        if self._node.image_volumes.uses(view.id):
            raise InUse(f"image {view.id} is mounted in a container as a volume")
        async with self._node.feeder.images.removing():
            # by name, one after the other, and then by id: force is only for several names, never for containers
            for name in (*view.message.repo_tags, *view.message.repo_digests):
                await self._remove_quietly(name)
            await self._remove_quietly(view.id)
        if view.id in self._node.store.images:
            raise EngineFailed(f"Docker still lists image {view.id} after its removal")

    async def _user_of(self, image_id: str) -> str | None:
        """A container of the image, running or not."""
        ours = (view.id for view in self._node.store.containers.values() if view.item.image_id == image_id)
        if (user := next(ours, None)) is not None:
            return user
        listed = await self._node.engine.list_containers()
        return next((str(line["Id"]) for line in listed if line.get("ImageID") == image_id), None)

    async def _remove_quietly(self, reference: str) -> None:
        try:
            await self._node.engine.remove_image(reference, force=False)
        except NotFound:
            return


def to_registry_auth(auth: cri.AuthConfig, registry: str) -> RegistryAuth:
    """The credentials of a pull; user and password may come together in `auth`."""
    username, password = auth.username, auth.password
    if auth.auth and not username:
        username, password = decode_auth(auth.auth)
    return RegistryAuth(
        username=username,
        password=password,
        server_address=auth.server_address or registry,
        identity_token=auth.identity_token,
        registry_token=auth.registry_token,
    )


def used_bytes(images: Iterable[ImageView]) -> int:
    """The sum of the sizes; an image that is the base of another counts once."""
    views = list(images)
    size_of = {view.layers: int(view.message.size) for view in views if view.layers}
    total = sum(int(view.message.size) for view in views if not view.layers)
    for layers, size in size_of.items():
        base = next((size_of[layers[:end]] for end in range(len(layers) - 1, 0, -1) if layers[:end] in size_of), 0)
        total += max(size - base, 0)
    return total
