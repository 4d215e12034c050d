"""A writable layer goes into a tar archive and comes back, and neither way leads out of its directory."""

from __future__ import annotations

import io
import os
import socket
import stat
import tarfile
from pathlib import Path

import pytest

from dockershim.layer_archive import apply_layer, write_layer
from dockershim.translate.checkpoint_archive import Unreadable


def packed(upper: Path) -> io.BytesIO:
    target = io.BytesIO()
    write_layer(str(upper), target)
    target.seek(0)
    return target


def archive_of(*entries: tuple[str, bytes, str]) -> io.BytesIO:
    """Name, type and link name of each entry."""
    target = io.BytesIO()
    with tarfile.open(fileobj=target, mode="w") as archive:
        for name, kind, link in entries:
            entry = tarfile.TarInfo(name)
            entry.type, entry.linkname = kind, link
            entry.uid, entry.gid = os.geteuid(), os.getegid()
            archive.addfile(entry)
    target.seek(0)
    return target


def test_a_layer_comes_back(tmp_path: Path) -> None:
    """Files with their modes and times, links of both kinds, directories, pipes, and what was deleted."""
    upper, other = tmp_path / "upper", tmp_path / "other"
    (upper / "a" / "b").mkdir(parents=True)
    (upper / "a" / "file").write_bytes(b"x" * 100_000)
    (upper / "a" / "file").chmod(0o4711)
    os.link(upper / "a" / "file", upper / "a" / "same")
    (upper / "to-nowhere").symlink_to("/etc/shadow")
    os.mkfifo(upper / "pipe", 0o600)
    os.mknod(upper / "a" / "gone", stat.S_IFCHR, 0)
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(upper / "socket"))
    for number, path in enumerate(sorted(upper.rglob("*"), reverse=True)):
        os.utime(path, (2_000_000 + number, 2_000_000 + number), follow_symlinks=False)
    os.utime(upper / "a" / "file", (1_000_000, 1_000_000))
    other.mkdir()
    (other / "a").mkdir(0o700)
    (other / "a" / "gone").write_text("still here")
    apply_layer(packed(upper), str(other))
    assert sorted(path.relative_to(other).as_posix() for path in other.rglob("*")) == [
        "a", "a/b", "a/file", "a/gone", "a/same", "pipe", "to-nowhere",
    ]  # fmt: skip
    status = (other / "a" / "file").stat()
    assert (stat.S_IMODE(status.st_mode), status.st_mtime, status.st_size) == (0o4711, 1_000_000, 100_000)
    assert status.st_ino == (other / "a" / "same").stat().st_ino
    assert (other / "to-nowhere").readlink() == Path("/etc/shadow")
    gone = (other / "a" / "gone").lstat()
    assert stat.S_ISCHR(gone.st_mode)
    assert gone.st_rdev == 0
    assert stat.S_ISFIFO((other / "pipe").lstat().st_mode)
    for path in upper.rglob("*"):
        if path.name not in ("socket", "gone"):
            assert (other / path.relative_to(upper)).lstat().st_mtime == path.lstat().st_mtime, path
    assert packed(other).getvalue() == packed(upper).getvalue()


def test_deletions_are_those_of_an_image_layer(tmp_path: Path) -> None:
    (tmp_path / "etc").mkdir()
    os.mknod(tmp_path / "etc" / "motd", stat.S_IFCHR, 0)
    with tarfile.open(fileobj=packed(tmp_path)) as archive:
        assert archive.getnames() == ["etc", "etc/.wh.motd"]
    assert write_layer(str(tmp_path / "etc"), io.BytesIO()) == 1


@pytest.mark.skipif(os.geteuid() != 0, reason="the kernel keeps trusted.* attributes for root")
def test_a_directory_that_hides_what_was_below_still_does(tmp_path: Path) -> None:
    upper, other = tmp_path / "upper", tmp_path / "other"
    (upper / "new").mkdir(parents=True)
    other.mkdir()
    os.setxattr(upper / "new", "trusted.overlay.opaque", b"y")
    with tarfile.open(fileobj=packed(upper)) as archive:
        assert archive.getnames() == ["new", "new/.wh..wh..opq"]
    apply_layer(packed(upper), str(other))
    assert os.getxattr(other / "new", "trusted.overlay.opaque") == b"y"


@pytest.mark.parametrize(
    "entries",
    [
        [("../out", tarfile.DIRTYPE, "")],
        [("a/../../out", tarfile.DIRTYPE, "")],
        [("a/..", tarfile.REGTYPE, "")],
        [("link", tarfile.SYMTYPE, ".."), ("link/out", tarfile.REGTYPE, "")],
        [("link", tarfile.SYMTYPE, "/tmp"), ("link/.wh.x", tarfile.REGTYPE, "")],
        [("hard", tarfile.LNKTYPE, "../secret")],
        [("link", tarfile.SYMTYPE, ".."), ("hard", tarfile.LNKTYPE, "link/secret")],
        [("hard", tarfile.LNKTYPE, "")],
        [(".wh...", tarfile.REGTYPE, "")],
        [("strange", b"Z", "")],
    ],
)
def test_no_entry_leaves_the_directory(tmp_path: Path, entries: list[tuple[str, bytes, str]]) -> None:
    upper = tmp_path / "upper"
    upper.mkdir()
    (tmp_path / "secret").write_text("s")
    with pytest.raises(Unreadable, match="the writable layer: "):
        apply_layer(archive_of(*entries), str(upper))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["secret", "upper"]


def test_what_is_no_archive_is_said(tmp_path: Path) -> None:
    with pytest.raises(Unreadable, match="the writable layer: "):
        apply_layer(io.BytesIO(b"no archive"), str(tmp_path))


def test_a_directory_that_is_full_is_no_place_for_a_file(tmp_path: Path) -> None:
    (tmp_path / "taken" / "by").mkdir(parents=True)
    with pytest.raises(Unreadable, match="taken: "):
        apply_layer(archive_of(("taken", tarfile.REGTYPE, "")), str(tmp_path))
    (tmp_path / "empty").mkdir()
    apply_layer(archive_of(("empty", tarfile.REGTYPE, "")), str(tmp_path))
    assert (tmp_path / "empty").is_file()
