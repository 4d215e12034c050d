"""Replacing files and removing trees."""

import os
import stat
from pathlib import Path

import pytest

from kubelet_py.host.files import read_inside, remove_tree, write_atomic
from tests.unit.descriptors import open_below


def test_a_file_is_replaced_whole_with_its_exact_mode(tmp_path: Path) -> None:
    path = tmp_path / "f"
    before = os.umask(0o077)
    try:
        write_atomic(path, b"one", 0o644)
        write_atomic(path, b"two", 0o666)
    finally:
        os.umask(before)
    assert path.read_bytes() == b"two"
    assert stat.S_IMODE(path.stat().st_mode) == 0o666
    assert os.listdir(tmp_path) == ["f"]


def test_only_what_must_survive_a_power_loss_waits_for_the_disk(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    waits: list[int] = []
    monkeypatch.setattr(os, "fsync", waits.append)
    write_atomic(tmp_path / "f", b"one")
    assert len(waits) == 1
    write_atomic(tmp_path / "f", b"two", survives_power_loss=False)
    assert len(waits) == 1
    assert (tmp_path / "f").read_bytes() == b"two"


def test_a_replacement_that_fails_leaves_the_old_file_and_no_rest(tmp_path: Path) -> None:
    path = tmp_path / "d"
    path.mkdir()
    (path / "x").touch()
    with pytest.raises(OSError, match="d"):
        write_atomic(path, b"", 0o644)
    assert os.listdir(tmp_path) == ["d"]


def test_a_file_is_read_through_links_that_stay_inside(tmp_path: Path) -> None:
    (tmp_path / "volume/deep/er").mkdir(parents=True)
    (tmp_path / "volume/deep/er/f").write_bytes(b"text \xff")
    (tmp_path / "volume/link").symlink_to("deep")
    for path in ("deep/er/f", "link/er/f", "./deep/../deep/er/f"):
        assert read_inside(tmp_path / "volume", path, 6) == "text \udcff"


@pytest.mark.parametrize("path", ["up", "absolute", "../secret", "/etc/passwd", "deep/../../secret", "."])
def test_nothing_outside_is_read(tmp_path: Path, path: str) -> None:
    (tmp_path / "secret").touch()
    (tmp_path / "volume").mkdir()
    (tmp_path / "volume/up").symlink_to("../secret")
    (tmp_path / "volume/absolute").symlink_to("/etc/passwd")
    with pytest.raises(OSError, match="leads out"):
        read_inside(tmp_path / "volume", path, 100)


def test_what_is_no_plain_small_file_is_not_read(tmp_path: Path) -> None:
    """A pipe without a writer does not hold the reader either."""
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "directory").mkdir()
    (tmp_path / "large").write_bytes(bytes(101))
    for path, message in (
        ("pipe", "no plain file"),
        ("directory", "no plain file|directory"),
        ("large", "longer than 100"),
    ):
        with pytest.raises(OSError, match=message):
            read_inside(tmp_path, path, 100)
    with pytest.raises(FileNotFoundError):
        read_inside(tmp_path, "missing", 100)
    with pytest.raises(FileNotFoundError):
        read_inside(tmp_path, "missing/file", 100)
    with pytest.raises(NotADirectoryError):
        read_inside(tmp_path, "large/file", 100)


def test_a_link_that_comes_after_the_look_leads_nowhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "volume").mkdir()
    (tmp_path / "volume/late").symlink_to("/etc")
    real = os.path.realpath
    monkeypatch.setattr(os.path, "realpath", lambda path: str(path) if "late" in str(path) else real(path))
    with pytest.raises(OSError, match=r"Not a directory|Too many levels"):
        read_inside(tmp_path / "volume", "late/passwd", 10_000)


def test_a_tree_goes_whole_and_links_are_not_followed(tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "precious").touch()
    tree = tmp_path / "tree"
    (tree / "a" / "b").mkdir(parents=True)
    (tree / "a" / "file").touch()
    (tree / "a" / "link").symlink_to(outside)
    (tree / "dangling").symlink_to("nowhere")
    os.mkfifo(tree / "fifo")
    remove_tree(tree)
    assert not tree.exists()
    assert (outside / "precious").exists()
    remove_tree(tree)
    remove_tree(tmp_path / "no" / "such")


def test_a_link_in_the_place_of_a_tree_is_removed_and_not_what_it_names(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to("real")
    remove_tree(tmp_path / "link")
    assert os.listdir(tmp_path) == ["real"]


def test_a_tree_deeper_than_the_open_files_that_are_allowed(tmp_path: Path) -> None:
    top = tmp_path / "deep"
    top.mkdir()
    current = os.open(top, os.O_RDONLY)
    for _ in range(3000):
        os.mkdir("d", dir_fd=current)
        os.close(os.open("f", os.O_CREAT | os.O_WRONLY, dir_fd=current))
        deeper = os.open("d", os.O_RDONLY, dir_fd=current)
        os.close(current)
        current = deeper
    os.close(current)
    remove_tree(top)
    assert not top.exists()
    assert open_below(tmp_path) == []
