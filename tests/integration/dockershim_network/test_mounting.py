"""Mounts as the kernel makes them: trees of many layers, paths that stay inside, and pinned namespaces."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest

from dockershim import mounting
from tests.integration.dockershim_network.namespace import pod_network, run_in_pod

pytestmark = [
    pytest.mark.lab,
    pytest.mark.skipif(os.geteuid() != 0, reason="mounts: needs root"),
]
MOST_LAYERS = 127  # as many as Docker allows an image


@pytest.fixture
def target(tmp_path: Path) -> Iterator[Path]:
    path = tmp_path / "target"
    path.mkdir()
    yield path
    mounting.unmount(path)


def layers(root: Path, count: int, suffix: str) -> list[str]:
    """Directories with long names, the topmost first; each has a file of its own and all have one in common."""
    made = []
    for number in range(count):
        layer = root / f"{number:064x}{suffix}" / "diff"
        layer.mkdir(parents=True)
        (layer / f"own-{number}").write_text("")
        (layer / "common").write_text(str(number))
        made.append(str(layer))
    return made[::-1]


@pytest.mark.parametrize(("count", "suffix"), [(1, ""), (2, ""), (2, ",:\\"), (MOST_LAYERS, "")])
def test_any_number_of_layers_with_any_names_is_one_read_only_tree(
    tmp_path: Path, target: Path, count: int, suffix: str
) -> None:
    """The topmost wins, what it deletes is gone, and nothing stays after the unmount."""
    (tmp_path / "empty").mkdir()
    stack = layers(tmp_path, count, suffix)
    os.mknod(Path(stack[0]) / "gone", stat.S_IFCHR, os.makedev(0, 0))  # as a layer says that a file is deleted
    (Path(stack[-1]) / "gone" if count > 1 else tmp_path / "elsewhere").write_text("")
    mounting.mount_layers(stack, target, tmp_path / "empty")
    assert mounting.is_mount_point(target)
    assert sorted(path.name for path in target.iterdir()) == sorted(["common", *(f"own-{at}" for at in range(count))])
    assert (target / "common").read_text() == str(count - 1)
    with pytest.raises(OSError, match="Read-only file system"):
        (target / "new").write_text("")
    mounting.remove_mount_point(target)
    assert not target.exists()
    mounting.remove_mount_point(target)


def test_a_layer_that_is_not_there_is_named_and_nothing_is_mounted(tmp_path: Path, target: Path) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(FileNotFoundError, match="nowhere"):
        mounting.mount_layers([str(tmp_path / "nowhere")], target, tmp_path / "empty")
    assert not mounting.is_mount_point(target)


def test_what_a_path_means_inside_of_a_tree(tmp_path: Path) -> None:
    """Links and `..` are the tree's own, whatever they say, and a magic link of the kernel's is none."""
    root = tmp_path / "root"
    (root / "data" / "inner").mkdir(parents=True)
    (root / "data" / "file").write_text("inside")
    (tmp_path / "data").mkdir()
    (root / "rooted").symlink_to("/data")
    (root / "climbing").symlink_to("../../../data")
    (root / "proc").symlink_to("/proc/self/root")
    for path in ("data", "rooted", "climbing", "../data", "data/inner/.."):
        assert mounting.resolve_beneath(root, path) == str(root / "data"), path
    assert mounting.resolve_beneath(root, "rooted/file") == str(root / "data" / "file")
    for path in ("data/none", "data/file/below"):
        with pytest.raises((FileNotFoundError, NotADirectoryError)):
            mounting.resolve_beneath(root, path)
    with pytest.raises(OSError, match="Too many levels of symbolic links"):
        mounting.resolve_beneath(root, "proc")


def test_a_pinned_namespace_outlives_its_processes_until_the_pin_goes(tmp_path: Path) -> None:
    """Pinning twice is pinning once."""
    pin = tmp_path / "pins" / "one"
    with pod_network() as netns:
        mounting.bind_file(str(netns), pin)
        mounting.bind_file(str(netns), pin)
        inode = os.stat(netns).st_ino
        run_in_pod(netns, "ip", "link", "set", "lo", "up")
    assert os.stat(pin).st_ino == inode
    assert "state UNKNOWN" in run_in_pod(pin, "ip", "link", "show", "lo")
    mounting.remove_mount_point(pin)
    assert list(pin.parent.iterdir()) == []
