"""Who the first process of a container is: Docker's User against the container's own passwd and group files.

Owns the rules by which Docker itself chooses (a name or number, a group beside it or the user's own, the groups that
list the user, and the groups that were added). Pure: the files' contents are arguments. Upstream counterpart: none in
cri-dockerd, which leaves ContainerStatus.user unset; containerd's is in internal/cri/server/container_status.go.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from cri_proto import runtime_v1 as cri
from dockershim.oci import instructions as words
from dockershim.translate.wrapping import instruction_of

_LARGEST_ID = 2**32 - 1


@dataclass(frozen=True, slots=True)
class ContainerUser:
    """What was asked for: `user[:group]` as Docker keeps it, and groups by number."""

    user: str
    added_groups: tuple[int, ...] = ()
    strict: bool = False
    """Whether the groups that list the user in the image do not count."""


def container_user(inspect: Mapping[str, Any]) -> ContainerUser:
    """What a container's inspect answer says of its user."""
    added = inspect["HostConfig"].get("GroupAdd") or ()
    groups = tuple(number for text in added if (number := numeric_id(text)) is not None)
    strict = words.STRICT_GROUPS in instruction_of(inspect["HostConfig"])
    return ContainerUser(str(inspect["Config"].get("User") or ""), groups, strict)


def resolve_user(wanted: ContainerUser, passwd: str, group: str) -> cri.LinuxContainerUser | None:
    """The identity; None where a name is in neither file (Docker would not have started it)."""
    user, _, group_wanted = (wanted.user or "0").partition(":")
    user = user or "0"
    name, uid, gid = next(
        ((name, uid, gid) for name, uid, gid in _users(passwd) if user in (name, str(uid))),
        ("", numeric_id(user), 0),
    )
    if uid is None:
        return None
    groups: list[int] = []
    if group_wanted:
        found = next((number for label, number, _ in _groups(group) if group_wanted in (label, str(number))), None)
        chosen = found if found is not None else numeric_id(group_wanted)
        if chosen is None:
            return None
        gid = chosen
    elif name and not wanted.strict:
        groups = [number for _, number, members in _groups(group) if name in members]
    everything = dict.fromkeys((gid, *groups, *wanted.added_groups))
    return cri.LinuxContainerUser(uid=uid, gid=gid, supplemental_groups=everything)


def merged_user(secure: cri.LinuxContainerSecurityContext) -> str:
    """The user whose groups in the image count beside a group of the request's own (Merge); empty where there is none.

    Docker adds them only where the request leaves the group to the image.
    """
    if secure.supplemental_groups_policy != cri.SupplementalGroupsPolicy.Merge or not secure.HasField("run_as_group"):
        return ""
    return str(secure.run_as_user.value) if secure.HasField("run_as_user") else secure.run_as_username


def groups_of_users(passwd: str, group: str) -> dict[str, tuple[int, ...]]:
    """The groups that list a user, by the user's name and by its number; those that no group lists are left out."""
    listed: dict[str, list[int]] = {}
    for _, gid, members in _groups(group):
        for name in members:
            if name:
                listed.setdefault(name, []).append(gid)
    found = {name: tuple(dict.fromkeys(gids)) for name, gids in listed.items()}
    for name, uid, _ in reversed([*_users(passwd)]):  # of several names for one number the first counts
        if name in listed:
            found[str(uid)] = tuple(dict.fromkeys(listed[name]))
        else:
            found.pop(str(uid), None)
    return found


def with_groups(body: Mapping[str, Any], groups: Iterable[int]) -> dict[str, Any]:
    """A create body with more groups."""
    host_config = body["HostConfig"]
    added = dict.fromkeys([*map(str, groups), *host_config["GroupAdd"]])
    return {**body, "HostConfig": {**host_config, "GroupAdd": [*added]}}


def numeric_id(text: str) -> int | None:
    """A user or group by its number; None for what is no such number. Who runs in a container writes its files."""
    if not (text.isascii() and text.isdigit()) or len(text) > len(str(_LARGEST_ID)):
        return None
    number = int(text)
    return number if number <= _LARGEST_ID else None


def _users(passwd: str) -> Iterator[tuple[str, int, int]]:
    for line in passwd.splitlines():
        parts = line.strip().split(":")
        if len(parts) >= 4 and (uid := numeric_id(parts[2])) is not None and (gid := numeric_id(parts[3])) is not None:
            yield parts[0], uid, gid


def _groups(group: str) -> Iterator[tuple[str, int, list[str]]]:
    for line in group.splitlines():
        parts = line.strip().split(":")
        if len(parts) >= 4 and (gid := numeric_id(parts[2])) is not None:
            yield parts[0], gid, parts[3].split(",")
