"""Reading how an engine has mounted a root file system. The mounting itself is proven on real engines."""

from __future__ import annotations

from pathlib import Path

import pytest

from dockershim.oci.idmap import find_mount, split_overlay_options

MOUNTINFO = """\
25 1 254:0 / / rw,relatime - ext4 /dev/vda rw
30 25 0:44 / /merged rw,nodev,relatime shared:22 - overlay overlay rw,lowerdir=/l/A:/l/B,upperdir=/u,workdir=/w
31 25 0:45 / /with\\040space ro,relatime - tmpfs tmpfs rw
32 25 0:46 / /merged ro,relatime - overlay overlay ro,lowerdir=/l/C,upperdir=/u2,workdir=/w2
"""


def test_the_newest_mount_at_a_path_counts(tmp_path: Path) -> None:
    """With its flags; a path inside a mount is none."""
    file = tmp_path / "mountinfo"
    file.write_text(MOUNTINFO)
    assert find_mount("/merged", str(file)) == ("overlay", 1, "ro,lowerdir=/l/C,upperdir=/u2,workdir=/w2")
    assert find_mount("/with space", str(file)) == ("tmpfs", 1, "rw")
    assert find_mount("/merged/etc", str(file)) is None


def test_layers_apart_from_the_other_options() -> None:
    layers, rest = split_overlay_options("rw,lowerdir=/l/A:/l/B,upperdir=/u,workdir=/w,index=off")
    assert layers == {"lowerdir": "/l/A:/l/B", "upperdir": "/u", "workdir": "/w"}
    assert rest == ["index=off"]
    layers, _ = split_overlay_options("rw,lowerdir+=/l/A,lowerdir+=/l/B,upperdir=/u,workdir=/w")
    assert layers["lowerdir"] == "/l/A:/l/B"


@pytest.mark.parametrize("options", ["rw,lowerdir=/l/A:/l/B", "rw,lowerdir=/l/A\\:B,upperdir=/u,workdir=/w"])
def test_an_overlay_that_is_not_understood_is_an_error(options: str) -> None:
    with pytest.raises(ValueError, match="not understood"):
        split_overlay_options(options)
