"""Limits that were changed in place, on disk."""

from __future__ import annotations

from pathlib import Path

import pytest

from dockershim.changed_limits import ChangedLimits
from dockershim.errors import EngineFailed


async def loaded(root: Path) -> ChangedLimits:
    """As after a start."""
    limits = ChangedLimits(root)
    await limits.load()
    return limits


async def test_they_are_kept_until_the_container_goes(tmp_path: Path) -> None:
    limits = await loaded(tmp_path)
    assert limits.find("c1") is None
    await limits.save("c1", '{"memory.high": "1"}')
    await limits.save("c1", '{"memory.high": "2"}')
    again = await loaded(tmp_path)
    assert (limits.find("c1"), again.find("c1")) == ('{"memory.high": "2"}',) * 2
    await again.delete("c1")
    await again.delete("never there")
    assert (again.find("c1"), list((tmp_path / "limits").iterdir())) == (None, [])


async def test_those_of_vanished_containers_go_and_new_ones_stay(tmp_path: Path) -> None:
    """Who was made after the list of the known was read is none of the vanished."""
    before = await loaded(tmp_path)
    for name in ("kept", "vanished"):
        await before.save(name, "{}")
    limits = await loaded(tmp_path)
    await limits.save("new", "{}")
    await limits.retain({"kept"})
    assert sorted(path.name for path in (tmp_path / "limits").iterdir()) == ["kept", "new"]
    assert limits.find("vanished") is None


async def test_what_cannot_be_read_hides_nothing(tmp_path: Path) -> None:
    """And what a crash left half written goes."""
    directory = tmp_path / "limits"
    directory.mkdir()
    (directory / "bad").write_bytes(b"\xff")
    (directory / "good").write_text("{}")
    (directory / "half.tmp").write_text("{")
    limits = await loaded(tmp_path)
    assert (limits.find("bad"), limits.find("good"), limits.find("half")) == (None, "{}", None)
    assert not (directory / "half.tmp").exists()


async def test_what_cannot_be_written_is_an_error_with_the_path(tmp_path: Path) -> None:
    (tmp_path / "limits").write_text("in the way")
    limits = await loaded(tmp_path)
    with pytest.raises(EngineFailed, match="limits/c1"):
        await limits.save("c1", "{}")
    assert limits.find("c1") is None
