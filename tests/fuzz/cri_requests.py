"""A Hypothesis strategy for every message of CRI, from its descriptor.

Each field is there or not, and has values of three kinds: plausible ones that let a call come far, odd ones that a
parser may trip over, and arbitrary ones. Strings that mean something of the node (an id, a directory) are drawn as
placeholders like `<sandbox>` and put in by `placed`, so that one drawn request can be sent to any node, and no request
makes files outside the directory that the caller gives.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from typing import Any

from google.protobuf.descriptor import Descriptor, FieldDescriptor
from google.protobuf.message import Message
from hypothesis import strategies as st

from cri_proto import runtime_v1 as cri
from cri_proto.runtime_v1 import api_pb2

SANDBOX, CONTAINER, IMAGE, DIRECTORY = "<sandbox>", "<container>", "<image>", "<directory>"
ODD = ("", "..", "../../etc/passwd", "/", "\x00", "a\nb", "ü", "x" * 300, "f" * 64, "sha256:" + "0" * 64, "%s%n", "-1")
PATHS = (DIRECTORY, f"{DIRECTORY}/new", f"{DIRECTORY}/../{DIRECTORY}", "relative", "../up", "/proc/self/none", "")
PLAUSIBLE: dict[str, tuple[str, ...]] = {
    "pod_sandbox_id": (SANDBOX, SANDBOX, *ODD),
    "container_id": (CONTAINER, CONTAINER, *ODD),
    "target_id": (CONTAINER, SANDBOX, *ODD),
    "id": (CONTAINER, SANDBOX, *ODD),
    "image": (IMAGE, IMAGE, "UPPER/case", "a@sha256:zz", ":", *ODD),
    "name": ("main", "a-b.c", "a_b", *ODD),
    "namespace": ("default", "a/b", *ODD),
    "uid": ("11-22", "a_b", *ODD),
    "log_path": ("main/0.log", "/abs", "../../../../etc/x", "a/../../b", *ODD),
    "host_path": PATHS,
    "log_directory": PATHS,
    "path": PATHS,
    "location": PATHS,
    "output_path": PATHS,
    "checkpoint_path": PATHS,
    "container_path": ("/in", "in", "/", "/../x", *ODD),
    "cgroup_parent": ("/fuzz", "", "a.slice"),  # what it names is made on the host
    "runtime_handler": ("", "runc", *ODD),
    "host_ip": ("127.0.0.1", "::1", "300.1.1.1", *ODD),
    "permissions": ("rwm", "r", *ODD),
}
"""By the name of the field, in whatever message. Paths and cgroups on the host take nothing but these."""
CONFINED = frozenset(
    {"host_path", "log_directory", "path", "location", "output_path", "checkpoint_path", "cgroup_parent"}
)
COMMANDS = ("true", "sh", "/no/such", *ODD)
_INTEGERS = {
    FieldDescriptor.CPPTYPE_INT32: (-(1 << 31), (1 << 31) - 1),
    FieldDescriptor.CPPTYPE_INT64: (-(1 << 63), (1 << 63) - 1),
    FieldDescriptor.CPPTYPE_UINT32: (0, (1 << 32) - 1),
    FieldDescriptor.CPPTYPE_UINT64: (0, (1 << 64) - 1),
}
SERVICES = {name: api_pb2.DESCRIPTOR.services_by_name[name] for name in ("RuntimeService", "ImageService")}
RPCS = [(service, method.name) for service, found in SERVICES.items() for method in found.methods]


def requests(service: str, rpc: str) -> st.SearchStrategy[Any]:
    """Requests of one RPC, with placeholders."""
    return _messages(SERVICES[service].methods_by_name[rpc].input_type)


def placed(message: Any, places: Mapping[str, str]) -> Any:
    """The same request with this node's ids and directory in the place of the placeholders."""
    data = message.SerializeToString()
    result = type(message).FromString(data)
    _place(result, places)
    return result


@cache
def _messages(descriptor: Descriptor) -> st.SearchStrategy[Any]:
    kind = getattr(cri, descriptor.name, None) or getattr(api_pb2, descriptor.name)
    fields = {field.name: _field(field) for field in descriptor.fields}
    return st.fixed_dictionaries({}, optional=fields).map(lambda values: kind(**values))


def _field(field: FieldDescriptor) -> st.SearchStrategy[Any]:
    message = field.message_type
    if message is not None and message.GetOptions().map_entry:
        key, value = (message.fields_by_name[part] for part in ("key", "value"))
        return st.dictionaries(_value(key), _value(value), max_size=2)
    one = _value(field)
    return st.lists(one, max_size=2) if field.is_repeated else one


def _value(field: FieldDescriptor) -> st.SearchStrategy[Any]:
    if field.message_type is not None:
        return st.deferred(lambda: _messages(field.message_type))
    if field.enum_type is not None:
        return st.sampled_from([*(value.number for value in field.enum_type.values), 99])
    if field.cpp_type in _INTEGERS:
        low, high = _INTEGERS[field.cpp_type]
        return st.one_of(st.integers(0, 100), st.integers(low, high))
    if field.cpp_type == FieldDescriptor.CPPTYPE_BOOL:
        return st.booleans()
    if field.cpp_type in (FieldDescriptor.CPPTYPE_DOUBLE, FieldDescriptor.CPPTYPE_FLOAT):
        return st.floats(width=32)
    if field.type == FieldDescriptor.TYPE_BYTES:
        return st.one_of(st.sampled_from([b"", b"\xff\xfe", b"plain"]), st.binary(max_size=8))
    return _text(field.name)


def _text(name: str) -> st.SearchStrategy[str]:
    if name in ("command", "cmd", "args"):
        return st.sampled_from(COMMANDS)
    known = st.sampled_from(PLAUSIBLE.get(name, ODD))
    return known if name in CONFINED else st.one_of(known, st.text(max_size=12))


def _place(message: Message, places: Mapping[str, str]) -> None:
    for field, value in message.ListFields():
        if field.cpp_type == FieldDescriptor.CPPTYPE_STRING and field.type == FieldDescriptor.TYPE_STRING:
            if field.is_repeated:
                value[:] = [_filled(text, places) for text in value]
            else:
                setattr(message, field.name, _filled(value, places))
        elif field.message_type is not None and not field.message_type.GetOptions().map_entry:
            for part in value if field.is_repeated else (value,):
                _place(part, places)


def _filled(text: str, places: Mapping[str, str]) -> str:
    for placeholder, value in places.items():
        text = text.replace(placeholder, value)
    return text
