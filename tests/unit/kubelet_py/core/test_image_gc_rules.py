"""The longest unused images go, never one that is used or pinned, and not before there is a reason."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kubelet_py.core.image_gc_rules import (
    NEVER_SECONDS,
    Disk,
    ImageGcPolicy,
    ImageHistory,
    ImageKey,
    SeenImage,
    bytes_to_free,
    describe_shortage,
    format_size,
    is_too_old,
    may_go_for_space,
    removable_images,
    update_histories,
)

GIB = 2**30


def an_image(name: str, size: int = 10, pinned: bool = False, handler: str = "") -> SeenImage:
    return SeenImage(ImageKey(f"sha256:{name}", handler), (f"r.example/{name}:1",), size, pinned)


def a_history(name: str, first: float = 0.0, used: float = NEVER_SECONDS, pinned: bool = False) -> ImageHistory:
    return ImageHistory(an_image(name, pinned=pinned), first, used)


def test_an_image_is_used_by_its_id_or_any_of_its_names() -> None:
    images = [an_image("a"), an_image("b"), an_image("c")]
    histories = update_histories({}, images, {"sha256:a", "r.example/b:1"}, 5.0)
    assert [histories[image.key].last_used_seconds for image in images] == [5.0, 5.0, NEVER_SECONDS]


def test_the_history_goes_on_while_the_image_is_there() -> None:
    first = update_histories({}, [an_image("a"), an_image("b")], {"sha256:a"}, 1.0)
    larger = an_image("a", size=20, pinned=True)
    second = update_histories(first, [larger, an_image("c")], (), 2.0)
    assert second == {
        larger.key: ImageHistory(larger, 1.0, 1.0),
        an_image("c").key: ImageHistory(an_image("c"), 2.0, NEVER_SECONDS),
    }


def test_handlers_have_images_of_their_own() -> None:
    images = [an_image("a", handler="one"), an_image("a", handler="two")]
    assert len(update_histories({}, images, (), 1.0)) == 2


def test_the_longest_unused_goes_first_and_the_first_seen_of_those() -> None:
    found = [
        a_history("used-now", used=9.0),
        a_history("pinned", pinned=True),
        a_history("late", used=8.0),
        a_history("early", used=3.0),
        a_history("never-late", first=2.0),
        a_history("never-early", first=1.0),
    ]
    histories = {history.image.key: history for history in found}
    ids = [history.image.key.id.removeprefix("sha256:") for history in removable_images(histories, 9.0)]
    assert ids == ["never-early", "never-late", "early", "late"]


@pytest.mark.parametrize(
    ("max_age", "began", "history", "old"),
    [
        (0.0, 0.0, a_history("a"), False),
        (100.0, 0.0, a_history("a", used=899.0), True),
        (100.0, 0.0, a_history("a", used=900.0), False),
        (100.0, 0.0, a_history("a", first=950.0), False),
        (100.0, 0.0, a_history("a", first=800.0), True),
        (100.0, 900.0, a_history("a"), False),
        (100.0, 899.0, a_history("a"), True),
    ],
)
def test_too_old_is_unused_for_longer_than_the_limit_while_we_watched(
    max_age: float, began: float, history: ImageHistory, old: bool
) -> None:
    assert is_too_old(history, ImageGcPolicy(max_age_seconds=max_age), began, 1000.0) is old


@pytest.mark.parametrize(("first", "may"), [(880.0, True), (881.0, False)])
def test_a_fresh_image_is_not_removed_for_space(first: float, may: bool) -> None:
    assert may_go_for_space(a_history("a", first=first), ImageGcPolicy(), 1000.0) is may


@pytest.mark.parametrize(
    ("disk", "percent", "wanted"),
    [
        (Disk(1000, 500), 50, 0),
        (Disk(1000, 160), 84, 0),
        (Disk(1000, 159), 85, 41),
        (Disk(1000, 150), 85, 50),
        (Disk(1000, 0), 100, 200),
        (Disk(1000, 5000), 0, 0),
        (Disk(3, 1), 67, 0),
    ],
)
def test_how_much_must_go(disk: Disk, percent: int, wanted: int) -> None:
    assert disk.usage_percent == percent
    assert bytes_to_free(disk, ImageGcPolicy()) == wanted


@given(st.integers(1, 2**50), st.integers(0, 2**50), st.integers(1, 100), st.data())
def test_what_is_freed_brings_the_disk_to_the_low_threshold(
    capacity: int, available: int, high: int, data: st.DataObject
) -> None:
    disk, policy = Disk(capacity, available), ImageGcPolicy(high, data.draw(st.integers(0, high - 1)))
    wanted = bytes_to_free(disk, policy)
    assert wanted >= 0
    if disk.usage_percent < high:
        assert wanted == 0
    else:
        assert min(available, capacity) + wanted == capacity * (100 - policy.low_percent) // 100


@given(
    st.lists(
        st.tuples(
            st.sampled_from("abcdef"), st.floats(0, 50), st.sampled_from([NEVER_SECONDS, 20.0, 60.0]), st.booleans()
        )
    )
)
def test_nothing_used_or_pinned_is_ever_removable(found: list[tuple[str, float, float, bool]]) -> None:
    histories = {h.image.key: h for h in (a_history(*entry) for entry in found)}
    chosen = removable_images(histories, 60.0)
    kept = set(histories.values()) - set(chosen)
    assert all(h.last_used_seconds < 60.0 and not h.image.pinned for h in chosen)
    assert all(h.last_used_seconds >= 60.0 or h.image.pinned for h in kept)
    assert [h.last_used_seconds for h in chosen] == sorted(h.last_used_seconds for h in chosen)


@pytest.mark.parametrize(("high", "max_age", "off"), [(100, 0.0, True), (100, 1.0, False), (99, 0.0, False)])
def test_when_there_is_nothing_to_collect(high: int, max_age: float, off: bool) -> None:
    assert ImageGcPolicy(high_percent=high, max_age_seconds=max_age).is_off is off


@pytest.mark.parametrize(
    ("size", "text"),
    [
        (0, "0 B"),
        (1023, "1023 B"),
        (1024, "1.0 KiB"),
        (3 * 2**19, "1.5 MiB"),
        (100 * GIB, "100.0 GiB"),
        (2**40, "1.0 TiB"),
        (2**52, "4096.0 TiB"),
    ],
)
def test_sizes_for_people(size: int, text: str) -> None:
    assert format_size(size) == text


def test_the_operator_is_told_what_is_full() -> None:
    assert describe_shortage(Disk(100 * GIB, 10 * GIB), 4096) == (
        "Insufficient free disk space on the node's image filesystem (90% of 100.0 GiB used). "
        "Failed to free sufficient space by deleting unused images (freed 4096 bytes). "
        "Investigate disk usage, as it could be used by active images, logs, volumes, or other data."
    )
