"""Who a container's first process is, from Docker's User and the container's own files."""

from __future__ import annotations

import pytest

from dockershim.translate.users import ContainerUser, container_user, resolve_user

PASSWD = "root:x:0:0:root:/root:/bin/sh\n# a remark\nbroken:x\nweb:x:101:102:web:/:/bin/false\nplain:x:500:501::/:\n"
GROUP = "root:x:0:root\nweb:x:102:\nlogs:x:4:web,other\nmedia:x:44:web\nbroken:x:y:web\n"


@pytest.mark.parametrize(
    ("user", "identity"),
    [
        ("", (0, 0, [0])),
        ("root", (0, 0, [0])),
        ("web", (101, 102, [102, 4, 44])),
        ("101", (101, 102, [102, 4, 44])),  # a number that is in the file has the same groups as its name
        ("web:logs", (101, 4, [4])),  # a group of its own replaces all that the files say
        ("web:7777", (101, 7777, [7777])),
        ("plain", (500, 501, [501])),
        ("1000", (1000, 0, [0])),
        ("1000:1000", (1000, 1000, [1000])),
        (":logs", (0, 4, [4])),
        ("nobody-knows", None),
        ("web:nobody-knows", None),
    ],
)
def test_dockers_rules(user: str, identity: tuple[int, int, list[int]] | None) -> None:
    """Names and numbers, with and without a group."""
    found = resolve_user(ContainerUser(user), PASSWD, GROUP)
    assert (found and (found.uid, found.gid, list(found.supplemental_groups))) == identity


def test_strict_groups_leave_out_the_files() -> None:
    """All but the primary group."""
    found = resolve_user(ContainerUser("web", (2000,), strict=True), PASSWD, GROUP)
    assert found is not None
    assert (found.gid, list(found.supplemental_groups)) == (102, [102, 2000])


def test_added_groups_come_last_and_once() -> None:
    """What the pod adds stands after what the image has."""
    found = resolve_user(ContainerUser("web", (4, 2000)), PASSWD, GROUP)
    assert found is not None
    assert list(found.supplemental_groups) == [102, 4, 44, 2000]


def test_an_image_without_the_files() -> None:
    """Numbers need none; names cannot be told."""
    found = resolve_user(ContainerUser("1000"), "", "")
    assert found is not None
    assert (found.uid, found.gid) == (1000, 0)
    assert resolve_user(ContainerUser("web"), "", "") is None


def test_what_docker_says_of_the_user() -> None:
    """Groups that are no numbers are not ours."""
    inspect = {"Config": {"User": None}, "HostConfig": {"GroupAdd": ["5", "name"]}}
    assert container_user(inspect) == ContainerUser("", (5,))
