"""CRIU's image of cgroups, `cgroup.img`: moved to the cgroup of the container that is restored.

On cgroup v2 runc tells CRIU no cgroup, so a restored container would be put back into that of the container which was
checkpointed, outside of its own limits and of its own pod. Owns the format of that one image: CRIU's
images/cgroup.proto as far as paths go; what it does not know it keeps. Pure. Upstream counterpart: crit, CRIU's own
tool for its images.
"""

from __future__ import annotations

import functools
import struct
from typing import Any

from google.protobuf import descriptor_pb2, descriptor_pool, message, message_factory

from dockershim.translate.checkpoint_archive import Unreadable

IMAGE = "cgroup.img"
_HEADER = struct.Struct("<III")
"""The magic of service images, the magic of this one, and the length of the one message that follows."""
_MAGICS = (0x54564319, 0x59383330)
_NUMBER, _TEXT, _TEXTS = "number", "text", "texts"
_FIELDS: dict[str, tuple[tuple[str, int, str], ...]] = {
    "Cgroups": (("sets", 1, "Set"), ("controllers", 2, "Controller")),
    "Set": (("id", 1, _NUMBER), ("members", 2, "Member")),
    "Member": (("controller", 1, _TEXT), ("path", 2, _TEXT), ("namespace_prefix", 3, _NUMBER)),
    "Controller": (("names", 1, _TEXTS), ("directories", 2, "Directory")),
    "Directory": (("name", 1, _TEXT),),
}
"""By message: name, number and kind of its fields, as far as they stand before what is changed. Messages are lists."""


def move_cgroups(image: bytes, container_id: str, path: str) -> bytes:
    """The image with the cgroup of the container that was checkpointed replaced by another `path`, below it as well."""
    magics, content = _take_apart(image)
    try:
        body = _kind("Cgroups").FromString(content)
    except message.DecodeError as error:
        raise Unreadable(f"{IMAGE}: {error}") from error
    members = [member for each in body.sets for member in each.members]
    roots = {_root_of(member.path, container_id) for member in members}
    if len(roots) != 1:
        raise Unreadable(f"{IMAGE}: has {sorted(roots)}, where one cgroup was expected")
    (old,) = roots
    for member in members:
        if member.namespace_prefix == len(old):
            member.namespace_prefix = len(path)
        member.path = path + member.path[len(old) :]
    for controller in body.controllers:
        for directory in controller.directories:
            if directory.name != old.lstrip("/"):
                raise Unreadable(f"{IMAGE}: has {directory.name!r} beside {old}")
            directory.name = path.lstrip("/")
    moved = body.SerializePartialToString()
    return _HEADER.pack(*magics, len(moved)) + bytes(moved)


def sibling_cgroup(path: str, own_id: str, sibling_id: str) -> str:
    """Where Docker puts a container whose neighbour with the same parent is at `path`."""
    parent, separator, own = path.rpartition("/")
    if own_id not in own:
        raise Unreadable(f"the sandbox is in cgroup {path}, which is not named after it")
    return parent + separator + own.replace(own_id, sibling_id)


def _take_apart(image: bytes) -> tuple[tuple[int, int], bytes]:
    if len(image) < _HEADER.size:
        raise Unreadable(f"{IMAGE}: is cut off")
    first, second, length = _HEADER.unpack_from(image)
    content = image[_HEADER.size :]
    if (first, second) != _MAGICS or len(content) != length:
        raise Unreadable(f"{IMAGE}: is none, or of a CRIU that dockershim does not know")
    return (first, second), content


def _root_of(path: str, container_id: str) -> str:
    parts = path.split("/")
    for index, part in enumerate(parts):
        if container_id in part:
            return "/".join(parts[: index + 1])
    raise Unreadable(f"{IMAGE}: has {path}, where a cgroup with {container_id} in its name was expected")


@functools.cache
def _kind(name: str) -> Any:
    file = descriptor_pb2.FileDescriptorProto(name="dockershim/criu_cgroups.proto", syntax="proto2")
    field_type = descriptor_pb2.FieldDescriptorProto
    for message_name, fields in _FIELDS.items():
        described = file.message_type.add(name=message_name)
        for field, number, kind in fields:
            added = described.field.add(name=field, number=number, label=field_type.LABEL_OPTIONAL)
            added.type = field_type.TYPE_UINT32 if kind == _NUMBER else field_type.TYPE_STRING
            if kind == _TEXTS or kind in _FIELDS:
                added.label = field_type.LABEL_REPEATED
            if kind in _FIELDS:
                added.type, added.type_name = field_type.TYPE_MESSAGE, f".{kind}"
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    return message_factory.GetMessageClass(pool.FindMessageTypeByName(name))
