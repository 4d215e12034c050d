"""Who a container's first process is, from Docker's User and the container's own files."""

from __future__ import annotations

from typing import Any

import pytest

from cri_proto import runtime_v1 as cri
from dockershim.translate.users import (
    ContainerUser,
    container_user,
    groups_of_users,
    merged_user,
    numeric_id,
    resolve_user,
    with_groups,
)

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


def test_the_groups_that_list_users() -> None:
    """By name, and by the number of the first name that has it; who is in none is not there."""
    assert groups_of_users(PASSWD, GROUP) == {
        "root": (0,),
        "0": (0,),
        "web": (4, 44),
        "101": (4, 44),
        "other": (4,),
    }
    twins = "first:x:7:7::/:\nweb:x:7:7::/:\n"
    assert groups_of_users(twins, GROUP).get("7") is None
    assert groups_of_users("", "g:x:5:\n") == {}


@pytest.mark.parametrize(
    ("fields", "user"),
    [
        ({"run_as_user": 7}, ""),  # Docker does it
        ({"run_as_user": 7, "run_as_group": 8}, "7"),
        ({"run_as_user": 0, "run_as_group": 0}, "0"),
        ({"run_as_username": "web", "run_as_group": 8}, "web"),
        ({"run_as_user": 7, "run_as_group": 8, "supplemental_groups_policy": cri.SupplementalGroupsPolicy.Strict}, ""),
    ],
)
def test_whose_groups_are_to_be_merged(fields: dict[str, Any], user: str) -> None:
    numbers = ("run_as_user", "run_as_group")
    values: dict[str, Any] = {
        name: cri.Int64Value(value=value) if name in numbers else value for name, value in fields.items()
    }
    assert merged_user(cri.LinuxContainerSecurityContext(**values)) == user


def test_added_groups_stand_in_the_body_once() -> None:
    body = {"Image": "i", "HostConfig": {"GroupAdd": ["4", "2000"], "Privileged": False}}
    assert with_groups(body, (44, 4))["HostConfig"] == {"GroupAdd": ["44", "4", "2000"], "Privileged": False}
    assert body["HostConfig"] == {"GroupAdd": ["4", "2000"], "Privileged": False}


@pytest.mark.parametrize("number", [str(2**32), str(2**64), "9" * 5000, "-1", "\u0665", "\u00b2"])
def test_a_number_that_no_kernel_has_is_none(number: str) -> None:
    """A container may write anything into its files, and its image anything for its user."""
    assert numeric_id(number) is None
    line = f"web:x:{number}:102::/:\n"
    assert resolve_user(ContainerUser("web"), line, "") is None
    assert resolve_user(ContainerUser("web"), f"web:x:101:{number}::/:\n", "") is None
    assert resolve_user(ContainerUser(number), line, "") is None
    assert resolve_user(ContainerUser(f"0:{number}"), line, f"web:x:{number}:\n") is None
    found = resolve_user(ContainerUser("web"), PASSWD, f"{GROUP}more:x:{number}:web\n")
    assert found is not None
    assert list(found.supplemental_groups) == [102, 4, 44]
    assert groups_of_users(line, f"web:x:{number}:web\n") == {}
    assert container_user({"Config": {}, "HostConfig": {"GroupAdd": [number, "5"]}}).added_groups == (5,)


def test_the_largest_number_is_one() -> None:
    assert numeric_id(str(2**32 - 1)) == 2**32 - 1
