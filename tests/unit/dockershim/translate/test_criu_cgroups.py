"""CRIU's image of cgroups, on one that CRIU 3.17 wrote."""

from __future__ import annotations

import base64

import pytest

from dockershim.translate.checkpoint_archive import Unreadable
from dockershim.translate.criu_cgroups import move_cgroups, sibling_cgroup

OLD = "17d6d1c48b181108b9503434feebddb4a7b0d1021c306f5302e4d7a9e4de6844"
OLD_PATH = f"/kubepods.slice/kubepods-podaaa.slice/docker-{OLD}.scope"
RECORDED = base64.b64decode(
    "GUNWVDAzOFmgAQAACn0IAhJ5CgAScy9rdWJlcG9kcy5zbGljZS9rdWJlcG9kcy1wb2RhYWEuc2xpY2UvZG9ja2VyLTE3ZDZkMWM0OGIxODExMDhi"
    "OTUwMzQzNGZlZWJkZGI0YTdiMGQxMDIxYzMwNmY1MzAyZTRkN2E5ZTRkZTY4NDQuc2NvcGUYcwp9CAMSeQoAEnMva3ViZXBvZHMuc2xpY2Uva3Vi"
    "ZXBvZHMtcG9kYWFhLnNsaWNlL2RvY2tlci0xN2Q2ZDFjNDhiMTgxMTA4Yjk1MDM0MzRmZWViZGRiNGE3YjBkMTAyMWMzMDZmNTMwMmU0ZDdhOWU0"
    "ZGU2ODQ0LnNjb3BlGHMSnwEKABKaAQpya3ViZXBvZHMuc2xpY2Uva3ViZXBvZHMtcG9kYWFhLnNsaWNlL2RvY2tlci0xN2Q2ZDFjNDhiMTgxMTA4"
    "Yjk1MDM0MzRmZWViZGRiNGE3YjBkMTAyMWMzMDZmNTMwMmU0ZDdhOWU0ZGU2ODQ0LnNjb3BlGhoKDGNncm91cC5wcm9jcxIAGggIpIMCEAAYACII"
    "CO2DARAAGAA="
)


def test_an_image_moves_there_and_back_unharmed() -> None:
    """A path of the same length is a replacement of bytes; a shorter one and back again gives the same image."""
    new = f"/kubepods.slice/kubepods-podaaa.slice/docker-{'f' * 64}.scope"
    assert move_cgroups(RECORDED, OLD, new) == RECORDED.replace(OLD_PATH[1:].encode(), new[1:].encode())
    moved = move_cgroups(RECORDED, OLD, f"/pod/docker-{'e' * 64}.scope")
    assert OLD.encode() not in moved
    assert len(moved) < len(RECORDED)
    assert move_cgroups(moved, "e" * 64, OLD_PATH) == RECORDED


@pytest.mark.parametrize(
    "image", [b"", RECORDED[:40], b"\0" * 4 + RECORDED[4:], RECORDED + b"x", RECORDED.replace(b"podaaa", b"podbbb", 1)]
)
def test_what_is_no_such_image_is_refused(image: bytes) -> None:
    """Cut off, with another magic, with more behind it, or of several cgroups."""
    with pytest.raises(Unreadable, match=r"cgroup\.img"):
        move_cgroups(image, OLD, "/new")


def test_the_cgroup_of_another_container_is_refused() -> None:
    moved = move_cgroups(RECORDED, OLD, OLD_PATH)
    assert moved == RECORDED
    with pytest.raises(Unreadable, match="was expected"):
        move_cgroups(RECORDED, "a" * 64, "/new")


@pytest.mark.parametrize(
    ("path", "sibling"),
    [
        ("/a.slice/docker-one.scope", "/a.slice/docker-two.scope"),
        ("/pod/one", "/pod/two"),
        ("/one/docker/one", "/one/docker/two"),
    ],
)
def test_siblings(path: str, sibling: str) -> None:
    """With the systemd and the cgroupfs driver."""
    assert sibling_cgroup(path, "one", "two") == sibling
    with pytest.raises(Unreadable, match="not named after it"):
        sibling_cgroup(path, "three", "two")
