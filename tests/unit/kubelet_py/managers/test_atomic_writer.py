"""Files that change all at once."""

import os
from datetime import UTC, datetime
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kubelet_py.core.volume_payload import ProjectedFile
from kubelet_py.managers.volumes.atomic_writer import write_payload

NOW = datetime(2026, 1, 31, 10, 20, 30, tzinfo=UTC)


def write(directory: Path, **files: str) -> bool:
    payload = {path.replace("__", "/"): ProjectedFile(text.encode(), 0o640) for path, text in files.items()}
    return write_payload(directory, payload, lambda path: None, NOW)


def visible(directory: Path) -> dict[str, str]:
    found = {}
    for name in os.listdir(directory):
        if name.startswith(".."):
            continue
        top = directory / name
        for path in [top] if top.is_file() else [p for p in top.rglob("*") if p.is_file()]:
            found[str(path.relative_to(directory))] = path.read_text()
    return found


def test_the_layout_that_applications_watch(tmp_path: Path) -> None:
    assert write(tmp_path, a="1", dir__b="2")
    data = os.readlink(tmp_path / "..data")
    assert data.startswith("..2026_01_31_10_20_30.")
    assert os.readlink(tmp_path / "a") == "..data/a"
    assert os.readlink(tmp_path / "dir") == "..data/dir"
    assert (tmp_path / data / "dir" / "b").stat().st_mode & 0o777 == 0o640
    assert (tmp_path / data).stat().st_mode & 0o777 == 0o755


def test_nothing_is_written_when_nothing_changed_and_a_change_leaves_no_rest(tmp_path: Path) -> None:
    write(tmp_path, a="1", b="2")
    before = os.readlink(tmp_path / "..data")
    assert not write(tmp_path, a="1", b="2")
    assert os.readlink(tmp_path / "..data") == before
    assert write(tmp_path, a="9", c__d="3")
    assert visible(tmp_path) == {"a": "9", "c/d": "3"}
    assert len(os.listdir(tmp_path)) == 4


def test_a_reader_that_holds_the_old_directory_sees_the_old_whole(tmp_path: Path) -> None:
    write(tmp_path, a="1", b="1")
    seen: list[tuple[str, str]] = []

    def before_the_switch(_: Path) -> None:
        seen.append(((tmp_path / "a").read_text(), (tmp_path / "b").read_text()))

    payload = {name: ProjectedFile(b"2", 0o644) for name in ("a", "b")}
    write_payload(tmp_path, payload, before_the_switch, NOW)
    assert seen == [("1", "1")]
    assert visible(tmp_path) == {"a": "2", "b": "2"}


def test_a_writer_that_died_leaves_nothing_that_stays(tmp_path: Path) -> None:
    write(tmp_path, a="1")
    (tmp_path / "..2020_01_01_00_00_00.0000000001").mkdir()
    (tmp_path / "..data_tmp").symlink_to("..2020_01_01_00_00_00.0000000001")
    assert write(tmp_path, a="2")
    assert sorted(os.listdir(tmp_path)) == sorted(["..data", os.readlink(tmp_path / "..data"), "a"])

    def fail(_: Path) -> None:
        raise OSError(28, "No space left on device")

    with pytest.raises(OSError, match="No space"):
        write_payload(tmp_path, {"a": ProjectedFile(b"3", 0o644)}, fail, NOW)
    assert visible(tmp_path) == {"a": "2"}
    assert len(os.listdir(tmp_path)) == 3


_PATHS = st.dictionaries(
    st.sampled_from(["a", "b", "c/x", "c/y", "d/e/f", "d/g"]), st.sampled_from(["", "1", "two"]), max_size=6
)


@given(st.lists(_PATHS, min_size=1, max_size=5))
def test_after_any_history_the_last_payload_is_what_is_seen(
    tmp_path_factory: pytest.TempPathFactory, history: list[dict[str, str]]
) -> None:
    directory = tmp_path_factory.mktemp("volume")
    for files in history:
        payload = {path: ProjectedFile(text.encode(), 0o644) for path, text in files.items()}
        write_payload(directory, payload, lambda path: None, NOW)
        assert visible(directory) == files
        assert not write_payload(directory, payload, lambda path: None, NOW)


def test_directories_that_others_mount_on_are_made_and_stay(tmp_path: Path) -> None:
    """To remove one would unmount it in a running container; one of a payload's own directories may be meant."""
    first = {"conf/a": ProjectedFile(b"1", 0o644)}
    points = ("certs", "conf/extra/deep")
    assert write_payload(tmp_path, first, lambda path: None, NOW, points)
    (tmp_path / "certs" / "kept").touch()
    (tmp_path / "stale").mkdir()
    assert not write_payload(tmp_path, first, lambda path: None, NOW, points)
    assert (tmp_path / "certs" / "kept").exists()
    assert not (tmp_path / "stale").exists()
    assert (tmp_path / "conf/extra/deep").is_dir()
    assert write_payload(tmp_path, {"conf/a": ProjectedFile(b"2", 0o644)}, lambda path: None, NOW, points)
    for taken in ("conf/a", "conf/a/b", "conf"):  # a file of the payload can be mounted on, and nothing below it
        assert not write_payload(
            tmp_path, {"conf/a": ProjectedFile(b"2", 0o644)}, lambda path: None, NOW, (taken, *points)
        )
    assert (tmp_path / "conf/a").read_bytes() == b"2"
    assert (tmp_path / "conf/extra").stat().st_mode & 0o777 == 0o755
    assert (tmp_path / "certs" / "kept").exists()
    assert (tmp_path / "conf/extra/deep").is_dir()
