"""Reading how an engine has mounted a root file system. The mounting itself is proven on real engines."""

from __future__ import annotations

from pathlib import Path

import pytest

from dockershim.oci.idmap import containing_mount, split_overlay_options

MOUNTINFO = """\
25 1 254:0 / / rw,relatime - ext4 /dev/vda rw
30 25 0:44 / /merged rw,nodev,relatime shared:22 - overlay overlay rw,lowerdir=/l/A:/l/B,upperdir=/u,workdir=/w
31 25 0:45 /sub /with\\040space ro,relatime - tmpfs tmpfs rw
32 25 0:46 / /merged ro,relatime - overlay overlay ro,lowerdir=/l/C,upperdir=/u2,workdir=/w2
"""


def test_the_mount_that_a_path_is_in(tmp_path: Path) -> None:
    """The nearest above it, and of several at one place the newest; a name that only begins alike is another place."""
    file = tmp_path / "mountinfo"
    file.write_text(MOUNTINFO)

    def found(path: str) -> tuple[str, str, str, int]:
        mount = containing_mount(path, str(file))
        return mount.point, mount.root, mount.kind, mount.flags

    assert found("/merged") == found("/merged/etc") == ("/merged", "/", "overlay", 1)
    assert containing_mount("/merged", str(file)).options == "ro,lowerdir=/l/C,upperdir=/u2,workdir=/w2"
    assert found("/with space/x") == ("/with space", "/sub", "tmpfs", 1)
    assert found("/merged-not/etc") == ("/", "/", "ext4", 0)


def test_layers_apart_from_the_other_options() -> None:
    layers, rest = split_overlay_options("rw,lowerdir=/l/A:/l/B,upperdir=/u,workdir=/w,index=off")
    assert layers == {"lowerdir": "/l/A:/l/B", "upperdir": "/u", "workdir": "/w"}
    assert rest == ["index=off"]
    layers, _ = split_overlay_options("rw,lowerdir+=/l/A,lowerdir+=/l/B,upperdir=/u,workdir=/w")
    assert layers["lowerdir"] == "/l/A:/l/B"
    assert split_overlay_options("ro,lowerdir=/l/A:/l/B") == ({"lowerdir": "/l/A:/l/B"}, [])


@pytest.mark.parametrize(
    "options", ["rw,lowerdir=/l/A,upperdir=/u", "rw,upperdir=/u", "rw,lowerdir=/l/A\\:B,upperdir=/u,workdir=/w"]
)
def test_an_overlay_that_is_not_understood_is_an_error(options: str) -> None:
    with pytest.raises(ValueError, match="not understood"):
        split_overlay_options(options)
