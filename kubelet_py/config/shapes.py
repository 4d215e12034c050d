"""What the type of each configuration field says, read once from the annotations of the model.

Owns the walk over type hints that decoding, flags, checks and encoding share. Pure; knows no values.
No upstream counterpart: Go's generated converters do this.
"""

import dataclasses
import types
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Annotated, Any, Union, get_args, get_origin, get_type_hints

import msgspec

from kubelet_py.config.model import DURATION, ZERO_IS_A_VALUE, Between, Marker, OneOf

Mark = Marker | Between | OneOf


@dataclass(frozen=True)
class Shape:
    """One field: `base` is bool, int, float, str, tuple, dict or a dataclass; `item` the element of a list or a map."""

    base: Any
    marks: tuple[Mark, ...] = ()
    optional: bool = False
    item: "Shape | None" = None

    def has(self, marker: Marker) -> bool:
        """Whether the field carries the marker."""
        return marker in self.marks

    @property
    def is_object(self) -> bool:
        """A nested object with named fields."""
        return is_object(self.base)

    @property
    def is_duration(self) -> bool:
        """Spelled `1m30s` outside."""
        return self.has(DURATION)

    @property
    def zero_means_default(self) -> bool:
        """Zero in a file is the same as leaving the field out."""
        return self.base in (bool, int, float, str) and not self.has(ZERO_IS_A_VALUE)

    @property
    def items(self) -> "Shape":
        """The shape of the elements of a list or a map."""
        if self.item is None:
            raise TypeError(f"{self.base} has no elements")
        return self.item

    @property
    def expected(self) -> str:
        """What to write, in words."""
        if self.is_object:
            return "an object"
        if self.is_duration:
            return 'a duration such as "1m30s"'
        if self.base is tuple:
            return "a list"
        if self.base is dict:
            return "a map"
        return {bool: "true or false", int: "a whole number", float: "a number", str: "a string"}[self.base]


def shape_of(hint: Any) -> Shape:
    """The shape that a type hint describes."""
    marks: tuple[Mark, ...] = ()
    optional = False
    while True:
        origin = get_origin(hint)
        if origin is Annotated:
            hint, *metadata = get_args(hint)
            marks += tuple(mark for mark in metadata if isinstance(mark, Marker | Between | OneOf))
        elif origin in (Union, types.UnionType):
            (hint,) = (argument for argument in get_args(hint) if argument is not types.NoneType)
            optional = True
        elif origin is tuple:
            return Shape(tuple, marks, optional, shape_of(get_args(hint)[0]))
        elif isinstance(origin, type) and issubclass(origin, Mapping):
            return Shape(dict, marks, optional, shape_of(get_args(hint)[1]))
        else:
            return Shape(hint, marks, optional)


def is_object(kind: Any) -> bool:
    """A class with named fields: one of ours, or one of the Kubernetes API's."""
    return dataclasses.is_dataclass(kind) or (isinstance(kind, type) and issubclass(kind, msgspec.Struct))


def required_fields_of(kind: Any) -> list[str]:
    """The fields without a default."""
    if dataclasses.is_dataclass(kind):
        missing = dataclasses.MISSING
        return [f.name for f in dataclasses.fields(kind) if f.default is missing and f.default_factory is missing]
    return [f.name for f in msgspec.structs.fields(kind) if f.required]


_fields_by_kind: dict[Any, Mapping[str, Shape]] = {}


def fields_of(kind: Any) -> Mapping[str, Shape]:
    """The fields of an object by name; worked out once per type."""
    fields = _fields_by_kind.get(kind)
    if fields is None:
        hints = get_type_hints(kind, include_extras=True)
        fields = _fields_by_kind[kind] = {name: shape_of(hint) for name, hint in hints.items()}
    return fields


def leaves_of(kind: Any, prefix: str = "") -> Iterator[tuple[str, Shape]]:
    """Every field below an object that is not itself a nested object, by dotted path."""
    for name, shape in fields_of(kind).items():
        if shape.is_object:
            yield from leaves_of(shape.base, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", shape


def value_at(value: Any, path: str) -> Any:
    """The value of a dotted path; None below a nested object that is not there."""
    for name in path.split("."):
        if value is None:
            return None
        value = getattr(value, name)
    return value


def with_values(base: Any, values: Mapping[str, Any]) -> Any:
    """A copy of a frozen object with the values at dotted paths put in; missing nested objects are made."""
    changes: dict[str, Any] = {}
    nested: dict[str, dict[str, Any]] = {}
    for path, value in values.items():
        name, _, rest = path.partition(".")
        if rest:
            nested.setdefault(name, {})[rest] = value
        else:
            changes[name] = value
    for name, below in nested.items():
        current = changes.get(name, getattr(base, name))
        if current is None:
            current = fields_of(type(base))[name].base()
        changes[name] = with_values(current, below)
    return dataclasses.replace(base, **changes) if changes else base
