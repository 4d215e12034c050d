"""Counting layers: what counts, how often, and what a container can do to the walk."""

from __future__ import annotations

import asyncio
import os
import subprocess
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dockershim.stats.layers import BLOCK_BYTES, DEEPEST, FIRST_LOOK_ENTRIES, DiskUse, LayerUsage, count_tree
from tests.unit.descriptors import open_below

SECOND = 10**9


class Clock:
    """Nanoseconds that a test moves."""

    def __init__(self) -> None:
        self.now = 1000 * SECOND

    def __call__(self) -> int:
        return self.now


def make_tree(root: Path, files: int = 3) -> None:
    (root / "etc" / "deep").mkdir(parents=True)
    for number in range(files):
        (root / "etc" / "deep" / f"{number}").write_bytes(b"x" * 5000)


def test_it_counts_as_du_does(tmp_path: Path) -> None:
    """Blocks and inodes; a file with two names once; a link is itself, not what it points to."""
    make_tree(tmp_path / "layer")
    os.link(tmp_path / "layer/etc/deep/0", tmp_path / "layer/again")
    (tmp_path / "outside").write_bytes(b"x" * 100_000)
    (tmp_path / "layer/link").symlink_to(tmp_path / "outside")
    (tmp_path / "layer/around").symlink_to(tmp_path / "layer")
    found = count_tree(str(tmp_path / "layer"), 7)
    said = subprocess.run(["du", "-s", "-B1", tmp_path / "layer"], capture_output=True, text=True, check=True).stdout
    assert found == DiskUse(int(said.split()[0]), 8, 7)


@given(st.recursive(st.binary(max_size=9000), lambda inner: st.lists(inner, max_size=4), max_leaves=20))
def test_inodes_are_the_entries(tmp_path_factory: pytest.TempPathFactory, tree: bytes | list[object]) -> None:
    """For any shape of tree."""
    root = tmp_path_factory.mktemp("tree")

    def build(at: Path, part: object) -> int:
        if isinstance(part, bytes):
            at.write_bytes(part)
            return 1
        assert isinstance(part, list)
        at.mkdir()
        return 1 + sum(build(at / str(number), inner) for number, inner in enumerate(part))

    entries = build(root / "top", tree)
    found = count_tree(str(root / "top"), 0)
    if isinstance(tree, bytes):
        assert found is None  # no directory
    else:
        assert found is not None
        assert found.inodes == entries
        assert found.used_bytes % BLOCK_BYTES == 0


def test_a_very_deep_tree_ends_the_walk_early(tmp_path: Path) -> None:
    """Each level holds a descriptor, so there is an end to it."""
    here = os.open(tmp_path, os.O_RDONLY)
    for _ in range(DEEPEST + 100):
        os.mkdir("d", dir_fd=here)
        below = os.open("d", os.O_RDONLY, dir_fd=here)
        os.close(here)
        here = below
    os.close(here)
    found = count_tree(str(tmp_path), 0)
    assert found is not None
    assert DEEPEST < found.inodes < DEEPEST + 10
    assert open_below(tmp_path) == []


def test_too_large_for_now(tmp_path: Path) -> None:
    """The first look gives up, and leaves no descriptor behind."""
    make_tree(tmp_path / "layer", files=20)
    assert count_tree(str(tmp_path / "layer"), 0, most_entries=10) is None
    assert count_tree(str(tmp_path / "layer"), 0, most_entries=100) is not None
    assert count_tree(str(tmp_path / "nothing"), 0) is None
    assert open_below(tmp_path) == []


async def running(usage: LayerUsage, condition: object) -> None:
    """Let the loop work until something is so."""
    assert callable(condition)
    async with asyncio.timeout(60), asyncio.TaskGroup() as group:  # the thread gets what others leave
        walking = group.create_task(usage.run(), name="walk")
        while not condition():  # noqa: ASYNC110 - the walk is in a thread of its own
            await asyncio.sleep(0.005)
        walking.cancel()


async def test_a_small_layer_is_known_at_once_and_refreshed_when_asked(tmp_path: Path) -> None:
    """An old count is shown, and a new one made for the next who asks."""
    make_tree(tmp_path)
    clock = Clock()
    usage = LayerUsage(clock)
    first = usage.writable(str(tmp_path))
    assert first is not None
    assert first.inodes == 6
    (tmp_path / "new").write_bytes(b"x" * 50_000)
    clock.now += 31 * SECOND
    assert usage.writable(str(tmp_path)) == first
    await running(usage, lambda: usage.writable(str(tmp_path)) != first)
    second = usage.writable(str(tmp_path))
    assert second is not None
    assert second.inodes == 7
    assert second.used_bytes - first.used_bytes >= 50_000


async def test_a_large_layer_comes_later(tmp_path: Path) -> None:
    """The caller does not wait for the walk."""
    make_tree(tmp_path, files=FIRST_LOOK_ENTRIES)
    usage = LayerUsage(Clock())
    assert usage.writable(str(tmp_path)) is None
    await running(usage, lambda: usage.writable(str(tmp_path)))


async def test_an_ended_container_is_counted_once_more_and_then_no_more(tmp_path: Path) -> None:
    """Nobody writes there."""
    make_tree(tmp_path)
    clock = Clock()
    usage = LayerUsage(clock)
    usage.writable(str(tmp_path))
    ended = clock.now + SECOND
    clock.now += 60 * SECOND
    await running(usage, lambda: (count := usage.writable(str(tmp_path), ended)) and count.counted_at_ns == clock.now)
    last = usage.writable(str(tmp_path), ended)
    clock.now += 3600 * SECOND
    assert usage.writable(str(tmp_path), ended) == last
    assert not usage._wanted  # nothing is to be done


async def test_layers_of_images_are_counted_once(tmp_path: Path) -> None:
    """Until all are counted there is no sum; after a pull the last sum stays until the new layer is in it."""
    clock = Clock()
    usage = LayerUsage(clock)
    layers = [str(tmp_path / name) for name in ("a", "b")]
    for layer in layers:
        make_tree(Path(layer))
    assert usage.frozen(layers, settled=True) is None
    await running(usage, lambda: usage.frozen(layers, settled=True))
    both = usage.frozen(layers, settled=True)
    assert both is not None
    assert both.inodes == 12
    (tmp_path / "c").mkdir()
    three = [*layers, str(tmp_path / "c")]
    assert usage.frozen(three, settled=True) == both
    await running(usage, lambda: (found := usage.frozen(three, settled=True)) and found.inodes == 13)
    usage.retain(layers)
    fewer = usage.frozen(layers, settled=True)
    assert fewer is not None
    assert fewer.inodes == 12


async def test_a_layer_that_may_still_be_coming_is_counted_again(tmp_path: Path) -> None:
    """Each time later than the time before: half a layer is not half for ever, and a node at rest has nothing to do."""
    clock = Clock()
    usage = LayerUsage(clock)
    make_tree(tmp_path)
    layers = [str(tmp_path)]
    await running(usage, lambda: usage.frozen(layers, settled=False))
    (tmp_path / "rest").write_bytes(b"x" * 50_000)
    clock.now += 31 * SECOND
    await running(usage, lambda: (found := usage.frozen(layers, settled=False)) and found.inodes == 7)
    counted_at, intervals = clock.now, []
    for _ in range(4):
        while not usage._wanted:
            clock.now += 10 * SECOND
            usage.frozen(layers, settled=False)
        await running(usage, lambda: not usage._wanted)
        intervals.append((clock.now - counted_at) // SECOND)
        counted_at = clock.now
    assert intervals == [40, 80, 160, 320]
    usage.retain(())
    assert not usage._first_counted_ns
