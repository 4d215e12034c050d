"""`api.proto` is equal on the wire to the CRI v1 of Kubernetes 1.37, as the project's facts list it."""

from pathlib import Path

import pytest
from google.protobuf.descriptor import Descriptor, EnumDescriptor, FieldDescriptor

from cri_proto import regen
from cri_proto.runtime_v1 import api_pb2

ROOT = Path(__file__).resolve().parents[3]
FACTS = Path(__file__).with_name("proto-cri-v1.tsv")

SCALARS = {
    FieldDescriptor.TYPE_STRING: "string",
    FieldDescriptor.TYPE_BYTES: "bytes",
    FieldDescriptor.TYPE_BOOL: "bool",
    FieldDescriptor.TYPE_INT32: "int32",
    FieldDescriptor.TYPE_INT64: "int64",
    FieldDescriptor.TYPE_UINT32: "uint32",
    FieldDescriptor.TYPE_UINT64: "uint64",
    FieldDescriptor.TYPE_DOUBLE: "double",
}

Row = tuple[str, ...]


def local_name(descriptor: Descriptor | EnumDescriptor) -> str:
    """The name below the package."""
    return descriptor.full_name.removeprefix("runtime.v1.")


def type_name(field: FieldDescriptor) -> str:
    """The type as the facts spell it."""
    message, enum = field.message_type, field.enum_type
    if message is not None and message.GetOptions().map_entry:
        key, value = message.fields_by_name["key"], message.fields_by_name["value"]
        return f"map<{type_name(key)},{type_name(value)}>"
    if message is not None:
        return local_name(message)
    if enum is not None:
        return local_name(enum)
    return SCALARS[field.type]


def message_rows(message: Descriptor) -> set[Row]:
    """Every row that one message and the types nested in it contribute."""
    owner = local_name(message)
    rows: set[Row] = {("empty", owner)} if not message.fields else set()
    for field in message.fields:
        kind = type_name(field)
        label = "repeated" if field.is_repeated and not kind.startswith("map<") else ""
        oneof = field.containing_oneof.name if field.containing_oneof is not None else ""
        deprecated = "deprecated" if field.GetOptions().deprecated else ""
        rows.add(("field", owner, str(field.number), field.name, kind, label, oneof, deprecated))
    for nested in message.nested_types:
        if not nested.GetOptions().map_entry:
            rows |= message_rows(nested)
    for enum in message.enum_types:
        rows |= enum_rows(enum)
    return rows


def enum_rows(enum: EnumDescriptor) -> set[Row]:
    """Every value of an enum."""
    return {("enum", local_name(enum), str(value.number), value.name) for value in enum.values}


def our_rows() -> set[Row]:
    """The whole of `api.proto` in the shape of the facts."""
    file = api_pb2.DESCRIPTOR
    rows: set[Row] = set()
    for service in file.services_by_name.values():
        for method in service.methods:
            request = ("stream " if method.client_streaming else "") + local_name(method.input_type)
            response = ("stream " if method.server_streaming else "") + local_name(method.output_type)
            rows.add(("rpc", service.name, "", method.name, f"{request} -> {response}"))
    for message in file.message_types_by_name.values():
        rows |= message_rows(message)
    for enum in file.enum_types_by_name.values():
        rows |= enum_rows(enum)
    return rows


def fact_rows() -> set[Row]:
    """The rows of the facts, padded where a trailing column was left out."""
    rows: set[Row] = set()
    for line in FACTS.read_text(encoding="utf-8").splitlines():
        if line.startswith("#") or not line:
            continue
        columns = line.split("\t")
        rows.add(tuple(columns + [""] * (8 - len(columns))) if columns[0] == "field" else tuple(columns))
    return rows


def test_every_rpc_message_field_and_enum_value_equals_the_facts() -> None:
    """Nothing is missing, nothing is added, nothing is spelt or numbered otherwise."""
    facts = fact_rows()
    assert len(facts) > 600
    assert our_rows() - facts == set()
    assert facts - our_rows() == set()


def test_no_field_number_is_reserved_where_the_facts_reserve_none() -> None:
    """A reserved number or name would be a row of its own kind in the facts."""
    assert not [row for row in fact_rows() if row[0] == "reserved"]
    raw = regen_source()
    assert "reserved" not in [word for line in raw.splitlines() for word in line.split("//")[0].split()]


def regen_source() -> str:
    """The text of `api.proto`."""
    return (ROOT / regen.PROTO).read_text(encoding="utf-8")


@pytest.mark.filterwarnings("default")
def test_the_generated_modules_are_what_the_proto_gives() -> None:
    """Somebody who edits api.proto without `python -m cri_proto.regen` is told."""
    assert regen.stale(ROOT) == []
