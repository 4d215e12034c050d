"""Which images may go, and when: those unused for too long, and the longest unused while the disk is too full.

Owns the choice; the shell lists, removes, and keeps the history from one pass to the next. What a container uses and
what the runtime has pinned is never chosen. Times are seconds of one clock.

Upstream counterpart: pkg/kubelet/images/image_gc_manager.go. Difference: an image that was never used ages from the
moment it was first seen (there it counts as unused since ever, so that one just pulled may be removed under its pod).
"""

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, replace
from typing import NamedTuple


@dataclass(frozen=True, slots=True)
class ImageGcPolicy:
    """The settings of image garbage collection."""

    high_percent: int = 85
    low_percent: int = 80
    min_age_seconds: float = 120.0
    max_age_seconds: float = 0.0
    """0: unused images may stay for ever."""

    @property
    def is_off(self) -> bool:
        """There is nothing that could be asked of a collection."""
        return self.high_percent == 100 and not self.max_age_seconds


class ImageKey(NamedTuple):
    """An image; where runtime handlers have images of their own, one of them."""

    id: str
    handler: str = ""


@dataclass(frozen=True, slots=True)
class SeenImage:
    """An image as the runtime lists it."""

    key: ImageKey
    names: tuple[str, ...]
    size_bytes: int
    pinned: bool


@dataclass(frozen=True, slots=True)
class ImageHistory:
    """What is known of an image that is on the node."""

    image: SeenImage
    first_seen_seconds: float
    last_used_seconds: float

    @property
    def order(self) -> tuple[float, float, ImageKey]:
        """Those that go first come first."""
        return self.last_used_seconds, self.first_seen_seconds, self.image.key


NEVER_SECONDS = float("-inf")
Histories = Mapping[ImageKey, ImageHistory]


def update_histories(
    histories: Histories, images: Iterable[SeenImage], used: Collection[str], now_seconds: float
) -> dict[ImageKey, ImageHistory]:
    """After a look at the node; `used` has the ids and names by which containers call their images."""
    updated = {}
    for image in images:
        old = histories.get(image.key) or ImageHistory(image, now_seconds, NEVER_SECONDS)
        is_used = image.key.id in used or any(name in used for name in image.names)
        updated[image.key] = replace(
            old, image=image, last_used_seconds=now_seconds if is_used else old.last_used_seconds
        )
    return updated


def removable_images(histories: Histories, now_seconds: float) -> tuple[ImageHistory, ...]:
    """Neither used nor pinned at this look; the longest unused first."""
    return tuple(
        sorted(
            (h for h in histories.values() if h.last_used_seconds < now_seconds and not h.image.pinned),
            key=lambda h: h.order,
        )
    )


def is_too_old(history: ImageHistory, policy: ImageGcPolicy, began_seconds: float, now_seconds: float) -> bool:
    """Unused for longer than it may be; not before the agent has watched for as long (it forgets at a restart)."""
    if not policy.max_age_seconds or now_seconds - began_seconds <= policy.max_age_seconds:
        return False
    unused_since = max(history.last_used_seconds, history.first_seen_seconds)
    return now_seconds - unused_since > policy.max_age_seconds


def may_go_for_space(history: ImageHistory, policy: ImageGcPolicy, now_seconds: float) -> bool:
    """Not one that was just pulled: its container will come."""
    return now_seconds - history.first_seen_seconds >= policy.min_age_seconds


class Disk(NamedTuple):
    """The file system of the images."""

    capacity_bytes: int
    available_bytes: int

    @property
    def usage_percent(self) -> int:
        """Rounded up. More available than there is counts as empty."""
        return 100 - min(self.available_bytes, self.capacity_bytes) * 100 // self.capacity_bytes


def bytes_to_free(disk: Disk, policy: ImageGcPolicy) -> int:
    """How much must go to reach the low threshold; 0 while the high one is not reached."""
    if disk.usage_percent < policy.high_percent:
        return 0
    available_bytes = min(disk.available_bytes, disk.capacity_bytes)
    return disk.capacity_bytes * (100 - policy.low_percent) // 100 - available_bytes


def describe_shortage(disk: Disk, freed_bytes: int) -> str:
    """What the operator is told when removing images did not help."""
    return (
        f"Insufficient free disk space on the node's image filesystem ({disk.usage_percent}% of "
        f"{format_size(disk.capacity_bytes)} used). Failed to free sufficient space by deleting unused images "
        f"(freed {freed_bytes} bytes). Investigate disk usage, as it could be used by active images, logs, volumes, "
        "or other data."
    )


def format_size(size_bytes: int) -> str:
    """`512 B`, `1.5 GiB`."""
    if size_bytes < 1024:
        return f"{size_bytes} B"
    size = float(size_bytes)
    for unit in ("KiB", "MiB", "GiB"):
        size /= 1024
        if size < 1024:
            return f"{size:.1f} {unit}"
    return f"{size / 1024:.1f} TiB"
