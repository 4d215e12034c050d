"""What dockershim shows of images: CRI messages made once from what Docker says.

Pure. What only an inspect answer tells is kept in `ImageFacts`, because the list is read often and an image is
inspected once: under one id it never changes. Messages in a view are shared and must not be changed. Upstream
counterpart: cri-dockerd's core/convert.go.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from cri_proto import runtime_v1 as cri
from dockershim.translate.image_refs import canonical_or_none
from dockershim.translate.users import numeric_id


@dataclass(frozen=True, slots=True)
class ImageFacts:
    """What an inspect answer says: user and stop signal of its containers, its layers, where those are unpacked.

    Only Docker's own overlay store says where; the containerd image store does not.
    """

    user: str = ""
    layers: tuple[str, ...] = ()
    directories: tuple[str, ...] = ()
    stop_signal: str = ""


@dataclass(frozen=True, slots=True)
class ImageView:
    """An image as the store knows it. `keys` are all canonical names that mean it."""

    id: str
    keys: frozenset[str]
    facts: ImageFacts
    message: cri.Image = field(compare=False)

    @property
    def layers(self) -> tuple[str, ...]:
        """The digests of its layers, the lowest first."""
        return self.facts.layers


def image_facts(inspect: Mapping[str, Any]) -> ImageFacts:
    """What to keep of an inspect answer; an empty one is an image that is gone again."""
    return ImageFacts(
        user=str((inspect.get("Config") or {}).get("User") or "").partition(":")[0],
        layers=tuple((inspect.get("RootFS") or {}).get("Layers") or ()),
        directories=unpacked_layers(inspect),
        stop_signal=str((inspect.get("Config") or {}).get("StopSignal") or ""),
    )


def layer_paths(inspect: Mapping[str, Any]) -> Mapping[str, Any]:
    """Where Docker's storage driver has the layers of an image or container; empty when it does not say."""
    return (inspect.get("GraphDriver") or {}).get("Data") or {}


def unpacked_layers(inspect: Mapping[str, Any]) -> tuple[str, ...]:
    """The directories of an image's layers, the topmost first; none when Docker does not say."""
    paths = layer_paths(inspect)
    found = [path for key in ("UpperDir", "LowerDir") for path in str(paths.get(key) or "").split(":")]
    return tuple(path for path in found if path)


def image_view(listed: Mapping[str, Any], facts: ImageFacts, pinned: Iterable[str]) -> ImageView:
    """The view of an image from its line in the list and what is known of it. `pinned` are canonical names."""
    # Docker 29 counts the digest of a pull by digest among the tags as well
    tags = [tag for tag in listed.get("RepoTags") or () if canonical_or_none(tag) and "@" not in tag]
    digests = [digest for digest in listed.get("RepoDigests") or () if canonical_or_none(digest)]
    keys = frozenset(key for name in (*tags, *digests) if (key := canonical_or_none(name)))
    image_id = str(listed["Id"])
    message = cri.Image(
        id=image_id,
        repo_tags=tags,
        repo_digests=digests,
        size=int(listed.get("Size") or 0) or 1,  # CRI wants it non-zero, also for an empty image
        pinned=not keys.isdisjoint(pinned),
        spec=cri.ImageSpec(image=image_id),
    )
    number = numeric_id(facts.user)
    if number is not None:
        message.uid.value = number
    elif facts.user:
        message.username = facts.user
    return ImageView(image_id, keys, facts, message)


def without_names(view: ImageView, keys: frozenset[str]) -> ImageView:
    """The same image after others took some of its names."""
    message = cri.Image()
    message.CopyFrom(view.message)
    for names in (message.repo_tags, message.repo_digests):
        kept = [name for name in names if canonical_or_none(name) not in keys]
        del names[:]
        names.extend(kept)
    return ImageView(view.id, view.keys - keys, view.facts, message)
