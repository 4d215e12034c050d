"""The store: newest observation wins, indexes follow, changes are told."""

from __future__ import annotations

from typing import Any

import pytest

from cri_proto import runtime_v1 as cri
from dockershim.errors import ResourceExhausted
from dockershim.store import Store
from dockershim.store.hub import QUEUE_LENGTH, EventHub
from dockershim.translate.image_views import image_facts, image_view
from dockershim.translate.views import ContainerView, SandboxRecord, container_view, ghost_sandbox_view, sandbox_view

NEVER = "0001-01-01T00:00:00Z"
STARTED = "2026-01-01T00:00:00Z"


def view(identifier: str, observed_at_ns: int, *, running: bool = False, ended: bool = False) -> ContainerView:
    inspect: dict[str, Any] = {
        "Id": identifier * 64,
        "Name": f"/k8s_{identifier}_p_n_u_0",
        "Created": STARTED,
        "Image": "sha256:1",
        "Config": {"Labels": {"io.kubernetes.sandbox.id": "s", "app": identifier}},
        "HostConfig": {},
        "State": {
            "Running": running,
            "StartedAt": STARTED if running or ended else NEVER,
            "FinishedAt": STARTED if ended else NEVER,
        },
    }
    return container_view(inspect, lambda _: "", observed_at_ns)


@pytest.fixture
def store() -> Store:
    return Store(lambda: 1)


def test_an_older_observation_changes_nothing(store: Store) -> None:
    """Whoever made it, and whenever it arrives."""
    assert store.put_container(view("a", 20, ended=True))
    assert not store.put_container(view("a", 10, running=True))
    assert not store.containers["a" * 64].running


def test_what_was_removed_stays_removed(store: Store) -> None:
    """An inspect that was under way does not bring it back."""
    store.put_container(view("a", 10))
    store.remove_container("a" * 64)
    assert not store.put_container(view("a", 20))
    assert store.containers == {}
    assert store.members("s") == []
    assert store.id_of_name("k8s_a_p_n_u_0") == ""


def test_a_ghost_has_no_name(store: Store) -> None:
    """Docker has no such container, and may have given the name to another, which keeps it."""
    metadata = cri.PodSandboxMetadata(name="p", namespace="n", uid="u")
    record = SandboxRecord("a" * 64, cri.PodSandboxConfig(metadata=metadata))
    name = ghost_sandbox_view(record, 1).name
    inspect: dict[str, Any] = {"Name": name, "Config": {}, "HostConfig": {}, "State": {"Running": True}}
    assert store.put_sandbox(sandbox_view(inspect | {"Id": "a" * 64}, record, 1))
    assert store.id_of_name(name) == "a" * 64
    assert store.put_sandbox(ghost_sandbox_view(record, 2))
    assert store.id_of_name(name) == ""
    assert store.put_sandbox(sandbox_view(inspect | {"Id": "b" * 64}, None, 3))
    assert store.put_sandbox(ghost_sandbox_view(record, 4))
    store.remove_sandbox("a" * 64)
    assert store.id_of_name(name) == "b" * 64


def test_ids_may_be_shortened_where_that_is_clear(store: Store) -> None:
    """Too short or ambiguous is unknown."""
    store.put_container(view("a", 1))
    assert store.container("a" * 12) is not None
    assert store.container("a" * 4) is None


async def test_each_change_is_told_once(store: Store) -> None:
    """Created, started, stopped, deleted; and all that was missed in between."""
    with store.hub.subscribe() as heard:
        store.put_container(view("a", 1))
        store.put_container(view("a", 2))
        store.put_container(view("a", 3, running=True))
        store.put_container(view("a", 4, ended=True))
        store.remove_container("a" * 64)
        store.put_container(view("b", 5, ended=True))
        kinds = [(await heard.next()).container_event_type for _ in range(7)]
    assert kinds == [0, 1, 2, 3, 0, 1, 2]


async def test_the_first_fill_is_no_news(store: Store) -> None:
    """What was there before we were is not told."""
    with store.hub.subscribe() as heard:
        store.begin_quiet_fill()
        store.put_container(view("a", 1, running=True))
        store.end_quiet_fill()
        store.put_container(view("a", 2, ended=True))
        assert (await heard.next()).container_event_type == cri.ContainerEventType.CONTAINER_STOPPED_EVENT


async def test_a_reader_that_falls_behind_is_told_so() -> None:
    """And the others are not held up."""
    hub = EventHub()
    with hub.subscribe() as slow:
        for _ in range(QUEUE_LENGTH + 1):
            hub.publish(cri.ContainerEventResponse())
        with pytest.raises(ResourceExhausted):
            await slow.next()
    assert not hub.has_subscribers


def test_images_by_every_name(store: Store) -> None:
    """Tags, digests, ids; nothing for what is not a name."""
    digest = "sha256:" + "d" * 64
    line = {"Id": "sha256:" + "1" * 64, "RepoTags": ["nginx:1"], "RepoDigests": [f"nginx@{digest}"], "Size": 5}
    image = image_view(line, image_facts({}), ())
    store.replace_images({image.id: image})
    for name in ("nginx:1", "docker.io/library/nginx:1", f"nginx@{digest}", f"nginx:9@{digest}", image.id, "1" * 64):
        assert store.find_image(name) is image, name
    for name in ("nginx", "nginx:2", "", "Bad Name", "sha256:" + "2" * 64):
        assert store.find_image(name) is None, name
    assert store.image_name(image.id) == "nginx:1"
