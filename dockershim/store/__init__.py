"""What dockershim knows: sandboxes, containers and images, in memory, answering every read.

Owns the views and their indexes, the filters of the list calls, and telling others about changes. Fed by
`store.feeder`. Must not call Docker. Upstream counterpart: containerd's internal/cri/store; cri-dockerd asks Docker
each time. Deliberate difference to both: a newer observation always wins over an older one, whoever made it.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping
from typing import TypeVar

from cri_proto import runtime_v1 as cri
from dockershim.errors import InvalidArgument, NotFound
from dockershim.store.hub import EventHub
from dockershim.translate.image_refs import full_image_id, is_image_id, parse_image_ref
from dockershim.translate.image_views import ImageView, without_names
from dockershim.translate.views import ContainerView, SandboxView

V = TypeVar("V")
TOMBSTONES = 4096
SHORTEST_PREFIX = 8

Created = cri.ContainerEventType.CONTAINER_CREATED_EVENT
Started = cri.ContainerEventType.CONTAINER_STARTED_EVENT
Stopped = cri.ContainerEventType.CONTAINER_STOPPED_EVENT
Deleted = cri.ContainerEventType.CONTAINER_DELETED_EVENT


class Store:
    """The views by id."""

    def __init__(self, clock_ns: Callable[[], int]) -> None:
        self.sandboxes: dict[str, SandboxView] = {}
        self.containers: dict[str, ContainerView] = {}
        self.images: dict[str, ImageView] = {}
        self.hub = EventHub()
        self._clock_ns = clock_ns
        self._members: dict[str, set[str]] = {}
        self._names: dict[str, str] = {}
        self.image_directories: frozenset[str] = frozenset()
        self._image_keys: dict[str, str] = {}
        self._tombstones: OrderedDict[str, None] = OrderedDict()
        self._quiet = False

    # ---- sandboxes and containers

    def sandbox(self, reference: str) -> SandboxView | None:
        """By id or by an unambiguous beginning of it."""
        return self.sandboxes.get(reference) or _by_prefix(self.sandboxes, reference)

    def container(self, reference: str) -> ContainerView | None:
        """By id or by an unambiguous beginning of it."""
        return self.containers.get(reference) or _by_prefix(self.containers, reference)

    def require_sandbox(self, reference: str) -> SandboxView:
        """The same, or NotFound."""
        view = self.sandbox(reference)
        if view is None:
            raise NotFound("sandbox", reference)
        return view

    def require_container(self, reference: str) -> ContainerView:
        """The same, or NotFound."""
        view = self.container(reference)
        if view is None:
            raise NotFound("container", reference)
        return view

    def id_of_name(self, name: str) -> str:
        """The id behind a Docker name; empty when we know none."""
        return self._names.get(name, "")

    def members(self, sandbox_id: str) -> list[ContainerView]:
        """The containers of a sandbox."""
        return [self.containers[identifier] for identifier in self._members.get(sandbox_id, ())]

    def put_sandbox(self, view: SandboxView) -> bool:
        """Take an observation; False when a newer one (or the removal) is known."""
        old = self.sandboxes.get(view.id)
        if self._is_stale(view.id, view.observed_at_ns, old.observed_at_ns if old else 0):
            return False
        self.sandboxes[view.id] = view
        if view.ghost:
            self._release_name(view.name, view.id)
        else:
            self._names[view.name] = view.id
        if old is None:
            self._announce(view.id, Created, view.id)
        if view.running and not (old and old.running):
            self._announce(view.id, Started, view.id)
        if old and old.running and not view.running:
            self._announce(view.id, Stopped, view.id)
        return True

    def put_container(self, view: ContainerView) -> bool:
        """Take an observation; False when a newer one (or the removal) is known."""
        old = self.containers.get(view.id)
        if self._is_stale(view.id, view.observed_at_ns, old.observed_at_ns if old else 0):
            return False
        self.containers[view.id] = view
        self._names[view.name] = view.id
        self._members.setdefault(view.sandbox_id, set()).add(view.id)
        before = old.status.state if old else cri.ContainerState.CONTAINER_CREATED
        if old is None:
            self._announce(view.id, Created, view.sandbox_id)
        if view.status.state != before:
            if before == cri.ContainerState.CONTAINER_CREATED:
                self._announce(view.id, Started, view.sandbox_id)
            if view.status.state == cri.ContainerState.CONTAINER_EXITED:
                self._announce(view.id, Stopped, view.sandbox_id)
        return True

    def _is_stale(self, identifier: str, observed_at_ns: int, known_at_ns: int) -> bool:
        return identifier in self._tombstones or observed_at_ns < known_at_ns

    def remove_sandbox(self, sandbox_id: str) -> None:
        """Forget it for good; a late observation will not bring it back."""
        view = self.sandboxes.pop(sandbox_id, None)
        self._bury(sandbox_id, view.name if view else "")
        if view is not None:
            self._announce(sandbox_id, Deleted, sandbox_id, last=view)
        if not self._members.get(sandbox_id):
            self._members.pop(sandbox_id, None)

    def remove_container(self, container_id: str) -> None:
        """Forget it for good; a late observation will not bring it back."""
        view = self.containers.pop(container_id, None)
        self._bury(container_id, view.name if view else "")
        if view is None:
            return
        members = self._members.get(view.sandbox_id, set())
        members.discard(container_id)
        if not members:
            self._members.pop(view.sandbox_id, None)
        self._announce(container_id, Deleted, view.sandbox_id)

    def is_gone(self, identifier: str) -> bool:
        """Whether it was removed not long ago."""
        return identifier in self._tombstones

    def _bury(self, identifier: str, name: str) -> None:
        self._tombstones[identifier] = None
        if len(self._tombstones) > TOMBSTONES:
            self._tombstones.popitem(last=False)
        self._release_name(name, identifier)

    def _release_name(self, name: str, identifier: str) -> None:
        if self._names.get(name) == identifier:
            del self._names[name]

    # ---- images

    def images_mounted(self) -> set[str]:
        """The ids of the images that containers have as volumes."""
        return {volume.image_id for view in self.containers.values() for volume in view.image_volumes}

    def replace_images(self, views: Mapping[str, ImageView]) -> None:
        """Take a complete list of images."""
        self.images = dict(views)
        self.image_directories = frozenset(path for view in views.values() for path in view.facts.directories)
        self._image_keys = {key: view.id for view in views.values() for key in view.keys}

    def put_image(self, view: ImageView) -> None:
        """Take one image; a name that it has no other image has any more."""
        others = {
            known.id: known if known.keys.isdisjoint(view.keys) else without_names(known, view.keys)
            for known in self.images.values()
        }
        self.replace_images({**others, view.id: view})

    def find_image(self, reference: str) -> ImageView | None:
        """By id, tag or digest, in any spelling."""
        if is_image_id(reference):
            view = self.images.get(full_image_id(reference))
            if view is not None:
                return view
        try:
            found = self._image_keys.get(parse_image_ref(reference).canonical)
        except InvalidArgument:
            found = None
        if found is None and len(reference.removeprefix("sha256:")) >= SHORTEST_PREFIX:
            return _by_prefix(self.images, full_image_id(reference))
        return self.images.get(found) if found else None

    def image_name(self, image_id: str) -> str:
        """The first tag of an image, else its first digest, else nothing."""
        view = self.images.get(image_id)
        if view is None:
            return ""
        return next(iter((*view.message.repo_tags, *view.message.repo_digests)), "")

    # ---- lists

    def select_sandboxes(self, wanted: cri.PodSandboxFilter) -> Iterator[cri.PodSandbox]:
        """The sandboxes that a filter means."""
        state = wanted.state.state if wanted.HasField("state") else None
        selector = dict(wanted.label_selector)
        for view in self.sandboxes.values():
            item = view.item
            if wanted.id and not view.id.startswith(wanted.id):
                continue
            if state is not None and item.state != state:
                continue
            if selector and not _matches(item.labels, selector):
                continue
            yield item

    def select_containers(self, wanted: cri.ContainerFilter) -> Iterator[cri.Container]:
        """The containers that a filter means."""
        state = wanted.state.state if wanted.HasField("state") else None
        selector = dict(wanted.label_selector)
        for view in self.containers.values():
            item = view.item
            if wanted.id and not view.id.startswith(wanted.id):
                continue
            if wanted.pod_sandbox_id and not view.sandbox_id.startswith(wanted.pod_sandbox_id):
                continue
            if state is not None and item.state != state:
                continue
            if selector and not _matches(item.labels, selector):
                continue
            yield item

    def statuses(self, sandbox_id: str) -> list[cri.ContainerStatus]:
        """The statuses of a sandbox's containers."""
        return [view.status for view in self.members(sandbox_id)]

    # ---- telling others

    def begin_quiet_fill(self) -> None:
        """What is put from now on is no news: the first fill after a start."""
        self._quiet = True

    def end_quiet_fill(self) -> None:
        """From now on changes are events."""
        self._quiet = False

    def _announce(
        self, identifier: str, kind: cri.ContainerEventType, sandbox_id: str, last: SandboxView | None = None
    ) -> None:
        if self._quiet or not self.hub.has_subscribers:
            return
        sandbox = self.sandboxes.get(sandbox_id) or last
        self.hub.publish(
            cri.ContainerEventResponse(
                container_id=identifier,
                container_event_type=kind,
                created_at=self._clock_ns(),
                pod_sandbox_status=sandbox.status if sandbox else None,
                containers_statuses=self.statuses(sandbox_id),
            )
        )


def _by_prefix(views: Mapping[str, V], prefix: str) -> V | None:
    if len(prefix) < SHORTEST_PREFIX:
        return None
    found = [view for identifier, view in views.items() if identifier.startswith(prefix)]
    return found[0] if len(found) == 1 else None


def _matches(labels: Mapping[str, str], selector: Mapping[str, str]) -> bool:
    return all(labels.get(key) == value for key, value in selector.items())
